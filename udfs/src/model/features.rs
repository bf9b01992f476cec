//! Rows of features: how columns of any type become the numbers that a learner takes.
//!
//! A [`Preparation`] is learned from the training rows, kept in the model and used again for every
//! prediction. Numbers and truths are taken as they are (TRUE is 1); texts are categories, in the
//! order of their text, at most [`CATEGORIES_MAX`] a column. Learners of distances take one number
//! for each category, 1 where the row has it and 0 elsewhere ([`Preparation::one_hot`]); trees take
//! the category's code ([`Preparation::codes`]).
//!
//! What is NULL: of a number, its training mean for learners of distances and a value of its own
//! side at every split for trees; of a text, none of the categories. A category that training did
//! not see counts as NULL. NaN and infinite values are refused.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use rayon::prelude::*;

use super::cancel::{self, VALUES_PER_LOOK};
use super::error::ModelError;

/// More categories than this in one column are no categories.
pub const CATEGORIES_MAX: usize = 1_000;

/// Rows that are made ready together.
const BLOCK_ROWS: usize = 1024;

/// What a column of features holds.
#[derive(Debug, Clone, PartialEq)]
pub enum FeatureKind {
    /// Numbers, with the mean of the training rows (0 where all of them are NULL).
    Number {
        /// Takes the place of NULL.
        mean: f64,
    },
    /// Texts, ascending.
    Category(Vec<String>),
}

/// A column of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// What it holds.
    pub kind: FeatureKind,
}

impl Feature {
    /// Numbers that a learner of distances takes for the column.
    pub fn width(&self) -> usize {
        match &self.kind {
            FeatureKind::Number { .. } => 1,
            FeatureKind::Category(values) => values.len(),
        }
    }

    /// Whether a column of that type can be read as this feature.
    pub fn reads(&self, data_type: &DataType) -> bool {
        match self.kind {
            FeatureKind::Number { .. } => is_number(data_type),
            FeatureKind::Category(_) => is_text(data_type) || data_type.is_null(),
        }
    }
}

/// Whether columns of the type are texts.
pub fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Whether columns of the type are numbers or truths.
pub fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || matches!(data_type, DataType::Boolean | DataType::Null)
}

/// A value a row, NaN where there is none; of a text the code of its category.
pub type Columns = Vec<Vec<f64>>;

/// Training rows while they are read.
#[derive(Debug)]
pub struct FeatureRows {
    columns: Vec<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    name: String,
    values: Vec<f64>,
    /// Whether NULL is among numbers.
    has_null: bool,
    categories: Option<HashMap<String, u32>>,
}

/// Training rows in an order that is their own, not that in which they came.
#[derive(Debug)]
pub struct GatheredRows {
    /// What each column holds.
    pub features: Vec<Feature>,
    /// The values.
    pub columns: Columns,
    /// Which row, as they came, is where.
    pub order: Vec<usize>,
}

impl FeatureRows {
    /// No rows yet of columns of these names and types.
    ///
    /// # Errors
    /// [`ModelError::Type`] when a type is neither number nor text.
    pub fn new(columns: &[(&str, &DataType)]) -> Result<Self, ModelError> {
        let gathered = |&(name, data_type): &(&str, &DataType)| {
            let categories = match (is_number(data_type), is_text(data_type)) {
                (true, _) => None,
                (_, true) => Some(HashMap::new()),
                _ => {
                    return Err(ModelError::Type {
                        column: name.to_owned(),
                        found: data_type.to_string(),
                        expected: "a feature",
                        hint: "Cast it to a number or a text in the query, or leave it out; of a \
                               time take a part, as with date_part('hour', at)",
                    });
                }
            };
            let name = name.to_owned();
            Ok(Gathered { name, values: vec![], has_null: false, categories })
        };
        Ok(Self { columns: columns.iter().map(gathered).collect::<Result<_, _>>()? })
    }

    /// Takes a batch, its columns in the order of [`FeatureRows::new`].
    ///
    /// # Errors
    /// Numbers that are not finite, too many categories.
    pub fn add(&mut self, columns: &[ArrayRef]) -> Result<(), ModelError> {
        for (gathered, column) in self.columns.iter_mut().zip(columns) {
            let Gathered { name, values, has_null, categories } = gathered;
            let Some(categories) = categories else {
                *has_null |= numbers(name, column, values)?;
                continue;
            };
            let texts = cast(column, &DataType::Utf8)?;
            for text in texts.as_string::<i32>() {
                let code = match text {
                    None => f64::NAN,
                    Some(text) => f64::from(code(name, categories, text)?),
                };
                values.push(code);
            }
        }
        Ok(())
    }

