//! Who somebody is: from an id to all ids of the person, and to the rows with them.
//!
//! Without a crosswalk all keys hold ids of one kind, so that an id is a person. With one, an id is
//! a record whose person the crosswalk tells, or a person's own id there. What means several people
//! is refused, and so is a person whose records are others' too: a request reaches exactly one.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use catalog::ObjectName;
use catalog::models::Manifest;
use catalog::subject_copies::CopiedKey;
use catalog::subject_marks::Mark;
use catalog::subjects::{Crosswalk, Subject, SubjectKey};
use futures::TryStreamExt;
use udfs::privacy::subject_token::hexadecimal;

use super::define::{candidates, is_id, is_text, known_key, raw};
use super::guard;
use super::syntax::Who;
use super::transform::made_of;
use crate::dml::sent::{name_rows, quoted};
use crate::error::{CatalogError, Class, Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::run::Run;

/// Ids of one person; more are a mistake of the crosswalk.
const IDS_MAX: usize = 1_000;
/// Characters of an id.
const ID_CHARS_MAX: usize = 1_000;

/// A person, with all ids.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) subject: Subject,
    /// The ids that the keys hold.
    pub(super) ids: BTreeSet<String>,
    /// The one key whose ids they are, where the crosswalk does not know them.
    pub(super) only: Option<SubjectKey>,
    /// The person's id in the crosswalk.
    pub(super) entity: Option<String>,
    /// What copies hold of the person.
    pub(super) copies: Vec<PersonCopy>,
    /// The tables of copies that may hold the person, also where these cannot be searched.
    copied: BTreeSet<ObjectName>,
    /// What copies may hold and cannot be looked for, in words.
    pub(super) unreached: BTreeSet<String>,
}

/// What a column of a copy holds of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PersonCopy {
    pub(super) table: ObjectName,
    pub(super) column: String,
    /// What became of the person's ids there.
    values: BTreeSet<String>,
    /// Whether marks of the person's ids hold there.
    is_marked: bool,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Person({}, {} ids)", self.subject.name, self.ids.len())
    }
}

/// A table that stands under a name of its own in a statement.
pub(super) struct Standing {
    /// How a query writes its name.
    pub(super) relation: String,
    pub(super) schema: SchemaRef,
}

/// Gives a table, with restricted persons and without erased ones, a name in this statement;
/// `None` when there is no such table any more.
pub(super) async fn stand(
    context: &StatementContext,
    name: &ObjectName,
    version: Option<u64>,
) -> Result<Option<Standing>> {
    let Some(table) = raw(context, name, version).await? else { return Ok(None) };
    let table = guard::with_restricted(context, name, table).await?;
    let schema = table.schema();
    Ok(Some(Standing { relation: name_rows(context, table), schema }))
}

/// What is said of a table that cannot be read, of which a request goes on without it.
///
/// # Errors
/// The error, where it is not of what was to be read.
pub(super) fn unread(table: &ObjectName, error: Error) -> Result<String> {
    let is_of_table = matches!(error, Error::Catalog(_))
        && matches!(
            error.class(),
            Class::NotFound | Class::Invalid | Class::Corrupt | Class::Unavailable
        );
    match is_of_table {
        true => Ok(format!("table {table} cannot be read and may hold the person: {error}")),
        false => Err(error),
    }
}

/// The rows of a query.
pub(crate) async fn rows(
    run: &Run,
    context: &Arc<StatementContext>,
    text: &str,
) -> Result<Vec<RecordBatch>> {
    let (_, plan) = Box::pin(context.plan_query(parse_query(text)?)).await?;
    let stream = run.start(&plan).await?;
    Ok(stream.try_collect().await?)
}

