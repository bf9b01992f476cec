//! What rows take in memory when they are held and their texts are indexed.
//!
//! An index takes memory for each distinct text of a block, which for short texts is more than the
//! row takes. How many there are is not known before they are read, so they are counted as rows
//! come, by a hash of the keys and the text.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use udfs::fuzzy::index::{Index, Likeness};

use super::build::{Build, texts};

/// Rows are held as they came and in one piece; their texts once more for each way to look them up.
const ROWS: usize = 2;

/// The texts of a batch: for each way to look them up, what is known of each row that has one.
pub(super) struct Texts(Vec<Vec<Option<Text>>>);

#[derive(Clone, Copy)]
struct Text {
    /// Of the keys and the text.
    hash: u64,
    bytes: usize,
}

impl Texts {
    pub fn of(build: &Build, batch: &RecordBatch) -> Result<Self> {
        let keys = build.keys.columns(batch)?;
        let of_way = |expression: &Arc<dyn PhysicalExpr>| -> Result<Vec<Option<Text>>> {
            let views = texts(expression, batch)?;
            let column: ArrayRef = Arc::new(views.clone());
            let mut hashes = vec![0; batch.num_rows()];
            let columns = keys.iter().chain([&column]);
            create_hashes(columns, &RandomState::with_seed(0), &mut hashes)?;
            let rows = views.iter().zip(hashes);
            let rows = rows.map(|(text, hash)| text.map(|text| Text { hash, bytes: text.len() }));
            Ok(rows.collect())
        };
        Ok(Self(build.lookups.iter().map(|way| of_way(&way.text)).collect::<Result<_>>()?))
    }
}

/// What some rows take.
pub(super) struct Weight {
    copies: usize,
    bytes: usize,
    ways: Vec<Way>,
}

/// The distinct texts of one way to look them up.
struct Way {
    likeness: Likeness,
    seen: HashSet<u64>,
    bytes: usize,
}

impl Weight {
    /// That of no rows.
    pub fn new(build: &Build) -> Self {
        let way = |likeness| Way { likeness, seen: HashSet::new(), bytes: 0 };
        let ways = build.lookups.iter().map(|lookup| way(lookup.likeness)).collect();
        Self { copies: copies(build), bytes: 0, ways }
    }

    /// Adds some rows of a batch, which take so many bytes.
    pub fn add(&mut self, bytes: usize, texts: &Texts, rows: Range<usize>) {
        self.bytes += bytes;
        for (way, texts) in self.ways.iter_mut().zip(&texts.0) {
            for text in texts.get(rows.clone()).unwrap_or_default().iter().flatten() {
                if way.seen.insert(text.hash) {
                    way.bytes += text.bytes;
                }
            }
        }
    }

    /// What the rows take with an index.
    pub fn bytes(&self) -> usize {
        self.bytes.saturating_mul(self.copies).saturating_add(self.index_bytes())
    }

    /// What the index takes of it.
    pub fn index_bytes(&self) -> usize {
        let of_way = |way: &Way| Index::estimate(way.likeness, way.seen.len(), way.bytes);
        self.ways.iter().map(of_way).sum()
    }
}

/// How often rows are held.
pub(super) fn copies(build: &Build) -> usize {
    ROWS + build.lookups.len()
}
