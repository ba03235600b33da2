//! `application/vnd.kubernetes.protobuf` for the built-in kinds: what Go clients send and ask for by default
//! (`apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`). No I/O.
//!
//! The fields of all messages are data; the code knows no kind. An object is the four bytes `k8s\0` and a
//! `runtime.Unknown` with the object's type and the bytes of its message. Custom resources have no protobuf form.
//!
//! Decoding and encoding are not inverse to the byte: messages are written as Go's generated code writes them, with fields in
//! the order of their numbers and maps by key, whatever order they were read in.

mod decode;
mod encode;
mod error;
mod fields;
mod wire;

pub use error::{EncodeError, Error};

use fields::{Label, Message};
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef, parse_group_version};
use serde_json::Value;
use wire::{DELIMITED, Reader, Writer};

/// What every object begins with.
const PREFIX: [u8; 4] = *b"k8s\0";

/// A `runtime.Unknown`: an object's type, and its message as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apiVersion`; may be empty.
    pub api_version: String,
    /// The kind; may be empty.
    pub kind: String,
    /// The message.
    pub raw: &'a [u8],
}

impl Envelope<'_> {
    /// The object's kind, where it does not say the expected one (`copyKindDefaults`). An `apiVersion` with two
    /// slashes counts as none.
    pub fn gvk(&self, expected: GvkRef<'_>) -> GroupVersionKind {
        let (group, version) = parse_group_version(&self.api_version).unwrap_or_default();
        let kind = if self.kind.is_empty() { expected.kind } else { &self.kind };
        let (group, version) =
            if version.is_empty() { (expected.group, expected.version) } else { (group, version) };
        GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// Reads the `runtime.TypeMeta` of the envelope.
    fn read_type(&mut self, bytes: &[u8]) -> Result<(), Error> {
        const TYPE: &str = "TypeMeta";
        let mut reader = Reader::new(bytes);
        // A field that is there twice counts as the last one says, which is protobuf's rule for all that is no list.
        while let Some(tag) = reader.tag(TYPE)? {
            match tag.number {
                1 => self.api_version = wire::text(delimited(&mut reader, tag.wire, "APIVersion")?),
                2 => self.kind = wire::text(delimited(&mut reader, tag.wire, "Kind")?),
                _ => reader.skip(tag)?,
            }
        }
        Ok(())
    }
}

/// The bytes of a field of the envelope, which must be delimited.
fn delimited<'a>(reader: &mut Reader<'a>, wire: u8, field: &'static str) -> Result<&'a [u8], Error> {
    if wire == DELIMITED {
        reader.delimited()
    } else {
        Err(Error::WrongWireType { wire, field: field.into() })
    }
}

/// Takes the envelope off a body. Content type and encoding, which it may also name, mean nothing.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    if bytes.is_empty() {
        return Err(Error::EmptyData);
    }
    // The prefix tells stored and sent objects apart from bare messages, which nothing here accepts.
    let body = bytes.strip_prefix(&PREFIX).ok_or(Error::NoPrefix)?;
    if body.is_empty() {
        return Err(Error::EmptyBody);
    }
    let mut envelope = Envelope::default();
    let mut reader = Reader::new(body);
    while let Some(tag) = reader.tag("Unknown")? {
        match tag.number {
            1 => envelope.read_type(delimited(&mut reader, tag.wire, "TypeMeta")?)?,
            2 => envelope.raw = delimited(&mut reader, tag.wire, "Raw")?,
            3 => drop(delimited(&mut reader, tag.wire, "ContentEncoding")?),
            4 => drop(delimited(&mut reader, tag.wire, "ContentType")?),
            _ => reader.skip(tag)?,
        }
    }
    Ok(envelope)
}

/// Decodes the message of a kind into the object's JSON form, without `apiVersion` and `kind`.
///
/// Unknown fields are dropped. The result is not yet in the form in which Go prints it: zero values are there if
/// they were written; [`fleetpass_schema::typed::normalise`] completes it.
pub(super) fn decode(gvk: &GroupVersionKind, message: &[u8]) -> Result<Value, Error> {
    let known = fields::of_kind(gvk).ok_or_else(|| Error::NotMarshalable(go_pointer(gvk)))?;
    decode::message(known, message, 0)
}

/// Decodes a body by the kind that it names itself, which must be one that is built in. Gives the object with
/// `apiVersion` and `kind`, which is not yet in the form in which Go prints it:
/// [`fleetpass_schema::typed::normalise`] completes it.
pub fn decode_object(bytes: &[u8]) -> Result<Value, Error> {
    let envelope = open(bytes)?;
    let gvk = envelope.gvk(GvkRef { group: "", version: "", kind: "" });
    let mut object = decode(&gvk, envelope.raw)?;
    if let Value::Object(members) = &mut object {
        members.insert("apiVersion".into(), gvk.api_version().into());
        members.insert("kind".into(), gvk.kind.into());
    }
    Ok(object)
}

