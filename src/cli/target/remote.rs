//! A server elsewhere, asked over Flight SQL: name and password become a bearer token, each
//! statement is started by PollFlightInfo and watched until its rows are there, and cancelled when
//! nobody waits for it any more. A server that cannot be polled is asked by prepared statements,
//! because only a prepared statement's schema tells a query from an update.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, FlightInfo, IpcMessage};
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{ProgressReceiver, Relation, Reply, Rows, Target};
use crate::cli::lexer;
use crate::error::{Error, Result};

/// How to reach a server.
#[derive(Clone)]
pub struct RemoteOptions {
    /// `grpc://HOST:PORT` or `grpc+tls://HOST:PORT`.
    pub address: String,
    /// Name and password; `None` for a server without users, or with another credential.
    pub login: Option<(String, String)>,
    /// A bearer token; name and password go before it.
    pub token: Option<String>,
    /// PEM file of certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's own certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// One message; the server sends batches of about 2 MiB, but a single row may be larger.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A server may be away for good: say so soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where systems keep the certificates they trust.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

type Client = FlightSqlServiceClient<Channel>;

/// A session on a server.
pub struct Remote {
    client: Client,
    address: String,
    progress: watch::Sender<Option<sql::Progress>>,
}

impl Remote {
    /// Connects and logs in.
    pub async fn connect(options: &RemoteOptions) -> Result<Self> {
        let channel = endpoint(options)?
            .connect()
            .await
            .map_err(|error| unreachable_server(&options.address, &error))?;
        let inner = FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut client = FlightSqlServiceClient::new_from_inner(inner);
        if let Some((name, password)) = &options.login {
            client.handshake(name, password).await.map_err(login_error)?;
        } else if let Some(token) = &options.token {
            client.set_token(token.clone());
        }
        let progress = watch::channel(None).0;
        Ok(Self { client, address: options.address.clone(), progress })
    }

    /// Starts a statement and waits for its rows; `None` where the server cannot be polled.
    async fn poll(&self, statement: &str) -> Result<Option<FlightInfo>> {
        let command = CommandStatementQuery { query: statement.to_owned(), transaction_id: None };
        let mut descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let mut started = Started { client: self.client.clone(), info: None };
        loop {
            let request = authorized(&self.client, descriptor)?;
            let polled = self.client.clone().inner_mut().poll_flight_info(request).await;
            let polled = match polled {
                Ok(polled) => polled.into_inner(),
                Err(status) if status.code() == Code::Unimplemented && started.info.is_none() => {
                    // The server has no polls, or it has and the statement is not supported: the
                    // other way tells.
                    return Ok(None);
                }
                Err(status) => {
                    started.info = None;
                    return Err(status_error(&status));
                }
            };
            let info = polled.info.unwrap_or_default();
            let Some(again) = polled.flight_descriptor else {
                started.info = None;
                self.progress.send_replace(None);
                return Ok(Some(info));
            };
            self.progress.send_replace(progress(&info));
            started.info = Some(info);
            descriptor = again;
        }
    }

    async fn polled(&self, info: &FlightInfo) -> Result<Reply> {
        let mut rows = self.rows(info).await?;
        if !info.schema.is_empty() {
            let schema = Schema::try_from(IpcMessage(info.schema.clone()));
            let schema = Arc::new(schema.map_err(arrow_error)?);
            return Ok(Reply { schema, rows, affected: None, message: None });
        }
        while let Some(batch) = rows.next().await {
            batch?;
        }
        let said: serde_json::Value =
            serde_json::from_slice(&info.app_metadata).unwrap_or_default();
        Ok(Reply {
            schema: Arc::new(Schema::empty()),
            rows: stream::empty().boxed(),
            affected: said["rows_affected"].as_i64(),
            message: said["message"].as_str().map(str::to_owned),
        })
    }

    async fn rows(&self, info: &FlightInfo) -> Result<Rows> {
        let mut streams: Vec<BoxStream<'static, Result<RecordBatch>>> = Vec::new();
        for endpoint in &info.endpoint {
            let Some(ticket) = endpoint.ticket.clone() else { continue };
            let batches = self.client.clone().do_get(ticket).await.map_err(flight_error)?;
            streams.push(batches.map_err(flight_error).boxed());
        }
        Ok(stream::iter(streams).flatten().boxed())
    }
}

#[async_trait]
impl Target for Remote {
    async fn run(&self, statement: &str) -> Result<Reply> {
        if let Some(info) = self.poll(statement).await? {
            return self.polled(&info).await;
        }
        let mut client = self.client.clone();
        let mut prepared =
            client.prepare(statement.to_owned(), None).await.map_err(flight_error)?;
        let schema = Arc::new(prepared.dataset_schema().map_err(flight_error)?.clone());
        if schema.fields().is_empty() {
            let affected = prepared.execute_update().await;
            // The statement has run; a handle that cannot be closed ends with the session.
            let _ = prepared.close().await;
            let affected = affected.map_err(flight_error)?;
            return Ok(Reply {
                schema,
                rows: stream::empty().boxed(),
                affected: Some(affected).filter(|rows| *rows >= 0),
                message: None,
            });
        }
        let info = prepared.execute().await.map_err(flight_error)?;
        let rows = self.rows(&info).await?;
        // The handle must outlive the rows; it is closed when they are read or dropped.
        let rows = stream::unfold((rows, Some(prepared)), |(mut rows, mut prepared)| async move {
            match rows.next().await {
                Some(batch) => Some((batch, (rows, prepared))),
                None => {
                    if let Some(prepared) = prepared.take() {
                        let _ = prepared.close().await;
                    }
                    None
                }
            }
        });
        Ok(Reply { schema, rows: rows.boxed(), affected: None, message: None })
    }

