//! Why a patched tree does not fit its Go type, in the words of the converter that kube-apiserver uses after a strategic
//! merge patch; all other patches are decoded as JSON (`fromUnstructured` in
//! `k8s.io/apimachinery/pkg/runtime/converter.go`).

use super::go_text::type_name;
use fleetpass_schema::go::{Special, Words, decode_base64};
use fleetpass_schema::typed::normalise;
use fleetpass_schema::{Schema, Type, openapi};
use serde_json::Value;
use std::sync::Arc;

/// The first thing that does not fit, if any.
pub(crate) fn mismatch(value: &Value, schema: &Arc<Schema>) -> Option<String> {
    let schema = &openapi::resolve(schema);
    if value.is_null() {
        return None;
    }
    match schema.special {
        Some(Special::Bytes) => return bytes(value),
        // A type that reads itself knows nothing of what is around it.
        Some(_) => return normalise(value, schema).err().map(|why| Words(&why).to_string()),
        None => {}
    }
    match (schema.kind?, value) {
        (Type::Object, Value::Object(members)) => members.iter().find_map(|(name, member)| {
            mismatch(member, schema.additional.as_ref().or_else(|| schema.properties.get(name))?)
        }),
        (Type::Object, _) if schema.additional.is_some() => Some(unrestorable("map from", value)),
        (Type::Object, _) => Some(unrestorable("struct from:", value)),
        (Type::Array, Value::Array(items)) => {
            items.iter().find_map(|item| mismatch(item, schema.items.as_ref()?))
        }
        (Type::Array, _) => Some(unrestorable("slice from", value)),
        (Type::String, Value::Number(number)) if !number.is_f64() => Some(inconvertible(value, schema)),
        (Type::String, other) => (!other.is_string()).then(|| unrecognized("string")),
        (Type::Boolean, other) => (!other.is_boolean()).then(|| unrecognized("bool")),
        (Type::Integer, Value::Number(number)) => {
            let whole = number.as_f64().is_none_or(|number| number.fract() == 0.0);
            (!whole).then(|| inconvertible(value, schema))
        }
        (Type::Integer, _) => Some(unrecognized(schema.format.as_deref().unwrap_or("int64"))),
        (Type::Number, other) => (!other.is_number()).then(|| unrecognized("float64")),
    }
}

/// `[]byte`: base64.
fn bytes(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            decode_base64(text).err().map(|why| format!("error decoding from json: {}", Words(&why)))
        }
        Value::Array(_) => None,
        other => Some(unrestorable("slice from", other)),
    }
}

fn unrestorable(what: &str, value: &Value) -> String {
    let kind = match value {
        Value::Object(_) => "map",
        Value::Array(_) => "slice",
        other => type_name(other),
    };
    format!("cannot restore {what} {kind}")
}

fn inconvertible(value: &Value, schema: &Schema) -> String {
    let go_type = schema.go_type.as_deref().unwrap_or("string");
    format!("cannot convert {} to {go_type}", type_name(value))
}

/// Go has no conversion between the two at all.
fn unrecognized(kind: &str) -> String {
    format!("unrecognized type: {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_schema::openapi::builtin;
    use serde_json::json;

    /// Answers of a kube-apiserver 1.36.2.
    #[test]
    fn what_does_not_fit_is_said_as_gos_converter_says_it() {
        let secret = builtin("io.k8s.api.core.v1.Secret");
        let request = builtin("io.k8s.api.certificates.v1.CertificateSigningRequest");
        for (schema, value, want) in [
            (&secret, json!({"metadata": {"labels": {"a": "b"}}, "immutable": true}), None),
            (&secret, json!({"stringData": {"a": 5}}), Some("cannot convert int64 to string")),
            (&secret, json!({"stringData": {"a": true}}), Some("unrecognized type: string")),
            (&secret, json!({"stringData": ["a"]}), Some("cannot restore map from slice")),
            (&secret, json!({"metadata": "a"}), Some("cannot restore struct from: string")),
            (&secret, json!({"metadata": {"finalizers": "a"}}), Some("cannot restore slice from string")),
            (
                &secret,
                json!({"metadata": {"deletionTimestamp": 5}}),
                Some("json: cannot unmarshal number into Go value of type string"),
            ),
            (&secret, json!({"type": 5}), Some("cannot convert int64 to v1.SecretType")),
            (&secret, json!({"immutable": "yes"}), Some("unrecognized type: bool")),
            (
                &secret,
                json!({"data": {"a": "!"}}),
                Some("error decoding from json: illegal base64 data at input byte 0"),
            ),
            (&secret, json!({"data": {"a": 5}}), Some("cannot restore slice from int64")),
            (&request, json!({"spec": {"expirationSeconds": 600.0}}), None),
            (
                &request,
                json!({"spec": {"expirationSeconds": 600.5}}),
                Some("cannot convert float64 to int32"),
            ),
            (&request, json!({"spec": {"expirationSeconds": "600"}}), Some("unrecognized type: int32")),
        ] {
            assert_eq!(mismatch(&value, schema).as_deref(), want, "{value}");
        }
    }
}
