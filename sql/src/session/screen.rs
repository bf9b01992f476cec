//! The operator above the rows of a guarded table: what its screen lets through passes, and nothing
//! else does.
//!
//! To the planner it is a leaf: no rule moves a condition, a limit or a dynamic filter through it,
//! no statistics come out of it, and EXPLAIN shows the screen and nothing of what is below, no
//! counts least of all. It has as many partitions as the session's plans have: those of the input
//! are the files in which a condition may be met, by rows that are not shown too, and plans above
//! would differ with them.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties,
};
use futures::{Stream, StreamExt};
use udfs::compact::compacted;

use crate::error::Error;
use crate::session::folders;

/// What lets rows through. It shows itself in plans.
pub(crate) trait Screen: fmt::Display + Send + Sync + 'static {
    /// What plans call the operator.
    const NAME: &'static str;

    /// Whether it keeps rows from whoever asks, who must not learn how they lie in files either.
    const IS_GUARD: bool = true;

    /// What of some rows passes, in the operator's schema.
    ///
    /// # Errors
    /// When rows are not those of the table.
    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch>;

    /// What is told of an error from below, which could quote a row that is not shown.
    fn told(&self, error: DataFusionError) -> DataFusionError {
        untold(
            error,
            "one of the rows of this table cannot be read, perhaps one that is not shown",
            "tell whose table it is: its files may hold a value that is not of its column's type",
        )
    }
}

/// The operator.
pub(crate) struct ScreenExec<S> {
    input: Arc<dyn ExecutionPlan>,
    /// The input in no more partitions than the operator has.
    rows: Arc<dyn ExecutionPlan>,
    screen: Arc<S>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl<S: Screen> ScreenExec<S> {
    /// What of an input passes, with this schema, in as many partitions as `config` says.
    ///
    /// # Errors
    /// When how many rows the input has cannot be told, which is a defect.
    pub(crate) fn over(
        input: Arc<dyn ExecutionPlan>,
        screen: Arc<S>,
        schema: SchemaRef,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = config.execution.target_partitions.max(1);
        let rows = spread(&input, partitions, config.execution.batch_size.get())?;
        Ok(Self::made(input, rows, partitions, screen, schema))
    }

    /// The same in as many partitions as the input has, for rows that nobody is kept from.
    pub(crate) fn in_place(
        input: Arc<dyn ExecutionPlan>,
        screen: Arc<S>,
        schema: SchemaRef,
    ) -> Arc<dyn ExecutionPlan> {
        let partitions = input.output_partitioning().partition_count();
        let rows = Arc::clone(&input);
        Self::made(input, rows, partitions, screen, schema)
    }

    fn made(
        input: Arc<dyn ExecutionPlan>,
        rows: Arc<dyn ExecutionPlan>,
        partitions: usize,
        screen: Arc<S>,
        schema: SchemaRef,
    ) -> Arc<dyn ExecutionPlan> {
        // Neither orders, constants nor partitions of the input are told: they say what hidden rows
        // are like.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Arc::new(Self { input, rows, screen, schema, properties: Arc::new(properties) })
    }
}

/// An input in at most so many partitions: in all of them where it has more rows than a batch, so
/// that what is above computes in parallel.
fn spread(
    input: &Arc<dyn ExecutionPlan>,
    partitions: usize,
    batch_rows: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let has = input.output_partitioning().partition_count();
    let known = StatisticsContext::new().compute(input.as_ref(), &StatisticsArgs::default())?;
    let is_small = known.num_rows.get_value().is_some_and(|rows| *rows <= batch_rows);
    if has == partitions || (has < partitions && is_small) {
        return Ok(Arc::clone(input));
    }
    let round_robin = Partitioning::RoundRobinBatch(partitions);
    Ok(Arc::new(RepartitionExec::try_new(Arc::clone(input), round_robin)?))
}

impl<S: Screen> fmt::Debug for ScreenExec<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}({})", S::NAME, self.screen)
    }
}

impl<S: Screen> DisplayAs for ScreenExec<S> {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", S::NAME, self.screen)
    }
}

