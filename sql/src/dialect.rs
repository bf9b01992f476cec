//! Attune's SQL dialect: what `sqlparser` reads beyond and below the standard.
//!
//! Unquoted names fold to lower case (the planner does that), `"x"` quotes a name, `` `x` `` too.
//! `MODEL name[@version]` is an expression only as a function's first argument, so that a column
//! may still be called `model`.

use sqlparser::ast::{CastKind, Expr, Ident, Value, ValueWithSpan};
use sqlparser::dialect::{Dialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Word};

/// The prefix that marks a model reference in the syntax tree.
pub const MODEL_MARKER: &str = "MODEL";

/// Attune's dialect.
#[derive(Debug, Default, Clone, Copy)]
pub struct AttuneDialect;

impl Dialect for AttuneDialect {
    fn is_delimited_identifier_start(&self, character: char) -> bool {
        character == '"' || character == '`'
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('"')
    }

    fn is_identifier_start(&self, character: char) -> bool {
        character.is_alphabetic() || character == '_'
    }

    // `@` is no part of a name: `m@3` is version 3 of model m.
    fn is_identifier_part(&self, character: char) -> bool {
        character.is_alphanumeric() || character == '_' || character == '$'
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_string_escape_constant(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_group_by_with_modifier(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn supports_within_after_array_aggregation(&self) -> bool {
        true
    }

    fn supports_dictionary_syntax(&self) -> bool {
        true
    }

    fn support_map_literal_syntax(&self) -> bool {
        true
    }

    fn supports_struct_literal(&self) -> bool {
        true
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }

    fn supports_select_wildcard_except(&self) -> bool {
        true
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    fn supports_select_wildcard_replace(&self) -> bool {
        true
    }

    fn supports_projection_trailing_commas(&self) -> bool {
        true
    }

    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }

    fn supports_values_as_table_factor(&self) -> bool {
        true
    }

    fn supports_from_first_select(&self) -> bool {
        true
    }

    fn supports_lambda_functions(&self) -> bool {
        false
    }

    fn supports_left_associative_joins_without_parens(&self) -> bool {
        true
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }

    fn supports_extract_comma_syntax(&self) -> bool {
        true
    }

    fn supports_try_convert(&self) -> bool {
        true
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn supports_nested_comments(&self) -> bool {
        true
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        true
    }

    fn supports_limit_comma(&self) -> bool {
        true
    }

    fn supports_comma_separated_trim(&self) -> bool {
        true
    }

    fn supports_interval_options(&self) -> bool {
        true
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_explain_with_utility_options(&self) -> bool {
        false
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        // A cast is nothing else: what is wrong in it is not looked for a second time.
        if let Some(kind) = opens_cast(parser) {
            parser.advance_token();
            return Some(parser.parse_cast_expr(kind));
        }
        if !is_word(&parser.peek_token_ref().token, MODEL_MARKER) || !follows_open_call(parser) {
            return None;
        }
        // A name, or the text as which a syntax tree shows one.
        let is_text = match parser.peek_nth_token_ref(1).token {
            Token::Word(_) => false,
            Token::SingleQuotedString(_) => true,
            _ => return None,
        };
        parser.advance_token();
        let name = match is_text {
            true => parser.parse_literal_string(),
            false => parse_model_reference(parser),
        };
        Some(name.map(model_marker))
    }

    /// `a IS DISTINCT FROM b AND c` compares with `b` alone; `sqlparser` reads on to the end.
    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        const IS: [Keyword; 3] = [Keyword::IS, Keyword::DISTINCT, Keyword::FROM];
        const IS_NOT: [Keyword; 4] = [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM];
        let make: fn(Box<Expr>, Box<Expr>) -> Expr = if parser.parse_keywords(&IS) {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&IS_NOT) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(right.map(|right| make(Box::new(left.clone()), Box::new(right))))
    }
}

/// `schema.name@version` as text, from `schema.name@version` in the statement.
///
/// # Errors
/// When what follows is no model name.
pub fn parse_model_reference(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    let name = parser.parse_object_name(false)?;
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect();
    let mut text = parts.join(".");
    if parser.consume_token(&Token::AtSign) {
        let version = parser.parse_literal_uint()?;
        text.push_str(&format!("@{version}"));
    }
    Ok(text)
}

/// The name as the catalog spells it: lower case unless quoted.
pub fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Whether a token is the unquoted word.
pub fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. })
        if value.eq_ignore_ascii_case(word))
}

