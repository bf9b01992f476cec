//! The Rust client of arrow-flight, and what a client is taken for by its name.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::IpcMessage;
use arrow_flight::sql::CommandGetTables;
use tonic::transport::Endpoint;

use super::folder;
use crate::flight::support::{Client, TestServer, fetch, schema, start};

/// Each column of `types.sql`: name, type on the wire, value.
const EXPECTED: [(&str, &str, &str); 56] = [
    ("int8", "Int8", "-128"),
    ("int16", "Int16", "-32768"),
    ("int32", "Int32", "-2147483648"),
    ("int64", "Int64", "-9223372036854775807"),
    ("uint8", "UInt8", "255"),
    ("uint16", "UInt16", "65535"),
    ("uint32", "UInt32", "4294967295"),
    ("uint64", "UInt64", "18446744073709551615"),
    ("float16", "Float32", "0.5"),
    ("float32", "Float32", "-0.25"),
    ("float64", "Float64", "1.5e300"),
    ("decimal32", "Decimal128(9, 2)", "-1234567.89"),
    ("decimal64", "Decimal128(18, 6)", "-1234567.890123"),
    ("decimal128", "Decimal128(38, 10)", "12345678901234567890.0123456789"),
    ("decimal256", "Decimal256(76, 5)", "123456789012345678901234567890123456789012345.50000"),
    ("truth", "Boolean", "true"),
    ("utf8", "Utf8", "grün 😀"),
    ("large_utf8", "LargeUtf8", "grün 😀"),
    ("utf8_view", "Utf8", "a text longer than twelve"),
    ("bytes", "Binary", "00ff10"),
    ("large_bytes", "LargeBinary", "00ff10"),
    ("bytes_view", "Binary", "00ff10"),
    ("fixed_bytes", "FixedSizeBinary(3)", "00ff10"),
    ("date32", "Date32", "2024-02-29"),
    ("date64", "Date64", "2024-02-29T00:00:00"),
    ("time32_s", "Time32(s)", "12:34:56"),
    ("time32_ms", "Time32(ms)", "12:34:56.789"),
    ("time64_us", "Time64(µs)", "12:34:56.789012"),
    ("time64_ns", "Time64(ns)", "12:34:56.789012345"),
    ("timestamp_s", "Timestamp(s)", "2024-02-29T12:34:56"),
    ("timestamp_ms", "Timestamp(ms)", "2024-02-29T12:34:56.789"),
    ("timestamp_us", "Timestamp(µs)", "2024-02-29T12:34:56.789012"),
    ("timestamp_ns", "Timestamp(ns)", "2024-02-29T12:34:56.789012345"),
    ("timestamptz_s", "Timestamp(s, \"UTC\")", "2024-02-29T12:34:56Z"),
    ("timestamptz_ms", "Timestamp(ms, \"Europe/Berlin\")", "2024-02-29T13:34:56.789+01:00"),
    ("timestamptz_us", "Timestamp(µs, \"+05:30\")", "2024-02-29T18:04:56.789012+05:30"),
    ("timestamptz_ns", "Timestamp(ns, \"UTC\")", "2024-02-29T12:34:56.789012345Z"),
    ("duration_s", "Duration(s)", "PT90S"),
    ("duration_ms", "Duration(ms)", "PT90.001S"),
    ("duration_us", "Duration(µs)", "PT90.000001S"),
    ("duration_ns", "Duration(ns)", "PT90.000000001S"),
    ("interval_ym", "Interval(MonthDayNano)", "14 mons"),
    ("interval_dt", "Interval(MonthDayNano)", "3 days 4.000000000 secs"),
    ("interval_mdn", "Interval(MonthDayNano)", "1 mons 2 days 3.000000000 secs"),
    ("list_int", "List(Int64)", "[1, , 3]"),
    ("large_list", "List(Int64)", "[1, , 3]"),
    ("fixed_list", "FixedSizeList(3 x Int64)", "[1, , 3]"),
    ("list_text", "List(Utf8)", "[x, ]"),
    ("list_list", "List(List(Int64))", "[[1, 2], [3]]"),
    ("record", "Struct(\"a\": Int64, \"b\": Utf8)", "{a: 1, b: x}"),
    ("list_record", "List(Struct(\"item\": Utf8, \"score\": Float64))", "[{item: i1, score: 0.5}]"),
    ("nested", "Struct(\"tags\": List(Utf8), \"at\": Date32)", "{tags: [p, q], at: 2024-02-29}"),
    (
        "map_int",
        "Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Int64), unsorted)",
        "{k1: 1, k2: }",
    ),
    ("dictionary", "Utf8", "d"),
    ("dictionary_int", "Int64", "7"),
    ("nothing", "Null", ""),
];

