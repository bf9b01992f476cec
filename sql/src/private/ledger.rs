//! What an answer is charged to, and where its noise comes from.

use std::sync::Arc;

use catalog::budget::{Account, Balance, Charged, Cost};
use catalog::privacy_policies::{BudgetPer, PrivacyPolicy};
use catalog::{Catalog, ObjectName};
use udfs::privacy::generator::{Generator, generator};

use crate::engine::NoiseSource;
use crate::error::{Error, Result};
use crate::private::lineage::Policies;
use crate::private::options::{Mechanism, Spec, short};
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
    /// When a policy does not allow for so large an epsilon, or for such Gaussian noise.
    pub(crate) fn new(
        context: &StatementContext,
        policies: &Policies,
        spec: &Spec,
    ) -> Result<Self> {
        let rho = match spec.options.mechanism {
            Mechanism::Laplace => None,
            Mechanism::Gaussian => Some(spec.noise()?.rho()?),
        };
        for (table, policy) in policies {
            check(table, policy, spec, rho)?;
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
            cost: Cost { epsilon: spec.options.epsilon, delta: spec.delta_of_groups(), rho },
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
                format!("epsilon {}", short(self.cost.epsilon)),
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

/// Checks that a table's policy gives as much to one query. Of Gaussian noise a small epsilon says
/// little beside a large delta, which no account pays: its rho counts, as a budget would pay it.
///
/// # Errors
/// When it gives less, or no Gaussian noise.
fn check(table: &ObjectName, policy: &PrivacyPolicy, spec: &Spec, rho: Option<f64>) -> Result<()> {
    let (epsilon, delta) = (spec.options.epsilon, spec.delta());
    let (epsilon_max, delta_max) = (policy.epsilon_per_query_max, policy.budget_delta);
    if rho.is_some() && delta_max == 0.0 {
        return Err(Error::invalid_hint(
            format!("the privacy budget of {table} has no delta, which Gaussian noise needs"),
            "leave mechanism out, or ask a policy_admin for a budget with delta",
        ));
    }
    if let Some(most) = epsilon_max.filter(|most| epsilon > *most) {
        return Err(Error::invalid_hint(
            format!("epsilon is {}, and {table} gives {most} to one query", short(epsilon)),
            format!("ask with epsilon = {most} or less"),
        ));
    }
    let Some(rho) = rho else { return Ok(()) };
    if delta > delta_max {
        return Err(Error::invalid_hint(
            format!("delta is {delta}, and the privacy budget of {table} has {delta_max}"),
            format!("ask with delta = {delta_max} or less"),
        ));
    }
    let Some(most) = epsilon_max else { return Ok(()) };
    let rho_max = policy.rho_of(most);
    if rho <= rho_max {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!(
            "Gaussian noise of epsilon {} and delta {delta} costs rho {rho:.3e}, and {table} gives \
             rho {:e} to one query, which epsilon {most} is worth in its budget",
            short(epsilon),
            rounded_down(rho_max)
        ),
        format!(
            "ask with epsilon = {} or less, with a smaller delta, or without mechanism",
            rounded_down(epsilon_within(spec, rho_max))
        ),
    ))
}

/// The largest epsilon at which the same answer costs at most `rho`, rounded down.
fn epsilon_within(spec: &Spec, rho: f64) -> f64 {
    let cost = |epsilon: f64| -> Result<f64> {
        let mut asked = spec.clone();
        asked.options.epsilon = epsilon;
        Ok(asked.noise()?.rho()?)
    };
    let (mut low, mut high) = (0.0, spec.options.epsilon);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        match cost(middle) {
            Ok(cost) if cost <= rho => low = middle,
            _ => high = middle,
        }
    }
    low
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
    use sqlparser::ast::{Expr, Ident};
    use udfs::privacy::noise::accounting::epsilon_of_rho;

    use super::*;
    use crate::private::options::{Aggregate, Contributions, Options, Selection, Statistic};

    fn gaussian(epsilon: f64, delta: f64) -> Spec {
        let options = Options {
            epsilon,
            delta: Some(delta),
            mechanism: Mechanism::Gaussian,
            unit: Expr::Identifier(Ident::new("id")),
            contributions: Contributions::Groups(1),
            units_min: None,
            selection: Selection::Threshold,
        };
        let count = Aggregate { statistic: Statistic::Count, bounds: Some((0.0, 1.0)) };
        Spec { options, groups: 0, aggregates: vec![count] }
    }

    fn policy(epsilon_per_query_max: Option<f64>) -> PrivacyPolicy {
        PrivacyPolicy {
            name: "p".into(),
            unit_column: "id".into(),
            source: None,
            budget_epsilon: 10.0,
            budget_delta: 1e-6,
            per: BudgetPer::User,
            every_ms: None,
            epsilon_per_query_max,
        }
    }

    fn checked(policy: &PrivacyPolicy, spec: &Spec) -> Result<()> {
        let rho = spec.noise()?.rho()?;
        check(&ObjectName::new("main", "t"), policy, spec, Some(rho))
    }

    #[test]
    fn gaussian_noise_is_worth_no_more_than_the_largest_epsilon() {
        // Whatever epsilon says, this is worth ten at the delta of the budget.
        let loose = gaussian(1.0, 0.4);
        assert!(epsilon_of_rho(loose.noise().unwrap().rho().unwrap(), 1e-6) > 9.0);
        for policy in [policy(Some(1.0)), policy(None)] {
            let error = checked(&policy, &loose).unwrap_err();
            assert!(error.to_string().contains("delta is 0.4"), "{error}");
        }
        for most in [0.01, 1.0, 5.0] {
            let policy = policy(Some(most));
            for delta in [1e-6, 1e-7, 1e-9] {
                let spec = gaussian(most, delta);
                let allowed = match checked(&policy, &spec) {
                    Ok(()) => most,
                    Err(error) => {
                        let allowed = rounded_down(epsilon_within(&spec, policy.rho_of(most)));
                        let hint = error.hint().unwrap_or_default();
                        assert!(hint.contains(&format!("epsilon = {allowed} ")), "{hint}");
                        assert!(checked(&policy, &gaussian(allowed * 1.01, delta)).is_err());
                        allowed
                    }
                };
                // An account counts half of delta, so that a little less is affordable.
                assert!((0.7 * most..=most).contains(&allowed), "{most} {delta}: {allowed}");
                let spec = gaussian(allowed, delta);
                checked(&policy, &spec).unwrap();
                let rho = spec.noise().unwrap().rho().unwrap();
                assert!(epsilon_of_rho(rho, 5e-7) <= most, "{most} {delta}: {allowed}");
            }
        }
    }

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
