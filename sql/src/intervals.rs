//! Intervals compared by their length.
//!
//! DataFusion compares intervals part by part, months before days before the rest: `INTERVAL '48
//! hours' > INTERVAL '1 day'` would be false, and a difference of two timestamps, which has no
//! days, below any number of days. Here an interval is as long as PostgreSQL has it, with months
//! of 30 days and days of 24 hours: comparisons with an interval on either side, BETWEEN and IN
//! (…) become those of [`NAME`], in nanoseconds, of both sides; min and max are the first of the
//! values in its order, and ORDER BY of a query and of a window sorts by it. What compares within a
//! kernel, such as GROUP BY, DISTINCT, USING and PARTITION BY, looks at the parts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit, IntervalYearMonthType, TimeUnit,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, InList, Placeholder, ScalarFunction, WindowFunction,
};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Distinct, Expr, ExprSchemable, LogicalPlan, Operator,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SortExpr, Volatility, binary_expr,
};
use datafusion::optimizer::AnalyzerRule;

use crate::operators::is_comparison;

/// Not registered: no statement calls it.
const NAME: &str = "interval_length";

const SECOND_NS: i128 = 1_000_000_000;
const DAY_NS: i128 = 24 * 3_600 * SECOND_NS;
const MONTH_NS: i128 = 30 * DAY_NS;

/// Puts lengths in the place of intervals that are compared.
#[derive(Debug)]
pub(crate) struct IntervalLengths {
    function: Arc<ScalarUDF>,
}

/// What has a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Interval,
    Duration,
    Null,
}

impl IntervalLengths {
    pub(crate) fn new() -> Self {
        let signature = Signature::any(1, Volatility::Immutable);
        Self { function: Arc::new(ScalarUDF::new_from_impl(IntervalLength { signature })) }
    }

    fn length(&self, of: Expr) -> Expr {
        Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&self.function), args: vec![of] })
    }

    /// The operands' lengths, where one of them is an interval and all others are of its like.
    fn lengths<'a>(
        &self,
        operands: impl Iterator<Item = &'a Expr> + Clone,
        schema: &DFSchema,
    ) -> Option<Vec<Expr>> {
        let kinds = operands.clone().map(|operand| kind(operand, schema));
        let kinds = kinds.collect::<Option<Vec<Kind>>>()?;
        if !kinds.contains(&Kind::Interval) {
            return None;
        }
        let lengths = operands.zip(kinds).map(|(operand, kind)| match kind {
            Kind::Null => operand.clone(),
            Kind::Interval | Kind::Duration => self.length(operand.clone()),
        });
        Some(lengths.collect())
    }

    /// The expression over lengths; `None` where it compares no intervals.
    fn compared(&self, expr: &Expr, schema: &DFSchema) -> Option<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
                let operands = [left.as_ref(), right.as_ref()];
                if *op == Operator::Eq && is_correlation(left, right) {
                    return None;
                }
                let [left, right]: [Expr; 2] =
                    self.lengths(operands.into_iter(), schema)?.try_into().ok()?;
                Some(binary_expr(left, *op, right))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let operands = [expr.as_ref(), low.as_ref(), high.as_ref()];
                let lengths = self.lengths(operands.into_iter(), schema)?;
                let [expr, low, high] = <[Expr; 3]>::try_from(lengths).ok()?.map(Box::new);
                Some(Expr::Between(Between::new(expr, *negated, low, high)))
            }
            Expr::InList(InList { expr, list, negated }) => {
                let operands = std::iter::once(expr.as_ref()).chain(list);
                let mut lengths = self.lengths(operands, schema)?.into_iter();
                let expr = Box::new(lengths.next()?);
                Some(Expr::InList(InList::new(expr, lengths.collect(), *negated)))
            }
            Expr::AggregateFunction(call) => self.extreme(call, schema),
            Expr::WindowFunction(call) => self.window(call, schema),
            _ => None,
        }
    }

    /// The window over rows in the order of lengths: a frame is of numbers or times, and a
    /// difference of times is neither.
    fn window(&self, call: &WindowFunction, schema: &DFSchema) -> Option<Expr> {
        let is_long = |key: &SortExpr| {
            matches!(kind(&key.expr, schema), Some(Kind::Interval | Kind::Duration))
        };
        if !call.params.order_by.iter().any(is_long) {
            return None;
        }
        let mut call = call.clone();
        for key in call.params.order_by.iter_mut().filter(|key| is_long(key)) {
            *key = key.with_expr(self.length(key.expr.clone()));
        }
        Some(Expr::WindowFunction(Box::new(call)))
    }

    /// The least or greatest interval: the first in that order. Of intervals of one length it is
    /// the least or greatest by parts, whatever the order of rows.
    fn extreme(&self, call: &AggregateFunction, schema: &DFSchema) -> Option<Expr> {
        let ascending = match call.func.name() {
            "min" => true,
            "max" => false,
            _ => return None,
        };
        let [value] = call.params.args.as_slice() else { return None };
        if kind(value, schema)? != Kind::Interval {
            return None;
        }
        let keys = [self.length(value.clone()), value.clone()];
        let order_by = Vec::from(keys.map(|key| SortExpr::new(key, ascending, false)));
        let (args, filter) = (call.params.args.clone(), call.params.filter.clone());
        let first = first_value_udaf();
        Some(Expr::AggregateFunction(AggregateFunction::new_udf(
            first, args, false, filter, order_by, None,
        )))
    }
}

