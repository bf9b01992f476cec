import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Properties;

/** Ask, bind, browse, be refused. */
final class Browse {
  private Browse() {}

  static void run(Connection connection, String url, Properties login) throws Exception {
    queries(connection);
    updates(connection);
    browse(connection.getMetaData());
    everyFact(connection.getMetaData());
    tokens(connection, url);
    refusals(connection, url, login);
    Connection named = DriverManager.getConnection(url + "&catalog=attune", login);
    try (ResultSet rows = named.createStatement().executeQuery("SELECT current_catalog()")) {
      Check.that("a catalog in the URL", rows.next() && "attune".equals(rows.getString(1)));
    }
    try {
      named.close();
    } catch (SQLException error) {
      // Driver 18.3 ends the session after it has shut its channel down.
      Check.that("a late CloseSession", error.getMessage().contains("Channel shutdown"));
    }
  }

  private static void queries(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT 1 AS n, 'x' AS word")) {
      Check.that("a row", rows.next() && rows.getLong("n") == 1 && "x".equals(rows.getString("word")));
      Check.that("one row only", !rows.next());
    }
    String text = "SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n > ? ORDER BY n";
    try (PreparedStatement statement = connection.prepareStatement(text)) {
      for (int low = 1; low <= 2; low++) {
        statement.setLong(1, low);
        try (ResultSet rows = statement.executeQuery()) {
          Check.that("a bound value", rows.next() && rows.getLong(1) == low + 1);
        }
      }
    }
  }

  private static void updates(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_people AS SELECT 1 AS id, 'Ada' AS name");
      int changed = statement.executeUpdate("INSERT INTO jdbc_people SELECT 2, 'Bob'");
      Check.that("rows changed are counted", changed == 1);
    }
    String text = "INSERT INTO jdbc_people VALUES (?, ?)";
    try (PreparedStatement statement = connection.prepareStatement(text)) {
      statement.setLong(1, 3);
      statement.setString(2, "Cyd");
      Check.that("a prepared update", statement.executeUpdate() == 1);
    }
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT count(*) FROM jdbc_people")) {
      Check.that("each statement ran once", rows.next() && rows.getLong(1) == 3);
    }
  }

  private static void browse(DatabaseMetaData metadata) throws SQLException {
    Check.that("the product", "Attune".equals(metadata.getDatabaseProductName()));
    Check.that("catalogs", Check.column(metadata.getCatalogs(), "TABLE_CAT").contains("attune"));
    Check.that("schemas", Check.column(metadata.getSchemas(), "TABLE_SCHEM").contains("main"));
    Check.that("table types", Check.column(metadata.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
    Check.that("all tables", !Check.column(metadata.getTables(null, null, "%", null), "TABLE_NAME").isEmpty());
    List<String> tables =
        Check.column(
            metadata.getTables("attune", "main", "jdbc\\_people", new String[] {"TABLE"}),
            "TABLE_NAME");
    Check.that("a table", tables.equals(List.of("jdbc_people")));
    List<String> columns =
        Check.column(metadata.getColumns(null, "main", "jdbc_people", "%"), "COLUMN_NAME");
    Check.that("columns", columns.equals(List.of("id", "name")));
    // Up to version 19 the driver answers this one by itself.
    Check.column(metadata.getTypeInfo(), "TYPE_NAME");
    Check.that("no primary keys", Check.column(metadata.getPrimaryKeys(null, null, "x"), "TABLE_NAME").isEmpty());
    Check.that("no keys", Check.column(metadata.getImportedKeys(null, null, "x"), "FKTABLE_NAME").isEmpty());
    Check.that("no keys", Check.column(metadata.getExportedKeys(null, null, "x"), "FKTABLE_NAME").isEmpty());
  }

  /** Calls every getter without arguments that asks the server for a fact. */
  private static void everyFact(DatabaseMetaData metadata) throws Exception {
    int called = 0;
    for (Method method : DatabaseMetaData.class.getMethods()) {
      Class<?> type = method.getReturnType();
      boolean fact = type == boolean.class || type == int.class || type == String.class;
      if (method.getParameterCount() == 0 && fact) {
        try {
          method.invoke(metadata);
          called++;
        } catch (InvocationTargetException thrown) {
          throw new IllegalStateException(method.getName(), thrown.getCause());
        }
      }
    }
    Check.that(called + " facts", called > 100);
  }

  private static void tokens(Connection connection, String url) throws SQLException {
    String token;
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("CREATE TOKEN jdbc EXPIRES IN '1 day'")) {
      rows.next();
      token = rows.getString("token");
    }
    try (Connection other = DriverManager.getConnection(url + "&token=" + token);
        ResultSet rows = other.createStatement().executeQuery("SELECT current_user()")) {
      rows.next();
      Check.equal("a token in the URL", rows.getString(1), "root");
    }
  }

  private static void refusals(Connection connection, String url, Properties login)
      throws Exception {
    Properties wrong = new Properties();
    wrong.putAll(login);
    wrong.put("password", "wrong");
    Check.refused("a wrong password", () -> DriverManager.getConnection(url, wrong), "ATT-1501");
    try (Statement statement = connection.createStatement()) {
      Check.refused(
          "an unknown table", () -> statement.executeQuery("SELECT a FROM nowhere"), "ATT-4001");
      Check.refused("no SQL", () -> statement.executeQuery("SELEC 1"), "ATT-1001");
      Check.refused(
          "a value that is none",
          () -> Check.read(statement.executeQuery("SELECT CAST('x' AS INT)")),
          "ATT-3001");
      Check.equal("the connection goes on", Check.read(statement.executeQuery("SELECT 1")), 1);
    }
  }
}
