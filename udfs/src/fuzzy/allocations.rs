//! No function allocates for each pair, and what repeats is prepared once: eight times as many rows
//! of the same texts take as many allocations, but for some buffers that grow by doubling.

use std::ops::RangeInclusive;
use std::sync::Arc;

use allocation_counter::measure;
use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::ColumnarValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kernel::column::{Column, ColumnScratch};
use super::stop::Stop;
use super::stop_tests::functions;
use super::testing::{call, text};

/// Texts from which the rows of all columns are taken, in turn.
const TEXTS: usize = 97;
/// Buffers that grow with the rows, three doublings each.
const GROWTH_MAX: u64 = 32;
const SHORT: RangeInclusive<usize> = 6..=20;
const LONG: RangeInclusive<usize> = 65..=80;
const ASCII: &str = "eetaoinshrdlu ";
const OTHER: &str = "eéoößш日本 a";

/// Words of a few letters.
fn texts(seed: u64, letters: &str, length: &RangeInclusive<usize>) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let letters: Vec<char> = letters.chars().collect();
    let text = |_| {
        let length = random.random_range(length.clone());
        let letter = |_| letters[random.random_range(0..letters.len())];
        (0..length).map(letter).collect::<String>()
    };
    (0..TEXTS).map(text).collect()
}

fn column(texts: &[String], step: usize, rows: usize) -> ArrayRef {
    let row = |row: usize| texts[row * step % texts.len()].as_str();
    Arc::new(StringArray::from_iter_values((0..rows).map(row)))
}

/// Allocations of a call on so many rows.
fn allocations(name: &str, arguments: &[ColumnarValue], rows: usize) -> u64 {
    measure(|| drop(call(name, arguments, rows).unwrap())).count_total
}

/// Two sides of so many rows: columns, a constant and a dictionary beside one, and beside each
/// other.
fn sides(letters: &str, length: &RangeInclusive<usize>, rows: usize) -> Vec<[ColumnarValue; 2]> {
    let (lefts, rights) = (texts(1, letters, length), texts(2, letters, length));
    let right = || ColumnarValue::Array(column(&rights, 5, rows));
    let to = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let dictionary = || ColumnarValue::Array(cast(&column(&lefts[..10], 1, rows), &to).unwrap());
    let constant = || ColumnarValue::Scalar(text(&lefts[0]));
    vec![
        [ColumnarValue::Array(column(&lefts, 1, rows)), right()],
        [constant(), right()],
        [dictionary(), right()],
        [dictionary(), constant()],
    ]
}

fn hold(letters: &str, length: &RangeInclusive<usize>, rows: [usize; 2]) {
    let [few, many] = rows.map(|rows| sides(letters, length, rows));
    for (name, third) in functions() {
        for (kind, (few, many)) in few.iter().zip(&many).enumerate() {
            let counts = [(few, rows[0]), (few, rows[0]), (many, rows[1])].map(|(sides, rows)| {
                let third = third.clone().map(ColumnarValue::Scalar);
                let arguments: Vec<_> = sides.iter().cloned().chain(third).collect();
                allocations(name, &arguments, rows)
            });
            // The first call prepares what is there once for all.
            let [_, few, many] = counts;
            assert!(many <= few + GROWTH_MAX, "{name}, sides {kind}: {few} and {many} allocations");
        }
    }
}

#[test]
fn short_ascii_texts_take_no_allocation_each() {
    hold(ASCII, &SHORT, [1_000, 8_000]);
}

#[test]
fn other_short_texts_take_no_allocation_each() {
    hold(OTHER, &SHORT, [1_000, 8_000]);
}

#[test]
fn long_ascii_texts_take_no_allocation_each() {
    hold(ASCII, &LONG, [250, 2_000]);
}

#[test]
fn other_long_texts_take_no_allocation_each() {
    hold(OTHER, &LONG, [250, 2_000]);
}

#[test]
fn a_cut_off_of_each_row_takes_no_allocation_each() {
    let third = |rows: usize| {
        let limits = ScalarValue::from(3_i64).to_array_of_size(rows).unwrap();
        ColumnarValue::Array(limits)
    };
    for name in ["levenshtein", "levenshtein_within", "osa_distance"] {
        let counts = [1_000, 1_000, 8_000].map(|rows| {
            let [left, right] = sides(ASCII, &SHORT, rows).swap_remove(0);
            allocations(name, &[left, right, third(rows)], rows)
        });
        let [_, few, many] = counts;
        assert!(many <= few + GROWTH_MAX, "{name}: {few} and {many} allocations");
    }
}

#[test]
fn a_text_is_compared_with_a_column_without_allocation() {
    for letters in [ASCII, OTHER] {
        for length in [&SHORT, &LONG] {
            let texts = texts(3, letters, length);
            let rows = texts.iter().cycle().take(8_000).map(String::as_str);
            let column = Column::new(rows, &Stop::never()).unwrap();
            let mut scratch = ColumnScratch::default();
            let mut compare = |text: &str| {
                let mut compared = 0_usize;
                let mut count = |_: usize, _: f64| compared += 1;
                column.jaro::<false>(text, &mut scratch, &mut count).unwrap();
                column.jaro::<true>(text, &mut scratch, &mut count).unwrap();
                let mut count = |_: usize, _: usize| {
                    compared += 1;
                    usize::MAX
                };
                column.edit::<false>(text, &mut scratch, &mut count).unwrap();
                column.edit::<true>(text, &mut scratch, &mut count).unwrap();
                compared
            };
            // The working memory grows to what these texts need.
            let some = [&texts[0], &texts[TEXTS / 2]];
            let mut all = || some.iter().map(|text| compare(text)).sum::<usize>();
            assert_eq!(all(), some.len() * 4 * 8_000);
            let counted = measure(|| assert_eq!(all(), some.len() * 4 * 8_000));
            assert_eq!(counted.count_total, 0, "{letters} {length:?}");
        }
    }
}
