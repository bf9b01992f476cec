//! Prepared statements: planned once, bound by DoPut, run as often as the client likes.
//!
//! Placeholders are `?` or `$1`. The client learns their types where the plan knows them and Null
//! where it does not; JDBC counts placeholders by that schema, so it is never left out. Values come
//! ahead of the run and are kept with the handle until the next bind, or with the update itself. A
//! query takes one row of values. An update takes any number and runs once for each row, in order;
//! when one fails, the rows before it have been done, and the error says how many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::stream::{BoxStream, TryStreamExt};
use parking_lot::Mutex;
use sql::Prepared;
use tonic::Status;

use super::handles::Handles;
use super::messages::PreparedStatementResult;
use super::sessions::{Caller, ClientSession};
use super::statements::{FlightStream, Statement, Statements, handle_error, schema_bytes};
use super::status;
use super::wire::{ipc_schema, wire_schema};

/// The messages of a DoPut call.
pub type PutStream = BoxStream<'static, Result<FlightData, FlightError>>;

/// Values kept between bind and run.
const BOUND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A plan with the values bound last.
pub struct PreparedStatement {
    client: Arc<ClientSession>,
    prepared: Prepared,
    views: bool,
    bound: Mutex<Vec<RecordBatch>>,
}

impl PreparedStatement {
    fn placeholders(&self) -> usize {
        self.prepared.parameters().fields().len()
    }

    fn statement(&self, parameters: Vec<ScalarValue>) -> Statement {
        Statement::new(&self.client, self.views, self.prepared.clone(), parameters)
    }

    /// The query with the values bound last.
    fn bound(&self) -> Result<Statement, Status> {
        let bound = self.bound.lock().clone();
        let parameters = self.prepared.parameters();
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
}

impl PreparedStatements {
    /// None yet; they run through `statements`. One ends after `ttl` without use; a principal
    /// has at most `per_owner_max`.
    pub fn new(ttl: Duration, per_owner_max: usize, statements: Arc<Statements>) -> Self {
        Self { kept: Handles::new(ttl, per_owner_max, |_| false), statements }
    }

    /// Plans a text and keeps the plan.
    pub async fn create(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<PreparedStatementResult, Status> {
        let session = &caller.client.session;
        let prepared = session.prepare(text).await.map_err(|error| status::from_sql(&error))?;
        let wire = wire_schema(prepared.schema(), caller.views);
        let dataset_schema = schema_bytes(&prepared, &wire)?;
        let parameter_schema = parameter_bytes(prepared.parameters())?;
        let is_update = Some(prepared.is_update());
        let statement = PreparedStatement {
            client: Arc::clone(&caller.client),
            prepared,
            views: caller.views,
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

    /// GetSchema.
    pub fn schema(&self, caller: &Caller, handle: &[u8]) -> Result<Bytes, Status> {
        let found = self.find(caller, handle)?;
        ipc_schema(&wire_schema(found.prepared.schema(), found.views))
            .map_err(|error| status::internal(&format!("the schema has no form: {error}")))
    }

    /// DoGet of a client that skips GetFlightInfo: one run with the values bound now.
    pub async fn fetch(&self, caller: &Caller, handle: &[u8]) -> Result<FlightStream, Status> {
        let statement = self.find(caller, handle)?.bound()?;
        self.statements.run_now(statement).await
    }

    /// DoPut of values ahead of the run. No row takes the values away.
    pub async fn bind(
        &self,
        caller: &Caller,
        handle: &[u8],
        values: PutStream,
    ) -> Result<(), Status> {
        let found = self.find(caller, handle)?;
        let mut batches = FlightRecordBatchStream::new_from_flight_data(values);
        let (mut bound, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = batches.try_next().await.map_err(|error| unreadable(&error))? {
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

    /// DoPut of an update: runs it once for each row of values, those that come with it or those
    /// bound before, and gives the rows changed.
    pub async fn update(
        &self,
        caller: &Caller,
        handle: &[u8],
        values: PutStream,
    ) -> Result<i64, Status> {
        let found = self.find(caller, handle)?;
        let mut batches = FlightRecordBatchStream::new_from_flight_data(values);
        let mut total = Repeated::default();
        while let Some(batch) = batches.try_next().await.map_err(|error| unreadable(&error))? {
            self.repeat(&found, &batch, &mut total).await?;
        }
        if total.runs == 0 {
            let bound = found.bound.lock().clone();
            for batch in &bound {
                self.repeat(&found, batch, &mut total).await?;
            }
        }
        match (total.runs, found.placeholders()) {
            (0, 0) => self.statements.update(found.statement(Vec::new())).await,
            (0, placeholders) => Err(unbound(placeholders)),
            _ => Ok(total.changed),
        }
    }

    async fn repeat(
        &self,
        found: &PreparedStatement,
        batch: &RecordBatch,
        total: &mut Repeated,
    ) -> Result<(), Status> {
        // JDBC sends a row without columns along with an update without placeholders.
        if found.placeholders() == 0 && batch.num_columns() == 0 {
            return Ok(());
        }
        for row in 0..batch.num_rows() {
            let work = async {
                let values = values_of(batch, row, found.prepared.parameters())?;
                self.statements.update(found.statement(values)).await
            };
            let changed = work.await.map_err(|error| after(total.runs, error))?;
            total.changed = total.changed.saturating_add(changed);
            total.runs += 1;
        }
        Ok(())
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

/// What an update has done so far, over its rows of values.
#[derive(Default)]
struct Repeated {
    runs: usize,
    changed: i64,
}

/// The placeholders' schema with types that a client can bind; no bytes without placeholders.
fn parameter_bytes(parameters: &Schema) -> Result<Bytes, Status> {
    if parameters.fields().is_empty() {
        return Ok(Bytes::new());
    }
    ipc_schema(&wire_schema(parameters, false))
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

fn unreadable(error: &FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => status.as_ref().clone(),
        other => status::malformed(&format!("the values cannot be read: {other}")),
    }
}

/// Says how far a repeated update came before it failed.
fn after(runs: usize, error: Status) -> Status {
    if runs == 0 {
        return error;
    }
    let text = format!("{} ({runs} rows of values before this one were done)", error.message());
    Status::new(error.code(), text)
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
        assert!(parameter_bytes(&Schema::empty()).unwrap().is_empty());
        let unknown = parameters([DataType::Null, DataType::Utf8View]);
        let bytes = arrow_flight::IpcMessage(parameter_bytes(&unknown).unwrap());
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
