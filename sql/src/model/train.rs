//! Training: a query's rows stream into interactions, which the learner turns into a model.
//!
//! Rows are read batch by batch into dense codes and 12 bytes a row; the memory of the whole
//! training is reserved before it starts. The learner runs on its own threads, reports after each
//! half iteration and stops within a block of rows when it is cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Float32Array};
use arrow::datatypes::{DataType, Float32Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::Catalog;
use catalog::models::StoredIteration;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use udfs::model::als::{Feedback, train};
use udfs::model::{AlsModel, Csr, Duplicates, IdIndex, ModelParts, Triplets, holdout};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::evaluate::{Metric, evaluate};
use crate::model::options::{TrainingOptions, model_error};
use crate::progress::Reporter;
use crate::session::Progress;

/// Rows between two looks at the memory reservation.
const BYTES_PER_ROW: usize = 24;

/// The training query's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingColumns {
    /// Position and name of the user column.
    pub user: (usize, String),
    /// Position and name of the item column.
    pub item: (usize, String),
    /// Position and name of the rating column; none: every row weighs 1.
    pub rating: Option<(usize, String)>,
}

impl TrainingColumns {
    /// Finds the columns by the options' names, or by the usual names.
    ///
    /// # Errors
    /// When a column is missing or the rating is no number.
    pub fn find(schema: &SchemaRef, options: &TrainingOptions) -> Result<Self> {
        let user = find(schema, "user_col", options.user_col.as_deref(), &["user_id", "user"])?;
        let item = find(schema, "item_col", options.item_col.as_deref(), &["item_id", "item"])?;
        let usual = ["rating", "weight", "value", "score", "quantity"];
        let rating = match find(schema, "rating_col", options.rating_col.as_deref(), &usual) {
            Ok(found) => Some(found),
            Err(_) if options.rating_col.is_none() => match options.als.feedback {
                Feedback::Implicit => None,
                Feedback::Explicit => {
                    return Err(Error::invalid_hint(
                        "explicit feedback needs a rating column",
                        "name it with rating_col, or use feedback_type = 'implicit'",
                    ));
                }
            },
            Err(error) => return Err(error),
        };
        if let Some((index, name)) = &rating {
            let data_type = schema.field(*index).data_type();
            if !data_type.is_numeric() && !matches!(data_type, DataType::Boolean | DataType::Null) {
                return Err(Error::invalid_hint(
                    format!("column {name} has type {data_type}, which is no rating"),
                    "cast it to a number in the training query",
                ));
            }
        }
        let found = Self { user, item, rating };
        if found.user.0 == found.item.0 {
            return Err(Error::invalid("user_col and item_col are the same column"));
        }
        Ok(found)
    }
}

impl TrainingColumns {
    /// The rating column of a batch, and the name that errors give it.
    fn weights(&self, batch: &RecordBatch) -> Result<(Option<Float32Array>, &str)> {
        match &self.rating {
            Some((index, name)) => Ok((Some(weights(batch.column(*index), name)?), name)),
            None => Ok((None, "weight")),
        }
    }
}

fn find(
    schema: &SchemaRef,
    option: &str,
    named: Option<&str>,
    usual: &[&str],
) -> Result<(usize, String)> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let position = |wanted: &str| names.iter().position(|name| *name == wanted);
    match named {
        Some(wanted) => match position(wanted) {
            Some(index) => Ok((index, wanted.to_owned())),
            None => Err(Error::unknown("column", wanted, names)),
        },
        None => usual
            .iter()
            .find_map(|wanted| position(wanted).map(|index| (index, (*wanted).to_owned())))
            .ok_or_else(|| {
                Error::invalid_hint(
                    format!("the training query has no column {}", usual.join(" or ")),
                    format!("name it with {option}; columns: {}", names.join(", ")),
                )
            }),
    }
}

/// Reads rows of a known model's users and items; others are left out.
///
/// # Errors
/// Weights that are not finite, or too little memory.
pub async fn read_known(
    mut rows: SendableRecordBatchStream,
    columns: &TrainingColumns,
    model: &AlsModel,
    memory: &MemoryReservation,
) -> Result<Csr> {
    let mut cells = Triplets::default();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.num_rows() * BYTES_PER_ROW)?;
        let users = model.user_ids().lookup(batch.column(columns.user.0)).map_err(model_error)?;
        let items = model.item_ids().lookup(batch.column(columns.item.0)).map_err(model_error)?;
        let (weights, name) = columns.weights(&batch)?;
        for (row, (user, item)) in users.into_iter().zip(items).enumerate() {
            let (Some(user), Some(item)) = (user, item) else { continue };
            let weight = weights.as_ref().map_or(1.0, |weights| weights.value(row));
            cells.push(user, item, weight, name).map_err(model_error)?;
        }
    }
    let (users, items) = (model.user_ids().len(), model.item_ids().len());
    Ok(cells.build(users, items, duplicates(model.feedback())).0)
}

/// Rows of one pair: evidence adds up, ratings are averaged.
fn duplicates(feedback: Feedback) -> Duplicates {
    match feedback {
        Feedback::Implicit => Duplicates::Sum,
        Feedback::Explicit => Duplicates::Mean,
    }
}

/// What training gives.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: AlsModel,
    /// Loss and time of each iteration.
    pub iterations: Vec<Iteration>,
    /// Metrics on the rows kept aside; empty when none were.
    pub metrics: Vec<Metric>,
    /// Interactions, and rows that were merged into another of the same user and item.
    pub interactions: usize,
    /// Rows merged into another of the same user and item.
    pub merged: usize,
}

/// One iteration of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Iteration {
    /// From 1.
    pub iteration: usize,
    /// The objective.
    pub loss: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

