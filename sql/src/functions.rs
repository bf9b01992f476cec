//! The functions that SQL sees: DataFusion's, Attune's, and those that know the session.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::cast::as_string_array;
use datafusion::common::utils::take_function_args;
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
pub const SESSION_FUNCTIONS: [&str; 9] = [
    "current_user",
    "current_role",
    "current_purpose",
    "current_channel",
    "current_schema",
    "current_database",
    "current_catalog",
    HAS_ROLE,
    HOLDS_ROLE,
];

/// Whether a role is active. `current_role()` is the text of all active ones, which is equal to no
/// role of somebody who has two.
pub(crate) const HAS_ROLE: &str = "has_role";
/// Whether a role is held, active or not.
pub(crate) const HOLDS_ROLE: &str = "holds_role";

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
        ScalarValue::Utf8(settings.channel.clone()),
        ScalarValue::from(settings.schema.as_str()),
        ScalarValue::from(crate::engine::CATALOG),
        ScalarValue::from(crate::engine::CATALOG),
    ];
    for (name, value) in SESSION_FUNCTIONS.into_iter().zip(values) {
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(SessionValue::new(name, value))))?;
    }
    for (name, roles) in [(HAS_ROLE, rights.roles()), (HOLDS_ROLE, rights.held_roles())] {
        let among = AmongRoles::new(name, roles.clone());
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(among)))?;
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

/// Whether a role is among some of the principal's, bound while planning: a constant of a literal.
/// NULL for NULL; a role that does not exist is nobody's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AmongRoles {
    name: &'static str,
    roles: BTreeSet<String>,
    signature: Signature,
}

impl AmongRoles {
    fn new(name: &'static str, roles: BTreeSet<String>) -> Self {
        let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
        Self { name, roles, signature }
    }

    fn documentation() -> [FunctionDoc; 2] {
        let entry = |name: &str, description: &str| FunctionDoc {
            name: name.into(),
            aliases: Vec::new(),
            kind: "scalar",
            section: "Session Functions".into(),
            description: description.into(),
            syntax: format!("{name}(role)"),
            example: format!("SELECT {name}('analyst');"),
            arguments: vec![("role".into(), "The role's name, as text.".into())],
            own: true,
        };
        [
            entry(
                HAS_ROLE,
                "Whether a role is active in the session: held and, after SET ROLE, the one that \
                 was set. FALSE for a role that does not exist; a policy that names such a role is \
                 refused.",
            ),
            entry(
                HOLDS_ROLE,
                "Whether whoever asks holds a role, active or not. For conditions that keep the \
                 holders of a role out: NOT holds_role('contractor') stays FALSE for a contractor \
                 after SET ROLE. FALSE for a role that does not exist; a policy that names such a \
                 role is refused.",
            ),
        ]
    }
}

impl ScalarUDFImpl for AmongRoles {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [role] = take_function_args(self.name(), arguments.args)?;
        let has = |role: Option<&str>| role.map(|role| self.roles.contains(role));
        Ok(match role {
            ColumnarValue::Scalar(role) => {
                let role = role.try_as_str().flatten();
                ColumnarValue::Scalar(ScalarValue::Boolean(has(role)))
            }
            ColumnarValue::Array(roles) => {
                let found: BooleanArray = as_string_array(&roles)?.iter().map(has).collect();
                ColumnarValue::Array(Arc::new(found))
            }
        })
    }
}

impl Engine {
    /// The documentation of every function, Attune's own first, by name.
    pub fn functions_documentation(&self) -> Vec<FunctionDoc> {
        let own: BTreeSet<String> = udfs::scalar_functions()
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
        found.extend(AmongRoles::documentation());
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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, StringArray};
    use arrow::datatypes::Field;
    use datafusion::config::ConfigOptions;

    use super::*;

    #[test]
    fn a_role_is_active_among_others() {
        let roles = ["analyst", "marketing"].map(str::to_owned);
        let function = AmongRoles::new(HAS_ROLE, roles.into());
        let call = |role: ColumnarValue, number_rows: usize| {
            let arguments = ScalarFunctionArgs {
                args: vec![role],
                arg_fields: vec![Arc::new(Field::new("role", DataType::Utf8, true))],
                number_rows,
                return_field: Arc::new(Field::new("has", DataType::Boolean, true)),
                config_options: Arc::new(ConfigOptions::default()),
            };
            function.invoke_with_args(arguments).unwrap()
        };
        for (role, expected) in [
            (Some("analyst"), Some(true)),
            (Some("marketing"), Some(true)),
            (Some("market"), Some(false)),
            (Some("analyst, marketing"), Some(false)),
            (Some("Analyst"), Some(false)),
            (None, None),
        ] {
            let role = ScalarValue::Utf8(role.map(str::to_owned));
            match call(ColumnarValue::Scalar(role), 1) {
                ColumnarValue::Scalar(found) => assert_eq!(found, ScalarValue::Boolean(expected)),
                ColumnarValue::Array(_) => panic!("a scalar gave an array"),
            }
        }
        let roles: ArrayRef = Arc::new(StringArray::from(vec![Some("analyst"), None, Some("x")]));
        let found = call(ColumnarValue::Array(roles), 3).into_array(3).unwrap();
        let found: Vec<Option<bool>> = found.as_boolean().iter().collect();
        assert_eq!(found, [Some(true), None, Some(false)]);
    }
}
