"""The Python ADBC driver against a server: connect, ask, bind, browse.

Called with the address, a user and its password; the user may create tables. Prints one line a
check and ends with an assertion error at the first that fails.
"""

import sys

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow


def connect(uri, user, password):
    options = {
        adbc_driver_manager.DatabaseOptions.USERNAME.value: user,
        adbc_driver_manager.DatabaseOptions.PASSWORD.value: password,
    }
    return flightsql.connect(uri, db_kwargs=options, autocommit=True)


def check(name, condition):
    assert condition, name
    print("ok", name, flush=True)


def queries(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS n, 'x' AS word")
        table = cursor.fetch_arrow_table()
        check("a query gives Arrow", table.to_pylist() == [{"n": 1, "word": "x"}])
        check("strings are plain", table.schema.field("word").type == pyarrow.string())
        cursor.execute("SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n > ? ORDER BY n", (1,))
        check("? takes a value", cursor.fetchall() == [(2,), (3,)])
        cursor.execute("SELECT CAST($1 AS VARCHAR)", ("y",))
        check("$1 takes a value", cursor.fetchone() == ("y",))
        schema = cursor.adbc_execute_schema("SELECT 1 AS n")
        check("a schema comes without a run", schema.names == ["n"])


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
        cursor.executemany("INSERT INTO people VALUES (?, ?)", [(5, "Eve"), (6, "Fay")])
        check("an INSERT takes many rows", cursor.rowcount == 2)


def ingestion(connection):
    rows = pyarrow.table({"id": [1, 2, 3], "name": ["a", "b", None]})
    with connection.cursor() as cursor:
        count = lambda: cursor.execute("SELECT count(*) FROM loaded").fetchone()[0]
        try:
            cursor.adbc_ingest("loaded", rows, mode="append")
            raise AssertionError("rows were added to a table that does not exist")
        except flightsql.Error as error:
            check("append needs a table", "ATT-" in str(error))
        check("create", cursor.adbc_ingest("loaded", rows, mode="create") == 3 and count() == 3)
        try:
            cursor.adbc_ingest("loaded", rows, mode="create")
            raise AssertionError("a table was created twice")
        except flightsql.Error as error:
            check("create needs a free name", "exists" in str(error))
        check("append", cursor.adbc_ingest("loaded", rows, mode="append") == 3 and count() == 6)
        batches = rows.to_reader(max_chunksize=1)
        done = cursor.adbc_ingest("loaded", batches, mode="replace", db_schema_name="main")
        check("replace", done == 3 and count() == 3)
        done = cursor.adbc_ingest("loaded", rows, mode="create_append")
        check("create or append", done == 3 and count() == 6)
        try:
            cursor.adbc_ingest("loaded", pyarrow.table({"id": ["x"]}), mode="append")
            raise AssertionError("text went into a number")
        except flightsql.Error as error:
            told = str(error)
            check("a wrong type is named", all(word in told for word in ["id", "Int64", "Utf8"]))
        try:
            cursor.adbc_ingest("loaded", rows, mode="create", temporary=True)
            raise AssertionError("there are temporary tables")
        except adbc_driver_manager.NotSupportedError:
            check("temporary tables are refused", True)


def browse(connection):
    info = connection.adbc_get_info()
    check("the vendor is named", info["vendor_name"] == "Attune")
    check("table types", "TABLE" in connection.adbc_get_table_types())
    for depth in ["catalogs", "db_schemas", "tables", "all"]:
        objects = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
        check(f"objects to depth {depth}", objects[0]["catalog_name"] == "attune")
    found = connection.adbc_get_objects(depth="all", table_name_filter="people").read_all()
    schemas = found.to_pylist()[0]["catalog_db_schemas"]
    tables = [table for schema in schemas for table in schema["db_schema_tables"] or []]
    columns = [column["column_name"] for column in tables[0]["table_columns"]]
    check("columns of a table", (len(tables), columns) == (1, ["id", "name"]))
    schema = connection.adbc_get_table_schema("people")
    check("the schema of a table", schema.names == ["id", "name"])
    check("the current catalog", connection.adbc_current_catalog == "attune")
    check("the current schema", connection.adbc_current_db_schema == "main")


def refusals(uri, user, connection):
    try:
        connect(uri, user, "wrong")
        raise AssertionError("a wrong password got in")
    except flightsql.Error as error:
        check("a wrong password is refused", "password is wrong" in str(error))
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT nothing FROM nowhere")
            raise AssertionError("an unknown table gave rows")
        except flightsql.Error as error:
            check("an error has its code", "ATT-" in str(error))
        cursor.execute("SELECT 1")
        check("the connection goes on", cursor.fetchone() == (1,))


def main():
    uri, user, password = sys.argv[1:4]
    print("adbc_driver_flightsql", adbc_driver_flightsql.__version__)
    with connect(uri, user, password) as connection:
        queries(connection)
        updates(connection)
        ingestion(connection)
        browse(connection)
        refusals(uri, user, connection)


if __name__ == "__main__":
    main()
