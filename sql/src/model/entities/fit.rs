//! Training a model of entities: the query's rows become records, on the learners' threads.
//!
//! Records are in memory with what is learned of them: [`RECORD_BYTES`] and 8 a column for each,
//! which are taken before learning starts, beside the values themselves. Where rules make more keys
//! than these have a place for, memory is taken for them once the rules are known. Where there is
//! no memory for them the training ends with an error that says so. Of scored pairs [`WORK_BYTES`]
//! are needed in memory, however many there are; all others are there too while there is a place
//! for them, and in the spill folder from then on.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use catalog::models::StoredStart;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{DiskManager, SendableRecordBatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use udfs::model::entity_resolution::cluster::Method;
use udfs::model::entity_resolution::gather::{Gathered, keys};
use udfs::model::entity_resolution::labels::Ignored;
use udfs::model::entity_resolution::learn::LinkOptions;
use udfs::model::entity_resolution::measure::MEASURES;
use udfs::model::entity_resolution::model::{EntityModel, Settings};
use udfs::model::entity_resolution::pairs::WORK_BYTES;
use udfs::model::entity_resolution::train::{
    Before, EntityOptions, Resolved, Said, Under, train as resolve,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::entities::options::LinkType;
use crate::model::entities::{EntityColumns, EntityLearner, pairs};
use crate::model::fit::{CancelOnDrop, Trained, Watch, take};
use crate::model::learners::Learner;
use crate::model::lifecycle::Previous;
use crate::model::measure::Metric;
use crate::model::options::{TrainingOptions, model_error};
use crate::model::side::{Beside, PairTable};
use crate::model::train::Waiting;
use crate::progress::Reporter;
use crate::session::Progress;

/// What a record takes beside its values while it is resolved: its codes twice, blocks of a few
/// rules (what more take, `udfs` asks for), marks of the threads, and its part in groups.
const RECORD_BYTES: usize = 400;

/// From which version to which.
#[derive(Debug)]
pub struct Versions {
    /// The version before, whose entities keep their ids.
    pub previous: Option<Previous>,
    /// The version that is made.
    pub version: u32,
    /// Whether what the version before has learned stays.
    pub goes_on: bool,
}

/// Reads a query's rows, and what people say of pairs of them, and resolves them.
///
/// # Errors
/// NULL ids, ids that repeat, an empty training set, too little memory for records or disk for
/// pairs, cancellation.
pub async fn train(
    engine: &Engine,
    (rows, sides): (SendableRecordBatchStream, Vec<(&Beside, SendableRecordBatchStream)>),
    columns: &EntityColumns,
    options: &TrainingOptions,
    versions: Versions,
    (memory, disk): (&MemoryReservation, &Arc<DiskManager>),
    progress: Reporter,
) -> Result<Trained> {
    let Learner::Entities(learner) = &options.learner else {
        return Err(Error::Internal("another learner was asked for entities".into()));
    };
    let gathered = read(rows, columns, memory, &progress).await?;
    let (mut decided, mut labelled) = (vec![], vec![]);
    for (side, rows) in sides {
        match side {
            Beside::Pairs(PairTable::Decisions) => {
                decided = read_pairs(rows, ["decisions", "decision"], memory).await?;
            }
            Beside::Pairs(PairTable::Labels) => {
                labelled = read_pairs(rows, ["labels", "label"], memory).await?;
            }
            _ => return Err(Error::Internal("records have no tables of features".into())),
        }
    }
    let count = gathered.rows();
    let width = columns.compared.len() + columns.rules.computed.len();
    let records_bytes = count.saturating_mul(RECORD_BYTES + 8 * width);
    let needed_bytes = records_bytes.saturating_add(WORK_BYTES);
    take(memory, needed_bytes, &options.learner, &format!("{count} records"))?;
    let asked = asked(learner, columns)?;
    let cancel = CancelOnDrop::default();
    let spill = pairs::spill(memory, disk, &cancel.0);
    let kept = match &versions.previous {
        Some(previous) if versions.goes_on => Some(pairs::read(&previous.version, &spill).await?),
        _ => None,
    };
    let (flag, beside) = (Arc::clone(&cancel.0), memory.new_empty());
    let clock = Arc::clone(engine.catalog());
    let now = move || {
        let mut watch = Watch::new(&progress, &clock, None);
        let Versions { previous, version, .. } = &versions;
        let before = previous.as_ref().and_then(|before| before.version.model.entities());
        let must_be_whole = previous.as_ref().is_some_and(|before| before.must_be_whole);
        let before = before.map(|model| Before { model, pairs: kept.as_ref(), must_be_whole });
        let said = Said { decided: &decided, labelled: &labelled };
        let room = |bytes: usize| beside.try_grow(bytes.saturating_sub(beside.size())).is_ok();
        let under = Under {
            report: &mut |now| watch.report(now),
            cancel: &flag,
            spill: &spill,
            room: &room,
        };
        let found = resolve(gathered, &asked, said, before, *version, under);
        Ok::<_, Error>(trained(found.map_err(model_error)?, watch, count, previous.as_ref()))
    };
    crate::model::learn(now).await?
}

async fn read(
    mut rows: SendableRecordBatchStream,
    columns: &EntityColumns,
    memory: &MemoryReservation,
    progress: &Reporter,
) -> Result<Gathered> {
    let schema = rows.schema();
    let mut gathering = std::future::ready(Ok(columns.gathered(&schema)?)).boxed();
    let columns = Arc::new(columns.clone());
    let mut held = 0;
    let mut take = |gathered: Gathered| {
        // Values that repeat take their place once, and twice while they are spelled alike.
        let needs = 2 * gathered.memory_bytes();
        memory.try_grow(needs.saturating_sub(held))?;
        held = held.max(needs);
        let done = gathered.rows() as u64;
        progress.report(Progress { phase: "reading".into(), done, total: 0, metric: None });
        Ok::<_, Error>(gathered)
    };
    let mut waiting = Waiting::default();
    while let Some(batch) = rows.next().await {
        waiting.push(batch.map_err(|error| of_rules(error.into(), &columns))?);
        if waiting.are_enough() {
            let gathered = take(gathering.await?)?;
            gathering = with(gathered, waiting.take(), &columns);
        }
    }
    let gathered = take(gathering.await?)?;
    take(with(gathered, waiting.take(), &columns).await?)
}

/// An error of the query's rows, which may be of what rules to block by compute of them.
fn of_rules(error: Error, columns: &EntityColumns) -> Error {
    let computed = columns.rules.computed.iter().map(|computed| computed.text.as_str());
    let computed: Vec<&str> = computed.collect();
    match error {
        Error::Execution { what, hint } if !computed.is_empty() => {
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            let hint = format!("blocking_rules compute {} of each row{hint}", computed.join(", "));
            Error::Execution { what, hint: Some(hint) }
        }
        other => other,
    }
}

/// Adds batches on the learners' threads; they start at once.
fn with(
    mut gathered: Gathered,
    batches: Vec<RecordBatch>,
    columns: &Arc<EntityColumns>,
) -> BoxFuture<'static, Result<Gathered>> {
    let columns = Arc::clone(columns);
    let add = move || {
        batches.iter().try_for_each(|batch| columns.add(&mut gathered, batch))?;
        Ok::<_, Error>(gathered)
    };
    let added = crate::model::learn(add);
    async move { added.await? }.boxed()
}

