//! The plan node of `anonymize` and of its report.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;

use super::exec::AnonymizeExec;
use super::options::{Asked, Role};
use crate::error::{Error, Result};
use crate::model::node::compared_by_key;

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = |formatter: &mut fmt::Formatter<'_>, name: &str, roles: &[Role]| {
            let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
            write!(formatter, ", {name}=[{}]", names.join(", "))
        };
        let criteria = &self.options.criteria;
        write!(formatter, "method={:?}, k={}", self.options.method, criteria.k)?;
        if let Some(diversity) = &criteria.diversity {
            write!(formatter, ", l={diversity:?}")?;
        }
        if let Some(closeness) = &criteria.closeness {
            write!(formatter, ", t={} ({:?})", closeness.t, closeness.distance)?;
        }
        if let Some((least, most)) = &criteria.presence {
            write!(formatter, ", delta={least}..{most}")?;
        }
        if self.options.suppression_limit > 0.0 {
            write!(formatter, ", suppression_limit={}", self.options.suppression_limit)?;
        }
        columns(formatter, "quasi_identifiers", &self.quasi)?;
        if !self.sensitive.is_empty() {
            columns(formatter, "sensitive", &self.sensitive)?;
        }
        if let Some(release) = &self.release {
            write!(formatter, ", release={}", release.name())?;
        }
        if self.is_report { write!(formatter, ", report") } else { Ok(()) }
    }
}

/// The rows of a query, anonymized.
#[derive(Debug, Clone)]
pub(crate) struct AnonymizeNode {
    asked: Arc<Asked>,
    /// All that is asked, as plans compare it: hierarchies by name and fingerprint.
    written: String,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl AnonymizeNode {
    /// A node over rows with the columns that are asked for.
    ///
    /// # Errors
    /// When the result has two columns of one name.
    pub(super) fn new(asked: Asked, input: LogicalPlan) -> Result<Self> {
        let schema = Arc::new(DFSchema::try_from(asked.schema.as_ref().clone())?);
        let written = format!("{asked:?}");
        Ok(Self { asked: Arc::new(asked), written, input, schema })
    }

    /// The operator over a planned input.
    ///
    /// # Errors
    /// When there is no single input.
    pub(crate) fn operator(
        &self,
        inputs: &[Arc<dyn ExecutionPlan>],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = inputs else {
            return Err(Error::Internal("anonymize has one input".into()));
        };
        Ok(Arc::new(AnonymizeExec::new(Arc::clone(&self.asked), Arc::clone(input))))
    }

    fn key(&self) -> (&str, &LogicalPlan) {
        (&self.written, &self.input)
    }
}

compared_by_key!(AnonymizeNode);

impl UserDefinedLogicalNodeCore for AnonymizeNode {
    fn name(&self) -> &str {
        "Anonymize"
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

    // The node reads its columns by position, so none may be pruned below it.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Anonymize: {}", self.asked)
    }

    fn with_exprs_and_inputs(
        &self,
        _expressions: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let Some(input) = inputs.pop() else {
            return Err(DataFusionError::Internal("anonymize has one input".into()));
        };
        let (asked, written) = (Arc::clone(&self.asked), self.written.clone());
        Ok(Self { asked, written, input, schema: Arc::clone(&self.schema) })
    }
}
