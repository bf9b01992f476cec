//! Models that were trained for a purpose: who may ask them, of whom, and who is in them still.
//!
//! A model remembers the purpose for which its rows were read and the versions of the consents by
//! which they were chosen. It is asked for that purpose alone, by somebody who holds it; one that
//! was trained for a channel is asked for that channel alone. Where its users are the persons of a
//! policy, it gives nothing for those who do not consent now: no list, no score, no reasons, and
//! they are in nobody's list of similar users. Where their ids were made other ones, by a mask or
//! in the query, what was done is done again with the ids in the consents ([`super::other_ids`]); a
//! training where it cannot be is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::models::{LoadedModel, Manifest, ModelInfo, StoredConsent};
use catalog::policy::Role;
use catalog::subject_copies::CopiedKey;
use catalog::{Class, ConsentPolicy, ObjectName};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF};
use serde_json::Value as Json;
use udfs::consent::{ConsentSet, Consents, consenting};

use super::groups::Groups;
use super::guard::channel_of;
use super::other_ids::OtherIds;
use super::store::{Held, Used, current, current_by};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::answers::RECORDS;
use crate::model::hidden;
use crate::model::options::TrainingOptions;
use crate::policy::since;
use crate::session::StatementContext;
use crate::subject::users::{self, Followed, Ways};

/// The options of CREATE MODEL.
const OPTION: &str = "purpose";
const CHANNEL: &str = "channel";

/// The column of a training query that says of whom a model learns, or what its answers are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PersonColumn {
    /// The users.
    Users(usize),
    /// The records of a model of entities.
    Records(usize),
    /// The classes among which a model chooses.
    Classes(usize),
}

/// For what a training reads, and by which policies its rows are chosen.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrainedFor {
    purpose: Option<String>,
    channel: Option<String>,
    used: Arc<Used>,
    /// The policies whose persons are the model's users, and what was done to their ids.
    of_users: BTreeMap<String, Ways>,
    /// Whose ids the users, or the records, are, of subjects.
    users_of: BTreeSet<CopiedKey>,
    /// The same where these are what they were; none where there are neither.
    records_of: Option<BTreeSet<CopiedKey>>,
    /// By which policies the rows were chosen of the models that it asks.
    of_models: Vec<StoredConsent>,
    /// Whether one of these was trained for the channel.
    by_channel: bool,
}

impl TrainedFor {
    /// Of a training query that is planned in a context, whose users, records or classes are in a
    /// column of the plan.
    ///
    /// # Errors
    /// When users are made of a policy's persons in a way in which no withdrawal could be followed,
    /// or classes tell persons apart.
    pub(crate) async fn new(
        context: &StatementContext,
        plan: &LogicalPlan,
        persons: Option<PersonColumn>,
    ) -> Result<Self> {
        let (mut of_users, mut users_of) = (BTreeMap::new(), BTreeSet::new());
        let mut records_of = None;
        let used = Arc::clone(context.opening().used());
        let asked = context.opening().asked();
        let of_models: Vec<StoredConsent> =
            asked.iter().flat_map(|model| model.manifest.consents.clone()).collect();
        let mut names: BTreeSet<String> = used.versions().into_keys().collect();
        names.extend(of_models.iter().map(|consent| consent.policy.clone()));
        let policies = context.rights().purposes().policies();
        let policies = policies.filter(|policy| names.contains(&policy.name));
        let policies: Vec<Arc<ConsentPolicy>> = policies.map(Arc::clone).collect();
        if let Some(PersonColumn::Classes(column)) = persons {
            let mut policies = policies.iter();
            let told = policies.find(|policy| Groups::of(&policy.name).are_in(plan, column));
            if let Some(policy) = told {
                return Err(of_persons(plan, column, policy));
            }
        }
        if let Some(PersonColumn::Users(column)) = persons {
            for policy in policies {
                match users::of_policy(context, plan, column, &policy).await? {
                    Followed::Nothing => {}
                    Followed::Ids(ways) => {
                        of_users.insert(policy.name.clone(), ways);
                    }
                    Followed::Lost => return Err(not_followed(plan, column, &policy)),
                }
            }
            let of = users::of_subjects(context, plan, column).await?;
            (users_of, records_of) = (of.changed, Some(of.plain));
        }
        if let Some(PersonColumn::Records(column)) = persons {
            // A number of a record need tell nobody of whom it is.
            let of = users::of_subjects(context, plan, column).await?;
            (users_of, records_of) = (of.changed, Some(of.plain));
            users_of.retain(|ids| ids.by.is_some());
        }
        let by_channel = asked.iter().any(|model| model.manifest.channel.is_some());
        let settings = context.settings();
        let (purpose, channel) = (settings.purpose.clone(), settings.channel.clone());
        Ok(Self { purpose, channel, used, of_users, users_of, records_of, of_models, by_channel })
    }

