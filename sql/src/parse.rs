//! From text to statements.
//!
//! Attune's own verbs (CREATE MODEL, RETRAIN, SHOW MODELS, …) are parsed here, in front of
//! DataFusion's parser, which reads everything else. `?` placeholders become `$1`, `$2`, … on the
//! token stream, so that their place in the text does not change. A syntax error shows its line
//! with a caret.

use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement as DataFusionStatement};
use sqlparser::ast::{Expr, ObjectName, Query};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::access::syntax::{self, AccessStatement};
use crate::consent::{self, ConsentStatement};
use crate::dialect::{AttuneDialect, is_word, parse_model_reference};
use crate::effort::{self, Bounded, LEVELS_MAX};
use crate::error::{Error, Result};
use crate::expectation::{self, ExpectationStatement};
use crate::key;
use crate::key::syntax::KeyStatement;
use crate::kill::Kill;
use crate::pii::syntax as pii;
use crate::policy::syntax::{self as policy, PolicyStatement};
use crate::private::{self, PrivacyStatement};
use crate::subject::syntax::{self as subject, SubjectStatement};
use crate::table::cluster;
use crate::tokens::{self, TokenStatement};

/// A statement of Attune.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// Everything that DataFusion's parser knows.
    DataFusion(Box<DataFusionStatement>),
    /// `CREATE MODEL`.
    CreateModel(Box<CreateModel>),
    /// `EXPLAIN CREATE MODEL`.
    ExplainModel(Box<CreateModel>),
    /// `RETRAIN MODEL m [OPTIONS (…)]`.
    Retrain {
        /// The model.
        name: String,
        /// The options in the order written, keys in lower case.
        options: Vec<(String, Expr)>,
    },
    /// `DROP MODEL [IF EXISTS] m`.
    DropModel {
        /// The model.
        name: String,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// `ALTER MODEL m SET DEFAULT_VERSION = n`.
    SetDefaultVersion {
        /// The model.
        name: String,
        /// The version that `m` means from now on.
        version: u32,
    },
    /// `ALTER MODEL m SET (name = value, …)`.
    SetModelOptions {
        /// The model.
        name: String,
        /// The options in the order written, keys in lower case.
        options: Vec<(String, Expr)>,
    },
    /// `SHOW MODELS`, `SHOW TABLES`, `SHOW SCHEMAS`, `SHOW FUNCTIONS`, `SHOW QUERIES`.
    Show(Listing),
    /// `CREATE TOKEN`, `DROP TOKEN`.
    Token(TokenStatement),
    /// `KILL QUERY 'id'`, `KILL SESSION 'id'`.
    Kill(Kill),
    /// Expectations and checks.
    Expectation(Box<ExpectationStatement>),
    /// Privacy policies.
    Privacy(Box<PrivacyStatement>),
    /// Users, roles and grants.
    Access(Box<AccessStatement>),
    /// Keys.
    Key(KeyStatement),
    /// Policies and tags.
    Policy(Box<PolicyStatement>),
    /// Purposes and consent.
    Consent(Box<ConsentStatement>),
    /// Subjects and requests of persons.
    Subject(Box<SubjectStatement>),
    /// A statement that is planned for later, with what to use instead.
    Later(&'static str, &'static str),
    /// `DESCRIBE MODEL m`.
    DescribeModel {
        /// The model.
        name: String,
    },
}

/// What a `SHOW` statement lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Models with their default version.
    Models,
    /// Tables and views.
    Tables,
    /// Schemas.
    Schemas,
    /// Functions with their documentation.
    Functions,
    /// Open sessions.
    Sessions,
    /// API tokens.
    Tokens,
    /// Users.
    Users,
    /// Roles.
    Roles,
    /// Keys.
    Keys,
}

/// `CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name OPTIONS (…) AS query`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateModel {
    /// Its name, as `schema.name` or `name`.
    pub name: String,
    /// OR REPLACE.
    pub replace: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The options in the order written, keys in lower case.
    pub options: Vec<(String, Expr)>,
    /// The training query.
    pub query: Box<Query>,
}

