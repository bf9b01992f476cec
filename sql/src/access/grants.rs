//! GRANT and REVOKE of privileges, and SHOW GRANTS.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::policy::{Grant, Grantee, Privilege, Role, Securable, grant};
use catalog::{Accounts, Catalog, Kind, Object, ObjectName};

use crate::access::syntax::{Shown, WrittenGrantee, WrittenObject};
use crate::access::users::no_role;
use crate::error::{Error, Result};
use crate::functions::FunctionDoc;
use crate::key;
use crate::pii::{self, Reader};
use crate::rights::Rights;
use crate::session::run::Done;
use crate::session::{StatementContext, open};
use crate::system;

/// One privilege on one object, checked.
struct Part {
    privilege: Privilege,
    on: Securable,
    columns: Option<BTreeSet<String>>,
}

/// GRANT and REVOKE. Each grantee is changed by itself.
pub(super) async fn change(
    context: &Arc<StatementContext>,
    privileges: &[(Privilege, Option<Vec<String>>)],
    on: &[WrittenObject],
    written: &[WrittenGrantee],
    revoke: bool,
) -> Result<Done> {
    let mut parts = Vec::new();
    for object in on {
        let (on, found) = securable(context, object).await?;
        check_grantor(context, &on, found.as_ref())?;
        if privileges.is_empty() {
            let all = on.privileges().iter();
            parts.extend(all.map(|p| Part { privilege: *p, on: on.clone(), columns: None }));
        }
        for (privilege, columns) in privileges {
            parts.push(part(context, *privilege, columns.as_deref(), &on, !revoke).await?);
        }
    }
    let mut grantees = Vec::new();
    for grantee in written {
        grantees.push(grantee_of(context, grantee).await?);
    }
    let (catalog, by) = (context.engine().catalog(), context.rights().name());
    let at_ms = catalog.now_ms();
    let mut changed = 0;
    for grantee in &grantees {
        // What everybody may do with a function is to be taken away, not to be given.
        if let (Grantee::Public, Some(function)) = (grantee, open_function(&parts)) {
            changed += u64::from(catalog.close_function(function, revoke, by).await?);
            continue;
        }
        let apply = |held: &mut Vec<Grant>| {
            let one = |part: &Part| {
                let Part { privilege, on, columns } = part;
                if revoke {
                    return grant::remove(held, *privilege, on, columns.as_ref());
                }
                let (on, columns, by) = (on.clone(), columns.clone(), by.to_owned());
                grant::add(held, Grant { privilege: *privilege, on, columns, by, at_ms })
            };
            parts.iter().map(one).filter(|changed| *changed).count() as u64
        };
        changed += catalog.change_grants(grantee, by, apply).await?;
    }
    let message = described(&parts, &grantees, revoke);
    let accounts = catalog.accounts().await?;
    let wider = match revoke {
        true => wider(&catalog.restricted_tables().await?, &parts),
        false => Vec::new(),
    };
    let mut remark = remark(&accounts, &wider, &grantees, changed);
    if let Some(function) = open_function(&parts)
        && context.rights().is_public(function)
        && !grantees.contains(&Grantee::Public)
    {
        remark = format!(
            "; everybody may call it until REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC"
        );
    }
    Ok(Done::new(changed, message + &remark))
}

/// The function that is granted, when it is one that everybody may call unless that was revoked.
fn open_function(parts: &[Part]) -> Option<&str> {
    match parts {
        [Part { on: Securable::Function(name), .. }] => Some(name.as_str()),
        _ => None,
    }
}

/// Checks one privilege on one object; table privileges on a schema mean all its tables.
async fn part(
    context: &Arc<StatementContext>,
    privilege: Privilege,
    columns: Option<&[String]>,
    on: &Securable,
    must_exist: bool,
) -> Result<Part> {
    let on = match on {
        Securable::Schema(schema) if !on.privileges().contains(&privilege) => {
            Securable::Tables(schema.clone())
        }
        other => other.clone(),
    };
    if !on.privileges().contains(&privilege) {
        let takes: Vec<&str> = on.privileges().iter().map(|known| known.name()).collect();
        return Err(Error::invalid_hint(
            format!("{privilege} is no privilege on {on}"),
            format!("there one grants {}", takes.join(", ")),
        ));
    }
    let Some(columns) = columns else { return Ok(Part { privilege, on, columns: None }) };
    let Securable::Table(name) = &on else {
        return Err(Error::invalid_hint(
            format!("columns are named on one table, not on {on}"),
            "GRANT SELECT (column, …) ON t TO ROLE r",
        ));
    };
    if must_exist {
        let Some(schema) = schema_of(context, name).await? else {
            return Err(context.no_table(&name.to_string()).await);
        };
        for column in columns {
            if schema.field_with_name(column).is_err() {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                return Err(Error::unknown("column", column, known));
            }
        }
    }
    Ok(Part { privilege, columns: Some(columns.iter().cloned().collect()), on })
}

