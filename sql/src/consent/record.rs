//! `RECORD CONSENT`: the choices in consent tokens, added to a table of consents.
//!
//! ```text
//! RECORD CONSENT 'token' | $1 | (query) KEY 'web' [CHANNEL 'web'] INTO consents
//!     [(subject, purpose, granted, valid_from [, channel])]
//! ```
//!
//! It is an INSERT of one row a choice, with the rights, expectations and policies of one, and with
//! `valid_from` the time at which the token was sealed. A choice that the table has already is not
//! added again. To find that out the whole table is looked at, also by who may not read it: it
//! answers about rows alone that a valid token states.

use std::sync::Arc;

use arrow::datatypes::Schema;
use catalog::policy::Privilege;
use catalog::{ConsentSource, ObjectName, Opened};
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast::Statement as SqlStatement;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::syntax::columns;
use crate::dialect::is_word;
use crate::dml::sent::{name_rows, quoted};
use crate::dml::{self, Change, typed};
use crate::error::{Error, Result};
use crate::parse::{self, Failure, Statement, parse_query};
use crate::session::{Action, StatementContext};
use crate::words::{expected, table, word};

/// RECORD CONSENT.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordConsent {
    /// The tokens, as a query of one column.
    pub tokens: String,
    /// The key that sealed them.
    pub key: String,
    /// By which way the choices came.
    pub channel: Option<String>,
    /// The table of consents, as written.
    pub table: Vec<String>,
    /// Its columns: subject, purpose, granted, `valid_from` and perhaps the channel; none: those
    /// that a consent policy names.
    pub columns: Vec<String>,
}

/// Reads what follows RECORD CONSENT.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<RecordConsent, Failure> {
    let found = parser.next_token();
    let tokens = match &found.token {
        Token::SingleQuotedString(token) => one(&literal(token)),
        Token::Placeholder(parameter) => one(parameter),
        Token::LParen => {
            let query = parser.parse_query()?.to_string();
            parser.expect_token(&Token::RParen)?;
            query
        }
        _ => return Err(expected("a token in single quotes, a parameter or a query", &found)),
    };
    word(parser, "KEY")?;
    let key = parser.parse_literal_string()?;
    let channel = match is_word(&parser.peek_token_ref().token, "CHANNEL") {
        true => {
            parser.next_token();
            Some(parser.parse_literal_string()?)
        }
        false => None,
    };
    parser.expect_keyword(Keyword::INTO)?;
    let table = table(parser)?;
    let found = parser.peek_token_ref().clone();
    let columns = match found.token {
        Token::LParen => columns(parser)?,
        _ => vec![],
    };
    if !matches!(columns.len(), 0 | 4 | 5) {
        return Err(expected("(subject, purpose, granted, valid_from [, channel])", &found));
    }
    Ok(RecordConsent { tokens, key, channel, table, columns })
}