/// Whether a kind has a protobuf form.
pub fn knows(gvk: &GroupVersionKind) -> bool {
    fields::of_kind(gvk).is_some()
}

/// An object, list or `Status`, which must have `apiVersion` and `kind`, as bytes with envelope: the body of an
/// answer.
pub fn encode(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::default();
    envelope(object, &mut writer)?;
    Ok(writer.finish())
}

/// What follows the message in an envelope: content type and encoding. Empty, and written all the same, because Go's struct has
/// no pointers there.
const AFTER_MESSAGE: [u8; 4] = [3 << 3 | DELIMITED, 0, 4 << 3 | DELIMITED, 0];

/// A list in pieces, for one that is too long to be whole in memory: [`List::head`], then [`List::item`] for each of its items,
/// then [`List::tail`]. Together they are what [`encode`] makes of the whole list.
#[derive(Debug, Clone)]
pub struct List {
    /// The list without its items.
    list: Value,
    message: &'static Message,
    /// Which of the fields has the items.
    items: usize,
}

impl List {
    /// A list, which must have `apiVersion` and `kind`; its items are left out. Errors: the kind has no message, or is no list.
    pub fn new(mut list: Value) -> Result<Self, EncodeError> {
        let (gvk, message) = message_of(&list)?;
        let mut fields = message.fields.iter();
        let items = fields.position(|field| field.label == Label::List && field.name == "items");
        let items = items.ok_or_else(|| EncodeError::NotMarshalable(go_pointer(&gvk)))?;
        if let Value::Object(members) = &mut list {
            members.remove("items");
        }
        Ok(Self { list, message, items })
    }

    /// What comes before items that are `length` bytes long together.
    pub fn head(&self, length: u64) -> Result<Vec<u8>, EncodeError> {
        let behind = length + self.fields_behind()?.len() as u64;
        let mut writer = Writer::default();
        encode::members(self.message, &self.message.fields[..self.items], &self.list, &mut writer)?;
        writer.close_before(2, 0, behind);
        type_meta(&self.list, &mut writer);
        Ok(writer.finish())
    }

    /// One item.
    pub fn item(&self, item: &Value) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::default();
        encode::element(self.message, &self.message.fields[self.items], item, &mut writer)?;
        Ok(writer.finish())
    }

    /// What comes after the items.
    pub fn tail(&self) -> Result<Vec<u8>, EncodeError> {
        let mut tail = self.fields_behind()?;
        tail.extend(AFTER_MESSAGE);
        Ok(tail)
    }

    /// The fields of the list whose numbers are higher than that of the items (`v1beta1.PartialObjectMetadataList` has one).
    fn fields_behind(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::default();
        encode::members(self.message, &self.message.fields[self.items + 1..], &self.list, &mut writer)?;
        Ok(writer.finish())
    }
}

/// A watch event as it is sent: the length in four bytes (`util/framer`), and a bare `WatchEvent` whose object has
/// its envelope. `event` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
pub fn watch_frame(event: &str, object: &Value) -> Result<Vec<u8>, EncodeError> {
    // From its end to its beginning, as `Writer` writes: the object as `Raw` (field 1) of a `RawExtension`, which is field 2 of
    // the event, then the event's type, then the length of all that.
    let mut writer = Writer::default();
    let mark = writer.mark();
    envelope(object, &mut writer)?;
    writer.close(1, mark);
    writer.close(2, mark);
    writer.bytes(1, event.as_bytes());
    let length = u32::try_from(writer.mark())
        .map_err(|_| EncodeError::Unfit { message: "WatchEvent", field: "object" })?;
    writer.raw(&length.to_be_bytes());
    Ok(writer.finish())
}

/// Writes an object with its envelope.
fn envelope(object: &Value, writer: &mut Writer) -> Result<(), EncodeError> {
    let (_, message) = message_of(object)?;
    writer.raw(&AFTER_MESSAGE);
    let mark = writer.mark();
    encode::message(message, object, writer)?;
    writer.close(2, mark);
    type_meta(object, writer);
    Ok(())
}

/// Writes what comes before the message in an envelope.
fn type_meta(object: &Value, writer: &mut Writer) {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let mark = writer.mark();
    writer.bytes(2, text("kind").as_bytes());
    writer.bytes(1, text("apiVersion").as_bytes());
    writer.close(1, mark);
    writer.raw(&PREFIX);
}

/// The kind of an object, and its message.
fn message_of(object: &Value) -> Result<(GroupVersionKind, &'static Message), EncodeError> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (group, version) = parse_group_version(text("apiVersion")).unwrap_or_default();
    let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind: text("kind").into() };
    let message = fields::of_kind(&gvk).ok_or_else(|| EncodeError::NotMarshalable(go_pointer(&gvk)))?;
    Ok((gvk, message))
}

/// How Go names the type of a pointer to a kind: `*v1.Table`.
fn go_pointer(gvk: &GroupVersionKind) -> String {
    format!("*{}.{}", gvk.version, gvk.kind)
}

#[cfg(test)]
mod tests;
