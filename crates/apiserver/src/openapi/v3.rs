//! The documents of `/openapi/v3` (`kube-openapi/pkg/builder3`), written piece by piece: a document is never in
//! memory as a whole before it is compressed.

use super::custom::Dialect;
use super::definitions::{Definitions, rows_of};
use super::names::{COMPONENTS, gvk_extension, security_schemes};
use super::page::Page;
use super::parameters::Parameter;
use super::routes::{self, Content, Operation, PathItem};
use crate::catalog::Kinds;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Writes the document of a page.
///
/// # Errors
/// If the sink fails.
pub(super) fn write(page: &Page, kinds: &Kinds, out: &mut impl Write) -> io::Result<()> {
    // A document refers to built-in kinds and to its own: those of other groups cost it nothing.
    let rows = page.rows(kinds);
    let definitions = Definitions::new(rows.iter())?;
    let mut paths = page_paths(page, kinds, &definitions);
    // Sorted, so that the same kinds always give the same bytes, and so the same hash, in every replica.
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    // Groups of CRDs have documents of their own in kube-apiserver, by another builder with another title.
    let custom_only = match page {
        Page::Version(group, _) => !kinds.is_builtin_group(group),
        _ => false,
    };
    let info = if custom_only {
        json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"})
    } else {
        json!({"title": "Kubernetes", "version": "unversioned"})
    };
    write!(out, r#"{{"openapi":"3.0.0","info":{info},"paths":{{"#)?;
    for (at, item) in paths.iter().enumerate() {
        write_member(out, at, &item.path, &path_item(item))?;
    }
    out.write_all(br#"},"components":{"schemas":{"#)?;
    let names = definitions.closure(paths.iter().flat_map(PathItem::definitions));
    let mut count = 0;
    for name in &names {
        if let Some(definition) = definitions.get(name, Dialect::V3)? {
            write_member(out, count, name, &definition)?;
            count += 1;
        }
    }
    out.write_all(b"}")?;
    // That builder says nothing of how clients authenticate.
    if !custom_only {
        write!(out, r#","securitySchemes":{}"#, security_schemes())?;
    }
    out.write_all(b"}}")
}

/// `"name":value`, after a comma where it is not the first.
pub(super) fn write_member(out: &mut impl Write, at: usize, name: &str, value: &Value) -> io::Result<()> {
    let comma = if at == 0 { "" } else { "," };
    write!(out, "{comma}{}:", Value::from(name))?;
    serde_json::to_writer(out, value)?;
    Ok(())
}

/// The paths of a page.
pub(super) fn page_paths(page: &Page, kinds: &Kinds, definitions: &Definitions<'_>) -> Vec<PathItem> {
    match page {
        Page::Static(path) => vec![path.item()],
        Page::Group(group) => vec![routes::static_path(
            &format!("/apis/{group}/"),
            &format!("get{}APIGroup", routes::camel(routes::group_name(group), true)),
            &routes::camel(routes::group_name(group), false),
            "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup",
            "read what versions this group has",
        )],
        Page::Version(group, version) => {
            let rows = rows_of(kinds, group, version);
            let mut out: Vec<PathItem> =
                rows.flat_map(|row| routes::paths(row, version, definitions)).collect();
            // kube-apiserver publishes the list of resources for compiled-in groups only, although it answers for
            // all.
            if kinds.is_builtin_group(group) {
                out.push(routes::resource_list(group, version));
            }
            out
        }
    }
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
        "schema": {"type": parameter.kind, "uniqueItems": true}});
    if parameter.place == "path" {
        out["required"] = true.into();
    }
    out
}

fn operation(op: &Operation) -> Value {
    let mut out = json!({"tags": [op.tag], "description": op.description, "operationId": op.id});
    if !op.parameters.is_empty() {
        out["parameters"] = op.parameters.iter().map(parameter).collect();
    }
    if let Some(body) = &op.body {
        out["requestBody"] = json!({"content": content(body.media, &reference(&body.definition))});
        if body.required {
            out["requestBody"]["required"] = true.into();
        }
    }
    let schema = match &op.content {
        Content::Definition(name) => reference(name),
        Content::Text => json!({"type": "string"}),
    };
    for code in op.codes {
        out["responses"][code.to_string()] =
            json!({"description": describe(*code), "content": content(op.produces, &schema)});
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

/// A status code in words.
pub(super) fn describe(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        401 => "Unauthorized",
        _ => "",
    }
}

fn content(media: &[&str], schema: &Value) -> Value {
    Value::Object(media.iter().map(|m| ((*m).to_string(), json!({"schema": schema}))).collect())
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("{COMPONENTS}{definition}")})
}
