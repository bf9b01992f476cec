"""Every Arrow type that a result can have, read through Python ADBC, pandas and polars.

Called with the address, a user and its password. What a library cannot hold is listed with the
library's own limit; a test that finds the limit gone fails, so that the list stays true.
"""

import datetime
import decimal
import sys
import zoneinfo

import pandas
import polars
import pyarrow
from common import TYPES, check, connect, equal

D = decimal.Decimal
UTC = zoneinfo.ZoneInfo("UTC")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
INDIA = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, 34, 56)


def at(microseconds, zone=None):
    moment = NOON.replace(microsecond=microseconds)
    return moment if zone is None else moment.replace(tzinfo=UTC).astimezone(zone)


def nanoseconds(zone=None):
    return pandas.Timestamp("2024-02-29T12:34:56.789012345", tz=zone)


# The column, its type on the wire, its value.
EXPECTED = {
    "int8": ("int8", -128),
    "int16": ("int16", -32768),
    "int32": ("int32", -2147483648),
    "int64": ("int64", -9223372036854775807),
    "uint8": ("uint8", 255),
    "uint16": ("uint16", 65535),
    "uint32": ("uint32", 4294967295),
    "uint64": ("uint64", 18446744073709551615),
    "float16": ("float", 0.5),
    "float32": ("float", -0.25),
    "float64": ("double", 1.5e300),
    "decimal32": ("decimal128(9, 2)", D("-1234567.89")),
    "decimal64": ("decimal128(18, 6)", D("-1234567.890123")),
    "decimal128": ("decimal128(38, 10)", D("12345678901234567890.0123456789")),
    "decimal256": (
        "decimal256(76, 5)",
        D("123456789012345678901234567890123456789012345.50000"),
    ),
    "truth": ("bool", True),
    "utf8": ("string", "grün 😀"),
    "large_utf8": ("large_string", "grün 😀"),
    "utf8_view": ("string", "a text longer than twelve"),
    "bytes": ("binary", b"\x00\xff\x10"),
    "large_bytes": ("large_binary", b"\x00\xff\x10"),
    "bytes_view": ("binary", b"\x00\xff\x10"),
    "fixed_bytes": ("fixed_size_binary[3]", b"\x00\xff\x10"),
    "date32": ("date32[day]", DAY),
    "date64": ("date64[ms]", DAY),
    "time32_s": ("time32[s]", datetime.time(12, 34, 56)),
    "time32_ms": ("time32[ms]", datetime.time(12, 34, 56, 789000)),
    "time64_us": ("time64[us]", datetime.time(12, 34, 56, 789012)),
    # Python's own times end at microseconds; the Arrow value has all nine digits.
    "time64_ns": ("time64[ns]", 45296789012345),
    "timestamp_s": ("timestamp[s]", at(0)),
    "timestamp_ms": ("timestamp[ms]", at(789000)),
    "timestamp_us": ("timestamp[us]", at(789012)),
    "timestamp_ns": ("timestamp[ns]", nanoseconds()),
    "timestamptz_s": ("timestamp[s, tz=UTC]", at(0, UTC)),
    "timestamptz_ms": ("timestamp[ms, tz=Europe/Berlin]", at(789000, BERLIN)),
    "timestamptz_us": ("timestamp[us, tz=+05:30]", at(789012, INDIA)),
    "timestamptz_ns": ("timestamp[ns, tz=UTC]", nanoseconds("UTC")),
    "duration_s": ("duration[s]", datetime.timedelta(seconds=90)),
    "duration_ms": ("duration[ms]", datetime.timedelta(seconds=90, milliseconds=1)),
    "duration_us": ("duration[us]", datetime.timedelta(seconds=90, microseconds=1)),
    "duration_ns": ("duration[ns]", pandas.Timedelta(90000000001, unit="ns")),
    "interval_ym": ("month_day_nano_interval", (14, 0, 0)),
    "interval_dt": ("month_day_nano_interval", (0, 3, 4000000000)),
    "interval_mdn": ("month_day_nano_interval", (1, 2, 3000000000)),
    "list_int": ("list<item: int64>", [1, None, 3]),
    "large_list": ("list<item: int64>", [1, None, 3]),
    "fixed_list": ("fixed_size_list<item: int64>[3]", [1, None, 3]),
    "list_text": ("list<item: string>", ["x", None]),
    "list_list": ("list<item: list<item: int64>>", [[1, 2], [3]]),
    "record": ("struct<a: int64, b: string>", {"a": 1, "b": "x"}),
    "list_record": (
        "list<item: struct<item: string, score: double>>",
        [{"item": "i1", "score": 0.5}],
    ),
    "nested": (
        "struct<tags: list<item: string>, at: date32[day]>",
        {"tags": ["p", "q"], "at": DAY},
    ),
    "map_int": ("map<string, int64>", [("k1", 1), ("k2", None)]),
    "dictionary": ("string", "d"),
    "dictionary_int": ("int64", 7),
    "nothing": ("null", None),
}

