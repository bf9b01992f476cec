"""SQLAlchemy 2 over ADBC (sqlalchemy-adbc): statements, reflection, and what Superset calls.

Called with the address, a user and its password; the user may create tables.

Superset 6 itself keeps SQLAlchemy below 2, which sqlalchemy-adbc refuses, so superset_python.py
asks through the driver that Superset can load. Here its calls run through this one.
"""

import datetime
import decimal
import warnings

import attune_sqlalchemy  # noqa: F401 registers the dialect
import sqlalchemy
from common import TYPES, check, equal, refused, sqlalchemy_url
from sqlalchemy import MetaData, Table, func, inspect, select, text
from sqlalchemy_adbc.reflection import adbc_type_to_sqla
from types_python import EXPECTED, PANDAS_CANNOT

warnings.filterwarnings("ignore", message="Cannot disable autocommit")


TABLE = """
CREATE TABLE sa_orders AS
SELECT 1 AS id, 'x' AS name, CAST(2.5 AS DECIMAL(10, 2)) AS price, DATE '2024-02-29' AS day,
    TIMESTAMP '2024-02-29T12:34:56' AS at, true AS paid, 0.5 AS weight, make_array(1, 2) AS parts
UNION ALL SELECT 2, 'y', 3.5, DATE '2024-03-01', TIMESTAMP '2024-03-01T00:00:00', false, 1.5, NULL
"""


def statements(engine):
    with engine.connect() as connection:
        equal("a text", connection.execute(text("SELECT 1")).all(), [(1,)])
        connection.execute(text(TABLE))
        connection.execute(text("CREATE VIEW sa_view AS SELECT id, name FROM sa_orders"))
        orders = Table("sa_orders", MetaData(), autoload_with=connection)
        query = select(orders.c.name, orders.c.price).where(orders.c.id > 1).order_by(orders.c.id)
        equal("a select", connection.execute(query).all(), [("y", decimal.Decimal("3.50"))])
        query = select(func.count()).select_from(orders)
        equal("a function", connection.execute(query).scalar(), 2)
        named = text("SELECT name FROM sa_orders WHERE day = :day AND paid = :paid")
        values = {"day": datetime.date(2024, 2, 29), "paid": True}
        equal("bound values", connection.execute(named, values).all(), [("x",)])
        query = select(orders.c.id).where(orders.c.name.in_(["x", "z"]))
        equal("a list of values", connection.execute(query).all(), [(1,)])
        query = select(orders.c.id).where(orders.c.name.like("%x%")).limit(5).offset(0)
        equal("limit and offset", connection.execute(query).all(), [(1,)])
        rows = [{"id": 3, "name": "z"}, {"id": 4, "name": "w"}]
        connection.execute(orders.insert(), rows)
        connection.execute(orders.delete().where(orders.c.id == 4))
        connection.execute(orders.update().where(orders.c.id == 3).values(name="zz"))
        changed = connection.execute(select(orders.c.name).where(orders.c.id > 2)).all()
        equal("insert, delete, update", changed, [("zz",)])
        failed = lambda: connection.execute(text("SELECT * FROM nowhere"))
        refused("an error has its code", sqlalchemy.exc.DBAPIError, failed, "ATT-4001")


def types(engine):
    names = [name for name in EXPECTED if name not in PANDAS_CANNOT]
    with engine.connect() as connection:
        query = f"SELECT {', '.join(names)} FROM ({TYPES})"
        first, second = connection.exec_driver_sql(query).mappings()
        for name in names:
            equal(name, (first[name], second[name]), (EXPECTED[name][1], None))


