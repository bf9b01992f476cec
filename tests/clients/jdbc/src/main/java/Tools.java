import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * What BI tools and browsers call through JDBC, in the order in which they call it: DBeaver,
 * DataGrip, Tableau and Metabase with their generic JDBC connections.
 */
final class Tools {
  /** A call of a tool; gives a number of rows, or anything. */
  interface Call {
    Object run() throws Exception;
  }

  private final Connection connection;
  private final DatabaseMetaData metadata;
  private final Map<String, String> refused = new TreeMap<>();

  private Tools(Connection connection) throws SQLException {
    this.connection = connection;
    this.metadata = connection.getMetaData();
  }

  static void run(Connection connection) throws Exception {
    Tools tools = new Tools(connection);
    try (Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE tool_orders AS SELECT 1 AS id, 2.5 AS amount, 'x' AS name");
      statement.executeUpdate("CREATE VIEW tool_view AS SELECT id, name FROM tool_orders");
    }
    tools.dbeaver();
    tools.dataGrip();
    tools.tableau();
    tools.metabase();
    System.out.println("refused: " + tools.refused);
    // An unknown table; what the driver has not; what the tool tries and does without.
    Check.equal(
        "only what cannot be is refused",
        tools.refused.keySet(),
        Set.of("DBeaver: error", "DataGrip: escape processing", "Tableau: temporary table"));
  }

  private Object call(String name, Call call) {
    try {
      Object found = call.run();
      System.out.println("ok " + name + (found == null ? "" : " " + found));
      return found;
    } catch (Exception error) {
      String said = String.valueOf(error.getMessage());
      refused.put(name, error.getClass().getSimpleName() + ": " + said.lines().findFirst().orElse(""));
      return null;
    }
  }

  private void dbeaver() throws Exception {
    call("DBeaver: product", () -> metadata.getDatabaseProductName() + " " + metadata.getDatabaseProductVersion());
    call("DBeaver: driver", () -> metadata.getDriverName() + " " + metadata.getDriverVersion());
    call("DBeaver: quote", metadata::getIdentifierQuoteString);
    call("DBeaver: keywords", () -> metadata.getSQLKeywords().length());
    call("DBeaver: functions", () -> metadata.getNumericFunctions().length() + metadata.getStringFunctions().length());
    call("DBeaver: terms", () -> metadata.getCatalogTerm() + metadata.getSchemaTerm() + metadata.getProcedureTerm());
    call("DBeaver: separator", metadata::getCatalogSeparator);
    call("DBeaver: escape", metadata::getSearchStringEscape);
    call("DBeaver: table types", () -> Check.read(metadata.getTableTypes()));
    call("DBeaver: types", () -> Check.read(metadata.getTypeInfo()));
    call("DBeaver: catalogs", () -> Check.read(metadata.getCatalogs()));
    call("DBeaver: schemas", () -> Check.read(metadata.getSchemas("attune", null)));
    call("DBeaver: all schemas", () -> Check.read(metadata.getSchemas()));
    call("DBeaver: tables", () -> Check.read(metadata.getTables("attune", "main", "%", null)));
    call("DBeaver: columns", () -> Check.read(metadata.getColumns("attune", "main", "tool_orders", "%")));
    call("DBeaver: primary keys", () -> Check.read(metadata.getPrimaryKeys("attune", "main", "tool_orders")));
    call("DBeaver: indexes", () -> Check.read(metadata.getIndexInfo("attune", "main", "tool_orders", false, true)));
    call("DBeaver: imported keys", () -> Check.read(metadata.getImportedKeys("attune", "main", "tool_orders")));
    call("DBeaver: exported keys", () -> Check.read(metadata.getExportedKeys("attune", "main", "tool_orders")));
    call("DBeaver: procedures", () -> Check.read(metadata.getProcedures("attune", "main", "%")));
    call("DBeaver: functions of a schema", () -> Check.read(metadata.getFunctions("attune", "main", "%")));
    call("DBeaver: user types", () -> Check.read(metadata.getUDTs("attune", "main", "%", null)));
    call("DBeaver: super tables", () -> Check.read(metadata.getSuperTables("attune", "main", "%")));
    call("DBeaver: alive", () -> connection.isValid(10));
    call("DBeaver: autocommit", connection::getAutoCommit);
    call("DBeaver: isolation", connection::getTransactionIsolation);
    call("DBeaver: catalog", connection::getCatalog);
    call("DBeaver: schema", connection::getSchema);
    call("DBeaver: read only", connection::isReadOnly);
    call("DBeaver: warnings", connection::getWarnings);
    try (Statement statement = connection.createStatement()) {
      call("DBeaver: fetch size", () -> { statement.setFetchSize(200); return null; });
      call("DBeaver: row limit", () -> { statement.setMaxRows(200); return null; });
      call("DBeaver: time limit", () -> { statement.setQueryTimeout(20); return null; });
      call("DBeaver: execute", () -> statement.execute("SELECT x.* FROM attune.main.tool_orders x"));
      call("DBeaver: rows", () -> Check.read(statement.getResultSet()));
      call("DBeaver: more results", statement::getMoreResults);
      call("DBeaver: update count", statement::getUpdateCount);
      call("DBeaver: count", () -> Check.read(statement.executeQuery("SELECT count(*) FROM attune.main.tool_orders x")));
      call("DBeaver: error", () -> statement.execute("SELECT * FROM nowhere"));
    }
  }

