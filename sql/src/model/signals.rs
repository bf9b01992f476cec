//! Signals: columns of `item_table` that count in a blend beside its models, such as a margin or a
//! stock. The more a column holds the more it speaks for an item; what it is worth is learned with
//! the models' weights. An item without a value has the mean.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use udfs::model::IdIndex;

use crate::error::{Error, Result};
use crate::model::items::select;
use crate::model::options::{TrainingOptions, model_error};
use crate::session::StatementContext;

/// The item table as it is read for signals: the id, then the columns.
#[derive(Debug, Clone)]
pub struct SignalTable {
    table: String,
    id: String,
}

/// Plans the columns that the options name; none when they name none.
///
/// # Errors
/// When the table or a column does not exist for who asks, or a column holds no numbers.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    options: &TrainingOptions,
    id: &str,
) -> Result<Option<(SignalTable, LogicalPlan)>> {
    let names = options.learner.signals();
    let Some(table) = options.item_table.as_ref().filter(|_| !names.is_empty()) else {
        return Ok(None);
    };
    if names.iter().any(|name| name == id) {
        return Err(Error::invalid_hint(
            format!("signals names {id}, the id itself"),
            "name columns of numbers that speak for an item, such as a margin",
        ));
    }
    let columns: Vec<&str> = std::iter::once(id).chain(names.iter().map(String::as_str)).collect();
    let (_, plan) = Box::pin(context.plan_query(select(table, &columns)?)).await?;
    for field in plan.schema().fields().iter().skip(1) {
        let data_type = field.data_type();
        if !(data_type.is_numeric() || *data_type == DataType::Boolean) {
            return Err(Error::invalid_hint(
                format!("signal {} has type {data_type}, which is no number", field.name()),
                "a signal is a column of numbers or truths; item_features takes texts too",
            ));
        }
    }
    Ok(Some((SignalTable { table: table.clone(), id: id.to_owned() }, plan)))
}

/// Signals as they were read.
#[derive(Debug)]
pub struct Signals {
    table: SignalTable,
    ids: IdIndex,
    /// Of each signal the value of each id; none where it is NULL.
    columns: Vec<Vec<Option<f64>>>,
}

impl SignalTable {
    /// Reads the table.
    ///
    /// # Errors
    /// When an id is NULL or comes twice, or a value is not finite.
    pub async fn read(
        &self,
        mut rows: SendableRecordBatchStream,
        memory: &MemoryReservation,
    ) -> Result<Signals> {
        let schema = rows.schema();
        let id_type = schema.fields().first().map_or(&DataType::Null, |field| field.data_type());
        let mut ids = IdIndex::new(&self.id, id_type).map_err(model_error)?;
        let mut columns: Vec<Vec<Option<f64>>> = vec![vec![]; schema.fields().len() - 1];
        // A value as it is read and by item; the id beside.
        let row_bytes = columns.len() * 24 + 64;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            memory.try_grow(batch.num_rows() * row_bytes)?;
            let known = ids.len();
            ids.encode(batch.column(0)).map_err(model_error)?;
            if ids.len() < known + batch.num_rows() {
                return Err(Error::Model {
                    what: format!("{} has several rows of one {}", self.table, self.id),
                    hint: Some("a table of signals has one row for each id".into()),
                });
            }
            let named = batch.columns().iter().zip(schema.fields()).skip(1);
            for (values, (column, field)) in columns.iter_mut().zip(named) {
                let numbers = cast(column, &DataType::Float64)?;
                let numbers = numbers.as_primitive::<Float64Type>();
                // Kept as 32-bit numbers, beside a mean that is taken off.
                let is_wrong = |number: &f64| !(*number as f32 * 2.0).is_finite();
                if let Some(wrong) = numbers.iter().flatten().find(is_wrong) {
                    return Err(Error::Model {
                        what: format!(
                            "column {} of {} holds {wrong}, which is no signal",
                            field.name(),
                            self.table
                        ),
                        hint: Some("name a view of the table that leaves such values out".into()),
                    });
                }
                values.extend(numbers.iter());
            }
        }
        Ok(Signals { table: self.clone(), ids, columns })
    }
}

impl Signals {
    /// Each signal's value of each item by its code, less the mean.
    ///
    /// # Errors
    /// When the table has none of the items.
    pub fn by_item(&self, items: &IdIndex) -> Result<Vec<Vec<f32>>> {
        let codes = items.lookup(&self.ids.values()).map_err(model_error)?;
        if codes.iter().all(Option::is_none) {
            let SignalTable { table, id } = &self.table;
            return Err(Error::Model {
                what: format!(
                    "item_table {table} has no item of the training query: {id} is {} there and {} \
                     in the query",
                    self.ids.data_type(),
                    items.data_type()
                ),
                hint: Some("name a table or view that has the items under the same ids".into()),
            });
        }
        let centred = |values: &Vec<Option<f64>>| {
            let known = || codes.iter().zip(values).filter_map(|(code, value)| code.zip(*value));
            let count = known().count().max(1) as f64;
            let mean = known().map(|(_, value)| value / count).sum::<f64>();
            let mut of_items = vec![0.0; items.len()];
            for (code, value) in known() {
                of_items[code as usize] = (value - mean) as f32;
            }
            of_items
        };
        Ok(self.columns.iter().map(centred).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_value_counts_by_how_far_it_is_from_the_mean_of_the_models_items() {
        let ids = |ids: ArrayRef| IdIndex::from_values("item", ids).unwrap();
        let signals = Signals {
            table: SignalTable { table: "things".into(), id: "item".into() },
            ids: ids(Arc::new(Int64Array::from(vec![7, 5, 9]))),
            columns: vec![vec![Some(4.0), Some(2.0), Some(1e9)], vec![None, Some(3.0), None]],
        };
        let items = ids(Arc::new(Int64Array::from(vec![5, 6, 7])));
        let found = signals.by_item(&items).unwrap();
        assert_eq!(found, [[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]);
        let others = ids(Arc::new(StringArray::from(vec!["a"])));
        let error = signals.by_item(&others).unwrap_err().to_string();
        assert!(error.contains("things has no item"), "{error}");
    }
}
