//! `propose_tags('t')` in FROM: which columns of a table look as if they held personal data.
//!
//! A column is proposed for its name, or because most values of a sample have a form. The sample is
//! read as whoever asks: under policies like any other query.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use sqlparser::ast::TableFactor;

use crate::dml::sent::quoted;
use crate::error::{Error, Result};
use crate::functions::FunctionDoc;
use crate::parse::{name_parts, parse_query};
use crate::session::StatementContext;
use crate::session::bindings::{Bindings, literal_text};

/// The function's name.
pub(crate) const NAME: &str = "propose_tags";
/// Rows that are looked at.
const SAMPLE_ROWS: usize = 10_000;

/// What a tag's columns are like.
struct Sign {
    tag: &'static str,
    /// Parts of names, between underscores or at their ends.
    names: &'static [&'static str],
    /// The form of values.
    form: Option<&'static str>,
}

const SIGNS: [Sign; 9] = [
    Sign {
        tag: "pii.email",
        names: &["email", "mail", "e_mail"],
        form: Some("^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$"),
    },
    Sign {
        tag: "pii.phone",
        names: &["phone", "mobile", "telephone", "tel", "fax"],
        form: Some("^([+]|00)[0-9][0-9 ()/.-]{6,20}$"),
    },
    Sign {
        tag: "pii.name",
        names: &["first_name", "last_name", "full_name", "given_name", "surname", "firstname"],
        form: None,
    },
    Sign {
        tag: "pii.address",
        names: &["street", "address", "postcode", "zip", "zipcode", "postal_code"],
        form: None,
    },
    Sign {
        tag: "pii.birth_date",
        names: &["birth_date", "birthdate", "birthday", "dob"],
        form: None,
    },
    Sign {
        tag: "pii.national_id",
        names: &["ssn", "passport", "tax_id", "national_id"],
        form: Some("^[0-9]{3}-[0-9]{2}-[0-9]{4}$"),
    },
    Sign {
        tag: "pii.bank_account",
        names: &["iban", "card_number", "credit_card", "account_number"],
        form: Some("^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$"),
    },
    Sign {
        tag: "pii.ip_address",
        names: &["ip", "ip_address", "remote_addr"],
        form: Some("^([0-9]{1,3}[.]){3}[0-9]{1,3}$"),
    },
    Sign {
        tag: "pii.device_id",
        names: &["cookie", "cookie_id", "device_id", "idfa", "gaid"],
        form: None,
    },
];

impl Sign {
    /// Whether a column's name has one of the parts.
    fn is_in_name(&self, column: &str) -> bool {
        let name = format!("_{}_", column.to_lowercase().replace(['-', ' ', '.'], "_"));
        self.names.iter().any(|part| name.contains(&format!("_{part}_")))
    }
}

/// The tag that a column is proposed for its name.
pub(crate) fn tag_of_name(column: &str) -> Option<&'static str> {
    SIGNS.iter().find(|sign| sign.is_in_name(column)).map(|sign| sign.tag)
}

/// The documentation of the function.
pub(crate) fn documentation() -> FunctionDoc {
    FunctionDoc {
        name: NAME.into(),
        aliases: Vec::new(),
        kind: "table",
        section: "Privacy Functions".into(),
        description:
            "Columns of a table that look as if they held personal data, with the tag that \
            each could have: by_name tells that the column is called so, sampled how many values \
            of the first 10,000 rows are there, and matching how many of them have the form. \
            Proposed are columns that are called so, and those of which four in five values have \
            the form. The rows are read with the rights of whoever asks, under policies. ALTER \
            TABLE t ALTER COLUMN c SET TAG sets a tag."
                .into(),
        syntax: "propose_tags('table')".into(),
        example: "SELECT * FROM propose_tags('customers');".into(),
        arguments: Vec::new(),
        own: true,
    }
}

/// Plans the function.
#[derive(Debug)]
pub(crate) struct ProposeRelation(Arc<BTreeMap<String, LogicalPlan>>);

impl ProposeRelation {
    /// For a statement, whose tables are planned by name.
    pub(crate) fn new(bindings: &Bindings) -> Self {
        Self(Arc::clone(&bindings.proposals))
    }
}

