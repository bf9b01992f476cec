//! Rows as the bytes of DoGet's answer, without copying them.
//!
//! tonic's codec copies each message into its own buffer after arrow-flight has copied the columns
//! into a message. Here a message is a short head (gRPC's frame, the protobuf tags of `FlightData`,
//! the IPC header) and the columns' own buffers behind it, which go to the socket as they are. The
//! handler leaves the messages among its answer's extensions ([`attach`]); [`Rows`], which stands
//! around tonic's service, puts them in the place of the body. Each ends with the status in the
//! trailers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use http_body::Frame;
use parking_lot::Mutex;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;
use tonic::{Status, body::Body};
use tower_service::Service;

/// A buffer below this size is copied behind what goes before it: a frame costs more.
const SHARED_BYTES_MIN: usize = 4096;
/// Small pieces go together up to about this size: HTTP/2's usual frame.
const FRAME_BYTES_MAX: usize = 16_384;
/// Fields of `FlightData`.
const DATA_HEADER: u32 = 2;
const DATA_BODY: u32 = 1000;
/// Before each message of gRPC: whether it is compressed, and its length.
const PREFACE_BYTES: usize = 5;
/// An IPC message begins with a continuation mark and the length of its header.
const PREFIX_BYTES: usize = 8;

/// One message of DoGet in pieces.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pieces: Vec<Bytes>,
}

/// The messages of an answer.
pub type Messages = BoxStream<'static, Result<Message, Status>>;

/// Makes messages of batches.
pub struct Encoder {
    encoder: StreamEncoder,
}

impl Encoder {
    /// An encoder for batches of one schema without dictionaries, and the message that announces
    /// it.
    ///
    /// # Errors
    /// A schema that IPC cannot carry.
    pub fn new(
        schema: &SchemaRef,
        options: IpcWriteOptions,
    ) -> Result<(Self, Message), ArrowError> {
        let mut encoder = StreamEncoder::try_new_with_options(schema, options)?;
        // The first batch comes with the schema before it.
        let buffers = encoder.encode(&RecordBatch::new_empty(Arc::clone(schema)))?;
        let announced = Message::of(buffers, true)?;
        Ok((Self { encoder }, announced))
    }

    /// A batch of the schema as a message.
    ///
    /// # Errors
    /// A message of 4 GiB or more; a batch of another schema.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Message, ArrowError> {
        Message::of(self.encoder.encode(batch)?, false)
    }
}

impl Message {
    /// An IPC message of a stream, cut anyhow into buffers, as a framed `FlightData`. Of a schema
    /// nothing but its header counts: what comes behind is the first batch.
    fn of(buffers: Vec<Buffer>, header_only: bool) -> Result<Self, ArrowError> {
        let mut buffers = buffers.into_iter();
        let mut start = BytesMut::new();
        let mut end = PREFIX_BYTES;
        while start.len() < end {
            let Some(buffer) = buffers.next() else {
                return Err(ArrowError::IpcError("a message ends in its header".into()));
            };
            start.extend_from_slice(&buffer);
            if let Some(length) = start.get(4..PREFIX_BYTES)
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                end = PREFIX_BYTES + u32::from_le_bytes(length) as usize;
            }
        }
        let rest = start.split_off(end);
        let header = start.split_off(PREFIX_BYTES);
        let mut body: Vec<Buffer> = Vec::new();
        if !header_only {
            body.extend((!rest.is_empty()).then(|| Buffer::from(&rest[..])));
            body.extend(buffers);
        }
        Self::framed(&header, body)
    }

    fn framed(header: &[u8], body: Vec<Buffer>) -> Result<Self, ArrowError> {
        let body_bytes: usize = body.iter().map(Buffer::len).sum();
        let length = field_len(DATA_HEADER, header.len()) + field_len(DATA_BODY, body_bytes);
        let Ok(framed) = u32::try_from(length) else {
            return Err(ArrowError::IpcError(format!("a message of {length} bytes is too long")));
        };
        let mut copied = BytesMut::with_capacity(PREFACE_BYTES + length - body_bytes);
        copied.put_u8(0);
        copied.put_u32(framed);
        put_field(DATA_HEADER, header.len(), &mut copied);
        copied.put_slice(header);
        put_field(DATA_BODY, body_bytes, &mut copied);
        let mut pieces = Vec::new();
        for buffer in body {
            if buffer.len() < SHARED_BYTES_MIN {
                copied.put_slice(&buffer);
                continue;
            }
            if !copied.is_empty() {
                pieces.push(copied.split().freeze());
            }
            pieces.push(Bytes::from_owner(Shared(buffer)));
        }
        if !copied.is_empty() {
            pieces.push(copied.freeze());
        }
        Ok(Self { pieces })
    }
}

/// A column's buffer, kept until it is sent.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What a field of bytes takes.
fn field_len(tag: u32, bytes: usize) -> usize {
    key_len(tag) + encoded_len_varint(bytes as u64) + bytes
}

fn put_field(tag: u32, bytes: usize, buffer: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(bytes as u64, buffer);
}

/// The messages on their way from the handler to [`Rows`].
#[derive(Clone)]
struct Attached(Arc<Mutex<Option<Messages>>>);

/// Leaves the messages of an answer for the service around.
pub fn attach<T>(response: &mut tonic::Response<T>, messages: Messages) {
    let attached = Attached(Arc::new(Mutex::new(Some(messages))));
    response.extensions_mut().insert(attached);
}

/// The HTTP body: the pieces of each message, then the status. Small pieces that are ready together
/// go in one frame.
struct MessageBody {
    messages: Option<Messages>,
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    trailers: Option<HeaderMap>,
}

