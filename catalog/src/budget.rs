//! The ledger of privacy budgets: what was spent of each, by table and by role or user.
//!
//! An account is one document, changed by compare-and-swap, so that servers over one warehouse
//! spend from the same account and the last of it goes to one of them. It is written before the
//! answer's first noise is drawn: whatever fails later, the account has paid. Nothing is paid back
//! but what a refused query paid from other accounts, before anything was drawn for it.
//!
//! Spending is counted twice: as epsilon, whose sum is a bound on the loss at delta 0, and as zCDP
//! (rho = epsilon²/2 of an answer without delta), which bounds many small queries far better. A
//! budget (epsilon, delta) holds as long as one of the two bounds does. Together they are
//! no weaker than apart: where the sum of epsilons is within the budget, the loss is within it for
//! sure; where the sum of rhos is within the rho that the budget is worth at half of its delta, the
//! loss is beyond it with at most that probability, whenever somebody chooses to stop. The other
//! half of delta is for rare groups. A budget without delta counts epsilon alone.
//!
//! An answer with Gaussian noise costs its rho, exactly, and nothing of the delta that its epsilon
//! is told with, since a sum of rhos has the delta of the budget. But no sum of epsilons bounds it
//! for sure: an account that has paid for one is held to the rho alone from then on.
//!
//! Sums are whole numbers of tiny units, rounded up, so that no order of queries can lose a digit.
//! An account outlives the policy: dropping and making a policy gives nothing back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use udfs::privacy::noise::accounting::{rho_of_epsilon, rho_of_pure};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::privacy_policies::PrivacyPolicy;
use crate::registry::change::{Step, held};
use crate::registry::{Head, ObjectName, Spec};

/// How often a charge is tried while other servers charge the same account.
const TRIES: usize = 1_000;

/// Units of the sums: of epsilon, of rho and of delta.
const EPSILON_UNITS: f64 = 1e9;
const RHO_UNITS: f64 = 1e12;
const DELTA_UNITS: f64 = 1e18;

/// What one query costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Its epsilon.
    pub epsilon: f64,
    /// The delta of rare groups.
    pub delta: f64,
    /// What Gaussian noise costs in zCDP; none: no more than its epsilon may be lost.
    pub rho: Option<f64>,
}

impl Cost {
    /// That of an answer which loses no more than its epsilon, but for rare groups.
    pub fn pure(epsilon: f64, delta: f64) -> Self {
        Self { epsilon, delta, rho: None }
    }

    /// What it costs in zCDP.
    pub fn rho(&self) -> f64 {
        self.rho.unwrap_or_else(|| rho_of_pure(self.epsilon))
    }
}

/// What was spent from an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Whose account it is: `role analyst` or `user ann`.
    pub holder: String,
    /// When its period began, in Unix milliseconds.
    pub started_ms: i64,
    /// The sum of epsilons, in 1e-9.
    pub epsilon_nanos: u64,
    /// The sum of rhos, in 1e-12.
    pub rho_picos: u64,
    /// The sum of deltas, in 1e-18.
    pub delta_attos: u64,
    /// How many queries.
    pub queries: u64,
    /// How many of them had Gaussian noise.
    #[serde(default)]
    pub gaussian: u64,
}

/// An account that a query is charged to.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The table.
    pub table: ObjectName,
    /// Its policy.
    pub policy: Arc<PrivacyPolicy>,
    /// Whose account: `role analyst` or `user ann`.
    pub holder: String,
}

/// What an account has left.
#[derive(Debug, Clone, PartialEq)]
pub struct Balance {
    /// The account.
    pub account: Account,
    /// What was spent in this period.
    pub spent: Spending,
    /// The largest epsilon that one more query with Laplace noise could have.
    pub epsilon_left: f64,
    /// The largest rho that one more query with Gaussian noise could have.
    pub rho_left: f64,
    /// The delta that is left for queries.
    pub delta_left: f64,
    /// When the budget is whole again, in Unix milliseconds; none: never, or it is whole.
    pub renewed_ms: Option<i64>,
}

/// What became of a charge.
#[derive(Debug, Clone, PartialEq)]
pub enum Charged {
    /// Every account has paid.
    Paid,
    /// An account has too little, and none has paid.
    Refused(Box<Balance>),
}

