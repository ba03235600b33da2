//! The schemas of the built-in kinds, read from the OpenAPI document that kube-apiserver publishes, and from
//! a table of what Go's struct tags add to it.
//!
//! `data/openapi-schemas.json` holds the `components.schemas` of the v1.36 documents without descriptions.
//! `data/go-fields.json` holds, for each definition and field, the Go type and the tag options of the struct
//! field (`*int64 o`: a pointer with `omitempty`; `z` stands for `omitzero`), and the embedded struct that the
//! field is part of, if any (`string o TypeMeta`).

use crate::go::{Field, Special};
use crate::json_type::Type;
use crate::model::{ListType, PatchStrategy, Schema};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

/// The definitions of the built-in kinds by name.
pub const DOCUMENT: &str = include_str!("../data/openapi-schemas.json");
const GO_FIELDS: &str = include_str!("../data/go-fields.json");

/// The definition of object metadata.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The definition of the schema in a CRD; it contains itself.
pub(crate) const JSON_SCHEMA_PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

static BUILTIN: LazyLock<Builtin> = LazyLock::new(Builtin::load);

struct Builtin {
    schemas: HashMap<String, Arc<Schema>>,
    /// Definitions by `group/version/kind` (`x-kubernetes-group-version-kind`).
    kinds: HashMap<String, String>,
}

/// The schema of a definition such as `io.k8s.api.core.v1.Secret`.
///
/// # Panics
/// If the embedded document has no such definition. Names come from code, never from a request: use [`find`]
/// where that is not so.
pub fn builtin(definition: &str) -> Arc<Schema> {
    find(definition).unwrap_or_else(|| panic!("the embedded OpenAPI document does not define {definition}"))
}

/// The schema of a definition, if the embedded document has it.
fn find(definition: &str) -> Option<Arc<Schema>> {
    BUILTIN.schemas.get(definition).cloned()
}

/// The schema itself, or the definition that it refers to ([`Schema::reference`]).
///
/// # Panics
/// If the embedded document does not have the definition; [`builtin`] gives only references that it has.
pub fn resolve(schema: &Arc<Schema>) -> Arc<Schema> {
    match &schema.reference {
        Some(name) => builtin(name),
        None => Arc::clone(schema),
    }
}

/// The schema of a kind of a group (empty: core) and version, if the embedded document has it.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    find(BUILTIN.kinds.get(&format!("{group}/{version}/{kind}"))?)
}

impl Builtin {
    fn load() -> Self {
        let document = serde_json::from_str(DOCUMENT).expect("the embedded OpenAPI document is JSON");
        let go = serde_json::from_str(GO_FIELDS).expect("the embedded table of Go fields is JSON");
        let mut loader = Loader { document: &document, go: &go, done: HashMap::new(), open: Vec::new() };
        let mut kinds = HashMap::new();
        for (name, definition) in document.as_object().into_iter().flatten() {
            loader.definition(name);
            let gvks = definition["x-kubernetes-group-version-kind"].as_array();
            for gvk in gvks.into_iter().flatten() {
                let text = |key: &str| gvk[key].as_str().unwrap_or_default();
                kinds.insert(format!("{}/{}/{}", text("group"), text("version"), text("kind")), name.clone());
            }
        }
        Self { schemas: loader.done, kinds }
    }
}

struct Loader<'a> {
    document: &'a Value,
    go: &'a Value,
    done: HashMap<String, Arc<Schema>>,
    /// The definitions that are being read: one of them inside itself becomes a reference by name.
    open: Vec<String>,
}

