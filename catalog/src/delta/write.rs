//! Writing the rows of a query into a Delta table, in one commit.
//!
//! The query is planned and run by the caller's session; Delta's writer sees it as a plain stream
//! of rows that already have the table's types. So its own planner, rules and registry never meet
//! the caller's plan, and the caller's errors come back as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{
    SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext,
};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, UNNAMED_TABLE};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use deltalake::DeltaTable;
use deltalake::delta_datafusion::planner::DeltaPlanner;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::operations::write::WriteBuilder;
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::protocol::SaveMode;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::{delta_error, layout, types};
use crate::error::{Error, Result};
use crate::personal_columns::PersonalColumns;
use crate::store::Place;

/// How often an append looks for the next free version when others commit at the same time.
const APPEND_RETRIES: usize = 100;

/// How the rows meet those that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The first commit of a new table.
    Create,
    /// Beside the present rows, whatever others append at the same time.
    Append,
    /// Beside the present rows, if the table is still at the version that was read.
    AppendExactly,
    /// Instead of the present rows, if the table is still at the version that was read.
    Overwrite,
}

/// The rows of a planned query, on their way into a table.
pub struct Input {
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
    /// How the files are laid out, where that is not Delta's default.
    properties: Option<WriterProperties>,
    observed: Arc<Observed>,
}

#[derive(Debug, Default)]
struct Observed {
    rows: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Input {
    /// Plans a query. With a table's `target` schema its columns take that schema's types in
    /// order; without one, the types that a new table can store. The rows are sorted by the
    /// columns of `cluster_by`, and the files have no statistics of the `personal` columns.
    ///
    /// # Errors
    /// When the query cannot be planned, or its columns cannot be stored.
    pub async fn plan(
        plan: LogicalPlan,
        state: &SessionState,
        target: Option<SchemaRef>,
        cluster_by: &[String],
        personal: &PersonalColumns,
    ) -> Result<Self> {
        let plan = layout::sorted(plan, target.as_ref(), cluster_by)?;
        let physical = state.create_physical_plan(&plan).await?;
        let found = physical.schema();
        let schema = match target {
            Some(target) => target,
            None => types::storable_schema(&found, types::Nulls::Allowed)?,
        };
        types::check_width(found.fields().len(), &schema)?;
        let properties = layout::properties(&schema, cluster_by, personal);
        let context = state.task_ctx();
        Ok(Self { physical, context, schema, properties, observed: Arc::default() })
    }

    fn scan(&self) -> Result<LogicalPlan> {
        let count = self.physical.output_partitioning().partition_count();
        let partitions = (0..count).map(|partition| {
            Arc::new(Partition {
                physical: Arc::clone(&self.physical),
                context: Arc::clone(&self.context),
                schema: Arc::clone(&self.schema),
                observed: Arc::clone(&self.observed),
                partition,
            }) as Arc<dyn PartitionStream>
        });
        let table = StreamingTable::try_new(Arc::clone(&self.schema), partitions.collect())?;
        let source = provider_as_source(Arc::new(table));
        Ok(LogicalPlanBuilder::scan(UNNAMED_TABLE, source, None)?.build()?)
    }

    /// Writes the rows in one commit; gives the table after it and the number of rows.
    ///
    /// # Errors
    /// The query's own error; `Conflict` when the table has moved on and `mode` forbids it; a
    /// Delta or store error. In each case the table is as it was.
    pub async fn write(
        self,
        name: &str,
        table: DeltaTable,
        root: &Place,
        mode: Mode,
    ) -> Result<(DeltaTable, u64)> {
        let snapshot = table.state.as_ref().map(|state| state.snapshot().clone());
        let retries = if mode == Mode::Append { APPEND_RETRIES } else { 0 };
        let mut builder = WriteBuilder::new(table.log_store(), snapshot)
            .with_input_plan(self.scan()?)
            .with_session_state(Arc::new(writer_session(&self.context, root)))
            .with_commit_properties(CommitProperties::default().with_max_retries(retries))
            .with_save_mode(match &mode {
                Mode::Create => SaveMode::ErrorIfExists,
                Mode::Append | Mode::AppendExactly => SaveMode::Append,
                Mode::Overwrite => SaveMode::Overwrite,
            });
        if mode == Mode::Create {
            builder = builder.with_table_name(name);
        }
        if let Some(properties) = self.properties {
            builder = builder.with_writer_properties(properties);
        }
        match builder.await {
            Ok(table) => Ok((table, self.observed.rows.load(Ordering::Relaxed))),
            // What the query said is the cause; what Delta made of it is not.
            Err(error) => {
                let cause = self.observed.failure.lock().take();
                Err(cause.unwrap_or_else(|| delta_error("write", name, error)))
            }
        }
    }
}

/// A session for Delta's own plan: the caller's limits, but none of its names, rules or stores.
fn writer_session(context: &TaskContext, root: &Place) -> SessionState {
    let stores = DefaultObjectStoreRegistry::new();
    stores.register_store(&root.url, Arc::clone(&root.store));
    let runtime = RuntimeEnv {
        object_store_registry: Arc::new(stores),
        ..context.runtime_env().as_ref().clone()
    };
    SessionStateBuilder::new()
        .with_default_features()
        .with_config(context.session_config().clone())
        .with_runtime_env(Arc::new(runtime))
        .with_query_planner(DeltaPlanner::new())
        .build()
}

#[derive(Debug)]
struct Partition {
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
    observed: Arc<Observed>,
    partition: usize,
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let started = self.physical.execute(self.partition, Arc::clone(&self.context));
        let schema = Arc::clone(&self.schema);
        let observed = Arc::clone(&self.observed);
        let rows = futures::stream::once(async move { started }).try_flatten();
        let rows = rows.map(move |batch| {
            let conformed =
                batch.map_err(Error::from).and_then(|batch| types::conform(&batch, &schema));
            match conformed {
                Ok(batch) => {
                    observed.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    Ok(batch)
                }
                Err(error) => {
                    observed.failure.lock().get_or_insert_with(|| error.clone());
                    Err(error.into())
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
