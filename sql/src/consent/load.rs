//! From a table of consents to the exceptions of a policy for a purpose.
//!
//! A row tells whether its person consents to its purpose, from `valid_from` on (NULL: since ever)
//! and before `valid_to` (NULL: without end). Of the rows in force now the latest counts, one for
//! each channel; of rows as late as each other a withdrawal counts; `granted` that is NULL is a
//! withdrawal. Somebody consents whose every channel consents; of whom nothing is told, the
//! policy's default. Where the policy lists channels, each of them is asked by itself: see
//! [`super::links`]. A row without a purpose withdraws for every purpose, and grants none. One of
//! [`SELL_OR_SHARE`] counts as one of each purpose that sells or shares personal information.
//!
//! The consents are read as the policy's owner, for no purpose, with the owner's rights of now, and
//! whole: where a policy would hide a part of them from the owner, nobody knows who consents.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};
use catalog::{ConsentPolicy, ConsentSource, SELL_OR_SHARE, TableState};
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::functions_aggregate::expr_fn::min;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Volatility, cast, lit, try_cast, when,
};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use udfs::consent::{ConsentSet, SubjectKind};

use super::links::{ByChannel, Links};
use super::other_ids::OtherIds;
use crate::dml::sent::quoted;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::policy;
use crate::rights;
use crate::session::{Origin, SessionOptions, Settings, StatementContext};

/// The name that the session of an owner gives as its client.
const CLIENT: &str = "consent";
/// The order of rows without `valid_from`: before all others, and even.
const UNDATED: i64 = -9_000_000_000_000_000_000;
const MICROS_PER_MS: i64 = 1_000;

/// Consents planned as they are read now.
pub(super) struct Reading {
    state: SessionState,
    plan: LogicalPlan,
    kind: SubjectKind,
    context: Arc<StatementContext>,
    source: ConsentSource,
    links: Links,
}

/// For what consents are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) purpose: &'a str,
    /// Whether personal information is sold or shared for it.
    pub(super) sells_or_shares: bool,
    /// The channels that the policy lists.
    pub(super) channels: &'a BTreeSet<String>,
    /// The one of them for which consent is asked; `None` for all of them.
    pub(super) channel: Option<&'a str>,
}

/// Who is an exception, and until when.
pub(super) struct Exceptions {
    pub(super) set: ConsentSet,
    /// When a row comes into force or ends next, in microseconds.
    pub(super) until_us: Option<i64>,
}

impl Reading {
    /// Plans the reading of a policy's consents as its owner.
    ///
    /// # Errors
    /// When the owner is no user any more or may not read them, or columns have the wrong types.
    pub(super) async fn plan(engine: &Engine, policy: &ConsentPolicy) -> Result<Self> {
        let reading = Self::of(engine, &policy.owner, &policy.consents).await?;
        let links = Links::of(engine, policy, reading.kind).await?;
        Ok(Self { links, ..reading })
    }

