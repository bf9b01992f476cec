//! How subjects and requests of persons are written.

use catalog::subject_marks::Mark;
use datafusion::sql::parser::DFParser;
use sqlparser::ast::Expr;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::dialect::is_word;
use crate::parse::{Failure, Statement, name_parts, parse_create_noun, skip};
use crate::words::{expected, name, word};

/// A statement about subjects or of a person.
#[derive(Debug, Clone, PartialEq)]
pub enum SubjectStatement {
    /// `CREATE [OR REPLACE] SUBJECT [IF NOT EXISTS] s KEY (t.c, …) [VIA w (record, entity)]`.
    Create(CreateSubject),
    /// `ALTER SUBJECT s ADD KEY (t.c, …)`.
    AddKeys {
        /// The subject.
        name: String,
        /// Columns, as written.
        keys: Vec<Vec<String>>,
    },
    /// `ALTER SUBJECT s DROP KEY (t.c, …)`.
    DropKeys {
        /// The subject.
        name: String,
        /// Columns, as written.
        keys: Vec<Vec<String>>,
    },
    /// `DROP SUBJECT [IF EXISTS] s`.
    Drop {
        /// The subject.
        name: String,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// `SHOW SUBJECTS`.
    Show,
    /// `DESCRIBE SUBJECT s`.
    Describe(String),
    /// `EXPORT SUBJECT s 'id' [AS t.c]`.
    Export(Who),
    /// `RECTIFY SUBJECT s 'id' [AS t.c] SET t.c = value`.
    Rectify {
        /// Whose rows.
        who: Who,
        /// The column, as written.
        column: Vec<String>,
        /// Its new value.
        value: Box<Expr>,
    },
    /// `RESTRICT SUBJECT …` and `HOLD SUBJECT …`.
    Mark {
        /// Who.
        who: Who,
        /// What holds from now on.
        mark: Mark,
    },
    /// `RELEASE SUBJECT s 'id' [AS t.c] FROM RESTRICTION | HOLD`.
    Release {
        /// Who.
        who: Who,
        /// What ends.
        mark: Mark,
    },
    /// `FORGET SUBJECT s 'id' [AS t.c]`.
    Forget(Who),
    /// `EXPLAIN FORGET SUBJECT …`.
    ExplainForget(Who),
    /// `RESUME ERASURE ['id']`.
    Resume(Option<String>),
    /// `SHOW CERTIFICATES`.
    Certificates,
}

impl SubjectStatement {
    /// The person whom it names.
    pub(super) fn who(&self) -> Option<&Who> {
        match self {
            Self::Export(who)
            | Self::Rectify { who, .. }
            | Self::Mark { who, .. }
            | Self::Release { who, .. }
            | Self::Forget(who)
            | Self::ExplainForget(who) => Some(who),
            Self::Create(_)
            | Self::AddKeys { .. }
            | Self::DropKeys { .. }
            | Self::Drop { .. }
            | Self::Show
            | Self::Describe(_)
            | Self::Resume(_)
            | Self::Certificates => None,
        }
    }
}

/// CREATE SUBJECT.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSubject {
    /// Its name.
    pub name: String,
    /// OR REPLACE.
    pub replace: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The columns with ids, as written.
    pub keys: Vec<Vec<String>>,
    /// The crosswalk's table, and its columns of records and of persons.
    pub via: Option<(Vec<String>, String, String)>,
}

/// A person, as written.
#[derive(Clone, PartialEq)]
pub struct Who {
    /// The subject.
    pub subject: String,
    /// The id.
    pub id: String,
    /// The column that the id is from.
    pub column: Option<Vec<String>>,
}

impl std::fmt::Debug for Who {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Who({}, {:?})", self.subject, self.column)
    }
}

/// Whether a statement that begins with these words is one of these.
pub(crate) fn is_ours(words: &[&str]) -> bool {
    matches!(
        words,
        ["create" | "alter" | "drop" | "describe" | "desc", "subject", ..]
            | ["create", "or", "replace", "subject", ..]
            | ["export" | "rectify" | "restrict" | "hold" | "release" | "forget", "subject", ..]
            | ["explain", "forget", "subject", ..]
            | ["show", "subjects" | "certificates"]
            | ["resume", "erasure", ..]
    )
}

