//! Rows that a client sends along with a statement, as a table of that one statement.
//!
//! The table has a name that nobody can guess, holds the rows once and in the order of their
//! coming, and is read as the client sends: never more than a few batches are in memory. The
//! statement over it is the ordinary one (`CREATE TABLE … AS SELECT`, `INSERT INTO … SELECT`), so
//! rights, policies, types and the commit are those of SQL.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;

use crate::error::{Error, Result};
use crate::session::StatementContext;

/// Gives the rows a name in this statement.
pub(crate) fn register(
    context: &StatementContext,
    rows: SendableRecordBatchStream,
) -> Result<String> {
    let schema = rows.schema();
    let read = || Error::Internal("rows that a client sends are read once".into());
    let partition = Arc::new(Sent::new(rows, read));
    let table = StreamingTable::try_new(schema, vec![partition]).map_err(Error::from)?;
    Ok(remember(context, Arc::new(table)).name)
}

/// Gives a table a name in this statement that nobody can guess; the name as a query writes it.
pub(crate) fn name_rows(context: &StatementContext, table: Arc<dyn TableProvider>) -> String {
    let name = remember(context, table);
    format!("{}.{}", quoted(&name.schema), quoted(&name.name))
}

fn remember(context: &StatementContext, table: Arc<dyn TableProvider>) -> ObjectName {
    let path = context.search_path();
    let schema = path.first().map_or(crate::engine::MAIN, String::as_str);
    let name = ObjectName::new(schema, format!("rows {}", context.engine().catalog().new_id()));
    context.remember(&name, &table);
    name
}

/// Rows on their way, which can be read once.
pub(crate) struct Sent {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
    /// What to say to whoever reads them again.
    read: fn() -> Error,
}

impl Sent {
    pub(crate) fn new(rows: SendableRecordBatchStream, read: fn() -> Error) -> Self {
        Self { schema: rows.schema(), rows: Mutex::new(Some(rows)), read }
    }

    /// Rows that another task sends.
    pub(crate) fn received(
        schema: SchemaRef,
        rows: Receiver<RecordBatch>,
        read: fn() -> Error,
    ) -> Self {
        let rows = futures::stream::unfold(rows, |mut rows| async move {
            let batch = rows.recv().await?;
            Some((Ok(batch), rows))
        });
        Self::new(Box::pin(RecordBatchStreamAdapter::new(schema, rows)), read)
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sent").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Sent {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.rows.lock().take().unwrap_or_else(|| {
            let error = futures::stream::iter([Err(DataFusionError::from((self.read)()))]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), error))
        })
    }
}

/// A name as SQL writes it, whatever it holds.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name that no column has, as SQL writes it: the given one, made longer as long as it is taken.
pub(crate) fn free(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut name = name.to_owned();
    while is_taken(&name) {
        name.push('_');
    }
    quoted(&name)
}
