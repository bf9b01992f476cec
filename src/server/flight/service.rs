//! The service: each Flight call authenticated, dispatched and guarded.
//!
//! arrow-flight's `FlightSqlService` answers GetSchema and PollFlightInfo with UNIMPLEMENTED and
//! malformed messages with INTERNAL, so the calls are dispatched here. A panic in a handler or in a
//! stream becomes an INTERNAL status of that call; the server answers on.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command, DoPutPreparedStatementResult, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use sql::Compression;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::actions::{self, no_substrait};
use super::body::{self, Messages};
use super::incoming::Incoming;
use super::ingest::ingest;
use super::metadata::{self, Facts};
use super::parts;
use super::poll;
use super::prepared::PreparedStatements;
use super::rows::{Fetched, Told, encoded};
use super::sessions::{Caller, Sessions};
use super::statements::{Statements, flight_info, refuse_transaction};
use super::status;
use super::wire::ipc_schema;

/// Everything that the calls share.
pub struct State {
    /// Who is connected.
    pub sessions: Sessions,
    /// Statements under tickets.
    pub statements: Arc<Statements>,
    /// Prepared statements.
    pub prepared: PreparedStatements,
    /// What the server is.
    pub facts: Facts,
}

/// Attune's Flight SQL service.
#[derive(Clone)]
pub struct Service {
    state: Arc<State>,
}

impl Service {
    /// A service over shared state.
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    async fn info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
        endpoints: usize,
    ) -> Result<FlightInfo, Status> {
        let bytes = descriptor.cmd.clone();
        match described(&descriptor)? {
            Command::CommandStatementQuery(query) => {
                refuse_transaction(query.transaction_id.as_ref())?;
                let statement = self.state.statements.plan(caller, &query.query).await?;
                let cut = parts::offer(&self.state, caller, &statement, &descriptor, endpoints);
                match Box::pin(cut).await? {
                    Some(info) => Ok(info),
                    None => self.state.statements.offer(statement, descriptor),
                }
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.state.prepared.offer(caller, &query.prepared_statement_handle, descriptor)
            }
            other => {
                let schema = metadata::schema(&other).ok_or_else(|| misplaced(&other))?;
                let schema = encoded_schema(&schema)?;
                // The command is its own ticket: nothing to keep, and nothing that ends.
                Ok(flight_info(schema, bytes, descriptor, None))
            }
        }
    }

    async fn poll(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        match described(&descriptor)? {
            Command::CommandStatementQuery(query) => {
                refuse_transaction(query.transaction_id.as_ref())?;
                let statement = self.state.statements.plan(caller, &query.query).await?;
                self.state.statements.poll_first(statement, descriptor).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                self.state.prepared.poll(caller, &handle, descriptor).await
            }
            Command::TicketStatementQuery(query) => {
                let (owner, handle) = (caller.client.owner(), query.statement_handle);
                self.state.statements.poll_again(owner, &handle, descriptor).await
            }
            _ => Box::pin(self.info(caller, descriptor, 1)).await.map(poll::complete),
        }
    }

    async fn schema(
        &self,
        caller: &Caller,
        descriptor: &FlightDescriptor,
    ) -> Result<Bytes, Status> {
        match described(descriptor)? {
            Command::CommandStatementQuery(query) => {
                refuse_transaction(query.transaction_id.as_ref())?;
                let text = &query.query;
                let prepared = caller.client.session.prepare(text).await;
                let prepared = prepared.map_err(|error| status::from_sql(&error))?;
                encoded_schema(&super::wire::wire_schema(prepared.schema(), caller.types))
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.state.prepared.schema(caller, &query.prepared_statement_handle)
            }
            other => encoded_schema(&metadata::schema(&other).ok_or_else(|| misplaced(&other))?),
        }
    }

    async fn rows(
        &self,
        caller: &Caller,
        ticket: &Bytes,
        compression: Compression,
    ) -> Result<Fetched, Status> {
        let command = command(ticket)?;
        match &command {
            Command::TicketStatementQuery(query) => {
                let (owner, handle) = (caller.client.owner(), &query.statement_handle);
                self.state.statements.fetch(owner, handle, compression).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = &query.prepared_statement_handle;
                self.state.prepared.fetch(caller, handle, compression).await
            }
            Command::Unknown(any) if parts::signed(any).is_some() => {
                parts::fetch(&self.state, caller, &any.value, compression).await
            }
            other => {
                let session = &caller.client.session;
                let facts = &self.state.facts;
                let batch = metadata::answer(other, session, facts, caller.types).await?;
                let batch = batch.ok_or_else(|| misplaced(other))?;
                let batches = stream::iter([Ok(batch.clone())]).boxed();
                let messages = encoded(batch.schema(), compression, batches);
                Ok(Fetched { messages, told: Told::default() })
            }
        }
    }

    async fn put(
        &self,
        caller: &Caller,
        mut messages: Streaming<FlightData>,
    ) -> Result<(Bytes, Told), Status> {
        let Some(mut first) = messages.next().await.transpose()? else {
            return Err(status::malformed("DoPut came without a message"));
        };
        let Some(descriptor) = first.flight_descriptor.take() else {
            return Err(status::malformed("DoPut's first message has no descriptor"));
        };
        let told = match described(&descriptor)? {
            Command::CommandStatementUpdate(update) => {
                refuse_transaction(update.transaction_id.as_ref())?;
                let statement = self.state.statements.plan(caller, &update.query).await?;
                Box::pin(self.state.statements.update(statement)).await?
            }
            Command::CommandPreparedStatementUpdate(update) => {
                let handle = &update.prepared_statement_handle;
                let incoming = Incoming::open(first, messages).await?;
                Box::pin(self.state.prepared.update(caller, handle, incoming)).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                let incoming = Incoming::open(first, messages).await?;
                self.state.prepared.bind(caller, &handle, incoming).await?;
                let result =
                    DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                return Ok((result.encode_to_vec().into(), Told::default()));
            }
            Command::CommandStatementIngest(command) => {
                let incoming = Incoming::open(first, messages).await?;
                Box::pin(ingest(&self.state.statements, caller, command, incoming)).await?
            }
            other => return Err(misplaced(&other)),
        };
        let record_count = told.affected.unwrap_or(0);
        Ok((DoPutUpdateResult { record_count }.encode_to_vec().into(), told))
    }
}

