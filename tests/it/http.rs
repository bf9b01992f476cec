//! Health and metrics over HTTP, as an orchestrator and Prometheus ask for them.

use std::net::SocketAddr;
use std::time::Duration;

use attune::auth::Authentication;
use attune::server::flight::FlightOptions;
use attune::server::http::HttpOptions;
use attune::server::{ServeOptions, bind};
use catalog::policy::Principal;
use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Status, head and body of a GET.
pub async fn get(address: SocketAddr, path: &str) -> Option<(u16, String, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: attune\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_lowercase(), body.to_owned()))
}

fn options(http: &str) -> ServeOptions {
    let local = "127.0.0.1:0".parse().unwrap();
    ServeOptions {
        flight: FlightOptions {
            authentication: Authentication::None,
            drain: Duration::from_secs(30),
            ..FlightOptions::at(local)
        },
        http: Some(HttpOptions {
            address: http.parse().unwrap(),
            tls: None,
            name_expectations: false,
        }),
        pg: None,
        retain_every: None,
    }
}

/// A sample's value.
fn value(metrics: &str, sample: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(&format!("{sample} ")));
    let line = line.unwrap_or_else(|| panic!("no {sample} in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_until_it_drains_and_metrics_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let servers = bind(engine.clone(), options("127.0.0.1:0")).await.unwrap();
    let (http, flight) = (servers.http_addr().unwrap(), servers.flight_addr());
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let running =
        tokio::spawn(servers.run(stop.clone().cancelled_owned(), force.clone().cancelled_owned()));
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(get(http, path).await.unwrap().0, 200, "{path}");
    }
    for path in ["/", "/health", "/metrics/x", "/../etc/passwd"] {
        assert_eq!(get(http, path).await.unwrap().0, 404, "{path}");
    }
    let session = engine.session(Principal::embedded());
    let answer = session.query("SELECT * FROM (VALUES (1), (2)) AS t(n)").await.unwrap();
    let _: Vec<_> = answer.rows.try_collect().await.unwrap();
    session.query("SELECT nothing").await.unwrap_err();
    let held = session.query("SELECT 1 AS held").await.unwrap();
    let (status, head, metrics) = get(http, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert_eq!(value(&metrics, "attune_statements_total{state=\"finished\"}"), 1.0);
    assert_eq!(value(&metrics, "attune_statements_total{state=\"failed\"}"), 1.0);
    let errors = "attune_statement_errors_total{class=\"invalid\",code=\"ATT-2001\"}";
    assert_eq!(value(&metrics, errors), 1.0);
    assert_eq!(value(&metrics, "attune_rows_total"), 2.0);
    assert_eq!(value(&metrics, "attune_statement_seconds_count"), 2.0);
    assert_eq!(value(&metrics, "attune_statements_running"), 1.0);
    assert_eq!(value(&metrics, "attune_sessions"), 1.0);
    assert_eq!(value(&metrics, "attune_expectations_unmet{severity=\"error\"}"), 0.0);
    assert!(value(&metrics, "attune_resident_memory_bytes") > 1e6);
    assert!(metrics.contains("attune_build_info{version="), "{metrics}");
    assert!(!metrics.contains("local"), "a metric names a user:\n{metrics}");

    // A statement of a client keeps the server; health says that no more are wanted.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{flight}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel);
    let text = crate::flight::endless(12);
    let info = client.execute(text, None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    stop.cancel();
    let (status, _, body) = get(http, "/health/ready").await.unwrap();
    assert_eq!((status, body.as_str()), (503, "draining\n"));
    assert_eq!(get(http, "/health/live").await.unwrap().0, 200);
    assert!(tokio::net::TcpStream::connect(flight).await.is_err());
    assert!(rows.try_next().await.unwrap().is_some());
    force.cancel();
    while let Ok(Some(_)) = rows.try_next().await {}
    drop((rows, client, held));
    running.await.unwrap().unwrap();
    assert!(get(http, "/health/live").await.is_none());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = bind(engine, options(&address)).await.err().unwrap();
    assert!(error.to_string().contains(&format!("cannot listen on {address}")), "{error}");
    assert!(error.hint().unwrap().contains("--http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_away_is_not_ready() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Nothing listens there any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let warehouse = catalog::StoreConfig {
        url: "s3://gone/warehouse".into(),
        endpoint: Some(format!("http://{gone}")),
        allow_http: true,
        access_key_id: Some("id".into()),
        secret_access_key: Some(catalog::Secret::new("secret")),
        ..catalog::StoreConfig::default()
    };
    let config = catalog::CatalogConfig::new(warehouse, std::sync::Arc::new(|| 1));
    let opened = tokio::time::timeout(Duration::from_secs(60), catalog::Catalog::open(config));
    let hasher = std::sync::Arc::new(attune::auth::hasher::Argon2Hasher::default());
    let engine =
        sql::Engine::open(opened.await.unwrap().unwrap(), sql::Limits::default(), hasher).unwrap();
    let servers = bind(engine, options("127.0.0.1:0")).await.unwrap();
    let http = servers.http_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(servers.run(stop.clone().cancelled_owned(), std::future::pending()));
    let (status, _, body) = get(http, "/health/ready").await.unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("warehouse") && !body.contains("127.0.0.1"), "{body}");
    assert_eq!(get(http, "/health/live").await.unwrap().0, 200);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_under_tls_where_a_certificate_is_given() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let (files, pem) = crate::flight::certificate(folder.path(), "localhost");
    let mut options = options("127.0.0.1:0");
    let tls = attune::server::tls::Tls::open(files).unwrap();
    options.http.as_mut().unwrap().tls = Some(tls);
    let servers = bind(engine, options).await.unwrap();
    let http = servers.http_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(servers.run(stop.clone().cancelled_owned(), std::future::pending()));
    // A connection that never shakes hands holds up nobody.
    let silent = tokio::net::TcpStream::connect(http).await.unwrap();
    let client = reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(reqwest::Certificate::from_pem(pem.as_bytes()).unwrap())
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/health/ready", http.port());
    let answer = client.get(url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, "ready\n".into()));
    drop((silent, client));
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_dashboard_and_the_page_show_metrics_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    session.query("SELECT nothing").await.unwrap_err();
    let metrics = attune::observe::metrics::Metrics::new(engine.clone(), true);
    session.query("SELECT nothing").await.unwrap_err();
    for statement in [
        "CREATE TABLE orders AS SELECT 1 AS id",
        "CREATE EXPECTATION many ON orders CHECK (row_count() > 10) SEVERITY 'warn'",
        "CHECK TABLE orders",
    ] {
        let answer = session.query(statement).await.unwrap();
        let _: Vec<_> = answer.rows.try_collect().await.unwrap();
    }
    metrics.refresh().await;
    let text = metrics.render().unwrap();
    let has = |name: &str| {
        let of_name = |line: &str| {
            let rest = line.strip_prefix("# TYPE ").unwrap_or(line).strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        text.lines().any(of_name)
    };
    assert!(!has("attune_checks_tot") && has("attune_checks_total") && has("attune_queue_seconds"));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in ["docs/grafana.json", "docs/alerts.yml", "docs/operations.md"] {
        let page = std::fs::read_to_string(root.join(page)).unwrap();
        let mut names = 0;
        for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("attune_") && word.len() > "attune_".len() {
                names += 1;
                assert!(has(word), "no metric {word} in\n{text}");
            }
        }
        assert!(names > 10, "{names}");
    }
}

#[tokio::test]
async fn checks_and_refused_rows_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let metrics = attune::observe::metrics::Metrics::new(engine.clone(), false);
    let sample = |name: &str| value(&metrics.render().unwrap(), name);
    let checks = |kind: &str, status: &str, origin: &str| {
        let labels = format!("kind=\"{kind}\",status=\"{status}\",origin=\"{origin}\"");
        sample(&format!("attune_checks_total{{{labels}}}"))
    };
    let unmet = async || {
        metrics.refresh().await;
        ["error", "warn"]
            .map(|word| sample(&format!("attune_expectations_unmet{{severity=\"{word}\"}}")))
    };
    let run = async |text: &str| {
        let answer = session.query(text).await.map_err(|error| error.to_string())?;
        answer.rows.try_collect::<Vec<_>>().await.map_err(|error| error.to_string())
    };
    for text in [
        "CREATE TABLE orders AS SELECT * FROM (VALUES (1, 5), (2, -1)) AS v (id, price)",
        "CREATE EXPECTATION positive ON orders CHECK (price > 0) SEVERITY 'error'",
        "CREATE EXPECTATION many ON orders CHECK (row_count() > 10) SEVERITY 'warn'",
        "CREATE EXPECTATION one ON orders CHECK (uniqueness(id) = 1) SEVERITY 'warn'",
    ] {
        run(text).await.unwrap();
    }
    assert_eq!((checks("range", "fail", "check"), unmet().await), (0.0, [0.0, 0.0]));
    run("CHECK TABLE orders").await.unwrap();
    assert_eq!(checks("range", "fail", "check"), 1.0);
    assert_eq!(checks("volume", "warn", "check"), 1.0);
    assert_eq!(checks("uniqueness", "pass", "check"), 1.0);
    assert_eq!(unmet().await, [1.0, 1.0]);
    // Another server over the warehouse tells the same, as this one would after a restart.
    let other = crate::slt::engine(folder.path()).await;
    let other = attune::observe::metrics::Metrics::new(other, true);
    other.refresh().await;
    let told = other.render().unwrap();
    let labels = "schema=\"main\",table=\"orders\",expectation=\"positive\",severity=\"error\"";
    assert_eq!(value(&told, "attune_expectations_unmet{severity=\"error\"}"), 1.0);
    assert_eq!(value(&told, &format!("attune_expectation_unmet{{{labels}}}")), 1.0);
    assert_eq!(value(&told, &format!("attune_expectation_value{{{labels}}}")), 0.5);
    assert!(!metrics.render().unwrap().contains("orders"));
    // Rows that are refused count as refused, and are none of the table's.
    let refused = run("INSERT INTO orders VALUES (3, -2)").await.unwrap_err();
    assert!(refused.contains("do not meet positive"), "{refused}");
    assert_eq!(checks("range", "fail", "load"), 1.0);
    assert_eq!((checks("range", "fail", "check"), unmet().await), (1.0, [1.0, 1.0]));
    run("INSERT INTO orders VALUES (3, 2)").await.unwrap();
    assert_eq!((checks("range", "pass", "load"), checks("range", "fail", "load")), (1.0, 1.0));
    // At load only what may refuse rows is computed.
    assert_eq!(checks("volume", "warn", "load"), 0.0);
    run("DELETE FROM orders WHERE price < 0").await.unwrap();
    run("CHECK TABLE orders").await.unwrap();
    assert_eq!((checks("range", "pass", "check"), unmet().await), (1.0, [0.0, 1.0]));
    run("DROP EXPECTATION many ON orders").await.unwrap();
    assert_eq!(unmet().await, [0.0, 0.0]);
}
