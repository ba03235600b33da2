//! Built-in kinds: what Go does when it decodes JSON into the kind's struct and encodes the struct again.
//!
//! Decoding follows `sigs.k8s.io/json` (`decode.go`, `kubernetes_patch.go`), the errors included. It fills a
//! *state*: a value tree in which `null` stands for a Go zero value or nil pointer. Encoding follows
//! `encoding/json` with the tags of the struct's fields.

mod encode;

pub use encode::as_stored;

use crate::go::Special;
use crate::openapi::{self, JSON_SCHEMA_PROPS};
use crate::{Schema, Type, quantity, time};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encode::encode;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::{MAX_KEPT_DEPTH, Numbers, Raw, go_float};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// A decoded object, as Go would print it, and what strict decoding objects to.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    /// The object: no unknown fields, types right, empty optional members absent.
    pub value: Value,
    /// Unknown and duplicate fields in the order in which they were met, each once, at most 100; fewer where
    /// paths are very long.
    pub strict: Vec<Strict>,
}

/// An objection of strict decoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Strict {
    /// The path of a field that the type does not have.
    Unknown(String),
    /// The path of a field that was given more than once.
    Duplicate(String),
}

impl fmt::Display for Strict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field {}", go_quote(path)),
            Self::Duplicate(path) => write!(f, "duplicate field {}", go_quote(path)),
        }
    }
}

/// Why JSON does not fit a type, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Decodes `raw` into the type that `schema` describes and prints it again.
///
/// Errors: the first value of a wrong type (`json: cannot unmarshal string into Go struct field …`), or what a
/// type that reads itself complains about (a bad time), which comes first as it ends the decoding.
pub fn decode(raw: &Raw, schema: &Arc<Schema>) -> Result<Typed, DecodeError> {
    let mut decoder = Decoder::default();
    let mut state = Value::Null;
    decoder.value(raw, schema, &mut state, 0)?;
    if let Some(error) = decoder.saved {
        return Err(error);
    }
    let state = if state.is_null() { Value::Object(Map::new()) } else { state };
    Ok(Typed { value: encode(schema, &state), strict: decoder.strict })
}

