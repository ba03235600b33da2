//! Why a patched tree does not fit its Go type, in the words of the converter that kube-apiserver uses after a strategic
//! merge patch; all other patches are decoded as JSON (`fromUnstructured` in
//! `k8s.io/apimachinery/pkg/runtime/converter.go`).

use crate::value::Found;
use crate::words::{Destination, GoWords, Words};
use fleetpass_schema::go::{self, Special, decode_base64};
use fleetpass_schema::typed::normalise;
use fleetpass_schema::{Schema, Type, openapi};
use serde_json::Value;
use std::sync::Arc;

/// Why a value does not go where its Go type would have it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.message(&GoWords))]
pub enum ConversionError {
    /// It is of another type.
    Type {
        /// The value.
        found: Found,
        /// Where it should go.
        destination: Destination,
    },
    /// It should be bytes, and is no base64.
    Base64(String),
    /// Its type reads itself, and says this of it.
    OwnDecoder(String),
}

impl ConversionError {
    /// The message, with these words about values and types.
    pub fn message(&self, words: &dyn Words) -> String {
        match self {
            Self::Type { found, destination } => words.inconvertible(&found.0, destination),
            Self::Base64(why) => format!("error decoding from json: {why}"),
            Self::OwnDecoder(why) => why.clone(),
        }
    }
}

/// The first thing in an object, after a strategic merge patch, that does not fit its Go type. Such an object is never JSON
/// again before it is stored, so it is this that a client hears of, and not what a JSON decoder would say.
pub fn conversion_error(value: &Value, schema: &Arc<Schema>) -> Option<ConversionError> {
    let schema = &openapi::resolve(schema);
    if value.is_null() {
        return None;
    }
    match schema.special {
        Some(Special::Bytes) => return bytes(value),
        // A type that reads itself knows nothing of what is around it.
        Some(_) => {
            let why = normalise(value, schema).err()?;
            return Some(ConversionError::OwnDecoder(go::Words(&why).to_string()));
        }
        None => {}
    }
    let refuse = |destination| Some(ConversionError::Type { found: Found::from(value), destination });
    let convertible = || {
        let go_type = schema.go_type.as_deref().unwrap_or("string");
        refuse(Destination::Convertible(go_type.into()))
    };
    let basic = |name: &str| refuse(Destination::Basic(name.into()));
    match (schema.kind?, value) {
        (Type::Object, Value::Object(members)) => members.iter().find_map(|(name, member)| {
            conversion_error(member, schema.additional.as_ref().or_else(|| schema.properties.get(name))?)
        }),
        (Type::Object, _) if schema.additional.is_some() => refuse(Destination::Map),
        (Type::Object, _) => refuse(Destination::Struct),
        (Type::Array, Value::Array(items)) => {
            items.iter().find_map(|item| conversion_error(item, schema.items.as_ref()?))
        }
        (Type::Array, _) => refuse(Destination::Slice),
        // Go could convert an integer to a string, as a code point, so the converter says that it does not.
        (Type::String, Value::Number(number)) if !number.is_f64() => convertible(),
        (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => None,
        (Type::String, _) => basic("string"),
        (Type::Boolean, _) => basic("bool"),
        (Type::Integer, Value::Number(number)) => {
            let whole = number.as_f64().is_none_or(|number| number.fract() == 0.0);
            if whole { None } else { convertible() }
        }
        (Type::Integer, _) => basic(schema.format.as_deref().unwrap_or("int64")),
        (Type::Number, Value::Number(_)) => None,
        (Type::Number, _) => basic("float64"),
    }
}

/// `[]byte`: base64.
fn bytes(value: &Value) -> Option<ConversionError> {
    match value {
        Value::String(text) => {
            decode_base64(text).err().map(|why| ConversionError::Base64(go::Words(&why).to_string()))
        }
        // Its elements are not looked at: a list of numbers is bytes, too.
        Value::Array(_) => None,
        other => Some(ConversionError::Type { found: Found::from(other), destination: Destination::Slice }),
    }
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
            let error = conversion_error(&value, schema).map(|error| error.to_string());
            assert_eq!(error.as_deref(), want, "{value}");
        }
    }
}
