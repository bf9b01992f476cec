//! The training query's rows: their columns, read batch by batch into dense codes and 12 bytes a
//! row, with times and segments where a learner asks for them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array};
use arrow::datatypes::{DataType, Float32Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use udfs::model::{Duplicates, IdIndex, NO_SEGMENT, Triplets};

use crate::error::{Error, Result};
use crate::model::options::{TrainingOptions, model_error};
use crate::model::side::Told;
use crate::model::signals::Signals;
use crate::model::splitting::{Keys, SplitOptions, time};
use crate::progress::Reporter;
use crate::session::Progress;

/// What a row takes, ids apart.
pub(super) const BYTES_PER_ROW: usize = 24;

/// Rows that are encoded together: enough for columns to be so side by side.
const ROWS_TOGETHER: usize = 1 << 16;

/// Bytes of rows that wait to be encoded, about; the ones before are encoded meanwhile.
const BYTES_TOGETHER: usize = 16 << 20;

/// Rows that wait to be encoded together.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
    }

    pub(super) fn are_enough(&self) -> bool {
        self.rows >= ROWS_TOGETHER || self.bytes >= BYTES_TOGETHER
    }

    pub(super) fn take(&mut self) -> Vec<RecordBatch> {
        std::mem::take(self).batches
    }
}

/// More segments than this are a mistake.
const SEGMENTS_MAX: usize = 10_000;

/// The training query's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingColumns {
    /// Position and name of the user column.
    pub user: (usize, String),
    /// Position and name of the item column.
    pub item: (usize, String),
    /// Position and name of the rating column; none: every row weighs 1.
    pub rating: Option<(usize, String)>,
    /// Position and name of the column of times.
    pub timestamp: Option<(usize, String)>,
    /// Position and name of the column of segments.
    pub segment: Option<(usize, String)>,
    /// Position and name of the column that the split is by.
    pub split: Option<(usize, String)>,
}

impl TrainingColumns {
    /// Finds the columns by the options' names, or by the usual names.
    ///
    /// # Errors
    /// When a column is missing or the rating is no number.
    pub fn find(schema: &SchemaRef, options: &TrainingOptions) -> Result<Self> {
        let user = find(schema, "user_col", options.user_col.as_deref(), &["user_id", "user"])?;
        let item = find(schema, "item_col", options.item_col.as_deref(), &["item_id", "item"])?;
        let rating = rating(schema, options)?;
        if let Some((index, name)) = &rating {
            check_rating(name, schema.field(*index).data_type())?;
        }
        let (timestamp, segment) = match options.learner.popularity() {
            Some(popularity) => {
                let named = popularity.timestamp_col.as_deref();
                let timestamp = match (named, popularity.half_life_ms) {
                    (None, None) => None,
                    _ => Some(timestamp(schema, named)?),
                };
                let segment = popularity.segment_col.as_deref();
                let segment = segment.map(|name| find(schema, "segment_col", Some(name), &[]));
                (timestamp, segment.transpose()?)
            }
            None => (None, None),
        };
        let usual = ["timestamp", "time", "event_time", "created_at", "ts"];
        let split =
            options.split.column(schema, |named| find(schema, "data_split_col", named, &usual))?;
        let found = Self { user, item, rating, timestamp, segment, split };
        if found.user.0 == found.item.0 {
            return Err(Error::invalid_hint(
                format!("user_col and item_col are the same column, {}", found.user.1),
                "name one column of users and one of items",
            ));
        }
        Ok(found)
    }
}

fn check_rating(name: &str, data_type: &DataType) -> Result<()> {
    let hint = match data_type {
        number if number.is_numeric() => return Ok(()),
        DataType::Null => {
            return Err(Error::invalid_hint(
                format!("column {name} is NULL in every row, which is no rating"),
                "select numbers, or leave the column out: then every row counts 1",
            ));
        }
        DataType::Boolean => {
            "write CASE WHEN … THEN 1 ELSE -1 END: a rating of FALSE may mean 0 or a dislike"
        }
        _ => "cast it to a number in the training query",
    };
    let what = format!("column {name} has type {data_type}, which is no rating");
    Err(Error::invalid_hint(what, hint))
}

impl TrainingColumns {
    /// The rating column of a batch, and the name that errors give it.
    pub(super) fn weights(&self, batch: &RecordBatch) -> Result<(Option<Float32Array>, &str)> {
        match &self.rating {
            Some((index, name)) => Ok((Some(weights(batch.column(*index), name)?), name)),
            None => Ok((None, "weight")),
        }
    }
}