/// The texts in the first column of rows; NULL is left out.
pub(super) fn texts(batches: &[RecordBatch]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for batch in batches {
        let Some(column) = batch.columns().first() else { continue };
        let column = cast(column, &DataType::Utf8)?;
        found.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(found)
}

/// How many rows of a relation are a person's.
pub(crate) async fn count(
    run: &Run,
    context: &Arc<StatementContext>,
    relation: &str,
    condition: &str,
) -> Result<u64> {
    let text = format!("SELECT 0 AS f, count(*) AS n FROM {relation} WHERE {condition}");
    counted(run, context, &text).await.map(|(_, rows)| rows)
}

/// The numbers in the first column of a query, and the sum of the counts in the second.
pub(crate) async fn counted(
    run: &Run,
    context: &Arc<StatementContext>,
    text: &str,
) -> Result<(Vec<usize>, u64)> {
    let (mut numbers, mut sum) = (Vec::new(), 0);
    for batch in rows(run, context, text).await? {
        let [at, count] = batch.columns() else {
            return Err(Error::Internal("a count has two columns".into()));
        };
        let (at, count) = (cast(at, &DataType::UInt64)?, cast(count, &DataType::UInt64)?);
        let at = at.as_primitive::<UInt64Type>().values().iter();
        numbers.extend(at.filter_map(|at| usize::try_from(*at).ok()));
        sum += count.as_primitive::<UInt64Type>().values().iter().sum::<u64>();
    }
    Ok((numbers, sum))
}

/// A value as SQL text.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A column's value as text.
pub(super) fn as_text(schema: &SchemaRef, column: &str) -> String {
    match schema.field_with_name(column) {
        Ok(field) if is_text(field.data_type()) => quoted(column),
        _ => format!("CAST({} AS VARCHAR)", quoted(column)),
    }
}

/// The condition that a value is one of some texts, of which there are any.
pub(super) fn one_of<'a>(value: &str, ids: impl IntoIterator<Item = &'a String>) -> String {
    let ids = ids.into_iter().map(|id| literal(id)).collect::<Vec<_>>().join(", ");
    format!("{value} IN ({ids})")
}

/// Finds out who is meant.
///
/// # Errors
/// When there is no such subject, the id means several persons, or the person's records are others'
/// too.
pub(super) async fn find(run: &Run, context: &Arc<StatementContext>, who: &Who) -> Result<Person> {
    let person = Box::pin(identified(run, context, who)).await?;
    Box::pin(person.with_copies(run, context)).await
}

async fn identified(run: &Run, context: &Arc<StatementContext>, who: &Who) -> Result<Person> {
    if who.id.is_empty() || who.id.chars().count() > ID_CHARS_MAX {
        return Err(Error::invalid(format!("an id has 1 to {ID_CHARS_MAX} characters")));
    }
    let subject = context.engine().catalog().subject(&who.subject).await?;
    let Some(via) = subject.via.clone() else {
        if let Some(parts) = &who.column {
            known_key(context, &subject, parts)?;
        }
        let ids = BTreeSet::from([who.id.clone()]);
        return Ok(Person::new(subject, ids, None, None));
    };
    let known = Known::of(run, context, &via, who).await?;
    let meant = meant(context, &subject, &via, who)?;
    let mut persons = match &meant {
        Meant::Anything | Meant::Key(_) | Meant::Record => known.entities,
        Meant::Entity => BTreeSet::new(),
    };
    if known.is_entity && matches!(meant, Meant::Anything | Meant::Entity) {
        persons.insert(who.id.clone());
    }
    let count = persons.len();
    match (persons.pop_first(), count, meant) {
        (Some(entity), 1, _) => of_entity(run, context, subject, &via, entity).await,
        (Some(_), _, _) => Err(Error::invalid_hint(
            format!("this id means {count} persons of {}", via.table),
            format!(
                "say which: AS {table}.{record} takes it for a record, AS {table}.{entity} for a \
                 person's id there",
                table = via.table,
                record = via.record,
                entity = via.entity
            ),
        )),
        (None, _, Meant::Entity) => Err(Error::invalid_hint(
            format!("{}.{} holds no such id", via.table, via.entity),
            "give the id of a record, or the person's id in the crosswalk",
        )),
        (None, _, Meant::Key(key)) => Ok(unlinked(subject, who, Some(key))),
        (None, _, Meant::Anything | Meant::Record) => beyond(run, context, subject, who).await,
    }
}

/// What a written id may be.
enum Meant {
    Anything,
    /// A record in the crosswalk.
    Record,
    /// A person's id in the crosswalk.
    Entity,
    /// The id of a key.
    Key(SubjectKey),
}

