//! `ML.X(MODEL m, …)` and its twins `ml_x('m', …)` in FROM: planned here, over bound models.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use catalog::models::LoadedModel;
use datafusion::common::{ScalarValue, UnnestOptions};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, lit};
use sqlparser::ast::{FunctionArg, TableAlias, TableFactor};
use udfs::model::Model;

use crate::consent;
use crate::error::{Error, Result};
use crate::model::answers::{Answers, RECORDS};
use crate::model::arguments::{Arguments, First, known_options, literal, shown};
use crate::model::evaluate::{EvaluateNode, EvaluateOptions, stored_evaluation};
use crate::model::history::{self, TrainingRows};
use crate::model::items::ItemQuery;
use crate::model::measure::Previous;
use crate::model::recommend::{RecommendNode, Sides};
use crate::model::recommend_options::RecommendOptions;
use crate::model::{entities, features, new_items, recommender, tables, weights};
use crate::parse::name_parts;
use crate::session::bindings::{Bindings, ItemPlans, literal_text};

const FUNCTIONS: [&str; 16] = [
    "ml_recommend",
    "als_recommend",
    "ml_predict",
    "ml_explain",
    "ml_evaluate",
    "ml_weights",
    "ml_training_info",
    "ml_trial_info",
    "ml_centroids",
    "ml_principal_components",
    "ml_principal_component_info",
    "ml_feature_importance",
    "ml_blocking_rules",
    "ml_entity_history",
    "ml_unlinkable_records",
    "resolve_entities",
];

/// The column of lists that ML.EXPLAIN unfolds.
const REASONS: &str = "reasons";

/// Which argument of a table function names a model.
pub fn model_argument(function: &str) -> Option<usize> {
    FUNCTIONS.contains(&function).then_some(0)
}

/// Plans the model functions of one statement.
#[derive(Debug)]
pub struct ModelRelations {
    models: Arc<BTreeMap<String, LoadedModel>>,
    items: Arc<ItemPlans>,
    histories: Arc<BTreeMap<String, TrainingRows>>,
    previous: Arc<BTreeMap<String, Previous>>,
}

impl ModelRelations {
    /// A planner over what the statement is bound to.
    pub fn new(bindings: &Bindings) -> Self {
        Self {
            models: Arc::clone(&bindings.loaded),
            items: Arc::clone(&bindings.items),
            histories: Arc::clone(&bindings.histories),
            previous: Arc::clone(&bindings.previous),
        }
    }

    fn plan(
        &self,
        function: &str,
        arguments: Vec<FunctionArg>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let Some(name) = arguments.first().and_then(literal_text) else {
            return Err(Error::invalid_hint(
                format!("the first argument of {function} is a model"),
                "write MODEL name in ML.X, or 'name' in ml_x",
            ));
        };
        let Some(model) = self.models.get(&name) else {
            return Err(Error::Internal(format!("model {name} was not bound")));
        };
        let query = ItemQuery::of(&arguments);
        let folds_in = history::is_asked(&arguments);
        let folds_items = history::asks_for_items(&arguments);
        let arguments = Arguments::read(function, arguments.into_iter().skip(1), context)?;
        match function {
            "ml_recommend" | "als_recommend" => {
                if function == "als_recommend" && model.model.als().is_none() {
                    let type_name = model.model.type_name();
                    return Err(Error::invalid_hint(
                        format!(
                            "als_recommend asks a matrix factorization, and {model} is of type \
                                 '{type_name}'"
                        ),
                        format!("use ml_recommend('{}', …)", model.name),
                    ));
                }
                let asked = query.unwrap_or_default();
                let items = self.items.get(&(name.clone(), asked.clone())).cloned();
                let history = self.histories.get(&name).filter(|_| folds_in);
                let mut sides = Sides { items, asked, ..Sides::default() };
                if folds_items {
                    new_items::check(model)?;
                    sides.new_items = history.map(TrainingRows::of_all);
                }
                recommend(model, arguments, sides, history)
            }
            "ml_predict" => predict(model, arguments),
            "ml_explain" => explain(model, arguments),
            "ml_evaluate" => evaluate(model, self.previous.get(&name), arguments),
            "ml_weights" => {
                arguments.none(function)?;
                let weights = weights::weights(model)?;
                let weights = match model.model.as_ref() {
                    Model::Als(_) => Answers::over(model, &weights::OF_USERS[1..], weights),
                    Model::Outlier(_) if features::tables::has_quantiles(model) => {
                        Answers::showing(model, &["feature"], weights)
                    }
                    _ => Answers::over(model, &[], weights),
                };
                let weights = scan(function, weights)?;
                consent::models::weights_of_consenting(model, weights, weights::OF_USERS)
            }
            "ml_trial_info" => {
                arguments.none(function)?;
                scan(function, tables::trial_info(model)?)
            }
            "ml_centroids" => {
                arguments.none(function)?;
                let centroids = features::tables::centroids(model)?;
                let apart = ["centroid_id", "numerical_value", "categorical_value"];
                scan(function, Answers::showing(model, &apart, centroids))
            }
            "ml_principal_components" => {
                arguments.none(function)?;
                let components = features::tables::principal_components(model)?;
                match features::tables::has_categories(model) {
                    true => {
                        let apart = ["categorical_value"];
                        scan(function, Answers::showing(model, &apart, components))
                    }
                    false => scan(function, components),
                }
            }
            "ml_principal_component_info" => {
                arguments.none(function)?;
                scan(function, features::tables::principal_component_info(model)?)
            }
            "ml_feature_importance" => {
                arguments.none(function)?;
                scan(function, features::tables::feature_importance(model)?)
            }
            "ml_blocking_rules" => {
                arguments.none(function)?;
                scan(function, entities::tables::blocking_rules(model)?)
            }
            "ml_entity_history" => {
                arguments.none(function)?;
                scan(function, entities::tables::history(model)?)
            }
            "ml_unlinkable_records" => {
                arguments.none(function)?;
                let records = entities::tables::unlinkable(model)?;
                let records = scan(function, Answers::over(model, &RECORDS, records))?;
                consent::models::of_shown_records(model, records)
            }
            "resolve_entities" => crosswalk(model, arguments),
            _ => {
                arguments.none(function)?;
                scan(function, tables::training_info(model)?)
            }
        }
    }
}

