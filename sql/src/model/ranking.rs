//! What ML.RECOMMEND does with users: candidates from the model, then the rules of the list.
//!
//! Lists, the sub-queries of `include_items` and `exclude_items` and the rows of the item table are
//! read once, before the first user, into one flag and one category an item. Without rules the
//! model's list is the answer. A quota asks the model for more candidates until every list is full
//! or the catalog is used up; diversity chooses among the ten times `top_k` best, 100 at least.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use catalog::models::LoadedModel;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use udfs::model::{Choice, RecommendRequest, Recommender, Rerank, RowCosines};

use crate::error::Result;
use crate::model::options::model_error;
use crate::model::recommend_options::BoundOptions;
use crate::model::recommender;

/// Candidates that diversity chooses from, for each place of the list.
const CANDIDATES_PER_PLACE: usize = 10;
/// And at least so many.
const CANDIDATES_MIN: usize = 100;

/// The rows beside the users.
pub(super) struct SideRows {
    /// Items of the sub-query of include_items.
    pub(super) include: Option<SendableRecordBatchStream>,
    /// Items of the sub-query of exclude_items.
    pub(super) exclude: Option<SendableRecordBatchStream>,
    /// Items of the item table, with their category when one is asked for.
    pub(super) items: Option<SendableRecordBatchStream>,
    /// Whether items that the item table's rows leave out are left out.
    pub(super) is_filtered: bool,
}

/// What all users of a call have in common.
pub(super) struct Prepared {
    include: Option<Vec<u32>>,
    exclude: Option<Vec<u32>>,
    categories: Option<Vec<Option<u32>>>,
    cosines: Option<RowCosines<'static>>,
}

impl Prepared {
    /// Reads the side rows.
    ///
    /// # Errors
    /// When a query fails, or its items have a type that the model's do not compare to.
    pub(super) async fn read(
        model: &LoadedModel,
        options: &BoundOptions,
        rows: SideRows,
    ) -> Result<Self> {
        let recommender = recommender(model)?;
        let count = recommender.item_ids().len();
        let mut include: Option<Vec<bool>> =
            options.include.as_ref().map(|items| flags(items, count));
        let mut exclude: Option<Vec<u32>> = options.exclude.as_ref().map(|items| items.to_vec());
        if let Some(rows) = rows.include {
            let (found, _) = read(recommender, rows).await?;
            include = Some(both(include, flags(&found, count)));
        }
        if let Some(rows) = rows.exclude {
            let (found, _) = read(recommender, rows).await?;
            exclude.get_or_insert_default().extend(found);
        }
        let mut categories = None;
        if let Some(item_rows) = rows.items {
            let (found, of_item) = read(recommender, item_rows).await?;
            if rows.is_filtered {
                include = Some(both(include, flags(&found, count)));
            }
            categories = options.max_per.map(|_| of_item);
        }
        let cosines = match options.diversity > 0.0 {
            true => {
                let model = Arc::clone(&model.model);
                crate::model::learn(move || model.item_rows()).await?
            }
            false => None,
        };
        let codes = |flags: Vec<bool>| {
            (0..).zip(flags).filter_map(|(code, kept)| kept.then_some(code)).collect()
        };
        Ok(Self { include: include.map(codes), exclude, categories, cosines })
    }
}

fn flags(items: &[u32], count: usize) -> Vec<bool> {
    let mut flags = vec![false; count];
    for item in items {
        if let Some(flag) = flags.get_mut(*item as usize) {
            *flag = true;
        }
    }
    flags
}

fn both(one: Option<Vec<bool>>, other: Vec<bool>) -> Vec<bool> {
    match one {
        None => other,
        Some(one) => one.into_iter().zip(other).map(|(one, other)| one && other).collect(),
    }
}

/// The known items of rows, each once, and a code of the category (the second column) of each.
async fn read(
    recommender: &dyn Recommender,
    mut rows: SendableRecordBatchStream,
) -> Result<(Vec<u32>, Vec<Option<u32>>)> {
    let count = recommender.item_ids().len();
    let mut found = vec![false; count];
    let mut categories: Vec<Option<u32>> = vec![None; count];
    let mut codes: HashMap<String, u32> = HashMap::new();
    while let Some(batch) = rows.try_next().await? {
        let items = recommender.item_ids().lookup(batch.column(0)).map_err(model_error)?;
        let texts = match batch.columns().get(1) {
            Some(column) => Some(cast(column, &DataType::Utf8)?),
            None => None,
        };
        for (row, item) in items.into_iter().enumerate() {
            let Some(item) = item.map(|item| item as usize) else { continue };
            found[item] = true;
            if let Some(texts) = &texts
                && texts.is_valid(row)
            {
                let next = u32::try_from(codes.len()).unwrap_or(u32::MAX);
                let text = texts.as_string::<i32>().value(row);
                let code = match codes.get(text) {
                    Some(code) => *code,
                    None => *codes.entry(text.to_owned()).or_insert(next),
                };
                categories[item] = Some(code);
            }
        }
    }
    let items = (0..).zip(found).filter_map(|(item, found)| found.then_some(item)).collect();
    Ok((items, categories))
}

