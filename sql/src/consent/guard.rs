//! A governed table as a purpose leaves it: rows of people who consent to it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::policy::Attached;
use catalog::{ConsentPolicy, ObjectName, Pii};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::OnceCell;
use udfs::consent::{ConsentSet, SubjectKind};

use super::exec::{Condition, Persons, kept};
use super::store::{Used, current};
use crate::engine::Engine;
use crate::error::{CatalogError, Error, Result};
use crate::policy::barrier::may_pass;
use crate::session::StatementContext;

/// What of a table may be read by the statement's purpose: the table itself where no policy governs
/// it. `lazily`, a refusal comes with the reading and not now: columns are seen without a purpose,
/// and rows are added without one.
///
/// # Errors
/// When the table is governed and the purpose is not one for which it is read, or not held; when it
/// is not known which of its columns hold personal data.
pub(crate) async fn governed(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
    lazily: bool,
) -> Result<Arc<dyn TableProvider>> {
    match consented(context, name, &table, lazily).await? {
        None => Ok(table),
        Some(consented) => Ok(Arc::new(consented)),
    }
}

/// Rows that a change may reach, and those that it leaves as they are, if there may be any.
pub(crate) type Parts = (Arc<dyn TableProvider>, Option<Arc<dyn TableProvider>>);

