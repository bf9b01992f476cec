//! What a planned statement touches: tables, views and models, the columns that it reads, keys and
//! policies. Found once while planning, so that running costs nothing more.
//!
//! Columns are those that the plan's expressions name before it is optimized. Through a view they
//! are all that the view reads. `count(*)` reads none.

use std::collections::{BTreeMap, BTreeSet};

use catalog::audit::bounded;
use catalog::{ObjectName, models};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::parse::Statement;
use crate::session::{Action, SEARCH_PATH, StatementContext};
use crate::{consent, dml, expectation, model, private, system, table};

/// System tables that are made of the whole record: reading them is on record, and takes a slot.
pub(crate) const RECORDS: [&str; 3] = ["audit", "audit_faults", "processing_activities"];

/// What a statement is to the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// It reads no data: SET, SHOW, `SELECT 1`.
    #[default]
    None,
    /// It reads system tables alone.
    System,
    /// It reads data.
    Read,
    /// It changes data or definitions.
    Change,
    /// It changes users, roles, grants, tokens, keys, policies, purposes or subjects, or answers a
    /// person's request.
    Rights,
}

/// What a statement touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) weight: Weight,
    /// Whether its plan is shown and nothing more.
    pub(crate) explains: bool,
    /// The purpose that its readings serve: the stated one, its user's default, or a training's.
    pub(crate) purpose: Option<String>,
    /// The channel that they are for, likewise.
    pub(crate) channel: Option<String>,
    pub(crate) objects: Vec<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) policies: Vec<String>,
    pub(crate) subjects: Vec<String>,
}

/// What a statement was bound to, and what was applied to it, noted while it is planned.
#[derive(Debug, Default)]
pub(crate) struct Used {
    models: BTreeSet<String>,
    /// Tables and views that were opened, also by a training for a purpose of its own.
    objects: BTreeSet<ObjectName>,
    /// The purpose of such a training, and its channel.
    pub(crate) purpose: Option<String>,
    pub(crate) channel: Option<String>,
    /// Policies that were applied, each with its kind. With any, a read is on record first.
    pub(crate) policies: BTreeSet<String>,
    /// Tokens of the data subjects that it names; see [`catalog::Catalog::audit_token`].
    pub(crate) subjects: BTreeSet<String>,
    /// What a change of rows reads, over the tables as they are called: what it does is planned
    /// over rows that have no name.
    reads: Vec<LogicalPlan>,
}

impl Used {
    /// Notes a plan of what the statement reads, which stands for those of what it does.
    pub(crate) fn add_read(&mut self, plan: LogicalPlan) {
        self.reads.push(plan);
    }

    /// Notes that a table or view was opened.
    pub(crate) fn add_object(&mut self, name: &ObjectName) {
        self.objects.insert(name.clone());
    }

    /// The tables and views that were opened, and the versions of models that were bound.
    pub(crate) fn opened(&self) -> (BTreeSet<ObjectName>, BTreeSet<String>) {
        (self.objects.clone(), self.models.clone())
    }

    /// Notes the models that a part of the statement was bound to.
    pub(crate) fn add_models<'a>(
        &mut self,
        models: impl IntoIterator<Item = &'a models::LoadedModel>,
    ) {
        let named = |model: &models::LoadedModel| format!("{}@{}", model.name, model.version);
        self.models.extend(models.into_iter().map(named));
    }
}