  private void dataGrip() throws Exception {
    call("DataGrip: catalogs", () -> Check.read(metadata.getCatalogs()));
    call("DataGrip: schemas", () -> Check.read(metadata.getSchemas()));
    String[] types = {"TABLE", "VIEW", "SYSTEM TABLE", "GLOBAL TEMPORARY", "LOCAL TEMPORARY", "ALIAS", "SYNONYM"};
    call("DataGrip: tables", () -> Check.read(metadata.getTables("attune", "main", "%", types)));
    call("DataGrip: columns", () -> Check.read(metadata.getColumns("attune", "main", "%", "%")));
    call("DataGrip: procedures", () -> Check.read(metadata.getProcedures("attune", "main", "%")));
    call("DataGrip: procedure columns", () -> Check.read(metadata.getProcedureColumns("attune", "main", "%", "%")));
    call("DataGrip: function columns", () -> Check.read(metadata.getFunctionColumns("attune", "main", "%", "%")));
    call("DataGrip: best row identifier", () -> Check.read(metadata.getBestRowIdentifier("attune", "main", "tool_orders", 2, true)));
    call("DataGrip: privileges", () -> Check.read(metadata.getTablePrivileges("attune", "main", "%")));
    call("DataGrip: client info", () -> Check.read(metadata.getClientInfoProperties()));
    try (Statement statement = connection.createStatement()) {
      call("DataGrip: keep alive", () -> Check.read(statement.executeQuery("select 'keep alive'")));
      call("DataGrip: page", () -> Check.read(statement.executeQuery("SELECT t.* FROM main.tool_orders t LIMIT 501")));
      call("DataGrip: escape processing", () -> { statement.setEscapeProcessing(false); return null; });
      call("DataGrip: schema switch", () -> statement.execute("USE main"));
    }
    call("DataGrip: explain", () -> {
      try (Statement statement = connection.createStatement()) {
        return Check.read(statement.executeQuery("EXPLAIN SELECT * FROM main.tool_orders"));
      }
    });
  }

  private void tableau() throws Exception {
    call("Tableau: tables", () -> Check.read(metadata.getTables(null, "main", "%", new String[] {"TABLE", "VIEW"})));
    call("Tableau: every table", () -> Check.read(metadata.getTables("attune", null, "%", new String[] {"TABLE", "VIEW", "SYSTEM TABLE"})));
    call("Tableau: cross reference", () -> Check.read(metadata.getCrossReference("attune", "main", "tool_orders", "attune", "main", "tool_view")));
    call("Tableau: versions", () -> metadata.getJDBCMajorVersion() + metadata.getDatabaseMajorVersion());
    call("Tableau: limits", () -> metadata.getMaxColumnNameLength() + metadata.getMaxStatementLength() + metadata.getMaxColumnsInSelect());
    call("Tableau: outer joins", () -> metadata.supportsFullOuterJoins() && metadata.supportsSubqueriesInExists());
    String probe = "SELECT \"tool_orders\".\"id\" AS \"id\", SUM(\"tool_orders\".\"amount\") AS \"sum:amount:ok\" "
        + "FROM \"main\".\"tool_orders\" \"tool_orders\" GROUP BY 1";
    try (PreparedStatement prepared = connection.prepareStatement(probe)) {
      call("Tableau: described before it runs", () -> describe(prepared.getMetaData()));
      call("Tableau: rows", () -> Check.read(prepared.executeQuery()));
    }
    try (Statement statement = connection.createStatement()) {
      call("Tableau: probe", () -> Check.read(statement.executeQuery("SELECT 1 AS \"COL\"")));
      call("Tableau: custom query", () -> describe(statement.executeQuery(
          "SELECT * FROM (SELECT id, name FROM main.tool_orders) \"Custom SQL Query\" LIMIT 0").getMetaData()));
      call("Tableau: top", () -> Check.read(statement.executeQuery(
          "SELECT \"t0\".\"id\" FROM (SELECT * FROM \"main\".\"tool_orders\") \"t0\" WHERE (\"t0\".\"name\" = 'x') LIMIT 1000")));
      call("Tableau: temporary table", () -> statement.execute("CREATE LOCAL TEMPORARY TABLE \"#Tableau_1_Connect\" (\"COL\" INTEGER) ON COMMIT PRESERVE ROWS"));
    }
  }

