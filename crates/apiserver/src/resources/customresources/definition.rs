//! A definition as it was stored, read as far as the table of kinds needs it: its schemas stay text until a request needs them
//! ([`LazySchema`]), and what a version shares with the definition before the change is not made again.

use super::CustomKind;
use super::columns::printer_columns;
use crate::strategy::{LazySchema, ScalePaths};
use fleetpass_apimachinery::meta;
use fleetpass_schema::cel::Rules;
use fleetpass_schema::jsonpath::JsonPath;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::{Arc, OnceLock};

/// A definition without its schemas, and its versions.
pub(crate) struct Definition {
    /// The definition but for the schemas of its versions and for `metadata.managedFields`, which together are nearly all of it.
    pub(crate) outline: Value,
    /// In the order of `spec.versions`.
    versions: Vec<Arc<CustomVersion>>,
}

/// One version of a custom kind. Everything that grows with the schema is made at its first use, on the thread that needs it:
/// neither the cache nor a start waits for it.
pub(crate) struct CustomVersion {
    /// The version as the definition has it, without its schema.
    outline: Value,
    pub(super) schema: LazySchema,
    rules: OnceLock<Option<Rules>>,
    /// Whether it may take long to validate an object, or to compile what that needs. Told by the text of the schema: asking
    /// must not compile it.
    pub(super) is_heavy: bool,
    /// Whether it has the subresource `status`.
    pub(super) status: bool,
    pub(super) scale: Option<ScalePaths>,
    /// The columns beside the name: where the value is, and its type.
    pub(super) columns: Vec<(JsonPath, String)>,
    /// The fields that a selector may name, with the paths to their values.
    pub(super) selectable: Vec<(String, JsonPath)>,
}

/// Reading a schema of so many bytes takes a millisecond or more.
const LARGE_SCHEMA: usize = 64 * 1024;

/// The stored text. Only the schemas are not parsed: going over them takes a fraction of the time.
#[derive(Deserialize)]
struct Text<'a> {
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(borrow)]
    spec: SpecText<'a>,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecText<'a> {
    #[serde(default)]
    group: Value,
    #[serde(default)]
    names: Value,
    #[serde(default)]
    scope: Value,
    #[serde(default)]
    conversion: Value,
    #[serde(default)]
    preserve_unknown_fields: Value,
    #[serde(borrow, default)]
    versions: Vec<VersionText<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionText<'a> {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    served: Value,
    #[serde(default)]
    storage: Value,
    #[serde(default)]
    deprecated: Value,
    #[serde(default)]
    deprecation_warning: Value,
    #[serde(default)]
    subresources: Value,
    #[serde(default)]
    additional_printer_columns: Value,
    #[serde(default)]
    selectable_fields: Value,
    #[serde(borrow, default)]
    schema: Option<SchemaText<'a>>,
}

#[derive(Deserialize)]
struct SchemaText<'a> {
    #[serde(rename = "openAPIV3Schema", borrow, default)]
    open_api: Option<&'a RawValue>,
}