    async fn split(&self, script: &str) -> Result<Vec<String>> {
        Ok(lexer::split(script).into_iter().map(str::to_owned).collect())
    }

    async fn relations(&self, with_columns: bool) -> Result<Vec<Relation>> {
        let request = CommandGetTables {
            catalog: None,
            db_schema_filter_pattern: None,
            table_name_filter_pattern: None,
            table_types: Vec::new(),
            include_schema: with_columns,
        };
        let info = self.client.clone().get_tables(request).await.map_err(flight_error)?;
        let batches: Vec<RecordBatch> = self.rows(&info).await?.try_collect().await?;
        Ok(batches.iter().flat_map(relations).collect())
    }

    async fn functions(&self) -> Result<Vec<sql::FunctionDoc>> {
        let reply = self
            .run("SELECT name, section, description, syntax, example FROM system.functions")
            .await?;
        let batches: Vec<RecordBatch> = reply.rows.try_collect().await?;
        Ok(batches.iter().flat_map(functions).collect())
    }

    fn progress(&self) -> Option<ProgressReceiver> {
        Some(self.progress.subscribe())
    }

    fn description(&self) -> String {
        self.address.clone()
    }

    async fn close(&self) -> Result<()> {
        let action = Action { r#type: "CloseSession".into(), body: Vec::new().into() };
        // A server without sessions refuses the action, and the connection ends all the same.
        let _ = self.client.clone().do_action(action).await;
        Ok(())
    }
}

/// A statement that runs on the server; dropped before its rows are there, it is cancelled.
struct Started {
    client: Client,
    info: Option<FlightInfo>,
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(info) = self.info.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut client = self.client.clone();
        runtime.spawn(async move {
            let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec().into();
            let action = Action { r#type: "CancelFlightInfo".into(), body };
            // The statement ends by itself a while later when this does not arrive.
            let _ = client.do_action(action).await;
        });
    }
}

/// A call with the session's token.
fn authorized<T>(client: &Client, message: T) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = client.token() {
        let header = format!("Bearer {token}").parse();
        let header = header.map_err(|_| transport_error("the token is no header".into()))?;
        request.metadata_mut().insert("authorization", header);
    }
    Ok(request)
}

/// What the server says of a statement that works.
fn progress(info: &FlightInfo) -> Option<sql::Progress> {
    let said: serde_json::Value = serde_json::from_slice(&info.app_metadata).ok()?;
    Some(sql::Progress {
        phase: said["phase"].as_str()?.to_owned(),
        done: said["done"].as_u64()?,
        total: said["total"].as_u64()?,
        metric: said["metric"].as_f64(),
    })
}

/// The rows of GetTables; a column that is missing or of another type gives no relations.
fn relations(batch: &RecordBatch) -> Vec<Relation> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (Some(schemas), Some(names), Some(kinds)) =
        (text("db_schema_name"), text("table_name"), text("table_type"))
    else {
        return Vec::new();
    };
    let columns =
        batch.column_by_name("table_schema").and_then(|column| column.as_binary_opt::<i32>());
    let decode = |row: usize| {
        let bytes = columns.filter(|column| column.is_valid(row))?.value(row);
        Schema::try_from(IpcMessage(bytes.to_vec().into())).ok().map(Arc::new)
    };
    (0..batch.num_rows())
        .map(|row| Relation {
            schema: if schemas.is_valid(row) { schemas.value(row) } else { "" }.to_owned(),
            name: names.value(row).to_owned(),
            kind: kinds.value(row).to_owned(),
            columns: decode(row),
        })
        .collect()
}

/// The rows of `system.functions`; columns that are missing give no functions.
fn functions(batch: &RecordBatch) -> Vec<sql::FunctionDoc> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (Some(names), Some(sections), Some(about), Some(syntax), Some(examples)) =
        (text("name"), text("section"), text("description"), text("syntax"), text("example"))
    else {
        return Vec::new();
    };
    let function = |row: usize| sql::FunctionDoc {
        name: names.value(row).to_owned(),
        aliases: Vec::new(),
        kind: "",
        section: sections.value(row).to_owned(),
        description: about.value(row).to_owned(),
        syntax: syntax.value(row).to_owned(),
        example: examples.value(row).to_owned(),
        arguments: Vec::new(),
        own: true,
    };
    (0..batch.num_rows()).map(function).collect()
}

