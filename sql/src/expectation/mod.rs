//! Expectations: what somebody expects of a table, and checking it.
//!
//! All checks of a table are columns of one aggregate query, planned as the caller's own, so that
//! the table is read once, with the caller's rights; what they look up elsewhere is read with those
//! of the expectation's owner ([`owners`]). Of those that merge, each file is read once
//! ([`partial`]), together with the others ([`shared`]). Those of severity `error` are computed too
//! while rows are on their way into the table ([`load`]); rows that do not meet them are not
//! committed. What all of these make of floats is the same ([`floats`]).

mod aggregation;
mod check;
mod explain;
mod floats;
mod keys;
pub(crate) mod load;
mod log;
mod owners;
mod pairs;
mod part;
mod partial;
mod query;
mod references;
mod run;
mod shared;
mod state;
pub(crate) mod syntax;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::checks::{EXPECTATIONS_MAX, Expectation, Severity, TableExpectations};
use catalog::{CreateMode, Kind, Object, ObjectName};
use datafusion::execution::session_state::SessionState;
use sqlparser::ast::{Expr, Value};

pub use log::{CheckLog, CheckObserver};
pub(crate) use run::{CheckTable, answer_schema};
pub use syntax::ExpectationStatement;

use self::check::Shape;
use self::owners::Owners;
use self::query::Item;
use self::syntax::CreateExpectation;
use crate::error::{CatalogError, Error, Result};
use crate::parse::parse_query;
use crate::rights::{Columns, Rights};
use crate::session::bindings::Bindings;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};
use crate::table::mode;

/// Characters of an expectation's name.
const NAME_CHARS_MAX: usize = 255;
/// Bytes of a check's text.
const CHECK_BYTES_MAX: usize = 10_000;
/// A distribution without values, to try a comparison with.
const EMPTY_PROFILE: &str = "01000000000000000000";

/// A change of expectations.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create {
        table: ObjectName,
        name: String,
        mode: CreateMode,
        expectation: Expectation,
    },
    /// `owner` is whose it was when this was planned.
    Alter {
        table: ObjectName,
        name: String,
        owner: String,
        changes: Vec<Alteration>,
    },
    Drop {
        table: ObjectName,
        name: String,
        if_exists: bool,
    },
}

/// What ALTER EXPECTATION changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Alteration {
    Severity(Severity),
    Tolerance(f64),
    Description(Option<String>),
    /// The next result becomes what later ones are compared with.
    NextBaseline,
    /// Who answers for what is looked up, because it has changed how that is judged.
    Owner(String),
}

impl Change {
    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let catalog = run.session.engine().catalog();
        match self {
            Self::Create { table, name, mode, expectation } => {
                let add = |held: &mut TableExpectations| add(held, name, *mode, expectation);
                let made = catalog.change_expectations(table, add).await?;
                if !made {
                    let message = format!("{name} exists already, nothing was changed");
                    return Ok(Done::new(0, message));
                }
                catalog.forget_baseline(table, name).await?;
                Ok(Done::new(0, format!("CREATE EXPECTATION {name} ON {table}")))
            }
            Self::Alter { table, name, owner, changes } => {
                let alter = |held: &mut TableExpectations| {
                    let known = held.by_name.keys().cloned().collect::<Vec<_>>();
                    match held.by_name.get_mut(name) {
                        Some(expectation) if expectation.owner != *owner => {
                            Err(Error::invalid_hint(
                                format!("expectation {name} is another's by now"),
                                "send the statement again",
                            ))
                        }
                        Some(expectation) => {
                            changes.iter().for_each(|change| change.apply(expectation));
                            Ok(())
                        }
                        None => Err(missing(name, &known)),
                    }
                };
                catalog.change_expectations(table, alter).await?;
                if changes.contains(&Alteration::NextBaseline) {
                    catalog.forget_baseline(table, name).await?;
                }
                let mut message = format!("ALTER EXPECTATION {name} ON {table}");
                for change in changes {
                    if let Alteration::Owner(owner) = change {
                        message.push_str(&format!(", what it looks up is read as {owner} now"));
                    }
                }
                Ok(Done::new(0, message))
            }
            Self::Drop { table, name, if_exists } => {
                let take = |held: &mut TableExpectations| match held.by_name.remove(name) {
                    Some(_) => Ok(()),
                    None if *if_exists => Ok(()),
                    None => {
                        let known = held.by_name.keys().cloned().collect::<Vec<_>>();
                        Err(missing(name, &known))
                    }
                };
                catalog.change_expectations(table, take).await?;
                Ok(Done::new(0, format!("DROP EXPECTATION {name} ON {table}")))
            }
        }
    }
}

