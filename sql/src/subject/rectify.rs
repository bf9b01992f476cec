//! RECTIFY SUBJECT: another value in a person's rows of one table (GDPR art. 16).

use sqlparser::ast::Expr;

use super::define::table;
use super::person::{find, stand};
use super::syntax::Who;
use crate::dml::sent::{free, quoted};
use crate::dml::{Change, typed};
use crate::error::{Error, Result};
use crate::expectation::load::Rows;
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::run::{Done, Run};

/// Rewrites the table with the new value, in one commit.
pub(super) async fn run(run: &Run, who: &Who, column: &[String], value: &Expr) -> Result<Done> {
    let context = StatementContext::load(&run.session).await?;
    let person = find(run, &context, who).await?;
    let Some((column, parts)) = column.split_last() else {
        return Err(Error::Internal("a column without a name".into()));
    };
    let (name, object) = table(&context, parts).await?;
    if object.external {
        return Err(Error::unsupported(
            format!("{name} is read from files, which Attune does not write"),
            "have them changed where they are made",
        ));
    }
    let catalog = context.engine().catalog();
    let version = catalog.table_version(&name).await?;
    let Some(standing) = stand(&context, &name, Some(version)).await? else {
        return Err(catalog::Error::not_found("table", &name.to_string(), []).into());
    };
    let schema = &standing.schema;
    let Ok(field) = schema.field_with_name(column) else {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        return Err(Error::unknown("column", column, known));
    };
    let Some(condition) = person.rows_of(&name, schema) else {
        return Err(Error::invalid_hint(
            format!("{name} has no key of subject {}", person.subject.name),
            format!("ALTER SUBJECT {} ADD KEY (table.column)", person.subject.name),
        ));
    };
    let is_id = person.subject.columns_of(&name).any(|key| key == column)
        || person.copies.iter().any(|copy| copy.table == name && copy.column == *column)
        || person.subject.via.as_ref().is_some_and(|via| {
            via.table == name && (via.record == *column || via.entity == *column)
        });
    if is_id {
        return Err(Error::invalid_hint(
            format!("{name}.{column} holds the ids by which the person is found"),
            "UPDATE changes ids",
        ));
    }
    let columns = schema.fields().iter().map(|known| match known.name() == column {
        true => format!("{} AS {}", typed(&value.to_string(), field.data_type()), quoted(column)),
        false => quoted(known.name()),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let mark = free("__loaded", |name| schema.field_with_name(name).is_ok());
    let alias = quoted(&name.name);
    let from = format!("FROM {} AS {alias}", standing.relation);
    let keep = format!(
        "SELECT {columns}, TRUE AS {mark} {from} WHERE {condition} \
         UNION ALL SELECT *, FALSE AS {mark} {from} WHERE {condition} IS NOT TRUE"
    );
    let (_, keep) = Box::pin(context.plan_query(parse_query(&keep)?)).await?;
    let count = format!("SELECT count(*) AS n {from} WHERE {condition}");
    let (_, count) = Box::pin(context.plan_query(parse_query(&count)?)).await?;
    let (verb, rows) = ("RECTIFY", Rows::Changed);
    let copies = Box::default();
    Change::Rewrite { name, verb, version, keep, rows, check: None, count, copies }.run(run).await
}