impl Iteration {
    /// The form that a model's manifest keeps.
    pub fn stored(&self) -> StoredIteration {
        StoredIteration {
            iteration: u32::try_from(self.iteration).unwrap_or(u32::MAX),
            loss: self.loss,
            duration_ms: self.duration_ms,
        }
    }
}

/// Interactions read from a query.
#[derive(Debug)]
pub struct Interactions {
    users: IdIndex,
    items: IdIndex,
    cells: Triplets,
}

/// Reads the training rows.
///
/// # Errors
/// NULL ids, weights that are not finite, or too little memory.
pub async fn read(
    mut rows: SendableRecordBatchStream,
    columns: &TrainingColumns,
    memory: &MemoryReservation,
    progress: &Reporter,
) -> Result<Interactions> {
    let schema = rows.schema();
    let index = |column: &(usize, String)| {
        IdIndex::new(&column.1, schema.field(column.0).data_type()).map_err(model_error)
    };
    let mut read = Interactions {
        users: index(&columns.user)?,
        items: index(&columns.item)?,
        cells: Triplets::default(),
    };
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.num_rows() * BYTES_PER_ROW)?;
        read.add(&batch, columns)?;
        let done = read.cells.len() as u64;
        progress.report(Progress { phase: "reading".into(), done, total: 0, metric: None });
    }
    Ok(read)
}

impl Interactions {
    fn add(&mut self, batch: &RecordBatch, columns: &TrainingColumns) -> Result<()> {
        let users = self.users.encode(batch.column(columns.user.0)).map_err(model_error)?;
        let items = self.items.encode(batch.column(columns.item.0)).map_err(model_error)?;
        let (weights, name) = columns.weights(batch)?;
        for (row, (user, item)) in users.into_iter().zip(items).enumerate() {
            let weight = weights.as_ref().map_or(1.0, |weights| weights.value(row));
            self.cells.push(user, item, weight, name).map_err(model_error)?;
        }
        Ok(())
    }
}

fn weights(column: &ArrayRef, name: &str) -> Result<Float32Array> {
    if column.null_count() > 0 {
        return Err(Error::Model {
            what: format!("column {name} holds NULL, which is no weight"),
            hint: Some(format!("add WHERE {name} IS NOT NULL to the training query")),
        });
    }
    let cast = arrow::compute::cast(column, &DataType::Float32)?;
    Ok(cast.as_primitive::<Float32Type>().clone())
}

/// Trains on the learners' threads.
///
/// # Errors
/// An empty training set, too little memory, cancellation.
pub async fn fit(
    engine: &Engine,
    interactions: Interactions,
    options: TrainingOptions,
    memory: &MemoryReservation,
    progress: Reporter,
) -> Result<Trained> {
    if interactions.cells.is_empty() {
        return Err(model_error(udfs::model::ModelError::Empty));
    }
    let (users, items) = (interactions.users.len(), interactions.items.len());
    memory.try_grow(options.als.memory_bytes(users, items, interactions.cells.len()))?;
    let cancel = CancelOnDrop::default();
    let flag = Arc::clone(&cancel.0);
    let clock = Arc::clone(engine.catalog());
    crate::model::learn(move || fit_now(interactions, &options, &flag, &progress, &clock)).await?
}

/// Sets the flag when the waiting statement goes away.
#[derive(Debug, Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn fit_now(
    mut interactions: Interactions,
    options: &TrainingOptions,
    cancel: &AtomicBool,
    progress: &Reporter,
    clock: &Catalog,
) -> Result<Trained> {
    // Codes follow the ids' order, not the rows', so that the same rows give the same model.
    let user_codes = interactions.users.sort().map_err(model_error)?;
    let item_codes = interactions.items.sort().map_err(model_error)?;
    interactions.cells.recode(&user_codes, &item_codes);
    let (users, items) = (interactions.users.len(), interactions.items.len());
    let duplicates = duplicates(options.als.feedback);
    let (all, merged) = interactions.cells.build(users, items, duplicates);
    let fraction = options.split.fraction(all.cells());
    let (training, kept_aside) = holdout(&all, fraction, options.als.seed);
    if training.cells() == 0 {
        return Err(Error::Model {
            what: "no rows are left for training after the split".into(),
            hint: Some("use data_split_method = 'no_split'".into()),
        });
    }
    let mut iterations = Vec::new();
    let mut last_ms = clock.now_ms();
    let mut report = |now: udfs::model::als::Progress| {
        if let Some(loss) = now.loss {
            let now_ms = clock.now_ms();
            let duration_ms = (now_ms - last_ms) as f64;
            iterations.push(Iteration { iteration: now.iteration, loss, duration_ms });
            last_ms = now_ms;
        }
        progress.report(Progress {
            phase: "training".into(),
            done: now.done as u64,
            total: now.total as u64,
            metric: now.loss,
        });
    };
    let factors = train(&training, &options.als, &mut report, cancel).map_err(model_error)?;
    let interaction_count = all.cells();
    let model = assemble(interactions.users, interactions.items, factors, all, options)?;
    let metrics = match kept_aside.cells() {
        0 => Vec::new(),
        _ => evaluate(&model, &kept_aside, options.top_k),
    };
    Ok(Trained { model, iterations, metrics, interactions: interaction_count, merged })
}

fn assemble(
    users: IdIndex,
    items: IdIndex,
    factors: udfs::model::als::AlsFactors,
    seen: Csr,
    options: &TrainingOptions,
) -> Result<AlsModel> {
    let parts = ModelParts { users, items, factors, seen, options: options.als.clone() };
    AlsModel::from_parts(parts).map_err(model_error)
}
