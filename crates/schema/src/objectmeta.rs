//! Metadata of custom objects, at their root and in embedded resources: reading it as Go reads `ObjectMeta`
//! (wrong types are errors, unknown fields go), and validating what is embedded
//! (`apiextensions-apiserver/pkg/apiserver/schema/objectmeta/{coerce,algorithm,validation}.go`).

use crate::error::{DecodeError, Found, GoField, TimeError, TimeLayout, TimeProblem, TypeMismatch};
use crate::{Schema, Type, go};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::validation::{metadata, names};
use serde_json::{Map, Value};

/// The Go type of a field.
enum GoType {
    String,
    Int64,
    Bool,
    /// `metav1.Time`.
    Time,
    /// `metav1.FieldsV1`: any JSON.
    FieldsV1,
    /// `map[string]` of these.
    Map(&'static GoType),
    /// A slice of these, and its name in errors.
    Slice(&'static GoType, &'static str),
    /// A struct's name and fields.
    Struct(&'static str, &'static [(&'static str, GoType)]),
}

static OBJECT_META: GoType = GoType::Struct(
    "ObjectMeta",
    &[
        ("name", GoType::String),
        ("generateName", GoType::String),
        ("namespace", GoType::String),
        ("selfLink", GoType::String),
        ("uid", GoType::String),
        ("resourceVersion", GoType::String),
        ("generation", GoType::Int64),
        ("creationTimestamp", GoType::Time),
        ("deletionTimestamp", GoType::Time),
        ("deletionGracePeriodSeconds", GoType::Int64),
        ("labels", GoType::Map(&GoType::String)),
        ("annotations", GoType::Map(&GoType::String)),
        ("ownerReferences", GoType::Slice(&OWNER, "[]v1.OwnerReference")),
        ("finalizers", GoType::Slice(&GoType::String, "[]string")),
        ("managedFields", GoType::Slice(&MANAGED, "[]v1.ManagedFieldsEntry")),
    ],
);
static OWNER: GoType = GoType::Struct(
    "OwnerReference",
    &[
        ("apiVersion", GoType::String),
        ("kind", GoType::String),
        ("name", GoType::String),
        ("uid", GoType::String),
        ("controller", GoType::Bool),
        ("blockOwnerDeletion", GoType::Bool),
    ],
);
static MANAGED: GoType = GoType::Struct(
    "ManagedFieldsEntry",
    &[
        ("manager", GoType::String),
        ("operation", GoType::String),
        ("apiVersion", GoType::String),
        ("time", GoType::Time),
        ("fieldsType", GoType::String),
        ("fieldsV1", GoType::FieldsV1),
        ("subresource", GoType::String),
    ],
);

/// Reads `object.metadata` as Go's `ObjectMeta` and writes it back without unknown and empty fields. Returns
/// the paths of the unknown ones below `prefix`.
///
/// # Errors
/// The first value that Go's JSON decoder would refuse.
pub(crate) fn coerce_metadata(
    object: &mut Map<String, Value>,
    prefix: &str,
) -> Result<Vec<String>, DecodeError> {
    let Some(metadata) = object.get("metadata") else { return Ok(Vec::new()) };
    let mut reader = Reader { unknown: Vec::new(), fields: Vec::new(), structs: Vec::new() };
    let read = reader.read(metadata, &OBJECT_META)?;
    let base = if prefix.is_empty() { "metadata".into() } else { format!("{prefix}.metadata") };
    object.insert("metadata".into(), read.unwrap_or_else(|| Map::new().into()));
    Ok(reader.unknown.into_iter().map(|path| format!("{base}.{path}")).collect())
}

struct Reader {
    /// The paths of the fields that Go's types do not have, in the order in which they were met.
    unknown: Vec<String>,
    /// The fields and indexes (`[0]`) from the metadata to the value that is read.
    fields: Vec<String>,
    /// The structs around it, the innermost last.
    structs: Vec<&'static str>,
}

impl Reader {
    /// The value, or `None` if Go would leave it out.
    fn read(&mut self, value: &Value, go: &'static GoType) -> Result<Option<Value>, DecodeError> {
        Ok(match (go, value) {
            // Go leaves a field as it was, which is its zero value, where it reads null.
            (_, Value::Null) => None,
            (GoType::FieldsV1, value) => Some(value.clone()),
            (GoType::String, Value::String(text)) => (!text.is_empty()).then(|| value.clone()),
            (GoType::Bool, Value::Bool(_)) => Some(value.clone()),
            (GoType::Int64, Value::Number(number)) => match number.as_i64() {
                Some(0) => None,
                Some(_) => Some(value.clone()),
                None => return Err(self.mismatch(Found::UnfitNumber(number.to_string()), go)),
            },
            (GoType::Time, Value::String(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    let (text, layout) = (text.clone(), TimeLayout::Rfc3339);
                    return Err(TimeError { text, layout, problem: TimeProblem::Unreadable }.into());
                }
                Some(value.clone())
            }
            (GoType::Map(of), Value::Object(members)) => {
                let mut out = Map::new();
                for (key, member) in members {
                    // Go keeps a null and an empty text as the empty text.
                    let read = self.read(member, of)?.unwrap_or_else(|| "".into());
                    out.insert(key.clone(), read);
                }
                (!out.is_empty()).then(|| out.into())
            }
            (GoType::Slice(of, _), Value::Array(elements)) => {
                let mut out = Vec::new();
                for (index, element) in elements.iter().enumerate() {
                    self.fields.push(format!("[{index}]"));
                    // Elements are never left out: what Go would leave out of a struct is its zero value here.
                    let empty =
                        if matches!(of, GoType::String) { Value::from("") } else { Map::new().into() };
                    out.push(self.read(element, of)?.unwrap_or(empty));
                    self.fields.pop();
                }
                (!out.is_empty()).then(|| out.into())
            }
            (GoType::Struct(name, fields), Value::Object(members)) => {
                self.structs.push(name);
                let mut out = Map::new();
                for (key, member) in members {
                    self.fields.push(key.clone());
                    match fields.iter().find(|(field, _)| field == key) {
                        Some((_, go)) => {
                            if let Some(read) = self.read(member, go)? {
                                out.insert(key.clone(), read);
                            }
                        }
                        None => self.unknown.push(self.path(true)),
                    }
                    self.fields.pop();
                }
                self.structs.pop();
                // `omitempty` has no effect on a struct: it is printed even if it is empty.
                Some(out.into())
            }
            (_, other) => return Err(self.mismatch(other.into(), go)),
        })
    }

    fn path(&self, indexes: bool) -> String {
        let mut path = String::new();
        for field in &self.fields {
            let index = field.starts_with('[');
            if index && !indexes {
                continue;
            }
            if !index && !path.is_empty() {
                path.push('.');
            }
            path.push_str(field);
        }
        path
    }

    fn mismatch(&self, found: Found, go: &GoType) -> DecodeError {
        let (expected, go_type) = match go {
            GoType::String => (Type::String, "string".into()),
            GoType::Int64 => (Type::Integer, "int64".into()),
            GoType::Bool => (Type::Boolean, "bool".into()),
            // `Time` reads itself, as a string, and knows nothing of the fields around it.
            GoType::Time => (Type::String, "string".into()),
            GoType::FieldsV1 => (Type::Object, "v1.FieldsV1".into()),
            GoType::Map(_) => (Type::Object, "map[string]string".into()),
            GoType::Slice(_, name) => (Type::Array, (*name).to_string()),
            GoType::Struct(name, _) => (Type::Object, format!("v1.{name}")),
        };
        let outer = self.structs.last().filter(|_| !matches!(go, GoType::Time));
        let go_field = outer.map(|name| GoField { struct_name: (*name).into(), path: self.path(false) });
        TypeMismatch { path: self.path(true), found, expected, go_type, go_field }.into()
    }
}

/// Reads the metadata of embedded resources in `value` and checks the type of their `apiVersion` and `kind`.
/// Returns the paths of unknown metadata fields; the error carries the path of the resource.
pub fn coerce_embedded(value: &mut Value, schema: &Schema) -> Result<Vec<String>, Error> {
    let mut unknown = Vec::new();
    coerce_below(value, schema, &Path::default(), &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

fn coerce_below(
    value: &mut Value,
    schema: &Schema,
    path: &Path,
    unknown: &mut Vec<String>,
) -> Result<(), Error> {
    match value {
        Value::Object(members) => {
            if schema.embedded_resource {
                for name in ["apiVersion", "kind"] {
                    if let Some(other) = members.get(name).filter(|v| !v.is_string()) {
                        return Err(Error::invalid(&path.child(name), other.clone(), "must be a string"));
                    }
                }
                // Errors show the metadata as they were given.
                let before = members.get("metadata").cloned();
                match coerce_metadata(members, path.as_str()) {
                    Ok(found) => unknown.extend(found),
                    Err(why) => {
                        let why = go::Words(&why).to_string();
                        return Err(Error::invalid(&path.child("metadata"), before.unwrap_or_default(), why));
                    }
                }
            }
            for (name, member) in members {
                if let Some(property) = schema.properties.get(name) {
                    coerce_below(member, property, &path.child(name), unknown)?;
                } else if let Some(additional) = &schema.additional {
                    coerce_below(member, additional, &path.key(name), unknown)?;
                }
            }
        }
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return Ok(()) };
            for (index, element) in elements.iter_mut().enumerate() {
                coerce_below(element, items, &path.index(index), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The errors of the resources that are embedded in a custom object.
pub fn validate_embedded(value: &Value, schema: &Schema) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_below(value, schema, &Path::default(), &mut errors);
    errors
}

fn validate_below(value: &Value, schema: &Schema, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(members) => {
            if schema.embedded_resource {
                validate_resource(members, path, errors);
            }
            for (name, member) in members {
                if let Some(property) = schema.properties.get(name) {
                    validate_below(member, property, &path.child(name), errors);
                } else if let Some(additional) = &schema.additional {
                    validate_below(member, additional, &path.key(name), errors);
                }
            }
        }
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return };
            for (index, element) in elements.iter().enumerate() {
                validate_below(element, items, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn validate_resource(members: &Map<String, Value>, path: &Path, errors: &mut ErrorList) {
    // What is missing is told before what is wrong.
    for name in ["apiVersion", "kind"] {
        if !members.contains_key(name) {
            errors.push(Error::required(&path.child(name), ""));
        }
    }
    for name in ["apiVersion", "kind"] {
        let at = path.child(name);
        match members.get(name) {
            None => {}
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(Error::invalid(&at, "", "must not be empty"));
            }
            // `group/version` or `version`.
            Some(Value::String(text)) if name == "apiVersion" && text.matches('/').count() < 2 => {}
            Some(Value::String(text)) if name == "apiVersion" => {
                let detail = format!("unexpected GroupVersion string: {text}");
                errors.push(Error::invalid(&at, text.as_str(), detail));
            }
            Some(Value::String(text)) => {
                let wrong = names::is_dns1035_label(&text.to_lowercase(), false);
                if !wrong.is_empty() {
                    let detail =
                        format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(Error::invalid(&at, text.as_str(), detail));
                }
            }
            Some(other) => errors.push(Error::invalid(&at, other.clone(), "must be a string")),
        }
    }
    let Some(given) = members.get("metadata").and_then(Value::as_object) else { return };
    // A name may be missing here, but metadata without one is an error elsewhere: lend it one.
    let mut lent = given.clone();
    lent.entry("name").or_insert_with(|| "fakename".into());
    let namespaced = lent.contains_key("namespace");
    let whole = Value::from(Map::from_iter([("metadata".to_string(), lent.into())]));
    let found = metadata::validate(&whole, namespaced, &names::is_path_segment);
    errors.append(found.map(|error| Error { field: path.child(error.field.as_str()), ..error }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;
    use serde_json::json;

    #[test]
    fn reads_metadata_as_go_does() {
        for (metadata, expected) in [
            (json!("x"), Err("json: cannot unmarshal string into Go value of type v1.ObjectMeta")),
            (
                json!({"labels": {"a": 1}}),
                Err("json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"),
            ),
            (
                json!({"labels": ["n"]}),
                Err(
                    "json: cannot unmarshal array into Go struct field ObjectMeta.labels of type map[string]string",
                ),
            ),
            (
                json!({"creationTimestamp": 5}),
                Err("json: cannot unmarshal number into Go value of type string"),
            ),
            (
                json!({"creationTimestamp": "\u{e9}"}),
                Err(
                    "parsing time \"\u{e9}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\u{e9}\" as \"2006\"",
                ),
            ),
            (
                json!({"name": 5}),
                Err("json: cannot unmarshal number into Go struct field ObjectMeta.name of type string"),
            ),
            (json!(null), Ok((json!({}), vec![]))),
            (
                json!({"name": "a", "labels": {}, "nick": 1, "ownerReferences": [{"kind": "K", "x": 1}], "generation": 0}),
                Ok((
                    json!({"name": "a", "ownerReferences": [{"kind": "K"}]}),
                    vec!["metadata.nick", "metadata.ownerReferences[0].x"],
                )),
            ),
        ] {
            let mut object = Map::from_iter([("metadata".to_string(), metadata)]);
            match (coerce_metadata(&mut object, ""), expected) {
                (Ok(unknown), Ok((value, paths))) => {
                    assert_eq!(object["metadata"], value);
                    assert_eq!(unknown, paths);
                }
                (result, expected) => {
                    assert_eq!(go::Words(&result.unwrap_err()).to_string(), expected.unwrap_err());
                }
            }
        }
    }

    #[test]
    fn embedded_resources_need_a_sound_type_and_name() {
        let schema = crd::schema(&json!({"type": "object", "properties": {"emb": {
            "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
        for (emb, expected) in [
            (json!({"apiVersion": "v1"}), "emb.kind: Required value"),
            (
                json!({"apiVersion": "a/b/c", "kind": "C"}),
                "emb.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            ),
            (
                json!({"apiVersion": "v1", "kind": "C", "metadata": {"name": "a/b"}}),
                "emb.metadata.name: Invalid value: \"a/b\": may not contain '/'",
            ),
        ] {
            let errors = validate_embedded(&json!({"emb": emb}), &schema);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
        let mut bad = json!({"emb": {"apiVersion": "v1", "kind": "C", "metadata": {"labels": {"a": 1}}}});
        assert_eq!(
            coerce_embedded(&mut bad, &schema).unwrap_err().to_string(),
            "emb.metadata: Invalid value: {\"labels\":{\"a\":1}}: json: cannot unmarshal number into Go struct field \
             ObjectMeta.labels of type string"
        );
    }
}
