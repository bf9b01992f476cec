//! `a || b` with a limit on what one call makes, as [`crate::bounded`] has it for functions: a chain
//! of operators over long texts would take memory that is charged to nobody.
//!
//! The operator becomes a function of that name before types are coerced, and the function computes
//! it as DataFusion does.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as Computed, Column, Literal};

use crate::bounded::check_made;

/// Puts the function in place of the operator, where texts are concatenated.
#[derive(Debug)]
pub(crate) struct ConcatenationRewrite {
    function: Arc<ScalarUDF>,
}

impl ConcatenationRewrite {
    /// With calls that make at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(Concatenation { signature, bytes_max });
        Self { function: Arc::new(function) }
    }
}

impl FunctionRewrite for ConcatenationRewrite {
    fn name(&self) -> &str {
        "bounded concatenation"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> DataFusionResult<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        // A parameter without a type yet gets the function once it has one.
        let types = left.get_type(schema).ok().zip(right.get_type(schema).ok());
        let is_of_texts = |types: &(DataType, DataType)| {
            let result = BinaryTypeCoercer::new(&types.0, &Operator::StringConcat, &types.1)
                .get_result_type();
            result.is_ok_and(|result| result.is_string())
        };
        if !types.as_ref().is_some_and(is_of_texts) {
            return Ok(Transformed::no(expr));
        }
        let args = vec![left.as_ref().clone(), right.as_ref().clone()];
        let call = ScalarFunction { func: Arc::clone(&self.function), args };
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
    bytes_max: u64,
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        "||"
    }

    fn schema_name(&self, args: &[Expr]) -> DataFusionResult<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(names.join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let (left, right) = two(types)?;
        let coercer = BinaryTypeCoercer::new(left, &Operator::StringConcat, right);
        let (left, right) = coercer.get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        let (left, right) = two(types)?;
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = args.number_rows;
        let made = args.args.iter().map(|value| text_bytes(value, rows));
        check_made("||", made.fold(0, u64::saturating_add), self.bytes_max)?;
        let (mut fields, mut columns) = (vec![], vec![]);
        let mut operand = |value: ColumnarValue| -> Arc<dyn PhysicalExpr> {
            match value {
                ColumnarValue::Scalar(scalar) => Arc::new(Literal::new(scalar)),
                ColumnarValue::Array(array) => {
                    let index = columns.len();
                    fields.push(Field::new("text", array.data_type().clone(), true));
                    columns.push(array);
                    Arc::new(Column::new("text", index))
                }
            }
        };
        let operands: Vec<Arc<dyn PhysicalExpr>> =
            args.args.into_iter().map(&mut operand).collect();
        let [left, right] = operands.as_slice() else { return Err(operands_missing()) };
        let computed = Computed::new(Arc::clone(left), Operator::StringConcat, Arc::clone(right));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::new(fields));
        computed.evaluate(&RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}

fn two(types: &[DataType]) -> DataFusionResult<(&DataType, &DataType)> {
    match types {
        [left, right] => Ok((left, right)),
        _ => Err(operands_missing()),
    }
}

fn operands_missing() -> DataFusionError {
    DataFusionError::Internal("|| has two operands".into())
}

/// The bytes of all texts of a value.
pub(crate) fn text_bytes(value: &ColumnarValue, rows: usize) -> u64 {
    match value {
        ColumnarValue::Scalar(scalar) => scalar_bytes(scalar).saturating_mul(rows as u64),
        ColumnarValue::Array(array) => array_bytes(array),
    }
}

fn scalar_bytes(scalar: &ScalarValue) -> u64 {
    match scalar.try_as_str() {
        Some(text) => text.map_or(0, str::len) as u64,
        None => scalar.size() as u64,
    }
}

fn array_bytes(array: &ArrayRef) -> u64 {
    match array.data_type() {
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().offsets();
            u64::try_from(offsets.last().unwrap_or(&0) - offsets.first().unwrap_or(&0)).unwrap_or(0)
        }
        // The low half of a view is the length.
        DataType::Utf8View => {
            array.as_string_view().views().iter().map(|view| u64::from(*view as u32)).sum()
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or(0) as u64,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, StringViewArray};

    use super::*;

    #[test]
    fn texts_are_counted_by_what_is_read_of_them() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["abc", "de", ""]));
        let views: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("longer than twelve"), None, Some("ab")]));
        let of = |array: ArrayRef| text_bytes(&ColumnarValue::Array(array), 0);
        assert_eq!((of(Arc::clone(&texts)), of(texts.slice(1, 2))), (5, 2));
        assert_eq!(of(views), 20);
        let scalar = ColumnarValue::Scalar(ScalarValue::from("abc"));
        assert_eq!(text_bytes(&scalar, 1_000), 3_000);
    }
}
