//! Few large writes instead of many small ones.
//!
//! HTTP/2 flushes after nearly every frame, which would make a TLS record and a system call of each. Here small writes are
//! gathered, a flush by the protocol does nothing, and whoever drives the connection sends what has gathered when nothing
//! more is to come for now.

use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What fits into one TLS record.
const RECORD: usize = 16 * 1024;

/// A stream whose writes are gathered. Clones are handles to the same one.
pub(super) struct Coalesced<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    stream: T,
    gathered: Vec<u8>,
    /// How much of `gathered` the stream has taken.
    taken: usize,
    /// Sending failed; the protocol, to whom nothing was said then, meets it at its next read or write.
    failed: Option<io::ErrorKind>,
}

impl<T> Clone for Coalesced<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Coalesced<T> {
    pub(super) fn new(stream: T) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, gathered: Vec::new(), taken: 0, failed: None })))
    }

    /// Sends what has gathered. The task is woken when more can be sent, and when this failed: the protocol is told at its
    /// next read or write.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.0.lock();
        if let Err(error) = ready!(inner.poll_send(cx))
            && inner.failed.replace(error.kind()).is_none()
        {
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

    /// Hands what has gathered to the stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.gathered.get(self.taken..).filter(|rest| !rest.is_empty()) {
            let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += taken;
        }
        // Idle connections, of which there are thousands, keep nothing.
        self.gathered = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.gathered.len() + length > RECORD {
            ready!(self.poll_drain(cx))?;
        }
        if length >= RECORD {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        }
        for part in parts {
            self.gathered.extend_from_slice(part);
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

    /// Nothing: see [`Coalesced::poll_send`].
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
        let sizes = [5, RECORD - 1, 1, 2, RECORD, RECORD + 9, 7, 3 * RECORD, 1];
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