    /// The purpose, where rows were chosen by it.
    pub(crate) fn purpose(&self) -> Option<String> {
        self.purpose.clone().filter(|_| self.used.is_any() || !self.of_models.is_empty())
    }

    /// The channel, where rows were chosen by what is said of it.
    pub(crate) fn channel(&self) -> Option<String> {
        self.channel.clone().filter(|_| self.used.is_by_channel() || self.by_channel)
    }

    /// The policies by which the rows were chosen, and those of the models that were asked: what
    /// these have learned is as old as the consents that they were trained under.
    pub(crate) fn consents(&self) -> Vec<StoredConsent> {
        let mut versions = self.used.versions();
        versions.extend(self.of_models.iter().map(|of| (of.policy.clone(), of.version.clone())));
        let stored = versions.into_iter().map(|(policy, version)| {
            let ways = self.of_users.get(&policy);
            StoredConsent {
                of_users: ways.is_some(),
                ways: ways.filter(|ways| !is_unchanged(ways)).cloned().unwrap_or_default(),
                policy,
                version,
            }
        });
        stored.collect()
    }

    /// Whose ids the users, or the records, are, of subjects, where they are not ids of records as
    /// they are.
    pub(crate) fn users_of(&self) -> &BTreeSet<CopiedKey> {
        &self.users_of
    }

    /// The same where they are ids of records as they are; none where there are neither.
    pub(crate) fn records_of(&self) -> Option<&BTreeSet<CopiedKey>> {
        self.records_of.as_ref()
    }
}

/// Whether ids are what they were, by whichever way they came.
fn is_unchanged(ways: &Ways) -> bool {
    ways.iter().all(Vec::is_empty)
}

/// The refusal of classes that are persons: they would be in what the model says of anybody.
fn of_persons(plan: &LogicalPlan, column: usize, policy: &ConsentPolicy) -> Error {
    let fields = plan.schema().fields();
    let label = fields.get(column).map(|field| field.name().as_str()).unwrap_or_default();
    Error::invalid_hint(
        format!(
            "the label {label} tells persons of {} apart, who are under the consent policy {}: \
             the model would name them in what it says of other rows",
            policy.table, policy.name
        ),
        "take a label that many persons share",
    )
}

fn not_followed(plan: &LogicalPlan, column: usize, policy: &ConsentPolicy) -> Error {
    let fields = plan.schema().fields();
    let user = fields.get(column).map(|field| field.name().as_str()).unwrap_or_default();
    Error::invalid_hint(
        format!(
            "the users in column {user} are made of rows under the consent policy {} on {} in a \
             way that cannot be done again with the ids in its column {}: no withdrawal would be \
             followed",
            policy.name, policy.table, policy.subject
        ),
        format!(
            "train with {} as it is, or under functions such as lower and pseudonymize; a mask of \
             it has to be of that kind too, or not to bind who trains; or aggregate rows by what \
             is no person",
            policy.subject
        ),
    )
}

/// Who consents to a purpose by a policy, for a channel where the policy lists it, by the ids that
/// a model's users have.
pub(super) async fn current_users(
    engine: &Engine,
    policy: &Arc<ConsentPolicy>,
    purpose: &str,
    channel: Option<&str>,
    trained: &StoredConsent,
) -> Result<Arc<Held>> {
    let channel = channel.filter(|channel| policy.channels.contains(*channel));
    if trained.ways.is_empty() {
        return current(engine, policy, purpose, channel).await;
    }
    let others = OtherIds::new(engine, &trained.ways).await?;
    current_by(engine, policy, purpose, channel, Some(&others)).await
}

/// The context in which a model's query is planned: that of the purpose which its options name,
/// and of the channel beside it; without one, of every channel.
///
/// # Errors
/// When the purpose is not held, or a channel stands without a purpose.
pub(crate) fn training_context(
    context: &Arc<StatementContext>,
    options: &TrainingOptions,
) -> Result<Arc<StatementContext>> {
    let given = |option: &str| options.given.get(option).and_then(Json::as_str);
    match (given(OPTION), given(CHANNEL)) {
        (Some(purpose), channel) => context.serving(purpose, channel),
        (None, None) => Ok(Arc::clone(context)),
        (None, Some(channel)) => Err(Error::invalid_hint(
            format!("the option channel ('{channel}') stands without a purpose"),
            "write OPTIONS (purpose = '…', channel = '…')",
        )),
    }
}