/// Reads a statement for which [`is_ours`] holds.
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    let statement = match words {
        ["create", ..] => SubjectStatement::Create(create(&mut parser.parser)?),
        ["alter", ..] => {
            skip(parser, 2);
            alter(&mut parser.parser)?
        }
        ["drop", ..] => {
            skip(parser, 2);
            let if_exists = parser.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            SubjectStatement::Drop { name: name(&mut parser.parser)?, if_exists }
        }
        ["show", what, ..] => {
            skip(parser, 2);
            match *what {
                "subjects" => SubjectStatement::Show,
                _ => SubjectStatement::Certificates,
            }
        }
        ["describe" | "desc", ..] => {
            skip(parser, 2);
            SubjectStatement::Describe(name(&mut parser.parser)?)
        }
        ["explain", ..] => {
            skip(parser, 3);
            SubjectStatement::ExplainForget(who(&mut parser.parser)?)
        }
        ["resume", ..] => {
            skip(parser, 2);
            let parser = &mut parser.parser;
            let named = matches!(parser.peek_token_ref().token, Token::SingleQuotedString(_));
            let id = if named { Some(parser.parse_literal_string()?) } else { None };
            SubjectStatement::Resume(id)
        }
        [verb, ..] => {
            skip(parser, 2);
            request(&mut parser.parser, verb)?
        }
        [] => return Err(expected("a statement", parser.parser.peek_token_ref())),
    };
    Ok(Statement::Subject(Box::new(statement)))
}

fn create(parser: &mut Parser<'_>) -> Result<CreateSubject, Failure> {
    let (replace, if_not_exists) = parse_create_noun(parser)?;
    let name = name(parser)?;
    word(parser, "KEY")?;
    let keys = columns(parser)?;
    let via = match is_word(&parser.peek_token_ref().token, "VIA") {
        true => {
            parser.next_token();
            Some(crosswalk(parser)?)
        }
        false => None,
    };
    Ok(CreateSubject { name, replace, if_not_exists, keys, via })
}

fn crosswalk(parser: &mut Parser<'_>) -> Result<(Vec<String>, String, String), Failure> {
    let table = name_parts(&parser.parse_object_name(false)?);
    parser.expect_token(&Token::LParen)?;
    let record = name(parser)?;
    parser.expect_token(&Token::Comma)?;
    let entity = name(parser)?;
    parser.expect_token(&Token::RParen)?;
    Ok((table, record, entity))
}

/// `(t.c, …)`, or one column without brackets.
fn columns(parser: &mut Parser<'_>) -> Result<Vec<Vec<String>>, Failure> {
    if !parser.consume_token(&Token::LParen) {
        return Ok(vec![column(parser)?]);
    }
    let mut columns = vec![column(parser)?];
    while parser.consume_token(&Token::Comma) {
        columns.push(column(parser)?);
    }
    parser.expect_token(&Token::RParen)?;
    Ok(columns)
}

/// `table.column`, with schema and catalog before it or not.
fn column(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    let found = parser.peek_token_ref().clone();
    let parts = name_parts(&parser.parse_object_name(false)?);
    match parts.len() {
        2..=4 => Ok(parts),
        _ => Err(expected("a column as table.column", &found)),
    }
}

fn alter(parser: &mut Parser<'_>) -> Result<SubjectStatement, Failure> {
    let name = name(parser)?;
    let adds = is_word(&parser.peek_token_ref().token, "ADD");
    if !adds && !is_word(&parser.peek_token_ref().token, "DROP") {
        return Err(expected("ADD KEY or DROP KEY", parser.peek_token_ref()));
    }
    parser.next_token();
    word(parser, "KEY")?;
    let keys = columns(parser)?;
    Ok(match adds {
        true => SubjectStatement::AddKeys { name, keys },
        false => SubjectStatement::DropKeys { name, keys },
    })
}

/// An id: text, or a whole number that is written as the text of an integer.
fn id(parser: &mut Parser<'_>) -> Result<String, Failure> {
    if !matches!(parser.peek_token_ref().token, Token::Minus | Token::Number(..)) {
        return Ok(parser.parse_literal_string()?);
    }
    let is_negative = parser.consume_token(&Token::Minus);
    let found = parser.next_token();
    let number = match &found.token {
        Token::Number(digits, false) => digits.parse::<u64>().ok().map(|value| (digits, value)),
        _ => None,
    };
    match number {
        // Text such as '007' is another id than 7, and no integer is -0.
        Some((digits, value)) if value.to_string() == *digits && !(is_negative && value == 0) => {
            Ok(if is_negative { format!("-{digits}") } else { digits.clone() })
        }
        _ => Err(expected("an id, which is text in quotes or a whole number", &found)),
    }
}

fn who(parser: &mut Parser<'_>) -> Result<Who, Failure> {
    let subject = name(parser)?;
    let id = id(parser)?;
    let column = match parser.parse_keyword(Keyword::AS) {
        true => Some(column(parser)?),
        false => None,
    };
    Ok(Who { subject, id, column })
}