/// A call: everything but the users.
pub(super) struct Job {
    pub(super) model: LoadedModel,
    pub(super) options: BoundOptions,
    pub(super) prepared: Arc<Prepared>,
    pub(super) schema: SchemaRef,
}

impl Job {
    /// The rows for a few users.
    ///
    /// # Errors
    /// When ids have a type that the model's do not compare to.
    pub(super) async fn run(self: Arc<Self>, users: ArrayRef) -> Result<RecordBatch> {
        if users.len() <= 1 {
            return self.answer(&users);
        }
        crate::model::learn(move || self.answer(&users)).await?
    }

    fn answer(&self, users: &ArrayRef) -> Result<RecordBatch> {
        let recommender = recommender(&self.model)?;
        let codes = recommender.user_ids().lookup(users).map_err(model_error)?;
        let nulls = users.logical_nulls();
        let choices = self.choices(recommender, &codes)?;
        let mut rows = Vec::new();
        let mut items = Vec::new();
        let mut scores = Vec::new();
        let mut ranks = Vec::new();
        let mut sources = Vec::new();
        for (row, choice) in choices.iter().enumerate() {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            for ((item, score), rank) in choice.items.iter().zip(&choice.scores).zip(1..) {
                rows.push(u32::try_from(row).unwrap_or(u32::MAX));
                items.push(*item);
                scores.push(*score);
                ranks.push(rank);
                sources.push(choice.source.name());
            }
        }
        let users = take(users, &UInt32Array::from(rows), None)?;
        let users = cast(&users, self.schema.field(0).data_type())?;
        let columns: Vec<ArrayRef> = vec![
            users,
            take(recommender.item_ids().values().as_ref(), &UInt32Array::from(items), None)?,
            Arc::new(Float32Array::from(scores)),
            Arc::new(Int32Array::from(ranks)),
            Arc::new(StringArray::from(sources)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The lists of users, `top_k` items at most.
    fn choices(&self, recommender: &dyn Recommender, users: &[Option<u32>]) -> Result<Vec<Choice>> {
        let count = recommender.item_ids().len();
        let top_k = self.options.top_k;
        let mut candidates = top_k;
        if self.options.diversity > 0.0 {
            candidates = (top_k * CANDIDATES_PER_PLACE).max(CANDIDATES_MIN);
        } else if self.prepared.categories.is_some() {
            candidates = top_k * 2;
        }
        let mut lists: Vec<Option<Choice>> = vec![None; users.len()];
        let mut open: Vec<usize> = (0..users.len()).collect();
        while !open.is_empty() {
            let asked: Vec<Option<u32>> = open.iter().map(|&row| users[row]).collect();
            let request = RecommendRequest {
                top_k: candidates,
                exclude_seen: self.options.exclude_seen,
                include: self.prepared.include.as_deref(),
                exclude: self.prepared.exclude.as_deref(),
            };
            let mut short = vec![];
            for (row, found) in open.into_iter().zip(recommender.recommend(&asked, &request)) {
                let there_may_be_more = found.items.len() == candidates && candidates < count;
                let least = found.scores.last().copied();
                let list = self.list(found)?;
                let more_would_count =
                    self.options.min_score.zip(least).is_none_or(|(min, least)| least >= min);
                if list.items.len() < top_k && there_may_be_more && more_would_count {
                    short.push(row);
                }
                lists[row] = Some(list);
            }
            open = short;
            candidates = candidates.saturating_mul(8).min(count);
        }
        Ok(lists.into_iter().flatten().collect())
    }

    /// The list of a user, from the candidates.
    fn list(&self, mut found: Choice) -> Result<Choice> {
        if let Some(least) = self.options.min_score {
            let pairs = found.items.into_iter().zip(found.scores);
            (found.items, found.scores) = pairs.filter(|(_, score)| *score >= least).unzip();
        }
        let category = |item: u32| {
            let categories = self.prepared.categories.as_ref()?;
            categories.get(item as usize).copied().flatten()
        };
        let cosines = self.prepared.cosines.as_ref();
        let similarity = |a: u32, b: u32| self.model.model.item_cosine(cosines, a, b);
        let mut rules = Rerank::new(self.options.top_k);
        if let Some(max_per) = self.options.max_per {
            rules = rules.max_per(max_per, &category).map_err(model_error)?;
        }
        if self.options.diversity > 0.0 {
            rules =
                rules.diversity(1.0 - self.options.diversity, &similarity).map_err(model_error)?;
        }
        if self.options.max_per.is_some() || self.options.diversity > 0.0 {
            let list = rules.apply(&found.items, &found.scores);
            (found.items, found.scores) = list.into_iter().unzip();
        }
        Ok(found)
    }
}
