//! Regular expressions that stand in a column.
//!
//! DataFusion and Arrow compile each pattern of a batch once and keep all of them until the batch
//! is done: eight thousand patterns of ten megabytes each, which nobody counts, and no pause in
//! minutes. Here a batch's rows are sorted by pattern, so that each is compiled once still, and
//! [`AT_ONCE`] of them are there at a time; between these a statement that was cancelled ends. A
//! pattern that is a constant is compiled once as ever.
//!
//! The operators `~`, `~*`, `!~`, `!~*` and SIMILAR TO with such a pattern become calls of
//! `regexp_like`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Like, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, lit,
};
use udfs::text::Text;

use crate::bounded::as_inner;
use crate::made::check_cancelled;

/// Compiled patterns that are there at a time; one takes ten megabytes at most.
const AT_ONCE: u32 = 4;
/// Functions of a regular expression, which is their second argument, and where their flags stand.
const FUNCTIONS: [(&str, usize); 5] = [
    (REGEXP_LIKE, 2),
    ("regexp_match", 2),
    ("regexp_count", 3),
    ("regexp_instr", 4),
    ("regexp_replace", 3),
];
const REGEXP_LIKE: &str = "regexp_like";
const PATTERN: usize = 1;

/// The function with a limit on the patterns that it keeps; `None` when it has no pattern.
pub(crate) fn patterned(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let (_, flags) = FUNCTIONS.iter().find(|(name, _)| *name == function.name())?;
    let patterned = Patterned { inner: Arc::clone(function), flags: *flags };
    Some(Arc::new(ScalarUDF::new_from_impl(patterned)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Patterned {
    inner: Arc<ScalarUDF>,
    flags: usize,
}

impl ScalarUDFImpl for Patterned {
    as_inner!();

    fn simplify(
        &self,
        arguments: Vec<Expr>,
        context: &SimplifyContext,
    ) -> DataFusionResult<ExprSimplifyResult> {
        // It may become an operator, which is right for constants alone.
        let constant = |at: usize| matches!(arguments.get(at), None | Some(Expr::Literal(..)));
        match constant(PATTERN) && constant(self.flags) {
            true => self.inner.simplify(arguments, context),
            false => Ok(ExprSimplifyResult::Original(arguments)),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let column = |at: usize| matches!(arguments.args.get(at), Some(ColumnarValue::Array(_)));
        if !column(PATTERN) && !column(self.flags) {
            return self.inner.invoke_with_args(arguments);
        }
        let columns = alike(ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let numbers = numbers(self.name(), &columns, self.flags)?;
        let call = |columns: &[ArrayRef], rows: usize| {
            let args = columns.iter().map(|column| ColumnarValue::Array(Arc::clone(column)));
            let fields = columns.iter().zip(&arguments.arg_fields).map(|(column, field)| {
                let field = field.as_ref().clone();
                Arc::new(field.with_data_type(column.data_type().clone()))
            });
            let made = self.inner.invoke_with_args(ScalarFunctionArgs {
                args: args.collect(),
                arg_fields: fields.collect(),
                number_rows: rows,
                return_field: Arc::clone(&arguments.return_field),
                config_options: Arc::clone(&arguments.config_options),
            })?;
            made.into_array(rows)
        };
        let Some(numbers) = numbers else {
            return Ok(ColumnarValue::Array(call(&columns, arguments.number_rows)?));
        };
        let mut order: Vec<u32> = (0..).take(numbers.len()).collect();
        order.sort_by_key(|row| numbers.get(*row as usize));
        let piece = |row: &u32| numbers.get(*row as usize).map(|number| number / AT_ONCE);
        let mut answers = Vec::new();
        for rows in order.chunk_by(|one, other| piece(one) == piece(other)) {
            check_cancelled(&arguments.config_options)?;
            let at = UInt32Array::from(rows.to_vec());
            let columns = columns.iter().map(|column| take(column, &at, None));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            answers.push(call(&columns, rows.len())?);
        }
        let answers: Vec<&dyn Array> = answers.iter().map(AsRef::as_ref).collect();
        let mut place = vec![0; order.len()];
        for (at, row) in (0..).zip(&order) {
            if let Some(place) = place.get_mut(*row as usize) {
                *place = at;
            }
        }
        let answers = take(&concat(&answers)?, &UInt32Array::from(place), None)?;
        Ok(ColumnarValue::Array(answers))
    }
}

/// Texts in one form: functions want the text and its pattern in the same.
fn alike(columns: Vec<ArrayRef>) -> DataFusionResult<Vec<ArrayRef>> {
    let is_text = |column: &ArrayRef| {
        column.data_type().is_string() || matches!(column.data_type(), DataType::Dictionary(..))
    };
    let mut texts = columns.iter().filter(|column| is_text(column)).map(|text| text.data_type());
    let Some(first) = texts.next() else { return Ok(columns) };
    if first.is_string() && texts.all(|other| other == first) {
        return Ok(columns);
    }
    let alike = columns.into_iter().map(|column| match is_text(&column) {
        true => Ok(cast(&column, &DataType::Utf8View)?),
        false => Ok(column),
    });
    alike.collect()
}

/// A number for each row's pattern and flags, in the order of their coming; `None` when they are
/// few.
fn numbers(
    function: &str,
    columns: &[ArrayRef],
    flags: usize,
) -> DataFusionResult<Option<Vec<u32>>> {
    let text = |at: usize| columns.get(at).map(|column| Text::from_array(function, column));
    let (Some(patterns), flags) = (text(PATTERN).transpose()?, text(flags).transpose()?) else {
        return Ok(None);
    };
    let rows = columns.first().map_or(0, |column| column.len());
    let mut known = HashMap::new();
    let numbers = (0..rows).map(|row| {
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let flags = flags.as_ref().and_then(|flags| flags.get(row));
        *known.entry((patterns.get(row), flags)).or_insert(next)
    });
    let numbers: Vec<u32> = numbers.collect();
    Ok((known.len() > AT_ONCE as usize).then_some(numbers))
}

/// Makes calls of operators whose pattern is no constant.
#[derive(Debug)]
pub(crate) struct PatternOperators {
    regexp_like: Arc<ScalarUDF>,
}

impl PatternOperators {
    /// With the function that limits its patterns; `None` without it.
    pub(crate) fn new<'a>(functions: impl IntoIterator<Item = &'a Arc<ScalarUDF>>) -> Option<Self> {
        let mut functions = functions.into_iter();
        let regexp_like = functions.find(|function| function.name() == REGEXP_LIKE)?;
        Some(Self { regexp_like: Arc::clone(regexp_like) })
    }

    fn call(&self, text: Expr, pattern: Expr, any_case: bool, negated: bool) -> Expr {
        let mut args = vec![text, pattern];
        if any_case {
            args.push(lit("i"));
        }
        let call = ScalarFunction { func: Arc::clone(&self.regexp_like), args };
        let call = Expr::ScalarFunction(call);
        if negated { Expr::Not(Box::new(call)) } else { call }
    }
}

impl FunctionRewrite for PatternOperators {
    fn name(&self) -> &str {
        "pattern_operators"
    }

    fn rewrite(
        &self,
        expr: Expr,
        _schema: &DFSchema,
        _options: &ConfigOptions,
    ) -> DataFusionResult<Transformed<Expr>> {
        let is_constant = |pattern: &Expr| matches!(pattern, Expr::Literal(..));
        let call = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if !is_constant(&right) => {
                let (any_case, negated) = match op {
                    Operator::RegexMatch => (false, false),
                    Operator::RegexIMatch => (true, false),
                    Operator::RegexNotMatch => (false, true),
                    Operator::RegexNotIMatch => (true, true),
                    _ => {
                        let other = BinaryExpr { left, op, right };
                        return Ok(Transformed::no(Expr::BinaryExpr(other)));
                    }
                };
                self.call(*left, *right, any_case, negated)
            }
            Expr::SimilarTo(Like {
                negated,
                expr,
                pattern,
                escape_char: None,
                case_insensitive,
            }) if !is_constant(&pattern) => self.call(*expr, *pattern, case_insensitive, negated),
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(call))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray, StringViewArray};
    use arrow::datatypes::Field;
    use datafusion::functions::regex;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn matches(options: &Arc<ConfigOptions>, texts: ArrayRef, patterns: ArrayRef) -> Vec<bool> {
        let rows = texts.len();
        let function = patterned(&regex::regexp_like()).unwrap();
        let columns = [texts, patterns];
        let fields = columns.iter().map(|column| Field::new("a", column.data_type().clone(), true));
        let answer = function.invoke_with_args(ScalarFunctionArgs {
            arg_fields: fields.map(Arc::new).collect(),
            args: columns.into_iter().map(ColumnarValue::Array).collect(),
            number_rows: rows,
            return_field: Arc::new(Field::new("b", DataType::Boolean, true)),
            config_options: Arc::clone(options),
        });
        let answer = answer.unwrap().into_array(rows).unwrap();
        answer.as_boolean().iter().map(|found| found.unwrap_or(false)).collect()
    }

    #[test]
    fn each_row_meets_its_own_pattern() {
        let options = Arc::new(ConfigOptions::new());
        for distinct in [1, 3, 4, 5, 40] {
            let number = |row: usize| (row * 7) % distinct;
            let texts: StringViewArray =
                (0..100).map(|row| Some(format!("t{}", row % 11))).collect();
            let patterns: StringArray =
                (0..100).map(|row| (row % 9 > 0).then(|| format!("^t{}$", number(row)))).collect();
            let expected: Vec<bool> =
                (0..100).map(|row| row % 9 > 0 && row % 11 == number(row)).collect();
            assert_eq!(matches(&options, Arc::new(texts), Arc::new(patterns)), expected);
        }
    }

    #[test]
    fn a_cancelled_statement_compiles_no_more() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let mut options = ConfigOptions::new();
        let pool = Arc::new(datafusion::execution::memory_pool::UnboundedMemoryPool::default());
        options.extensions.insert(crate::made::Made::new(pool, &cancel));
        assert!(check_cancelled(&options).is_err());
    }
}
