//! The arguments of `clean`: which columns are of which kind, and how they are read.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, Schema};
use sqlparser::ast::{Expr as SqlExpr, FunctionArg, Value, ValueWithSpan};

use super::kinds::Kind;
use super::{FORM, ROWS};
use crate::dialect::folded;
use crate::error::{Error, Result};
use crate::over_query::{self, find, text};

const NAMES: [&str; 15] = [
    "key",
    "dates",
    "emails",
    "phones",
    "countries",
    "addresses",
    "names",
    "texts",
    "units",
    "region",
    "region_column",
    "date_order",
    "partition_by",
    "infer",
    "ignore",
];
const ORDERS: [&str; 3] = ["DMY", "MDY", "YMD"];
/// The list of doubtful columns, behind those of the query.
pub(super) const DOUBTFUL: &str = "doubtful_columns";
/// The columns of `clean_changes` behind the key.
pub(super) const CHANGED: [&str; 6] = ["column", "kind", "before", "after", "reason", "status"];

/// What is done with a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// It is of this kind.
    Given(Kind),
    /// Its kind is inferred, from its name first.
    Inferred(Option<Kind>),
    /// Numbers that shall be in this unit; the unit that they are in is in another column.
    Measure { unit: String, unit_at: usize },
    /// Texts of a number and a unit, which shall be this one.
    Written { unit: String },
    /// The units of a measure.
    Unit { unit: String, measure_at: usize },
}

/// Where telephone numbers are dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Region {
    Unknown,
    Country(String),
    Column(usize),
}

/// What is asked of the rows of a query.
#[derive(Debug)]
pub(super) struct Cleaning {
    /// The query's columns.
    pub(super) columns: Vec<(String, DataType)>,
    pub(super) key: Vec<usize>,
    /// The columns that are cleaned, by their place.
    pub(super) tasks: BTreeMap<usize, Task>,
    pub(super) region: Region,
    pub(super) date_order: Option<&'static str>,
    pub(super) partition: Vec<usize>,
}

impl Cleaning {
    /// Whether the order of a column's dates is inferred.
    pub(super) fn infers_order(&self, task: &Task) -> bool {
        let may_hold_dates = matches!(task, Task::Given(Kind::Date) | Task::Inferred(_));
        may_hold_dates && self.date_order.is_none()
    }

    /// Whether anything is inferred, for which all values are read before the first is corrected.
    pub(super) fn reads_twice(&self) -> bool {
        let infers = |task: &Task| matches!(task, Task::Inferred(_)) || self.infers_order(task);
        self.tasks.values().any(infers)
    }
}

/// The arguments as given, by name.
pub(super) struct Given<'a>(BTreeMap<String, &'a SqlExpr>);

impl<'a> Given<'a> {
    /// Reads the arguments behind the query.
    ///
    /// # Errors
    /// When one is unknown, given twice, or of no form that the function takes.
    pub(super) fn read(arguments: &'a [FunctionArg]) -> Result<Self> {
        Ok(Self(over_query::options(ROWS, FORM, &NAMES, arguments)?))
    }

    /// What is asked of the rows of a query with this schema.
    ///
    /// # Errors
    /// When a column is missing, named for two things, or not of a type that can be cleaned so.
    pub(super) fn cleaning(&self, schema: &Schema) -> Result<Cleaning> {
        check_names(schema)?;
        let key = self.columns("key", schema)?;
        let ignored = self.columns("ignore", schema)?;
        let partition = self.columns("partition_by", schema)?;
        let stays: BTreeSet<usize> = key.iter().chain(&ignored).copied().collect();
        let mut tasks = BTreeMap::new();
        for (option, kind) in Kind::OPTIONS {
            for at in self.columns(option, schema)? {
                let field = schema.field(at);
                if !is_text(field.data_type()) {
                    return Err(Error::invalid_hint(
                        format!("column {} is of type {}", field.name(), field.data_type()),
                        format!(
                            "{option} names columns of texts; others are clean in this respect"
                        ),
                    ));
                }
                add(&mut tasks, at, Task::Given(kind), schema)?;
            }
        }
        self.measures(schema, &mut tasks)?;
        if let Some(at) = tasks.keys().find(|at| stays.contains(*at)) {
            return Err(Error::invalid_hint(
                format!(
                    "column {} is to be cleaned, and to stay as it is",
                    schema.field(*at).name()
                ),
                "leave it out of key and ignore, or of the columns of a kind",
            ));
        }
        if self.infers()? {
            for (at, field) in schema.fields().iter().enumerate() {
                if is_text(field.data_type()) && !stays.contains(&at) {
                    tasks.entry(at).or_insert_with(|| Task::Inferred(Kind::of_name(field.name())));
                }
            }
        }
        if tasks.is_empty() {
            return Err(Error::invalid_hint(
                "the query has no column to clean",
                "select columns of texts besides the key, or name measures in units",
            ));
        }
        let named =
            |field: &arrow::datatypes::FieldRef| (field.name().clone(), field.data_type().clone());
        Ok(Cleaning {
            columns: schema.fields().iter().map(named).collect(),
            key,
            tasks,
            region: self.region(schema)?,
            date_order: self.date_order()?,
            partition,
        })
    }

