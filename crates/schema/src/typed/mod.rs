//! Built-in kinds: what Go does when it decodes JSON into the kind's struct and encodes the struct again.
//!
//! Decoding follows `sigs.k8s.io/json` (`decode.go`, `kubernetes_patch.go`), the errors included. It fills a
//! *state*: a value tree in which `null` stands for a Go zero value or nil pointer. Encoding follows
//! `encoding/json` with the tags of the struct's fields.

mod encode;

pub use encode::as_stored;

use crate::error::{DecodeError, Found, GoField, TypeMismatch};
use crate::go::{Special, decode_base64};
use crate::openapi::{self, JSON_SCHEMA_PROPS};
use crate::{Schema, Type, quantity, time};
use base64::Engine;
use encode::encode;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::{MAX_KEPT_DEPTH, Numbers, Raw, go_float};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// A decoded object, as Go would print it, and what strict decoding objects to.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    /// The object: no unknown fields, types right, empty optional members absent.
    pub value: Value,
    /// Unknown and duplicate fields in the order in which they were met, each once, at most 100; fewer where
    /// paths are very long.
    pub strict: Vec<StrictError>,
}

/// What strict decoding objects to and lenient decoding drops (`StrictDecodingError` of `k8s.io/apimachinery`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StrictError {
    /// The path of a field that the type does not have.
    #[error("unknown field {}", go_quote(.0))]
    UnknownField(String),
    /// The path of a field that was given more than once.
    #[error("duplicate field {}", go_quote(.0))]
    DuplicateField(String),
}

/// Decodes `raw` into the type that `schema` describes and prints it again.
///
/// # Errors
/// The first value of a wrong type, or what a type that reads itself complains about (a bad time), which comes first
/// as it ends the decoding.
pub fn decode(raw: &Raw<'_>, schema: &Arc<Schema>) -> Result<Typed, DecodeError> {
    let mut decoder = Decoder::default();
    let mut state = Value::Null;
    decoder.value(raw, schema, &mut state, 0)?;
    if let Some(error) = decoder.saved {
        return Err(error);
    }
    // `null` as a whole body is a struct in which nothing is set.
    let state = if state.is_null() { Value::Object(Map::new()) } else { state };
    Ok(Typed { value: encode(schema, &state), strict: decoder.strict })
}

/// A value after a round trip through its Go type: what a patch left behind, as kube-apiserver would store it.
///
/// # Errors
/// As [`decode`].
pub fn normalise(value: &Value, schema: &Arc<Schema>) -> Result<Typed, DecodeError> {
    decode(&Raw::from_value(value), schema)
}

/// How many objections strict decoding keeps.
const MOST_OBJECTIONS: usize = 100;
/// After so many bytes of paths strict decoding objects to nothing more: keys are as long as the client likes.
const MAX_OBJECTED: usize = 256 * 1024;

/// An error ends the decoding; errors of type go to `saved` and let it go on.
type Step = Result<(), DecodeError>;

#[derive(Default)]
struct Decoder {
    /// The first mismatch. Go goes on after it, because what a type that reads itself complains about later wins.
    saved: Option<DecodeError>,
    strict: Vec<StrictError>,
    /// The same errors as in `strict`, to find repeated ones: a field that is given three times is told once.
    seen_strict: HashSet<StrictError>,
    /// How many bytes the paths of all objections have, of those that were there before, too.
    objected: usize,
    /// The path that strict errors print: `spec.rules[0]`.
    path: String,
    /// The fields that lead here, for errors of type.
    fields: Vec<String>,
    /// The name of the innermost struct.
    outer: String,
}

