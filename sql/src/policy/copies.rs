//! Copies inherit: a table that is made of a protected one carries its policies.
//!
//! Where a column of the copy is a column of the source as it is, policies and tags go with it
//! under its new name. Where it was computed of a masked column the strictest mask holds: NULL, but
//! for the roles that the policy excepts. A row access policy goes along with the columns that its
//! condition needs; a copy without them is refused, and so is one whose rows hold values of several
//! of the table's ([`super::beside`]), as under a retention policy. Rows are added to a table only
//! where it has at least the policies that a copy of them would carry. DECLASSIFY makes a copy
//! without.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use catalog::policy::{Attached, Policy, Rule, RuleSet, TableRules, free_name};
use catalog::{Catalog, ObjectName};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, LogicalPlan, TableScan};
use sqlparser::ast::{Expr as SqlExpr, Ident, visit_expressions, visit_expressions_mut};

use super::barrier::barrier_of;
use super::beside::{Part, Values};
use super::binding;
use super::expression::parsed;
use super::identifiers;
use super::lineage::{Lineage, Source};
use crate::dialect::folded;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// What a copy carries.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Copied {
    policies: Vec<(String, Policy)>,
    tags: BTreeMap<String, BTreeSet<String>>,
    /// Whether all of it comes of the table itself that the rows are for.
    own: bool,
}

/// The protected tables that a statement has met, each as it was opened.
type Governed = Vec<(ObjectName, Arc<dyn TableProvider>)>;

/// One output column by the protected column that it is.
type Places = BTreeMap<(ObjectName, String), String>;

impl Copied {
    /// What a table of the rows of `plan` carries; its columns are called `columns`. Rows for
    /// `target`, which is there, are no copies of its own where columns stay what they are. What
    /// comes `in_place`, into rows that are there, is kept as long as these are.
    ///
    /// # Errors
    /// When policies cannot be read, or one cannot hold for the copy.
    pub(crate) async fn of(
        context: &Arc<StatementContext>,
        plan: &LogicalPlan,
        columns: &[String],
        target: Option<&ObjectName>,
        in_place: bool,
    ) -> Result<Self> {
        if !in_place {
            identifiers::check_copy(context, plan).await?;
        }
        let governed = governed(context);
        if governed.is_empty() {
            return Ok(Self::default());
        }
        let lineage = Lineage(|scan: &TableScan| read_by(scan, &governed));
        let tables = lineage.tables(plan)?;
        if tables.is_empty() {
            return Ok(Self::default());
        }
        if context.policies().is_declassified() {
            tracing::warn!(
                target: "attune",
                principal = context.rights().name(),
                tables = %tables.iter().map(ObjectName::to_string).collect::<Vec<_>>().join(", "),
                "declassified"
            );
            return Ok(Self::default());
        }
        let sources = lineage.of(plan)?;
        let outputs: Vec<(&String, &Source)> = columns.iter().zip(&sources).collect();
        let mut places = Places::new();
        for (column, source) in &outputs {
            if let Some(origin) = source.is() {
                places.entry(origin.clone()).or_insert_with(|| (*column).clone());
            }
        }
        let mut copied = Self::default();
        let gathers = gathers(plan)?;
        for table in &tables {
            let rules = context.engine().catalog().table_rules(table).await?;
            let sees_groups = binding(context, table).await?.sees_groups();
            let own = target == Some(table);
            let ages = !in_place && ages(context, &governed, plan, table, &rules).await?;
            let (outputs, places) = (outputs.as_slice(), &places);
            let read = Read { plan, governed: &governed };
            let copy = Copying { table, own, read, outputs, places, sees_groups, gathers, ages };
            copy.carry(&rules, &mut copied)?;
        }
        copied.own = target.is_some_and(|target| tables.iter().all(|table| table == target));
        Ok(copied)
    }