/// Splits a script at its semicolons; quotes and comments are respected.
///
/// # Errors
/// When a quote or comment is not closed.
pub fn split(text: &str) -> Result<Vec<String>> {
    let tokens = tokenize(text)?;
    let offsets = line_offsets(text);
    let mut statements = Vec::new();
    let mut start = 0;
    let mut content = false;
    for token in &tokens {
        match token.token {
            Token::SemiColon => {
                let at =
                    byte_offset(text, &offsets, token.span.start.line, token.span.start.column);
                if content {
                    statements.push(text[start..at].trim().to_owned());
                }
                start = at + 1;
                content = false;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => content = true,
        }
    }
    if content {
        statements.push(text[start..].trim().to_owned());
    }
    Ok(statements)
}

/// Parses one statement.
///
/// # Errors
/// When the text is longer than `bytes_max`, holds no statement or several, or is no SQL.
pub fn parse(text: &str, bytes_max: usize) -> Result<Statement> {
    if text.len() > bytes_max {
        return Err(Error::Exhausted {
            what: format!("the statement has {} bytes, the limit is {bytes_max}", text.len()),
        });
    }
    let mut tokens = number_placeholders(tokenize(text)?)?;
    effort::check_brackets(&tokens).map_err(|error| located(text, error.into()))?;
    crate::size::check_tokens(&tokens)?;
    let cluster_by = cluster::take(&mut tokens)?;
    let with = pii::take(&mut tokens)?;
    let tokens = private::clause::take(tokens)?;
    let dialect = Bounded::new(AttuneDialect, tokens.len());
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&dialect)
        .with_recursion_limit(LEVELS_MAX)
        .build()
        .map_err(Error::from)?;
    while parser.parser.consume_token(&Token::SemiColon) {}
    if parser.parser.peek_token_ref().token == Token::EOF {
        return Err(Error::Syntax {
            message: "there is no statement".into(),
            excerpt: String::new(),
            hint: Some("write one, for example SHOW TABLES".into()),
        });
    }
    let read = parse_statement(&mut parser);
    // Without effort left, a word's second reading may pass for what was meant.
    if dialect.is_exhausted() {
        return Err(located(text, Failure { message: effort::TOO_MUCH.to_owned(), place: None }));
    }
    let mut statement = read.map_err(|error| located(text, error))?;
    cluster::attach(&mut statement, cluster_by);
    pii::attach(&mut statement, with);
    while parser.parser.consume_token(&Token::SemiColon) {}
    match parser.parser.peek_token_ref().token {
        Token::EOF => Ok(statement),
        _ => {
            let found = parser.parser.peek_token_ref().clone();
            let message = format!("expected the end of the statement, found {found}");
            Err(located(text, Failure::at(message, &found)))
        }
    }
}

/// Parses a query that a definition holds (a view's, a model's).
///
/// # Errors
/// When the text is no query.
pub fn parse_query(text: &str) -> Result<Box<Query>> {
    let statement = parse(text, usize::MAX)?;
    if let Statement::DataFusion(statement) = statement
        && let DataFusionStatement::Statement(statement) = *statement
        && let sqlparser::ast::Statement::Query(query) = *statement
    {
        return Ok(query);
    }
    Err(Error::invalid("the stored definition is no query"))
}

/// A parser's failure with its place, when it is known.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    place: Option<(u64, u64)>,
}

impl Failure {
    pub(crate) fn at(message: String, token: &TokenWithSpan) -> Self {
        let start = token.span.start;
        Self { message, place: (start.line > 0).then_some((start.line, start.column)) }
    }
}

impl From<ParserError> for Failure {
    fn from(error: ParserError) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => {
                format!("the statement nests deeper than {LEVELS_MAX} levels")
            }
        };
        match text.rsplit_once(" at Line: ") {
            Some((message, place)) => {
                let numbers: Vec<u64> = place
                    .split(|character: char| !character.is_ascii_digit())
                    .filter_map(|number| number.parse().ok())
                    .collect();
                let place = numbers.first().copied().zip(numbers.get(1).copied());
                Self { message: message.to_owned(), place }
            }
            None => Self { message: text, place: None },
        }
    }
}

