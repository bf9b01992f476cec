//! Models: CREATE MODEL, RETRAIN, DROP, ALTER, DESCRIBE, and the functions that ask them.

pub(crate) mod answers;
pub(crate) mod arguments;
pub mod create;
mod created;
mod entities;
pub mod evaluate;
mod features;
mod fit;
pub mod function_docs;
pub(crate) mod hidden;
pub mod history;
mod hybrid;
mod idle;
pub mod items;
mod learners;
pub(crate) mod leavers;
mod lifecycle;
pub(crate) mod marked;
pub mod measure;
mod new_items;
pub(crate) mod node;
pub mod options;
mod ranking;
mod reader;
pub mod recommend;
mod recommend_options;
mod rows;
pub mod schedule;
mod side;
mod signals;
mod splitting;
pub mod table_functions;
mod tables;
mod train;
mod trials;
mod tuning;
mod versions;
mod weights;

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::models::LoadedModel;
use catalog::{Kind, Object, ObjectName, Spec};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use serde_json::Value as Json;
use sqlparser::ast::Expr;
use udfs::model::Recommender;
use udfs::recommend::{BoundModel, ModelSet};

use crate::error::{Error, Result};
use crate::model::options::TrainingOptions;
use crate::rights::Rights;
use crate::session::StatementContext;
use crate::session::bindings::parse_model_name;
use crate::session::run::{Done, Run};

/// The name under which a planned expression finds the model it was bound to.
pub(crate) const BOUND_NAME: &str = "model";

/// A change of models.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// DROP MODEL.
    Drop { name: ObjectName, if_exists: bool },
    /// ALTER MODEL … SET DEFAULT_VERSION.
    SetDefault { name: ObjectName, version: u32 },
    /// ALTER MODEL … SET (…): each option with its value, or none.
    SetOptions { name: ObjectName, options: BTreeMap<String, Option<Json>> },
}

impl Change {
    pub(crate) async fn drop(
        context: &Arc<StatementContext>,
        written: &str,
        if_exists: bool,
    ) -> Result<Self> {
        let name = target(context, written)?;
        context.may_change(&name).await?;
        Ok(Self::Drop { name, if_exists })
    }

    pub(crate) async fn set_default(
        context: &Arc<StatementContext>,
        written: &str,
        version: u32,
    ) -> Result<Self> {
        let name = target(context, written)?;
        context.may_change(&name).await?;
        Ok(Self::SetDefault { name, version })
    }

    pub(crate) async fn set_options(
        context: &Arc<StatementContext>,
        written: &str,
        options: &[(String, Expr)],
    ) -> Result<Self> {
        let name = target(context, written)?;
        context.may_change(&name).await?;
        let options = lifecycle::altered(options)?;
        let definition = context.engine().catalog().definition(&name).await?;
        let Some(Spec::Model(head)) = definition.map(|definition| definition.spec) else {
            return Err(context.no_model(written).await);
        };
        let mut given = head.options;
        for (name, value) in &options {
            match value {
                Some(value) => given.insert(name.clone(), value.clone()),
                None => given.remove(name),
            };
        }
        TrainingOptions::from_given(given)?;
        Ok(Self::SetOptions { name, options })
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let catalog = run.session.engine().catalog();
        match self {
            Self::Drop { name, if_exists } => {
                let dropped = catalog.drop_object(name, Kind::Model).await?;
                if !dropped && !if_exists {
                    let context = StatementContext::load(&run.session).await?;
                    return Err(context.no_model(&name.to_string()).await);
                }
                Ok(Done::new(0, format!("DROP MODEL {name}")))
            }
            Self::SetDefault { name, version } => {
                catalog.set_default_version(name, *version).await?;
                Ok(Done::new(0, format!("ALTER MODEL {name}: {name} is {name}@{version} now")))
            }
            Self::SetOptions { name, options } => {
                catalog.set_model_options(name, options).await?;
                let names: Vec<&str> = options.keys().map(String::as_str).collect();
                Ok(Done::new(0, format!("ALTER MODEL {name}: {} set", names.join(", "))))
            }
        }
    }
}

/// The model that a written name means for changing: in the session's schema when unqualified.
fn target(context: &Arc<StatementContext>, written: &str) -> Result<ObjectName> {
    context.target(&whole(written)?)
}

/// The parts of a name that means a model and not one of its versions.
fn whole(written: &str) -> Result<Vec<String>> {
    let (schema, name, version) = parse_model_name(written)?;
    if version.is_some() {
        return Err(Error::invalid_hint(
            format!("{written} names one version"),
            "name the model without @version",
        ));
    }
    Ok(schema.into_iter().chain([name]).collect())
}

/// The existing model that a written name means, along the search path.
pub(crate) async fn existing(context: &Arc<StatementContext>, written: &str) -> Result<ObjectName> {
    let parts = whole(written)?;
    let usable = |rights: &Rights, name: &ObjectName, object: &Object| {
        object.kind == Kind::Model && rights.may_use(name, object.owner.as_deref())
    };
    match context.find(&parts, usable).await? {
        Some((name, _)) => Ok(name),
        None => Err(context.no_model(written).await),
    }
}

/// DESCRIBE MODEL: its properties, one a row.
pub(crate) async fn describe(
    context: &Arc<StatementContext>,
    written: &str,
) -> Result<(SessionState, LogicalPlan)> {
    let reference = crate::session::bindings::References {
        models: [written.to_owned()].into(),
        ..Default::default()
    };
    let bindings = reference.load(context).await?;
    let Some(model) = bindings.loaded.get(written) else {
        return Err(context.no_model(written).await);
    };
    let object = context.engine().catalog().object(&model.name).await?;
    let owner = object.and_then(|object| object.owner);
    let with_query = context.rights().sees_definition(&model.name, owner.as_deref());
    let plan = tables::description(model, with_query)?;
    Ok((context.state(&bindings)?, plan))
}

/// The model as a recommender.
///
/// # Errors
/// When it recommends nothing.
pub(crate) fn recommender(model: &LoadedModel) -> Result<&dyn Recommender> {
    model.model.recommender().ok_or_else(|| {
        Error::invalid_hint(
            format!("{model} is of type {}, which recommends nothing", model.model.type_name()),
            "SHOW MODELS tells the type of each",
        )
    })
}

/// A function of a pair (`ml_score`, `ml_reasons`), bound to one model under [`BOUND_NAME`].
pub(crate) fn pair_function(name: &str, model: &LoadedModel) -> Result<Arc<ScalarUDF>> {
    let bound = BoundModel::new(model.name.to_string(), model.version, Arc::clone(&model.model))
        .with_consents(model.consents.clone());
    let set = ModelSet::new(BTreeMap::from([(BOUND_NAME.to_owned(), Arc::new(bound))]));
    let functions = udfs::recommend::bound_functions(Arc::new(set));
    functions
        .into_iter()
        .find(|function| function.name() == name)
        .ok_or_else(|| Error::Internal(format!("{name} is missing")))
}

/// Starts work on the learners' threads; the caller waits without blocking its own, at once or
/// after what it does meanwhile.
pub(crate) fn learn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // A caller that went away has cancelled the work.
        let _ = sender.send(done);
    });
    async move {
        match receiver.await {
            Ok(Ok(done)) => Ok(done),
            _ => Err(Error::Internal("a learner failed unexpectedly".into())),
        }
    }
}
