//! Bodies: JSON, YAML and protobuf, and the objects that they stand for.

use crate::kinds::{schema_of, target};
use crate::refusal::check_refusal;
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef};
use fleetpass_apimachinery::json::{self as reader, MAX_KEPT_DEPTH, Numbers, Raw};
use fleetpass_apimachinery::status::Status;
use fleetpass_codec::body::{Decoded, FieldValidation, Format, decode_builtin, decode_custom, interpret};
use fleetpass_codec::{protobuf as wire, yaml as reader_of_yaml};
use fleetpass_schema::{custom_resource, go, typed};
use serde_json::Value;

/// A body in JSON.
pub fn json(data: &[u8]) {
    match reader::parse(data) {
        Ok(raw) => {
            check_raw(&raw);
            check_against_serde(data, &raw);
            decode(data, Format::Json, &raw);
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.len() <= 200, "{error}");
            assert!(serde_json::from_slice::<Value>(data).is_err(), "refused: {error}");
        }
    }
}

/// What is kept of a raw tree is printed and read again as the same.
fn check_raw(raw: &Raw) {
    assert!(raw.duplicates().len() <= 100);
    for numbers in [Numbers::Go, Numbers::Verbatim] {
        let Ok(value) = raw.to_value(numbers) else { continue };
        assert!(depth(&value) <= MAX_KEPT_DEPTH + 1);
        assert_eq!(Raw::from_value(&value).to_value(numbers).as_ref(), Ok(&value));
        let text = value.to_string();
        let again = reader::parse(text.as_bytes()).expect("what is printed can be read");
        assert!(again.duplicates().is_empty());
        assert_eq!(again.to_value(numbers), Ok(value));
    }
}

/// Another reader sees the same, where it sees something.
fn check_against_serde(data: &[u8], raw: &Raw) {
    let (Ok(theirs), Ok(ours)) = (serde_json::from_slice::<Value>(data), raw.to_value(Numbers::Verbatim))
    else {
        return;
    };
    assert!(alike(&theirs, &ours), "{theirs}\n{ours}");
}

/// Equal but for the type of numbers: ours know no unsigned ones.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        _ => a == b,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}

/// A body in YAML.
pub fn yaml(data: &[u8]) {
    match reader_of_yaml::parse(data) {
        Ok(document) => {
            check_raw(&document.raw);
            assert!(document.raw.duplicates().is_empty(), "keys stand once");
            if let Ok(value) = document.raw.to_value(Numbers::Go) {
                check_yaml(&value);
            }
            decode(data, Format::Yaml, &document.raw);
        }
        Err(error) => check_refusal(&error.to_string(), data.len()),
    }
}

/// A value printed as YAML, or as JSON, is read as itself.
pub(crate) fn check_yaml(value: &Value) {
    let read = |text: &str| {
        let document = reader_of_yaml::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(document.duplicates, [""; 0]);
        document.raw.to_value(Numbers::Go)
    };
    let text = reader_of_yaml::print(value);
    assert_eq!(read(&text).as_ref(), Ok(value), "{text}");
    let text = value.to_string();
    // Of these YAML has an opinion of its own; JSON passes them on as they are.
    let special = |c: char| {
        matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if !text.contains(special) && has_short_keys(value) {
        assert_eq!(read(&text).as_ref(), Ok(value), "{text}");
    }
}

/// Whether YAML finds all keys of a value in JSON: after 1024 characters it no longer takes a text for a key, in Go, too.
fn has_short_keys(value: &Value) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .all(|(key, value)| Value::from(key.as_str()).to_string().len() < 1000 && has_short_keys(value)),
        Value::Array(items) => items.iter().all(has_short_keys),
        _ => true,
    }
}