impl MessageBody {
    fn new(messages: Messages) -> Self {
        let (pieces, small) = (VecDeque::new(), BytesMut::new());
        Self { messages: Some(messages), pieces, small, trailers: None }
    }

    /// The next frame of data out of the pieces at hand.
    fn piece(&mut self) -> Option<Bytes> {
        while let Some(piece) = self.pieces.pop_front() {
            if piece.len() < SHARED_BYTES_MIN && self.small.len() < FRAME_BYTES_MAX {
                self.small.extend_from_slice(&piece);
            } else if self.small.is_empty() {
                return Some(piece);
            } else {
                self.pieces.push_front(piece);
                return self.small();
            }
        }
        None
    }

    fn small(&mut self) -> Option<Bytes> {
        (!self.small.is_empty()).then(|| self.small.split().freeze())
    }
}

impl http_body::Body for MessageBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.piece() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(messages) = &mut this.messages else {
                let last = this.small().map(Frame::data);
                let last = last.or_else(|| this.trailers.take().map(Frame::trailers));
                return Poll::Ready(last.map(Ok));
            };
            let status = match messages.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) => {
                    this.pieces = message.pieces.into();
                    continue;
                }
                Poll::Ready(Some(Err(status))) => status,
                Poll::Ready(None) => Status::ok(""),
                Poll::Pending => {
                    return match this.small() {
                        Some(small) => Poll::Ready(Some(Ok(Frame::data(small)))),
                        None => Poll::Pending,
                    };
                }
            };
            // Dropping the messages ends their statement.
            this.messages = None;
            let mut trailers = HeaderMap::new();
            match status.add_header(&mut trailers) {
                Ok(()) => this.trailers = Some(trailers),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_sent = self.pieces.is_empty() && self.small.is_empty();
        self.messages.is_none() && is_sent && self.trailers.is_none()
    }
}

/// The service of Flight, with the bodies that its handlers have attached.
#[derive(Clone)]
pub struct Rows<S> {
    inner: S,
}

impl<S> Rows<S> {
    /// Stands around tonic's service.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for Rows<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Rows<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.inner.call(request);
        async move {
            let mut response = answer.await?;
            let attached = response.extensions_mut().remove::<Attached>();
            let Some(messages) = attached.and_then(|attached| attached.0.lock().take()) else {
                return Ok(response);
            };
            Ok(response.map(|_| Body::new(MessageBody::new(messages))))
        }
        .boxed()
    }
}

#[cfg(test)]
pub mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow_flight::FlightData;
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::{TryStreamExt, stream};
    use prost::Message as _;

    use super::*;

    /// The message as a client reads it.
    pub fn decoded(message: &Message) -> FlightData {
        let bytes = message.pieces.concat();
        let length = u32::from_be_bytes(bytes[1..PREFACE_BYTES].try_into().unwrap());
        assert_eq!((bytes[0], length as usize), (0, bytes.len() - PREFACE_BYTES));
        FlightData::decode(&bytes[PREFACE_BYTES..]).unwrap()
    }

    fn batch(rows: i64) -> RecordBatch {
        let numbers = Int64Array::from_iter((0..rows).map(|row| (row % 3 > 0).then_some(row)));
        let words =
            StringArray::from_iter((0..rows).map(|row| Some("w".repeat(row as usize % 40))));
        let columns =
            [("number", Arc::new(numbers) as ArrayRef), ("word", Arc::new(words) as ArrayRef)];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[tokio::test]
    async fn a_client_reads_the_batches() {
        let whole = batch(20_000);
        let batches = [whole.clone(), whole.slice(777, 9_000), whole.slice(5, 3), batch(0)];
        let schema = whole.schema();
        let (mut encoder, announced) = Encoder::new(&schema, IpcWriteOptions::default()).unwrap();
        let mut messages = vec![decoded(&announced)];
        messages.extend(batches.iter().map(|batch| decoded(&encoder.encode(batch).unwrap())));
        let read = FlightRecordBatchStream::new_from_flight_data(stream::iter(
            messages.into_iter().map(Ok),
        ));
        assert_eq!(read.try_collect::<Vec<_>>().await.unwrap(), batches);
    }

    #[test]
    fn large_buffers_are_shared_and_small_ones_copied() {
        let whole = batch(20_000);
        let (mut encoder, _) = Encoder::new(&whole.schema(), IpcWriteOptions::default()).unwrap();
        let message = encoder.encode(&whole).unwrap();
        let numbers = whole.column(0).to_data().buffers()[0].as_ptr();
        assert!(message.pieces.iter().any(|piece| piece.as_ptr() == numbers));
        assert_eq!(encoder.encode(&whole.slice(0, 10)).unwrap().pieces.len(), 1);
    }

    #[tokio::test]
    async fn a_body_ends_with_its_status() {
        use http_body::Body as _;

        let failed = Err(Status::not_found("no such thing"));
        let message = |text: &'static str| Ok(Message { pieces: vec![Bytes::from(text)] });
        let messages = stream::iter([message("x"), message("y"), failed]);
        let mut body = MessageBody::new(messages.boxed());
        let mut next = || {
            let frame = Pin::new(&mut body)
                .poll_frame(&mut Context::from_waker(futures::task::noop_waker_ref()));
            match frame {
                Poll::Ready(frame) => frame.transpose().unwrap(),
                Poll::Pending => panic!("nothing to wait for"),
            }
        };
        assert_eq!(next().unwrap().into_data().unwrap(), "xy");
        let trailers = next().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "5");
        assert!(next().is_none());
    }
}
