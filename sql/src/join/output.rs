//! From pairs of alike rows to the rows of the join.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::{filter, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{JoinSide, JoinType};
use datafusion::error::Result;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::metrics::Count;

use super::apart::Results;
use super::build::Piece;
use super::probe::{Gone, Sent};

/// Rows of either side that are alike.
#[derive(Default)]
pub(super) struct Pairs {
    left: Vec<u32>,
    right: Vec<u32>,
}

impl Pairs {
    pub fn push(&mut self, left: u32, right: u32) {
        self.left.push(left);
        self.right.push(right);
    }

    pub fn len(&self) -> usize {
        self.left.len()
    }
}

/// Gives the rows of a join.
pub(super) struct Output<'a> {
    pub join_type: JoinType,
    pub columns: &'a [ColumnIndex],
    pub schema: &'a SchemaRef,
    pub rows: usize,
    pub given: &'a Count,
    pub results: &'a Results,
}

/// The rows of one side, or none.
type Chosen<'a> = Option<(&'a RecordBatch, &'a UInt32Array)>;

impl Output<'_> {
    /// Gives the pairs of which the rest of the condition holds, and notes what matched.
    pub async fn pairs(
        &self,
        pairs: &mut Pairs,
        filter: Option<&JoinFilter>,
        (left_rows, right_rows): (&RecordBatch, &RecordBatch),
        piece: &Piece,
        matched: &mut [bool],
    ) -> Result<Sent> {
        if pairs.len() == 0 {
            return Ok(Ok(()));
        }
        let mut left = UInt32Array::from(std::mem::take(&mut pairs.left));
        let mut right = UInt32Array::from(std::mem::take(&mut pairs.right));
        if let Some(condition) = filter {
            let holds = holds(condition, (left_rows, &left), (right_rows, &right))?;
            left = chosen(&left, &holds)?;
            right = chosen(&right, &holds)?;
        }
        self.mark(left.values(), right.values(), piece, matched);
        if !self.gives_pairs() || left.is_empty() {
            return Ok(Ok(()));
        }
        self.send(Some((left_rows, &left)), Some((right_rows, &right)), None).await
    }

    /// Notes that rows of both sides have found a match.
    pub fn mark(&self, left: &[u32], right: &[u32], piece: &Piece, matched: &mut [bool]) {
        if self.gives_left_rows() {
            left.iter().for_each(|row| piece.mark(*row));
        }
        if self.gives_right_rows() {
            right.iter().for_each(|row| matched[*row as usize] = true);
        }
    }

    /// Whether pairs are given, and not only rows of one side.
    pub fn gives_pairs(&self) -> bool {
        matches!(
            self.join_type,
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full
        )
    }

    /// Whether rows of the left side are given by themselves, when all pairs are known.
    pub fn gives_left_rows(&self) -> bool {
        gives_left_rows(self.join_type)
    }

    /// Whether rows of the right side are given by themselves, when all pairs are known.
    fn gives_right_rows(&self) -> bool {
        matches!(
            self.join_type,
            JoinType::Right
                | JoinType::Full
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark
        )
    }

    /// Of each row of a batch of the right side, that it has found no match; none where that is of
    /// no matter.
    pub fn unmatched(&self, batch: &RecordBatch) -> Vec<bool> {
        vec![false; if self.gives_right_rows() { batch.num_rows() } else { 0 }]
    }

    /// Gives the rows of the left side that the join has beside the pairs.
    pub async fn left_rows(&self, piece: &Piece, rows: &RecordBatch) -> Result<Sent> {
        let count = rows.num_rows() as u32;
        for from in (0..count).step_by(self.rows.max(1)) {
            let range = from..count.min(from.saturating_add(self.rows as u32));
            let (chosen, mark) = self.wanted(range, JoinSide::Left, |row| piece.is_marked(row));
            if self.send(Some((rows, &chosen)), None, mark).await?.is_err() {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(()))
    }

    /// Gives the rows of a batch of the right side that the join has beside the pairs.
    pub async fn right_rows(&self, batch: &RecordBatch, matched: &[bool]) -> Result<Sent> {
        if !self.gives_right_rows() {
            return Ok(Ok(()));
        }
        let all = 0..batch.num_rows() as u32;
        let (chosen, mark) = self.wanted(all, JoinSide::Right, |row| matched[row as usize]);
        self.send(None, Some((batch, &chosen)), mark).await
    }

    /// Which rows of a side are given by themselves, with their marks.
    fn wanted(
        &self,
        rows: std::ops::Range<u32>,
        side: JoinSide,
        is_matched: impl Fn(u32) -> bool,
    ) -> (UInt32Array, Option<BooleanArray>) {
        match self.join_type {
            JoinType::LeftMark | JoinType::RightMark => {
                let marks = rows.clone().map(|row| Some(is_matched(row))).collect();
                (rows.collect::<Vec<_>>().into(), Some(marks))
            }
            JoinType::LeftSemi | JoinType::RightSemi => {
                (rows.filter(|row| is_matched(*row)).collect::<Vec<_>>().into(), None)
            }
            JoinType::Left | JoinType::LeftAnti if side != JoinSide::Left => {
                (Vec::<u32>::new().into(), None)
            }
            _ => (rows.filter(|row| !is_matched(*row)).collect::<Vec<_>>().into(), None),
        }
    }

    async fn send(
        &self,
        left: Chosen<'_>,
        right: Chosen<'_>,
        mark: Option<BooleanArray>,
    ) -> Result<Sent> {
        let rows = left.or(right).map_or(0, |(_, rows)| rows.len());
        if rows == 0 {
            return Ok(Ok(()));
        }
        let column =
            |(at, field): (&ColumnIndex, &Arc<arrow::datatypes::Field>)| -> Result<ArrayRef> {
                let side = match at.side {
                    JoinSide::Left => left,
                    JoinSide::Right => right,
                    JoinSide::None => {
                        let mark = mark.clone().unwrap_or_else(|| BooleanArray::new_null(rows));
                        return Ok(Arc::new(mark));
                    }
                };
                Ok(match side {
                    Some((batch, rows)) => take(batch.column(at.index), rows, None)?,
                    None => new_null_array(field.data_type(), rows),
                })
            };
        let columns = self.columns.iter().zip(self.schema.fields()).map(column);
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(self.schema), columns, &options)?;
        self.given.add(rows);
        Ok(self.results.send(Ok(batch)).await.map_err(|_| Gone))
    }
}