impl Decoder {
    fn value(&mut self, raw: &Raw<'_>, schema: &Arc<Schema>, slot: &mut Value, depth: usize) -> Step {
        if depth > MAX_KEPT_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        let schema = &openapi::resolve(schema);
        // Before null is looked at: types that read themselves read null, too.
        if let Some(special) = schema.special {
            return self.special(special, raw, schema, slot, depth);
        }
        match (raw, schema.kind) {
            (Raw::Null, _) => {
                // null makes pointers, lists and maps nil, and leaves all else as it was.
                if schema.go.pointer || schema.kind == Some(Type::Array) || schema.additional.is_some() {
                    *slot = Value::Null;
                }
                Ok(())
            }
            (Raw::Object(members), Some(Type::Object)) if schema.additional.is_some() => {
                self.map(members, schema, slot, depth)
            }
            (Raw::Object(members), Some(Type::Object)) => self.structure(members, schema, slot, depth),
            (Raw::Array(items), Some(Type::Array)) => self.list(items, schema, slot, depth),
            (Raw::String(text), Some(Type::String)) => {
                *slot = text.to_string().into();
                Ok(())
            }
            (Raw::Bool(b), Some(Type::Boolean)) => {
                *slot = (*b).into();
                Ok(())
            }
            (Raw::Number(text), Some(Type::Integer | Type::Number)) => {
                self.number(text, schema, slot);
                Ok(())
            }
            (_, None) => self.any(raw, slot, depth),
            (_, Some(expected)) => {
                self.mismatched(|| raw.into(), expected, go_type(schema));
                Ok(())
            }
        }
    }

