//! How much is told of what is wrong. A body can be wrong in as many places as it has values, and each of them may have a long
//! path, so a refusal that told all could be far longer than the request.

/// How many errors of one kind are told one by one.
const MAX_TOLD: usize = 100;
/// How many bytes of paths they may have together; the first is told however long it is.
const MAX_BYTES: usize = 64 * 1024;

/// What is left to tell.
pub(crate) struct Telling {
    told: usize,
    bytes: usize,
}

impl Telling {
    pub(crate) fn new() -> Self {
        Self { told: 0, bytes: 0 }
    }

    /// Whether no more is told.
    pub(crate) fn is_over(&self) -> bool {
        self.told >= MAX_TOLD || self.bytes > MAX_BYTES
    }

    /// Takes note of an error that is told, with a path of this many bytes.
    pub(crate) fn tell(&mut self, bytes: usize) {
        self.told += 1;
        self.bytes += bytes;
    }
}

/// What stands at the end of a list of errors of which `more` are not told.
pub(crate) fn and_more(more: usize) -> String {
    format!("and {more} more")
}
