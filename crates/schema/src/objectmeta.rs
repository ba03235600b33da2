//! Metadata of custom objects, at their root and in embedded resources: reading it as Go reads `ObjectMeta`
//! (wrong types are errors, unknown fields go), and validating what is embedded
//! (`apiextensions-apiserver/pkg/apiserver/schema/objectmeta/{coerce,algorithm,validation}.go`).

use crate::Schema;
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::validation::{metadata, names};
use serde_json::{Map, Value};

/// The Go type of a field.
enum Go {
    Text,
    Int,
    Bool,
    Time,
    Raw,
    Map(&'static Go),
    List(&'static Go, &'static str),
    Struct(&'static str, &'static [(&'static str, Go)]),
}

static OBJECT_META: Go = Go::Struct(
    "ObjectMeta",
    &[
        ("name", Go::Text),
        ("generateName", Go::Text),
        ("namespace", Go::Text),
        ("selfLink", Go::Text),
        ("uid", Go::Text),
        ("resourceVersion", Go::Text),
        ("generation", Go::Int),
        ("creationTimestamp", Go::Time),
        ("deletionTimestamp", Go::Time),
        ("deletionGracePeriodSeconds", Go::Int),
        ("labels", Go::Map(&Go::Text)),
        ("annotations", Go::Map(&Go::Text)),
        ("ownerReferences", Go::List(&OWNER, "[]v1.OwnerReference")),
        ("finalizers", Go::List(&Go::Text, "[]string")),
        ("managedFields", Go::List(&MANAGED, "[]v1.ManagedFieldsEntry")),
    ],
);
static OWNER: Go = Go::Struct(
    "OwnerReference",
    &[
        ("apiVersion", Go::Text),
        ("kind", Go::Text),
        ("name", Go::Text),
        ("uid", Go::Text),
        ("controller", Go::Bool),
        ("blockOwnerDeletion", Go::Bool),
    ],
);
static MANAGED: Go = Go::Struct(
    "ManagedFieldsEntry",
    &[
        ("manager", Go::Text),
        ("operation", Go::Text),
        ("apiVersion", Go::Text),
        ("time", Go::Time),
        ("fieldsType", Go::Text),
        ("fieldsV1", Go::Raw),
        ("subresource", Go::Text),
    ],
);

/// Reads `object.metadata` as Go's `ObjectMeta` and writes it back without unknown and empty fields. Returns
/// the paths of the unknown ones below `prefix`; the error is what Go's JSON decoder says.
pub(crate) fn coerce_metadata(object: &mut Map<String, Value>, prefix: &str) -> Result<Vec<String>, String> {
    let Some(metadata) = object.get("metadata") else { return Ok(Vec::new()) };
    let mut reader = Reader { unknown: Vec::new(), fields: Vec::new(), structs: Vec::new() };
    let read = reader.read(metadata, &OBJECT_META)?;
    let base = if prefix.is_empty() { "metadata".into() } else { format!("{prefix}.metadata") };
    object.insert("metadata".into(), read.unwrap_or_else(|| Map::new().into()));
    Ok(reader.unknown.into_iter().map(|path| format!("{base}.{path}")).collect())
}

struct Reader {
    unknown: Vec<String>,
    fields: Vec<String>,
    structs: Vec<&'static str>,
}

impl Reader {
    /// The value, or `None` if Go would leave it out.
    fn read(&mut self, value: &Value, go: &'static Go) -> Result<Option<Value>, String> {
        let wrong = |found: String| Err(self.mismatch(&found, go));
        Ok(match (go, value) {
            (_, Value::Null) => None,
            (Go::Raw, value) => Some(value.clone()),
            (Go::Text, Value::String(text)) => (!text.is_empty()).then(|| value.clone()),
            (Go::Bool, Value::Bool(_)) => Some(value.clone()),
            (Go::Int, Value::Number(number)) => match number.as_i64() {
                Some(0) => None,
                Some(_) => Some(value.clone()),
                None => return wrong(format!("number {number}")),
            },
            (Go::Time, Value::String(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    return Err(format!(
                        "parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as \"2006\"",
                        fleetpass_apimachinery::field::go_quote(text)
                    ));
                }
                Some(value.clone())
            }
            (Go::Time, other) => {
                return Err(format!("json: cannot unmarshal {} into Go value of type string", word(other)));
            }
            (Go::Map(of), Value::Object(members)) => {
                let mut out = Map::new();
                for (key, member) in members {
                    // Go keeps a null and an empty text as the empty text.
                    let read = self.read(member, of)?.unwrap_or_else(|| "".into());
                    out.insert(key.clone(), read);
                }
                (!out.is_empty()).then(|| out.into())
            }
            (Go::List(of, _), Value::Array(elements)) => {
                let mut out = Vec::new();
                for (index, element) in elements.iter().enumerate() {
                    self.fields.push(format!("[{index}]"));
                    let empty = if matches!(of, Go::Text) { Value::from("") } else { Map::new().into() };
                    out.push(self.read(element, of)?.unwrap_or(empty));
                    self.fields.pop();
                }
                (!out.is_empty()).then(|| out.into())
            }
            (Go::Struct(name, fields), Value::Object(members)) => {
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
                Some(out.into())
            }
            (_, other) => return wrong(word(other).into()),
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

    fn mismatch(&self, found: &str, go: &Go) -> String {
        let kind = match go {
            Go::Text => "string".into(),
            Go::Int => "int64".into(),
            Go::Bool => "bool".into(),
            Go::Time => "v1.Time".into(),
            Go::Raw => "v1.FieldsV1".into(),
            Go::Map(_) => "map[string]string".into(),
            Go::List(_, name) => (*name).to_string(),
            Go::Struct(name, _) => format!("v1.{name}"),
        };
        match self.structs.last() {
            None => format!("json: cannot unmarshal {found} into Go value of type {kind}"),
            Some(name) => {
                let path = self.path(false);
                format!("json: cannot unmarshal {found} into Go struct field {name}.{path} of type {kind}")
            }
        }
    }
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
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
                let before = members.get("metadata").cloned();
                match coerce_metadata(members, path.as_str()) {
                    Ok(found) => unknown.extend(found),
                    Err(why) => {
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
    for mut error in metadata::validate(&whole, namespaced, &names::is_path_segment) {
        error.field = path.child(error.field.as_str());
        errors.push(error);
    }
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
                (result, expected) => assert_eq!(result.unwrap_err(), expected.unwrap_err()),
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
