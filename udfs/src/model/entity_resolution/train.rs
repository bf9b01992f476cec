//! From rows to a model: anew, or going on from the version before.
//!
//! A version that goes on keeps what was learned and the pairs of records that say what they said;
//! only pairs with a new or changed record are compared, and those of blocks that were too large
//! and are not now. All weigh by how frequent their values are today, so that a pair that was kept
//! may be kept no more; which values stand for nobody stays as it was learned. It begins anew where
//! the columns are others, or more than half the records are new. Entities keep their ids either
//! way.
//!
//! Records are in memory, with some hundred bytes each. Scored pairs are where there is a place for
//! them ([`super::pairs`]) and are passed over in order, so that a training ends the same however
//! little memory there is for them.

use std::sync::atomic::AtomicBool;

use super::blocking::{Blocks, blocks_of};
use super::cluster::{cluster, complete};
use super::column::NONE;
use super::gather::{Gathered, Ordered};
use super::key::{Key, fits};
use super::labels::{Ignored, Known, Written};
use super::learn::{LinkOptions, Linkage, NamedRule, learn};
use super::measure::{Measured, unlinkable};
use super::model::{EntityModel, EntityParts, Settings, events, named};
use super::pairs::{Pairs, Spill, Writer};
use super::placeholders::Placeholders;
use super::records::Records;
use super::score::{Edge, Scorer, weight};
use super::sorted::{Sorter, by_place, merged};
use super::suggest::expected_recalls;
use super::values::Mixed;
use crate::model::ModelError;
use crate::model::als::Progress;

/// Options of training.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityOptions {
    /// What is asked for.
    pub settings: Settings,
    /// Of learning; its own columns are found by their names.
    pub link: LinkOptions,
    /// Columns that are a person's own, as written; by their names when `None`.
    pub own: Option<Vec<String>>,
    /// The least probability of pairs that are kept.
    pub pair_threshold: f64,
}

/// A trained model with what it is worth.
#[derive(Debug)]
pub struct Resolved {
    /// The model.
    pub model: EntityModel,
    /// Its scored pairs by left and right, with a part of the weight for each column and for what
    /// relatives take off.
    pub pairs: Pairs,
    /// By [`super::measure::MEASURES`].
    pub measures: Vec<f64>,
    /// How it began: records that are as they were in the version before, when it goes on.
    pub kept: Option<usize>,
    /// Decisions that count for nothing.
    pub undecided: Ignored,
    /// Decisions FALSE about two records that decisions TRUE make one entity.
    pub overruled: usize,
    /// Pairs above the threshold that are of two entities: since they are bridges or their records
    /// have better links, and by decisions.
    pub apart: [usize; 2],
    /// Bridges that made one entity of two groups all the same.
    pub bridges: usize,
    /// Labels that count for nothing; `None` where nothing was learned.
    pub unlearned: Option<Ignored>,
    /// Records of the version before that are gone.
    pub gone: usize,
    /// Columns with values that stand for nobody.
    pub placeholders: Placeholders,
}

/// Of all records so many at most may be new where a version goes on.
const NEW_MAX: f64 = 0.5;

/// What people say of pairs of records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    /// Decisions, which hold.
    pub decided: &'a Written,
    /// Labels, which are learned from.
    pub labelled: &'a Written,
}

/// What a training runs under.
pub struct Under<'a> {
    /// Is told of each round.
    pub report: &'a mut (dyn FnMut(Progress) + Send),
    /// Stops it.
    pub cancel: &'a AtomicBool,
    /// Where scored pairs are put.
    pub spill: &'a Spill,
}

/// The version before.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// The model, whose entities keep their ids.
    pub model: &'a EntityModel,
    /// Its scored pairs, where they and what it has learned stay.
    pub pairs: Option<&'a Pairs>,
    /// Whether they stay only where none of its records is gone.
    pub must_be_whole: bool,
}