impl FunctionRewrite for IntervalLengths {
    fn name(&self) -> &str {
        "interval_comparisons"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _options: &ConfigOptions,
    ) -> DataFusionResult<Transformed<Expr>> {
        Ok(match self.compared(&expr, schema) {
            Some(compared) => Transformed::yes(compared),
            None => Transformed::no(expr),
        })
    }
}

impl AnalyzerRule for IntervalLengths {
    fn name(&self) -> &str {
        "interval_order"
    }

    fn analyze(
        &self,
        plan: LogicalPlan,
        _options: &ConfigOptions,
    ) -> DataFusionResult<LogicalPlan> {
        let sorted = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Sort(mut sort) => {
                let mut is_changed = false;
                for key in &mut sort.expr {
                    if kind(&key.expr, sort.input.schema()) == Some(Kind::Interval) {
                        *key = key.with_expr(self.length(key.expr.clone()));
                        is_changed = true;
                    }
                }
                let sort = LogicalPlan::Sort(sort);
                Ok(if is_changed { Transformed::yes(sort) } else { Transformed::no(sort) })
            }
            LogicalPlan::Distinct(Distinct::On(mut on)) => {
                // The first keys are what is to be distinct.
                let (first, mut is_changed) = (on.on_expr.len(), false);
                for key in on.sort_expr.iter_mut().flatten().skip(first) {
                    if kind(&key.expr, on.input.schema()) == Some(Kind::Interval) {
                        *key = key.with_expr(self.length(key.expr.clone()));
                        is_changed = true;
                    }
                }
                let on = LogicalPlan::Distinct(Distinct::On(on));
                Ok(if is_changed { Transformed::yes(on) } else { Transformed::no(on) })
            }
            other => Ok(Transformed::no(other)),
        });
        sorted.data()
    }
}

/// Whether a column of a sub-query is compared with something of the query around it: a join is
/// made of that, but only as it is.
fn is_correlation(left: &Expr, right: &Expr) -> bool {
    let is_key =
        |one: &Expr, other: &Expr| matches!(one, Expr::Column(_)) && other.contains_outer();
    is_key(left, right) || is_key(right, left)
}

/// What an expression is, if it has a length. A parameter without a type gets one with its value,
/// and what has no type is refused later, with a reason.
fn kind(expr: &Expr, schema: &DFSchema) -> Option<Kind> {
    if let Expr::Placeholder(Placeholder { field: None, .. }) = expr {
        return None;
    }
    match expr.get_type(schema).ok()? {
        DataType::Interval(_) => Some(Kind::Interval),
        DataType::Duration(_) => Some(Kind::Duration),
        DataType::Null => Some(Kind::Null),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalLength {
    signature: Signature,
}

impl ScalarUDFImpl for IntervalLength {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [value] = take_function_args(NAME, arguments.args)?;
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(Arc::new(lengths(&array)?)),
            ColumnarValue::Scalar(scalar) => {
                let lengths = lengths(&scalar.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?)
            }
        })
    }
}

