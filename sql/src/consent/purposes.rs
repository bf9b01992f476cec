//! CREATE PURPOSE and its kin, and a user's default purpose.

use std::sync::Arc;

use catalog::policy::Role;
use catalog::{Catalog, CreateMode, Purpose, SELL_OR_SHARE};

use super::Change;
use super::syntax::PurposeAlteration;
use crate::error::{Error, Result};
use crate::rights::Rights;
use crate::session::StatementContext;

/// Characters of a purpose's or policy's name.
const NAME_CHARS_MAX: usize = 128;
/// Characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// The query behind SHOW PURPOSES.
pub(super) const SHOWN: &str =
    "SELECT name, description, held, is_default FROM system.purposes ORDER BY name";

pub(super) fn create(
    context: &Arc<StatementContext>,
    name: &str,
    mode: CreateMode,
    description: Option<String>,
    sells_or_shares: bool,
) -> Result<Change> {
    context.rights().may_set_policy("create purposes")?;
    check_name(name, "purpose")?;
    check_description(description.as_deref())?;
    let owner = context.rights().name().to_owned();
    let created_ms = context.engine().catalog().now_ms();
    let name = name.to_owned();
    let purpose = Purpose { name, description, sells_or_shares, owner, created_ms };
    Ok(Change::CreatePurpose(Box::new(purpose), mode))
}

pub(super) async fn alter(
    context: &Arc<StatementContext>,
    name: &str,
    alteration: &PurposeAlteration,
) -> Result<Change> {
    context.rights().may_set_policy("change purposes")?;
    if let PurposeAlteration::Description(description) = alteration {
        check_description(description.as_deref())?;
    }
    let catalog = context.engine().catalog();
    match catalog.purposes().await?.get(name) {
        Some(_) => {
            Ok(Change::AlterPurpose { name: name.to_owned(), alteration: alteration.clone() })
        }
        None => Err(unknown(catalog, name).await),
    }
}

/// ALTER USER … SET DEFAULT PURPOSE: one's own, or as a policy_admin. A default that its user does
/// not hold is none, whatever was set.
pub(super) async fn default_of(
    context: &Arc<StatementContext>,
    user: &str,
    purpose: Option<&str>,
) -> Result<Change> {
    let rights = context.rights();
    may_set_default(rights, user)?;
    let catalog = context.engine().catalog();
    if catalog.accounts_with(user).await?.user(user).is_none() {
        return Err(Catalog::unknown_user(user).into());
    }
    if let Some(purpose) = purpose {
        match rights.has(Role::PolicyAdmin) {
            true if catalog.purposes().await?.get(purpose).is_none() => {
                return Err(unknown(catalog, purpose).await);
            }
            true => {}
            false => rights.purposes().check(rights.name(), purpose)?,
        }
    }
    Ok(Change::DefaultPurpose { user: user.to_owned(), purpose: purpose.map(str::to_owned) })
}

/// Whether somebody's default purpose may be set.
///
/// # Errors
/// When it may not.
pub(super) fn may_set_default(rights: &Rights, user: &str) -> Result<()> {
    match rights.name() == user {
        true => Ok(()),
        false => rights.may_set_policy("set the default purpose of others"),
    }
}

/// The query behind DESCRIBE PURPOSE.
pub(super) async fn described(context: &Arc<StatementContext>, name: &str) -> Result<String> {
    let catalog = context.engine().catalog();
    let rights = context.rights();
    let sees = sees_all(rights) || rights.purposes().holds(name);
    if !sees || catalog.purposes().await?.get(name).is_none() {
        return match sees_all(rights) {
            true => Err(unknown(catalog, name).await),
            false => Err(Error::invalid_hint(
                format!("purpose {name} does not exist"),
                rights.purposes().listed(),
            )),
        };
    }
    let text = name.replace('\'', "''");
    Ok(format!("SELECT * FROM system.purposes WHERE name = '{text}'"))
}

/// Whether somebody sees purposes that it does not hold.
pub(super) fn sees_all(rights: &Rights) -> bool {
    rights.has(Role::PolicyAdmin) || rights.has(Role::Admin)
}

/// The error for a purpose that does not exist; for those who may see all of them.
pub(super) async fn unknown(catalog: &Catalog, name: &str) -> Error {
    let all = catalog.purposes().await.unwrap_or_default();
    let known: Vec<&str> = all.all().map(|purpose| purpose.name.as_str()).collect();
    Error::unknown("purpose", name, known)
}

/// A name that needs no escape in a header or a log line.
pub(super) fn check_name(name: &str, kind: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        return Err(Error::invalid_hint(
            format!("{name:?} cannot be a {kind}'s name"),
            format!("use at most {NAME_CHARS_MAX} letters, digits and _ - ."),
        ));
    }
    if ["none", "default", "all", SELL_OR_SHARE].contains(&name) {
        return Err(Error::invalid_hint(
            format!("{name} cannot be a {kind}'s name: it has a meaning already"),
            "choose another name",
        ));
    }
    Ok(())
}

fn check_description(description: Option<&str>) -> Result<()> {
    match description.is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX) {
        true => Err(Error::invalid(format!(
            "the description has more than {DESCRIPTION_CHARS_MAX} characters"
        ))),
        false => Ok(()),
    }
}
