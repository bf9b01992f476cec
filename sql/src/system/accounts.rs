//! Users, roles and grants as tables: all of them for an administrator, one's own for others.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, ListBuilder, RecordBatch, StringBuilder, TimestampMillisecondArray,
};
use catalog::policy::{Grant, Grantee, Role, Securable, is_built_in};
use catalog::{Accounts, Definitions, Spec};

use super::batches::{batch, optional_texts, texts};
use crate::error::Result;
use crate::rights::Rights;
use crate::session::Session;

pub(super) fn lists<'a, I>(values: impl IntoIterator<Item = Option<I>>) -> ArrayRef
where
    I: IntoIterator<Item = &'a String>,
{
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        match value {
            Some(names) => {
                names.into_iter().for_each(|name| builder.values().append_value(name));
                builder.append(true);
            }
            None => builder.append(false),
        }
    }
    Arc::new(builder.finish())
}

pub(super) async fn users(session: &Session) -> Result<RecordBatch> {
    let rights = session.rights().await?;
    let accounts = session.engine().catalog().accounts().await?;
    let shown: Vec<_> = accounts
        .users()
        .filter(|user| rights.has(Role::Admin) || user.name == rights.name())
        .collect();
    batch(vec![
        ("name", texts(shown.iter().map(|user| user.name.as_str()))),
        ("roles", lists(shown.iter().map(|user| Some(&user.roles)))),
    ])
}

pub(super) async fn roles(session: &Session) -> Result<RecordBatch> {
    let rights = session.rights().await?;
    let accounts = session.engine().catalog().accounts().await?;
    let mut names: Vec<&str> = Role::ALL.map(Role::name).into();
    let defined = accounts.roles().map(|role| role.name.as_str());
    names.extend(defined.filter(|name| !is_built_in(name)));
    names.retain(|name| rights.has(Role::Admin) || rights.held_roles().contains(*name));
    names.sort_unstable();
    batch(vec![
        ("name", texts(names.iter().copied())),
        (
            "built_in",
            Arc::new(names.iter().map(|name| Some(is_built_in(name))).collect::<BooleanArray>()),
        ),
    ])
}

/// A right that somebody holds: a grant, or a role.
struct Row {
    grantee: Grantee,
    grant: Option<Grant>,
    role: Option<String>,
}

impl Row {
    fn on<T>(&self, part: impl FnOnce(&Securable) -> Option<T>) -> Option<T> {
        self.grant.as_ref().and_then(|grant| part(&grant.on))
    }
}

/// Whether a principal may know of a right: its own, or one on what it owns.
fn shows(rights: &Rights, definitions: &Definitions, row: &Row) -> bool {
    let own = match &row.grantee {
        Grantee::User(name) => name == rights.name(),
        Grantee::Role(name) => rights.held_roles().contains(name),
        Grantee::Public => true,
    };
    let granted = |grant: &Grant| match &grant.on {
        Securable::Table(name) | Securable::Model(name) => {
            let found = definitions.get(&(name.schema.clone(), name.name.clone()));
            let is_apart =
                found.is_some_and(|found| matches!(found.spec, Spec::Identifiers { .. }));
            let owner = found.map(|found| found.owner.as_str());
            (is_apart && rights.has(Role::PolicyAdmin)) || rights.sees_definition(name, owner)
        }
        Securable::Key(_) | Securable::Purpose(_) => rights.has(Role::PolicyAdmin),
        on => on.schema().is_some_and(|schema| rights.rules(schema)),
    };
    own || rights.has(Role::Admin) || row.grant.as_ref().is_some_and(granted)
}

fn rows(accounts: &Accounts) -> Vec<Row> {
    let mut rows = Vec::new();
    let users = accounts.users().map(|user| Grantee::User(user.name.clone()));
    let roles = accounts.roles().map(|role| Grantee::Role(role.name.clone()));
    for grantee in users.chain(roles).chain([Grantee::Public]) {
        for grant in accounts.grants(&grantee) {
            rows.push(Row { grantee: grantee.clone(), grant: Some(grant.clone()), role: None });
        }
    }
    for user in accounts.users() {
        let grantee = Grantee::User(user.name.clone());
        let held =
            |role: &String| Row { grantee: grantee.clone(), grant: None, role: Some(role.clone()) };
        rows.extend(user.roles.iter().map(held));
    }
    rows
}

pub(super) async fn grants(session: &Session) -> Result<RecordBatch> {
    let rights = session.rights().await?;
    let catalog = session.engine().catalog();
    let (accounts, definitions) = (catalog.accounts().await?, catalog.definitions().await?);
    let mut rows = rows(&accounts);
    rows.retain(|row| shows(&rights, &definitions, row));
    let privilege = |row: &Row| row.grant.as_ref().map_or("ROLE", |grant| grant.privilege.name());
    let kind = |row: &Row| row.on(|on| Some(on.kind())).unwrap_or("role");
    let schema = |row: &Row| row.on(|on| on.schema().map(str::to_owned));
    let name = |row: &Row| row.role.clone().or_else(|| row.on(|on| on.name().map(str::to_owned)));
    let columns =
        rows.iter().map(|row| row.grant.as_ref().and_then(|grant| grant.columns.as_ref()));
    let by = |row: &Row| row.grant.as_ref().map(|grant| grant.by.clone());
    let at = rows.iter().map(|row| row.grant.as_ref().map(|grant| grant.at_ms));
    let at: TimestampMillisecondArray = at.collect();
    batch(vec![
        ("grantee_kind", texts(rows.iter().map(|row| row.grantee.kind()))),
        ("grantee", texts(rows.iter().map(|row| row.grantee.name()))),
        ("privilege", texts(rows.iter().map(privilege))),
        ("object_kind", texts(rows.iter().map(kind))),
        ("schema", optional_texts(rows.iter().map(schema))),
        ("name", optional_texts(rows.iter().map(name))),
        ("columns", lists(columns)),
        ("granted_by", optional_texts(rows.iter().map(by))),
        ("granted", Arc::new(at.with_timezone("UTC"))),
    ])
}
