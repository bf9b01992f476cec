//! What the policies of a table leave of it to a principal.
//!
//! Decided when the table is opened, for the roles that are active then. A mask of the column
//! itself goes before one of its tags; that somebody is excepted from one does not lift the other.
//! Whatever cannot be planned any more, as over a column that is gone, closes the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::ObjectName;
use catalog::policy::{Policy, Rule, TableRules};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::Expr as SqlExpr;

use super::barrier::Barrier;
use super::expression::{Planner, VALUE, parsed};
use super::groups::GroupSize;
use super::rows::Parts;
use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::session::plan::analyzed;

/// The policies that bind a principal on one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bound {
    /// Their names.
    pub(crate) names: BTreeSet<String>,
    /// The same, each with its kind.
    pub(super) described: BTreeSet<String>,
    rows: Vec<(String, String)>,
    masks: BTreeMap<String, Mask>,
    kept: BTreeSet<String>,
    groups: Vec<GroupSize>,
}

/// A column's mask.
#[derive(Debug, Clone, PartialEq)]
struct Mask {
    policy: String,
    expression: String,
    by_tag: bool,
}

impl Bound {
    /// Those among a table's rules that bind somebody with these active roles.
    ///
    /// # Errors
    /// When two tags mask one column.
    pub(crate) fn of(rules: &TableRules, roles: &BTreeSet<String>) -> Result<Self> {
        let mut bound = Self::default();
        for (name, policy) in binding(&rules.own.policies, roles) {
            bound.add(name, &policy.rule);
        }
        for (tag, policies) in &rules.by_tag {
            for (name, policy) in binding(policies, roles) {
                for column in rules.tagged(tag) {
                    bound.add_by_tag(name, &policy.rule, column)?;
                }
            }
        }
        Ok(bound)
    }

    fn note(&mut self, name: &str, rule: &Rule) {
        self.names.insert(name.to_owned());
        self.described.insert(format!("{} policy {name}", rule.kind()));
    }

    fn add(&mut self, name: &str, rule: &Rule) {
        // What holds for everybody is applied below, where no principal is asked for.
        if matches!(rule, Rule::Retention { .. }) {
            return;
        }
        self.note(name, rule);
        match rule {
            Rule::Masking { column, expression } => {
                let expression = expression.clone();
                let mask = Mask { policy: name.to_owned(), expression, by_tag: false };
                self.masks.insert(column.clone(), mask);
            }
            Rule::RowAccess { predicate } => {
                self.rows.push((name.to_owned(), predicate.clone()));
            }
            Rule::Projection { columns } => self.kept.extend(columns.iter().cloned()),
            Rule::Aggregation { unit, min_group_size } => {
                self.groups.push(GroupSize { min: *min_group_size, unit: unit.clone() });
            }
            Rule::Retention { .. } => {}
        }
    }

    fn add_by_tag(&mut self, name: &str, rule: &Rule, column: &str) -> Result<()> {
        match rule {
            Rule::Masking { expression, .. } => match self.masks.get(column) {
                Some(own) if !own.by_tag => {}
                Some(other) => {
                    return Err(Error::invalid_hint(
                        format!(
                            "column {column} has two masks by its tags: {} and {name}",
                            other.policy
                        ),
                        "create a masking policy on the column itself, or unset one of the tags",
                    ));
                }
                None => {
                    let expression = expression.clone();
                    let mask = Mask { policy: name.to_owned(), expression, by_tag: true };
                    self.masks.insert(column.to_owned(), mask);
                    self.note(name, rule);
                }
            },
            Rule::Projection { .. } => {
                self.kept.insert(column.to_owned());
                self.note(name, rule);
            }
            Rule::RowAccess { .. } | Rule::Aggregation { .. } | Rule::Retention { .. } => {
                return Err(Error::Internal(format!("policy {name} is on a tag")));
            }
        }
        Ok(())
    }

