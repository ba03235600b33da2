//! Messages to JSON.
//!
//! The recursion is limited: each level of messages counts towards [`MAX_KEPT_DEPTH`].

use super::error::Error;
use super::fields::{Field, Label, Message, Shape, Type};
use super::wire::{self, Reader};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetpass_apimachinery::json::{self, MAX_KEPT_DEPTH, Numbers, go_float};
use fleetpass_apimachinery::time;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

/// The first moment of year 1, the zero value of Go's `time.Time`.
pub(super) const ZERO_TIME: Timestamp = Timestamp::constant(-62_135_596_800, 0);
/// The first moment of year 0: RFC 3339 cannot say what was before. It can say all that `jiff` can say after.
const BEGINNING_OF_TIME: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// A message in its JSON form. `depth` is how deep in the object it is.
pub(super) fn message(message: &Message, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut members = Map::new();
    fill(message, bytes, depth, &mut members)?;
    shaped(message, bytes, members)
}

/// Adds the fields of a message to `members`, as decoding into a Go struct does: what is there twice is merged.
fn fill(
    message: &Message,
    bytes: &[u8],
    depth: usize,
    members: &mut Map<String, Value>,
) -> Result<(), Error> {
    if depth > MAX_KEPT_DEPTH {
        return Err(Error::TooDeep);
    }
    let mut reader = Reader::new(bytes);
    while let Some(tag) = reader.tag(message.go_name())? {
        match message.field(tag.number) {
            Some(field) => take(field, tag.wire, &mut reader, depth, members)?,
            None => reader.skip(tag)?,
        }
    }
    Ok(())
}

/// Reads one field into `members`.
fn take(
    field: &Field,
    wire: u8,
    reader: &mut Reader<'_>,
    depth: usize,
    members: &mut Map<String, Value>,
) -> Result<(), Error> {
    // Its fields go to the object around it, so it is no level of depth.
    if let (Label::Inline, Type::Message(inner)) = (field.label, field.kind) {
        expect(field, wire, wire::DELIMITED)?;
        return fill(inner.message(), reader.delimited()?, depth, members);
    }
    let slot = members.entry(field.name).or_insert(Value::Null);
    match field.label {
        Label::List => elements(field, wire, reader, depth, list(slot)),
        Label::Map => {
            expect(field, wire, wire::DELIMITED)?;
            let (key, value) = entry(field.kind, reader.delimited()?, depth)?;
            // Of entries with one key the last one counts; entries are not merged, unlike fields.
            object(slot).insert(key, value);
            Ok(())
        }
        Label::Always | Label::Optional | Label::Inline => single(field, wire, reader, depth, slot),
    }
}

/// Reads the value of a field that is no list and no map. `slot` has what was read of it before.
fn single(
    field: &Field,
    wire: u8,
    reader: &mut Reader<'_>,
    depth: usize,
    slot: &mut Value,
) -> Result<(), Error> {
    if let Type::Message(inner) = field.kind {
        let inner = inner.message();
        expect(field, wire, wire::DELIMITED)?;
        let bytes = reader.delimited()?;
        // A message that is there twice is merged field by field, as protobuf demands; the writer of a message may count on it.
        match (inner.shape, &mut *slot) {
            (Shape::Object, slot) => return fill(inner, bytes, depth + 1, object(slot)),
            (Shape::List, Value::Array(before)) => {
                if let Value::Array(more) = message(inner, bytes, depth + 1)? {
                    before.extend(more);
                }
            }
            (_, slot) => *slot = message(inner, bytes, depth + 1)?,
        }
        return Ok(());
    }
    expect(field, wire, wire_type(field.kind))?;
    *slot = value(field.kind, reader, depth + 1)?;
    Ok(())
}

/// One element of a list, or several numbers in one field.
fn elements(
    field: &Field,
    wire: u8,
    reader: &mut Reader<'_>,
    depth: usize,
    into: &mut Vec<Value>,
) -> Result<(), Error> {
    let own = wire_type(field.kind);
    // "Packed": both forms have to be understood, whichever the field is declared with.
    if own != wire::DELIMITED && wire == wire::DELIMITED {
        let mut packed = Reader::new(reader.delimited()?);
        while !packed.is_empty() {
            into.push(value(field.kind, &mut packed, depth + 2)?);
        }
        return Ok(());
    }
    expect(field, wire, own)?;
    into.push(value(field.kind, reader, depth + 2)?);
    Ok(())
}

/// A map's entry: key 1 and value 2, either of which may be left out.
fn entry(kind: Type, bytes: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let mut key = String::new();
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some(tag) = reader.entry_tag()? {
        match tag.number {
            1 => key = wire::text(reader.delimited()?),
            2 => found = Some(value(kind, &mut reader, depth + 2)?),
            _ => reader.skip(tag)?,
        }
    }
    let found = match found {
        Some(value) => value,
        // The zero value: an empty string, a message without fields.
        None => value(kind, &mut Reader::new(&[0]), depth + 2)?,
    };
    Ok((key, found))
}

