import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.util.Properties;

/** The Flight SQL JDBC driver against a server: every check prints a line, "ok all" the last. */
public final class Main {
  private Main() {}

  /** Takes address, user, password and the folder of types.sql. */
  public static void main(String[] arguments) throws Exception {
    String url = "jdbc:arrow-flight-sql://" + arguments[0] + "?useEncryption=false";
    Properties login = new Properties();
    login.put("user", arguments[1]);
    login.put("password", arguments[2]);
    try (Connection connection = DriverManager.getConnection(url, login)) {
      System.out.println("driver " + connection.getMetaData().getDriverVersion());
      Browse.run(connection, url, login);
      Tools.run(connection);
      AllTypes.run(connection, Path.of(arguments[3]));
      Parameters.run(connection);
      Results.run(connection, url, login);
    }
    System.out.println("ok all");
  }
}