# Into its own types, pandas makes times of microseconds; into Arrow's it takes everything.
PANDAS_CANNOT = {"time64_ns"}
# Polars has neither 256-bit decimals, nor intervals of months, nor zones of half hours.
POLARS_CANNOT = {"decimal256", "interval_ym", "interval_dt", "interval_mdn", "timestamptz_us"}
# Polars has other types for these.
POLARS_DIFFERS = {
    "date64": datetime.datetime(2024, 2, 29),
    "time64_ns": datetime.time(12, 34, 56, 789012),
    "timestamp_ns": at(789012),
    "timestamptz_ns": at(789012, UTC),
    "duration_ns": datetime.timedelta(seconds=90),
    "map_int": {"k1": 1, "k2": None},
}


def through_arrow(cursor):
    cursor.execute(TYPES)
    reader = cursor.fetch_record_batch()
    equal("columns in order", reader.schema.names, list(EXPECTED))
    table = reader.read_all()
    for name, (kind, value) in EXPECTED.items():
        column = table.column(name)
        first = column[0].value if name == "time64_ns" else column[0].as_py()
        equal(name, (str(column.type), first, column[1].as_py()), (kind, value, None))


def through_rows(cursor):
    names = ", ".join(name for name in EXPECTED if name not in PANDAS_CANNOT)
    cursor.execute(f"SELECT {names} FROM ({TYPES})")
    first, second = cursor.fetchall()
    check("rows of the DBAPI", first[0] == -128 and first[14] == EXPECTED["decimal256"][1])
    check("a row of NULLs", set(second) == {None})


def through_views(uri, user, password):
    views = {"adbc.flight.sql.rpc.call_header.attune-string-views": "true"}
    with connect(uri, user, password, **views) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT utf8_view, bytes_view, dictionary FROM ({TYPES})")
        table = cursor.fetch_arrow_table()
        kinds = [str(field.type) for field in table.schema]
        equal("views on request", kinds, ["string_view", "binary_view", "string"])
        equal("a view's value", table.column(0).to_pylist(), ["a text longer than twelve", None])


def through_pandas(connection):
    frame = pandas.read_sql(TYPES, connection, dtype_backend="pyarrow")
    equal("pandas with Arrow's types has all columns", list(frame.columns), list(EXPECTED))
    for name, (kind, _) in EXPECTED.items():
        if kind.startswith("timestamp") and name != "timestamptz_us":
            equal(f"pandas: {name}", str(frame[name].dtype), f"{kind}[pyarrow]")
    check("pandas: NULLs", frame.iloc[1].isna().all())
    names = [name for name in EXPECTED if name not in PANDAS_CANNOT]
    frame = pandas.read_sql(f"SELECT {', '.join(names)} FROM ({TYPES})", connection)
    equal("pandas with its own types", list(frame.columns), names)
    # Its own types keep the instant and show it in UTC.
    equal("pandas: a zone", frame["timestamptz_ms"][0], pandas.Timestamp(at(789000, UTC)))
    equal("pandas: nanoseconds", frame["timestamp_ns"][0], nanoseconds())
    equal("pandas: decimals", frame["decimal32"][0], D("-1234567.89"))
    equal("pandas: lists", list(frame["list_text"][0]), ["x", None])
    check("pandas: NULLs in its own types", frame.iloc[1].isna().all())
    for name in PANDAS_CANNOT:
        try:
            pandas.read_sql(f"SELECT {name} FROM ({TYPES})", connection)
        except pyarrow.ArrowInvalid:
            check(f"pandas still cannot {name}", True)
        else:
            raise AssertionError(f"pandas can {name} now: take it from the list")


def through_polars(connection):
    for name, (_, value) in EXPECTED.items():
        query = f"SELECT {name} FROM ({TYPES})"
        if name in POLARS_CANNOT:
            continue
        found = polars.read_database(query, connection).to_series().to_list()
        equal(f"polars: {name}", found, [POLARS_DIFFERS.get(name, value), None])


def main():
    uri, user, password = sys.argv[1:4]
    print("pyarrow", pyarrow.__version__, "pandas", pandas.__version__, "polars", polars.__version__)
    with connect(uri, user, password) as connection:
        with connection.cursor() as cursor:
            through_arrow(cursor)
            through_rows(cursor)
        through_pandas(connection)
        through_polars(connection)
    through_views(uri, user, password)
    print("ok all", flush=True)


if __name__ == "__main__":
    main()
