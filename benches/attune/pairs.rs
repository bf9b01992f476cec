//! Texts compared on one thread: all pairs of two columns, and two columns element by element.
//!
//! `pairs FOLDER` obeys lines from `benches/peers/pairs.py`, which asks Attune and its peers in
//! turn and takes this process's CPU time between its line and the answer: `all NAME FUNCTION` and
//! `each NAME FUNCTION` are answered with `done`, `sum` with the sum of the results, which are gone
//! then. FOLDER holds the columns `a` and `b` of each NAME in NAME.parquet, for all pairs, and
//! in lake/pairs_NAME/part.parquet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use udfs::fuzzy::kernel::column::{Column, ColumnScratch};
use udfs::fuzzy::stop::Stop;

const NAMES: [&str; 3] = ["surname", "address_1", "fullline"];
/// Rows that the engine gives a function at once.
const BATCH: usize = 8_192;

pub fn run() {
    let folder = std::env::args().nth(2).unwrap();
    let folder = Path::new(&folder);
    let inputs: HashMap<_, _> = NAMES.map(|name| (name, Inputs::read(folder, name))).into();
    let mut results = None;
    for line in std::io::stdin().lines() {
        match line.unwrap().split(' ').collect::<Vec<_>>()[..] {
            ["all", name, function] => results = Some(inputs[name].all(function)),
            ["each", name, function] => results = Some(inputs[name].each(function)),
            ["sum"] => {
                println!("{}", results.take().map_or(0.0, Results::sum));
                continue;
            }
            _ => panic!("say `all NAME FUNCTION`, `each NAME FUNCTION` or `sum`"),
        }
        println!("done");
    }
}

/// Texts of one kind.
struct Inputs {
    left: Vec<String>,
    right: Vec<String>,
    /// Two columns as the engine has them.
    batches: Vec<[ArrayRef; 2]>,
}

impl Inputs {
    fn read(folder: &Path, name: &str) -> Self {
        let all = batches(&folder.join(format!("{name}.parquet")));
        let batches = batches(&folder.join(format!("lake/pairs_{name}/part.parquet")));
        Self { left: texts(&all, 0), right: texts(&all, 1), batches }
    }

    /// A matrix of the results of all pairs, of the types that rapidfuzz's `cdist` is asked for.
    fn all(&self, function: &str) -> Results {
        let column = Column::new(self.left.iter().map(String::as_str), &Stop::never()).unwrap();
        let mut scratch = ColumnScratch::default();
        let width = self.left.len();
        if function == "levenshtein" {
            let mut matrix = vec![0_u8; width * self.right.len()];
            for (text, row) in self.right.iter().zip(matrix.chunks_exact_mut(width)) {
                let take = |at: usize, distance: usize| {
                    row[at] = distance as u8;
                    usize::MAX
                };
                column.edit::<false>(text, &mut scratch, take).unwrap();
            }
            return Results::Distances(matrix);
        }
        assert_eq!(function, "jaro_winkler_similarity");
        let mut matrix = vec![0_f32; width * self.right.len()];
        for (text, row) in self.right.iter().zip(matrix.chunks_exact_mut(width)) {
            let take = |at: usize, similarity: f64| row[at] = similarity as f32;
            column.jaro::<true>(text, &mut scratch, take).unwrap();
        }
        Results::Similarities(matrix)
    }

    /// The SQL function over the two columns, called as the engine calls it.
    fn each(&self, name: &str) -> Results {
        let mut functions = udfs::fuzzy::functions().into_iter();
        let function = functions.find(|function| function.name() == name).unwrap();
        let results = self.batches.iter().map(|columns| call(&function, columns));
        Results::Columns(results.collect())
    }
}

fn call(function: &ScalarUDF, columns: &[ArrayRef; 2]) -> ArrayRef {
    let types = [DataType::Utf8View, DataType::Utf8View];
    let returned = function.return_type(&types).unwrap();
    let rows = columns[0].len();
    let arguments = ScalarFunctionArgs {
        args: columns.iter().cloned().map(ColumnarValue::Array).collect(),
        arg_fields: types.map(|text| Arc::new(Field::new("text", text, true))).to_vec(),
        number_rows: rows,
        return_field: Arc::new(Field::new("result", returned, true)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    function.invoke_with_args(arguments).unwrap().into_array(rows).unwrap()
}

enum Results {
    Distances(Vec<u8>),
    Similarities(Vec<f32>),
    Columns(Vec<ArrayRef>),
}

impl Results {
    fn sum(self) -> f64 {
        match self {
            Self::Distances(matrix) => matrix.into_iter().map(f64::from).sum(),
            Self::Similarities(matrix) => matrix.into_iter().map(f64::from).sum(),
            Self::Columns(columns) => columns.iter().map(total).sum(),
        }
    }
}

fn total(column: &ArrayRef) -> f64 {
    let numbers = cast(column, &DataType::Float64).unwrap();
    numbers.as_primitive::<Float64Type>().values().iter().sum()
}

fn batches(path: &Path) -> Vec<[ArrayRef; 2]> {
    let file = std::fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let read = reader.with_batch_size(BATCH).build().unwrap().map(|batch| {
        let batch = batch.unwrap();
        ["a", "b"]
            .map(|name| cast(batch.column_by_name(name).unwrap(), &DataType::Utf8View).unwrap())
    });
    read.collect()
}

fn texts(batches: &[[ArrayRef; 2]], side: usize) -> Vec<String> {
    let texts = batches.iter().flat_map(|columns| columns[side].as_string_view().iter());
    texts.map(|text| text.unwrap().to_owned()).collect()
}
