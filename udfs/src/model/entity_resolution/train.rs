//! From rows to a model: anew, or going on from the version before.
//!
//! A version that goes on keeps what was learned and the pairs of records that say what they said;
//! only pairs with a new or changed record are compared. It begins anew where the columns are
//! others, or more than half the records are new.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::blocking::{Blocks, Rule};
use super::cluster::{Clusters, Decision, cluster, complete};
use super::column::{Column, NONE};
use super::gather::{Gathered, Identified};
use super::kind::Kind;
use super::learn::{Comparison, LinkOptions, Linkage, learn};
use super::model::{EntityModel, EntityParts, Pairs, Settings, events, named};
use super::records::Records;
use super::score::{Edge, Scorer, weight};
use crate::model::ModelError;
use crate::model::als::Progress;

/// Options of training.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityOptions {
    /// What is asked for.
    pub settings: Settings,
    /// Of learning; its rules and own columns are found by the columns' names.
    pub link: LinkOptions,
    /// Rules to block by, as written; suggested when empty.
    pub rules: Vec<String>,
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
    /// By [`MEASURES`].
    pub measures: Vec<f64>,
    /// How it began: records that are as they were in the version before, when it goes on.
    pub kept: Option<usize>,
}

/// The names of what a model is measured by.
pub const MEASURES: [&str; 13] = [
    "precision",
    "recall",
    "f1_score",
    "estimated_precision",
    "estimated_recall",
    "estimated_f1_score",
    "records",
    "entities",
    "duplicate_records",
    "largest_entity",
    "linked_pairs",
    "refused_pairs",
    "unlinkable_records",
];

/// Of all records so many at most may be new where a version goes on.
const NEW_MAX: f64 = 0.5;

/// Decisions as they are written: keys of records, and whether they match.
pub type Decided = [(u64, u64, bool)];

/// Trains a model as version `version`.
///
/// # Errors
/// No rows, ids that repeat, rules that are none, cancellation.
pub fn train(
    gathered: Gathered,
    options: &EntityOptions,
    decided: &Decided,
    before: Option<(&EntityModel, bool)>,
    version: u32,
    report: &mut (dyn FnMut(Progress) + Send),
    cancel: &AtomicBool,
) -> Result<Resolved, ModelError> {
    if gathered.rows() == 0 {
        return Err(ModelError::Empty);
    }
    let warm = before.filter(|(_, is_warm)| *is_warm).map(|(model, _)| model);
    let kinds: Option<Vec<Kind>> = warm.map(|model| {
        model.parts().linkage.comparisons.iter().map(|comparison| comparison.kind).collect()
    });
    let found = gathered.finish(kinds.as_deref(), options.settings.is_link)?;
    let known = before.map(|(model, _)| Known::new(model, &found)).transpose()?;
    let goes_on = warm.zip(known.as_ref()).filter(|(model, known)| {
        known.fits(model, &found.records)
            && known.same() as f64 >= NEW_MAX * found.records.len as f64
    });
    let records = &found.records;
    let (linkage, blocks) = match &goes_on {
        Some((model, _)) => {
            let linkage = model.parts().linkage.clone();
            let blocks = linkage.rules.iter().map(|used| {
                Blocks::new(&used.rule, &records.columns, &records.sides, linkage.block_max)
            });
            let blocks = blocks.collect();
            (linkage, blocks)
        }
        None => learn(records, &named_columns(options, records)?, report, cancel)?,
    };
    let scorer = Scorer::new(records, &linkage);
    let least = weight(options.pair_threshold.min(options.settings.threshold));
    let is_new = |record: u32| match &goes_on {
        Some((_, known)) => known.same_as[record as usize].is_none(),
        None => true,
    };
    let takes = |left: u32, right: u32| is_new(left) || is_new(right);
    let mut edges = scorer.edges(&blocks, least, takes, cancel)?;
    if let Some((model, known)) = &goes_on {
        edges.extend(known.edges(model));
        edges.sort_unstable_by_key(|edge| (edge.left, edge.right));
    }
    complete(records, &scorer, &mut edges, least);
    let decisions = decisions(decided, &found.keys);
    let settings = &options.settings;
    let clusters =
        cluster(records.len, &edges, settings.threshold, settings.method, &found.sides, &decisions);
    let nobody = vec![None; records.len];
    let (was, lost) = match &known {
        Some(known) => (&known.entities, known.lost.as_slice()),
        None => (&nobody, &[][..]),
    };
    let entities = named(&clusters, &found.keys, was);
    let mut history = before.map(|(model, _)| model.parts().history.clone()).unwrap_or_default();
    history.extend(events(version, was, &entities, lost));
    let measures =
        Measured { found: &found, edges: &edges, clusters: &clusters, linkage: &linkage }
            .all(&scorer, settings.threshold);
    let pairs = pairs(&edges, &scorer, linkage.comparisons.len());
    let kept = goes_on.as_ref().map(|(_, known)| known.same());
    let parts = EntityParts {
        settings: settings.clone(),
        linkage,
        entities,
        pairs,
        history,
        decisions,
        ids: found.ids,
        sources: found.sources,
        contents: found.contents,
    };
    Ok(Resolved { model: EntityModel::from_parts(parts)?, measures, kept })
}

