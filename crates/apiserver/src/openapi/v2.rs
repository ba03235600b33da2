//! The document of `/openapi/v2`: Swagger 2.0 over everything (`kube-openapi/pkg/builder`), for clients that were
//! made before OpenAPI 3.0 was served, and for generators. As JSON, or in protobuf, see [`super::proto`].

use super::custom::Dialect;
use super::definitions::Definitions;
use super::names::{COMPONENTS, gvk_extension, security_schemes};
use super::page::Page;
use super::parameters::Parameter;
use super::proto;
use super::routes::{Content, Operation, PathItem};
use super::v3::{describe, page_paths, write_member};
use crate::catalog::Kinds;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Before the name of a definition in Swagger 2.0.
const DEFINITIONS: &str = "#/definitions/";

/// Writes the document as JSON.
///
/// # Errors
/// If the sink fails.
pub(super) fn write_json(kinds: &Kinds, out: &mut impl Write) -> io::Result<()> {
    let definitions = Definitions::new(kinds.rows())?;
    // Paths and definitions are made and written one at a time; only the paths' descriptions are in memory
    // together.
    let paths = all_paths(kinds, &definitions);
    write!(out, r#"{{"swagger":"2.0","info":{},"paths":{{"#, info())?;
    for (at, item) in paths.iter().enumerate() {
        write_member(out, at, &item.path, &path_item(item))?;
    }
    out.write_all(br#"},"definitions":{"#)?;
    let names = definitions.closure(paths.iter().flat_map(PathItem::definitions));
    let mut count = 0;
    for name in &names {
        if let Some(definition) = definitions.get(name, Dialect::V2)? {
            write_member(out, count, name, &downgraded(definition))?;
            count += 1;
        }
    }
    write!(out, r#"}},"securityDefinitions":{},"security":[{{"BearerToken":[]}}]}}"#, security_schemes())
}

/// Writes the document in protobuf.
///
/// # Errors
/// If the sink fails.
pub(super) fn write_protobuf(kinds: &Kinds, out: &mut impl Write) -> io::Result<()> {
    let definitions = Definitions::new(kinds.rows())?;
    let paths = all_paths(kinds, &definitions);
    out.write_all(&proto::head("2.0", &info()))?;
    for item in &paths {
        out.write_all(&proto::path(&item.path, &path_item(item)))?;
    }
    let names = definitions.closure(paths.iter().flat_map(PathItem::definitions));
    for name in &names {
        if let Some(definition) = definitions.get(name, Dialect::V2)? {
            out.write_all(&proto::definition(name, &downgraded(definition)))?;
        }
    }
    out.write_all(&proto::security(&security_schemes()))
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "unversioned"})
}

fn all_paths(kinds: &Kinds, definitions: &Definitions<'_>) -> Vec<PathItem> {
    let pages = Page::all(kinds);
    let mut paths: Vec<PathItem> =
        pages.iter().flat_map(|(_, page)| page_paths(page, kinds, definitions)).collect();
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    paths
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    if !item.parameters.is_empty() {
        out.insert("parameters".into(), item.parameters.iter().map(parameter).collect());
    }
    for op in &item.operations {
        out.insert(op.method.into(), operation(op));
    }
    Value::Object(out)
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = json!({"name": parameter.name, "in": parameter.place, "description": parameter.description,
        "type": parameter.kind, "uniqueItems": true});
    if parameter.place == "path" {
        out["required"] = true.into();
    }
    out
}

fn operation(op: &Operation) -> Value {
    let consumes = match &op.body {
        Some(body) => body.media,
        // Go publishes a wildcard for requests for objects, even where they have no body.
        None if op.gvk.is_some() => &["*/*"],
        None if matches!(op.content, Content::Text) => &[],
        None => op.produces,
    };
    let mut out = json!({"tags": [op.tag], "description": op.description, "operationId": op.id,
        "produces": op.produces, "schemes": ["https"]});
    if !consumes.is_empty() {
        out["consumes"] = json!(consumes);
    }
    let mut parameters: Vec<Value> = op.parameters.iter().map(parameter).collect();
    if let Some(body) = &op.body {
        let mut parameter = json!({"name": "body", "in": "body", "schema": reference(&body.definition)});
        if body.required {
            parameter["required"] = true.into();
        }
        // In Swagger 2.0 the body is one of the parameters; Go puts it first.
        parameters.insert(0, parameter);
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    let schema = match &op.content {
        Content::Definition(name) => reference(name),
        Content::Text => json!({"type": "string"}),
    };
    for code in op.codes {
        out["responses"][code.to_string()] = json!({"description": describe(*code), "schema": schema});
    }
    out["responses"]["401"] = json!({"description": describe(401)});
    if let Some(action) = op.action {
        out["x-kubernetes-action"] = action.into();
    }
    if let Some(gvk) = &op.gvk {
        out["x-kubernetes-group-version-kind"] = gvk_extension(gvk);
    }
    out
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("{DEFINITIONS}{definition}")})
}

fn downgraded(mut schema: Value) -> Value {
    downgrade(&mut schema);
    schema
}

/// From OpenAPI 3.0 to Swagger 2.0: no defaults, no nulls, no junctors; a reference has its description beside it.
fn downgrade(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.remove("default");
    members.remove("nullable");
    members.remove("anyOf");
    members.remove("not");
    if members.remove("oneOf").is_some() && !members.contains_key("type") {
        // A quantity, or an int-or-string: either form can be written as a string.
        members.insert("type".into(), "string".into());
    }
    // References are wrapped in `allOf` for OpenAPI 3.0 only; here they stand beside their description, as Go
    // writes them.
    let target = match members.remove("allOf") {
        Some(all) => all[0]["$ref"].as_str().map(str::to_string),
        None => members.get("$ref").and_then(Value::as_str).map(str::to_string),
    };
    if let Some(target) = target {
        let name = target.strip_prefix(COMPONENTS).unwrap_or(&target);
        members.insert("$ref".into(), format!("{DEFINITIONS}{name}").into());
    }
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        properties.values_mut().for_each(downgrade);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = members.get_mut(inner) {
            downgrade(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_swagger_cannot_say_is_left_out() {
        for (given, want) in [
            (
                json!({"allOf": [{"$ref": "#/components/schemas/a.B"}], "default": {}, "description": "x"}),
                json!({"$ref": "#/definitions/a.B", "description": "x"}),
            ),
            (json!({"oneOf": [{"type": "string"}, {"type": "number"}]}), json!({"type": "string"})),
            (
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
                json!({"format": "int-or-string", "type": "string"}),
            ),
            (
                // Properties may be named like keywords.
                json!({"properties": {"default": {"type": "string", "default": ""}, "allOf": {"type": "array",
                    "items": {"$ref": "#/components/schemas/a.B"}}}, "additionalProperties": true}),
                json!({"properties": {"default": {"type": "string"}, "allOf": {"type": "array",
                    "items": {"$ref": "#/definitions/a.B"}}}, "additionalProperties": true}),
            ),
        ] {
            assert_eq!(downgraded(given), want);
        }
    }
}