    /// Rows read so far.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }

    /// Exchanges the values that were read for room to read others into, which is what `columns`
    /// are; returns which of them have NULL among their numbers. A category's code is its place in
    /// the order in which categories first came.
    pub fn exchange(&mut self, columns: &mut [Vec<f64>]) -> Vec<bool> {
        let exchange = |(gathered, column): (&mut Gathered, &mut Vec<f64>)| {
            column.clear();
            std::mem::swap(&mut gathered.values, column);
            std::mem::take(&mut gathered.has_null)
        };
        self.columns.iter_mut().zip(columns).map(exchange).collect()
    }

    /// Numbers of a row: one a column, or one a category so far.
    pub fn width(&self) -> usize {
        self.categories().map(|categories| categories.unwrap_or(1)).sum()
    }

    /// How many categories each column has so far; none where it holds numbers.
    pub fn categories(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        self.columns.iter().map(|column| column.categories.as_ref().map(HashMap::len))
    }

    /// What each column holds (of numbers without their mean), and for each code of a category the
    /// place of its text.
    pub fn kinds(self) -> Vec<(Feature, Vec<u32>)> {
        let of = |Gathered { name, categories, .. }| {
            let (kind, places) = kind(categories);
            (Feature { name, kind }, places)
        };
        self.columns.into_iter().map(of).collect()
    }

    /// All rows, sorted by `first`, when that has a number for each of them, and by their values,
    /// so that what is learned of them does not depend on the order in which they came.
    pub fn finish(self, first: &[u32]) -> GatheredRows {
        self.finish_unless(first, &AtomicBool::new(false))
    }

    /// [`FeatureRows::finish`]; once the flag is set, which rows there are is unspecified, and soon
    /// known: the caller looks at the flag.
    pub fn finish_unless(mut self, first: &[u32], cancel: &AtomicBool) -> GatheredRows {
        let rows = self.rows();
        let mut columns: Columns =
            self.columns.iter_mut().map(|column| std::mem::take(&mut column.values)).collect();
        let mut features = Vec::with_capacity(columns.len());
        for ((feature, places), values) in self.kinds().into_iter().zip(&mut columns) {
            if let FeatureKind::Category(_) = feature.kind {
                for value in values.iter_mut().filter(|value| !value.is_nan()) {
                    *value = f64::from(places[*value as usize]);
                }
            }
            features.push(feature);
        }
        let order = order(&columns, first, rows, cancel);
        features.par_iter_mut().zip(&mut columns).for_each(|(feature, column)| {
            let mut ordered = Vec::with_capacity(order.len());
            for rows in order.chunks(VALUES_PER_LOOK).take_while(|_| !cancel::is_set(cancel)) {
                ordered.extend(rows.iter().map(|&row| column[row]));
            }
            *column = ordered;
            if let FeatureKind::Number { mean } = &mut feature.kind {
                *mean = mean_of(column, cancel);
            }
        });
        GatheredRows { features, columns, order }
    }
}

/// What a column holds: its categories in the order of their text, and the place of each code.
fn kind(categories: Option<HashMap<String, u32>>) -> (FeatureKind, Vec<u32>) {
    let Some(categories) = categories else { return (FeatureKind::Number { mean: 0.0 }, vec![]) };
    let mut named: Vec<(String, u32)> = categories.into_iter().collect();
    named.sort_unstable();
    let mut places = vec![0; named.len()];
    for (place, (_, code)) in (0..).zip(&named) {
        places[*code as usize] = place;
    }
    (FeatureKind::Category(named.into_iter().map(|(text, _)| text).collect()), places)
}

