//! Subjects: which columns hold persons, and what a person may ask for.
//!
//! CREATE SUBJECT names the columns; EXPORT, RECTIFY, RESTRICT, HOLD and FORGET SUBJECT are
//! requests of one person ([`person`] finds out who it is). They are `policy_admin`'s, who reads
//! and changes for them rows that nothing else gives it: a request that left out what its holder
//! may not see would be none. What must not be seen any more is left out wherever a table is opened
//! ([`guard`]).

pub(crate) mod copies;
mod define;
mod explain;
mod export;
mod forget;
pub(crate) mod guard;
mod ids;
mod kept;
mod lake;
mod lake_delta;
mod lineage;
mod marks;
mod of_models;
mod person;
mod rectified;
mod rectify;
mod remains;
pub(crate) mod syntax;
mod transform;
mod unlearn;
pub(crate) mod users;
mod whose;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use catalog::audit::Level;
use catalog::policy::{Principal, Role};
use datafusion::execution::session_state::SessionState;
use futures::future::BoxFuture;

pub(crate) use self::define::raw;
pub(crate) use self::ids::are_same_ids;
pub(crate) use self::of_models::{LISTING_USERS, OF_USERS};
pub(crate) use self::person::{count, counted, rows};
use self::syntax::{SubjectStatement, Who};
pub(crate) use self::transform::{can_be_made, under};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::rights::Rights;
use crate::session::bindings::Bindings;
use crate::session::run::{Done, Run};
use crate::session::{Action, Origin, SessionOptions, StatementContext};

/// The name that the session of an erasure gives as its client, also where nobody asks any more.
const CLIENT: &str = "erasure";

/// A statement of subjects or persons that answers no rows.
#[derive(Debug, Clone)]
pub(crate) struct Change(Box<SubjectStatement>);

/// A request that answers rows.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Export(Who),
    ExplainForget(Who),
}

/// Plans a statement of subjects or persons. What it names is looked up when it runs.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &SubjectStatement,
) -> Result<(SessionState, Action)> {
    let listing = match statement {
        SubjectStatement::Show => Some(
            "SELECT name, keys, crosswalk, copies FROM system.subjects ORDER BY name".to_owned(),
        ),
        SubjectStatement::Certificates => Some(
            "SELECT id, subject, finished, rows, remains, key, is_valid FROM system.erasures \
             WHERE state = 'done' ORDER BY finished, id"
                .to_owned(),
        ),
        SubjectStatement::Describe(name) => {
            may_decide(context.rights())?;
            context.engine().catalog().subject(name).await?;
            let name = person::literal(name);
            Some(format!("SELECT * FROM system.subjects WHERE name = {name}"))
        }
        _ => None,
    };
    if let Some(query) = listing {
        let (state, plan) = context.plan_query(parse_query(&query)?).await?;
        return Ok((state, Action::Query(plan)));
    }
    may_decide(context.rights())?;
    if let Some(who) = statement.who() {
        note_subject(context, who).await?;
    }
    let action = match statement {
        SubjectStatement::Export(who) => Action::SubjectRequest(Request::Export(who.clone())),
        SubjectStatement::ExplainForget(who) => {
            Action::SubjectRequest(Request::ExplainForget(who.clone()))
        }
        change => Action::Subject(Change(Box::new(change.clone()))),
    };
    Ok((context.state(&Bindings::default())?, action))
}

/// Notes for the record whom a request is of, as a token that the record's secret keys.
async fn note_subject(context: &StatementContext, who: &Who) -> Result<()> {
    let catalog = context.engine().catalog();
    let config = catalog.audit().config();
    if config.level == Level::Off {
        return Ok(());
    }
    match catalog.audit_token(&who.id).await {
        Ok(token) => {
            context.used().subjects.insert(format!("{} {token}", who.subject));
        }
        Err(error) if config.strict => return Err(error.into()),
        // The record is not kept there either, and says so itself.
        Err(error) => tracing::warn!(%error, "a request is recorded without whom it is of"),
    }
    Ok(())
}

