//! Prepared statements: planned once, bound by DoPut, run as often as the client likes.
//!
//! Placeholders are `?` or `$1`. The client learns their types where the plan knows them and Null
//! where it does not; JDBC counts placeholders by that schema, so it is never left out. Values come
//! ahead of the run and are kept with the handle until the next bind, or with the update itself. A
//! query takes one row of values. An INSERT of one row of expressions takes any number of rows of
//! values and puts them all into one commit. Any other update runs once for each row, in order;
//! when one fails, the rows before it have been done, and the error says how many.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use sql::{Compression, Prepared};
use tonic::Status;

use super::handles::Handles;
use super::incoming::{Batches, Incoming, into_engine};
use super::messages::PreparedStatementResult;
use super::rows::{Fetched, Told};
use super::sessions::{Caller, ClientSession};
use super::statements::{Statement, Statements, expiration, handle_error, schema_bytes};
use super::status;
use super::wire::{WireTypes, ipc_schema, parameter_schema, wire_schema};

/// Values kept between bind and run.
const BOUND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A plan with the values bound last.
pub struct PreparedStatement {
    client: Arc<ClientSession>,
    prepared: Prepared,
    types: WireTypes,
    bound: Mutex<Vec<RecordBatch>>,
}

impl PreparedStatement {
    fn placeholders(&self) -> usize {
        self.prepared.parameters().fields().len()
    }

    fn statement(&self, parameters: Vec<ScalarValue>) -> Statement {
        Statement::new(&self.client, self.types, self.prepared.clone(), parameters)
    }

    /// The statement with the values bound last.
    fn bound(&self) -> Result<Statement, Status> {
        let bound = self.bound.lock().clone();
        let parameters = self.prepared.parameters();
        if bound.iter().map(RecordBatch::num_rows).sum::<usize>() > 1 {
            return Err(status::parameters(
                "this call runs a statement once and several rows of values are bound",
                "send an update with several rows of values by DoPut",
            ));
        }
        match bound.iter().find(|batch| batch.num_rows() > 0) {
            Some(batch) => Ok(self.statement(values_of(batch, 0, parameters)?)),
            None if self.placeholders() == 0 => Ok(self.statement(Vec::new())),
            None => Err(unbound(self.placeholders())),
        }
    }
}

/// The prepared statements of all clients.
pub struct PreparedStatements {
    kept: Handles<Arc<PreparedStatement>>,
    statements: Arc<Statements>,
    ttl: Duration,
}

impl PreparedStatements {
    /// None yet; they run through `statements`. One ends after `ttl` without use; a principal
    /// has at most `per_owner_max`.
    pub fn new(ttl: Duration, per_owner_max: usize, statements: Arc<Statements>) -> Self {
        Self { kept: Handles::new(ttl, per_owner_max, |_| false), statements, ttl }
    }