/// Trains a model as version `version`.
///
/// # Errors
/// No rows, ids that repeat, rules that are none, encodings that are none or under several keys,
/// more pairs than there is memory and disk for, cancellation.
pub fn train(
    gathered: Gathered,
    options: &EntityOptions,
    said: Said<'_>,
    before: Option<Before<'_>>,
    version: u32,
    under: Under<'_>,
) -> Result<Resolved, ModelError> {
    if gathered.rows() == 0 {
        return Err(ModelError::Empty);
    }
    let ordered = gathered.ordered()?;
    let known = before.map(|before| Past::new(before.model, &ordered)).transpose()?;
    let warm = before.and_then(|before| Some((before.model, before.pairs?)));
    let must_be_whole = before.is_some_and(|before| before.must_be_whole);
    let goes_on = warm.zip(known.as_ref()).filter(|((model, _), known)| {
        let Linkage { comparisons, rules, .. } = &model.parts().linkage;
        ordered.fits(comparisons, rules)
            && (known.lost.is_empty() || !must_be_whole)
            && known.same() as f64 >= NEW_MAX * ordered.len() as f64
    });
    // What learns anew asks the columns anew how they are to be compared.
    let ways = goes_on.map(|((model, _), _)| model.parts().linkage.comparisons.as_slice());
    let found = ordered.finish(ways, options.settings.is_link)?;
    let positions: Mixed<u64, u32> = match (said.decided, said.labelled) {
        ([], []) => Mixed::default(),
        _ => found.keys.iter().copied().zip(0..).collect(),
    };
    let decided = Known::decisions(said.decided, &positions, &found.records);
    let labels = Known::labels(said.labelled, &positions, &found.records);
    let (linkage, blocks) = match goes_on {
        Some(((model, _), _)) => as_before(model, &found.records, &options.link),
        None => {
            let link = named_columns(options, &found.records)?;
            learn(&found.records, &labels.pairs, &link, under.report, under.cancel)?
        }
    };
    let reopened = match goes_on {
        Some(((model, _), known)) => reopened(model, known, &found.records, linkage.block_max),
        None => Vec::new(),
    };
    let placeholders = Placeholders::of(&found.records, goes_on.is_some());
    let scorer = Scorer::new(&found.records, &linkage);
    let kept = goes_on.map(|((_, pairs), known)| (pairs, known));
    let edges = scored(&scorer, [&blocks, &reopened], options, kept, &under)?;
    let settings = &options.settings;
    let records = found.records.len;
    let (threshold, method, decisions) = (settings.threshold, settings.method, decided.pairs);
    let clusters = cluster(records, &edges, threshold, method, &found.sides, &decisions)?;
    let nobody = vec![None; records];
    let (was, lost) = match &known {
        Some(known) => (&known.entities, known.lost.as_slice()),
        None => (&nobody, &[][..]),
    };
    let gone = lost.len();
    let entities = named(&clusters, &found.keys, was);
    let mut history = before.map(|of| of.model.parts().history.clone()).unwrap_or_default();
    history.extend(events(version, was, &entities, lost));
    let unlinkable = unlinkable(&scorer, threshold);
    let measured = Measured {
        found: &found,
        edges: &edges,
        clusters: &clusters,
        decisions: &decisions,
        linkage: &linkage,
        blocks: &blocks,
        unlinkable: &unlinkable,
    };
    let measures = measured.all(settings)?;
    let pairs = with_parts(&edges, &scorer, linkage.comparisons.len())?;
    let unlearned = goes_on.is_none().then_some(labels.ignored);
    let kept = goes_on.map(|(_, known)| known.same());
    let (undecided, overruled) = (decided.ignored, clusters.overruled);
    let (apart, bridges) = ([clusters.refused, clusters.forbidden], clusters.bridges);
    let parts = EntityParts {
        settings: settings.clone(),
        linkage,
        entities,
        history,
        decisions,
        ids: found.ids,
        sources: found.sources,
        contents: found.contents,
        unlinkable,
    };
    let model = EntityModel::from_parts(parts)?;
    Ok(Resolved {
        model,
        pairs,
        measures,
        kept,
        undecided,
        overruled,
        apart,
        bridges,
        unlearned,
        gone,
        placeholders,
    })
}

