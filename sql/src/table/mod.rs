//! Definitions of tables and views: CREATE TABLE, CREATE VIEW, CREATE EXTERNAL TABLE, ALTER TABLE,
//! DROP.

pub(crate) mod aliases;
pub(crate) mod cluster;
pub mod external;
mod property;

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::lake::LakeTable;
use catalog::{ConsentPolicy, CreateMode, Kind, NewTable, ObjectName, Spec};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast::{
    CreateView, Ident, ObjectName as SqlName, ObjectType, Statement as SqlStatement,
};

use crate::consent;
use crate::error::{CatalogError, Error, Result};
use crate::expectation::load::{Guard, Rows};
use crate::parse::name_parts;
use crate::pii;
use crate::policy::Copied;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};
use crate::subject::copies::{Copies, Making, Target};

/// A change of definitions.
#[derive(Debug, Clone)]
pub(crate) enum Definition {
    /// CREATE TABLE, with rows (AS SELECT) or without.
    Table {
        name: ObjectName,
        mode: CreateMode,
        plan: LogicalPlan,
        empty: bool,
        /// The columns by which rows lie together; none: as they come.
        cluster_by: Vec<String>,
        /// The policies that its rows bring along.
        copied: Box<Copied>,
        /// The consent policies that it inherits from the tables of its rows.
        consents: Vec<ConsentPolicy>,
        /// The ids of persons that its rows bring along.
        copies: Box<Copies>,
    },
    /// CREATE VIEW.
    View { name: ObjectName, mode: CreateMode, sql: String, columns: Vec<String> },
    /// CREATE EXTERNAL TABLE.
    External { name: ObjectName, mode: CreateMode, table: Box<LakeTable> },
    /// ALTER TABLE … SET (append_only = …).
    AppendOnly { name: ObjectName, append_only: bool },
    /// DROP TABLE, DROP VIEW.
    Drop { names: Vec<ObjectName>, kind: Kind, if_exists: bool },
}

impl Definition {
    pub(crate) fn plans(&self) -> Vec<&LogicalPlan> {
        match self {
            Self::Table { plan, .. } => vec![plan],
            _ => vec![],
        }
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let catalog = run.session.engine().catalog();
        let owner = run.session.principal().name.as_str();
        if let Self::Table { name, mode: CreateMode::Replace, .. } = self {
            pii::change::may_end(run, name).await?;
        }
        match self {
            Self::Table { name, mode, plan, empty: true, cluster_by, .. } => {
                let schema = Arc::new(plan.schema().as_arrow().clone());
                let guard = guard(run, name, *mode, plan).await?;
                let made = match guard.read(run).await {
                    Ok(()) => {
                        let make =
                            catalog.create_empty_table(name, owner, *mode, schema, cluster_by);
                        make.await.map_err(Error::from)
                    }
                    Err(error) => Err(error),
                };
                let made = guard.finish(run, made).await?;
                if made {
                    catalog.settle_copies(name, &BTreeSet::new()).await?;
                }
                Ok(created("TABLE", name, made, 0))
            }
            Self::Table { empty: false, .. } => self.make(run).await,
            Self::View { name, mode, sql, columns } => {
                let spec = Spec::View { sql: sql.clone(), columns: columns.clone() };
                let made = catalog.create(name, spec, owner, *mode).await?;
                Ok(created("VIEW", name, made, 0))
            }
            Self::External { name, mode, table } => {
                let more = external::define(run, name, *mode, table).await?;
                if more.is_some() {
                    catalog.settle_copies(name, &BTreeSet::new()).await?;
                }
                let mut done = created("EXTERNAL TABLE", name, more.is_some(), 0);
                done.message.push_str(&more.unwrap_or_default());
                Ok(done)
            }
            Self::AppendOnly { name, append_only } => {
                let is_changed = catalog.set_append_only(name, *append_only).await?;
                let message = match (is_changed, append_only) {
                    (false, _) => format!("{name} was so already, nothing was changed"),
                    (true, true) => format!("ALTER TABLE {name}: rows are only added from now on"),
                    (true, false) => {
                        format!("ALTER TABLE {name}: rows can be changed and removed again")
                    }
                };
                Ok(Done::new(0, message))
            }
            Self::Drop { names, kind, if_exists } => {
                for name in names {
                    pii::change::may_end(run, name).await?;
                    let dropped = catalog.drop_object(name, *kind).await?;
                    if !dropped && !if_exists {
                        return Err(missing(run, name, *kind).await);
                    }
                }
                let names: Vec<String> = names.iter().map(ObjectName::to_string).collect();
                Ok(Done::new(
                    0,
                    format!("DROP {} {}", kind.to_string().to_uppercase(), names.join(", ")),
                ))
            }
        }
    }