/// The rating column; learners that count rows take one only when it is named.
fn rating(schema: &SchemaRef, options: &TrainingOptions) -> Result<Option<(usize, String)>> {
    let named = options.rating_col.as_deref();
    if named.is_none() && !options.learner.finds_rating() {
        return Ok(None);
    }
    let usual = ["rating", "weight", "value", "score", "quantity"];
    match find(schema, "rating_col", named, &usual) {
        Ok(found) => Ok(Some(found)),
        Err(error) if named.is_some() => Err(error),
        Err(_) if options.learner.is_explicit() => Err(Error::invalid_hint(
            "explicit feedback needs a rating column",
            "name it with rating_col, or use feedback_type = 'implicit'",
        )),
        Err(_) => Ok(None),
    }
}

fn timestamp(schema: &SchemaRef, named: Option<&str>) -> Result<(usize, String)> {
    let usual = ["timestamp", "time", "event_time", "created_at", "ts"];
    let (index, name) = find(schema, "timestamp_col", named, &usual)?;
    let data_type = schema.field(index).data_type();
    if !matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) {
        return Err(Error::invalid_hint(
            format!("column {name} has type {data_type}, which is no time"),
            "cast it in the training query, as with to_timestamp",
        ));
    }
    Ok((index, name))
}

pub(super) fn find(
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

/// Rows of one pair: evidence adds up, ratings are averaged.
pub fn duplicates(is_explicit: bool) -> Duplicates {
    if is_explicit { Duplicates::Mean } else { Duplicates::Sum }
}

/// Interactions read from a query.
#[derive(Debug)]
pub struct Interactions {
    /// Users in the order in which they came.
    pub users: IdIndex,
    /// Items likewise.
    pub items: IdIndex,
    /// Rows, with codes of users and items.
    pub cells: Triplets,
    /// The time of each row in Unix milliseconds; empty when nobody asks.
    pub times_ms: Vec<i64>,
    /// Segments, when somebody asks.
    pub segments: Option<RowSegments>,
    /// What the split asks of each row, when it does.
    pub split_keys: Keys,
    /// What is told of users and of items beside.
    pub features: [Option<Told>; 2],
    /// What counts of items in a blend beside its models.
    pub signals: Option<Signals>,
}

/// The segment of each row.
#[derive(Debug, Default)]
pub struct RowSegments {
    /// Names of segments and their codes.
    pub codes: HashMap<String, u32>,
    /// User and segment of each row; rows without a segment are left out.
    pub rows: Vec<(u32, u32)>,
}

/// Reads the training rows.
///
/// # Errors
/// NULL ids, weights that are not finite, or too little memory.
pub async fn read(
    mut rows: SendableRecordBatchStream,
    columns: &TrainingColumns,
    split: &SplitOptions,
    memory: &MemoryReservation,
    progress: &Reporter,
) -> Result<Interactions> {
    let schema = rows.schema();
    let index = |column: &(usize, String)| {
        IdIndex::new(&column.1, schema.field(column.0).data_type()).map_err(model_error)
    };
    let read = Interactions {
        users: index(&columns.user)?,
        items: index(&columns.item)?,
        cells: Triplets::default(),
        times_ms: vec![],
        segments: columns.segment.as_ref().map(|_| RowSegments::default()),
        split_keys: columns.split.as_ref().map(|_| vec![]),
        features: [None, None],
        signals: None,
    };
    // A key is kept for a row and then for a cell.
    let by_column = columns.split.is_some();
    let also = [columns.timestamp.is_some(), columns.segment.is_some(), by_column, by_column];
    let row_bytes = BYTES_PER_ROW + also.into_iter().filter(|also| *also).count() * 8;
    let how = Arc::new((columns.clone(), split.clone()));
    let report = |read: &Interactions| {
        let done = read.cells.len() as u64;
        progress.report(Progress { phase: "reading".into(), done, total: 0, metric: None });
    };
    let mut encoding = read.with(vec![], &how);
    let mut waiting = Waiting::default();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.num_rows() * row_bytes)?;
        waiting.push(batch);
        if waiting.are_enough() {
            let read = encoding.await?;
            report(&read);
            encoding = read.with(waiting.take(), &how);
        }
    }
    let read = encoding.await?.with(waiting.take(), &how).await?;
    report(&read);
    Ok(read)
}