impl Alteration {
    fn apply(&self, expectation: &mut Expectation) {
        match self {
            Self::Severity(severity) => expectation.severity = *severity,
            Self::Tolerance(share) => expectation.tolerance = *share,
            Self::Description(text) => expectation.description.clone_from(text),
            Self::NextBaseline => {}
            Self::Owner(name) => expectation.owner.clone_from(name),
        }
    }
}

/// Adds an expectation; `false` when it shall stay as it is.
fn add(
    held: &mut TableExpectations,
    name: &str,
    mode: CreateMode,
    expectation: &Expectation,
) -> Result<bool> {
    match (held.by_name.contains_key(name), mode) {
        (true, CreateMode::IfNotExists) => return Ok(false),
        (true, CreateMode::New) => {
            let name = name.to_owned();
            return Err(CatalogError::AlreadyExists { kind: "expectation", name }.into());
        }
        (false, _) if held.by_name.len() >= EXPECTATIONS_MAX => {
            return Err(Error::invalid_hint(
                format!("a table has at most {EXPECTATIONS_MAX} expectations"),
                "join conditions by AND, or drop those that are not used",
            ));
        }
        _ => {}
    }
    held.by_name.insert(name.to_owned(), expectation.clone());
    Ok(true)
}

fn missing(name: &str, known: &[String]) -> Error {
    let known = known.iter().map(String::as_str);
    CatalogError::not_found("expectation", name, known).into()
}

/// Plans a statement about expectations.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &ExpectationStatement,
) -> Result<(SessionState, Action)> {
    let change = match statement {
        ExpectationStatement::Create(create) => plan_create(context, create).await?,
        ExpectationStatement::Alter { name, table, options } => {
            plan_alter(context, name, table, options).await?
        }
        ExpectationStatement::Drop { name, table, if_exists } => {
            let table = target(context, table, *if_exists).await?;
            Change::Drop { table, name: name.clone(), if_exists: *if_exists }
        }
        ExpectationStatement::Show(table) => {
            let filter = match table {
                Some(parts) => {
                    let (table, _) = seen(context, parts).await?;
                    filter(&table)
                }
                None => "TRUE".to_owned(),
            };
            return answer(
                context,
                &format!(
                    "SELECT schema, \"table\", name, \"check\", severity, last_status, last_checked \
                 FROM system.expectations WHERE {filter} ORDER BY schema, \"table\", name"
                ),
            )
            .await;
        }
        ExpectationStatement::Describe { name, table } => {
            let (table, _) = seen(context, table).await?;
            let held = context.engine().catalog().expectations(&table).await?;
            if !held.by_name.contains_key(name) {
                return Err(missing(name, &held.by_name.into_keys().collect::<Vec<_>>()));
            }
            let filter = format!("{} AND name = {}", filter(&table), literal(name));
            return answer(context, &format!("SELECT * FROM system.expectations WHERE {filter}"))
                .await;
        }
        ExpectationStatement::Check(table) => {
            let table = readable(context, table).await?;
            let checks = CheckTable::plan(context, &table).await?;
            return Ok((
                context.state(&Bindings::default())?,
                Action::CheckTable(Arc::new(checks)),
            ));
        }
        ExpectationStatement::Explain(table) => {
            let table = readable(context, table).await?;
            return explain::plan(context, &table).await;
        }
    };
    Ok((context.state(&Bindings::default())?, Action::Expectation(change)))
}