  private String describe(ResultSetMetaData columns) throws SQLException {
    StringBuilder text = new StringBuilder();
    for (int column = 1; column <= columns.getColumnCount(); column++) {
      text.append(columns.getColumnLabel(column)).append(' ').append(columns.getColumnTypeName(column));
      text.append('(').append(columns.getPrecision(column)).append(',').append(columns.getScale(column));
      text.append(") ").append(columns.isNullable(column)).append(columns.isSigned(column));
      text.append(columns.isAutoIncrement(column)).append(columns.getColumnDisplaySize(column)).append("; ");
    }
    return text.toString();
  }

  private void metabase() throws Exception {
    call("Metabase: schemas", () -> Check.column(metadata.getSchemas(), "TABLE_SCHEM"));
    String[] types = {"TABLE", "PARTITIONED TABLE", "VIEW", "FOREIGN TABLE", "MATERIALIZED VIEW", "EXTERNAL TABLE", "DYNAMIC_TABLE"};
    call("Metabase: tables", () -> Check.column(metadata.getTables(null, "main", "%", types), "TABLE_NAME"));
    call("Metabase: columns", () -> Check.column(metadata.getColumns(null, "main", "tool\\_orders", null), "COLUMN_NAME"));
    call("Metabase: primary keys", () -> Check.read(metadata.getPrimaryKeys(null, "main", "tool_orders")));
    call("Metabase: foreign keys", () -> Check.read(metadata.getImportedKeys(null, "main", "tool_orders")));
    call("Metabase: read only", () -> { connection.setReadOnly(true); return null; });
    call("Metabase: writable again", () -> { connection.setReadOnly(false); return null; });
    call("Metabase: isolation levels", () -> metadata.supportsTransactionIsolationLevel(Connection.TRANSACTION_READ_UNCOMMITTED));
    call("Metabase: autocommit off", () -> { connection.setAutoCommit(false); return null; });
    call("Metabase: autocommit on", () -> { connection.setAutoCommit(true); return null; });
    call("Metabase: holdability", () -> { connection.setHoldability(ResultSet.CLOSE_CURSORS_AT_COMMIT); return null; });
    call("Metabase: privileges", () -> {
      try (Statement statement = connection.createStatement()) {
        return Check.read(statement.executeQuery("SELECT TRUE AS \"_\" FROM \"main\".\"tool_orders\" WHERE 1 <> 1 LIMIT 0"));
      }
    });
    call("Metabase: prepared", () -> {
      String text = "SELECT \"main\".\"tool_orders\".\"name\" AS \"name\", COUNT(*) AS \"count\" FROM \"main\".\"tool_orders\" "
          + "WHERE \"main\".\"tool_orders\".\"name\" = ? GROUP BY \"main\".\"tool_orders\".\"name\" ORDER BY \"count\" DESC LIMIT 2000";
      try (PreparedStatement prepared = connection.prepareStatement(
          text, ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY)) {
        prepared.setFetchDirection(ResultSet.FETCH_FORWARD);
        prepared.setObject(1, "x", Types.VARCHAR);
        return Check.read(prepared.executeQuery());
      }
    });
    call("Metabase: grain", () -> {
      try (Statement statement = connection.createStatement()) {
        return Check.read(statement.executeQuery(
            "SELECT DATE_TRUNC('month', TIMESTAMP '2024-02-29 12:00:00') AS \"m\", CAST(1 AS DOUBLE) AS \"d\""));
      }
    });
  }
}
