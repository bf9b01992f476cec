//! A connection that gathers what HTTP/2 writes and sends it in large pieces.
//!
//! HTTP/2 carries rows in frames of 16 KiB, the size that clients announce, and `h2` writes each
//! frame by itself and flushes after it. A large answer is tens of thousands of system calls that
//! way, each of which wakes the reader. Here frames go into a buffer of [`GATHERED_BYTES_MAX`].
//! A flush right behind a write is put off once, to the task's next turn, which it asks for at
//! once: what that turn writes goes with it, and where it writes nothing the buffer is sent. So
//! nothing waits for a clock. What is shorter than a frame is sent by the flush itself: it is the
//! answer to a call, and a second turn would cost it more than the system call, because a task
//! that asks for its next turn is handed to another thread, which has to wake for it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes that are gathered at most: they stay in a core's cache from the copy to the socket's.
const GATHERED_BYTES_MAX: usize = 128 * 1024;
/// A write of so many bytes goes to the socket as it is, as there is nothing to win.
const LARGE_BYTES: usize = 64 * 1024;
/// With less than a frame at hand a flush is not put off.
const SHORT_BYTES: usize = 16 * 1024;

/// A connection whose small writes go together.
#[derive(Debug)]
pub struct Gathered<T> {
    inner: T,
    buffer: Vec<u8>,
    /// Bytes at the buffer's start that are sent.
    sent: usize,
    /// Whether something was written since the last flush.
    written: bool,
}

impl<T> Gathered<T> {
    /// The connection, with nothing gathered.
    pub fn new(inner: T) -> Self {
        Self { inner, buffer: Vec::new(), sent: 0, written: false }
    }
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    /// Sends what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.buffer.get(self.sent..) {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let is_large = length >= LARGE_BYTES;
        if is_large || this.buffer.len() + length > GATHERED_BYTES_MAX {
            ready!(this.poll_send(cx))?;
        }
        if is_large {
            return Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        }
        for slice in slices {
            this.buffer.extend_from_slice(slice);
        }
        this.written = true;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let written = std::mem::take(&mut this.written);
        if written && this.buffer.len() - this.sent >= SHORT_BYTES {
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_send(cx))?;
        // A connection that has nothing to send may be idle for long.
        this.buffer = Vec::new();
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, into)
    }
}

impl<T: Connected> Connected for Gathered<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> T::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Writes of these lengths, and whether a flush follows.
    fn steps() -> impl Strategy<Value = Vec<(usize, bool)>> {
        let length =
            prop_oneof![4 => 0_usize..40, 2 => 16_000_usize..17_000, 1 => 0_usize..300_000];
        prop::collection::vec((length, any::<bool>()), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Whatever is written arrives, once and in order, also through a narrow pipe.
        #[test]
        fn what_is_written_arrives(steps in steps(), width in 1_usize..100_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes: usize = steps.iter().map(|(length, _)| length).sum();
            let expected: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let received = runtime.block_on(async {
                let (near, mut far) = tokio::io::duplex(width);
                let sent = expected.clone();
                let sending = tokio::spawn(async move {
                    let mut connection = Gathered::new(near);
                    let mut from = 0;
                    for (length, flushed) in steps {
                        connection.write_all(&sent[from..from + length]).await.unwrap();
                        from += length;
                        if flushed {
                            connection.flush().await.unwrap();
                        }
                    }
                    connection.shutdown().await.unwrap();
                });
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.unwrap();
                sending.await.unwrap();
                received
            });
            prop_assert!(received == expected);
        }
    }

    /// A task that writes, flushes in each of its turns and waits is an HTTP/2 connection: what it
    /// wrote must not stay behind.
    #[tokio::test]
    async fn a_flush_of_frames_is_put_off_to_the_next_turn_only() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut connection = Gathered::new(near);
        let frame = [7_u8; SHORT_BYTES];
        let mut begun = false;
        let serving = tokio::spawn(std::future::poll_fn(move |cx| {
            if !std::mem::replace(&mut begun, true) {
                for _ in 0..3 {
                    let written = Pin::new(&mut connection).poll_write(cx, &frame);
                    assert!(matches!(written, Poll::Ready(Ok(SHORT_BYTES))));
                    assert!(Pin::new(&mut connection).poll_flush(cx).is_ready());
                }
            }
            assert!(Pin::new(&mut connection).poll_flush(cx).is_ready());
            Poll::<()>::Pending
        }));
        let mut received = vec![0; 3 * SHORT_BYTES];
        far.read_exact(&mut received).await.unwrap();
        assert!(received == [7_u8; 3 * SHORT_BYTES]);
        serving.abort();
    }

    /// No task wakes here, so what comes was sent by the flush.
    #[tokio::test]
    async fn a_flush_sends_what_is_short() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut connection = Gathered::new(near);
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        let written = Pin::new(&mut connection).poll_write(&mut cx, b"answer");
        assert!(matches!(written, Poll::Ready(Ok(6))));
        assert!(Pin::new(&mut connection).poll_flush(&mut cx).is_ready());
        let mut received = [0; 6];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"answer");
    }
}