/// A value after a round trip through its Go type: what a patch left behind, as kube-apiserver would store it.
/// Errors: as [`decode`].
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
    saved: Option<DecodeError>,
    strict: Vec<Strict>,
    seen_strict: HashSet<Strict>,
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
    fn value(&mut self, raw: &Raw, schema: &Arc<Schema>, slot: &mut Value, depth: usize) -> Step {
        if depth > MAX_KEPT_DEPTH {
            return Err(DecodeError("exceeded max depth".into()));
        }
        let schema = &openapi::resolve(schema);
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
                *slot = text.as_str().into();
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
            _ => {
                self.mismatched(raw.type_name(), go_type(schema));
                Ok(())
            }
        }
    }

    fn number(&mut self, text: &str, schema: &Schema, slot: &mut Value) {
        let fits = match (schema.kind, schema.format.as_deref()) {
            (Some(Type::Number), _) => {
                text.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| Value::Number(go_float(f)))
            }
            (_, Some("int32")) => text.parse::<i32>().ok().map(Value::from),
            _ => text.parse::<i64>().ok().map(Value::from),
        };
        match fits {
            Some(number) => *slot = number,
            None => self.mismatched(format_args!("number {text}"), go_type(schema)),
        }
    }

    fn structure(
        &mut self,
        members: &[(String, Raw)],
        schema: &Arc<Schema>,
        slot: &mut Value,
        depth: usize,
    ) -> Step {
        // A struct that is given twice is decoded into the same memory: fields add up.
        let state = as_object(slot);
        let name = go_type(schema).rsplit('.').next().unwrap_or_default();
        let mut seen: HashSet<&str> = HashSet::new();
        for (key, raw) in members {
            let Some(field) = schema.properties.get(key) else {
                self.object_to(Strict::Unknown, key);
                continue;
            };
            if !seen.insert(key) {
                self.object_to(Strict::Duplicate, key);
            }
            let before = (self.enter(key), std::mem::replace(&mut self.outer, name.into()));
            let depth_before = self.fields.len();
            self.fields.extend(field.go.embedded.clone());
            self.fields.push(key.clone());
            self.value(raw, field, state.entry(key.clone()).or_insert(Value::Null), depth + 1)?;
            self.fields.truncate(depth_before);
            self.path.truncate(before.0);
            self.outer = before.1;
        }
        Ok(())
    }

    fn map(&mut self, members: &[(String, Raw)], schema: &Schema, slot: &mut Value, depth: usize) -> Step {
        let Some(element) = &schema.additional else { return Ok(()) };
        let state = as_object(slot);
        let mut seen: HashSet<&str> = HashSet::new();
        for (key, raw) in members {
            if !seen.insert(key) {
                self.object_to(Strict::Duplicate, key);
            }
            let before = self.enter(key);
            let mut value = Value::Null;
            self.value(raw, element, &mut value, depth + 1)?;
            state.insert(key.clone(), value);
            self.path.truncate(before);
        }
        Ok(())
    }

    fn list(&mut self, items: &[Raw], schema: &Schema, slot: &mut Value, depth: usize) -> Step {
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
        raw: &Raw,
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

    fn time(&self, special: Special, raw: &Raw, slot: &mut Value) -> Step {
        let text = match raw {
            Raw::Null => {
                *slot = Value::Null;
                return Ok(());
            }
            Raw::String(text) => text,
            other => return Err(self.mismatch(other.type_name(), "string")),
        };
        let canonical = match special {
            Special::MicroTime => time::canonical_micro_time(text),
            _ => time::canonical_time(text),
        };
        *slot = canonical.map_err(DecodeError)?.map_or(Value::Null, Value::String);
        Ok(())
    }

    fn quantity(raw: &Raw, slot: &mut Value) -> Step {
        let text = match raw {
            Raw::Null => {
                *slot = Value::Null;
                return Ok(());
            }
            Raw::String(text) | Raw::Number(text) => Cow::Borrowed(text.as_str()),
            // Go parses the JSON text itself, which for anything else begins with no digit.
            other => Cow::Borrowed(other.type_name()),
        };
        let canonical = quantity::canonical(text.trim()).map_err(|e| DecodeError(e.into()))?;
        *slot = canonical.into();
        Ok(())
    }

    fn int_or_string(&self, raw: &Raw, slot: &mut Value) -> Step {
        *slot = match raw {
            Raw::Null => 0.into(),
            Raw::String(text) => text.as_str().into(),
            Raw::Number(text) => match text.parse::<i32>() {
                Ok(number) => number.into(),
                Err(_) => return Err(self.mismatch(&format!("number {text}"), "int32")),
            },
            other => return Err(self.mismatch(other.type_name(), "int32")),
        };
        Ok(())
    }

    /// `[]byte`: base64, or (as Go allows) a list of numbers.
    fn bytes(&mut self, raw: &Raw, schema: &Schema, slot: &mut Value) {
        let bytes = match raw {
            Raw::Null => {
                *slot = Value::Null;
                return;
            }
            Raw::String(text) => match decode_base64(text) {
                Ok(bytes) => bytes,
                Err(error) => return self.save(DecodeError(error)),
            },
            Raw::Array(items) => {
                let mut bytes = Vec::with_capacity(items.len());
                for item in items {
                    match item {
                        Raw::Null => bytes.push(0),
                        Raw::Number(text) => match text.parse::<u8>() {
                            Ok(byte) => bytes.push(byte),
                            Err(_) => self.mismatched(format_args!("number {text}"), "uint8"),
                        },
                        other => self.mismatched(other.type_name(), "uint8"),
                    }
                }
                bytes
            }
            other => return self.mismatched(other.type_name(), go_type(schema)),
        };
        *slot = base64::engine::general_purpose::STANDARD.encode(bytes).into();
    }

    fn any(&self, raw: &Raw, slot: &mut Value, depth: usize) -> Step {
        *slot = raw.to_value_at(Numbers::Verbatim, depth).map_err(|e| DecodeError(e.to_string()))?;
        Ok(())
    }

    /// The three unions of a CRD's schema read themselves with a decoder of their own that is not strict
    /// (`apis/apiextensions/v1/marshal.go`).
    fn schema_or(&self, special: Special, raw: &Raw, slot: &mut Value, depth: usize) -> Step {
        let mut inner = Decoder::default();
        let props = openapi::builtin(JSON_SCHEMA_PROPS);
        let element = match special {
            Special::SchemaOrArray => {
                Schema { go_type: Some("v1.JSONSchemaProps".into()), ..(*props).clone() }
            }
            _ => Schema { kind: Some(Type::String), go_type: Some("string".into()), ..Schema::default() },
        };
        let list = Schema { kind: Some(Type::Array), items: Some(Arc::new(element)), ..Schema::default() };
        let mut state = Value::Null;
        let step = match (raw, special) {
            (Raw::Object(_), _) => inner.value(raw, &props, &mut state, depth + 1),
            (Raw::Bool(b), Special::SchemaOrBool) => {
                state = (*b).into();
                Ok(())
            }
            (_, Special::SchemaOrBool) => Err(DecodeError("boolean or JSON schema expected".into())),
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

    fn object_to(&mut self, objection: fn(String) -> Strict, key: &str) {
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

    /// Keeps the first error; the others are not even worded.
    fn mismatched(&mut self, found: impl fmt::Display, go_type: &str) {
        if self.saved.is_none() {
            self.saved = Some(self.mismatch(&found.to_string(), go_type));
        }
    }

    fn save(&mut self, error: DecodeError) {
        self.saved.get_or_insert(error);
    }

    fn mismatch(&self, found: &str, go_type: &str) -> DecodeError {
        DecodeError(if self.fields.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {go_type}")
        } else {
            let (outer, fields) = (&self.outer, self.fields.join("."));
            format!("json: cannot unmarshal {found} into Go struct field {outer}.{fields} of type {go_type}")
        })
    }

    /// A mismatch inside a value that reads itself is reported under the field that holds the value.
    fn add_context(&self, error: DecodeError) -> DecodeError {
        let parts = error.0.strip_prefix("json: cannot unmarshal ").and_then(|rest| {
            let (found, rest) = rest.split_once(" into Go ")?;
            let (place, go_type) = rest.rsplit_once(" of type ")?;
            let inner = place.strip_prefix("struct field ").and_then(|place| place.split_once('.'));
            Some((found, inner.map(|(_, fields)| fields), go_type))
        });
        let Some((found, inner, go_type)) = parts.filter(|_| !self.fields.is_empty()) else { return error };
        let fields: Vec<&str> = self.fields.iter().map(String::as_str).chain(inner).collect();
        let (outer, fields) = (&self.outer, fields.join("."));
        DecodeError(format!(
            "json: cannot unmarshal {found} into Go struct field {outer}.{fields} of type {go_type}"
        ))
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

/// Base64 as Go's `StdEncoding` reads it: padded, line breaks ignored. Errors: Go's words, with the offset.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    // Go does not insist on zero bits after the last byte.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
            .with_decode_allow_trailing_bits(true),
    );
    let compact: Cow<'_, str> = if text.contains(['\r', '\n']) {
        text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect::<String>().into()
    } else {
        text.into()
    };
    ENGINE
        .decode(compact.as_bytes())
        .map_err(|_| format!("illegal base64 data at input byte {}", base64_error_offset(text)))
}

/// Where Go's decoder stops (`encoding/base64`, `decodeQuantum`).
fn base64_error_offset(text: &str) -> usize {
    let bytes = text.as_bytes();
    let line_break = |b: u8| b == b'\r' || b == b'\n';
    let skip = |mut at: usize| {
        while at < bytes.len() && line_break(bytes[at]) {
            at += 1;
        }
        at
    };
    let mut at = 0;
    let mut in_quantum = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        if line_break(byte) {
            continue;
        }
        if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' {
            in_quantum = (in_quantum + 1) % 4;
            continue;
        }
        if byte != b'=' || in_quantum < 2 {
            return at - 1;
        }
        let mut next = skip(at);
        if in_quantum == 2 {
            if next == bytes.len() {
                return bytes.len();
            }
            if bytes[next] != b'=' {
                return next - 1;
            }
            next = skip(next + 1);
        }
        // Only what follows the padding can still be wrong.
        return next;
    }
    at - in_quantum
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::json;
    use serde_json::json;

    const CORE: &str = "io.k8s.api.core.v1";

    fn decode_text(definition: &str, text: &str) -> Result<Typed, DecodeError> {
        decode(&json::parse(text.as_bytes()).unwrap(), &openapi::builtin(definition))
    }

    fn value(definition: &str, text: &str) -> Value {
        decode_text(definition, text).unwrap().value
    }

    fn error(definition: &str, text: &str) -> String {
        decode_text(definition, text).unwrap_err().0
    }

    #[test]
    fn errors_name_the_struct_and_the_path() {
        let field = |what: &str, place: &str, go_type: &str| {
            format!("json: cannot unmarshal {what} into Go struct field {place} of type {go_type}")
        };
        for (definition, text, expected) in [
            (
                "io.k8s.api.core.v1.ConfigMap",
                r#"{"data":{"k":1}}"#,
                field("number", "ConfigMap.data", "string"),
            ),
            (
                "io.k8s.api.core.v1.ConfigMap",
                r#"{"data":["a"]}"#,
                field("array", "ConfigMap.data", "map[string]string"),
            ),
            (
                "io.k8s.api.core.v1.ConfigMap",
                r#"{"metadata":{"name":5}}"#,
                field("number", "ObjectMeta.metadata.name", "string"),
            ),
            (
                "io.k8s.api.core.v1.ConfigMap",
                r#"{"metadata":"x"}"#,
                field("string", "ConfigMap.metadata", "v1.ObjectMeta"),
            ),
            (
                "io.k8s.api.core.v1.ConfigMap",
                r#"{"metadata":{"creationTimestamp":5}}"#,
                field("number", "ObjectMeta.metadata.creationTimestamp", "string"),
            ),
            ("io.k8s.api.core.v1.Secret", r#"{"data":{"k":5}}"#, field("number", "Secret.data", "[]uint8")),
            (
                "io.k8s.api.core.v1.ServiceAccount",
                r#"{"secrets":{"name":"x"}}"#,
                field("object", "ServiceAccount.secrets", "[]v1.ObjectReference"),
            ),
            (
                "io.k8s.api.authentication.v1.TokenRequest",
                r#"{"spec":[]}"#,
                field("array", "TokenRequest.spec", "v1.TokenRequestSpec"),
            ),
            (
                "io.k8s.api.authentication.v1.TokenRequest",
                r#"{"spec":{"expirationSeconds":6e2}}"#,
                field("number 6e2", "TokenRequestSpec.spec.expirationSeconds", "int64"),
            ),
            (
                "io.k8s.api.coordination.v1.Lease",
                r#"{"spec":{"leaseDurationSeconds":4294967296}}"#,
                field("number 4294967296", "LeaseSpec.spec.leaseDurationSeconds", "int32"),
            ),
            (
                "io.k8s.api.rbac.v1.Role",
                r#"{"rules":[{"verbs":"get"}]}"#,
                field("string", "PolicyRule.rules.verbs", "[]string"),
            ),
            (
                "io.k8s.api.certificates.v1.CertificateSigningRequest",
                r#"{"spec":{"usages":"x"}}"#,
                field("string", "CertificateSigningRequestSpec.spec.usages", "[]v1.KeyUsage"),
            ),
            (
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                r#"{"labels":{"n":1}}"#,
                field("number", "ObjectMeta.labels", "string"),
            ),
            (
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                r#""x""#,
                "json: cannot unmarshal string into Go value of type v1.ObjectMeta".into(),
            ),
        ] {
            assert_eq!(error(definition, text), expected, "{text}");
        }
    }

    #[test]
    fn the_first_mismatch_counts_unless_a_value_reads_itself() {
        let text = r#"{"data":{"k":1},"metadata":{"name":5}}"#;
        assert!(error(&format!("{CORE}.ConfigMap"), text).contains("ConfigMap.data"));
        let text = r#"{"data":{"k":1},"metadata":{"creationTimestamp":"yesterday"}}"#;
        assert!(error(&format!("{CORE}.ConfigMap"), text).starts_with("parsing time \"yesterday\""));
    }

    #[test]
    fn base64_is_checked_and_normalised() {
        let secret = format!("{CORE}.Secret");
        for (text, offset) in [
            ("***", 0),
            ("not base64!", 3),
            ("dmFsdWU", 4),
            ("_-8=", 0),
            ("YQ=", 3),
            ("YQ=a", 2),
            ("YQ==YQ==", 4),
            ("YWI=x", 4),
        ] {
            let body = format!(r#"{{"data":{{"k":"{text}"}}}}"#);
            assert_eq!(
                error(&secret, &body),
                format!("illegal base64 data at input byte {offset}"),
                "{text}"
            );
        }
        let decoded = value(&secret, r#"{"data":{"a":"YR==","b":"Y\nQ==","c":[97,98],"d":null,"e":""}}"#);
        assert_eq!(decoded["data"], json!({"a": "YQ==", "b": "YQ==", "c": "YWI=", "d": null, "e": ""}));
    }

    #[test]
    fn empty_members_go_away_and_structs_stay() {
        for (definition, text, expected) in [
            (
                "io.k8s.api.core.v1.ServiceAccount",
                r#"{"secrets":[],"automountServiceAccountToken":false}"#,
                json!({"metadata": {}, "automountServiceAccountToken": false}),
            ),
            (
                "io.k8s.api.core.v1.ConfigMap",
                r#"{"data":{"k":null},"immutable":null,"x":1}"#,
                json!({"metadata": {}, "data": {"k": ""}}),
            ),
            ("io.k8s.api.rbac.v1.Role", "{}", json!({"metadata": {}, "rules": null})),
            (
                "io.k8s.api.authentication.v1.TokenRequest",
                "null",
                json!({"metadata": {}, "spec": {"audiences": null, "boundObjectRef": null, "expirationSeconds": null}, "status": {"token": "", "expirationTimestamp": null}}),
            ),
            (
                "io.k8s.api.authentication.v1.TokenReview",
                r#"{"status":{"authenticated":false}}"#,
                json!({"metadata": {}, "spec": {}, "status": {"user": {}}}),
            ),
            (
                "io.k8s.api.core.v1.ServiceAccount",
                r#"{"imagePullSecrets":[{"name":""},null]}"#,
                json!({"metadata": {}, "imagePullSecrets": [{}, {}]}),
            ),
        ] {
            assert_eq!(value(definition, text), expected, "{text}");
        }
    }

    #[test]
    fn strict_objections_keep_their_order() {
        let body = r#"{"spec":{"bogus":1,"audiences":["a"],"audiences":["b"]},"kind":"x","kind":"y","metadata":{"nom":1},"spec":{"expirationSeconds":5}}"#;
        let typed = decode_text("io.k8s.api.authentication.v1.TokenRequest", body).unwrap();
        let texts: Vec<String> = typed.strict.iter().map(Strict::to_string).collect();
        assert_eq!(
            texts,
            [
                "unknown field \"spec.bogus\"",
                "duplicate field \"spec.audiences\"",
                "duplicate field \"kind\"",
                "unknown field \"metadata.nom\"",
                "duplicate field \"spec\""
            ]
        );
        // What is given twice adds up.
        assert_eq!(typed.value["spec"]["audiences"], json!(["b"]));
        assert_eq!(typed.value["spec"]["expirationSeconds"], json!(5));
    }

    #[test]
    fn values_that_read_themselves_are_normalised() {
        let pod = value(
            &format!("{CORE}.Pod"),
            r#"{"metadata":{"creationTimestamp":"2026-01-02T05:04:05.9+02:00"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"livenessProbe":{"httpGet":{"port":"http"}}}]}}"#,
        );
        assert_eq!(pod["metadata"]["creationTimestamp"], json!("2026-01-02T03:04:05Z"));
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
        assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], json!("http"));
    }

    #[test]
    fn a_crd_schema_is_decoded_to_any_depth_that_can_be_stored() {
        let definition = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceValidation";
        let body = r#"{"openAPIV3Schema":{"type":"object","x-note":1,"properties":{"a":{"type":"array","items":{"type":"string","junk":1,"default":null}},"b":{"additionalProperties":true},"c":{"additionalProperties":{"default":{"z":1.0}}},"d":{"maximum":3.0}}}}"#;
        let typed = decode_text(definition, body).unwrap();
        assert_eq!(typed.strict, [Strict::Unknown("openAPIV3Schema.x-note".into())]);
        assert_eq!(
            typed.value["openAPIV3Schema"]["properties"],
            json!({
                "a": {"type": "array", "items": {"type": "string"}},
                "b": {"additionalProperties": true},
                "c": {"additionalProperties": {"default": {"z": 1.0}}},
                "d": {"maximum": 3}
            })
        );
        let deep = format!("{}{}{}", "{\"not\":".repeat(5000), "{}", "}".repeat(5000));
        assert_eq!(error(JSON_SCHEMA_PROPS, &deep), "exceeded max depth");
    }

    #[test]
    fn the_store_does_not_tell_nothing_from_empty() {
        let stored = |definition: &str, text: &str| {
            let schema = openapi::builtin(&format!("io.k8s.api.{definition}"));
            as_stored(&value(&format!("io.k8s.api.{definition}"), text), &schema)
        };
        assert_eq!(
            stored("core.v1.Secret", r#"{"data":{"k":null,"e":""}}"#)["data"],
            json!({"k": "", "e": ""})
        );
        assert_eq!(stored("rbac.v1.ClusterRole", r#"{"rules":[]}"#)["rules"], json!(null));
        let pod =
            stored("core.v1.Pod", r#"{"spec":{"volumes":[{"name":"a","emptyDir":{}}],"containers":[]}}"#);
        assert_eq!(pod["spec"], json!({"containers": null, "volumes": [{"name": "a", "emptyDir": {}}]}));
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        let role = json!({"metadata": {"name": "r", "labels": {}}, "rules": [{"verbs": ["get"], "x": 1}]});
        let schema = openapi::builtin("io.k8s.api.rbac.v1.Role");
        let once = normalise(&role, &schema).unwrap();
        assert_eq!(once.value, json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]}));
        assert_eq!(normalise(&once.value, &schema).unwrap().value, once.value);
    }

    #[test]
    fn long_keys_are_not_copied_for_each_member_below_them() {
        let long = "k".repeat(1_000_000);
        let unknown = r#""x-note":1,"type":1,"#.repeat(50_000);
        let text = format!(r#"{{"properties":{{"{long}":{{{unknown}"title":2}}}}}}"#);
        let raw = json::parse(text.as_bytes()).unwrap();
        let schema = openapi::builtin(JSON_SCHEMA_PROPS);
        assert!(decode(&raw, &schema).unwrap_err().0.ends_with("type of type string"));
        let text = text.replace(r#""type":1,"#, "").replace("2}", r#""t"}"#);
        let typed = decode(&json::parse(text.as_bytes()).unwrap(), &schema).unwrap();
        assert_eq!(typed.strict, [Strict::Unknown(format!("properties.{long}.x-note"))]);
    }
}
