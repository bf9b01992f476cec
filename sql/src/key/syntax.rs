//! How statements about keys are written.

use datafusion::sql::parser::DFParser;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::dialect::{folded, is_word};
use crate::parse::{Failure, Statement, skip};
use crate::words::name;

/// A statement about keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStatement {
    /// `CREATE KEY [IF NOT EXISTS] k`.
    Create {
        /// The key.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// `ALTER KEY k ROTATE`.
    Rotate {
        /// The key.
        name: String,
    },
    /// `ALTER KEY k RETIRE GENERATION n [FORCE]`.
    Retire {
        /// The key.
        name: String,
        /// The number of the generation.
        generation: u32,
        /// Also when something is known to need it.
        force: bool,
    },
    /// `ALTER KEY k REWRAP`.
    Rewrap {
        /// The key.
        name: String,
    },
    /// `DROP KEY [IF EXISTS] k, … [FORCE]`.
    Drop {
        /// The keys.
        names: Vec<String>,
        /// No error when one is missing.
        if_exists: bool,
        /// Also when something is known to need one.
        force: bool,
    },
    /// `DESCRIBE KEY k`.
    Describe {
        /// The key.
        name: String,
    },
}

/// Whether a statement that begins with these words is read here.
pub(crate) fn is_ours(words: &[&str], parser: &DFParser<'_>) -> bool {
    match words {
        ["create" | "alter" | "drop", "key", ..] | ["create", "or", "replace", "key", ..] => true,
        // A table may be called key.
        ["describe" | "desc", "key", ..] => {
            matches!(parser.parser.peek_nth_token_ref(2).token, Token::Word(_))
        }
        _ => false,
    }
}

/// Reads a statement that [`is_ours`].
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    if let ["create", "or", ..] = words {
        let message = "a key is not replaced, because nothing would open what it sealed: use ALTER \
                       KEY … ROTATE, or DROP KEY and CREATE KEY";
        return Err(Failure::at(message.into(), parser.parser.peek_token_ref()));
    }
    skip(parser, 2);
    let parser = &mut parser.parser;
    let statement = match words {
        ["create", ..] => {
            let if_not_exists =
                parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            KeyStatement::Create { name: name(parser)?, if_not_exists }
        }
        ["drop", ..] => {
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let names = parser.parse_comma_separated(Parser::parse_identifier)?;
            let names = names.iter().map(folded).collect();
            KeyStatement::Drop { names, if_exists, force: force(parser) }
        }
        ["alter", ..] => alter(parser)?,
        _ => KeyStatement::Describe { name: name(parser)? },
    };
    Ok(Statement::Key(statement))
}

fn alter(parser: &mut Parser<'_>) -> Result<KeyStatement, Failure> {
    let name = name(parser)?;
    let found = parser.next_token();
    if is_word(&found.token, "ROTATE") {
        return Ok(KeyStatement::Rotate { name });
    }
    if is_word(&found.token, "REWRAP") {
        return Ok(KeyStatement::Rewrap { name });
    }
    let next = parser.peek_token_ref().clone();
    if !is_word(&found.token, "RETIRE") {
        let message = format!("Expected: ROTATE, RETIRE GENERATION n or REWRAP, found: {found}");
        return Err(Failure::at(message, &found));
    }
    if !is_word(&next.token, "GENERATION") {
        return Err(Failure::at(format!("Expected: GENERATION n, found: {next}"), &next));
    }
    parser.next_token();
    let found = parser.peek_token_ref().clone();
    let number = parser.parse_literal_uint()?;
    let Ok(generation) = u32::try_from(number) else {
        return Err(Failure::at(format!("{number} is no generation"), &found));
    };
    Ok(KeyStatement::Retire { name, generation, force: force(parser) })
}

/// Reads FORCE where it stands.
fn force(parser: &mut Parser<'_>) -> bool {
    let force = is_word(&parser.peek_token_ref().token, "FORCE");
    if force {
        parser.next_token();
    }
    force
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn read(text: &str) -> KeyStatement {
        match parse(text, 1_000) {
            Ok(Statement::Key(statement)) => statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn keys_are_made_rotated_retired_and_dropped() {
        let named = |name: &str| name.to_owned();
        for (text, expected) in [
            (
                "CREATE KEY IF NOT EXISTS Emails",
                KeyStatement::Create { name: named("emails"), if_not_exists: true },
            ),
            (
                "create key \"Emails\";",
                KeyStatement::Create { name: named("Emails"), if_not_exists: false },
            ),
            ("ALTER KEY k ROTATE", KeyStatement::Rotate { name: named("k") }),
            ("alter key k rewrap", KeyStatement::Rewrap { name: named("k") }),
            (
                "ALTER KEY k RETIRE GENERATION 3",
                KeyStatement::Retire { name: named("k"), generation: 3, force: false },
            ),
            (
                "alter key k retire generation 3 force;",
                KeyStatement::Retire { name: named("k"), generation: 3, force: true },
            ),
            (
                "DROP KEY IF EXISTS a, b",
                KeyStatement::Drop {
                    names: vec![named("a"), named("b")],
                    if_exists: true,
                    force: false,
                },
            ),
            (
                "DROP KEY force, a force",
                KeyStatement::Drop {
                    names: vec![named("force"), named("a")],
                    if_exists: false,
                    force: true,
                },
            ),
            ("DESCRIBE KEY k", KeyStatement::Describe { name: named("k") }),
            ("DESC KEY \"K\"", KeyStatement::Describe { name: named("K") }),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_statement_about_keys_is_told() {
        for text in [
            "CREATE OR REPLACE KEY k",
            "CREATE KEY",
            "ALTER KEY k",
            "ALTER KEY k RETIRE 1",
            "ALTER KEY k RETIRE GENERATION one",
            "ALTER KEY k RETIRE GENERATION 1 FORCED",
            "ALTER KEY k RETIRE GENERATION 99999999999",
            "DROP KEY",
        ] {
            assert_eq!(parse(text, 1_000).unwrap_err().code(), "ATT-1001", "{text}");
        }
        assert!(matches!(parse("DESCRIBE key", 1_000), Ok(Statement::DataFusion(_))));
    }
}