/// The columns of a table that the grantor sees, or decides about.
async fn schema_of(
    context: &Arc<StatementContext>,
    name: &ObjectName,
) -> Result<Option<SchemaRef>> {
    let restricted = context.engine().catalog().restricted_tables().await?.contains(name);
    if !restricted || !context.rights().has(Role::PolicyAdmin) {
        return Ok(open(context, name).await?.map(|table| table.schema()));
    }
    match pii::open(context.engine(), name, None, Reader::Engine).await? {
        Some(pii::Shown::Table(table)) => Ok(Some(table.schema())),
        _ => Ok(None),
    }
}

/// What a written object is, among those that the grantor sees.
async fn securable(
    context: &Arc<StatementContext>,
    written: &WrittenObject,
) -> Result<(Securable, Option<Object>)> {
    let is_model = |object: &Object| object.kind == Kind::Model;
    match written {
        WrittenObject::Table(parts) => {
            // Who decides about identifiers need not see them.
            let decides = |rights: &Rights, object: &Object| {
                object.is_restricted() && rights.has(Role::PolicyAdmin)
            };
            let seen = |rights: &Rights, name: &ObjectName, object: &Object| {
                let sees = decides(rights, object) || rights.access(name, Some(object)).is_any();
                !is_model(object) && sees
            };
            match context.find(parts, seen).await? {
                Some((name, object)) => Ok((Securable::Table(name), Some(object))),
                None => Err(context.no_table(&parts.join(".")).await),
            }
        }
        WrittenObject::Model(parts) => {
            let seen = |rights: &Rights, name: &ObjectName, object: &Object| {
                is_model(object) && rights.may_use(name, object.owner.as_deref())
            };
            match context.find(parts, seen).await? {
                Some((name, object)) => Ok((Securable::Model(name), Some(object))),
                None => Err(context.no_model(&parts.join(".")).await),
            }
        }
        WrittenObject::Tables(name) => Ok((Securable::Tables(schema(context, name)?), None)),
        WrittenObject::Schema(name) => Ok((Securable::Schema(schema(context, name)?), None)),
        WrittenObject::Models(name) => Ok((Securable::Models(schema(context, name)?), None)),
        WrittenObject::Purpose(name) => {
            Ok((Securable::Purpose(purpose(context, name).await?), None))
        }
        WrittenObject::Function(name) => Ok((Securable::Function(function(context, name)?), None)),
        WrittenObject::Key(name) => Ok((key::securable(context, name).await?, None)),
    }
}

fn schema(context: &Arc<StatementContext>, name: &str) -> Result<String> {
    if system::is_system(name) {
        return Err(Error::invalid_hint(
            format!("schema {name} is everybody's"),
            "its tables show each user what it may see",
        ));
    }
    let schemas = context.schemas();
    if !schemas.iter().any(|known| known == name) {
        return Err(Error::unknown("schema", name, schemas.iter().map(String::as_str)));
    }
    Ok(name.to_owned())
}

/// A purpose that exists, for who may know of all: those who grant it.
async fn purpose(context: &Arc<StatementContext>, name: &str) -> Result<String> {
    let all = context.engine().catalog().purposes().await?;
    let held = context.rights().purposes();
    let seen = |known: &str| context.rights().has(Role::PolicyAdmin) || held.holds(known);
    let known = all.all().map(|purpose| purpose.name.as_str());
    let known: Vec<&str> = known.filter(|known| seen(known)).collect();
    match all.get(name).filter(|_| seen(name)) {
        Some(_) => Ok(name.to_owned()),
        None => Err(Error::unknown("purpose", name, known)),
    }
}

/// A function by its own name.
fn function(context: &Arc<StatementContext>, name: &str) -> Result<String> {
    let known = context.engine().functions_documentation();
    let called = |function: &&FunctionDoc| {
        function.name == name || function.aliases.iter().any(|alias| alias == name)
    };
    match known.iter().find(called) {
        Some(function) => Ok(function.name.clone()),
        None => {
            let names = known.iter().map(|function| function.name.as_str());
            Err(Error::unknown("function", name, names))
        }
    }
}

fn check_grantor(
    context: &Arc<StatementContext>,
    on: &Securable,
    object: Option<&Object>,
) -> Result<()> {
    if context.rights().may_grant(on, object) {
        return Ok(());
    }
    let who = match on {
        Securable::Key(_) => "this needs the role policy_admin",
        Securable::Function(_) => "this needs the role admin",
        Securable::Purpose(_) => "this needs the role policy_admin",
        _ if object.is_some_and(Object::is_restricted) => "this needs the role policy_admin",
        _ => "its owner and administrators may",
    };
    Err(Error::Denied {
        principal: context.rights().name().to_owned(),
        action: format!("grant rights on {on}"),
        hint: Some(who.into()),
    })
}