    /// CREATE TABLE … AS SELECT: what governs the rows comes with them, and whose they are is there
    /// before they are.
    async fn make(&self, run: &Run) -> Result<Done> {
        let Self::Table { name, mode, plan, cluster_by, copied, consents, copies, .. } = self
        else {
            return Err(Error::Internal("only a table is made of rows".into()));
        };
        let catalog = run.session.engine().catalog();
        let owner = run.session.principal().name.as_str();
        if (!consents.is_empty() || !copies.0.is_empty())
            && *mode != CreateMode::Replace
            && let Some(kind) = catalog.kind(name).await?
        {
            return already(name, *mode, kind);
        }
        let guard = guard(run, name, *mode, plan).await?;
        let (plan, state) = (guard.plan(), run.writing_state()?);
        // Before the rows, of which no request of a person may miss any.
        let making = Making::begin(catalog, name, copies).await?;
        // Its policies come with its definition.
        let (cluster_by, consents) = (cluster_by.clone(), consents.clone());
        let new = NewTable { cluster_by, carried: copied.rules(), consents };
        let written = catalog.create_table_as(name, owner, *mode, plan, state, &new).await;
        let written = guard.finish(run, written.map_err(Error::from)).await;
        if matches!(written, Ok(Some(_))) {
            making.made(catalog).await;
        } else {
            making.failed(catalog, written.as_ref().err()).await;
        }
        let rows = written?.map(|written| written.rows);
        Ok(created("TABLE", name, rows.is_some(), rows.unwrap_or(0)))
    }
}

/// The rows of a new table, under what is expected of the one whose place it takes.
async fn guard(
    run: &Run,
    name: &ObjectName,
    mode: CreateMode,
    plan: &LogicalPlan,
) -> Result<Guard> {
    let plan = run.bound(plan)?;
    match mode {
        CreateMode::Replace => Guard::new(run, name, plan, Rows::Replaced).await,
        CreateMode::New | CreateMode::IfNotExists => Ok(Guard::open(name, plan)),
    }
}

/// What there is to say where a table's name is taken.
fn already(name: &ObjectName, mode: CreateMode, kind: Kind) -> Result<Done> {
    match (mode, kind) {
        (CreateMode::IfNotExists, Kind::Table) => Ok(created("TABLE", name, false, 0)),
        _ => Err(CatalogError::AlreadyExists { kind: kind.name(), name: name.to_string() }.into()),
    }
}

fn created(what: &str, name: &ObjectName, made: bool, rows: u64) -> Done {
    if made {
        Done::new(rows, format!("CREATE {what} {name}, {rows} rows"))
    } else {
        Done::new(0, format!("{name} exists already, nothing was changed"))
    }
}

async fn missing(run: &Run, name: &ObjectName, kind: Kind) -> Error {
    let names = run.session.table_names().await.unwrap_or_default();
    let known: Vec<String> =
        names.into_iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    let label = if kind == Kind::View { "view" } else { "table" };
    let known = known.iter().map(String::as_str);
    Error::Catalog(catalog::Error::not_found(label, &name.to_string(), known))
}

