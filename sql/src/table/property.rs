//! `ALTER TABLE t SET (append_only = true | false)`: what holds of a table beside its columns.
//!
//! Who may drop a table may say that rows are only added to it, and so may a `policy_admin`, who
//! alone takes it back: a record is none if whoever keeps it can change it.

use std::sync::Arc;

use catalog::policy::Role;
use catalog::{Kind, Object, ObjectName};
use datafusion::execution::session_state::SessionState;
use sqlparser::ast::{AlterTable, AlterTableOperation, Expr, SqlOption, Value, ValueWithSpan};

use super::Definition;
use crate::dialect::folded;
use crate::error::{Error, Result};
use crate::parse::name_parts;
use crate::rights::Rights;
use crate::session::{Action, StatementContext};

const APPEND_ONLY: &str = "append_only";

/// Plans ALTER TABLE.
pub(super) async fn plan(
    context: &Arc<StatementContext>,
    alter: &AlterTable,
) -> Result<(SessionState, Action)> {
    let append_only = written(alter)?;
    let parts = name_parts(&alter.name);
    let name = match context.rights().has(Role::PolicyAdmin) {
        true => {
            let is_table = |_: &Rights, _: &ObjectName, object: &Object| object.kind == Kind::Table;
            match context.find(&parts, is_table).await? {
                Some((name, _)) => name,
                None => return Err(context.no_table(&parts.join(".")).await),
            }
        }
        false => {
            let name = crate::dml::target(context, &parts, &[]).await?;
            context.may_change(&name).await?;
            name
        }
    };
    if !append_only {
        context.rights().may_set_policy(format!("let rows of {name} be changed and removed"))?;
    }
    let change = Definition::AppendOnly { name, append_only };
    Ok((context.state(&Default::default())?, Action::Definition(change)))
}

/// Whether rows are only added from now on.
fn written(alter: &AlterTable) -> Result<bool> {
    let is_plain = !alter.if_exists && !alter.only && alter.location.is_none();
    let [AlterTableOperation::SetOptionsParens { options }] = alter.operations.as_slice() else {
        return Err(unsupported());
    };
    let [SqlOption::KeyValue { key, value }] = options.as_slice() else {
        return Err(unsupported());
    };
    if !is_plain || alter.on_cluster.is_some() || alter.table_type.is_some() {
        return Err(unsupported());
    }
    let key = folded(key);
    if key != APPEND_ONLY {
        return Err(Error::unknown("property", &key, [APPEND_ONLY]));
    }
    match value {
        Expr::Value(ValueWithSpan { value: Value::Boolean(append_only), .. }) => Ok(*append_only),
        other => Err(Error::invalid_hint(
            format!("{APPEND_ONLY} = {other} is neither true nor false"),
            format!("ALTER TABLE t SET ({APPEND_ONLY} = true)"),
        )),
    }
}

fn unsupported() -> Error {
    Error::unsupported(
        "this ALTER TABLE is not supported",
        "ALTER TABLE t SET (append_only = true) is, and ALTER TABLE t ALTER COLUMN c SET TAG '…'",
    )
}
