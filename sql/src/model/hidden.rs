//! Persons of whom a model has learned and whom nobody may see by now: restricted ones, and erased
//! ones that it has not unlearned. They are left out as those who do not consent, whatever the
//! model was trained for.
//!
//! Who they are is looked for once a version, and again when what is known of persons has changed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{can_cast_types, filter};
use arrow::datatypes::DataType;
use catalog::hidden_users::KnownPersons;
use catalog::models::LoadedModel;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use parking_lot::Mutex;
use udfs::consent::{ConsentSet, SubjectKind};
use udfs::privacy::{SubjectTokens, Token};

use super::learn;
use super::leavers::persons;
use crate::consent::seed;
use crate::engine::Engine;
use crate::error::Result;

/// Whom the versions of one engine's models must not show.
#[derive(Default)]
pub(crate) struct HiddenStore {
    /// By the id of a version.
    held: Mutex<HashMap<String, Held>>,
    // One looks while the others wait for what it finds.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for HiddenStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HiddenStore({})", self.held.lock().len())
    }
}

/// What was found of one version, and when that holds.
#[derive(Clone)]
struct Held {
    known: KnownPersons,
    hidden: Option<Arc<Hidden>>,
}

/// Persons in a version who may not be shown.
pub(crate) struct Hidden {
    /// Everybody but them.
    pub(crate) others: Arc<ConsentSet>,
    /// The subjects that they are of.
    pub(crate) subjects: Vec<String>,
    /// The place of the set.
    _memory: MemoryReservation,
}

impl HiddenStore {
    fn held(&self, id: &str, known: &KnownPersons) -> Option<Held> {
        self.held.lock().get(id).filter(|held| held.known.is_same(known)).cloned()
    }

    /// Holds what was found; what was found of other versions before something changed is let go.
    fn hold(&self, id: &str, found: Held) {
        let mut held = self.held.lock();
        held.retain(|_, other| other.known.is_same(&found.known));
        held.insert(id.to_owned(), found);
    }
}

/// Whom a model must not show; `None` where nobody is to be left out.
///
/// # Errors
/// When what is known of persons cannot be read: then nobody knows who is hidden.
pub(crate) async fn of_model(engine: &Engine, model: &LoadedModel) -> Result<Option<Arc<Hidden>>> {
    let known = engine.catalog().known_persons().await?;
    let (store, id) = (engine.hidden_users(), model.manifest.id.as_str());
    if let Some(held) = store.held(id, &known) {
        return Ok(held.hidden);
    }
    let _turn = store.turn.lock().await;
    if let Some(held) = store.held(id, &known) {
        return Ok(held.hidden);
    }
    let hidden = look(engine, model, &known).await?.map(Arc::new);
    store.hold(id, Held { known, hidden: hidden.clone() });
    Ok(hidden)
}

async fn look(
    engine: &Engine,
    model: &LoadedModel,
    known: &KnownPersons,
) -> Result<Option<Hidden>> {
    let marked = known.hidden_from(&model.name, &model.manifest)?;
    let Some(ids) = persons(model).filter(|ids| can_cast_types(ids.data_type(), &DataType::Utf8))
    else {
        return Ok(None);
    };
    if marked.is_empty() {
        return Ok(None);
    }
    let catalog = engine.catalog();
    let (tokens, seed) = (catalog.subject_tokens().await?, seed(&catalog.new_id()));
    let Some((set, subjects)) = learn(move || find(&tokens, &ids, &marked, seed)).await?? else {
        return Ok(None);
    };
    let consumer = MemoryConsumer::new(format!("persons hidden in {model}"));
    let memory = consumer.register(&engine.runtime().memory_pool);
    memory.try_grow(set.memory_bytes())?;
    Ok(Some(Hidden { others: Arc::new(set), subjects, _memory: memory }))
}

/// Those among some ids that have a token of a subject's, as exceptions, and these subjects.
fn find(
    tokens: &SubjectTokens,
    ids: &ArrayRef,
    marked: &[(String, HashSet<Token>)],
    seed: u64,
) -> DataFusionResult<Option<(ConsentSet, Vec<String>)>> {
    let (mut found, mut subjects) = (Vec::new(), Vec::new());
    for (subject, marked) in marked {
        let mask = tokens.find(subject, ids, marked)?;
        if mask.true_count() > 0 {
            found.push(filter(ids, &mask)?);
            subjects.push(subject.clone());
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    // What may not fit 64 bits with a sign is compared as text.
    let kind = match ids.data_type() {
        DataType::UInt64 => SubjectKind::Text,
        other => SubjectKind::of(other).unwrap_or(SubjectKind::Text),
    };
    Ok(Some((ConsentSet::new(kind, true, &found, seed)?, subjects)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray, UInt64Array};
    use udfs::consent::consenting;

    use super::*;

    #[test]
    fn whoever_has_a_token_is_left_out_in_every_type() {
        let tokens = SubjectTokens::new(&[7; 32]).unwrap();
        let marked =
            |id: &str| vec![("person".to_owned(), HashSet::from([tokens.token("person", id)]))];
        let wide = u64::MAX.to_string();
        let columns: [(ArrayRef, &str); 3] = [
            (Arc::new(Int32Array::from(vec![1, 2, 3])), "2"),
            (Arc::new(StringArray::from(vec!["a", "b", "c"])), "b"),
            (Arc::new(UInt64Array::from(vec![1, u64::MAX, 3])), wide.as_str()),
        ];
        for (ids, person) in columns {
            let found = find(&tokens, &ids, &marked(person), 3).unwrap();
            let (set, subjects) = found.unwrap();
            assert_eq!((set.len(), subjects), (1, vec!["person".to_owned()]));
            let shown = consenting(&[Arc::new(set)], &ids).unwrap();
            let shown: Vec<bool> = shown.iter().map(|one| one.unwrap()).collect();
            assert_eq!(shown, [true, false, true]);
            assert!(find(&tokens, &ids, &marked("nobody"), 3).unwrap().is_none());
        }
    }
}
