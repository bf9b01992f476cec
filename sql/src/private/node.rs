//! The plan node of a private aggregation.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::{Error, Result};
use crate::model::node::compared_by_key;
use crate::private::ledger::Ledger;
use crate::private::options::{Aggregate, Selection, Spec, Statistic};
use crate::private::rewrite::{group_name, result_name};

/// Private statistics of groups, over what each unit contributes to each of them.
///
/// Its input has the columns unit, groups, values in this order; its output groups, results.
#[derive(Debug, Clone)]
pub(crate) struct PrivateNode {
    spec: Arc<Spec>,
    ledger: Ledger,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl PrivateNode {
    /// A node over an input that keeps units apart.
    ///
    /// # Errors
    /// When values are of types that have no such statistic.
    pub(crate) fn new(spec: Arc<Spec>, ledger: Ledger, input: LogicalPlan) -> Result<Self> {
        let schema = output(&spec, input.schema().as_arrow())?;
        let schema = Arc::new(DFSchema::try_from(schema)?);
        Ok(Self { spec, ledger, input, schema })
    }

    pub(crate) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The columns that it gives.
    pub(crate) fn arrow_schema(&self) -> SchemaRef {
        Arc::new(self.schema.as_arrow().clone())
    }

    /// Whether somebody's budget pays for the answer.
    pub(crate) fn is_charged(&self) -> bool {
        self.ledger.is_charged()
    }

    fn key(&self) -> (String, String, &LogicalPlan) {
        (format!("{:?}", self.spec), self.ledger.shown(), &self.input)
    }
}

compared_by_key!(PrivateNode);

/// What a private aggregation is, in one line.
pub(crate) fn shown(spec: &Spec, ledger: &Ledger) -> String {
    let options = &spec.options;
    let groups = match (spec.groups, options.selection) {
        (0, _) => "no groups",
        (_, Selection::Threshold) => "rare groups left out",
        (_, Selection::Public) => "public groups",
    };
    format!(
        "epsilon={}, delta={}, {:?}, unit={}, {:?}, {groups}, charged to {}",
        options.epsilon,
        spec.delta(),
        options.mechanism,
        options.unit,
        options.contributions,
        ledger.shown(),
    )
}

fn output(spec: &Spec, input: &Schema) -> Result<Schema> {
    let field = |index: usize| {
        input.fields().get(index).ok_or_else(|| {
            Error::Internal("the input of a private aggregation has too few columns".into())
        })
    };
    let mut fields = Vec::with_capacity(spec.groups + spec.aggregates.len());
    for index in 0..spec.groups {
        let group = field(1 + index)?;
        fields.push(Field::new(group_name(index), group.data_type().clone(), true));
    }
    for (index, aggregate) in spec.aggregates.iter().enumerate() {
        let value = field(1 + spec.groups + index)?;
        let result = result_type(aggregate, value.data_type())?;
        fields.push(Field::new(result_name(index), result, false));
    }
    Ok(Schema::new(fields))
}

/// Counts and sums of whole numbers are whole numbers, all else doubles.
fn result_type(aggregate: &Aggregate, value: &DataType) -> Result<DataType> {
    if aggregate.statistic == Statistic::Distinct {
        return Ok(DataType::Int64);
    }
    let of = match value {
        DataType::List(item) if aggregate.statistic.takes_rows() => item.data_type(),
        other => other,
    };
    if !of.is_numeric() && !of.is_null() {
        return Err(Error::invalid_hint(
            format!("private statistics take numbers, not {of}"),
            "cast the value: AVG(CAST(x AS DOUBLE), …)",
        ));
    }
    Ok(match aggregate.statistic {
        Statistic::Count => DataType::Int64,
        Statistic::Sum if of.is_integer() => DataType::Int64,
        _ => DataType::Float64,
    })
}

impl UserDefinedLogicalNodeCore for PrivateNode {
    fn name(&self) -> &str {
        "DifferentialPrivacy"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    // Columns are read by position, so none may be pruned below.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DifferentialPrivacy: {}", shown(&self.spec, &self.ledger))
    }

    fn with_exprs_and_inputs(
        &self,
        _expressions: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let Some(input) = inputs.pop() else {
            return Err(DataFusionError::Internal("a private aggregation has one input".into()));
        };
        // Types may have been coerced below.
        let made = Self::new(Arc::clone(&self.spec), self.ledger.clone(), input);
        made.map_err(DataFusionError::from)
    }
}
