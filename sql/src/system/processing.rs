//! `system.processing_activities`: a record of processing activities (GDPR article 30), made of
//! what exists and of what was done.
//!
//! A row is a table, view or model: whose it is, what it holds, who may have it (the recipients),
//! for which purposes it may be and was used, by whom, how often and when last. Holders of `admin`
//! or `policy_admin` see all of them, others what they own. The counts are of the entries that the
//! record still holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use catalog::audit::{Event, Phase};
use catalog::policy::{Grant, Grantee, Securable};
use catalog::{Accounts, AuditEntry, Definition, Kind, Object, ObjectName, Spec};
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt, stream};

use super::accounts::lists;
use super::audit::{drained, made, sees_all};
use super::batches::{batch, integers, optional_texts, texts};
use super::sessions::instants;
use crate::audit::governance::{Governance, Governed};
use crate::error::Result;
use crate::pii::{self, Reader, Shown};
use crate::session::StatementContext;

/// What one object is and what is done with it.
struct Activity {
    name: ObjectName,
    object: Object,
    columns: Vec<String>,
    recipients: Vec<String>,
    governed: Governed,
    used: Use,
}

/// What the record says of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Use {
    purposes: BTreeSet<String>,
    principals: BTreeSet<String>,
    reads: i64,
    changes: i64,
    last_ms: Option<i64>,
}

pub(super) fn activities(context: &Arc<StatementContext>) -> Result<Arc<dyn TableProvider>> {
    let context = Arc::clone(context);
    made(&rows(&[])?, move || {
        let context = Arc::clone(&context);
        let found = async move { Ok::<_, DataFusionError>(rows(&gathered(&context).await?)?) };
        stream::once(found).boxed()
    })
}

async fn gathered(context: &Arc<StatementContext>) -> Result<Vec<Activity>> {
    let (rights, catalog) = (context.rights(), context.engine().catalog());
    let accounts = catalog.accounts().await?;
    let mut uses = uses(context).await?;
    let governance = Governance::load(context).await?;
    let mut found = Vec::new();
    for schema in schemas(context).await? {
        for (name, object) in catalog.objects(&schema).await? {
            let is_data = matches!(object.kind, Kind::Table | Kind::View | Kind::Model);
            let shown = sees_all(rights) || rights.is_me(object.owner.as_deref());
            if !is_data || !shown {
                continue;
            }
            let name = ObjectName::new(&schema, name);
            found.push(Activity {
                columns: columns(context, &name, object.kind).await,
                recipients: recipients(&accounts, &name, &object),
                governed: governance.of(&name, object.kind, sees_all(rights)).await,
                used: uses.remove(&name.to_string()).unwrap_or_default(),
                object,
                name,
            });
        }
    }
    Ok(found)
}

/// The schemas that hold data.
async fn schemas(context: &StatementContext) -> Result<BTreeSet<String>> {
    let catalog = context.engine().catalog();
    let mut schemas: BTreeSet<String> = catalog.schemas().into_iter().collect();
    // Users' own schemas are there once something is in them.
    schemas.extend(catalog.definitions().await?.keys().map(|(schema, _)| schema.clone()));
    Ok(schemas)
}

/// The columns of a table or view; none of one that cannot be opened now.
async fn columns(context: &StatementContext, name: &ObjectName, kind: Kind) -> Vec<String> {
    let catalog = context.engine().catalog();
    let found: Result<Vec<String>> = match kind {
        Kind::Table => match pii::open(context.engine(), name, None, Reader::Engine).await {
            Ok(Some(Shown::Table(table))) => {
                let schema = table.schema();
                Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
            }
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(error),
        },
        Kind::View => match catalog.definition(name).await {
            Ok(Some(Definition { spec: Spec::View { columns, .. }, .. })) => Ok(columns),
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        },
        _ => Ok(Vec::new()),
    };
    found.unwrap_or_else(|error| {
        tracing::warn!(%name, %error, "listed without columns");
        Vec::new()
    })
}

/// Who may have it, and what: `role analyst: SELECT (mail)`.
fn recipients(accounts: &Accounts, name: &ObjectName, object: &Object) -> Vec<String> {
    let kind = object.kind;
    let by_schema = kind != Kind::Model && !object.is_restricted();
    let is_on = |grant: &Grant| match &grant.on {
        Securable::Table(on) => kind != Kind::Model && on == name,
        Securable::Tables(schema) => by_schema && *schema == name.schema,
        Securable::Model(on) => kind == Kind::Model && on == name,
        Securable::Models(schema) => kind == Kind::Model && *schema == name.schema,
        Securable::Schema(_)
        | Securable::Function(_)
        | Securable::Key(_)
        | Securable::Purpose(_) => false,
    };
    let users = accounts.users().map(|user| Grantee::User(user.name.clone()));
    let roles = accounts.roles().map(|role| Grantee::Role(role.name.clone()));
    let mut found = Vec::new();
    for grantee in users.chain(roles).chain([Grantee::Public]) {
        for grant in accounts.grants(&grantee).iter().filter(|grant| is_on(grant)) {
            let columns = grant.columns.as_ref().map_or(String::new(), |columns| {
                let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                format!(" ({})", columns.join(", "))
            });
            found.push(match &grantee {
                Grantee::Public => format!("everybody: {}{columns}", grant.privilege),
                named => {
                    format!("{} {}: {}{columns}", named.kind(), named.name(), grant.privilege)
                }
            });
        }
    }
    found
}