/// Whether a principal decides about persons' data.
fn may_decide(rights: &Rights) -> Result<()> {
    if rights.has(Role::PolicyAdmin) {
        return Ok(());
    }
    Err(Error::Denied {
        principal: rights.name().to_owned(),
        action: "define subjects, or answer requests of persons".into(),
        hint: Some("this needs the role policy_admin".into()),
    })
}

impl Change {
    /// Whether it waits for another statement, which takes a slot.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.0.as_ref(), SubjectStatement::Forget(_))
    }

    /// Whether it may take longer than a query.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self.0.as_ref(), SubjectStatement::Forget(_) | SubjectStatement::Resume(_))
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let context = StatementContext::load(&run.session).await?;
        may_decide(context.rights())?;
        match self.0.as_ref() {
            SubjectStatement::Create(create) => define::create(&context, create).await,
            SubjectStatement::AddKeys { name, keys } => {
                define::add_keys(&context, name, keys).await
            }
            SubjectStatement::DropKeys { name, keys } => {
                define::drop_keys(&context, name, keys).await
            }
            SubjectStatement::Drop { name, if_exists } => {
                define::drop(&context, name, *if_exists).await
            }
            SubjectStatement::Rectify { who, column, value } => {
                Box::pin(rectify::run(run, who, column, value)).await
            }
            SubjectStatement::Mark { who, mark } => Box::pin(marks::set(run, who, *mark)).await,
            SubjectStatement::Release { who, mark } => {
                Box::pin(marks::release(run, who, *mark)).await
            }
            SubjectStatement::Forget(who) => Box::pin(forget::run(run, who)).await,
            SubjectStatement::Resume(id) => Box::pin(forget::resume(run, id.as_deref())).await,
            SubjectStatement::Show
            | SubjectStatement::Describe(_)
            | SubjectStatement::Certificates
            | SubjectStatement::Export(_)
            | SubjectStatement::ExplainForget(_) => {
                Err(Error::Internal("a statement with rows is no change".into()))
            }
        }
    }
}

impl Request {
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Export(_) => export::export_schema(),
            Self::ExplainForget(_) => explain::explain_schema(),
        }
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<RecordBatch> {
        let context = StatementContext::load(&run.session).await?;
        may_decide(context.rights())?;
        match self {
            Self::Export(who) => Box::pin(export::run(run, who)).await,
            Self::ExplainForget(who) => Box::pin(explain::run(run, who)).await,
        }
    }
}

/// Ends the erasures that were interrupted, each in the name of who asked for it; gives what each
/// came to.
///
/// # Errors
/// When the journals cannot be read.
pub async fn resume_erasures(engine: &Engine) -> Result<Vec<(String, Result<String>)>> {
    let mut ended = Vec::new();
    let (jobs, fault) = engine.catalog().open_erasures().await?;
    for job in jobs {
        let outcome = resumed(engine.clone(), job.by.clone(), job.id.clone()).await;
        ended.push((job.id, outcome.map(|done| done.message)));
    }
    if let Some(fault) = fault {
        ended.push(("of a journal that cannot be read".to_owned(), Err(fault.into())));
    }
    Ok(ended)
}

/// Ends one erasure, in a session of its own that lasts as long as it takes.
fn resumed(engine: Engine, by: String, id: String) -> BoxFuture<'static, Result<Done>> {
    // FORGET runs RESUME, so the future holds itself.
    Box::pin(async move {
        let origin = Origin::new(Some(CLIENT), None);
        let options = SessionOptions { origin, ..SessionOptions::default() };
        let session = engine.session_with(Principal::new(by, [Role::PolicyAdmin]), options);
        let text = format!("RESUME ERASURE {}", person::literal(&id));
        let answer = session.query(&text).await?;
        let (affected, message) = (answer.affected.unwrap_or_default(), answer.message);
        Ok(Done { affected, message: message.unwrap_or_default() })
    })
}
