//! Rights that do not depend on grants: who may define what where.
//!
//! An analyst creates in the schema that bears its name; `engineer` also external tables; `admin`
//! everywhere. Only `policy_admin` decrypts.

use catalog::ObjectName;
use catalog::policy::{Principal, Role};

use crate::error::{Error, Result};
use crate::system;

/// Whether a principal may create, change or drop tables, views and models under a name.
///
/// # Errors
/// When it may not.
pub fn may_create(principal: &Principal, name: &ObjectName) -> Result<()> {
    if system::is_system(&name.schema) {
        return Err(denied(principal, name, "system schemas are made by Attune"));
    }
    if principal.has(Role::Admin) || name.schema == principal.name {
        return Ok(());
    }
    let hint = format!("create it in your own schema: {}.{}", principal.name, name.name);
    Err(denied(principal, name, &hint))
}

/// Whether a principal may define external tables.
///
/// # Errors
/// When it may not.
pub fn may_create_external(principal: &Principal, name: &ObjectName) -> Result<()> {
    if system::is_system(&name.schema) {
        return Err(denied(principal, name, "system schemas are made by Attune"));
    }
    if principal.has(Role::Admin) || principal.has(Role::Engineer) {
        return Ok(());
    }
    Err(denied(principal, name, "external tables need the role engineer"))
}

/// Whether a principal may turn encrypted values back: never implied by reading them.
///
/// # Errors
/// When it may not.
pub fn may_decrypt(principal: &Principal) -> Result<()> {
    if principal.has(Role::PolicyAdmin) {
        return Ok(());
    }
    Err(Error::Denied {
        principal: principal.name.clone(),
        action: "decrypt".into(),
        hint: Some("decrypting needs the role policy_admin".into()),
    })
}

fn denied(principal: &Principal, name: &ObjectName, hint: &str) -> Error {
    Error::Denied {
        principal: principal.name.clone(),
        action: format!("create, change or drop {name}"),
        hint: Some(hint.to_owned()),
    }
}