/// Whether a join gives rows of the left side by themselves, when all pairs are known.
pub(super) fn gives_left_rows(join_type: JoinType) -> bool {
    matches!(
        join_type,
        JoinType::Left
            | JoinType::Full
            | JoinType::LeftSemi
            | JoinType::LeftAnti
            | JoinType::LeftMark
    )
}

/// Of which pairs a condition holds.
fn holds(
    condition: &JoinFilter,
    left: (&RecordBatch, &UInt32Array),
    right: (&RecordBatch, &UInt32Array),
) -> Result<BooleanArray> {
    let pairs = left.1.len();
    let columns = condition.column_indices().iter().map(|at| {
        let (batch, rows) = if at.side == JoinSide::Left { left } else { right };
        take(batch.column(at.index), rows, None)
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(pairs));
    let schema = Arc::clone(condition.schema());
    let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
    let holds = condition.expression().evaluate(&batch)?.into_array(pairs)?;
    let holds = as_boolean_array(&holds)?;
    Ok(match holds.null_count() {
        0 => holds.clone(),
        _ => arrow::compute::prep_null_mask_filter(holds),
    })
}

fn chosen(rows: &UInt32Array, holds: &BooleanArray) -> Result<UInt32Array> {
    let chosen = filter(rows, holds)?;
    Ok(arrow::array::AsArray::as_primitive(&chosen).clone())
}
