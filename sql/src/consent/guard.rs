//! A governed table as a purpose leaves it: rows of people who consent to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::{ConsentPolicy, ObjectName};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use udfs::consent::SubjectKind;

use super::exec::{Condition, kept};
use super::store::{Used, current};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::policy::barrier::may_pass;
use crate::session::StatementContext;

/// What of a table may be read by the statement's purpose: the table itself where no policy governs
/// it. `lazily`, a refusal comes with the reading and not now: columns are seen without a purpose,
/// and rows are added without one.
///
/// # Errors
/// When the table is governed and the purpose is not one for which it is read, or not held.
pub(crate) fn governed(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
    lazily: bool,
) -> Result<Arc<dyn TableProvider>> {
    let purposes = context.rights().purposes();
    purposes.check_known()?;
    let policies = purposes.policies_of(name);
    if policies.is_empty() {
        return Ok(table);
    }
    let (purpose, rules, refusal) = match rules(context, name, table.as_ref(), policies) {
        Ok((purpose, rules)) => (purpose, rules, None),
        Err(error) if lazily => (String::new(), Vec::new(), Some(error)),
        Err(error) => return Err(error),
    };
    for rule in &rules {
        context.opening().used().note_planned(&rule.policy.name);
        let applied = format!("consent policy {} on {name}", rule.policy.name);
        context.used().policies.insert(applied);
    }
    Ok(Arc::new(Consented {
        table,
        purpose,
        rules,
        refusal,
        engine: context.engine().clone(),
        used: Arc::clone(context.opening().used()),
    }))
}

/// Checks that rows of a table may be changed or removed in place. What does so writes the rows
/// that stay, and those that a purpose does not show must stay too: so the whole table is
/// rewritten, rows of people who do not consent as well, and who does that is the policies' keeper.
///
/// # Errors
/// When the table is governed and who asks does not hold `policy_admin`. `Ok(true)` where it is.
pub(crate) fn may_rewrite(context: &StatementContext, name: &ObjectName) -> Result<bool> {
    let rights = context.rights();
    rights.purposes().check_known()?;
    if rights.purposes().policies_of(name).is_empty() {
        return Ok(false);
    }
    rights.may_set_policy(format!(
        "change rows of {name}, which is under a consent policy: rows of people who do not consent \
         would be changed unseen"
    ))?;
    Ok(true)
}

/// A policy that names the purpose, and the place of its persons.
#[derive(Debug, Clone)]
struct Rule {
    policy: Arc<ConsentPolicy>,
    column: usize,
    kind: SubjectKind,
}

fn rules(
    context: &StatementContext,
    name: &ObjectName,
    table: &dyn TableProvider,
    policies: &[Arc<ConsentPolicy>],
) -> Result<(String, Vec<Rule>)> {
    let purpose = purpose(context, name, policies)?;
    let schema = table.schema();
    let of_purpose = policies.iter().filter(|policy| policy.purposes.contains(&purpose));
    let rule = |policy: &Arc<ConsentPolicy>| {
        let found = schema.column_with_name(&policy.subject);
        let kind = found.and_then(|(_, field)| SubjectKind::of(field.data_type()));
        match found.zip(kind) {
            Some(((column, _), kind)) => Ok(Rule { policy: Arc::clone(policy), column, kind }),
            None => Err(Error::invalid_hint(
                format!(
                    "{name} is not read: the consent policy {} finds no persons in its column {}",
                    policy.name, policy.subject
                ),
                "a policy_admin replaces the policy, or gives the table that column",
            )),
        }
    };
    let rules = of_purpose.map(rule).collect::<Result<Vec<_>>>()?;
    Ok((purpose, rules))
}

/// The purpose for which a governed table is read now.
fn purpose(
    context: &StatementContext,
    name: &ObjectName,
    policies: &[Arc<ConsentPolicy>],
) -> Result<String> {
    let (rights, stated) = (context.rights(), context.settings().purpose.as_deref());
    let held = rights.purposes();
    let denied = |action: String| {
        let hint = format!("SET purpose = '…'; {}", held.listed());
        Error::Denied { principal: rights.name().to_owned(), action, hint: Some(hint) }
    };
    let Some(purpose) = stated else {
        return Err(denied(format!("read {name} without a purpose")));
    };
    held.check(rights.name(), purpose)?;
    match policies.iter().any(|policy| policy.purposes.contains(purpose)) {
        true => Ok(purpose.to_owned()),
        false => Err(denied(format!("read {name} for the purpose {purpose}"))),
    }
}

/// A table of which the rows of people who consent are there.
#[derive(Debug)]
pub(crate) struct Consented {
    table: Arc<dyn TableProvider>,
    purpose: String,
    rules: Vec<Rule>,
    refusal: Option<Error>,
    engine: Engine,
    used: Arc<Used>,
}

impl Consented {
    /// The policies whose persons are in a column.
    pub(super) fn policies_of_column<'a>(
        &'a self,
        column: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ConsentPolicy>> {
        let of = self.rules.iter().map(|rule| &rule.policy);
        of.filter(move |policy| policy.subject == column)
    }

    /// Who consents, as the newest consents say.
    async fn conditions(&self, columns: &[usize]) -> Result<Vec<Condition>> {
        let mut conditions = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let held = current(&self.engine, &rule.policy, &self.purpose).await?;
            if held.set().kind() != rule.kind {
                return Err(Error::invalid_hint(
                    format!(
                        "{} is not read: its column {} holds {}, and the consents of the policy {} \
                         hold {}",
                        rule.policy.table,
                        rule.policy.subject,
                        rule.kind.name(),
                        rule.policy.name,
                        held.set().kind().name()
                    ),
                    "a policy_admin names a view of the consents with CAST",
                ));
            }
            let Some(column) = columns.iter().position(|column| *column == rule.column) else {
                return Err(Error::Internal("a scan lost its column of persons".into()));
            };
            self.used.note(&rule.policy.name, held.version());
            conditions.push(Condition { column, set: Arc::clone(held.set()) });
        }
        Ok(conditions)
    }
}

#[async_trait]
impl TableProvider for Consented {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let below = self.table.supports_filters_pushdown(filters)?;
        let asked = filters.iter().zip(below).map(|(filter, below)| {
            // No policy of consent changes a value, so no column is masked here.
            match may_pass(filter, |_| false) {
                true => below,
                false => TableProviderFilterPushDown::Unsupported,
            }
        });
        Ok(asked.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        // A limit below would count rows that are not there.
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().into());
        }
        let fields = self.table.schema().fields().len();
        let wanted = projection.cloned().unwrap_or_else(|| (0..fields).collect());
        let persons = self.rules.iter().map(|rule| rule.column);
        // In the table's order, which every source can give.
        let columns: BTreeSet<usize> = wanted.iter().copied().chain(persons).collect();
        let columns: Vec<usize> = columns.into_iter().collect();
        let conditions = self.conditions(&columns).await?;
        let places = wanted.iter().filter_map(|at| columns.iter().position(|column| column == at));
        let output: Vec<usize> = places.collect();
        let filters: Vec<Expr> =
            filters.iter().filter(|filter| may_pass(filter, |_| false)).cloned().collect();
        let input = self.table.scan(state, Some(&columns), &filters, None).await?;
        let policies: Vec<String> =
            self.rules.iter().map(|rule| rule.policy.name.clone()).collect();
        kept(input, conditions, output, &self.purpose, policies, state.config_options())
    }
}
