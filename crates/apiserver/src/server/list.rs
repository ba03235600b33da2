//! Lists, made piece by piece: of a hundred thousand objects there is never more in memory than one piece. No I/O.
//!
//! What is around the items is made first, and cut where they belong; then each item is encoded by itself, as it stands in the
//! whole list. So every form of a list is to the byte what an encoder of the whole would make of it, which is what the tests
//! compare. Protobuf has the length of all items in front of them: they are measured first, and made twice.

use super::render::{self, IncludeObject, Renderer};
use crate::cache::Object;
use crate::catalog::Row;
use crate::registry::{Listed, Search};
use crate::strategy::Version;
use bytes::Bytes;
use fleetpass_apimachinery::status::Status;
use fleetpass_codec::negotiate::{MediaType, Output, TargetKind};
use fleetpass_codec::{protobuf, yaml};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many bytes a piece has, about: a frame of HTTP/2. Of a list that is not read two pieces are in memory, so larger ones
/// would not pay; and a piece is what is done without giving way to others, a millisecond in the slowest encoding.
pub(super) const PIECE: usize = 16 * 1024;

/// How many bytes of objects are decoded before others have their turn, however little is made of them: some milliseconds.
const TURN: usize = 256 * 1024;

/// A list up to this size is made at once and sent with its length. The same as where compression begins, as in kube-apiserver
/// (`defaultGzipThresholdBytes` in `endpoints/handlers/responsewriters/writers.go`).
pub(super) const SMALL: usize = 128 * 1024;

/// The form of a list. It owns what a [`Renderer`] borrows, because it outlives the request.
#[derive(Clone)]
struct Form {
    row: Arc<Row>,
    version: Version,
    accepted: Output,
    include: IncludeObject,
    now: Timestamp,
}

impl Form {
    /// How long a list is at least, as a rule, of so many objects whose stored texts have so many `bytes`: what is long for sure is
    /// not begun in vain.
    fn least(&self, splices: bool, objects: usize, bytes: usize) -> usize {
        match self.accepted {
            _ if splices => bytes,
            // A row, or metadata: a name, a UID, times.
            Output { convert_to: Some(_), .. } => objects * 150,
            Output { media: MediaType::Json, .. } => bytes,
            Output { media: MediaType::Protobuf | MediaType::Yaml, .. } => bytes / 2,
        }
    }

    fn renderer(&self) -> Renderer<'_> {
        let Self { row, version, accepted, include, now } = self;
        Renderer { row, version, accepted: *accepted, include: *include, now: *now }
    }
}

/// What is around the items.
#[derive(Clone)]
enum Frame {
    Text {
        head: Vec<u8>,
        /// Between two items.
        separator: &'static [u8],
        tail: Vec<u8>,
        /// All of a list without items.
        empty: Vec<u8>,
    },
    Protobuf {
        list: Box<protobuf::List>,
        tail: Vec<u8>,
    },
}

/// What is done next.
#[derive(Clone)]
enum Phase {
    /// Items are measured; `all` is the source from its beginning.
    Measuring {
        length: u64,
        all: Box<Source>,
    },
    /// Items are made, the first of them after the head of the list.
    Items {
        head: Vec<u8>,
        first: bool,
    },
    Ended,
}

/// The objects of a list: those that were found, and the search for the rest.
#[derive(Clone)]
struct Source {
    found: VecDeque<Arc<Object>>,
    rest: Option<Search>,
}

/// What a step has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some of the list.
    Piece(Bytes),
    /// Some work, of which there is nothing to send yet.
    Working,
    /// The list is complete.
    Done,
}

/// A list that is being made.
pub(super) struct List {
    form: Form,
    frame: Frame,
    phase: Phase,
    source: Source,
    /// Pieces that are made.
    ready: VecDeque<Bytes>,
}

impl List {
    /// A list in the form of `renderer`, which must be one of `row`.
    ///
    /// # Errors
    /// 406 if the form is not one of lists.
    pub(super) fn new(renderer: &Renderer<'_>, row: &Arc<Row>, listed: Listed) -> Result<Self, Status> {
        let (list, items) = renderer.list_without_items(&listed)?;
        let frame = Frame::new(renderer, list, items)?;
        let source = Source { found: listed.objects.into(), rest: listed.rest };
        let phase = match &frame {
            Frame::Text { head, .. } => Phase::Items { head: head.clone(), first: true },
            Frame::Protobuf { .. } => Phase::Measuring { length: 0, all: Box::new(source.clone()) },
        };
        let form = Form {
            row: row.clone(),
            version: renderer.version.clone(),
            accepted: renderer.accepted,
            include: renderer.include,
            now: renderer.now,
        };
        Ok(Self { form, frame, phase, source, ready: VecDeque::new() })
    }

