//! `clean` and `clean_changes` written out as SQL over the rows of the query.
//!
//! From the inside out: what is inferred of all values (`s`), one row or one for each source; the
//! rows with it (`b`), column n of the query being `c<n>`, with white space corrected `t<n>`, the
//! order of its dates `o<n>`, its kind `k<n>`, and a measure in the unit that is wanted `m<n>`;
//! then what becomes of the values. The names are our own, so that no column of the query can be
//! taken for another.

use super::kinds::{Kind, Parts};
use super::options::{CHANGED, Cleaning, DOUBTFUL, Region, Task};
use crate::dml::sent::quoted;
use crate::error::{Error, Result};

/// What stands for the query.
pub(super) const INPUT: &str = "rows of the query";

/// Countries without a numbering plan of their own.
const WITHOUT_PLAN: [&str; 7] = ["AQ", "BV", "GS", "HM", "PN", "TF", "UM"];

/// A number and its unit.
const MEASURE: &str = "^([-+]?[0-9]+(?:[.][0-9]+)?) ?([^0-9 ].*)$";

/// The rows with what is sure corrected.
///
/// # Errors
/// When the query has a column of the name of the list of doubtful ones.
pub(super) fn rows(cleaning: &Cleaning) -> Result<String> {
    if cleaning.columns.iter().any(|(name, _)| name == DOUBTFUL) {
        return Err(taken(DOUBTFUL));
    }
    let (mut columns, mut after, mut doubtful) = (vec![], vec![], vec![]);
    let dialled = dialled(cleaning);
    for (at, (name, data_type)) in cleaning.columns.iter().enumerate() {
        let named = quoted(name);
        let Some(task) = cleaning.tasks.get(&at) else {
            columns.push(format!("c{at} AS {named}"));
            continue;
        };
        let cell = Cell { at, task, data_type: data_type.to_string(), dialled: &dialled };
        let is_doubtful = format!("a{at} IS NULL AND {}", cell.is_filled());
        after.push(format!("{} AS a{at}", cell.after()));
        doubtful.push(format!("CASE WHEN {is_doubtful} THEN {} ELSE '' END", literal(name)));
        columns.push(format!(
            "arrow_cast(CASE WHEN {is_doubtful} THEN {} ELSE a{at} END, {}) AS {named}",
            cell.before(),
            literal(&cell.data_type)
        ));
    }
    Ok(format!(
        "SELECT {}, array_remove_all(make_array({}), '') AS {DOUBTFUL} FROM (SELECT *, {} FROM {} \
         AS b) AS corrected",
        columns.join(", "),
        doubtful.join(", "),
        after.join(", "),
        base(cleaning)
    ))
}

/// A row for each value that is changed or doubtful.
///
/// # Errors
/// When there is no key, or a column of it has the name of one beside it.
pub(super) fn changes(cleaning: &Cleaning) -> Result<String> {
    if cleaning.key.is_empty() {
        return Err(Error::invalid_hint(
            "clean_changes needs a key, which tells whose values were changed",
            "write key => 'id', or key => ['shop', 'order_id']",
        ));
    }
    let mut key = Vec::new();
    for at in &cleaning.key {
        let Some((name, _)) = cleaning.columns.get(*at) else { continue };
        if CHANGED.contains(&name.as_str()) {
            return Err(taken(name));
        }
        key.push(format!("c{at} AS {}", quoted(name)));
    }
    let mut places = Vec::new();
    let dialled = dialled(cleaning);
    let [mut label, mut kind, mut before, mut after, mut filled, mut doubt, mut reason] =
        std::array::from_fn(|_| String::from("CASE n"));
    for (at, task) in &cleaning.tasks {
        let Some((name, data_type)) = cleaning.columns.get(*at) else { continue };
        let data_type = data_type.to_string();
        let cell = Cell { at: *at, task, data_type, dialled: &dialled };
        places.push(format!("({at})"));
        for (case, value) in [
            (&mut label, literal(name)),
            (&mut kind, cell.kind()),
            (&mut before, format!("CAST(c{at} AS VARCHAR)")),
            (&mut after, format!("CAST({} AS VARCHAR)", cell.after())),
            (&mut filled, cell.is_filled()),
            (&mut doubt, cell.doubt()),
            (&mut reason, cell.reason("became")),
        ] {
            case.push_str(&format!(" WHEN {at} THEN ({value})"));
        }
    }
    let key = key.join(", ");
    // Each row comes once for each column. Values stand in parentheses, since a chain of operators
    // is bounded.
    let cells = format!(
        "SELECT *, {label} END AS label, {kind} END AS of_kind, {before} END AS was, {after} END \
         AS became, {filled} END AS is_filled FROM (VALUES {}) AS cells (n) CROSS JOIN {} AS b",
        places.join(", "),
        base(cleaning)
    );
    let judged = format!(
        "SELECT *, CASE WHEN became IS NULL AND is_filled THEN 'quarantined' WHEN became IS \
         DISTINCT FROM was THEN 'corrected' END AS judged FROM ({cells}) AS cells"
    );
    let [column, of_kind, before, after, why, status] = CHANGED.map(quoted);
    Ok(format!(
        "SELECT {key}, label AS {column}, of_kind AS {of_kind}, was AS {before}, became AS {after}, \
         CASE WHEN judged = 'quarantined' THEN {doubt} END ELSE {reason} END END AS {why}, judged \
         AS {status} FROM ({judged}) AS j WHERE judged IS NOT NULL"
    ))
}

