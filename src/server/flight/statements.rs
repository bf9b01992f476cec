//! Statements: planned by GetFlightInfo, run by DoGet, exactly once.
//!
//! GetFlightInfo plans the text and keeps the plan under a ticket; it never executes, so that a
//! client may look at a schema without side effects. DoGet takes the plan out and runs it: a second
//! DoGet with the same ticket finds nothing. Rows go out batch by batch as the client reads; a
//! client that goes away, cancels or is cancelled drops the stream, which ends the statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use sql::Prepared;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::handles::{Handle, HandleError, Handles};
use super::sessions::{Caller, ClientSession};
use super::status;
use super::wire::{ipc_schema, split, wire_batch, wire_schema};

/// The messages of an answer.
pub type FlightStream = BoxStream<'static, Result<FlightData, Status>>;

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
}

impl Statement {
    /// A statement whose result will have the types that the caller asked for.
    pub fn new(
        client: &Arc<ClientSession>,
        views: bool,
        prepared: Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Self {
        let wire = wire_schema(&prepared.schema_with(&parameters), views);
        Self { client: Arc::clone(client), prepared, parameters, wire }
    }
}

/// A statement under a ticket: waiting for DoGet, then running until its stream ends.
pub struct Execution {
    waiting: Mutex<Option<Statement>>,
    client: Arc<ClientSession>,
    stop: CancellationToken,
}

/// The statements under tickets.
pub struct Statements {
    executions: Handles<Arc<Execution>>,
    /// Cancelled when the server stops for good.
    stop: CancellationToken,
}

impl Statements {
    /// None yet. A ticket that nobody came for ends after `ttl`; a principal has at most
    /// `per_owner_max` statements waiting or running.
    pub fn new(ttl: Duration, per_owner_max: usize, stop: CancellationToken) -> Self {
        let runs = |execution: &Arc<Execution>| execution.waiting.lock().is_none();
        Self { executions: Handles::new(ttl, per_owner_max, runs), stop }
    }

    /// Plans a text, which must have no placeholders left open.
    pub async fn plan(&self, caller: &Caller, text: &str) -> Result<Statement, Status> {
        let session = &caller.client.session;
        let prepared = session.prepare(text).await.map_err(|error| status::from_sql(&error))?;
        let open = prepared.parameters().fields().len();
        if open > 0 {
            let sentence = format!("the statement has {open} parameters and no values");
            return Err(status::parameters(&sentence, "prepare it and bind the values"));
        }
        Ok(Statement::new(&caller.client, caller.views, prepared, Vec::new()))
    }

    /// Keeps a statement for DoGet and describes how to get its rows.
    pub fn offer(
        &self,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let schema = schema_bytes(&statement.prepared, &statement.wire)?;
        let client = Arc::clone(&statement.client);
        let execution = Arc::new(Execution {
            client: Arc::clone(&client),
            waiting: Mutex::new(Some(statement)),
            stop: self.stop.child_token(),
        });
        let handle = self
            .executions
            .insert(client.owner(), execution, Instant::now())
            .map_err(handle_error)?;
        let ticket = TicketStatementQuery { statement_handle: Bytes::copy_from_slice(&handle) };
        Ok(flight_info(schema, ticket.as_any().encode_to_vec().into(), descriptor))
    }

    /// Runs the statement under a ticket.
    pub async fn fetch(
        self: &Arc<Self>,
        owner: &str,
        handle: &[u8],
    ) -> Result<FlightStream, Status> {
        let execution = self
            .executions
            .get(owner, handle, Instant::now())
            .ok_or_else(|| status::unknown_handle("ticket"))?;
        let statement =
            execution.waiting.lock().take().ok_or_else(|| status::unknown_handle("ticket"))?;
        let running = Running {
            statements: Arc::clone(self),
            owner: owner.to_owned(),
            handle: Handle::try_from(handle).unwrap_or_default(),
        };
        run(statement, execution.stop.clone(), Some(running)).await
    }