def reflection(engine):
    inspector = inspect(engine)
    schemas = inspector.get_schema_names()
    check("schemas", {"main", "system", "information_schema"} <= set(schemas))
    equal("the default schema", inspector.default_schema_name, "main")
    check("tables", "sa_orders" in inspector.get_table_names(schema="main"))
    equal("tables of the default schema", inspector.get_table_names(), inspector.get_table_names("main"))
    equal("views", inspector.get_view_names(schema="main"), ["sa_view"])
    check("a table is there", inspector.has_table("sa_orders", schema="main"))
    check("another is not", not inspector.has_table("nobody", schema="main"))
    columns = inspector.get_columns("sa_orders", schema="main")
    found = {column["name"]: type(column["type"]).__name__ for column in columns}
    expected = {
        "id": "BigInteger", "name": "String", "price": "Numeric", "day": "Date",
        "at": "DateTime", "paid": "Boolean", "weight": "Float", "parts": "NullType",
    }  # fmt: skip
    equal("columns and their types", found, expected)
    equal("primary key", inspector.get_pk_constraint("sa_orders")["constrained_columns"], [])
    equal("foreign keys", inspector.get_foreign_keys("sa_orders"), [])
    equal("indexes", inspector.get_indexes("sa_orders"), [])
    equal("unique constraints", inspector.get_unique_constraints("sa_orders"), [])
    metadata = MetaData()
    metadata.reflect(engine, schema="main", views=True)
    check("a whole schema", {"main.sa_orders", "main.sa_view"} <= set(metadata.tables))
    names = "BOOLEAN, SMALLINT, DOUBLE, VARCHAR, BYTEA, TIME, TIMESTAMP WITH TIME ZONE".split(", ")
    known = [type(adbc_type_to_sqla(name)).__name__ for name in names]
    check("it knows our names of types", "NullType" not in known)


def superset(engine):
    """What a Superset database, dataset and chart ask for, in its order."""
    raw = engine.raw_connection()
    check("Superset: test connection", engine.dialect.do_ping(raw.driver_connection))
    raw.close()
    inspector = inspect(engine)
    check("Superset: schemas", "main" in inspector.get_schema_names())
    check("Superset: tables", "sa_orders" in inspector.get_table_names("main"))
    check("Superset: columns", len(inspector.get_columns("sa_orders", "main")) == 8)
    with engine.connect() as connection:

        def ask(query):
            cursor = connection.connection.cursor()
            cursor.execute(query)
            names = [column[0] for column in cursor.description]
            return names, cursor.fetchall()

        names, rows = ask("SELECT * FROM main.sa_orders LIMIT 100")
        check("Superset: preview", (len(names), len(rows)) == (8, 3))
        virtual = (
            "SELECT date_trunc('month', at) AS __timestamp, name AS name, count(*) AS count, "
            "sum(price) AS \"SUM(price)\" FROM (SELECT * FROM main.sa_orders\n) AS virtual_table "
            "WHERE at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', '%Y-%m-%d %H:%M:%S%.f') "
            "AND name IN ('x', 'y') GROUP BY date_trunc('month', at), name "
            "ORDER BY \"SUM(price)\" DESC LIMIT 1000"
        )
        names, rows = ask(virtual)
        equal("Superset: names of a chart", names, ["__timestamp", "name", "count", "SUM(price)"])
        equal("Superset: rows of a chart", [row[1:3] for row in rows], [("y", 1), ("x", 1)])
        for grain in ["second", "minute", "hour", "day", "week", "month", "quarter", "year"]:
            _, rows = ask(f"SELECT DATE_TRUNC('{grain}', at) AS t FROM main.sa_orders WHERE id = 1")
            check(f"Superset: grain {grain}", rows[0][0] <= datetime.datetime(2024, 2, 29, 12, 34, 56))
        names, rows = ask("SELECT * FROM (SELECT 1 AS a) AS virtual_table LIMIT 0")
        equal("Superset: columns of a virtual dataset", (names, rows), (["a"], []))
        _, rows = ask("EXPLAIN SELECT * FROM main.sa_orders")
        equal("Superset: explain", rows[0][0], "logical_plan")


def main():
    print("SQLAlchemy", sqlalchemy.__version__)
    engine = sqlalchemy.create_engine(sqlalchemy_url("attune", "tls=false"))
    statements(engine)
    types(engine)
    reflection(engine)
    superset(engine)
    print("ok all", flush=True)


main()
