//! Values of Go structs as error messages print them: `encoding/json` on internal types, whose members come in
//! the order of their declaration (`apiextensions-apiserver/pkg/apis/apiextensions/types*.go`).

use fleetpass_apimachinery::field::{Error, ErrorType, Path};
use serde_json::{Map, Value};

/// `field: Invalid value: RAW: detail`, with the value already printed. It becomes a part of the detail, because an error's
/// own value is printed by our order of members.
pub(super) fn invalid(field: &Path, raw: &str, detail: &str) -> Error {
    Error { kind: ErrorType::Invalid, field: field.clone(), value: None, detail: format!("{raw}: {detail}") }
}

/// JSON as Go's encoder writes it unless told otherwise: `<`, `>` and `&` are escaped, for HTML's sake.
pub(super) fn escape(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn json(value: Option<&Value>) -> String {
    escape(&value.unwrap_or(&Value::Null).to_string())
}

/// How a member of an internal struct is printed. The internal types have no omitempty: what is missing is printed, too.
enum Print {
    /// As it is; null if missing.
    Nullable,
    /// As it is; the empty string if missing.
    Text,
    /// As it is; false if missing.
    Flag,
    /// A schema, or null.
    Schema,
    /// A list of schemas.
    Schemas,
    /// Schemas by name.
    SchemaMap,
    /// `JSONSchemaPropsOrBool`: in the API a schema or a boolean, in Go a struct of both.
    SchemaOrBool,
    /// `JSONSchemaPropsOrArray`: in the API a schema or a list of them, in Go a struct of both.
    Items,
    /// `x-kubernetes-validations`.
    Rules,
}

/// `JSONSchemaProps`, in the order of its declaration: name in Go, name in the API, form.
const SCHEMA: &[(&str, &str, Print)] = &[
    ("ID", "id", Print::Text),
    ("Schema", "$schema", Print::Text),
    ("Ref", "$ref", Print::Nullable),
    ("Description", "description", Print::Text),
    ("Type", "type", Print::Text),
    ("Nullable", "nullable", Print::Flag),
    ("Format", "format", Print::Text),
    ("Title", "title", Print::Text),
    ("Default", "default", Print::Nullable),
    ("Maximum", "maximum", Print::Nullable),
    ("ExclusiveMaximum", "exclusiveMaximum", Print::Flag),
    ("Minimum", "minimum", Print::Nullable),
    ("ExclusiveMinimum", "exclusiveMinimum", Print::Flag),
    ("MaxLength", "maxLength", Print::Nullable),
    ("MinLength", "minLength", Print::Nullable),
    ("Pattern", "pattern", Print::Text),
    ("MaxItems", "maxItems", Print::Nullable),
    ("MinItems", "minItems", Print::Nullable),
    ("UniqueItems", "uniqueItems", Print::Flag),
    ("MultipleOf", "multipleOf", Print::Nullable),
    ("Enum", "enum", Print::Nullable),
    ("MaxProperties", "maxProperties", Print::Nullable),
    ("MinProperties", "minProperties", Print::Nullable),
    ("Required", "required", Print::Nullable),
    ("Items", "items", Print::Items),
    ("AllOf", "allOf", Print::Schemas),
    ("OneOf", "oneOf", Print::Schemas),
    ("AnyOf", "anyOf", Print::Schemas),
    ("Not", "not", Print::Schema),
    ("Properties", "properties", Print::SchemaMap),
    ("AdditionalProperties", "additionalProperties", Print::SchemaOrBool),
    ("PatternProperties", "patternProperties", Print::SchemaMap),
    ("Dependencies", "dependencies", Print::Nullable),
    ("AdditionalItems", "additionalItems", Print::SchemaOrBool),
    ("Definitions", "definitions", Print::SchemaMap),
    ("ExternalDocs", "externalDocs", Print::Nullable),
    ("Example", "example", Print::Nullable),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Print::Nullable),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Print::Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", Print::Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Print::Nullable),
    ("XListType", "x-kubernetes-list-type", Print::Nullable),
    ("XMapType", "x-kubernetes-map-type", Print::Nullable),
    ("XValidations", "x-kubernetes-validations", Print::Rules),
];

/// The Go and API names of the members that are set, in order.
pub(super) fn set_members(schema: &Map<String, Value>) -> impl Iterator<Item = (&'static str, &'static str)> {
    SCHEMA.iter().filter(|(_, api, _)| schema.contains_key(*api)).map(|(go, api, _)| (*go, *api))
}

