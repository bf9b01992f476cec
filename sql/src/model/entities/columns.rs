//! Which column of a query is what: the id, the table, the truth, and those that are compared.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use udfs::model::entity_resolution::gather::{Gathered, is_list};
use udfs::model::entity_resolution::kind::Kind;
use udfs::model::entity_resolution::learn::COLUMNS_MAX;

use crate::error::{Error, Result};
use crate::model::entities::EntityLearner;
use crate::model::entities::rules::{BlockingRules, RESERVED};
use crate::model::options::model_error;
use crate::model::train::find;

/// A column's position and name.
pub type Column = (usize, String);

/// The query's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityColumns {
    /// The id.
    pub id: Column,
    /// The table that a record is of.
    pub source: Option<Column>,
    /// The entity that a record is known to be of.
    pub truth: Option<Column>,
    /// Those that are compared, with the way where it is named.
    pub compared: Vec<(Column, Option<Kind>)>,
    /// What brings records together, when named.
    pub rules: BlockingRules,
}

impl EntityColumns {
    /// Every column is compared, unless an option names it.
    ///
    /// # Errors
    /// When a named column is missing or not of values, too many or no columns are left, or a
    /// rule to block by is none.
    pub fn find(schema: &SchemaRef, learner: &EntityLearner) -> Result<Self> {
        let reserved = schema.fields().iter().find(|field| field.name().starts_with(RESERVED));
        if let Some(field) = reserved {
            return Err(Error::invalid_hint(
                format!("column {} begins with {RESERVED}, as what is computed does", field.name()),
                "give it another name in the query: SELECT … AS …",
            ));
        }
        let usual = ["id", "record_id", "customer_id"];
        let id = find(schema, "id_col", learner.id_col.as_deref(), &usual)?;
        let named = |option: &str, name: &Option<String>| {
            name.as_deref().map(|name| find(schema, option, Some(name), &[])).transpose()
        };
        let source = named("source_col", &learner.source_col)?;
        let truth = named("cluster_col", &learner.cluster_col)?;
        let taken: Vec<usize> = [Some(&id), source.as_ref(), truth.as_ref()]
            .into_iter()
            .flatten()
            .map(|(index, _)| *index)
            .collect();
        if (1..taken.len()).any(|at| taken[..at].contains(&taken[at])) {
            return Err(Error::invalid_hint(
                "one column is named for two parts",
                "the id, the table and the truth each have a column of their own",
            ));
        }
        let kind = |name: &str| {
            learner.comparisons.iter().find(|(column, _)| column == name).map(|(_, kind)| *kind)
        };
        let fields = schema.fields().iter().enumerate();
        let compared: Vec<(Column, Option<Kind>)> = fields
            .filter(|(index, _)| !taken.contains(index))
            .map(|(index, field)| ((index, field.name().clone()), kind(field.name())))
            .collect();
        let names = || compared.iter().map(|((_, name), _)| name.as_str());
        let own = learner.personal_cols.iter().flatten();
        let meant = learner.comparisons.iter().map(|(column, _)| column).chain(own);
        for name in meant {
            if !names().any(|known| known == name) {
                return Err(Error::unknown("column", name, names()));
            }
        }
        if compared.is_empty() {
            return Err(Error::invalid_hint(
                "the query has no column to compare",
                "every column that no option names is one: SELECT more columns",
            ));
        }
        if compared.len() > COLUMNS_MAX {
            return Err(Error::invalid_hint(
                format!("the query has {} columns to compare", compared.len()),
                format!("{COLUMNS_MAX} are the most: SELECT those that tell records apart"),
            ));
        }
        for ((index, name), kind) in &compared {
            check_type(name, schema.field(*index).data_type(), *kind)?;
        }
        let names: Vec<&str> = names().collect();
        let rules = BlockingRules::read(&learner.blocking_rules, &names)?;
        Ok(Self { id, source, truth, compared, rules })
    }

    /// What gathers the rows of a query.
    ///
    /// # Errors
    /// When the id is of a type that is none.
    pub fn gathered(&self, schema: &SchemaRef) -> Result<Gathered> {
        let typed =
            |(index, name): &Column| (name.clone(), schema.field(*index).data_type().clone());
        let id = typed(&self.id);
        let source = self.source.as_ref().map(typed);
        let compared: Vec<_> =
            self.compared.iter().map(|(column, kind)| (typed(column), *kind)).collect();
        let compared: Vec<_> =
            compared.iter().map(|((name, of), kind)| (name.as_str(), of, *kind)).collect();
        let source = source.as_ref().map(|(name, of)| (name.as_str(), of));
        let gathered = Gathered::new((&id.0, &id.1), source, &compared, self.truth.is_some());
        Ok(gathered.map_err(model_error)?.computing(&self.rules.computed))
    }

    /// Adds the rows of a batch, whose last columns are computed for rules.
    ///
    /// # Errors
    /// NULL ids.
    pub fn add(&self, gathered: &mut Gathered, batch: &RecordBatch) -> Result<()> {
        let of = |(index, _): &Column| batch.column(*index);
        let compared: Vec<ArrayRef> =
            self.compared.iter().map(|(column, _)| of(column).clone()).collect();
        let (source, truth) = (self.source.as_ref().map(of), self.truth.as_ref().map(of));
        let own = batch.num_columns().saturating_sub(self.rules.computed.len());
        let computed = batch.columns().get(own..).unwrap_or_default();
        gathered.add(of(&self.id), source, &compared, computed, truth).map_err(model_error)
    }
}

/// Refuses a column that cannot be compared, or not so.
fn check_type(name: &str, data_type: &DataType, kind: Option<Kind>) -> Result<()> {
    let member = match data_type {
        DataType::List(member) | DataType::LargeList(member) => Some(member.data_type()),
        DataType::FixedSizeList(member, _) => Some(member.data_type()),
        _ => None,
    };
    if !is_value(member.unwrap_or(data_type)) {
        return Err(Error::invalid_hint(
            format!("column {name} has type {data_type}, which cannot be compared"),
            "select a text, a number, a date, a truth value, or a list of these",
        ));
    }
    match kind {
        Some(Kind::Array) if !is_list(data_type) => Err(Error::invalid_hint(
            format!("column {name} has type {data_type}, and 'array' compares lists"),
            "string_to_array(column, ',') makes a list of a text",
        )),
        Some(other) if other != Kind::Array && is_list(data_type) => Err(Error::invalid_hint(
            format!("column {name} is a list, which '{}' does not compare", other.name()),
            "'array' compares lists; array_to_string(column, ' ') makes a text of one",
        )),
        _ => Ok(()),
    }
}

/// Whether values of a type have a text.
pub(super) fn is_value(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_value(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Boolean | DataType::Null => true,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
        other => other.is_numeric(),
    }
}