    fn number(&mut self, text: &str, schema: &Schema, slot: &mut Value) {
        let expected = schema.kind.unwrap_or(Type::Number);
        // Go parses the text as the type of the field: `1.0` and `1e3` are no integers, and what is too large for a
        // float is an error instead of infinity.
        let fits = match (expected, schema.format.as_deref()) {
            (Type::Number, _) => {
                text.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| Value::Number(go_float(f)))
            }
            (_, Some("int32")) => text.parse::<i32>().ok().map(Value::from),
            _ => text.parse::<i64>().ok().map(Value::from),
        };
        match fits {
            Some(number) => *slot = number,
            None => self.mismatched(|| Found::UnfitNumber(text.into()), expected, go_type(schema)),
        }
    }

    fn structure(
        &mut self,
        members: &[(Cow<'_, str>, Raw<'_>)],
        schema: &Arc<Schema>,
        slot: &mut Value,
        depth: usize,
    ) -> Step {
        // A struct that is given twice is decoded into the same memory: fields add up.
        let state = as_object(slot);
        let name = go_type(schema).rsplit('.').next().unwrap_or_default();
        let mut seen: HashSet<&str> = HashSet::new();
        for (key, raw) in members {
            let Some(field) = schema.properties.get(&**key) else {
                self.strict_error(StrictError::UnknownField, key);
                continue;
            };
            if !seen.insert(key) {
                self.strict_error(StrictError::DuplicateField, key);
            }
            // Undone below. After an error it is not: the whole decoding ends with it.
            let before = (self.enter(key), std::mem::replace(&mut self.outer, name.into()));
            let depth_before = self.fields.len();
            // Go's decoder counts the embedded struct (`TypeMeta`) as a field of the path.
            self.fields.extend(field.go.embedded.clone());
            self.fields.push(key.to_string());
            self.value(raw, field, state.entry(key.to_string()).or_insert(Value::Null), depth + 1)?;
            self.fields.truncate(depth_before);
            self.path.truncate(before.0);
            self.outer = before.1;
        }
        Ok(())
    }

    fn map(
        &mut self,
        members: &[(Cow<'_, str>, Raw<'_>)],
        schema: &Schema,
        slot: &mut Value,
        depth: usize,
    ) -> Step {
        let Some(element) = &schema.additional else { return Ok(()) };
        let state = as_object(slot);
        let mut seen: HashSet<&str> = HashSet::new();
        for (key, raw) in members {
            if !seen.insert(key) {
                self.strict_error(StrictError::DuplicateField, key);
            }
            let before = self.enter(key);
            // Unlike a struct's field, a map's value is decoded into a new zero value each time.
            let mut value = Value::Null;
            self.value(raw, element, &mut value, depth + 1)?;
            state.insert(key.to_string(), value);
            self.path.truncate(before);
        }
        Ok(())
    }

    fn list(&mut self, items: &[Raw<'_>], schema: &Schema, slot: &mut Value, depth: usize) -> Step {
        let Some(element) = &schema.items else { return Ok(()) };
        if !slot.is_array() {
            *slot = Value::Array(Vec::new());
        }
        let Value::Array(state) = slot else { return Ok(()) };
        // As in Go, elements of an earlier list for the same field are decoded into, not replaced.
        state.resize(items.len(), Value::Null);
        for (index, raw) in items.iter().enumerate() {
            let before = self.path.len();
            self.path.push_str(&format!("[{index}]"));
            self.value(raw, element, &mut state[index], depth + 1)?;
            self.path.truncate(before);
        }
        Ok(())
    }

    fn special(
        &mut self,
        special: Special,
        raw: &Raw<'_>,
        schema: &Arc<Schema>,
        slot: &mut Value,
        depth: usize,
    ) -> Step {
        if *raw == Raw::Null && schema.go.pointer {
            *slot = Value::Null;
            return Ok(());
        }
        match special {
            Special::Time | Special::MicroTime => self.time(special, raw, slot),
            Special::Quantity => Self::quantity(raw, slot),
            Special::IntOrString => self.int_or_string(raw, slot),
            Special::Bytes => {
                self.bytes(raw, schema, slot);
                Ok(())
            }
            Special::Any => self.any(raw, slot, depth),
            Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStringArray => {
                self.schema_or(special, raw, slot, depth)
            }
        }
    }

    fn time(&self, special: Special, raw: &Raw<'_>, slot: &mut Value) -> Step {
        let text = match raw {
            Raw::Null => {
                *slot = Value::Null;
                return Ok(());
            }
            Raw::String(text) => text,
            other => return Err(self.mismatch(other.into(), Type::String, "string")),
        };
        let canonical = match special {
            Special::MicroTime => time::canonical_micro_time(text),
            _ => time::canonical_time(text),
        };
        *slot = canonical?.map_or(Value::Null, Value::String);
        Ok(())
    }

    fn quantity(raw: &Raw<'_>, slot: &mut Value) -> Step {
        let text = match raw {
            Raw::Null => {
                *slot = Value::Null;
                return Ok(());
            }
            Raw::String(text) | Raw::Number(text) => Cow::Borrowed(&**text),
            // Go parses the JSON text itself, which for anything else begins with no digit.
            other => Cow::Borrowed(other.type_name()),
        };
        *slot = quantity::canonical(text.trim())?.into();
        Ok(())
    }

    fn int_or_string(&self, raw: &Raw<'_>, slot: &mut Value) -> Step {
        *slot = match raw {
            Raw::Null => 0.into(),
            Raw::String(text) => text.to_string().into(),
            Raw::Number(text) => match text.parse::<i32>() {
                Ok(number) => number.into(),
                Err(_) => {
                    return Err(self.mismatch(Found::UnfitNumber(text.to_string()), Type::Integer, "int32"));
                }
            },
            other => return Err(self.mismatch(other.into(), Type::Integer, "int32")),
        };
        Ok(())
    }

    /// `[]byte`: base64, or (as Go allows) a list of numbers.
    fn bytes(&mut self, raw: &Raw<'_>, schema: &Schema, slot: &mut Value) {
        let bytes = match raw {
            Raw::Null => {
                *slot = Value::Null;
                return;
            }
            Raw::String(text) => match decode_base64(text) {
                Ok(bytes) => bytes,
                Err(error) => return self.save(error.into()),
            },
            Raw::Array(items) => {
                let mut bytes = Vec::with_capacity(items.len());
                for item in items {
                    match item {
                        Raw::Null => bytes.push(0),
                        Raw::Number(text) => match text.parse::<u8>() {
                            Ok(byte) => bytes.push(byte),
                            Err(_) => {
                                let found = || Found::UnfitNumber(text.to_string());
                                self.mismatched(found, Type::Integer, "uint8");
                            }
                        },
                        other => self.mismatched(|| other.into(), Type::Integer, "uint8"),
                    }
                }
                bytes
            }
            other => return self.mismatched(|| other.into(), Type::String, go_type(schema)),
        };
        *slot = base64::engine::general_purpose::STANDARD.encode(bytes).into();
    }

    fn any(&self, raw: &Raw<'_>, slot: &mut Value, depth: usize) -> Step {
        *slot = raw.to_value_at(Numbers::Verbatim, depth)?;
        Ok(())
    }

    /// The three unions of a CRD's schema read themselves with a decoder of their own that is not strict
    /// (`apis/apiextensions/v1/marshal.go`).
    fn schema_or(&self, special: Special, raw: &Raw<'_>, slot: &mut Value, depth: usize) -> Step {
        // Its strict errors are dropped with it, as Go's are.
        let mut inner = Decoder::default();
        let props = openapi::builtin(JSON_SCHEMA_PROPS);
        let element = match special {
            Special::SchemaOrArray => {
                Schema { go_type: Some("v1.JSONSchemaProps".into()), ..(*props).clone() }
            }
            _ => Schema { kind: Some(Type::String), go_type: Some("string".into()), ..Schema::default() },
        };
        // Built for each value: they are rare, and only definitions of custom kinds have any.
        let list = Schema { kind: Some(Type::Array), items: Some(Arc::new(element)), ..Schema::default() };
        let mut state = Value::Null;
        let step = match (raw, special) {
            (Raw::Object(_), _) => inner.value(raw, &props, &mut state, depth + 1),
            (Raw::Bool(b), Special::SchemaOrBool) => {
                state = (*b).into();
                Ok(())
            }
            (_, Special::SchemaOrBool) => Err(DecodeError::NotSchemaOrBool),
            (Raw::Array(_), _) => inner.value(raw, &Arc::new(list), &mut state, depth + 1),
            // Anything else is a union of nothing, which is printed as `null`.
            _ => {
                state = Value::Array(Vec::new());
                Ok(())
            }
        };
        step.and(inner.saved.map_or(Ok(()), Err)).map_err(|error| self.add_context(error))?;
        *slot = state;
        Ok(())
    }

    /// Makes `path` that of a member, in place: the keys above it may be long and many members below them. Gives how
    /// long it was.
    fn enter(&mut self, key: &str) -> usize {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        before
    }

    fn strict_error(&mut self, objection: fn(String) -> StrictError, key: &str) {
        if self.strict.len() >= MOST_OBJECTIONS || self.objected >= MAX_OBJECTED {
            return;
        }
        let before = self.enter(key);
        self.objected += self.path.len();
        let objection = objection(self.path.clone());
        self.path.truncate(before);
        if self.seen_strict.insert(objection.clone()) {
            self.strict.push(objection);
        }
    }

    /// Keeps the first mismatch. The others are not even described: a body can have very many, and each description
    /// copies paths that are as long as the client likes.
    fn mismatched(&mut self, found: impl FnOnce() -> Found, expected: Type, go_type: &str) {
        if self.saved.is_none() {
            self.saved = Some(self.mismatch(found(), expected, go_type));
        }
    }

    fn save(&mut self, error: DecodeError) {
        self.saved.get_or_insert(error);
    }

    fn mismatch(&self, found: Found, expected: Type, go_type: &str) -> DecodeError {
        let in_struct = !self.fields.is_empty();
        let go_field =
            in_struct.then(|| GoField { struct_name: self.outer.clone(), path: self.fields.join(".") });
        TypeMismatch { path: self.path.clone(), found, expected, go_type: go_type.into(), go_field }.into()
    }

    /// A mismatch inside a value that reads itself is reported under the field that holds the value
    /// (`addErrorContext` in `encoding/json/decode.go`).
    fn add_context(&self, error: DecodeError) -> DecodeError {
        let DecodeError::Type(mut mismatch) = error else { return error };
        let joint = if self.path.is_empty() || mismatch.path.is_empty() || mismatch.path.starts_with('[') {
            ""
        } else {
            "."
        };
        mismatch.path = format!("{}{joint}{}", self.path, mismatch.path);
        if !self.fields.is_empty() {
            let mut path = self.fields.join(".");
            if let Some(inner) = &mismatch.go_field {
                path.push('.');
                path.push_str(&inner.path);
            }
            mismatch.go_field = Some(GoField { struct_name: self.outer.clone(), path });
        }
        DecodeError::Type(mismatch)
    }
}

fn go_type(schema: &Schema) -> &str {
    schema.go_type.as_deref().unwrap_or("interface {}")
}

fn as_object(slot: &mut Value) -> &mut Map<String, Value> {
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was made an object just above"),
    }
}

#[cfg(test)]
mod tests;