fn one(token: &str) -> String {
    format!("SELECT CAST({token} AS VARCHAR)")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Plans the INSERT.
pub(super) async fn plan(
    context: &Arc<StatementContext>,
    record: &RecordConsent,
) -> Result<(SessionState, Action)> {
    let name = dml::target(context, &record.table, &[Privilege::Insert]).await?;
    let columns = match record.columns.is_empty() {
        true => of_policies(context, &name).await?,
        false => record.columns.clone(),
    };
    let (catalog, base) = (context.engine().catalog(), context.engine().base());
    let Some(Opened::Table(whole)) = catalog.open_table(&name, None, base).await? else {
        return Err(context.no_table(&name.to_string()).await);
    };
    let text = Text::new(record, &name, &columns, &whole.schema())?;
    let known = name_rows(context, whole);
    let Statement::DataFusion(insert) = parse::parse(&text.insert(&known), usize::MAX)? else {
        return Err(Error::Internal("RECORD CONSENT is no INSERT".into()));
    };
    let DataFusionStatement::Statement(tree) = insert.as_ref() else {
        return Err(Error::Internal("RECORD CONSENT is no INSERT".into()));
    };
    let SqlStatement::Insert(written) = tree.as_ref() else {
        return Err(Error::Internal("RECORD CONSENT is no INSERT".into()));
    };
    let (state, action) = Box::pin(dml::insertion(context, &insert, written, true)).await?;
    let Action::Rows(Change::Insert { name, plan, check, copies, .. }) = action else {
        return Err(Error::Internal("RECORD CONSENT was planned as something else".into()));
    };
    let (_, count) = Box::pin(context.plan_query(parse_query(&text.count(&known))?)).await?;
    Ok((state, Action::Rows(Change::Record { name, plan, check, copies, count })))
}

/// The columns that consent policies name of a table of consents.
async fn of_policies(context: &Arc<StatementContext>, name: &ObjectName) -> Result<Vec<String>> {
    let purposes = context.engine().catalog().purposes().await?;
    let of_table = purposes.policies().map(|policy| &policy.consents);
    let mut sources: Vec<&ConsentSource> = of_table.filter(|of| of.table == *name).collect();
    sources.sort_unstable();
    sources.dedup();
    let hint = "name its columns: INTO t (subject, purpose, granted, valid_from [, channel])";
    let [source] = sources.as_slice() else {
        let what = match sources.is_empty() {
            true => format!("no consent policy says which columns of {name} are what"),
            false => format!("consent policies name different columns of {name}"),
        };
        return Err(Error::invalid_hint(what, hint));
    };
    let Some(valid_from) = &source.valid_from else {
        return Err(Error::invalid_hint(
            format!("the policies know no column of {name} that tells since when a choice holds"),
            "a token that is sent again would count as a new one: give the table such a column",
        ));
    };
    let mut columns = vec![source.subject.clone(), source.purpose.clone(), source.granted.clone()];
    columns.push(valid_from.clone());
    columns.extend(source.channel.clone());
    Ok(columns)
}

/// What the statement is in plain SQL.
struct Text {
    target: String,
    /// The columns' names, in order, quoted.
    columns: Vec<String>,
    /// What the tokens say, under the columns' names and in their types.
    said: String,
}

impl Text {
    fn new(
        record: &RecordConsent,
        name: &ObjectName,
        columns: &[String],
        schema: &Schema,
    ) -> Result<Self> {
        let mut values: Vec<String> =
            ["subject", "purpose", "granted", "sealed"].map(|field| format!("c['{field}']")).into();
        match (columns.len() > values.len(), &record.channel) {
            (true, Some(channel)) => values.push(literal(channel)),
            (false, None) => {}
            (true, None) => {
                return Err(Error::invalid_hint(
                    format!("{name} tells by which channel a choice came"),
                    "say it: RECORD CONSENT … KEY 'web' CHANNEL 'web' INTO …",
                ));
            }
            (false, Some(_)) => {
                return Err(Error::invalid_hint(
                    format!("no column of {name} tells by which channel a choice came"),
                    "leave CHANNEL out, or name the column behind valid_from",
                ));
            }
        }
        let mut said = Vec::with_capacity(values.len());
        for (at, (column, value)) in columns.iter().zip(&values).enumerate() {
            if columns.iter().take(at).any(|before| before == column) {
                return Err(Error::invalid(format!("column {column} is named twice")));
            }
            let Some((_, field)) = schema.column_with_name(column) else {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                return Err(Error::unknown("column", column, known));
            };
            said.push(format!("{} AS {}", typed(value, field.data_type()), quoted(column)));
        }
        let (tokens, key) = (&record.tokens, literal(&record.key));
        let opened = format!(
            "SELECT unnest(consent_open(token, {key})) AS c FROM ({tokens}) AS arrived (token)"
        );
        Ok(Self {
            target: format!("{}.{}", quoted(&name.schema), quoted(&name.name)),
            columns: columns.iter().map(|column| quoted(column)).collect(),
            said: format!(
                "(SELECT DISTINCT {} FROM ({opened}) AS opened) AS said",
                said.join(", ")
            ),
        })
    }

    /// What the tokens say and the table does not know yet.
    fn new_ones(&self, known: &str) -> String {
        let equal = self.columns.iter().map(|column| format!("known.{column} = said.{column}"));
        let equal = equal.collect::<Vec<_>>().join(" AND ");
        let said = &self.said;
        format!("FROM {said} WHERE NOT EXISTS (SELECT 1 FROM {known} AS known WHERE {equal})")
    }

    fn insert(&self, known: &str) -> String {
        let (target, columns) = (&self.target, self.columns.join(", "));
        format!("INSERT INTO {target} ({columns}) SELECT {columns} {}", self.new_ones(known))
    }

    /// How many choices the tokens say, and how many of them are new.
    fn count(&self, known: &str) -> String {
        format!(
            "SELECT count(*) AS told, 0 AS fresh FROM {} UNION ALL SELECT 0, count(*) {}",
            self.said,
            self.new_ones(known)
        )
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::consent::ConsentStatement;

    fn read(text: &str) -> RecordConsent {
        match parse::parse(text, 1_000) {
            Ok(Statement::Consent(statement)) => match *statement {
                ConsentStatement::Record(record) => record,
                other => panic!("{text}: {other:?}"),
            },
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn tokens_are_a_text_a_parameter_or_a_query() {
        let record = read("RECORD CONSENT 'k-1.c.x''y' KEY 'web' INTO Consents");
        assert_eq!(record.tokens, "SELECT CAST('k-1.c.x''y' AS VARCHAR)");
        assert_eq!((record.key.as_str(), record.channel), ("web", None));
        assert_eq!((record.table, record.columns.len()), (vec!["consents".to_owned()], 0));
        let text =
            "record consent ? key 'web' channel 'app' into main.c (who, what, given, since, how)";
        let record = read(text);
        assert_eq!(record.tokens, "SELECT CAST($1 AS VARCHAR)");
        assert_eq!(record.channel.as_deref(), Some("app"));
        assert_eq!(record.columns, ["who", "what", "given", "since", "how"]);
        let record = read("RECORD CONSENT (SELECT t FROM arrived) KEY 'web' INTO c");
        assert_eq!(record.tokens, "SELECT t FROM arrived");
        for text in [
            "RECORD CONSENT KEY 'web' INTO c",
            "RECORD CONSENT 7 KEY 'web' INTO c",
            "RECORD CONSENT 't' INTO c",
            "RECORD CONSENT 't' KEY 'web'",
            "RECORD CONSENT 't' KEY 'web' INTO c (a, b, d)",
        ] {
            assert_eq!(parse::parse(text, 1_000).unwrap_err().code(), "ATT-1001", "{text}");
        }
    }

    #[test]
    fn every_column_is_there_once_and_a_channel_is_told() {
        let names = ["who", "what", "given", "since", "how"];
        let fields: Vec<Field> =
            names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        let (schema, name) = (Schema::new(fields), ObjectName::new("main", "c"));
        let told = |channel: &str, columns: &[&str]| {
            let record = read(&format!("RECORD CONSENT 't' KEY 'web' {channel} INTO c"));
            let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
            Text::new(&record, &name, &columns, &schema).map(|text| text.insert("k"))
        };
        let text = told("CHANNEL 'a''b'", &names).unwrap();
        assert!(text.contains("'a''b'") && text.contains("known.\"how\" = said.\"how\""), "{text}");
        assert!(parse::parse(&text, usize::MAX).is_ok(), "{text}");
        assert!(told("", &names[..4]).is_ok());
        for (channel, columns) in [
            ("", &names[..]),
            ("CHANNEL 'a'", &names[..4]),
            ("", &["who", "what", "given", "who"][..]),
            ("", &["who", "what", "given", "never"][..]),
        ] {
            assert!(told(channel, columns).is_err(), "{columns:?}");
        }
    }
}
