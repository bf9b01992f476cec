//! Rows of features on their way into moments, so that no more of them is held than came last: some
//! may be read while those before are summed up.
//!
//! A text becomes one number for each of its categories, which take their places in the order in
//! which they first come and are brought into the order of their text at the end. NULL among
//! numbers is the column's mean, which is known at the end only: rows with one are kept until then.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use super::super::error::ModelError;
use super::super::features::{Columns, Feature, FeatureKind, FeatureRows};
use super::Moments;

/// Rows of features, summed up as they come.
#[derive(Debug)]
pub struct PcaRows {
    /// The rows that are summed up next; room for others from then on.
    columns: Columns,
    /// Which columns of theirs have NULL among numbers.
    has_null: Vec<bool>,
    /// How many categories each column has up to them; none where it holds numbers.
    categories: Vec<Option<usize>>,
    moments: Moments,
    /// Of each column the places of its numbers among all: one, or one a category.
    places: Vec<Vec<usize>>,
    /// Rows with NULL among their numbers.
    incomplete: Columns,
    rows: usize,
}

impl PcaRows {
    /// No rows yet; those that `read` reads are to come.
    pub fn new(read: &FeatureRows) -> Self {
        let categories: Vec<Option<usize>> = read.categories().collect();
        let count = categories.len();
        Self {
            columns: vec![vec![]; count],
            has_null: vec![false; count],
            categories,
            moments: Moments::new(0),
            places: vec![vec![]; count],
            incomplete: vec![vec![]; count],
            rows: 0,
        }
    }

    /// Takes the rows that were read, once those taken before are summed up.
    pub fn take(&mut self, read: &mut FeatureRows) {
        self.rows += read.rows();
        self.categories = read.categories().collect();
        self.has_null = read.exchange(&mut self.columns);
    }

    /// All rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are kept until the end.
    pub fn incomplete(&self) -> usize {
        self.incomplete.first().map_or(0, Vec::len)
    }

    /// Sums up the rows that were taken, on the current rayon pool.
    ///
    /// # Errors
    /// Cancellation.
    pub fn sum(&mut self, cancel: &AtomicBool) -> Result<(), ModelError> {
        self.make_room();
        let mut columns = std::mem::take(&mut self.columns);
        let summed = self.sum_taken(&columns, cancel);
        columns.iter_mut().for_each(Vec::clear);
        self.columns = columns;
        summed
    }

    /// Sums up rows but for those with NULL among their numbers, which are kept.
    fn sum_taken(&mut self, columns: &[Vec<f64>], cancel: &AtomicBool) -> Result<(), ModelError> {
        let rows = columns.first().map_or(0, Vec::len);
        let with_null = columns.iter().zip(&self.has_null).filter(|(_, has_null)| **has_null);
        let with_null: Vec<&Vec<f64>> = with_null.map(|(column, _)| column).collect();
        if with_null.is_empty() {
            return self.sum_of(columns, rows, |row| row, &[], cancel);
        }
        let is_whole = |row: &usize| with_null.iter().all(|column| !column[*row].is_nan());
        let (whole, rest): (Vec<usize>, Vec<usize>) = (0..rows).partition(is_whole);
        for (kept, column) in self.incomplete.iter_mut().zip(columns) {
            kept.extend(rest.iter().map(|&row| column[row]));
        }
        self.sum_of(columns, whole.len(), |at| whole[at], &[], cancel)
    }

    /// What the columns hold, and the moments of all rows' numbers in the order of
    /// [`Preparation::one_hot`](super::super::Preparation::one_hot); `read` has read the last ones.
    ///
    /// # Errors
    /// Cancellation.
    pub fn finish(
        mut self,
        mut read: FeatureRows,
        cancel: &AtomicBool,
    ) -> Result<(Vec<Feature>, Moments), ModelError> {
        self.take(&mut read);
        self.sum(cancel)?;
        let (means, columns) = (self.means(), std::mem::take(&mut self.incomplete));
        let rows = columns.first().map_or(0, Vec::len);
        if rows > 0 {
            self.sum_of(&columns, rows, |row| row, &means, cancel)?;
        }
        let Self { moments, places, .. } = self;
        let (mut features, mut order) = (vec![], vec![]);
        for (((mut feature, texts), places), mean) in
            read.kinds().into_iter().zip(places).zip(means)
        {
            match &mut feature.kind {
                FeatureKind::Number { mean: of } => {
                    *of = mean;
                    order.extend(places);
                }
                FeatureKind::Category(_) => {
                    let mut by_text = vec![0; places.len()];
                    for (place, text) in places.into_iter().zip(texts) {
                        by_text[text as usize] = place;
                    }
                    order.extend(by_text);
                }
            }
            features.push(feature);
        }
        Ok((features, moments.reordered(&order)))
    }

    /// Gives every number and every new category its place.
    fn make_room(&mut self) {
        let mut width = self.moments.features();
        for (places, categories) in self.places.iter_mut().zip(&self.categories) {
            let more = categories.unwrap_or(1) - places.len();
            places.extend(width..width + more);
            width += more;
        }
        if width > self.moments.features() {
            self.moments.widen(width);
        }
    }