impl<S: Screen> ExecutionPlan for ScreenExec<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    // A recursive query starts its plan anew at each turn, and does not see what is below.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            input: Arc::clone(&self.input),
            rows: reset_plan_states(Arc::clone(&self.rows))?,
            screen: Arc::clone(&self.screen),
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
        }))
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        config: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if !S::IS_GUARD {
            return Ok(None);
        }
        let input = self.input.repartitioned(target_partitions, config)?;
        let over = |input| Self::over(input, self.screen.clone(), self.schema.clone(), config);
        input.map(over).transpose()
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition >= self.rows.output_partitioning().partition_count() {
            return Ok(Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema))));
        }
        let size = context.session_config().batch_size();
        let rows = self.rows.execute(partition, context)?;
        let (screen, schema) = (Arc::clone(&self.screen), Arc::clone(&self.schema));
        let passed = rows.map(move |batch| -> Result<Passed> {
            let batch = batch.map_err(|error| screen.told(error))?;
            let passed = screen.rows(&batch, &schema)?;
            let is_whole = passed.num_rows() == batch.num_rows();
            Ok(Passed { batch: passed, is_whole })
        });
        Ok(gathered(passed, Arc::clone(&self.schema), size))
    }
}

/// What of a batch has passed.
struct Passed {
    batch: RecordBatch,
    /// Whether all of it has.
    is_whole: bool,
}