/// What the headers of an answer say of its statement. A message may hold any character, so its
/// header is a binary one.
fn tell<T>(response: &mut Response<T>, told: &Told) {
    let headers = response.metadata_mut();
    if let Some(value) = told.query_id.as_ref().and_then(|id| id.parse().ok()) {
        headers.insert(status::QUERY_ID, value);
    }
    if let Some(affected) = told.affected {
        headers.insert("attune-rows-affected", affected.into());
    }
    if let Some(message) = &told.message {
        headers.insert_bin("attune-message-bin", MetadataValue::from_bytes(message.as_bytes()));
    }
}

/// How the caller wants its rows compressed: by header, else as its session says.
fn compression<T>(request: &Request<T>, caller: &Caller) -> Result<Compression, Status> {
    let Some(header) = request.metadata().get("attune-compression") else {
        return Ok(caller.client.session.settings().compression);
    };
    let name = header.to_str().unwrap_or("?");
    name.parse().map_err(|error| status::from_sql(&error))
}

/// In how many endpoints the caller takes a large result: by header, else as its session says.
fn endpoints<T>(request: &Request<T>, caller: &Caller) -> Result<usize, Status> {
    let Some(header) = request.metadata().get("attune-endpoints") else {
        return Ok(caller.client.session.settings().endpoints);
    };
    let number = header.to_str().ok().and_then(|text| text.parse().ok());
    number.filter(|number| (1..=parts::PARTS_MAX).contains(number)).ok_or_else(|| {
        let most = parts::PARTS_MAX;
        status::malformed(&format!("attune-endpoints is a number from 1 to {most}"))
    })
}

/// The command in a descriptor.
fn described(descriptor: &FlightDescriptor) -> Result<Command, Status> {
    if descriptor.r#type() == DescriptorType::Path {
        return Err(status::malformed("a path describes nothing here: send a Flight SQL command"));
    }
    command(&descriptor.cmd)
}

fn command(bytes: &Bytes) -> Result<Command, Status> {
    let malformed = || status::malformed("the bytes are no Flight SQL command");
    if bytes.is_empty() {
        return Err(status::malformed("there is no Flight SQL command"));
    }
    let any = Any::decode(bytes.clone()).map_err(|_| malformed())?;
    Command::try_from(any).map_err(|_| malformed())
}

/// A command that does not belong to the call it came with, or that Attune does not have.
fn misplaced(command: &Command) -> Status {
    match command {
        Command::CommandStatementSubstraitPlan(_) => no_substrait(),
        Command::Unknown(any) => status::unsupported(
            &format!("there is no command {:?}", any.type_url),
            "use the commands of Flight SQL",
        ),
        other => status::malformed(&format!("{} does not belong to this call", other.type_url())),
    }
}

fn encoded_schema(schema: &arrow::datatypes::SchemaRef) -> Result<Bytes, Status> {
    ipc_schema(schema)
        .map_err(|error| status::internal(&format!("the schema has no form: {error}")))
}

/// Runs a handler; a panic becomes a status.
async fn guarded<T>(
    call: &'static str,
    work: impl Future<Output = Result<T, Status>> + Send,
) -> Result<T, Status> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Err(panicked(call)),
    }
}