/// Puts the purpose and channel into the options of a model that is governed by them: retrained by
/// whomever, it is for them.
pub(crate) fn remember(options: &mut TrainingOptions, trained: &TrainedFor) {
    if let Some(purpose) = trained.purpose() {
        options.given.entry(OPTION.into()).or_insert(Json::String(purpose));
    }
    if let Some(channel) = trained.channel() {
        options.given.entry(CHANNEL.into()).or_insert(Json::String(channel));
    }
}

/// A model that a statement asks, with who consents now and who may be seen.
///
/// # Errors
/// When a policy that binds the principal is newer than the model; when it was trained for another
/// purpose or channel than the statement's, for one that is not held or not a policy's any more, or
/// when who consents, or may be seen, cannot be checked.
pub(crate) async fn asked(
    context: &Arc<StatementContext>,
    mut model: LoadedModel,
) -> Result<LoadedModel> {
    let manifest = Arc::clone(&model.manifest);
    since::check_model(context, &model).await?;
    context.opening().note_asked(&model);
    if let Some(hidden) = hidden::of_model(context.engine(), &model).await? {
        model.consents.push(Arc::clone(&hidden.others));
        model.hidden_of.clone_from(&hidden.subjects);
    }
    if manifest.consents.is_empty() {
        return Ok(model);
    }
    let (rights, stated) = (context.rights(), context.settings().purpose.as_deref());
    let purposes = rights.purposes();
    purposes.check_known()?;
    let purpose = manifest.purpose.as_deref().unwrap_or_default();
    if stated != Some(purpose) || !purposes.holds(purpose) {
        return Err(Error::Denied {
            principal: rights.name().to_owned(),
            action: format!(
                "ask {model}, which learned for the purpose {purpose}, for another one"
            ),
            hint: Some(format!("SET purpose = '{purpose}'; {}", purposes.listed())),
        });
    }
    if let Some(channel) = manifest.channel.as_deref()
        && context.settings().channel.as_deref() != Some(channel)
    {
        return Err(Error::Denied {
            principal: rights.name().to_owned(),
            action: format!(
                "ask {model}, which learned for the channel {channel}, for another one"
            ),
            hint: Some(format!("SET channel = '{channel}'")),
        });
    }
    for consent in &manifest.consents {
        if let Some(policy) = policy_of(context, consent, purpose)?
            && consent.of_users
        {
            let channel = channel_of(context, &policy)?;
            if channel.is_some() {
                context.opening().used().note_channel();
            }
            let engine = context.engine();
            let held = current_users(engine, &policy, purpose, channel.as_deref(), consent).await?;
            context.opening().used().note(&policy.name, held.version());
            let applied = format!("consent policy {} on {}", policy.name, policy.table);
            context.used().policies.insert(applied);
            model.consents.push(Arc::clone(held.set()));
            model.screened_by.push(policy.name.clone());
        }
    }
    context.opening().used().note_model();
    Ok(model)
}

/// The policy that a model remembers, as it is now; `None` when it was dropped.
fn policy_of(
    context: &StatementContext,
    consent: &StoredConsent,
    purpose: &str,
) -> Result<Option<Arc<ConsentPolicy>>> {
    let mut all = context.rights().purposes().policies();
    let found = all.find(|policy| policy.name == consent.policy);
    match found {
        Some(policy) if !policy.purposes.contains(purpose) => Err(Error::Denied {
            principal: context.rights().name().to_owned(),
            action: format!(
                "ask a model for the purpose {purpose}, which the policy {} does not name any more",
                policy.name
            ),
            hint: Some("RETRAIN it for a purpose that is named".into()),
        }),
        found => Ok(found.map(Arc::clone)),
    }
}

/// The rows of a plan whose user in the first column consents.
///
/// # Errors
/// When DataFusion refuses the condition.
pub(crate) fn of_consenting(model: &LoadedModel, plan: LogicalPlan) -> Result<LogicalPlan> {
    if model.consents.is_empty() {
        return Ok(plan);
    }
    let user = Expr::from(plan.schema().qualified_field(0));
    let condition = consents(model).call(vec![user]);
    Ok(LogicalPlanBuilder::from(plan).filter(condition)?.build()?)
}

