//! The functions that SQL sees: DataFusion's, Attune's, and those that know the session.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use udfs::privacy::{HierarchySet, KeySet};
use udfs::recommend::ModelSet;

use crate::engine::Engine;
use crate::error::Result;
use crate::rights::Rights;
use crate::session::Settings;

/// A function's documentation, as the shell, the docs and `system.functions` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDoc {
    /// Its name.
    pub name: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// `scalar`, `aggregate`, `window` or `table`.
    pub kind: &'static str,
    /// The section of the documentation.
    pub section: String,
    /// What it does.
    pub description: String,
    /// How it is called.
    pub syntax: String,
    /// A statement with its answer; empty when there is none.
    pub example: String,
    /// Each argument with its meaning.
    pub arguments: Vec<(String, String)>,
    /// Whether it is Attune's own.
    pub own: bool,
}

/// The functions that know the session, which no statement shares with another.
pub const SESSION_FUNCTIONS: [&str; 6] = [
    "current_user",
    "current_role",
    "current_purpose",
    "current_schema",
    "current_database",
    "current_catalog",
];

/// Functions whose models and keys a statement binds; unbound they explain themselves only.
pub fn unbound() -> Vec<Arc<ScalarUDF>> {
    let mut functions = udfs::recommend::bound_functions(Arc::new(ModelSet::default()));
    functions.extend(udfs::privacy::bound_functions(
        Arc::new(KeySet::default()),
        Arc::new(HierarchySet::default()),
    ));
    functions
}

/// Gives a statement the functions that know who asks.
pub(crate) fn register_session(
    state: &mut SessionState,
    rights: &Rights,
    settings: &Settings,
) -> Result<()> {
    let roles: Vec<&str> = rights.roles().iter().map(String::as_str).collect();
    let values = [
        ScalarValue::from(rights.name()),
        ScalarValue::from(roles.join(", ").as_str()),
        ScalarValue::Utf8(settings.purpose.clone()),
        ScalarValue::from(settings.schema.as_str()),
        ScalarValue::from(crate::engine::CATALOG),
        ScalarValue::from(crate::engine::CATALOG),
    ];
    for (name, value) in SESSION_FUNCTIONS.into_iter().zip(values) {
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(SessionValue::new(name, value))))?;
    }
    Ok(())
}

/// A value of the session, bound while planning.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionValue {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl SessionValue {
    fn new(name: &'static str, value: ScalarValue) -> Self {
        Self { name, value, signature: Signature::nullary(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SessionValue {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

impl Engine {
    /// The documentation of every function, Attune's own first, by name.
    pub fn functions_documentation(&self) -> Vec<FunctionDoc> {
        let own: std::collections::BTreeSet<String> = udfs::scalar_functions()
            .iter()
            .chain(&unbound())
            .map(|function| function.name().to_owned())
            .chain(udfs::aggregate_functions().iter().map(|function| function.name().to_owned()))
            .chain(udfs::window_functions().iter().map(|function| function.name().to_owned()))
            .collect();
        let base = self.base();
        let mut found: Vec<FunctionDoc> = Vec::new();
        let mut add = |name: &str, aliases: &[String], kind, documentation| {
            if !found.iter().any(|known| known.name == name) {
                found.push(describe(name, aliases, kind, documentation, own.contains(name)));
            }
        };
        for function in base.scalar_functions().values() {
            add(function.name(), function.aliases(), "scalar", function.documentation());
        }
        for function in base.aggregate_functions().values() {
            add(function.name(), function.aliases(), "aggregate", function.documentation());
        }
        for function in base.window_functions().values() {
            add(function.name(), function.aliases(), "window", function.documentation());
        }
        found.extend(crate::model::function_docs::documentation());
        found.push(crate::join::documentation());
        found.extend(crate::anonymize::documentation());
        found.extend(crate::clean::documentation());
        found.push(crate::policy::propose::documentation());
        found.sort_by(|a, b| (!a.own, &a.name).cmp(&(!b.own, &b.name)));
        found
    }
}

fn describe(
    name: &str,
    aliases: &[String],
    kind: &'static str,
    documentation: Option<&Documentation>,
    own: bool,
) -> FunctionDoc {
    let mut shown = FunctionDoc {
        name: name.to_owned(),
        aliases: aliases.to_vec(),
        kind,
        section: String::new(),
        description: String::new(),
        syntax: format!("{name}(…)"),
        example: String::new(),
        arguments: Vec::new(),
        own,
    };
    if let Some(documentation) = documentation {
        shown.section = documentation.doc_section.label.to_owned();
        shown.description.clone_from(&documentation.description);
        shown.syntax.clone_from(&documentation.syntax_example);
        shown.example = documentation.sql_example.clone().unwrap_or_default();
        shown.arguments = documentation.arguments.clone().unwrap_or_default();
    }
    shown
}