    /// Whether no policy binds the principal.
    pub(crate) fn is_free(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether one of them shows something else in the place of a column's values.
    pub(crate) fn masks(&self, column: &str) -> bool {
        self.masks.contains_key(column)
    }

    /// Their names, for a sentence.
    pub(super) fn listed(&self) -> String {
        self.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Whether it may see rows in groups alone.
    pub(super) fn sees_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The names of the row access policies among them.
    pub(super) fn row_policies(&self) -> Vec<&str> {
        self.rows.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The condition of all row access policies over a table's columns, its types coerced; `None`
    /// where there is none.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub(super) async fn row_condition(
        &self,
        context: &Arc<StatementContext>,
        schema: &DFSchemaRef,
    ) -> Result<Option<Expr>> {
        let rows = Self { rows: self.rows.clone(), ..Self::default() };
        let planned = rows.planned(context, schema).await?;
        let Some(condition) = conjunction(planned.rows.iter().cloned()) else { return Ok(None) };
        let none = EmptyRelation { produce_one_row: false, schema: Arc::clone(schema) };
        let plan = LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(none));
        match planned.analyzed(plan.project([condition])?.build()?)? {
            LogicalPlan::Projection(node) => Ok(node.expr.into_iter().next()),
            _ => Err(Error::Internal("a condition was planned as something else".into())),
        }
    }

    /// The table as these policies leave it.
    ///
    /// # Errors
    /// When an expression cannot be planned over the table's columns, or a column is gone.
    pub(super) async fn barrier(
        &self,
        context: &Arc<StatementContext>,
        name: &ObjectName,
        table: Arc<dyn TableProvider>,
    ) -> Result<Barrier> {
        let scan = scan(name, table)?;
        let planned = self.planned(context, scan.schema()).await?;
        let barrier = self.shown(planned, scan, &BTreeMap::new())?;
        Ok(barrier.with_uses(self.kept.clone(), self.groups.clone()))
    }

    /// The table as two: what these policies leave of it, and the rows that they hide.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub(super) async fn parts(
        &self,
        context: &Arc<StatementContext>,
        name: &ObjectName,
        table: Arc<dyn TableProvider>,
    ) -> Result<Parts> {
        let scan = scan(name, table)?;
        let planned = self.planned(context, scan.schema()).await?;
        let hidden = match conjunction(planned.rows.iter().cloned()) {
            None => None,
            Some(condition) => {
                let plan = scan.clone().filter(condition.is_not_true())?.build()?;
                let plan = planned.analyzed(plan)?;
                let barrier = Barrier::new(plan, BTreeSet::new(), self.names.iter().cloned())?;
                Some(Arc::new(barrier) as Arc<dyn TableProvider>)
            }
        };
        let id = context.engine().catalog().new_id();
        let own = self.masks.keys().map(|column| (column.clone(), format!("{column} {id}")));
        let own: BTreeMap<String, String> = own.collect();
        let deciding = planned.deciding();
        let rows = Arc::new(self.shown(planned, scan, &own)?);
        Ok(Parts { rows, own, deciding, hidden })
    }

    /// The expressions of these policies over a table's columns.
    async fn planned(
        &self,
        context: &Arc<StatementContext>,
        schema: &DFSchema,
    ) -> Result<Expressions> {
        self.check_columns(schema)?;
        let rows: Vec<SqlExpr> =
            self.rows.iter().map(|(_, text)| parsed(text)).collect::<Result<_>>()?;
        let masks: Vec<SqlExpr> =
            self.masks.values().map(|mask| parsed(&mask.expression)).collect::<Result<_>>()?;
        let mut planned = Expressions::default();
        let all: Vec<SqlExpr> = rows.iter().chain(&masks).cloned().collect();
        if all.is_empty() {
            return Ok(planned);
        }
        let planner = Planner::new(context, &all).await?;
        for ((policy, _), expr) in self.rows.iter().zip(&rows) {
            let condition = planner.condition(expr, schema);
            planned.rows.push(condition.map_err(|error| of_policy(policy, error))?);
        }
        for ((column, mask), expr) in self.masks.iter().zip(&masks) {
            let masked = mask.plan(&planner, schema, column, expr);
            let masked = masked.map_err(|error| of_policy(&mask.policy, error))?;
            planned.masks.insert(column.clone(), masked);
        }
        planned.planner = Some(planner);
        Ok(planned)
    }

    /// The rows that are left, with masks in place of values; own values follow under the names in
    /// `own`.
    fn shown(
        &self,
        mut planned: Expressions,
        scan: LogicalPlanBuilder,
        own: &BTreeMap<String, String>,
    ) -> Result<Barrier> {
        let schema = Arc::clone(scan.schema());
        let mut plan = scan;
        for condition in std::mem::take(&mut planned.rows) {
            plan = plan.filter(condition)?;
        }
        if !planned.masks.is_empty() {
            let mut fields = Vec::with_capacity(schema.fields().len() + own.len());
            let mut values = Vec::with_capacity(own.len());
            for (relation, field) in schema.iter() {
                let value = || Expr::Column(Column::from((relation, field)));
                let shown = planned.masks.remove(field.name());
                fields.push(shown.map_or_else(value, |mask| mask.alias(field.name())));
                values.extend(own.get(field.name()).map(|name| value().alias(name)));
            }
            fields.extend(values);
            plan = plan.project(fields)?;
        }
        let plan = planned.analyzed(plan.build()?)?;
        let masked = self.masks.keys().cloned().collect();
        Ok(Barrier::new(plan, masked, self.names.iter().cloned())?.with_written())
    }

    fn check_columns(&self, schema: &DFSchema) -> Result<()> {
        let has = |name: &str| schema.fields().iter().any(|field| field.name() == name);
        let units = self.groups.iter().filter_map(|size| size.unit.as_ref());
        let named = self.masks.keys().chain(&self.kept).chain(units);
        match named.into_iter().find(|name| !has(name)) {
            None => Ok(()),
            Some(gone) => {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                Err(Error::unknown("column", gone, known.collect::<Vec<_>>()))
            }
        }
    }
}