/// The model name inside a marker made by this dialect.
pub fn marked_model(expr: &Expr) -> Option<&str> {
    let Expr::Prefixed { prefix, value } = expr else { return None };
    if prefix.value != MODEL_MARKER {
        return None;
    }
    match value.as_ref() {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(name), .. }) => Some(name),
        _ => None,
    }
}

fn model_marker(name: String) -> Expr {
    Expr::Prefixed {
        prefix: Ident::new(MODEL_MARKER),
        value: Box::new(Expr::Value(Value::SingleQuotedString(name).with_empty_span())),
    }
}

/// The kind of the cast that comes next, `CAST (`.
fn opens_cast(parser: &Parser<'_>) -> Option<CastKind> {
    let Token::Word(word) = &parser.peek_token_ref().token else { return None };
    let kind = match word.keyword {
        Keyword::CAST => CastKind::Cast,
        Keyword::TRY_CAST => CastKind::TryCast,
        Keyword::SAFE_CAST => CastKind::SafeCast,
        _ => return None,
    };
    (parser.peek_nth_token_ref(1).token == Token::LParen).then_some(kind)
}

/// Whether the last token opened the arguments of a call: `name (`.
fn follows_open_call(parser: &Parser<'_>) -> bool {
    let index = parser.get_current_index();
    if parser.token_at(index).token != Token::LParen {
        return false;
    }
    match index.checked_sub(1).map(|before| &parser.token_at(before).token) {
        Some(Token::Word(word)) => word.keyword == Keyword::NoKeyword || !is_clause(word.keyword),
        _ => false,
    }
}

/// Words after which a parenthesis opens an expression rather than a call.
fn is_clause(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::IN
            | Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::WHERE
            | Keyword::ON
            | Keyword::HAVING
            | Keyword::BY
            | Keyword::VALUES
            | Keyword::AS
            | Keyword::FROM
            | Keyword::JOIN
            | Keyword::USING
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::EXISTS
            | Keyword::ANY
            | Keyword::ALL
    )
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use sqlparser::ast::visit_expressions_mut;

    use super::*;

    fn expression(text: &str) -> Expr {
        Parser::new(&AttuneDialect).try_with_sql(text).unwrap().parse_expr().unwrap()
    }

    #[test]
    fn a_model_is_marked_only_as_a_first_argument() {
        let Expr::Function(call) = expression("ML.RECOMMEND(MODEL Main.\"Shop\"@3, 10)") else {
            panic!("no call")
        };
        assert!(call.args.to_string().contains("main.Shop@3"), "{}", call.args);
        let again = expression("ML.RECOMMEND(MODEL Main.\"Shop\"@3, 10)").to_string();
        assert_eq!(expression(&again).to_string(), again);
        assert!(matches!(expression("model"), Expr::Identifier(_)));
        assert!(matches!(expression("f(model)"), Expr::Function(_)));
        assert!(!expression("f(1, model)").to_string().contains('\''));
    }

    #[test]
    fn what_is_distinct_ends_where_and_begins() {
        for (text, parts) in [
            ("a IS NOT DISTINCT FROM b AND c", "(a IS NOT DISTINCT FROM b) AND c"),
            ("a IS DISTINCT FROM b OR c AND d", "(a IS DISTINCT FROM b) OR c AND d"),
            ("NOT a IS DISTINCT FROM b", "NOT (a IS DISTINCT FROM b)"),
            ("a IS DISTINCT FROM b IS NULL", "(a IS DISTINCT FROM b) IS NULL"),
            ("a IS DISTINCT FROM b + d AND c", "(a IS DISTINCT FROM (b + d)) AND c"),
            ("a = d AND b IS DISTINCT FROM (c OR d)", "a = d AND (b IS DISTINCT FROM (c OR d))"),
            (
                "CASE WHEN a IS DISTINCT FROM b THEN c END",
                "CASE WHEN (a IS DISTINCT FROM b) THEN c END",
            ),
        ] {
            let bare = |text: &str| {
                let mut tree = expression(text);
                let _: ControlFlow<()> = visit_expressions_mut(&mut tree, |part| {
                    if let Expr::Nested(inner) = part {
                        *part = inner.as_ref().clone();
                    }
                    ControlFlow::Continue(())
                });
                tree
            };
            assert_eq!(bare(text), bare(parts), "{text}");
        }
    }

    #[test]
    fn words_of_the_dialect_stay_usable_as_names() {
        for text in
            ["SELECT model AS y FROM t", "SELECT m.model, model + 1 FROM m WHERE (model) > 1"]
        {
            Parser::parse_sql(&AttuneDialect, text).unwrap();
        }
    }
}