/// What the version before has learned, and the blocks of its rules, with what they cost now.
fn as_before(
    model: &EntityModel,
    records: &Records,
    options: &LinkOptions,
) -> (Linkage, Vec<Blocks>) {
    let mut linkage = model.parts().linkage.clone();
    linkage.block_max = options.block_limit(records.len);
    let rules = linkage.rules.iter().map(|used| &used.rule);
    let blocks = blocks_of(rules, records, linkage.block_max);
    let costs = linkage.rules.iter().zip(&blocks).map(|(used, blocks)| (&used.rule, blocks.cost));
    let expected = expected_recalls(costs, &records.columns, options.seed);
    for (used, (blocks, expected)) in linkage.rules.iter_mut().zip(blocks.iter().zip(expected)) {
        used.cost = blocks.cost;
        used.expected = Some(expected);
    }
    (linkage, blocks)
}

/// The blocks that the version before may have left out as too large and that are not now: since
/// then a block has lost as many records at most as are gone or say something else.
fn reopened(model: &EntityModel, known: &Past, records: &Records, block_max: usize) -> Vec<Blocks> {
    let before = &model.parts().linkage;
    let least = before.block_max.saturating_sub(known.gone()) + 1;
    if least > block_max {
        return Vec::new();
    }
    let had = before.rules.iter().filter(|used| used.cost.skipped_blocks > 0);
    let blocks = had.map(|used| Blocks::of_sizes(&used.rule, records, least..=block_max));
    blocks.filter(|blocks| !blocks.is_empty()).collect()
}

/// The pairs that are kept, by left and right: where a version goes on, those of new and changed
/// records and of blocks that are open again, beside those that the version before has.
fn scored(
    scorer: &Scorer<'_>,
    [blocks, reopened]: [&[Blocks]; 2],
    options: &EntityOptions,
    goes_on: Option<(&Pairs, &Past)>,
    under: &Under<'_>,
) -> Result<Pairs, ModelError> {
    let least = weight(options.pair_threshold.min(options.settings.threshold));
    let edges = match goes_on {
        Some((before, known)) => {
            let is_new = |record: u32| known.same_as[record as usize] == NONE;
            let are_open =
                |left: u32, right: u32| reopened.iter().any(|blocks| blocks.has(left, right));
            let both_were = |left: u32, right: u32| !is_new(left) && !is_new(right);
            let came = scorer.edges_of(blocks, least, is_new, under.spill, under.cancel)?;
            let opened = scorer.edges(reopened, least, both_were, under.spill, under.cancel)?;
            let kept = known.pairs(before, under.spill, |edge| {
                let now = scorer.weighed(edge.left, edge.right, edge.levels);
                let is_kept = f64::from(now.weight) >= least && !are_open(now.left, now.right);
                is_kept.then_some(now)
            })?;
            merged(&[came, opened, kept], by_place, Writer::new(under.spill, 0))?
        }
        None => scorer.edges(blocks, least, |_, _| true, under.spill, under.cancel)?,
    };
    complete(scorer, edges, least)
}

