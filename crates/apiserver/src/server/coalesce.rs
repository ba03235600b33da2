//! Few large writes instead of many small ones.
//!
//! hyper's HTTP/2 flushes after nearly every frame, which would cost a TLS record and a system call each time. This stream
//! collects small writes in a buffer and ignores the protocol's flushes; [`super::connection::drive`] sends the buffer when
//! no request of the connection can go on for now.
//!
//! Errors come late for that reason: a write that was accepted may fail when the buffer is sent. The failure is kept and given
//! to the protocol at its next read or write, so that it is never taken for an orderly end of the connection.

use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most plaintext that fits into one TLS record (RFC 8446, 5.1). A fuller buffer would be cut into records anyway.
const TLS_RECORD: usize = 16 * 1024;

/// A stream whose writes are collected in a buffer. Clones are handles to the same one: hyper owns one to read and write,
/// `drive` has another to send.
///
/// The lock is uncontended, because one task polls both. A synchronous one, held for one poll of the stream and never across
/// an `.await`; it exists to satisfy the borrow checker, not to coordinate threads.
pub(super) struct Coalesced<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    stream: T,
    buffer: Vec<u8>,
    /// How many bytes of `buffer`, from its start, the stream has taken. Never more than `buffer.len()`.
    sent: usize,
    /// Why sending failed. The protocol was told that its write succeeded, so every read and write from then on fails with it.
    failed: Option<io::ErrorKind>,
}

impl<T> Clone for Coalesced<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Coalesced<T> {
    pub(super) fn new(stream: T) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, buffer: Vec::new(), sent: 0, failed: None })))
    }

    /// Sends the buffer and flushes the stream below. `Pending` while the socket takes no more; the task is woken when it does.
    /// `Ready` does not mean success: a failure is kept for the protocol's next read or write.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.0.lock();
        if let Err(error) = ready!(inner.poll_send(cx))
            && inner.failed.replace(error.kind()).is_none()
        {
            // Nobody else would wake the task: the protocol waits for the peer, from whom nothing may ever come. So let it
            // read once more and find the error. Only for the first error, or the task would spin.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Inner<T> {
    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Hands the buffer to the stream. Safe to be called again after `Pending`: `sent` says how far it has come.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        // Freed instead of cleared: there are thousands of idle connections, and each would keep up to 16 KiB.
        self.buffer = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.buffer.len() + length > TLS_RECORD {
            ready!(self.poll_drain(cx))?;
        }
        // Large enough to fill records by itself: copying it into the buffer would gain nothing. The buffer is empty here
        // (drained above), so the order of bytes is kept.
        if length >= TLS_RECORD {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        }
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        Poll::Ready(Ok(length))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        inner.check()?;
        Pin::new(&mut inner.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: `drive` calls [`Coalesced::poll_send`] when it is time.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A stream that notes the size of each write.
    struct Noting<T>(T, Arc<Mutex<Vec<usize>>>);

    impl<T: AsyncRead + Unpin> AsyncRead for Noting<T> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl<T: AsyncWrite + Unpin> AsyncWrite for Noting<T> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.0).poll_write(cx, data))?;
            self.1.lock().push(written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn small_writes_go_out_together_when_they_are_sent() {
        let (here, mut there) = tokio::io::duplex(1 << 20);
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let mut stream = Coalesced::new(Noting(here, sizes.clone()));
        for text in ["one ", "two ", "three"] {
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert!(sizes.lock().is_empty());
        poll_fn(|cx| stream.poll_send(cx)).await;
        assert_eq!(*sizes.lock(), [13]);
        let mut buffer = [0; 13];
        there.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"one two three");
    }

    #[tokio::test]
    async fn who_reads_is_told_that_sending_failed() {
        let (here, there) = tokio::io::duplex(10);
        let mut stream = Coalesced::new(here);
        stream.write_all(b"hello").await.unwrap();
        drop(there);
        poll_fn(|cx| stream.poll_send(cx)).await;
        // Without having been told, it would see an orderly end.
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn order_is_kept_however_large_the_writes_and_however_slow_the_peer() {
        // Much less than a record at once.
        let (here, mut there) = tokio::io::duplex(1000);
        let mut stream = Coalesced::new(here);
        let sizes = [5, TLS_RECORD - 1, 1, 2, TLS_RECORD, TLS_RECORD + 9, 7, 3 * TLS_RECORD, 1];
        let sent: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = async move {
            let mut rest = sent.as_slice();
            for size in sizes {
                let (piece, next) = rest.split_at(size);
                stream.write_all(piece).await.unwrap();
                rest = next;
            }
            stream.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writer, there.read_to_end(&mut received));
        read.unwrap();
        assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
    }
}
