//! Privacy policies and what is left of their budgets: of the tables that a principal knows of;
//! one's own accounts, and for a `policy_admin` everybody's.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMillisecondArray};
use catalog::ObjectName;
use catalog::budget::{Account, Balance};
use catalog::policy::Role;
use catalog::privacy_policies::PrivacyPolicy;

use super::batches::{batch, integers, optional_texts, texts};
use crate::error::Result;
use crate::private::holders;
use crate::session::StatementContext;

fn doubles(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let times: TimestampMillisecondArray = values.into_iter().collect();
    Arc::new(times.with_timezone("UTC"))
}

/// The policies of the tables that the principal knows of.
async fn known(context: &StatementContext) -> Result<Vec<(ObjectName, PrivacyPolicy)>> {
    let mut known = Vec::new();
    for (table, policy) in context.engine().catalog().all_privacy_policies().await? {
        let governs = context.rights().has(Role::PolicyAdmin);
        if governs || context.access(&table).await.is_any() {
            known.push((table, policy));
        }
    }
    Ok(known)
}

pub(super) async fn policies(context: &StatementContext) -> Result<RecordBatch> {
    let known = known(context).await?;
    let tables = || known.iter().map(|(table, _)| table);
    let policies = || known.iter().map(|(_, policy)| policy);
    let days = |ms: i64| format!("{} days", ms as f64 / 86_400_000.0);
    batch(vec![
        ("schema", texts(tables().map(|table| table.schema.as_str()))),
        ("table_name", texts(tables().map(|table| table.name.as_str()))),
        ("name", texts(policies().map(|policy| policy.name.as_str()))),
        ("unit_column", texts(policies().map(|policy| policy.unit_column.as_str()))),
        ("epsilon", doubles(policies().map(|policy| policy.budget_epsilon))),
        ("delta", doubles(policies().map(|policy| policy.budget_delta))),
        ("per", texts(policies().map(|policy| policy.per.name()))),
        ("every", optional_texts(policies().map(|policy| policy.every_ms.map(days)))),
        (
            "max_epsilon_per_query",
            Arc::new(
                policies().map(|policy| policy.epsilon_per_query_max).collect::<Float64Array>(),
            ),
        ),
    ])
}

/// The accounts that the principal may look at.
async fn accounts(context: &StatementContext) -> Result<Vec<Account>> {
    let catalog = context.engine().catalog();
    let spent = match context.rights().has(Role::PolicyAdmin) {
        true => catalog.spent_accounts().await?,
        false => vec![],
    };
    let mut accounts = Vec::new();
    for (table, policy) in known(context).await? {
        let policy = Arc::new(policy);
        let mut all: BTreeSet<String> = holders(&policy, context.rights()).into_iter().collect();
        let written = table.to_string();
        all.extend(spent.iter().filter(|(of, _)| *of == written).map(|(_, who)| who.clone()));
        accounts.extend(all.into_iter().map(|holder| Account {
            table: table.clone(),
            policy: Arc::clone(&policy),
            holder,
        }));
    }
    Ok(accounts)
}

pub(super) async fn budget(context: &StatementContext) -> Result<RecordBatch> {
    let accounts = accounts(context).await?;
    let balances = context.engine().catalog().balances(&accounts).await?;
    let of = || balances.iter().map(|balance| &balance.account);
    let holder = |account: &Account, part: usize| {
        account.holder.splitn(2, ' ').nth(part).unwrap_or_default().to_owned()
    };
    let spent = |balance: &Balance| balance.spent.epsilon_nanos as f64 / 1e9;
    let rho = |balance: &Balance| balance.spent.rho_picos as f64 / 1e12;
    let started =
        |balance: &Balance| (balance.spent.queries > 0).then_some(balance.spent.started_ms);
    batch(vec![
        ("schema", texts(of().map(|account| account.table.schema.as_str()))),
        ("table_name", texts(of().map(|account| account.table.name.as_str()))),
        ("policy", texts(of().map(|account| account.policy.name.as_str()))),
        ("holder_kind", texts(of().map(|account| holder(account, 0)))),
        ("holder", texts(of().map(|account| holder(account, 1)))),
        ("epsilon", doubles(of().map(|account| account.policy.budget_epsilon))),
        ("delta", doubles(of().map(|account| account.policy.budget_delta))),
        ("epsilon_spent", doubles(balances.iter().map(spent))),
        ("epsilon_left", doubles(balances.iter().map(|balance| balance.epsilon_left))),
        ("delta_left", doubles(balances.iter().map(|balance| balance.delta_left))),
        ("rho_spent", doubles(balances.iter().map(rho))),
        ("rho_left", doubles(balances.iter().map(|balance| balance.rho_left))),
        ("queries", integers(balances.iter().map(|balance| balance.spent.queries.cast_signed()))),
        ("started", times(balances.iter().map(started))),
        ("renewed", times(balances.iter().map(|balance| balance.renewed_ms))),
    ])
}