/// A table that is going to be written anew: the rows that the statement's purpose shows, which a
/// change may reach, and where a policy governs it the others, which stay as they are. Both are
/// told apart by the same consents, so that no row is in both or in neither.
///
/// # Errors
/// As [`governed`].
pub(crate) async fn parts(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<Parts> {
    let shown = consented(context, name, &table, false).await?;
    let Some(shown) = shown else { return Ok((table, None)) };
    let shown = Consented { pinned: Some(Arc::default()), ..shown };
    let others = Consented { persons: Persons::Others, ..shown.clone() };
    Ok((Arc::new(shown), Some(Arc::new(others))))
}

/// The table as the statement's purpose shows it; `None` where no policy governs it.
async fn consented(
    context: &StatementContext,
    name: &ObjectName,
    table: &Arc<dyn TableProvider>,
    lazily: bool,
) -> Result<Option<Consented>> {
    let purposes = context.rights().purposes();
    purposes.check_known()?;
    let policies = purposes.policies_of(name);
    // A copy that was made, or made anew, since the statement began has brought others along.
    let inherited = context.engine().catalog().inherited_by(name).await?;
    let is_known = |one: &ConsentPolicy| {
        policies.iter().any(|known| {
            known.created_ms == one.created_ms
                && known.subject == one.subject
                && known.consents == one.consents
        })
    };
    if !inherited.iter().all(is_known) {
        return Err(CatalogError::Conflict { name: name.to_string() }.into());
    }
    if policies.is_empty() {
        return Ok(None);
    }
    let (purpose, rules, refusal) = match rules(context, name, table.as_ref(), policies) {
        Ok((purpose, rules)) => (purpose, rules, None),
        Err(error) if lazily => (String::new(), Vec::new(), Some(error)),
        Err(error) => return Err(error),
    };
    let personal = personal(context, name).await?;
    // A copy has the tags too: groups of its rows are as those of the table's.
    if !personal.is_empty() {
        context.policies().met(name);
    }
    for rule in &rules {
        context.opening().used().note_planned(&rule.policy.name);
        if rule.channel.is_some() {
            context.opening().used().note_channel();
        }
        let applied = format!("consent policy {} on {name}", rule.policy.name);
        context.used().policies.insert(applied);
    }
    Ok(Some(Consented {
        table: Arc::clone(table),
        purpose,
        rules,
        personal,
        persons: Persons::Consenting,
        pinned: None,
        refusal,
        engine: context.engine().clone(),
        used: Arc::clone(context.opening().used()),
    }))
}

/// The columns of a table that hold personal data: those with a tag that says so, as identifiers
/// that are kept apart have, and their pseudonyms beside them.
///
/// # Errors
/// When the tags cannot be read.
pub(crate) async fn personal(
    context: &StatementContext,
    name: &ObjectName,
) -> Result<BTreeSet<String>> {
    let rules = context.engine().catalog().rules(&Attached::Table(name.clone())).await?;
    let mut personal: BTreeSet<String> = rules.personal().map(str::to_owned).collect();
    if let Some((_, pii)) = context.identifiers().get(name) {
        let apart = pii.columns.iter();
        personal.extend(apart.flat_map(|column| [column.clone(), Pii::pseudonym_of(column)]));
    }
    Ok(personal)
}

/// Checks that all rows of a table may be removed at once, those that no purpose shows as well.
///
/// # Errors
/// When the table is governed and who asks does not hold `policy_admin`.
pub(crate) fn may_replace(context: &StatementContext, name: &ObjectName) -> Result<()> {
    let rights = context.rights();
    rights.purposes().check_known()?;
    if rights.purposes().policies_of(name).is_empty() {
        return Ok(());
    }
    rights.may_set_policy(format!(
        "change all rows of {name}, which is under a consent policy: rows of people who do not \
         consent would be changed unseen"
    ))
}

/// A policy that names the purpose, and the place of its persons.
#[derive(Debug, Clone)]
struct Rule {
    policy: Arc<ConsentPolicy>,
    /// The channel for which it is asked who consents.
    channel: Option<String>,
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
            Some(((column, _), kind)) => {
                let channel = channel_of(context, policy)?;
                Ok(Rule { policy: Arc::clone(policy), channel, column, kind })
            }
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

/// The channel for which a policy is asked who consents. `None` where it lists no channels, or the
/// session states none: then every channel must consent.
///
/// # Errors
/// When the session states a channel that the policy does not list.
pub(super) fn channel_of(
    context: &StatementContext,
    policy: &ConsentPolicy,
) -> Result<Option<String>> {
    let stated = context.settings().channel.as_ref().filter(|_| !policy.channels.is_empty());
    match stated {
        Some(channel) if !policy.channels.contains(channel) => {
            let listed: Vec<&str> = policy.channels.iter().map(String::as_str).collect();
            Err(Error::Denied {
                principal: context.rights().name().to_owned(),
                action: format!("read {} for the channel {channel}", policy.table),
                hint: Some(format!(
                    "SET channel = '…'; the consent policy {} lists {}",
                    policy.name,
                    listed.join(", ")
                )),
            })
        }
        stated => Ok(stated.cloned()),
    }
}

/// A table of which the rows of people who consent are there, or those of all others.
#[derive(Clone)]
pub(crate) struct Consented {
    table: Arc<dyn TableProvider>,
    purpose: String,
    rules: Vec<Rule>,
    /// The columns that hold personal data.
    personal: BTreeSet<String>,
    persons: Persons,
    /// Who consents by each rule in all scans of one statement; `None`: each scan looks anew.
    pinned: Option<Arc<OnceCell<Vec<Arc<ConsentSet>>>>>,
    refusal: Option<Error>,
    engine: Engine,
    used: Arc<Used>,
}

impl fmt::Debug for Consented {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Consented({:?} to {}, {:?})", self.persons, self.purpose, self.table)
    }
}

impl Consented {
    /// The policies whose persons are in a column.
    pub(super) fn policies_of_column<'a>(
        &'a self,
        column: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ConsentPolicy>> {
        self.policies().filter(move |policy| policy.subject == column)
    }

    /// The columns that hold personal data, whichever policy's persons it is of.
    pub(super) fn personal(&self) -> &BTreeSet<String> {
        &self.personal
    }

    /// The policies that the table is under.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<ConsentPolicy>> {
        self.rules.iter().map(|rule| &rule.policy)
    }

    /// Who consents by each rule, as the newest consents say.
    async fn newest(&self) -> Result<Vec<Arc<ConsentSet>>> {
        let mut sets = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let channel = rule.channel.as_deref();
            let held = current(&self.engine, &rule.policy, &self.purpose, channel).await?;
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
            self.used.note(&rule.policy.name, held.version());
            sets.push(Arc::clone(held.set()));
        }
        Ok(sets)
    }

    /// Who consents, and in which of the columns that are read the persons are.
    async fn conditions(&self, columns: &[usize]) -> Result<Vec<Condition>> {
        let newest = self.newest();
        let sets = match &self.pinned {
            Some(pinned) => pinned.get_or_try_init(|| newest).await?.clone(),
            None => newest.await?,
        };
        let conditions = self.rules.iter().zip(sets).map(|(rule, set)| {
            match columns.iter().position(|column| *column == rule.column) {
                Some(column) => Ok(Condition { column, set }),
                None => Err(Error::Internal("a scan lost its column of persons".into())),
            }
        });
        conditions.collect()
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
        let channels: BTreeSet<&String> =
            self.rules.iter().filter_map(|rule| rule.channel.as_ref()).collect();
        let channels = channels.into_iter().map(|channel| format!(", channel={channel}"));
        let reading = format!("purpose={}{}", self.purpose, channels.collect::<String>());
        let config = state.config_options();
        kept(input, conditions, self.persons, output, reading, policies, config)
    }
}
