//! Bindings: the models, keys, hierarchies and table versions that a statement names.
//!
//! Functions are called synchronously with Arrow and configuration only, so everything that must
//! be loaded is collected from the syntax tree, loaded once before planning, and handed to the
//! functions as values. A reference must be a literal: a column there is a planning error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use catalog::models::LoadedModel;
use catalog::{Error as CatalogError, ObjectName};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName as SqlName, TableFactor,
    TableVersion, Value, ValueWithSpan, Visit, Visitor,
};
use udfs::privacy::{Hierarchy, HierarchySet, KeySet, KeyUse};
use udfs::recommend::{BoundModel, ModelSet};

use crate::consent;
use crate::dialect::marked_model;
use crate::error::{Error, Result};
use crate::key;
use crate::key::bind::NamedKeys;
use crate::model::history::{self, TrainingRows};
use crate::model::items::ItemQuery;
use crate::model::measure::Previous;
use crate::parse::name_parts;
use crate::session::plan::StatementContext;
use crate::{policy, private};

/// What a statement names, before it is loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Models as written: `shop`, `main.shop@3`.
    pub models: BTreeSet<String>,
    /// What calls ask of the item tables of models, by the model as written.
    pub items: BTreeSet<(String, ItemQuery)>,
    /// Models whose training query is run again, by the name as written.
    pub histories: BTreeSet<String>,
    /// Models that are asked what made a score: what somebody did.
    pub explained: BTreeSet<String>,
    /// Models that are evaluated, and whether on rows of a query.
    pub evaluated: BTreeMap<String, bool>,
    /// Keys by the name as written, and what each is used for.
    pub keys: NamedKeys,
    /// Hierarchies: names of tables.
    pub hierarchies: BTreeSet<String>,
    /// Tables read at a version.
    pub versions: BTreeSet<(Vec<String>, u64)>,
    /// Whether something is decrypted, which no policy does.
    pub decrypts: bool,
    /// Functions that give tables.
    pub relations: BTreeSet<String>,
    /// Tables for whose columns tags are proposed, as written.
    pub proposals: BTreeSet<String>,
}

/// What a statement's functions are bound to.
#[derive(Debug, Default, Clone)]
pub struct Bindings {
    /// Models for scalar functions, by the name as written.
    pub models: Arc<ModelSet>,
    /// The same models for table functions.
    pub loaded: Arc<BTreeMap<String, LoadedModel>>,
    /// What calls ask of the models' item tables, planned as who asks.
    pub items: Arc<ItemPlans>,
    /// Training queries, planned as who asks, by the model as written.
    pub histories: Arc<BTreeMap<String, TrainingRows>>,
    /// The versions before those that are evaluated, by the name as written.
    pub previous: Arc<BTreeMap<String, Previous>>,
    /// Keys.
    pub keys: Arc<KeySet>,
    /// Hierarchies.
    pub hierarchies: Arc<HierarchySet>,
    /// What proposes tags, planned as who asks, by the table as written.
    pub proposals: Arc<BTreeMap<String, LogicalPlan>>,
}

/// Queries of item tables, by the model as written and what is asked.
pub type ItemPlans = BTreeMap<(String, ItemQuery), LogicalPlan>;

impl References {
    /// Collects the references of a syntax tree.
    pub fn of(tree: &impl Visit) -> Self {
        let mut collector = Collector::default();
        // The visitor never breaks.
        let _ = tree.visit(&mut collector);
        collector.found
    }

    /// Loads everything that is referenced.
    ///
    /// # Errors
    /// When a name does not exist, may not be used, or cannot be loaded.
    pub(crate) async fn load(&self, context: &Arc<StatementContext>) -> Result<Bindings> {
        let mut bound = BTreeMap::new();
        let mut loaded = BTreeMap::new();
        for written in &self.models {
            let model =
                consent::models::asked(context, load_model(context, written).await?).await?;
            if self.explained.contains(written) {
                context.may_explain(&model.name).await?;
            }
            let name = model.name.to_string();
            let value = BoundModel::new(name, model.version, Arc::clone(&model.model))
                .with_consents(model.consents.clone());
            bound.insert(written.clone(), Arc::new(value));
            loaded.insert(written.clone(), model);
        }
        let mut items = BTreeMap::new();
        for (written, query) in &self.items {
            if let Some(model) = loaded.get(written) {
                let plan = query.plan(context, model).await?;
                items.insert((written.clone(), query.clone()), plan);
            }
        }
        let mut histories = BTreeMap::new();
        for written in &self.histories {
            if let Some(model) = loaded.get(written) {
                histories.insert(written.clone(), TrainingRows::plan(context, model).await?);
            }
        }
        let mut previous = BTreeMap::new();
        for (written, on_rows) in &self.evaluated {
            if let Some(model) = loaded.get(written)
                && let Some(found) = load_previous(context, model, *on_rows).await?
            {
                previous.insert(written.clone(), found);
            }
        }
        let keys = key::bind::load(context, &self.keys).await?;
        let mut hierarchies = Vec::new();
        for name in &self.hierarchies {
            hierarchies.push(Arc::new(load_hierarchy(context, name).await?));
        }
        let mut proposals = BTreeMap::new();
        for table in &self.proposals {
            let plan = Box::pin(crate::policy::propose::plan(context, table)).await?;
            proposals.insert(table.clone(), plan);
        }
        Ok(Bindings {
            models: Arc::new(ModelSet::new(bound)),
            loaded: Arc::new(loaded),
            items: Arc::new(items),
            histories: Arc::new(histories),
            previous: Arc::new(previous),
            keys: Arc::new(keys),
            hierarchies: Arc::new(HierarchySet::new(hierarchies)),
            proposals: Arc::new(proposals),
        })
    }
}

