import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.Date;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Time;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.Arrays;

/** Values for placeholders: of every type, NULL, in batches. The JVM's time zone is UTC. */
final class Parameters {
  private static final String COLUMNS =
      "(flag BOOLEAN, tiny TINYINT, small SMALLINT, num INT, big BIGINT, ubig BIGINT UNSIGNED, "
          + "real_num REAL, dbl DOUBLE, price DECIMAL(12, 2), word VARCHAR, bytes BYTEA, day DATE, "
          + "at TIMESTAMP)";

  private Parameters() {}

  static void run(Connection connection) throws Exception {
    everyType(connection);
    times(connection);
    unknown(connection);
    batches(connection);
    wrong(connection);
  }

  private static void everyType(Connection connection) throws Exception {
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_values " + COLUMNS);
    }
    String insert = "INSERT INTO jdbc_values VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    Timestamp moment = Timestamp.valueOf("2024-02-29 12:34:56.789");
    try (PreparedStatement prepared = connection.prepareStatement(insert)) {
      Check.equal("placeholders are counted", prepared.getParameterMetaData().getParameterCount(), 13);
      prepared.setBoolean(1, true);
      prepared.setByte(2, (byte) -128);
      prepared.setShort(3, (short) -32768);
      prepared.setInt(4, Integer.MIN_VALUE);
      prepared.setLong(5, Long.MIN_VALUE + 1);
      prepared.setBigDecimal(6, new BigDecimal("9223372036854775807"));
      prepared.setFloat(7, -0.25f);
      prepared.setDouble(8, 1.5e300);
      prepared.setBigDecimal(9, new BigDecimal("-1234567.89"));
      prepared.setString(10, "grün 😀");
      prepared.setBytes(11, new byte[] {0, -1, 16});
      prepared.setDate(12, Date.valueOf("2024-02-29"));
      prepared.setTimestamp(13, moment);
      Check.equal("a row of values is inserted", prepared.executeUpdate(), 1);
      for (int index = 1; index <= 13; index++) {
        prepared.setNull(index, Types.NULL);
      }
      Check.equal("a row of NULLs is inserted", prepared.executeUpdate(), 1);
      prepared.clearParameters();
      Check.refused("cleared values", prepared::executeUpdate, "");
    }
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT * FROM jdbc_values ORDER BY num")) {
      rows.next();
      Check.equal("a boolean came back", rows.getBoolean(1), true);
      Check.equal("a byte came back", rows.getByte(2), (byte) -128);
      Check.equal("a short came back", rows.getShort(3), (short) -32768);
      Check.equal("an int came back", rows.getInt(4), Integer.MIN_VALUE);
      Check.equal("a long came back", rows.getLong(5), Long.MIN_VALUE + 1);
      Check.equal("an unsigned came back", rows.getBigDecimal(6).longValueExact(), Long.MAX_VALUE);
      Check.equal("a float came back", rows.getFloat(7), -0.25f);
      Check.equal("a double came back", rows.getDouble(8), 1.5e300);
      Check.equal("a decimal came back", rows.getBigDecimal(9), new BigDecimal("-1234567.89"));
      Check.equal("a text came back", rows.getString(10), "grün 😀");
      Check.equal("bytes came back", rows.getBytes(11), new byte[] {0, -1, 16});
      Check.equal("a date came back", rows.getDate(12).toString(), "2024-02-29");
      Check.equal("a timestamp came back", rows.getTimestamp(13), moment);
      rows.next();
      for (int index = 1; index <= 13; index++) {
        Check.that("NULL came back " + index, rows.getObject(index) == null && rows.wasNull());
      }
      Check.that("nothing more", !rows.next());
    }
  }

  /** The driver writes milliseconds whatever the unit, so the server asks it for milliseconds. */
  private static void times(Connection connection) throws SQLException {
    for (String unit : new String[] {"Second", "Millisecond", "Microsecond", "Nanosecond"}) {
      String text =
          "SELECT 1 WHERE arrow_cast('2024-02-29T12:34:56', 'Timestamp(" + unit + ", None)') = ?";
      try (PreparedStatement prepared = connection.prepareStatement(text)) {
        prepared.setTimestamp(1, Timestamp.valueOf("2024-02-29 12:34:56"));
        Check.equal("a timestamp as " + unit, Check.read(prepared.executeQuery()), 1);
      }
    }
    String text = "SELECT CAST(? AS TIME), CAST(? AS DATE)";
    try (PreparedStatement prepared = connection.prepareStatement(text)) {
      prepared.setTime(1, Time.valueOf("12:34:56"));
      prepared.setDate(2, Date.valueOf("2024-02-29"));
      try (ResultSet rows = prepared.executeQuery()) {
        rows.next();
        Check.equal("a time", rows.getString(1), "12:34:56");
        Check.equal("a date", rows.getString(2), "2024-02-29");
      }
    }
  }

  /** A placeholder whose type the statement does not tell takes text. */
  private static void unknown(Connection connection) throws SQLException {
    try (PreparedStatement prepared = connection.prepareStatement("SELECT ? AS a, ? AS b")) {
      prepared.setString(1, "x");
      prepared.setNull(2, Types.VARCHAR);
      try (ResultSet rows = prepared.executeQuery()) {
        rows.next();
        Check.equal("text for an unknown type", rows.getString(1), "x");
        Check.equal("NULL for an unknown type", rows.getString(2), null);
      }
    }
  }

  private static void batches(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_batch (id BIGINT, word VARCHAR, at TIMESTAMP)");
    }
    try (PreparedStatement prepared =
        connection.prepareStatement("INSERT INTO jdbc_batch VALUES (?, ?, ?)")) {
      for (int id = 0; id < 5; id++) {
        prepared.setLong(1, id);
        prepared.setString(2, id == 3 ? null : "w" + id);
        prepared.setTimestamp(3, Timestamp.valueOf("2024-02-29 12:34:5" + id));
        prepared.addBatch();
      }
      int[] counts = prepared.executeBatch();
      Check.equal("a batch counts its rows " + Arrays.toString(counts), Arrays.stream(counts).sum(), 5);
    }
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT count(*), count(word), sum(id), max(at) FROM jdbc_batch")) {
      rows.next();
      Check.equal("each row of the batch arrived", rows.getLong(1), 5L);
      Check.equal("and its NULL", rows.getLong(2), 4L);
      Check.equal("with its values", rows.getLong(3), 10L);
      Check.equal("and its times", rows.getString(4), "2024-02-29 12:34:54.0");
    }
  }

  private static void wrong(Connection connection) throws Exception {
    try (PreparedStatement prepared = connection.prepareStatement("SELECT 1 WHERE 1 < CAST(? AS BIGINT)")) {
      Check.refused("no value", prepared::executeQuery, "");
      Check.refused("a second placeholder", () -> prepared.setLong(2, 1), "");
      prepared.setLong(1, 2);
      Check.equal("and then it works", Check.read(prepared.executeQuery()), 1);
    }
  }
}