impl Loader<'_> {
    fn definition(&mut self, name: &str) -> Arc<Schema> {
        if let Some(schema) = self.done.get(name) {
            return Arc::clone(schema);
        }
        if self.open.iter().any(|open| open == name) {
            return Arc::new(Schema { reference: Some(name.into()), ..Schema::default() });
        }
        self.open.push(name.into());
        let document = self.document;
        let mut schema = self.node(&document[name], &go_name(name), &self.go[name]);
        schema.special = special(name).or(schema.special);
        if schema.special == Some(Special::Any) {
            schema.preserve_unknown_fields = true;
        }
        self.open.pop();
        let schema = Arc::new(schema);
        self.done.insert(name.into(), Arc::clone(&schema));
        schema
    }

    /// One node; `fields` are the Go fields of its properties, where it is a definition.
    fn node(&mut self, json: &Value, go_type: &str, fields: &Value) -> Schema {
        let mut schema = match reference(json) {
            Some(name) => (*self.definition(name)).clone(),
            None => Schema::default(),
        };
        read_keywords(json, &mut schema);
        if !go_type.is_empty() {
            schema.go_type = Some(go_type.into());
        } else if schema.go_type.is_none() {
            schema.go_type = Some(basic_go_type(&schema).into());
        }
        if schema.format.as_deref() == Some("byte") {
            schema.special = Some(Special::Bytes);
        }
        if let Some(properties) = json["properties"].as_object() {
            schema.properties = properties
                .iter()
                .map(|(name, property)| (name.clone(), self.property(property, &fields[name])))
                .collect::<BTreeMap<_, _>>();
        }
        if json["additionalProperties"].is_object() {
            let element = go_type.split_once(']').filter(|_| go_type.starts_with("map[")).map_or("", |x| x.1);
            schema.additional =
                Some(Arc::new(self.node(&json["additionalProperties"], element, &Value::Null)));
        }
        if json["items"].is_object() {
            let element = go_type.strip_prefix("[]").unwrap_or_default();
            schema.items = Some(Arc::new(self.node(&json["items"], element, &Value::Null)));
        }
        schema
    }

    fn property(&mut self, json: &Value, field: &Value) -> Arc<Schema> {
        let mut words = field.as_str().unwrap_or_default().split(' ');
        let (go_type, options) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let target = go_type.trim_start_matches('*');
        let mut schema = self.node(json, target, &Value::Null);
        schema.go = Field {
            pointer: go_type.starts_with('*'),
            omit_empty: options.contains('o'),
            omit_zero: options.contains('z'),
            embedded: words.next().map(str::to_string),
        };
        Arc::new(schema)
    }
}

fn read_keywords(json: &Value, schema: &mut Schema) {
    let text = |key: &str| json[key].as_str();
    let list = |key: &str| -> Vec<String> {
        let items = json[key].as_array().into_iter().flatten();
        items.filter_map(|v| v.as_str().map(str::to_string)).collect()
    };
    schema.kind = text("type").and_then(Type::from_name).or(schema.kind);
    if let Some(format) = text("format") {
        schema.format = Some(format.into());
    }
    if json["required"].is_array() {
        schema.required = list("required");
    }
    if let Some(default) = json.get("default") {
        schema.default = Some(default.clone());
    }
    match text("x-kubernetes-list-type") {
        Some("set") => schema.list_type = ListType::Set,
        Some("map") => schema.list_type = ListType::Map(list("x-kubernetes-list-map-keys")),
        Some("atomic") => schema.list_type = ListType::Atomic,
        _ => {}
    }
    if text("x-kubernetes-map-type") == Some("atomic") {
        schema.atomic = true;
    }
    if let Some(strategies) = text("x-kubernetes-patch-strategy") {
        schema.patch = PatchStrategy {
            merge: strategies.split(',').any(|s| s == "merge"),
            retain_keys: strategies.split(',').any(|s| s == "retainKeys"),
            merge_key: text("x-kubernetes-patch-merge-key").map(Into::into),
        };
    }
}

/// The definition that a node refers to: `$ref`, or an `allOf` of one `$ref` (beside a default).
fn reference(json: &Value) -> Option<&str> {
    let target = json["$ref"].as_str().or_else(|| json["allOf"][0]["$ref"].as_str())?;
    target.rsplit('/').next()
}

/// A definition's type as Go prints it: the package is the last part but one of the name.
fn go_name(definition: &str) -> String {
    let mut parts = definition.rsplit('.');
    let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{name}")
}

fn basic_go_type(schema: &Schema) -> &'static str {
    match (schema.kind, schema.format.as_deref()) {
        (Some(Type::String), Some("byte")) => "[]uint8",
        (Some(Type::String), _) => "string",
        (Some(Type::Integer), Some("int32")) => "int32",
        (Some(Type::Integer), _) => "int64",
        (Some(Type::Number), _) => "float64",
        (Some(Type::Boolean), _) => "bool",
        (Some(Type::Array), _) => "[]interface {}",
        (Some(Type::Object), _) => "map[string]interface {}",
        (None, _) => "interface {}",
    }
}