/// Reads what people say of pairs: two ids, whether they are one, and their tables where there are
/// several. `called` is what rows and a row are called.
async fn read_pairs(
    mut rows: SendableRecordBatchStream,
    called: [&str; 2],
    memory: &MemoryReservation,
) -> Result<Vec<(u64, u64, bool)>> {
    let mut decided = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.num_rows() * 3 * size_of::<u64>())?;
        for (column, field) in batch.columns().iter().zip(batch.schema().fields()) {
            if column.null_count() > 0 {
                return Err(Error::Model {
                    what: format!("column {} of the {} holds NULL", field.name(), called[0]),
                    hint: Some(format!("a {} is two ids and TRUE or FALSE", called[1])),
                });
            }
        }
        let side = |id: usize, source: usize| {
            keys(batch.column(id), batch.columns().get(source)).map_err(model_error)
        };
        let (left, right) = (side(0, 3)?, side(1, 4)?);
        let is_match = cast(batch.column(2), &DataType::Boolean)?;
        let is_match = is_match.as_boolean().values().iter();
        let pairs = left.into_iter().zip(right).zip(is_match);
        decided.extend(pairs.map(|((left, right), is_match)| (left, right, is_match)));
    }
    Ok(decided)
}

fn asked(learner: &EntityLearner, columns: &EntityColumns) -> Result<EntityOptions> {
    let settings = Settings {
        id_col: columns.id.1.clone(),
        source_col: columns.source.as_ref().map(|(_, name)| name.clone()),
        is_link: learner.link_type == LinkType::Link,
        method: learner.method,
        threshold: learner.threshold,
    };
    Ok(EntityOptions {
        settings,
        link: LinkOptions { rules: columns.rules.named()?, ..learner.link.clone() },
        own: learner.personal_cols.clone(),
        pair_threshold: learner.pair_threshold,
    })
}

