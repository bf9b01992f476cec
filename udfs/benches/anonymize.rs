//! Time to anonymize the Adult data set (`testdata/adult`: 30,162 rows, eight quasi-identifiers,
//! 4,320 nodes) on one core.
//!
//! Run: `cargo bench -p attune-udfs --bench kernels -- anonymize`.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use divan::{Bencher, black_box};
use udfs::fuzzy::stop::Stop;
use udfs::privacy::Hierarchy;
use udfs::privacy::anonymize::{
    Closeness, ColumnEncoder, Criteria, Distance, Diversity, Input, Method, Options, Quasi, Scheme,
    Sensitive, anonymize,
};

const QUASI: [&str; 8] = [
    "sex",
    "age",
    "race",
    "marital-status",
    "education",
    "native-country",
    "workclass",
    "salary-class",
];

/// Columns of the data.
const COLUMNS: usize = 9;

fn adult(with_hierarchies: bool) -> Option<Input> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/adult");
    let text = std::fs::read_to_string(folder.join("adult.txt")).ok()?;
    let mut lines = text.lines();
    // A line a column, its name and its values; then a line a row, a character a column.
    let columns: Vec<Vec<&str>> =
        lines.by_ref().take(COLUMNS).map(|line| line.split(';').collect()).collect();
    let rows: Vec<&[u8]> = lines.map(str::as_bytes).collect();
    let coded = |name: &str| {
        let at = columns.iter().position(|column| column.first() == Some(&name))?;
        let known = columns.get(at)?.get(1..)?;
        let value = |row: &&[u8]| known.get(usize::from(row.get(at)?.checked_sub(b'!')?)).copied();
        let texts: ArrayRef = Arc::new(rows.iter().map(value).collect::<StringArray>());
        let is_number = name == "age" && !with_hierarchies;
        let to = if is_number { DataType::Int64 } else { DataType::Utf8 };
        let values = cast(&texts, &to).ok()?;
        let mut column = ColumnEncoder::new(name, values.data_type()).ok()?;
        column.add(&values).ok()?;
        Some(column.finish())
    };
    let scheme = |name: &str| {
        let file = folder.join(format!("adult_hierarchy_{name}.csv"));
        let text = std::fs::read_to_string(file).ok()?;
        Some(Scheme::Table(Arc::new(Hierarchy::from_csv(name, &text).ok()?)))
    };
    let quasi = QUASI.iter().map(|name| {
        let scheme = if with_hierarchies { Some(scheme(name)?) } else { None };
        Some(Quasi { column: coded(name)?, scheme })
    });
    let sensitive = Sensitive { column: coded("occupation")?, scheme: None };
    let quasi = quasi.collect::<Option<_>>()?;
    Some(Input { quasi, sensitive: vec![sensitive], released: None })
}

fn run(bencher: Bencher, method: Method, criteria: Criteria, suppression_limit: f64) {
    let input = adult(method == Method::Optimal);
    assert!(input.is_some(), "testdata/adult cannot be read");
    let Some(input) = input else { return };
    let options = Options { method, criteria, suppression_limit };
    bencher.bench(|| anonymize(black_box(&input), &options, &Stop::never()));
}

fn k(k: u32) -> Criteria {
    Criteria { k, diversity: None, closeness: None, presence: None }
}

/// The share of rows that may be suppressed, in hundredths.
#[divan::bench(args = [0, 4], sample_count = 5)]
fn optimum_k_5(bencher: Bencher, hundredths: u32) {
    run(bencher, Method::Optimal, k(5), f64::from(hundredths) / 100.0);
}

#[divan::bench(sample_count = 5)]
fn optimum_k_5_t_02(bencher: Bencher) {
    let closeness = Some(Closeness { t: 0.2, distance: Distance::Equal });
    run(bencher, Method::Optimal, Criteria { closeness, ..k(5) }, 0.0);
}

#[divan::bench(sample_count = 5)]
fn optimum_entropy_l_5(bencher: Bencher) {
    let diversity = Some(Diversity::Entropy(5.0));
    run(bencher, Method::Optimal, Criteria { diversity, ..k(1) }, 0.0);
}

#[divan::bench(sample_count = 5)]
fn mondrian_k_5(bencher: Bencher) {
    run(bencher, Method::Mondrian, k(5), 0.0);
}

#[divan::bench(args = [5, 50], sample_count = 2)]
fn microaggregation(bencher: Bencher, rows: u32) {
    run(bencher, Method::Microaggregation, k(rows), 0.0);
}