/// The rows of a model's weights that are not of users who do not consent: those whose `input` is
/// the model's column of users have the user in `feature`.
///
/// # Errors
/// When DataFusion refuses the condition.
pub(crate) fn weights_of_consenting(
    model: &LoadedModel,
    plan: LogicalPlan,
    [input, feature]: [&str; 2],
) -> Result<LogicalPlan> {
    use datafusion::logical_expr::lit;
    let place = |name: &str| plan.schema().fields().iter().position(|field| field.name() == name);
    let (Some(input), Some(feature)) = (place(input), place(feature)) else { return Ok(plan) };
    if model.consents.is_empty() {
        return Ok(plan);
    }
    let column = |at: usize| Expr::from(plan.schema().qualified_field(at));
    let of_others = column(input).not_eq(lit(model.manifest.user_col.as_str()));
    let condition = of_others.or(consents(model).call(vec![column(feature)]));
    Ok(LogicalPlanBuilder::from(plan).filter(condition)?.build()?)
}

/// The rows of a table of a model of entities that are not of records whom nobody may see.
///
/// # Errors
/// When DataFusion refuses the condition.
pub(crate) fn of_shown_records(model: &LoadedModel, plan: LogicalPlan) -> Result<LogicalPlan> {
    if model.consents.is_empty() {
        return Ok(plan);
    }
    let fields = plan.schema().fields().iter().enumerate();
    let of_records = fields.filter(|(_, field)| RECORDS.contains(&field.name().as_str()));
    let shown = of_records.map(|(at, _)| {
        let record = Expr::from(plan.schema().qualified_field(at));
        consents(model).call(vec![record])
    });
    match conjunction(shown) {
        Some(shown) => Ok(LogicalPlanBuilder::from(plan).filter(shown)?.build()?),
        None => Ok(plan),
    }
}

fn consents(model: &LoadedModel) -> ScalarUDF {
    // Sets of one statement are told apart by where they are.
    let places: Vec<String> =
        model.consents.iter().map(|set| format!("{:p}", Arc::as_ptr(set))).collect();
    let label = format!("{model} {}", places.join(" "));
    ScalarUDF::new_from_impl(Consents::new(label, model.consents.clone()))
}

/// For what a model was trained, and how many of its users consent no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) purpose: String,
    /// The consents by which its rows were chosen.
    pub(crate) version: String,
    /// Users of the default version who do not consent now; `None` where it is not known whether
    /// the users are a policy's persons, or not for who asks.
    pub(crate) withdrawn: Option<i64>,
}

/// How the models that were trained for a purpose stand. Counts are for those who own a model and
/// for those who keep policies.
///
/// # Errors
/// When the warehouse cannot be reached.
pub(crate) async fn standings(
    context: &Arc<StatementContext>,
    models: &[ModelInfo],
) -> Result<BTreeMap<ObjectName, Standing>> {
    let mut found = BTreeMap::new();
    let governed = models.iter().filter(|model| model.options.contains_key(OPTION));
    for model in governed.filter(|_| !context.opening().is_for_columns()) {
        let read = context.engine().catalog().model_manifest(&model.name, None).await;
        // A version that cannot be read says nothing, and stands in nobody's way.
        let Ok((_, manifest)) = read else { continue };
        let Some(purpose) = manifest.purpose.clone() else { continue };
        let versions: Vec<String> = manifest
            .consents
            .iter()
            .map(|consent| format!("{}: {}", consent.policy, consent.version))
            .collect();
        let rights = context.rights();
        let counts = rights.has(Role::PolicyAdmin)
            || rights.sees_definition(&model.name, Some(&model.owner));
        let withdrawn = match counts {
            true => withdrawn(context, model, &manifest, &purpose).await,
            false => None,
        };
        let standing = Standing { purpose, version: versions.join("; "), withdrawn };
        found.insert(model.name.clone(), standing);
    }
    Ok(found)
}

/// How many of a model's users do not consent now; `None` where that cannot be told.
async fn withdrawn(
    context: &Arc<StatementContext>,
    model: &ModelInfo,
    manifest: &Manifest,
    purpose: &str,
) -> Option<i64> {
    let mut sets: Vec<Arc<ConsentSet>> = Vec::new();
    for consent in manifest.consents.iter().filter(|consent| consent.of_users) {
        let mut policies = context.rights().purposes().policies();
        let Some(policy) = policies.find(|policy| policy.name == consent.policy) else { continue };
        let channel = manifest.channel.as_deref();
        let held = current_users(context.engine(), policy, purpose, channel, consent).await;
        sets.push(Arc::clone(held.ok()?.set()));
    }
    if sets.is_empty() {
        return None;
    }
    let loaded = context.engine().catalog().load_model(&model.name, None).await;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            if error.class() != Class::NotFound {
                tracing::warn!(model = %model.name, %error, "not looked for people who withdrew");
            }
            return None;
        }
    };
    let users = loaded.model.recommender()?.user_ids().values();
    let consenting = consenting(&sets, &users).ok()?;
    i64::try_from(consenting.len() - consenting.true_count()).ok()
}
