//! How much work a text may be to read.
//!
//! `sqlparser` tries one reading and, where it fails, another: a word such as CAST as the standard
//! has it and then as any function's name, a parenthesis in FROM as a query and then as a join.
//! Nested, the tries multiply, and a text of a few hundred characters would be read for years by a
//! thread that nothing can stop. So what is read again is counted where the parser asks its
//! dialect, and from [`EFFORT_MAX`] on nothing is read any more. Where it does not ask, in FROM,
//! brackets bound it before it starts.

use std::any::TypeId;
use std::cell::Cell;
use std::iter::Peekable;
use std::str::Chars;

use sqlparser::ast::{ColumnOption, Expr, GranteesType, Ident, ObjectNamePart, Statement};
use sqlparser::dialect::{Dialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::readings;

/// How deep expressions and queries may nest.
pub(crate) const LEVELS_MAX: usize = 64;
/// How deep types may nest, and how often EXPLAIN or INTERVAL may stand before themselves: their
/// levels are read without a limit of the parser's own, each with a large piece of the stack.
const TYPES_MAX: usize = 16;
const REPEATED_MAX: usize = 4;
/// What may be read again, in expressions: less than half a second's work.
const EFFORT_MAX: usize = 200_000;
/// Ways to read the parentheses in front of nested queries, in a short text.
const WAYS_MAX: usize = 4_096;
/// Those that a text of any length may have.
const WAYS_MIN: usize = 256;
/// Tokens of a text after which one way more counts.
const TOKENS_WAYS: usize = 1 << 22;
/// Tokens that going back once may cost, as one expression that is read again does.
const TOKENS_BACK: usize = 256;

/// What is said of a text that is too much work.
pub(crate) const TOO_MUCH: &str = "the statement can be read in too many ways: nested brackets \
                                   around a mistake, or around functions in an unusual form";
/// What to do about it.
pub(crate) const TOO_MUCH_HINT: &str = "look for a missing bracket, comma or AS in the innermost \
                                        part, or give inner parts names: WITH a AS (SELECT …)";

/// Refuses brackets that would be too deep, or too many ways to read.
///
/// # Errors
/// When they are.
pub(crate) fn check_brackets(tokens: &[TokenWithSpan]) -> Result<(), ParserError> {
    let ways_max = (TOKENS_WAYS / tokens.len().max(1)).clamp(WAYS_MIN, WAYS_MAX);
    // Of each open bracket, how often what is in it may be read.
    let mut open: Vec<usize> = Vec::new();
    // Parentheses that stand side by side.
    let mut run = 0;
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen => {
                run += 1;
                open.push(1);
            }
            Token::LBracket | Token::LBrace => {
                run = 0;
                open.push(1);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                run = 0;
                open.pop();
            }
            other => {
                if run > 1
                    && begins_query(other)
                    && let Some(innermost) = open.last_mut()
                {
                    *innermost = run;
                    let ways = open.iter().fold(1_usize, |all, ways| all.saturating_mul(*ways));
                    if ways > ways_max {
                        return Err(too_much());
                    }
                }
                run = 0;
            }
        }
        if open.len() > LEVELS_MAX {
            return Err(ParserError::RecursionLimitExceeded);
        }
    }
    readings::check(tokens)?;
    check_unbounded(tokens)
}

/// Refuses what the parser would follow as deep as a text is long: a full stack ends the server.
fn check_unbounded(tokens: &[TokenWithSpan]) -> Result<(), ParserError> {
    let tokens = tokens.iter().map(|token| &token.token);
    let tokens = tokens.filter(|token| !matches!(token, Token::Whitespace(_)));
    let before_query = tokens.clone().take_while(|token| !is_paren(token) && !begins_query(token));
    let explains = before_query.filter(|token| keyword(token) == Keyword::EXPLAIN).count();
    if explains > REPEATED_MAX {
        return Err(ParserError::ParserError("EXPLAIN explains no other EXPLAIN".to_owned()));
    }
    // Of each open bracket, whether it is the one of a type: ARRAY<…>, STRUCT<…>.
    let mut open: Vec<bool> = Vec::new();
    let mut types = 0_usize;
    let mut intervals = 0;
    let mut before = Keyword::NoKeyword;
    let mut may_open = false;
    for token in tokens {
        // What follows is a type, or in a comparison with a column of such a name a value.
        if may_open && matches!(token, Token::Word(_)) {
            open.push(true);
            types += 1;
        }
        may_open = *token == Token::Lt && matches!(before, Keyword::ARRAY | Keyword::STRUCT);
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(false),
            Token::RParen | Token::RBracket | Token::RBrace => {
                while open.pop() == Some(true) {
                    types -= 1;
                }
            }
            Token::Gt => types -= close_types(&mut open, 1),
            Token::ShiftRight => types -= close_types(&mut open, 2),
            _ => {}
        }
        before = keyword(token);
        intervals = if before == Keyword::INTERVAL { intervals + 1 } else { 0 };
        if types > TYPES_MAX {
            let message = format!("types nest deeper than {TYPES_MAX} levels");
            return Err(ParserError::ParserError(message));
        }
        if intervals > REPEATED_MAX {
            return Err(ParserError::ParserError("INTERVAL is of no other INTERVAL".to_owned()));
        }
    }
    Ok(())
}

