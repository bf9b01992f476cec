//! PostgreSQL's functions about its catalog and its sessions.
//!
//! Most of them tell about things that Attune does not have and answer NULL, as PostgreSQL does for
//! an unknown object; a few answer for the session. They exist in sessions that speak PostgreSQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use catalog::policy::Role;
use datafusion::catalog::TableFunctionImpl;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion_pg_catalog::pg_catalog::{array_bounds_udf, format_type, quote_ident_udf};

use super::Shared;
use super::relations::OWNER_NAME;
use super::types::PgTypes;
use crate::error::Result;
use crate::session::StatementContext;

/// What a function answers for each row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Answers {
    /// The same value, whatever the arguments are.
    Value(ScalarValue),
    /// A value of the session's parameters by name.
    Parameter(Vec<(String, String)>),
    /// The schemas of the search path; with `pg_catalog` when the argument is true.
    Schemas(Vec<String>),
    /// Whether the last argument is a right that everybody has on what it sees; of a table that it
    /// does not see, NULL.
    Privilege { admin: bool, of_table: bool },
    /// A number of bytes for people.
    Size,
    /// A text as a literal.
    QuotedLiteral,
    /// Names and values as a JSON object.
    Object,
}

/// Functions that answer the same in every session.
fn constants() -> Vec<(&'static str, ScalarValue)> {
    let no_text = ScalarValue::Utf8(None);
    let no_size = ScalarValue::Int64(None);
    let yes = ScalarValue::Boolean(Some(true));
    let no = ScalarValue::Boolean(Some(false));
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let mut made: Vec<(&'static str, ScalarValue)> = vec![
        ("version", text(concat!("PostgreSQL 16.6 (Attune ", env!("CARGO_PKG_VERSION"), ")"))),
        ("pg_get_userbyid", text(OWNER_NAME)),
        ("pg_encoding_to_char", text("UTF8")),
        ("pg_is_in_recovery", no.clone()),
        ("pg_relation_is_publishable", no),
        ("pg_relation_is_updatable", ScalarValue::Int32(Some(0))),
        ("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
        ("pg_stat_get_numscans", ScalarValue::Int64(Some(0))),
        ("pg_advisory_unlock_all", no_text.clone()),
        ("pg_partition_ancestors", ScalarValue::Int32(None)),
    ];
    for name in [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_opclass_is_visible",
        "pg_ts_config_is_visible",
    ] {
        made.push((name, yes.clone()));
    }
    for name in [
        "pg_relation_size",
        "pg_total_relation_size",
        "pg_table_size",
        "pg_indexes_size",
        "pg_database_size",
        "pg_tablespace_size",
    ] {
        made.push((name, no_size.clone()));
    }
    for name in [
        "obj_description",
        "col_description",
        "shobj_description",
        "pg_get_expr",
        "pg_get_indexdef",
        "pg_get_constraintdef",
        "pg_get_viewdef",
        "pg_get_ruledef",
        "pg_get_triggerdef",
        "pg_get_functiondef",
        "pg_get_function_arguments",
        "pg_get_function_identity_arguments",
        "pg_get_function_result",
        "pg_get_partkeydef",
        "pg_get_serial_sequence",
        "pg_get_statisticsobjdef_columns",
        "pg_tablespace_location",
        "pg_describe_object",
    ] {
        made.push((name, no_text.clone()));
    }
    made
}

/// Gives a statement of a session that speaks PostgreSQL the functions that know the session.
///
/// # Errors
/// When a function cannot be registered.
pub(crate) fn register(state: &mut SessionState, context: &StatementContext) -> Result<()> {
    let (session, settings) = (context.session(), context.settings());
    let Some(pg) = &settings.postgres else { return Ok(()) };
    let principal = session.principal();
    let admin = context.rights().has(Role::Admin);
    let name = ScalarValue::Utf8(Some(principal.name.clone()));
    let parameters = session.parameters();
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_lowercase(), value));
    let mut functions: Vec<(&'static str, Answers)> = vec![
        ("session_user", Answers::Value(name.clone())),
        ("user", Answers::Value(name)),
        ("pg_backend_pid", Answers::Value(ScalarValue::Int32(Some(pg.process_id)))),
        ("current_schemas", Answers::Schemas(settings.search_path(&principal.name))),
        ("current_setting", Answers::Parameter(parameters.collect())),
        ("pg_size_pretty", Answers::Size),
        ("quote_literal", Answers::QuotedLiteral),
        ("json_build_object", Answers::Object),
    ];
    for name in [
        "has_table_privilege",
        "has_column_privilege",
        "has_any_column_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_function_privilege",
        "has_sequence_privilege",
        "has_type_privilege",
        "pg_has_role",
    ] {
        let of_table = name == "has_table_privilege";
        functions.push((name, Answers::Privilege { admin, of_table }));
    }
    for (name, answers) in functions {
        let function = PgFunction::new(name, answers);
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(function)))?;
    }
    Ok(())
}

