//! The arguments of `anonymize`: which columns, until what holds, and how.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{Expr as SqlExpr, FunctionArg};
use udfs::privacy::HierarchySet;
use udfs::privacy::anonymize::{
    Closeness, Criteria, Distance, Diversity, Kind, Method, Options, Scheme,
};

use super::release::{Releaser, Releasing};
use super::{FORM, ROWS};
use crate::dialect::folded;
use crate::error::{Error, Result};
use crate::model::arguments::{is_number, literal, shown, whole_number, written_options};
use crate::over_query::{self, find, text};

const NAMES: [&str; 16] = [
    "quasi_identifiers",
    "sensitive",
    "insensitive",
    "subset",
    "k",
    "l",
    "l_diversity",
    "c",
    "t",
    "t_closeness",
    "delta_min",
    "delta_max",
    "hierarchies",
    "suppression_limit",
    "method",
    "release",
];
const METHODS: [(&str, Method); 3] = [
    ("optimal", Method::Optimal),
    ("mondrian", Method::Mondrian),
    ("microaggregation", Method::Microaggregation),
];
const DISTANCES: [(&str, Distance); 3] = [
    ("equal", Distance::Equal),
    ("ordered", Distance::Ordered),
    ("hierarchical", Distance::Hierarchical),
];
const DIVERSITIES: [&str; 3] = ["distinct", "entropy", "recursive"];

/// k unless it is given.
const K: u32 = 5;

/// The hierarchies of a call: each column's as written.
fn hierarchies(value: &SqlExpr) -> Option<Vec<(String, &str)>> {
    let SqlExpr::Struct { values, .. } = value else { return None };
    let named = values.iter().map(|value| match value {
        SqlExpr::Named { expr, name } => text(expr).map(|text| (folded(name), text)),
        _ => None,
    });
    named.collect()
}

/// The names of tables among the hierarchies of a call.
pub(super) fn hierarchy_names(arguments: &[FunctionArg]) -> Vec<String> {
    let given = written_options(arguments).filter(|(name, _)| name == "hierarchies");
    given
        .flat_map(|(_, value)| hierarchies(value).unwrap_or_default())
        // What is wrong with a built-in one is said when the call is planned.
        .filter(|(_, written)| matches!(Scheme::built_in(written), Ok(None)))
        .map(|(_, written)| written.to_owned())
        .collect()
}

/// A column of the query that is generalized or must not be learnt.
#[derive(Debug, Clone)]
pub(super) struct Role {
    /// Its place in the query.
    pub at: usize,
    /// Its name.
    pub name: String,
    /// Its hierarchy.
    pub scheme: Option<Scheme>,
}

/// Where a column of the result comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// A quasi-identifier, by number.
    Quasi(usize),
    /// A column that is given as it is, by its place in the query.
    Kept(usize),
}

/// What is asked of the rows of a query.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub is_report: bool,
    pub quasi: Vec<Role>,
    pub sensitive: Vec<Role>,
    /// The place of the column that says which rows are to be released.
    pub subset: Option<usize>,
    pub options: Options,
    /// Under which name it is released, where it is compared with what was released before.
    pub release: Option<Releasing>,
    /// The columns of the result; of a report none.
    pub origins: Vec<Origin>,
    pub schema: SchemaRef,
}

/// The arguments as given, by name.
pub(super) struct Given<'a> {
    written: BTreeMap<String, &'a SqlExpr>,
    /// Those that are numbers.
    numbers: BTreeMap<&'static str, Expr>,
}

impl<'a> Given<'a> {
    /// Reads the arguments behind the query.
    ///
    /// # Errors
    /// When one is unknown, given twice, or of no form that the function takes.
    pub fn read(
        arguments: &'a [FunctionArg],
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let written = over_query::options(ROWS, FORM, &NAMES, arguments)?;
        let mut given = Self { written, numbers: BTreeMap::new() };
        for name in ["k", "l", "c", "t", "delta_min", "delta_max", "suppression_limit"] {
            if let Some(value) = given.written.get(name) {
                let value = context.sql_to_expr((*value).clone(), &DFSchema::empty())?;
                given.numbers.insert(name, value);
            }
        }
        Ok(given)
    }

