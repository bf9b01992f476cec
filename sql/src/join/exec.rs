//! The operator of a fuzzy join.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, build_join_schema};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet, SpillMetrics};
use datafusion::physical_plan::projection::{
    EmbeddedProjection, ProjectionExec, try_embed_projection,
};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties, project_schema,
};
use tokio::sync::OnceCell;

use super::apart::apart;
use super::build::{Build, Built, Keys, Lookup};
use super::output::gives_left_rows;
use super::predicate::Alternative;
use super::probe::Probe;

/// What a fuzzy join joins, and on what.
#[derive(Debug, Clone)]
pub(super) struct Join {
    /// The side that is indexed.
    pub left: Arc<dyn ExecutionPlan>,
    /// The side whose texts are looked up.
    pub right: Arc<dyn ExecutionPlan>,
    /// Keys that must be equal.
    pub on: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    pub null_equality: NullEquality,
    /// Of each pair of rows one of them holds, or none does.
    pub alternatives: Vec<Alternative>,
    pub join_type: JoinType,
    /// Whether each partition joins its own part of both sides, by the keys.
    pub partitioned: bool,
    /// The columns given, of the join's.
    pub projection: Option<Arc<[usize]>>,
}

/// Indexes the left side, then looks up the right side's texts.
pub(super) struct FuzzyJoinExec {
    join: Join,
    /// Where each column comes from, projected.
    columns: Vec<ColumnIndex>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    sides: Vec<Arc<Side>>,
}

/// The indexed side of one or all partitions.
pub(super) struct Side {
    /// Built once; an error reaches everyone who waits.
    pub built: OnceCell<std::result::Result<Arc<Built>, Arc<DataFusionError>>>,
    /// Partitions that have not finished; the last gives the rows that matched none.
    left_to_finish: AtomicUsize,
}

impl Side {
    fn new(partitions: usize) -> Self {
        Self { built: OnceCell::new(), left_to_finish: AtomicUsize::new(partitions) }
    }

    /// Whether the caller is the last to finish.
    pub fn finish(&self) -> bool {
        self.left_to_finish.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl FuzzyJoinExec {
    pub fn new(join: Join) -> Result<Self> {
        let (left, right) = (join.left.schema(), join.right.schema());
        let (schema, mut columns) = build_join_schema(&left, &right, &join.join_type);
        let mut schema = Arc::new(schema);
        if let Some(projection) = &join.projection {
            schema = project_schema(&schema, Some(&projection.as_ref()))?;
            columns = projection.iter().filter_map(|at| columns.get(*at).cloned()).collect();
        }
        let partitions = join.right.output_partitioning().partition_count();
        let sides = [&join.left, &join.right].map(|side| side.boundedness());
        let unbounded = sides.into_iter().find(|boundedness| boundedness.is_unbounded());
        let boundedness = unbounded.unwrap_or(Boundedness::Bounded);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions),
            if gives_left_rows(join.join_type) {
                EmissionType::Both
            } else {
                EmissionType::Incremental
            },
            boundedness,
        );
        let sides = if join.partitioned {
            (0..partitions).map(|_| Arc::new(Side::new(1))).collect()
        } else {
            vec![Arc::new(Side::new(partitions))]
        };
        Ok(Self {
            join,
            columns,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            sides,
        })
    }
}

impl fmt::Debug for FuzzyJoinExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FuzzyJoinExec").field("join", &self.join).finish_non_exhaustive()
    }
}

