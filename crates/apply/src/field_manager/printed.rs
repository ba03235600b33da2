//! What Go prints although it is not set: structs, and fields without `omitempty`.
//!
//! kube-apiserver compares objects as Go structs that it has printed as JSON. There an unset `spec: {}` stands on both
//! sides, so nobody comes to own it by setting it. Our trees hold only what is set, so this is filled in before they are
//! compared.

use fleetpass_schema::{Schema, Type};
use serde_json::{Map, Value, json};

/// Adds what Go prints of a built-in kind's value although it is not set.
pub(super) fn fill_printed(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, field) in &schema.properties {
                // The default `{}` in an OpenAPI document of Go types means a struct that is not a pointer.
                let is_struct =
                    field.default.as_ref().is_some_and(|d| d.as_object().is_some_and(Map::is_empty));
                // Go's struct tags where they are known; else the document, which lists fields without `omitempty` as
                // required.
                let always = match field.go_type {
                    Some(_) => !field.go.omit_empty && !field.go.omit_zero,
                    None => schema.required.contains(name),
                };
                if (is_struct || always) && !members.contains_key(name) {
                    members.insert(name.clone(), unset(field, is_struct));
                }
                // Also of what was just added: its own structs are printed too. This ends, because a Go struct contains itself only
                // through a pointer, which prints as null.
                if let Some(member) = members.get_mut(name) {
                    fill_printed(field, member);
                }
            }
            if let Some(additional) = &schema.additional {
                let declared = &schema.properties;
                members
                    .iter_mut()
                    .filter(|(name, _)| !declared.contains_key(*name))
                    .for_each(|(_, member)| fill_printed(additional, member));
            }
        }
        Value::Array(items) => {
            if let Some(item) = &schema.items {
                items.iter_mut().for_each(|value| fill_printed(item, value));
            }
        }
        _ => {}
    }
}

/// What Go prints for a field that is not set.
fn unset(field: &Schema, is_struct: bool) -> Value {
    match field.kind {
        Some(Type::Object) if is_struct => json!({}),
        // Times and bytes are strings in the schema only; unset, they print as null.
        Some(Type::String) if field.format.is_none() => "".into(),
        Some(Type::Integer | Type::Number) => 0.into(),
        Some(Type::Boolean) => false.into(),
        _ => Value::Null,
    }
}
