//! What ML.RECOMMEND does with users: candidates from the model, then the rules of the list.
//!
//! Lists, the sub-queries of `include_items` and `exclude_items` and the rows of the item table are
//! read once, before the first user, into one flag and one category an item. Without rules the
//! model's list is the answer. A quota asks the model for more candidates until every list is full
//! or the catalog is used up; diversity, a penalty and boosts choose among the ten times `top_k`
//! best, 100 at least, and among as many of the boosted and the promoted items.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Int32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float32Type, SchemaRef};
use arrow::util::display::array_value_to_string;
use catalog::models::LoadedModel;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::TryStreamExt;
use udfs::model::{Basket, Choice, RecommendRequest, Recommender, Rerank, RowCosines};

use crate::error::{Error, Result};
use crate::model::history::{History, Reading};
use crate::model::items::ItemQuery;
use crate::model::new_items::{self, Widened};
use crate::model::options::model_error;
use crate::model::recommend_options::{BoundOptions, CHANGE_MAX, KnownItems, RecommendOptions};
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
    /// Items of the sub-query of promote.
    pub(super) promote: Option<SendableRecordBatchStream>,
    /// Items of the item table, with their category and boost where they are asked for.
    pub(super) items: Option<SendableRecordBatchStream>,
    /// What the users have had by now, how it is read, and the memory that it is kept in.
    pub(super) history: Option<(SendableRecordBatchStream, Reading, MemoryReservation)>,
    /// What everybody has had by now, likewise, where it may have new items.
    pub(super) new_items: Option<(SendableRecordBatchStream, Reading, MemoryReservation)>,
    /// What the item table's rows were asked for.
    pub(super) asked: ItemQuery,
}

/// What all users of a call have in common.
pub(super) struct Prepared {
    /// The model that answers: the one that is asked, or that with new items.
    model: LoadedModel,
    /// Options in its codes.
    options: BoundOptions,
    include: Option<Vec<u32>>,
    exclude: Option<Vec<u32>>,
    categories: Option<Vec<Option<u32>>>,
    /// What is added to each item's score.
    boosts: Option<Vec<f32>>,
    /// Which items are promoted.
    promoted: Option<Vec<bool>>,
    /// Items that are boosted or promoted: candidates of their own.
    special: Option<Vec<u32>>,
    /// How many users have had each item, where it counts.
    popularity: Option<Vec<u32>>,
    cosines: Option<RowCosines<'static>>,
    /// What users have had by now, where lists are made from that.
    history: Option<History>,
    /// Held as long as a wider model is.
    _memory: Option<MemoryReservation>,
}