/// Plans CREATE TABLE, CREATE VIEW, ALTER TABLE and DROP.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    tree: &SqlStatement,
) -> Result<(SessionState, Action)> {
    match tree {
        SqlStatement::CreateTable(create) => {
            let name = context.target(&name_parts(&create.name))?;
            context.rights().may_create(&name)?;
            let mode = mode(create.or_replace, create.if_not_exists)?;
            if mode == CreateMode::Replace {
                context.engine().catalog().check_append_only(&name).await?;
            }
            let cluster_by = cluster::columns(create);
            let mut plain = create.clone();
            plain.cluster_by = None;
            plain.name = nothing();
            let plain = DataFusionStatement::Statement(Box::new(SqlStatement::CreateTable(plain)));
            let (state, plan) = context.plan_statement(plain).await?;
            let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) = plan else {
                return Err(Error::unsupported(
                    "this CREATE TABLE is not supported",
                    "see docs/sql.md",
                ));
            };
            if !table.constraints.is_empty() || !table.column_defaults.is_empty() {
                return Err(Error::unsupported(
                    "keys, defaults and other constraints are not supported",
                    "leave them out; CREATE EXPECTATION says what rows have to be like",
                ));
            }
            let empty = create.query.is_none();
            let plan = Arc::unwrap_or_clone(table.input);
            cluster::check(&cluster_by, plan.schema())?;
            let columns = plan.schema().fields().iter().map(|field| field.name().clone());
            let columns: Vec<String> = columns.collect();
            let copied = Box::new(Copied::of(context, &plan, &columns, None, false).await?);
            let consents = consent::copies::inherited(context, &name, &plan)?;
            let copies = Copies::of(context, &plan, &columns, Target::Made(&name)).await?;
            let copies = Box::new(copies);
            let table =
                Definition::Table { name, mode, plan, empty, cluster_by, copied, consents, copies };
            Ok((state, Action::Definition(table)))
        }
        SqlStatement::CreateView(create) => plan_view(context, create).await,
        SqlStatement::AlterTable(alter) => property::plan(context, alter).await,
        SqlStatement::Drop { object_type, if_exists, names, .. } => {
            let kind = match object_type {
                ObjectType::Table => Kind::Table,
                ObjectType::View => Kind::View,
                other => {
                    return Err(Error::unsupported(
                        format!("DROP {other} is not supported"),
                        "DROP TABLE, DROP VIEW and DROP MODEL are",
                    ));
                }
            };
            let mut targets = Vec::new();
            for name in names {
                let name = context.target(&name_parts(name))?;
                context.may_change(&name).await?;
                targets.push(name);
            }
            let change = Definition::Drop { names: targets, kind, if_exists: *if_exists };
            Ok((context.state(&Default::default())?, Action::Definition(change)))
        }
        _ => Err(Error::Internal("this statement defines no table".into())),
    }
}

async fn plan_view(
    context: &Arc<StatementContext>,
    create: &CreateView,
) -> Result<(SessionState, Action)> {
    if create.materialized || create.temporary || create.to.is_some() {
        return Err(Error::unsupported(
            "materialized and temporary views are not supported",
            "use CREATE VIEW, or CREATE TABLE … AS SELECT",
        ));
    }
    let name = context.target(&name_parts(&create.name))?;
    context.rights().may_create(&name)?;
    let mode = mode(create.or_replace, create.if_not_exists)?;
    // Planning proves that the view can be read now.
    let (state, plan) = context.plan_query(create.query.clone()).await?;
    if !plan.get_parameter_types()?.is_empty() {
        return Err(Error::invalid_hint("a view has no parameters", "write the values"));
    }
    let columns: Vec<String> =
        create.columns.iter().map(|column| crate::dialect::folded(&column.name)).collect();
    let wanted = plan.schema().fields().len();
    if !columns.is_empty() && columns.len() != wanted {
        return Err(Error::invalid(format!(
            "the view names {} columns, its query has {wanted}",
            columns.len()
        )));
    }
    let sql = match columns.is_empty() {
        true => create.query.to_string(),
        false => {
            let quoted: Vec<String> =
                columns.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
            format!("SELECT * FROM ({}) AS v ({})", create.query, quoted.join(", "))
        }
    };
    let columns = match columns.is_empty() {
        true => plan.schema().fields().iter().map(|field| field.name().clone()).collect(),
        false => columns,
    };
    Ok((state, Action::Definition(Definition::View { name, mode, sql, columns })))
}

/// A name in no catalog, for the planner: it opens every table that is named, and what a new table
/// takes the place of is not read. Opened, it would be refused where it cannot be read, and its
/// policies would count as those of the new rows.
fn nothing() -> SqlName {
    SqlName::from(vec![Ident::new("none"), Ident::new("none"), Ident::new("none")])
}

/// OR REPLACE and IF NOT EXISTS.
pub(crate) fn mode(replace: bool, if_not_exists: bool) -> Result<CreateMode> {
    match (replace, if_not_exists) {
        (true, true) => Err(Error::invalid("OR REPLACE and IF NOT EXISTS exclude each other")),
        (true, false) => Ok(CreateMode::Replace),
        (false, true) => Ok(CreateMode::IfNotExists),
        (false, false) => Ok(CreateMode::New),
    }
}