impl From<datafusion::error::DataFusionError> for Failure {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as E;
        match error {
            E::SQL(inner, _) => Self::from(*inner),
            E::Diagnostic(_, inner) | E::Context(_, inner) => Self::from(*inner),
            other => Self { message: other.strip_backtrace(), place: None },
        }
    }
}

fn located(text: &str, failure: Failure) -> Error {
    if syntax::may_hold_password(text) {
        return syntax::unreadable(failure.place);
    }
    // What is missing at the end has no token of its own.
    let end = || failure.message.ends_with("found: EOF").then(|| end_of(text));
    let place = failure.place.or_else(end);
    let excerpt = place.and_then(|(line, column)| excerpt(text, line, column));
    let hint = match failure.message.as_str() {
        effort::TOO_MUCH => Some(effort::TOO_MUCH_HINT),
        message if message.contains("Expected") => {
            Some("names that are SQL words need double quotes; text needs single quotes")
        }
        _ => None,
    };
    let hint = hint.map(str::to_owned);
    let message = failure.message.trim_start_matches("sql parser error: ").to_owned();
    Error::Syntax { message, excerpt: excerpt.unwrap_or_default(), hint }
}

/// Line and column behind the last character that is no white space.
fn end_of(text: &str) -> (u64, u64) {
    let text = text.trim_end();
    let last = text.lines().next_back().unwrap_or_default();
    (text.lines().count() as u64, last.chars().count() as u64 + 1)
}

/// The line at fault, cut to a screen's width, with a caret below the column.
fn excerpt(text: &str, line: u64, column: u64) -> Option<String> {
    let source = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let column = usize::try_from(column).ok()?.saturating_sub(1);
    let first = column.saturating_sub(60);
    let shown: String = source.chars().skip(first).take(100).collect();
    let caret = " ".repeat(column - first);
    Some(format!("\nline {line}, column {}:\n  {shown}\n  {caret}^", column + 1))
}

fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>> {
    Tokenizer::new(&AttuneDialect, text).tokenize_with_location().map_err(|error| {
        let place = (error.location.line, error.location.column);
        located(text, Failure { message: error.message, place: Some(place) })
    })
}

/// `?` becomes `$1`, `$2`, … from left to right.
fn number_placeholders(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut positional = 0;
    let mut named = false;
    for token in &mut tokens {
        let Token::Placeholder(text) = &mut token.token else { continue };
        if text == "?" {
            positional += 1;
            *text = format!("${positional}");
        } else {
            named = true;
            if !text.starts_with('$') || text[1..].parse::<u16>().is_err() {
                return Err(Error::invalid_hint(
                    format!("{text} is no parameter"),
                    "write ? or $1, $2, …",
                ));
            }
        }
    }
    if positional > 0 && named {
        return Err(Error::invalid_hint(
            "? and $1 cannot be used in one statement",
            "write all parameters in one way",
        ));
    }
    Ok(tokens)
}

