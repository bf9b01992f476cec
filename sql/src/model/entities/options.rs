//! The options of `model_type = 'entity_resolution'`.

use std::fmt;

use serde_json::Value as Json;
use udfs::model::entity_resolution::cluster::Method;
use udfs::model::entity_resolution::kind::Kind;
use udfs::model::entity_resolution::learn::LinkOptions;

use crate::error::{Error, Result};
use crate::model::reader::Reader;

/// The options of the type.
pub const OPTIONS: [&str; 16] = [
    "id_col",
    "source_col",
    "cluster_col",
    "link_type",
    "comparisons",
    "blocking_rules",
    "personal_cols",
    "threshold",
    "pair_threshold",
    "cluster_method",
    "decision_table",
    "labels_table",
    "max_iterations",
    "max_pairs",
    "max_block_size",
    "warm_start",
];

/// From which probability records are one entity, unless `threshold` says otherwise.
const THRESHOLD: f64 = 0.95;

/// The least probability of pairs that are kept, unless `pair_threshold` says otherwise.
const PAIR_THRESHOLD: f64 = 0.01;

/// Which records are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    /// All with all.
    Dedupe,
    /// Those of different tables.
    Link,
    /// All with all, of several tables.
    LinkAndDedupe,
}

/// Options of a model of entities.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityLearner {
    /// The column of ids, when named.
    pub id_col: Option<String>,
    /// The column that tells the table of a record.
    pub source_col: Option<String>,
    /// The column with the entity that a record is known to be of, which is not compared.
    pub cluster_col: Option<String>,
    /// Which records are compared.
    pub link_type: LinkType,
    /// How columns are compared that are named.
    pub comparisons: Vec<(String, Kind)>,
    /// Rules to block by; none: they are suggested.
    pub blocking_rules: Vec<String>,
    /// The table of what people have decided about pairs of records.
    pub decision_table: Option<String>,
    /// The table of pairs of records of which it is known whether they match, to learn from.
    pub labels_table: Option<String>,
    /// The columns that are a person's own, when named.
    pub personal_cols: Option<Vec<String>>,
    /// From which probability records are one entity.
    pub threshold: f64,
    /// The least probability of pairs that are kept.
    pub pair_threshold: f64,
    /// How pairs become entities.
    pub method: Method,
    /// Of learning.
    pub link: LinkOptions,
}

impl EntityLearner {
    /// Reads a model's options.
    ///
    /// # Errors
    /// When a value is not taken.
    pub fn read(reader: &Reader<'_>) -> Result<Self> {
        let text = |name: &str| Ok::<_, Error>(reader.text(name)?.map(str::to_owned));
        let source_col = text("source_col")?;
        let link_type = match reader.choice("link_type", &["dedupe", "link", "link_and_dedupe"])? {
            Some("dedupe") => LinkType::Dedupe,
            Some("link") => LinkType::Link,
            Some(_) => LinkType::LinkAndDedupe,
            None if source_col.is_some() => LinkType::LinkAndDedupe,
            None => LinkType::Dedupe,
        };
        if link_type != LinkType::Dedupe && source_col.is_none() {
            return Err(Error::invalid_hint(
                "a link compares records of several tables, and source_col names none",
                "SELECT 'crm' AS source, … UNION ALL SELECT 'shop', …, with source_col = 'source'",
            ));
        }
        let method = match reader.choice("cluster_method", &METHODS.map(|(name, _)| name))? {
            Some(given) => METHODS.iter().find(|(name, _)| *name == given).map(|(_, of)| *of),
            None => None,
        };
        let usual = match link_type {
            LinkType::Link => Method::BestLink,
            LinkType::Dedupe | LinkType::LinkAndDedupe => Method::Guarded,
        };
        let method = method.unwrap_or(usual);
        if method == Method::BestLink && source_col.is_none() {
            return Err(Error::invalid_hint(
                "cluster_method = 'best_link' takes one record of each table, and source_col \
                 names none",
                "name the column that tells the table of a record, or take 'guarded'",
            ));
        }
        let link = LinkOptions {
            max_iterations: within(reader, "max_iterations", 1..=10_000)?.unwrap_or(50) as usize,
            pairs_max: within(reader, "max_pairs", 1..=100_000_000_000)?.map(i64::cast_unsigned),
            block_max: within(reader, "max_block_size", 2..=1_000_000)?.map(|most| most as usize),
            seed: reader.integer("seed")?.unwrap_or(0).cast_unsigned(),
            ..LinkOptions::default()
        };
        let threshold = probability(reader, "threshold")?.unwrap_or(THRESHOLD);
        let pair_threshold = probability(reader, "pair_threshold")?;
        if let Some(least) = pair_threshold.filter(|least| *least > threshold) {
            return Err(Error::invalid_hint(
                format!("pair_threshold is {least}, above the threshold of {threshold}"),
                "pairs from pair_threshold on are kept, and those from threshold on are one \
                 entity: keep these at least",
            ));
        }
        Ok(Self {
            id_col: text("id_col")?,
            cluster_col: text("cluster_col")?,
            decision_table: text("decision_table")?,
            labels_table: text("labels_table")?,
            source_col,
            link_type,
            comparisons: comparisons(reader)?,
            blocking_rules: rules(reader)?,
            personal_cols: match reader.has("personal_cols") {
                true => Some(personal(reader)?),
                false => None,
            },
            threshold,
            pair_threshold: pair_threshold.unwrap_or(PAIR_THRESHOLD.min(threshold)),
            method,
            link,
        })
    }
}

