//! Rows on their way out: from a running statement to the messages of DoGet.
//!
//! Rows go out batch by batch as the client reads; a client that goes away drops the stream, which
//! ends the statement. A stream that did not deliver everything ends with a status, never well.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, BoxStream, StreamExt};
use sql::Compression;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::body::{Encoder, Messages};
use super::sessions::ClientSession;
use super::statements::{Running, Statement};
use super::status;
use super::wire::{split, wire_batch};

/// The answer to DoGet: its messages and what the headers tell of the statement.
pub struct Fetched {
    /// The rows.
    pub messages: Messages,
    /// The statement.
    pub told: Told,
}

/// What a client is told of a statement besides its rows.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The id under which it is logged and can be killed; none for a metadata command.
    pub query_id: Option<String>,
    /// Rows that it changed.
    pub affected: Option<i64>,
    /// What it did, in a sentence.
    pub message: Option<String>,
}

/// A statement that has started: a query's rows are still to be read, an update has done its work.
pub struct Begun {
    /// What it did.
    pub told: Told,
    first: Option<RecordBatch>,
    rows: Rows,
    wire: SchemaRef,
}

impl Begun {
    /// Starts a statement.
    pub async fn start(statement: Statement, stop: CancellationToken) -> Result<Self, Status> {
        let Statement { client, prepared, parameters, wire, query_id } = statement;
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => Err(status::cancelled()),
            answer = client.session.run_as(&query_id, &prepared, &parameters) => {
                answer.map_err(|error| status::from_sql(&error))
            }
        };
        let answer = answer.map_err(|error| status::of_query(error, &query_id))?;
        let told = Told {
            query_id: Some(query_id.clone()),
            affected: answer.affected,
            message: answer.message,
        };
        let rows = Rows { rows: answer.rows, query_id, stop, _client: client, _running: None };
        Ok(Self { told, first: None, rows, wire })
    }

    /// Waits for the first rows and keeps them.
    pub async fn reach_rows(mut self) -> Result<Self, Status> {
        if self.told.affected.is_none() {
            self.first = self.rows.read().await.transpose()?;
        }
        Ok(self)
    }

    /// The messages; `running` is dropped with the last of them.
    pub fn into_fetched(self, compression: Compression, running: Option<Running>) -> Fetched {
        let Self { told, first, mut rows, wire } = self;
        rows._running = running;
        let first = stream::iter(first.map(Ok));
        let batches = first.chain(stream::unfold(Some(rows), Rows::next));
        Fetched { messages: encoded(wire, compression, batches.boxed()), told }
    }
}

type Batch = Result<RecordBatch, Status>;

/// Batches as messages of the announced schema.
pub fn encoded(
    wire: SchemaRef,
    compression: Compression,
    batches: BoxStream<'static, Batch>,
) -> Messages {
    let encoder = write_options(compression)
        .and_then(|options| Encoder::new(&wire, options).map_err(|error| unsent(&error)));
    let (mut encoder, announced) = match encoder {
        Ok(made) => made,
        Err(status) => return stream::iter([Err(status)]).boxed(),
    };
    let rows = batches.flat_map(move |batch| {
        let messages = batch.and_then(|batch| {
            let pieces = wire_batch(&batch, &wire).map(split).map_err(|error| unsent(&error))?;
            let messages = pieces.iter().map(|piece| encoder.encode(piece));
            messages.collect::<Result<Vec<_>, _>>().map_err(|error| unsent(&error))
        });
        match messages {
            Ok(messages) => stream::iter(messages).map(Ok).left_stream(),
            Err(status) => stream::iter([Err(status)]).right_stream(),
        }
    });
    stream::iter([Ok(announced)]).chain(rows).boxed()
}

fn unsent(error: &ArrowError) -> Status {
    status::internal(&format!("a batch cannot be sent: {error}"))
}

fn write_options(compression: Compression) -> Result<IpcWriteOptions, Status> {
    let kind = match compression {
        Compression::None => None,
        Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        Compression::Zstd => Some(CompressionType::ZSTD),
    };
    IpcWriteOptions::default()
        .try_with_compression(kind)
        .map_err(|error| status::internal(&format!("results cannot be compressed: {error}")))
}

/// The rows of a running statement; dropping them ends it.
struct Rows {
    rows: SendableRecordBatchStream,
    query_id: String,
    stop: CancellationToken,
    /// A session counts as in use while its rows are read.
    _client: Arc<ClientSession>,
    _running: Option<Running>,
}

impl Rows {
    async fn read(&mut self) -> Option<Batch> {
        let next = tokio::select! {
            biased;
            () = self.stop.cancelled() => Some(Err(status::cancelled())),
            next = self.rows.next() => next.map(|batch| batch.map_err(status::from_stream)),
        };
        next.map(|batch| batch.map_err(|error| status::of_query(error, &self.query_id)))
    }

    /// The next batch. After an error, which also is how a cancelled statement ends, nothing comes:
    /// a stream never ends well that did not deliver everything.
    async fn next(rows: Option<Self>) -> Option<(Batch, Option<Self>)> {
        let mut this = rows?;
        match this.read().await? {
            Ok(batch) => Some((Ok(batch), Some(this))),
            Err(error) => Some((Err(error), None)),
        }
    }
}
