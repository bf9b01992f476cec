//! Between a model of entities in memory and what its files and manifest hold.
//!
//! The manifest has what was asked for and learned. `records` has a row a record, and so has
//! `blocked`, by which keys each was compared; `history` what became of entities, `decisions` what
//! people have decided, `unlinkable` which records say too little. Of all but the first a file
//! without rows is left out. The scored pairs are a file that is not read
//! with the model: see [`super::entity_pairs`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{UInt32Type, UInt64Type};
use serde::{Deserialize, Serialize};
use udfs::model::entity_resolution::blocking::{Cost, Rule};
use udfs::model::entity_resolution::cluster::{Decision, Method};
use udfs::model::entity_resolution::dependence::Dependence;
use udfs::model::entity_resolution::key::Expression;
use udfs::model::entity_resolution::kind::Kind as Compared;
use udfs::model::entity_resolution::learn::{Comparison, Linkage, UsedRule};
use udfs::model::entity_resolution::model::{
    EVENTS, EntityModel, EntityParts, Event, Settings, What,
};
use udfs::model::{Model, ModelError};

use super::manifest::Manifest;
use super::model_files::{Column, Kind, Table};
use super::model_parts::Pieces;
use crate::error::{Error, Result};

/// What a model of entities needs, beside its files, to be put together again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEntities {
    id_col: String,
    source_col: Option<String>,
    is_link: bool,
    method: StoredMethod,
    threshold: f64,
    comparisons: Vec<StoredComparison>,
    lambda: f64,
    eta: f64,
    dependences: Vec<[usize; 3]>,
    rules: Vec<StoredRule>,
    block_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredMethod {
    Connected,
    Guarded,
    BestLink,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredComparison {
    column: String,
    kind: String,
    m: Vec<f64>,
    u: Vec<f64>,
    h: Vec<f64>,
    is_own: bool,
    /// The fingerprints of values that stand for nobody.
    #[serde(default)]
    placeholders: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredRule {
    rule: String,
    /// Its keys of columns, with these by number, whatever they are called.
    keys: String,
    /// What the query computes for it.
    #[serde(default)]
    expressions: Vec<StoredExpression>,
    pairs: u64,
    skipped_blocks: u64,
    skipped_records: u64,
    keyed: u64,
    recall: f64,
    expected: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredExpression {
    text: String,
    /// The columns that it is made of, a bit each.
    columns: u32,
}

impl StoredEntities {
    /// What is kept of a model.
    pub fn new(model: &EntityModel) -> Self {
        let EntityParts { settings, linkage, .. } = model.parts();
        let comparison = |of: &Comparison| StoredComparison {
            column: of.column.clone(),
            kind: of.kind.name().into(),
            m: of.m.clone(),
            u: of.u.clone(),
            h: of.h.clone(),
            is_own: of.is_own,
            placeholders: of.placeholders.clone(),
        };
        let names = numbered(linkage.comparisons.len());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let expression =
            |of: &Expression| StoredExpression { text: of.text.clone(), columns: of.columns };
        let rule = |used: &UsedRule| StoredRule {
            keys: used.rule.text(&names),
            expressions: used.rule.expressions.iter().map(expression).collect(),
            rule: used.text.clone(),
            pairs: used.cost.pairs,
            skipped_blocks: used.cost.skipped_blocks,
            skipped_records: used.cost.skipped_records,
            keyed: used.cost.keyed,
            recall: used.recall,
            expected: used.expected,
        };
        let dependence = |of: &Dependence| [of.on, of.level, of.column];
        Self {
            id_col: settings.id_col.clone(),
            source_col: settings.source_col.clone(),
            is_link: settings.is_link,
            method: match settings.method {
                Method::Connected => StoredMethod::Connected,
                Method::Guarded => StoredMethod::Guarded,
                Method::BestLink => StoredMethod::BestLink,
            },
            threshold: settings.threshold,
            comparisons: linkage.comparisons.iter().map(comparison).collect(),
            lambda: linkage.lambda,
            eta: linkage.eta,
            dependences: linkage.dependences.iter().map(dependence).collect(),
            rules: linkage.rules.iter().map(rule).collect(),
            block_max: linkage.block_max,
        }
    }

    /// The columns to read of each file of a version.
    pub fn wanted(&self, manifest: &Manifest) -> BTreeMap<&'static str, Vec<(&'static str, Kind)>> {
        let ids = |names: &[&'static str]| names.iter().map(|name| (*name, Kind::Ids)).collect();
        let mut records: Vec<(&str, Kind)> = ids(&["id", "content", "entity"]);
        if self.source_col.is_some() {
            records.push(("source", Kind::Ids));
        }
        let mut wanted = BTreeMap::from([("records", records)]);
        let has = |name: &str| manifest.files.contains_key(name);
        if has("blocked") {
            wanted.insert("blocked", ids(&["mark"]));
        }
        if has("history") {
            let columns = ["version", "event", "entity", "other", "records"];
            wanted.insert("history", ids(&columns));
        }
        if has("decisions") {
            wanted.insert("decisions", ids(&["left", "right", "is_match"]));
        }
        if has("unlinkable") {
            wanted.insert("unlinkable", ids(&["record"]));
        }
        wanted
    }

    /// Puts a model together from what its files hold.
    ///
    /// # Errors
    /// When the parts contradict each other.
    pub fn assemble(
        &self,
        mut tables: BTreeMap<&'static str, Table>,
        manifest: &Manifest,
    ) -> Result<Model> {
        let mut records =
            tables.remove("records").ok_or_else(|| Error::invalid("a file was not read"))?;
        let entities = entities(&records.ids("entity")?)?;
        let contents = numbers(&records.ids("content")?)?;
        let sources = self.source_col.as_ref().map(|_| records.ids("source")).transpose()?;
        let marks = tables.remove("blocked");
        let marks = marks.map(|mut table| numbers(&table.ids("mark")?)).transpose()?;
        let history = tables.remove("history").map(history).transpose()?.unwrap_or_default();
        let decisions = tables.remove("decisions").map(decisions).transpose()?.unwrap_or_default();
        let unlinkable = tables.remove("unlinkable");
        let unlinkable =
            unlinkable.map(|mut table| small_numbers(&table.ids("record")?)).transpose()?;
        let parts = EntityParts {
            settings: Settings {
                id_col: self.id_col.clone(),
                source_col: self.source_col.clone(),
                is_link: self.is_link,
                method: match self.method {
                    StoredMethod::Connected => Method::Connected,
                    StoredMethod::Guarded => Method::Guarded,
                    StoredMethod::BestLink => Method::BestLink,
                },
                threshold: self.threshold,
            },
            linkage: self.linkage(manifest)?,
            ids: records.ids("id")?,
            sources,
            contents,
            marks: marks.unwrap_or_default(),
            entities,
            history,
            decisions,
            unlinkable: unlinkable.unwrap_or_default(),
        };
        Ok(EntityModel::from_parts(parts).map_err(wrong)?.into())
    }

    fn linkage(&self, manifest: &Manifest) -> Result<Linkage> {
        let names = numbered(self.comparisons.len());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let comparison = |of: &StoredComparison| {
            let kind = Compared::parse(&of.kind);
            Ok(Comparison {
                column: of.column.clone(),
                kind: kind.ok_or_else(|| Error::invalid("it compares in a way that is none"))?,
                m: of.m.clone(),
                u: of.u.clone(),
                h: of.h.clone(),
                is_own: of.is_own,
                placeholders: of.placeholders.clone(),
            })
        };
        let rule = |stored: &StoredRule| {
            let expressions = stored.expressions.iter();
            let expressions: Vec<Expression> = expressions
                .map(|of| Expression { text: of.text.clone(), columns: of.columns })
                .collect();
            let keys = match stored.keys.is_empty() && !expressions.is_empty() {
                true => Some(vec![]),
                false => Rule::parse(&stored.keys, &names).map(|rule| rule.keys),
            };
            let keys = keys.ok_or_else(|| Error::invalid("it has a rule that is none"))?;
            Ok(UsedRule {
                rule: Rule { keys, expressions },
                text: stored.rule.clone(),
                cost: Cost {
                    pairs: stored.pairs,
                    skipped_blocks: stored.skipped_blocks,
                    skipped_records: stored.skipped_records,
                    keyed: stored.keyed,
                },
                recall: stored.recall,
                expected: stored.expected,
            })
        };
        let dependence = |[on, level, column]: &[usize; 3]| Dependence {
            on: *on,
            level: *level,
            column: *column,
        };
        let linkage = Linkage {
            comparisons: self.comparisons.iter().map(comparison).collect::<Result<_>>()?,
            lambda: self.lambda,
            eta: self.eta,
            dependences: self.dependences.iter().map(dependence).collect(),
            rules: self.rules.iter().map(rule).collect::<Result<_>>()?,
            objective: manifest.iterations.iter().map(|now| -now.loss).collect(),
            block_max: self.block_max,
        };
        linkage.check().map_err(wrong)?;
        Ok(linkage)
    }
}

/// Names of columns by their positions.
fn numbered(columns: usize) -> Vec<String> {
    (0..columns).map(|at| format!("c{at}")).collect()
}

/// What the files hold.
///
/// # Errors
/// When an entity cannot be kept.
pub fn pieces(model: &EntityModel) -> Result<Pieces<'_>> {
    let parts = model.parts();
    let mut records = vec![
        ("id", Column::Ids(Arc::clone(&parts.ids))),
        ("content", Column::Ids(Arc::new(UInt64Array::from(parts.contents.clone())))),
        ("entity", of_entities(parts.entities.iter().copied())?),
    ];
    if let Some(sources) = &parts.sources {
        records.push(("source", Column::Ids(Arc::clone(sources))));
    }
    let mut pieces = BTreeMap::from([("records", records)]);
    if !parts.marks.is_empty() {
        let marks = Column::Ids(Arc::new(UInt64Array::from(parts.marks.clone())));
        pieces.insert("blocked", vec![("mark", marks)]);
    }
    let history = &parts.history;
    if !history.is_empty() {
        let name = |event: &Event| EVENTS.iter().find(|(what, _)| *what == event.what);
        let names = history.iter().map(|event| name(event).map_or("", |(_, name)| *name));
        let columns = vec![
            ("version", counts(history.iter().map(|event| event.version))),
            ("event", Column::Ids(Arc::new(StringArray::from_iter_values(names)))),
            ("entity", of_entities(history.iter().map(|event| event.entity))?),
            ("other", of_entities(history.iter().map(|event| event.other.unwrap_or(0)))?),
            ("records", counts(history.iter().map(|event| event.records))),
        ];
        pieces.insert("history", columns);
    }
    let decisions = &parts.decisions;
    if !decisions.is_empty() {
        let columns = vec![
            ("left", counts(decisions.iter().map(|decision| decision.left))),
            ("right", counts(decisions.iter().map(|decision| decision.right))),
            ("is_match", counts(decisions.iter().map(|decision| u32::from(decision.is_match)))),
        ];
        pieces.insert("decisions", columns);
    }
    if !parts.unlinkable.is_empty() {
        let records = counts(parts.unlinkable.iter().copied());
        pieces.insert("unlinkable", vec![("record", records)]);
    }
    Ok(pieces)
}

fn counts(values: impl Iterator<Item = u32>) -> Column<'static> {
    Column::Ids(Arc::new(UInt32Array::from_iter_values(values)))
}

/// Entities as 16 bytes each.
fn of_entities(entities: impl Iterator<Item = u128>) -> Result<Column<'static>> {
    let bytes = FixedSizeBinaryArray::try_from_iter(entities.map(u128::to_be_bytes));
    let bytes = bytes.map_err(|error| Error::invalid(error.to_string()))?;
    Ok(Column::Ids(Arc::new(bytes)))
}

