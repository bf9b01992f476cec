//! What an answer is charged to, and where its noise comes from.

use std::sync::Arc;

use catalog::Catalog;
use catalog::budget::{Account, Balance, Charged, Cost};
use catalog::privacy_policies::{BudgetPer, PrivacyPolicy};
use udfs::privacy::generator::{Generator, generator};

use crate::engine::NoiseSource;
use crate::error::{Error, Result};
use crate::private::lineage::Policies;
use crate::private::options::{Mechanism, Spec};
use crate::rights::Rights;
use crate::session::StatementContext;

/// The accounts of one private aggregation, and its source of noise.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    catalog: Arc<Catalog>,
    noise: Option<Arc<dyn NoiseSource>>,
    principal: String,
    accounts: Arc<[Account]>,
    cost: Cost,
}

impl Ledger {
    /// The ledger of an aggregation over tables under `policies`.
    ///
    /// # Errors
    /// When a policy does not allow for so large an epsilon, or for Gaussian noise.
    pub(crate) fn new(
        context: &StatementContext,
        policies: &Policies,
        spec: &Spec,
    ) -> Result<Self> {
        let epsilon = spec.options.epsilon;
        let rho = match spec.options.mechanism {
            Mechanism::Laplace => None,
            Mechanism::Gaussian => Some(spec.noise()?.rho()?),
        };
        for (table, policy) in policies {
            if rho.is_some() && policy.budget_delta == 0.0 {
                return Err(Error::invalid_hint(
                    format!(
                        "the privacy budget of {table} has no delta, which Gaussian noise needs"
                    ),
                    "leave mechanism out, or ask a policy_admin for a budget with delta",
                ));
            }
            if let Some(most) = policy.epsilon_per_query_max.filter(|most| epsilon > *most) {
                return Err(Error::invalid_hint(
                    format!("epsilon is {epsilon}, and {table} gives {most} to one query"),
                    format!("ask with epsilon = {most} or less"),
                ));
            }
        }
        let rights = context.rights();
        let accounts = policies.iter().flat_map(|(table, policy)| {
            holders(policy, rights).into_iter().map(move |holder| Account {
                table: table.clone(),
                policy: Arc::clone(policy),
                holder,
            })
        });
        Ok(Self {
            catalog: Arc::clone(context.engine().catalog()),
            noise: context.engine().noise().cloned(),
            principal: rights.name().to_owned(),
            accounts: accounts.collect(),
            cost: Cost { epsilon, delta: spec.delta_of_groups(), rho },
        })
    }

    /// Whether somebody's budget pays.
    pub(crate) fn is_charged(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// The accounts as plans compare and show them.
    pub(crate) fn shown(&self) -> String {
        let shown: Vec<String> = self
            .accounts
            .iter()
            .map(|account| format!("{} of {}", account.holder, account.table))
            .collect();
        match shown.is_empty() {
            true => "no budget".into(),
            false => shown.join(", "),
        }
    }

    /// Charges every account, or none. Nothing may be drawn before.
    ///
    /// # Errors
    /// When an account has too little, or cannot be written.
    pub(crate) async fn charge(&self) -> Result<()> {
        match self.catalog.charge(&self.accounts, self.cost).await? {
            Charged::Paid => Ok(()),
            Charged::Refused(balance) => Err(self.refused(&balance)),
        }
    }

    fn refused(&self, balance: &Balance) -> Error {
        let account = &balance.account;
        let renewed = match balance.renewed_ms.and_then(utc) {
            Some(time) => format!("it is whole again at {time}"),
            None => "a policy_admin can raise it with CREATE OR REPLACE PRIVACY POLICY".into(),
        };
        let (cost, left) = match self.cost.rho {
            None => (
                format!("epsilon {}", self.cost.epsilon),
                format!("epsilon {}", rounded_down(balance.epsilon_left)),
            ),
            Some(rho) => (
                format!("rho {rho:.3e} (Gaussian noise of epsilon {})", self.cost.epsilon),
                format!("rho {:e}", rounded_down(balance.rho_left)),
            ),
        };
        Error::Denied {
            principal: self.principal.clone(),
            action: format!(
                "spend {cost} and delta {} of the privacy budget of {} for {}: {left} and delta {} \
                 are left",
                self.cost.delta,
                account.table,
                account.holder,
                rounded_down(balance.delta_left),
            ),
            hint: Some(format!("system.privacy_budget tells what is left; {renewed}")),
        }
    }

    /// A generator for one answer.
    ///
    /// # Errors
    /// When the engine has no source of noise, or the source fails: then there is no answer.
    pub(crate) fn generator(&self) -> Result<Generator> {
        let Some(source) = &self.noise else {
            return Err(Error::unsupported(
                "this engine was opened without a source of noise",
                "open it with Engine::with_noise",
            ));
        };
        let seed = source.seed().map_err(|error| Error::Execution {
            what: format!("the operating system gives no randomness: {error}"),
            hint: Some("nothing was answered; try again".into()),
        })?;
        Ok(generator(seed))
    }
}

/// Whose accounts somebody spends from: each active role's, so that no role's budget is passed by
/// holding another one beside it.
pub(crate) fn holders(policy: &PrivacyPolicy, rights: &Rights) -> Vec<String> {
    let user = || vec![format!("user {}", rights.name())];
    match policy.per {
        BudgetPer::User => user(),
        BudgetPer::Role if rights.roles().is_empty() => user(),
        BudgetPer::Role => rights.roles().iter().map(|role| format!("role {role}")).collect(),
    }
}

/// Four digits, never more than there is.
fn rounded_down(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return value.max(0.0);
    }
    let unit = 10_f64.powf(value.log10().floor() - 3.0);
    let shown = ((value / unit) * (1.0 + 1e-12)).floor() * unit;
    // The decimal form nearest to it, without the digits that doubles add.
    format!("{shown:.3e}").parse().unwrap_or(shown)
}

/// A time in UTC, as text.
fn utc(ms: i64) -> Option<String> {
    use arrow::array::TimestampMillisecondArray;
    use arrow::util::display::array_value_to_string;
    let time = TimestampMillisecondArray::from(vec![ms]).with_timezone("UTC");
    array_value_to_string(&time, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown_in_few_digits() {
        for (value, shown) in
            [(0.2, 0.2), (0.199_999_999, 0.1999), (0.0, 0.0), (123_456.0, 123_400.0), (1e-7, 1e-7)]
        {
            assert_eq!(rounded_down(value), shown, "{value}");
        }
        assert_eq!(utc(0).unwrap(), "1970-01-01T00:00:00Z");
    }
}
