//! The lines of a body that goes on, none longer than a limit.

use crate::side::cause::Cause;
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;

/// Reads a body line by line.
pub(super) struct Lines<B> {
    body: B,
    limit: usize,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
}

impl<B: Body<Data = Bytes, Error = kube::Error> + Unpin> Lines<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self { body, limit, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line that is not empty; `None` at the end of the body. What comes after the last end of a line is dropped: it
    /// is half an event.
    ///
    /// Cancel safety: what was read stays.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, Cause> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| Cause::of_error(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
            if self.buffer.len() + line > self.limit {
                let what = format!("an event of more than {} KiB is not read", self.limit >> 10);
                return Err(Cause::TooLarge(what.into()));
            }
            self.buffer.extend_from_slice(&data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(parts: &'static [&'static str], limit: usize) -> Result<Vec<String>, Cause> {
        let parts = parts.iter().map(|part| Ok(http_body::Frame::data(Bytes::from(*part))));
        let mut lines = Lines::new(http_body_util::StreamBody::new(futures::stream::iter(parts)), limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await? {
            found.push(String::from_utf8(line.to_vec()).unwrap().trim_end().to_owned());
        }
        Ok(found)
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        assert_eq!(all(&["a", "b\nc", "\n\n \r\nd\ne"], 9).await.unwrap(), ["ab", "c", "d"]);
        assert_eq!(all(&[], 9).await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_read() {
        assert!(matches!(all(&["ab\n", "abc", "def", "g"], 5).await, Err(Cause::TooLarge(_))));
        assert_eq!(all(&["abcde\nabcde\n"], 5).await.unwrap(), ["abcde", "abcde"]);
    }
}
