//! Tables under a privacy policy: their columns are seen, their rows only through the private
//! aggregation.
//!
//! What the session's catalog hands out for such a table refuses to be scanned. The one place that
//! takes the table out of it is [`opened`], below a private aggregation whose input was found to
//! keep persons apart; whatever else a statement does with it — views, sub-queries, INSERT …
//! SELECT, CREATE MODEL, UPDATE — meets the refusal.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::ObjectName;
use catalog::privacy_policies::PrivacyPolicy;
use catalog::subjects::Crosswalk;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::{Error, Result};
use crate::policy::barrier::{Barrier, barrier_of};
use crate::private::linked::{Teller, UnitRows};
use crate::private::node::PrivateNode;

/// A table under a privacy policy.
///
/// A private aggregation reads it behind a barrier: how many files a condition leaves would be told
/// by EXPLAIN, which nobody pays for.
#[derive(Debug)]
pub(crate) struct Protected {
    name: ObjectName,
    policy: Arc<PrivacyPolicy>,
    principal: String,
    via: Option<Crosswalk>,
    tellers: Vec<Teller>,
    is_unit_masked: bool,
    table: Arc<Barrier>,
}

impl Protected {
    /// The rows of a table, which lies under `policy`, as `principal` has them; `own` is the table
    /// without what tells whose they are.
    ///
    /// # Errors
    /// When DataFusion refuses the table's columns.
    pub(crate) fn new(
        name: &ObjectName,
        policy: Arc<PrivacyPolicy>,
        principal: &str,
        own: Arc<dyn TableProvider>,
        rows: UnitRows,
    ) -> Result<Self> {
        let UnitRows { plan, via, tellers } = rows;
        // The rows may be joined with other tables, whose columns have names of the table's too.
        let masks_unit = |own: &Barrier| own.masks(policy.key_column());
        let is_unit_masked = barrier_of(&provider_as_source(own), masks_unit).unwrap_or(false);
        let table = Arc::new(Barrier::new(plan, BTreeSet::new(), [policy.name.clone()])?);
        let (name, principal) = (name.clone(), principal.to_owned());
        Ok(Self { name, policy, principal, via, tellers, is_unit_masked, table })
    }

    /// The table's name.
    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    /// Its policy.
    pub(crate) fn policy(&self) -> &Arc<PrivacyPolicy> {
        &self.policy
    }

    /// The tables whose rows decide an answer over this one, with their policies: itself, and those
    /// that tell its persons.
    pub(crate) fn charged(&self) -> impl Iterator<Item = (&ObjectName, &Arc<PrivacyPolicy>)> {
        let tellers = self.tellers.iter().map(|teller| (&teller.name, &teller.policy));
        std::iter::once((&self.name, &self.policy)).chain(tellers)
    }

    /// The crosswalk that tells its persons; none: an id is a person.
    pub(crate) fn via(&self) -> Option<&Crosswalk> {
        self.via.as_ref()
    }

    /// Checks that the principal has the ids of persons as they are: of a mask's values one person
    /// could have many, and would count as often. What other tables tell of persons has to be the
    /// principal's to learn there, too.
    ///
    /// # Errors
    /// When they are masked, or another table that tells them is not granted.
    pub(crate) fn check_unit(&self) -> Result<()> {
        self.tellers.iter().try_for_each(|teller| teller.check(&self.name, &self.principal))?;
        if !self.is_unit_masked {
            return Ok(());
        }
        Err(Error::unsupported(
            format!(
                "the privacy unit of {}, its column {}, is masked for {}",
                self.name,
                self.policy.key_column(),
                self.principal
            ),
            "private statistics need a role that the masking policy excepts",
        ))
    }

    fn refusal(&self) -> Error {
        Error::Denied {
            principal: self.principal.clone(),
            action: format!(
                "read rows of {}, which is under the privacy policy {}",
                self.name, self.policy.name
            ),
            hint: Some(format!(
                "ask for statistics: SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1, \
                 delta = 1e-6, privacy_unit_column = {}) COUNT(*) FROM {}; models learn of such \
                 answers, since none is trained under differential privacy yet",
                self.policy.unit_column, self.name
            )),
        }
    }
}

#[async_trait]
impl TableProvider for Protected {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(self.refusal().into())
    }
}

/// The protected table that a scan reads, if it is one.
pub(crate) fn protected(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    let provider = source_as_provider(&scan.source).ok()?;
    provider.is::<Protected>().then_some(provider)
}

/// Refuses a plan that reads a protected table outside of a private aggregation, and one that would
/// tell with EXPLAIN ANALYZE or VERBOSE how many rows there are inside of one.
///
/// # Errors
/// When it does.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut tells = false;
    let mut charged = false;
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                if let Some(provider) = protected(scan)
                    && let Some(table) = provider.downcast_ref::<Protected>()
                {
                    return Err(DataFusionError::from(table.refusal()));
                }
            }
            LogicalPlan::Analyze(_) => tells = true,
            // It shows the statistics of files: numbers of rows, least and greatest values.
            LogicalPlan::Explain(explain) => {
                tells |= explain.verbose || explain.show_statistics == Some(true);
            }
            LogicalPlan::Extension(extension) => {
                let node = extension.node.as_any().downcast_ref::<PrivateNode>();
                charged |= node.is_some_and(PrivateNode::is_charged);
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match tells && charged {
        true => Err(Error::unsupported(
            "EXPLAIN ANALYZE and VERBOSE would tell exact numbers of rows under a privacy policy",
            "use EXPLAIN",
        )),
        false => Ok(()),
    }
}

/// Refuses a private aggregation over rows that an aggregation policy lets be seen in groups alone;
/// `plan` is what stands below it, [`opened`]. The rows of one person are a group below the
/// policy's size: left out one by one, they would make an answer about nobody. That noise protects
/// as well as the size of groups is for who made the policy to say, by EXCEPT ROLE.
///
/// # Errors
/// When there are such rows.
pub(crate) fn no_groups(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && barrier_of(&scan.source, |barrier| !barrier.groups().is_empty()) == Some(true)
        {
            found = Some(scan.table_name.table().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        None => Ok(()),
        Some(table) => Err(Error::unsupported(
            format!(
                "{table} is under an aggregation policy, which leaves out the groups that single \
                 persons' rows are, so that a private answer would be about nobody"
            ),
            "ask without the clause for groups that are large enough; or ask who administers \
             policies for a role that the policy excepts, and for a privacy policy of the table",
        )),
    }
}

/// The plan with the tables themselves in place of protected ones; only for what stands below a
/// private aggregation, after [`super::lineage`] has looked at it. Sub-queries in expressions stay
/// as they are.
///
/// # Errors
/// When a scan cannot be made anew.
pub(crate) fn opened(plan: LogicalPlan) -> Result<LogicalPlan> {
    let opened = plan.transform_down(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(provider) = protected(scan) else { return Ok(Transformed::no(node)) };
        let Some(table) = provider.downcast_ref::<Protected>() else {
            return Ok(Transformed::no(node));
        };
        let mut scan = scan.clone();
        scan.source = provider_as_source(Arc::clone(&table.table) as Arc<dyn TableProvider>);
        Ok(Transformed::new(LogicalPlan::TableScan(scan), true, TreeNodeRecursion::Jump))
    })?;
    Ok(opened.data)
}
