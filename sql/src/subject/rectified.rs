//! What a RECTIFY does not reach, said plainly: copies of the person's rows in which the value
//! stands as it was, and models that were trained on them.
//!
//! Of copies is known which ids they hold and where these came from, not what became of other
//! columns. So the old values are looked for in the person's rows there. A model, or a view below
//! it, whose text names one of the tables counts: rather one too many than one too few.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt64Type};
use catalog::subject_copies::CopiedKey;
use catalog::subjects::Subject;
use catalog::{ObjectName, Spec};

use super::define::is_text;
use super::person::{Person, Standing, as_text, one_of, rows, stand, texts};
use crate::error::Result;
use crate::session::StatementContext;
use crate::session::run::Run;

/// Values that are looked for; of somebody with more of them copies are named without.
const VALUES_MAX: usize = 100;

/// A column of which a person has other values now.
pub(super) struct Rectified<'a> {
    pub(super) person: &'a Person,
    pub(super) table: &'a ObjectName,
    pub(super) column: &'a str,
    pub(super) data_type: &'a DataType,
    /// What was in it; `None` where that is too much, or cannot be compared.
    pub(super) before: Option<BTreeSet<String>>,
}

/// What a person's rows of a table have in a column, as texts; `None` where that is too much, or
/// cannot be compared.
pub(super) async fn values(
    run: &Run,
    context: &Arc<StatementContext>,
    standing: &Standing,
    condition: &str,
    column: &str,
) -> Result<Option<BTreeSet<String>>> {
    let Standing { relation, schema } = standing;
    let is_compared =
        schema.field_with_name(column).is_ok_and(|field| is_compared(field.data_type()));
    if !is_compared {
        return Ok(None);
    }
    let value = as_text(schema, column);
    let most = VALUES_MAX + 1;
    let text =
        format!("SELECT DISTINCT {value} AS v FROM {relation} WHERE {condition} LIMIT {most}");
    let found = texts(&rows(run, context, &text).await?)?;
    Ok((found.len() <= VALUES_MAX).then_some(found))
}

/// Whether values of a type are the same where their texts are.
fn is_compared(data_type: &DataType) -> bool {
    is_text(data_type)
        || data_type.is_numeric()
        || data_type.is_temporal()
        || *data_type == DataType::Boolean
}

impl Rectified<'_> {
    /// What other tables and models may still have of the values as they were, in words.
    ///
    /// # Errors
    /// When the warehouse cannot be read, or the statement is to end.
    pub(super) async fn remains(&self, run: &Run) -> Result<Vec<String>> {
        // What was opened before the change shows the table as it was.
        let context = StatementContext::load(&run.session).await?;
        let known = context.engine().catalog().copies_now().await?;
        let related = related(&known, &self.person.subject, self.table);
        let now = match stand(&context, self.table, None).await? {
            Some(standing) => match self.person.rows_of(self.table, &standing.schema) {
                Some(condition) => {
                    values(run, &context, &standing, &condition, self.column).await?
                }
                None => None,
            },
            None => None,
        };
        let mut remains = vec![format!("earlier versions of {} keep it", self.table)];
        let mut learned_of = BTreeSet::from([self.table.name.clone()]);
        let mut tables = self.person.tables();
        tables.retain(|table| table != self.table && related.contains(table));
        for table in tables {
            if let Some(told) = self.copy(run, &context, &table, now.as_ref()).await? {
                remains.push(format!("table {table}: {told}"));
                learned_of.insert(table.name);
            }
        }
        for table in &related {
            let of_table = format!("table {table}: ");
            let unreached = self.person.unreached.iter();
            let mut unreached = unreached.filter(|told| told.starts_with(&of_table)).peekable();
            if unreached.peek().is_some() {
                learned_of.insert(table.name.clone());
            }
            remains.extend(unreached.cloned());
        }
        remains.extend(trained_on(&context, learned_of).await?);
        Ok(remains)
    }

    /// What the person's rows of a copy may still have; `None`: nothing.
    async fn copy(
        &self,
        run: &Run,
        context: &Arc<StatementContext>,
        table: &ObjectName,
        now: Option<&BTreeSet<String>>,
    ) -> Result<Option<String>> {
        let Some(Standing { relation, schema }) = stand(context, table, None).await? else {
            return Ok(None);
        };
        let Some(condition) = self.person.rows_of(table, &schema) else { return Ok(None) };
        let none = BTreeSet::new();
        let (before, now) = (self.before.as_ref().unwrap_or(&none), now.unwrap_or(&none));
        let wrong: BTreeSet<String> = before.difference(now).cloned().collect();
        let alike = |other: &DataType| {
            other == self.data_type || (is_text(other) && is_text(self.data_type))
        };
        let fields = schema.fields().iter().filter(|field| alike(field.data_type()));
        let columns: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
        // How many rows there are; in how many the column of the name is right; and of each column
        // in how many it is wrong.
        let within = |column: &str, values: &BTreeSet<String>| match values.is_empty() {
            true => "FALSE".to_owned(),
            false => one_of(&as_text(&schema, column), values),
        };
        let is_right = match columns.contains(&self.column) {
            true => within(self.column, now),
            false => "FALSE".to_owned(),
        };
        let mut counted = vec!["count(*) AS n".to_owned()];
        let conditions = columns.iter().map(|column| within(column, &wrong));
        for (at, is_it) in std::iter::once(is_right).chain(conditions).enumerate() {
            counted.push(format!("count(CASE WHEN {is_it} THEN 1 END) AS n{at}"));
        }
        let counted = counted.join(", ");
        let text = format!("SELECT {counted} FROM {relation} WHERE {condition}");
        let counts = counts(run, context, &text).await?;
        let [all, right, wrong @ ..] = counts.as_slice() else { return Ok(None) };
        let held = columns.iter().zip(wrong).filter(|(_, rows)| **rows > 0);
        let held: Vec<String> =
            held.map(|(column, rows)| format!("column {column} has it in {rows} rows")).collect();
        Ok(match (held.is_empty(), all) {
            (_, 0) => None,
            (false, _) => Some(format!("{}, RECTIFY them too", held.join(" and "))),
            (true, _) if right == all => None,
            (true, _) => Some(format!("{all} rows of the person may have what was computed of it")),
        })
    }
}

