//! Statements: planned by GetFlightInfo, run by DoGet, exactly once.
//!
//! GetFlightInfo plans the text and keeps the plan under a ticket; it never executes, so that a
//! client may look at a schema without side effects. DoGet takes the plan out and runs it: a second
//! DoGet with the same ticket finds nothing. PollFlightInfo is the way to start a long statement
//! ahead of DoGet; see `poll`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use prost::Message;
use sql::{Answer, Compression, Prepared};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::execution::{Execution, Taken};
use super::handles::{Handle, HandleError, Handles};
use super::rows::{Begun, Fetched, Told};
use super::sessions::{Caller, ClientSession};
use super::status;
use super::wire::{WireTypes, ipc_schema, wire_schema};

/// A statement that a poller has started ends when nobody asks for it for so long.
const POLL_LEASE: Duration = Duration::from_secs(60);

/// A statement with everything that it needs to run.
pub struct Statement {
    /// The session it was planned in and will run in.
    pub client: Arc<ClientSession>,
    /// The plan.
    pub prepared: Prepared,
    /// One value for each placeholder.
    pub parameters: Vec<ScalarValue>,
    /// The schema that the client was promised.
    pub wire: SchemaRef,
    /// The id under which it will run.
    pub query_id: String,
}

impl Statement {
    /// A statement whose result will have the types that the caller asked for.
    pub fn new(
        client: &Arc<ClientSession>,
        types: WireTypes,
        prepared: Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Self {
        let wire = wire_schema(&prepared.schema_with(&parameters), types);
        let query_id = client.session.engine().new_query_id();
        Self { client: Arc::clone(client), prepared, parameters, wire, query_id }
    }
}

/// The statements under tickets.
pub struct Statements {
    executions: Handles<Arc<Execution>>,
    ttl: Duration,
    /// Cancelled when the server stops for good.
    stop: CancellationToken,
}

impl Statements {
    /// None yet. A ticket that nobody came for ends after `ttl`, a statement that is polled after
    /// [`POLL_LEASE`] or `ttl` if that is shorter; a principal has at most `per_owner_max`
    /// statements waiting or running.
    pub fn new(ttl: Duration, per_owner_max: usize, stop: CancellationToken) -> Self {
        let runs = |execution: &Arc<Execution>| !execution.waits();
        Self { executions: Handles::new(ttl, per_owner_max, runs), ttl, stop }
    }

    /// Plans a text without parameters.
    pub async fn plan(&self, caller: &Caller, text: &str) -> Result<Statement, Status> {
        let session = &caller.client.session;
        let prepared = session.prepare(text).await.map_err(|error| status::from_sql(&error))?;
        let open = prepared.parameters().fields().len();
        if open > 0 {
            let sentence = format!("the statement has {open} parameters and no values");
            return Err(status::parameters(&sentence, "prepare it and bind the values"));
        }
        Ok(Statement::new(&caller.client, caller.types, prepared, Vec::new()))
    }

    /// Keeps a statement for DoGet and describes how to get its rows.
    pub fn offer(
        &self,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let (handle, execution) = self.keep(statement)?;
        let expires = expiration(&execution.client, self.ttl);
        let info = flight_info(
            execution.schema.clone(),
            statement_ticket(&handle),
            descriptor,
            Some(expires),
        );
        Ok(info.with_app_metadata(serde_json::json!({"query_id": execution.query_id}).to_string()))
    }

    /// Keeps a statement under a new handle.
    pub fn keep(&self, statement: Statement) -> Result<(Handle, Arc<Execution>), Status> {
        let schema = schema_bytes(&statement.prepared, &statement.wire)?;
        let execution = Arc::new(Execution::new(statement, schema, self.stop.child_token()));
        let owner = execution.client.owner();
        let handle = self
            .executions
            .insert(owner, Arc::clone(&execution), Instant::now())
            .map_err(handle_error)?;
        Ok((handle, execution))
    }

    /// What the owner keeps under a handle.
    pub fn find(&self, owner: &str, handle: &[u8]) -> Result<Arc<Execution>, Status> {
        self.executions
            .get(owner, handle, Instant::now())
            .ok_or_else(|| status::unknown_handle("ticket"))
    }

    /// How long a ticket that nobody came for is kept.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long a statement that a poller has started waits for the next poll.
    pub fn lease(&self) -> Duration {
        self.ttl.min(POLL_LEASE)
    }

    /// Starts a statement in the background, unless it has been started.
    pub fn start(self: &Arc<Self>, handle: Handle, execution: &Arc<Execution>) {
        execution.extend(Instant::now() + self.lease());
        let Some(statement) = execution.claim() else { return };
        let (this, execution) = (Arc::clone(self), Arc::clone(execution));
        tokio::spawn(async move {
            if execution.work(statement).await {
                this.executions.remove(execution.client.owner(), &handle);
            }
        });
    }

    /// Runs the statement under a ticket, or goes on with it where a poller has started it.
    pub async fn fetch(
        self: &Arc<Self>,
        owner: &str,
        handle: &[u8],
        compression: Compression,
    ) -> Result<Fetched, Status> {
        let execution = self.find(owner, handle)?;
        let mut settled = execution.settled();
        let taken = loop {
            match execution.take() {
                None => return Err(status::unknown_handle("ticket")),
                Some(Taken::NotYet) => {
                    execution.extend(Instant::now() + self.lease());
                    let wait = settled.wait_for(|settled| *settled);
                    let _ = tokio::time::timeout(self.lease() / 2, wait).await;
                }
                Some(taken) => break taken,
            }
        };
        let running = Running {
            statements: Arc::clone(self),
            owner: owner.to_owned(),
            handle: handle_of(handle)?,
        };
        let begun = match taken {
            Taken::Statement(statement) => Begun::start(*statement, execution.stop.clone()).await?,
            Taken::Begun(begun) => *begun,
            Taken::Failed(status) => return Err(status),
            Taken::NotYet => return Err(status::unknown_handle("ticket")),
        };
        Ok(begun.into_fetched(compression, Some(running)))
    }

