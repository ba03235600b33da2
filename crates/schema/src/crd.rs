//! `openAPIV3Schema` of a CustomResourceDefinition (`JSONSchemaProps` as JSON) to [`Schema`]; the counterpart of
//! `NewStructural` (`apiextensions-apiserver/pkg/apiserver/schema/convert.go`) and of
//! `ConvertJSONSchemaProps` (`pkg/apiserver/validation/validation.go`).

use crate::formats;
use crate::json_type::Type;
use crate::model::{Documentation, ListType, Pattern, Schema, ValidationRule, ValueValidation};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Reads a schema. What is not there is not demanded; a schema that kube-apiserver would have refused
/// (see the validation of CustomResourceDefinitions) is read as far as it makes sense.
pub fn schema(props: &Value) -> Schema {
    let Some(props) = props.as_object() else { return Schema::default() };
    let mut out = Schema {
        kind: text(props, "type").and_then(|t| Type::from_name(&t)),
        nullable: flag(props, "nullable"),
        required: strings(props, "required"),
        default: props.get("default").filter(|v| !v.is_null()).cloned(),
        preserve_unknown_fields: flag(props, "x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag(props, "x-kubernetes-embedded-resource"),
        int_or_string: flag(props, "x-kubernetes-int-or-string"),
        atomic: text(props, "x-kubernetes-map-type").is_some_and(|t| t == "atomic"),
        list_type: list_type(props),
        ..Schema::default()
    };
    if out.int_or_string {
        out.kind = None;
    }
    out.format = text(props, "format").filter(|f| formats::applies(f, out.kind));
    if let Some(properties) = props.get("properties").and_then(Value::as_object) {
        out.properties = properties.iter().map(|(k, v)| (k.clone(), Arc::new(schema(v)))).collect();
    }
    if let Some(items) = props.get("items").filter(|i| i.is_object()) {
        out.items = Some(Arc::new(schema(items)));
    }
    match props.get("additionalProperties") {
        Some(Value::Object(_)) => out.additional = Some(Arc::new(schema(&props["additionalProperties"]))),
        // True and false both keep undeclared members from being pruned; what is inside of them is pruned.
        Some(Value::Bool(_)) => {
            out.additional = Some(Arc::new(Schema { nullable: true, ..Schema::default() }))
        }
        _ => {}
    }
    let validation = value_validation(props);
    if !validation.is_empty() {
        out.validation = Some(Box::new(validation));
    }
    let documentation = documentation(props, &out);
    if documentation != Documentation::default() {
        out.documentation = Some(Box::new(documentation));
    }
    out
}

fn documentation(props: &Map<String, Value>, schema: &Schema) -> Documentation {
    let get = |key: &str| text(props, key).unwrap_or_default();
    Documentation {
        title: get("title"),
        description: get("description"),
        format: if schema.format.is_none() { get("format") } else { String::new() },
        external_docs: props.get("externalDocs").filter(|v| v.is_object()).cloned(),
        example: props.get("example").filter(|v| !v.is_null()).cloned(),
    }
}

fn value_validation(props: &Map<String, Value>) -> ValueValidation {
    let schemas = |key: &str| -> Vec<Arc<Schema>> {
        props.get(key).and_then(Value::as_array).into_iter().flatten().map(|s| Arc::new(schema(s))).collect()
    };
    let float = |key: &str| props.get(key).and_then(Value::as_f64);
    let int = |key: &str| props.get(key).and_then(Value::as_i64);
    ValueValidation {
        maximum: float("maximum"),
        exclusive_maximum: flag(props, "exclusiveMaximum"),
        minimum: float("minimum"),
        exclusive_minimum: flag(props, "exclusiveMinimum"),
        multiple_of: float("multipleOf"),
        max_length: int("maxLength"),
        min_length: int("minLength"),
        pattern: text(props, "pattern").map(|p| Pattern::new(&p)),
        max_items: int("maxItems"),
        min_items: int("minItems"),
        unique_items: flag(props, "uniqueItems"),
        max_properties: int("maxProperties"),
        min_properties: int("minProperties"),
        enumeration: props.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        forbid_additional: props.get("additionalProperties") == Some(&Value::Bool(false)),
        all_of: schemas("allOf"),
        any_of: schemas("anyOf"),
        one_of: schemas("oneOf"),
        not: props.get("not").filter(|n| n.is_object()).map(|n| Arc::new(schema(n))),
        rules: props
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(rule)
            .collect(),
    }
}

fn rule(rule: &Map<String, Value>) -> ValidationRule {
    let get = |key: &str| text(rule, key).unwrap_or_default();
    ValidationRule {
        rule: get("rule"),
        message: get("message"),
        message_expression: get("messageExpression"),
        reason: text(rule, "reason"),
        field_path: get("fieldPath"),
        optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
    }
}

fn list_type(props: &Map<String, Value>) -> ListType {
    match text(props, "x-kubernetes-list-type").as_deref() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(props, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    }
}

fn text(props: &Map<String, Value>, key: &str) -> Option<String> {
    props.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_string)
}

fn flag(props: &Map<String, Value>, key: &str) -> bool {
    props.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn strings(props: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = props.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}
