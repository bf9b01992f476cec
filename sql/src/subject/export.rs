//! EXPORT SUBJECT: everything that is held about a person, as rows of JSON (GDPR art. 15 and 20).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::array_value_to_string;
use catalog::ObjectName;
use catalog::models::LoadedModel;
use serde_json::{Value, json};
use udfs::model::entity_resolution::model::uuid;
use udfs::model::hybrid::Base;
use udfs::model::{AlsModel, Model};

use super::person::{Person, Standing, find, rows, stand, unread};
use super::syntax::Who;
use crate::error::{CatalogError, Class, Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// Bytes of one export: a person's rows are few, and what is more is a mistake.
const BYTES_MAX: usize = 256 << 20;

/// The columns of the answer: what holds something (`table` or `model`), its name, and one row of
/// it, what it learned, or why it cannot be read, as JSON.
pub(crate) fn export_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("kind"), text("source"), text("content")]))
}

/// The answer so far.
#[derive(Default)]
struct Found {
    kinds: Vec<&'static str>,
    sources: Vec<String>,
    contents: Vec<String>,
    bytes: usize,
}

impl Found {
    fn add(&mut self, kind: &'static str, source: &str, content: String) -> Result<()> {
        self.bytes = self.bytes.saturating_add(content.len()).saturating_add(source.len());
        if self.bytes > BYTES_MAX {
            return Err(Error::Exhausted {
                what: format!("the export has more than {} MiB", BYTES_MAX >> 20),
            });
        }
        self.kinds.push(kind);
        self.sources.push(source.to_owned());
        self.contents.push(content);
        Ok(())
    }

    fn batch(self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(self.kinds)),
            Arc::new(StringArray::from(self.sources)),
            Arc::new(StringArray::from(self.contents)),
        ];
        Ok(RecordBatch::try_new(export_schema(), columns)?)
    }
}

/// Everything that tables and models hold of a person.
pub(super) async fn run(run: &Run, who: &Who) -> Result<RecordBatch> {
    let context = StatementContext::load(&run.session).await?;
    let person = find(run, &context, who).await?;
    let mut found = Found::default();
    for table in person.tables() {
        let source = table.to_string();
        match Box::pin(held_in(run, &context, &person, &table)).await {
            Ok(batches) => {
                for batch in &batches {
                    for line in json_lines(batch)? {
                        found.add("table", &source, line)?;
                    }
                }
            }
            // What is left out of an answer is named in it.
            Err(error) => {
                let note = json!({ "unreadable": unread(&table, error)? });
                found.add("table", &source, note.to_string())?;
            }
        }
    }
    let learned_of = models(run, &context, &person).await?;
    for (name, version, error) in &learned_of.damaged {
        let note = json!({ "unreadable": unreadable(name, *version, error) });
        found.add("model", &format!("{name}@{version}"), note.to_string())?;
    }
    for (model, held) in learned_of.held {
        for object in learned(&model, &held)? {
            found.add("model", &model.to_string(), object.to_string())?;
        }
    }
    found.batch()
}

/// The person's rows of a table.
async fn held_in(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    table: &ObjectName,
) -> Result<Vec<RecordBatch>> {
    let Some(Standing { relation, schema }) = stand(context, table, None).await? else {
        return Ok(vec![]);
    };
    let Some(condition) = person.rows_of(table, &schema) else { return Ok(vec![]) };
    rows(run, context, &format!("SELECT * FROM {relation} WHERE {condition}")).await
}

/// A JSON object a row, with every column.
fn json_lines(batch: &RecordBatch) -> Result<Vec<String>> {
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<Vec<u8>, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner())
        .map_err(|_| Error::Internal("a row was written as no text".into()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What of a model is a person's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Codes among the users of a recommender, ascending.
    pub(super) users: Vec<u32>,
    /// Places among the records of a model of entities.
    pub(super) records: Vec<usize>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.records.is_empty()
    }

    /// What a model holds of a person, who has these ids there.
    pub(super) fn of(
        person: &Person,
        loaded: &LoadedModel,
        ids: &BTreeSet<String>,
    ) -> Result<Self> {
        let mut held = Self::default();
        if !person.may_be_in(&loaded.manifest) {
            return Ok(held);
        }
        let model = &loaded.model;
        if let Some(recommender) = model.recommender() {
            let ids: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
            let found = recommender.user_ids().lookup(&ids);
            let found = found.map_err(|error| Error::Internal(error.to_string()))?;
            held.users = found.into_iter().flatten().collect();
            held.users.sort_unstable();
            held.users.dedup();
        }
        if let Some(entities) = model.entities() {
            let records = &entities.parts().ids;
            for at in 0..records.len() {
                if ids.contains(&array_value_to_string(records, at)?) {
                    held.records.push(at);
                }
            }
        }
        Ok(held)
    }
}

