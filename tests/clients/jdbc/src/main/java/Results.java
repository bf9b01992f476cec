import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/** Large results, results left half read, limits of rows, closing. */
final class Results {
  private static final String MILLION = "SELECT * FROM generate_series(1, 1000000) AS t(n)";

  private Results() {}

  static void run(Connection connection, String url, Properties login) throws Exception {
    large(connection);
    halfRead(connection);
    cancelled(connection);
    closed(url, login);
  }

  private static void large(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(MILLION)) {
      long sum = 0;
      long count = 0;
      while (rows.next()) {
        sum += rows.getLong(1);
        count++;
      }
      Check.equal("a million rows", count, 1000000L);
      Check.equal("with their values", sum, 500000500000L);
    }
    String wide = "SELECT repeat('x', 1000000) AS word FROM generate_series(1, 12)";
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(wide)) {
      int count = 0;
      while (rows.next()) {
        if (rows.getString(1).length() != 1000000) {
          throw new IllegalStateException("a text is cut");
        }
        count++;
      }
      Check.equal("rows of a megabyte", count, 12);
    }
  }

  private static void halfRead(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.setMaxRows(10);
      Check.equal("a limit of rows", Check.read(statement.executeQuery(MILLION)), 10);
    }
    for (int round = 0; round < 20; round++) {
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery(MILLION)) {
        rows.next();
      }
    }
    Check.that("results left half read hinder nothing", connection.isValid(10));
  }

  private static void cancelled(Connection connection) throws Exception {
    String ten = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))";
    StringBuilder endless = new StringBuilder("SELECT t0.n FROM " + ten + " AS t0(n)");
    for (int table = 1; table < 9; table++) {
      endless.append(" CROSS JOIN ").append(ten).append(" AS t").append(table).append("(n)");
    }
    try (Statement statement = connection.createStatement()) {
      ResultSet rows = statement.executeQuery(endless.toString());
      Check.that("a long result begins", rows.next());
      statement.cancel();
      Check.refused("and is cancelled", () -> Check.read(rows), "cancel");
      Check.that("the connection goes on", connection.isValid(10));
    }
  }

  private static void closed(String url, Properties login) throws Exception {
    Connection connection = DriverManager.getConnection(url, login);
    Statement statement = connection.createStatement();
    ResultSet rows = statement.executeQuery("SELECT 1");
    rows.close();
    Check.that("closed rows", rows.isClosed());
    statement.close();
    Check.refused("a closed statement", () -> statement.executeQuery("SELECT 1"), "");
    connection.close();
    Check.that("a closed connection", connection.isClosed());
    Check.refused("refuses statements", connection::createStatement, "");
  }
}
