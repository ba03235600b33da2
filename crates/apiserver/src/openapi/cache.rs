//! Documents that somebody has asked for, compressed, for as long as the kinds in them are the same.

use crate::catalog::Row;
use aws_lc_rs::digest;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::sync::{Arc, Weak};

/// The documents that have been asked for. Nothing is built before somebody asks; what is kept is compressed
/// (a few hundred kilobytes for all documents together).
#[derive(Default)]
pub(crate) struct Cache {
    /// By name: that of the document below `/openapi/v3`, or the path and form of a Swagger document.
    documents: Mutex<BTreeMap<String, Arc<Document>>>,
    /// Held while a document is built: two are never built at once, so that memory stays low, and those who ask for the same
    /// one wait for each other. What is there already is served meanwhile. It is never held across an await; this is no async
    /// code.
    building: Mutex<()>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.documents.lock().keys()).finish()
    }
}

/// A finished document.
pub(super) struct Document {
    /// The rows that it was made of; another table may have the same ones.
    rows: Vec<Weak<Row>>,
    /// The SHA-512 of the document in upper-case hexadecimal digits.
    pub(super) hash: String,
    /// The document, compressed with gzip.
    pub(super) compressed: Bytes,
    /// The number of bytes before compression.
    length: usize,
    /// The document as it is, for as long as an answer with it is under way: however many clients do not read theirs, there is
    /// one. Locked while it is unpacked, so that it is done once.
    plain: Mutex<Weak<Vec<u8>>>,
}

/// A handle to the plain document that answers share.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Cache {
    /// The document of that name, made of those rows: the one at hand, or else what `write` writes.
    ///
    /// # Errors
    /// What `write` fails with.
    pub(super) fn get(
        &self,
        name: &str,
        rows: &[Arc<Row>],
        write: impl FnOnce(&mut BufWriter<Sink>) -> io::Result<()>,
    ) -> io::Result<Arc<Document>> {
        if let Some(found) = self.find(name, rows) {
            return Ok(found);
        }
        let _building = self.building.lock();
        // Somebody else may have built it while we waited.
        if let Some(found) = self.find(name, rows) {
            return Ok(found);
        }
        let document = Arc::new(Document::build(rows, write)?);
        self.documents.lock().insert(name.to_string(), Arc::clone(&document));
        Ok(document)
    }

    fn find(&self, name: &str, rows: &[Arc<Row>]) -> Option<Arc<Document>> {
        self.documents.lock().get(name).filter(|d| d.is_of(rows)).cloned()
    }

    /// How many documents are kept.
    pub(super) fn len(&self) -> usize {
        self.documents.lock().len()
    }

    /// Forgets the documents whose names are not wanted any more.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.documents.lock().retain(|name, _| wanted(name));
    }
}

impl Document {
    fn build(
        rows: &[Arc<Row>],
        write: impl FnOnce(&mut BufWriter<Sink>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(16 * 1024, Sink::new());
        write(&mut out)?;
        // The digest is taken of the plain bytes on their way into the compressor, so the hash does not depend on
        // how they are compressed.
        let sink = out.into_inner().map_err(|e| e.into_error())?;
        let rows = rows.iter().map(Arc::downgrade).collect();
        let hash = sink.digest.finish().as_ref().iter().map(|b| format!("{b:02X}")).collect();
        let mut compressed = sink.gzip.finish()?;
        // It is kept for long; growing by doubling may have left almost half of it unused.
        compressed.shrink_to_fit();
        Ok(Self { rows, hash, compressed: compressed.into(), length: sink.length, plain: Mutex::default() })
    }

    fn is_of(&self, rows: &[Arc<Row>]) -> bool {
        // By address. A weak reference keeps the allocation, though not the row in it, so no other row can be at
        // the same address.
        self.rows.len() == rows.len()
            && self.rows.iter().zip(rows).all(|(kept, row)| std::ptr::eq(kept.as_ptr(), Arc::as_ptr(row)))
    }

    /// The document as it is. All who read it at the same time share the bytes, however slowly they read.
    ///
    /// # Errors
    /// None in practice: what is decompressed was compressed here.
    pub(super) fn plain(&self) -> io::Result<Bytes> {
        let mut plain = self.plain.lock();
        if let Some(shared) = plain.upgrade() {
            return Ok(Bytes::from_owner(Shared(shared)));
        }
        let mut out = Vec::with_capacity(self.length);
        GzDecoder::new(self.compressed.as_ref()).read_to_end(&mut out)?;
        let shared = Arc::new(out);
        *plain = Arc::downgrade(&shared);
        Ok(Bytes::from_owner(Shared(shared)))
    }
}

/// Compresses and digests what is written.
pub(super) struct Sink {
    digest: digest::Context,
    gzip: GzEncoder<Vec<u8>>,
    length: usize,
}

impl Sink {
    fn new() -> Self {
        Self {
            digest: digest::Context::new(&digest::SHA512),
            gzip: GzEncoder::new(Vec::new(), Compression::default()),
            length: 0,
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.gzip.write_all(bytes)?;
        self.length += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}
