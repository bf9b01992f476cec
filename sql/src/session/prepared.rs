//! A prepared statement: parsed once, planned when needed, run any number of times.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::ErasuresSeen;
use catalog::audit::ValueTokens;
use catalog::policy::PolicyMoment;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use parking_lot::Mutex;

use crate::admission::needs_slot;
use crate::audit;
use crate::dml::Change;
use crate::error::{Error, Result};
use crate::key::UsedKey;
use crate::parse::Statement;
use crate::query_text::{self, Shown};
use crate::rights::Rights;
use crate::session::apart;
use crate::session::plan::analyzed;
use crate::session::planned::{self, Action, Planned};
use crate::session::{Session, Settings, StatementContext};

/// A plan older than this is made anew before it runs, so that new files, table versions, model
/// versions and changed rights are seen; it is the freshness of the registry's snapshot.
const PLAN_AGE_MAX_MS: i64 = 1_000;

/// A prepared statement; a clone is the same statement.
#[derive(Debug, Clone)]
pub struct Prepared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: String,
    statement: Statement,
    schema: SchemaRef,
    parameters: Schema,
    is_update: bool,
    /// Whether the plan holds for one run, because it reads rows that come once.
    once: bool,
    /// Whether a run has taken the plan.
    taken: AtomicBool,
    /// The text as the log shows it.
    shown: Shown,
    /// Whether it is planned apart from serving.
    heavy: bool,
    planned: Mutex<(Settings, Arc<Planned>)>,
}

impl Prepared {
    pub(crate) async fn new(session: &Session, text: &str, statement: Statement) -> Result<Self> {
        Self::planned(StatementContext::load(session).await?, text, statement, false).await
    }

    /// A statement for one run, planned in a context that knows rows which a client sends.
    pub(crate) async fn once(
        context: Arc<StatementContext>,
        text: &str,
        statement: Statement,
    ) -> Result<Self> {
        Self::planned(context, text, statement, true).await
    }

    /// A statement that is planned already; `tokens` make those of the values in its text.
    pub(crate) fn ready(
        (text, tokens): (&str, Option<Arc<ValueTokens>>),
        statement: Statement,
        settings: Settings,
        planned: Planned,
        once: bool,
    ) -> Result<Self> {
        let (schema, is_update) = result_schema(&planned.action);
        let parameters = parameters(&planned.action)?;
        let heavy = text.len() > apart::TEXT_BYTES || planned.parts > apart::PLAN_PARTS;
        Ok(Self(Arc::new(Inner {
            shown: query_text::planned(text, tokens),
            heavy,
            text: text.to_owned(),
            statement,
            schema,
            parameters,
            is_update,
            once,
            taken: AtomicBool::new(false),
            planned: Mutex::new((settings, Arc::new(planned))),
        })))
    }

    async fn planned(
        context: Arc<StatementContext>,
        text: &str,
        statement: Statement,
        once: bool,
    ) -> Result<Self> {
        let (session, settings) = (context.session().clone(), context.session().settings());
        let planned = planned::plan_in(context, &statement).await?;
        let tokens = audit::value_tokens(&session, &planned).await;
        Self::ready((text, tokens), statement, settings, planned, once)
    }

    /// The statement's text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The statement's text with tokens of its values.
    pub(crate) fn shown(&self) -> &Shown {
        &self.0.shown
    }

    /// The plan that was made last, old or not.
    pub(crate) fn last_planned(&self) -> Arc<Planned> {
        Arc::clone(&self.0.planned.lock().1)
    }

    /// Whether it is planned apart from serving.
    pub(crate) fn is_heavy(&self) -> bool {
        self.0.heavy
    }

    /// Whether it runs in a slot.
    pub(crate) fn needs_slot(&self) -> bool {
        needs_slot(&self.0.planned.lock().1.action)
    }

    /// Whether it trains a model, forgets a person or applies retention, which the configured time
    /// limit does not bind.
    pub(crate) fn trains(&self) -> bool {
        match &self.0.planned.lock().1.action {
            Action::CreateModel(_) | Action::Retention(_) => true,
            Action::Subject(change) => change.is_long(),
            _ => false,
        }
    }

    /// The result's columns; none for a statement without a result.
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// The result's columns once these values are bound: a column that is a parameter of unknown
    /// type, as in `SELECT ?`, takes the type of its value.
    pub fn schema_with(&self, parameters: &[ScalarValue]) -> SchemaRef {
        let open = self.0.schema.fields().iter().any(|field| field.data_type().is_null());
        if !open || parameters.is_empty() {
            return SchemaRef::clone(&self.0.schema);
        }
        let planned = Arc::clone(&self.0.planned.lock().1);
        let Action::Query(plan) = &planned.action else { return SchemaRef::clone(&self.0.schema) };
        let bound = plan.clone().with_param_values(ParamValues::from(parameters.to_vec()));
        let bound = bound.map_err(Error::from).and_then(|plan| analyzed(&planned.state, plan));
        match bound {
            Ok(plan) => Arc::new(plan.schema().as_arrow().clone()),
            // The run will tell what is wrong with the values.
            Err(_) => SchemaRef::clone(&self.0.schema),
        }
    }

    /// Whether the statement changes something and answers no rows.
    pub fn is_update(&self) -> bool {
        self.0.is_update
    }

    /// One field a placeholder, named `$1`, `$2`, …; of type Null where it is unknown.
    pub fn parameters(&self) -> &Schema {
        &self.0.parameters
    }

    /// Which keys the statement uses, and what for, as it was planned last; also through views.
    pub fn keys(&self) -> Arc<[UsedKey]> {
        Arc::clone(&self.0.planned.lock().1.keys)
    }

