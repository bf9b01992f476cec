//! CREATE, ALTER and DROP SUBJECT: which columns hold ids is checked when it is said.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use catalog::subject_marks::Mark;
use catalog::subjects::{Crosswalk, Subject, SubjectKey};
use catalog::{CreateMode, Object, ObjectName};
use datafusion::catalog::TableProvider;

use super::syntax::CreateSubject;
use crate::engine::CATALOG;
use crate::error::{CatalogError, Error, Result};
use crate::pii::{self, Reader, Shown};
use crate::session::StatementContext;
use crate::session::run::Done;
use crate::table::mode;

/// Characters of a subject's name.
const NAME_CHARS_MAX: usize = 255;

/// CREATE SUBJECT.
pub(super) async fn create(
    context: &Arc<StatementContext>,
    create: &CreateSubject,
) -> Result<Done> {
    let catalog = context.engine().catalog();
    let name = &create.name;
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(Error::invalid(format!(
            "a subject's name has 1 to {NAME_CHARS_MAX} characters"
        )));
    }
    let subject = Subject {
        name: name.clone(),
        keys: keys(context, &create.keys).await?,
        via: match &create.via {
            Some((table, record, entity)) => Some(crosswalk(context, table, record, entity).await?),
            None => None,
        },
        owner: context.rights().name().to_owned(),
        created_ms: catalog.now_ms(),
    };
    let mode = mode(create.replace, create.if_not_exists)?;
    if mode == CreateMode::Replace
        && let Ok(before) = catalog.subject(name).await
    {
        let gone = before.keys.iter().any(|key| !subject.keys.contains(key));
        if gone || before.via != subject.via {
            nobody_is_marked(context, name).await?;
        }
    }
    match catalog.create_subject(subject, mode).await? {
        true => Ok(Done::new(0, format!("CREATE SUBJECT {name}"))),
        false => Ok(Done::new(0, format!("{name} exists already, nothing was changed"))),
    }
}

/// ALTER SUBJECT … ADD KEY.
pub(super) async fn add_keys(
    context: &Arc<StatementContext>,
    name: &str,
    written: &[Vec<String>],
) -> Result<Done> {
    let catalog = context.engine().catalog();
    catalog.subject(name).await?;
    let added = keys(context, written).await?;
    let add = |subject: &mut Subject| {
        subject.keys.extend(added.iter().cloned());
        Ok(())
    };
    catalog.change_subject(name, add).await?;
    Ok(Done::new(0, format!("ALTER SUBJECT {name} ADD KEY {}", shown(&added))))
}

/// ALTER SUBJECT … DROP KEY. The table may be gone: then nobody who is marked would be seen.
pub(super) async fn drop_keys(
    context: &Arc<StatementContext>,
    name: &str,
    written: &[Vec<String>],
) -> Result<Done> {
    let catalog = context.engine().catalog();
    let subject = catalog.subject(name).await?;
    let mut dropped = Vec::new();
    for parts in written {
        dropped.push(known_key(context, &subject, parts)?);
    }
    for key in &dropped {
        if !is_gone(context, &key.table).await? {
            nobody_is_marked(context, name).await?;
            break;
        }
    }
    let drop = |subject: &mut Subject| {
        subject.keys.retain(|key| !dropped.contains(key));
        Ok(())
    };
    catalog.change_subject(name, drop).await?;
    Ok(Done::new(0, format!("ALTER SUBJECT {name} DROP KEY {}", shown(&dropped))))
}

/// Whether a table shows nobody: there is none, or no file of it.
async fn is_gone(context: &StatementContext, table: &ObjectName) -> Result<bool> {
    let catalog = context.engine().catalog();
    match catalog.object(table).await {
        Ok(None) | Err(CatalogError::NotFound { .. } | CatalogError::Empty { .. }) => Ok(true),
        Ok(Some(object)) if !object.external => Ok(false),
        Ok(Some(_)) => Ok(catalog.has_no_files(table).await?),
        Err(error) => Err(error.into()),
    }
}

/// DROP SUBJECT.
pub(super) async fn drop(
    context: &Arc<StatementContext>,
    name: &str,
    if_exists: bool,
) -> Result<Done> {
    let catalog = context.engine().catalog();
    match catalog.subject(name).await {
        Ok(_) => nobody_is_marked(context, name).await?,
        Err(CatalogError::NotFound { .. }) if if_exists => {
            return Ok(Done::new(0, format!("there is no subject {name}, nothing was changed")));
        }
        // One that cannot be read can still be dropped, or replaced by one with keys where somebody
        // is marked.
        Err(CatalogError::Corrupt { .. }) => nobody_is_marked(context, name).await?,
        Err(error) => return Err(error.into()),
    }
    catalog.drop_subject(name).await?;
    Ok(Done::new(0, format!("DROP SUBJECT {name}")))
}