fn trained(
    found: Resolved,
    watch: Watch<'_>,
    records: usize,
    previous: Option<&Previous>,
) -> Trained {
    let (unheard, doubtful, nobodys) = (unheard(&found), doubtful(&found), nobodys(&found));
    let none = f64::NAN;
    let metrics = MEASURES.iter().zip(found.measures).map(|(name, value)| Metric {
        name: (*name).into(),
        value,
        lower: none,
        upper: none,
        users: records,
        baseline: none,
    });
    let began = previous.map(|previous| match found.kept {
        Some(kept) => {
            let moved = match found.moved {
                0 => String::new(),
                moved => {
                    format!(", and {moved} of those that are as they were have other blocking keys")
                }
            };
            format!(
                "goes on from version {}: {kept} records are as they were, {} are new or \
                 changed{moved}",
                previous.version.version,
                records.saturating_sub(kept)
            )
        }
        None => {
            let number = previous.version.version;
            let missing = (previous.must_be_whole && found.gone > 0)
                .then(|| format!("{} records of it are in the rows no more", found.gone));
            let left = previous.left.clone().or(missing);
            let why = left.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("learned anew, with the ids that entities have in version {number}{why}")
        }
    });
    let goes_on = previous.filter(|_| found.kept.is_some());
    let start = goes_on.map_or(StoredStart::Anew, |previous| previous.start(found.gone));
    let told: Vec<String> =
        began.into_iter().chain(nobodys).chain(doubtful).chain(unheard).collect();
    Trained {
        total_iterations: watch.iterations.len(),
        model: found.model.into(),
        pairs: Some(found.pairs),
        iterations: watch.iterations,
        validation_metric: None,
        best_iteration: None,
        tuning: None,
        segments: vec![],
        metrics: metrics.collect(),
        began: (!told.is_empty()).then(|| told.join("; ")),
        start,
        compared: None,
        interactions: records,
        merged: 0,
    }
}

/// Columns with values that are too frequent to be anybody's, and the share of records with them.
fn nobodys(found: &Resolved) -> Vec<String> {
    let told = |columns: &[(String, f64)], what: &str| {
        let each = columns.iter().map(|(name, share)| format!("{name} in {:.1} %", 100.0 * share));
        let each: Vec<String> = each.collect();
        (!each.is_empty()).then(|| format!("{what}: {} of the records", each.join(", ")))
    };
    let placeholders = &found.placeholders;
    let none = "values in so many records that they are nobody's count as NULL";
    let since = "values that have become as frequent since the model learned still count, until \
                 warm_start = FALSE learns anew";
    let told = [told(&placeholders.set_aside, none), told(&placeholders.since, since)];
    told.into_iter().flatten().collect()
}

/// Pairs above the threshold that link nothing, and links that others bear out too little.
fn doubtful(found: &Resolved) -> Vec<String> {
    let [refused, forbidden] = found.apart;
    let bridges = found.bridges;
    let mut told = vec![];
    if refused > 0 {
        let why = match found.model.parts().settings.method {
            Method::BestLink => "link nothing, since their records have better links",
            Method::Guarded | Method::Connected => "are bridges and join no groups",
        };
        told.push(format!("{refused} of the pairs above the threshold {why}"));
    }
    if bridges > 0 {
        told.push(format!(
            "{bridges} of the links are bridges: they join groups most of whose pairs do not \
             match, which cluster_method = 'guarded' keeps apart"
        ));
    }
    if forbidden > 0 {
        told.push(format!("decisions keep {forbidden} of the pairs above the threshold apart"));
    }
    told
}

/// What people said that counts for nothing.
fn unheard(found: &Resolved) -> Vec<String> {
    let ignored = |what: &str, ignored: &Ignored| {
        format!("of {} {what} some were ignored: {ignored}", ignored.rows)
    };
    let mut told = vec![];
    if !found.undecided.is_none() {
        told.push(ignored("decisions", &found.undecided));
    }
    if found.overruled > 0 {
        told.push(format!(
            "{} of the decisions that keep records apart are overruled by others that make them one",
            found.overruled
        ));
    }
    told.extend(
        found.unlearned.filter(|labels| !labels.is_none()).map(|of| ignored("labels", &of)),
    );
    told
}

/// What was found, for the statement's message.
pub fn described(model: &EntityModel) -> String {
    let parts = model.parts();
    let mut entities = parts.entities.clone();
    entities.sort_unstable();
    entities.dedup();
    let rules = &parts.linkage.rules;
    let pairs: u64 = rules.iter().map(|used| used.cost.pairs).sum();
    let mut told = format!(
        "{} records are {} entities, by {} blocking rules with {pairs} pairs",
        model.len(),
        entities.len(),
        rules.len()
    );
    let skipped: u64 = rules.iter().map(|used| used.cost.skipped_blocks).sum();
    if skipped > 0 {
        let most = parts.linkage.block_max;
        told.push_str(&format!(
            " ({skipped} blocks of more than {most} records were left out; ML.BLOCKING_RULES \
             tells which)"
        ));
    }
    if rules.is_empty() {
        told.push_str(" (no column tells few enough records apart to block by)");
    }
    told
}
