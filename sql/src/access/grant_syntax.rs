//! How GRANT and REVOKE are written: privileges, objects, grantees.

use catalog::policy::{Privilege, Securable};
use sqlparser::ast::Ident;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::access::syntax::{
    AccessStatement, WrittenGrantee, WrittenObject, access, expected, name, skip_word,
};
use crate::dialect::{folded, is_word};
use crate::parse::{Failure, Statement, name_parts};

/// GRANT and REVOKE, of privileges or of roles.
pub(super) fn parse(parser: &mut Parser<'_>, revoke: bool) -> Result<Statement, Failure> {
    parser.next_token();
    if is_purpose(parser) {
        return purpose(parser, revoke);
    }
    let written_role = is_word(&parser.peek_token_ref().token, "ROLE")
        && !matches!(&parser.peek_nth_token_ref(1).token, Token::Comma)
        && !ends_list(&parser.peek_nth_token_ref(1).token);
    if written_role {
        parser.next_token();
    }
    let first = parser.peek_token_ref().clone();
    let mut words = parser.parse_comma_separated(|parser| {
        let word = parser.parse_identifier()?;
        if word.value.eq_ignore_ascii_case("ALL") && word.quote_style.is_none() {
            skip_word(parser, "PRIVILEGES");
        }
        let columns = match parser.peek_token_ref().token {
            Token::LParen => {
                let optional = sqlparser::parser::IsOptional::Mandatory;
                let columns = parser.parse_parenthesized_column_list(optional, false)?;
                Some(columns.iter().map(folded).collect::<Vec<_>>())
            }
            _ => None,
        };
        Ok((word, columns))
    })?;
    if !written_role && skip_word(parser, "ON") {
        let privileges = privileges(words, &first)?;
        let mut on = vec![object(parser)?];
        while parser.consume_token(&Token::Comma) {
            on.push(match object(parser)? {
                table @ WrittenObject::Table(_) => table,
                _ => return Err(expected("a table", parser.peek_token_ref())),
            });
        }
        let grantees = grantees(parser, revoke)?;
        let privileges = match on.as_slice() {
            [WrittenObject::Key(_)] => key_uses(parser, &privileges, &first, revoke)?,
            _ => privileges,
        };
        return Ok(access(AccessStatement::Privileges { privileges, on, grantees, revoke }));
    }
    let privilege = |word: &Ident| privilege(word).is_some() || word.value == "ALL";
    if !written_role && words.iter().any(|(word, columns)| columns.is_some() || privilege(word)) {
        return Err(expected("ON", parser.peek_token_ref()));
    }
    let roles = words.drain(..).map(|(word, _)| folded(&word)).collect();
    let grantees = grantees(parser, revoke)?;
    Ok(access(AccessStatement::Roles { roles, grantees, revoke }))
}

/// Whether a purpose is granted, and no role of that name.
fn is_purpose(parser: &Parser<'_>) -> bool {
    let next = &parser.peek_nth_token_ref(1).token;
    is_word(&parser.peek_token_ref().token, "PURPOSE")
        && !ends_list(next)
        && *next != Token::Comma
        && *next != Token::LParen
}

/// `GRANT PURPOSE p TO …`, behind GRANT: the right to read for it.
fn purpose(parser: &mut Parser<'_>, revoke: bool) -> Result<Statement, Failure> {
    parser.next_token();
    let mut on = vec![WrittenObject::Purpose(name(parser)?)];
    while parser.consume_token(&Token::Comma) {
        on.push(WrittenObject::Purpose(name(parser)?));
    }
    let grantees = grantees(parser, revoke)?;
    let privileges = vec![(Privilege::Usage, None)];
    Ok(access(AccessStatement::Privileges { privileges, on, grantees, revoke }))
}

fn ends_list(token: &Token) -> bool {
    ["ON", "TO", "FROM"].iter().any(|word| is_word(token, word)) || *token == Token::EOF
}