async fn answer(context: &Arc<StatementContext>, text: &str) -> Result<(SessionState, Action)> {
    let (state, plan) = context.plan_query(parse_query(text)?).await?;
    Ok((state, Action::Query(plan)))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn filter(table: &ObjectName) -> String {
    format!("schema = {} AND \"table\" = {}", literal(&table.schema), literal(&table.name))
}

/// The table or view that a written name means.
async fn seen(context: &Arc<StatementContext>, parts: &[String]) -> Result<(ObjectName, Object)> {
    let sees = |rights: &Rights, name: &ObjectName, object: &Object| {
        matches!(object.kind, Kind::Table | Kind::View)
            && rights.access(name, Some(object)).is_any()
    };
    match context.find(parts, sees).await? {
        Some(found) => Ok(found),
        None => Err(context.no_table(&parts.join(".")).await),
    }
}

/// The same, when all of its rows may be read.
async fn readable(context: &Arc<StatementContext>, parts: &[String]) -> Result<ObjectName> {
    let (table, object) = seen(context, parts).await?;
    if context.rights().access(&table, Some(&object)).select != Columns::All {
        return Err(context.rights().no_change(catalog::policy::Privilege::Select, &table));
    }
    crate::policy::whole(context, &table, "check").await?;
    crate::private::no_checks(context, &table).await?;
    Ok(table)
}

/// Whether nothing hides rows of a table from who asks: what was found in all of its rows, whoever
/// read them, may be told. What cannot be looked up hides them all.
pub(crate) async fn tells_all(context: &StatementContext, table: &ObjectName) -> bool {
    let (catalog, purposes) = (context.engine().catalog(), context.rights().purposes());
    purposes.check_known().is_ok()
        && purposes.policies_of(table).is_empty()
        && crate::policy::binding(context, table).await.is_ok_and(|bound| bound.is_free())
        && matches!(catalog.privacy_policy(table).await, Ok(None))
        && matches!(crate::subject::guard::hides(context, table).await, Ok(false))
        && matches!(crate::policy::retention::hides(context, table).await, Ok(false))
}

/// The table whose expectations may be changed: by whom the table itself may be. With `gone`, also
/// one whose files are gone, for an administrator.
async fn target(
    context: &Arc<StatementContext>,
    parts: &[String],
    gone: bool,
) -> Result<ObjectName> {
    match seen(context, parts).await {
        Ok((table, object)) => {
            context.rights().may_change(&table, Some(&object))?;
            Ok(table)
        }
        Err(error) => {
            let table = context.target(parts)?;
            match gone && context.rights().rules(&table.schema) {
                true => Ok(table),
                false => Err(error),
            }
        }
    }
}

async fn plan_create(
    context: &Arc<StatementContext>,
    create: &CreateExpectation,
) -> Result<Change> {
    let table = target(context, &create.table, false).await?;
    readable(context, &[table.schema.clone(), table.name.clone()]).await?;
    if create.name.is_empty() || create.name.chars().count() > NAME_CHARS_MAX {
        return Err(Error::invalid(format!(
            "an expectation's name has 1 to {NAME_CHARS_MAX} characters"
        )));
    }
    let text = create.check.to_string();
    if text.len() > CHECK_BYTES_MAX {
        return Err(Error::invalid_hint(
            format!("the check has {} bytes, the limit is {CHECK_BYTES_MAX}", text.len()),
            "keep long lists in a table: CHECK (column IN (SELECT value FROM allowed))",
        ));
    }
    let check = take_apart(context, &text, Some(EMPTY_PROFILE))?;
    if create.tolerance > 0.0 && matches!(check.shape, Shape::Table { .. }) {
        return Err(Error::invalid_hint(
            "TOLERANCE is a share of rows, and this check looks at the table as a whole",
            "put the bound into the condition, such as completeness(mail) >= 0.95",
        ));
    }
    let expectation = Expectation {
        check: text,
        kind: check.kind.to_owned(),
        columns: check.columns.clone(),
        severity: create.severity,
        tolerance: create.tolerance,
        description: create.description.clone(),
        owner: context.rights().name().to_owned(),
        created_ms: context.engine().catalog().now_ms(),
    };
    let item = Item::new(create.name.clone(), expectation.clone(), check);
    trial::try_check(context, &table, &item).await?;
    try_owner(context, &table, &item, create.severity).await?;
    let mode = mode(create.replace, create.if_not_exists)?;
    Ok(Change::Create { table, name: create.name.clone(), mode, expectation })
}

fn take_apart(
    context: &Arc<StatementContext>,
    text: &str,
    baseline: Option<&str>,
) -> Result<check::Check> {
    let aggregates = context.engine().base().aggregate_functions();
    check::check(text, baseline, |name| aggregates.contains_key(name))
}

/// The expectations of a table taken apart, and those that cannot be.
fn items(
    context: &Arc<StatementContext>,
    held: TableExpectations,
    baselines: &BTreeMap<String, String>,
) -> (Vec<Item>, Vec<(String, Expectation, Error)>) {
    let (mut items, mut broken) = (Vec::new(), Vec::new());
    for (name, expectation) in held.by_name {
        let baseline = baselines.get(&name).map(String::as_str);
        match take_apart(context, &expectation.check, baseline) {
            Ok(check) => items.push(Item::new(name, expectation, check)),
            Err(error) => broken.push((name, expectation, error)),
        }
    }
    (items, broken)
}

/// Reads as its owner what a check looks up: what the owner may not read is an error now. Rows on
/// their way into a table are read once, so they cannot be looked up in themselves.
async fn try_owner(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    item: &Item,
    severity: Severity,
) -> Result<()> {
    let mut owners = Owners::new(context, table);
    owners.read(&mut item.clone()).await?;
    let at_load = item.check.is_reference() && severity == Severity::Error;
    if !at_load || !owners.looks_into_table(item) {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("values of {table} that have to exist in {table} cannot be checked at load"),
        "use SEVERITY 'warn', and CHECK TABLE after loading",
    ))
}