/// The options with columns by position, and rules that the records have the keys of.
fn named_columns(options: &EntityOptions, records: &Records) -> Result<LinkOptions, ModelError> {
    let names: Vec<&str> = records.columns.iter().map(|column| column.name.as_str()).collect();
    let mut link = options.link.clone();
    let has = |key: &Key| {
        let column = records.columns.get(key.column);
        column.is_some_and(|column| fits(key.part, column.kind))
    };
    let has_all =
        |named: &NamedRule| named.rule.keys.iter().all(has) && records.has_keys_of(&named.rule);
    if let Some(wrong) = link.rules.iter().find(|named| !has_all(named)) {
        let (rule, key) = (wrong.text.clone(), wrong.rule.keys.iter().find(|key| !has(key)));
        let key = key.and_then(|key| Some((key, records.columns.get(key.column)?)));
        return Err(match key {
            Some((key, column)) => ModelError::RulePart {
                rule,
                part: key.text(&names),
                column: column.name.clone(),
                kind: column.kind.name(),
            },
            None => ModelError::Option {
                option: "blocking_rules",
                value: format!("'{rule}'"),
                hint: "It was planned for other columns: train the model anew",
            },
        });
    }
    if let Some(own) = &options.own {
        let position = |name: &String| names.iter().position(|known| known == name);
        link.own = Some(own.iter().filter_map(position).collect());
    }
    Ok(link)
}

/// What the version before knows of the records.
struct Past {
    /// How many records it has.
    before: usize,
    /// Each record's position in the version before, when it says what it said; else [`NONE`].
    same_as: Vec<u32>,
    /// The other way round.
    now: Vec<u32>,
    /// How many say what they said.
    same: usize,
    /// The entity that each record was of.
    entities: Vec<Option<u128>>,
    /// The entities of records that are gone.
    lost: Vec<u128>,
}

impl Past {
    fn new(model: &EntityModel, found: &Ordered) -> Result<Self, ModelError> {
        let parts = model.parts();
        let mut at: Mixed<u64, u32> = model.keys()?.into_iter().zip(0..).collect();
        let mut known = Self {
            before: at.len(),
            same_as: Vec::with_capacity(found.len()),
            now: vec![NONE; model.len()],
            same: 0,
            entities: Vec::with_capacity(found.len()),
            lost: vec![],
        };
        for ((key, content), record) in found.keys.iter().zip(&found.contents).zip(0..) {
            let then = at.remove(key);
            let same = then.filter(|&then| parts.contents[then as usize] == *content);
            if let Some(same) = same {
                known.now[same as usize] = record;
                known.same += 1;
            }
            known.same_as.push(same.unwrap_or(NONE));
            known.entities.push(then.map(|then| parts.entities[then as usize]));
        }
        known.lost = at.into_values().map(|then| parts.entities[then as usize]).collect();
        known.lost.sort_unstable();
        Ok(known)
    }

    fn same(&self) -> usize {
        self.same
    }

    /// Records of the version before that are gone, or say something else.
    fn gone(&self) -> usize {
        self.before - self.same()
    }

    /// The pairs of records that say what they said, as `weighed` says what they are worth today.
    fn pairs(
        &self,
        before: &Pairs,
        spill: &Spill,
        weighed: impl Fn(Edge) -> Option<Edge>,
    ) -> Result<Pairs, ModelError> {
        let mut kept = Sorter::new(spill, by_place);
        for edge in before.cursor() {
            let edge = edge?;
            let is_now = |record: u32| self.now.get(record as usize).filter(|&&now| now != NONE);
            if let (Some(&left), Some(&right)) = (is_now(edge.left), is_now(edge.right)) {
                let (left, right) = (left.min(right), left.max(right));
                if let Some(edge) = weighed(Edge { left, right, ..edge }) {
                    kept.add(edge)?;
                }
            }
        }
        kept.finish()
    }
}

/// The pairs with what each column adds to their weights, and what relatives take off.
fn with_parts(edges: &Pairs, scorer: &Scorer<'_>, columns: usize) -> Result<Pairs, ModelError> {
    edges.with_parts(columns + 1, |edge, parts| {
        parts.extend((0..columns).map(|at| scorer.column(at, edge.left, edge.levels) as f32));
        parts.push(scorer.relatives(edge.left, edge.levels) as f32);
    })
}