fn privilege(word: &Ident) -> Option<Privilege> {
    let found = Privilege::ALL.into_iter();
    let mut found = found.filter(|known| known.name().eq_ignore_ascii_case(&word.value));
    found.next().filter(|_| word.quote_style.is_none())
}

type Written = (Ident, Option<Vec<String>>);
type Privileges = Vec<(Privilege, Option<Vec<String>>)>;

fn privileges(words: Vec<Written>, first: &TokenWithSpan) -> Result<Privileges, Failure> {
    let all = |word: &Ident| word.value.eq_ignore_ascii_case("ALL") && word.quote_style.is_none();
    if let [(word, None)] = words.as_slice()
        && all(word)
    {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (word, columns) in words {
        let Some(privilege) = privilege(&word) else {
            let names = Privilege::ALL.map(Privilege::name).join(", ");
            return Err(Failure::at(format!("Expected: ALL or {names}, found: {word}"), first));
        };
        if columns.is_some() && privilege != Privilege::Select {
            return Err(Failure::at("Expected: columns behind SELECT only".into(), first));
        }
        found.push((privilege, columns));
    }
    Ok(found)
}

/// `FOR PSEUDONYMIZE, ENCRYPT, DECRYPT` behind `USAGE ON KEY k TO …`: what the key may be used for.
/// A grant names each use, because none implies another; a revocation may take all.
fn key_uses(
    parser: &mut Parser<'_>,
    written: &[(Privilege, Option<Vec<String>>)],
    first: &TokenWithSpan,
    revoke: bool,
) -> Result<Privileges, Failure> {
    match written {
        [(Privilege::Usage, None)] => {}
        [] if revoke => {}
        _ => return Err(Failure::at(format!("Expected: USAGE ON KEY, found: {first}"), first)),
    }
    if !skip_word(parser, "FOR") {
        return match revoke {
            true => Ok(Vec::new()),
            false => Err(expected("FOR PSEUDONYMIZE, ENCRYPT or DECRYPT", parser.peek_token_ref())),
        };
    }
    let mut uses = Vec::new();
    loop {
        let found = parser.next_token();
        let known = Securable::Key(String::new()).privileges();
        let Some(use_of) = known.iter().find(|known| is_word(&found.token, known.name())) else {
            return Err(expected("PSEUDONYMIZE, ENCRYPT or DECRYPT", &found));
        };
        uses.push((*use_of, None));
        if !parser.consume_token(&Token::Comma) {
            return Ok(uses);
        }
    }
}

pub(super) fn object(parser: &mut Parser<'_>) -> Result<WrittenObject, Failure> {
    let word = |parser: &Parser<'_>, n: usize, word: &str| {
        is_word(&parser.peek_nth_token_ref(n).token, word)
    };
    if word(parser, 0, "ALL") && word(parser, 2, "IN") && word(parser, 3, "SCHEMA") {
        parser.next_token();
        let what = parser.next_token();
        parser.next_token();
        parser.next_token();
        let schema = schema(parser)?;
        return match () {
            () if is_word(&what.token, "TABLES") => Ok(WrittenObject::Tables(schema)),
            () if is_word(&what.token, "MODELS") => Ok(WrittenObject::Models(schema)),
            () => Err(expected("TABLES or MODELS", &what)),
        };
    }
    // A word that ends the list there is a table's name.
    let ends = match &parser.peek_nth_token_ref(1).token {
        Token::Comma | Token::Period => true,
        token => ends_list(token),
    };
    if !ends && word(parser, 0, "SCHEMA") {
        parser.next_token();
        return Ok(WrittenObject::Schema(schema(parser)?));
    }
    if !ends && word(parser, 0, "MODEL") {
        parser.next_token();
        return Ok(WrittenObject::Model(object_name(parser)?));
    }
    if !ends && word(parser, 0, "FUNCTION") {
        parser.next_token();
        let name = name(parser)?;
        if parser.consume_token(&Token::LParen) {
            parser.expect_token(&Token::RParen)?;
        }
        return Ok(WrittenObject::Function(name));
    }
    if !ends && word(parser, 0, "KEY") {
        parser.next_token();
        return Ok(WrittenObject::Key(name(parser)?));
    }
    if !ends && word(parser, 0, "PURPOSE") {
        parser.next_token();
        return Ok(WrittenObject::Purpose(name(parser)?));
    }
    if !ends && (word(parser, 0, "TABLE") || word(parser, 0, "VIEW")) {
        parser.next_token();
    }
    Ok(WrittenObject::Table(object_name(parser)?))
}