    /// Plans a text and keeps the plan.
    pub async fn create(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<PreparedStatementResult, Status> {
        let session = &caller.client.session;
        let prepared = session.prepare(text).await.map_err(|error| status::from_sql(&error))?;
        let wire = wire_schema(prepared.schema(), caller.types);
        let dataset_schema = schema_bytes(&prepared, &wire)?;
        let parameter_schema = parameter_bytes(prepared.parameters(), caller.types)?;
        let is_update = Some(prepared.is_update());
        let statement = PreparedStatement {
            client: Arc::clone(&caller.client),
            prepared,
            types: caller.types,
            bound: Mutex::new(Vec::new()),
        };
        let handle = self
            .kept
            .insert(caller.client.owner(), Arc::new(statement), Instant::now())
            .map_err(handle_error)?;
        let prepared_statement_handle = Bytes::copy_from_slice(&handle);
        Ok(PreparedStatementResult {
            prepared_statement_handle,
            dataset_schema,
            parameter_schema,
            is_update,
        })
    }

    /// Forgets a prepared statement; one that is not the caller's is none, and closing none is
    /// fine.
    pub fn close(&self, caller: &Caller, handle: &[u8]) {
        self.kept.remove(caller.client.owner(), handle);
    }

    /// GetFlightInfo: a ticket for one run with the values bound now.
    pub fn offer(
        &self,
        caller: &Caller,
        handle: &[u8],
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let statement = self.find(caller, handle)?.bound()?;
        self.statements.offer(statement, descriptor)
    }

    /// PollFlightInfo: starts one run with the values bound now.
    pub async fn poll(
        &self,
        caller: &Caller,
        handle: &[u8],
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        let statement = self.find(caller, handle)?.bound()?;
        self.statements.poll_first(statement, descriptor).await
    }

    /// GetSchema.
    pub fn schema(&self, caller: &Caller, handle: &[u8]) -> Result<Bytes, Status> {
        let found = self.find(caller, handle)?;
        ipc_schema(&wire_schema(found.prepared.schema(), found.types))
            .map_err(|error| status::internal(&format!("the schema has no form: {error}")))
    }

    /// DoGet of a client that skips GetFlightInfo: one run with the values bound now.
    pub async fn fetch(
        &self,
        caller: &Caller,
        handle: &[u8],
        compression: Compression,
    ) -> Result<Fetched, Status> {
        let statement = self.find(caller, handle)?.bound()?;
        self.statements.run_now(statement, compression).await
    }

    /// RenewFlightEndpoint: the use keeps it; gives its new end.
    pub fn renew(&self, caller: &Caller, handle: &[u8]) -> Result<SystemTime, Status> {
        let found = self.find(caller, handle)?;
        Ok(expiration(&found.client, self.ttl))
    }

    /// DoPut of values ahead of the run. No row takes the values away.
    pub async fn bind(
        &self,
        caller: &Caller,
        handle: &[u8],
        incoming: Incoming,
    ) -> Result<(), Status> {
        let found = self.find(caller, handle)?;
        let mut batches = incoming.batches;
        let (mut bound, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if rows > 1 && !found.prepared.is_update() {
                return Err(status::parameters(
                    "a query takes one row of values and more came",
                    "run the query once for each row",
                ));
            }
            if bytes > BOUND_BYTES_MAX {
                return Err(status::parameters(
                    "the values are more than can be kept",
                    "send them with the update, or bind fewer at a time",
                ));
            }
            if batch.num_rows() > 0 {
                // What does not fit is said now rather than when it runs.
                values_of(&batch, 0, found.prepared.parameters())?;
                bound.push(batch);
            }
        }
        *found.bound.lock() = bound;
        Ok(())
    }

    /// DoPut of an update: runs it with the rows of values that come with it or those bound before,
    /// and tells how many rows it changed.
    pub async fn update(
        &self,
        caller: &Caller,
        handle: &[u8],
        incoming: Incoming,
    ) -> Result<Told, Status> {
        let found = self.find(caller, handle)?;
        // JDBC sends a row without columns along with an update without placeholders.
        let none = found.placeholders() == 0;
        let mut sent = rows_of(incoming.batches, none);
        let mut next = sent.try_next().await?;
        if next.is_none() {
            let bound = found.bound.lock().clone();
            sent = rows_of(stream::iter(bound.into_iter().map(Ok)).boxed(), none);
            next = sent.try_next().await?;
        }
        let Some(first) = next else {
            return match found.placeholders() {
                0 => self.statements.update(found.statement(Vec::new())).await,
                placeholders => Err(unbound(placeholders)),
            };
        };
        let second = if first.num_rows() == 1 { sent.try_next().await? } else { None };
        if first.num_rows() == 1 && second.is_none() {
            let values = values_of(&first, 0, found.prepared.parameters())?;
            return self.statements.update(found.statement(values)).await;
        }
        let schema = first.schema();
        let ahead = [Some(first), second].into_iter().flatten().map(Ok);
        let rows = stream::iter(ahead).chain(sent).boxed();
        if found.prepared.takes_many() {
            return self.at_once(&found, schema, rows).await;
        }
        self.one_by_one(&found, rows).await
    }

    /// All rows of values in one commit.
    async fn at_once(
        &self,
        found: &PreparedStatement,
        schema: SchemaRef,
        rows: Batches,
    ) -> Result<Told, Status> {
        let session = &found.client.session;
        let query_id = session.engine().new_query_id();
        let rows = into_engine(schema, rows);
        let answer = session.run_many(&query_id, &found.prepared, rows);
        self.statements.effect(&query_id, answer).await
    }

    /// One run for each row of values.
    async fn one_by_one(
        &self,
        found: &PreparedStatement,
        mut rows: Batches,
    ) -> Result<Told, Status> {
        let (mut runs, mut changed, mut last) = (0, 0i64, Told::default());
        while let Some(batch) = rows.try_next().await? {
            for row in 0..batch.num_rows() {
                let work = async {
                    let values = values_of(&batch, row, found.prepared.parameters())?;
                    self.statements.update(found.statement(values)).await
                };
                last = work.await.map_err(|error| after(runs, error))?;
                changed = changed.saturating_add(last.affected.unwrap_or(0));
                runs += 1;
            }
        }
        Ok(Told { affected: Some(changed), ..last })
    }

    /// Forgets what a closed session has left.
    pub fn forget_session(&self, id: &str) {
        self.kept.remove_where(|kept| kept.client.session.id() == id);
    }

    /// Forgets statements that nobody used for long.
    pub fn sweep(&self, now: Instant) {
        self.kept.remove_where(|kept| kept.client.session.is_ended());
        self.kept.sweep(now);
    }

    fn find(&self, caller: &Caller, handle: &[u8]) -> Result<Arc<PreparedStatement>, Status> {
        self.kept
            .get(caller.client.owner(), handle, Instant::now())
            .ok_or_else(|| status::unknown_handle("prepared statement"))
    }
}

/// The batches that hold values.
fn rows_of(batches: Batches, none_expected: bool) -> Batches {
    let holds = move |batch: &RecordBatch| {
        batch.num_rows() > 0 && !(none_expected && batch.num_columns() == 0)
    };
    let batches =
        batches.filter(move |batch| futures::future::ready(batch.as_ref().map_or(true, holds)));
    batches.boxed()
}

/// The placeholders' schema with types that a client can bind; no bytes without placeholders.
fn parameter_bytes(parameters: &Schema, types: WireTypes) -> Result<Bytes, Status> {
    if parameters.fields().is_empty() {
        return Ok(Bytes::new());
    }
    ipc_schema(&parameter_schema(parameters, types))
        .map_err(|error| status::internal(&format!("the parameters have no form: {error}")))
}

/// One row of values, each in the type that the plan expects where it expects one.
fn values_of(
    batch: &RecordBatch,
    row: usize,
    parameters: &Schema,
) -> Result<Vec<ScalarValue>, Status> {
    let (given, wanted) = (batch.num_columns(), parameters.fields().len());
    if given != wanted {
        let sentence = format!("the statement has {wanted} parameters and {given} values came");
        return Err(status::parameters(&sentence, "bind one value for each placeholder"));
    }
    let columns = batch.columns().iter().zip(parameters.fields()).enumerate();
    columns
        .map(|(index, (column, field))| {
            let wrong = |error: datafusion::error::DataFusionError| {
                let sentence = format!("value {} of the statement: {error}", index + 1);
                let wanted = format!("a value that converts to {} is expected", field.data_type());
                status::parameters(&sentence, &wanted)
            };
            let value = ScalarValue::try_from_array(column, row).map_err(wrong)?;
            match field.data_type() {
                DataType::Null => Ok(value),
                expected if &value.data_type() == expected => Ok(value),
                expected => value.cast_to(expected).map_err(wrong),
            }
        })
        .collect()
}

fn unbound(placeholders: usize) -> Status {
    let sentence = format!("the statement has {placeholders} parameters and no values");
    status::parameters(&sentence, "bind one value for each placeholder before running it")
}

/// Says how far a repeated update came before it failed.
fn after(runs: usize, error: Status) -> Status {
    if runs == 0 {
        return error;
    }
    let text = format!("{} ({runs} rows of values before this one were done)", error.message());
    Status::with_metadata(error.code(), text, error.metadata().clone())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int32Array, StringArray};
    use arrow::datatypes::Field;
    use tonic::Code;