impl Definition {
    /// Reads a stored definition. Versions that are as in `before` are shared with it, and with all that was compiled of them.
    ///
    /// # Errors
    /// If the text is no definition, which the validation of definitions rules out.
    pub(crate) fn read(text: &[u8], before: Option<&Self>) -> serde_json::Result<Self> {
        let Text { mut metadata, spec, status } = serde_json::from_slice(text)?;
        metadata.remove("managedFields");
        let mut outlines = Vec::with_capacity(spec.versions.len());
        let mut versions = Vec::with_capacity(spec.versions.len());
        for (index, version) in spec.versions.into_iter().enumerate() {
            let schema = version.schema.as_ref().and_then(|s| s.open_api).map_or("", RawValue::get);
            let outline = Value::Object(version.outline());
            // By place: a version that moved is made anew, which costs its time and is right.
            let same = before
                .and_then(|before| before.versions.get(index))
                .filter(|before| before.outline == outline && before.schema.text() == schema);
            versions.push(match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(CustomVersion::new(outline.clone(), schema)),
            });
            outlines.push(outline);
        }
        let mut outline_spec = Map::new();
        for (field, value) in [
            ("group", spec.group),
            ("names", spec.names),
            ("scope", spec.scope),
            ("conversion", spec.conversion),
            ("preserveUnknownFields", spec.preserve_unknown_fields),
            ("versions", outlines.into()),
        ] {
            insert(&mut outline_spec, field, value);
        }
        let mut outline = Map::from_iter([
            ("metadata".to_string(), Value::Object(metadata)),
            ("spec".to_string(), Value::Object(outline_spec)),
        ]);
        insert(&mut outline, "status", status);
        Ok(Self { outline: Value::Object(outline), versions })
    }

    /// Whether the spec is the same, schemas included.
    pub(crate) fn has_spec_of(&self, other: &Self) -> bool {
        // Versions were compared when the later of the two was read.
        let same = |(a, b): (&Arc<CustomVersion>, &Arc<CustomVersion>)| Arc::ptr_eq(a, b);
        self.outline["spec"] == other.outline["spec"]
            && self.versions.len() == other.versions.len()
            && self.versions.iter().zip(&other.versions).all(same)
    }

    /// Whether all versions have the same schema, so that an object looks the same in each of them.
    pub(crate) fn versions_agree(&self) -> bool {
        let mut schemas = self.versions.iter().map(|version| version.schema.text());
        let first = schemas.next();
        schemas.all(|schema| Some(schema) == first)
    }

    /// The versions with their names and outlines.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&str, &Value, &Arc<CustomVersion>)> {
        self.versions.iter().map(|v| (meta::text(&v.outline, &["name"]), &v.outline, v))
    }
}

impl VersionText<'_> {
    /// The version without its schema. Absent members are left out.
    fn outline(&self) -> Map<String, Value> {
        let mut out = Map::new();
        for (field, value) in [
            ("name", &self.name),
            ("served", &self.served),
            ("storage", &self.storage),
            ("deprecated", &self.deprecated),
            ("deprecationWarning", &self.deprecation_warning),
            ("subresources", &self.subresources),
            ("additionalPrinterColumns", &self.additional_printer_columns),
            ("selectableFields", &self.selectable_fields),
        ] {
            insert(&mut out, field, value.clone());
        }
        out
    }
}

fn insert(members: &mut Map<String, Value>, field: &str, value: Value) {
    if !value.is_null() {
        members.insert(field.into(), value);
    }
}

impl CustomVersion {
    fn new(outline: Value, schema: &str) -> Self {
        let columns = printer_columns(&outline)
            .iter()
            .filter_map(|c| {
                let path = JsonPath::parse(meta::text(c, &["jsonPath"])).ok()?;
                // `printer_columns` has ended the list before the first path that cannot be parsed, so no column is
                // lost here.
                Some((path, meta::text(c, &["type"]).to_string()))
            })
            .collect();
        let scale = meta::at(&outline, &["subresources", "scale"]).map(|scale| ScalePaths {
            spec_replicas: meta::text(scale, &["specReplicasPath"]).into(),
            status_replicas: meta::text(scale, &["statusReplicasPath"]).into(),
            label_selector: scale.get("labelSelectorPath").and_then(Value::as_str).map(str::to_string),
        });
        let selectable = meta::list(&outline, &["selectableFields"])
            .iter()
            .filter_map(|f| {
                let path = meta::text(f, &["jsonPath"]);
                Some((path.trim_start_matches('.').to_string(), JsonPath::parse(path).ok()?))
            })
            .collect();
        Self {
            schema: LazySchema::of_crd(schema),
            rules: OnceLock::new(),
            is_heavy: schema.len() > LARGE_SCHEMA
                || schema.contains("\"x-kubernetes-validations\"")
                || has_repetitions(schema),
            status: meta::at(&outline, &["subresources", "status"]).is_some(),
            scale,
            columns,
            selectable,
            outline,
        }
    }

