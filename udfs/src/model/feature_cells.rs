//! Rows of features as the sparse matrix that a factorization takes beside interactions.

use super::features::{FeatureKind, GatheredRows};
use super::sparse::Csr;

impl GatheredRows {
    /// Rows × columns; `codes` has the row of each of the gathered rows as they came, each once and
    /// below `rows`. Column 0 is 1 in every gathered row. A number has a column of by how many
    /// standard deviations it is above its mean, 0 where it is NULL; a text a column for each
    /// category, 1 in its own.
    pub fn cells(&self, codes: &[u32], rows: usize) -> Csr {
        let mut places: Vec<(u32, usize)> =
            self.order.iter().enumerate().map(|(at, &came)| (codes[came], at)).collect();
        places.sort_unstable();
        let scales: Vec<f64> = self
            .features
            .iter()
            .zip(&self.columns)
            .map(|(feature, column)| match feature.kind {
                FeatureKind::Number { mean } => deviation(column, mean),
                FeatureKind::Category(_) => 1.0,
            })
            .collect();
        let mut offsets = Vec::with_capacity(rows + 1);
        let (mut columns, mut values) = (vec![], vec![]);
        for (code, at) in places {
            offsets.resize(code as usize + 1, columns.len());
            columns.push(0);
            values.push(1.0);
            let mut first = 1;
            for ((feature, column), &scale) in self.features.iter().zip(&self.columns).zip(&scales)
            {
                let value = column[at];
                let cell = match feature.kind {
                    _ if value.is_nan() => None,
                    FeatureKind::Number { mean } if scale > 0.0 => {
                        Some((0, ((value - mean) / scale) as f32))
                    }
                    FeatureKind::Number { .. } => None,
                    FeatureKind::Category(_) => Some((value as u32, 1.0)),
                };
                if let Some((offset, value)) = cell.filter(|(_, value)| *value != 0.0) {
                    columns.push(first + offset);
                    values.push(value);
                }
                first += feature.width() as u32;
            }
        }
        offsets.resize(rows + 1, columns.len());
        let width = 1 + self.features.iter().map(|feature| feature.width()).sum::<usize>();
        Csr::from_unsorted(offsets, columns, values, width)
    }
}

/// The standard deviation of the known values.
fn deviation(column: &[f64], mean: f64) -> f64 {
    let far = || column.iter().filter(|value| !value.is_nan()).map(|value| (value - mean).abs());
    let most = far().fold(0.0, f64::max);
    if most == 0.0 {
        return 0.0;
    }
    // In units of the largest, so that no square is out of range.
    let count = far().count() as f64;
    most * far().map(|far| (far / most).powi(2) / count).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::datatypes::DataType;

    use super::super::features::FeatureRows;
    use super::*;

    fn cells(order: [usize; 4], codes: [u32; 4]) -> Csr {
        cells_in(1.0, order, codes)
    }

    fn cells_in(unit: f64, order: [usize; 4], codes: [u32; 4]) -> Csr {
        let types = [DataType::Float64, DataType::Utf8, DataType::Float64];
        let columns = [("price", &types[0]), ("brand", &types[1]), ("same", &types[2])];
        let mut rows = FeatureRows::new(&columns).unwrap();
        let prices = [Some(1.0), Some(3.0), None, Some(2.0)];
        let brands = [Some("b"), Some("a"), Some("b"), None];
        let batch: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(
                order.map(|row| prices[row].map(|price| price * unit)).to_vec(),
            )),
            Arc::new(StringArray::from(order.map(|row| brands[row]).to_vec())),
            Arc::new(Float64Array::from(vec![7.0; 4])),
        ];
        rows.add(&batch).unwrap();
        rows.finish(&[]).cells(&order.map(|row| codes[row]), 7)
    }

    #[test]
    fn numbers_are_standardized_and_texts_have_a_column_a_category() {
        let found = cells([0, 1, 2, 3], [5, 1, 2, 0]);
        assert_eq!((found.rows(), found.columns()), (7, 5));
        let scale = (2.0_f64 / 3.0).sqrt().recip() as f32;
        assert_eq!(found.row(5), (&[0, 1, 3][..], &[1.0, -scale, 1.0][..]));
        assert_eq!(found.row(1), (&[0, 1, 2][..], &[1.0, scale, 1.0][..]));
        for unit in [1e300, 1e-300] {
            assert_eq!(cells_in(unit, [0, 1, 2, 3], [5, 1, 2, 0]), found);
        }
        // NULL is the mean and no category; what is the same everywhere says nothing.
        assert_eq!(found.row(2), (&[0, 3][..], &[1.0, 1.0][..]));
        assert_eq!(found.row(0), (&[0][..], &[1.0][..]));
        // Rows of which nothing is told have nothing.
        assert_eq!(found.row(6), (&[][..], &[][..]));
        assert_eq!(cells([3, 1, 0, 2], [5, 1, 2, 0]), found);
    }
}