    /// Checks that rows of such a copy may be added to a table.
    ///
    /// # Errors
    /// When the table has not what a copy would carry.
    pub(crate) async fn check_into(&self, catalog: &Catalog, table: &ObjectName) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let held = catalog.rules(&Attached::Table(table.clone())).await?;
        let missing = self
            .policies
            .iter()
            .find(|(_, needed)| !held.policies.values().any(|policy| policy.covers(needed)));
        let untagged = self.tags.iter().find(|(column, tags)| {
            !held.tags.get(*column).is_some_and(|held| tags.is_subset(held))
        });
        let lacks = match (missing, untagged) {
            (Some((name, _)), _) => format!("policy {name}"),
            (None, Some((column, _))) => format!("the tags of column {column}"),
            (None, None) => return Ok(()),
        };
        // The policies are the table's own, and of another column than the one that is set.
        if self.own {
            return Err(Error::unsupported(
                format!(
                    "{table} would hold in one column what is computed of another, without {lacks}"
                ),
                "set a column from itself or from columns under no policy, or ask who administers \
                 policies to protect the column that is set as well",
            ));
        }
        Err(Error::Unsupported {
            what: format!("rows of a protected table would come into {table} without {lacks}"),
            hint: Some(format!(
                "CREATE TABLE … AS SELECT carries policies along; give {table} the same ones, or \
                 ask who administers policies to DECLASSIFY the copy"
            )),
        })
    }

    /// The policies and tags that a table which is made of the rows brings along.
    pub(crate) fn rules(&self) -> RuleSet {
        let policies = self.policies.iter().cloned().collect();
        RuleSet { policies, tags: self.tags.clone(), ..RuleSet::default() }
    }

    fn add(&mut self, name: &str, rule: Rule, policy: &Policy) {
        let mut except = policy.except.clone();
        // One mask a column: that of two masked columns is for those whom both except.
        if let Rule::Masking { column, .. } = &rule {
            let masks =
                |rule: &Rule| matches!(rule, Rule::Masking { column: of, .. } if of == column);
            let same = |held: &(String, Policy)| masks(&held.1.rule);
            if let Some(at) = self.policies.iter().position(same) {
                let (_, other) = self.policies.swap_remove(at);
                except = &except & &other.except;
                let nothing = Rule::Masking { column: column.clone(), expression: "NULL".into() };
                let policy = Policy { rule: nothing, except, ..policy.clone() };
                self.policies.push((name.to_owned(), policy));
                return;
            }
        }
        let taken = |name: &str| self.policies.iter().any(|(held, _)| held == name);
        let name = free_name(name, taken);
        self.policies.push((name, Policy { rule, except, ..policy.clone() }));
    }
}

fn governed(context: &StatementContext) -> Governed {
    let met = context.policies().tables().into_iter();
    met.filter_map(|name| context.opened(&name).map(|table| (name, table))).collect()
}

/// The protected table that a scan reads.
fn read_by(scan: &TableScan, governed: &Governed) -> Option<ObjectName> {
    let read = source_as_provider(&scan.source).ok()?;
    let found = governed.iter().find(|(_, table)| Arc::ptr_eq(table, &read))?;
    Some(found.0.clone())
}