/// `schema.name@version` taken apart; a bare name has no schema.
///
/// # Errors
/// When the text is no model name.
pub fn parse_model_name(written: &str) -> Result<(Option<String>, String, Option<u32>)> {
    let wrong = || {
        Error::invalid_hint(
            format!("'{written}' is no model name"),
            "write 'name', 'schema.name' or 'schema.name@version'",
        )
    };
    let (name, version) = match written.rsplit_once('@') {
        Some((name, version)) => (name, Some(version.parse().map_err(|_| wrong())?)),
        None => (written, None),
    };
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        [name] if !name.is_empty() => Ok((None, (*name).to_owned(), version)),
        [schema, name] if !name.is_empty() && !schema.is_empty() => {
            Ok((Some((*schema).to_owned()), (*name).to_owned(), version))
        }
        _ => Err(wrong()),
    }
}

async fn load_model(context: &Arc<StatementContext>, written: &str) -> Result<LoadedModel> {
    let (schema, name, version) = parse_model_name(written)?;
    let catalog = context.engine().catalog();
    let schemas = match schema {
        Some(schema) => vec![schema],
        None => context.search_path(),
    };
    // What the principal may not see does not exist for it.
    for schema in schemas.into_iter().filter(|schema| context.may_see(schema)) {
        let name = ObjectName::new(&schema, &name);
        if !context.may_use(&name).await? {
            continue;
        }
        match catalog.load_model(&name, version).await {
            Err(CatalogError::NotFound { kind: "model", .. }) => {}
            other => return Ok(other?),
        }
    }
    Err(context.no_model(written).await)
}

/// The version before a model's: with the model itself where it is to be measured on rows. One that
/// cannot be read any more, as of an older format, compares to nothing.
async fn load_previous(
    context: &Arc<StatementContext>,
    model: &LoadedModel,
    on_rows: bool,
) -> Result<Option<Previous>> {
    let catalog = context.engine().catalog();
    let Some(version) = catalog.version_before(&model.name, model.version).await? else {
        return Ok(None);
    };
    let found = async {
        if on_rows {
            let model = catalog.load_model(&model.name, Some(version)).await?;
            return Ok(Previous { metrics: vec![], model: Some(model) });
        }
        let (_, manifest) = catalog.model_manifest(&model.name, Some(version)).await?;
        Ok(Previous { metrics: manifest.metrics.clone(), model: None })
    };
    match found.await {
        Err(CatalogError::Corrupt { .. } | CatalogError::NotFound { .. }) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// A hierarchy is a table: its columns are the levels, from the value to its most general form.
async fn load_hierarchy(context: &Arc<StatementContext>, written: &str) -> Result<Hierarchy> {
    /// More distinct values than this are no hierarchy.
    const ROWS_MAX: usize = 1_000_000;
    let quoted: Vec<String> =
        written.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    let query = crate::parse::parse_query(&format!("SELECT * FROM {}", quoted.join(".")))?;
    let (state, plan) = Box::pin(context.plan_query(query)).await?;
    // It is read here and now: what is looked at where a view stands would come too late.
    private::check(&plan)?;
    private::checked(&state, &plan)?;
    let plan = policy::checked(&state, plan)?;
    let frame = SessionContext::new_with_state(state)
        .execute_logical_plan(plan)
        .await?
        .limit(0, Some(ROWS_MAX + 1))?;
    let batches = frame.collect().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8))
            .collect::<std::result::Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let texts = columns.iter().map(|column| {
                use arrow::array::AsArray;
                let text = column.as_string::<i32>();
                if arrow::array::Array::is_null(text, row) {
                    String::new()
                } else {
                    text.value(row).to_owned()
                }
            });
            rows.push(texts.collect::<Vec<_>>());
        }
    }
    if rows.len() > ROWS_MAX {
        return Err(Error::invalid(format!("hierarchy {written} has more than {ROWS_MAX} rows")));
    }
    Ok(Hierarchy::from_rows(written, rows)?)
}