async fn plan_alter(
    context: &Arc<StatementContext>,
    name: &str,
    table: &[String],
    options: &[(String, Expr)],
) -> Result<Change> {
    let table = target(context, table, false).await?;
    let mut held = context.engine().catalog().expectations(&table).await?;
    let Some(expectation) = held.by_name.remove(name) else {
        return Err(missing(name, &held.by_name.into_keys().collect::<Vec<_>>()));
    };
    let owner = expectation.owner.clone();
    let check = take_apart(context, &expectation.check, Some(EMPTY_PROFILE))?;
    let mut item = Item::new(name.to_owned(), expectation, check);
    let mut changes = Vec::new();
    if options.is_empty() {
        return Err(Error::invalid_hint("SET names nothing to change", "SET (severity = 'warn')"));
    }
    for (at, (key, value)) in options.iter().enumerate() {
        if options.iter().take(at).any(|(other, _)| other == key) {
            return Err(Error::invalid(format!("{key} is set twice")));
        }
        let change = alteration(key, value)?;
        if matches!(change, Alteration::Tolerance(_)) {
            // By one tolerance after the other it would tell how many rows there are.
            crate::policy::whole(context, &table, "set a tolerance for").await?;
            crate::private::no_checks(context, &table).await?;
        }
        match (&change, &item.check.shape) {
            (Alteration::Severity(severity @ Severity::Error), Shape::Reference { .. }) => {
                try_owner(context, &table, &item, *severity).await?;
            }
            (Alteration::Tolerance(share), Shape::Table { .. }) if *share > 0.0 => {
                return Err(Error::invalid(format!(
                    "{name} looks at the table as a whole and has no tolerance of rows"
                )));
            }
            // By another tolerance it tells something else of what only its owner may read.
            (Alteration::Tolerance(_), Shape::Reference { .. })
                if !context.rights().is_me(Some(&item.expectation.owner)) =>
            {
                let me = context.rights().name().to_owned();
                item.expectation.owner.clone_from(&me);
                try_owner(context, &table, &item, item.expectation.severity).await?;
                changes.push(Alteration::Owner(me));
            }
            _ => {}
        }
        changes.push(change);
    }
    Ok(Change::Alter { table, name: name.to_owned(), owner, changes })
}

fn alteration(key: &str, value: &Expr) -> Result<Alteration> {
    let text = match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => Some(text.as_str()),
            Value::Null => None,
            _ => return Err(wrong_option(key)),
        },
        _ => return Err(wrong_option(key)),
    };
    let change = match (key, text) {
        ("severity", Some(word)) => syntax::severity(word).map(Alteration::Severity),
        ("tolerance", Some(text)) => syntax::share(text).map(Alteration::Tolerance),
        ("description", text) => Some(Alteration::Description(text.map(str::to_owned))),
        ("baseline", Some(word)) => {
            word.eq_ignore_ascii_case("next").then_some(Alteration::NextBaseline)
        }
        ("severity" | "tolerance" | "baseline", None) => None,
        _ => {
            let known = ["severity", "tolerance", "description", "baseline"];
            return Err(Error::unknown("option", key, known));
        }
    };
    change.ok_or_else(|| wrong_option(key))
}

fn wrong_option(key: &str) -> Error {
    Error::invalid_hint(
        format!("option {key} does not take this value"),
        "write severity = 'warn' or 'error', tolerance = 0.01, description = '…', \
         baseline = 'next'",
    )
}