/// Whether rows of a plan are as old as rows of a table that are kept for a time.
///
/// # Errors
/// When policies or subjects cannot be read.
pub(crate) async fn have_an_age(
    context: &Arc<StatementContext>,
    plan: &LogicalPlan,
) -> Result<bool> {
    if identifiers::shown(context, plan).await?.is_some() {
        return Ok(true);
    }
    let governed = governed(context);
    let tables = Lineage(|scan: &TableScan| read_by(scan, &governed)).tables(plan)?;
    for table in &tables {
        let rules = context.engine().catalog().table_rules(table).await?;
        if ages(context, &governed, plan, table, &rules).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether rows of a plan are as old as those of a table under a retention policy, as they show
/// single ones.
async fn ages(
    context: &Arc<StatementContext>,
    governed: &Governed,
    plan: &LogicalPlan,
    table: &ObjectName,
    rules: &TableRules,
) -> Result<bool> {
    let times = times(rules);
    if times.is_empty() {
        return Ok(false);
    }
    let persons = persons(context, table).await?;
    let lineage = Lineage(|scan: &TableScan| read_by(scan, governed));
    Ok(lineage.shows_rows(plan, table, &times, &persons)?)
}

/// The columns of a table that tell how old its rows are.
fn times(rules: &TableRules) -> BTreeSet<&str> {
    let times = rules.own.policies.values().filter_map(|policy| match &policy.rule {
        Rule::Retention { column, .. } => Some(column.as_str()),
        _ => None,
    });
    times.collect()
}

/// The columns of a table that hold persons, as consent policies and subjects have it.
async fn persons(context: &Arc<StatementContext>, table: &ObjectName) -> Result<BTreeSet<String>> {
    let policies = context.rights().purposes().policies_of(table).iter();
    let mut columns: BTreeSet<String> = policies.map(|policy| policy.subject.clone()).collect();
    let catalog = context.engine().catalog();
    for subject in catalog.sound_subjects().await? {
        columns.extend(subject.columns_of(table).map(str::to_owned));
        if let Some(via) = subject.via.filter(|via| via.table == *table) {
            columns.extend([via.record, via.entity]);
        }
    }
    let copies = catalog.copies().await?.into_iter().filter(|(name, _)| name == table);
    columns.extend(copies.filter_map(|(_, copy)| copy.column));
    Ok(columns)
}

/// The columns that a condition names.
fn named(text: &str) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    let Ok(expr) = parsed(text) else { return columns };
    let _: ControlFlow<()> = visit_expressions(&expr, |part| {
        match part {
            SqlExpr::Identifier(name) => columns.insert(folded(name)),
            SqlExpr::CompoundIdentifier(names) => {
                names.last().is_some_and(|name| columns.insert(folded(name)))
            }
            _ => false,
        };
        ControlFlow::Continue(())
    });
    columns
}

/// Whether rows are put together on the way, so that those of the copy are not those of the table.
fn gathers(plan: &LogicalPlan) -> Result<bool> {
    let mut gathers = false;
    plan.apply_with_subqueries(|node| {
        gathers |= matches!(
            node,
            LogicalPlan::Aggregate(_)
                | LogicalPlan::Window(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::Extension(_)
                | LogicalPlan::Distinct(Distinct::All(_) | Distinct::On(_))
        );
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(gathers)
}

/// What a copy is made of.
struct Read<'a> {
    plan: &'a LogicalPlan,
    governed: &'a Governed,
}

/// The copy of one protected table.
struct Copying<'a> {
    table: &'a ObjectName,
    /// Whether its rows come into itself.
    own: bool,
    read: Read<'a>,
    outputs: &'a [(&'a String, &'a Source)],
    places: &'a Places,
    /// Whether who copies sees groups that are large enough, and nothing else.
    sees_groups: bool,
    gathers: bool,
    /// Whether the copy has rows as old as the table's: it is made of single ones.
    ages: bool,
}

impl Copying<'_> {
    fn carry(&self, rules: &TableRules, copied: &mut Copied) -> Result<()> {
        let times = times(rules);
        for (name, policy) in &rules.own.policies {
            match &policy.rule {
                // Its rows have them already.
                Rule::RowAccess { .. } | Rule::Aggregation { .. } | Rule::Retention { .. }
                    if self.own => {}
                Rule::Retention { column: time, keep, keep_ms, keeps_null } => {
                    let Some(column) = self.place(time) else {
                        if self.ages {
                            let why = "needs the time that the copy leaves out";
                            return Err(self.refusal(name, why));
                        }
                        continue;
                    };
                    if self.ages && !self.are_of_one(&BTreeSet::from([time.clone()]), &times)? {
                        return Err(self.put_together(name));
                    }
                    let (column, keep) = (column.clone(), keep.clone());
                    let (keep_ms, keeps_null) = (*keep_ms, *keeps_null);
                    let rule = Rule::Retention { column, keep, keep_ms, keeps_null };
                    copied.add(name, rule, policy);
                }
                Rule::Masking { column, expression } => {
                    self.masked(name, policy, (column.as_str(), expression.as_str()), copied);
                }
                Rule::Projection { columns } => {
                    columns.iter().for_each(|column| self.kept(name, policy, column, copied));
                }
                Rule::RowAccess { predicate: text } => {
                    let Some(predicate) = self.renamed(text) else {
                        return Err(self.refusal(name, "needs columns that the copy leaves out"));
                    };
                    let keys = named(text);
                    // Where no column decides, all rows are alike.
                    if !keys.is_empty() && !self.are_of_one(&keys, &BTreeSet::new())? {
                        return Err(self.put_together(name));
                    }
                    copied.add(name, Rule::RowAccess { predicate }, policy);
                }
                Rule::Aggregation { unit, min_group_size } => {
                    // Groups that are large enough are nobody's rows.
                    if self.sees_groups {
                        continue;
                    }
                    let unit = match unit {
                        None => None,
                        Some(unit) => match self.place(unit) {
                            Some(place) => Some(place.clone()),
                            None => {
                                return Err(self
                                    .refusal(name, "counts by a column that the copy leaves out"));
                            }
                        },
                    };
                    if self.gathers {
                        return Err(self.refusal(name, "does not hold for rows put together"));
                    }
                    let rule = Rule::Aggregation { unit, min_group_size: *min_group_size };
                    copied.add(name, rule, policy);
                }
            }
        }
        for (tag, policies) in &rules.by_tag {
            for column in rules.tagged(tag) {
                self.tagged(tag, policies, column, copied);
            }
        }
        Ok(())
    }

    /// A tag goes with its column; what is computed of the column has what the tag's policies are
    /// at their strictest.
    fn tagged(
        &self,
        tag: &str,
        policies: &BTreeMap<String, Policy>,
        column: &str,
        copied: &mut Copied,
    ) {
        for (output, source) in self.of(column) {
            if source.is().is_some() {
                copied.tags.entry(output.clone()).or_default().insert(tag.to_owned());
            }
        }
        for (name, policy) in policies {
            match &policy.rule {
                Rule::Masking { .. } => {
                    for (output, source) in self.of(column) {
                        if source.is().is_none() {
                            copied.add(name, nothing(output), policy);
                        }
                    }
                }
                Rule::Projection { .. } => self.kept(name, policy, column, copied),
                Rule::RowAccess { .. } | Rule::Aggregation { .. } | Rule::Retention { .. } => {}
            }
        }
    }

    /// The output columns that come of one of the table's.
    fn of<'a>(&'a self, column: &'a str) -> impl Iterator<Item = (&'a String, &'a Source)> {
        self.outputs.iter().copied().filter(move |(output, source)| {
            let stays = self.own && output.as_str() == column;
            !stays && source.of.iter().any(|(table, of)| table == self.table && of == column)
        })
    }

    fn masked(
        &self,
        name: &str,
        policy: &Policy,
        (column, expression): (&str, &str),
        copied: &mut Copied,
    ) {
        for (output, source) in self.of(column) {
            let same = source.is().and_then(|_| self.renamed(expression));
            let rule = match same {
                Some(expression) => Rule::Masking { column: output.clone(), expression },
                None => nothing(output),
            };
            copied.add(name, rule, policy);
        }
    }

    fn kept(&self, name: &str, policy: &Policy, column: &str, copied: &mut Copied) {
        let columns: Vec<String> = self.of(column).map(|(output, _)| output.clone()).collect();
        if !columns.is_empty() {
            copied.add(name, Rule::Projection { columns }, policy);
        }
    }

    fn place(&self, column: &str) -> Option<&String> {
        self.places.get(&(self.table.clone(), column.to_owned()))
    }

    /// Whether each row of the copy holds values of one row of the table, or of such as agree in
    /// the columns by which a policy decides, which are its own. `free`: columns of which those of
    /// other rows may be there.
    fn are_of_one(&self, keys: &BTreeSet<String>, free: &BTreeSet<&str>) -> Result<bool> {
        let parts = |scan: &TableScan, column: &str| {
            let table = read_by(scan, self.read.governed)?;
            let is_masked = || barrier_of(&scan.source, |barrier| barrier.masks(column));
            (table == *self.table).then(|| Part {
                is_value: !free.contains(column),
                is_key: keys.contains(column),
                decides: keys.len() == 1 && !is_masked().unwrap_or_default(),
            })
        };
        let places = keys.iter().filter_map(|key| {
            let place = self.place(key)?;
            self.outputs.iter().position(|(output, _)| *output == place)
        });
        let places: Vec<usize> = places.collect();
        Ok(Values::of(self.read.plan, &parts)?.are_of_one(&places))
    }

    /// An expression over the copy's columns; `None` when one that it names is not there.
    fn renamed(&self, text: &str) -> Option<String> {
        let mut expr = parsed(text).ok()?;
        let changed = visit_expressions_mut(&mut expr, |part| {
            let name = match part {
                SqlExpr::Identifier(name) => name.clone(),
                SqlExpr::CompoundIdentifier(names) => match names.last() {
                    Some(name) => name.clone(),
                    None => return ControlFlow::Break(()),
                },
                _ => return ControlFlow::Continue(()),
            };
            let Some(place) = self.place(&folded(&name)) else { return ControlFlow::Break(()) };
            let name = match *place == folded(&name) {
                true => name,
                false => Ident::with_quote('"', place.clone()),
            };
            *part = SqlExpr::Identifier(name);
            ControlFlow::Continue(())
        });
        changed.is_continue().then(|| expr.to_string())
    }

    fn put_together(&self, policy: &str) -> Error {
        Error::unsupported(
            format!("policy {policy} of {} does not hold for rows put together", self.table),
            "values of several rows would stand in one: make a view of the query, which reads the \
             rows anew each time, copy each row by itself, or ask who administers policies to \
             DECLASSIFY the copy",
        )
    }

    fn refusal(&self, policy: &str, why: &str) -> Error {
        Error::Unsupported {
            what: format!("policy {policy} of {} {why}", self.table),
            hint: Some(
                "copy these columns along as they are, or ask who administers policies to \
                 DECLASSIFY the copy"
                    .into(),
            ),
        }
    }
}

/// The strictest mask.
fn nothing(column: &str) -> Rule {
    Rule::Masking { column: column.to_owned(), expression: "NULL".into() }
}