impl Spending {
    /// The same as it counts at a time: a period that is over leaves nothing.
    fn at(self, policy: &PrivacyPolicy, now_ms: i64) -> Self {
        let over =
            policy.every_ms.is_some_and(|every| self.started_ms.saturating_add(every) <= now_ms);
        match over || self.queries == 0 {
            true => Self { holder: self.holder, started_ms: now_ms, ..Self::default() },
            false => self,
        }
    }

    fn plus(&self, cost: Cost) -> Self {
        Self {
            epsilon_nanos: self.epsilon_nanos.saturating_add(units(cost.epsilon, EPSILON_UNITS)),
            rho_picos: self.rho_picos.saturating_add(units(cost.rho(), RHO_UNITS)),
            delta_attos: self.delta_attos.saturating_add(units(cost.delta, DELTA_UNITS)),
            queries: self.queries.saturating_add(1),
            gaussian: self.gaussian.saturating_add(u64::from(cost.rho.is_some())),
            ..self.clone()
        }
    }

    fn minus(&self, cost: Cost) -> Self {
        Self {
            epsilon_nanos: self.epsilon_nanos.saturating_sub(units(cost.epsilon, EPSILON_UNITS)),
            rho_picos: self.rho_picos.saturating_sub(units(cost.rho(), RHO_UNITS)),
            delta_attos: self.delta_attos.saturating_sub(units(cost.delta, DELTA_UNITS)),
            queries: self.queries.saturating_sub(1),
            gaussian: self.gaussian.saturating_sub(u64::from(cost.rho.is_some())),
            ..self.clone()
        }
    }

    /// Whether a policy's budget allows for it.
    fn is_within(&self, policy: &PrivacyPolicy) -> bool {
        let whole = Whole::of(policy);
        let is_pure = self.gaussian == 0 && self.epsilon_nanos <= whole.epsilon_nanos;
        self.delta_attos <= whole.delta_attos && (is_pure || self.rho_picos <= whole.rho_picos)
    }
}

/// A budget in the units of the sums, rounded down.
struct Whole {
    epsilon_nanos: u64,
    rho_picos: u64,
    delta_attos: u64,
}

impl Whole {
    fn of(policy: &PrivacyPolicy) -> Self {
        Self {
            epsilon_nanos: units_within(policy.budget_epsilon, EPSILON_UNITS),
            rho_picos: units_within(policy.rho_of(policy.budget_epsilon), RHO_UNITS),
            delta_attos: units_within(policy.budget_delta / 2.0, DELTA_UNITS),
        }
    }
}

impl PrivacyPolicy {
    /// The rho that an epsilon is worth at the half of the budget's delta that bounds sums of rho;
    /// 0 without delta.
    pub fn rho_of(&self, epsilon: f64) -> f64 {
        rho_of_epsilon(epsilon, self.budget_delta / 2.0)
    }
}

/// A cost in whole units, rounded up.
fn units(value: f64, units: f64) -> u64 {
    let scaled = value * units;
    // `as` saturates.
    near(scaled).unwrap_or_else(|| scaled.ceil()) as u64
}

/// A budget in whole units, rounded down. What saturates is within no budget.
fn units_within(value: f64, units: f64) -> u64 {
    let scaled = value * units;
    (near(scaled).unwrap_or_else(|| scaled.floor()) as u64).min(u64::MAX - 1)
}

/// The whole number that a number is but for the last digits of its decimal form: 0.1 of a budget
/// of 1 is a tenth of its units.
fn near(scaled: f64) -> Option<f64> {
    let near = scaled.round();
    ((scaled - near).abs() <= near.abs() * 1e-15).then_some(near)
}

impl Balance {
    fn of(account: &Account, spent: Spending) -> Self {
        let (policy, whole) = (&account.policy, Whole::of(&account.policy));
        let left = |whole: u64, spent: u64, units: f64| whole.saturating_sub(spent) as f64 / units;
        let pure = match spent.gaussian {
            0 => left(whole.epsilon_nanos, spent.epsilon_nanos, EPSILON_UNITS),
            _ => 0.0,
        };
        let rho = left(whole.rho_picos, spent.rho_picos, RHO_UNITS);
        let renewed = policy.every_ms.map(|every| spent.started_ms.saturating_add(every));
        Self {
            account: account.clone(),
            epsilon_left: pure.max((2.0 * rho).sqrt()),
            rho_left: rho,
            delta_left: left(whole.delta_attos, spent.delta_attos, DELTA_UNITS),
            renewed_ms: renewed.filter(|_| spent.queries > 0),
            spent,
        }
    }
}

