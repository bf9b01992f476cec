//! Privacy policies: which tables give private statistics only, and how much of them.
//!
//! A table has at most one. It lies in a document under the table's name, and outlives the table:
//! a later table of that name is under it too, until the policy is dropped.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::{CreateMode, ObjectName, Spec};

/// The largest epsilon of a budget: beyond it there is no privacy to speak of.
pub const BUDGET_EPSILON_MAX: f64 = 1e6;

/// Whose budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPer {
    /// One budget for each role: all who hold it spend it together.
    Role,
    /// One budget for each user.
    User,
}

impl BudgetPer {
    /// The word in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Role => "ROLE",
            Self::User => "USER",
        }
    }
}

/// By what a policy's persons are told, where it is no column of the table alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitSource {
    /// They are those of a subject.
    Subject {
        /// Its name.
        name: String,
        /// Its key in the table.
        key: String,
    },
    /// They are those of the rows of another table under a privacy policy.
    Reference {
        /// The foreign key: the table's own column.
        key: String,
        /// The other table.
        table: ObjectName,
        /// The column that the foreign key has values of.
        column: String,
    },
}

impl UnitSource {
    /// The table's own column.
    pub fn key(&self) -> &str {
        match self {
            Self::Subject { key, .. } | Self::Reference { key, .. } => key,
        }
    }
}

/// A privacy policy of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrivacyPolicy {
    /// Its name.
    pub name: String,
    /// The column that tells whose row it is. It is the table's own, or one that private
    /// statistics alone see: of the subject's name where a crosswalk joins ids to persons, and
    /// called as in the other table where a foreign key leads there.
    pub unit_column: String,
    /// By what persons are told; none: by the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<UnitSource>,
    /// The epsilon that may be spent.
    pub budget_epsilon: f64,
    /// The delta that may be spent.
    pub budget_delta: f64,
    /// By whom.
    pub per: BudgetPer,
    /// After how many milliseconds since the first spending a budget is whole again; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<i64>,
    /// The largest epsilon of one query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_per_query_max: Option<f64>,
}

impl PrivacyPolicy {
    /// The table's own column by which its rows are told apart.
    pub fn key_column(&self) -> &str {
        self.source.as_ref().map_or(self.unit_column.as_str(), UnitSource::key)
    }

    /// Whether persons are told by a column that is not the table's own.
    pub fn is_linked(&self) -> bool {
        match &self.source {
            None => false,
            Some(UnitSource::Subject { key, .. }) => *key != self.unit_column,
            Some(UnitSource::Reference { .. }) => true,
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// When one makes no sense.
    pub fn check(&self) -> Result<()> {
        let is_epsilon = |epsilon: f64| epsilon > 0.0 && epsilon <= BUDGET_EPSILON_MAX;
        if !is_epsilon(self.budget_epsilon) {
            return Err(Error::invalid_hint(
                format!("the budget's epsilon is {}", self.budget_epsilon),
                format!("it lies above 0 and is at most {BUDGET_EPSILON_MAX}; 1 to 10 is common"),
            ));
        }
        if !(0.0..1.0).contains(&self.budget_delta) {
            return Err(Error::invalid_hint(
                format!("the budget's delta is {}", self.budget_delta),
                "it is 0 or lies between 0 and 1; take less than one over the number of people",
            ));
        }
        if let Some(most) = self.epsilon_per_query_max.filter(|most| !is_epsilon(*most)) {
            return Err(Error::invalid_hint(
                format!("MAX_EPSILON_PER_QUERY is {most}"),
                "it is a number above 0",
            ));
        }
        match self.every_ms {
            Some(every) if every <= 0 => Err(Error::invalid_hint(
                "the budget's period has no length",
                "write EVERY '30 days'",
            )),
            _ => Ok(()),
        }
    }
}

impl Catalog {
    /// The privacy policy of a table, at most a second old. One that cannot be read is an error:
    /// then nobody reads the table.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn privacy_policy(&self, table: &ObjectName) -> Result<Option<Arc<PrivacyPolicy>>> {
        let found = self.privacy_policies.sound(table).await?;
        Ok(found.and_then(|found| policy(found.spec)).map(Arc::new))
    }

    /// Every readable privacy policy by its table, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn all_privacy_policies(&self) -> Result<Vec<(ObjectName, PrivacyPolicy)>> {
        let found = self.privacy_policies.definitions().await?;
        let listed = found.iter().filter_map(|((schema, name), definition)| {
            Some((ObjectName::new(schema, name), policy(definition.spec.clone())?))
        });
        Ok(listed.collect())
    }

    /// Puts a table under a policy; `false` when it is under one and `mode` is `IfNotExists`.
    ///
    /// # Errors
    /// `AlreadyExists` when it is under one, `Invalid` when a number makes no sense, `Conflict`
    /// when somebody else was first.
    pub async fn create_privacy_policy(
        &self,
        table: &ObjectName,
        policy: PrivacyPolicy,
        by: &str,
        mode: CreateMode,
    ) -> Result<bool> {
        policy.check()?;
        self.writable().await?;
        self.privacy_policies.create(table, Spec::Privacy(policy), by, mode).await
    }

    /// Takes a table's policy of that name away; `false` when there is none.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed it at the same time.
    pub async fn drop_privacy_policy(&self, table: &ObjectName, name: &str) -> Result<bool> {
        self.writable().await?;
        let Some(head) = self.privacy_policies.head(table).await? else { return Ok(false) };
        let held = head.document.clone()?.spec.clone().and_then(policy);
        if held.is_none_or(|held| held.name != name) {
            return Ok(false);
        }
        // Over that very document: the table may be under another policy by now.
        self.privacy_policies.put(table, None, "", Some(&head)).await.map(|_| true)
    }
}

fn policy(spec: Spec) -> Option<PrivacyPolicy> {
    match spec {
        Spec::Privacy(policy) => Some(policy),
        _ => None,
    }
}