/// Closes so many types that are innermost, or as many as there are; says how many.
fn close_types(open: &mut Vec<bool>, most: usize) -> usize {
    let innermost = open.iter().rev().take_while(|is_type| **is_type).count();
    let closed = innermost.min(most);
    open.truncate(open.len() - closed);
    closed
}

fn is_paren(token: &Token) -> bool {
    *token == Token::LParen
}

/// A word's keyword; a quoted word has none.
pub(crate) fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn begins_query(token: &Token) -> bool {
    matches!(
        keyword(token),
        Keyword::SELECT
            | Keyword::WITH
            | Keyword::VALUES
            | Keyword::FROM
            | Keyword::TABLE
            | Keyword::INSERT
            | Keyword::UPDATE
            | Keyword::DELETE
            | Keyword::MERGE
    )
}

/// The error of a text that is too much work.
pub(crate) fn too_much() -> ParserError {
    ParserError::ParserError(TOO_MUCH.to_owned())
}

/// Reads a text that is no statement of Attune's own, by a dialect.
///
/// # Errors
/// Those of `parse`, and when the text is too much work.
pub(crate) fn read<D: Dialect, T>(
    dialect: D,
    text: &str,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T, ParserError> {
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location()?;
    check_brackets(&tokens)?;
    let dialect = Bounded::new(dialect, tokens.len());
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let read = parse(&mut parser);
    // Without effort left, a word's second reading may pass for what was meant.
    if dialect.is_exhausted() { Err(too_much()) } else { read }
}

/// A dialect that stops reading when a text is too much work.
#[derive(Debug)]
pub(crate) struct Bounded<D> {
    inner: D,
    /// What going back to an earlier token costs: what follows it may all be read again.
    back: usize,
    left: Cell<usize>,
    /// The token at which the last expression began.
    last: Cell<usize>,
    /// The farthest at which one began.
    farthest: Cell<usize>,
    /// Whether the last one had begun before.
    again: Cell<bool>,
}

impl<D> Bounded<D> {
    /// For a text of so many tokens.
    pub(crate) fn new(inner: D, tokens: usize) -> Self {
        Self {
            inner,
            back: 1 + tokens / TOKENS_BACK,
            left: Cell::new(tokens.saturating_mul(8).saturating_add(EFFORT_MAX)),
            last: Cell::new(0),
            farthest: Cell::new(0),
            again: Cell::new(false),
        }
    }

    /// Whether the text was too much work.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    fn spend(&self, effort: usize) {
        self.left.set(self.left.get().saturating_sub(effort));
    }

    /// An expression begins behind a token.
    fn begin(&self, at: usize) {
        self.again.set(at <= self.farthest.get());
        if at <= self.last.replace(at) {
            self.spend(self.back);
        } else if self.again.get() {
            self.spend(1);
        }
        self.farthest.set(self.farthest.get().max(at));
    }
}

/// What the dialect itself says.
macro_rules! as_the_dialect {
    ($($flag:ident),* $(,)?) => {
        $(fn $flag(&self) -> bool {
            self.inner.$flag()
        })*
    };
}

impl<D: Dialect> Dialect for Bounded<D> {
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        self.begin(parser.get_current_index());
        if self.is_exhausted() {
            // The one error after which the parser tries nothing else.
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        self.inner.parse_prefix(parser)
    }

