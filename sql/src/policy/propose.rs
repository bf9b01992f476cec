//! `propose_tags('t')` in FROM: which columns of a table look as if they held personal data.
//!
//! A column is proposed for its name, or because most values of a sample have a form. The sample is
//! read as whoever asks: under policies like any other query.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use sqlparser::ast::{ObjectName, TableFactor};

use crate::dml::sent::quoted;
use crate::error::{Error, Result};
use crate::functions::FunctionDoc;
use crate::over_query::{self, Call};
use crate::parse::{name_parts, parse_query};
use crate::session::StatementContext;
use crate::session::bindings::{Bindings, literal_text};

/// The function's name.
pub(crate) const NAME: &str = "propose_tags";
/// Rows that are looked at.
const SAMPLE_ROWS: usize = 10_000;

/// How a value is told.
enum Form {
    /// By a regular expression.
    Pattern(&'static str),
    /// By what `redact` puts in its place: sums hold there, and addresses parse.
    Redacted(&'static str),
}

impl Form {
    /// The condition that a text has the form.
    fn fits(&self, text: &str) -> String {
        match self {
            Self::Pattern(pattern) => format!("regexp_like({text}, '{pattern}')"),
            Self::Redacted(label) => format!("redact({text}) = '{label}'"),
        }
    }
}

/// What a tag's columns are like.
struct Sign {
    tag: &'static str,
    /// Parts of names, between underscores or at their ends.
    names: &'static [&'static str],
    /// The form of texts.
    text: Option<Form>,
    /// The form of the digits of whole numbers. Moments in Unix time have none of these.
    digits: Option<Form>,
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Text,
    Whole,
    Other,
}

impl Values {
    fn of(data_type: &DataType) -> Self {
        match data_type {
            _ if data_type.is_string() => Self::Text,
            DataType::Decimal128(_, 0) => Self::Whole,
            _ if data_type.is_integer() => Self::Whole,
            _ => Self::Other,
        }
    }
}

const SIGNS: [Sign; 10] = [
    Sign {
        tag: "pii.email",
        names: &["email", "mail", "e_mail"],
        text: Some(Form::Pattern("^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$")),
        digits: None,
    },
    Sign {
        tag: "pii.phone",
        names: &["phone", "mobile", "telephone", "tel", "fax"],
        text: Some(Form::Pattern("^([+]|00)[0-9][0-9 ()/.-]{6,20}$")),
        // North American, with or without the 1; others with the country's code.
        digits: Some(Form::Pattern("^(1?[2-9][0-9]{2}[2-9][0-9]{6}|[2-9][0-9]{10,12})$")),
    },
    Sign {
        tag: "pii.name",
        names: &["first_name", "last_name", "full_name", "given_name", "surname", "firstname"],
        text: None,
        digits: None,
    },
    Sign {
        tag: "pii.address",
        names: &["street", "address", "postcode", "zip", "zipcode", "postal_code"],
        text: None,
        digits: None,
    },
    Sign {
        tag: "pii.birth_date",
        names: &["birth_date", "birthdate", "birthday", "dob"],
        text: None,
        digits: None,
    },
    Sign {
        tag: "pii.national_id",
        names: &["ssn", "passport", "tax_id", "national_id"],
        text: Some(Form::Pattern("^[0-9]{3}-[0-9]{2}-[0-9]{4}$")),
        digits: None,
    },
    Sign {
        tag: "pii.bank_account",
        names: &["iban", "account_number"],
        text: Some(Form::Pattern("^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$")),
        digits: None,
    },
    Sign {
        tag: "pii.payment_card",
        names: &["card_number", "credit_card", "debit_card", "card_no"],
        text: Some(Form::Redacted("[CARD]")),
        digits: Some(Form::Redacted("[CARD]")),
    },
    Sign {
        tag: "pii.ip_address",
        names: &["ip", "ip_address", "remote_addr"],
        text: Some(Form::Redacted("[IP]")),
        digits: None,
    },
    Sign {
        tag: "pii.device_id",
        names: &["cookie", "cookie_id", "device_id", "idfa", "gaid"],
        text: None,
        digits: None,
    },
];

impl Sign {
    /// Whether a column's name has one of the parts.
    fn is_in_name(&self, column: &str) -> bool {
        let name = format!("_{}_", column.to_lowercase().replace(['-', ' ', '.'], "_"));
        self.names.iter().any(|part| name.contains(&format!("_{part}_")))
    }

    /// The condition that a value of a column, quoted, has the form.
    fn fits(&self, column: &str, values: Values) -> Option<String> {
        match values {
            Values::Text => self.text.as_ref().map(|form| form.fits(column)),
            Values::Whole => {
                let digits = format!("CAST({column} AS VARCHAR)");
                self.digits.as_ref().map(|form| form.fits(&digits))
            }
            Values::Other => None,
        }
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
            of the first 10,000 rows are there, and matching how many of them have the form of \
            the tag: e-mail addresses, phone numbers, payment cards (Luhn), IBANs, IPv4 and IPv6 \
            addresses, US social security numbers; in columns of whole numbers cards and phone \
            numbers. Proposed are columns that are called so, and those of which four in five \
            values have the form. The rows are read with the rights of whoever asks, under \
            policies. ALTER TABLE t ALTER COLUMN c SET TAG sets a tag."
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
        let is_ours = |name: &ObjectName| name_parts(name) == [NAME];
        let Call { arguments, alias, .. } = match over_query::call(relation, is_ours) {
            Ok(call) => call,
            Err(other) => return Ok(RelationPlanning::Original(other)),
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
    let columns = columns.map(|field| (field.name().clone(), Values::of(field.data_type())));
    let text = query(&table, &columns.collect::<Vec<_>>());
    Ok(context.plan_query(parse_query(&text)?).await?.1)
}

/// The query over a sample of a table, quoted; of each column it is known what its values are.
fn query(table: &str, columns: &[(String, Values)]) -> String {
    let (mut counts, mut lines) = (Vec::new(), Vec::new());
    for (at, (column, values)) in columns.iter().enumerate() {
        counts.push(format!("count({}) AS n{at}", quoted(column)));
        for (number, sign) in SIGNS.iter().enumerate() {
            let by_name = sign.is_in_name(column);
            let fits = sign.fits(&quoted(column), *values);
            if !by_name && fits.is_none() {
                continue;
            }
            let matching = match fits {
                Some(fits) => {
                    let name = format!("m{at}_{number}");
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
        let column = |name: &str, values| (name.to_owned(), values);
        let columns = [
            column("it's", Values::Text),
            column("mail", Values::Other),
            column("n", Values::Whole),
        ];
        let text = query("t", &columns);
        assert_eq!(text.matches("FROM t").count(), 1);
        assert!(parse_query(&text).is_ok(), "{text}");
        assert!(parse_query(&query("t", &[])).is_ok());
    }

    #[test]
    fn texts_and_whole_numbers_have_forms() {
        let of = |data_type| Values::of(&data_type);
        assert_eq!(of(DataType::Utf8View), Values::Text);
        for whole in [DataType::Int64, DataType::UInt32, DataType::Decimal128(20, 0)] {
            assert_eq!(of(whole), Values::Whole);
        }
        for other in [DataType::Float64, DataType::Decimal128(20, 2), DataType::Boolean] {
            assert_eq!(of(other), Values::Other);
        }
        assert_eq!(tag_of_name("card_number"), Some("pii.payment_card"));
        assert_eq!(tag_of_name("iban"), Some("pii.bank_account"));
    }
}
