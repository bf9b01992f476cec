//! Who answers: the engine in this process, or a server elsewhere. The shell and `attune sql` know
//! only this trait, so that both behave the same.

mod embedded;
mod remote;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
pub use embedded::Embedded;
use futures::stream::BoxStream;
pub use remote::{Remote, RemoteOptions};
use tokio::sync::watch;

use crate::error::Result;

/// The rows of a result, batch by batch. Dropping the stream cancels the statement.
pub type Rows = BoxStream<'static, Result<RecordBatch>>;

/// The answer to one statement.
pub struct Reply {
    /// The columns; none for a statement that returns no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: Rows,
    /// How many rows an update changed, when that is known.
    pub affected: Option<i64>,
    /// A sentence about what was done, such as that a model was created.
    pub message: Option<String>,
}

/// A table or view that the user may see.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `TABLE`, `VIEW` …
    pub kind: String,
    /// Its columns, when they were asked for.
    pub columns: Option<Arc<Schema>>,
}

/// How far a long statement is.
pub type ProgressReceiver = watch::Receiver<Option<sql::Progress>>;

/// Somebody who answers statements.
#[async_trait]
pub trait Target: Send + Sync {
    /// Runs one statement. Dropping the future cancels it.
    async fn run(&self, statement: &str) -> Result<Reply>;

    /// Splits a script into its statements.
    async fn split(&self, script: &str) -> Result<Vec<String>>;

    /// The tables and views that the user may see.
    async fn relations(&self, with_columns: bool) -> Result<Vec<Relation>>;

    /// The documentation of the SQL functions there.
    async fn functions(&self) -> Result<Vec<sql::FunctionDoc>>;

    /// The progress of the statement that runs now; `None` where it cannot be told.
    fn progress(&self) -> Option<ProgressReceiver>;

    /// What the user is connected to, for the prompt's banner.
    fn description(&self) -> String;

    /// Ends the session.
    async fn close(&self) -> Result<()>;
}