#[derive(Default)]
struct Collector {
    found: References,
}

impl Collector {
    fn call(&mut self, name: &SqlName, arguments: &[FunctionArg]) {
        let function = name_parts(name).join("_");
        let literal = |index: usize| arguments.get(index).and_then(literal_text);
        let model = udfs::recommend::model_argument(&function)
            .or_else(|| crate::model::table_functions::model_argument(&function));
        if let Some(name) = model.and_then(literal) {
            if let Some(query) = ItemQuery::of(arguments) {
                self.found.items.insert((name.clone(), query));
            }
            if history::is_asked(arguments) {
                self.found.histories.insert(name.clone());
            }
            if function == "ml_evaluate" {
                let on_rows = arguments.get(1).is_some_and(is_query);
                *self.found.evaluated.entry(name.clone()).or_default() |= on_rows;
            }
            if ["ml_explain", "ml_reasons"].contains(&function.as_str()) {
                self.found.explained.insert(name.clone());
            }
            self.found.models.insert(name);
        }
        if function == crate::policy::propose::NAME {
            self.found.proposals.extend(literal(0));
        }
        if let Some((position, key_use)) = udfs::privacy::key_use(&function) {
            self.found.decrypts |= key_use == KeyUse::Decrypt;
            if let Some(name) = literal(position) {
                self.found.keys.entry(name).or_default().insert(key_use);
            }
        }
        if let Some(name) = udfs::privacy::hierarchy_argument(&function).and_then(literal) {
            self.found.hierarchies.insert(name);
        }
        self.found.hierarchies.extend(crate::anonymize::hierarchy_names(&function, arguments));
    }
}

impl Visitor for Collector {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let FunctionArguments::List(list) = &function.args
        {
            self.call(&function.name, &list.args);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(arguments), .. } => {
                self.found.relations.insert(name_parts(name).join("_"));
                self.call(name, &arguments.args);
            }
            TableFactor::Function { name, args, .. } => {
                self.found.relations.insert(name_parts(name).join("_"));
                self.call(name, args);
            }
            TableFactor::Table { name, version: Some(version), .. } => {
                if let Some(number) = version_number(version) {
                    self.found.versions.insert((name_parts(name), number));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The number in `VERSION AS OF n`.
pub fn version_number(version: &TableVersion) -> Option<u64> {
    match version {
        TableVersion::VersionAsOf(Expr::Value(ValueWithSpan {
            value: Value::Number(number, _),
            ..
        })) => number.parse().ok(),
        _ => None,
    }
}

/// Whether an argument is a query in parentheses.
fn is_query(argument: &FunctionArg) -> bool {
    matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(_))))
}

/// A literal text or model reference in an argument.
pub fn literal_text(argument: &FunctionArg) -> Option<String> {
    let expr = match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => expr,
        _ => return None,
    };
    if let Some(model) = marked_model(expr) {
        return Some(model.to_owned());
    }
    let Expr::Value(ValueWithSpan { value, .. }) = expr else { return None };
    match value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
        _ => None,
    }
}

/// Registers a statement's bound functions.
///
/// # Errors
/// When DataFusion refuses a function.
pub fn register(state: &mut SessionState, bindings: &Bindings) -> Result<()> {
    use datafusion::execution::FunctionRegistry;
    let models = udfs::recommend::bound_functions(Arc::clone(&bindings.models));
    let private = udfs::privacy::bound_functions(
        Arc::clone(&bindings.keys),
        Arc::clone(&bindings.hierarchies),
    );
    for function in models.into_iter().chain(private) {
        state.register_udf(function)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement, parse};

    #[test]
    fn references_are_found_wherever_they_stand() {
        let text = "WITH c AS (SELECT pseudonymize(a, 'k1') FROM t) SELECT als_score('main.m@2', u, i) \
                    FROM c, ML.RECOMMEND(MODEL shop, (SELECT ml_score('other', u, i) FROM v)) \
                    WHERE x IN (SELECT generalize(y, 'h', 1) FROM z)";
        let Statement::DataFusion(statement) = parse(text, 1_000).unwrap() else { panic!() };
        let datafusion::sql::parser::Statement::Statement(tree) = *statement else { panic!() };
        let found = References::of(tree.as_ref());
        let models: Vec<&str> = found.models.iter().map(String::as_str).collect();
        assert_eq!(models, ["main.m@2", "other", "shop"]);
        assert!(found.keys.contains_key("k1") && found.hierarchies.contains("h"));
        assert!(found.explained.is_empty() && found.evaluated.is_empty());
    }

    #[test]
    fn model_names_are_taken_apart() {
        assert_eq!(parse_model_name("a.b@3").unwrap(), (Some("a".into()), "b".into(), Some(3)));
        for wrong in ["", "a.b.c", "a@x", ".b"] {
            assert!(parse_model_name(wrong).is_err(), "{wrong}");
        }
    }
}