fn endpoint(options: &RemoteOptions) -> Result<Endpoint> {
    let wrong = || {
        Error::usage(
            format!("{:?} is no address of a server", options.address),
            "write grpc://HOST:PORT, or grpc+tls://HOST:PORT",
        )
    };
    let (scheme, place) = options.address.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "grpc" | "grpc+tcp" => false,
        "grpc+tls" => true,
        _ => return Err(wrong()),
    };
    if place.is_empty() || place.contains('@') {
        return Err(wrong());
    }
    let url = format!("{}://{place}", if tls { "https" } else { "http" });
    let endpoint = Endpoint::from_shared(url)
        .map_err(|_| wrong())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    if !tls {
        return Ok(endpoint);
    }
    let mut configuration = ClientTlsConfig::new().ca_certificate(certificates(options)?);
    if let Some((certificate, key)) = &options.certificate {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| Error::file("read", path, &error));
        configuration = configuration.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    endpoint.tls_config(configuration).map_err(|error| unreachable_server(place, &error))
}

fn certificates(options: &RemoteOptions) -> Result<Certificate> {
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map(Certificate::from_pem)
            .map_err(|error| Error::file("read", path, &error))
    };
    if let Some(path) = &options.ca {
        return read(path);
    }
    let system = SYSTEM_CERTIFICATES.iter().map(std::path::Path::new).find(|path| path.is_file());
    system.map(read).unwrap_or_else(|| {
        Err(Error::usage("this system's trusted certificates were not found", "give --ca FILE"))
    })
}

/// The transport hides the cause ("connection refused") behind several layers.
fn unreachable_server(address: &str, error: &dyn std::error::Error) -> Error {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Error::Remote {
        reason: format!("cannot reach {address}: {innermost}"),
        status: tonic::Code::Unavailable,
    }
}

fn login_error(error: FlightError) -> Error {
    // The client gives the handshake's status as text only.
    let text = match error {
        FlightError::Tonic(status) => return status_error(&status),
        other => other.to_string(),
    };
    let refused = ["Unauthenticated", "unauthenticated", "does not have valid authentication"];
    if refused.iter().any(|word| text.contains(word)) {
        return Error::Login;
    }
    Error::Remote { reason: format!("cannot log in: {text}"), status: tonic::Code::Unknown }
}

fn arrow_error(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast::<FlightError>() {
            Ok(error) => flight_error(*error),
            Err(other) => transport_error(other.to_string()),
        },
        other => transport_error(other.to_string()),
    }
}

fn flight_error(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => status_error(&status),
        FlightError::Arrow(error) => arrow_error(error),
        other => transport_error(other.to_string()),
    }
}

fn status_error(status: &tonic::Status) -> Error {
    Error::Remote { reason: status.message().to_owned(), status: status.code() }
}

fn transport_error(reason: String) -> Error {
    Error::Remote { reason, status: tonic::Code::Unknown }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn options(address: &str) -> RemoteOptions {
        let address = address.into();
        RemoteOptions { address, login: None, token: None, ca: None, certificate: None }
    }

    #[test]
    fn an_address_without_scheme_or_with_a_password_is_refused() {
        for wrong in ["localhost:50051", "http://x:1", "grpc://", "grpc://ann:secret@x:1"] {
            let error = endpoint(&options(wrong)).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
        assert!(endpoint(&options("grpc://127.0.0.1:50051")).is_ok());
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_named_with_the_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("grpc://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Remote::connect(&options(&address)).await.err().unwrap();
        let text = error.render(false);
        assert!(text.contains(&address) && text.contains("refused"), "{text}");
        assert!(text.contains("hint:"), "{text}");
    }

    #[test]
    fn progress_is_read_where_the_server_tells_it() {
        let said = r#"{"query_id":"q","phase":"training","done":3,"total":20,"metric":0.5}"#;
        let info = FlightInfo::new().with_app_metadata(said);
        let read = progress(&info).unwrap();
        assert_eq!((read.phase.as_str(), read.done, read.total), ("training", 3, 20));
        assert_eq!(read.metric, Some(0.5));
        for other in ["", "{}", "Attune", "[1]"] {
            assert!(progress(&FlightInfo::new().with_app_metadata(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn the_rows_of_get_tables_are_read_and_strange_ones_are_not() {
        let column = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("db_schema_name", column("lake")),
            ("table_name", column("orders")),
            ("table_type", column("TABLE")),
        ])
        .unwrap();
        let found = relations(&batch);
        assert_eq!((found[0].schema.as_str(), found[0].name.as_str()), ("lake", "orders"));
        let strange = RecordBatch::try_from_iter([("x", column("y"))]).unwrap();
        assert!(relations(&strange).is_empty());
    }
}