/// The state that statements of PostgreSQL's clients start from: with the functions that answer
/// the same in every session, and with PostgreSQL's type names.
///
/// # Errors
/// When PostgreSQL's facts cannot be read.
pub(super) fn base(shared: &Shared, plain: &SessionState) -> Result<SessionState> {
    let mut state = SessionStateBuilder::new_from_existing(plain.clone())
        .with_type_planner(Arc::new(PgTypes))
        .build();
    for (name, value) in constants() {
        let function = PgFunction::new(name, Answers::Value(value));
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(function)))?;
    }
    for function in [
        format_type::create_format_type_udf(),
        quote_ident_udf::create_quote_ident_udf(),
        quote_ident_udf::create_parse_ident_udf(),
        array_bounds_udf::create_array_upper_udf(),
        array_bounds_udf::create_array_lower_udf(),
    ] {
        state.register_udf(Arc::new(function))?;
    }
    let keywords: Arc<dyn TableFunctionImpl> = Arc::clone(&shared.facts()?.pg_get_keywords) as _;
    state.register_udtf("pg_get_keywords", keywords);
    Ok(state)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PgFunction {
    name: &'static str,
    answers: Answers,
    signature: Signature,
}

impl PgFunction {
    fn new(name: &'static str, answers: Answers) -> Self {
        let signature = match answers {
            Answers::Size => Signature::uniform(1, vec![DataType::Int64], Volatility::Immutable),
            Answers::QuotedLiteral => {
                Signature::uniform(1, vec![DataType::Utf8], Volatility::Immutable)
            }
            _ => Signature::one_of(
                vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
                Volatility::Stable,
            ),
        };
        Self { name, answers, signature }
    }

    fn list() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
    }
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match &self.answers {
            Answers::Value(value) => value.data_type(),
            Answers::Schemas(_) => Self::list(),
            Answers::Privilege { .. } => DataType::Boolean,
            Answers::Parameter(_) | Answers::Size | Answers::QuotedLiteral | Answers::Object => {
                DataType::Utf8
            }
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let value = match &self.answers {
            Answers::Value(value) => value.clone(),
            Answers::Schemas(path) => schemas(path, arguments.args.first()),
            Answers::Privilege { admin, of_table } => {
                let held = privilege(*admin, arguments.args.last(), rows)?;
                return match arguments.args.as_slice() {
                    [.., table, _] if *of_table => of_seen(held, table, rows),
                    _ => Ok(held),
                };
            }
            Answers::Parameter(known) => {
                return each_text(arguments.args.first(), rows, |name| {
                    let name = name.to_lowercase();
                    let found = known.iter().find(|(known, _)| *known == name);
                    found.map(|(_, value)| value.clone())
                });
            }
            Answers::QuotedLiteral => {
                return each_text(arguments.args.first(), rows, |text| {
                    Some(format!("'{}'", text.replace('\'', "''")))
                });
            }
            Answers::Size => return sizes(arguments.args.first(), rows),
            Answers::Object => return objects(&arguments.args, rows),
        };
        Ok(ColumnarValue::Scalar(value))
    }
}

