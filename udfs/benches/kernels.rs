//! Throughput of the text functions, called as the engine calls them: one pattern against a column,
//! and two columns element by element, at the lengths of the peers' runs (surnames, address lines,
//! whole name-and-address lines). `items/s` is pairs a second on one core.
//!
//! `consent` is what a policy adds to a scan, a row: withdrawn persons are looked for in a column.
//! Learners are in `learners.rs`, anonymization in `anonymize.rs`.
//!
//! Run: `cargo bench -p attune-udfs --bench kernels`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion_common::ScalarValue;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use udfs::consent::{ConsentSet, SubjectKind};

mod anonymize;
mod learners;

fn main() {
    divan::main();
}

const ROWS: usize = 8192;
/// Mean length in characters and the spread to each side.
const LENGTHS: [(usize, usize); 3] = [(6, 3), (14, 6), (50, 12)];
const FUNCTIONS: [&str; 6] = [
    "levenshtein",
    "osa_distance",
    "jaro_winkler_similarity",
    "damerau_levenshtein",
    "trigram_similarity",
    "token_sort_ratio",
];

/// Words with the letter frequencies of English, blanks in the longer ones.
fn column(seed: u64, (mean, spread): (usize, usize), to: &DataType) -> ArrayRef {
    const LETTERS: &[u8] = b"eeeeeeetttttaaaaaooooiiiinnnnsssshhhrrrddllccuummwfgypbvk";
    let mut random = StdRng::seed_from_u64(seed);
    let texts = (0..ROWS).map(|_| {
        let length = random.random_range(mean - spread..=mean + spread);
        let letter = |at: usize| {
            if mean > 10 && at % 7 == 6 {
                ' '
            } else {
                LETTERS[random.random_range(0..LETTERS.len())] as char
            }
        };
        Some((0..length).map(letter).collect::<String>())
    });
    let array: ArrayRef = Arc::new(texts.collect::<StringArray>());
    cast(&array, to).unwrap_or(array)
}

fn function(name: &str) -> Arc<ScalarUDF> {
    let mut all = udfs::fuzzy::functions().into_iter();
    all.find(|function| function.name() == name).unwrap_or_else(|| unreachable!("{name}"))
}

fn run(bencher: Bencher, name: &str, arguments: Vec<ColumnarValue>) {
    let function = function(name);
    let types: Vec<_> = arguments.iter().map(ColumnarValue::data_type).collect();
    let return_type = function.return_type(&types).unwrap_or(DataType::Null);
    let call = ScalarFunctionArgs {
        args: arguments,
        arg_fields: types.into_iter().map(|to| Arc::new(Field::new("a", to, true))).collect(),
        number_rows: ROWS,
        return_field: Arc::new(Field::new("r", return_type, true)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench(|| function.invoke_with_args(black_box(call.clone())));
}

fn pattern(column: &ArrayRef) -> ColumnarValue {
    let value = ScalarValue::try_from_array(column, column.len() / 2);
    ColumnarValue::Scalar(value.unwrap_or(ScalarValue::Null))
}

#[divan::bench(args = FUNCTIONS, consts = [0, 1, 2])]
fn one_pattern<const LENGTH: usize>(bencher: Bencher, name: &str) {
    let column = column(1, LENGTHS[LENGTH], &DataType::Utf8View);
    run(bencher, name, vec![pattern(&column), ColumnarValue::Array(column)]);
}

#[divan::bench(args = FUNCTIONS, consts = [0, 1, 2])]
fn element_by_element<const LENGTH: usize>(bencher: Bencher, name: &str) {
    let columns = [1, 2].map(|seed| column(seed, LENGTHS[LENGTH], &DataType::Utf8View));
    run(bencher, name, columns.map(ColumnarValue::Array).to_vec());
}

#[divan::bench(args = FUNCTIONS, consts = [0, 1, 2])]
fn one_pattern_offsets<const LENGTH: usize>(bencher: Bencher, name: &str) {
    let column = column(1, LENGTHS[LENGTH], &DataType::Utf8);
    run(bencher, name, vec![pattern(&column), ColumnarValue::Array(column)]);
}

/// Cut-off at two edits.
#[divan::bench(consts = [0, 1, 2])]
fn levenshtein_within_two<const LENGTH: usize>(bencher: Bencher) {
    let column = column(1, LENGTHS[LENGTH], &DataType::Utf8View);
    let two = ColumnarValue::Scalar(ScalarValue::from(2_i64));
    run(bencher, "levenshtein_within", vec![pattern(&column), ColumnarValue::Array(column), two]);
}

/// Whose rows stay, of persons 0 to 10 million of whom each hundredth has withdrawn.
#[divan::bench(args = ["map", "table", "text"])]
fn consent(bencher: Bencher, kind: &str) {
    // Ids far apart lie in a table, those close together in a map of bits.
    let id = |person: i64| if kind == "table" { person.wrapping_mul(0x9E37_79B9) } else { person };
    let column = |persons: &mut dyn Iterator<Item = i64>| -> ArrayRef {
        match kind {
            "text" => Arc::new(
                persons.map(|person| Some(format!("user-{person}"))).collect::<StringArray>(),
            ),
            _ => Arc::new(persons.map(|person| Some(id(person))).collect::<Int64Array>()),
        }
    };
    let withdrawn = column(&mut (0..100_000).map(|person| person * 100));
    let of = if kind == "text" { SubjectKind::Text } else { SubjectKind::Integer };
    let mut random = StdRng::seed_from_u64(5);
    let persons = column(&mut (0..ROWS).map(|_| random.random_range(0..10_000_000)));
    let Ok(set) = ConsentSet::new(of, true, &[withdrawn], 7) else { return };
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench(|| black_box(set.mask(black_box(&persons)).is_ok()));
}