fn entities(column: &ArrayRef) -> Result<Vec<u128>> {
    let bytes = column.as_fixed_size_binary_opt();
    let bytes = bytes.ok_or_else(|| Error::invalid("its entities are no ids"))?;
    let id = |at: usize| {
        let bytes: [u8; 16] = bytes.value(at).try_into().ok()?;
        Some(u128::from_be_bytes(bytes))
    };
    let ids: Option<Vec<u128>> = (0..bytes.len()).map(id).collect();
    ids.ok_or_else(|| Error::invalid("its entities have no 16 bytes"))
}

fn numbers(column: &ArrayRef) -> Result<Vec<u64>> {
    let numbers = column.as_primitive_opt::<UInt64Type>();
    Ok(numbers.ok_or_else(|| Error::invalid("it holds no 64-bit numbers"))?.values().to_vec())
}

fn small_numbers(column: &ArrayRef) -> Result<Vec<u32>> {
    let numbers = column.as_primitive_opt::<UInt32Type>();
    Ok(numbers.ok_or_else(|| Error::invalid("it holds no 32-bit numbers"))?.values().to_vec())
}

fn history(mut table: Table) -> Result<Vec<Event>> {
    let events = table.ids("event")?;
    let events = events.as_string_opt::<i32>();
    let events = events.ok_or_else(|| Error::invalid("its history is no text"))?;
    let what = events.iter().map(|name| {
        let known = EVENTS.iter().find(|(_, known)| Some(*known) == name);
        known.map(|(what, _)| *what).ok_or_else(|| Error::invalid("its history has an event"))
    });
    let what: Vec<What> = what.collect::<Result<_>>()?;
    let (versions, records) =
        (small_numbers(&table.ids("version")?)?, small_numbers(&table.ids("records")?)?);
    let (own, others) = (entities(&table.ids("entity")?)?, entities(&table.ids("other")?)?);
    let event = |at: usize| Event {
        version: versions[at],
        what: what[at],
        entity: own[at],
        other: Some(others[at]).filter(|other| *other != 0),
        records: records[at],
    };
    Ok((0..what.len()).map(event).collect())
}

fn decisions(mut table: Table) -> Result<Vec<Decision>> {
    let mut column = |name: &str| small_numbers(&table.ids(name)?);
    let (left, right, is_match) = (column("left")?, column("right")?, column("is_match")?);
    let decision =
        |at: usize| Decision { left: left[at], right: right[at], is_match: is_match[at] == 1 };
    Ok((0..left.len()).map(decision).collect())
}

fn wrong(error: ModelError) -> Error {
    Error::invalid(error.to_string())
}
