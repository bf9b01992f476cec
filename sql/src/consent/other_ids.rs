//! Consents under other ids: what a mask or an expression has made of the ids of a policy's
//! persons, done again with the ids that consents are told under.
//!
//! A model of masked users is asked of masked ids and, by whoever the mask does not bind, of the
//! persons' own: both are looked for. Of ids that become the same one all have to consent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use catalog::Error as CatalogError;
use catalog::subject_copies::Transformation;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use udfs::privacy::Key;

use crate::dml::sent::name_rows;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::subject::under;
use crate::subject::users::Ways;

/// How other ids are made, with the generations of keys that it takes.
pub(super) struct OtherIds {
    ways: Ways,
    keys: HashMap<(String, String), Arc<Key>>,
}

impl OtherIds {
    /// For the ways in which a model's users were made.
    ///
    /// # Errors
    /// When a generation of a key is retired or gone: then nobody can tell who they are.
    pub(super) async fn new(engine: &Engine, ways: &Ways) -> Result<Self> {
        let needed: BTreeSet<_> = ways.iter().flatten().filter_map(generation).collect();
        let mut keys = HashMap::new();
        for (name, id) in needed {
            keys.insert((name.clone(), id.clone()), key(engine, name, id).await?);
        }
        let as_they_are = vec![];
        let ways: Ways = ways.iter().cloned().chain([as_they_are]).collect();
        Ok(Self { ways, keys })
    }

    /// What tells them apart from others.
    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// The ids of those who have withdrawn, or of the others, given persons and whether they have.
    ///
    /// # Errors
    /// When an id cannot be made.
    pub(super) async fn whose(
        &self,
        context: &Arc<StatementContext>,
        verdicts: Vec<(ArrayRef, ArrayRef)>,
        have_withdrawn: bool,
    ) -> Result<ArrayRef> {
        let verdicts = verdicts.into_iter().map(|(persons, withdrawn)| {
            rows(cast(&persons, &DataType::Utf8)?, cast(&withdrawn, &DataType::Boolean)?)
        });
        let verdicts = verdicts.collect::<Result<Vec<RecordBatch>>>()?;
        let mut all: HashMap<String, bool> = HashMap::new();
        for way in &self.ways {
            let mut made = verdicts.clone();
            for step in way {
                made = self.stepped(context, made, step).await?;
            }
            for batch in &made {
                let (ids, withdrawn) = columns(batch)?;
                for (id, has_withdrawn) in ids.iter().zip(withdrawn) {
                    // Of whom nothing is told the policy's default holds.
                    let Some((id, has_withdrawn)) = id.zip(has_withdrawn) else { continue };
                    match all.get_mut(id) {
                        Some(known) => *known |= has_withdrawn,
                        None => {
                            all.insert(id.to_owned(), has_withdrawn);
                        }
                    }
                }
            }
        }
        let whose = all.iter().filter(|(_, known)| **known == have_withdrawn);
        Ok(Arc::new(StringArray::from_iter_values(whose.map(|(id, _)| id))))
    }

    async fn stepped(
        &self,
        context: &Arc<StatementContext>,
        batches: Vec<RecordBatch>,
        step: &Transformation,
    ) -> Result<Vec<RecordBatch>> {
        let Some((name, id)) = generation(step) else {
            return expressed(context, batches, &step.to_string()).await;
        };
        let Some(key) = self.keys.get(&(name.clone(), id.clone())) else {
            return Err(Error::Internal("ids are made under a key that was not read".into()));
        };
        let sealed = batches.into_iter().map(|batch| {
            let (ids, _) = columns(&batch)?;
            let made = ids.iter().map(|id| id.map(|id| under(step, key, id)).transpose());
            let made = made.collect::<Result<StringArray>>()?;
            rows(Arc::new(made), Arc::clone(batch.column(1)))
        });
        sealed.collect()
    }
}

/// The generation of a key that a step takes: its name and id.
fn generation(step: &Transformation) -> Option<(&String, &String)> {
    match step {
        Transformation::Expression(_) => None,
        Transformation::Pseudonym { key, id } | Transformation::Ciphertext { key, id } => {
            Some((key, id))
        }
    }
}

async fn key(engine: &Engine, name: &str, id: &str) -> Result<Arc<Key>> {
    let ring = match engine.catalog().key_ring(name, None).await {
        Ok(ring) => Some(ring),
        Err(CatalogError::NotFound { .. } | CatalogError::Invalid { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let found = ring.as_ref().and_then(|ring| ring.generations().find(|key| key.id() == id));
    found.cloned().ok_or_else(|| {
        Error::invalid_hint(
            "the model learned of users under a generation of a key that is retired or gone, so \
             that nobody can tell which of them consent",
            "RETRAIN MODEL learns of users as they are shown now",
        )
    })
}

/// Rows of ids and of whether they have withdrawn.
fn rows(ids: ArrayRef, withdrawn: ArrayRef) -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("withdrawn", DataType::Boolean, true),
    ]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![ids, withdrawn])?)
}

fn columns(batch: &RecordBatch) -> Result<(&StringArray, &BooleanArray)> {
    match batch.columns() {
        [ids, withdrawn] => Ok((ids.as_string::<i32>(), withdrawn.as_boolean())),
        _ => Err(Error::Internal("a verdict is not of an id and a word".into())),
    }
}

/// The rows with what an SQL expression over `id` makes of the ids.
async fn expressed(
    context: &Arc<StatementContext>,
    batches: Vec<RecordBatch>,
    expression: &str,
) -> Result<Vec<RecordBatch>> {
    let Some(first) = batches.first() else { return Ok(batches) };
    let table = MemTable::try_new(first.schema(), vec![batches])?;
    let relation = name_rows(context, Arc::new(table));
    let text = format!(
        "SELECT CAST({expression} AS VARCHAR) AS id, withdrawn FROM {relation} AS ids (id, withdrawn)"
    );
    let (state, plan) = Box::pin(context.plan_query(parse_query(&text)?)).await?;
    let plan = state.create_physical_plan(&plan).await?;
    let mut stream = execute_stream(plan, state.task_ctx())?;
    let mut made = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        match batch.columns() {
            [ids, withdrawn] => {
                made.push(rows(cast(ids, &DataType::Utf8)?, Arc::clone(withdrawn))?);
            }
            _ => return Err(Error::Internal("ids were made as something else".into())),
        }
    }
    Ok(made)
}
