//! Privacy policies as statements: who may make them, and what they need to be true.

use std::sync::Arc;

use arrow::datatypes::Schema;
use catalog::policy::Role;
use catalog::privacy_policies::{PrivacyPolicy, UnitSource};
use catalog::subjects::SubjectKey;
use catalog::{Catalog, CreateMode, Kind, ObjectName};
use datafusion::execution::session_state::SessionState;

use crate::consent::crosswalk_table;
use crate::engine::CATALOG;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::pii::{self, Reader, Shown};
use crate::private::linked;
use crate::private::syntax::{PrivacyStatement, Unit};
use crate::session::bindings::Bindings;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};
use crate::system;
use crate::table::{aliases, mode};

/// A change of privacy policies.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// CREATE PRIVACY POLICY.
    Create { table: ObjectName, policy: Box<PrivacyPolicy>, mode: CreateMode },
    /// DROP PRIVACY POLICY.
    Drop { table: ObjectName, name: String, if_exists: bool },
}

/// Plans a statement about privacy policies.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &PrivacyStatement,
) -> Result<(SessionState, Action)> {
    let change = match statement {
        PrivacyStatement::Create { table, replace, if_not_exists, unit, policy } => {
            let table = target(context, table).await?;
            let mut policy = policy.clone();
            name_unit(context, &table, unit, &mut policy).await?;
            check_columns(context, &table, &policy).await?;
            let mode = mode(*replace, *if_not_exists)?;
            Change::Create { table, policy, mode }
        }
        PrivacyStatement::Drop { table, name, if_exists } => {
            may_govern(context, "drop privacy policies")?;
            // A policy outlives its table, so the table need not be there.
            let table = match target(context, table).await {
                Ok(table) => table,
                Err(error) => named(context, table).into_iter().next().ok_or(error)?,
            };
            Change::Drop { table, name: name.clone(), if_exists: *if_exists }
        }
        PrivacyStatement::Show(None) => return answer(context, "").await,
        PrivacyStatement::Show(Some(table)) => {
            let table = seen(context, table).await?;
            return answer(context, &of_table(&table)).await;
        }
        PrivacyStatement::Describe { table, name } => {
            let table = seen(context, table).await?;
            let found = context.engine().catalog().privacy_policy(&table).await?;
            if found.is_none_or(|policy| policy.name != *name) {
                return Err(missing(name, &table));
            }
            return answer(context, &of_table(&table)).await;
        }
    };
    Ok((context.state(&Bindings::default())?, Action::Privacy(change)))
}

async fn answer(context: &Arc<StatementContext>, filter: &str) -> Result<(SessionState, Action)> {
    let text = format!("SELECT * FROM system.privacy_policies{filter} ORDER BY schema, table_name");
    let (state, plan) = context.plan_query(parse_query(&text)?).await?;
    Ok((state, Action::Query(plan)))
}

fn of_table(table: &ObjectName) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    format!(" WHERE schema = {} AND table_name = {}", quoted(&table.schema), quoted(&table.name))
}

fn may_govern(context: &StatementContext, action: &str) -> Result<()> {
    match context.rights().has(Role::PolicyAdmin) {
        true => Ok(()),
        false => Err(Error::Denied {
            principal: context.rights().name().to_owned(),
            action: action.into(),
            hint: Some("this needs the role policy_admin".into()),
        }),
    }
}

/// What a written name may mean, in order.
fn named(context: &StatementContext, parts: &[String]) -> Vec<ObjectName> {
    match parts {
        [name] => {
            let path = context.search_path().into_iter();
            path.map(|schema| ObjectName::new(schema, name)).collect()
        }
        [schema, name] => vec![ObjectName::new(schema, name)],
        [catalog, schema, name] if catalog == CATALOG => vec![ObjectName::new(schema, name)],
        _ => vec![],
    }
}

/// The table that a policy is of: whoever makes policies need not be able to read it.
async fn target(context: &Arc<StatementContext>, parts: &[String]) -> Result<ObjectName> {
    may_govern(context, "make privacy policies")?;
    for name in named(context, parts) {
        if system::is_system(&name.schema) {
            continue;
        }
        match context.engine().catalog().kind(&name).await? {
            Some(Kind::Table) => return Ok(name),
            Some(Kind::View) => {
                return Err(Error::unsupported(
                    format!("{name} is a view, and privacy policies are of tables"),
                    "put the tables under a policy that the view reads: it holds in every view",
                ));
            }
            _ => {}
        }
    }
    Err(context.no_table(&parts.join(".")).await)
}

/// A table that who asks knows of.
async fn seen(context: &Arc<StatementContext>, parts: &[String]) -> Result<ObjectName> {
    if context.rights().has(Role::PolicyAdmin) {
        return target(context, parts).await;
    }
    let found =
        context.find(parts, |rights, name, object| rights.access(name, Some(object)).is_any());
    match found.await? {
        Some((name, _)) => Ok(name),
        None => Err(context.no_table(&parts.join(".")).await),
    }
}