    /// Runs a statement that has no ticket.
    pub async fn run_now(&self, statement: Statement) -> Result<FlightStream, Status> {
        run(statement, self.stop.child_token(), None).await
    }

    /// Runs a statement for its effect and gives the number of rows it changed. A query is read to
    /// its end and changes none.
    pub async fn update(&self, statement: Statement) -> Result<i64, Status> {
        let Statement { client, prepared, parameters, .. } = statement;
        let work = async {
            let answer = client
                .session
                .run(&prepared, &parameters)
                .await
                .map_err(|error| status::from_sql(&error))?;
            let mut rows = answer.rows;
            while let Some(batch) = rows.next().await {
                batch.map_err(status::from_stream)?;
            }
            // Not -1, "unknown": JDBC takes that for a result set.
            Ok(answer.affected.unwrap_or(0))
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(status::cancelled()),
            outcome = work => outcome,
        }
    }

    /// Ends the statement under a ticket, whether it waits or runs.
    pub fn cancel(&self, owner: &str, handle: &[u8]) -> Result<(), Status> {
        let execution = self
            .executions
            .remove(owner, handle)
            .ok_or_else(|| status::unknown_handle("statement"))?;
        execution.stop.cancel();
        execution.waiting.lock().take();
        Ok(())
    }

    /// Ends what a closed session has left.
    pub fn forget_session(&self, id: &str) {
        self.executions.remove_where(|execution| {
            let mine = execution.client.session.id() == id;
            if mine {
                execution.stop.cancel();
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
struct Running {
    statements: Arc<Statements>,
    owner: String,
    handle: Handle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.statements.executions.remove(&self.owner, &self.handle);
    }
}

async fn run(
    statement: Statement,
    stop: CancellationToken,
    running: Option<Running>,
) -> Result<FlightStream, Status> {
    let Statement { client, prepared, parameters, wire } = statement;
    let answer = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(status::cancelled()),
        answer = client.session.run(&prepared, &parameters) => {
            answer.map_err(|error| status::from_sql(&error))?
        }
    };
    let rows = Rows { rows: answer.rows, stop, _client: client, _running: running };
    let schema = Arc::clone(&wire);
    let batches = stream::unfold(Some(rows), Rows::next).flat_map(move |batch| {
        let pieces = batch.and_then(|batch| {
            wire_batch(&batch, &wire)
                .map(split)
                .map_err(|error| status::internal(&format!("a batch cannot be sent: {error}")))
        });
        let pieces: Vec<Result<_, FlightError>> = match pieces {
            Ok(pieces) => pieces.into_iter().map(Ok).collect(),
            Err(status) => vec![Err(status.into())],
        };
        stream::iter(pieces)
    });
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        // The pieces have their size already.
        .with_max_flight_data_size(usize::MAX)
        .build(batches);
    Ok(encoder.map(|message| message.map_err(Status::from)).boxed())
}

/// The rows of a running statement; dropping them ends it.
struct Rows {
    rows: SendableRecordBatchStream,
    stop: CancellationToken,
    /// A session counts as in use while its rows are read.
    _client: Arc<ClientSession>,
    _running: Option<Running>,
}

type Batch = Result<arrow::array::RecordBatch, Status>;

impl Rows {
    /// The next batch. After an error, which also is how a cancelled statement ends, nothing comes:
    /// a stream never ends well that did not deliver everything.
    async fn next(rows: Option<Self>) -> Option<(Batch, Option<Self>)> {
        let mut this = rows?;
        let next = tokio::select! {
            biased;
            () = this.stop.cancelled() => Some(Err(status::cancelled())),
            next = this.rows.next() => next.map(|batch| batch.map_err(status::from_stream)),
        };
        match next? {
            Ok(batch) => Some((Ok(batch), Some(this))),
            Err(error) => Some((Err(error), None)),
        }
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

/// One endpoint on this connection, of unknown size, whose order counts.
pub fn flight_info(schema: Bytes, ticket: Bytes, descriptor: FlightDescriptor) -> FlightInfo {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
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
