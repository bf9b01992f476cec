import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;

/** What the other classes check with: each check prints one line or ends the program. */
final class Check {
  private Check() {}

  /** Something that may throw. */
  interface Action {
    void run() throws Exception;
  }

  static void that(String name, boolean condition) {
    if (!condition) {
      throw new IllegalStateException(name);
    }
    System.out.println("ok " + name);
  }

  static void equal(String name, Object found, Object expected) {
    if (!Objects.deepEquals(found, expected)) {
      throw new IllegalStateException(name + ": " + found + " is not " + expected);
    }
    System.out.println("ok " + name);
  }

  /** Checks that the action fails with an error that has the words. */
  static void refused(String name, Action action, String words) throws Exception {
    try {
      action.run();
    } catch (SQLException | RuntimeException error) {
      String said = String.valueOf(error.getMessage());
      that(name + ": " + said.lines().reduce((first, last) -> last).orElse(""), said.contains(words));
      return;
    }
    throw new IllegalStateException(name + ": it worked");
  }

  /** One column of all rows. */
  static List<String> column(ResultSet rows, String name) throws SQLException {
    List<String> values = new ArrayList<>();
    try (rows) {
      while (rows.next()) {
        values.add(rows.getString(name));
      }
    }
    return values;
  }

  /** Reads all rows and columns as a browser does; gives the number of rows. */
  static int read(ResultSet rows) throws SQLException {
    int count = 0;
    try (rows) {
      int columns = rows.getMetaData().getColumnCount();
      while (rows.next()) {
        for (int column = 1; column <= columns; column++) {
          rows.getObject(column);
        }
        count++;
      }
    }
    return count;
  }
}
