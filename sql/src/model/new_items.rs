//! Items that a factorization does not know, solved at query time: `fold_in_items => TRUE`.
//!
//! The training query runs once more over everybody's rows, as whoever asks. Rows of known items
//! are passed over as they come; those that known users have of others are kept and solved into a
//! wider copy of the model, which answers this statement alone. Where there are none the model
//! itself does.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use catalog::models::LoadedModel;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use udfs::model::{AlsModel, Duplicates, IdIndex, Model, ModelError, Recommender, Triplets};

use crate::error::{Error, Result};
use crate::model::history::Reading;
use crate::model::options::model_error;
use crate::model::rows::binary;
use crate::model::train::BYTES_PER_ROW;

/// The option's name.
pub const OPTION: &str = "fold_in_items";

/// Checks that a model takes new items.
///
/// # Errors
/// When it is no factorization.
pub(super) fn check(model: &LoadedModel) -> Result<()> {
    if model.model.als().is_some() {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!(
            "{OPTION} solves the items of a matrix factorization, and {model} is of type '{}'",
            model.model.type_name()
        ),
        format!("write fold_in => TRUE, and RETRAIN MODEL {} for its new items", model.name),
    ))
}

/// A model with the items that it does not know and that its users have had by now.
pub(super) struct Widened {
    /// The wider model.
    pub(super) model: LoadedModel,
    /// Held as long as it is.
    pub(super) memory: MemoryReservation,
}

/// Reads everybody's rows; `None` when they have no new items.
///
/// # Errors
/// As training does: NULL ids, weights that are not finite, or too little memory; and when the
/// items have become of another type.
pub(super) async fn widened(
    model: &LoadedModel,
    mut rows: SendableRecordBatchStream,
    reading: &Reading,
    memory: MemoryReservation,
) -> Result<Option<Widened>> {
    let Some(known) = model.model.als() else { return Ok(None) };
    let found = rows.schema().field(1).data_type().clone();
    let (name, expected) = (&reading.columns.item.1, known.item_ids().data_type());
    if !known.item_ids().is_alike(&found) {
        return Err(Error::invalid_hint(
            format!("items in {name} are of type {found} by now, and the model's of {expected}"),
            format!("RETRAIN MODEL {}", model.name),
        ));
    }
    let mut new = NewItems {
        items: IdIndex::new(name, expected).map_err(model_error)?,
        cells: Triplets::default(),
    };
    while let Some(batch) = rows.next().await {
        let kept = new.add(&batch?, known, reading)?;
        memory.try_grow(kept * BYTES_PER_ROW)?;
    }
    if new.cells.is_empty() {
        return Ok(None);
    }
    memory.try_grow(known.bytes_with(new.items.len(), new.cells.len()))?;
    let shared = Arc::clone(&model.model);
    let (duplicates, is_binary) = (reading.duplicates, reading.is_binary);
    let solved = crate::model::learn(move || new.solve(&shared, duplicates, is_binary)).await??;
    let mut model = model.clone();
    model.model = Arc::new(solved);
    Ok(Some(Widened { model, memory }))
}

/// What known users have had of items that the model does not know.
struct NewItems {
    /// In the type of the model's ids.
    items: IdIndex,
    /// New items × the model's users.
    cells: Triplets,
}

impl NewItems {
    /// Takes the rows that are about new items; gives how many they are.
    fn add(&mut self, batch: &RecordBatch, known: &AlsModel, reading: &Reading) -> Result<usize> {
        for (at, (_, column)) in [&reading.columns.user, &reading.columns.item].iter().enumerate() {
            if batch.column(at).logical_null_count() > 0 {
                return Err(model_error(ModelError::Null { column: column.clone() }));
            }
        }
        let codes = known.item_ids().lookup(batch.column(1)).map_err(model_error)?;
        if codes.iter().all(Option::is_some) {
            return Ok(0);
        }
        let users = known.user_ids().lookup(batch.column(0)).map_err(model_error)?;
        // A value that has no place in the type of the model's ids is nobody's item.
        let ids = cast(batch.column(1), self.items.data_type())?;
        let (mut rows, mut owners) = (vec![], vec![]);
        for (row, (code, user)) in (0_u32..).zip(codes.into_iter().zip(users)) {
            let user = user.filter(|user| known.has_learned_of(*user));
            if let (None, Some(user)) = (code, user)
                && ids.is_valid(row as usize)
            {
                rows.push(row);
                owners.push(user);
            }
        }
        let rows = UInt32Array::from(rows);
        let items = self.items.encode(&take(&ids, &rows, None)?).map_err(model_error)?;
        let (weights, name) = reading.columns.weights(batch)?;
        for ((row, item), user) in rows.values().iter().zip(items).zip(owners) {
            let weight = weights.as_ref().map_or(1.0, |weights| weights.value(*row as usize));
            self.cells.push(item, user, weight, name).map_err(model_error)?;
        }
        Ok(rows.len())
    }

    /// The model with these items, in the order of their ids.
    fn solve(mut self, model: &Model, duplicates: Duplicates, is_binary: bool) -> Result<Model> {
        let Some(known) = model.als() else {
            return Err(Error::Internal("new items are a factorization's".into()));
        };
        // The order of rows decides nothing.
        let order = self.items.sort().map_err(model_error)?;
        let users = known.user_ids().len();
        let same: Vec<u32> = (0_u32..).take(users).collect();
        self.cells.recode(&order, &same);
        let (cells, _) = self.cells.build(self.items.len(), users, duplicates);
        let cells = if is_binary { binary(&cells)? } else { cells };
        let wider = known.with_items(&self.items.values(), &cells).map_err(model_error)?;
        Ok(wider.into())
    }
}