/// What has passed, the little that is left of batches put together to `size` rows: what is above
/// would begin anew for a few rows each time. A whole batch waits only where others do.
fn gathered(
    rows: impl Stream<Item = Result<Passed>> + Send + 'static,
    schema: SchemaRef,
    size: usize,
) -> SendableRecordBatchStream {
    let left = BatchCoalescer::new(Arc::clone(&schema), size);
    let left = left.with_biggest_coalesce_batch_size(Some(size / 2));
    let state = (rows.boxed(), left, false);
    let batches =
        futures::stream::try_unfold(state, |(mut rows, mut left, mut is_over)| async move {
            loop {
                if let Some(batch) = left.next_completed_batch() {
                    return Ok(Some((batch, (rows, left, is_over))));
                }
                if is_over {
                    return Ok::<_, DataFusionError>(None);
                }
                match rows.next().await.transpose()? {
                    Some(Passed { batch, is_whole: true }) if left.is_empty() => {
                        if batch.num_rows() > 0 {
                            return Ok(Some((batch, (rows, left, is_over))));
                        }
                    }
                    Some(Passed { batch, .. }) => left.push_batch(batch)?,
                    None => {
                        left.finish_buffered_batch()?;
                        is_over = true;
                    }
                }
            }
        });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// The rows of a batch where a mask is true, of its columns those at these places.
///
/// # Errors
/// When there are no such columns, or the mask is one of other rows.
pub(crate) fn kept(
    batch: &RecordBatch,
    mask: &BooleanArray,
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let rows = mask.true_count();
    let columns = columns.iter().filter_map(|at| batch.columns().get(*at));
    let columns: Vec<ArrayRef> = match rows == batch.num_rows() {
        true => columns.cloned().collect(),
        false => compacted(columns, mask)?,
    };
    with_rows(columns, rows, schema)
}

/// A batch of so many rows, which may have no columns. Its fields may differ from the columns' own
/// in metadata alone.
pub(crate) fn with_rows(
    columns: Vec<ArrayRef>,
    rows: usize,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// An error, without what it says of a row, and without folders of values of a file that it names.
pub(crate) fn untold(error: DataFusionError, what: &str, hint: &str) -> DataFusionError {
    match is_of_row(&error) {
        true => Error::Execution { what: what.into(), hint: Some(hint.into()) }.into(),
        false => folders::untold(error),
    }
}

/// Whether an error comes of values of rows. What fails in a condition that the reader of a file
/// asks is inside an error of that file.
fn is_of_row(error: &DataFusionError) -> bool {
    let root = error.find_root();
    match root {
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => true,
        DataFusionError::External(inner) if inner.is::<Error>() => {
            matches!(inner.downcast_ref::<Error>(), Some(Error::Execution { .. }))
        }
        _ => {
            let mut deepest: &(dyn StdError + 'static) = root;
            while let Some(source) = deepest.source() {
                deepest = source;
            }
            deepest.is::<ArrowError>()
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::config::ConfigNonZeroUsize;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::parquet::errors::ParquetError;
    use datafusion::physical_plan::collect_partitioned;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
    }

    fn batch(from: i64, rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
        RecordBatch::try_new(schema(), vec![column]).unwrap()
    }

    /// Lets everything through.
    struct Open;

    impl fmt::Display for Open {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("open")
        }
    }

    impl Screen for Open {
        const NAME: &'static str = "OpenExec";

        fn rows(&self, batch: &RecordBatch, _: &SchemaRef) -> Result<RecordBatch> {
            Ok(batch.clone())
        }
    }

    #[tokio::test]
    async fn its_partitions_are_those_of_the_session_whatever_is_below() {
        let mut config = ConfigOptions::default();
        config.execution.target_partitions = 3;
        // Of more rows than a batch has they are spread, of fewer they stay where they are.
        for batch_rows in [10, 10_000] {
            config.execution.batch_size = ConfigNonZeroUsize::try_new(batch_rows).unwrap();
            for parts in 1..6 {
                let rows = vec![vec![batch(0, 100)]; parts];
                let input = MemorySourceConfig::try_new_exec(&rows, schema(), None).unwrap();
                let screen = ScreenExec::over(input, Arc::new(Open), schema(), &config);
                let screen = screen.unwrap();
                assert_eq!(screen.output_partitioning().partition_count(), 3);
                let passed = collect_partitioned(screen, Arc::default()).await.unwrap();
                let passed: usize = passed.iter().flatten().map(RecordBatch::num_rows).sum();
                assert_eq!(passed, parts * 100, "{parts} parts");
            }
        }
    }

    #[tokio::test]
    async fn it_gives_all_its_rows_again_where_a_plan_starts_anew() {
        let mut config = ConfigOptions::default();
        config.execution.target_partitions = 3;
        config.execution.batch_size = ConfigNonZeroUsize::try_new(10).unwrap();
        let input = MemorySourceConfig::try_new_exec(&[vec![batch(0, 100)]], schema(), None);
        let screen = ScreenExec::over(input.unwrap(), Arc::new(Open), schema(), &config).unwrap();
        for _ in 0..2 {
            let anew = reset_plan_states(Arc::clone(&screen)).unwrap();
            let passed = collect_partitioned(anew, Arc::default()).await.unwrap();
            assert_eq!(passed.iter().flatten().map(RecordBatch::num_rows).sum::<usize>(), 100);
        }
    }

    #[tokio::test]
    async fn what_is_left_is_put_together_in_its_order() {
        // Rows, whether they are a whole batch, and how many batches come of all.
        for (parts, expected) in [
            (vec![(3, false), (3, false), (0, false), (2, false)], vec![8]),
            (vec![(3, false), (8, false), (8, true), (1, true)], vec![8, 8, 4]),
            (vec![(2, true), (0, true), (1, true)], vec![2, 1]),
            (vec![(7, false), (1, false), (5, true)], vec![7, 6]),
            (vec![], vec![]),
        ] {
            let mut from = 0;
            let passed: Vec<Result<Passed>> = parts
                .into_iter()
                .map(|(rows, is_whole)| {
                    from += rows;
                    Ok(Passed { batch: batch(from - rows, rows), is_whole })
                })
                .collect();
            let batches = gathered(futures::stream::iter(passed), schema(), 8);
            let batches: Vec<RecordBatch> = batches.map(|batch| batch.unwrap()).collect().await;
            let sizes: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
            let values: Vec<i64> = batches
                .iter()
                .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert_eq!(values, (0..from).collect::<Vec<_>>());
            assert_eq!(sizes, expected);
        }
    }

    #[test]
    fn rows_are_kept_where_the_mask_is_true() {
        let mask = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
        let rows = kept(&batch(0, 4), &mask, &[0], &schema()).unwrap();
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[0, 3]);
        let counted = kept(&batch(0, 4), &mask, &[], &Arc::new(Schema::empty())).unwrap();
        assert_eq!(counted.num_rows(), 2);
        assert!(kept(&batch(0, 4), &mask, &[1], &schema()).is_err());
    }

    #[test]
    fn an_error_of_a_row_is_not_told_wherever_it_was_computed() {
        let cast = || ArrowError::CastError("Cannot cast string 'secret'".into());
        let of_file = |inner: ParquetError| DataFusionError::ParquetError(Box::new(inner));
        let shown = |error| untold(error, "not told", "").to_string();
        for error in [
            DataFusionError::ArrowError(Box::new(cast()), None),
            DataFusionError::Execution("'secret' is no number".into()),
            of_file(ParquetError::External(Box::new(cast()))),
            DataFusionError::Shared(Arc::new(of_file(ParquetError::External(Box::new(cast()))))),
        ] {
            let told = shown(error);
            assert!(told.contains("not told") && !told.contains("secret"), "{told}");
        }
        for error in [
            of_file(ParquetError::EOF("too small".into())),
            DataFusionError::ResourcesExhausted("too small".into()),
        ] {
            let told = shown(error);
            assert!(told.contains("too small"), "{told}");
        }
    }
}