impl Interactions {
    /// Takes batches, on the learners' threads; they start at once.
    fn with(
        mut self,
        batches: Vec<RecordBatch>,
        how: &Arc<How>,
    ) -> BoxFuture<'static, Result<Self>> {
        if batches.is_empty() {
            return std::future::ready(Ok(self)).boxed();
        }
        let how = Arc::clone(how);
        let taken = crate::model::learn(move || self.add(&batches, &how).map(|()| self));
        async move { taken.await? }.boxed()
    }

    /// Users and items are encoded side by side, the rest follows batch by batch.
    fn add(&mut self, batches: &[RecordBatch], (columns, split): &How) -> Result<()> {
        let encode = |ids: &mut IdIndex, (index, _): &(usize, String)| {
            batches.iter().map(|batch| ids.encode(batch.column(*index))).collect()
        };
        let (users, items) = (&mut self.users, &mut self.items);
        let (users, items): (Encoded, Encoded) =
            rayon::join(|| encode(users, &columns.user), || encode(items, &columns.item));
        let (users, items) = (users.map_err(model_error)?, items.map_err(model_error)?);
        for ((batch, users), items) in batches.iter().zip(&users).zip(&items) {
            if let (Some((index, name)), Some(segments)) = (&columns.segment, &mut self.segments) {
                segments.add(users, batch.column(*index), name, SEGMENTS_MAX)?;
            }
            if let Some((index, name)) = &columns.timestamp {
                add_times(&mut self.times_ms, batch.column(*index), name)?;
            }
            if let (Some((index, name)), Some(keys)) = (&columns.split, &mut self.split_keys) {
                keys.extend(split.keys(batch.column(*index), name)?);
            }
            let (weights, name) = columns.weights(batch)?;
            let weights = weights.as_ref().map(|weights| &weights.values()[..]);
            self.cells.extend(users, items, weights, name).map_err(model_error)?;
        }
        Ok(())
    }
}

/// How rows are read.
type How = (TrainingColumns, SplitOptions);

/// Codes of each batch.
type Encoded = std::result::Result<Vec<Vec<u32>>, udfs::model::ModelError>;

fn add_times(times_ms: &mut Vec<i64>, column: &ArrayRef, name: &str) -> Result<()> {
    if column.null_count() > 0 {
        return Err(Error::Model {
            what: format!("column {name} holds NULL, which is no time"),
            hint: Some(format!("add WHERE {name} IS NOT NULL to the training query")),
        });
    }
    let times = time(column, name, TimeUnit::Millisecond)?;
    times_ms.extend(times.as_primitive::<TimestampMillisecondType>().values());
    Ok(())
}

impl RowSegments {
    /// Takes the segments of rows, of `most` different names altogether.
    pub(super) fn add(
        &mut self,
        users: &[u32],
        column: &ArrayRef,
        name: &str,
        most: usize,
    ) -> Result<()> {
        let texts = arrow::compute::cast(column, &DataType::Utf8)?;
        for (user, text) in users.iter().zip(texts.as_string::<i32>()) {
            let Some(text) = text else { continue };
            let next = self.codes.len();
            let code = match self.codes.get(text) {
                Some(code) => *code,
                None if next >= most => {
                    return Err(Error::Model {
                        what: format!("column {name} has more than {most} segments"),
                        hint: Some("group them in the query".into()),
                    });
                }
                None => {
                    let code = u32::try_from(next).unwrap_or(NO_SEGMENT);
                    self.codes.insert(text.to_owned(), code);
                    code
                }
            };
            self.rows.push((*user, code));
        }
        Ok(())
    }

    /// Names in order, and the segment of each of `users` users by its new code: the one that most
    /// of the user's rows name, the first by name among equals.
    pub fn by_user(self, new_users: &[u32]) -> (Vec<String>, Vec<u32>) {
        let mut named: Vec<(String, u32)> = self.codes.into_iter().collect();
        named.sort_unstable();
        let mut new_codes = vec![NO_SEGMENT; named.len()];
        for (new, (_, old)) in (0..).zip(&named) {
            new_codes[*old as usize] = new;
        }
        let renamed =
            |(user, segment): (u32, u32)| (new_users[user as usize], new_codes[segment as usize]);
        let mut rows: Vec<(u32, u32)> = self.rows.into_iter().map(renamed).collect();
        rows.sort_unstable();
        let mut of_user = vec![NO_SEGMENT; new_users.len()];
        let mut most = vec![0; new_users.len()];
        for same in rows.chunk_by(|a, b| a == b) {
            let (user, segment) = same[0];
            if same.len() > most[user as usize] {
                most[user as usize] = same.len();
                of_user[user as usize] = segment;
            }
        }
        (named.into_iter().map(|(name, _)| name).collect(), of_user)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_in_the_segment_of_most_of_its_rows() {
        let codes = [("b", 0), ("a", 1)].map(|(name, code)| (name.to_owned(), code));
        let rows = vec![(0, 0), (0, 1), (0, 1), (1, 0), (1, 1)];
        let segments = RowSegments { codes: codes.into(), rows };
        let (names, of_user) = segments.by_user(&[2, 0, 1]);
        assert_eq!(names, ["a", "b"]);
        assert_eq!(of_user, [0, NO_SEGMENT, 0]);
    }
}
