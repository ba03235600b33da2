//! JSON to messages: the bytes that Go's generated code writes.
//!
//! Everything is written from its end to its beginning (see [`Writer`]): fields by falling number, elements and entries from the
//! last to the first, and a length after what it measures. So each message is written once, without counting first how long it
//! will be, which Go does with `Size()`.

use super::decode::ZERO_TIME;
use super::error::EncodeError;
use super::fields::{Field, Label, Message, Shape, Type};
use super::wire::Writer;
use fleetpass_schema::go::decode_base64;
use jiff::Timestamp;
use serde_json::Value;

type Step = Result<(), EncodeError>;

static NULL: Value = Value::Null;

/// Writes a message in front of what is written. `null` is its zero value.
pub(super) fn message(message: &Message, value: &Value, writer: &mut Writer) -> Step {
    match message.shape {
        Shape::Object => object(message, value, writer),
        Shape::Time | Shape::MicroTime => time(message, value, writer),
        Shape::Quantity => {
            writer.bytes(1, if value.is_null() { "0" } else { text(message, value)? }.as_bytes());
            Ok(())
        }
        Shape::IntOrString => int_or_string(message, value, writer),
        Shape::Json => field(message, &message.fields[0], value, writer),
        Shape::List => field(message, &message.fields[0], value, writer),
        Shape::SchemaOrArray | Shape::SchemaOrStrings => {
            let (schema, list) = (&message.fields[0], &message.fields[1]);
            field(message, if value.is_array() { list } else { schema }, value, writer)
        }
        Shape::SchemaOrBool => {
            let (allows, schema) = (&message.fields[0], &message.fields[1]);
            // A schema allows; Go sets the field beside it.
            if value.is_object() {
                field(message, schema, value, writer)?;
                field(message, allows, &Value::Bool(true), writer)
            } else {
                field(message, allows, value, writer)
            }
        }
    }
}

/// A message whose JSON is an object of its fields.
fn object(message: &Message, value: &Value, writer: &mut Writer) -> Step {
    if !value.is_object() && !value.is_null() {
        return Err(unfit(message, None));
    }
    members(message, &message.fields, value, writer)
}

/// Some of the fields of a message, which follow each other.
pub(super) fn members(message: &Message, fields: &[Field], value: &Value, writer: &mut Writer) -> Step {
    for member in fields.iter().rev() {
        match (member.label, member.kind) {
            // A message of its own on the wire; in JSON its fields are members of this object.
            (Label::Inline, Type::Message(inner)) => {
                let mark = writer.mark();
                self::message(inner.message(), value, writer)?;
                writer.close(member.number, mark);
            }
            _ => field(message, member, value.get(member.name).unwrap_or(&NULL), writer)?,
        }
    }
    Ok(())
}

/// A field with what it holds: nothing, one value, elements or entries.
fn field(message: &Message, field: &Field, value: &Value, writer: &mut Writer) -> Step {
    match (field.label, value) {
        (Label::Always | Label::Inline, value) => single(message, field, field.number, value, writer),
        // Absent and null are the same in Go's structs: a nil pointer, slice or map, none of which is written.
        (_, Value::Null) => Ok(()),
        (Label::Optional, value) => single(message, field, field.number, value, writer),
        (Label::List, Value::Array(items)) => {
            items.iter().rev().try_for_each(|item| single(message, field, field.number, item, writer))
        }
        // The entries are in the order of their keys, as Go's code sorts them for the sake of equal bytes.
        (Label::Map, Value::Object(entries)) => entries.iter().rev().try_for_each(|(key, value)| {
            let mark = writer.mark();
            single(message, field, 2, value, writer)?;
            writer.bytes(1, key.as_bytes());
            writer.close(field.number, mark);
            Ok(())
        }),
        (Label::List | Label::Map, _) => Err(unfit(message, Some(field))),
    }
}

/// One element of a list of messages.
pub(super) fn element(message: &Message, list: &Field, value: &Value, writer: &mut Writer) -> Step {
    single(message, list, list.number, value, writer)
}

/// One value under a field's number. `null` is the zero value of the type.
fn single(message: &Message, field: &Field, number: i32, value: &Value, writer: &mut Writer) -> Step {
    let unfit = || unfit(message, Some(field));
    match (field.kind, value) {
        (Type::String, Value::String(text)) => writer.bytes(number, text.as_bytes()),
        (Type::String, Value::Null) => writer.bytes(number, b""),
        (Type::Bool, Value::Bool(value)) => writer.integer(number, (*value).into()),
        (Type::Bool | Type::Int32 | Type::Int64, Value::Null) => writer.integer(number, 0),
        (Type::Int32 | Type::Int64, value) => writer.integer(number, value.as_i64().ok_or_else(unfit)?),
        (Type::Double, Value::Null) => writer.double(number, 0.0),
        (Type::Double, value) => writer.double(number, value.as_f64().ok_or_else(unfit)?),
        (Type::Bytes, Value::String(text)) => {
            writer.bytes(number, &decode_base64(text).map_err(|_| unfit())?)
        }
        // No bytes at all are not written, not even as empty ones.
        (Type::Bytes, Value::Null) => {}
        // The field holds JSON text, here printed anew.
        (Type::Json, value) => {
            let mark = writer.mark();
            writer.raw(value.to_string().as_bytes());
            writer.close(number, mark);
        }
        (Type::Message(inner), value) => {
            let mark = writer.mark();
            self::message(inner.message(), value, writer)?;
            writer.close(number, mark);
        }
        (Type::String | Type::Bool | Type::Bytes, _) => return Err(unfit()),
    }
    Ok(())
}

/// A time as seconds since 1970 and nanoseconds; the zero time of Go is an empty message.
fn time(message: &Message, value: &Value, writer: &mut Writer) -> Step {
    if value.is_null() {
        return Ok(());
    }
    let time: Timestamp = text(message, value)?.parse().map_err(|_| unfit(message, None))?;
    if time == ZERO_TIME {
        return Ok(());
    }
    // Seconds count down, their fraction always up.
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| unfit(message, None))?;
    let nanos = i64::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| unfit(message, None))?;
    let nanos = if message.shape == Shape::MicroTime { nanos - nanos % 1000 } else { 0 };
    writer.integer(2, nanos);
    writer.integer(1, seconds);
    Ok(())
}

/// `IntOrString`: which of the two it is, and both of them, the other one zero.
fn int_or_string(message: &Message, value: &Value, writer: &mut Writer) -> Step {
    let (kind, number, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        Value::Null => (0, 0, ""),
        number => (0, number.as_i64().ok_or_else(|| unfit(message, None))?, ""),
    };
    writer.bytes(3, text.as_bytes());
    writer.integer(2, number);
    writer.integer(1, kind);
    Ok(())
}

/// The text of a message that is a string in JSON.
fn text<'a>(message: &Message, value: &'a Value) -> Result<&'a str, EncodeError> {
    value.as_str().ok_or_else(|| unfit(message, None))
}

/// The error about a message or one of its fields.
fn unfit(message: &Message, field: Option<&Field>) -> EncodeError {
    EncodeError::Unfit { message: message.go_name(), field: field.map_or("", |field| field.name) }
}