impl Touched {
    /// What a statement touches that was planned to do `action`.
    pub(crate) fn of(context: &StatementContext, statement: &Statement, action: &Action) -> Self {
        let opened = context.used().objects.iter().cloned().collect();
        let reads = std::mem::take(&mut context.used().reads);
        let plans = match reads.is_empty() {
            true => plans(action),
            false => reads.iter().collect(),
        };
        let mut found = Found::new(context, opened);
        for plan in plans {
            // The walk fails only where one of its closures does, and none does.
            let _ = found.walk(plan);
        }
        let Found { scans, only_system, opened, .. } = &found;
        let keys: BTreeSet<String> = context.used_keys().iter().map(ToString::to_string).collect();
        let used = context.used();
        let mut objects: BTreeSet<String> = opened.iter().map(ObjectName::to_string).collect();
        objects.extend(targets(context, statement, action));
        objects.extend(found.records.iter().map(ObjectName::to_string));
        objects.extend(used.models.iter().cloned());
        let weight = match action {
            Action::Query(_) if *scans > 0 && *only_system => Weight::System,
            Action::Query(_) if objects.is_empty() && keys.is_empty() => Weight::None,
            Action::Query(_) => Weight::Read,
            Action::Set(..) => Weight::None,
            Action::Access(_)
            | Action::CreateToken(_)
            | Action::DropToken(_)
            | Action::Key(_)
            | Action::Policy(_)
            | Action::Consent(_)
            | Action::Privacy(_)
            | Action::Subject(_)
            | Action::SubjectRequest(_)
            | Action::Retention(_)
            | Action::RetentionReport(_) => Weight::Rights,
            Action::CreateModel(_)
            | Action::Definition(_)
            | Action::Rows(_)
            | Action::Model(_)
            | Action::Kill(_)
            | Action::Expectation(_)
            | Action::CheckTable(_) => Weight::Change,
        };
        let explains = matches!(
            action,
            Action::Query(LogicalPlan::Explain(_) | LogicalPlan::DescribeTable(_))
        );
        let listed = |names: &BTreeSet<String>| -> Vec<String> { names.iter().cloned().collect() };
        Self {
            weight,
            explains,
            purpose: used.purpose.clone().or_else(|| context.settings().purpose.clone()),
            channel: match used.purpose {
                Some(_) => used.channel.clone(),
                None => context.settings().channel.clone(),
            },
            columns: bounded(found.columns()),
            objects: bounded(objects.into_iter().collect()),
            keys: listed(&keys),
            policies: listed(&used.policies),
            subjects: listed(&used.subjects),
        }
    }

    /// Whether it is on record before it does anything.
    pub(crate) fn is_written_first(&self) -> bool {
        self.weight >= Weight::Change || !self.policies.is_empty()
    }
}

fn plans(action: &Action) -> Vec<&LogicalPlan> {
    match action {
        Action::Query(plan) | Action::CreateModel(plan) => vec![plan],
        Action::Definition(definition) => definition.plans(),
        Action::Rows(change) => change.plans(),
        Action::CheckTable(checks) => checks.plans(),
        _ => vec![],
    }
}

/// The names of what a statement makes, changes or drops.
fn targets(context: &StatementContext, statement: &Statement, action: &Action) -> Vec<String> {
    use model::Change::{Drop, SetDefault, SetOptions};
    let names: Vec<ObjectName> = match action {
        Action::Definition(definition) => match definition {
            table::Definition::Table { name, .. }
            | table::Definition::View { name, .. }
            | table::Definition::AppendOnly { name, .. }
            | table::Definition::External { name, .. } => vec![name.clone()],
            table::Definition::Drop { names, .. } => names.clone(),
        },
        Action::Rows(change) => match change {
            dml::Change::Insert { name, .. }
            | dml::Change::Record { name, .. }
            | dml::Change::Rewrite { name, .. } => vec![name.clone()],
            dml::Change::Merge(merge) => vec![merge.name.clone()],
        },
        Action::Model(Drop { name, .. } | SetDefault { name, .. } | SetOptions { name, .. }) => {
            vec![name.clone()]
        }
        Action::Expectation(change) => match change {
            expectation::Change::Create { table, .. }
            | expectation::Change::Alter { table, .. }
            | expectation::Change::Drop { table, .. } => vec![table.clone()],
        },
        Action::CreateModel(_) => trained(context, statement).into_iter().collect(),
        Action::Privacy(change) => match change {
            private::Change::Create { table, .. } | private::Change::Drop { table, .. } => {
                vec![table.clone()]
            }
        },
        Action::Consent(consent::Change::CreatePolicy(policy, _)) => vec![policy.table.clone()],
        Action::Policy(change) => change.table().into_iter().cloned().collect(),
        Action::Retention(apply) | Action::RetentionReport(apply) => apply.tables().to_vec(),
        _ => vec![],
    };
    names.iter().map(ObjectName::to_string).collect()
}