/// The options with rules and columns by position.
fn named_columns(options: &EntityOptions, records: &Records) -> Result<LinkOptions, ModelError> {
    let names: Vec<&str> = records.columns.iter().map(|column| column.name.as_str()).collect();
    let mut link = options.link.clone();
    for written in &options.rules {
        let rule = Rule::parse(written, &names);
        let fits = |rule: &Rule| {
            let kind = |column: usize| records.columns[column].kind;
            rule.keys.iter().all(|key| super::key::fits(key.part, kind(key.column)))
        };
        let Some(rule) = rule.filter(fits) else {
            return Err(ModelError::Option {
                option: "blocking_rules",
                value: format!("'{written}'"),
                hint: "A rule is columns and parts of them joined by AND: 'last_name AND \
                       year(birth_date)'; parts are prefix(c, n), suffix(c, n), first_half(c), \
                       second_half(c), soundex(c), of texts words(c), of dates year(c), \
                       year_month(c), month_day(c), of addresses local_part(c)",
            });
        };
        link.rules.push(rule);
    }
    if let Some(own) = &options.own {
        let position = |name: &String| names.iter().position(|known| known == name);
        link.own = Some(own.iter().filter_map(position).collect());
    }
    Ok(link)
}

/// What the version before knows of the records.
struct Known {
    /// Each record's position in the version before, when it says what it said.
    same_as: Vec<Option<u32>>,
    /// The other way round.
    now: HashMap<u32, u32>,
    /// The entity that each record was of.
    entities: Vec<Option<u128>>,
    /// The entities of records that are gone.
    lost: Vec<u128>,
}

impl Known {
    fn new(model: &EntityModel, found: &Identified) -> Result<Self, ModelError> {
        let parts = model.parts();
        let mut at: HashMap<u64, u32> = model.keys()?.into_iter().zip(0..).collect();
        let mut known =
            Self { same_as: Vec::new(), now: HashMap::new(), entities: Vec::new(), lost: vec![] };
        for ((key, content), record) in found.keys.iter().zip(&found.contents).zip(0..) {
            let then = at.remove(key);
            let same = then.filter(|&then| parts.contents[then as usize] == *content);
            if let Some(same) = same {
                known.now.insert(same, record);
            }
            known.same_as.push(same);
            known.entities.push(then.map(|then| parts.entities[then as usize]));
        }
        known.lost = at.into_values().map(|then| parts.entities[then as usize]).collect();
        known.lost.sort_unstable();
        Ok(known)
    }

    fn same(&self) -> usize {
        self.now.len()
    }

    /// Whether the same columns are compared.
    fn fits(&self, model: &EntityModel, records: &Records) -> bool {
        let comparisons = &model.parts().linkage.comparisons;
        let same = |(column, comparison): (&Column, &Comparison)| {
            column.name == comparison.column && column.kind == comparison.kind
        };
        comparisons.len() == records.columns.len()
            && records.columns.iter().zip(comparisons).all(same)
    }

    /// The pairs of records that say what they said.
    fn edges(&self, model: &EntityModel) -> Vec<Edge> {
        let moved = |edge: Edge| {
            let (left, right) = (*self.now.get(&edge.left)?, *self.now.get(&edge.right)?);
            Some(Edge { left: left.min(right), right: left.max(right), ..edge })
        };
        model.edges().into_iter().filter_map(moved).collect()
    }
}