/// What the record says, by the objects' names; of models, all versions together.
async fn uses(context: &StatementContext) -> Result<BTreeMap<String, Use>> {
    let catalog = drained(Arc::clone(context.engine().catalog())).await;
    let mut uses = BTreeMap::new();
    let mut segments = catalog.audit_entries();
    while let Some(entries) = segments.try_next().await? {
        entries.iter().for_each(|entry| count(&mut uses, entry));
    }
    Ok(uses)
}

fn count(uses: &mut BTreeMap<String, Use>, entry: &AuditEntry) {
    let counts = entry.event == Event::Statement
        && entry.phase == Phase::Ended
        && entry.outcome.as_deref() != Some("failed");
    if !counts {
        return;
    }
    let objects: BTreeSet<&str> = entry.objects.iter().map(|name| versionless(name)).collect();
    for object in objects {
        let used = uses.entry(object.to_owned()).or_default();
        used.purposes.extend(entry.purpose.clone());
        used.principals.insert(entry.principal.clone());
        match entry.kind.as_str() {
            "select" | "explain" => used.reads += 1,
            _ => used.changes += 1,
        }
        used.last_ms = used.last_ms.max(Some(entry.at_ms));
    }
}

/// `main.shop` of `main.shop@3`.
fn versionless(name: &str) -> &str {
    match name.rsplit_once('@') {
        Some((model, version)) if version.parse::<u32>().is_ok() => model,
        _ => name,
    }
}

fn rows(found: &[Activity]) -> Result<RecordBatch> {
    let names = |of: fn(&Activity) -> &Vec<String>| lists(found.iter().map(|a| Some(of(a))));
    let sets = |of: fn(&Activity) -> &BTreeSet<String>| lists(found.iter().map(|a| Some(of(a))));
    let origin = |activity: &Activity| match (activity.object.kind, activity.object.external) {
        (Kind::Table, true) => "lake",
        _ => "warehouse",
    };
    batch(vec![
        ("schema", texts(found.iter().map(|activity| activity.name.schema.as_str()))),
        ("name", texts(found.iter().map(|activity| activity.name.name.as_str()))),
        ("kind", texts(found.iter().map(|activity| activity.object.kind.name()))),
        ("origin", texts(found.iter().map(origin))),
        ("owner", optional_texts(found.iter().map(|activity| activity.object.owner.clone()))),
        ("columns", names(|activity| &activity.columns)),
        ("personal", names(|activity| &activity.governed.personal)),
        ("purposes", names(|activity| &activity.governed.purposes)),
        ("policies", names(|activity| &activity.governed.policies)),
        (
            "retention",
            optional_texts(found.iter().map(|activity| activity.governed.retention.clone())),
        ),
        ("recipients", names(|activity| &activity.recipients)),
        ("used_for", sets(|activity| &activity.used.purposes)),
        ("used_by", sets(|activity| &activity.used.principals)),
        ("reads", integers(found.iter().map(|activity| activity.used.reads))),
        ("changes", integers(found.iter().map(|activity| activity.used.changes))),
        ("last_used", instants(found.iter().map(|activity| activity.used.last_ms))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_changes_are_counted_by_object() {
        let entry = |kind: &str, objects: &[&str], at_ms: i64| AuditEntry {
            principal: "ann".into(),
            kind: kind.into(),
            objects: objects.iter().map(|name| (*name).to_owned()).collect(),
            outcome: Some("finished".into()),
            at_ms,
            ..AuditEntry::default()
        };
        let mut uses = BTreeMap::new();
        count(&mut uses, &entry("select", &["main.t", "main.shop@3", "main.shop@4"], 5));
        count(&mut uses, &entry("insert", &["main.t"], 3));
        let failed =
            AuditEntry { outcome: Some("failed".into()), ..entry("insert", &["main.t"], 9) };
        count(&mut uses, &failed);
        count(&mut uses, &AuditEntry { phase: Phase::Begun, ..entry("insert", &["main.t"], 9) });
        let table = &uses["main.t"];
        assert_eq!((table.reads, table.changes, table.last_ms), (1, 1, Some(5)));
        assert_eq!(uses["main.shop"].reads, 1);
        assert_eq!(versionless("main.a@b"), "main.a@b");
    }
}
