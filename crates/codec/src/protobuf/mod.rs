//! `application/vnd.kubernetes.protobuf` for the built-in kinds: what Go clients send and ask for by default
//! (`apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`). No I/O.
//!
//! The fields of all messages are data; the code knows no kind. An object is the four bytes `k8s\0` and a
//! `runtime.Unknown` with the object's type and the bytes of its message. Custom resources have no protobuf form.

mod decode;
mod encode;
mod fields;
mod wire;

use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef, parse_group_version};
use fleetpass_apimachinery::status::Status;
use serde_json::Value;
use std::borrow::Cow;
use wire::{DELIMITED, Reader, Writer};

/// What every object begins with.
const PREFIX: [u8; 4] = *b"k8s\0";

/// Why bytes are not the object that they should be, in kube-apiserver's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are none.
    #[error("empty data")]
    EmptyData,
    /// They do not begin with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix {PREFIX_IN_GO}")]
    NoPrefix,
    /// Nothing follows the prefix.
    #[error("empty body")]
    EmptyBody,
    /// They end too early.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// A number of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A length with the sign bit set.
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
    /// A group ends that has not begun, in an entry of a map.
    #[error("proto: unexpected end of group")]
    EndOfGroup,
    /// A group ends that has not begun.
    #[error("proto: {message}: wiretype end group for non-group")]
    EndGroupOutside {
        /// The Go type of the message.
        message: &'static str,
    },
    /// A field number that is not positive.
    #[error("proto: {message}: illegal tag {number} (wire type {wire})")]
    IllegalTag {
        /// The Go type of the message.
        message: &'static str,
        /// The field number.
        number: i32,
        /// The number and the wire type, as written.
        wire: u64,
    },
    /// A wire type that does not exist.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// A wire type that the field does not have.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWireType {
        /// The wire type.
        wire: u8,
        /// The Go name of the field.
        field: Cow<'static, str>,
    },
    /// A kind without a message: a custom resource, or one that is not served.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable(String),
    /// Nested more deeply than what is kept.
    #[error("exceeded max depth")]
    TooDeep,
    /// A field that should hold JSON does not.
    #[error("{0}")]
    Json(String),
    /// An infinite number, or none.
    #[error("json: unsupported value")]
    NotFinite,
    /// A time that JSON cannot say.
    #[error("Time.MarshalJSON: year outside of range [0,9999]")]
    Year,
    /// A number or string that is neither.
    #[error("impossible IntOrString.Type")]
    IntOrString,
}

/// The prefix as Go prints a list of bytes.
const PREFIX_IN_GO: &str = "[107 56 115 0]";

/// Why an answer has no protobuf form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A kind without a message: a Table, a custom resource. Holds its Go type.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable(String),
    /// A value of another type than its field: the object was not decoded by its schema.
    #[error("{message}.{field} does not fit its protobuf field")]
    Unfit {
        /// The Go type of the message.
        message: &'static str,
        /// The field's JSON name; empty if the message itself does not fit.
        field: &'static str,
    },
}

impl From<EncodeError> for Status {
    /// 406 for kinds without a message (`errNotMarshalable`), else 500.
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::NotMarshalable(_) => Status::not_acceptable(error.to_string()),
            EncodeError::Unfit { .. } => Status::internal(error),
        }
    }
}

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

    fn read_type(&mut self, bytes: &[u8]) -> Result<(), Error> {
        const TYPE: &str = "TypeMeta";
        let mut reader = Reader::new(bytes);
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
pub fn decode(gvk: &GroupVersionKind, message: &[u8]) -> Result<Value, Error> {
    let known = fields::of_kind(gvk).ok_or_else(|| Error::NotMarshalable(go_pointer(gvk)))?;
    decode::message(known, message, 0)
}

/// Decodes a body by the kind that it names itself, which must be one that is built in. Gives the object with
/// `apiVersion` and `kind`, else as [`decode`].
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

/// A watch event as it is sent: the length in four bytes (`util/framer`), and a bare `WatchEvent` whose object has
/// its envelope. `event` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
pub fn watch_frame(event: &str, object: &Value) -> Result<Vec<u8>, EncodeError> {
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

fn envelope(object: &Value, writer: &mut Writer) -> Result<(), EncodeError> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (group, version) = parse_group_version(text("apiVersion")).unwrap_or_default();
    let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind: text("kind").into() };
    let message = fields::of_kind(&gvk).ok_or_else(|| EncodeError::NotMarshalable(go_pointer(&gvk)))?;
    writer.bytes(4, b"");
    writer.bytes(3, b"");
    let mark = writer.mark();
    encode::message(message, object, writer)?;
    writer.close(2, mark);
    let mark = writer.mark();
    writer.bytes(2, gvk.kind.as_bytes());
    writer.bytes(1, text("apiVersion").as_bytes());
    writer.close(1, mark);
    writer.raw(&PREFIX);
    Ok(())
}

/// How Go names the type of a pointer to a kind: `*v1.Table`.
fn go_pointer(gvk: &GroupVersionKind) -> String {
    format!("*{}.{}", gvk.version, gvk.kind)
}

#[cfg(test)]
mod tests;