impl DisplayAs for FuzzyJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = &self.join;
        write!(formatter, "FuzzyJoinExec: join_type={:?}, ", join.join_type)?;
        let alike = join.alternatives.iter().map(|one| one.predicate.shown.as_str());
        write!(formatter, "alike={}", alike.collect::<Vec<_>>().join(" OR "))?;
        if !join.on.is_empty() {
            let on = join.on.iter().map(|(left, right)| format!("({left}, {right})"));
            write!(formatter, ", on=[{}]", on.collect::<Vec<_>>().join(", "))?;
        }
        for filter in join.alternatives.iter().filter_map(|one| one.filter.as_ref()) {
            write!(formatter, ", filter={}", filter.expression())?;
        }
        if join.projection.is_some() {
            let names = self.schema.fields().iter().map(|field| field.name().as_str());
            write!(formatter, ", projection=[{}]", names.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

impl EmbeddedProjection for FuzzyJoinExec {
    fn with_projection(&self, projection: Option<Vec<usize>>) -> Result<Self> {
        let projection = projection.map(|columns| match &self.join.projection {
            Some(before) => columns.iter().filter_map(|at| before.get(*at).copied()).collect(),
            None => columns.into(),
        });
        Self::new(Join { projection, ..self.join.clone() })
    }
}

impl ExecutionPlan for FuzzyJoinExec {
    fn name(&self) -> &str {
        "FuzzyJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.join.left, &self.join.right]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if !self.join.partitioned {
            return InputDistributionRequirements::new(vec![
                Distribution::SinglePartition,
                Distribution::UnspecifiedDistribution,
            ]);
        }
        let (left, right) = self.join.on.iter().cloned().unzip();
        InputDistributionRequirements::co_partitioned(vec![
            Distribution::KeyPartitioned(left),
            Distribution::KeyPartitioned(right),
        ])
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let Join { on, alternatives, .. } = &self.join;
        let keys = on.iter().flat_map(|(left, right)| [left, right]);
        let of_alternatives = alternatives.iter().flat_map(|Alternative { predicate, filter }| {
            let limit = predicate.limit.iter().map(|(_, limit)| &limit.value);
            let texts = [&predicate.left, &predicate.right].into_iter().chain(limit);
            texts.chain(filter.iter().map(JoinFilter::expression))
        });
        for expression in keys.chain(of_alternatives) {
            if visit(expression)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [left, right] = <[_; 2]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("a fuzzy join has two inputs".into()))?;
        Ok(Arc::new(Self::new(Join { left, right, ..self.join.clone() })?))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let join = &self.join;
        let side = if join.partitioned { partition } else { 0 };
        let Some(side) = self.sides.get(side) else {
            return Err(DataFusionError::Internal("a fuzzy join has no such partition".into()));
        };
        let partitions = self.properties.output_partitioning().partition_count();
        let (join, side) = (join.clone(), Arc::clone(side));
        let (columns, schema) = (self.columns.clone(), Arc::clone(&self.schema));
        let metrics = super::probe::Metrics::new(&self.metrics, partition);
        let spilled = SpillMetrics::new(&self.metrics, partition);
        let right = join.right.execute(partition, Arc::clone(&context))?;
        apart(Arc::clone(&self.schema), move |results, stop| {
            let (left_keys, right_keys) = join.on.into_iter().unzip();
            let null_equality = join.null_equality;
            let rows = context.session_config().batch_size();
            let lookup = |Alternative { predicate, .. }: &Alternative| Lookup {
                likeness: predicate.likeness,
                text: Arc::clone(&predicate.left),
                limit: predicate.limit_of(JoinSide::Left),
            };
            let build = Build {
                input: join.left,
                partition: if join.partitioned { partition } else { 0 },
                readers: if join.partitioned { 1 } else { partitions },
                builders: if join.partitioned { partitions } else { 1 },
                lookups: join.alternatives.iter().map(lookup).collect(),
                keys: Keys { expressions: left_keys, null_equality },
                context,
                stop,
            };
            let probe = Probe {
                build,
                side,
                alternatives: join.alternatives,
                keys: Keys { expressions: right_keys, null_equality },
                join_type: join.join_type,
                columns,
                schema,
                metrics,
                rows,
                spilled,
            };
            probe.run(right, results)
        })
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.join.projection.is_some() {
            return Ok(None);
        }
        try_embed_projection(projection, self)
    }
}