fn taken(name: &str) -> Error {
    Error::invalid_hint(
        format!("the query has a column {name}, which is one of the answer"),
        "give it another name with AS",
    )
}

/// The query's rows with what the expressions are over.
fn base(cleaning: &Cleaning) -> String {
    let mut columns: Vec<String> = cleaning
        .columns
        .iter()
        .enumerate()
        .map(|(at, (name, _))| format!("r.{} AS c{at}", quoted(name)))
        .collect();
    for (at, task) in &cleaning.tasks {
        if !matches!(task, Task::Measure { .. } | Task::Unit { .. }) {
            let value = value(cleaning, *at);
            columns.push(format!("normalize_whitespace({value}) AS t{at}"));
        }
        if let Task::Measure { unit, unit_at } = task {
            columns.push(format!("{} AS m{at}", in_unit(cleaning, *at, *unit_at, unit)));
        }
        match cleaning.date_order {
            Some(order) => columns.push(format!("{} AS o{at}", literal(order))),
            None if cleaning.infers_order(task) => columns.push(format!("s.o{at} AS o{at}")),
            None => {}
        }
        if matches!(task, Task::Inferred(_)) {
            columns.push(format!("s.k{at} AS k{at}"));
        }
    }
    if let Region::Column(at) = &cleaning.region {
        let country = format!("normalize_country({})", value(cleaning, *at));
        let without = WITHOUT_PLAN.map(literal).join(", ");
        columns
            .push(format!("CASE WHEN {country} IN ({without}) THEN NULL ELSE {country} END AS p"));
    }
    let input = quoted(INPUT);
    let from = match (cleaning.reads_twice(), cleaning.partition.as_slice()) {
        (false, _) => format!("{input} AS r"),
        // The few rows of what is inferred come first: that side of a join is held in memory.
        (true, []) => format!("({}) AS s CROSS JOIN {input} AS r", inferred(cleaning)),
        (true, partition) => {
            let same = partition.iter().enumerate().filter_map(|(group, at)| {
                let (name, _) = cleaning.columns.get(*at)?;
                Some(format!("s.g{group} IS NOT DISTINCT FROM r.{}", quoted(name)))
            });
            let same = same.collect::<Vec<_>>().join(" AND ");
            format!("({}) AS s RIGHT JOIN {input} AS r ON {same}", inferred(cleaning))
        }
    };
    format!("(SELECT {} FROM {from})", columns.join(", "))
}

/// What all values of the columns tell, for each source.
fn inferred(cleaning: &Cleaning) -> String {
    let (mut columns, mut groups) = (vec![], vec![]);
    for (group, at) in cleaning.partition.iter().enumerate() {
        let Some((name, _)) = cleaning.columns.get(*at) else { continue };
        columns.push(format!("r.{} AS g{group}", quoted(name)));
        groups.push(format!("r.{}", quoted(name)));
    }
    for (at, task) in &cleaning.tasks {
        let value = value(cleaning, *at);
        if cleaning.infers_order(task) {
            columns.push(format!("infer_date_order({value}) AS o{at}"));
        }
        if let Task::Inferred(by_name) = task {
            columns.push(format!("{} AS k{at}", inferred_kind(*by_name, &value)));
        }
    }
    let by = match groups.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", groups.join(", ")),
    };
    format!("SELECT {} FROM {} AS r{by}", columns.join(", "), quoted(INPUT))
}