    // Asked once for each query.
    fn prec_unknown(&self) -> u8 {
        self.spend(1);
        self.inner.prec_unknown()
    }

    // Asked once for each table of a list, which has no expressions.
    fn supports_values_as_table_factor(&self) -> bool {
        if self.again.get() {
            self.spend(1);
        }
        self.inner.supports_values_as_table_factor()
    }

    fn dialect(&self) -> TypeId {
        self.inner.dialect()
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        self.inner.is_delimited_identifier_start(character)
    }

    fn is_nested_delimited_identifier_start(&self, character: char) -> bool {
        self.inner.is_nested_delimited_identifier_start(character)
    }

    fn peek_nested_delimited_identifier_quotes(
        &self,
        characters: Peekable<Chars<'_>>,
    ) -> Option<(char, Option<char>)> {
        self.inner.peek_nested_delimited_identifier_quotes(characters)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.inner.identifier_quote_style(identifier)
    }

    fn is_identifier_start(&self, character: char) -> bool {
        self.inner.is_identifier_start(character)
    }

    fn is_identifier_part(&self, character: char) -> bool {
        self.inner.is_identifier_part(character)
    }

    fn is_custom_operator_part(&self, character: char) -> bool {
        self.inner.is_custom_operator_part(character)
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        self.inner.parse_infix(parser, left, precedence)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        self.inner.get_next_precedence(parser)
    }

    fn get_next_precedence_default(&self, parser: &Parser<'_>) -> Result<u8, ParserError> {
        self.inner.get_next_precedence_default(parser)
    }

    fn parse_statement(&self, parser: &mut Parser<'_>) -> Option<Result<Statement, ParserError>> {
        self.inner.parse_statement(parser)
    }

