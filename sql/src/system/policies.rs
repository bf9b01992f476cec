//! Policies: of each table that the principal sees, and of tags, that they are there and what they
//! are on; their expressions are shown to who administers policies.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMillisecondArray};
use catalog::policy::{Attached, Policy, Role, Rule};

use super::batches::{batch, optional_texts, texts};
use crate::error::Result;
use crate::session::StatementContext;

struct Row {
    on: Attached,
    tag: Option<String>,
    name: String,
    policy: Policy,
}

impl Row {
    fn columns(&self) -> Option<String> {
        let columns = self.policy.rule.columns();
        (!columns.is_empty()).then(|| columns.join(", "))
    }

    fn min_group_size(&self) -> Option<i64> {
        match self.policy.rule {
            Rule::Aggregation { min_group_size, .. } => i64::try_from(min_group_size).ok(),
            _ => None,
        }
    }
}

async fn rows(context: &StatementContext) -> Result<Vec<Row>> {
    let all = context.engine().catalog().all_rules().await?;
    let administers = context.rights().has(Role::PolicyAdmin);
    let mut rows = Vec::new();
    for (on, rules) in all {
        let (sees, tag) = match &on {
            Attached::Table(table) => (administers || context.access(table).await.is_any(), None),
            Attached::Tag(tag) => (true, Some(tag.clone())),
        };
        if sees {
            rows.extend(rules.policies.into_iter().map(|(name, policy)| Row {
                on: on.clone(),
                tag: tag.clone(),
                name,
                policy,
            }));
        }
    }
    Ok(rows)
}

pub(super) async fn policies(context: &StatementContext) -> Result<RecordBatch> {
    let administers = context.rights().has(Role::PolicyAdmin);
    let rows = rows(context).await?;
    let table = |read: fn(&catalog::ObjectName) -> &String| {
        optional_texts(rows.iter().map(|row| match &row.on {
            Attached::Table(table) => Some(read(table).clone()),
            Attached::Tag(_) => None,
        }))
    };
    let expression = |row: &Row| {
        let text = row.policy.rule.text().filter(|_| administers);
        text.map(str::to_owned)
    };
    let except = |row: &Row| {
        let roles: Vec<&str> = row.policy.except.iter().map(String::as_str).collect();
        (!roles.is_empty()).then(|| roles.join(", "))
    };
    let created = rows.iter().map(|row| Some(row.policy.created_ms));
    batch(vec![
        ("schema", table(|table| &table.schema)),
        ("table", table(|table| &table.name)),
        ("tag", optional_texts(rows.iter().map(|row| row.tag.clone()))),
        ("name", texts(rows.iter().map(|row| row.name.as_str()))),
        ("kind", texts(rows.iter().map(|row| row.policy.rule.kind()))),
        ("columns", optional_texts(rows.iter().map(Row::columns))),
        ("expression", optional_texts(rows.iter().map(expression))),
        ("min_group_size", Arc::new(rows.iter().map(Row::min_group_size).collect::<Int64Array>())),
        ("keep", optional_texts(rows.iter().map(|row| row.policy.rule.kept()))),
        ("except_roles", optional_texts(rows.iter().map(except))),
        ("owner", texts(rows.iter().map(|row| row.policy.owner.as_str()))),
        ("created", Arc::new(created.collect::<TimestampMillisecondArray>().with_timezone("UTC"))),
    ])
}

/// Tags of the columns of tables that the principal sees.
pub(super) async fn tags(context: &StatementContext) -> Result<RecordBatch> {
    let mut rows: Vec<[String; 4]> = Vec::new();
    let administers = context.rights().has(Role::PolicyAdmin);
    for (on, rules) in context.engine().catalog().all_rules().await? {
        let Attached::Table(table) = on else { continue };
        if !administers && !context.access(&table).await.is_any() {
            continue;
        }
        for (column, tags) in rules.tags {
            let of_column = |tag| [table.schema.clone(), table.name.clone(), column.clone(), tag];
            rows.extend(tags.into_iter().map(of_column));
        }
    }
    let column = |at: usize| texts(rows.iter().map(|row| row[at].as_str()));
    batch(vec![
        ("schema", column(0)),
        ("table", column(1)),
        ("column", column(2)),
        ("tag", column(3)),
    ])
}