    /// The measures, and the columns of their units.
    fn measures(&self, schema: &Schema, tasks: &mut BTreeMap<usize, Task>) -> Result<()> {
        let Some(value) = self.0.get("units") else { return Ok(()) };
        for (column, unit) in units(value)? {
            if !udfs::quality::is_unit(unit) {
                return Err(Error::invalid_hint(
                    format!("'{unit}' is no unit"),
                    "write one that convert_unit knows, such as 'kg', 'm' or 'l'",
                ));
            }
            let measure_at = find(schema, &column)?;
            let field = schema.field(measure_at);
            let unit = unit.to_owned();
            match field.data_type() {
                DataType::Float32 | DataType::Float64 => {
                    let unit_at = find(schema, &format!("{}_unit", field.name()))?;
                    if !is_text(schema.field(unit_at).data_type()) {
                        return Err(Error::invalid_hint(
                            format!("column {} is no text", schema.field(unit_at).name()),
                            "the unit of a measure is a text such as 'kg'",
                        ));
                    }
                    let of_unit = Task::Unit { unit: unit.clone(), measure_at };
                    add(tasks, measure_at, Task::Measure { unit, unit_at }, schema)?;
                    add(tasks, unit_at, of_unit, schema)?;
                }
                data_type if is_text(data_type) => {
                    add(tasks, measure_at, Task::Written { unit }, schema)?;
                }
                other => {
                    return Err(Error::invalid_hint(
                        format!("measure {} is of type {other}", field.name()),
                        "another unit may need decimals: cast the column to DOUBLE",
                    ));
                }
            }
        }
        Ok(())
    }

    fn region(&self, schema: &Schema) -> Result<Region> {
        let column = match self.columns("region_column", schema)?.as_slice() {
            [] => None,
            [at] if is_text(schema.field(*at).data_type()) => Some(*at),
            _ => {
                return Err(Error::invalid_hint(
                    "region_column names one column of texts",
                    "write region_column => 'country'",
                ));
            }
        };
        let Some(value) = self.0.get("region") else {
            return Ok(column.map_or(Region::Unknown, Region::Column));
        };
        if column.is_some() {
            return Err(Error::invalid_hint(
                "region and region_column are both given",
                "leave one of them out",
            ));
        }
        match text(value) {
            Some(country) if country.len() == 2 && udfs::identity::has_numbering_plan(country) => {
                Ok(Region::Country(country.to_ascii_uppercase()))
            }
            _ => Err(Error::invalid_hint(
                format!("region is {value}"),
                "it takes two letters of a country, as in ISO 3166: region => 'GB'",
            )),
        }
    }

    fn date_order(&self) -> Result<Option<&'static str>> {
        let Some(value) = self.0.get("date_order") else { return Ok(None) };
        let order = text(value).and_then(|given| {
            ORDERS.into_iter().find(|order| order.eq_ignore_ascii_case(given.trim()))
        });
        order.map(Some).ok_or_else(|| {
            Error::invalid_hint(
                format!("date_order is {value}"),
                "it takes 'DMY', 'MDY' or 'YMD'; without it, it is inferred from the dates",
            )
        })
    }

    fn infers(&self) -> Result<bool> {
        match self.0.get("infer") {
            None => Ok(true),
            Some(SqlExpr::Value(ValueWithSpan { value: Value::Boolean(infers), .. })) => {
                Ok(*infers)
            }
            Some(value) => Err(Error::invalid_hint(
                format!("infer is {value}"),
                "it takes TRUE or FALSE, written out",
            )),
        }
    }

    /// The places of the columns that an option names.
    fn columns(&self, option: &str, schema: &Schema) -> Result<Vec<usize>> {
        let Some(value) = self.0.get(option) else { return Ok(vec![]) };
        let names: Option<Vec<&str>> = match value {
            SqlExpr::Array(array) => array.elem.iter().map(text).collect(),
            value => text(value).map(|name| vec![name]),
        };
        let Some(names) = names.filter(|names| !names.is_empty()) else {
            return Err(Error::invalid_hint(
                format!("{option} is {value}"),
                "it takes names of columns in quotes: ['born', 'joined']",
            ));
        };
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let at = find(schema, name)?;
            if found.contains(&at) {
                return Err(twice(schema, at));
            }
            found.push(at);
        }
        Ok(found)
    }
}

/// The unit of each measure.
fn units(value: &SqlExpr) -> Result<Vec<(String, &str)>> {
    let wrong = || {
        Error::invalid_hint(
            "units names a unit in quotes for each measure",
            "write units => STRUCT('kg' AS weight, 'm' AS height)",
        )
    };
    let SqlExpr::Struct { values, .. } = value else { return Err(wrong()) };
    let named = values.iter().map(|value| match value {
        SqlExpr::Named { expr, name } => text(expr).map(|unit| (folded(name), unit)),
        _ => None,
    });
    named.collect::<Option<Vec<_>>>().ok_or_else(wrong)
}

fn add(tasks: &mut BTreeMap<usize, Task>, at: usize, task: Task, schema: &Schema) -> Result<()> {
    match tasks.insert(at, task) {
        None => Ok(()),
        Some(_) => Err(twice(schema, at)),
    }
}

fn twice(schema: &Schema, at: usize) -> Error {
    Error::invalid_hint(
        format!("column {} is named twice", schema.field(at).name()),
        "a column is of one kind, a measure or the unit of one",
    )
}

/// The rows have to be told by names alone.
fn check_names(schema: &Schema) -> Result<()> {
    let mut seen = BTreeSet::new();
    for field in schema.fields() {
        if !seen.insert(field.name()) {
            return Err(Error::invalid_hint(
                format!("the query has several columns of the name {}", field.name()),
                "give them names of their own with AS",
            ));
        }
    }
    Ok(())
}

/// Whether a column is of texts.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => value.is_string(),
        other => other.is_string(),
    }
}
