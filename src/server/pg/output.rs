//! What is sent to a client: messages are gathered and leave in large pieces, and a client that
//! reads slowly makes the statement wait instead of the server's memory grow.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::problem::{Problem, Stop};

/// So much is gathered before it leaves.
const PIECE_BYTES: usize = 64 * 1024;
/// A client that takes nothing for so long is given up.
const STALLED_MAX: Duration = Duration::from_secs(300);

/// What is sent to a client.
pub struct Output<W> {
    stream: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    /// Nothing sent yet.
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(1024) }
    }

    /// Adds a message.
    pub fn add(&mut self, message: &PgWireBackendMessage) -> Result<(), Stop> {
        message.encode(&mut self.buffer).map_err(|error| Problem::internal(&error).into())
    }

    /// Adds a row, which `fields` writes.
    pub fn row(
        &mut self,
        columns: usize,
        fields: impl FnOnce(&mut BytesMut) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let start = self.buffer.len();
        self.buffer.put_u8(b'D');
        self.buffer.put_u32(0);
        self.buffer.put_u16(columns as u16);
        if let Err(stop) = fields(&mut self.buffer) {
            self.buffer.truncate(start);
            return Err(stop);
        }
        let length = self.buffer.len() - start - 1;
        let Ok(length) = i32::try_from(length) else {
            self.buffer.truncate(start);
            let what = format!("a row of {length} bytes is longer than the protocol allows");
            return Err(Problem::new("54000", what).into());
        };
        self.buffer[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Whether it is time for a piece to leave.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE_BYTES
    }

    /// Sends what was gathered.
    pub async fn flush(&mut self) -> Result<(), Stop> {
        let sent = async {
            self.stream.write_all(&self.buffer).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(STALLED_MAX, sent).await {
            Ok(Ok(())) => {
                self.buffer.clear();
                Ok(())
            }
            _ => Err(Stop::Gone),
        }
    }

    /// Sends what was gathered and says good-bye.
    pub async fn close(mut self) {
        let _ = self.flush().await;
        let _ = self.stream.shutdown().await;
    }
}
