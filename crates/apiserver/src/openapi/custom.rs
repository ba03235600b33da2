//! The schema of a custom kind as OpenAPI: the counterpart of `ToKubeOpenAPI` and of `buildKubeNative`
//! (`apiextensions-apiserver/pkg/apiserver/schema/kubeopenapi.go`, `pkg/controller/openapi/builder/builder.go`).

use super::names::{COMPONENTS, LIST_META, OBJECT_META, custom_name, gvk_extension};
use crate::strategy::{Resource, Version};
use fleetpass_apimachinery::gvk::GroupVersionKind;
use fleetpass_schema::{ListType, Schema, Type, ValidationRule, ValueValidation};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What a document can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAPI 3.0: everything.
    V3,
    /// Swagger 2.0 for old clients: no junctors, no defaults, nothing below a field that may be null or may hold
    /// anything (`apiextensions-apiserver/pkg/controller/openapi/v2/conversion.go`).
    V2,
}

/// The definition of one version of a custom kind.
pub(super) fn object(resource: &Resource, version: &Version, dialect: Dialect) -> Value {
    let gvk = GroupVersionKind::new(&resource.group, &version.name, &resource.kind);
    let schema = &version.schema;
    let mut out = if dialect == Dialect::V2 && schema.preserve_unknown_fields {
        // Any field that were named here would make old clients refuse all others.
        json!({"type": "object"})
    } else {
        let mut out = node(schema, dialect);
        add_meta(&mut out, "");
        out
    };
    // By this extension clients find the definition of a kind; its name is for references only.
    out["x-kubernetes-group-version-kind"] = json!([gvk_extension(&gvk)]);
    let fields: Vec<Value> = resource
        .selectable_fields
        .iter()
        .filter(|label| is_selectable(resource, &version.name, label))
        .map(|label| json!({"fieldPath": label}))
        .collect();
    if !fields.is_empty() {
        out["x-kubernetes-selectable-fields"] = fields.into();
    }
    out
}

fn is_selectable(resource: &Resource, version: &str, label: &str) -> bool {
    match &resource.backing {
        crate::strategy::Backing::Stored(strategy) => strategy.is_selectable(version, label),
        crate::strategy::Backing::Virtual(_) => false,
    }
}

/// The definition of its list.
pub(super) fn list(resource: &Resource, version: &str) -> Value {
    let item = custom_name(&GroupVersionKind::new(&resource.group, version, &resource.kind));
    let gvk = GroupVersionKind::new(&resource.group, version, &resource.list_kind);
    let mut out = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {"items": {
            "description": format!("The {} of this page.", resource.plural),
            "type": "array",
            "items": {"$ref": format!("{COMPONENTS}{item}")},
        }},
        "x-kubernetes-group-version-kind": [gvk_extension(&gvk)],
    });
    add_meta(&mut out, LIST_META);
    out
}

/// Declares `apiVersion`, `kind` and `metadata` of an object, or of a list.
fn add_meta(schema: &mut Value, metadata: &str) {
    let metadata = if metadata.is_empty() { OBJECT_META } else { metadata };
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    // In `allOf`, because a reference may have no description beside it.
    schema["properties"]["metadata"] = json!({"allOf": [{"$ref": format!("{COMPONENTS}{metadata}")}]});
}

/// One node with all that is below it.
fn node(schema: &Arc<Schema>, dialect: Dialect) -> Value {
    let mut out = Map::new();
    // Old clients refuse fields that a schema does not name, and nulls; so where either may occur, nothing is said
    // about what is inside.
    let opaque = dialect == Dialect::V2 && (schema.nullable || schema.preserve_unknown_fields);
    let untyped = opaque && (schema.nullable || schema.kind == Some(Type::Object));
    let items = schema.items.as_ref().filter(|_| !opaque);
    // Old clients cannot read a list without a schema for what is in it.
    let bare_list = dialect == Dialect::V2 && schema.kind == Some(Type::Array) && items.is_none();
    if let Some(kind) = schema.kind.filter(|_| !untyped && !bare_list) {
        out.insert("type".into(), type_name(kind).into());
    }
    about(schema, &mut out);
    if dialect == Dialect::V3 {
        // Neither is in Swagger 2.0: it knows no null, and kube-apiserver drops defaults there.
        if schema.nullable {
            out.insert("nullable".into(), true.into());
        }
        if let Some(default) = &schema.default {
            out.insert("default".into(), default.clone());
        }
    }
    if let Some(items) = items {
        out.insert("items".into(), node(items, dialect));
    }
    if !schema.properties.is_empty() && !opaque {
        let properties = schema.properties.iter().map(|(name, p)| (name.clone(), node(p, dialect)));
        out.insert("properties".into(), Value::Object(properties.collect()));
    }
    additional(schema, dialect, &mut out);
    required(schema, dialect, &mut out);
    // Extensions are kept for old clients, too: they skip those that they do not know.
    extensions(schema, &mut out);
    if let Some(validation) = &schema.validation {
        values(validation, dialect, &mut out);
    }
    if schema.int_or_string && dialect == Dialect::V3 {
        unfold(&mut out);
    }
    let mut out = Value::Object(out);
    if schema.embedded_resource && !(dialect == Dialect::V2 && schema.preserve_unknown_fields) {
        embed(&mut out);
    }
    out
}