    fn parse_column_option(
        &self,
        parser: &mut Parser<'_>,
    ) -> Result<Option<Result<Option<ColumnOption>, ParserError>>, ParserError> {
        self.inner.parse_column_option(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        self.inner.prec_value(precedence)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        self.inner.is_reserved_for_identifier(keyword)
    }

    fn get_reserved_keywords_for_select_item_operator(&self) -> &[Keyword] {
        self.inner.get_reserved_keywords_for_select_item_operator()
    }

    fn get_reserved_grantees_types(&self) -> &[GranteesType] {
        self.inner.get_reserved_grantees_types()
    }

    fn is_column_alias(&self, keyword: &Keyword, parser: &mut Parser<'_>) -> bool {
        self.inner.is_column_alias(keyword, parser)
    }

    fn is_select_item_alias(
        &self,
        explicit: bool,
        keyword: &Keyword,
        parser: &mut Parser<'_>,
    ) -> bool {
        self.inner.is_select_item_alias(explicit, keyword, parser)
    }

    fn is_table_factor(&self, keyword: &Keyword, parser: &mut Parser<'_>) -> bool {
        self.inner.is_table_factor(keyword, parser)
    }

    fn is_table_alias(&self, keyword: &Keyword, parser: &mut Parser<'_>) -> bool {
        self.inner.is_table_alias(keyword, parser)
    }

    fn is_table_factor_alias(
        &self,
        explicit: bool,
        keyword: &Keyword,
        parser: &mut Parser<'_>,
    ) -> bool {
        self.inner.is_table_factor_alias(explicit, keyword, parser)
    }

    fn is_identifier_generating_function_name(
        &self,
        name: &Ident,
        parts: &[ObjectNamePart],
    ) -> bool {
        self.inner.is_identifier_generating_function_name(name, parts)
    }

    as_the_dialect! {
        supports_string_literal_backslash_escape, ignores_wildcard_escapes,
        supports_unicode_string_literal, supports_filter_during_aggregation,
        supports_window_clause_named_window_reference, supports_within_after_array_aggregation,
        supports_partition_by_after_order_by, supports_array_join_syntax, supports_group_by_expr,
        supports_group_by_with_modifier, supports_left_associative_joins_without_parens,
        supports_outer_join_operator, supports_cross_join_constraint, supports_connect_by,
        supports_execute_immediate, supports_match_recognize, supports_in_empty_list,
        supports_start_transaction_modifier, supports_end_transaction_modifier,
        supports_named_fn_args_with_eq_operator, supports_named_fn_args_with_colon_operator,
        supports_named_fn_args_with_assignment_operator,
        supports_named_fn_args_with_rarrow_operator, supports_named_fn_args_with_expr_name,
        supports_numeric_prefix, supports_numeric_literal_underscores,
        supports_window_function_null_treatment_arg, supports_dictionary_syntax,
        support_map_literal_syntax, supports_lambda_functions, supports_parenthesized_set_variables,
        supports_comma_separated_set_assignments, supports_update_order_by,
        supports_select_wildcard_except, convert_type_before_value, supports_triple_quoted_string,
        supports_trailing_commas, supports_limit_comma, supports_string_literal_concatenation,
        supports_string_literal_concatenation_with_newline, supports_projection_trailing_commas,
        supports_from_trailing_commas, supports_column_definition_trailing_commas,
        supports_object_name_double_dot_notation, supports_struct_literal,
        supports_empty_projections, supports_select_expr_star, supports_from_first_select,
        supports_from_first_insert, supports_pipe_operator, supports_user_host_grantee,
        supports_match_against, supports_select_wildcard_exclude, supports_select_exclude,
        supports_create_table_multi_schema_info_sources, supports_select_modifiers,
        describe_requires_table_keyword, allow_extract_custom, allow_extract_single_quotes,
        supports_extract_comma_syntax, supports_subquery_as_function_arg,
        supports_create_view_comment_syntax, supports_array_typedef_without_element_type,
        supports_parens_around_table_factor,
        supports_dollar_placeholder, supports_dollar_as_money_prefix,
        supports_create_index_with_clause, require_interval_qualifier,
        supports_explain_with_utility_options, supports_asc_desc_in_column_definition,
        supports_factorial_operator, supports_bitwise_shift_operators, supports_nested_comments,
        supports_multiline_comment_hints, supports_eq_alias_assignment, supports_try_convert,
        supports_bang_not_operator, supports_listen_notify, supports_load_data,
        supports_load_extension, supports_top_before_distinct, supports_boolean_literals,
        supports_show_like_before_in, supports_comment_on, supports_create_table_select,
        supports_partiql, supports_constraint_keyword_without_name, supports_key_column_option,
        supports_table_sample_before_alias, supports_insert_set, supports_insert_table_function,
        supports_insert_table_query, supports_insert_format, supports_insert_table_alias,
        supports_set_stmt_without_operator, supports_table_versioning,
        supports_string_escape_constant, supports_table_hints,
        requires_single_line_comment_whitespace, supports_array_typedef_with_brackets,
        supports_geometric_types, supports_order_by_all, supports_set_names,
        supports_space_separated_column_options, supports_alter_column_type_using,
        supports_comma_separated_drop_column_list, supports_notnull_operator,
        supports_data_type_signed_suffix, supports_interval_options,
        supports_create_table_like_parenthesized, supports_semantic_view_table_factor,
        supports_quote_delimited_string, supports_comment_optimizer_hint,
        supports_double_ampersand_operator, supports_binary_kw_as_cast,
        supports_select_wildcard_replace, supports_select_wildcard_ilike,
        supports_select_wildcard_rename, supports_select_wildcard_with_alias,
        supports_optimize_table, supports_install, supports_detach, supports_prewhere,
        supports_with_fill, supports_limit_by, supports_interpolate, supports_settings,
        supports_select_format, supports_comma_separated_trim, supports_cte_without_as,
        supports_select_item_multi_column_alias, supports_xml_expressions,
        supports_create_table_using, supports_long_type_as_bigint,
        supports_map_literal_with_angle_brackets,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::parse::parse;

    fn nested(opens: &str, closes: &str, levels: usize) -> String {
        format!("SELECT {}1{}", opens.repeat(levels), closes.repeat(levels))
    }

    /// Whatever is nested, and however deep, there is an answer or an error soon.
    #[test]
    fn no_text_is_read_for_long() {
        let shapes = [
            ("CAST(", " AS BIGINT)"),
            ("CAST(", " AS BIGINT)x"),
            ("TRY_CAST(", " AS BIGINT)"),
            ("TRY_CAST(", " AS BIGINT)x"),
            ("CEIL(", ")"),
            ("CEIL(", ")x"),
            ("SUBSTRING(", ", 1)"),
            ("SUBSTRING(", ", 1)x"),
            ("OVERLAY(", ", 'b', 1, 1)"),
            ("TRIM(", ")x"),
            ("POSITION(", ", 'b')"),
            ("EXTRACT(year FROM ", ")x"),
            ("NOT (", ")"),
            ("NOT (", ")x"),
            ("ARRAY[", "]"),
            ("ARRAY[", "]x"),
            ("1 IN ((SELECT ", "))"),
            ("1 IN ((SELECT ", ") x y)"),
            ("(SELECT * FROM ((SELECT * FROM ", ") x))"),
            ("(SELECT * FROM (((SELECT * FROM ", ") x y z)))"),
            ("CASE WHEN (", ") THEN 1 END x"),
            ("a.", "+"),
        ];
        for (opens, closes) in shapes {
            for levels in [16, 24, 62, 500] {
                let began = Instant::now();
                let text = nested(opens, closes, levels);
                if let Err(error) = parse(&text, usize::MAX) {
                    assert_eq!(error.code(), "ATT-1001", "{opens} at {levels}: {error}");
                }
                let took = began.elapsed();
                assert!(took < Duration::from_secs(30), "{opens} at {levels}: {took:?}");
            }
        }
    }

    #[test]
    fn what_programs_write_is_read() {
        for text in [
            nested("(", ")", 50),
            nested("abs(", ")", 50),
            nested("CAST(", " AS BIGINT)", 50),
            nested("coalesce(NULL, ", ")", 50),
            nested("OVERLAY(", ", 'b', 1, 1)", 10),
            format!("SELECT * FROM {}t{}", "(".repeat(20), " JOIN u ON true)".repeat(20)),
            format!("SELECT * FROM {}SELECT 1{}", "(".repeat(20), ") a JOIN u ON true".repeat(20)),
            format!("SELECT * FROM {}t{}", "((SELECT * FROM ".repeat(6), ") a)".repeat(6)),
            format!("SELECT {}1", "CAST(1 AS BIGINT), OVERLAY('a', 'b', 1, 1), ".repeat(2_000)),
        ] {
            parse(&text, usize::MAX).unwrap_or_else(|error| panic!("{error}: {text}"));
        }
    }

    /// Each would fill the stack, which ends the process.
    #[test]
    fn what_the_parser_reads_without_a_limit_has_one() {
        let many = 50_000;
        for text in [
            format!("SELECT {}'1' DAY", "INTERVAL ".repeat(many)),
            format!("{}SELECT 1", "EXPLAIN ".repeat(many)),
            format!("{}SELECT 1", "EXPLAIN ANALYZE VERBOSE FORMAT tree ".repeat(many)),
            format!("SELECT CAST(NULL AS {}INT{})", "ARRAY<".repeat(many), ">".repeat(many)),
            format!("SELECT CAST(NULL AS {}INT{})", "ARRAY<".repeat(many), ">>".repeat(many / 2)),
            format!("SELECT {}a INT", "STRUCT<a INT, b ".repeat(many)),
            format!("SELECT {}a INT", "STRUCT<a INT OPTIONS (x = 1 > 0), b ".repeat(many)),
        ] {
            let error = parse(&text, usize::MAX).unwrap_err();
            assert_eq!(error.code(), "ATT-1001", "{error}");
        }
        for text in [
            "SELECT INTERVAL '1' DAY + INTERVAL '2' HOUR".to_owned(),
            format!("SELECT {}1", "CAST(NULL AS ARRAY<ARRAY<INT>>), ".repeat(100)),
            format!("SELECT 1 FROM t WHERE {}true", "\"array\" < b AND ".repeat(100)),
        ] {
            parse(&text, usize::MAX).unwrap_or_else(|error| panic!("{error}: {text}"));
        }
    }

    /// A list of tables has no expressions, and is counted as well.
    #[test]
    fn a_long_list_of_tables_is_not_read_hundreds_of_times() {
        let tables = "a,".repeat(20_000);
        let text = nested("CEIL(", ")x", 11).replace('1', &format!("(SELECT * FROM {tables}a)"));
        let began = Instant::now();
        assert!(parse(&text, usize::MAX).is_err());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(60), "{took:?}");
    }

    #[test]
    fn a_mistake_in_nested_casts_is_shown_where_it_is() {
        let text = nested("CAST(", " AS BIGINT)x", 40);
        let error = parse(&text, usize::MAX).unwrap_err();
        assert!(error.to_string().contains("Expected: AS, found: x"), "{error}");
    }
}