fn line_offsets(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// The byte at a line and column (both from 1, columns in characters).
fn byte_offset(text: &str, lines: &[usize], line: u64, column: u64) -> usize {
    let line = usize::try_from(line).unwrap_or(1).saturating_sub(1);
    let start = lines.get(line).copied().unwrap_or(text.len());
    let skipped = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    let rest = &text[start..];
    start + rest.char_indices().nth(skipped).map_or(rest.len(), |(at, _)| at)
}

fn parse_statement(parser: &mut DFParser<'_>) -> Result<Statement, Failure> {
    let words = leading_words(parser);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["create", "model", ..] | ["create", "or", "replace", "model", ..] => {
            Ok(Statement::CreateModel(Box::new(parse_create_model(parser)?)))
        }
        ["explain", "create", "model", ..]
        | ["explain", "create", "or", "replace", "model", ..] => {
            parser.parser.next_token();
            Ok(Statement::ExplainModel(Box::new(parse_create_model(parser)?)))
        }
        ["retrain", "model", ..] => {
            skip(parser, 2);
            let parser = &mut parser.parser;
            let name = parse_model_reference(parser)?;
            Ok(Statement::Retrain { name, options: parse_options(parser)? })
        }
        ["drop", "model", ..] => {
            skip(parser, 2);
            let if_exists = parser.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            Ok(Statement::DropModel { name: parse_model_reference(&mut parser.parser)?, if_exists })
        }
        ["alter", "model", ..] => parse_alter_model(parser),
        ["describe" | "desc", "model", ..] => {
            skip(parser, 2);
            Ok(Statement::DescribeModel { name: parse_model_reference(&mut parser.parser)? })
        }
        ["create", "token", ..] => {
            skip(parser, 2);
            Ok(Statement::Token(tokens::parse_create(parser)?))
        }
        ["drop", "token", ..] => {
            skip(parser, 2);
            Ok(Statement::Token(tokens::parse_drop(parser)?))
        }
        ["kill", "session", ..] => {
            skip(parser, 2);
            Ok(Statement::Kill(Kill::Session(parser.parser.parse_literal_string()?)))
        }
        ["kill", "query", ..] => {
            skip(parser, 2);
            Ok(Statement::Kill(Kill::Query(parser.parser.parse_literal_string()?)))
        }
        ["show", "models"] => show(parser, Listing::Models),
        ["show", "tables"] => show(parser, Listing::Tables),
        ["show", "schemas"] => show(parser, Listing::Schemas),
        ["show", "functions"] => show(parser, Listing::Functions),
        ["show", "sessions"] => show(parser, Listing::Sessions),
        ["show", "tokens"] => show(parser, Listing::Tokens),
        ["show", "users"] => show(parser, Listing::Users),
        ["show", "roles"] => show(parser, Listing::Roles),
        ["show", "keys"] => show(parser, Listing::Keys),
        words if private::syntax::is_ours(words) => private::syntax::parse(parser, words),
        words if expectation::syntax::is_ours(words) => expectation::syntax::parse(parser, words),
        words if key::syntax::is_ours(words, parser) => key::syntax::parse(parser, words),
        words if policy::is_ours(words) => policy::parse(parser, words),
        ["alter", "table", ..] if policy::is_of_tag(parser) => policy::parse(parser, &words),
        words if consent::syntax::is_ours(parser, words) => consent::syntax::parse(parser, words),
        words if subject::is_ours(words) => subject::parse(parser, words),
        words if syntax::is_ours(words) => syntax::parse(parser, words),
        _ => Ok(Statement::DataFusion(Box::new(parser.parse_statement()?))),
    }
}

fn show(parser: &mut DFParser<'_>, listing: Listing) -> Result<Statement, Failure> {
    skip(parser, 2);
    Ok(Statement::Show(listing))
}

pub(crate) fn skip(parser: &mut DFParser<'_>, tokens: usize) {
    for _ in 0..tokens {
        parser.parser.next_token();
    }
}

/// Up to twelve unquoted words that begin the statement, in lower case.
fn leading_words(parser: &DFParser<'_>) -> Vec<String> {
    (0..12)
        .map_while(|n| match &parser.parser.peek_nth_token_ref(n).token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
            _ => None,
        })
        .collect()
}

/// `CREATE [OR REPLACE] noun [IF NOT EXISTS]`, whose noun is one word: whether each is there.
pub(crate) fn parse_create_noun(parser: &mut Parser<'_>) -> Result<(bool, bool), Failure> {
    parser.expect_keyword(Keyword::CREATE)?;
    let replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    parser.next_token();
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if replace && if_not_exists {
        let found = parser.peek_token_ref().clone();
        return Err(Failure::at("OR REPLACE and IF NOT EXISTS exclude each other".into(), &found));
    }
    Ok((replace, if_not_exists))
}

fn parse_create_model(parser: &mut DFParser<'_>) -> Result<CreateModel, Failure> {
    let parser = &mut parser.parser;
    let (replace, if_not_exists) = parse_create_noun(parser)?;
    let name = parse_model_reference(parser)?;
    if name.contains('@') {
        let found = parser.peek_token_ref().clone();
        return Err(Failure::at("a new model's name has no version".into(), &found));
    }
    let options = parse_options(parser)?;
    parser.expect_keyword(Keyword::AS)?;
    let query = parser.parse_query()?;
    Ok(CreateModel { name, replace, if_not_exists, options, query })
}

