//! FORGET SUBJECT: a person is erased from tables, their past, models and caches (GDPR art. 17).
//!
//! What is to be done is written down first, step by step, and every step can be done again: a
//! server that is killed in the middle leaves a journal that RESUME ERASURE, or the next server,
//! ends. Before the first step it is looked, and written down, that nobody holds the person. Rows
//! of warehouse tables are removed exactly, with every earlier version. From tables over files they
//! are hidden for good; [`super::lake`] rewrites the files that Attune may write, and it names the
//! others. Of models what was learned of the person alone is removed exactly, and what was learned
//! of many together is corrected as far as it can be.

use std::sync::Arc;

use catalog::erasures::{ErasureJob, ErasureOf, SignedCertificate, Step, StepReport};
use catalog::lake_erasure::path_without;
use catalog::subject_marks::{Mark, MarkNote, SubjectMarks};
use catalog::table_erasure::TableErasure;
use catalog::{Kind, ObjectName};

use super::export::{Held, models};
use super::lake_delta;
use super::marks::MarksOfModels;
use super::person::{Person, Standing, count, find, stand};
use super::remains;
use super::syntax::Who;
use super::unlearn::unlearn;
use crate::error::{CatalogError, Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::run::{Done, Run};

/// How often a step is tried when others change the same thing at the same time.
const TRIES: usize = 8;

/// FORGET SUBJECT.
pub(super) async fn run(run: &Run, who: &Who) -> Result<Done> {
    let context = StatementContext::load(&run.session).await?;
    let person = find(run, &context, who).await?;
    if person.has(&context, Mark::Held).await? {
        return Err(held(who));
    }
    let (steps, _) = steps(run, &context, &person).await?;
    let tokens = person.marks(&context).await?;
    let Person { subject, ids, only, entity, .. } = person.clone();
    let of = ErasureOf { subject, ids, only, entity, tokens };
    let catalog = context.engine().catalog();
    let job = catalog.begin_erasure(of, context.rights().name(), steps).await?;
    match goes_on(&context, &job, &person).await {
        Ok(true) => {}
        Ok(false) => {
            catalog.abandon_erasure(&job.id).await?;
            return Err(held(who));
        }
        Err(error) => {
            // Nor is one gone on with of whom that is not known, unless another server has found
            // it out meanwhile.
            if !catalog.decide_erasure(&job.id, false).await? {
                catalog.abandon_erasure(&job.id).await?;
            }
            return Err(error);
        }
    }
    // What has begun is ended, also when whoever asked goes away: in a task of its own.
    let ending = super::resumed(run.session.engine().clone(), job.by.clone(), job.id.clone());
    let ended = tokio::spawn(ending).await;
    let ended = ended.map_err(|_| {
        Error::Internal(format!("erasure {} ended unexpectedly; RESUME ERASURE goes on", job.id))
    })?;
    let Done { affected, message } = ended?;
    Ok(Done { affected, message: format!("FORGET SUBJECT {}: {message}", who.subject) })
}

fn held(who: &Who) -> Error {
    Error::invalid_hint(
        "this person is held and is not forgotten",
        format!("RELEASE SUBJECT {} … FROM HOLD ends the hold", who.subject),
    )
}

/// Whether an erasure goes on whose journal is there: as was decided, or else where nobody holds
/// the person. HOLD looks for a journal once it has marked a person, so one of the two sees the
/// other, also where the server that began the erasure was killed before it looked.
async fn goes_on(context: &StatementContext, job: &ErasureJob, person: &Person) -> Result<bool> {
    let catalog = context.engine().catalog();
    if let Some(goes_on) = catalog.erasure_decision(job).await? {
        return Ok(goes_on);
    }
    let is_held = person.has(context, Mark::Held).await?;
    Ok(catalog.decide_erasure(&job.id, !is_held).await?)
}

/// RESUME ERASURE: ends one erasure that was interrupted, or all.
pub(super) async fn resume(run: &Run, id: Option<&str>) -> Result<Done> {
    let catalog = run.session.engine().catalog();
    let (jobs, fault) = catalog.open_erasures().await?;
    let chosen: Vec<ErasureJob> =
        jobs.into_iter().filter(|job| id.is_none_or(|id| job.id == id)).collect();
    // It may be the one that is asked for.
    let fault = fault.filter(|_| id.is_none() || chosen.is_empty());
    if let (Some(_), true, None) = (id, chosen.is_empty(), &fault) {
        return Err(Error::invalid_hint(
            "no erasure of this id was interrupted",
            "system.erasures lists them",
        ));
    }
    let mut messages = Vec::new();
    let mut rows = 0;
    for job in &chosen {
        let ended = match end(run, job).await? {
            Some(signed) => done(&signed),
            None => Done::new(0, format!("erasure {} is given up: the person is held", job.id)),
        };
        rows += u64::try_from(ended.affected).unwrap_or_default();
        messages.push(ended.message);
    }
    match (fault, messages.is_empty()) {
        (Some(fault), _) => Err(fault.into()),
        (None, true) => Ok(Done::new(0, "no erasure was interrupted")),
        (None, false) => Ok(Done::new(rows, messages.join("; "))),
    }
}

/// What is done for a person, in order: first nobody reads what cannot be rewritten. And what is
/// not known of models, in words.
pub(super) async fn steps(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
) -> Result<(Vec<Step>, Vec<String>)> {
    let catalog = context.engine().catalog();
    let (mut hidden, mut rewritten) = (Vec::new(), Vec::new());
    for table in person.tables() {
        let is_key = person.subject.tables().contains(&&table);
        let object = match catalog.object(&table).await {
            // No file tells its format.
            Err(CatalogError::Empty { .. }) => {
                hidden.push(Step::Hide { table });
                continue;
            }
            object => object?,
        };
        match object {
            Some(object) if object.kind != Kind::Table => {}
            Some(object) if object.external => hidden.push(Step::Hide { table }),
            // A copy that is being made is looked for when all else is done.
            None if !is_key => {}
            // The folders of a table that is gone may be there still.
            _ => rewritten.push(Step::Rewrite { table }),
        }
    }
    let learned = models(run, context, person).await?;
    let doubts = learned.doubts().collect();
    let learned = learned
        .held
        .iter()
        .map(|(model, _)| Step::Unlearn { model: model.name.clone(), version: model.version });
    let steps = hidden.into_iter().chain(rewritten).chain(learned).chain([Step::Clear]);
    Ok((steps.collect(), doubts))
}

/// Does what is left of an erasure; `None` where it is given up, as the person was held before
/// anything was done.
async fn end(run: &Run, job: &ErasureJob) -> Result<Option<SignedCertificate>> {
    let catalog = run.session.engine().catalog();
    let context = StatementContext::load(&run.session).await?;
    if !goes_on(&context, job, &named(job)).await? {
        catalog.abandon_erasure(&job.id).await?;
        return Ok(None);
    }
    catalog.go_on_with_erasure(&job.id).await?;
    for (number, step) in job.steps.iter().enumerate() {
        if catalog.step_report(&job.id, number).await?.is_some() {
            continue;
        }
        let report = Box::pin(tried(run, job, step)).await?;
        catalog.end_step(&job.id, number, &report).await?;
    }
    let context = StatementContext::load(&run.session).await?;
    let person = of_job(run, &context, job).await?;
    let mut remains = remains::of(&context, &person.names()).await?;
    remains.extend(person.unreached.iter().cloned());
    let mut left = Vec::new();
    let mut steps = Vec::with_capacity(job.steps.len());
    for (number, step) in job.steps.iter().enumerate() {
        let report = catalog.step_report(&job.id, number).await?;
        remains.extend(report.as_ref().and_then(remains::of_report));
        if let (Step::Hide { table }, Some(false)) = (step, report.as_ref().map(|of| of.exact)) {
            left.push(table.clone());
        }
        steps.push((step, report.is_some_and(|report| report.keeps_versions)));
    }
    remains.extend(remains::of_readers(&context, &person, &left).await);
    remains.extend(remains::of_buckets(&context, &steps).await?);
    Ok(Some(catalog.end_erasure(job, remains).await?))
}

fn done(signed: &SignedCertificate) -> Done {
    let certificate = &signed.certificate;
    let rows: u64 = certificate.steps.iter().map(|step| step.rows).sum();
    let more = match certificate.remains.as_slice() {
        [] => "nothing is known to remain".to_owned(),
        remains => format!("what remains: {}", remains.join("; ")),
    };
    let message = format!("{rows} rows, certificate {}; {more}", certificate.id);
    Done::new(rows, message)
}

/// Does a step, again when somebody else has changed the same thing meanwhile.
async fn tried(run: &Run, job: &ErasureJob, step: &Step) -> Result<StepReport> {
    let mut last = None;
    for _ in 0..TRIES {
        match Box::pin(once(run, job, step)).await {
            Err(Error::Catalog(error)) if error.is_lost_race() => last = Some(error),
            other => return other,
        }
    }
    let last = last.unwrap_or_else(|| CatalogError::Conflict { name: step.object() });
    Err(last.into())
}

/// Whom an erasure is of.
fn named(job: &ErasureJob) -> Person {
    let (subject, ids) = (job.subject.clone(), job.ids.clone());
    Person::new(subject, ids, job.only.clone(), job.entity.clone())
}

/// The same with what copies hold by now.
async fn of_job(run: &Run, context: &Arc<StatementContext>, job: &ErasureJob) -> Result<Person> {
    Box::pin(named(job).with_copies(run, context)).await
}

async fn once(run: &Run, job: &ErasureJob, step: &Step) -> Result<StepReport> {
    let context = StatementContext::load(&run.session).await?;
    let person = of_job(run, &context, job).await?;
    match step {
        Step::Hide { table } => cleaned(run, &context, job, &person, (table, true)).await,
        Step::Rewrite { table } => cleaned(run, &context, job, &person, (table, false)).await,
        Step::Unlearn { model, version } => unlearn(run, &context, &person, model, *version).await,
        Step::Clear => clear(run, &context, job, &person).await,
    }
}

/// A table without the person, whatever its name has come to mean since the erasure began: who
/// makes a view or an external table of that name keeps nobody from being forgotten.
async fn cleaned(
    run: &Run,
    context: &Arc<StatementContext>,
    job: &ErasureJob,
    person: &Person,
    (table, was_external): (&ObjectName, bool),
) -> Result<StepReport> {
    let catalog = context.engine().catalog();
    catalog.end_creations(table, &job.id).await?;
    let object = match catalog.object(table).await {
        // Files that are out of reach may come back: the person is hidden first of all.
        Err(_) if was_external => None,
        found => found?,
    };
    let mut report = match object {
        Some(object) if object.kind != Kind::Table => gone(table),
        Some(object) if object.external => hide(run, context, job, person, table).await?,
        None if was_external => hide(run, context, job, person, table).await?,
        _ => rewrite(run, context, job, table).await?,
    };
    report.objects += catalog.purge_table_folders(table, job.started_ms).await?;
    Ok(report)
}

fn gone(table: &ObjectName) -> StepReport {
    let outcome = "the table is gone, and so is what was left of it";
    StepReport::new(format!("table {table}"), outcome)
}

/// The person's rows are not read any more: first of all, then the files are rewritten or named.
async fn hide(
    run: &Run,
    context: &Arc<StatementContext>,
    job: &ErasureJob,
    person: &Person,
    table: &ObjectName,
) -> Result<StepReport> {
    let engine = context.engine();
    let catalog = engine.catalog();
    let note = MarkNote { by: job.by.clone(), at_ms: catalog.now_ms() };
    let add = |held: &mut SubjectMarks| {
        for token in &job.tokens {
            held.set(Mark::Erased, token.clone(), note.clone());
        }
        Ok(())
    };
    catalog.change_subject_marks(&job.subject.name, add).await?;
    super::lake::erase(run, context, person, table).await
}

/// The rows that stay are written anew; the table's past is to be removed.
async fn rewrite(
    run: &Run,
    context: &Arc<StatementContext>,
    job: &ErasureJob,
    table: &ObjectName,
) -> Result<StepReport> {
    let catalog = context.engine().catalog();
    let mut report = gone(table);
    match catalog.begin_table_erasure(table, &job.id).await? {
        TableErasure::Gone => {}
        TableErasure::Rewritten => {
            report.outcome = "rewritten before the erasure was interrupted".into();
        }
        TableErasure::Begun(version) => {
            // From now on nobody else's rows come in. What came in before was announced.
            let person = of_job(run, context, job).await?;
            let Some(standing) = stand(context, table, Some(version)).await? else {
                return Err(CatalogError::Conflict { name: table.to_string() }.into());
            };
            let Standing { relation, schema } = standing;
            let mut keep = format!("SELECT * FROM {relation}");
            if let Some(condition) = person.rows_of(table, &schema) {
                report.rows = count(run, context, &relation, &condition).await?;
                keep.push_str(&format!(" WHERE {condition} IS NOT TRUE"));
            }
            let (_, plan) = Box::pin(context.plan_query(parse_query(&keep)?)).await?;
            let state = run.writing_state()?;
            let written =
                catalog.finish_table_erasure(table, &job.id, version, plan, &state).await?;
            report.outcome =
                format!("rewritten as version {}; earlier ones are purged", written.version);
        }
    }
    Ok(report)
}

/// What is kept beside tables and models, and copies and models that were published meanwhile.
async fn clear(
    run: &Run,
    context: &Arc<StatementContext>,
    job: &ErasureJob,
    person: &Person,
) -> Result<StepReport> {
    let engine = context.engine();
    let catalog = engine.catalog();
    let mut late = Vec::new();
    let mut rows = 0;
    for table in person.tables_of_copies() {
        // One that is being made does not come to be; one that was rewritten before is left as it
        // is.
        let report = Box::pin(cleaned(run, context, job, person, (table, false))).await?;
        rows += report.rows;
        if report.rows > 0 {
            late.push(format!("{}: {}", report.object, report.outcome));
        }
    }
    let copied = late.len();
    // A version that is published later was made by whoever has found this erasure.
    catalog.end_publications().await?;
    let learned = models(run, context, person).await?;
    late.extend(learned.doubts());
    for (model, _) in learned.held {
        let name = model.to_string();
        let report = unlearn(run, context, person, &model.name, model.version).await?;
        late.push(format!("model {name}: {}", report.outcome));
    }
    catalog.purge_model_folders().await?;
    catalog.forget_past_definitions(&person.names()).await?;
    let purged = Box::pin(lake_delta::purge_late(context, person)).await?;
    let mut objects = purged.objects;
    for table in person.tables() {
        catalog.forget_checked_values(&table).await?;
        // Who was slow may have written into a folder that was removed.
        objects += catalog.purge_table_folders(&table, job.started_ms).await?;
    }
    // The tables that were rewritten are read from other files: what is known of the old ones is
    // of no use, and tells of who was in them.
    engine.runtime().cache_manager.get_file_metadata_cache().clear();
    let mut of_copies = person.marks_of_copies(context).await?;
    of_copies.extend(MarksOfModels::of(run, context, person).await?.marks);
    let free = |held: &mut SubjectMarks| {
        for token in job.tokens.iter().chain(&of_copies) {
            held.take(Mark::Restricted, token);
        }
        Ok(())
    };
    catalog.change_subject_marks(&job.subject.name, free).await?;
    let mut outcome = "caches, results of checks and marks are removed".to_owned();
    for more in &late {
        outcome.push_str("; ");
        outcome.push_str(more);
    }
    let exact = late.len() == copied && purged.left.is_empty();
    let names = person.names();
    let left = purged.left.iter();
    let left = left.map(|(path, reason)| format!("{} ({reason})", path_without(path, &names).0));
    Ok(StepReport {
        rows,
        objects,
        exact,
        files: left.collect(),
        ..StepReport::new(Step::Clear.object(), outcome)
    })
}

/// What a version of a model holds of a person, in words.
pub(super) fn held_in_words(held: &Held) -> String {
    match (held.users.len(), held.records.len()) {
        (users, 0) => format!("{users} users' factors and interactions removed, items corrected"),
        (_, records) => format!("the version is removed: it holds {records} records"),
    }
}