    use super::*;

    fn row() -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([
            ("0", Arc::new(Int32Array::from(vec![Some(7), None])) as ArrayRef, true),
            ("1", Arc::new(StringArray::from(vec!["12", "x"])) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn parameters(types: [DataType; 2]) -> Schema {
        let [first, second] = types;
        Schema::new(vec![Field::new("$1", first, true), Field::new("$2", second, true)])
    }

    #[test]
    fn values_take_the_type_that_the_plan_expects() {
        let expected = parameters([DataType::Int64, DataType::Null]);
        let values = values_of(&row(), 0, &expected).unwrap();
        assert_eq!(values, [ScalarValue::Int64(Some(7)), ScalarValue::Utf8(Some("12".into()))]);
        let values = values_of(&row(), 1, &expected).unwrap();
        assert_eq!(values[0], ScalarValue::Int64(None));
    }

    #[test]
    fn a_value_that_does_not_convert_is_named() {
        let expected = parameters([DataType::Int32, DataType::Int32]);
        assert!(values_of(&row(), 0, &expected).is_ok());
        let status = values_of(&row(), 1, &expected).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("value 2"), "{}", status.message());
    }

    #[test]
    fn too_few_values_are_an_error() {
        let one = row().project(&[0]).unwrap();
        let status = values_of(&one, 0, &parameters([DataType::Null, DataType::Null])).unwrap_err();
        assert!(status.message().contains("2 parameters and 1 values"));
    }

    #[test]
    fn placeholders_are_announced_and_none_is_nothing() {
        assert!(parameter_bytes(&Schema::empty(), WireTypes::default()).unwrap().is_empty());
        let unknown = parameters([DataType::Null, DataType::Utf8View]);
        let bytes =
            arrow_flight::IpcMessage(parameter_bytes(&unknown, WireTypes::default()).unwrap());
        let schema = Schema::try_from(bytes).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Null);
        assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn a_repeated_update_says_how_far_it_came() {
        let failed = after(3, Status::aborted("ATT-1: clash"));
        assert_eq!(failed.message(), "ATT-1: clash (3 rows of values before this one were done)");
        assert_eq!(after(0, Status::aborted("x")).message(), "x");
    }
}