/// The order of rows by `first` and their values. What mostly decides lies beside the row's number,
/// so that the other columns are looked up for equal ones only.
fn order(columns: &[Vec<f64>], first: &[u32], rows: usize, cancel: &AtomicBool) -> Vec<usize> {
    let lead = |row: usize| columns.first().map_or(0.0, |column| column[row]);
    let key = |row: usize| (first.get(row).copied().unwrap_or(0), lead(row), row);
    let mut keys: Vec<(u32, f64, usize)> = (0..rows).into_par_iter().map(key).collect();
    let by_values = |a: &(u32, f64, usize), b: &(u32, f64, usize)| {
        let rest = || {
            let mut compared =
                columns.iter().skip(1).map(|column| column[a.2].total_cmp(&column[b.2]));
            compared.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then_with(rest)
    };
    cancel::sort_unless(&mut keys, by_values, cancel);
    keys.into_iter().map(|(_, _, row)| row).collect()
}

fn code(
    column: &str,
    categories: &mut HashMap<String, u32>,
    text: &str,
) -> Result<u32, ModelError> {
    if let Some(code) = categories.get(text) {
        return Ok(*code);
    }
    if categories.len() == CATEGORIES_MAX {
        return Err(ModelError::Categories { column: column.to_owned(), limit: CATEGORIES_MAX });
    }
    let code = categories.len() as u32;
    categories.insert(text.to_owned(), code);
    Ok(code)
}

/// The values as numbers, NaN for NULL; returns whether there is one.
fn numbers(name: &str, column: &ArrayRef, values: &mut Vec<f64>) -> Result<bool, ModelError> {
    let numbers = cast(column, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    let are_finite = || numbers.values().iter().fold(true, |all, value| all & value.is_finite());
    if numbers.null_count() == 0 && are_finite() {
        values.extend_from_slice(numbers.values());
        return Ok(false);
    }
    for value in numbers {
        match value {
            None => values.push(f64::NAN),
            Some(value) if value.is_finite() => values.push(value),
            Some(value) => {
                return Err(ModelError::FeatureValue { column: name.to_owned(), value });
            }
        }
    }
    Ok(numbers.null_count() > 0)
}

fn mean_of(column: &[f64], cancel: &AtomicBool) -> f64 {
    let parts = || column.chunks(VALUES_PER_LOOK).take_while(move |_| !cancel::is_set(cancel));
    let known = || parts().flatten().filter(|value| !value.is_nan());
    let count = known().count().max(1) as f64;
    // Divided first: a sum of large numbers has no end.
    known().map(|value| value / count).sum()
}

/// How columns become numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    features: Vec<Feature>,
}

impl Preparation {
    /// Of these columns.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when categories are not ascending, or a mean is not finite.
    pub fn new(features: Vec<Feature>) -> Result<Self, ModelError> {
        let fits = |feature: &Feature| match &feature.kind {
            FeatureKind::Number { mean } => mean.is_finite(),
            FeatureKind::Category(values) => values.is_sorted_by(|a, b| a < b),
        };
        match features.iter().find(|feature| !fits(feature)) {
            None => Ok(Self { features }),
            Some(feature) => {
                let what = format!("column {} is not prepared as a feature", feature.name);
                Err(ModelError::Inconsistent(what))
            }
        }
    }

    /// The columns of features.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Numbers of a row of [`Preparation::one_hot`].
    pub fn width(&self) -> usize {
        self.features.iter().map(Feature::width).sum()
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let bytes = |feature: &Feature| match &feature.kind {
            FeatureKind::Number { .. } => 0,
            FeatureKind::Category(values) => values.iter().map(|text| text.len() + 24).sum(),
        };
        self.features.iter().map(|feature| bytes(feature) + size_of::<Feature>()).sum()
    }

    /// Reads a batch, its columns in the order of the features, whose types they fit.
    ///
    /// # Errors
    /// Numbers that are not finite, a column that is not of the feature's type.
    pub fn read(&self, columns: &[ArrayRef]) -> Result<Columns, ModelError> {
        if columns.len() != self.features.len() {
            return Err(ModelError::Inconsistent("features differ in number".to_owned()));
        }
        let read = |(feature, column): (&Feature, &ArrayRef)| {
            if !feature.reads(column.data_type()) {
                return Err(ModelError::Type {
                    column: feature.name.clone(),
                    found: column.data_type().to_string(),
                    expected: "read as in training",
                    hint: "Cast it in the query to what it was in the training query",
                });
            }
            let mut values = Vec::with_capacity(column.len());
            match &feature.kind {
                FeatureKind::Number { .. } => {
                    numbers(&feature.name, column, &mut values)?;
                }
                FeatureKind::Category(known) => {
                    let texts = cast(column, &DataType::Utf8)?;
                    values.extend(texts.as_string::<i32>().iter().map(|text| {
                        let at = |text: &str| {
                            known.binary_search_by(|known| known.as_str().cmp(text)).ok()
                        };
                        text.and_then(at).map_or(f64::NAN, |code| code as f64)
                    }));
                }
            }
            Ok(values)
        };
        self.features.iter().zip(columns).map(read).collect()
    }

    /// The rows for learners of distances: row-major, [`Preparation::width`] numbers each.
    pub fn one_hot(&self, columns: &[Vec<f64>]) -> Vec<f64> {
        let rows = columns.first().map_or(0, Vec::len);
        let width = self.width();
        let mut out = vec![0.0; rows * width];
        // Blocks that stay in the cache while their columns are filled one after another.
        let blocks = out.par_chunks_mut((BLOCK_ROWS * width).max(1)).enumerate();
        blocks.for_each(|(block, out)| {
            let mut first = 0;
            for (feature, column) in self.features.iter().zip(columns) {
                let values = &column[block * BLOCK_ROWS..];
                for (out, &value) in out.chunks_exact_mut(width).zip(values) {
                    match feature.kind {
                        FeatureKind::Number { mean } => {
                            out[first] = if value.is_nan() { mean } else { value };
                        }
                        FeatureKind::Category(_) if value.is_nan() => {}
                        FeatureKind::Category(_) => out[first + value as usize] = 1.0,
                    }
                }
                first += feature.width();
            }
        });
        out
    }

    /// Some of the rows for trees, `at` giving which: row-major, one number a feature, NaN where
    /// there is none.
    pub fn codes(
        &self,
        columns: &[Vec<f64>],
        count: usize,
        at: impl Fn(usize) -> usize + Sync,
    ) -> Vec<f32> {
        let width = columns.len().max(1);
        let mut out = vec![0.0; count * columns.len()];
        let blocks = out.par_chunks_mut(BLOCK_ROWS * width).enumerate();
        blocks.for_each(|(block, out)| {
            for (feature, column) in columns.iter().enumerate() {
                for (row, out) in (block * BLOCK_ROWS..).zip(out.chunks_exact_mut(width)) {
                    out[feature] = column[at(row)] as f32;
                }
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch(order: [usize; 4]) -> Vec<ArrayRef> {
        let pick = |values: [Option<i64>; 4]| order.map(|row| values[row]).to_vec();
        let texts = [Some("red"), None, Some("blue"), Some("red")];
        vec![
            Arc::new(Int64Array::from(pick([Some(4), None, Some(1), Some(1)]))),
            Arc::new(StringArray::from(order.map(|row| texts[row]).to_vec())),
            Arc::new(BooleanArray::from(order.map(|row| row != 2).to_vec())),
        ]
    }

    fn gathered(order: [usize; 4]) -> GatheredRows {
        let types = [DataType::Int64, DataType::Utf8, DataType::Boolean];
        let columns = [("n", &types[0]), ("colour", &types[1]), ("is", &types[2])];
        let mut rows = FeatureRows::new(&columns).unwrap();
        rows.add(&batch(order)).unwrap();
        assert_eq!(rows.rows(), 4);
        rows.finish(&[])
    }

    #[test]
    fn the_same_rows_in_any_order_are_the_same() {
        let (one, other) = (gathered([0, 1, 2, 3]), gathered([2, 3, 1, 0]));
        assert_eq!(one.features, other.features);
        let shown = |rows: &GatheredRows| format!("{:?}", rows.columns);
        assert_eq!(shown(&one), shown(&other));
        assert_eq!(one.features[0].kind, FeatureKind::Number { mean: 2.0 });
        let colours = vec!["blue".to_owned(), "red".to_owned()];
        assert_eq!(one.features[1].kind, FeatureKind::Category(colours));
    }

    #[test]
    fn what_is_not_known_is_the_mean_and_no_category() {
        let preparation = Preparation::new(gathered([0, 1, 2, 3]).features).unwrap();
        let unseen: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![None, Some(7)])),
            Arc::new(StringArray::from(vec![Some("green"), Some("red")])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false)])),
        ];
        let columns = preparation.read(&unseen).unwrap();
        assert_eq!(preparation.width(), 4);
        assert_eq!(preparation.one_hot(&columns), [2.0, 0.0, 0.0, 1.0, 7.0, 0.0, 1.0, 0.0]);
        let codes = preparation.codes(&columns, 2, |row| row);
        assert!(codes[0].is_nan() && codes[1].is_nan());
        assert_eq!(codes[2..], [1.0, 7.0, 1.0, 0.0]);
    }

    #[test]
    fn what_is_no_feature_is_refused() {
        let date = FeatureRows::new(&[("at", &DataType::Date32)]).unwrap_err();
        assert_eq!(date.code(), "model_type");
        let mut rows = FeatureRows::new(&[("x", &DataType::Float64)]).unwrap();
        let wrong: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY]));
        assert_eq!(rows.add(&[wrong]).unwrap_err().code(), "model_feature_value");
        let mut rows = FeatureRows::new(&[("x", &DataType::Utf8)]).unwrap();
        let many: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..=CATEGORIES_MAX).map(|n| n.to_string())));
        assert_eq!(rows.add(&[many]).unwrap_err().code(), "model_categories");
        let preparation = Preparation::new(gathered([0, 1, 2, 3]).features).unwrap();
        let mut texts = batch([0, 1, 2, 3]);
        texts.swap(0, 1);
        assert_eq!(preparation.read(&texts).unwrap_err().code(), "model_type");
        assert!(preparation.read(&texts[1..]).is_err());
    }
}
