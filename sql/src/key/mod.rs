//! Keys in SQL: CREATE KEY, ALTER KEY … ROTATE, RETIRE GENERATION and REWRAP, DROP KEY and
//! DESCRIBE KEY.
//!
//! `policy_admin` makes keys and grants their uses (GRANT … ON KEY is in [`crate::access`]); what
//! is kept of them, and how, is `catalog`'s. What a statement's functions get of a key is in
//! [`bind`]: no secret is in a plan, an error or a log.

pub(crate) mod bind;
mod held;
pub(crate) mod syntax;

use std::sync::Arc;

use catalog::policy::Securable;
use datafusion::execution::session_state::SessionState;

use self::syntax::KeyStatement;
use crate::error::{Error, Result};
use crate::session::bindings::Bindings;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};

pub use self::bind::UsedKey;

/// How many of those that need a generation an error names.
const HELD_SHOWN: usize = 20;

/// A change of keys.
#[derive(Debug, Clone)]
pub(crate) struct Change(KeyStatement);

/// Plans a statement about keys.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &KeyStatement,
) -> Result<(SessionState, Action)> {
    if let KeyStatement::Describe { name } = statement {
        securable(context, name).await?;
        let query = format!(
            "SELECT name, source, generation, id, state, created, created_by, master_key \
             FROM system.keys WHERE name = '{}' ORDER BY generation DESC",
            name.replace('\'', "''")
        );
        let (state, plan) = context.plan_query(crate::parse::parse_query(&query)?).await?;
        return Ok((state, Action::Query(plan)));
    }
    context.rights().may_manage_keys()?;
    Ok((context.state(&Bindings::default())?, Action::Key(Change(statement.clone()))))
}

/// The key of a name, among those that the principal knows of.
///
/// # Errors
/// When there is none.
pub(crate) async fn securable(context: &Arc<StatementContext>, name: &str) -> Result<Securable> {
    let seen = seen(context).await?;
    match seen.iter().any(|seen| seen == name) {
        true => Ok(Securable::Key(name.to_owned())),
        false => Err(missing(name, &seen)),
    }
}

/// The names of the keys that the principal knows of.
async fn seen(context: &Arc<StatementContext>) -> Result<Vec<String>> {
    let keys = context.engine().catalog().keys().await?;
    let names = keys.into_iter().map(|key| key.name);
    Ok(names.filter(|name| context.rights().sees_key(name)).collect())
}

fn missing(name: &str, seen: &[String]) -> Error {
    let seen = seen.iter().map(String::as_str);
    Error::Catalog(catalog::Error::not_found("key", name, seen))
}

impl Change {
    /// Whether it looks through tables.
    pub(crate) fn searches(&self) -> bool {
        matches!(
            self.0,
            KeyStatement::Retire { force: false, .. } | KeyStatement::Drop { force: false, .. }
        )
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let context = &StatementContext::load(&run.session).await?;
        context.rights().may_manage_keys()?;
        let (catalog, by) = (context.engine().catalog(), context.rights().name());
        match &self.0 {
            KeyStatement::Create { name, if_not_exists } => {
                let made = catalog.create_key(name, by, *if_not_exists).await?;
                let message = match made {
                    true => format!(
                        "CREATE KEY {name}: GRANT USAGE ON KEY {name} TO … FOR PSEUDONYMIZE, \
                         ENCRYPT or DECRYPT says who may use it"
                    ),
                    false => format!("{name} exists already, nothing was changed"),
                };
                Ok(Done::new(u64::from(made), message))
            }
            KeyStatement::Rotate { name } => {
                let number = catalog.rotate_key(name, by).await?;
                let message = format!(
                    "ALTER KEY {name}: generation {number} makes what is made from now on; what \
                     older ones sealed still opens, and rekey(value, '{name}') seals it anew"
                );
                Ok(Done::new(1, message))
            }
            KeyStatement::Retire { name, generation, force } => {
                if !force {
                    let held = Box::pin(held::of(run, context, name, Some(*generation))).await?;
                    refuse_held(
                        &held,
                        &format!("generation {generation} of key {name}"),
                        &format!(
                            "move them first: UPDATE … SET c = rekey(c, '{name}') for sealed \
                             values, pseudonyms from their identifiers; or ALTER KEY {name} RETIRE \
                             GENERATION {generation} FORCE, after which nothing opens them"
                        ),
                    )?;
                }
                catalog.retire_generation(name, *generation).await?;
                let message = format!(
                    "ALTER KEY {name}: generation {generation} is gone, and nothing opens what it \
                     sealed"
                );
                Ok(Done::new(1, message))
            }
            KeyStatement::Rewrap { name } => {
                let message = match catalog.rewrap_key(name).await? {
                    0 => {
                        format!("{name} is under the first master key already, nothing was changed")
                    }
                    count => format!(
                        "ALTER KEY {name}: {count} secrets are under the first master key now; what \
                         was made with the key is as it was"
                    ),
                };
                Ok(Done::new(0, message))
            }
            KeyStatement::Drop { names, if_exists, force } => {
                if !force {
                    for name in names {
                        let held = Box::pin(held::of(run, context, name, None)).await?;
                        refuse_held(
                            &held,
                            &format!("key {name}"),
                            &format!(
                                "open them first, or seal them under another key; or DROP KEY \
                                 {name} FORCE, after which nothing opens them"
                            ),
                        )?;
                    }
                }
                drop_keys(context, names, *if_exists).await
            }
            KeyStatement::Describe { .. } => {
                Err(Error::Internal("DESCRIBE KEY changes no key".into()))
            }
        }
    }
}

/// Refuses to take away a generation or a key that something is known to need; `instead` tells what
/// to do.
fn refuse_held(held: &[String], what: &str, instead: &str) -> Result<()> {
    if held.is_empty() {
        return Ok(());
    }
    let shown = held.iter().take(HELD_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = match held.len().saturating_sub(HELD_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::invalid_hint(format!("{what} is needed by {shown}{more}"), instead))
}

async fn drop_keys(
    context: &Arc<StatementContext>,
    names: &[String],
    if_exists: bool,
) -> Result<Done> {
    let mut dropped = 0;
    for name in names {
        match context.engine().catalog().drop_key(name).await? {
            true => dropped += 1,
            false if if_exists => {}
            false => return Err(missing(name, &seen(context).await?)),
        }
    }
    let message = format!("DROP KEY {}: nothing opens what it sealed", names.join(", "));
    Ok(Done::new(dropped, message))
}
