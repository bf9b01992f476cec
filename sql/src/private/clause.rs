//! `SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (…)` on its way through the parser.
//!
//! The parser knows no such clause, but a list of expressions behind `SELECT DISTINCT ON`. On the
//! token stream the clause becomes `SELECT DISTINCT ON (differential_privacy_options(…))`, whose
//! tokens keep their places, so that carets in errors point into the text as it was written. A
//! syntax tree that is shown as text, as a view's query is when it is stored, is read back to the
//! same tree. Nothing else is called by that name.

use sqlparser::ast::{
    Distinct, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Select, SetExpr,
};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::dialect::is_word;
use crate::error::{Error, Result};

/// The call that carries the options in a syntax tree.
const MARKER: &str = "differential_privacy_options";

/// Puts the marker in place of each clause.
///
/// # Errors
/// When the clause has no OPTIONS (…), or DISTINCT behind them.
pub(crate) fn take(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|token| is_word(&token.token, "DIFFERENTIAL_PRIVACY")) {
        return Ok(tokens);
    }
    let mut taken = Vec::with_capacity(tokens.len() + 4);
    let mut rest = tokens.into_iter();
    while let Some(token) = rest.next() {
        let clause = is_word(&token.token, "DIFFERENTIAL_PRIVACY") && begins_clause(&mut taken);
        if !clause {
            taken.push(token);
            continue;
        }
        taken.push(in_place(&token, Token::make_keyword("ON")));
        taken.push(in_place(&token, Token::LParen));
        let options = next(&mut rest, &mut taken);
        let Some(options) = options.filter(|found| is_word(&found.token, "OPTIONS")) else {
            return Err(without_options());
        };
        taken.push(in_place(&options, Token::make_word(MARKER, None)));
        let Some(open) = next(&mut rest, &mut taken) else { return Err(without_options()) };
        if open.token != Token::LParen {
            return Err(without_options());
        }
        taken.push(open);
        copy_arguments(&mut rest, &mut taken);
        if let Some(first) = next(&mut rest, &mut taken) {
            if is_word(&first.token, "DISTINCT") {
                return Err(Error::unsupported(
                    "DISTINCT does not go with differential privacy",
                    "leave it out: an answer has each group once, so GROUP BY the columns",
                ));
            }
            taken.push(first);
        }
    }
    Ok(taken)
}

type Rest = std::vec::IntoIter<TokenWithSpan>;

/// Copies up to the parenthesis that closes the options, and closes the list around them.
fn copy_arguments(rest: &mut Rest, taken: &mut Vec<TokenWithSpan>) {
    let mut depth = 1_usize;
    for token in rest.by_ref() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        let closing = (depth == 0).then(|| in_place(&token, Token::RParen));
        taken.push(token);
        if let Some(closing) = closing {
            taken.push(closing);
            return;
        }
    }
}

/// Whether what stands before is `SELECT WITH`, which then is `SELECT DISTINCT`.
fn begins_clause(taken: &mut [TokenWithSpan]) -> bool {
    let mut words =
        taken.iter_mut().rev().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let (Some(with), Some(select)) = (words.next(), words.next()) else { return false };
    if !is_keyword(&with.token, Keyword::WITH) || !is_keyword(&select.token, Keyword::SELECT) {
        return false;
    }
    with.token = Token::make_keyword("DISTINCT");
    true
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword)
}

/// The next token that is no white space; white space is copied.
fn next(rest: &mut Rest, taken: &mut Vec<TokenWithSpan>) -> Option<TokenWithSpan> {
    for token in rest.by_ref() {
        if !matches!(token.token, Token::Whitespace(_)) {
            return Some(token);
        }
        taken.push(token);
    }
    None
}

fn in_place(of: &TokenWithSpan, token: Token) -> TokenWithSpan {
    TokenWithSpan { token, span: of.span }
}

fn without_options() -> Error {
    Error::Syntax {
        message: "WITH DIFFERENTIAL_PRIVACY has no OPTIONS (…)".into(),
        excerpt: String::new(),
        hint: Some(
            "write SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1, delta = 1e-6, \
             privacy_unit_column = person_id) …"
                .into(),
        ),
    }
}