impl Catalog {
    /// Charges a query to all of these accounts, or to none of them. When this gives
    /// [`Charged::Paid`], the accounts have paid for good, on every server.
    ///
    /// # Errors
    /// When the warehouse cannot be written or an account cannot be read: then nothing may be
    /// answered.
    pub async fn charge(&self, accounts: &[Account], cost: Cost) -> Result<Charged> {
        if accounts.is_empty() {
            return Ok(Charged::Paid);
        }
        self.writable().await?;
        // One at a time in this process: the others would only lose the race, again and again.
        let _turn = self.charging.lock().await;
        let mut paid: Vec<(&Account, i64)> = Vec::with_capacity(accounts.len());
        for account in accounts {
            let outcome = self.charge_one(account, cost).await;
            if !matches!(outcome, Ok(None)) {
                for (account, paid_ms) in &paid {
                    self.refund_one(account, cost, *paid_ms).await;
                }
            }
            match outcome? {
                None => {}
                Some(balance) => return Ok(Charged::Refused(Box::new(balance))),
            }
            paid.push((account, self.now_ms()));
        }
        Ok(Charged::Paid)
    }

    /// Charges one account; what it has left where that is too little.
    async fn charge_one(&self, account: &Account, cost: Cost) -> Result<Option<Balance>> {
        let what = || format!("the privacy budget of {}", account.table);
        let step = |head: Option<&Head>| {
            let spent = self.spending(account, head)?;
            let more = spent.plus(cost);
            Ok::<_, Error>(match more.is_within(&account.policy) {
                false => Step::Stays(Some(Balance::of(account, spent))),
                true => Step::writes(Some(Spec::Budget(more)), String::new(), None),
            })
        };
        self.budgets.change(&place(account), TRIES, what, step).await
    }

    /// Gives back what an account paid for a query that another account refused. Where that fails,
    /// the account has paid more than was drawn, which is safe; and so it is where the period in
    /// which it has paid is over, whose spending is not that of the next one.
    async fn refund_one(&self, account: &Account, cost: Cost, paid_ms: i64) {
        let what = || format!("the privacy budget of {}", account.table);
        let step = |head: Option<&Head>| {
            let spent = self.spending(account, head)?;
            Ok::<_, Error>(match spent.started_ms > paid_ms {
                true => Step::Stays(()),
                false => Step::writes(Some(Spec::Budget(spent.minus(cost))), String::new(), ()),
            })
        };
        if let Err(error) = self.budgets.change(&place(account), TRIES, what, step).await {
            tracing::warn!(%error, table = %account.table, "a refused charge stays paid");
        }
    }

    fn spending(&self, account: &Account, head: Option<&Head>) -> Result<Spending> {
        let spec = held(head)?;
        let spent = match spec {
            Some(Spec::Budget(spent)) => spent,
            _ => Spending { holder: account.holder.clone(), ..Spending::default() },
        };
        Ok(spent.at(&account.policy, self.now_ms()))
    }

    /// What accounts have left, each as the store has it now.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or an account cannot be read.
    pub async fn balances(&self, accounts: &[Account]) -> Result<Vec<Balance>> {
        let mut balances = Vec::with_capacity(accounts.len());
        for account in accounts {
            let head = self.budgets.head(&place(account)).await?;
            balances.push(Balance::of(account, self.spending(account, head.as_ref())?));
        }
        Ok(balances)
    }

    /// Every account from which something was spent, by its table and holder, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn spent_accounts(&self) -> Result<Vec<(String, String)>> {
        let found = self.budgets.definitions().await?;
        Ok(found.keys().cloned().collect())
    }
}

/// Where an account lies: its table and its holder are the two parts of a name.
fn place(account: &Account) -> ObjectName {
    ObjectName::new(account.table.to_string(), account.holder.as_str())
}

#[cfg(test)]
mod tests {
    use udfs::privacy::noise::Noise;

    use super::*;
    use crate::privacy_policies::BudgetPer;
    use crate::testing::{Shared, TestClock, open_folder};

    fn account(table: &str, epsilon: f64, delta: f64, every_ms: Option<i64>) -> Account {
        let policy = PrivacyPolicy {
            name: "p".into(),
            unit_column: "id".into(),
            source: None,
            budget_epsilon: epsilon,
            budget_delta: delta,
            per: BudgetPer::Role,
            every_ms,
            epsilon_per_query_max: None,
        };
        let table = ObjectName::new("main", table);
        Account { table, policy: Arc::new(policy), holder: "role analyst".into() }
    }