/// A body in protobuf.
pub fn protobuf(data: &[u8]) {
    let envelope = match wire::open(data) {
        Ok(envelope) => envelope,
        Err(error) => return check_refusal(&error.to_string(), 0),
    };
    let gvk = envelope.gvk(GvkRef { group: "", version: "", kind: "" });
    let object = match wire::decode_object(data) {
        Ok(object) => object,
        Err(error) => return check_refusal(&error.to_string(), data.len()),
    };
    assert!(object.is_object());
    assert_eq!((object["kind"].as_str(), wire::knows(&gvk)), (Some(gvk.kind.as_str()), true));
    let raw = Raw::from_value(&object);
    check_raw(&raw);
    if let Some(object) = decode(data, Format::Protobuf, &raw) {
        check_wire(&object, &gvk);
    }
}

/// An object of a built-in kind is encoded and decoded as itself, but for lists, maps and bytes that are empty: protobuf
/// does not tell them from null.
fn check_wire(object: &Value, gvk: &GroupVersionKind) {
    let again = |object: &Value| {
        let bytes = wire::encode(object).unwrap_or_else(|error| panic!("{error}: {object}"));
        let decoded = decode_as(&bytes, Format::Protobuf, gvk, FieldValidation::Strict);
        decoded.unwrap_or_else(|status| panic!("{}", status.message)).value
    };
    let once = again(object);
    assert_eq!(without_empty(&once), without_empty(object));
    assert_eq!(again(&once), once);
}

fn without_empty(value: &Value) -> Value {
    let is_empty = |value: &Value| {
        value.is_null()
            || value == ""
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    };
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| (key.clone(), without_empty(value)));
            Value::Object(members.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_empty).collect()),
        scalar => scalar.clone(),
    }
}

/// Decodes a body as the kind that it names, if that is one that we have, and checks what comes out. Gives the object
/// if it was read.
fn decode(data: &[u8], format: Format, raw: &Raw) -> Option<Value> {
    let gvk = match interpret(raw) {
        Ok(gvk) => gvk,
        Err(error) => {
            check_refusal(&error, data.len());
            return None;
        }
    };
    let (_, is_custom) = schema_of(&gvk)?;
    let [ignored, warned, strict] = [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict]
        .map(|v| decode_as(data, format, &gvk, v));
    for refused in [&ignored, &warned, &strict].into_iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(refused.code, 400);
        check_refusal(&refused.message, data.len());
    }
    let (ignored, warned) = match (ignored, warned) {
        (Ok(ignored), Ok(warned)) => (ignored, warned),
        (ignored, warned) => {
            assert!(ignored.is_err() && warned.is_err() && strict.is_err());
            return None;
        }
    };
    assert!(ignored.warnings.is_empty());
    assert_eq!(ignored.value, warned.value);
    assert_eq!(strict.is_ok(), warned.warnings.is_empty());
    let object = warned.value;
    assert!(object.is_object());
    assert_eq!(object["kind"].as_str(), Some(gvk.kind.as_str()));
    assert_eq!(object["apiVersion"].as_str(), Some(gvk.api_version().as_str()));
    // What was read once is read again, without objection, as the same. Go prints the union of a definition's `items` as
    // null if it was neither schema nor list, and leaves that out when it reads it again; so it is read twice.
    let read = |object: &Value| {
        let again = decode_as(object.to_string().as_bytes(), Format::Json, &gvk, FieldValidation::Strict);
        again.unwrap_or_else(|status| panic!("{}", status.message)).value
    };
    let again = read(&object);
    assert_eq!(without_empty(&again), without_empty(&object));
    assert_eq!(read(&again), again);
    if !is_custom && wire::knows(&gvk) && format != Format::Protobuf {
        check_wire(&object, &gvk);
    }
    Some(object)
}

/// Decodes a body as a kind.
fn decode_as(
    data: &[u8],
    format: Format,
    gvk: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let (schema, is_custom) = schema_of(gvk).expect("the kind is known");
    if is_custom {
        return decode_custom(data, format, target(gvk), validation, |value, _| {
            custom_resource::decode(value, &schema).map_err(|e| go::Words(&e).to_string())
        });
    }
    let decoded = decode_builtin(data, format, target(gvk), &schema, validation)?;
    let normal =
        typed::normalise(&decoded.value, &schema).expect("an object that was decoded fits its schema");
    assert!(normal.strict.is_empty());
    Ok(decoded)
}
