//! What an erasure does not reach, said plainly.

use std::collections::{BTreeMap, BTreeSet};

use catalog::erasures::{Step, StepReport};
use catalog::models::StoredStart;
use catalog::{ObjectName, Spec, WAREHOUSE_BUCKET};

use super::person::Person;
use crate::error::{CatalogError, Result};
use crate::session::StatementContext;

/// Files that are named in a sentence; the report has them all.
const FILES_SHOWN: usize = 3;

/// Definitions that name the person in their text, and a store that keeps what is removed.
pub(super) async fn of(context: &StatementContext, ids: &BTreeSet<String>) -> Result<Vec<String>> {
    let catalog = context.engine().catalog();
    let mut remains = Vec::new();
    for ((schema, name), definition) in catalog.definitions().await?.iter() {
        let (kind, texts) = match &definition.spec {
            Spec::View { sql, .. } => ("view", vec![sql.clone()]),
            Spec::Model(head) => {
                let options = head.options.values().filter_map(|value| value.as_str());
                let options = options.map(str::to_owned);
                ("model", std::iter::once(head.query.clone()).chain(options).collect())
            }
            _ => continue,
        };
        if texts.iter().any(|text| mentions(text, ids)) {
            remains.push(format!("the text of {kind} {schema}.{name} names the person"));
        }
    }
    for training in catalog.model_trainings().await? {
        let (model, version, texts) = (training.model, training.version, training.texts);
        if matches!(training.start, StoredStart::GoesOn { holds_all: false, .. }) {
            remains.push(format!(
                "model {model}@{version} goes on from persons that it does not hold, perhaps this \
                 one: RETRAIN MODEL forgets them"
            ));
        }
        let told = format!("the text of model {model} names the person");
        if !remains.contains(&told) && texts.iter().any(|text| mentions(text, ids)) {
            remains.push(format!("the text of model {model}@{version} names the person"));
        }
    }
    for (on, rules) in catalog.all_rules().await? {
        for (name, policy) in &rules.policies {
            if policy.rule.text().is_some_and(|text| mentions(text, ids)) {
                remains.push(format!("policy {name} on {on} names the person"));
            }
        }
    }
    for (table, held) in catalog.all_expectations().await? {
        for (name, expectation) in &held.by_name {
            if mentions(&expectation.check, ids) {
                remains.push(format!("expectation {name} of {table} names the person"));
            }
        }
    }
    remains.extend(catalog.versioning().await?.told(WAREHOUSE_BUCKET));
    Ok(remains)
}

/// What a step has left to somebody else.
pub(super) fn of_report(report: &StepReport) -> Option<String> {
    match report.files.as_slice() {
        [] if !report.exact => Some(format!("{}: {}", report.object, report.outcome)),
        [] => None,
        files => Some(format!("{}: rewrite {}", report.object, some_of(files))),
    }
}

/// Tables that read the files of some of a person's tables and have no key, so that nobody is left
/// out of what they show.
pub(super) async fn of_readers(
    context: &StatementContext,
    person: &Person,
    tables: &[ObjectName],
) -> BTreeSet<String> {
    let catalog = context.engine().catalog();
    let mut known: BTreeSet<&ObjectName> = person.subject.tables().into_iter().collect();
    known.extend(person.tables_of_copies());
    let mut told = BTreeSet::new();
    for table in tables {
        match catalog.readers_of_files_of(table).await {
            Ok(readers) => {
                let keyless = readers.iter().filter(|reader| !known.contains(reader));
                told.extend(keyless.map(|reader| {
                    let subject = &person.subject.name;
                    format!("table {reader} reads the files of {table} and has no key of {subject}")
                }));
            }
            // There are no files.
            Err(CatalogError::Empty { .. }) => {}
            Err(error) => {
                told.insert(format!("which other tables read {table} is not known: {error}"));
            }
        }
    }
    told
}

/// Buckets of lakes that keep what files were before they are rewritten, by Attune or by their
/// owner. Beside a step stands whether versions were seen in it.
pub(super) async fn of_buckets(
    context: &StatementContext,
    steps: &[(&Step, bool)],
) -> Result<Vec<String>> {
    let mut tables: BTreeMap<ObjectName, bool> = BTreeMap::new();
    for (step, is_seen) in steps {
        if let Step::Hide { table } | Step::Rewrite { table } = step {
            *tables.entry(table.clone()).or_default() |= *is_seen;
        }
    }
    Ok(context.engine().catalog().told_of_buckets(&tables).await?)
}

/// The first of some files, and how many more there are.
pub(super) fn some_of(files: &[String]) -> String {
    let shown = files.iter().take(FILES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match files.len().saturating_sub(FILES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether a text has one of the ids as a value: in quotes, or, where it is a number, as a word.
fn mentions(text: &str, ids: &BTreeSet<String>) -> bool {
    ids.iter().any(|id| {
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        let is_word = || {
            let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
            words.any(|word| word == id)
        };
        text.contains(&format!("'{}'", id.replace('\'', "''"))) || (is_number && is_word())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_names_somebody_is_found() {
        let ids = BTreeSet::from(["u-1".to_owned(), "o'x".to_owned(), "42".to_owned()]);
        for (text, found) in [
            ("SELECT * FROM t WHERE id <> 'u-1'", true),
            ("SELECT * FROM t WHERE id = 'o''x'", true),
            ("SELECT * FROM t WHERE id = 42", true),
            ("SELECT * FROM t WHERE id = 'u-10' OR n = 421 OR m = 0.42", false),
        ] {
            assert_eq!(mentions(text, &ids), found, "{text}");
        }
    }
}
