//! Users and roles: who there is, and which roles they hold.
//!
//! Two rules hold whatever the order of statements: there is always an administrator, and an
//! administrator does not become a holder of `policy_admin` through the back door: while anybody
//! holds that role, only its holders give it, take it, or change the accounts that have it.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::policy::principal::EMBEDDED;
use catalog::policy::{Grant, Grantee, Privilege, Role, Securable, is_built_in};
use catalog::{Accounts, Catalog, ObjectName, UserRecord};

use crate::access::syntax::{Password, WrittenGrantee};
use crate::error::{Error, Result};
use crate::rights::Rights;
use crate::session::StatementContext;
use crate::session::run::Done;
use crate::system;

/// Shorter passwords are guessed (NIST SP 800-63B asks for at least 8).
const PASSWORD_CHARS_MIN: usize = 8;
/// Longer ones only cost time.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Of what a user owns so many are named.
const OWNED_SHOWN: usize = 5;
/// Names that statements, or what embedded use made, give to something else.
const RESERVED: [&str; 7] = ["public", "none", "all", "default", "user", "role", EMBEDDED];

/// What CREATE USER says.
pub(super) struct NewUser<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a Password,
    pub(super) roles: Option<&'a [String]>,
}

/// CREATE USER; OR REPLACE changes password and roles and keeps what was granted to the user.
pub(super) async fn create(
    context: &Arc<StatementContext>,
    new: NewUser<'_>,
    replace: bool,
    if_not_exists: bool,
) -> Result<Done> {
    context.rights().may_manage("create users")?;
    let (catalog, name) = (context.engine().catalog(), new.name);
    let accounts = catalog.accounts_with(name).await?;
    check_user_name(context, &accounts, name)?;
    check_password(new.password)?;
    let roles: BTreeSet<String> = match new.roles {
        Some(roles) => roles.iter().cloned().collect(),
        None => BTreeSet::from([Role::Analyst.into()]),
    };
    for role in &roles {
        existing_role(&accounts, role)?;
        check_policy_role(catalog, context.rights(), &accounts, [role]).await?;
    }
    if !catalog.has_users().await? && !roles.contains(Role::Admin.name()) {
        return Err(Error::invalid_hint(
            "the first user of a warehouse must be an administrator, or nobody could make more",
            format!("CREATE USER {name} PASSWORD '…' ROLE admin"),
        ));
    }
    let known = accounts.user(name);
    match known {
        Some(_) if if_not_exists => {
            return Ok(Done::new(0, format!("{name} exists already, nothing was changed")));
        }
        Some(_) if !replace => {
            let name = name.to_owned();
            return Err(catalog::Error::AlreadyExists { kind: "user", name }.into());
        }
        Some(user) => {
            check_account(catalog, context.rights(), &accounts, user).await?;
            if !roles.contains(Role::Admin.name()) {
                keep_an_administrator(&accounts, name)?;
            }
        }
        None => {}
    }
    let hash = hash(context, new.password).await?;
    match known {
        Some(before) => {
            let change = |user: &mut UserRecord| {
                user.password_hash = hash;
                user.roles = roles;
            };
            catalog.change_user(name, change).await?;
            an_administrator_is_left(catalog, before).await?;
        }
        None => catalog.put_user(UserRecord::new(name, hash, roles), false).await?,
    }
    Ok(Done::new(1, format!("CREATE USER {name}")))
}

/// ALTER USER … SET PASSWORD: one's own, or as an administrator.
pub(super) async fn set_password(
    context: &Arc<StatementContext>,
    name: &str,
    password: &Password,
) -> Result<Done> {
    let catalog = context.engine().catalog();
    let accounts = catalog.accounts_with(name).await?;
    let own = context.rights().name() == name && context.session().principal().follows_record();
    if !own {
        context.rights().may_manage("change other users' passwords")?;
        let Some(user) = accounts.user(name) else {
            return Err(Catalog::unknown_user(name).into());
        };
        check_account(catalog, context.rights(), &accounts, user).await?;
    } else if context.session().is_delegated() {
        // A token that leaked would outlive its own end, and be more than it was.
        return Err(Error::Denied {
            principal: name.to_owned(),
            action: "change the password in a session opened with a token".into(),
            hint: Some("log in with the user's own password".into()),
        });
    }
    check_password(password)?;
    let hash = hash(context, password).await?;
    catalog.change_user(name, |user| user.password_hash = hash).await?;
    let message = format!("ALTER USER {name}: log in with the new password; open sessions end");
    Ok(Done::new(1, message))
}