/// Decisions about records that there are; the last one about two records holds.
fn decisions(decided: &Decided, keys: &[u64]) -> Vec<Decision> {
    if decided.is_empty() {
        return Vec::new();
    }
    let at: HashMap<u64, u32> = keys.iter().copied().zip(0..).collect();
    let mut last = std::collections::BTreeMap::new();
    for (left, right, is_match) in decided {
        if let (Some(&left), Some(&right)) = (at.get(left), at.get(right)) {
            last.insert((left.min(right), left.max(right)), *is_match);
        }
    }
    let decision = |((left, right), is_match)| Decision { left, right, is_match };
    last.into_iter().map(decision).collect()
}

fn pairs(edges: &[Edge], scorer: &Scorer<'_>, columns: usize) -> Pairs {
    let mut pairs = Pairs::default();
    for edge in edges {
        pairs.left.push(edge.left);
        pairs.right.push(edge.right);
        pairs.weight.push(edge.weight);
        pairs.levels.push(edge.levels);
        let part = |at: usize| scorer.column(at, edge.left, edge.levels) as f32;
        pairs.parts.extend((0..columns).map(part));
        pairs.parts.push(scorer.relatives(edge.left, edge.levels) as f32);
    }
    pairs
}

/// What a model is worth.
struct Measured<'a> {
    found: &'a Identified,
    edges: &'a [Edge],
    clusters: &'a Clusters,
    linkage: &'a Linkage,
}

impl Measured<'_> {
    fn all(&self, scorer: &Scorer<'_>, threshold: f64) -> Vec<f64> {
        let records = &self.found.records;
        let mut sizes: HashMap<u32, u64> = HashMap::new();
        for root in &self.clusters.of {
            *sizes.entry(*root).or_default() += 1;
        }
        let linked = self.linked_pairs();
        let [precision, recall] = self.known();
        let together = self.edges.iter().filter(|edge| {
            self.clusters.of[edge.left as usize] == self.clusters.of[edge.right as usize]
        });
        let right: f64 = together.map(Edge::probability).sum();
        let all = (self.linkage.lambda * records.pairs()).max(right);
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { f64::NAN };
        let (estimated, found) = (share(right, linked), share(right, all));
        let least = weight(threshold);
        let unlinkable = (0..records.len as u32).filter(|&at| scorer.itself(at) < least).count();
        vec![
            precision,
            recall,
            mean(precision, recall),
            estimated,
            found,
            mean(estimated, found),
            records.len as f64,
            sizes.len() as f64,
            records.len as f64 - sizes.len() as f64,
            sizes.values().copied().max().unwrap_or(0) as f64,
            linked,
            self.clusters.refused as f64,
            unlinkable as f64,
        ]
    }

    /// Pairs of records of one entity that may match.
    fn linked_pairs(&self) -> f64 {
        self.together(self.clusters.of.iter().copied().enumerate())
    }

    /// Precision and recall over pairs of records whose entity is known.
    fn known(&self) -> [f64; 2] {
        let Some(truth) = &self.found.truth else { return [f64::NAN; 2] };
        let known: Vec<usize> = (0..truth.len()).filter(|&at| truth[at] != NONE).collect();
        let found = self.together(known.iter().map(|&at| (at, self.clusters.of[at])));
        let wanted = self.together(known.iter().map(|&at| (at, truth[at])));
        let mut both: HashMap<(u32, u32), u32> = HashMap::new();
        let of = known.iter().map(|&at| {
            let next = both.len() as u32;
            (at, *both.entry((self.clusters.of[at], truth[at])).or_insert(next))
        });
        let of: Vec<(usize, u32)> = of.collect();
        let right = self.together(of.into_iter());
        [right / found, right / wanted]
    }

    /// Pairs of records of one group that may match.
    fn together(&self, groups: impl Iterator<Item = (usize, u32)>) -> f64 {
        let sides = &self.found.records.sides;
        let mut cells: Vec<(u32, u32)> = groups
            .map(|(at, group)| (group, sides.get(at).copied().unwrap_or(at as u32)))
            .collect();
        cells.sort_unstable();
        let pairs = |count: usize| count as f64 * (count as f64 - 1.0) / 2.0;
        let group = |group: &[(u32, u32)]| {
            let same: f64 = match sides.is_empty() {
                true => 0.0,
                false => group.chunk_by(|a, b| a == b).map(|side| pairs(side.len())).sum(),
            };
            pairs(group.len()) - same
        };
        cells.chunk_by(|a, b| a.0 == b.0).map(group).sum()
    }
}

fn mean(precision: f64, recall: f64) -> f64 {
    2.0 * precision * recall / (precision + recall)
}
