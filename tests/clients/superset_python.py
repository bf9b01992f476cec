"""The way Apache Superset 6 connects: SQLAlchemy 1.4 and flightsql-dbapi, whose dialect is
`datafusion`. Called with the address, a user and its password; the user may create tables.

Superset's own code (`Database`, `BaseEngineSpec`) was run against Attune in this way by hand; it
calls what this script calls, in this order. Installing all of Superset is too much for each test.
"""

import datetime

import flightsql.sqlalchemy  # noqa: F401 registers the dialect
import sqlalchemy
from common import check, equal, refused, sqlalchemy_url
from sqlalchemy import column, func, inspect, literal_column, select, text


def prepare(engine):
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE ss_orders AS SELECT 1 AS id, 'x' AS name, "
            "CAST(2.5 AS DECIMAL(10, 2)) AS price, TIMESTAMP '2024-02-29T12:34:56' AS at, true AS paid "
            "UNION ALL SELECT 2, 'y', 3.5, TIMESTAMP '2024-03-01T00:00:00', false"))  # fmt: skip


def connection_test(engine):
    raw = engine.raw_connection()
    check("test connection", engine.dialect.do_ping(raw))
    raw.close()


def browse(engine):
    inspector = inspect(engine)
    check("schemas", {"main", "system"} <= set(inspector.get_schema_names()))
    check("tables", "ss_orders" in inspector.get_table_names("main"))
    equal("views", inspector.get_view_names("main"), [])
    columns = inspector.get_columns("ss_orders", "main")
    equal("columns", [c["name"] for c in columns], ["id", "name", "price", "at", "paid"])
    kinds = [str(c["type"]) for c in columns]
    equal("types", kinds[:2] + kinds[3:], ["BIGINT", "TEXT", "TIMESTAMP", "BOOLEAN"])
    equal("indexes", inspector.get_indexes("ss_orders", "main"), [])
    equal("foreign keys", inspector.get_foreign_keys("ss_orders", "main"), [])
    check("has table", engine.dialect.has_table(engine.connect(), "ss_orders", "main"))


def frame(engine, query):
    """As Superset reads: a cursor of the driver, its description and all rows."""
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute(query)
        return [entry[0] for entry in cursor.description], cursor.fetchall()
    finally:
        raw.close()


def charts(engine):
    compiled = lambda query: str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    names, rows = frame(engine, "SELECT * FROM main.ss_orders LIMIT 100")
    check("preview", (len(names), len(rows)) == (5, 2))
    virtual = text("(SELECT * FROM main.ss_orders\n) AS virtual_table")
    month = literal_column("date_trunc('month', at)").label("__timestamp")
    total = func.sum(column("price")).label("SUM(price)")
    since = literal_column("TIMESTAMP '2024-01-01 00:00:00'")
    query = (
        select([month, column("name"), func.count().label("count"), total])
        .select_from(virtual)
        .where(column("at") >= since)
        .where(column("name").in_(["x", "y"]))
        .group_by(literal_column("date_trunc('month', at)"), column("name"))
        .order_by(total.desc())
        .limit(1000)
    )
    names, rows = frame(engine, compiled(query))
    equal("names of a chart", names, ["__timestamp", "name", "count", "SUM(price)"])
    equal("rows of a chart", [(row[1], row[2]) for row in rows], [("y", 1), ("x", 1)])
    equal("its months", rows[1][0], datetime.datetime(2024, 2, 1))
    names, rows = frame(engine, "SELECT * FROM (SELECT 1 AS a) AS virtual_table LIMIT 0")
    equal("columns of a virtual dataset", (names, list(rows)), (["a"], []))
    names, rows = frame(engine, "EXPLAIN SELECT * FROM main.ss_orders")
    equal("explain", rows[0][0], "logical_plan")
    with engine.connect() as connection:
        values = connection.execute(select([column("name")]).select_from(virtual).distinct())
        equal("values of a filter", sorted(values.scalars()), ["x", "y"])
        failed = lambda: connection.execute(text("SELECT * FROM nowhere")).all()
        refused("an error has its code", Exception, failed, "ATT-4001")


def main():
    print("SQLAlchemy", sqlalchemy.__version__)
    engine = sqlalchemy.create_engine(sqlalchemy_url("datafusion+flightsql", "insecure=true"))
    prepare(engine)
    connection_test(engine)
    browse(engine)
    charts(engine)
    print("ok all", flush=True)


main()
