import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;

/** The PostgreSQL JDBC driver: connect, bind, fetch bit by bit, browse as DBeaver and Metabase do. */
public class Postgres {
  public static void main(String[] arguments) throws Exception {
    String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/attune?sslmode=require"
        + "&prepareThreshold=2&ApplicationName=a+test";
    try (Connection connection = DriverManager.getConnection(url, arguments[1], arguments[2])) {
      try (Statement statement = connection.createStatement()) {
        statement.execute("CREATE TABLE main.jdbc AS SELECT 1 AS id, 'pen' AS title, "
            + "CAST(1.50 AS DECIMAL(10, 2)) AS price, TIMESTAMP '2026-01-31 01:02:03' AS sold");
      }
      bind(connection);
      fetch(connection);
      browse(connection.getMetaData());
      errors(connection);
    }
    System.out.println("ok all");
  }

  /** Often enough that the driver goes over to binary forms. */
  private static void bind(Connection connection) throws SQLException {
    String text = "SELECT id, title, price, sold, make_array(1, 2) FROM jdbc WHERE id = ? AND title = ?";
    try (PreparedStatement statement = connection.prepareStatement(text)) {
      for (int time = 0; time < 6; time++) {
        statement.setLong(1, 1);
        statement.setString(2, "pen");
        try (ResultSet rows = statement.executeQuery()) {
          check(rows.next(), "a row");
          check(rows.getLong(1) == 1 && rows.getString(2).equals("pen"), "numbers and texts");
          check(rows.getBigDecimal(3).compareTo(new BigDecimal("1.50")) == 0, "decimals");
          check(rows.getTimestamp(4).equals(Timestamp.valueOf("2026-01-31 01:02:03")), "times");
          check(((Object[]) rows.getArray(5).getArray()).length == 2, "arrays");
          check(!rows.next(), "one row");
        }
      }
    }
    try (PreparedStatement statement =
        connection.prepareStatement("INSERT INTO jdbc VALUES (?, ?, ?, ?)")) {
      for (int row = 2; row < 5; row++) {
        statement.setInt(1, row);
        statement.setString(2, row == 3 ? null : "ink");
        statement.setBigDecimal(3, new BigDecimal("2.25"));
        statement.setTimestamp(4, Timestamp.valueOf("2026-01-31 01:02:03"));
        statement.addBatch();
      }
      int changed = 0;
      for (int count : statement.executeBatch()) {
        changed += count;
      }
      check(changed == 3, "a batch of changes");
    }
  }

  private static void fetch(Connection connection) throws SQLException {
    connection.setAutoCommit(false);
    try (Statement statement = connection.createStatement()) {
      statement.setFetchSize(1000);
      try (ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, 10500)")) {
        int count = 0;
        while (rows.next()) {
          count++;
        }
        check(count == 10500, "rows bit by bit");
      }
    }
    connection.commit();
    connection.setAutoCommit(true);
  }

  private static void browse(DatabaseMetaData metadata) throws SQLException {
    check(column(metadata.getSchemas(), "TABLE_SCHEM").contains("main"), "schemas");
    check(column(metadata.getCatalogs(), "TABLE_CAT").contains("attune"), "catalogs");
    String[] kinds = {"TABLE", "VIEW"};
    check(column(metadata.getTables(null, "main", "jd%", kinds), "TABLE_NAME").contains("jdbc"), "tables");
    check(!column(metadata.getTables(null, null, "%", null), "TABLE_NAME").isEmpty(), "all tables");
    List<Object> columns = column(metadata.getColumns(null, "main", "jdbc", "%"), "COLUMN_NAME");
    check(columns.equals(List.of("id", "title", "price", "sold")), "columns: " + columns);
    List<Object> types = column(metadata.getColumns(null, "main", "jdbc", "%"), "DATA_TYPE");
    List<Object> expected = List.of(Types.BIGINT, Types.VARCHAR, Types.NUMERIC, Types.TIMESTAMP);
    check(types.equals(expected), "types: " + types);
    check(column(metadata.getPrimaryKeys(null, "main", "jdbc"), "COLUMN_NAME").isEmpty(), "keys");
    check(column(metadata.getImportedKeys(null, "main", "jdbc"), "FK_NAME").isEmpty(), "imported");
    check(column(metadata.getExportedKeys(null, "main", "jdbc"), "FK_NAME").isEmpty(), "exported");
    check(column(metadata.getIndexInfo(null, "main", "jdbc", false, false), "INDEX_NAME").isEmpty(), "indexes");
    check(column(metadata.getTypeInfo(), "TYPE_NAME").contains("int8"), "type info");
    column(metadata.getFunctions(null, "main", "%"), "FUNCTION_NAME");
    column(metadata.getProcedures(null, "main", "%"), "PROCEDURE_NAME");
    column(metadata.getTablePrivileges(null, "main", "%"), "TABLE_NAME");
    column(metadata.getTableTypes(), "TABLE_TYPE");
    check(metadata.getSQLKeywords().length() > 10, "keywords");
    check(metadata.getDatabaseMajorVersion() == 16, "the version");
  }

  private static void errors(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.executeQuery("SELECT * FROM nowhere");
      check(false, "an error");
    } catch (SQLException error) {
      check(error.getSQLState().equals("42P01"), "the state " + error.getSQLState());
    }
    try (Statement statement = connection.createStatement()) {
      statement.setQueryTimeout(1);
      statement.executeQuery("SELECT sum(value) FROM generate_series(1, 1000000000000000)");
      check(false, "a time-out");
    } catch (SQLException error) {
      check(error.getSQLState().equals("57014"), "the state " + error.getSQLState());
    }
  }

  private static List<Object> column(ResultSet rows, String name) throws SQLException {
    List<Object> found = new ArrayList<>();
    try (rows) {
      while (rows.next()) {
        found.add(rows.getObject(name));
      }
    }
    return found;
  }

  private static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }
}