async fn grantee_of(context: &Arc<StatementContext>, written: &WrittenGrantee) -> Result<Grantee> {
    let catalog = context.engine().catalog();
    let (WrittenGrantee::User(name) | WrittenGrantee::Role(name) | WrittenGrantee::Named(name)) =
        written
    else {
        return Ok(Grantee::Public);
    };
    let accounts = catalog.accounts_with(name).await?;
    let (is_user, is_role) = (accounts.user(name).is_some(), accounts.has_role(name));
    match written {
        WrittenGrantee::User(_) if is_user => Ok(Grantee::User(name.clone())),
        WrittenGrantee::Role(_) if is_role => Ok(Grantee::Role(name.clone())),
        WrittenGrantee::Role(_) => Err(no_role(&accounts, name)),
        WrittenGrantee::Named(_) if is_user && is_role => Err(Error::invalid_hint(
            format!("both a user and a role are called {name}"),
            format!("write USER {name} or ROLE {name}"),
        )),
        WrittenGrantee::Named(_) if is_role => Ok(Grantee::Role(name.clone())),
        WrittenGrantee::Named(_) if is_user => Ok(Grantee::User(name.clone())),
        _ => Err(Catalog::unknown_user(name).into()),
    }
}

fn described(parts: &[Part], grantees: &[Grantee], revoke: bool) -> String {
    let one = |part: &Part| {
        let columns = match &part.columns {
            Some(columns) => {
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                format!(" ({})", names.join(", "))
            }
            None => String::new(),
        };
        if let Securable::Key(_) = &part.on {
            return format!("USAGE ON {} FOR {}", part.on, part.privilege);
        }
        format!("{}{columns} ON {}", part.privilege, part.on)
    };
    let parts: Vec<String> = parts.iter().map(one).collect();
    let grantees: Vec<String> = grantees.iter().map(Grantee::to_string).collect();
    let (verb, word) = if revoke { ("REVOKE", "FROM") } else { ("GRANT", "TO") };
    format!("{verb} {} {word} {}", parts.join(", "), grantees.join(", "))
}

/// What was revoked, each with what gives the same of the whole schema; nothing gives a table of
/// personal identifiers, which are `apart`, but a grant on it.
fn wider<'a>(
    apart: &BTreeSet<ObjectName>,
    parts: &'a [Part],
) -> Vec<(&'a Part, Option<Securable>)> {
    let of = |part: &'a Part| match &part.on {
        Securable::Table(name) if apart.contains(name) => Some((part, None)),
        Securable::Table(name) => Some((part, Some(Securable::Tables(name.schema.clone())))),
        Securable::Model(name) => Some((part, Some(Securable::Models(name.schema.clone())))),
        _ => None,
    };
    parts.iter().filter_map(of).collect()
}

/// What whoever granted or revoked should know.
fn remark(
    accounts: &Accounts,
    revoked: &[(&Part, Option<Securable>)],
    grantees: &[Grantee],
    changed: u64,
) -> String {
    for (part, wider) in revoked {
        for grantee in grantees {
            let held = accounts.grants(grantee);
            let same = |grant: &&Grant| grant.privilege == part.privilege;
            if let Some(wider) = wider
                && held.iter().filter(same).any(|grant| grant.on == *wider)
            {
                return format!("; {grantee} still holds {} ON {wider}", part.privilege);
            }
            let whole = |grant: &Grant| grant.on == part.on && grant.columns.is_none();
            if part.columns.is_some() && held.iter().filter(same).any(whole) {
                return format!(
                    "; {grantee} still holds {} ON {} wholly: revoke that and grant columns",
                    part.privilege, part.on
                );
            }
        }
    }
    if changed == 0 { ": nothing was changed".into() } else { String::new() }
}

/// The query behind SHOW GRANTS.
pub(super) async fn shown(context: &Arc<StatementContext>, shown: &Shown) -> Result<String> {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let condition = match shown {
        Shown::All => "true".to_owned(),
        Shown::For(written) => {
            let grantee = grantee_of(context, written).await?;
            let (kind, name) = (text(grantee.kind()), text(grantee.name()));
            format!("grantee_kind = {kind} AND grantee = {name}")
        }
        Shown::On(written) => {
            let (on, _) = securable(context, written).await?;
            let schema = on
                .schema()
                .map_or("schema IS NULL".into(), |schema| format!("schema = {}", text(schema)));
            let one = match on.name() {
                Some(name) => {
                    format!("name = {} AND object_kind = {}", text(name), text(on.kind()))
                }
                None => "true".into(),
            };
            let wider = match on {
                Securable::Table(_) => "object_kind = 'all tables'",
                Securable::Model(_) => "object_kind = 'all models'",
                _ => "false",
            };
            format!("{schema} AND ({one} OR {wider})")
        }
    };
    Ok(format!(
        "SELECT grantee_kind, grantee, privilege, object_kind, schema, name, columns, granted_by \
         FROM system.grants WHERE {condition} \
         ORDER BY grantee_kind, grantee, object_kind, schema, name, privilege"
    ))
}