/// What tells whose row it is: the column itself, or the subject's key in the table. Where a
/// crosswalk joins keys to persons, persons are told by a column of the subject's name.
async fn name_unit(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    unit: &Unit,
    policy: &mut PrivacyPolicy,
) -> Result<()> {
    let name = match unit {
        Unit::Column(column) => {
            policy.unit_column.clone_from(column);
            return Ok(());
        }
        Unit::Reference { key, table, column } => {
            let table = target(context, table).await?;
            policy.unit_column = referenced(context, &table, column).await?;
            let (key, column) = (key.clone(), column.clone());
            policy.source = Some(UnitSource::Reference { key, table, column });
            return Ok(());
        }
        Unit::Subject(name) => name,
    };
    let subject = context.engine().catalog().subject(name).await?;
    let mut columns = subject.columns_of(table);
    let key = match (columns.next(), columns.next()) {
        (Some(column), None) => column.to_owned(),
        (Some(column), Some(other)) => {
            return Err(Error::invalid_hint(
                format!("subject {name} has several keys in {table}: {column}, {other}"),
                format!("name one: ON {table} ({column})"),
            ));
        }
        (None, _) => {
            return Err(Error::invalid_hint(
                format!("subject {name} has no key in {table}"),
                "name the column that tells whose row it is, or add the key to the subject",
            ));
        }
    };
    policy.unit_column = match &subject.via {
        Some(via) => {
            crosswalk_table(context.engine(), via).await?;
            subject.name.clone()
        }
        None => key.clone(),
    };
    policy.source = Some(UnitSource::Subject { name: subject.name.clone(), key });
    Ok(())
}

/// What persons are told by in a table that a foreign key leads to.
async fn referenced(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    column: &str,
) -> Result<String> {
    let catalog = context.engine().catalog();
    let Some(policy) = catalog.privacy_policy(table).await? else {
        return Err(Error::invalid_hint(
            format!("{table} is under no privacy policy, which would tell whose its rows are"),
            "make that of the table with persons first, then those of the tables that refer to it",
        ));
    };
    let opened = pii::open(context.engine(), table, None, Reader::Engine).await?;
    let Some(Shown::Table(provider)) = opened else {
        return Err(context.no_table(&table.to_string()).await);
    };
    check_column(&provider.schema(), column)?;
    Ok(policy.unit_column.clone())
}

fn check_column(schema: &Schema, column: &str) -> Result<()> {
    if schema.column_with_name(column).is_some() {
        return Ok(());
    }
    let names = schema.fields().iter().map(|field| field.name().as_str());
    Err(Error::unknown("column", column, names.collect::<Vec<_>>()))
}

async fn check_columns(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    policy: &PrivacyPolicy,
) -> Result<()> {
    let opened = pii::open(context.engine(), table, None, Reader::Engine).await?;
    let Some(Shown::Table(provider)) = opened else {
        return Err(context.no_table(&table.to_string()).await);
    };
    let schema = provider.schema();
    check_column(&schema, policy.key_column())?;
    linked::check_name(table, policy, &schema)
}

/// What is to be said of a policy that takes each id of a person for a person.
async fn ids_alone(catalog: &Catalog, table: &ObjectName, policy: &PrivacyPolicy) -> String {
    let column = policy.key_column();
    let key = SubjectKey { table: table.clone(), column: column.to_owned() };
    let crosswalks = match policy.source {
        None => catalog.crosswalks_of(&key).await.unwrap_or_default(),
        Some(_) => vec![],
    };
    match crosswalks.first() {
        None => String::new(),
        Some(via) => format!(
            "; by {} several values of {column} are one person, and each is protected by itself: \
             a policy of the SUBJECT protects the person",
            via.table
        ),
    }
}

fn missing(name: &str, table: &ObjectName) -> Error {
    Error::Catalog(catalog::Error::not_found("privacy policy", &format!("{name} ON {table}"), []))
}

impl Change {
    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        // The right is that of the moment in which it runs.
        let context = StatementContext::load(&run.session).await?;
        may_govern(&context, "change privacy policies")?;
        let catalog = run.session.engine().catalog();
        match self {
            Self::Create { table, policy, mode } => {
                let (by, policy) = (context.rights().name(), policy.as_ref());
                let made = catalog.create_privacy_policy(table, policy.clone(), by, *mode).await?;
                let name = &policy.name;
                Ok(match made {
                    true => {
                        let more = aliases::told(catalog, table).await;
                        let ids = ids_alone(catalog, table, policy).await;
                        Done::new(0, format!("CREATE PRIVACY POLICY {name} ON {table}{more}{ids}"))
                    }
                    false => {
                        Done::new(0, format!("{table} is under a policy, nothing was changed"))
                    }
                })
            }
            Self::Drop { table, name, if_exists } => {
                let dropped = catalog.drop_privacy_policy(table, name).await?;
                match dropped || *if_exists {
                    true => Ok(Done::new(0, format!("DROP PRIVACY POLICY {name} ON {table}"))),
                    false => Err(missing(name, table)),
                }
            }
        }
    }
}