/// The planned expressions of policies.
#[derive(Default)]
struct Expressions {
    rows: Vec<Expr>,
    /// By column.
    masks: BTreeMap<String, Expr>,
    planner: Option<Planner>,
}

impl Expressions {
    /// The columns that masks of others are computed of, each with one of these.
    fn deciding(&self) -> BTreeMap<String, String> {
        let mut deciding = BTreeMap::new();
        for (masked, expression) in &self.masks {
            for column in expression.column_refs() {
                if column.name != *masked {
                    deciding.insert(column.name.clone(), masked.clone());
                }
            }
        }
        deciding
    }

    /// A plan with them, its types coerced.
    fn analyzed(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match &self.planner {
            Some(planner) => analyzed(planner.state(), plan),
            None => Ok(plan),
        }
    }
}

fn scan(name: &ObjectName, table: Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
    let at = TableReference::bare(name.name.clone());
    Ok(LogicalPlanBuilder::scan(at, provider_as_source(table), None)?)
}

impl Mask {
    fn plan(
        &self,
        planner: &Planner,
        schema: &DFSchema,
        column: &str,
        expr: &SqlExpr,
    ) -> Result<Expr> {
        let found = schema.iter().find(|(_, field)| field.name() == column);
        let Some((relation, field)) = found else {
            return Err(Error::invalid(format!("column {column} does not exist")));
        };
        let wanted: &DataType = field.data_type();
        if !self.by_tag {
            return planner.mask(expr, schema, column, wanted);
        }
        // A tag's expression is over one column, whichever has the tag.
        let value = arrow::datatypes::Field::new(VALUE, wanted.clone(), true);
        let alone = arrow::datatypes::Schema::new(vec![value]);
        let planned = planner.mask(expr, &DFSchema::try_from(alone)?, column, wanted)?;
        let own = Column::from((relation, field));
        let planned = planned.transform(|part| {
            Ok(match &part {
                Expr::Column(_) => Transformed::yes(Expr::Column(own.clone())),
                _ => Transformed::no(part),
            })
        })?;
        Ok(planned.data)
    }
}

fn binding<'a>(
    policies: &'a BTreeMap<String, Policy>,
    roles: &'a BTreeSet<String>,
) -> impl Iterator<Item = (&'a String, &'a Policy)> {
    policies.iter().filter(move |(_, policy)| policy.binds(roles))
}

/// An error of a policy, which says whose it is: its expression may be another's secret.
fn of_policy(policy: &str, error: Error) -> Error {
    match error {
        Error::Invalid { what, hint } => {
            Error::Invalid { what: format!("policy {policy}: {what}"), hint }
        }
        Error::Unsupported { what, hint } => {
            Error::Unsupported { what: format!("policy {policy}: {what}"), hint }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use catalog::policy::RuleSet;

    use super::*;

    fn policy(rule: Rule, except: &[&str]) -> Policy {
        let except = except.iter().map(|role| (*role).to_owned()).collect();
        Policy { rule, except, owner: "dpo".into(), created_ms: 0 }
    }

    fn mask(column: &str, expression: &str) -> Rule {
        Rule::Masking { column: column.into(), expression: expression.into() }
    }

    fn rules() -> TableRules {
        let own = [
            ("own".to_owned(), policy(mask("mail", "'own'"), &["auditor"])),
            ("north".to_owned(), policy(Rule::RowAccess { predicate: "n = 1".into() }, &["boss"])),
        ];
        let tags = [("mail".to_owned(), BTreeSet::from(["pii.email".to_owned()]))];
        let by_tag = BTreeMap::from([("tagged".to_owned(), policy(mask("", "'tag'"), &[]))]);
        TableRules {
            own: RuleSet { policies: own.into(), tags: tags.into(), ..RuleSet::default() },
            by_tag: [("pii.email".to_owned(), by_tag)].into(),
        }
    }

    fn roles(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_columns_own_mask_goes_first_and_being_excepted_lifts_no_other() {
        let bound = Bound::of(&rules(), &roles(&["analyst"])).unwrap();
        assert_eq!(bound.masks["mail"].expression, "'own'");
        assert_eq!(bound.rows.len(), 1);
        let bound = Bound::of(&rules(), &roles(&["auditor", "boss"])).unwrap();
        assert_eq!(bound.masks["mail"].expression, "'tag'");
        assert!(bound.rows.is_empty() && !bound.is_free() && !bound.sees_groups());
    }

    #[test]
    fn two_masks_by_tags_close_the_column() {
        let mut twice = rules();
        let tags = twice.own.tags.get_mut("mail").unwrap();
        tags.insert("gdpr".to_owned());
        let other = BTreeMap::from([("other".to_owned(), policy(mask("", "NULL"), &[]))]);
        twice.by_tag.insert("gdpr".into(), other);
        assert!(Bound::of(&twice, &roles(&["analyst"])).is_ok());
        assert!(Bound::of(&twice, &roles(&["auditor"])).is_err());
    }
}