    /// Runs a statement that has no ticket.
    pub async fn run_now(
        &self,
        statement: Statement,
        compression: Compression,
    ) -> Result<Fetched, Status> {
        let begun = Begun::start(statement, self.stop.child_token()).await?;
        Ok(begun.into_fetched(compression, None))
    }

    /// Runs a statement for its effect and tells how many rows it changed. A query is read to its
    /// end and changes none.
    pub async fn update(&self, statement: Statement) -> Result<Told, Status> {
        let Statement { client, prepared, parameters, query_id, .. } = statement;
        self.effect(&query_id, client.session.run_as(&query_id, &prepared, &parameters)).await
    }

    /// Waits for an answer that changes something.
    pub async fn effect(
        &self,
        query_id: &str,
        answer: impl Future<Output = sql::Result<Answer>> + Send,
    ) -> Result<Told, Status> {
        let work = async {
            let answer = answer.await.map_err(|error| status::from_sql(&error))?;
            let mut rows = answer.rows;
            while let Some(batch) = rows.next().await {
                batch.map_err(status::from_stream)?;
            }
            Ok(Told {
                query_id: Some(query_id.to_owned()),
                // Not -1, "unknown": JDBC takes that for a result set.
                affected: Some(answer.affected.unwrap_or(0)),
                message: answer.message,
            })
        };
        let outcome = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(status::cancelled()),
            outcome = work => outcome,
        };
        outcome.map_err(|error| status::of_query(error, query_id))
    }

    /// Ends the statement under a ticket, whether it waits or runs.
    pub fn cancel(&self, owner: &str, handle: &[u8]) -> Result<(), Status> {
        let execution = self
            .executions
            .remove(owner, handle)
            .ok_or_else(|| status::unknown_handle("statement"))?;
        execution.end();
        Ok(())
    }

    /// Keeps a ticket for its whole time from now on; gives its new end.
    pub fn renew(&self, owner: &str, handle: &[u8]) -> Result<SystemTime, Status> {
        let execution = self.find(owner, handle)?;
        if execution.look().is_none() {
            return Err(status::unknown_handle("ticket"));
        }
        let time = if execution.waits() { self.ttl } else { self.lease() };
        execution.extend(Instant::now() + time);
        Ok(expiration(&execution.client, time))
    }

    /// Ends what a closed session has left.
    pub fn forget_session(&self, id: &str) {
        self.executions.remove_where(|execution| {
            let mine = execution.client.session.id() == id;
            if mine {
                execution.end();
            }
            mine
        });
    }

    /// Forgets tickets that nobody came for.
    pub fn sweep(&self, now: Instant) {
        self.executions.remove_where(|execution| execution.client.session.is_ended());
        self.executions.sweep(now);
    }
}

/// Takes a statement's ticket away when its stream ends, however it ends.
pub struct Running {
    statements: Arc<Statements>,
    owner: String,
    handle: Handle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.statements.executions.remove(&self.owner, &self.handle);
    }
}

/// The announced schema. None for a statement without rows: a client that finds no schema here
/// waits for the first message of DoGet, which comes when the statement has done its work.
pub fn schema_bytes(prepared: &Prepared, wire: &SchemaRef) -> Result<Bytes, Status> {
    if prepared.is_update() {
        return Ok(Bytes::new());
    }
    ipc_schema(wire).map_err(|error| status::internal(&format!("the schema has no form: {error}")))
}

/// The handle in a ticket's bytes.
pub fn handle_of(bytes: &[u8]) -> Result<Handle, Status> {
    Handle::try_from(bytes).map_err(|_| status::unknown_handle("ticket"))
}

/// The bytes of the ticket that stands for a handle.
pub fn statement_ticket(handle: &Handle) -> Bytes {
    let ticket = TicketStatementQuery { statement_handle: Bytes::copy_from_slice(handle) };
    ticket.as_any().encode_to_vec().into()
}

/// The time until which something is kept, by the clock of the engine.
pub fn expiration(client: &ClientSession, kept: Duration) -> SystemTime {
    let now_ms = u64::try_from(client.session.engine().catalog().now_ms()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms) + kept
}

/// One endpoint on this connection, of unknown size, whose order counts.
pub fn flight_info(
    schema: Bytes,
    ticket: Bytes,
    descriptor: FlightDescriptor,
    expires: Option<SystemTime>,
) -> FlightInfo {
    let mut endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    endpoint.expiration_time = expires.map(Into::into);
    let mut info = FlightInfo::new()
        .with_endpoint(endpoint)
        .with_descriptor(descriptor)
        .with_total_records(-1)
        .with_total_bytes(-1)
        .with_ordered(true);
    info.schema = schema;
    info
}

/// What the client is told when its handle cannot be kept.
pub fn handle_error(error: HandleError) -> Status {
    match error {
        HandleError::Full { held_max } => status::too_many(held_max),
        HandleError::Random(error) => {
            status::internal(&format!("no randomness for a handle: {error}"))
        }
    }
}

/// Refuses a statement inside a transaction, of which there are none, rather than running it
/// outside.
pub fn refuse_transaction(transaction: Option<&Bytes>) -> Result<(), Status> {
    match transaction {
        Some(id) if !id.is_empty() => Err(super::actions::no_transactions()),
        _ => Ok(()),
    }
}