    /// All of it if it is small. At most [`SMALL`] bytes are made for nothing, and one object more. Gives way to others between
    /// objects.
    ///
    /// # Errors
    /// 406 and 500 for an object that has no form in protobuf.
    pub(super) async fn whole(&self) -> Result<Option<Bytes>, Status> {
        let found = &self.source.found;
        // What is still to be found may be anything.
        if self.source.rest.is_some() {
            return Ok(None);
        }
        let size: usize = found.iter().map(|object| object.size() + 96).sum();
        let renderer = self.form.renderer();
        let splices = found.front().is_some_and(|object| renderer.splices(object));
        if self.form.least(splices, found.len(), size) > SMALL {
            return Ok(None);
        }
        let (mut out, separator, tail) = match &self.frame {
            Frame::Text { empty, .. } if found.is_empty() => return Ok(Some(empty.clone().into())),
            Frame::Text { head, separator, tail, .. } => (head.clone(), *separator, tail.as_slice()),
            Frame::Protobuf { tail, .. } => (Vec::new(), &[][..], tail.as_slice()),
        };
        out.reserve(if splices { size } else { size.min(PIECE) });
        let mut worked = 0;
        for (n, object) in found.iter().enumerate() {
            if worked > TURN {
                worked = 0;
                tokio::task::yield_now().await;
            }
            if n > 0 {
                out.extend_from_slice(separator);
            }
            worked += self.frame.item(&renderer, object, &mut out)?;
            if out.len() > SMALL {
                return Ok(None);
            }
        }
        if let Frame::Protobuf { list, .. } = &self.frame {
            out.splice(0..0, list.head(out.len() as u64)?);
        }
        out.extend_from_slice(tail);
        Ok(Some(out.into()))
    }

    /// Whether its pieces are copies of stored text, so that one takes microseconds.
    pub(super) fn is_quick(&self) -> bool {
        let Output { media, pretty, convert_to } = self.form.accepted;
        let copies = media == MediaType::Json
            && !pretty
            && !matches!(convert_to, Some((TargetKind::Table, _)))
            && self.form.row.resource.view.is_none();
        copies && self.source.rest.as_ref().is_none_or(|rest| !rest.decodes())
    }

    /// Makes the next piece, or a part of it.
    ///
    /// # Errors
    /// As [`List::whole`]. What was made before is the beginning of a list that has no end.
    pub(super) fn step(&mut self) -> Result<Step, Status> {
        if let Some(piece) = self.next_ready() {
            return Ok(Step::Piece(piece));
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Ended => return Ok(Step::Done),
            Phase::Measuring { length, all } => self.measure(length, all)?,
            Phase::Items { head, first } => self.make(head, first)?,
        }
        Ok(self.next_ready().map_or(Step::Working, Step::Piece))
    }

    /// What is made, at most a piece of it: the text of a large object is shared with the cache until it is sent.
    fn next_ready(&mut self) -> Option<Bytes> {
        let first = self.ready.front_mut()?;
        if first.len() <= 2 * PIECE { self.ready.pop_front() } else { Some(first.split_to(PIECE)) }
    }

    fn measure(&mut self, mut length: u64, all: Box<Source>) -> Result<(), Status> {
        let (renderer, mut item) = (self.form.renderer(), Vec::new());
        let (mut made, mut worked) = (0, 0);
        while made < PIECE && worked < TURN {
            match self.source.next() {
                Next::Object(object) => {
                    item.clear();
                    worked += self.frame.item(&renderer, &object, &mut item)?;
                    made += item.len();
                    length += item.len() as u64;
                }
                Next::Searching => break,
                Next::End => {
                    let Frame::Protobuf { list, .. } = &self.frame else { return Ok(()) };
                    self.phase = Phase::Items { head: list.head(length)?, first: true };
                    self.source = *all;
                    return Ok(());
                }
            }
        }
        self.phase = Phase::Measuring { length, all };
        Ok(())
    }

    fn make(&mut self, mut out: Vec<u8>, mut first: bool) -> Result<(), Status> {
        let renderer = self.form.renderer();
        let (separator, tail) = match &self.frame {
            Frame::Text { separator, tail, .. } => (*separator, tail.as_slice()),
            Frame::Protobuf { tail, .. } => (&[][..], tail.as_slice()),
        };
        // With room for the object that makes it longer than a piece.
        out.reserve(PIECE + PIECE / 8);
        let mut worked = 0;
        loop {
            match self.source.next() {
                Next::Object(object) => {
                    if !std::mem::take(&mut first) {
                        out.extend_from_slice(separator);
                    }
                    if object.size() > PIECE && renderer.splices(&object) {
                        let api_version = renderer.item_api_version();
                        object.write_head(renderer.item_head(&api_version), &mut out);
                        self.ready.extend([Bytes::from(std::mem::take(&mut out)), object.rest()]);
                    } else {
                        worked += self.frame.item(&renderer, &object, &mut out)?;
                    }
                    if out.len() < PIECE && worked < TURN && self.ready.is_empty() {
                        continue;
                    }
                }
                Next::Searching => {}
                Next::End => {
                    match &self.frame {
                        Frame::Text { empty, .. } if first => out.clone_from(empty),
                        _ => out.extend_from_slice(tail),
                    }
                    // A Table in YAML ends with its last row.
                    self.ready.extend((!out.is_empty()).then(|| out.into()));
                    return Ok(());
                }
            }
            break;
        }
        // What is less than a piece waits for more, unless a piece that comes before it is ready.
        if out.len() >= PIECE || !self.ready.is_empty() {
            self.ready.extend((!out.is_empty()).then(|| Bytes::from(std::mem::take(&mut out))));
        }
        self.phase = Phase::Items { head: out, first };
        Ok(())
    }
}