/// What models hold of a person.
pub(super) struct Learned {
    /// Every version of every model that holds something.
    pub(super) held: Vec<(LoadedModel, Held)>,
    /// The versions that cannot be read, and why.
    pub(super) damaged: Vec<(ObjectName, u32, CatalogError)>,
    /// Why versions may hold more, in words.
    unsearched: Vec<String>,
}

impl Learned {
    /// What is not known, in words.
    pub(super) fn doubts(&self) -> impl Iterator<Item = String> {
        let damaged = self.damaged.iter();
        let damaged = damaged.map(|(name, version, error)| unreadable(name, *version, error));
        damaged.chain(self.unsearched.iter().cloned())
    }
}

/// What is said of a version that cannot be read.
pub(super) fn unreadable(name: &ObjectName, version: u32, error: &CatalogError) -> String {
    format!("model {name}@{version} cannot be read and may hold the person: {error}")
}

/// Every version of every model that holds something of the person.
pub(super) async fn models(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
) -> Result<Learned> {
    let catalog = context.engine().catalog();
    let mut found = Learned { held: vec![], damaged: vec![], unsearched: vec![] };
    for (name, versions) in catalog.model_versions().await? {
        for version in versions {
            let model = match catalog.load_model(&name, Some(version)).await {
                Ok(model) => model,
                // It was dropped meanwhile.
                Err(CatalogError::NotFound { .. }) => continue,
                Err(error) if error.class() == Class::Corrupt => {
                    found.damaged.push((name.clone(), version, error));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let (ids, doubt) = person.ids_in(run, context, &model.manifest.users_of).await?;
            found.unsearched.extend(
                doubt.map(|doubt| format!("model {name}@{version} may hold the person: {doubt}")),
            );
            let held = Held::of(person, &model, &ids)?;
            if !held.is_empty() {
                found.held.push((model, held));
            }
        }
    }
    Ok(found)
}

/// What a model has learned of a person, an object each user or record.
fn learned(model: &LoadedModel, held: &Held) -> Result<Vec<Value>> {
    let mut learned = Vec::new();
    let model_type = model.model.type_name();
    if let Some(recommender) = model.model.recommender() {
        let (users, items) = (recommender.user_ids().values(), recommender.item_ids().values());
        for code in &held.users {
            let (own, weights) = recommender.seen().row(*code as usize);
            let mut interactions = Vec::with_capacity(own.len());
            for (item, weight) in own.iter().zip(weights) {
                let item = array_value_to_string(&items, *item as usize)?;
                interactions.push(json!({ "item": item, "weight": weight }));
            }
            learned.push(json!({
                "model_type": model_type,
                "user": array_value_to_string(&users, *code as usize)?,
                "interactions": interactions,
                "factors": factors(&model.model, *code),
            }));
        }
    }
    if let Some(entities) = model.model.entities() {
        let parts = entities.parts();
        for at in &held.records {
            learned.push(json!({
                "model_type": model_type,
                "record": array_value_to_string(&parts.ids, *at)?,
                "entity": parts.entities.get(*at).map(|entity| uuid(*entity)),
            }));
        }
    }
    Ok(learned)
}

/// The factors of a user, in each factorization of a model.
fn factors(model: &Model, code: u32) -> Vec<&[f32]> {
    let of = |als: &'_ AlsModel| {
        let start = code as usize * als.num_factors();
        start..start + als.num_factors()
    };
    match model {
        Model::Als(als) => als.user_factors().get(of(als)).into_iter().collect(),
        Model::Hybrid(blend) => {
            let members = blend.members().filter_map(|member| match &member.base {
                Base::Als(als) => als.user_factors().get(of(als)),
                _ => None,
            });
            members.collect()
        }
        _ => vec![],
    }
}
