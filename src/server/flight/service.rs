//! The service: each Flight call authenticated, dispatched and guarded.
//!
//! arrow-flight's `FlightSqlService` answers GetSchema and PollFlightInfo with UNIMPLEMENTED and
//! malformed messages with INTERNAL, so the calls are dispatched here. A panic in a handler or in a
//! stream becomes an INTERNAL status of that call; the server answers on.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
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
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::actions::{self, no_substrait};
use super::metadata::{self, Facts};
use super::prepared::{PreparedStatements, PutStream};
use super::sessions::{Caller, Sessions};
use super::statements::{FlightStream, Statements, flight_info, refuse_transaction};
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
    ) -> Result<FlightInfo, Status> {
        let bytes = descriptor.cmd.clone();
        match command(&bytes)? {
            Command::CommandStatementQuery(query) => {
                refuse_transaction(query.transaction_id.as_ref())?;
                let statement = self.state.statements.plan(caller, &query.query).await?;
                self.state.statements.offer(statement, descriptor)
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.state.prepared.offer(caller, &query.prepared_statement_handle, descriptor)
            }
            other => {
                let schema = metadata::schema(&other).ok_or_else(|| misplaced(&other))?;
                let schema = encoded_schema(&schema)?;
                // The command is its own ticket: nothing to keep.
                Ok(flight_info(schema, bytes, descriptor))
            }
        }
    }

    async fn schema(
        &self,
        caller: &Caller,
        descriptor: &FlightDescriptor,
    ) -> Result<Bytes, Status> {
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                refuse_transaction(query.transaction_id.as_ref())?;
                let text = &query.query;
                let prepared = caller.client.session.prepare(text).await;
                let prepared = prepared.map_err(|error| status::from_sql(&error))?;
                encoded_schema(&super::wire::wire_schema(prepared.schema(), caller.views))
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.state.prepared.schema(caller, &query.prepared_statement_handle)
            }
            other => encoded_schema(&metadata::schema(&other).ok_or_else(|| misplaced(&other))?),
        }
    }

    async fn rows(&self, caller: &Caller, ticket: &Bytes) -> Result<FlightStream, Status> {
        let command = command(ticket)?;
        match &command {
            Command::TicketStatementQuery(query) => {
                let owner = caller.client.owner();
                self.state.statements.fetch(owner, &query.statement_handle).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.state.prepared.fetch(caller, &query.prepared_statement_handle).await
            }
            other => {
                let session = &caller.client.session;
                let facts = &self.state.facts;
                let batch = metadata::answer(other, session, facts, caller.views).await?;
                let batch = batch.ok_or_else(|| misplaced(other))?;
                let encoder = FlightDataEncoderBuilder::new()
                    .with_schema(batch.schema())
                    .build(stream::iter([Ok(batch)]));
                Ok(encoder.map(|message| message.map_err(Status::from)).boxed())
            }
        }
    }

    async fn put(
        &self,
        caller: &Caller,
        mut messages: Streaming<FlightData>,
    ) -> Result<Bytes, Status> {
        let Some(first) = messages.next().await.transpose()? else {
            return Err(status::malformed("DoPut came without a message"));
        };
        let Some(descriptor) = &first.flight_descriptor else {
            return Err(status::malformed("DoPut's first message has no descriptor"));
        };
        let changed = match command(&descriptor.cmd)? {
            Command::CommandStatementUpdate(update) => {
                refuse_transaction(update.transaction_id.as_ref())?;
                let statement = self.state.statements.plan(caller, &update.query).await?;
                self.state.statements.update(statement).await?
            }
            Command::CommandPreparedStatementUpdate(update) => {
                let handle = &update.prepared_statement_handle;
                self.state.prepared.update(caller, handle, values(first, messages)).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                self.state.prepared.bind(caller, &handle, values(first, messages)).await?;
                let result =
                    DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                return Ok(result.encode_to_vec().into());
            }
            Command::CommandStatementIngest(_) => {
                return Err(status::unsupported(
                    "bulk ingestion is not available",
                    "create the table from files, or INSERT through a prepared statement",
                ));
            }
            other => return Err(misplaced(&other)),
        };
        Ok(DoPutUpdateResult { record_count: changed }.encode_to_vec().into())
    }
}

/// The messages that carry values. A client without values sends its descriptor alone.
fn values(first: FlightData, rest: Streaming<FlightData>) -> PutStream {
    stream::iter([Ok(first)])
        .chain(rest.map(|message| message.map_err(FlightError::from)))
        .filter(|message| {
            let empty = message.as_ref().is_ok_and(|data| data.data_header.is_empty());
            futures::future::ready(!empty)
        })
        .boxed()
}

fn command(bytes: &Bytes) -> Result<Command, Status> {
    let malformed = || status::malformed("the bytes are no Flight SQL command");
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
fn guarded_stream(inner: FlightStream) -> FlightStream {
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
    type DoGetStream = FlightStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = FlightStream;

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
        self.state.sessions.caller(&request).await?;
        Err(status::unsupported(
            "flights are not listed",
            "list tables with Flight SQL's GetTables",
        ))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        guarded("GetFlightInfo", async {
            let caller = self.state.sessions.caller(&request).await?;
            self.info(&caller, request.into_inner()).await.map(Response::new)
        })
        .await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        self.state.sessions.caller(&request).await?;
        Err(status::unsupported("statements cannot be polled", "use GetFlightInfo and DoGet"))
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
            let rows = self.rows(&caller, &request.get_ref().ticket).await?;
            Ok(Response::new(guarded_stream(rows)))
        })
        .await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        guarded("DoPut", async {
            let caller = self.state.sessions.caller(&request).await?;
            let app_metadata = self.put(&caller, request.into_inner()).await?;
            Ok(Response::new(stream::iter([Ok(PutResult { app_metadata })]).boxed()))
        })
        .await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        self.state.sessions.caller(&request).await?;
        Err(status::unsupported("DoExchange is not available", "use DoGet and DoPut"))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        guarded("DoAction", async {
            let caller = self.state.sessions.caller(&request).await?;
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
            Ok(FlightData::default())
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
        let unknown = command(&Bytes::new()).unwrap();
        assert_eq!(misplaced(&unknown).code(), Code::Unimplemented);
    }
}