/// The model that a statement trains.
fn trained(context: &StatementContext, statement: &Statement) -> Option<ObjectName> {
    let written = match statement {
        Statement::CreateModel(create) => &create.name,
        Statement::Retrain { name, .. } => name,
        _ => return None,
    };
    let parts: Vec<String> = written.split('.').map(str::to_owned).collect();
    context.target(&parts).ok()
}

/// What a walk through plans finds.
struct Found {
    opened: Vec<ObjectName>,
    path: Vec<String>,
    scans: usize,
    only_system: bool,
    /// System tables of [`RECORDS`].
    records: BTreeSet<ObjectName>,
    /// The tables that stand behind the names of a plan.
    tables: BTreeMap<TableReference, ObjectName>,
    /// Columns by the name of the plan that they are taken from.
    named: BTreeSet<(TableReference, String)>,
}

impl Found {
    fn new(context: &StatementContext, opened: Vec<ObjectName>) -> Self {
        Self {
            opened,
            path: context.search_path(),
            scans: 0,
            only_system: true,
            records: BTreeSet::new(),
            tables: BTreeMap::new(),
            named: BTreeSet::new(),
        }
    }

    fn walk(&mut self, plan: &LogicalPlan) -> DataFusionResult<TreeNodeRecursion> {
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    self.scan(&scan.table_name);
                }
                LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
                    LogicalPlan::TableScan(scan) => {
                        self.stands_for(&alias.alias, &scan.table_name);
                    }
                    // A view, under its own name.
                    _ => self.stands_for(&alias.alias, &alias.alias),
                },
                LogicalPlan::Extension(_) => self.only_system = false,
                _ => {}
            }
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if let Expr::Column(column) = part
                        && let Some(relation) = &column.relation
                    {
                        self.named.insert((relation.clone(), column.name.clone()));
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })
    }

    fn scan(&mut self, table: &TableReference) {
        self.scans += 1;
        let schema = table.schema().filter(|schema| system::is_system(schema));
        match schema {
            // Who looks at the record is on it.
            Some(schema) if RECORDS.contains(&table.table()) => {
                self.only_system = false;
                self.records.insert(ObjectName::new(schema, table.table()));
            }
            Some(_) => {}
            None => self.only_system = false,
        }
        self.stands_for(table, table);
    }

    /// `name` stands in the plan for the table that is written `table`.
    fn stands_for(&mut self, name: &TableReference, table: &TableReference) {
        if let Some(object) = self.resolved(table) {
            self.tables.insert(name.clone(), object);
        }
    }

    /// The object that a written name meant when it was opened.
    fn resolved(&self, table: &TableReference) -> Option<ObjectName> {
        if let Some(schema) = table.schema().filter(|schema| *schema != SEARCH_PATH) {
            return Some(ObjectName::new(schema, table.table()));
        }
        let meant = |schema: &String| {
            let same = |name: &&ObjectName| name.schema == *schema && name.name == table.table();
            self.opened.iter().find(same).cloned()
        };
        self.path.iter().find_map(meant)
    }

    fn columns(&self) -> Vec<String> {
        let named = self.named.iter().filter_map(|(relation, column)| {
            let object = self.tables.get(relation)?;
            (!system::is_system(&object.schema)).then(|| format!("{object}.{column}"))
        });
        // Two names of one table name the same columns.
        named.collect::<BTreeSet<String>>().into_iter().collect()
    }
}