fn meant(
    context: &StatementContext,
    subject: &Subject,
    via: &Crosswalk,
    who: &Who,
) -> Result<Meant> {
    let Some(parts) = &who.column else { return Ok(Meant::Anything) };
    for key in candidates(context, parts)? {
        if key.table == via.table && key.column == via.record {
            return Ok(Meant::Record);
        }
        if key.table == via.table && key.column == via.entity {
            return Ok(Meant::Entity);
        }
    }
    known_key(context, subject, parts).map(Meant::Key)
}

/// What a crosswalk says of an id.
struct Known {
    /// The persons whose record it is.
    entities: BTreeSet<String>,
    /// Whether it is a person's own id.
    is_entity: bool,
}

impl Known {
    async fn of(
        run: &Run,
        context: &Arc<StatementContext>,
        via: &Crosswalk,
        who: &Who,
    ) -> Result<Self> {
        let Some(Standing { relation, schema }) = stand(context, &via.table, None).await? else {
            return Err(no_crosswalk(via));
        };
        let (record, entity) = (as_text(&schema, &via.record), as_text(&schema, &via.entity));
        let id = literal(&who.id);
        let text = format!("SELECT DISTINCT {entity} AS e FROM {relation} WHERE {record} = {id}");
        let entities = texts(&rows(run, context, &text).await?)?;
        let text = format!("SELECT 1 AS e FROM {relation} WHERE {entity} = {id} LIMIT 1");
        let is_entity = rows(run, context, &text).await?.iter().any(|batch| batch.num_rows() > 0);
        Ok(Self { entities, is_entity })
    }
}

fn no_crosswalk(via: &Crosswalk) -> Error {
    Error::invalid_hint(
        format!("the crosswalk {} is gone, so nobody knows which ids are one person's", via.table),
        "make it again, or CREATE OR REPLACE SUBJECT over another one",
    )
}

/// All ids of a person of the crosswalk.
async fn of_entity(
    run: &Run,
    context: &Arc<StatementContext>,
    subject: Subject,
    via: &Crosswalk,
    entity: String,
) -> Result<Person> {
    let Some(Standing { relation, schema }) = stand(context, &via.table, None).await? else {
        return Err(no_crosswalk(via));
    };
    let (record, whose) = (as_text(&schema, &via.record), as_text(&schema, &via.entity));
    let is_theirs = format!("{whose} = {}", literal(&entity));
    let text = format!(
        "SELECT DISTINCT {record} AS r FROM {relation} WHERE {is_theirs} LIMIT {}",
        IDS_MAX + 1
    );
    let ids = texts(&rows(run, context, &text).await?)?;
    if ids.len() > IDS_MAX {
        return Err(Error::invalid_hint(
            format!("this person has more than {IDS_MAX} ids in {}", via.table),
            "so many records are hardly one person's: look at the crosswalk",
        ));
    }
    if !ids.is_empty() {
        let shared = format!(
            "SELECT 1 AS r FROM {relation} WHERE {} AND NOT ({is_theirs}) LIMIT 1",
            one_of(&record, &ids)
        );
        if rows(run, context, &shared).await?.iter().any(|batch| batch.num_rows() > 0) {
            return Err(Error::invalid_hint(
                format!("records of this person are another person's too in {}", via.table),
                "give each record an id of its own, such as 'crm:7', before somebody is forgotten",
            ));
        }
    }
    Ok(Person::new(subject, ids, None, Some(entity)))
}

fn unlinked(subject: Subject, who: &Who, only: Option<SubjectKey>) -> Person {
    Person::new(subject, BTreeSet::from([who.id.clone()]), only, None)
}

/// An id that the crosswalk does not know: it is one person's when one key alone holds it.
async fn beyond(
    run: &Run,
    context: &Arc<StatementContext>,
    subject: Subject,
    who: &Who,
) -> Result<Person> {
    let mut holding = Vec::new();
    for key in &subject.keys {
        let Standing { relation, schema } = match stand(context, &key.table, None).await {
            Ok(Some(standing)) => standing,
            // Where no file is, nobody is.
            Ok(None) | Err(Error::Catalog(CatalogError::Empty { .. })) => continue,
            Err(error) => return Err(error),
        };
        let id = as_text(&schema, &key.column);
        let text =
            format!("SELECT 1 AS n FROM {relation} WHERE {id} = {} LIMIT 1", literal(&who.id));
        if rows(run, context, &text).await?.iter().any(|batch| batch.num_rows() > 0) {
            holding.push(key.clone());
        }
    }
    match holding.as_slice() {
        [] => Ok(unlinked(subject, who, None)),
        [key] => {
            let key = key.clone();
            Ok(unlinked(subject, who, Some(key)))
        }
        several => {
            let keys = several.iter().map(ToString::to_string).collect::<Vec<_>>();
            Err(Error::invalid_hint(
                format!(
                    "this id is in {}, and the crosswalk does not say that they are one person",
                    keys.join(" and ")
                ),
                format!("say which: AS {}", keys.join(", or AS ")),
            ))
        }
    }
}

