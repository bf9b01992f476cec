//! RESTRICT, HOLD and RELEASE: what holds of a person from now on.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::erasures::ErasureJob;
use catalog::subject_marks::{Mark, MarkNote, SubjectMarks};
use udfs::privacy::subject_token::hexadecimal;

use super::person::{Person, find};
use super::remains;
use super::syntax::Who;
use crate::error::{Class, Error, Result};
use crate::session::StatementContext;
use crate::session::run::{Done, Run};

/// RESTRICT SUBJECT and HOLD SUBJECT.
pub(super) async fn set(run: &Run, who: &Who, mark: Mark) -> Result<Done> {
    let context = StatementContext::load(&run.session).await?;
    let person = find(run, &context, who).await?;
    let marks = person.marks(&context).await?;
    if marks.is_empty() {
        return Err(Error::invalid_hint(
            "this person has no records, so there is nothing to mark",
            "look at the crosswalk",
        ));
    }
    let catalog = context.engine().catalog();
    let note = MarkNote { by: context.rights().name().to_owned(), at_ms: catalog.now_ms() };
    let mut of_copies = match mark {
        Mark::Restricted | Mark::Held => person.marks_of_copies(&context).await?,
        Mark::Erased => vec![],
    };
    let mut unreached = person.unreached.clone();
    if mark == Mark::Restricted {
        let of_models = MarksOfModels::of(run, &context, &person).await?;
        of_copies.extend(of_models.marks);
        unreached.extend(of_models.unreached);
        unreached.extend(remains::of_readers(&context, &person, &person.tables()).await);
    }
    let add = |held: &mut SubjectMarks| {
        let mut put = |persons: &[String]| {
            let new = persons.iter().filter(|one| held.set(mark, (*one).clone(), note.clone()));
            new.cloned().collect::<Vec<String>>()
        };
        Ok((put(&marks), put(&of_copies)))
    };
    let (new, new_of_copies) = catalog.change_subject_marks(&who.subject, add).await?;
    // Who applies retention to one of the tables may not have known: it begins anew.
    for table in person.tables() {
        catalog.stop_retention(&table, None).await?;
    }
    if mark == Mark::Held
        && let Some(id) = being_forgotten(&context, &person).await?
    {
        // Nobody is told to be held who is not.
        let take = |held: &mut SubjectMarks| {
            for person in new.iter().chain(&new_of_copies) {
                held.take(mark, person);
            }
            Ok(())
        };
        catalog.change_subject_marks(&who.subject, take).await?;
        return Err(Error::invalid_hint(
            format!("this person is being forgotten: erasure {id} has begun, and is ended"),
            "system.erasures tells how far it is",
        ));
    }
    let new = new.len();
    let (verb, what) = match mark {
        Mark::Held => ("HOLD", "FORGET is refused until RELEASE"),
        _ => ("RESTRICT", "absent from every read but EXPORT; RETRAIN what was trained before"),
    };
    let mut message =
        format!("{verb} SUBJECT {}: {new} ids more are {}; {what}", who.subject, mark.name());
    if mark == Mark::Restricted && !unreached.is_empty() {
        let unreached: Vec<&str> = unreached.iter().map(String::as_str).collect();
        message.push_str(&format!("; what may still show the person: {}", unreached.join("; ")));
    }
    Ok(Done::new(new as u64, message))
}

/// A person in models whose users have other ids than records: made of them, or an entity's.
pub(super) struct MarksOfModels {
    /// Those of what has become of the person's ids, each bound to a model's users.
    pub(super) marks: BTreeSet<String>,
    /// What such marks call the users of each model.
    columns: BTreeSet<String>,
    /// Why models may show the person still.
    unreached: BTreeSet<String>,
}

impl MarksOfModels {
    /// Looks at every version of every model.
    ///
    /// # Errors
    /// When what is known of models cannot be read, or ids cannot be made again.
    pub(super) async fn of(
        run: &Run,
        context: &Arc<StatementContext>,
        person: &Person,
    ) -> Result<Self> {
        let catalog = context.engine().catalog();
        let tokens = catalog.subject_tokens().await?;
        let (marks, columns, unreached) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut found = Self { marks, columns, unreached };
        for (name, versions) in catalog.model_versions().await? {
            for version in versions {
                let manifest = match catalog.model_manifest(&name, Some(version)).await {
                    Ok((_, manifest)) => manifest,
                    // Nobody can ask it.
                    Err(error) if matches!(error.class(), Class::NotFound | Class::Corrupt) => {
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                if manifest.users_of.is_empty() {
                    continue;
                }
                let column = format!("{name}.{}", manifest.user_col);
                let (ids, doubt) = person.ids_in(run, context, &manifest.users_of).await?;
                let doubt = doubt
                    .map(|doubt| format!("model {name}@{version} may hold the person: {doubt}"));
                found.unreached.extend(doubt);
                for id in ids.difference(&person.ids) {
                    let token = hexadecimal(&tokens.token(&person.subject.name, id));
                    found.marks.insert(format!("{token} {column}"));
                }
                found.columns.insert(column);
            }
        }
        Ok(found)
    }
}

/// The erasure of a person that has begun and is not done.
async fn being_forgotten(context: &StatementContext, person: &Person) -> Result<Option<String>> {
    // An erasure whose journal cannot be read does not go on.
    let (jobs, _) = context.engine().catalog().open_erasures().await?;
    let same = |job: &ErasureJob| {
        job.subject.name == person.subject.name && !job.ids.is_disjoint(&person.ids)
    };
    Ok(jobs.into_iter().find(same).map(|job| job.id))
}

/// RELEASE SUBJECT.
pub(super) async fn release(run: &Run, who: &Who, mark: Mark) -> Result<Done> {
    let context = StatementContext::load(&run.session).await?;
    let catalog = context.engine().catalog();
    // Before keys and copies are read: what is marked later may be in one that is not known here.
    let marked = catalog.subject_marks_now(&who.subject).await?.columns();
    let person = find(run, &context, who).await?;
    let marks = person.marks(&context).await?;
    let mut of_copies = person.marks_of_copies(&context).await?;
    let of_models = MarksOfModels::of(run, &context, &person).await?;
    of_copies.extend(of_models.marks);
    let known: BTreeSet<String> = catalog
        .copies_now()
        .await?
        .into_iter()
        .filter_map(|(table, copy)| Some(format!("{table}.{}", copy.column?)))
        .chain(person.subject.record_keys().map(|key| key.to_string()))
        .chain(of_models.columns)
        .collect();
    let gone: BTreeSet<String> = marked.difference(&known).cloned().collect();
    let take = |held: &mut SubjectMarks| {
        let taken = marks.iter().filter(|person| held.take(mark, person)).count();
        // Whoever is not marked frees nobody in copies, where others may have become the same.
        if taken > 0 {
            for copy in &of_copies {
                held.take(mark, copy);
            }
            // Those of copies that are gone hold nowhere.
            held.forget_columns(&gone);
        }
        Ok(taken)
    };
    let taken = catalog.change_subject_marks(&who.subject, take).await?;
    if taken == 0 {
        return Err(Error::invalid_hint(
            format!("this person is not {}", mark.name()),
            "write the id, and AS, as they were written when it began",
        ));
    }
    let message = format!("RELEASE SUBJECT {}: {taken} ids are free again", who.subject);
    Ok(Done::new(taken as u64, message))
}