/// What a [`Source`] has next.
enum Next {
    Object(Arc<Object>),
    /// It has looked for more and may find some later.
    Searching,
    End,
}

impl Source {
    fn next(&mut self) -> Next {
        if let Some(object) = self.found.pop_front() {
            return Next::Object(object);
        }
        let Some(rest) = self.rest.as_mut().filter(|rest| rest.goes_on()) else { return Next::End };
        rest.advance(&mut self.found);
        Next::Searching
    }
}

impl Frame {
    /// Cuts a list without items, of which `items` is the name, where they belong.
    fn new(renderer: &Renderer<'_>, mut list: Value, items: &'static str) -> Result<Self, Status> {
        let Output { media, pretty, convert_to } = renderer.accepted;
        if media == MediaType::Protobuf {
            let list = Box::new(protobuf::List::new(list)?);
            return Ok(Self::Protobuf { tail: list.tail()?, list });
        }
        list[items] = json!([]);
        let whole = render::encode(&list, renderer.accepted)?;
        // The member as it is printed without items, how it begins and ends with them, and what is between two of them. Only
        // at the outermost level a line begins like that: lines of what is inside are indented further, and no text in JSON has
        // a line break in it.
        let (marker, begin, separator, end) = match (media, pretty) {
            (MediaType::Yaml, _) => (format!("{items}: []\n"), format!("{items}:\n"), &b""[..], ""),
            (_, true) => (format!("\n  \"{items}\": []"), format!("\n  \"{items}\": ["), &b","[..], "\n  ]"),
            // It is the last member of all.
            (_, false) => (format!("\"{items}\":[]}}"), format!("\"{items}\":["), &b","[..], "]}"),
        };
        let at = find_last_line(&whole, marker.as_bytes())
            .ok_or_else(|| Status::internal("a list cannot be cut where its items belong"))?;
        let (before, after) = (&whole[..at], &whole[at + marker.len()..]);
        // A nil slice in Go, for metadata alone.
        let empty = if items == "items" && convert_to.is_some() {
            list[items] = Value::Null;
            render::encode(&list, renderer.accepted)?
        } else {
            whole.clone()
        };
        Ok(Self::Text {
            head: [before, begin.as_bytes()].concat(),
            separator,
            tail: [end.as_bytes(), after].concat(),
            empty: empty.into(),
        })
    }

    /// Appends an item as it stands in the list. Gives how many bytes were read or written for it.
    fn item(&self, renderer: &Renderer<'_>, object: &Object, out: &mut Vec<u8>) -> Result<usize, Status> {
        let before = out.len();
        self.append(renderer, object, out)?;
        let written = out.len() - before;
        let metadata_alone = matches!(
            renderer.accepted.convert_to,
            Some((TargetKind::PartialObjectMetadata | TargetKind::PartialObjectMetadataList, _))
        );
        // A row of a Table is short, and all of the object is decoded for it.
        Ok(if metadata_alone { written } else { written.max(object.size()) })
    }

    fn append(&self, renderer: &Renderer<'_>, object: &Object, out: &mut Vec<u8>) -> Result<(), Status> {
        if let Self::Protobuf { list, .. } = self {
            out.extend(list.item(&renderer.list_item(object))?);
            return Ok(());
        }
        match (renderer.accepted.media, renderer.accepted.pretty) {
            (MediaType::Yaml, _) => {
                // Where text is folded depends on the column: it is printed as the one item of a list, where every item stands.
                const KEY: &str = "k:\n";
                let text = yaml::print(&json!({"k": [renderer.list_item(object)]}));
                out.extend_from_slice(text.strip_prefix(KEY).unwrap_or(&text).as_bytes());
            }
            (_, true) => {
                let text = serde_json::to_vec_pretty(&renderer.list_item(object)).unwrap_or_default();
                for line in text.split(|byte| *byte == b'\n') {
                    out.extend_from_slice(b"\n    ");
                    out.extend_from_slice(line);
                }
            }
            (_, false) => renderer.list_item_json(object, out),
        }
        Ok(())
    }
}

/// Where `marker` is in `text`, the last time, at the beginning of a line or after a line break of its own.
fn find_last_line(text: &[u8], marker: &[u8]) -> Option<usize> {
    let starts_line = |at: usize| at == 0 || text[at - 1] == b'\n';
    let anywhere = marker.starts_with(b"\n") || marker.ends_with(b"}");
    (0..=text.len().checked_sub(marker.len())?)
        .rev()
        .find(|at| text[*at..].starts_with(marker) && (anywhere || starts_line(*at)))
}

#[cfg(test)]
pub(super) mod tests;
