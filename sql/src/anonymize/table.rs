//! The rows of the query in memory: quasi-identifiers and sensitive columns in codes, and what is
//! given as it is.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, new_empty_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use udfs::privacy::anonymize::report::Line;
use udfs::privacy::anonymize::{ColumnEncoder, Input, Outcome, Quasi, Sensitive, Shown};

use super::options::{Asked, Origin, Role};

/// Reads the rows.
pub(super) struct Table {
    asked: Asked,
    quasi: Vec<ColumnEncoder>,
    sensitive: Vec<ColumnEncoder>,
    released: Option<Vec<bool>>,
    kept: Kept,
    kept_bytes: usize,
    rows: usize,
}

/// The columns that are given as they are.
pub(super) struct Kept {
    /// Their places in the query.
    places: Vec<usize>,
    batches: Vec<RecordBatch>,
    /// How many rows come before each batch, and how many there are.
    starts: Vec<usize>,
}

impl Table {
    /// An empty one.
    ///
    /// # Errors
    /// When a column is of a type that cannot be generalized.
    pub fn new(asked: &Asked, schema: &SchemaRef) -> Result<Self> {
        let encoders = |roles: &[Role]| -> Result<Vec<ColumnEncoder>> {
            let encoder =
                |role: &Role| ColumnEncoder::new(&role.name, schema.field(role.at).data_type());
            roles.iter().map(encoder).collect()
        };
        let places = asked.origins.iter().filter_map(|origin| match origin {
            Origin::Kept(at) => Some(*at),
            Origin::Quasi(_) => None,
        });
        Ok(Self {
            quasi: encoders(&asked.quasi)?,
            sensitive: encoders(&asked.sensitive)?,
            released: asked.subset.map(|_| vec![]),
            kept: Kept { places: places.collect(), batches: vec![], starts: vec![0] },
            kept_bytes: 0,
            rows: 0,
            asked: asked.clone(),
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let quasi = self.quasi.iter_mut().zip(&self.asked.quasi);
        let sensitive = self.sensitive.iter_mut().zip(&self.asked.sensitive);
        for (encoder, role) in quasi.chain(sensitive) {
            encoder.add(batch.column(role.at))?;
        }
        if let (Some(released), Some(at)) = (&mut self.released, self.asked.subset) {
            let Some(truth) = batch.column(at).as_boolean_opt() else {
                return Err(DataFusionError::Internal("the subset is no truth value".into()));
            };
            // What is not known to be released is not.
            released.extend(truth.iter().map(|truth| truth == Some(true)));
        }
        self.rows += batch.num_rows();
        if !self.kept.places.is_empty() {
            let kept = batch.project(&self.kept.places)?;
            self.kept_bytes += get_record_batch_memory_size(&kept);
            self.kept.batches.push(kept);
            self.kept.starts.push(self.rows);
        }
        Ok(())
    }

    /// How many rows were added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that the rows take.
    pub fn bytes(&self) -> usize {
        let codes: usize = self.quasi.iter().chain(&self.sensitive).map(ColumnEncoder::bytes).sum();
        codes + self.kept_bytes + self.released.as_ref().map_or(0, Vec::capacity)
    }

    /// The rows in codes, and what is given as it is.
    pub fn finish(self) -> (Input, Kept) {
        let quasi = self.quasi.into_iter().zip(self.asked.quasi);
        let quasi =
            quasi.map(|(encoder, role)| Quasi { column: encoder.finish(), scheme: role.scheme });
        let sensitive = self.sensitive.into_iter().zip(self.asked.sensitive);
        let sensitive = sensitive
            .map(|(encoder, role)| Sensitive { column: encoder.finish(), scheme: role.scheme });
        let input = Input {
            quasi: quasi.collect(),
            sensitive: sensitive.collect(),
            released: self.released,
        };
        (input, self.kept)
    }
}

impl Kept {
    /// Rows of the result.
    ///
    /// # Errors
    /// When Arrow refuses the columns.
    pub fn batch(&self, asked: &Asked, outcome: &Outcome, rows: &[u32]) -> Result<RecordBatch> {
        let places: Vec<(usize, usize)> =
            rows.iter().map(|row| self.place(*row as usize)).collect();
        let mut next_kept = 0;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(asked.origins.len());
        for (origin, field) in asked.origins.iter().zip(asked.schema.fields()) {
            columns.push(match origin {
                Origin::Quasi(number) => shown(outcome, *number, rows)?,
                Origin::Kept(_) => {
                    let arrays: Vec<&dyn Array> =
                        self.batches.iter().map(|batch| batch.column(next_kept).as_ref()).collect();
                    next_kept += 1;
                    match arrays.is_empty() {
                        true => new_empty_array(field.data_type()),
                        false => interleave(&arrays, &places)?,
                    }
                }
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&asked.schema), columns)?)
    }

    /// The batch of a row, and its place there.
    fn place(&self, row: usize) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= row).saturating_sub(1);
        (batch, row - self.starts.get(batch).copied().unwrap_or_default())
    }
}

/// What rows show of a quasi-identifier.
fn shown(outcome: &Outcome, number: usize, rows: &[u32]) -> Result<ArrayRef> {
    let classes = rows.iter().map(|row| outcome.class_of.get(*row as usize).copied());
    let classes = classes.map(|class| class.map_or(usize::MAX, |class| class as usize));
    Ok(match outcome.shown.get(number) {
        Some(Shown::Labels(labels)) => {
            let label = |class: usize| labels.get(class).and_then(|label| label.as_deref());
            Arc::new(classes.map(label).collect::<StringArray>())
        }
        Some(Shown::Numbers(numbers)) => {
            let mean = |class: usize| numbers.get(class).copied().flatten();
            Arc::new(classes.map(mean).collect::<Float64Array>())
        }
        None => return Err(DataFusionError::Internal("a column was not generalized".into())),
    })
}

/// The columns of a report.
pub(super) fn report_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        text("aspect"),
        text("metric"),
        number("value"),
        number("before"),
        text("unit"),
        text("explanation"),
    ]))
}

/// The rows of a report.
///
/// # Errors
/// When Arrow refuses the columns.
pub(super) fn report_batch(lines: &[Line]) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Line) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(lines.iter().map(text)))
    };
    let numbers = |number: &dyn Fn(&Line) -> Option<f64>| -> ArrayRef {
        Arc::new(lines.iter().map(number).collect::<Float64Array>())
    };
    let columns = vec![
        texts(&|line: &Line| line.aspect.to_owned()),
        texts(&|line: &Line| line.metric.clone()),
        numbers(&|line: &Line| line.value),
        numbers(&|line: &Line| line.before),
        texts(&|line: &Line| line.unit.to_owned()),
        texts(&|line: &Line| line.explanation.to_owned()),
    ];
    Ok(RecordBatch::try_new(report_schema(), columns)?)
}
