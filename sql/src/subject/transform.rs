//! What a copy has made of ids, done again with the ids of a person.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::Catalog;
use catalog::subject_copies::Transformation;
use udfs::privacy::{Key, KeyRing};

use super::ids::ID;
use super::person::{literal, rows, texts};
use crate::error::{Class, Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// What became of some ids.
pub(super) struct Made {
    /// What is known of it.
    pub(super) values: BTreeSet<String>,
    /// Why there may be more.
    pub(super) doubt: Option<String>,
}

/// Does again what was done to ids, in order.
///
/// # Errors
/// When the warehouse cannot be reached, or the statement is to end.
pub(super) async fn made_of(
    run: &Run,
    context: &Arc<StatementContext>,
    ids: BTreeSet<String>,
    by: &[Transformation],
) -> Result<Made> {
    let mut made = Made { values: ids, doubt: None };
    for step in by {
        if made.values.is_empty() {
            break;
        }
        let next = match step {
            Transformation::Expression(text) => {
                expressed(run, context, &made.values, text).await.map(|values| (values, None))
            }
            Transformation::Pseudonym { key, id } | Transformation::Ciphertext { key, id } => {
                keyed(context, &made.values, step, (key.as_str(), id.as_str())).await
            }
        };
        match next {
            Ok((values, doubt)) => {
                made.values = values;
                made.doubt = made.doubt.or(doubt);
            }
            Err(error) if ends(&error) => return Err(error),
            Err(_) => {
                made.values = BTreeSet::new();
                made.doubt = Some(format!("{step} cannot be computed"));
            }
        }
    }
    Ok(made)
}

/// Whether an error is about the statement rather than about what it computes.
fn ends(error: &Error) -> bool {
    matches!(
        error.class(),
        Class::Unavailable | Class::Cancelled | Class::TimedOut | Class::Exhausted
    )
}

/// What an SQL expression over `id` makes of ids.
async fn expressed(
    run: &Run,
    context: &Arc<StatementContext>,
    ids: &BTreeSet<String>,
    expression: &str,
) -> Result<BTreeSet<String>> {
    let ids = ids.iter().map(|id| format!("({})", literal(id))).collect::<Vec<_>>().join(", ");
    let text = format!(
        "SELECT DISTINCT CAST({expression} AS VARCHAR) AS made FROM (VALUES {ids}) AS ids ({ID})"
    );
    texts(&rows(run, context, &text).await?)
}

/// What a step makes of an id under a generation of its key.
///
/// # Errors
/// When the key cannot be used.
pub(crate) fn under(step: &Transformation, generation: &Key, id: &str) -> Result<String> {
    Ok(match step {
        Transformation::Expression(text) => {
            return Err(Error::Internal(format!("{text} takes no key")));
        }
        Transformation::Pseudonym { .. } => udfs::privacy::pseudonym(generation, id)?,
        Transformation::Ciphertext { .. } => udfs::privacy::ciphertext(generation, id)?,
    })
}

/// What ids become under every generation of a key, and what is not known of that.
async fn keyed(
    context: &StatementContext,
    ids: &BTreeSet<String>,
    step: &Transformation,
    (name, first): (&str, &str),
) -> Result<(BTreeSet<String>, Option<String>)> {
    let Some((ring, is_whole)) = ring(context.engine().catalog(), name, first).await? else {
        return Ok((BTreeSet::new(), Some(format!("key {name} is gone"))));
    };
    let mut values = BTreeSet::new();
    for generation in ring.generations() {
        for id in ids {
            values.insert(under(step, generation, id)?);
        }
    }
    let doubt = (!is_whole).then(|| format!("a generation of key {name} is retired"));
    Ok((values, doubt))
}

/// The generations of a key that has one of this id, and whether they are all that there ever
/// were; `None` where the key is gone.
async fn ring(catalog: &Catalog, name: &str, first: &str) -> Result<Option<(KeyRing, bool)>> {
    let known = catalog.keys().await?.into_iter().find(|key| key.name == name);
    let known = known.filter(|key| key.generations.iter().any(|known| known.id == first));
    let Some(known) = known else { return Ok(None) };
    let ring = catalog.key_ring(name, None).await?;
    // Of a key of the configuration those that were taken away are not known, but their number is.
    let is_first = known.generations.last().is_some_and(|oldest| oldest.number() == 1);
    let is_whole = is_first && ring.generations().count() == known.generations.len();
    Ok(Some((ring, is_whole)))
}

/// Whether what was done to ids can be done again as every generation of a key may have done it.
///
/// # Errors
/// When it is not known which keys there are.
pub(crate) async fn can_be_made(catalog: &Catalog, by: &[Transformation]) -> Result<bool> {
    for step in by {
        match step {
            Transformation::Expression(_) => {}
            Transformation::Pseudonym { key, id } | Transformation::Ciphertext { key, id } => {
                let found = ring(catalog, key, id).await;
                let is_whole = match found {
                    Ok(found) => found.is_some_and(|(_, is_whole)| is_whole),
                    Err(error) if ends(&error) => return Err(error),
                    Err(_) => false,
                };
                if !is_whole {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}