fn schemas(path: &[String], with_own: Option<&ColumnarValue>) -> ScalarValue {
    let with_own =
        matches!(with_own, Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
    let own = with_own.then_some(super::PG_CATALOG);
    let names = own.into_iter().chain(path.iter().map(String::as_str));
    let names: Vec<ScalarValue> = names.map(ScalarValue::from).collect();
    ScalarValue::List(ScalarValue::new_list(&names, &DataType::Utf8, true))
}

fn each_text(
    argument: Option<&ColumnarValue>,
    rows: usize,
    of: impl Fn(&str) -> Option<String>,
) -> DataFusionResult<ColumnarValue> {
    let Some(argument) = argument else {
        return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None)));
    };
    if let ColumnarValue::Scalar(value) = argument {
        let text = value.cast_to(&DataType::Utf8)?;
        let answer = match text {
            ScalarValue::Utf8(Some(text)) => of(&text),
            _ => None,
        };
        return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(answer)));
    }
    let texts = arrow::compute::cast(&argument.to_array(rows)?, &DataType::Utf8)?;
    let texts = arrow::array::AsArray::as_string::<i32>(texts.as_ref());
    let answers: StringArray = texts.iter().map(|text| text.and_then(&of)).collect();
    Ok(ColumnarValue::Array(Arc::new(answers)))
}

/// What one sees one may read; changing is an administrator's on everything.
fn privilege(
    admin: bool,
    wanted: Option<&ColumnarValue>,
    rows: usize,
) -> DataFusionResult<ColumnarValue> {
    const OF_READERS: [&str; 6] = ["select", "usage", "connect", "execute", "member", "set"];
    let texts = each_text(wanted, rows, |text| {
        let wanted = text.to_lowercase();
        let held = admin || OF_READERS.iter().any(|right| wanted.contains(right));
        Some(held.to_string())
    })?;
    texts.cast_to(&DataType::Boolean, None)
}

/// What is held of the tables that are seen: of others the number is NULL.
fn of_seen(
    held: ColumnarValue,
    table: &ColumnarValue,
    rows: usize,
) -> DataFusionResult<ColumnarValue> {
    match table {
        ColumnarValue::Scalar(table) if table.is_null() => {
            Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None)))
        }
        ColumnarValue::Scalar(_) => Ok(held),
        ColumnarValue::Array(tables) => {
            let unseen = arrow::compute::is_null(tables)?;
            let held = arrow::compute::nullif(&held.to_array(rows)?, &unseen)?;
            Ok(ColumnarValue::Array(held))
        }
    }
}

fn sizes(argument: Option<&ColumnarValue>, rows: usize) -> DataFusionResult<ColumnarValue> {
    let Some(argument) = argument else {
        return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None)));
    };
    let numbers = argument.to_array(rows)?;
    let numbers = arrow::array::AsArray::as_primitive::<Int64Type>(numbers.as_ref());
    let pretty = |bytes: i64| {
        const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
        let mut value = bytes;
        let mut unit = 0;
        while value.unsigned_abs() >= 10_240 && unit + 1 < UNITS.len() {
            value /= 1_024;
            unit += 1;
        }
        format!("{value} {}", UNITS[unit])
    };
    let texts: StringArray = numbers.iter().map(|bytes| bytes.map(pretty)).collect();
    Ok(ColumnarValue::Array(Arc::new(texts) as ArrayRef))
}

/// One JSON object a row: numbers and truths as they are, everything else as text.
fn objects(arguments: &[ColumnarValue], rows: usize) -> DataFusionResult<ColumnarValue> {
    let columns: Vec<(bool, ArrayRef)> = arguments
        .iter()
        .map(|argument| {
            let array = argument.to_array(rows)?;
            let kind = array.data_type();
            let plain = kind.is_numeric() || matches!(kind, DataType::Boolean);
            Ok((plain, arrow::compute::cast(&array, &DataType::Utf8)?))
        })
        .collect::<DataFusionResult<_>>()?;
    let shown = |(plain, array): &(bool, ArrayRef), row: usize, is_name: bool| {
        let texts = arrow::array::AsArray::as_string::<i32>(array.as_ref());
        match arrow::array::Array::is_null(texts, row) {
            true => "null".to_owned(),
            false if *plain && !is_name => texts.value(row).to_owned(),
            false => serde_json::Value::from(texts.value(row)).to_string(),
        }
    };
    let object = |row: usize| {
        let pairs = columns.chunks(2).map(|pair| {
            let value = pair.get(1).map_or_else(|| "null".into(), |value| shown(value, row, false));
            format!("{} : {value}", shown(&pair[0], row, true))
        });
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    };
    let objects: StringArray = (0..rows).map(|row| Some(object(row))).collect();
    Ok(ColumnarValue::Array(Arc::new(objects) as ArrayRef))
}