/// DROP USER, of those who own nothing.
pub(super) async fn drop_users(
    context: &Arc<StatementContext>,
    names: &[String],
    if_exists: bool,
) -> Result<Done> {
    context.rights().may_manage("drop users")?;
    let catalog = context.engine().catalog();
    let mut dropped = 0;
    for name in names {
        let accounts = catalog.accounts_with(name).await?;
        match accounts.user(name) {
            Some(user) => {
                check_policy_role(catalog, context.rights(), &accounts, &user.roles).await?;
                keep_an_administrator(&accounts, name)?;
                owns_nothing(catalog, name).await?;
                dropped += u64::from(catalog.drop_user(name).await?);
                an_administrator_is_left(catalog, user).await?;
            }
            None if if_exists => {}
            None => return Err(Catalog::unknown_user(name).into()),
        }
    }
    Ok(Done::new(dropped, format!("DROP USER {}", names.join(", "))))
}

/// What would belong to nobody without its owner, and to whoever has the name later.
async fn owns_nothing(catalog: &Catalog, name: &str) -> Result<()> {
    let owned = catalog.owned_by(name).await?;
    let owned = owned.iter().map(|(name, kind)| format!("{kind} {name}"));
    let expected = catalog.expected_by(name).await?;
    let expected = expected.iter().map(|table| format!("expectations of {table}"));
    let policies = catalog.consents_owned_by(name).await?;
    let policies = policies.iter().map(|policy| format!("consent policy {policy}"));
    let owned: Vec<String> = owned.chain(expected).chain(policies).collect();
    if owned.is_empty() {
        return Ok(());
    }
    let shown = owned.iter().take(OWNED_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = match owned.len().saturating_sub(OWNED_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::invalid_hint(
        format!("user {name} owns {shown}{more}"),
        format!(
            "REASSIGN OWNED BY {name} TO somebody else, or drop them; then DROP USER {name} again"
        ),
    ))
}

/// REASSIGN OWNED: also what somebody has left who is no user any more, or before there were users.
pub(super) async fn reassign(
    context: &Arc<StatementContext>,
    from: &[String],
    to: &str,
) -> Result<Done> {
    context.rights().may_manage("reassign what users own")?;
    let catalog = context.engine().catalog();
    let accounts = catalog.accounts_with(to).await?;
    let Some(user) = accounts.user(to) else { return Err(Catalog::unknown_user(to).into()) };
    // Checks look up, scheduled models are trained and consents are read with the rights of their
    // owner: to give somebody what one has written is to act as that user.
    check_account(catalog, context.rights(), &accounts, user).await?;
    let mut changed = 0;
    for name in from {
        let is_known = catalog.accounts_with(name).await?.user(name).is_some();
        let is_owner = !catalog.owned_by(name).await?.is_empty()
            || !catalog.expected_by(name).await?.is_empty()
            || !catalog.consents_owned_by(name).await?.is_empty();
        if !is_known && !is_owner {
            return Err(Catalog::unknown_user(name).into());
        }
        // Whose rights consents are read with is a matter of policies.
        if !catalog.consents_owned_by(name).await?.is_empty() {
            let role: String = Role::PolicyAdmin.into();
            check_policy_role(catalog, context.rights(), &accounts, [&role]).await?;
        }
        changed += catalog.reassign_owned(name, to).await? as u64;
    }
    let message = format!("REASSIGN OWNED BY {} TO {to}: {changed} objects", from.join(", "));
    Ok(Done::new(changed, message))
}

/// CREATE ROLE.
pub(super) async fn create_role(
    context: &Arc<StatementContext>,
    name: &str,
    if_not_exists: bool,
) -> Result<Done> {
    context.rights().may_manage("create roles")?;
    let catalog = context.engine().catalog();
    check_name(name, "role")?;
    if catalog.accounts_with(name).await?.user(name).is_some() {
        return Err(taken(name, "user"));
    }
    let made = catalog.create_role(name, context.rights().name(), if_not_exists).await?;
    Ok(match made {
        true => Done::new(1, format!("CREATE ROLE {name}")),
        false => Done::new(0, format!("{name} exists already, nothing was changed")),
    })
}

/// DROP ROLE, with what was granted to it.
pub(super) async fn drop_roles(
    context: &Arc<StatementContext>,
    names: &[String],
    if_exists: bool,
) -> Result<Done> {
    context.rights().may_manage("drop roles")?;
    let catalog = context.engine().catalog();
    let mut dropped = 0;
    for name in names {
        if is_built_in(name) {
            return Err(Error::invalid_hint(
                format!("role {name} is built in and stays"),
                "REVOKE takes it and its grants from somebody",
            ));
        }
        let accounts = catalog.accounts().await?;
        check_policy_role(catalog, context.rights(), &accounts, [name]).await?;
        let gone = catalog.drop_role(name).await?;
        if !gone && !if_exists {
            return Err(no_role(&catalog.accounts().await?, name));
        }
        dropped += u64::from(gone);
    }
    Ok(Done::new(dropped, format!("DROP ROLE {}", names.join(", "))))
}

/// GRANT ROLE and REVOKE ROLE. Each user is changed by itself.
pub(super) async fn grant_roles(
    context: &Arc<StatementContext>,
    roles: &[String],
    grantees: &[WrittenGrantee],
    revoke: bool,
) -> Result<Done> {
    context.rights().may_manage("grant roles")?;
    let catalog = context.engine().catalog();
    let mut users = Vec::new();
    for grantee in grantees {
        match grantee {
            WrittenGrantee::User(name) | WrittenGrantee::Named(name) => users.push(name.as_str()),
            WrittenGrantee::Role(_) | WrittenGrantee::Public => {
                return Err(Error::unsupported(
                    "roles are granted to users only",
                    "GRANT ROLE r TO USER u",
                ));
            }
        }
    }
    let mut changed = 0;
    for name in &users {
        let accounts = catalog.accounts_with(name).await?;
        for role in roles {
            existing_role(&accounts, role)?;
            if revoke && role == Role::Admin.name() {
                keep_an_administrator(&accounts, name)?;
            }
        }
        check_policy_role(catalog, context.rights(), &accounts, roles).await?;
        let change = |user: &mut UserRecord| {
            let before = user.roles.clone();
            match revoke {
                true => user.roles.retain(|role| !roles.contains(role)),
                false => user.roles.extend(roles.iter().cloned()),
            }
            user.roles != before
        };
        changed += u64::from(catalog.change_user(name, change).await?);
        if let Some(before) = accounts.user(name).filter(|_| revoke) {
            an_administrator_is_left(catalog, before).await?;
        }
    }
    let (verb, word) = if revoke { ("REVOKE", "FROM") } else { ("GRANT", "TO") };
    let (roles, users) = (roles.join(", "), users.join(", "));
    let nothing = if changed == 0 { ": nothing was changed" } else { "" };
    Ok(Done::new(changed, format!("{verb} ROLE {roles} {word} {users}{nothing}")))
}

async fn hash(context: &Arc<StatementContext>, password: &Password) -> Result<String> {
    let hashed = context.engine().passwords().hash(password.0.clone()).await;
    hashed.map_err(|reason| Error::Internal(format!("the password was not hashed: {reason}")))
}

/// A name that needs no escape in a header, a log line or a URL.
fn check_name(name: &str, kind: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
    if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
        return Err(Error::invalid_hint(
            format!("{name:?} cannot be a {kind}'s name"),
            "use at most 128 letters, digits and _ - . @",
        ));
    }
    if RESERVED.contains(&name) {
        return Err(Error::invalid_hint(
            format!("{name} cannot be a {kind}'s name: it has a meaning already"),
            "choose another name",
        ));
    }
    Ok(())
}

