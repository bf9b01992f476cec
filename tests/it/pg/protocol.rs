//! The protocol: both ways to ask, types, limits, cancelling.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Client, extended, framed, kinds, start_open, sync};

/// Works for days, and has no row to send.
const ENDLESS: &str = "SELECT sum(value) FROM generate_series(1, 1000000000000000)";

#[tokio::test]
async fn a_session_starts_with_what_tools_look_for() {
    let server = start_open().await;
    let mut client = Client::stranger(server.address, false).await;
    let parameters = [
        ("user", "ada"),
        ("application_name", "a tool"),
        ("options", "-c search_path=system -c extra_float_digits=2"),
    ];
    client.start(&parameters, None).await.unwrap();
    for (name, value) in [
        ("server_version", "16.6"),
        ("client_encoding", "UTF8"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("application_name", "a tool"),
        ("TimeZone", "UTC"),
    ] {
        assert_eq!(client.parameters[name], value, "{name}");
    }
    assert!(client.parameters["DateStyle"].starts_with("ISO"));
    assert_eq!(client.rows("SELECT current_schema()").await, ["system"]);
    assert_eq!(client.rows("SHOW extra_float_digits").await, ["2"]);
    let mut other = Client::stranger(server.address, false).await;
    let refused = other.start(&[("user", "a"), ("database", "nowhere")], None).await.unwrap_err();
    assert_eq!(refused.state(), "3D000");
    let mut other = Client::stranger(server.address, false).await;
    let refused = other.start(&[("user", "a"), ("client_encoding", "LATIN1")], None).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_script_is_answered_statement_by_statement() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    let replies = client.query("SELECT 1 AS a; SELECT 'x;y', NULL").await;
    assert_eq!(kinds(&replies), "TDCTDC");
    assert_eq!(replies[4].texts(), ["x;y", "NULL"]);
    assert_eq!(replies[5].tag(), "SELECT 1");
    assert_eq!(kinds(&client.query("  ; ").await), "I");
    let replies = client.query("SELECT 1; SELECT nonsense; SELECT 2").await;
    assert_eq!(kinds(&replies), "TDCE");
    assert_eq!(replies[3].state(), "42703");
    assert_eq!(client.rows("SELECT 3").await, ["3"]);
    for (text, state) in [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT 1/0", "22012"),
        ("COPY t FROM STDIN", "0A000"),
        ("SET datafusion.execution.batch_size = 1", "42704"),
        ("CREATE TABLE system.x AS SELECT 1", "42501"),
    ] {
        let error = client.failure(text).await;
        assert_eq!(error.state(), state, "{text}: {}", error.message());
    }
}

#[tokio::test]
async fn changes_tell_their_numbers() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    for (text, tag) in [
        ("CREATE TABLE main.t AS SELECT * FROM (VALUES (1), (2)) AS v(a)", "CREATE TABLE"),
        ("INSERT INTO t VALUES (3)", "INSERT 0 1"),
        ("UPDATE t SET a = a + 1 WHERE a > 1", "UPDATE 2"),
        ("DELETE FROM t WHERE a = 1", "DELETE 1"),
        ("SELECT * FROM t", "SELECT 2"),
        ("SHOW TABLES", "SHOW"),
        ("DROP TABLE t", "DROP TABLE"),
    ] {
        assert_eq!(client.tag(text).await, tag, "{text}");
    }
}

#[tokio::test]
async fn values_are_bound_in_text_and_in_binary() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    let text = "SELECT $1 + 1, $2, $3 IS NULL";
    let values: [Option<&[u8]>; 3] = [Some(b"41"), Some(b"x"), None];
    client.send(&[extended(text, &[20, 0, 25], &values, false, 0), sync()].concat()).await;
    let replies = client.replies().await;
    assert_eq!(kinds(&replies), "12TDC");
    assert_eq!(replies[3].texts(), ["42", "x", "t"]);
    let (one, day) = (41i32.to_be_bytes(), 366i32.to_be_bytes());
    let values: [Option<&[u8]>; 2] = [Some(&one), Some(&day)];
    let text = "SELECT $1 + 1, $2";
    client.send(&[extended(text, &[23, 1082], &values, true, 0), sync()].concat()).await;
    let replies = client.replies().await;
    assert_eq!(kinds(&replies), "12TDC", "{replies:?}");
    let values = replies[3].values();
    assert_eq!(values[0].as_ref().unwrap().last(), Some(&42));
    assert_eq!(values[1].as_deref(), Some(&day[..]));
}

#[tokio::test]
async fn an_error_is_skipped_to_the_next_sync() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    let bad = extended("SELECT nonsense", &[], &[], false, 0);
    let good = extended("SELECT 1", &[], &[], false, 0);
    client.send(&[bad, good.clone(), sync(), good, sync()].concat()).await;
    assert_eq!(kinds(&client.replies().await), "E");
    assert_eq!(kinds(&client.replies().await), "12TDC");
    let missing = framed(b'B', b"\0nowhere\0\0\0\0\0\0\0");
    client.send(&[missing, sync()].concat()).await;
    assert_eq!(client.replies().await[0].state(), "26000");
}