fn special(definition: &str) -> Option<Special> {
    Some(match definition.rsplit_once('.')?.1 {
        "Time" => Special::Time,
        "MicroTime" => Special::MicroTime,
        "Quantity" => Special::Quantity,
        "IntOrString" => Special::IntOrString,
        "FieldsV1" | "JSON" | "RawExtension" => Special::Any,
        "JSONSchemaPropsOrArray" => Special::SchemaOrArray,
        "JSONSchemaPropsOrBool" => Special::SchemaOrBool,
        "JSONSchemaPropsOrStringArray" => Special::SchemaOrStringArray,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(definition: &str, path: &[&str]) -> Arc<Schema> {
        path.iter().fold(builtin(definition), |schema, name| match *name {
            "[]" => schema.items.clone().unwrap(),
            "{}" => schema.additional.clone().unwrap(),
            name => schema.properties[name].clone(),
        })
    }

    #[test]
    fn go_types_are_those_of_decoding_errors() {
        for (definition, path, go_type) in [
            ("io.k8s.api.core.v1.Secret", &[][..], "v1.Secret"),
            ("io.k8s.api.core.v1.Secret", &["data"], "map[string][]uint8"),
            ("io.k8s.api.core.v1.Secret", &["data", "{}"], "[]uint8"),
            ("io.k8s.api.core.v1.ServiceAccount", &["secrets"], "[]v1.ObjectReference"),
            ("io.k8s.api.core.v1.ServiceAccount", &["automountServiceAccountToken"], "bool"),
            ("io.k8s.api.core.v1.ConfigMap", &["metadata", "uid"], "types.UID"),
            ("io.k8s.api.core.v1.ConfigMap", &["metadata", "creationTimestamp"], "v1.Time"),
            ("io.k8s.api.certificates.v1.CertificateSigningRequestSpec", &["usages"], "[]v1.KeyUsage"),
            ("io.k8s.api.certificates.v1.CertificateSigningRequestSpec", &["usages", "[]"], "v1.KeyUsage"),
            ("io.k8s.api.authentication.v1.TokenReview", &["status", "user", "extra", "{}"], "v1.ExtraValue"),
            ("io.k8s.api.core.v1.Pod", &["spec", "overhead"], "v1.ResourceList"),
            ("io.k8s.api.core.v1.Pod", &["spec", "overhead", "{}"], "resource.Quantity"),
        ] {
            assert_eq!(at(definition, path).go_type.as_deref(), Some(go_type), "{definition} {path:?}");
        }
    }

    #[test]
    fn extensions_are_read() {
        let secrets = at("io.k8s.api.core.v1.ServiceAccount", &["secrets"]);
        assert_eq!(secrets.list_type, ListType::Map(vec!["name".into()]));
        assert_eq!(secrets.patch.merge_key.as_deref(), Some("name"));
        assert!(secrets.patch.merge);
        assert!(at("io.k8s.api.rbac.v1.RoleBinding", &["roleRef"]).atomic);
        assert!(at("io.k8s.api.core.v1.ServiceAccount", &["automountServiceAccountToken"]).go.pointer);
        assert!(at("io.k8s.api.core.v1.Secret", &["metadata", "creationTimestamp"]).go.omit_zero);
    }

    #[test]
    fn a_schema_inside_itself_is_resolved_when_asked() {
        let nested = at(JSON_SCHEMA_PROPS, &["properties", "{}"]);
        assert_eq!(nested.reference.as_deref(), Some(JSON_SCHEMA_PROPS));
        assert!(resolve(&nested).properties.contains_key("x-kubernetes-validations"));
    }

    #[test]
    fn kinds_are_found_by_group_version_and_kind() {
        assert!(find_kind("", "v1", "Secret").is_some());
        assert!(find_kind("authentication.k8s.io", "v1", "TokenRequest").is_some());
        assert!(find_kind("apps", "v1", "Secret").is_none());
    }
}