/// A user has the schema of its name, so the name is no other schema's.
fn check_user_name(context: &Arc<StatementContext>, accounts: &Accounts, name: &str) -> Result<()> {
    check_name(name, "user")?;
    if accounts.has_role(name) {
        return Err(taken(name, "role"));
    }
    let schemas = context.engine().catalog().schemas();
    if system::is_system(name) || schemas.iter().any(|schema| schema == name) {
        return Err(Error::invalid_hint(
            format!("{name} is a schema's name, and each user has the schema of its own name"),
            "choose another name",
        ));
    }
    Ok(())
}

fn taken(name: &str, kind: &str) -> Error {
    Error::invalid_hint(
        format!("a {kind} is called {name}, and users and roles share their names"),
        "choose another name",
    )
}

fn check_password(password: &Password) -> Result<()> {
    if password.0.chars().count() < PASSWORD_CHARS_MIN {
        return Err(Error::invalid_hint(
            format!("the password has fewer than {PASSWORD_CHARS_MIN} characters"),
            "choose a longer one; a sentence is good",
        ));
    }
    if password.0.len() > PASSWORD_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the password has more than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn existing_role(accounts: &Accounts, role: &str) -> Result<()> {
    if accounts.has_role(role) { Ok(()) } else { Err(no_role(accounts, role)) }
}

/// The error for a role that does not exist; for callers that may see all of them.
pub(super) fn no_role(accounts: &Accounts, role: &str) -> Error {
    let known: Vec<&str> = Role::ALL
        .map(Role::name)
        .into_iter()
        .chain(accounts.roles().map(|role| role.name.as_str()))
        .collect();
    Error::Catalog(catalog::Error::not_found("role", role, known))
}

/// Checks that giving, taking or touching these roles does not go past `policy_admin`, whose alone
/// it is to say who decrypts, who reads identifiers that are kept apart, and whom policies except.
pub(crate) async fn check_policy_role<'a>(
    catalog: &Catalog,
    rights: &Rights,
    accounts: &Accounts,
    roles: impl IntoIterator<Item = &'a String>,
) -> Result<()> {
    let name = Role::PolicyAdmin.name();
    let granted = |role: &String| accounts.grants(&Grantee::Role(role.clone()));
    let (excepted, apart) = (catalog.excepted_roles().await?, catalog.restricted_tables().await?);
    let is_touched = |role: &&String| {
        *role == name || excepted.contains(*role) || reveals(granted(role), &apart)
    };
    let touched = roles.into_iter().find(is_touched);
    let Some(role) = touched.filter(|_| !rights.has(Role::PolicyAdmin)) else { return Ok(()) };
    // Who cannot be read, as what a newer version has written, may hold it.
    let is_held = accounts.users().any(|user| user.roles.contains(name))
        || catalog.accounts_fault().await?.is_some();
    if !is_held {
        return Ok(());
    }
    let hint = match role == name {
        true => format!("admin does not imply {name}: ask one of its holders"),
        false => {
            format!("a policy excepts {role}, or it decrypts or reads PII: ask a holder of {name}")
        }
    };
    Err(Error::Denied {
        principal: rights.name().to_owned(),
        action: format!("give or take {role}, or act for a user who holds it"),
        hint: Some(hint),
    })
}