#[tokio::test]
async fn a_result_is_read_bit_by_bit_inside_a_transaction() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    let text = "SELECT * FROM (VALUES (1), (2), (3), (4), (5)) AS v(a)";
    client.query("BEGIN").await;
    client.send(&[extended(text, &[], &[], false, 2), sync()].concat()).await;
    assert_eq!(kinds(&client.replies().await), "12TDDs");
    let more = framed(b'E', &[0, 0, 0, 0, 2]);
    client.send(&[more.clone(), sync()].concat()).await;
    assert_eq!(kinds(&client.replies().await), "DDs");
    client.send(&[more.clone(), sync()].concat()).await;
    let last = client.replies().await;
    assert_eq!((kinds(&last).as_str(), last[1].tag().as_str()), ("DC", "SELECT 1"));
    client.query("COMMIT").await;
    // Outside of a transaction, the result ends with what belongs together.
    client.send(&[extended(text, &[], &[], false, 2), sync()].concat()).await;
    assert_eq!(kinds(&client.replies().await), "12TDDs");
    client.send(&[more, sync()].concat()).await;
    assert_eq!(client.replies().await[0].state(), "34000");
}

#[tokio::test]
async fn every_type_arrives() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    for (expression, text) in [
        ("arrow_cast(7, 'UInt8')", "7"),
        ("arrow_cast(18446744073709551615, 'UInt64')", "18446744073709551615"),
        (
            "arrow_cast('12345678901234567890123456789012345.67', 'Decimal128(38, 2)')",
            "12345678901234567890123456789012345.67",
        ),
        ("arrow_cast('-0.5', 'Decimal256(60, 3)')", "-0.500"),
        ("arrow_cast('a', 'Dictionary(Int32, Utf8)')", "a"),
        ("arrow_cast('a', 'LargeUtf8')", "a"),
        ("arrow_cast('a', 'Utf8View')", "a"),
        ("arrow_cast('ab', 'Binary')", "\\x6162"),
        ("1e0", "1"),
        ("arrow_cast(0.1, 'Float32')", "0.1"),
        ("DATE '2026-01-31'", "2026-01-31"),
        ("TIME '01:02:03.5'", "01:02:03.5"),
        ("TIMESTAMP '2026-01-31 01:02:03.25'", "2026-01-31 01:02:03.25"),
        (
            "arrow_cast('2026-01-31T01:02:03', 'Timestamp(Nanosecond, Some(\"UTC\"))')",
            "2026-01-31 01:02:03+00",
        ),
        ("INTERVAL '1 year 2 days 3 hours'", "1 year 2 days 03:00:00"),
        ("arrow_cast(1500, 'Duration(Millisecond)')", "00:00:01.5"),
        ("make_array(1, NULL, 3)", "{1,NULL,3}"),
        ("make_array('a b', 'c\"d')", "{\"a b\",\"c\\\"d\"}"),
        ("make_array(make_array(1), make_array(2, 3))", "[[1],[2,3]]"),
        ("named_struct('a', 1, 'b', 'x')", "{\"a\":1,\"b\":\"x\"}"),
        ("map(make_array('k'), make_array(1))", "{\"k\":1}"),
        ("true", "t"),
        ("NULL", "NULL"),
        ("CAST(NULL AS INTERVAL)", "NULL"),
    ] {
        assert_eq!(client.rows(&format!("SELECT {expression}")).await, [text], "{expression}");
    }
    client.query("SET TIME ZONE '+02:00'").await;
    let stamp = "arrow_cast('2026-01-31T01:02:03Z', 'Timestamp(Second, Some(\"UTC\"))')";
    assert_eq!(client.rows(&format!("SELECT {stamp}")).await, ["2026-01-31 03:02:03+02"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_cancels_only_its_own_connection() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    let other = Client::open(&server).await;
    let (number, key) = client.key.clone();
    client.send(&framed(b'Q', format!("{ENDLESS}\0").as_bytes())).await;
    let running = || server.engine.queries().current().1 > 0;
    let started = Instant::now();
    while !running() {
        assert!(started.elapsed() < Duration::from_secs(20), "the query did not start");
        tokio::task::yield_now().await;
    }
    let ask = |number: i32, key: Vec<u8>| {
        let address = server.address;
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let length = (12 + key.len() as u32).to_be_bytes();
            let code = 80_877_102u32.to_be_bytes();
            let message = [&length[..], &code, &number.to_be_bytes(), &key].concat();
            stream.write_all(&message).await.unwrap();
            // The server closes when it has done what was asked.
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        }
    };
    ask(number, other.key.1.clone()).await;
    ask(other.key.0, key.clone()).await;
    assert!(running(), "somebody else's key cancelled the query");
    ask(number, key).await;
    let replies = client.replies().await;
    assert_eq!(replies.last().unwrap().state(), "57014");
    assert_eq!(client.rows("SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_its_statement() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    client.send(&framed(b'Q', format!("{ENDLESS}\0").as_bytes())).await;
    let running = || server.engine.queries().current().1 > 0;
    let waited = Instant::now();
    while !running() {
        assert!(waited.elapsed() < Duration::from_secs(20), "the query did not start");
        tokio::task::yield_now().await;
    }
    drop(client);
    let waited = Instant::now();
    while running() {
        assert!(waited.elapsed() < Duration::from_secs(10), "the query goes on");
        tokio::task::yield_now().await;
    }
    let records = server.engine.queries().records();
    assert_eq!(records.last().map(|record| record.state), Some(sql::queries::State::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_has_its_time() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    client.query("SET statement_timeout = '100ms'").await;
    assert_eq!(client.failure(ENDLESS).await.state(), "57014");
    assert_eq!(client.rows("SHOW statement_timeout").await, ["100ms"]);
}
