//! `a || b || c` with a limit on what one call makes, as [`crate::bounded`] has it for functions: a
//! chain of operators over long texts would take memory that is charged to nobody.
//!
//! While a statement is planned, an operator becomes a call of a function of that name. A chain
//! longer than [`DEPTH_MAX`] goes on as further operands of the last call, so that a chain of a
//! thousand is no deeper than that; below, each operator is a call of its own, as GROUP BY finds
//! an expression in a longer one. NULL in any operand gives NULL, and numbers and times are written
//! as text, as the operator has it. Lists are DataFusion's.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BinaryViewBuilder, LargeBinaryBuilder,
    LargeStringBuilder, StringBuilder, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, ScalarValue, exec_err, plan_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use sqlparser::ast::BinaryOperator;
use udfs::text::Text;

use crate::bounded::check_made;
use crate::made::charged;
use crate::text_size::text_bytes;

const NAME: &str = "||";
/// Operators of a chain that are calls of their own.
const DEPTH_MAX: usize = 32;

/// Plans the operator as the function, where texts or bytes are concatenated.
#[derive(Debug)]
pub(crate) struct ConcatenationPlanner {
    function: Arc<ScalarUDF>,
}

impl ConcatenationPlanner {
    /// With calls that make at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(Concatenation { signature, bytes_max });
        Self { function: Arc::new(function) }
    }

    /// How many calls a chain is deep.
    fn depth(&self, mut expr: &Expr) -> usize {
        let mut depth = 0;
        while let Expr::ScalarFunction(call) = expr
            && Arc::ptr_eq(&call.func, &self.function)
            && let Some(first) = call.args.first()
        {
            depth += 1;
            expr = first;
        }
        depth
    }
}

impl ExprPlanner for ConcatenationPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DataFusionResult<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        // The type of a long chain is not asked for: that would be a walk over it for each operand.
        let is_long = self.depth(&expr.left) >= DEPTH_MAX;
        let left = if is_long { Some(DataType::Utf8) } else { known_type(&expr.left, schema)? };
        let right = known_type(&expr.right, schema)?;
        // A parameter beside bytes is bytes, else a text.
        let other = left.clone().or_else(|| right.clone()).filter(is_bytes);
        let usual = other.unwrap_or(DataType::Utf8);
        let (left, right) = (left.unwrap_or_else(|| usual.clone()), right.unwrap_or(usual));
        let has_list = left.is_list() || right.is_list();
        let joined = joined_type(&left, &right);
        if has_list || !joined.is_some_and(|joined| is_text(&joined) || is_bytes(&joined)) {
            return Ok(PlannerResult::Original(expr));
        }
        let right = typed(expr.right, &right);
        let args = match expr.left {
            Expr::ScalarFunction(call) if is_long => {
                let mut args = call.args;
                args.push(right);
                args
            }
            first => vec![typed(first, &left), right],
        };
        let call = ScalarFunction { func: Arc::clone(&self.function), args };
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// The type of an operand, which a parameter need not have yet.
fn known_type(expr: &Expr, schema: &DFSchema) -> DataFusionResult<Option<DataType>> {
    match expr {
        Expr::Placeholder(Placeholder { field: None, .. }) => Ok(None),
        typed => typed.get_type(schema).map(Some),
    }
}

/// An operand; a parameter without a type gets one.
fn typed(expr: Expr, data_type: &DataType) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Field::new(&id, data_type.clone(), true);
            Expr::Placeholder(Placeholder { id, field: Some(Arc::new(field)) })
        }
        typed => typed,
    }
}

/// The type of `left || right`; none where the operator does not know how.
fn joined_type(left: &DataType, right: &DataType) -> Option<DataType> {
    BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type().ok()
}

fn is_text(data_type: &DataType) -> bool {
    data_type.is_string()
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
    bytes_max: u64,
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        NAME
    }

    fn display_name(&self, args: &[Expr]) -> DataFusionResult<String> {
        let names: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(names.join(" || "))
    }

    fn schema_name(&self, args: &[Expr]) -> DataFusionResult<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(names.join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        Ok(vec![self.return_type(types)?; types.len()])
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        let Some((first, rest)) = types.split_first() else {
            return plan_err!("{NAME} needs operands");
        };
        let mut joined = first.clone();
        for next in rest {
            let Some(longer) = joined_type(&joined, next) else {
                return plan_err!("{NAME} does not concatenate {joined} and {next}");
            };
            joined = longer;
        }
        Ok(joined)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let made = args.args.iter().map(|value| text_bytes(value, rows));
        let made = made.fold(0, u64::saturating_add);
        check_made(NAME, made, self.bytes_max)?;
        charged(&args.config_options, NAME, made, || {
            let joined = match is_text(args.return_type()) {
                true => joined_texts(&args.args, rows, args.return_type())?,
                false => joined_bytes(&args.args, rows, args.return_type())?,
            };
            Ok(match is_constant {
                true => ScalarValue::try_from_array(&joined, 0)?.into(),
                false => joined.into(),
            })
        })
    }
}

/// Makes a column with a builder of what the operands have in each row, put together in `$scratch`
/// by its method `$push`.
macro_rules! column {
    ($builder:ty, $rows:expr, $operands:expr, $scratch:ty, $push:ident) => {{
        let mut builder = <$builder>::new();
        let mut scratch = <$scratch>::new();
        for row in 0..$rows {
            scratch.clear();
            let is_there = $operands
                .iter()
                .try_for_each(|operand| operand.get(row).map(|part| scratch.$push(part)));
            builder.append_option(is_there.map(|()| &scratch));
        }
        Ok(Arc::new(builder.finish()) as ArrayRef)
    }};
}

fn joined_texts(
    args: &[ColumnarValue],
    rows: usize,
    data_type: &DataType,
) -> DataFusionResult<ArrayRef> {
    let texts = args.iter().map(|arg| Text::from_argument(NAME, arg));
    let texts: Vec<Text> = texts.collect::<DataFusionResult<_>>()?;
    match data_type {
        DataType::Utf8 => column!(StringBuilder, rows, texts, String, push_str),
        DataType::LargeUtf8 => column!(LargeStringBuilder, rows, texts, String, push_str),
        DataType::Utf8View => column!(StringViewBuilder, rows, texts, String, push_str),
        other => exec_err!("{NAME} does not make {other}"),
    }
}

/// A column of bytes, or one value for every row.
struct Bytes {
    values: ArrayRef,
    is_constant: bool,
}

impl Bytes {
    fn of(arg: &ColumnarValue) -> DataFusionResult<Self> {
        let (values, is_constant) = match arg {
            ColumnarValue::Array(array) => (Arc::clone(array), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
        };
        Ok(Self { values: cast(&values, &DataType::BinaryView)?, is_constant })
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        let row = if self.is_constant { 0 } else { row };
        let values = self.values.as_binary_view();
        values.is_valid(row).then(|| values.value(row))
    }
}

fn joined_bytes(
    args: &[ColumnarValue],
    rows: usize,
    data_type: &DataType,
) -> DataFusionResult<ArrayRef> {
    let bytes: Vec<Bytes> = args.iter().map(Bytes::of).collect::<DataFusionResult<_>>()?;
    match data_type {
        DataType::Binary => column!(BinaryBuilder, rows, bytes, Vec<u8>, extend_from_slice),
        DataType::LargeBinary => {
            column!(LargeBinaryBuilder, rows, bytes, Vec<u8>, extend_from_slice)
        }
        DataType::BinaryView => column!(BinaryViewBuilder, rows, bytes, Vec<u8>, extend_from_slice),
        other => exec_err!("{NAME} does not make {other}"),
    }
}