fn object_name(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    Ok(name_parts(&parser.parse_object_name(false)?))
}

/// A schema's name, with or without the catalog's.
fn schema(parser: &mut Parser<'_>) -> Result<String, Failure> {
    let found = parser.peek_token_ref().clone();
    match object_name(parser)?.as_slice() {
        [schema] => Ok(schema.clone()),
        [catalog, schema] if catalog == crate::engine::CATALOG => Ok(schema.clone()),
        _ => Err(expected("a schema", &found)),
    }
}

fn grantees(parser: &mut Parser<'_>, revoke: bool) -> Result<Vec<WrittenGrantee>, Failure> {
    let word = if revoke { "FROM" } else { "TO" };
    if !skip_word(parser, word) {
        return Err(expected(word, parser.peek_token_ref()));
    }
    let mut found = vec![grantee(parser)?];
    while parser.consume_token(&Token::Comma) {
        found.push(grantee(parser)?);
    }
    let next = parser.peek_token_ref().clone();
    if is_word(&next.token, "WITH") {
        let message = "only administrators and owners grant: there is no GRANT OPTION";
        return Err(Failure::at(message.into(), &next));
    }
    Ok(found)
}

pub(super) fn grantee(parser: &mut Parser<'_>) -> Result<WrittenGrantee, Failure> {
    let ends = match &parser.peek_nth_token_ref(1).token {
        Token::Comma | Token::SemiColon | Token::EOF => true,
        token => is_word(token, "WITH"),
    };
    if !ends && skip_word(parser, "USER") {
        return Ok(WrittenGrantee::User(name(parser)?));
    }
    if !ends && (skip_word(parser, "ROLE") || skip_word(parser, "GROUP")) {
        return Ok(WrittenGrantee::Role(name(parser)?));
    }
    if skip_word(parser, "PUBLIC") {
        return Ok(WrittenGrantee::Public);
    }
    Ok(WrittenGrantee::Named(name(parser)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::syntax::tests::read;

    #[test]
    fn grants_are_told_from_roles() {
        let AccessStatement::Privileges { privileges, on, grantees, revoke } = read(
            "GRANT SELECT (a, \"B\"), INSERT ON main.t, u TO ROLE r, USER ann, PUBLIC, somebody",
        ) else {
            panic!("no privileges")
        };
        assert_eq!(privileges[0], (Privilege::Select, Some(vec!["a".into(), "B".into()])));
        assert_eq!(privileges[1], (Privilege::Insert, None));
        assert_eq!(on[0], WrittenObject::Table(vec!["main".into(), "t".into()]));
        assert_eq!(on[1], WrittenObject::Table(vec!["u".into()]));
        assert_eq!((grantees.len(), revoke), (4, false));
        assert_eq!(grantees[2], WrittenGrantee::Public);
        for text in ["GRANT r TO ann", "GRANT ROLE r TO USER ann", "REVOKE ROLE r FROM ann"] {
            assert!(matches!(read(text), AccessStatement::Roles { .. }), "{text}");
        }
        for (text, expected) in [
            ("ALL TABLES IN SCHEMA main", WrittenObject::Tables("main".into())),
            ("ALL MODELS IN SCHEMA attune.main", WrittenObject::Models("main".into())),
            ("SCHEMA s", WrittenObject::Schema("s".into())),
            ("MODEL shop", WrittenObject::Model(vec!["shop".into()])),
            ("FUNCTION fpe_decrypt", WrittenObject::Function("fpe_decrypt".into())),
            ("TABLE t", WrittenObject::Table(vec!["t".into()])),
            ("model", WrittenObject::Table(vec!["model".into()])),
        ] {
            let statement = read(&format!("REVOKE ALL PRIVILEGES ON {text} FROM r"));
            let AccessStatement::Privileges { privileges, on, revoke, .. } = statement else {
                panic!("{text}")
            };
            assert_eq!((privileges.len(), on, revoke), (0, vec![expected], true), "{text}");
        }
    }

    #[test]
    fn keys_are_granted_use_by_use() {
        let uses = |text: &str| match read(text) {
            AccessStatement::Privileges { privileges, on, .. } => {
                assert_eq!(on, [WrittenObject::Key("k".into())], "{text}");
                privileges.into_iter().map(|(privilege, _)| privilege).collect::<Vec<Privilege>>()
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(
            uses("GRANT USAGE ON KEY k TO ROLE r, USER ann FOR DECRYPT, PSEUDONYMIZE"),
            [Privilege::Decrypt, Privilege::Pseudonymize]
        );
        assert_eq!(uses("REVOKE USAGE ON KEY k FROM ann FOR ENCRYPT"), [Privilege::Encrypt]);
        assert!(uses("REVOKE USAGE ON KEY k FROM PUBLIC").is_empty());
        assert!(uses("REVOKE ALL ON KEY k FROM ann").is_empty());
        // A table may be called key.
        let AccessStatement::Privileges { on, .. } = read("GRANT SELECT ON key TO ann") else {
            panic!("no privileges")
        };
        assert_eq!(on, [WrittenObject::Table(vec!["key".into()])]);
    }

    #[test]
    fn a_purpose_is_granted_like_an_object() {
        let AccessStatement::Privileges { privileges, on, grantees, revoke } =
            read("GRANT PURPOSE Ads, research TO ROLE r, ann")
        else {
            panic!("no purpose")
        };
        assert_eq!((privileges, revoke), (vec![(Privilege::Usage, None)], false));
        let purpose = |name: &str| WrittenObject::Purpose(name.into());
        assert_eq!((on, grantees.len()), (vec![purpose("ads"), purpose("research")], 2));
        let AccessStatement::Privileges { on, revoke, .. } =
            read("REVOKE USAGE ON PURPOSE ads FROM r")
        else {
            panic!("no purpose")
        };
        assert_eq!((on, revoke), (vec![purpose("ads")], true));
        assert!(matches!(read("GRANT purpose TO ann"), AccessStatement::Roles { .. }));
    }

    #[test]
    fn what_is_not_a_grant_is_refused() {
        for text in [
            "GRANT USAGE ON KEY k TO ann",
            "GRANT ALL ON KEY k TO ann FOR DECRYPT",
            "GRANT DECRYPT ON KEY k TO ann",
            "GRANT USAGE ON KEY k TO ann FOR EVERYTHING",
            "GRANT USAGE ON KEY k TO ann FOR",
            "GRANT SELECT TO ann",
            "GRANT READ ON t TO ann",
            "GRANT INSERT (a) ON t TO ann",
            "GRANT SELECT ON t TO ann WITH GRANT OPTION",
            "GRANT SELECT ON t FROM ann",
            "GRANT SELECT ON t",
            "REVOKE SELECT ON t TO ann",
            "SHOW GRANTS OF ann",
        ] {
            let error = crate::parse::parse(text, 1_000).unwrap_err();
            assert_eq!(error.code(), "ATT-1001", "{text}");
        }
        for text in [
            "EXPLAIN GRANT SELECT ON t TO r",
            "EXPLAIN CREATE USER u PASSWORD 'secret'",
            "EXPLAIN ANALYZE VERBOSE FORMAT tree CREATE OR REPLACE USER u PASSWORD 'secret'",
        ] {
            assert!(matches!(crate::parse::parse(text, 1_000), Ok(Statement::Later(..))), "{text}");
        }
    }
}