async fn all_types(client: &mut Client) -> RecordBatch {
    let text = std::fs::read_to_string(folder().join("types.sql")).unwrap();
    let info = client.execute(text, None).await.unwrap();
    let announced = schema(&info);
    let batches = fetch(client, &info).await.unwrap();
    assert_eq!(batches[0].schema().as_ref(), &announced);
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn value(column: &dyn Array, row: usize) -> String {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string()
}

#[tokio::test]
async fn the_rust_client_reads_every_type() {
    let server = start().await;
    let mut client = server.login("root").await;
    let batch = all_types(&mut client).await;
    assert_eq!((batch.num_rows(), batch.num_columns()), (2, EXPECTED.len()));
    let mut wrong = Vec::new();
    for (index, expected) in EXPECTED.iter().enumerate() {
        let column = batch.column(index);
        let schema = batch.schema();
        let kind = column.data_type().to_string();
        let value = value(column, 0);
        let found = (schema.field(index).name().as_str(), kind.as_str(), value.as_str());
        if found != *expected {
            wrong.push(format!("{found:?}"));
        }
        let null = column.data_type() == &DataType::Null || column.is_null(1);
        assert!(null, "{} is not NULL", schema.field(index).name());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A client that calls itself what the JDBC driver calls itself.
async fn java(server: &TestServer) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.user_agent("grpc-java-netty/1.71.0").unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    client.handshake("root", "root-secret").await.unwrap();
    client
}

#[tokio::test]
async fn a_java_client_gets_signed_numbers_and_described_columns() {
    let server = start().await;
    let mut client = java(&server).await;
    let batch = all_types(&mut client).await;
    let by_name = |name: &str| batch.column_by_name(name).unwrap();
    for (name, kind, expected) in [
        ("uint8", DataType::Int16, "255"),
        ("uint16", DataType::Int32, "65535"),
        ("uint32", DataType::Int64, "4294967295"),
        ("uint64", DataType::Decimal128(20, 0), "18446744073709551615"),
    ] {
        assert_eq!(by_name(name).data_type(), &kind);
        assert_eq!(value(by_name(name), 0), expected);
    }
    let schema = batch.schema();
    let decimal = schema.field_with_name("decimal128").unwrap().metadata();
    assert_eq!(decimal["ARROW:FLIGHT:SQL:PRECISION"], "38");
    assert_eq!(decimal["ARROW:FLIGHT:SQL:TYPE_NAME"], "DECIMAL");

    let text = "SELECT $1 AS a WHERE TIMESTAMP '2024-02-29T00:00:00' < $2";
    let prepared = client.prepare(text.into(), None).await.unwrap();
    let types = prepared.parameter_schema().unwrap();
    let kinds: Vec<_> = types.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Utf8", "Timestamp(ms)"]);
    let text = "CREATE VIEW counted AS SELECT arrow_cast(1, 'UInt32') AS n";
    client.execute_update(text.into(), None).await.unwrap();
    let query = CommandGetTables {
        table_name_filter_pattern: Some("counted".into()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(query).await.unwrap();
    let tables = fetch(&mut client, &info).await.unwrap();
    let bytes = tables[0].column(4).as_binary::<i32>().value(0).to_vec();
    let columns = arrow::datatypes::Schema::try_from(IpcMessage(bytes.into())).unwrap();
    let counted = columns.field(0);
    assert_eq!(counted.data_type(), &DataType::Int64);
    assert_eq!(counted.metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "BIGINT");
}
