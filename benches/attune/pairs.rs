//! All pairs of two columns of texts: the kernel of fuzzy joins that filter little.

use std::path::Path;
use std::time::Instant;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use udfs::fuzzy::kernel::column::{Column, ColumnScratch};
use udfs::fuzzy::stop::Stop;

/// `pairs FOLDER`: FOLDER holds what `../shared/peers/fuzzy/inputs.py` writes. One thread, the best
/// of five; the results are written to a matrix row, as rapidfuzz's `cdist` writes its matrix.
pub fn run() {
    let folder = std::env::args().nth(2).unwrap();
    let folder = Path::new(&folder);
    for name in ["surname", "address_1", "fullline"] {
        let [left, right] =
            ["a", "b"].map(|side| texts(&folder.join(format!("{name}_{side}.parquet"))));
        let pairs = (left.len() * right.len()) as f64;
        let column = Column::new(left.iter().map(String::as_str), &Stop::never()).unwrap();
        let mut scratch = ColumnScratch::default();
        let (mut distances, mut similarities) = (vec![0_u32; left.len()], vec![0_f32; left.len()]);
        let (mut edit, mut winkler, mut sums) = (f64::MAX, f64::MAX, (0, 0.0));
        for _ in 0..5 {
            sums = (0, 0.0);
            let start = Instant::now();
            for text in &right {
                let take = |row: usize, distance: usize| {
                    distances[row] = distance as u32;
                    usize::MAX
                };
                column.edit::<false>(text, &mut scratch, take).unwrap();
                sums.0 += distances.iter().map(|distance| u64::from(*distance)).sum::<u64>();
            }
            edit = edit.min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            for text in &right {
                let take = |row: usize, similarity: f64| similarities[row] = similarity as f32;
                column.jaro::<true>(text, &mut scratch, take).unwrap();
                sums.1 += similarities.iter().map(|similarity| f64::from(*similarity)).sum::<f64>();
            }
            winkler = winkler.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{name:10} levenshtein {:7.1} jaro_winkler {:7.1} million pairs/s, sums {} and {:.1}",
            pairs / edit / 1e6,
            pairs / winkler / 1e6,
            sums.0,
            sums.1
        );
    }
}

fn texts(path: &Path) -> Vec<String> {
    let file = std::fs::File::open(path).unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut texts = Vec::new();
    for batch in rows {
        let batch = batch.unwrap();
        let column = cast(batch.column_by_name("s").unwrap(), &DataType::Utf8View).unwrap();
        texts
            .extend(column.as_string_view().iter().map(|text| text.unwrap_or_default().to_owned()));
    }
    texts
}
