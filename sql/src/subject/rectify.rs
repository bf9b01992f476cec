//! RECTIFY SUBJECT: another value in a person's rows of one table (GDPR art. 16).

use sqlparser::ast::Expr;

use super::define::table;
use super::person::{find, stand};
use super::rectified::{Rectified, values};
use super::syntax::Who;
use crate::dml::sent::{free, quoted};
use crate::dml::{Change, typed};
use crate::error::{Error, Result};
use crate::expectation::load::Rows;
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::run::{Done, Run};

/// Rewrites the table with the new value, in one commit; tells what still has the old one.
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
    let before = values(run, &context, &standing, &condition, column).await?;
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
    let (table, copies) = (name.clone(), Box::default());
    let change = Change::Rewrite { name, verb, version, keep, rows, check: None, count, copies };
    let done = change.run(run).await?;
    let data_type = field.data_type();
    let rectified = Rectified { person: &person, table: &table, column, data_type, before };
    Ok(Box::pin(told(run, done, &rectified)).await)
}

/// What was done, and what is left to do.
async fn told(run: &Run, done: Done, rectified: &Rectified<'_>) -> Done {
    if done.affected == 0 {
        return done;
    }
    let Done { affected, message } = done;
    // The value is another one by now, whatever comes of looking.
    let left = match rectified.remains(run).await {
        Ok(remains) => format!("what may still have the old value: {}", remains.join("; ")),
        Err(error) => format!("what may still have the old value cannot be looked for: {error}"),
    };
    Done { affected, message: format!("{message}; {left}") }
}