impl Prepared {
    /// Reads the side rows.
    ///
    /// # Errors
    /// When a query fails, or its items have a type that the model's do not compare to.
    pub(super) async fn read(
        model: &LoadedModel,
        options: &BoundOptions,
        written: &RecommendOptions,
        rows: SideRows,
    ) -> Result<Self> {
        let widened = match rows.new_items {
            Some((stream, reading, memory)) => {
                new_items::widened(model, stream, &reading, memory).await?
            }
            None => None,
        };
        let (model, options, memory) = match widened {
            Some(Widened { model, memory }) => {
                let options = written.bind(&model)?;
                (model, options, Some(memory))
            }
            None => (model.clone(), options.clone(), None),
        };
        let recommender = recommender(&model)?;
        let count = recommender.item_ids().len();
        let mut include: Option<Vec<bool>> =
            options.include.as_ref().map(|items| flags(items, count));
        let mut exclude: Option<Vec<u32>> = options.exclude.as_ref().map(|items| items.to_vec());
        if let Some(rows) = rows.include {
            let found = read("include_items", recommender, rows).await?.items;
            include = Some(both(include, flags(&found, count)));
        }
        if let Some(rows) = rows.exclude {
            let found = read("exclude_items", recommender, rows).await?.items;
            exclude.get_or_insert_default().extend(found);
        }
        let mut promoted = options.promote.as_ref().map(|items| flags(items, count));
        if let Some(rows) = rows.promote {
            let found = read("promote", recommender, rows).await?.items;
            promoted = Some(either(promoted, flags(&found, count)));
        }
        let (mut categories, mut boosts) = (None, None);
        if let Some(item_rows) = rows.items {
            let asked = &rows.asked;
            let columns =
                Columns { category: asked.category.is_some(), boost: asked.boost.is_some() };
            let found = read_items("item_table", recommender, item_rows, columns).await;
            let found = found.map_err(|error| asked.blamed(error))?;
            if asked.filter.is_some() {
                include = Some(both(include, flags(&found.items, count)));
            }
            categories = options.max_per.map(|_| found.categories);
            boosts = columns.boost.then_some(found.boosts);
        }
        let history = match rows.history {
            Some((stream, reading, memory)) => {
                let items = recommender.item_ids();
                Some(History::read(items, stream, &reading, memory).await?)
            }
            None => None,
        };
        let mut special = promoted.clone();
        if let Some(boosts) = &boosts {
            special = Some(either(special, boosts.iter().map(|boost| *boost > 0.0).collect()));
        }
        if let (Some(special), Some(include)) = (&mut special, &include) {
            special.iter_mut().zip(include).for_each(|(special, include)| *special &= include);
        }
        let popularity =
            (options.popularity_penalty != 0.0).then(|| recommender.seen().column_counts());
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
        let include = include.map(codes);
        let special = special.map(codes).filter(|items: &Vec<u32>| !items.is_empty());
        Ok(Self {
            model,
            options,
            include,
            exclude,
            categories,
            boosts,
            promoted,
            special,
            popularity,
            cosines,
            history,
            _memory: memory,
        })
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

fn either(one: Option<Vec<bool>>, other: Vec<bool>) -> Vec<bool> {
    match one {
        None => other,
        Some(one) => one.into_iter().zip(other).map(|(one, other)| one || other).collect(),
    }
}

/// What rows of items have beside the item, in this order.
#[derive(Debug, Clone, Copy, Default)]
struct Columns {
    category: bool,
    boost: bool,
}

/// Rows of items, by the model's codes.
struct ItemRows {
    /// The known items of the rows, each once, ascending.
    items: Vec<u32>,
    /// A code of the category of each of the model's items.
    categories: Vec<Option<u32>>,
    /// The boost of each, 0 where none is given.
    boosts: Vec<f32>,
}

async fn read(
    option: &str,
    recommender: &dyn Recommender,
    rows: SendableRecordBatchStream,
) -> Result<ItemRows> {
    read_items(option, recommender, rows, Columns::default()).await
}

async fn read_items(
    option: &str,
    recommender: &dyn Recommender,
    mut rows: SendableRecordBatchStream,
    columns: Columns,
) -> Result<ItemRows> {
    let count = recommender.item_ids().len();
    let mut found = vec![false; count];
    let of_each = |is_there: bool| if is_there { count } else { 0 };
    let mut categories: Vec<Option<u32>> = vec![None; of_each(columns.category)];
    let mut boosts = vec![0.0; of_each(columns.boost)];
    let mut codes: HashMap<String, u32> = HashMap::new();
    let mut known = KnownItems::new(option, recommender.item_ids());
    while let Some(batch) = rows.try_next().await? {
        let items = known.codes(batch.column(0))?;
        let column = |is_there: bool, at: usize, to: &DataType| match is_there {
            true => cast(batch.column(at), to).map(Some),
            false => Ok(None),
        };
        let texts = column(columns.category, 1, &DataType::Utf8)?;
        let added = column(columns.boost, 1 + usize::from(columns.category), &DataType::Float32)?;
        for (row, item) in items.into_iter().enumerate() {
            let Some(item) = item.map(|item| item as usize) else { continue };
            if found[item] && (columns.category || columns.boost) {
                return Err(several_rows(&array_value_to_string(batch.column(0), row)?));
            }
            found[item] = true;
            if let Some(texts) = texts.as_ref().filter(|texts| texts.is_valid(row)) {
                let next = u32::try_from(codes.len()).unwrap_or(u32::MAX);
                let text = texts.as_string::<i32>().value(row);
                let code = match codes.get(text) {
                    Some(code) => *code,
                    None => *codes.entry(text.to_owned()).or_insert(next),
                };
                categories[item] = Some(code);
            }
            if let Some(added) = added.as_ref().filter(|added| added.is_valid(row)) {
                let boost = added.as_primitive::<Float32Type>().value(row);
                // NaN is beyond too.
                if !(-CHANGE_MAX..=CHANGE_MAX).contains(&boost) {
                    let item = array_value_to_string(batch.column(0), row)?;
                    return Err(Error::Model {
                        what: format!("boost gives {boost} for item {item}"),
                        hint: Some(
                            "give numbers up to 1e30; to put items into a list whatever their \
                             score, use promote"
                                .into(),
                        ),
                    });
                }
                boosts[item] = boost;
            }
        }
    }
    known.check()?;
    let items = (0..).zip(found).filter_map(|(item, found)| found.then_some(item)).collect();
    Ok(ItemRows { items, categories, boosts })
}

fn several_rows(item: &str) -> Error {
    Error::Model {
        what: format!(
            "item {item} has several rows in item_table, so that its category or boost is not one"
        ),
        hint: Some(
            "keep one row an item, as a view with GROUP BY does, and name it in item_table".into(),
        ),
    }
}

/// Whose lists are asked for.
enum Asked {
    /// Users as training knew them.
    Users(Vec<Option<u32>>),
    /// Users with what they have had by now.
    Baskets(Vec<Basket>),
}

impl Asked {
    fn len(&self) -> usize {
        match self {
            Self::Users(users) => users.len(),
            Self::Baskets(baskets) => baskets.len(),
        }
    }

    /// Those at some positions.
    fn only(&self, rows: &[usize]) -> Self {
        match self {
            Self::Users(users) => Self::Users(rows.iter().map(|&row| users[row]).collect()),
            Self::Baskets(baskets) => {
                Self::Baskets(rows.iter().map(|&row| baskets[row].clone()).collect())
            }
        }
    }

    fn recommend(
        &self,
        recommender: &dyn Recommender,
        request: &RecommendRequest<'_>,
    ) -> Result<Vec<Choice>> {
        match self {
            Self::Users(users) => Ok(recommender.recommend(users, request)),
            Self::Baskets(baskets) => {
                recommender.recommend_baskets(baskets, request).map_err(model_error)
            }
        }
    }
}

/// A call: everything but the users.
pub(super) struct Job {
    pub(super) prepared: Arc<Prepared>,
    pub(super) schema: SchemaRef,
}

impl Job {
    /// The rows for a few users.
    ///
    /// # Errors
    /// When ids have a type that the model's do not compare to.
    pub(super) async fn run(self: Arc<Self>, users: ArrayRef) -> Result<RecordBatch> {
        // The first fold-in sums up the items' factors.
        if users.len() <= 1 && self.prepared.history.is_none() {
            return self.answer(&users);
        }
        crate::model::learn(move || self.answer(&users)).await?
    }

    fn answer(&self, users: &ArrayRef) -> Result<RecordBatch> {
        let recommender = recommender(&self.prepared.model)?;
        let codes = recommender.user_ids().lookup(users).map_err(model_error)?;
        let nulls = users.logical_nulls();
        let asked = match &self.prepared.history {
            Some(history) => Asked::Baskets(history.baskets(users, &codes)?),
            None => Asked::Users(codes),
        };
        let choices = self.choices(recommender, &asked)?;
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
    fn choices(&self, recommender: &dyn Recommender, users: &Asked) -> Result<Vec<Choice>> {
        let count = recommender.item_ids().len();
        let top_k = self.prepared.options.top_k;
        let mut candidates = top_k;
        let changes_scores = self.prepared.boosts.is_some() || self.prepared.popularity.is_some();
        if self.prepared.options.diversity > 0.0 || changes_scores {
            candidates = (top_k * CANDIDATES_PER_PLACE).max(CANDIDATES_MIN);
        } else if self.prepared.categories.is_some() {
            candidates = top_k * 2;
        }
        let mut lists: Vec<Option<Choice>> = vec![None; users.len()];
        let mut open: Vec<usize> = (0..users.len()).collect();
        while !open.is_empty() {
            let asked = users.only(&open);
            let request = RecommendRequest {
                top_k: candidates,
                exclude_seen: self.prepared.options.exclude_seen,
                include: self.prepared.include.as_deref(),
                exclude: self.prepared.exclude.as_deref(),
            };
            let mut short = vec![];
            let mut special = match &self.prepared.special {
                Some(items) => {
                    let only = RecommendRequest { include: Some(items), ..request };
                    asked.recommend(recommender, &only)?
                }
                None => vec![],
            }
            .into_iter();
            for (row, found) in open.into_iter().zip(asked.recommend(recommender, &request)?) {
                let there_may_be_more = found.items.len() == candidates && candidates < count;
                let least = found.scores.last().copied();
                let list = self.list(together(found, special.next()))?;
                let more_would_count = self
                    .prepared
                    .options
                    .min_score
                    .zip(least)
                    .is_none_or(|(min, least)| least >= min);
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
        if let Some(least) = self.prepared.options.min_score {
            let pairs = found.items.into_iter().zip(found.scores);
            (found.items, found.scores) = pairs.filter(|(_, score)| *score >= least).unzip();
        }
        let category = |item: u32| {
            let categories = self.prepared.categories.as_ref()?;
            categories.get(item as usize).copied().flatten()
        };
        let cosines = self.prepared.cosines.as_ref();
        let similarity = |a: u32, b: u32| self.prepared.model.model.item_cosine(cosines, a, b);
        let of = |values: &Option<Vec<f32>>, item: u32| {
            values.as_ref().and_then(|values| values.get(item as usize)).copied().unwrap_or(0.0)
        };
        let prepared = &self.prepared;
        let boost = |item: u32| of(&prepared.boosts, item);
        let popularity = |item: u32| {
            let counts = prepared.popularity.as_ref();
            counts.and_then(|counts| counts.get(item as usize)).copied().unwrap_or(0)
        };
        let promoted = |item: u32| {
            let flags = prepared.promoted.as_ref();
            flags.and_then(|flags| flags.get(item as usize)).copied().unwrap_or(false)
        };
        let mut rules = Rerank::new(self.prepared.options.top_k);
        let penalty = self.prepared.options.popularity_penalty;
        if prepared.popularity.is_some() {
            rules = rules.popularity(penalty, &popularity).map_err(model_error)?;
        }
        if prepared.boosts.is_some() {
            rules = rules.boost(&boost);
        }
        if prepared.promoted.is_some() {
            let share = self.prepared.options.promote_share;
            rules = rules.promote(share, &promoted).map_err(model_error)?;
        }
        if let Some(max_per) = self.prepared.options.max_per {
            rules = rules.max_per(max_per, &category).map_err(model_error)?;
        }
        if self.prepared.options.diversity > 0.0 {
            rules = rules
                .diversity(1.0 - self.prepared.options.diversity, &similarity)
                .map_err(model_error)?;
        }
        let changes = prepared.popularity.is_some() || prepared.boosts.is_some();
        if changes
            || prepared.promoted.is_some()
            || self.prepared.options.max_per.is_some()
            || self.prepared.options.diversity > 0.0
        {
            let list = rules.apply(&found.items, &found.scores);
            (found.items, found.scores) = list.into_iter().unzip();
        }
        Ok(found)
    }
}

/// The candidates and those of the boosted and promoted items, each once, best first. Where the
/// model says nothing of the latter their score is 0, as that of any other item of which it says
/// nothing.
fn together(mut found: Choice, special: Option<Choice>) -> Choice {
    let Some(special) = special else { return found };
    let known: HashSet<u32> = found.items.iter().copied().collect();
    let is_of_model = special.source == found.source;
    for (item, score) in special.items.into_iter().zip(special.scores) {
        if !known.contains(&item) {
            found.items.push(item);
            found.scores.push(if is_of_model { score } else { 0.0 });
        }
    }
    found
}