    async fn pay(catalog: &Catalog, accounts: &[Account], epsilon: f64, delta: f64) -> bool {
        let cost = Cost::pure(epsilon, delta);
        catalog.charge(accounts, cost).await.unwrap() == Charged::Paid
    }

    #[tokio::test]
    async fn a_budget_is_spent_to_its_end_and_no_further() {
        let shared = Shared::new();
        let (one, two) = (shared.open().await, shared.open().await);
        let accounts = [account("t", 1.0, 0.0, None)];
        for turn in 0..10 {
            let catalog = if turn % 2 == 0 { &one } else { &two };
            assert!(pay(catalog, &accounts, 0.1, 0.0).await, "{turn}");
        }
        for catalog in [&one, &two] {
            assert!(!pay(catalog, &accounts, 1e-6, 0.0).await);
            let left = catalog.balances(&accounts).await.unwrap().remove(0);
            assert_eq!((left.epsilon_left, left.spent.queries), (0.0, 10));
        }
    }

    #[tokio::test]
    async fn many_small_queries_cost_less_where_there_is_delta() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let accounts = [account("t", 1.0, 1e-6, None)];
        let mut paid = 0;
        while pay(&catalog, &accounts, 0.02, 0.0).await {
            paid += 1;
        }
        // The sum of epsilons alone allows for 50.
        assert!((70..200).contains(&paid), "{paid}");
        // One query may still take the whole of a budget.
        assert!(pay(&catalog, &[account("u", 1.0, 1e-6, None)], 1.0, 1e-7).await);
    }

    #[tokio::test]
    async fn gaussian_noise_costs_its_rho_and_ends_the_sum_of_epsilons() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let noise = Noise::Gaussian { epsilon: 0.1, delta: 1e-6 };
        let cost = Cost { epsilon: 0.1, delta: 0.0, rho: Some(noise.rho().unwrap()) };
        let accounts = [account("t", 1.0, 1e-6, None)];
        let mut paid = 0;
        while catalog.charge(&accounts, cost).await.unwrap() == Charged::Paid {
            paid += 1;
        }
        // Their sum is what one answer of the budget's whole rho would cost.
        let rho = rho_of_epsilon(1.0, 5e-7);
        assert_eq!(paid, (rho / cost.rho()) as i32, "{rho}");
        assert!(paid > 30, "{paid}");
        let left = catalog.balances(&accounts).await.unwrap().remove(0);
        assert!(left.rho_left < cost.rho() && left.spent.gaussian == left.spent.queries);
        // Laplace noise is held to what is left of rho too.
        assert!(!pay(&catalog, &accounts, left.epsilon_left * 1.01, 0.0).await);
        // A budget that was spent by epsilons alone has nothing for Gaussian noise.
        let pure = [account("u", 1.0, 1e-6, None)];
        assert!(pay(&catalog, &pure, 1.0, 0.0).await);
        assert!(catalog.charge(&pure, cost).await.unwrap() != Charged::Paid);
        // Without delta there is no rho.
        let none = [account("v", 1.0, 0.0, None)];
        assert!(catalog.charge(&none, cost).await.unwrap() != Charged::Paid);
    }

    #[tokio::test]
    async fn all_accounts_pay_or_none() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let rich = account("rich", 10.0, 0.0, None);
        let both = [rich.clone(), account("poor", 1.0, 0.0, None)];
        assert!(pay(&catalog, &both, 0.8, 0.0).await);
        let refused = catalog.charge(&both, Cost::pure(0.8, 0.0)).await.unwrap();
        let Charged::Refused(balance) = refused else { panic!("overspent") };
        assert_eq!(balance.account.table.name, "poor");
        assert!((balance.epsilon_left - 0.2).abs() < 1e-8);
        let left = catalog.balances(&[rich]).await.unwrap().remove(0);
        assert!((left.epsilon_left - 9.2).abs() < 1e-8, "{left:?}");
    }

    #[tokio::test]
    async fn what_was_paid_in_a_period_that_is_over_gives_nothing_to_the_next() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let accounts = [account("t", 1.0, 0.0, Some(1_000))];
        let cost = Cost::pure(0.5, 0.0);
        for (wait_ms, left) in [(0, 1.0), (1_000, 0.5)] {
            assert!(pay(&catalog, &accounts, 0.5, 0.0).await);
            let paid_ms = catalog.now_ms();
            shared.clock.advance(wait_ms);
            if wait_ms > 0 {
                assert!(pay(&catalog, &accounts, 0.5, 0.0).await);
            }
            catalog.refund_one(&accounts[0], cost, paid_ms).await;
            let balance = catalog.balances(&accounts).await.unwrap().remove(0);
            assert!((balance.epsilon_left - left).abs() < 1e-8, "{balance:?}");
        }
    }

    #[tokio::test]
    async fn rare_groups_take_half_of_delta() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let accounts = [account("t", 100.0, 1e-6, None)];
        assert!(pay(&catalog, &accounts, 0.1, 5e-7).await);
        assert!(!pay(&catalog, &accounts, 0.1, 1e-12).await);
        assert!(pay(&catalog, &accounts, 0.1, 0.0).await);
    }

    #[tokio::test]
    async fn a_period_begins_with_its_first_charge() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_000_000);
        let catalog = open_folder(folder.path(), &clock).await;
        let accounts = [account("t", 1.0, 0.0, Some(1_000))];
        assert!(pay(&catalog, &accounts, 1.0, 0.0).await);
        clock.advance(999);
        assert!(!pay(&catalog, &accounts, 1.0, 0.0).await);
        clock.advance(1);
        assert!(pay(&catalog, &accounts, 1.0, 0.0).await);
        assert!(!pay(&catalog, &accounts, 0.1, 0.0).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parallel_queries_on_two_servers_cannot_overspend() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let servers =
            [open_folder(folder.path(), &clock).await, open_folder(folder.path(), &clock).await];
        let mut charges = tokio::task::JoinSet::new();
        for number in 0..100 {
            let catalog = Arc::clone(&servers[number % 2]);
            charges.spawn(async move {
                pay(&catalog, &[account("t", 1.0, 0.0, None)], 0.05, 0.0).await
            });
        }
        let paid = charges.join_all().await.into_iter().filter(|paid| *paid).count();
        assert_eq!(paid, 20);
    }

    #[tokio::test]
    async fn who_is_killed_in_a_charge_has_paid_what_was_answered_and_never_half_of_it() {
        let cost = Cost::pure(0.25, 0.0);
        // Both can pay; the second cannot, so that the first gets its own back.
        for (poor, is_paid) in [(1.0, true), (0.1, false)] {
            for writes in 0.. {
                let shared = Shared::new();
                let catalog = shared.open().await;
                let both = [account("rich", 1.0, 0.0, None), account("poor", poor, 0.0, None)];
                shared.store.kill_after(writes);
                let charged = catalog.charge(&both, cost).await;
                let was_killed = shared.store.revive();
                let other = shared.open().await;
                let left = other.balances(&both).await.unwrap();
                let queries: Vec<u64> = left.iter().map(|left| left.spent.queries).collect();
                // Who was answered has paid, whatever happened afterwards.
                assert!(
                    !matches!(charged, Ok(Charged::Paid)) || queries == [1, 1],
                    "{writes}: {left:?}"
                );
                for (left, whole) in left.iter().zip([1.0, poor]) {
                    let paid = 0.25 * left.spent.queries as f64;
                    assert!((whole - paid - left.epsilon_left).abs() < 1e-8, "{writes}: {left:?}");
                }
                assert!(queries[0] <= 1 && queries[1] <= u64::from(is_paid), "{writes}");
                assert!(pay(&other, &both[..1], 0.5, 0.0).await, "{writes}");
                if !was_killed {
                    assert!(writes >= 2 && queries == [u64::from(is_paid); 2], "{writes}");
                    break;
                }
            }
        }
    }

    #[test]
    fn units_round_up_and_keep_whole_numbers() {
        assert_eq!(units(0.1, EPSILON_UNITS), 100_000_000);
        assert_eq!(units(1.5e-9, EPSILON_UNITS), 2);
        assert_eq!(units(1e20, EPSILON_UNITS), u64::MAX);
        assert_eq!(units_within(1e20, EPSILON_UNITS), u64::MAX - 1);
        assert_eq!((units(5e-7, DELTA_UNITS), units_within(1e-6 / 2.0, DELTA_UNITS)), {
            (500_000_000_000, 500_000_000_000)
        });
        assert_eq!(units(0.0, DELTA_UNITS), 0);
    }
}