/// Takes the options out of a SELECT that has the clause, in the order written.
///
/// # Errors
/// When the clause stands beside other expressions, or an option is no `name = value`.
pub(crate) fn take_options(select: &mut Select) -> Result<Option<Vec<(String, Expr)>>> {
    let Some(Distinct::On(list)) = &select.distinct else { return Ok(None) };
    if !list.iter().any(is_marker) {
        return Ok(None);
    }
    let [Expr::Function(call)] = list.as_slice() else {
        return Err(Error::invalid_hint(
            "DISTINCT ON stands beside differential privacy",
            "leave it out: each group is one row",
        ));
    };
    let FunctionArguments::List(arguments) = &call.args else { return Ok(Some(vec![])) };
    let options = arguments.args.iter().map(option).collect::<Result<_>>()?;
    select.distinct = None;
    Ok(Some(options))
}

/// Whether a query's body holds the clause itself.
pub(crate) fn is_private(body: &SetExpr) -> bool {
    let SetExpr::Select(select) = body else { return false };
    matches!(&select.distinct, Some(Distinct::On(list)) if list.iter().any(is_marker))
}

fn is_marker(expr: &Expr) -> bool {
    let Expr::Function(call) = expr else { return false };
    crate::parse::name_parts(&call.name) == [MARKER]
}

/// `name = value`, or `name => value` as a tree might show it.
fn option(argument: &FunctionArg) -> Result<(String, Expr)> {
    use sqlparser::ast::BinaryOperator;
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        })) if matches!(left.as_ref(), Expr::Identifier(_)) => {
            let Expr::Identifier(name) = left.as_ref() else { return Err(no_option(argument)) };
            Ok((name.value.to_lowercase(), right.as_ref().clone()))
        }
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
            Ok((name.value.to_lowercase(), value.clone()))
        }
        other => Err(no_option(other)),
    }
}

fn no_option(argument: &FunctionArg) -> Error {
    Error::invalid_hint(
        format!("{argument} is no option of differential privacy"),
        "options are name = value, as in OPTIONS (epsilon = 1, delta = 1e-6)",
    )
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::Statement as SqlStatement;

    use super::*;
    use crate::parse::{Statement, parse};

    const TEXT: &str = "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1e20, delta = .01, \
                        privacy_unit_column = t.id) item, AVG(quantity, \
                        contribution_bounds_per_group => (0, 100)) FROM t GROUP BY item";

    fn select(text: &str) -> Select {
        let Statement::DataFusion(statement) = parse(text, 10_000).unwrap() else { panic!() };
        let datafusion::sql::parser::Statement::Statement(tree) = *statement else { panic!() };
        let SqlStatement::Query(query) = *tree else { panic!() };
        let SetExpr::Select(select) = *query.body else { panic!() };
        *select
    }

    #[test]
    fn the_clause_is_read_and_read_again_from_its_tree() {
        let mut written = select(TEXT);
        let shown = written.to_string();
        let mut again = select(&shown);
        let options = take_options(&mut written).unwrap().unwrap();
        let shown: Vec<String> =
            options.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(shown, ["epsilon 1e20", "delta .01", "privacy_unit_column t.id"]);
        assert_eq!(take_options(&mut again).unwrap().unwrap(), options);
        assert!(written.distinct.is_none());
    }

    #[test]
    fn the_words_stay_usable_elsewhere() {
        for text in [
            "SELECT differential_privacy FROM t",
            "WITH differential_privacy AS (SELECT 1 AS a) SELECT a FROM differential_privacy",
            "SELECT 'WITH DIFFERENTIAL_PRIVACY' AS options",
            "SELECT DISTINCT ON (a) a FROM t",
        ] {
            parse(text, 1_000).unwrap();
        }
        assert!(take_options(&mut select("SELECT DISTINCT ON (a) a FROM t")).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let error = parse("SELECT WITH DIFFERENTIAL_PRIVACY item FROM t", 1_000).unwrap_err();
        assert!(error.to_string().contains("no OPTIONS"), "{error}");
        let text = "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1) DISTINCT a FROM t";
        assert!(parse(text, 1_000).unwrap_err().to_string().contains("DISTINCT does not go"));
        let text = "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1) a,, b FROM t";
        let error = parse(text, 1_000).unwrap_err().to_string();
        let column = text.find(",,").unwrap() + 2;
        assert!(error.contains(&format!("column {column}")), "{error}");
        assert!(parse("SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1", 100).is_err());
        let mut wrong = select("SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon) a FROM t");
        assert!(take_options(&mut wrong).is_err());
    }
}