/// Guards a stream in the same way; after a panic nothing more comes.
fn guarded_stream(inner: Messages) -> Messages {
    AssertUnwindSafe(inner)
        .catch_unwind()
        .map(|message| message.unwrap_or_else(|_| Err(panicked("the stream of DoGet"))))
        .boxed()
}

fn panicked(call: &'static str) -> Status {
    // The panic hook has logged where; the payload may hold data and stays out of the answer.
    tracing::error!(call, "a Flight SQL call panicked");
    status::internal(&format!("{call} failed inside the server"))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    /// Empty: the messages go around tonic's codec, see [`body`].
    type DoGetStream = stream::Empty<Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        guarded("Handshake", async {
            let token = self.state.sessions.open(&request).await?;
            let payload = token.clone().unwrap_or_default().into();
            let answer = HandshakeResponse { protocol_version: 0, payload };
            let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
            if let Some(token) = token {
                let header = MetadataValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| status::internal("the token is no header"))?;
                response.metadata_mut().insert("authorization", header);
            }
            Ok(response)
        })
        .await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        guarded("ListFlights", async {
            self.state.sessions.caller(&request).await?;
            Err(status::unsupported(
                "flights are not listed",
                "list tables with Flight SQL's GetTables",
            ))
        })
        .await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        guarded("GetFlightInfo", async {
            let caller = self.state.sessions.caller(&request).await?;
            let endpoints = endpoints(&request, &caller)?;
            self.info(&caller, request.into_inner(), endpoints).await.map(Response::new)
        })
        .await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        guarded("PollFlightInfo", async {
            let caller = self.state.sessions.caller(&request).await?;
            self.poll(&caller, request.into_inner()).await.map(Response::new)
        })
        .await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        guarded("GetSchema", async {
            let caller = self.state.sessions.caller(&request).await?;
            let schema = self.schema(&caller, request.get_ref()).await?;
            Ok(Response::new(SchemaResult { schema }))
        })
        .await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        guarded("DoGet", async {
            let caller = self.state.sessions.caller(&request).await?;
            let compression = compression(&request, &caller)?;
            let fetched = self.rows(&caller, &request.get_ref().ticket, compression).await?;
            let mut response = Response::new(stream::empty());
            body::attach(&mut response, guarded_stream(fetched.messages));
            tell(&mut response, &fetched.told);
            Ok(response)
        })
        .await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        guarded("DoPut", async {
            let caller = self.state.sessions.caller(&request).await?;
            let (app_metadata, told) = self.put(&caller, request.into_inner()).await?;
            let result = stream::iter([Ok(PutResult { app_metadata })]).boxed();
            let mut response = Response::new(result);
            tell(&mut response, &told);
            Ok(response)
        })
        .await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        guarded("DoExchange", async {
            self.state.sessions.caller(&request).await?;
            Err(status::unsupported("DoExchange is not available", "use DoGet and DoPut"))
        })
        .await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        guarded("DoAction", async {
            let caller = match self.state.sessions.caller(&request).await {
                Err(refused)
                    if status::is_ended(&refused)
                        && actions::forgets_prepared(request.get_ref()) =>
                {
                    return Ok(Response::new(stream::empty().boxed()));
                }
                caller => caller?,
            };
            let bodies = actions::run(&self.state, &caller, request.get_ref()).await?;
            let results = bodies.into_iter().map(|body| Ok(arrow_flight::Result { body }));
            Ok(Response::new(stream::iter(results).boxed()))
        })
        .await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        guarded("ListActions", async {
            self.state.sessions.caller(&request).await?;
            Ok(Response::new(stream::iter(actions::list().into_iter().map(Ok)).boxed()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_status() {
        let work = async { if true { panic!("secret") } else { Ok(()) } };
        let status = guarded("DoGet", work).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }

    #[tokio::test]
    async fn a_panic_in_a_stream_ends_it_with_a_status() {
        let inner = stream::iter([1, 2]).map(|number| {
            assert!(number < 2, "a defect");
            Ok(body::Message::default())
        });
        let outcome: Vec<_> = guarded_stream(inner.boxed()).collect().await;
        assert_eq!(outcome.len(), 2);
        assert_eq!(outcome[1].as_ref().unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn bytes_that_are_no_command_are_the_clients_fault() {
        assert_eq!(
            command(&Bytes::from_static(b"\xff")).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(command(&Bytes::new()).unwrap_err().code(), Code::InvalidArgument);
        let path = FlightDescriptor::new_path(vec!["t".into()]);
        assert_eq!(described(&path).unwrap_err().code(), Code::InvalidArgument);
        let unknown = Any { type_url: "type.googleapis.com/x.Y".into(), value: Bytes::new() };
        let unknown = command(&unknown.encode_to_vec().into()).unwrap();
        assert_eq!(misplaced(&unknown).code(), Code::Unimplemented);
    }
}