/// A value of a type. `depth` is where it will stand in the object.
fn value(kind: Type, reader: &mut Reader<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match kind {
        Type::String => wire::text(reader.delimited()?).into(),
        Type::Bool => (reader.varint()? != 0).into(),
        // As in Go, what a field cannot hold is cut off.
        Type::Int32 => (reader.varint()? as i32).into(),
        Type::Int64 => (reader.varint()? as i64).into(),
        Type::Double => {
            let number = f64::from_bits(reader.fixed64()?);
            if !number.is_finite() {
                return Err(Error::NotFinite);
            }
            Value::Number(go_float(number))
        }
        Type::Bytes => STANDARD.encode(reader.delimited()?).into(),
        Type::Json => raw_json(reader.delimited()?, depth)?,
        Type::Message(inner) => message(inner.message(), reader.delimited()?, depth)?,
    })
}

/// A JSON text inside a message; nothing at all is `null`.
fn raw_json(bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let raw = json::parse(bytes).map_err(|e| Error::Json(e.to_string()))?;
    raw.to_value_at(Numbers::Verbatim, depth).map_err(|_| Error::TooDeep)
}

/// The wire type in which a type is written.
fn wire_type(kind: Type) -> u8 {
    match kind {
        Type::Bool | Type::Int32 | Type::Int64 => wire::VARINT,
        Type::Double => wire::FIXED64,
        Type::String | Type::Bytes | Type::Json | Type::Message(_) => wire::DELIMITED,
    }
}

/// Refuses a wire type that the field does not have.
fn expect(field: &Field, wire: u8, expected: u8) -> Result<(), Error> {
    if wire == expected { Ok(()) } else { Err(Error::WrongWireType { wire, field: field.go_name() }) }
}

/// The object in a slot, which is made one.
fn object(slot: &mut Value) -> &mut Map<String, Value> {
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was made an object just above"),
    }
}

/// The list in a slot, which is made one.
fn list(slot: &mut Value) -> &mut Vec<Value> {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("the slot was made a list just above"),
    }
}

/// The JSON form of a message with these fields.
fn shaped(message: &Message, bytes: &[u8], mut members: Map<String, Value>) -> Result<Value, Error> {
    let mut take = |name: &str| members.remove(name).unwrap_or_default();
    Ok(match message.shape {
        Shape::Object => Value::Object(members),
        // Written as nothing at all it is the zero time; written with fields it is counted from 1970.
        Shape::Time | Shape::MicroTime if bytes.is_empty() => Value::Null,
        Shape::Time => time(take("seconds").as_i64().unwrap_or_default(), None)?,
        Shape::MicroTime => {
            let nanos = take("nanos").as_i64().unwrap_or_default();
            time(take("seconds").as_i64().unwrap_or_default(), Some(nanos / 1000))?
        }
        Shape::Quantity => match take("string") {
            Value::Null => "0".into(),
            text => text,
        },
        Shape::IntOrString => match take("type").as_i64().unwrap_or_default() {
            0 => take("intVal").as_i64().unwrap_or_default().into(),
            1 => take("strVal").as_str().unwrap_or_default().into(),
            _ => return Err(Error::IntOrString),
        },
        Shape::Json => take("raw"),
        Shape::List => match take("items") {
            Value::Null => Value::Array(Vec::new()),
            items => items,
        },
        Shape::SchemaOrArray => either(take("jSONSchemas"), take("schema")),
        Shape::SchemaOrStrings => either(take("property"), take("schema")),
        Shape::SchemaOrBool => match take("schema") {
            Value::Null => take("allows").as_bool().unwrap_or_default().into(),
            schema => schema,
        },
    })
}

/// The list if it was written, else the schema.
fn either(list: Value, schema: Value) -> Value {
    if list.is_null() { schema } else { list }
}

/// A time as JSON shows it; `micros` only for times that have them. Errors: a year of more or less than four digits.
fn time(seconds: i64, micros: Option<i64>) -> Result<Value, Error> {
    let parts = SignedDuration::from_micros(micros.unwrap_or_default());
    let time = Timestamp::from_second(seconds).ok().and_then(|time| time.checked_add(parts).ok());
    let time = time.filter(|time| *time >= BEGINNING_OF_TIME).ok_or(Error::Year)?;
    if time == ZERO_TIME {
        return Ok(Value::Null);
    }
    Ok(match micros {
        None => time::rfc3339(time),
        Some(_) => time::rfc3339_micro(time),
    }
    .into())
}