    /// What is to be said of the answer besides its rows.
    pub(crate) fn notice(&self) -> Option<String> {
        self.0.planned.lock().1.notice.clone()
    }

    pub(crate) fn statement(&self) -> &Statement {
        &self.0.statement
    }

    /// The plan to run now, when it is at hand and operators are made of it and the values in a
    /// moment.
    pub(crate) async fn at_hand(
        &self,
        session: &Session,
        values: &[ScalarValue],
    ) -> Result<Option<Arc<Planned>>> {
        let is_light = |planned: &Planned| planned.is_light(values, self.parameters());
        if self.0.heavy || !is_light(&self.0.planned.lock().1) {
            return Ok(None);
        }
        let rights = session.rights().await?;
        let policies = session.engine().catalog().policy_moment().await?;
        let last = self.last(session, &session.settings(), (&rights, &policies));
        Ok(last.filter(|planned| is_light(planned)))
    }

    /// The plan to run now: the last one, or a new one when that is old.
    pub(crate) async fn current(&self, session: &Session) -> Result<Arc<Planned>> {
        let settings = session.settings();
        // A revoke and a policy count in the next statement, however young the plan is.
        let rights = session.rights().await?;
        let policies = session.engine().catalog().policy_moment().await?;
        if let Some(planned) = self.last(session, &settings, (&rights, &policies)) {
            return Ok(planned);
        }
        let fresh = Arc::new(planned::plan(session, &self.0.statement).await?);
        if result_schema(&fresh.action).0 != self.0.schema {
            return Err(Error::invalid_hint(
                "the columns of this prepared statement have changed",
                "prepare it again",
            ));
        }
        *self.0.planned.lock() = (settings, Arc::clone(&fresh));
        Ok(fresh)
    }

    /// The last plan, where it holds still.
    fn last(
        &self,
        session: &Session,
        settings: &Settings,
        (rights, policies): (&Arc<Rights>, &PolicyMoment),
    ) -> Option<Arc<Planned>> {
        let (planned_in, planned) = &*self.0.planned.lock();
        let age_ms = session.engine().catalog().now_ms() - planned.at_ms;
        let young = (0..PLAN_AGE_MAX_MS).contains(&age_ms)
            && planned_in == settings
            && Arc::ptr_eq(&planned.rights, rights)
            && planned.policy_moment.is_same(policies);
        // A rewrite of a table, and what is recorded if it is not there yet, hold for the version
        // that they were planned at and make the next; checks read as others may whose rights have
        // changed since.
        let rewrites = matches!(
            &planned.action,
            Action::Rows(Change::Rewrite { .. } | Change::Merge(_) | Change::Record { .. })
                | Action::CheckTable(_)
        );
        let spent =
            (rewrites || planned.knows_consent) && self.0.taken.swap(true, Ordering::Relaxed);
        let seen = planned.state.config().get_extension::<ErasuresSeen>();
        let outdated = seen.is_some_and(|seen| seen.is_outdated());
        (self.0.once || (young && !spent && !outdated)).then(|| Arc::clone(planned))
    }
}

fn result_schema(action: &Action) -> (SchemaRef, bool) {
    match action {
        Action::Query(plan) => {
            let plan = match plan {
                LogicalPlan::DescribeTable(describe) => {
                    return (Arc::new(describe.output_schema.as_arrow().clone()), false);
                }
                plan => plan,
            };
            (Arc::new(plan.schema().as_arrow().clone()), false)
        }
        Action::CreateToken(statement) => match statement.schema() {
            Some(schema) => (schema, false),
            None => (Arc::new(Schema::empty()), true),
        },
        Action::CheckTable(_) => (crate::expectation::answer_schema(), false),
        Action::SubjectRequest(request) => (request.schema(), false),
        Action::RetentionReport(_) => (crate::policy::explain_schema(), false),
        _ => (Arc::new(Schema::empty()), true),
    }
}

fn parameters(action: &Action) -> Result<Schema> {
    let plans: Vec<&LogicalPlan> = match action {
        Action::Query(plan) | Action::CreateModel(plan) => vec![plan],
        Action::Definition(definition) => definition.plans(),
        Action::Rows(change) => change.plans(),
        Action::Model(_)
        | Action::Access(_)
        | Action::Key(_)
        | Action::Policy(_)
        | Action::CreateToken(_)
        | Action::DropToken(_)
        | Action::Expectation(_)
        | Action::Consent(_)
        | Action::Privacy(_)
        | Action::CheckTable(_)
        | Action::Subject(_)
        | Action::SubjectRequest(_)
        | Action::Retention(_)
        | Action::RetentionReport(_)
        | Action::Set(..)
        | Action::Kill(_) => vec![],
    };
    let mut types: Vec<DataType> = Vec::new();
    for plan in plans {
        let mut named = plan.get_parameter_types()?;
        if named.values().any(Option::is_none) {
            from_casts(plan, &mut named)?;
        }
        for (name, data_type) in named {
            let number = name.trim_start_matches('$').parse::<usize>().unwrap_or(0);
            if number == 0 {
                return Err(Error::invalid_hint(
                    format!("{name} is no parameter"),
                    "count from $1",
                ));
            }
            if types.len() < number {
                types.resize(number, DataType::Null);
            }
            if let Some(data_type) = data_type {
                types[number - 1] = data_type;
            }
        }
    }
    let field = |(index, data_type)| Field::new(format!("${}", index + 1), data_type, true);
    Ok(Schema::new(types.into_iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// `CAST($1 AS T)` tells the type of a parameter that nothing else does.
fn from_casts(plan: &LogicalPlan, types: &mut HashMap<String, Option<DataType>>) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::Cast(cast) = part
                    && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
                    && let Some(data_type @ None) = types.get_mut(&placeholder.id)
                {
                    *data_type = Some(cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}
