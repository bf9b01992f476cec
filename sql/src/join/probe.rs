//! The other side of a fuzzy join: looks its texts up and gives the rows.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use datafusion::common::{JoinSide, JoinType};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SpillFile};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, MetricBuilder, SpillMetrics,
};
use futures::TryStreamExt;
use udfs::fuzzy::index::{InBlock, Likeness, Work};
use udfs::fuzzy::stop::Stop;

use super::apart::Results;
use super::build::{
    Build, Built, Indexed, IndexedTexts, Keys, Piece, distinct, ended, grouped, shared, texts,
};
use super::exec::Side;
use super::output::{Output, Pairs};
use super::predicate::Alternative;
use super::remembered::Remembered;

/// How the right side is looked up.
pub(super) struct Probe {
    pub build: Build,
    pub side: Arc<Side>,
    pub alternatives: Vec<Alternative>,
    pub keys: Keys,
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
    /// Texts looked up: the distinct ones of a batch that are not remembered.
    pub probes: Count,
    /// Texts that were looked up for an earlier batch.
    pub remembered: Count,
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
            remembered: counter("texts_remembered"),
            compared: counter("pairs_compared"),
            alike: counter("pairs_alike"),
        }
    }
}

/// The reader has gone: nothing more is wanted.
pub(super) struct Gone;

/// Whether rows found their reader.
pub(super) type Sent = std::result::Result<(), Gone>;

