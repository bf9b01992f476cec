//! The other side of a fuzzy join: looks its texts up and gives the rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SpillFile};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, MetricBuilder, SpillMetrics,
};
use futures::TryStreamExt;
use tokio::sync::mpsc::Sender;
use udfs::fuzzy::index::Work;

use super::build::{Build, Built, Indexed, Keys, Piece, distinct, grouped, shared, texts};
use super::exec::Side;
use super::output::{Output, Pairs};

/// How the right side is looked up.
pub(super) struct Probe {
    pub build: Build,
    pub side: Arc<Side>,
    pub text: Arc<dyn PhysicalExpr>,
    pub keys: Keys,
    pub filter: Option<JoinFilter>,
    pub join_type: JoinType,
    pub columns: Vec<ColumnIndex>,
    pub schema: SchemaRef,
    pub metrics: Metrics,
    /// Rows of a batch given.
    pub rows: usize,
    pub spilled: SpillMetrics,
}

/// What EXPLAIN ANALYZE shows.
pub(super) struct Metrics {
    pub output_rows: Count,
    /// Distinct texts looked up.
    pub probes: Count,
    /// Pairs of texts compared.
    pub compared: Count,
    /// Pairs of texts alike.
    pub alike: Count,
}

impl Metrics {
    pub fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            output_rows: MetricBuilder::new(metrics).output_rows(partition),
            probes: counter("texts_looked_up"),
            compared: counter("pairs_compared"),
            alike: counter("pairs_alike"),
        }
    }
}

pub(super) type Results = Sender<Result<RecordBatch>>;

/// The reader has gone: nothing more is wanted.
pub(super) struct Gone;

impl Probe {
    /// Joins, and sends the rows.
    pub async fn run(self, right: SendableRecordBatchStream, results: Results) -> Result<()> {
        let build =
            || async { self.build.run(&self.spilled).await.map(Arc::new).map_err(Arc::new) };
        let built = self.side.built.get_or_init(build).await;
        let built = built.as_ref().map_err(shared)?;
        let output = Output {
            join_type: self.join_type,
            columns: &self.columns,
            schema: &self.schema,
            filter: self.filter.as_ref(),
            rows: self.rows,
            given: &self.metrics.output_rows,
            results: &results,
        };
        let done = match built.pieces.as_slice() {
            [piece] => self.one_piece(built, piece, right, &output).await?,
            _ => self.many_pieces(built, right, &output).await?,
        };
        if done.is_err() {
            return Ok(());
        }
        if self.side.finish() && output.gives_left_rows() {
            for piece in &built.pieces {
                let indexed = piece.open(&self.build, &built.schema).await?;
                if output.left_rows(piece, &indexed.rows).await?.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn one_piece(
        &self,
        built: &Built,
        piece: &Piece,
        mut right: SendableRecordBatchStream,
        output: &Output<'_>,
    ) -> Result<std::result::Result<(), Gone>> {
        let indexed = piece.open(&self.build, &built.schema).await?;
        let mut work = Work::default();
        while let Some(batch) = right.try_next().await? {
            let mut matched = vec![false; batch.num_rows()];
            let sent = self.batch(piece, &indexed, &batch, &mut matched, &mut work, output).await?;
            if sent.is_err() || output.right_rows(&batch, &matched).await?.is_err() {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(()))
    }

    /// Reads the right side once for every piece, from the disk; rows that found no match in any
    /// come with the last.
    async fn many_pieces(
        &self,
        built: &Built,
        mut right: SendableRecordBatchStream,
        output: &Output<'_>,
    ) -> Result<std::result::Result<(), Gone>> {
        let spill = self.build.spill(&right.schema(), &self.spilled);
        let (mut file, mut matched) = (spill.create_in_progress_file("fuzzy join")?, Vec::new());
        while let Some(batch) = right.try_next().await? {
            if batch.num_rows() > 0 {
                matched.push(vec![false; batch.num_rows()]);
                file.append_batch(&batch)?;
            }
        }
        let Some(file): Option<Arc<dyn SpillFile>> = file.finish()? else { return Ok(Ok(())) };
        let mut work = Work::default();
        for (at, piece) in built.pieces.iter().enumerate() {
            let indexed = piece.open(&self.build, &built.schema).await?;
            let is_last = at + 1 == built.pieces.len();
            let mut rows = spill.read_spill_as_stream(Arc::clone(&file), None)?;
            for matched in &mut matched {
                let Some(batch) = rows.try_next().await? else { break };
                let sent = self.batch(piece, &indexed, &batch, matched, &mut work, output).await?;
                if sent.is_err() || is_last && output.right_rows(&batch, matched).await?.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Looks the texts of a batch up in a piece.
    async fn batch(
        &self,
        piece: &Piece,
        indexed: &Indexed,
        batch: &RecordBatch,
        matched: &mut [bool],
        work: &mut Work,
        output: &Output<'_>,
    ) -> Result<std::result::Result<(), Gone>> {
        let texts = texts(&self.text, batch)?;
        let blocks = indexed.blocks_of(&self.keys, batch)?;
        let (probes, probe_of) = distinct(&texts, blocks.into_iter());
        let (rows_of, starts) = grouped(&probe_of, probes.len());
        self.metrics.probes.add(probes.len());
        let (mut next, mut alike) = (0, Vec::new());
        let mut pairs = Pairs::default();
        while next < probes.len() {
            let before = work.compared();
            next = indexed.index.search(&probes, next, work, &mut alike);
            self.metrics.compared.add((work.compared() - before) as usize);
            self.metrics.alike.add(alike.len());
            for (probe, value) in alike.drain(..) {
                let probe = probe as usize;
                for &right in &rows_of[starts[probe]..starts[probe + 1]] {
                    for &left in indexed.rows_of(value) {
                        pairs.push(left, right);
                        if pairs.len() >= self.rows {
                            let rows = (&indexed.rows, batch);
                            if output.pairs(&mut pairs, rows, piece, matched).await?.is_err() {
                                return Ok(Err(Gone));
                            }
                        }
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        output.pairs(&mut pairs, (&indexed.rows, batch), piece, matched).await
    }
}
