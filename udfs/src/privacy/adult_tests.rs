//! The aggregates and hierarchies against ARX and pycanon on the Adult data set (30,162 rows).
//!
//! The values are pycanon 1.3.5's and those of an exhaustive search that reproduces ARX's own
//! tests; the ordered distances are from a direct evaluation of the formula. The data are in
//! `testdata/adult`, whose README tells where they are from and how they are written.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion_common::ScalarValue;
use datafusion_expr::{AggregateUDFImpl, ScalarUDF};

use super::arguments::testing::{call_udf, int, text};
use super::classes::testing::aggregate;
use super::generalize::Generalize;
use super::hierarchy::{Hierarchy, HierarchySet};
use super::k_anonymity::KAnonymity;
use super::l_diversity::LDiversity;
use super::l_diversity_entropy::LDiversityEntropy;
use super::t_closeness::TCloseness;

/// Columns of the data.
const COLUMNS: usize = 9;
/// Exact fractions by direct evaluation, of age within each work class and education.
const ORDERED_AGE_WORKCLASS: f64 = 0.16446520779741108;
const ORDERED_AGE_EDUCATION: f64 = 0.12942667396482122;

/// The eight quasi-identifiers in the order in which ARX names its lattice's nodes.
pub(super) const QUASI: [&str; 8] = [
    "sex",
    "age",
    "race",
    "marital-status",
    "education",
    "native-country",
    "workclass",
    "salary-class",
];

pub(super) struct Adult {
    pub(super) columns: HashMap<String, ArrayRef>,
    pub(super) hierarchies: Arc<HierarchySet>,
}

impl Adult {
    pub(super) fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/adult");
        let text = std::fs::read_to_string(folder.join("adult.txt")).unwrap();
        let mut lines = text.lines();
        let columns: Vec<Vec<&str>> =
            lines.by_ref().take(COLUMNS).map(|line| line.split(';').collect()).collect();
        let rows: Vec<&[u8]> = lines.map(str::as_bytes).collect();
        assert_eq!(rows.len(), 30_162);
        let hierarchies = columns.iter().map(|column| {
            let name = column[0];
            let file = folder.join(format!("adult_hierarchy_{name}.csv"));
            let text = std::fs::read_to_string(file).unwrap();
            Arc::new(Hierarchy::from_csv(name, &text).unwrap())
        });
        let hierarchies = Arc::new(HierarchySet::new(hierarchies));
        let columns = columns.iter().enumerate().map(|(at, column)| {
            let values = rows.iter().map(|row| column[1 + usize::from(row[at] - b'!')]);
            let values: ArrayRef = Arc::new(StringArray::from_iter_values(values));
            (column[0].to_owned(), values)
        });
        Self { columns: columns.collect(), hierarchies }
    }

    /// The sensitive column and the quasi-identifiers at the levels of a node.
    fn node(&self, sensitive: &str, levels: [i64; 8]) -> Vec<ArrayRef> {
        let generalize = ScalarUDF::new_from_impl(Generalize::bound(Arc::clone(&self.hierarchies)));
        let mut columns = vec![Arc::clone(&self.columns[sensitive])];
        for (name, level) in QUASI.into_iter().zip(levels) {
            let values = datafusion_expr::ColumnarValue::Array(Arc::clone(&self.columns[name]));
            let labels = call_udf(&generalize, vec![values, text(name), int(level)]).unwrap();
            columns.push(Arc::new(StringArray::from(labels)));
        }
        columns
    }
}

fn float(function: &impl AggregateUDFImpl, columns: &[ArrayRef]) -> f64 {
    match aggregate(function, columns).unwrap() {
        ScalarValue::Float64(Some(value)) => value,
        other => panic!("{other}"),
    }
}

fn integer(function: &impl AggregateUDFImpl, columns: &[ArrayRef]) -> i64 {
    match aggregate(function, columns).unwrap() {
        ScalarValue::Int64(Some(value)) => value,
        other => panic!("{other}"),
    }
}

#[test]
fn raw_data_as_pycanon_measures_it() {
    let adult = Adult::read();
    let names = ["salary-class", "age", "education", "marital-status", "sex", "native-country"];
    let columns: Vec<ArrayRef> = names.iter().map(|n| Arc::clone(&adult.columns[*n])).collect();
    assert_eq!(integer(&KAnonymity::new(), &columns[1..]), 1);
    assert_eq!(integer(&LDiversity::new(), &columns), 1);
    assert_eq!(float(&LDiversityEntropy::new(), &columns), 1.0);
    assert!((float(&TCloseness::new(), &columns) - 0.751_077_515).abs() < 1e-9);
}

#[test]
fn nodes_as_arx_and_pycanon_measure_them() {
    let adult = Adult::read();
    let nodes = [
        ([1, 1, 1, 1, 3, 2, 2, 1], 16, 7, 5.655_067_739_099_506, 0.431_656_554_605_132_25),
        ([1, 4, 1, 1, 3, 2, 2, 1], 14_086, 14, 9.924_714_993_760_833, 0.131_543_755_254_589_36),
        ([0, 4, 1, 1, 3, 2, 2, 1], 1_492, 13, 7.644_610_485_397_282, 0.255_802_750_391_152_74),
        ([1, 4, 1, 0, 3, 2, 2, 1], 21, 9, 7.518_477_245_053_691, 0.258_035_181_448_748_15),
    ];
    for (levels, k, l, entropy, t) in nodes {
        let columns = adult.node("occupation", levels);
        assert_eq!(integer(&KAnonymity::new(), &columns[1..]), k, "{levels:?}");
        assert_eq!(integer(&LDiversity::new(), &columns), l, "{levels:?}");
        let measured = float(&LDiversityEntropy::new(), &columns);
        assert!((measured - entropy).abs() < 1e-9, "{levels:?}: {measured}");
        let measured = float(&TCloseness::new(), &columns);
        assert!((measured - t).abs() < 1e-12, "{levels:?}: {measured}");
    }
}

#[test]
fn ages_are_compared_in_order() {
    let adult = Adult::read();
    let ages = arrow::compute::cast(&adult.columns["age"], &arrow::datatypes::DataType::Int64);
    let ages: ArrayRef = ages.unwrap();
    assert!(ages.as_any().is::<Int64Array>());
    let columns = [ages, Arc::clone(&adult.columns["workclass"])];
    assert!((float(&TCloseness::new(), &columns) - ORDERED_AGE_WORKCLASS).abs() < 1e-12);
    let columns = [Arc::clone(&columns[0]), Arc::clone(&adult.columns["education"])];
    assert!((float(&TCloseness::new(), &columns) - ORDERED_AGE_EDUCATION).abs() < 1e-12);
}