fn about(schema: &Schema, out: &mut Map<String, Value>) {
    let mut text = |key: &str, text: &str| {
        if !text.is_empty() {
            out.insert(key.into(), text.into());
        }
    };
    text("format", schema.format.as_deref().unwrap_or_default());
    let Some(about) = &schema.documentation else { return };
    text("title", &about.title);
    text("description", &about.description);
    text("format", &about.format);
    for (key, value) in [("externalDocs", &about.external_docs), ("example", &about.example)] {
        if let Some(value) = value {
            out.insert(key.into(), value.clone());
        }
    }
}

fn additional(schema: &Schema, dialect: Dialect, out: &mut Map<String, Value>) {
    let forbidden = schema.validation.as_ref().is_some_and(|v| v.forbid_additional);
    let Some(additional) = schema.additional.as_ref().filter(|_| !forbidden) else {
        if forbidden {
            out.insert("additionalProperties".into(), false.into());
        }
        return;
    };
    let rules = node(additional, dialect);
    // `additionalProperties: true` is kept as a schema that allows everything.
    let anything = [json!({}), json!({"nullable": true})].contains(&rules);
    out.insert("additionalProperties".into(), if anything { true.into() } else { rules });
}

/// The names of required fields. Old clients take null for absence, so that a field that may be null is not
/// required of them.
fn required(schema: &Schema, dialect: Dialect, out: &mut Map<String, Value>) {
    let may_be_null = |name: &str| schema.properties.get(name).is_some_and(|p| p.nullable);
    let all_may = schema.additional.as_ref().is_some_and(|a| a.nullable);
    let names: Vec<&String> = schema
        .required
        .iter()
        .filter(|name| dialect == Dialect::V3 || !(all_may || may_be_null(name)))
        .collect();
    if !names.is_empty() {
        out.insert("required".into(), json!(names));
    }
}

fn extensions(schema: &Schema, out: &mut Map<String, Value>) {
    for (key, set) in [
        ("x-kubernetes-preserve-unknown-fields", schema.preserve_unknown_fields),
        ("x-kubernetes-embedded-resource", schema.embedded_resource),
        ("x-kubernetes-int-or-string", schema.int_or_string),
    ] {
        if set {
            out.insert(key.into(), true.into());
        }
    }
    match &schema.list_type {
        ListType::Atomic => {}
        ListType::Set => {
            out.insert("x-kubernetes-list-type".into(), "set".into());
        }
        ListType::Map(keys) => {
            out.insert("x-kubernetes-list-type".into(), "map".into());
            out.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
    }
    if schema.atomic {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
}

fn values(v: &ValueValidation, dialect: Dialect, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(key.into(), value);
        }
    };
    put("maximum", v.maximum.map(number));
    put("exclusiveMaximum", v.exclusive_maximum.then_some(true.into()));
    put("minimum", v.minimum.map(number));
    put("exclusiveMinimum", v.exclusive_minimum.then_some(true.into()));
    put("multipleOf", v.multiple_of.map(number));
    put("maxLength", v.max_length.map(Into::into));
    put("minLength", v.min_length.map(Into::into));
    put("pattern", v.pattern.as_ref().map(|p| p.source().into()));
    put("maxItems", v.max_items.map(Into::into));
    put("minItems", v.min_items.map(Into::into));
    put("uniqueItems", v.unique_items.then_some(true.into()));
    put("maxProperties", v.max_properties.map(Into::into));
    put("minProperties", v.min_properties.map(Into::into));
    put("enum", (!v.enumeration.is_empty()).then(|| v.enumeration.clone().into()));
    let rules: Vec<Value> = v.rules.iter().map(rule).collect();
    put("x-kubernetes-validations", (!rules.is_empty()).then(|| rules.into()));
    if dialect == Dialect::V3 {
        for (key, schemas) in [("allOf", &v.all_of), ("anyOf", &v.any_of), ("oneOf", &v.one_of)] {
            let all: Vec<Value> = schemas.iter().map(|s| node(s, dialect)).collect();
            put(key, (!all.is_empty()).then(|| all.into()));
        }
        put("not", v.not.as_ref().map(|s| node(s, dialect)));
    }
}

