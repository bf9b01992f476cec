import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/** The Flight SQL JDBC driver against a server: connect, ask, bind, browse. */
public final class Browse {
  private Browse() {}

  public static void main(String[] arguments) throws Exception {
    String url = "jdbc:arrow-flight-sql://" + arguments[0] + "?useEncryption=false";
    String user = arguments[1];
    try (Connection connection = DriverManager.getConnection(url, login(user, arguments[2]))) {
      queries(connection);
      updates(connection);
      browse(connection.getMetaData());
      everyFact(connection.getMetaData());
      refusals(connection, url, user);
    }
    Connection named =
        DriverManager.getConnection(url + "&catalog=attune", login(user, arguments[2]));
    try (ResultSet rows = named.createStatement().executeQuery("SELECT current_catalog()")) {
      check("a catalog in the URL", rows.next() && "attune".equals(rows.getString(1)));
    }
    try {
      named.close();
    } catch (SQLException error) {
      // Driver 18.3 ends the session after it has shut its channel down.
      check("a late CloseSession", error.getMessage().contains("Channel shutdown"));
    }
    System.out.println("ok all");
  }

  private static Properties login(String user, String password) {
    Properties properties = new Properties();
    properties.put("user", user);
    properties.put("password", password);
    return properties;
  }

  private static void queries(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT 1 AS n, 'x' AS word")) {
      check("a row", rows.next() && rows.getLong("n") == 1 && "x".equals(rows.getString("word")));
      check("one row only", !rows.next());
    }
    String text = "SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n > ? ORDER BY n";
    try (PreparedStatement statement = connection.prepareStatement(text)) {
      for (int low = 1; low <= 2; low++) {
        statement.setLong(1, low);
        try (ResultSet rows = statement.executeQuery()) {
          check("a bound value", rows.next() && rows.getLong(1) == low + 1);
        }
      }
    }
  }

  private static void updates(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_people AS SELECT 1 AS id, 'Ada' AS name");
      int changed = statement.executeUpdate("INSERT INTO jdbc_people SELECT 2, 'Bob'");
      check("rows changed are counted", changed == 1);
    }
    String text = "INSERT INTO jdbc_people VALUES (?, ?)";
    try (PreparedStatement statement = connection.prepareStatement(text)) {
      statement.setLong(1, 3);
      statement.setString(2, "Cyd");
      check("a prepared update", statement.executeUpdate() == 1);
      for (int id = 4; id <= 6; id++) {
        statement.setLong(1, id);
        statement.setString(2, "person " + id);
        statement.addBatch();
      }
      int changed = 0;
      for (int one : statement.executeBatch()) {
        changed += Math.max(one, 0);
      }
      check("a batch of updates: " + changed, changed == 3);
    }
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT count(*) FROM jdbc_people")) {
      check("each statement ran once", rows.next() && rows.getLong(1) == 6);
    }
  }

  private static void browse(DatabaseMetaData metadata) throws SQLException {
    check("the product", "Attune".equals(metadata.getDatabaseProductName()));
    check("catalogs", column(metadata.getCatalogs(), "TABLE_CAT").contains("attune"));
    check("schemas", column(metadata.getSchemas(), "TABLE_SCHEM").contains("main"));
    check("table types", column(metadata.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
    check("all tables", !column(metadata.getTables(null, null, "%", null), "TABLE_NAME").isEmpty());
    List<String> tables =
        column(
            metadata.getTables("attune", "main", "jdbc\\_people", new String[] {"TABLE"}),
            "TABLE_NAME");
    check("a table", tables.equals(List.of("jdbc_people")));
    List<String> columns =
        column(metadata.getColumns(null, "main", "jdbc_people", "%"), "COLUMN_NAME");
    check("columns", columns.equals(List.of("id", "name")));
    // Up to version 19 the driver answers this one by itself.
    column(metadata.getTypeInfo(), "TYPE_NAME");
    check("no primary keys", column(metadata.getPrimaryKeys(null, null, "x"), "TABLE_NAME").isEmpty());
    check("no keys", column(metadata.getImportedKeys(null, null, "x"), "FKTABLE_NAME").isEmpty());
    check("no keys", column(metadata.getExportedKeys(null, null, "x"), "FKTABLE_NAME").isEmpty());
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
    check(called + " facts", called > 100);
  }

  private static void refusals(Connection connection, String url, String user) throws SQLException {
    try {
      DriverManager.getConnection(url, login(user, "wrong")).close();
      throw new IllegalStateException("a wrong password got in");
    } catch (SQLException refused) {
      check("a wrong password is refused", true);
    }
    try (Statement statement = connection.createStatement()) {
      statement.executeQuery("SELECT nothing FROM nowhere");
      throw new IllegalStateException("an unknown table gave rows");
    } catch (SQLException refused) {
      check("an error has its code", refused.getMessage().contains("ATT-"));
    }
  }

  private static List<String> column(ResultSet rows, String name) throws SQLException {
    List<String> values = new ArrayList<>();
    try (rows) {
      while (rows.next()) {
        values.add(rows.getString(name));
      }
    }
    return values;
  }

  private static void check(String name, boolean condition) {
    if (!condition) {
      throw new IllegalStateException(name);
    }
    System.out.println("ok " + name);
  }
}