impl Person {
    /// By what the person is known: the ids, and the one in the crosswalk.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.ids.iter().chain(&self.entity).cloned().collect()
    }

    /// A person of whom is not known yet what copies hold.
    pub(super) fn new(
        subject: Subject,
        ids: BTreeSet<String>,
        only: Option<SubjectKey>,
        entity: Option<String>,
    ) -> Self {
        let (copies, copied, unreached) = (vec![], BTreeSet::new(), BTreeSet::new());
        Self { subject, ids, only, entity, copies, copied, unreached }
    }

    /// The person, with what copies hold now.
    pub(super) async fn with_copies(
        mut self,
        run: &Run,
        context: &Arc<StatementContext>,
    ) -> Result<Self> {
        (self.copies, self.copied, self.unreached) = (vec![], BTreeSet::new(), BTreeSet::new());
        for (table, copy) in context.engine().catalog().copies_now().await? {
            if !self.subject.counts(&copy) {
                continue;
            }
            let ids = self.ids_of(&copy.root);
            if ids.is_empty() {
                continue;
            }
            self.copied.insert(table.clone());
            let (Some(column), Some(by)) = (&copy.column, &copy.by) else {
                let place = match &copy.column {
                    Some(column) => format!("column {column}"),
                    None => "its rows, which have no id,".to_owned(),
                };
                self.unreached.insert(format!(
                    "table {table}: {place} came of {} and cannot be searched",
                    copy.from
                ));
                continue;
            };
            let made = Box::pin(made_of(run, context, ids, by)).await?;
            if let Some(doubt) = made.doubt {
                self.unreached.insert(format!(
                    "table {table}: column {column} came of {} and may hold the person: {doubt}",
                    copy.from
                ));
            }
            let is_marked = copy.is_plain() && self.subject.is_record(&copy.root);
            let values = made.values;
            self.copies.push(PersonCopy { table, column: column.clone(), values, is_marked });
        }
        Ok(self)
    }

    /// The person's ids as a model's users may have them, and why there may be more.
    pub(super) async fn ids_in(
        &self,
        run: &Run,
        context: &Arc<StatementContext>,
        users_of: &BTreeSet<CopiedKey>,
    ) -> Result<(BTreeSet<String>, Option<String>)> {
        let (mut known, mut doubt) = (self.ids.clone(), None);
        for copy in users_of.iter().filter(|copy| self.subject.counts(copy)) {
            let ids = self.ids_of(&copy.root);
            if ids.is_empty() {
                continue;
            }
            let why = match &copy.by {
                Some(by) => {
                    let made = Box::pin(made_of(run, context, ids, by)).await?;
                    known.extend(made.values);
                    made.doubt
                }
                None => Some("they cannot be searched".to_owned()),
            };
            doubt = doubt.or(why.map(|why| format!("its users came of {}: {why}", copy.from)));
        }
        Ok((known, doubt))
    }

    /// Whether users or records of a model may be the person's: their ids come of the subject's
    /// columns, or tables that may hold the person were read for it, or nobody knows which were.
    pub(super) fn may_be_in(&self, manifest: &Manifest) -> bool {
        let is_theirs =
            |ids: &CopiedKey| self.subject.counts(ids) && !self.ids_of(&ids.root).is_empty();
        manifest.may_hold(is_theirs, self.tables().iter().chain(&self.copied))
    }

    /// The person's ids as a column held them at first.
    fn ids_of(&self, root: &SubjectKey) -> BTreeSet<String> {
        if self.subject.is_entity(root) {
            return self.entity.iter().cloned().collect();
        }
        let is_record = self.subject.is_record(root);
        match &self.only {
            Some(only) if is_record && only != root => BTreeSet::new(),
            _ => self.ids.clone(),
        }
    }

    /// Every table with rows that may be the person's, each once: those of the keys, the crosswalk,
    /// then copies.
    pub(super) fn tables(&self) -> Vec<ObjectName> {
        // An id of one key alone is nobody's elsewhere.
        let is_meant =
            |table: &&ObjectName| self.only.as_ref().is_none_or(|key| key.table == **table);
        let own = self.subject.tables().into_iter().filter(is_meant);
        let mut tables: Vec<ObjectName> = own.cloned().collect();
        for table in self.tables_of_copies() {
            if !tables.contains(table) {
                tables.push(table.clone());
            }
        }
        tables
    }

    /// The tables that are copies, each once.
    pub(super) fn tables_of_copies(&self) -> BTreeSet<&ObjectName> {
        self.copies.iter().map(|copy| &copy.table).collect()
    }

    /// The condition for the person's rows of a table; `None` when it can have none.
    pub(super) fn rows_of(&self, table: &ObjectName, schema: &SchemaRef) -> Option<String> {
        let mut conditions = Vec::new();
        if !self.ids.is_empty() {
            for column in self.columns_of(table) {
                if schema.field_with_name(&column).is_ok() {
                    conditions.push(one_of(&as_text(schema, &column), &self.ids));
                }
            }
        }
        if let (Some(via), Some(entity)) = (&self.subject.via, &self.entity)
            && via.table == *table
            && schema.field_with_name(&via.entity).is_ok()
        {
            conditions.push(format!("{} = {}", as_text(schema, &via.entity), literal(entity)));
        }
        for copy in self.copies.iter().filter(|copy| copy.table == *table) {
            let holds_ids =
                schema.field_with_name(&copy.column).is_ok_and(|field| is_id(field.data_type()));
            if holds_ids && !copy.values.is_empty() {
                conditions.push(one_of(&as_text(schema, &copy.column), &copy.values));
            }
        }
        (!conditions.is_empty()).then(|| format!("({})", conditions.join(" OR ")))
    }

    /// The columns of a table that hold the person's ids.
    fn columns_of(&self, table: &ObjectName) -> Vec<String> {
        let is_meant = |column: &&str| {
            let only = self.only.as_ref();
            only.is_none_or(|key| key.table == *table && key.column == *column)
        };
        let mut columns: Vec<String> =
            self.subject.columns_of(table).filter(is_meant).map(str::to_owned).collect();
        if let Some(via) = &self.subject.via
            && via.table == *table
            && self.only.is_none()
        {
            columns.push(via.record.clone());
        }
        columns
    }

    /// The person's marks: a token an id.
    pub(super) async fn marks(&self, context: &StatementContext) -> Result<Vec<String>> {
        let tokens = context.engine().catalog().subject_tokens().await?;
        let only = self.only.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
        let subject = &self.subject.name;
        let mark = |id: &String| format!("{}{only}", hexadecimal(&tokens.token(subject, id)));
        Ok(self.ids.iter().map(mark).collect())
    }

    /// The marks of what copies have made of the person's ids, each bound to its column.
    pub(super) async fn marks_of_copies(&self, context: &StatementContext) -> Result<Vec<String>> {
        let tokens = context.engine().catalog().subject_tokens().await?;
        let mut marks = Vec::new();
        for copy in self.copies.iter().filter(|copy| !copy.is_marked) {
            for value in &copy.values {
                let token = hexadecimal(&tokens.token(&self.subject.name, value));
                marks.push(format!("{token} {}.{}", copy.table, copy.column));
            }
        }
        Ok(marks)
    }

    /// Whether one of the person's ids has a mark now, there or everywhere.
    pub(super) async fn has(&self, context: &StatementContext, mark: Mark) -> Result<bool> {
        let marks = context.engine().catalog().subject_marks_now(&self.subject.name).await?;
        let own = self.marks(context).await?;
        let known = marks.by_mark.get(&mark).into_iter().flat_map(|marked| marked.keys());
        let token = |mark: &str| mark.split(' ').next().unwrap_or_default().to_owned();
        // A hold on an id of one key holds the id wherever it is: rather too many than too few.
        let own: BTreeSet<String> = own.iter().map(|mark| token(mark)).collect();
        Ok(known.map(|known| token(known)).any(|known| own.contains(&known)))
    }
}