impl RelationPlanner for ModelRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let name = match &relation {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                name_parts(name).join("_")
            }
            // DataFusion's planner would read the newest version without a word.
            TableFactor::Table { version: Some(version), .. }
                if crate::session::bindings::version_number(version).is_none() =>
            {
                let what = format!("{version} is not supported");
                return Err(Error::unsupported(what, "write VERSION AS OF 3").into());
            }
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        if !FUNCTIONS.contains(&name.as_str()) {
            let is_models = name.starts_with("ml_") || name.starts_with("als_");
            if is_models && context.context_provider().get_function_meta(&name).is_some() {
                return Err(Error::invalid_hint(
                    format!("{name} gives a value for each row: it is no table"),
                    format!("call it in SELECT: SELECT {name}('model', …) FROM …"),
                )
                .into());
            }
            if name.starts_with("ml_") {
                return Err(Error::unknown("function", &name, FUNCTIONS).into());
            }
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let (arguments, alias): (Vec<FunctionArg>, Option<TableAlias>) = match relation {
            TableFactor::Table { args: Some(arguments), alias, .. } => (arguments.args, alias),
            TableFactor::Function { args, alias, .. } => (args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let plan = self.plan(&name, arguments, context).map_err(DataFusionError::from)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn scan(name: &str, table: Arc<dyn datafusion::catalog::TableProvider>) -> Result<LogicalPlan> {
    Ok(LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.build()?)
}

/// A plan of the user, and the user.
fn one_user(model: &LoadedModel, user: Expr) -> Result<(LogicalPlan, Expr)> {
    if matches!(&user, Expr::Literal(value, _) if value.is_null()) {
        return Err(Error::invalid_hint("the user is NULL", "give a user's id"));
    }
    let user = typed(user, recommender(model)?.user_ids().data_type());
    let column = model.manifest.user_col.as_str();
    let plan = LogicalPlanBuilder::empty(true).project(vec![user.clone().alias(column)])?;
    Ok((plan.build()?, user))
}

/// A parameter takes the type of the model's ids, so that clients can bind their own.
fn typed(id: Expr, data_type: &DataType) -> Expr {
    match id {
        Expr::Placeholder(mut placeholder) => {
            let field = Field::new(&placeholder.id, data_type.clone(), true);
            placeholder.field = Some(Arc::new(field));
            Expr::Placeholder(placeholder)
        }
        other => other,
    }
}

/// The user column of a query, under the model's name for it.
fn users_of(model: &LoadedModel, plan: LogicalPlan) -> Result<LogicalPlan> {
    column_of(&model.manifest.user_col, plan)
}

/// The column of that name, or the only one under that name.
fn column_of(name: &str, plan: LogicalPlan) -> Result<LogicalPlan> {
    let found = match plan.schema().fields().len() {
        1 => Expr::from(plan.schema().qualified_field(0)),
        _ => column(&plan, name)?,
    };
    Ok(LogicalPlanBuilder::from(plan).project(vec![found.alias(name)])?.build()?)
}

fn recommend(
    model: &LoadedModel,
    mut arguments: Arguments,
    mut sides: Sides,
    history: Option<&TrainingRows>,
) -> Result<LogicalPlan> {
    let input = match arguments.first.take() {
        Some(First::Rows(plan)) => {
            let users = users_of(model, *plan)?;
            sides.history = history.map(|rows| rows.of_users(&users)).transpose()?;
            users
        }
        Some(First::Value(user)) => {
            let (users, user) = one_user(model, user)?;
            sides.history = history.map(|rows| rows.of_user(user)).transpose()?;
            users
        }
        None => {
            let user_col = model.manifest.user_col.as_str();
            let users = Answers::over(model, &[user_col], tables::users(model)?);
            let users = users_of(model, scan("users", users)?)?;
            sides.history = history.map(|rows| rows.of_users(&users)).transpose()?;
            users
        }
    };
    sides.reading = history.map(|rows| rows.reading.clone());
    let mut items = |name: &str| match arguments.rows.remove(name) {
        Some(plan) => column_of(&model.manifest.item_col, plan).map(Some),
        None => Ok(None),
    };
    (sides.include, sides.exclude) = (items("include_items")?, items("exclude_items")?);
    sides.promote = items("promote")?;
    let options = RecommendOptions::read(&mut arguments.named, sides.promote.is_some())?;
    let input = consent::models::of_consenting(model, input)?;
    let node = RecommendNode::new(model, options, input, sides)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// `ML.EVALUATE`: on rows, or as training stored it.
fn evaluate(
    model: &LoadedModel,
    previous: Option<&Previous>,
    mut arguments: Arguments,
) -> Result<LogicalPlan> {
    let mut take = |name: &str| arguments.named.remove(name);
    let (top_k, segment_col, threshold) = (take("top_k"), take("segment_col"), take("threshold"));
    known_options(&arguments.named, &["top_k", "segment_col", "threshold"])?;
    let of_entities = model.model.entities().is_some();
    let has_lists = model.model.preparation().is_none() && !of_entities;
    if !has_lists && (top_k.is_some() || segment_col.is_some()) {
        return Err(Error::invalid_hint(
            format!(
                "{model} is of type '{}', which has neither lists nor segments of users",
                model.model.type_name()
            ),
            "leave top_k and segment_col out",
        ));
    }
    if !of_entities && threshold.is_some() {
        return Err(Error::invalid_hint(
            format!(
                "{model} is of type '{}', whose ML.EVALUATE has no threshold",
                model.model.type_name()
            ),
            "leave threshold out",
        ));
    }
    let are_given = top_k.is_some() || segment_col.is_some() || threshold.is_some();
    match arguments.first.take() {
        None if !are_given => scan("evaluation", stored_evaluation(model, previous)?),
        None if of_entities => Err(Error::invalid_hint(
            "threshold needs rows to evaluate on",
            "write ML.EVALUATE(MODEL m, (SELECT record_id, … AS truth FROM …), \
             STRUCT(0.9 AS threshold))",
        )),
        None => Err(Error::invalid_hint(
            "top_k and segment_col need rows to evaluate on",
            "write ML.EVALUATE(MODEL m, (SELECT …), STRUCT(10 AS top_k))",
        )),
        Some(First::Value(_)) => Err(Error::invalid_hint(
            "the second argument of ml_evaluate is a query",
            match of_entities {
                true => "write (SELECT record_id, … AS truth FROM …)",
                false => "write (SELECT user, item, rating FROM …)",
            },
        )),
        Some(First::Rows(plan)) => {
            let threshold = threshold.as_ref().map(probability).transpose()?;
            let options = EvaluateOptions { top_k, segment_col, threshold };
            let node = EvaluateNode::new(model, previous, options, *plan)?;
            Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
        }
    }
}

/// `ML.EXPLAIN`: a row for each part of a pair's score.
fn explain(model: &LoadedModel, mut arguments: Arguments) -> Result<LogicalPlan> {
    let manifest = &model.manifest;
    let (user_col, item_col) = (manifest.user_col.as_str(), manifest.item_col.as_str());
    let pairs = match (arguments.first.take(), arguments.named.remove("top_k")) {
        (Some(First::Rows(plan)), None) => {
            let pair = [column(&plan, user_col)?, column(&plan, item_col)?];
            LogicalPlanBuilder::from(*plan).project(pair)?.build()?
        }
        // The second value of a call is its item here.
        (Some(First::Value(user)), Some(item)) => {
            let ids = recommender(model)?;
            let user = typed(user, ids.user_ids().data_type());
            let item = typed(item, ids.item_ids().data_type());
            let pair = [user.alias(user_col), item.alias(item_col)];
            LogicalPlanBuilder::empty(true).project(pair)?.build()?
        }
        _ => {
            return Err(Error::invalid_hint(
                "ml_explain needs a user and an item, or rows of them",
                "write ML.EXPLAIN(MODEL m, 'user', 'item') or \
                 ML.EXPLAIN(MODEL m, (SELECT user, item FROM …))",
            ));
        }
    };
    known_options(&arguments.named, &[])?;
    let (user, item) = (column(&pairs, user_col)?, column(&pairs, item_col)?);
    let reasons = crate::model::pair_function("ml_reasons", model)?;
    let bound = lit(ScalarValue::Utf8(Some(crate::model::BOUND_NAME.into())));
    let reasons = reasons.call(vec![bound, user.clone(), item.clone()]).alias(REASONS);
    let unfolded = LogicalPlanBuilder::from(pairs)
        .project([user, item, reasons])?
        .unnest_column_with_options(REASONS, UnnestOptions::new().with_preserve_nulls(false))?
        .build()?;
    let of = column(&unfolded, REASONS)?;
    let mut columns = vec![column(&unfolded, user_col)?, column(&unfolded, item_col)?];
    for name in ["term", "because_item", "weight", "contribution", "share"] {
        columns.push(get_field(of.clone(), name).alias(name));
    }
    Ok(LogicalPlanBuilder::from(unfolded).project(columns)?.build()?)
}

/// The column of a plan by its name.
fn column(plan: &LogicalPlan, name: &str) -> Result<Expr> {
    let fields = plan.schema().fields();
    match fields.iter().position(|field| field.name() == name) {
        Some(index) => Ok(Expr::from(plan.schema().qualified_field(index))),
        None => {
            let known = fields.iter().map(|field| field.name().as_str());
            Err(Error::unknown("column", name, known))
        }
    }
}

/// `ML.PREDICT`: the query's rows with their score.
fn predict(model: &LoadedModel, mut arguments: Arguments) -> Result<LogicalPlan> {
    known_options(&arguments.named, &[])?;
    if model.model.entities().is_some() {
        if arguments.first.is_some() {
            return Err(Error::invalid_hint(
                format!("{model} is of type 'entity_resolution', which has pairs of its own"),
                "write ML.PREDICT(MODEL m), and select from its rows; RETRAIN adds records",
            ));
        }
        let pairs = Answers::over(model, &RECORDS, entities::tables::pairs(model)?);
        let pairs = scan("pairs", pairs)?;
        return consent::models::of_shown_records(model, pairs);
    }
    let Some(First::Rows(plan)) = arguments.first.take() else {
        return Err(Error::invalid_hint(
            "ml_predict needs rows to predict",
            "write ML.PREDICT(MODEL m, (SELECT … FROM …))",
        ));
    };
    if model.model.preparation().is_some() {
        return features::predict::plan(model, *plan);
    }
    let manifest = &model.manifest;
    let score = crate::model::pair_function("ml_score", model)?;
    let arguments = vec![
        lit(ScalarValue::Utf8(Some(crate::model::BOUND_NAME.into()))),
        column(&plan, &manifest.user_col)?,
        column(&plan, &manifest.item_col)?,
    ];
    let label = manifest.rating_col.as_deref().unwrap_or("rating");
    let predicted = score.call(arguments).alias(format!("predicted_{label}"));
    let mut columns: Vec<Expr> = plan.schema().iter().map(Expr::from).collect();
    columns.push(predicted);
    Ok(LogicalPlanBuilder::from(*plan).project(columns)?.build()?)
}

/// `resolve_entities`: the model's own threshold, or another.
fn crosswalk(model: &LoadedModel, mut arguments: Arguments) -> Result<LogicalPlan> {
    let named = arguments.named.remove("threshold");
    known_options(&arguments.named, &["threshold"])?;
    let given = match (arguments.first.take(), named) {
        (Some(First::Value(value)), None) | (None, Some(value)) => Some(value),
        (None, None) => None,
        _ => {
            return Err(Error::invalid_hint(
                "resolve_entities takes a model and a probability",
                "write resolve_entities('m', 0.95)",
            ));
        }
    };
    let threshold = given.as_ref().map(probability).transpose()?;
    let records = entities::tables::crosswalk(model, threshold)?;
    let records = scan("entities", Answers::over(model, &RECORDS, records))?;
    consent::models::of_shown_records(model, records)
}

/// A literal probability from which records are one entity.
fn probability(value: &Expr) -> Result<f64> {
    let number = literal(value).and_then(|value| value.cast_to(&DataType::Float64).ok());
    match number {
        Some(ScalarValue::Float64(Some(number))) => {
            entities::options::check_probability("threshold", number)
        }
        _ => Err(Error::invalid_hint(
            format!("threshold is {}", shown(value)),
            "it takes a probability above 0 and below 1; 0.95 is usual",
        )),
    }
}
