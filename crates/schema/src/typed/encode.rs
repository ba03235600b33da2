//! Printing a decoded state as Go's `encoding/json` prints the struct, by the tags of its fields.

use crate::go::Special;
use crate::openapi::{self, JSON_SCHEMA_PROPS};
use crate::{Schema, Type};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What reading back from the store makes of an object of a built-in kind. kube-apiserver stores these as protobuf,
/// which knows no difference between nothing and empty: empty lists and maps that are always printed become `null`,
/// and bytes in a map that were `null` become empty. Objects that are not stored, and CRDs (stored as JSON), stay as they are.
pub fn as_stored(value: &Value, schema: &Arc<Schema>) -> Value {
    let schema = &openapi::resolve(schema);
    match value {
        Value::Array(items) if items.is_empty() && schema.special.is_none() => Value::Null,
        Value::Object(members) if members.is_empty() && schema.additional.is_some() => Value::Null,
        Value::Array(items) => match &schema.items {
            Some(element) => items.iter().map(|item| as_stored(item, element)).collect(),
            None => value.clone(),
        },
        Value::Object(members) => {
            let bytes = schema.additional.as_ref().is_some_and(|v| v.special == Some(Special::Bytes));
            let member = |(key, value): (&String, &Value)| {
                if bytes && value.is_null() {
                    return (key.clone(), "".into());
                }
                let field = schema.properties.get(key).or(schema.additional.as_ref());
                (key.clone(), field.map_or_else(|| value.clone(), |field| as_stored(value, field)))
            };
            Value::Object(members.iter().map(member).collect())
        }
        _ => value.clone(),
    }
}

/// Prints a state as Go prints the struct.
pub(super) fn encode(schema: &Arc<Schema>, state: &Value) -> Value {
    if schema.reference.is_some() {
        return encode(&openapi::resolve(schema), state);
    }
    match (schema.special, schema.kind) {
        (Some(Special::Quantity), _) if state.is_null() => "0".into(),
        (Some(Special::IntOrString), _) if state.is_null() => 0.into(),
        (Some(special), _) => encode_special(special, state),
        (None, Some(Type::Object)) => encode_object(schema, state),
        (None, Some(Type::Array)) => match (state, &schema.items) {
            (Value::Array(items), Some(element)) => items.iter().map(|item| encode(element, item)).collect(),
            _ => Value::Null,
        },
        (None, kind) if state.is_null() => match kind {
            Some(Type::String) => "".into(),
            Some(Type::Integer | Type::Number) => 0.into(),
            Some(Type::Boolean) => false.into(),
            _ => Value::Null,
        },
        _ => state.clone(),
    }
}

fn encode_special(special: Special, state: &Value) -> Value {
    let props = || openapi::builtin(JSON_SCHEMA_PROPS);
    match (special, state) {
        (Special::SchemaOrBool, Value::Null) => false.into(),
        (Special::SchemaOrArray | Special::SchemaOrBool | Special::SchemaOrStringArray, Value::Object(_)) => {
            encode(&props(), state)
        }
        (Special::SchemaOrArray | Special::SchemaOrStringArray, Value::Array(items)) if items.is_empty() => {
            Value::Null
        }
        (Special::SchemaOrArray, Value::Array(items)) => {
            items.iter().map(|item| encode(&props(), item)).collect()
        }
        _ => state.clone(),
    }
}

fn encode_object(schema: &Arc<Schema>, state: &Value) -> Value {
    let empty = Map::new();
    let members = match state {
        Value::Object(members) => members,
        _ if schema.additional.is_some() => return Value::Null,
        _ => &empty,
    };
    let mut out = Map::new();
    if let Some(element) = &schema.additional {
        for (key, value) in members {
            out.insert(key.clone(), encode(element, value));
        }
        return Value::Object(out);
    }
    for (name, field) in &schema.properties {
        let value = members.get(name).unwrap_or(&Value::Null);
        if !is_omitted(field, value) {
            let nil = field.go.pointer && value.is_null();
            out.insert(name.clone(), if nil { Value::Null } else { encode(field, value) });
        }
    }
    Value::Object(out)
}

fn is_omitted(field: &Schema, value: &Value) -> bool {
    let go = &field.go;
    if go.pointer {
        return go.omit_empty && value.is_null();
    }
    let is_struct = match field.special {
        Some(Special::Bytes) => false,
        Some(_) => true,
        None => field.kind == Some(Type::Object) && field.additional.is_none(),
    };
    if is_struct {
        let zero = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        return go.omit_zero && zero;
    }
    let zero = match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    };
    (go.omit_empty && zero) || (go.omit_zero && value.is_null())
}
