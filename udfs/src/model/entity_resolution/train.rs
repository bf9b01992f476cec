//! From rows to a model: anew, or going on from the version before.
//!
//! A version that goes on keeps what was learned and the pairs of records that say what they said;
//! only pairs with a new or changed record are compared, and those of blocks that were too large
//! and are not now. Pairs that are kept are compared anew by what is known today, of how frequent
//! values are and how a column's dates are read, so that a pair that was kept may be kept no more;
//! which values stand for nobody stays as it was learned. It begins anew where the columns are
//! others, or more than half the records are new. Entities keep their ids either way.
//!
//! Which words of a text are rarest, and which day `03/04` is, depends on other records; so a
//! record that says what it said may be in other blocks than it was. It is known by a fingerprint
//! of its keys, and compared as a changed one is. Two old records in the blocks that they were in
//! are not compared again: what was below the pair threshold stays out, however rare their values
//! have become.
//!
//! Records are in memory, with some hundred bytes each. Scored pairs are where there is a place for
//! them ([`super::pairs`]) and are passed over in order, so that a training ends the same however
//! little memory there is for them.

use std::sync::atomic::AtomicBool;

use super::blocking::{Blocked, Blocks, SLOTS_MAX, blocks_of, rules_of};
use super::cluster::{cluster, complete};
use super::column::NONE;
use super::compare::Comparer;
use super::gather::{Gathered, Ordered};
use super::key::{Key, fits};
use super::labels::{Ignored, Known, Written};
use super::learn::{LinkOptions, Linkage, NamedRule, learn};
use super::measure::{Measured, unlinkable};
use super::model::{EntityModel, EntityParts, Settings, events, named};
use super::pairs::{Pairs, Spill, Writer};
use super::placeholders::Placeholders;
use super::records::Records;
use super::room::Room;
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
    /// How many of these have other keys of blocking rules than they had.
    pub moved: usize,
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
    /// Gives memory for keys, where they are more than usual.
    pub room: Room<'a>,
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
/// more keys than there is memory for, more pairs than there is memory and disk for, cancellation.
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
            && rules.iter().all(|used| used.rule.slots() <= SLOTS_MAX)
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
    let (linkage, Blocked { blocks, marks }) = match goes_on {
        Some(((model, _), _)) => as_before(model, &found.records, &options.link, under.room)?,
        None => {
            let link = named_columns(options, &found.records)?;
            let (records, labels) = (&found.records, &labels.pairs);
            learn(records, labels, &link, under.room, under.report, under.cancel)?
        }
    };
    let moved = match goes_on {
        Some(((model, _), known)) => known.moved(&model.parts().marks, &marks),
        None => Vec::new(),
    };
    let reopened = match goes_on {
        Some(((model, _), known)) => {
            reopened(model, (known, moved.as_slice()), &found.records, linkage.block_max)
        }
        None => Vec::new(),
    };
    let placeholders = Placeholders::of(&found.records, goes_on.is_some());
    let scorer = Scorer::new(&found.records, &linkage);
    let kept = goes_on.map(|((_, pairs), known)| (pairs, known, moved.as_slice()));
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
    let moved = moved.iter().filter(|is_moved| **is_moved).count();
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
        marks,
        unlinkable,
    };
    let model = EntityModel::from_parts(parts)?;
    Ok(Resolved {
        model,
        pairs,
        measures,
        kept,
        moved,
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
    room: Room<'_>,
) -> Result<(Linkage, Blocked), ModelError> {
    let mut linkage = model.parts().linkage.clone();
    linkage.block_max = options.block_limit(records.len);
    let rules = linkage.rules.iter().map(|used| &used.rule);
    let blocked = blocks_of(rules, records, linkage.block_max, room)?;
    let blocks = &blocked.blocks;
    let costs = linkage.rules.iter().zip(blocks).map(|(used, blocks)| (&used.rule, blocks.cost));
    let expected = expected_recalls(costs, &records.columns, options.seed);
    for (used, (blocks, expected)) in linkage.rules.iter_mut().zip(blocks.iter().zip(expected)) {
        used.cost = blocks.cost;
        used.expected = Some(expected);
    }
    Ok((linkage, blocked))
}

/// The blocks that the version before may have left out as too large and that are not now: since
/// then a block has lost as many records at most as are gone, say something else or have moved.
fn reopened(
    model: &EntityModel,
    (known, moved): (&Past, &[bool]),
    records: &Records,
    block_max: usize,
) -> Vec<Blocks> {
    let before = &model.parts().linkage;
    let moved = moved.iter().filter(|is_moved| **is_moved).count();
    let least = before.block_max.saturating_sub(known.gone() + moved) + 1;
    // Pairs of all others are compared anyway.
    let stayed = known.same() - moved;
    if least > block_max || stayed < 2 {
        return Vec::new();
    }
    let had = before.rules.iter().filter(|used| used.cost.skipped_blocks > 0);
    let blocks = had.map(|used| Blocks::of_sizes(&used.rule, records, least..=block_max));
    blocks.filter(|blocks| !blocks.is_empty()).collect()
}

/// The pairs that are kept, by left and right: where a version goes on, those of new and changed
/// records, of those that have moved to other blocks, and of blocks that are open again, beside
/// those that the version before has.
fn scored(
    scorer: &Scorer<'_>,
    [blocks, reopened]: [&[Blocks]; 2],
    options: &EntityOptions,
    goes_on: Option<(&Pairs, &Past, &[bool])>,
    under: &Under<'_>,
) -> Result<Pairs, ModelError> {
    let least = weight(options.pair_threshold.min(options.settings.threshold));
    let edges = match goes_on {
        Some((before, known, moved)) => {
            let is_one =
                |record: u32| known.same_as[record as usize] == NONE || moved[record as usize];
            // Pairs of old records that a rule finds still, and that are not compared again by now.
            let stay = |left: u32, right: u32| {
                !(is_one(left) || is_one(right))
                    && rules_of(blocks, left, right) != 0
                    && !reopened.iter().any(|blocks| blocks.has(left, right))
            };
            let both_were = |left: u32, right: u32| !is_one(left) && !is_one(right);
            let came = scorer.edges_of(blocks, least, is_one, under.spill, under.cancel)?;
            let opened = scorer.edges(reopened, least, both_were, under.spill, under.cancel)?;
            // How alike values are depends on others too: of a date, by the order of its column's.
            let mut comparer = Comparer::new(scorer.records());
            let kept = known.pairs(before, under.spill, |left, right| {
                let now = scorer.edge(&mut comparer, left, right);
                (f64::from(now.weight) >= least && stay(now.left, now.right)).then_some(now)
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

    /// The records that say what they said and have other keys than they had.
    fn moved(&self, before: &[u64], now: &[u64]) -> Vec<bool> {
        let records = self.same_as.iter().zip(now);
        let moved =
            records.map(|(&then, mark)| then != NONE && before.get(then as usize) != Some(mark));
        moved.collect()
    }

    /// Records of the version before that are gone, or say something else.
    fn gone(&self) -> usize {
        self.before - self.same()
    }

    /// The pairs of records that say what they said, as `scored` says what they are worth today.
    fn pairs(
        &self,
        before: &Pairs,
        spill: &Spill,
        mut scored: impl FnMut(u32, u32) -> Option<Edge>,
    ) -> Result<Pairs, ModelError> {
        let mut kept = Sorter::new(spill, by_place);
        for edge in before.cursor() {
            let edge = edge?;
            let is_now = |record: u32| self.now.get(record as usize).filter(|&&now| now != NONE);
            if let (Some(&left), Some(&right)) = (is_now(edge.left), is_now(edge.right))
                && let Some(edge) = scored(left, right)
            {
                kept.add(edge)?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::DataType;

    use super::super::blocking::Rule;
    use super::super::kind::Kind;
    use super::super::tests::options;
    use super::*;

    /// Trains on notes by their rarest words, and keeps whatever is compared.
    fn trained(notes: &[(i64, String)], before: Option<&Resolved>) -> Resolved {
        trained_by(notes, None, before)
    }

    /// The same with so many notes of a block at most.
    fn trained_by(
        notes: &[(i64, String)],
        block_max: Option<usize>,
        before: Option<&Resolved>,
    ) -> Resolved {
        let columns = [("notes", &DataType::Utf8, Some(Kind::Text))];
        let mut gathered = Gathered::new(("id", &DataType::Int64), None, &columns, false).unwrap();
        let ids: ArrayRef = Arc::new(notes.iter().map(|note| Some(note.0)).collect::<Int64Array>());
        let texts = notes.iter().map(|note| Some(note.1.as_str()));
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        gathered.add(&ids, None, &[texts], &[], None).unwrap();
        let text = "words(notes)".to_owned();
        let rule = Rule::parse(&text, &["notes"]).unwrap();
        let link =
            LinkOptions { rules: vec![NamedRule { rule, text }], block_max, ..Default::default() };
        let options = EntityOptions { link, pair_threshold: 1e-15, ..options() };
        let before = before.map(|found| Before {
            model: &found.model,
            pairs: Some(&found.pairs),
            must_be_whole: false,
        });
        let version = if before.is_some() { 2 } else { 1 };
        let (cancel, spill) = (AtomicBool::new(false), Spill::in_memory());
        let under = Under { report: &mut |_| {}, cancel: &cancel, spill: &spill, room: &|_| true };
        train(gathered, &options, Said::default(), before, version, under).unwrap()
    }

    fn places(found: &Resolved) -> Vec<(u32, u32)> {
        let mut places = Vec::new();
        found.pairs.each(|edge| places.push((edge.left, edge.right))).unwrap();
        places
    }

    /// Of the first two notes `zeta` is not among the three rarest words that others have too.
    fn notes() -> Vec<(i64, String)> {
        let told = [
            "zeta alpha beta gamma",
            "zeta delta kappa lambda",
            "alpha beta gamma",
            "delta kappa lambda",
            "zeta",
        ];
        let told = (1..).zip(told.map(str::to_owned));
        told.chain((10..50).map(|id| (id, format!("filler{id} other{id}")))).collect()
    }

    #[test]
    fn records_that_share_a_word_which_is_rare_only_now_are_compared() {
        let mut notes = notes();
        let first = trained(&notes, None);
        assert_eq!(places(&first), [(0, 2), (1, 3)]);
        let same = trained(&notes, Some(&first));
        assert_eq!((same.kept, same.moved), (Some(notes.len()), 0));
        assert_eq!(places(&same), places(&first));
        // Each of the six others is in two more notes, so that four have it and three have `zeta`.
        let words = ["alpha", "beta", "gamma", "delta", "kappa", "lambda"];
        let more = words.iter().flat_map(|word| [word, word]).zip(100..);
        notes.extend(more.map(|(word, id)| (id, format!("{word} more{id}"))));
        let second = trained(&notes, Some(&first));
        assert_eq!((second.kept, second.moved), (Some(notes.len() - 12), 2));
        let found = places(&second);
        for pair in [(0, 1), (0, 2), (0, 4), (1, 3), (1, 4)] {
            assert!(found.contains(&pair), "{pair:?} {found:?}");
        }
        // None is there twice.
        assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    }

    /// A block may be small enough again without a record that is gone: some have moved out of it.
    #[test]
    fn a_block_that_records_have_moved_out_of_is_open_again() {
        let own = |id: i64| format!("ant{id} bee{id} cow{id}");
        // The one word that others have too is in five notes, and a block is of four at most.
        let mut notes: Vec<(i64, String)> =
            (1..=5).map(|id| (id, format!("zeta {}", own(id)))).collect();
        let first = trained_by(&notes, Some(4), None);
        assert!(places(&first).is_empty(), "{:?}", places(&first));
        assert_eq!(first.model.parts().linkage.rules[0].cost.skipped_blocks, 1);
        // Three of them share three rarer words with a new note each; two stay in the block.
        notes.extend((3..=5).map(|id| (100 + id, own(id))));
        let second = trained_by(&notes, Some(4), Some(&first));
        assert_eq!((second.kept, second.moved), (Some(5), 3));
        assert_eq!(places(&second), [(0, 1), (2, 5), (3, 6), (4, 7)]);
    }

    #[test]
    fn a_version_that_does_not_know_its_keys_has_all_records_compared() {
        let notes = notes();
        let mut first = trained(&notes, None);
        let parts = EntityParts { marks: vec![], ..first.model.parts().clone() };
        first.model = EntityModel::from_parts(parts).unwrap();
        let second = trained(&notes, Some(&first));
        assert_eq!((second.kept, second.moved), (Some(notes.len()), notes.len()));
        assert_eq!(places(&second), [(0, 2), (1, 3)]);
    }
}
