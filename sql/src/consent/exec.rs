//! Leaving out the rows of people who do not consent.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{and, not};
use arrow::datatypes::SchemaRef;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use udfs::consent::{ConsentSet, Mask};

use crate::session::screen::{self, Screen, ScreenExec};

/// Who consents, and which column of the input says whose a row is.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) column: usize,
    pub(super) set: Arc<ConsentSet>,
}

/// Whose rows pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persons {
    /// People who meet all conditions.
    Consenting,
    /// All others.
    Others,
}

/// Lets the rows of people who consent through, or those of all others.
pub(super) struct Keep {
    conditions: Vec<Condition>,
    persons: Persons,
    /// The input's columns that go on, in their order.
    output: Vec<usize>,
    /// What it is read for, as EXPLAIN shows it.
    reading: String,
    policies: Vec<String>,
}

/// The rows of `input` of people who meet all conditions, or of all others; of their columns those
/// in `output`.
///
/// # Errors
/// When the input lacks a column, or cannot be read in parallel, which is a defect.
pub(super) fn kept(
    input: Arc<dyn ExecutionPlan>,
    conditions: Vec<Condition>,
    persons: Persons,
    output: Vec<usize>,
    reading: String,
    policies: Vec<String>,
    config: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = Arc::new(input.schema().project(&output)?);
    let keep = Keep { conditions, persons, output, reading, policies };
    ScreenExec::over(input, Arc::new(keep), schema, config)
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "policies=[{}], {}", self.policies.join(", "), self.reading)
    }
}

impl Screen for Keep {
    const NAME: &'static str = "ConsentExec";

    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let mask = match (self.consenting(batch)?, self.persons) {
            (mask, Persons::Consenting) => mask,
            (Mask::All, Persons::Others) => Mask::None,
            (Mask::None, Persons::Others) => Mask::All,
            (Mask::Some(mask), Persons::Others) => Mask::Some(not(&mask)?),
        };
        match mask {
            Mask::None => Ok(RecordBatch::new_empty(Arc::clone(schema))),
            Mask::All => {
                let columns = self.output.iter().map(|at| Arc::clone(batch.column(*at)));
                screen::with_rows(columns.collect(), batch.num_rows(), schema)
            }
            Mask::Some(mask) => screen::kept(batch, &mask, &self.output, schema),
        }
    }
}

impl Keep {
    /// The rows of people who meet all conditions.
    fn consenting(&self, batch: &RecordBatch) -> Result<Mask> {
        let mut kept = Mask::All;
        for condition in &self.conditions {
            kept = match (kept, condition.set.mask(batch.column(condition.column))?) {
                (Mask::None, _) | (_, Mask::None) => return Ok(Mask::None),
                (Mask::All, mask) | (mask, Mask::All) => mask,
                (Mask::Some(one), Mask::Some(other)) => Mask::Some(and(&one, &other)?),
            };
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use udfs::consent::SubjectKind;

    use super::*;

    fn column(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn set(default_allow: bool, exceptions: &[i64]) -> Arc<ConsentSet> {
        let exceptions = [column(exceptions)];
        let set = ConsentSet::new(SubjectKind::Integer, default_allow, &exceptions, 1).unwrap();
        Arc::new(set)
    }

    #[test]
    fn all_policies_must_agree() {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("who"), field("n")]));
        let columns = vec![column(&[1, 2, 3, 4]), column(&[10, 20, 30, 40])];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let condition = |set| Condition { column: 0, set };
        let of = |persons: Persons, conditions: Vec<Condition>, output: Vec<usize>| {
            let schema = Arc::new(schema.project(&output).unwrap());
            let (reading, policies) = (String::new(), vec![]);
            let keep = Keep { conditions, persons, output, reading, policies };
            keep.rows(&batch, &schema).unwrap()
        };
        let keep = |conditions, output| of(Persons::Consenting, conditions, output);
        let both = || vec![condition(set(true, &[2])), condition(set(false, &[1, 2, 3]))];
        let rows = keep(both(), vec![1]);
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[10, 30]);
        // Rows are counted where no column is asked for.
        assert_eq!(keep(both(), vec![]).num_rows(), 2);
        assert_eq!(keep(vec![condition(set(true, &[]))], vec![]).num_rows(), 4);
        assert_eq!(keep(vec![condition(set(false, &[]))], vec![0, 1]).num_rows(), 0);
        // The others are all others.
        let others = |conditions, output| of(Persons::Others, conditions, output);
        let rows = others(both(), vec![1]);
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[20, 40]);
        assert_eq!(others(both(), vec![]).num_rows(), 2);
        assert_eq!(others(vec![condition(set(true, &[]))], vec![0, 1]).num_rows(), 0);
        assert_eq!(others(vec![condition(set(false, &[]))], vec![]).num_rows(), 4);
    }
}
