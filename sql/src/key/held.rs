//! What still needs a key or a generation of it: pseudonyms and sealed values that it made, and
//! texts that name it.
//!
//! A value says the generation that made it in front, so the text and bytes of every warehouse
//! table are looked through as they are now. What says no generation (`fpe_encrypt`,
//! `bloom_encode`) is not found, nor what is in earlier versions, lists, or files of lakes.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, UInt64Type};
use catalog::lake::LakeTable;
use catalog::{ObjectName, Spec};
use udfs::privacy::subject_token::hexadecimal;

use crate::dml::sent::{name_rows, quoted};
use crate::error::Result;
use crate::session::StatementContext;
use crate::session::run::Run;
use crate::subject::{raw, rows};

/// What needs a generation, in words, or without a number any one. Nothing of a generation that
/// cannot be retired, or is retired, or of a key of the configuration.
///
/// # Errors
/// When the warehouse cannot be reached, a table cannot be read, or the statement is to end.
pub(super) async fn of(
    run: &Run,
    context: &Arc<StatementContext>,
    name: &str,
    number: Option<u32>,
) -> Result<Vec<String>> {
    let catalog = context.engine().catalog();
    let key = catalog.keys().await?.into_iter().find(|key| key.name == name);
    // The newest one is not retired alone.
    let kept = usize::from(number.is_some());
    let ids: Vec<String> = key
        .iter()
        .flat_map(|key| key.generations.iter().skip(kept))
        .filter(|one| one.stored.as_ref().is_some_and(|stored| stored.retired_ms.is_none()))
        .filter(|one| number.is_none_or(|number| one.number() == number))
        .map(|generation| generation.id.clone())
        .collect();
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let written = match number {
        Some(number) => vec![format!("'{name}@{number}'")],
        None => vec![format!("'{name}'"), format!("'{name}@")],
    };
    let names_it = |text: &str| written.iter().any(|name| text.contains(name.as_str()));
    let mut held = Vec::new();
    for ((schema, object), definition) in catalog.definitions().await?.iter() {
        let at = ObjectName::new(schema, object);
        match &definition.spec {
            Spec::Managed(_) => {
                let found = columns(run, context, &at, &ids).await?;
                held.extend(found.into_iter().map(|column| format!("column {at}.{column}")));
            }
            Spec::External(LakeTable { pii: Some(pii), .. })
                if pii.key_id.as_ref().is_some_and(|id| ids.contains(id)) =>
            {
                held.push(format!("table {at}, whose identifiers are kept apart under it"));
            }
            Spec::View { sql, .. } if names_it(sql) => held.push(format!("view {at}")),
            Spec::Model(head) if names_it(&head.query) => held.push(format!("model {at}")),
            _ => {}
        }
    }
    for (on, rules) in catalog.all_rules().await? {
        for (policy, attached) in &rules.policies {
            if attached.rule.text().is_some_and(&names_it) {
                held.push(format!("policy {policy} on {on}"));
            }
        }
    }
    for (table, expectations) in catalog.all_expectations().await? {
        for (expectation, expected) in &expectations.by_name {
            if names_it(&expected.check) {
                held.push(format!("expectation {expectation} of {table}"));
            }
        }
    }
    Ok(held)
}

/// The columns of a table with values that one of the generations of these ids has made.
async fn columns(
    run: &Run,
    context: &Arc<StatementContext>,
    table: &ObjectName,
    ids: &[String],
) -> Result<Vec<String>> {
    let Some(provider) = raw(context, table, None).await? else { return Ok(vec![]) };
    let schema = provider.schema();
    let searched: Vec<(String, String)> = schema
        .fields()
        .iter()
        .filter_map(|field| Some((field.name().clone(), made_by(field, ids)?)))
        .collect();
    if searched.is_empty() {
        return Ok(vec![]);
    }
    let relation = name_rows(context, provider);
    let counts = searched
        .iter()
        .enumerate()
        .map(|(at, (_, is_made))| format!("count(*) FILTER (WHERE {is_made}) AS n{at}"));
    let counts = counts.collect::<Vec<_>>().join(", ");
    let answer = rows(run, context, &format!("SELECT {counts} FROM {relation}")).await?;
    let mut found = Vec::new();
    for batch in &answer {
        for ((column, _), counts) in searched.iter().zip(batch.columns()) {
            let counts = cast(counts, &DataType::UInt64)?;
            if counts.as_primitive::<UInt64Type>().values().iter().any(|count| *count > 0) {
                found.push(column.clone());
            }
        }
    }
    Ok(found)
}

/// The condition that a value begins with the id of one of some generations; `None` for a type that
/// has no such values.
fn made_by(field: &Field, ids: &[String]) -> Option<String> {
    let column = quoted(field.name());
    let (value, is_text) = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (column, true),
        DataType::Dictionary(_, values) if values.is_string() => {
            (format!("CAST({column} AS VARCHAR)"), true)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            (format!("encode({column}, 'hex')"), false)
        }
        _ => return None,
    };
    let begins = ids.iter().map(|id| match is_text {
        true => format!("{value} LIKE '{id}.%'"),
        false => format!("{value} LIKE '{}%'", hexadecimal(format!("{id}.").as_bytes())),
    });
    Some(begins.collect::<Vec<_>>().join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_looked_through() {
        let ids = ["ab-1".to_owned(), "ab-2".to_owned()];
        let of = |data_type| made_by(&Field::new("a\"b", data_type, true), &ids[..1]);
        assert_eq!(of(DataType::Utf8View).unwrap(), "\"a\"\"b\" LIKE 'ab-1.%'");
        let bytes = of(DataType::Binary).unwrap();
        assert_eq!(bytes, "encode(\"a\"\"b\", 'hex') LIKE '61622d312e%'");
        assert_eq!(of(DataType::Int64), None);
        let any = made_by(&Field::new("a", DataType::Utf8, true), &ids).unwrap();
        assert_eq!(any, "\"a\" LIKE 'ab-1.%' OR \"a\" LIKE 'ab-2.%'");
    }
}