    /// Plans the reading of consents as somebody.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(super) async fn of(engine: &Engine, owner: &str, source: &ConsentSource) -> Result<Self> {
        let context = reader(engine, owner).await?;
        let mut columns = vec![
            (&source.subject, "subject"),
            (&source.purpose, "purpose"),
            (&source.granted, "granted"),
        ];
        let more = [
            (&source.valid_from, "valid_from"),
            (&source.valid_to, "valid_to"),
            (&source.channel, "channel"),
        ];
        columns
            .extend(more.into_iter().filter_map(|(column, name)| Some((column.as_ref()?, name))));
        let columns: Vec<String> =
            columns.iter().map(|(column, name)| format!("{} AS {name}", quoted(column))).collect();
        let table = format!("{}.{}", quoted(&source.table.schema), quoted(&source.table.name));
        let text = format!("SELECT {} FROM {table}", columns.join(", "));
        let (state, plan) = Box::pin(context.plan_query(parse_query(&text)?)).await?;
        // A policy could hide that somebody has withdrawn.
        for name in context.opened_names() {
            policy::whole(&context, &name, "tell who consents by").await?;
        }
        let kind = check_types(source, plan.schema().as_arrow())?;
        let (source, links) = (source.clone(), Links::default());
        Ok(Self { state, plan, kind, context, source, links })
    }

    /// What the consents hold for persons.
    pub(super) fn kind(&self) -> SubjectKind {
        self.kind
    }

    /// What the content of all tables that are read is known by now; `None` when only reading
    /// them tells.
    ///
    /// # Errors
    /// When a store cannot be reached.
    pub(super) async fn states(&self) -> Result<Option<Vec<TableState>>> {
        if !self.is_of_tables()? {
            return Ok(None);
        }
        let catalog = self.context.engine().catalog();
        let mut states = Vec::new();
        for name in self.context.opened_names() {
            match catalog.table_state(&name, self.context.engine().base()).await? {
                Some(state) => states.push(state),
                None => return Ok(None),
            }
        }
        match self.links.states(self.context.engine()).await? {
            Some(links) => states.extend(links),
            None => return Ok(None),
        }
        states.sort();
        Ok(Some(states))
    }

    /// Whether the rows depend on nothing but tables that were opened by name: not on the time,
    /// say, or on who is logged in.
    fn is_of_tables(&self) -> Result<bool> {
        let opened: Vec<_> = self
            .context
            .opened_names()
            .iter()
            .filter_map(|name| self.context.opened(name))
            .collect();
        let mut known = true;
        self.plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    let provider = source_as_provider(&scan.source)?;
                    known &= opened.iter().any(|table| Arc::ptr_eq(table, &provider));
                }
                LogicalPlan::Extension(_) => known = false,
                _ => {}
            }
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if let Expr::ScalarFunction(call) = part {
                        known &= call.func.signature().volatility == Volatility::Immutable;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(known)
    }

    /// Reads who is an exception to the policy's default for a purpose, by the ids in the consents
    /// or by others.
    ///
    /// # Errors
    /// When the consents cannot be read, or the other ids not be made.
    pub(super) async fn exceptions(
        &self,
        asked: Asked<'_>,
        default_allow: bool,
        seed: u64,
        others: Option<&OtherIds>,
    ) -> Result<Exceptions> {
        let now_us = self.context.engine().catalog().now_ms().saturating_mul(MICROS_PER_MS);
        let verdicts = self.verdicts(asked, now_us)?;
        let set = match others {
            None => {
                let excepted = column("withdrawn").eq(lit(i64::from(default_allow)));
                let plan = verdicts.filter(excepted)?.project(vec![column("person")])?.build()?;
                let found = self.run(&plan).await?;
                ConsentSet::new(self.kind, default_allow, &found, seed)?
            }
            Some(others) => {
                let both = vec![column("person"), column("withdrawn")];
                let found = self.batches(&verdicts.project(both)?.build()?).await?;
                let found = found.iter().filter_map(|batch| match batch.columns() {
                    [person, withdrawn] => Some((Arc::clone(person), Arc::clone(withdrawn))),
                    _ => None,
                });
                let found = others.whose(&self.context, found.collect(), default_allow).await?;
                ConsentSet::new(SubjectKind::Text, default_allow, &[found], seed)?
            }
        };
        let until_us = match self.until_plan(asked, now_us)? {
            Some(plan) => {
                let found = self.run(&plan).await?;
                let times = found.iter().flat_map(|times| times.as_primitive::<Int64Type>().iter());
                times.flatten().min()
            }
            None => None,
        };
        Ok(Exceptions { set, until_us })
    }

    /// The first column of a plan's rows.
    async fn run(&self, plan: &LogicalPlan) -> Result<Vec<ArrayRef>> {
        let batches = self.batches(plan).await?;
        Ok(batches.iter().filter_map(|batch| batch.columns().first().cloned()).collect())
    }

    /// A plan's rows.
    async fn batches(&self, plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
        let physical = self.state.create_physical_plan(plan).await?;
        let mut rows = execute_stream(physical, self.state.task_ctx())?;
        let mut found = Vec::new();
        while let Some(batch) = rows.next().await {
            found.push(batch?);
        }
        Ok(found)
    }

    /// Rows that tell something for a purpose of somebody.
    fn told(asked: Asked<'_>) -> Expr {
        let granted = column("granted");
        let of_all = column("purpose").is_null().and(granted.is_not_true());
        let mut told = column("purpose").eq(lit(asked.purpose)).or(of_all);
        if asked.sells_or_shares {
            told = told.or(column("purpose").eq(lit(SELL_OR_SHARE)));
        }
        told.and(column("subject").is_not_null())
    }

    /// A time in microseconds, where there is such a column.
    fn time(&self, name: &str) -> Option<Expr> {
        let field = self.plan.schema().as_arrow().field_with_name(name).ok()?;
        let zone = match field.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let micros = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Some(cast(cast(column(name), micros), DataType::Int64))
    }

    /// Of whom something is told: `person`, and whether the person has `withdrawn`, 1 or 0.
    fn verdicts(
        &self,
        asked: Asked<'_>,
        now_us: i64,
    ) -> Result<LogicalPlanBuilder, DataFusionError> {
        let (from, to) = (self.time("valid_from"), self.time("valid_to"));
        let mut wanted = Self::told(asked);
        if let Some(from) = &from {
            let begun = from.clone().lt_eq(lit(now_us));
            wanted = wanted.and(column("valid_from").is_null().or(begun));
        }
        if let Some(to) = to {
            wanted = wanted.and(column("valid_to").is_null().or(to.gt(lit(now_us))));
        }
        let person = match (self.kind, self.plan.schema().as_arrow().field(0).data_type()) {
            (SubjectKind::Integer, DataType::UInt64) => {
                try_cast(column("subject"), DataType::Int64)
            }
            (SubjectKind::Integer, _) => cast(column("subject"), DataType::Int64),
            (SubjectKind::Text, _) => cast(column("subject"), DataType::Utf8View),
        };
        // The latest is the greatest, and a withdrawal is greater than a consent of its time.
        let withdrawn = when(column("granted").is_true(), lit(0_i64)).otherwise(lit(1_i64))?;
        let at = match from {
            Some(from) => {
                let undated = column("valid_from").is_null();
                when(undated, lit(UNDATED)).otherwise(from * lit(2_i64))?
            }
            None => lit(UNDATED),
        };
        let mut said = vec![person.alias("person"), (at + withdrawn).alias("said")];
        let by = match (&self.source.channel, asked.channels.is_empty()) {
            (None, _) => ByChannel::Untold,
            (Some(_), true) => ByChannel::Each,
            (Some(_), false) => ByChannel::Listed { all: asked.channels, asked: asked.channel },
        };
        said.extend(self.source.channel.as_ref().map(|_| column("channel").alias("by")));
        let said = LogicalPlanBuilder::from(self.plan.clone()).filter(wanted)?.project(said)?;
        self.links.verdicts(said, by)
    }

    /// One column: when a row comes into force or ends next; `None` where rows have no times.
    fn until_plan(
        &self,
        asked: Asked<'_>,
        now_us: i64,
    ) -> Result<Option<LogicalPlan>, DataFusionError> {
        let times = [self.time("valid_from"), self.time("valid_to")].into_iter().flatten();
        let mut nexts = Vec::new();
        for time in times {
            let is_ahead = time.clone().gt(lit(now_us));
            nexts.push(when(is_ahead, time).end()?);
        }
        let mut plans = Vec::new();
        for next in nexts {
            let told = LogicalPlanBuilder::from(self.plan.clone()).filter(Self::told(asked))?;
            let told = told.project(vec![next.alias("next")])?;
            plans
                .push(told.aggregate(Vec::<Expr>::new(), vec![min(column("next")).alias("next")])?);
        }
        let mut plans = plans.into_iter();
        let Some(mut all) = plans.next() else { return Ok(None) };
        for plan in plans {
            all = all.union(plan.build()?)?;
        }
        Ok(Some(all.build()?))
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// The context in which a policy's owner reads: for no purpose, so that consents which are under a
/// consent policy themselves are an error and not a circle; and past listings that are used again.
async fn reader(engine: &Engine, owner: &str) -> Result<Arc<StatementContext>> {
    let Some(principal) = rights::owner(engine.catalog(), owner).await? else {
        return Err(Error::invalid_hint(
            format!("{owner}, as whom the consents are read, is no user of this warehouse"),
            format!("REASSIGN OWNED BY {owner} TO a user who may read them"),
        ));
    };
    let origin = Origin::new(Some(CLIENT), None);
    let options = SessionOptions { origin, ..SessionOptions::default() };
    let session = engine.session_with(principal, options);
    let settings = Settings { purpose: Some(String::new()), ..Settings::default() };
    let context = StatementContext::with_settings(&session, settings).await?;
    context.opening().read_consents();
    Ok(context)
}

/// Whether a type is a time.
pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

fn check_types(source: &ConsentSource, schema: &Schema) -> Result<SubjectKind> {
    let is_text = |data_type: &DataType| SubjectKind::of(data_type) == Some(SubjectKind::Text);
    let wrong = |column: &str, found: &DataType, wanted: &str| {
        Err(Error::invalid_hint(
            format!("column {column} of the consents {} is {found}, not {wanted}", source.table),
            "name another column, or a view with CAST",
        ))
    };
    for field in schema.fields() {
        let (name, found) = (field.name().as_str(), field.data_type());
        let fits = match name {
            "subject" => SubjectKind::of(found).is_some(),
            "purpose" | "channel" => is_text(found),
            "granted" => *found == DataType::Boolean,
            _ => is_time(found),
        };
        let wanted = match name {
            "subject" => "text or whole numbers",
            "granted" => "true or false",
            "purpose" | "channel" => "text",
            _ => "a timestamp or date",
        };
        if !fits {
            return wrong(name, found, wanted);
        }
    }
    let subject = schema.fields().first().and_then(|field| SubjectKind::of(field.data_type()));
    subject.ok_or_else(|| Error::Internal("consents were planned without a subject".into()))
}