/// `[OPTIONS (name = value, …)]`.
fn parse_options(parser: &mut Parser<'_>) -> Result<Vec<(String, Expr)>, Failure> {
    if !is_word(&parser.peek_token_ref().token, "OPTIONS") {
        return Ok(vec![]);
    }
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    parse_rest_of_options(parser)
}

/// `name = value, …)`.
pub(crate) fn parse_rest_of_options(
    parser: &mut Parser<'_>,
) -> Result<Vec<(String, Expr)>, Failure> {
    if parser.consume_token(&Token::RParen) {
        return Ok(vec![]);
    }
    let options = parser.parse_comma_separated(|parser| {
        let key = parser.parse_identifier()?.value.to_lowercase();
        parser.expect_token(&Token::Eq)?;
        Ok((key, parser.parse_expr()?))
    })?;
    parser.expect_token(&Token::RParen)?;
    Ok(options)
}

fn parse_alter_model(parser: &mut DFParser<'_>) -> Result<Statement, Failure> {
    skip(parser, 2);
    let parser = &mut parser.parser;
    let name = parse_model_reference(parser)?;
    parser.expect_keyword(Keyword::SET)?;
    let found = parser.next_token();
    if found.token == Token::LParen {
        return Ok(Statement::SetModelOptions { name, options: parse_rest_of_options(parser)? });
    }
    if !is_word(&found.token, "DEFAULT_VERSION") {
        let message = format!("Expected: DEFAULT_VERSION = n or (name = value, …), found: {found}");
        return Err(Failure::at(message, &found));
    }
    parser.expect_token(&Token::Eq)?;
    let version = parser.parse_literal_uint()?;
    let version = u32::try_from(version)
        .map_err(|_| Failure { message: format!("{version} is no version"), place: None })?;
    Ok(Statement::SetDefaultVersion { name, version })
}

/// The parts of a name as the catalog spells them.
pub fn name_parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(crate::dialect::folded).collect()
}

/// Whether the text holds nothing but white space and comments.
pub fn is_blank(text: &str) -> bool {
    tokenize(text).is_ok_and(|tokens| {
        tokens.iter().all(|token| {
            matches!(
                token.token,
                Token::EOF
                    | Token::SemiColon
                    | Token::Whitespace(
                        Whitespace::Space
                            | Whitespace::Newline
                            | Whitespace::Tab
                            | Whitespace::SingleLineComment { .. }
                            | Whitespace::MultiLineComment(_)
                    )
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_split_outside_quotes_and_comments() {
        let script = "SELECT ';' AS \"a;b\"; -- x;\n/* ; */ SELECT 'é'\n;\n;SELECT 3";
        let parts = split(script).unwrap();
        assert_eq!(parts.len(), 3, "{parts:?}");
        assert_eq!(parts[0], "SELECT ';' AS \"a;b\"");
        assert!(parts[1].ends_with("SELECT 'é'"));
    }

    #[test]
    fn question_marks_are_numbered_and_not_mixed() {
        let Statement::DataFusion(statement) = parse("SELECT ?, '?', ?", 100).unwrap() else {
            panic!("no query")
        };
        assert_eq!(statement.to_string(), "SELECT $1, '?', $2");
        assert!(parse("SELECT ?, $1", 100).is_err());
    }

    #[test]
    fn create_model_is_read() {
        let text = "CREATE OR REPLACE MODEL main.Shop OPTIONS (Model_Type = 'matrix_factorization', \
                    num_factors = 8) AS SELECT u, i FROM t WHERE model = 1";
        let Statement::CreateModel(create) = parse(text, 1_000).unwrap() else {
            panic!("no model")
        };
        assert_eq!((create.name.as_str(), create.replace), ("main.shop", true));
        assert_eq!(create.options[0].0, "model_type");
    }

    #[test]
    fn a_syntax_error_points_to_its_place() {
        let error = parse("SELECT 1\nFROM t WHERE", 100).unwrap_err();
        assert_eq!(error.code(), "ATT-1001");
        assert!(error.to_string().contains('^'), "{error}");
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        for text in ["", " ; ", "-- x", "SELECT 1; SELECT 2"] {
            assert!(parse(text, 100).is_err(), "{text}");
        }
        assert_eq!(parse(&"x".repeat(101), 100).unwrap_err().code(), "ATT-3002");
    }
}