impl RelationPlanner for ProposeRelation {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let is_ours = match &relation {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                name_parts(name) == [NAME]
            }
            _ => false,
        };
        let (arguments, alias) = match relation {
            TableFactor::Table { args: Some(arguments), alias, .. } if is_ours => {
                (arguments.args, alias)
            }
            TableFactor::Function { args, alias, .. } if is_ours => (args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let named = match arguments.as_slice() {
            [argument] => literal_text(argument),
            _ => None,
        };
        match named.and_then(|name| self.0.get(&name)) {
            Some(plan) => {
                let planned = PlannedRelation::new(plan.clone(), alias);
                Ok(RelationPlanning::Planned(Box::new(planned)))
            }
            None => Err(DataFusionError::from(Error::invalid_hint(
                "propose_tags takes the name of one table",
                "write propose_tags('t'), with the table's name in quotes",
            ))),
        }
    }
}

/// Plans the function for a table, as written.
///
/// # Errors
/// When the table cannot be read, or policies do not let its values be looked at.
pub(crate) async fn plan(context: &Arc<StatementContext>, table: &str) -> Result<LogicalPlan> {
    let table = table.split('.').map(quoted).collect::<Vec<_>>().join(".");
    let (_, whole) = context.plan_query(parse_query(&format!("SELECT * FROM {table}"))?).await?;
    let columns = whole.schema().fields().iter();
    let columns = columns.map(|field| (field.name().clone(), field.data_type().is_string()));
    let text = query(&table, &columns.collect::<Vec<_>>());
    Ok(context.plan_query(parse_query(&text)?).await?.1)
}

/// The query over a sample of a table, quoted; of each column it is known whether it is of texts.
fn query(table: &str, columns: &[(String, bool)]) -> String {
    let (mut counts, mut lines) = (Vec::new(), Vec::new());
    for (at, (column, is_text)) in columns.iter().enumerate() {
        counts.push(format!("count({}) AS n{at}", quoted(column)));
        for (number, sign) in SIGNS.iter().enumerate() {
            let by_name = sign.is_in_name(column);
            let form = sign.form.filter(|_| *is_text);
            if !by_name && form.is_none() {
                continue;
            }
            let matching = match form {
                Some(form) => {
                    let column = quoted(column);
                    let name = format!("m{at}_{number}");
                    let fits = format!("regexp_like({column}, '{form}')");
                    counts.push(format!("count(*) FILTER (WHERE {fits}) AS {name}"));
                    name
                }
                None => "CAST(NULL AS BIGINT)".to_owned(),
            };
            let named = column.replace('\'', "''");
            lines.push(format!(
                "named_struct('column', '{named}', 'tag', '{}', 'by_name', {by_name}, \
                 'sampled', n{at}, 'matching', {matching})",
                sign.tag
            ));
        }
    }
    const COLUMNS: &str = "p['column'] AS \"column\", p['tag'] AS tag, p['by_name'] AS by_name, \
                           p['sampled'] AS sampled, p['matching'] AS matching";
    if lines.is_empty() {
        return "SELECT CAST(NULL AS VARCHAR) AS \"column\", CAST(NULL AS VARCHAR) AS tag, \
                CAST(NULL AS BOOLEAN) AS by_name, CAST(NULL AS BIGINT) AS sampled, \
                CAST(NULL AS BIGINT) AS matching WHERE false"
            .to_owned();
    }
    format!(
        "SELECT {COLUMNS} FROM (SELECT unnest(make_array({})) AS p FROM (SELECT {} FROM \
         (SELECT * FROM {table} LIMIT {SAMPLE_ROWS}) AS s) AS counted) AS lines \
         WHERE p['by_name'] OR (p['matching'] > 0 AND p['matching'] * 5 >= p['sampled'] * 4)",
        lines.join(", "),
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_by_their_parts() {
        let tag = tag_of_name;
        assert_eq!(tag("Email"), Some("pii.email"));
        assert_eq!(tag("billing-mail"), Some("pii.email"));
        assert_eq!(tag("mobile_2"), Some("pii.phone"));
        assert_eq!(tag("last_name"), Some("pii.name"));
        assert_eq!(tag("ip"), Some("pii.ip_address"));
        for other in ["shipment", "emails_sent", "zipper", "name_of_ship"] {
            assert_eq!(tag(other), None, "{other}");
        }
    }

    #[test]
    fn the_query_reads_the_sample_once_and_parses() {
        let columns = [("it's".to_owned(), true), ("mail".to_owned(), false)];
        let text = query("t", &columns);
        assert_eq!(text.matches("FROM t").count(), 1);
        assert!(parse_query(&text).is_ok(), "{text}");
        assert!(parse_query(&query("t", &[])).is_ok());
    }
}
