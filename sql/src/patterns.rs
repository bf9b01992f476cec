//! Regular expressions that stand in a column.
//!
//! DataFusion and Arrow compile each pattern of a batch once and keep all of them until the batch
//! is done: eight thousand patterns of ten megabytes each, which nobody counts, and no pause in
//! minutes. Here a batch's rows are sorted by pattern, so that each is compiled once still, and
//! [`AT_ONCE`] of them are there at a time; between these a statement that was cancelled ends. A
//! pattern that is a constant is compiled once as ever.
//!
//! The operators `~`, `~*`, `!~`, `!~*` and SIMILAR TO ([`crate::similar`]) with such a pattern
//! become calls of `regexp_like`. A pattern that does not compile is named in the error.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewArray, UInt32Array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::expr::{Like, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, binary_expr, lit,
};
use udfs::text::Text;

use crate::bounded::as_inner;
use crate::error::Error;
use crate::made::check_cancelled;
use crate::similar;

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
/// A flag that says what holds anyway, in the place of none.
const NO_FLAGS: &str = "u";
/// Characters of a pattern that an error shows.
const SHOWN_MAX: usize = 60;

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
        let arguments = self.with_flags(arguments)?;
        let column = |at: usize| matches!(arguments.args.get(at), Some(ColumnarValue::Array(_)));
        if !column(PATTERN) && !column(self.flags) {
            let pattern = match arguments.args.get(PATTERN) {
                Some(ColumnarValue::Scalar(pattern)) => pattern.try_as_str().flatten(),
                _ => None,
            };
            let pattern = pattern.map(str::to_owned);
            let made = self.inner.invoke_with_args(arguments);
            return made.map_err(|error| named(error, pattern.as_deref()));
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
            let made = call(&columns, arguments.number_rows);
            let made = made.map_err(|error| self.blamed(error, &columns, &call))?;
            return Ok(ColumnarValue::Array(made));
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
            let made = call(&columns, rows.len());
            answers.push(made.map_err(|error| self.blamed(error, &columns, &call))?);
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

impl Patterned {
    /// The arguments without empty flags: functions put flags in front of the pattern, as
    /// `(?flags)`, which has to say something.
    fn with_flags(
        &self,
        mut arguments: ScalarFunctionArgs,
    ) -> DataFusionResult<ScalarFunctionArgs> {
        match arguments.args.get_mut(self.flags) {
            Some(ColumnarValue::Scalar(flags)) if flags.try_as_str() == Some(Some("")) => {
                *flags = ScalarValue::from(NO_FLAGS).cast_to(&flags.data_type())?;
            }
            Some(ColumnarValue::Array(array)) => {
                let flags = Text::from_array(self.inner.name(), array)?;
                if (0..array.len()).any(|row| flags.get(row) == Some("")) {
                    let said = (0..array.len()).map(|row| match flags.get(row) {
                        Some("") => Some(NO_FLAGS),
                        said => said,
                    });
                    let said: ArrayRef = Arc::new(said.collect::<StringViewArray>());
                    let is_text = array.data_type().is_string();
                    *array = if is_text { cast(&said, array.data_type())? } else { said };
                }
            }
            _ => {}
        }
        Ok(arguments)
    }

    /// The error of a call on some rows, with the pattern that it is about: of the few that there
    /// are, the one that fails alone.
    fn blamed(
        &self,
        error: DataFusionError,
        columns: &[ArrayRef],
        call: &dyn Fn(&[ArrayRef], usize) -> DataFusionResult<ArrayRef>,
    ) -> DataFusionError {
        if reason(&error).is_none() {
            return error;
        }
        let text = |at: usize| Text::from_array(self.inner.name(), columns.get(at)?).ok();
        let (Some(patterns), flags) = (text(PATTERN), text(self.flags)) else { return error };
        let is_null = |row: usize| {
            let mut columns = columns.iter().enumerate();
            columns.any(|(at, column)| at != self.flags && column.is_null(row))
        };
        let mut tried = HashSet::new();
        let rows = columns.first().map_or(0, |column| column.len());
        for row in (0..rows).filter(|row| !is_null(*row)) {
            let (pattern, flags) = (patterns.get(row), flags.as_ref().and_then(|f| f.get(row)));
            if !tried.insert((pattern, flags)) {
                continue;
            }
            let alone: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
            if let Err(error) = call(&alone, 1) {
                return named(error, pattern);
            }
        }
        error
    }
}

/// An error about a pattern, with the pattern.
fn named(error: DataFusionError, pattern: Option<&str>) -> DataFusionError {
    let (Some(reason), Some(pattern)) = (reason(&error), pattern) else { return error };
    let pattern = shown(pattern);
    let what = format!("the regular expression '{pattern}' did not compile{reason}");
    DataFusionError::Execution(what)
}

/// Why a pattern does not compile, behind a colon, where that is told; `None` of any other error.
fn reason(error: &DataFusionError) -> Option<String> {
    let text = error.to_string();
    let says = |mark: &str| text.contains(mark);
    if says("CompiledTooBig") || says("exceeds size limit") {
        return Some(": it is too large".into());
    }
    if !says("did not compile") && !says("regex parse error") {
        return None;
    }
    let line = text.lines().find_map(|line| line.trim().strip_prefix("error: "));
    Some(line.map(|line| format!(": {line}")).unwrap_or_default())
}

/// An error of which the text alone is known, on one line: of a constant pattern why it does not
/// compile.
pub(crate) fn told(what: String) -> Error {
    let why = what.contains("regex parse error:").then(|| what.rsplit_once("error: ")).flatten();
    match why {
        Some((_, why)) => Error::Execution {
            what: format!("a regular expression did not compile: {why}"),
            hint: Some(
                "a sign that is meant itself has a backslash before it: '\\[', '\\('".into(),
            ),
        },
        None => Error::Execution { what, hint: None },
    }
}

/// The beginning of a pattern, on one line.
pub(crate) fn shown(pattern: &str) -> String {
    let mut letters = pattern.chars();
    let start = letters.by_ref().take(SHOWN_MAX);
    let mut shown: String =
        start.map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
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

/// Makes calls of operators whose pattern is no constant, and regular expressions of SQL's own
/// patterns.
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
            Expr::SimilarTo(Like { negated, expr, pattern, escape_char, case_insensitive }) => {
                let constant = match pattern.as_ref() {
                    Expr::Literal(pattern, _) => pattern.try_as_str().flatten(),
                    _ => None,
                };
                match constant {
                    Some(pattern) => {
                        let op = match (negated, case_insensitive) {
                            (false, false) => Operator::RegexMatch,
                            (false, true) => Operator::RegexIMatch,
                            (true, false) => Operator::RegexNotMatch,
                            (true, true) => Operator::RegexNotIMatch,
                        };
                        binary_expr(*expr, op, lit(similar::regular(pattern, escape_char)?))
                    }
                    None => {
                        let pattern = similar::regular_of(*pattern, escape_char);
                        self.call(*expr, pattern, case_insensitive, negated)
                    }
                }
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(call))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};
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
    fn an_error_shows_the_beginning_of_the_pattern() {
        assert_eq!(shown("a\n(é"), "a (é");
        assert_eq!(shown(&"é".repeat(SHOWN_MAX)).chars().count(), SHOWN_MAX);
        let error = |text: &str| {
            let error = named(DataFusionError::Execution(text.into()), Some(&"é(".repeat(99)));
            error.to_string().replace(&"é(".repeat(SHOWN_MAX / 2), "…")
        };
        let large = error("Regular expression did not compile: CompiledTooBig(10485760)");
        assert!(large.ends_with("'……' did not compile: it is too large"), "{large}");
        let wrong = error("regex parse error:\n    (\n    ^\nerror: unclosed group");
        assert!(wrong.ends_with("'……' did not compile: unclosed group"), "{wrong}");
        assert!(error("division by zero").ends_with("division by zero"));
        let constant = told("regex parse error: [ ^ error: unclosed character class".into());
        assert!(constant.to_string().ends_with("did not compile: unclosed character class"));
        assert_eq!(told("the disk is full".into()).to_string(), "the disk is full");
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