    /// What is asked of a query's rows.
    ///
    /// # Errors
    /// When a column is missing, or an option is out of its range or does nothing.
    pub fn asked(
        &self,
        is_report: bool,
        input: &LogicalPlan,
        tables: &HierarchySet,
        releaser: &Releaser,
    ) -> Result<Asked> {
        let schema = input.schema().as_arrow();
        let mut schemes = self.schemes(schema, tables)?;
        let mut roles = |option: &str| -> Result<Vec<Role>> {
            let columns = self.columns(option, schema)?;
            Ok(columns
                .into_iter()
                .map(|at| {
                    let name = schema.field(at).name().clone();
                    Role { at, name, scheme: schemes.remove(&at) }
                })
                .collect())
        };
        let (quasi, sensitive) = (roles("quasi_identifiers")?, roles("sensitive")?);
        if let Some(at) = schemes.keys().next() {
            return Err(Error::invalid_hint(
                format!("the hierarchy of column {} does nothing", schema.field(*at).name()),
                "name the column in quasi_identifiers or sensitive, or leave its hierarchy out",
            ));
        }
        let insensitive = self.columns("insensitive", schema)?;
        let subset = self.subset(schema)?;
        if quasi.is_empty() {
            return Err(Error::invalid_hint("anonymize needs quasi-identifiers", FORM));
        }
        let mut named: Vec<usize> = quasi.iter().chain(&sensitive).map(|role| role.at).collect();
        named.extend(insensitive.iter().copied().chain(subset));
        named.sort_unstable();
        if let Some(twice) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid_hint(
                format!("column {} is named twice", schema.field(twice[0]).name()),
                "a column is a quasi-identifier, sensitive, insensitive or the subset",
            ));
        }
        let is_measured = check_roles(schema, &quasi, &sensitive)?;
        let options = self.options(is_measured)?;
        options.check(sensitive.len(), subset.is_some())?;
        check_hierarchies(&quasi, &sensitive, &options)?;
        let release = self.release(is_report, options.method, input, releaser)?;
        let (origins, schema) = match is_report {
            true => (vec![], super::table::report_schema()),
            false => result(schema, &quasi, &sensitive, &insensitive, options.method),
        };
        Ok(Asked { is_report, quasi, sensitive, subset, options, release, origins, schema })
    }

    /// The release that is asked for.
    fn release(
        &self,
        is_report: bool,
        method: Method,
        query: &LogicalPlan,
        releaser: &Releaser,
    ) -> Result<Option<Releasing>> {
        let Some(value) = self.written.get("release") else { return Ok(None) };
        let Some(name) = text(value) else {
            return Err(Error::invalid_hint(
                format!("release is {value}"),
                "it takes a name in quotes: release => 'weekly'",
            ));
        };
        if is_report {
            return Err(Error::invalid_hint(
                "anonymize_report releases nothing",
                "leave release out",
            ));
        }
        if method != Method::Optimal {
            return Err(Error::invalid_hint(
                "release is for the method 'optimal'",
                "the others draw classes anew for each release, which nobody can compare",
            ));
        }
        releaser.named(name, query).map(Some)
    }

    /// The hierarchies by the place of their column.
    fn schemes(&self, schema: &Schema, tables: &HierarchySet) -> Result<BTreeMap<usize, Scheme>> {
        let mut schemes = BTreeMap::new();
        let Some(value) = self.written.get("hierarchies") else { return Ok(schemes) };
        let Some(given) = hierarchies(value) else {
            return Err(Error::invalid_hint(
                "hierarchies names a hierarchy in quotes for each column",
                "write hierarchies => STRUCT('interval:10,20' AS age, 'main.places' AS city)",
            ));
        };
        for (column, written) in given {
            let at = find(schema, &column)?;
            let scheme = match Scheme::built_in(written)? {
                Some(scheme) => scheme,
                None => match tables.get(written) {
                    Some(table) => Scheme::Table(Arc::clone(table)),
                    None => {
                        return Err(Error::Internal(format!("hierarchy {written} was not bound")));
                    }
                },
            };
            if schemes.insert(at, scheme).is_some() {
                return Err(Error::invalid_hint(
                    format!("column {column} has two hierarchies"),
                    "leave one of them out",
                ));
            }
        }
        Ok(schemes)
    }

    /// The places of the columns that an option names.
    fn columns(&self, option: &str, schema: &Schema) -> Result<Vec<usize>> {
        let Some(value) = self.written.get(option) else { return Ok(vec![]) };
        let names: Option<Vec<&str>> = match value {
            SqlExpr::Array(array) => array.elem.iter().map(text).collect(),
            value => text(value).map(|name| vec![name]),
        };
        let Some(names) = names else {
            return Err(Error::invalid_hint(
                format!("{option} is {value}"),
                "it takes names of columns in quotes: ['zip', 'age']",
            ));
        };
        names.into_iter().map(|name| find(schema, name)).collect()
    }

    fn subset(&self, schema: &Schema) -> Result<Option<usize>> {
        match self.columns("subset", schema)?.as_slice() {
            [] => Ok(None),
            [at] if *schema.field(*at).data_type() == DataType::Boolean => Ok(Some(*at)),
            _ => Err(Error::invalid_hint(
                "subset names one column of truth values",
                "write subset => 'released', a column that is TRUE for the rows to be released",
            )),
        }
    }

    /// One of several names.
    fn choice<T: Copy>(&self, option: &str, known: &[(&'static str, T)]) -> Result<Option<T>> {
        let Some(value) = self.written.get(option) else { return Ok(None) };
        let names = known.iter().map(|(name, _)| *name);
        let Some(given) = text(value) else {
            let names: Vec<&str> = names.collect();
            return Err(Error::invalid_hint(
                format!("{option} is {value}"),
                format!("it takes one of '{}'", names.join("', '")),
            ));
        };
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(given));
        match found {
            Some((_, found)) => Ok(Some(*found)),
            None => Err(Error::unknown(option, given, names)),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.numbers.get(name) else { return Ok(None) };
        let number = literal(value)
            .filter(|value| is_number(value))
            .and_then(|value| value.cast_to(&DataType::Float64).ok());
        match number {
            Some(datafusion::common::ScalarValue::Float64(Some(number))) if number.is_finite() => {
                Ok(Some(number))
            }
            _ => Err(Error::invalid_hint(
                format!("{name} is {}", shown(value)),
                "it takes a number that is written out",
            )),
        }
    }

    fn whole(&self, name: &str) -> Result<Option<u32>> {
        let Some(value) = self.numbers.get(name) else { return Ok(None) };
        let number = whole_number(name, value, 1..=1_000_000_000)?;
        Ok(u32::try_from(number).ok())
    }

    fn options(&self, is_measured: bool) -> Result<Options> {
        let k = self.whole("k")?.unwrap_or(K);
        let diversity = self.diversity()?;
        let distance = self.choice("t_closeness", &DISTANCES)?;
        let usual = if is_measured { Distance::Ordered } else { Distance::Equal };
        let closeness = match (self.number("t")?, distance) {
            (Some(t), distance) => Some(Closeness { t, distance: distance.unwrap_or(usual) }),
            (None, Some(_)) => return Err(does_nothing("t_closeness", "t => 0.2")),
            (None, None) => None,
        };
        let presence = match (self.number("delta_min")?, self.number("delta_max")?) {
            (None, None) => None,
            (least, most) => Some((least.unwrap_or(0.0), most.unwrap_or(1.0))),
        };
        Ok(Options {
            method: self.choice("method", &METHODS)?.unwrap_or(Method::Optimal),
            criteria: Criteria { k, diversity, closeness, presence },
            suppression_limit: self.number("suppression_limit")?.unwrap_or(0.0),
        })
    }

    fn diversity(&self) -> Result<Option<Diversity>> {
        let known = DIVERSITIES.map(|name| (name, name));
        let kind = self.choice("l_diversity", &known)?;
        let c = self.number("c")?;
        if !self.numbers.contains_key("l") {
            return match (kind, c) {
                (Some(_), _) => Err(does_nothing("l_diversity", "l => 3")),
                (None, Some(_)) => Err(does_nothing("c", "l => 3, l_diversity => 'recursive'")),
                (None, None) => Ok(None),
            };
        }
        if c.is_some() && kind != Some("recursive") {
            return Err(does_nothing("c", "l_diversity => 'recursive'"));
        }
        if kind == Some("entropy") {
            return Ok(self.number("l")?.map(Diversity::Entropy));
        }
        let Some(l) = self.whole("l")? else { return Ok(None) };
        match (kind, c) {
            (Some("recursive"), Some(c)) => Ok(Some(Diversity::Recursive { c, l })),
            (Some("recursive"), None) => Err(Error::invalid_hint(
                "recursive l-diversity needs c",
                "add c => 3: the most frequent value is less than three times the rare ones",
            )),
            _ => Ok(Some(Diversity::Distinct(l))),
        }
    }
}

fn does_nothing(option: &str, without: &str) -> Error {
    Error::invalid_hint(
        format!("{option} does nothing by itself"),
        format!("add {without}, or leave it out"),
    )
}

/// Refuses columns that cannot be what they are named for; tells whether all sensitive ones are
/// numbers or times.
fn check_roles(schema: &Schema, quasi: &[Role], sensitive: &[Role]) -> Result<bool> {
    let mut is_measured = !sensitive.is_empty();
    for (role, is_sensitive) in
        quasi.iter().map(|role| (role, false)).chain(sensitive.iter().map(|role| (role, true)))
    {
        let kind = Kind::of(&role.name, schema.field(role.at).data_type())?;
        if let Some(scheme) = &role.scheme {
            scheme.check(&role.name, kind)?;
        }
        is_measured &= !is_sensitive || kind != Kind::Text;
    }
    Ok(is_measured)
}

/// Refuses hierarchies that nothing asks for.
fn check_hierarchies(quasi: &[Role], sensitive: &[Role], options: &Options) -> Result<()> {
    let has_scheme = |role: &&Role| role.scheme.is_some();
    let distance = options.criteria.closeness.map(|closeness| closeness.distance);
    let idle = match options.method {
        Method::Microaggregation => quasi.iter().find(has_scheme),
        Method::Optimal | Method::Mondrian => None,
    };
    if let Some(role) = idle {
        return Err(Error::invalid_hint(
            format!("the hierarchy of column {} does nothing", role.name),
            "microaggregation shows means: leave it out, or use method => 'mondrian'",
        ));
    }
    match sensitive.iter().find(has_scheme) {
        Some(role) if distance != Some(Distance::Hierarchical) => Err(Error::invalid_hint(
            format!("the hierarchy of column {} does nothing", role.name),
            "of a sensitive column it is for t_closeness => 'hierarchical'",
        )),
        _ => Ok(()),
    }
}

/// The columns of the result, in the order of the query.
fn result(
    schema: &Schema,
    quasi: &[Role],
    sensitive: &[Role],
    insensitive: &[usize],
    method: Method,
) -> (Vec<Origin>, SchemaRef) {
    let (mut origins, mut fields) = (vec![], vec![]);
    for (at, field) in schema.fields().iter().enumerate() {
        if let Some(number) = quasi.iter().position(|role| role.at == at) {
            let is_mean = method == Method::Microaggregation
                && matches!(Kind::of(field.name(), field.data_type()), Ok(Kind::Number));
            let data_type = if is_mean { DataType::Float64 } else { DataType::Utf8 };
            fields.push(Arc::new(Field::new(field.name(), data_type, true)));
            origins.push(Origin::Quasi(number));
        } else if sensitive.iter().any(|role| role.at == at) || insensitive.contains(&at) {
            fields.push(Arc::clone(field));
            origins.push(Origin::Kept(at));
        }
    }
    (origins, Arc::new(Schema::new(fields)))
}