/// Nanoseconds of each value. The longest are of 28 digits.
fn lengths(array: &ArrayRef) -> DataFusionResult<Decimal128Array> {
    let lengths: Decimal128Array = match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            let intervals = array.as_primitive::<IntervalYearMonthType>();
            intervals.unary(|months| i128::from(months) * MONTH_NS)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let intervals = array.as_primitive::<IntervalDayTimeType>();
            intervals.unary(|interval| {
                let milliseconds = i128::from(interval.milliseconds);
                i128::from(interval.days) * DAY_NS + milliseconds * (SECOND_NS / 1_000)
            })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            intervals.unary(|interval| {
                let days = i128::from(interval.days) * DAY_NS;
                i128::from(interval.months) * MONTH_NS + days + i128::from(interval.nanoseconds)
            })
        }
        DataType::Duration(TimeUnit::Second) => {
            let durations = array.as_primitive::<DurationSecondType>();
            durations.unary(|seconds| i128::from(seconds) * SECOND_NS)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            let durations = array.as_primitive::<DurationMillisecondType>();
            durations.unary(|milliseconds| i128::from(milliseconds) * (SECOND_NS / 1_000))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            let durations = array.as_primitive::<DurationMicrosecondType>();
            durations.unary(|microseconds| i128::from(microseconds) * (SECOND_NS / 1_000_000))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            array.as_primitive::<DurationNanosecondType>().unary(i128::from)
        }
        other => return exec_err!("{other} has no length"),
    };
    Ok(lengths.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?)
}

#[cfg(test)]
mod tests {
    use datafusion::functions_aggregate::min_max::max_udaf;
    use datafusion::logical_expr::{col, lit};

    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn length(value: ScalarValue) -> Option<i128> {
        let lengths = lengths(&value.to_array().unwrap()).unwrap();
        lengths.is_valid(0).then(|| lengths.value(0))
    }

    #[test]
    fn a_month_has_thirty_days_and_a_day_twenty_four_hours() {
        let day = length(ScalarValue::new_interval_mdn(0, 1, 0));
        assert_eq!(day, Some(DAY_NS));
        for same in [
            ScalarValue::new_interval_mdn(0, 0, 24 * HOUR_NS),
            ScalarValue::new_interval_mdn(1, -29, 0),
            ScalarValue::new_interval_dt(0, 86_400_000),
            ScalarValue::DurationSecond(Some(86_400)),
            ScalarValue::DurationMillisecond(Some(86_400_000)),
            ScalarValue::DurationMicrosecond(Some(86_400_000_000)),
            ScalarValue::DurationNanosecond(Some(24 * HOUR_NS)),
        ] {
            assert_eq!(length(same), day);
        }
        assert_eq!(length(ScalarValue::new_interval_ym(1, 0)), Some(12 * MONTH_NS));
        assert_eq!(length(ScalarValue::IntervalMonthDayNano(None)), None);
        let longest = length(ScalarValue::DurationSecond(Some(i64::MIN))).unwrap();
        assert_eq!(longest.unsigned_abs().to_string().len(), 28);
        let longest = length(ScalarValue::new_interval_mdn(i32::MIN, i32::MIN, i64::MIN)).unwrap();
        assert!(longest < 0 && longest.unsigned_abs().to_string().len() < 28);
    }

    #[test]
    fn comparisons_of_intervals_become_those_of_lengths() {
        let lengths = IntervalLengths::new();
        let (schema, options) = (DFSchema::empty(), ConfigOptions::new());
        let rewritten = |expr: Expr| {
            let rewritten = lengths.rewrite(expr, &schema, &options).unwrap();
            assert_eq!(rewritten.transformed, rewritten.data.to_string().contains(NAME));
            rewritten.transformed
        };
        let day = || lit(ScalarValue::new_interval_mdn(0, 1, 0));
        let second = || lit(ScalarValue::DurationSecond(Some(1)));
        assert!(rewritten(day().gt(second())));
        assert!(rewritten(day().eq(lit(ScalarValue::Null))));
        assert!(rewritten(second().between(day(), second())));
        assert!(rewritten(second().in_list(vec![second(), day()], true)));
        assert!(rewritten(max_udaf().call(vec![day()])));
        // Of one kind, of another type, unknown, no comparison.
        assert!(!rewritten(second().gt(second())));
        assert!(!rewritten(day().gt(lit("1 day"))));
        assert!(!rewritten(day().gt(col("nowhere"))));
        assert!(!rewritten(max_udaf().call(vec![second()])));
        assert!(!rewritten(day() + day()));
    }
}