const METHODS: [(&str, Method); 3] = [
    ("guarded", Method::Guarded),
    ("connected", Method::Connected),
    ("best_link", Method::BestLink),
];

/// As EXPLAIN shows it.
impl fmt::Display for EntityLearner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link_type = match self.link_type {
            LinkType::Dedupe => "dedupe",
            LinkType::Link => "link",
            LinkType::LinkAndDedupe => "link_and_dedupe",
        };
        write!(formatter, "entity_resolution, link_type={link_type}, threshold={}", self.threshold)
    }
}

/// `blocking_rules`, each once.
fn rules(reader: &Reader<'_>) -> Result<Vec<String>> {
    if let Some(Json::Array(given)) = reader.0.get("blocking_rules")
        && let Some((_, twice)) = given
            .iter()
            .enumerate()
            .find(|(at, rule)| given.iter().take(*at).any(|before| before == *rule))
    {
        return Err(Error::invalid_hint(
            format!("blocking_rules has the rule {twice} twice"),
            "a rule finds the same pairs however often it is named: leave one out",
        ));
    }
    reader.columns("blocking_rules").map_err(|error| match error {
        Error::Invalid { what, .. } => Error::invalid_hint(
            what,
            "it takes a list of rules, each a text: ['email', 'last_name AND birth_date']",
        ),
        other => other,
    })
}

/// No columns, too: then nobody has a relative.
fn personal(reader: &Reader<'_>) -> Result<Vec<String>> {
    match reader.0.get("personal_cols") {
        Some(Json::Array(names)) if names.is_empty() => Ok(vec![]),
        _ => reader.columns("personal_cols"),
    }
}

fn within(
    reader: &Reader<'_>,
    name: &str,
    range: std::ops::RangeInclusive<i64>,
) -> Result<Option<i64>> {
    match reader.integer(name)? {
        Some(number) if !range.contains(&number) => Err(Error::invalid_hint(
            format!("{name} is {number}"),
            format!("it takes a whole number from {} to {}", range.start(), range.end()),
        )),
        other => Ok(other),
    }
}

fn probability(reader: &Reader<'_>, name: &str) -> Result<Option<f64>> {
    match reader.number(name)? {
        Some(number) => Ok(Some(check_probability(name, number)?)),
        None => Ok(None),
    }
}

/// A probability that decides something.
///
/// # Errors
/// When it lies not between 0 and 1.
pub fn check_probability(name: &str, number: f64) -> Result<f64> {
    if number > 0.0 && number < 1.0 {
        return Ok(number);
    }
    let usual = if name == "pair_threshold" { PAIR_THRESHOLD } else { THRESHOLD };
    Err(Error::invalid_hint(
        format!("{name} is {number}"),
        format!("it takes a probability above 0 and below 1; {usual} is usual"),
    ))
}

/// `comparisons`: columns with the way to compare each.
fn comparisons(reader: &Reader<'_>) -> Result<Vec<(String, Kind)>> {
    let Some(given) = reader.0.get("comparisons") else { return Ok(vec![]) };
    let wrong = || {
        Error::invalid_hint(
            format!("option comparisons is {given}"),
            format!(
                "it takes columns with the way to compare each: [STRUCT('postcode', 'code')]; \
                 ways are {}",
                Kind::names()
            ),
        )
    };
    let pair = |pair: &Json| match pair.as_array().map(Vec::as_slice) {
        Some([Json::String(column), Json::String(kind)]) => match Kind::parse(kind) {
            Some(kind) => Ok((column.clone(), kind)),
            None => Err(wrong()),
        },
        _ => Err(wrong()),
    };
    given.as_array().ok_or_else(wrong)?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::learners::Learner;
    use super::super::super::options::tests::read;
    use super::*;

    fn entities(options: &str) -> Result<EntityLearner> {
        let options = format!("model_type = 'entity_resolution', {options}");
        match read(&options)?.learner {
            Learner::Entities(learner) => Ok(learner),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn options_are_read() {
        let read = entities(
            "id_col = 'id', source_col = 'shop', comparisons = [STRUCT('zip', 'code')], \
             blocking_rules = ['zip', 'soundex(name) AND year(born)'], threshold = 0.8",
        )
        .unwrap();
        assert_eq!(read.link_type, LinkType::LinkAndDedupe);
        assert_eq!(read.comparisons, [("zip".to_owned(), Kind::Code)]);
        assert_eq!((read.blocking_rules.len(), read.threshold), (2, 0.8));
        assert_eq!(
            entities("source_col = 's', link_type = 'link'").unwrap().method,
            Method::BestLink
        );
        assert_eq!(entities("id_col = 'id'").unwrap().method, Method::Guarded);
    }

    #[test]
    fn what_is_not_taken_is_said() {
        for (options, part) in [
            ("threshold = 1", "above 0 and below 1"),
            ("link_type = 'link'", "source_col"),
            ("cluster_method = 'best_link'", "source_col"),
            ("comparisons = ['zip']", "STRUCT('postcode', 'code')"),
            ("comparisons = [STRUCT('zip', 'zip')]", "email"),
            ("max_block_size = 1", "from 2"),
            ("blocking_rules = 'zip'", "a list of rules"),
            ("blocking_rules = ['email', 'zip', 'email']", "has the rule \"email\" twice"),
            ("pair_threshold = 0", "0.01 is usual"),
            ("threshold = 0.5, pair_threshold = 0.6", "above the threshold of 0.5"),
        ] {
            let error = entities(options).unwrap_err();
            let shown = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(shown.contains(part), "{options}: {shown}");
        }
    }
}