/// The sum of each column of counts.
async fn counts(run: &Run, context: &Arc<StatementContext>, text: &str) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for batch in rows(run, context, text).await? {
        counts.resize(batch.num_columns(), 0);
        for (count, column) in counts.iter_mut().zip(batch.columns()) {
            let column = cast(column, &DataType::UInt64)?;
            *count += column.as_primitive::<UInt64Type>().values().iter().sum::<u64>();
        }
    }
    Ok(counts)
}

/// A table, those that it was copied from, those that were copied from it, and so on.
fn related(
    known: &[(ObjectName, CopiedKey)],
    subject: &Subject,
    table: &ObjectName,
) -> BTreeSet<ObjectName> {
    let mut found = BTreeSet::from([table.clone()]);
    loop {
        let before = found.len();
        for (copy, key) in known.iter().filter(|(_, key)| subject.counts(key) && !key.of_model) {
            let ends = [copy, &key.from.table, &key.root.table];
            if ends.iter().any(|end| found.contains(*end)) {
                found.extend(ends.into_iter().cloned());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The versions of models whose training names one of the tables, or a view that does.
async fn trained_on(
    context: &StatementContext,
    mut tables: BTreeSet<String>,
) -> Result<Vec<String>> {
    let catalog = context.engine().catalog();
    let definitions = catalog.definitions().await?;
    loop {
        let before = tables.len();
        for ((_, name), definition) in definitions.iter() {
            if let Spec::View { sql, .. } = &definition.spec
                && names(sql, &tables)
            {
                tables.insert(name.clone());
            }
        }
        if tables.len() == before {
            break;
        }
    }
    let trainings = catalog.model_trainings().await?.into_iter();
    let on_it = trainings.filter(|found| found.texts.iter().any(|text| names(text, &tables)));
    let told = on_it.map(|found| {
        let (model, version) = (found.model, found.version);
        format!("model {model}@{version} was trained on it, RETRAIN MODEL {model}")
    });
    Ok(told.collect())
}

/// Whether a text has one of the names as a word.
fn names(text: &str, names: &BTreeSet<String>) -> bool {
    let text = text.to_lowercase();
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    names.iter().map(|name| name.to_lowercase()).any(|name| {
        text.match_indices(name.as_str()).any(|(at, found)| {
            let (before, after) = (&text[..at], &text[at + found.len()..]);
            !before.chars().next_back().is_some_and(is_part)
                && !after.chars().next().is_some_and(is_part)
        })
    })
}

#[cfg(test)]
mod tests {
    use catalog::subjects::SubjectKey;

    use super::*;

    #[test]
    fn a_text_that_names_a_table_is_found() {
        let known = BTreeSet::from(["crm".to_owned(), "My table".to_owned()]);
        for (text, found) in [
            ("SELECT * FROM crm", true),
            ("SELECT * FROM main.CRM AS c", true),
            ("SELECT * FROM \"crm\"", true),
            ("SELECT * FROM anonymize('main.crm', k => 5)", true),
            ("SELECT * FROM \"My table\"", true),
            ("SELECT crm_id FROM old_crm", false),
            ("SELECT 1", false),
        ] {
            assert_eq!(names(text, &known), found, "{text}");
        }
    }

    #[test]
    fn copies_are_followed_both_ways() {
        let name = |name: &str| ObjectName::new("main", name);
        let copied = |table: &str, from: &str| {
            let key = |table: &str| SubjectKey { table: name(table), column: "id".into() };
            let copy = CopiedKey {
                subject: "person".into(),
                column: Some("id".into()),
                from: key(from),
                root: key("crm"),
                of_model: false,
                by: Some(vec![]),
                is_whole: true,
            };
            (name(table), copy)
        };
        let known = [copied("second", "vip"), copied("vip", "crm")];
        let subject = Subject {
            name: "person".into(),
            keys: vec![SubjectKey { table: name("crm"), column: "id".into() }],
            via: None,
            owner: "dpo".into(),
            created_ms: 0,
        };
        let all = BTreeSet::from([name("crm"), name("vip"), name("second")]);
        for table in ["crm", "vip", "second"] {
            assert_eq!(related(&known, &subject, &name(table)), all, "{table}");
        }
        assert_eq!(related(&known, &subject, &name("x")), BTreeSet::from([name("x")]));
    }
}