    /// The mean of each column of numbers, NULL aside; 0 of texts and where all are NULL.
    fn means(&self) -> Vec<f64> {
        let numbers = self.categories.iter().zip(&self.places).zip(&self.incomplete);
        numbers
            .map(|((categories, places), rest)| {
                let Some(&place) = places.first().filter(|_| categories.is_none()) else {
                    return 0.0;
                };
                let mean = self.moments.mean()[place];
                let known = || rest.iter().filter(|value| !value.is_nan());
                let count = (self.moments.count() as f64 + known().count() as f64).max(1.0);
                mean + known().map(|value| (value - mean) / count).sum::<f64>()
            })
            .collect()
    }

    /// Sums up some rows of `columns`; NULL among numbers is their column's mean.
    fn sum_of(
        &mut self,
        columns: &[Vec<f64>],
        rows: usize,
        at: impl Fn(usize) -> usize + Sync,
        means: &[f64],
        cancel: &AtomicBool,
    ) -> Result<(), ModelError> {
        let Self { moments, places, categories, .. } = self;
        let are_numbers: Vec<bool> = categories.iter().map(Option::is_none).collect();
        let fill = |range: Range<usize>, block: &mut [f64]| {
            let height = range.len();
            for (index, (column, places)) in columns.iter().zip(&*places).enumerate() {
                let values = range.clone().map(|row| column[at(row)]);
                if are_numbers[index] {
                    let mean = means.get(index).copied().unwrap_or(0.0);
                    let out = &mut block[places[0] * height..][..height];
                    for (out, value) in out.iter_mut().zip(values) {
                        *out = if value.is_nan() { mean } else { value };
                    }
                    continue;
                }
                for (row, value) in values.enumerate().filter(|(_, value)| !value.is_nan()) {
                    block[places[value as usize] * height + row] = 1.0;
                }
            }
        };
        moments.add_blocks(rows, fill, cancel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::datatypes::DataType;

    use super::super::super::Preparation;
    use super::*;

    fn batch(rows: Range<usize>) -> Vec<ArrayRef> {
        let texts = ["pear", "apple", "fig", "quince"];
        let size = |row: usize| (row % 7 != 3).then_some((row as f64 * 0.7).sin() * 5.0 + 100.0);
        let text = |row: usize| (row % 11 != 5).then_some(texts[(row / 900) % 4]);
        vec![
            Arc::new(Float64Array::from_iter(rows.clone().map(size))),
            Arc::new(StringArray::from_iter(rows.clone().map(text))),
            Arc::new(Float64Array::from_iter_values(rows.map(|row| (row as f64).cos()))),
        ]
    }

    fn columns() -> FeatureRows {
        let of =
            [("size", &DataType::Float64), ("fruit", &DataType::Utf8), ("x", &DataType::Float64)];
        FeatureRows::new(&of).unwrap()
    }

    #[test]
    fn rows_in_any_batches_have_the_moments_of_prepared_rows() {
        let (count, go_on) = (3_100, AtomicBool::new(false));
        let mut gathered = columns();
        gathered.add(&batch(0..count)).unwrap();
        let gathered = gathered.finish(&[]);
        let preparation = Preparation::new(gathered.features).unwrap();
        let mut expected = Moments::new(preparation.width());
        expected.add(&preparation.one_hot(&gathered.columns), &go_on).unwrap();
        for step in [250, 1_700, count] {
            let mut read = columns();
            let mut rows = PcaRows::new(&read);
            for start in (0..count).step_by(step) {
                read.add(&batch(start..count.min(start + step))).unwrap();
                assert!(read.rows() > 0 && read.width() <= 6);
                rows.take(&mut read);
                rows.sum(&go_on).unwrap();
                assert_eq!(read.rows(), 0);
            }
            assert_eq!((rows.rows(), rows.incomplete() > 0), (count, true));
            let (features, moments) = rows.finish(read, &go_on).unwrap();
            assert_eq!(features[1], preparation.features()[1]);
            assert_eq!((moments.count(), moments.features()), (count as u64, 6));
            for i in 0..6 {
                assert!((moments.mean()[i] - expected.mean()[i]).abs() < 1e-10, "{step} {i}");
                for j in 0..6 {
                    let (found, expected) = (moments.scatter(i, j), expected.scatter(i, j));
                    assert!((found - expected).abs() < 1e-7, "{step} {i} {j} {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_column_of_null_alone_is_0_or_nothing() {
        let of = [("a", &DataType::Float64), ("b", &DataType::Utf8)];
        let mut read = FeatureRows::new(&of).unwrap();
        let rows = PcaRows::new(&read);
        let nothing: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(vec![None; 3])),
            Arc::new(StringArray::from(vec![None::<&str>; 3])),
        ];
        read.add(&nothing).unwrap();
        let (features, moments) = rows.finish(read, &AtomicBool::new(false)).unwrap();
        assert_eq!(features.iter().map(Feature::width).collect::<Vec<_>>(), [1, 0]);
        assert_eq!((moments.count(), moments.mean(), moments.scatter(0, 0)), (3, &[0.0][..], 0.0));
        let mut read = columns();
        let mut cancelled = PcaRows::new(&read);
        read.add(&batch(0..10)).unwrap();
        cancelled.take(&mut read);
        assert_eq!(cancelled.sum(&AtomicBool::new(true)), Err(ModelError::Cancelled));
    }
}
