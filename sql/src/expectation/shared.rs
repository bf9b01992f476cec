//! One reading of a table's files for all queries of a check.
//!
//! The queries are planned over [`Shared`], which has the rows of all files. When all of them are
//! planned it is known which columns they want: these are read once, and each batch goes to every
//! query. A query waits for the slowest of them, and none holds more than a few batches.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::{ObjectName, TableFiles};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{TableType, provider_as_source, source_as_provider};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Sender, channel};

use super::query::{self, Item};
use super::run::row;
use crate::dml::sent::{Sent, name_rows, quoted};
use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// Batches of a partition that wait for a query.
const AHEAD: usize = 2;

/// The rows of all files of a table, under a name of this statement.
#[derive(Debug)]
pub(super) struct AllRows {
    name: String,
    rows: Arc<dyn TableProvider>,
}

impl AllRows {
    pub(super) fn new(context: &StatementContext, files: &TableFiles) -> Self {
        let all: Vec<usize> = (0..files.ids().len()).collect();
        let rows = files.rows(&all);
        Self { name: name_rows(context, Arc::clone(&rows)), rows }
    }

    /// Checks as one query over these rows, which stand in it as the table.
    pub(super) async fn planned(
        &self,
        context: &Arc<StatementContext>,
        table: &ObjectName,
        items: &[Item],
    ) -> Result<LogicalPlan> {
        let alias = quoted(&table.name);
        let text = query::text(items, &format!("{} AS {alias}", self.name), &alias, None);
        query::planned(context, &text).await
    }

    /// Lets those of the plans that read these rows read them together; `None` when it is one at
    /// most.
    ///
    /// # Errors
    /// When a plan cannot be rewritten, which is a defect.
    pub(super) fn shared(
        &self,
        plans: &mut [LogicalPlan],
        partitions: usize,
    ) -> Result<Option<Arc<Shared>>> {
        let scans = plans.iter().map(|plan| self.scans(plan));
        let scans = scans.collect::<DataFusionResult<Vec<usize>>>()?;
        // A query that read them twice would wait for itself.
        if scans.iter().sum::<usize>() < 2 || scans.iter().any(|scans| *scans > 1) {
            return Ok(None);
        }
        let shared = Arc::new(Shared {
            rows: Arc::clone(&self.rows),
            partitions: partitions.max(1),
            readers: Mutex::default(),
        });
        let source = provider_as_source(Arc::clone(&shared) as Arc<dyn TableProvider>);
        for plan in plans {
            let over = plan.clone().transform_up(|node| match node {
                LogicalPlan::TableScan(scan) if self.is_of(&scan) => {
                    let scan = TableScan { source: Arc::clone(&source), ..scan };
                    Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
                }
                node => Ok(Transformed::no(node)),
            })?;
            *plan = over.data;
        }
        Ok(Some(shared))
    }

    /// How often a plan reads these rows.
    fn scans(&self, plan: &LogicalPlan) -> DataFusionResult<usize> {
        let mut scans = 0;
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                scans += usize::from(self.is_of(scan));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(scans)
    }

    /// Whether a scan is of these rows: one of some files has their name too.
    fn is_of(&self, scan: &TableScan) -> bool {
        source_as_provider(&scan.source).is_ok_and(|rows| Arc::ptr_eq(&rows, &self.rows))
    }
}

/// Rows that several queries read together.
#[derive(Debug)]
pub(super) struct Shared {
    rows: Arc<dyn TableProvider>,
    partitions: usize,
    readers: Mutex<Vec<Reader>>,
}

/// A query's scan.
#[derive(Debug)]
struct Reader {
    /// The columns that it wants, by number.
    columns: Vec<usize>,
    /// Where batches go, by partition.
    senders: Vec<Sender<RecordBatch>>,
}

impl Shared {
    /// The reading for all queries that are planned.
    ///
    /// # Errors
    /// When it cannot be planned, which is a defect.
    pub(super) fn scan(&self) -> Result<LogicalPlan> {
        let columns = self.columns().into_iter().collect();
        let source = provider_as_source(Arc::clone(&self.rows));
        Ok(LogicalPlanBuilder::scan("rows", source, Some(columns))?.build()?)
    }

    fn columns(&self) -> BTreeSet<usize> {
        let readers = self.readers.lock();
        readers.iter().flat_map(|reader| reader.columns.iter().copied()).collect()
    }

    /// The answers of the queries, in their order, out of one reading.
    ///
    /// # Errors
    /// When the rows cannot be read, or a query fails.
    pub(super) async fn answers(
        &self,
        run: &Run,
        plans: &[LogicalPlan],
    ) -> Result<Vec<RecordBatch>> {
        let mut queries = Vec::new();
        for plan in plans {
            queries.push(run.start(plan).await?);
        }
        let scan = run.physical(&self.scan()?).await?;
        let read: Vec<usize> = self.columns().into_iter().collect();
        let readers = std::mem::take(&mut *self.readers.lock());
        let task = run.task()?;
        let partitions = scan.output_partitioning().partition_count();
        let mut readings = Vec::new();
        for partition in 0..partitions {
            let rows = scan.execute(partition, Arc::clone(&task))?;
            let readers = readers.iter().filter_map(|reader| {
                let senders = &reader.senders;
                let sender = senders.get(partition % senders.len().max(1))?.clone();
                let at = |column| read.binary_search(column).ok();
                Some((reader.columns.iter().filter_map(at).collect(), sender))
            });
            readings.push(SpawnedTask::spawn(hand_out(rows, readers.collect())));
        }
        // Each partition ends when those who write to it have ended.
        drop(readers);
        let queries = queries.into_iter().map(|rows| async {
            let answer = SpawnedTask::spawn(row(rows)).join().await;
            answer.map_err(|_| Error::Internal("a check failed unexpectedly".into()))?
        });
        let answers = try_join_all(queries).await?;
        for reading in readings {
            let read = reading.join().await;
            read.map_err(|_| Error::Internal("reading failed unexpectedly".into()))??;
        }
        Ok(answers)
    }
}

/// Gives each batch of some rows to all who read them, to each the columns that it wants.
async fn hand_out(
    mut rows: SendableRecordBatchStream,
    mut readers: Vec<(Vec<usize>, Sender<RecordBatch>)>,
) -> Result<()> {
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let mut reading = Vec::with_capacity(readers.len());
        for (columns, sender) in readers {
            // Who has ended reads no more.
            if sender.send(batch.project(&columns)?).await.is_ok() {
                reading.push((columns, sender));
            }
        }
        readers = reading;
        if readers.is_empty() {
            break;
        }
    }
    Ok(())
}

#[async_trait]
impl TableProvider for Shared {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = self.rows.schema();
        let columns = projection.cloned();
        let columns = columns.unwrap_or_else(|| (0..schema.fields().len()).collect());
        let schema = Arc::new(schema.project(&columns)?);
        let (mut senders, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..self.partitions {
            let (sender, receiver) = channel(AHEAD);
            senders.push(sender);
            let rows = Sent::received(Arc::clone(&schema), receiver, || {
                Error::Internal("rows that queries share are read once".into())
            });
            streams.push(Arc::new(rows) as Arc<dyn PartitionStream>);
        }
        self.readers.lock().push(Reader { columns, senders });
        let rows = StreamingTableExec::try_new(schema, streams, None, [], false, limit)?;
        Ok(Arc::new(rows))
    }
}
