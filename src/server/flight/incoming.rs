//! Rows that a client sends by DoPut: decoded with care, in bounded memory.
//!
//! The bytes come from outside. arrow's reader checks values, but it believes lengths: a
//! compressed buffer may claim any size, a column of NULLs any number of rows, and both would be
//! allocated. Each message is looked at before it is read, a panic of the reader is the client's
//! mistake, and an answer says which it was.

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::{self, MessageHeader};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Status, Streaming};

use super::status;

/// Values of one batch, over all its columns.
const VALUES_MAX: i64 = 1 << 25;
/// Bytes of one batch once they are no longer compressed.
const PLAIN_BYTES_MAX: i64 = 256 * 1024 * 1024;

/// Batches from a client.
pub type Batches = BoxStream<'static, Result<RecordBatch, Status>>;

/// The batches of a DoPut call, with their schema when the client sent one. A client without
/// values sends its descriptor alone.
pub struct Incoming {
    /// The columns; none when nothing but the descriptor came.
    pub schema: Option<SchemaRef>,
    /// The rows.
    pub batches: Batches,
}

impl Incoming {
    /// Reads up to the schema.
    pub async fn open(first: FlightData, rest: Streaming<FlightData>) -> Result<Self, Status> {
        let messages = stream::iter([Ok(first)]).chain(rest).filter_map(|message| async move {
            match message {
                Ok(data) if data.data_header.is_empty() => None,
                Ok(data) => Some(check(&data).map(|()| data).map_err(FlightError::from)),
                Err(status) => Some(Err(FlightError::from(status))),
            }
        });
        let decoder = AssertUnwindSafe(FlightDataDecoder::new(messages.boxed())).catch_unwind();
        let mut decoder = decoder.boxed();
        let schema = match decoder.next().await {
            None => None,
            Some(message) => match read(message)? {
                DecodedPayload::Schema(schema) => Some(schema),
                _ => return Err(status::malformed("rows came before their schema")),
            },
        };
        let batches = decoder.filter_map(|message| async move {
            match read(message) {
                Ok(DecodedPayload::RecordBatch(batch)) => Some(Ok(batch)),
                Ok(DecodedPayload::None) => None,
                Ok(DecodedPayload::Schema(_)) => {
                    Some(Err(status::malformed("a second schema came among the rows")))
                }
                Err(status) => Some(Err(status)),
            }
        });
        Ok(Self { schema, batches: batches.boxed() })
    }
}

type Decoded = std::thread::Result<Result<arrow_flight::decode::DecodedFlightData, FlightError>>;

fn read(message: Decoded) -> Result<DecodedPayload, Status> {
    match message {
        Ok(Ok(data)) => Ok(data.payload),
        Ok(Err(error)) => Err(unreadable(error)),
        Err(_) => Err(status::malformed("the rows are no Arrow IPC messages")),
    }
}

fn unreadable(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => status::malformed(&format!("the rows cannot be read: {other}")),
    }
}

/// Whether a message may be read: what it claims to hold is within bounds.
fn check(data: &FlightData) -> Result<(), Status> {
    let no_message = |_| status::malformed("the rows are no Arrow IPC messages");
    let message = ipc::root_as_message(&data.data_header).map_err(no_message)?;
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => {
            message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data())
        }
        _ => return Ok(()),
    };
    let Some(batch) = batch else {
        return Err(status::malformed("the rows are no Arrow IPC messages"));
    };
    let nodes = batch.nodes().map(|nodes| nodes.iter().map(|node| node.length()).max());
    let rows = nodes.flatten().unwrap_or(0).max(batch.length());
    let columns = batch.nodes().map_or(0, |nodes| i64::try_from(nodes.len()).unwrap_or(i64::MAX));
    if rows < 0 || rows.saturating_mul(columns.max(1)) > VALUES_MAX {
        let sentence = format!("a batch has more than {VALUES_MAX} values");
        return Err(status::malformed(&format!("{sentence}; send smaller batches")));
    }
    let plain = plain_bytes(&batch, &data.data_body)?;
    if plain > PLAIN_BYTES_MAX {
        let sentence = format!("a batch has more than {PLAIN_BYTES_MAX} bytes uncompressed");
        return Err(status::malformed(&format!("{sentence}; send smaller batches")));
    }
    Ok(())
}

/// How many bytes the buffers of a batch take once they are not compressed, as they claim.
fn plain_bytes(batch: &ipc::RecordBatch<'_>, body: &[u8]) -> Result<i64, Status> {
    let mut total = 0i64;
    let Some(buffers) = batch.buffers() else { return Ok(0) };
    for buffer in buffers {
        let start = usize::try_from(buffer.offset()).ok();
        let length = usize::try_from(buffer.length()).ok();
        let bytes = start
            .zip(length)
            .and_then(|(start, length)| body.get(start..start.checked_add(length)?))
            .ok_or_else(|| status::malformed("a batch is cut off in the middle"))?;
        if batch.compression().is_none() || bytes.is_empty() {
            continue;
        }
        let Some(prefix) = bytes.first_chunk::<8>() else {
            return Err(status::malformed("a compressed buffer has no length"));
        };
        // -1 stands for a buffer that is not compressed after all.
        total = total.saturating_add(i64::from_le_bytes(*prefix).max(0));
    }
    Ok(total)
}

/// The rows as a stream of the engine; a client's mistake ends the statement that reads them.
pub fn into_engine(schema: SchemaRef, batches: Batches) -> SendableRecordBatchStream {
    let rows = batches.map(|batch| {
        batch.map_err(|status| {
            let said = status.message().to_owned();
            let text = said.split_once(": ").map_or(said.as_str(), |(_, text)| text);
            DataFusionError::Execution(text.to_owned())
        })
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, NullArray};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::TryStreamExt;
    use tonic::Code;

    use super::*;

    async fn message(column: ArrayRef, compression: Option<CompressionType>) -> FlightData {
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let encoder =
            FlightDataEncoderBuilder::new().with_options(options).build(stream::iter([Ok(batch)]));
        let messages: Vec<FlightData> = encoder.try_collect().await.unwrap();
        messages[1].clone()
    }

    #[tokio::test]
    async fn honest_batches_pass() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        for compression in [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)] {
            assert!(check(&message(Arc::clone(&numbers), compression).await).is_ok());
        }
    }

    #[tokio::test]
    async fn a_buffer_that_claims_terabytes_is_refused() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let mut data = message(numbers, Some(CompressionType::ZSTD)).await;
        let mut body = data.data_body.to_vec();
        body[..8].copy_from_slice(&(1i64 << 50).to_le_bytes());
        data.data_body = body.into();
        let status = check(&data).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("uncompressed"), "{}", status.message());
    }

    #[tokio::test]
    async fn a_column_of_countless_nulls_and_a_cut_body_are_refused() {
        let nulls: ArrayRef = Arc::new(NullArray::new(1 << 26));
        assert!(check(&message(nulls, None).await).is_err());
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let mut data = message(numbers, None).await;
        data.data_body = data.data_body.slice(..100);
        assert!(check(&data).unwrap_err().message().contains("cut off"));
        data.data_header = bytes::Bytes::from_static(b"no flatbuffer");
        assert_eq!(check(&data).unwrap_err().code(), Code::InvalidArgument);
    }
}
