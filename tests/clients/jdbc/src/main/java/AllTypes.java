import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Array;
import java.sql.Connection;
import java.sql.Date;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The columns of tests/clients/types.sql through JDBC, the JVM's time zone being UTC: as text, which
 * is what a browser shows, and as objects.
 */
final class AllTypes {
  private AllTypes() {}

  /** What getString gives. */
  private static final Map<String, String> TEXTS = new LinkedHashMap<>();

  static {
    String[] texts = {
      "int8", "-128", "int16", "-32768", "int32", "-2147483648", "int64", "-9223372036854775807",
      "uint8", "255", "uint16", "65535", "uint32", "4294967295", "uint64", "18446744073709551615",
      "float16", "0.5", "float32", "-0.25", "float64", "1.5E300",
      "decimal32", "-1234567.89", "decimal64", "-1234567.890123",
      "decimal128", "12345678901234567890.0123456789",
      "decimal256", "123456789012345678901234567890123456789012345.50000",
      "truth", "true", "utf8", "grün 😀", "large_utf8", "grün 😀",
      "utf8_view", "a text longer than twelve",
      "date32", "2024-02-29", "date64", "2024-02-29",
      "time32_s", "12:34:56", "time32_ms", "12:34:56.789",
      // The driver's times end at milliseconds.
      "time64_us", "12:34:56.789", "time64_ns", "12:34:56.789",
      "timestamp_s", "2024-02-29 12:34:56.0", "timestamp_ms", "2024-02-29 12:34:56.789",
      "timestamp_us", "2024-02-29 12:34:56.789012", "timestamp_ns", "2024-02-29 12:34:56.789012345",
      "timestamptz_s", "2024-02-29 12:34:56.0", "timestamptz_ms", "2024-02-29 13:34:56.789",
      // Java does not know the zone +05:30 and takes it for UTC.
      "timestamptz_us", "2024-02-29 12:34:56.789012",
      "timestamptz_ns", "2024-02-29 12:34:56.789012345",
      "duration_s", "PT1M30S", "duration_ms", "PT1M30.001S", "duration_us", "PT1M30.000001S",
      "duration_ns", "PT1M30.000000001S",
      "interval_ym", "P14M", "interval_dt", "P3DT4S", "interval_mdn", "P1M2DT3S",
      "list_int", "[1,null,3]", "large_list", "[1,null,3]", "fixed_list", "[1,null,3]",
      "list_text", "[\"x\",null]", "list_list", "[[1,2],[3]]",
      "record", "{\"a\":1,\"b\":\"x\"}", "list_record", "[{\"item\":\"i1\",\"score\":0.5}]",
      // Inside a structure the driver shows a date as its number of days.
      "nested", "{\"tags\":[\"p\",\"q\"],\"at\":19782}", "map_int", "{\"k1\":1,\"k2\":null}",
      "dictionary", "d", "dictionary_int", "7",
    };
    for (int index = 0; index < texts.length; index += 2) {
      TEXTS.put(texts[index], texts[index + 1]);
    }
  }

  static void run(Connection connection, Path folder) throws Exception {
    String query = Files.readString(folder.resolve("types.sql"));
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(query)) {
      rows.next();
      texts(rows);
      objects(rows);
      described(rows.getMetaData(), rows);
      rows.next();
      int columns = rows.getMetaData().getColumnCount();
      for (int column = 1; column <= columns; column++) {
        String name = rows.getMetaData().getColumnName(column);
        Check.that("NULL of " + name, rows.getString(column) == null && rows.wasNull());
        if (!name.startsWith("timestamptz")) {
          Check.that("NULL object of " + name, rows.getObject(column) == null && rows.wasNull());
        }
      }
      Check.that("two rows", !rows.next());
    }
  }

  private static void texts(ResultSet rows) throws SQLException {
    for (Map.Entry<String, String> expected : TEXTS.entrySet()) {
      Check.equal(expected.getKey(), rows.getString(expected.getKey()), expected.getValue());
    }
    int untold = rows.getMetaData().getColumnCount() - TEXTS.size();
    Check.equal("all but bytes and nothing have a text", untold, 5);
  }

  private static void objects(ResultSet rows) throws Exception {
    byte[] bytes = {0, -1, 16};
    for (String name : new String[] {"bytes", "large_bytes", "bytes_view", "fixed_bytes"}) {
      Check.equal(name, rows.getBytes(name), bytes);
    }
    Check.equal("nothing", rows.getObject("nothing"), null);
    Check.equal("a short object", rows.getObject("uint8"), (short) 255);
    Check.equal("a long object", rows.getObject("uint32"), 4294967295L);
    Check.equal("a large object", rows.getObject("uint64"), new BigDecimal("18446744073709551615"));
    Check.equal("a decimal object", rows.getObject("decimal32"), new BigDecimal("-1234567.89"));
    Check.equal("a date object", rows.getObject("date32"), Date.valueOf("2024-02-29"));
    Timestamp moment = Timestamp.valueOf("2024-02-29 12:34:56.789012345");
    Check.equal("a timestamp object", rows.getObject("timestamp_ns"), moment);
    Check.equal("a timestamp with zone", rows.getTimestamp("timestamptz_ns"), moment);
    OffsetDateTime offset = OffsetDateTime.parse("2024-02-29T13:34:56.789+01:00");
    Check.equal("with its offset", rows.getObject("timestamptz_ms", OffsetDateTime.class), offset);
    Array list = rows.getArray("list_text");
    Check.equal("an array", String.valueOf(((Object[]) list.getArray())[0]), "x");
    Check.equal("with its zone, by name", rows.getObject("timestamptz_ns"), moment);
    // Of 18.3.0, not of 18.2.0 or 19: apache/arrow-java#839.
    int zoned = rows.findColumn("timestamptz_ns");
    Check.refused(
        "by its number the driver cannot get it",
        () -> rows.getObject(zoned),
        "not implemented");
  }

  private static void described(ResultSetMetaData columns, ResultSet rows) throws SQLException {
    int decimal = rows.findColumn("decimal128");
    Check.equal("the precision of a decimal", columns.getPrecision(decimal), 38);
    Check.equal("the scale of a decimal", columns.getScale(decimal), 10);
    Check.equal("the type of a decimal", columns.getColumnType(decimal), Types.DECIMAL);
    int zoned = rows.findColumn("timestamptz_ns");
    Check.equal("a type with zone", columns.getColumnType(zoned), Types.TIMESTAMP_WITH_TIMEZONE);
    Check.that("text is case sensitive", columns.isCaseSensitive(rows.findColumn("utf8")));
    Check.that("numbers are searchable", columns.isSearchable(rows.findColumn("int64")));
  }
}