fn request(parser: &mut Parser<'_>, verb: &str) -> Result<SubjectStatement, Failure> {
    let who = who(parser)?;
    Ok(match verb {
        "export" => SubjectStatement::Export(who),
        "restrict" => SubjectStatement::Mark { who, mark: Mark::Restricted },
        "hold" => SubjectStatement::Mark { who, mark: Mark::Held },
        "forget" => SubjectStatement::Forget(who),
        "release" => {
            parser.expect_keyword(Keyword::FROM)?;
            let found = parser.next_token();
            let marks = [("RESTRICTION", Mark::Restricted), ("HOLD", Mark::Held)];
            let mark = marks.into_iter().find(|(word, _)| is_word(&found.token, word));
            let (_, mark) = mark.ok_or_else(|| expected("RESTRICTION or HOLD", &found))?;
            SubjectStatement::Release { who, mark }
        }
        _ => {
            parser.expect_keyword(Keyword::SET)?;
            let column = column(parser)?;
            parser.expect_token(&Token::Eq)?;
            SubjectStatement::Rectify { who, column, value: Box::new(parser.parse_expr()?) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SubjectStatement {
        match crate::parse::parse(text, 1_000) {
            Ok(Statement::Subject(statement)) => *statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn parts(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn a_subject_has_keys_and_a_crosswalk() {
        let text = "CREATE OR REPLACE SUBJECT Person KEY (crm.customer_id, lake.clicks.\"Id\") \
                    VIA main.crosswalk (record_id, entity_id);";
        let SubjectStatement::Create(created) = read(text) else { panic!("{text}") };
        assert_eq!((created.name.as_str(), created.replace), ("person", true));
        assert_eq!(created.keys, [parts("crm.customer_id"), parts("lake.clicks.Id")]);
        let via = (parts("main.crosswalk"), "record_id".to_owned(), "entity_id".to_owned());
        assert_eq!(created.via, Some(via));
        let keys = vec![parts("a.b"), parts("c.d")];
        let added = read("ALTER SUBJECT person ADD KEY (a.b, c.d)");
        assert_eq!(added, SubjectStatement::AddKeys { name: "person".into(), keys });
        let dropped = read("alter subject person drop key a.b");
        let keys = vec![parts("a.b")];
        assert_eq!(dropped, SubjectStatement::DropKeys { name: "person".into(), keys });
        let gone = SubjectStatement::Drop { name: "p".into(), if_exists: true };
        assert_eq!(read("DROP SUBJECT IF EXISTS p"), gone);
    }

    #[test]
    fn requests_name_a_person_and_perhaps_a_column() {
        let column = Some(parts("crm.id"));
        let who = Who { subject: "person".into(), id: "it's".into(), column };
        let text = "SUBJECT person 'it''s' AS crm.id";
        assert_eq!(read(&format!("EXPORT {text}")), SubjectStatement::Export(who.clone()));
        assert_eq!(read(&format!("FORGET {text}")), SubjectStatement::Forget(who.clone()));
        let explained = SubjectStatement::ExplainForget(who.clone());
        assert_eq!(read(&format!("EXPLAIN FORGET {text}")), explained);
        for (verb, mark) in [("RESTRICT", Mark::Restricted), ("HOLD", Mark::Held)] {
            let set = SubjectStatement::Mark { who: who.clone(), mark };
            assert_eq!(read(&format!("{verb} {text}")), set);
        }
        let (who, mark) = (who, Mark::Held);
        let released = SubjectStatement::Release { who, mark };
        assert_eq!(read(&format!("RELEASE {text} FROM HOLD")), released);
        assert!(!format!("{released:?}").contains("it's"));
        let SubjectStatement::Rectify { column, value, .. } =
            read("RECTIFY SUBJECT person '7' SET crm.name = upper('ann')")
        else {
            panic!("no change")
        };
        assert_eq!((column, value.to_string().as_str()), (parts("crm.name"), "upper('ann')"));
        for (written, id) in
            [("7", "7"), ("-7", "-7"), ("18446744073709551615 AS crm.id", "18446744073709551615")]
        {
            let SubjectStatement::Forget(who) = read(&format!("FORGET SUBJECT person {written}"))
            else {
                panic!("{written}")
            };
            assert_eq!(who.id, id);
        }
        assert_eq!(read("RESUME ERASURE 'x'"), SubjectStatement::Resume(Some("x".into())));
        assert_eq!(read("RESUME ERASURE"), SubjectStatement::Resume(None));
    }

    #[test]
    fn wrong_words_are_told() {
        for text in [
            "CREATE SUBJECT p (a.b)",
            "CREATE SUBJECT p KEY (a)",
            "CREATE SUBJECT p KEY (a.b) VIA w (a)",
            "EXPORT SUBJECT p",
            "EXPORT SUBJECT p 7.0",
            "EXPORT SUBJECT p 007",
            "EXPORT SUBJECT p -0",
            "EXPORT SUBJECT p - x",
            "EXPORT SUBJECT p 1e3",
            "RELEASE SUBJECT p '7' FROM all",
            "RECTIFY SUBJECT p '7' SET name = 1",
            "ALTER SUBJECT p KEY (a.b)",
        ] {
            assert_eq!(crate::parse::parse(text, 1_000).unwrap_err().code(), "ATT-1001", "{text}");
        }
    }
}