/// The kind of a column: that of its name, where half of the values could be of it, or one of which
/// four in five values have the form.
fn inferred_kind(by_name: Option<Kind>, value: &str) -> String {
    let count = |condition: &str| format!("count(*) FILTER (WHERE {condition})");
    let all = count(&format!("regexp_like({value}, '[^[:space:]]')"));
    let mut kinds = format!("CASE WHEN {all} = 0 THEN {}", literal(Kind::Text.name()));
    if let Some(kind) = by_name {
        let plausible = count(&kind.plausible(value));
        let name = literal(kind.name());
        kinds.push_str(&format!(" WHEN {plausible} * 2 >= {all} THEN {name}"));
    }
    for (kind, condition) in Kind::by_values(value) {
        let name = literal(kind.name());
        kinds.push_str(&format!(" WHEN {} * 5 >= {all} * 4 THEN {name}", count(&condition)));
    }
    format!("{kinds} ELSE {} END", literal(Kind::Text.name()))
}

/// The country in which telephone numbers are dialled: a constant where it is one, so that what
/// becomes of an id can be computed again.
fn dialled(cleaning: &Cleaning) -> String {
    match &cleaning.region {
        Region::Unknown => "CAST(NULL AS VARCHAR)".into(),
        Region::Country(country) => literal(country),
        Region::Column(_) => "p".into(),
    }
}

/// A measure in the unit that is wanted; NULL where it has none, or is not finite as what the
/// column holds.
fn in_unit(cleaning: &Cleaning, at: usize, unit_at: usize, unit: &str) -> String {
    let Some((name, data_type)) = cleaning.columns.get(at) else { return "NULL".into() };
    let (unit, of, name) = (literal(unit), value(cleaning, unit_at), quoted(name));
    let data_type = literal(&data_type.to_string());
    let converted = format!("convert_unit(r.{name}, {of}, {unit})");
    format!("convert_unit(arrow_cast({converted}, {data_type}), {unit}, {unit})")
}

/// A value of the query as text.
fn value(cleaning: &Cleaning, at: usize) -> String {
    let name = cleaning.columns.get(at).map(|(name, _)| quoted(name)).unwrap_or_default();
    format!("CAST(r.{name} AS VARCHAR)")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A column that is cleaned; the expressions are over the base.
struct Cell<'a> {
    at: usize,
    task: &'a Task,
    data_type: String,
    dialled: &'a str,
}