fn rule(rule: &ValidationRule) -> Value {
    let mut out = json!({"rule": rule.rule});
    for (key, text) in [
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("fieldPath", &rule.field_path),
    ] {
        if !text.is_empty() {
            out[key] = text.as_str().into();
        }
    }
    if let Some(reason) = &rule.reason {
        out["reason"] = reason.as_str().into();
    }
    if let Some(optional) = rule.optional_old_self {
        out["optionalOldSelf"] = optional.into();
    }
    out
}

/// Spells out what int-or-string means, unless the schema does so itself (`Unfold`).
fn unfold(out: &mut Map<String, Value>) {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let spelled_out = out.get("anyOf") == Some(&either)
        || out.get("allOf").and_then(|all| all.get(0)).is_some_and(|first| first["anyOf"] == either);
    // A client may have read this form and sent it back as its definition.
    if spelled_out {
        return;
    }
    if out.contains_key("anyOf") {
        let mut all = vec![json!({"anyOf": either})];
        if let Some(Value::Array(given)) = out.remove("allOf") {
            all.extend(given);
        }
        out.insert("allOf".into(), all.into());
    } else {
        out.insert("anyOf".into(), either);
    }
}

/// An embedded object has metadata, a kind and an apiVersion, and the latter two are required.
fn embed(out: &mut Value) {
    add_meta(out, "");
    let mut required: Vec<Value> = out["required"].as_array().cloned().unwrap_or_default();
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|r| r == name) {
            required.push(name.into());
        }
    }
    out["required"] = required.into();
}

/// A bound as Go prints it: whole numbers without a fraction.
fn number(value: f64) -> Value {
    // 2^53: up to here every whole number is exact.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        return (value as i64).into();
    }
    value.into()
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_schema::crd;

    fn both(schema: Value) -> (Value, Value) {
        let schema = Arc::new(crd::schema(&schema));
        (node(&schema, Dialect::V3), node(&schema, Dialect::V2))
    }

    #[test]
    fn what_a_schema_says_is_published() {
        let given = json!({
            "type": "object", "title": "Widget", "description": "A thing.", "required": ["size"],
            "properties": {
                "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 2.5, "exclusiveMinimum": true,
                    "default": 2},
                "mail": {"type": "string", "format": "smoke-signal", "pattern": "^a", "enum": ["a", "ab"],
                    "maxLength": 3, "example": "a"},
                "ports": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}}},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 7},
                "free": {"type": "object", "additionalProperties": true},
                "spec": {"type": "object", "x-kubernetes-validations": [{"rule": "true", "message": "no", "reason": "FieldValueRequired"}],
                    "oneOf": [{"required": ["a"]}, {"not": {"required": ["b"]}}]},
            },
        });
        assert_eq!(both(given.clone()).0, given);
    }

    #[test]
    fn int_or_string_is_spelled_out_once() {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        let (v3, v2) = both(json!({"x-kubernetes-int-or-string": true, "pattern": "^a"}));
        assert_eq!(v3, json!({"x-kubernetes-int-or-string": true, "anyOf": either, "pattern": "^a"}));
        assert_eq!(v2, json!({"x-kubernetes-int-or-string": true, "pattern": "^a"}));
        let given = json!({"x-kubernetes-int-or-string": true, "anyOf": either});
        assert_eq!(both(given.clone()).0, given);
        let given = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"pattern": "b"}], "allOf": [{"pattern": "c"}]});
        assert_eq!(both(given).0["allOf"], json!([{"anyOf": either}, {"pattern": "c"}]));
    }

    #[test]
    fn old_clients_are_spared_what_they_cannot_read() {
        for (given, want) in [
            (json!({"type": "string", "nullable": true, "default": "a"}), json!({})),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}),
                json!({"x-kubernetes-preserve-unknown-fields": true}),
            ),
            (
                json!({"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "string"}}),
                json!({"x-kubernetes-preserve-unknown-fields": true}),
            ),
            (
                json!({"type": "object", "required": ["a", "b"], "anyOf": [{"required": ["c"]}], "properties": {
                    "a": {"type": "string"}, "b": {"type": "string", "nullable": true}}}),
                json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}, "b": {}}}),
            ),
        ] {
            assert_eq!(both(given).1, want);
        }
    }

    #[test]
    fn embedded_objects_have_metadata() {
        let (v3, _) = both(json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}}}));
        assert_eq!(v3["required"], json!(["kind", "apiVersion"]));
        assert_eq!(v3["properties"]["metadata"]["allOf"][0]["$ref"], format!("{COMPONENTS}{OBJECT_META}"));
        assert_eq!(v3["properties"]["spec"], json!({"type": "object"}));
    }
}