/// A `JSONSchemaProps`.
pub(super) fn schema(value: &Value) -> String {
    let Some(members) = value.as_object() else { return "null".into() };
    let printed: Vec<String> =
        SCHEMA.iter().map(|(go, api, how)| format!("\"{go}\":{}", member(members.get(*api), how))).collect();
    format!("{{{}}}", printed.join(","))
}

fn list(values: Option<&Value>, print: fn(&Value) -> String) -> String {
    match values.and_then(Value::as_array) {
        None => "null".into(),
        Some(values) => format!("[{}]", values.iter().map(print).collect::<Vec<_>>().join(",")),
    }
}

fn member(value: Option<&Value>, how: &Print) -> String {
    match (how, value) {
        (Print::Text, None) => "\"\"".into(),
        (Print::Flag, None) => "false".into(),
        (Print::Nullable | Print::Text | Print::Flag, value) => json(value),
        (Print::Schema, value) => value.map_or_else(|| "null".into(), schema),
        (Print::Schemas, values) => list(values, schema),
        (Print::SchemaMap, None) => "null".into(),
        (Print::SchemaMap, Some(value)) => {
            let members = value.as_object().into_iter().flatten();
            let printed: Vec<String> =
                members.map(|(k, v)| format!("{}:{}", json(Some(&k.as_str().into())), schema(v))).collect();
            format!("{{{}}}", printed.join(","))
        }
        (Print::SchemaOrBool, None) | (Print::Items, None) => "null".into(),
        (Print::SchemaOrBool, Some(Value::Bool(allows))) => {
            format!("{{\"Allows\":{allows},\"Schema\":null}}")
        }
        (Print::SchemaOrBool, Some(value)) => format!("{{\"Allows\":true,\"Schema\":{}}}", schema(value)),
        (Print::Items, Some(value @ Value::Array(_))) => {
            format!("{{\"Schema\":null,\"JSONSchemas\":{}}}", list(Some(value), schema))
        }
        (Print::Items, Some(value)) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema(value)),
        (Print::Rules, values) => list(values, rule),
    }
}

/// A `ValidationRule`.
pub(super) fn rule(value: &Value) -> String {
    let text = |field: &str| json(Some(value.get(field).unwrap_or(&"".into())));
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        json(value.get("reason")),
        text("fieldPath"),
        json(value.get("optionalOldSelf")),
    )
}

/// A `CustomResourceDefinitionVersion`, without what was hoisted to the spec: conversion has cleared that here.
pub(super) fn version(value: &Value, hoisted: &super::hoisted::Hoisted<'_>) -> String {
    let flag = |field: &str| value[field].as_bool().unwrap_or_default();
    let own = |field: &str, is_hoisted: bool| value.get(field).filter(|v| !is_hoisted && !v.is_null());
    let schema = own("schema", hoisted.schema.is_some()).map_or_else(
        || "null".into(),
        |s| format!("{{\"OpenAPIV3Schema\":{}}}", schema(&s["openAPIV3Schema"])),
    );
    let subresources =
        own("subresources", hoisted.subresources.is_some()).map_or_else(|| "null".into(), subresources);
    format!(
        "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{schema},\
         \"Subresources\":{subresources},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
        json(Some(value.get("name").unwrap_or(&"".into()))),
        flag("served"),
        flag("storage"),
        flag("deprecated"),
        json(value.get("deprecationWarning")),
        list(own("additionalPrinterColumns", hoisted.columns.is_some()), column),
        list(own("selectableFields", hoisted.selectable.is_some()), |f| {
            format!("{{\"JSONPath\":{}}}", json(f.get("jsonPath")))
        }),
    )
}

fn subresources(value: &Value) -> String {
    let status = if value.get("status").is_some_and(Value::is_object) { "{}" } else { "null" };
    let scale = match value.get("scale").and_then(Value::as_object) {
        None => "null".into(),
        Some(scale) => {
            let text = |field: &str| json(Some(scale.get(field).unwrap_or(&"".into())));
            format!(
                "{{\"SpecReplicasPath\":{},\"StatusReplicasPath\":{},\"LabelSelectorPath\":{}}}",
                text("specReplicasPath"),
                text("statusReplicasPath"),
                json(scale.get("labelSelectorPath"))
            )
        }
    };
    format!("{{\"Status\":{status},\"Scale\":{scale}}}")
}

fn column(value: &Value) -> String {
    let text = |field: &str| json(Some(value.get(field).unwrap_or(&"".into())));
    format!(
        "{{\"Name\":{},\"Type\":{},\"Format\":{},\"Description\":{},\"Priority\":{},\"JSONPath\":{}}}",
        text("name"),
        text("type"),
        text("format"),
        text("description"),
        json(Some(value.get("priority").unwrap_or(&0.into()))),
        text("jsonPath"),
    )
}
