"""The Python ADBC driver against a server: connect, ask, bind, browse, load, cancel.

Called with the address, a user and its password; the user may create tables. Prints one line a
check and ends with an assertion error at the first that fails.
"""

import datetime
import decimal
import sys
import threading

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow
import pyarrow.compute
from common import TYPES, check, connect, equal, refused

TEN = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))"
# A milliard rows that cost no memory.
MANY = "SELECT t0.n FROM " + " CROSS JOIN ".join(f"{TEN} AS t{i}(n)" for i in range(9))


def queries(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS n, 'x' AS word")
        table = cursor.fetch_arrow_table()
        check("a query gives Arrow", table.to_pylist() == [{"n": 1, "word": "x"}])
        check("strings are plain", table.schema.field("word").type == pyarrow.string())
        schema = cursor.adbc_execute_schema("SELECT 1 AS n")
        check("a schema comes without a run", schema.names == ["n"])
        cursor.execute("SELECT 1 AS n WHERE false")
        equal("no rows still have a schema", cursor.fetch_arrow_table().schema.names, ["n"])
        cursor.execute("SELECT n FROM (VALUES (1), (2), (3)) AS t(n) ORDER BY n")
        equal("rows one by one", (cursor.fetchone(), cursor.fetchmany(5)), ((1,), [(2,), (3,)]))
        cursor.execute("SELECT * FROM generate_series(1, 1000000) AS t(n)")
        batches = list(cursor.fetch_record_batch())
        check("a large result comes in batches", len(batches) > 1)
        equal("and whole", sum(batch.num_rows for batch in batches), 1000000)


def parameters(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n > ? ORDER BY n", (1,))
        check("? takes a value", cursor.fetchall() == [(2,), (3,)])
        cursor.execute("SELECT CAST($1 AS VARCHAR)", ("y",))
        check("$1 takes a value", cursor.fetchone() == ("y",))
        cursor.execute("SELECT $2 AS x, $1 AS y, $2 AS z", ("a", "b"))
        equal("numbers of placeholders", cursor.fetchone(), ("b", "a", "b"))
        moment = datetime.datetime(2024, 2, 29, 1, 2, 3, 4)
        values = (
            None,
            True,
            2**62,
            1.5,
            "grün",
            b"\x00\xff",
            decimal.Decimal("1.25"),
            datetime.date(2024, 2, 29),
            moment,
            moment.replace(tzinfo=datetime.timezone.utc),
            [1, 2, None],
        )
        cursor.execute("SELECT " + ", ".join("?" for _ in values), values)
        equal("a value of every type", cursor.fetchone(), values)
        cursor.execute("SELECT CAST(? AS DATE) = DATE '2024-02-29'", ("2024-02-29",))
        equal("text becomes the type that is wanted", cursor.fetchone(), (True,))
        bound = pyarrow.record_batch([pyarrow.array([7], pyarrow.int16())], names=["1"])
        cursor.execute("SELECT CAST(? AS BIGINT) + 1", bound)
        equal("a record batch binds", cursor.fetchone(), (8,))
        error = flightsql.Error
        refused("too few values", error, lambda: cursor.execute("SELECT ?, ?", (1,)), "ATT-1805")
        refused("no values", error, lambda: cursor.execute("SELECT ?"), "ATT-1805")
        wrong = ("x",)
        ask = "SELECT 1 WHERE CAST(? AS INT) = 1"
        refused("a wrong value", error, lambda: cursor.execute(ask, wrong), "INVALID_ARGUMENT")


def prepared(connection):
    """One plan for many runs, below the DBAPI."""
    with connection.cursor() as cursor:
        types = cursor.adbc_prepare("SELECT CAST(? AS BIGINT) * 2 AS twice")
        equal("the placeholder's type is known", str(types.field(0).type), "int64")
        for n in range(3):
            cursor.adbc_statement.bind(pyarrow.record_batch([pyarrow.array([n])], names=["1"]))
            stream, _ = cursor.adbc_statement.execute_query()
            rows = pyarrow.RecordBatchReader.from_stream(stream).read_all()
            equal("a prepared run", rows.to_pylist(), [{"twice": 2 * n}])


def updates(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE people AS SELECT 1 AS id, 'Ada' AS name")
        # The statement has done its work when execute returns, though nobody fetched anything.
        cursor.execute("INSERT INTO people SELECT 2, 'Bob'")
        cursor.execute("SELECT count(*) FROM people")
        check("a statement runs once", cursor.fetchone() == (2,))
        cursor.executemany(
            "INSERT INTO people SELECT CAST(? AS BIGINT), CAST(? AS VARCHAR)",
            [(3, "Cyd"), (4, "Dov")],
        )
        check("rows changed are counted", cursor.rowcount == 2)
        cursor.execute("SELECT name FROM people ORDER BY id")
        check("each row of values ran", [row[0] for row in cursor.fetchall()][2:] == ["Cyd", "Dov"])
        cursor.executemany("INSERT INTO people VALUES (?, ?)", [(5, "Eva"), (6, None)])
        equal("an INSERT takes many rows", cursor.rowcount, 2)
        cursor.execute("UPDATE people SET name = ? WHERE id = ?", ("Dora", 4))
        cursor.execute("SELECT name FROM people WHERE id = 4")
        equal("a bound update", cursor.fetchone(), ("Dora",))


def ingestion(connection):
    rows = pyarrow.table({"id": [1, 2, 3], "name": ["a", "b", None]})
    error = flightsql.Error
    with connection.cursor() as cursor:

        def load(data, mode, **options):
            return lambda: cursor.adbc_ingest("loaded", data, mode=mode, **options)

        def count():
            cursor.execute("SELECT count(*) FROM loaded")
            return cursor.fetchone()[0]

        refused("append needs a table", error, load(rows, "append"), "ATT-")
        equal("create", (load(rows, "create")(), count()), (3, 3))
        refused("create needs a free name", error, load(rows, "create"), "exists")
        equal("append", (load(rows, "append")(), count()), (3, 6))
        batches = rows.to_reader(max_chunksize=1)
        done = load(batches, "replace", db_schema_name="main")()
        equal("replace, batch by batch", (done, count()), (3, 3))
        equal("create or append", (load(rows, "create_append")(), count()), (3, 6))
        wrong = load(pyarrow.table({"id": ["x"]}), "append")
        refused("a wrong type is named", error, wrong, "id", "Int64", "Utf8")
        temporary = load(rows, "create", temporary=True)
        refused("a temporary table", error, temporary, "NOT_IMPLEMENTED")
        stored(cursor)


# Delta's tables have no such types; loading them is an error that names the column.
UNSTORED = ("uint64", "decimal256", "time32", "time64", "duration", "interval")


def stored(cursor):
    cursor.execute(f"SELECT * FROM ({TYPES})")
    everything = cursor.fetch_arrow_table()
    names = [name for name in everything.column_names if not name.startswith(UNSTORED)]
    # A table's times end at microseconds: finer ones are refused, not cut.
    for name in [name for name in names if name.endswith("_ns")]:
        load = lambda: cursor.adbc_ingest("never", everything.select([name]), mode="create")
        refused(f"would lose digits: {name}", flightsql.Error, load, "ATT-3001", name)
        column = everything.column(name)
        cut = column.cast(pyarrow.timestamp("us", tz=column.type.tz), safe=False)
        everything = everything.set_column(everything.column_names.index(name), name, cut)
    cursor.adbc_ingest("everything", everything.select(names), mode="create")
    cursor.execute("SELECT * FROM everything ORDER BY int8 NULLS LAST")
    back = cursor.fetch_arrow_table()
    equal("columns that a table has", back.column_names, names)
    for name in names:
        found, sent = back.column(name), everything.column(name)
        equal(f"stored and read: {name}", found.to_pylist(), sent.to_pylist())
    for name in set(everything.column_names) - set(names):
        load = lambda: cursor.adbc_ingest("never", everything.select([name]), mode="create")
        refused(f"not stored: {name}", flightsql.Error, load, "ATT-4004", name)


def browse(connection):
    info = connection.adbc_get_info()
    check("the vendor is named", info["vendor_name"] == "Attune")
    check("table types", "TABLE" in connection.adbc_get_table_types())
    for depth in ["catalogs", "db_schemas", "tables", "all"]:
        objects = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
        check(f"objects to depth {depth}", objects[0]["catalog_name"] == "attune")
    tables = objects_named(connection, table_name_filter="people")
    columns = [column["column_name"] for column in tables[0]["table_columns"]]
    check("columns of a table", (len(tables), columns) == (1, ["id", "name"]))
    kinds = [column["xdbc_type_name"] for column in tables[0]["table_columns"]]
    equal("SQL types of columns", kinds, ["BIGINT", "VARCHAR"])
    equal("a pattern", len(objects_named(connection, table_name_filter="peop%")), 1)
    equal("no such table", objects_named(connection, table_name_filter="nobody"), [])
    equal("no such schema", objects_named(connection, db_schema_filter="nowhere"), [])
    one = objects_named(connection, table_name_filter="people", column_name_filter="na%")
    equal("one column", [c["column_name"] for c in one[0]["table_columns"]], ["name"])
    views = objects_named(connection, table_types_filter=["VIEW"])
    equal("no view", [table for table in views if table["table_name"] == "people"], [])
    schema = connection.adbc_get_table_schema("people")
    check("the schema of a table", schema.names == ["id", "name"])
    schema = connection.adbc_get_table_schema("people", db_schema_filter="main")
    check("the same in its schema", schema.names == ["id", "name"])
    unknown = lambda: connection.adbc_get_table_schema("nobody")
    refused("the schema of no table", flightsql.Error, unknown, "NOT_FOUND")


def objects_named(connection, **filters):
    found = connection.adbc_get_objects(depth="all", **filters).read_all().to_pylist()
    schemas = [schema for catalog in found for schema in catalog["catalog_db_schemas"] or []]
    return [table for schema in schemas for table in schema["db_schema_tables"] or []]


def options(connection):
    check("the current catalog", connection.adbc_current_catalog == "attune")
    check("the current schema", connection.adbc_current_db_schema == "main")
    connection.adbc_current_db_schema = "system"
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) > 0 FROM settings")
        equal("a schema that was chosen", cursor.fetchone(), (True,))
    connection.adbc_current_db_schema = "main"
    connection.adbc_current_catalog = "attune"

    def choose(name, value):
        return lambda: setattr(connection, name, value)

    error = flightsql.Error
    refused("no such schema", error, choose("adbc_current_db_schema", "nowhere"), "invalid value")
    refused("no such catalog", error, choose("adbc_current_catalog", "nowhere"), "invalid value")
    zone = "adbc.flight.sql.session.option.time_zone"
    database = connection.adbc_connection
    database.set_options(**{zone: "Europe/Berlin"})
    equal("an option is kept", database.get_option(zone), "Europe/Berlin")
    with connection.cursor() as cursor:
        cursor.execute("SELECT now() AS now")
        kind = cursor.fetch_arrow_table().schema.field("now").type
        equal("an option has its effect", kind, pyarrow.timestamp("ns", "Europe/Berlin"))
    database.set_options(**{zone: ""})
    equal("and goes", database.get_option(zone), "+00:00")


def parts(uri, user, password):
    """A large result in several endpoints, which the driver fetches side by side."""
    asked = {"adbc.flight.sql.rpc.call_header.attune-endpoints": "4"}
    query = "SELECT n FROM many"
    with connect(uri, user, password, **asked) as connection, connection.cursor() as cursor:
        # A file of one row group is read in one piece.
        cursor.execute("CREATE TABLE many AS SELECT value AS n FROM generate_series(1, 100000)")
        cursor.execute("INSERT INTO many SELECT value FROM generate_series(100001, 200000)")
        statement = cursor.adbc_statement
        statement.set_sql_query(query)
        tickets, _, _ = statement.execute_partitions()
        check("a large result has parts", len(tickets) > 1)
        statement.set_sql_query(query)
        stream, _ = statement.execute_query()
        column = pyarrow.RecordBatchReader.from_stream(stream).read_all().column("n")
        rows = (len(column), pyarrow.compute.sum(column).as_py())
        equal("the parts are the result once", rows, (200000, 200000 * 200001 // 2))
        found = 0
        for ticket in tickets:
            with connect(uri, user, password) as other, other.cursor() as reader:
                reader.adbc_read_partition(ticket)
                found += reader.fetch_arrow_table().num_rows
        equal("each part on its own connection", found, 200000)


def cancelling(connection):
    with connection.cursor() as cursor:
        cursor.execute(MANY)
        reader = cursor.fetch_record_batch()
        check("a long result begins", reader.read_next_batch().num_rows > 0)
        threading.Timer(0.1, cursor.adbc_cancel).start()
        drain = lambda: sum(batch.num_rows for batch in reader)
        refused("a cancelled result ends with an error", OSError, drain, "ancel")
        cursor.execute("SELECT 1")
        equal("the cursor goes on", cursor.fetchone(), (1,))
    with connection.cursor() as cursor:
        cursor.execute(MANY)
        cursor.fetchone()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        equal("a result left half read hinders nothing", cursor.fetchone(), (1,))


def refusals(uri, user, connection):
    error = flightsql.Error
    failed = refused("a wrong password", error, lambda: connect(uri, user, "wrong"), "ATT-1501")
    codes = adbc_driver_manager.AdbcStatusCode
    equal("is UNAUTHENTICATED", failed.status_code, codes.UNAUTHENTICATED)
    with connection.cursor() as cursor:
        for text, code, kind in [
            ("SELEC 1", "ATT-1001", codes.INVALID_ARGUMENT),
            ("SELECT nothing FROM nowhere", "ATT-4001", codes.NOT_FOUND),
            ("SELECT CAST('x' AS INT)", "ATT-3001", codes.INVALID_ARGUMENT),
            ("COPY people TO 'x.csv'", "ATT-2002", codes.NOT_IMPLEMENTED),
        ]:
            # What the plan cannot know fails when the rows are read.
            run = lambda: (cursor.execute(text), cursor.fetchall())
            failed = refused(text, error, run, code)
            equal(f"{text} is {kind.name}", failed.status_code, kind)
        cursor.execute("SELECT 1")
        check("the connection goes on", cursor.fetchone() == (1,))
    transaction = lambda: connection.adbc_connection.set_autocommit(False)
    refused("a transaction", error, transaction, "NOT_IMPLEMENTED")


def main():
    uri, user, password = sys.argv[1:4]
    print("adbc_driver_flightsql", adbc_driver_flightsql.__version__)
    with connect(uri, user, password) as connection:
        queries(connection)
        parameters(connection)
        prepared(connection)
        updates(connection)
        ingestion(connection)
        browse(connection)
        options(connection)
        cancelling(connection)
        refusals(uri, user, connection)
    parts(uri, user, password)
    print("ok all", flush=True)


if __name__ == "__main__":
    main()