/// The same for acting as a user, to whom itself such rights may be granted.
pub(crate) async fn check_account(
    catalog: &Catalog,
    rights: &Rights,
    accounts: &Accounts,
    user: &UserRecord,
) -> Result<()> {
    check_policy_role(catalog, rights, accounts, &user.roles).await?;
    if reveals(&user.grants, &catalog.restricted_tables().await?) {
        check_policy_role(catalog, rights, accounts, [&Role::PolicyAdmin.into()]).await?;
    }
    Ok(())
}

/// Whether grants show what others do not see: what is encrypted, or one of the tables `apart` of
/// personal identifiers.
fn reveals(grants: &[Grant], apart: &BTreeSet<ObjectName>) -> bool {
    grants.iter().any(|grant| match &grant.on {
        Securable::Table(table) => apart.contains(table),
        _ => grant.privilege == Privilege::Decrypt,
    })
}

fn is_administrator(user: &UserRecord) -> bool {
    user.roles.contains(Role::Admin.name())
}

/// Checks that somebody is an administrator after one has gone. Two may take each other's role at
/// the same moment, each while the other has it still: who finds nobody left puts back what was.
async fn an_administrator_is_left(catalog: &Catalog, gone: &UserRecord) -> Result<()> {
    if !is_administrator(gone) {
        return Ok(());
    }
    let accounts = catalog.accounts().await?;
    for known in accounts.users().filter(|user| is_administrator(user)) {
        // As the store has it now: what others have done within the last second counts.
        if catalog.user(&known.name).await?.as_ref().is_some_and(is_administrator) {
            return Ok(());
        }
    }
    catalog.put_user(gone.clone(), true).await?;
    let name = format!("the last administrator, {}, which stays", gone.name);
    Err(catalog::Error::Conflict { name }.into())
}

/// Checks that somebody else is an administrator.
fn keep_an_administrator(accounts: &Accounts, leaving: &str) -> Result<()> {
    let mut stays = accounts.users().filter(|user| is_administrator(user));
    if !accounts.user(leaving).is_some_and(is_administrator) || stays.any(|u| u.name != leaving) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("{leaving} is the last administrator"),
        "make another one first: GRANT ROLE admin TO USER …",
    ))
}