impl Cell<'_> {
    fn parts(&self) -> Parts {
        let at = self.at;
        let (spaced, order) = (format!("t{at}"), format!("o{at}"));
        Parts { spaced, order, region: self.dialled.to_owned() }
    }

    /// One expression for each kind that may be inferred.
    fn by_kind(&self, by_name: Option<Kind>, of: impl Fn(Kind) -> String) -> String {
        let told = [Kind::Email, Kind::Phone, Kind::Date];
        let named = by_name.into_iter().filter(|kind| !told.contains(kind));
        let cases = told
            .into_iter()
            .chain(named)
            .map(|kind| format!(" WHEN {} THEN {}", literal(kind.name()), of(kind)));
        format!("CASE k{}{} ELSE {} END", self.at, cases.collect::<String>(), of(Kind::Text))
    }

    fn kind(&self) -> String {
        match self.task {
            Task::Given(kind) => literal(kind.name()),
            Task::Inferred(_) => format!("k{}", self.at),
            Task::Measure { .. } | Task::Written { .. } | Task::Unit { .. } => literal("unit"),
        }
    }

    /// The value as it is; a text as the type that texts are cleaned in.
    fn before(&self) -> String {
        match self.task {
            Task::Measure { .. } => format!("c{}", self.at),
            _ => format!("CAST(c{} AS VARCHAR)", self.at),
        }
    }

    /// The corrected value, NULL of a doubtful one.
    fn after(&self) -> String {
        let at = self.at;
        match self.task {
            Task::Given(kind) => kind.after(&self.parts()),
            Task::Inferred(by_name) => self.by_kind(*by_name, |kind| kind.after(&self.parts())),
            Task::Measure { .. } => {
                format!("arrow_cast(m{at}, {})", literal(&self.data_type))
            }
            Task::Written { unit } => {
                let (number, of, to) = (measured(at, 1), measured(at, 2), literal(unit));
                let converted = format!("convert_unit(TRY_CAST({number} AS DOUBLE), {of}, {to})");
                let ending = literal(&format!(" {unit}"));
                format!(
                    "CASE WHEN t{at} = '' THEN NULL WHEN {of} = {to} THEN {number} || {ending} ELSE \
                     CAST({converted} AS VARCHAR) || {ending} END"
                )
            }
            Task::Unit { unit, measure_at } => {
                let (unit, given) = (literal(unit), self.before());
                format!("CASE WHEN m{measure_at} IS NULL THEN {given} ELSE {unit} END")
            }
        }
    }

    /// Whether there is a value, which is doubtful where none comes of it.
    fn is_filled(&self) -> String {
        match self.task {
            Task::Given(_) | Task::Inferred(_) | Task::Written { .. } => {
                format!("t{} <> ''", self.at)
            }
            Task::Measure { .. } => format!("c{} IS NOT NULL", self.at),
            Task::Unit { .. } => "FALSE".into(),
        }
    }

    /// Why the value is doubtful.
    fn doubt(&self) -> String {
        match self.task {
            Task::Given(kind) => kind.doubt(&self.parts()),
            Task::Inferred(by_name) => self.by_kind(*by_name, |kind| kind.doubt(&self.parts())),
            Task::Measure { unit, unit_at } => format!(
                "CASE WHEN convert_unit(1, CAST(c{unit_at} AS VARCHAR), {}) IS NOT NULL THEN {} \
                 ELSE coalesce('''' || CAST(c{unit_at} AS VARCHAR) || {}, 'has no unit') END",
                literal(unit),
                literal(&format!("is no finite number of {unit}")),
                literal(&format!("' is no unit of which {unit} can be made"))
            ),
            Task::Written { unit } => {
                literal(&format!("is no number with a unit of which {unit} can be made"))
            }
            Task::Unit { .. } => "NULL".into(),
        }
    }

    /// Why the value was changed into `after`.
    fn reason(&self, after: &str) -> String {
        match self.task {
            Task::Given(kind) => kind.reason(&self.parts(), after),
            Task::Inferred(by_name) => {
                self.by_kind(*by_name, |kind| kind.reason(&self.parts(), after))
            }
            Task::Measure { unit, unit_at } => format!(
                "'from ' || CAST(c{unit_at} AS VARCHAR) || {}",
                literal(&format!(" to {unit}"))
            ),
            Task::Written { unit } => format!(
                "CASE WHEN t{at} = '' THEN 'blank' WHEN t{at} = {after} THEN 'white space' ELSE {} END",
                literal(&format!("to {unit}")),
                at = self.at
            ),
            Task::Unit { unit, .. } => literal(&format!("the measure is in {unit}")),
        }
    }
}

/// The number or the unit of a written measure.
fn measured(at: usize, part: usize) -> String {
    format!("array_element(regexp_match(t{at}, '{MEASURE}'), {part})")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn countries_without_a_plan_are_known() {
        assert!(WITHOUT_PLAN.iter().all(|country| !udfs::identity::has_numbering_plan(country)));
        assert!(udfs::identity::has_numbering_plan("gb"));
    }

    #[test]
    fn what_is_written_parses() {
        let columns = ["id", "it's", "w\"1"].map(|name| (name.to_owned(), DataType::Utf8View));
        let cleaning = Cleaning {
            columns: columns.to_vec(),
            key: vec![0],
            tasks: [
                (1, Task::Inferred(Some(Kind::Name))),
                (2, Task::Written { unit: "kg".into() }),
            ]
            .into(),
            region: Region::Column(1),
            date_order: None,
            partition: vec![1],
        };
        for text in [rows(&cleaning).unwrap(), changes(&cleaning).unwrap()] {
            assert!(crate::parse::parse_query(&text).is_ok(), "{text}");
        }
    }
}