/// Without its key a column would show who is restricted, or was erased, again.
async fn nobody_is_marked(context: &StatementContext, name: &str) -> Result<()> {
    let marks = context.engine().catalog().subject_marks_now(name).await?;
    let (restricted, erased) = (marks.count(Mark::Restricted), marks.count(Mark::Erased));
    if restricted + erased == 0 {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!(
            "ids of subject {name} must not be seen ({restricted} restricted, {erased} erased), \
             and without its keys they would be"
        ),
        "keys can be added, and CREATE OR REPLACE SUBJECT takes the same keys and more; RELEASE \
         SUBJECT … FROM RESTRICTION ends a restriction",
    ))
}

/// The key of a subject that a written column means: its table need not exist any more.
pub(super) fn known_key(
    context: &StatementContext,
    subject: &Subject,
    parts: &[String],
) -> Result<SubjectKey> {
    let names = candidates(context, parts)?;
    let found = names.iter().find(|key| subject.keys.contains(key));
    found.cloned().ok_or_else(|| {
        let keys = subject.keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        Error::invalid_hint(
            format!("{} is no key of subject {}", parts.join("."), subject.name),
            format!("its keys are {}", keys.join(", ")),
        )
    })
}

/// What a written column may mean, along the search path.
pub(super) fn candidates(context: &StatementContext, parts: &[String]) -> Result<Vec<SubjectKey>> {
    let Some((column, table)) = parts.split_last() else {
        return Err(Error::Internal("a column without a name".into()));
    };
    let tables = tables(context, table)?.into_iter();
    Ok(tables.map(|table| SubjectKey { table, column: column.clone() }).collect())
}

fn tables(context: &StatementContext, parts: &[String]) -> Result<Vec<ObjectName>> {
    match parts {
        [name] => {
            let path = context.search_path().into_iter();
            Ok(path.map(|schema| ObjectName::new(schema, name)).collect())
        }
        [schema, name] => Ok(vec![ObjectName::new(schema, name)]),
        [catalog, schema, name] if catalog == CATALOG => Ok(vec![ObjectName::new(schema, name)]),
        _ => Err(Error::invalid_hint(
            format!("'{}' is no table", parts.join(".")),
            "write table or schema.table",
        )),
    }
}

/// The table that a written name means. Who decides about persons names tables whose rows it may
/// not read otherwise.
pub(super) async fn table(
    context: &StatementContext,
    parts: &[String],
) -> Result<(ObjectName, Object)> {
    let catalog = context.engine().catalog();
    for name in tables(context, parts)? {
        match catalog.object(&name).await {
            Ok(Some(object)) => return Ok((name, object)),
            Ok(None) | Err(CatalogError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CatalogError::not_found("table", &parts.join("."), []).into())
}

/// A table as it is, whoever asks; identifiers that are kept apart are pseudonyms in it too.
///
/// # Errors
/// When it cannot be opened, or is a view.
pub(crate) async fn raw(
    context: &StatementContext,
    name: &ObjectName,
    version: Option<u64>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    match pii::open(context.engine(), name, version, Reader::Request(context)).await? {
        Some(Shown::Table(table)) => Ok(Some(table)),
        Some(Shown::View { .. }) => Err(Error::invalid_hint(
            format!("{name} is a view, which has no rows of its own"),
            "name the tables that it reads",
        )),
        None => Ok(None),
    }
}

async fn columns(context: &StatementContext, parts: &[String]) -> Result<(ObjectName, SchemaRef)> {
    let (name, _) = table(context, parts).await?;
    let table = raw(context, &name, None).await?;
    let table = table
        .ok_or_else(|| Error::from(CatalogError::not_found("table", &name.to_string(), [])))?;
    Ok((name, table.schema()))
}

async fn keys(context: &Arc<StatementContext>, written: &[Vec<String>]) -> Result<Vec<SubjectKey>> {
    let mut keys = Vec::with_capacity(written.len());
    for parts in written {
        let Some((column, table)) = parts.split_last() else { continue };
        let (table, schema) = columns(context, table).await?;
        check_column(&table, &schema, column)?;
        keys.push(SubjectKey { table, column: column.clone() });
    }
    Ok(keys)
}

async fn crosswalk(
    context: &Arc<StatementContext>,
    parts: &[String],
    record: &str,
    entity: &str,
) -> Result<Crosswalk> {
    let (table, schema) = columns(context, parts).await?;
    for column in [record, entity] {
        check_column(&table, &schema, column)?;
    }
    if record == entity {
        return Err(Error::invalid_hint(
            "a crosswalk has a column of records and another one of persons",
            "write VIA crosswalk (record_id, entity_id)",
        ));
    }
    Ok(Crosswalk { table, record: record.to_owned(), entity: entity.to_owned() })
}

/// Ids are text or integers: their text is the same everywhere.
fn check_column(table: &ObjectName, schema: &SchemaRef, column: &str) -> Result<()> {
    let Ok(field) = schema.field_with_name(column) else {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        return Err(Error::unknown("column", column, known));
    };
    if is_id(field.data_type()) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("column {table}.{column} is {}, and ids are text or integers", field.data_type()),
        "name the column that other tables know the person by",
    ))
}

/// Whether values can be ids.
pub(super) fn is_id(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_id(values),
        other => other.is_integer() || is_text(other),
    }
}

/// Whether values are text as they are.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn shown(keys: &[SubjectKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