    /// The CEL rules of the schema, compiled when an object is validated for the first time; `None` if it has none.
    pub(super) fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| Rules::new(&self.schema, true)).as_ref()
    }
}

/// Whether a schema may have a pattern that repeats something ten times or more (`{10}`, `{0,63}`). In JSON text a brace is
/// followed by a digit only there, and in words for people.
fn has_repetitions(schema: &str) -> bool {
    schema.split('{').skip(1).any(|rest| {
        let counts = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b',');
        counts.filter(u8::is_ascii_digit).count() > 1
    })
}

impl CustomKind {
    /// The version of that name.
    pub(super) fn version(&self, name: &str) -> Option<&CustomVersion> {
        self.versions.get(name).map(|version| &**version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(schemas: &[Value]) -> Value {
        let version = |(index, schema): (usize, &Value)| {
            json!({"name": format!("v{}", index + 1), "served": true, "storage": index == 0,
                "schema": {"openAPIV3Schema": schema}})
        };
        let versions: Vec<Value> = schemas.iter().enumerate().map(version).collect();
        json!({"metadata": {"name": "widgets.example.com", "managedFields": [{"manager": "m"}]}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": versions}})
    }

    fn read(definition: &Value, before: Option<&Definition>) -> Definition {
        Definition::read(definition.to_string().as_bytes(), before).expect("a definition")
    }

    #[test]
    fn what_did_not_change_is_shared_and_nothing_is_read_before_it_is_needed() {
        let text = |kind: &str| json!({"type": "object", "properties": {"a": {"type": kind}}});
        let mut given = definition(&[text("string"), text("integer")]);
        let first = read(&given, None);
        assert!(first.outline["metadata"].get("managedFields").is_none());
        assert!(first.outline.pointer("/spec/versions/0/schema").is_none());
        assert!(!first.versions[0].schema.is_read());
        assert!(first.versions[0].schema.properties.contains_key("a"), "read at its first use");
        assert!(first.versions[0].schema.is_read() && !first.versions[1].schema.is_read());
        // Conditions change, no version does.
        given["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        let second = read(&given, Some(&first));
        assert!(second.has_spec_of(&first));
        // One schema changes: the other version stays, with what was read of it.
        given["spec"]["versions"][1]["schema"]["openAPIV3Schema"] = text("boolean");
        let third = read(&given, Some(&second));
        assert!(!third.has_spec_of(&second));
        assert!(Arc::ptr_eq(&third.versions[0], &first.versions[0]));
        assert!(!Arc::ptr_eq(&third.versions[1], &first.versions[1]));
        assert!(!third.versions[1].schema.is_read());
    }

    #[test]
    fn a_version_is_heavy_if_its_text_says_so_and_asking_compiles_nothing() {
        for (schema, heavy) in [
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{3}$"}}}),
                false,
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a{0,63}$"}}}),
                true,
            ),
            (json!({"type": "object", "x-kubernetes-validations": [{"rule": "true"}]}), true),
            (json!({"type": "object", "description": "d".repeat(LARGE_SCHEMA)}), true),
        ] {
            let definition = read(&definition(&[schema]), None);
            assert_eq!(definition.versions[0].is_heavy, heavy);
            assert!(!definition.versions[0].schema.is_read());
        }
    }

    #[test]
    fn versions_agree_if_their_schemas_are_the_same() {
        let (a, b) = (json!({"type": "object"}), json!({"type": "object", "description": "b"}));
        for (schemas, agree) in
            [(vec![a.clone()], true), (vec![a.clone(), a.clone()], true), (vec![a.clone(), a, b], false)]
        {
            assert_eq!(read(&definition(&schemas), None).versions_agree(), agree);
        }
    }
}