impl Probe {
    /// Joins, and sends the rows.
    pub async fn run(self, right: SendableRecordBatchStream, results: Results) -> Result<()> {
        let build = || async {
            let built = self.build.run(&self.spilled).await.map(Arc::new).map_err(Arc::new);
            // Whoever else waits builds it then.
            if built.is_err() && self.build.stop.is_set() { Err(Gone) } else { Ok(built) }
        };
        let Ok(built) = self.side.built.get_or_try_init(build).await else { return Ok(()) };
        let built = built.as_ref().map_err(shared)?;
        let output = Output {
            join_type: self.join_type,
            columns: &self.columns,
            schema: &self.schema,
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
                let indexed = piece.open(&self.build, built).await?;
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
    ) -> Result<Sent> {
        let mut opened = self.open(piece, built).await?;
        let mut work = Work::new(self.build.stop.clone());
        while let Some(batch) = right.try_next().await? {
            let mut matched = output.unmatched(&batch);
            let sent = self.batch(&mut opened, &batch, &mut matched, &mut work, output).await?;
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
    ) -> Result<Sent> {
        let spill = self.build.spill(&right.schema(), &self.spilled);
        let (mut file, mut matched) = (spill.create_in_progress_file("fuzzy join")?, Vec::new());
        let memory = self.build.reservation();
        while let Some(batch) = right.try_next().await? {
            if batch.num_rows() > 0 {
                let unmatched = output.unmatched(&batch);
                memory.try_grow(unmatched.len())?;
                matched.push(unmatched);
                file.append_batch(&batch)?;
            }
        }
        let Some(file): Option<Arc<dyn SpillFile>> = file.finish()? else { return Ok(Ok(())) };
        let mut work = Work::new(self.build.stop.clone());
        for (at, piece) in built.pieces.iter().enumerate() {
            let mut opened = self.open(piece, built).await?;
            let is_last = at + 1 == built.pieces.len();
            let mut rows = spill.read_spill_as_stream(Arc::clone(&file), None)?;
            for matched in &mut matched {
                let Some(batch) = rows.try_next().await? else { break };
                let sent = self.batch(&mut opened, &batch, matched, &mut work, output).await?;
                if sent.is_err() || is_last && output.right_rows(&batch, matched).await?.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Opens a piece, in which nothing was looked up yet.
    async fn open<'a>(&self, piece: &'a Piece, built: &Built) -> Result<Opened<'a>> {
        let (build, ways) = (&self.build, self.alternatives.len());
        let several = build.readers.max(1) * build.builders.max(1) * ways;
        let remembered = || {
            let pool = Arc::clone(build.context.memory_pool());
            Remembered::new(build.reservation(), pool, several)
        };
        let indexed = piece.open(build, built).await?;
        Ok(Opened { piece, indexed, remembered: (0..ways).map(|_| remembered()).collect() })
    }

    /// Looks the texts of a batch up in a piece, in each way.
    async fn batch(
        &self,
        opened: &mut Opened<'_>,
        batch: &RecordBatch,
        matched: &mut [bool],
        work: &mut Work,
        output: &Output<'_>,
    ) -> Result<Sent> {
        let Opened { piece, indexed, remembered } = opened;
        let (piece, indexed) = (*piece, &**indexed);
        let blocks = indexed.blocks_of(&self.keys, batch)?;
        let ways = self.alternatives.iter().zip(&indexed.texts).zip(remembered);
        for ((Alternative { predicate, filter }, known), remembered) in ways {
            remembered.next_batch();
            let texts = texts(&predicate.right, batch)?;
            let mut looked_up = LookedUp {
                filter: filter.as_ref(),
                known,
                piece,
                rows: (&indexed.rows, batch),
                matched: &mut *matched,
                output,
                stop: &self.build.stop,
                pairs: Pairs::default(),
            };
            let Some(limit) = predicate.limit_of(JoinSide::Right) else {
                let blocks = blocks.iter().copied();
                let probes = Probes::new(&texts, blocks, &self.build.stop)?;
                let (likeness, to) = (known.likeness, &mut looked_up);
                if self.look_up(&probes, likeness, remembered, work, to).await?.is_err() {
                    return Ok(Err(Gone));
                }
                continue;
            };
            let limits = limit.of_rows(batch)?;
            let mut radii: Vec<usize> = limits.iter().flatten().copied().collect();
            radii.sort_unstable();
            radii.dedup();
            for max in radii {
                let of_radius = blocks.iter().zip(&limits);
                let of_radius =
                    of_radius.map(|(block, limit)| block.filter(|_| *limit == Some(max)));
                let probes = Probes::new(&texts, of_radius, &self.build.stop)?;
                let (likeness, to) = (known.likeness.within(max), &mut looked_up);
                if self.look_up(&probes, likeness, remembered, work, to).await?.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Looks texts up, unless what is alike is remembered, and gives the rows of those alike.
    async fn look_up(
        &self,
        probes: &Probes<'_>,
        likeness: Likeness,
        remembered: &mut Remembered,
        work: &mut Work,
        to: &mut LookedUp<'_>,
    ) -> Result<Sent> {
        let (mut texts, mut places) = (Vec::new(), Vec::new());
        for (place, text) in (0..).zip(&probes.texts) {
            let Some(values) = remembered.find(likeness, *text) else {
                texts.push(*text);
                places.push(place);
                continue;
            };
            self.build.stop.check().map_err(ended)?;
            for value in values {
                if to.take(probes.rows_of(place), *value).await?.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        self.metrics.probes.add(texts.len());
        self.metrics.remembered.add(probes.texts.len() - texts.len());
        let (mut next, mut alike) = (0, Vec::new());
        while next < texts.len() {
            let (before, from) = (work.compared(), next);
            let found = to.known.index.search(likeness, &texts, next, work, &mut alike);
            next = found.map_err(ended)?;
            self.metrics.compared.add((work.compared() - before) as usize);
            self.metrics.alike.add(alike.len());
            let mut rest = alike.as_slice();
            for at in from..next {
                let values = rest.iter().take_while(|(text, _)| *text as usize == at).count();
                let (values, others) = rest.split_at(values);
                rest = others;
                remembered.keep(likeness, texts[at], values.iter().map(|(_, value)| *value));
                for (_, value) in values {
                    if to.take(probes.rows_of(places[at]), *value).await?.is_err() {
                        return Ok(Err(Gone));
                    }
                }
            }
            alike.clear();
        }
        to.give().await
    }
}

/// A piece in memory.
struct Opened<'a> {
    piece: &'a Piece,
    indexed: Arc<Indexed>,
    /// What was found in it, of each way to look texts up.
    remembered: Vec<Remembered>,
}

/// The distinct texts of a batch, and their rows.
struct Probes<'a> {
    texts: Vec<InBlock<'a>>,
    rows: Vec<u32>,
    starts: Vec<usize>,
}

impl<'a> Probes<'a> {
    fn new(
        texts: &'a StringViewArray,
        blocks: impl Iterator<Item = Option<u32>>,
        stop: &Stop,
    ) -> Result<Self> {
        let (texts, text_of) = distinct(texts, blocks, stop)?;
        let (rows, starts) = grouped(&text_of, texts.len());
        Ok(Self { texts, rows, starts })
    }

    fn rows_of(&self, text: u32) -> &[u32] {
        let text = text as usize;
        &self.rows[self.starts[text]..self.starts[text + 1]]
    }
}

/// Where the pairs of one way to look texts up go.
struct LookedUp<'a> {
    filter: Option<&'a JoinFilter>,
    known: &'a IndexedTexts,
    piece: &'a Piece,
    rows: (&'a RecordBatch, &'a RecordBatch),
    matched: &'a mut [bool],
    output: &'a Output<'a>,
    stop: &'a Stop,
    pairs: Pairs,
}

impl LookedUp<'_> {
    /// Takes the pairs of some rows with those of a value, and gives them where they are enough.
    async fn take(&mut self, rows: &[u32], value: u32) -> Result<Sent> {
        let (known, output) = (self.known, self.output);
        let of_value = known.rows_of(value);
        // Where every pair counts and none is given, the rows are all there is to know of them.
        if self.filter.is_none() && !output.gives_pairs() {
            output.mark(of_value, rows, self.piece, self.matched);
            return Ok(Ok(()));
        }
        for &right in rows {
            for &left in of_value {
                self.pairs.push(left, right);
                if self.pairs.len() < output.rows {
                    continue;
                }
                // One text may be in very many rows of either side, and none of them given.
                self.stop.check().map_err(ended)?;
                if self.give().await?.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    async fn give(&mut self) -> Result<Sent> {
        let Self { filter, piece, rows, matched, output, pairs, .. } = self;
        output.pairs(pairs, *filter, *rows, piece, matched).await
    }
}
