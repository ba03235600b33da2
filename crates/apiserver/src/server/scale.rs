//! The `scale` subresource of custom resources: the number of replicas at the paths that the definition names,
//! shown as an `autoscaling/v1` Scale (`apiextensions-apiserver/pkg/registry/customresource/etcd.go`).

use super::render;
use super::reply::Reply;
use super::resource_request::{ResourceRequest, write_options};
use crate::registry::patch_status;
use crate::resources::customresources::at_simple_path;
use crate::strategy::{ScalePaths, WriteOptions};
use bytes::Bytes;
use fleetpass_apimachinery::field::{Error, Path};
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apply::{Body, Error as PatchError, PatchKind, patch};
use fleetpass_codec::body::{self, Format};
use fleetpass_codec::negotiate;
use fleetpass_codec::options::{self, Write};
use fleetpass_schema::openapi::builtin;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;

const TARGET: GvkRef<'static> = GvkRef { group: "autoscaling", version: "v1", kind: "Scale" };
/// What stands for replicas that an object does not mention while it is patched: a patch that leaves them so is refused.
const UNSET: i64 = i32::MIN as i64;
const DEFINITION: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Answers get, update and patch of a Scale. A change is an update of the whole object through the registry, with its
/// validation and its revision check; the Scale itself is stored nowhere.
pub(super) async fn serve(
    request: &ResourceRequest<'_>,
    paths: &Arc<ScalePaths>,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Status> {
    let renderer = request.renderer()?;
    let strategy = request.row.strategy().cloned().ok_or_else(Status::method_not_allowed)?;
    let registry = &request.state.registry;
    let plain = WriteOptions::default();
    let scope = request.scope(&*strategy, &plain);
    let stored = registry.get(&scope, "").await?;
    let object = crate::registry::present(request.row, &request.version.name, &stored);
    let verb = request.context.info.verb.as_str();
    let shown = if verb == "get" {
        shown(&object, paths)?
    } else {
        let write = if verb == "patch" { Write::Patch } else { Write::Update };
        let bytes = read.await?;
        let query = options::write(request.context.query.pairs(), write)?;
        let options = write_options(&query);
        let scale = wanted(request, &object, paths, &bytes)?;
        let mut changed = object;
        set_replicas(&mut changed, paths, &scale)?;
        let version = meta::text(&scale, &["metadata", "resourceVersion"]);
        // The version of the Scale is that of the object: a client that has read an old one gets a conflict.
        meta::metadata_mut(&mut changed).insert("resourceVersion".into(), version.into());
        // The path's subresource names the owner of the change; the object is written as a whole.
        let written = registry.update(&request.scope(&*strategy, &options), changed).await?;
        shown(&written.object, paths)?
    };
    let bytes = render::encode(&shown, negotiate::Output { convert_to: None, ..renderer.accepted })?;
    Ok(Reply::new(200, renderer.accepted.media.as_str(), bytes))
}

/// The Scale that the client wants.
fn wanted(
    request: &ResourceRequest<'_>,
    object: &Value,
    paths: &ScalePaths,
    bytes: &[u8],
) -> Result<Value, Status> {
    let schema = builtin(DEFINITION);
    if request.context.info.verb == "update" {
        let media = negotiate::input(request.context.content_type(), &[])?;
        let format = media.format();
        let decoded = body::decode_builtin(bytes, format, TARGET, &schema, body::FieldValidation::Warn)?;
        request.warn(decoded.warnings);
        return Ok(decoded.value);
    }
    let kind = PatchKind::from_content_type(request.context.content_type(), true).map_err(patch_status)?;
    let malformed = |why: String| patch_status(PatchError::Malformed { kind, validated: true, why });
    let parsed = body::parse(bytes, Format::Json).map_err(malformed)?;
    let document = parsed
        .raw
        .to_value(fleetpass_apimachinery::json::Numbers::Go)
        .map_err(|why| malformed(why.to_string()))?;
    let body = Body { value: &document, duplicates: &[], validated: true };
    // Patched as if `spec.replicas` were there, so that a JSON patch can replace it; `set_replicas` refuses if it stays unset.
    let mut scale = to_scale(object, paths);
    if at_simple_path(object, &paths.spec_replicas).is_none() {
        scale["spec"]["replicas"] = UNSET.into();
    }
    Ok(patch(kind, &scale, &body, &schema).map_err(patch_status)?.object)
}

/// The Scale of an object that says how many replicas it wants.
fn shown(object: &Value, paths: &ScalePaths) -> Result<Value, Status> {
    if at_simple_path(object, &paths.spec_replicas).is_none() {
        let why = format!("the spec replicas field {} does not exist", quoted(&paths.spec_replicas));
        return Err(Status::internal(why));
    }
    Ok(to_scale(object, paths))
}

fn to_scale(object: &Value, paths: &ScalePaths) -> Value {
    let replicas = |path: &str| at_simple_path(object, path).and_then(Value::as_i64).unwrap_or(0);
    let metadata = object.get("metadata").and_then(Value::as_object);
    // The metadata of a Scale is that of its object, without labels and annotations (`scaleFromCustomResource`).
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> =
        kept.iter().filter_map(|name| Some(((*name).to_string(), metadata?.get(*name)?.clone()))).collect();
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {}, "status": {"replicas": replicas(&paths.status_replicas)}});
    let wanted = replicas(&paths.spec_replicas);
    if wanted != 0 {
        scale["spec"]["replicas"] = wanted.into();
    }
    if let Some(selector) = paths.label_selector.as_deref().and_then(|path| at_simple_path(object, path))
        && let Some(text) = selector.as_str().filter(|text| !text.is_empty())
    {
        scale["status"]["selector"] = text.into();
    }
    scale
}

fn quoted(text: &str) -> String {
    fleetpass_apimachinery::field::go_quote(text)
}

/// Writes the wanted number of replicas where the definition says.
fn set_replicas(object: &mut Value, paths: &ScalePaths, scale: &Value) -> Result<(), Status> {
    let replicas = meta::at(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
    if replicas == UNSET {
        let field = quoted(&paths.spec_replicas);
        return Err(Status::bad_request(format!("the spec replicas field {field} cannot be empty")));
    }
    if replicas < 0 {
        let error =
            Error::invalid(&Path::new("spec.replicas"), replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", meta::name(object), &[error].into()));
    }
    let mut steps: Vec<&str> = paths.spec_replicas.split('.').filter(|step| !step.is_empty()).collect();
    let Some(last) = steps.pop() else { return Ok(()) };
    let parent = steps.into_iter().fold(meta::as_map_mut(object), |map, step| meta::child_mut(map, step));
    parent.insert(last.into(), replicas.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> ScalePaths {
        ScalePaths {
            spec_replicas: ".spec.size.replicas".into(),
            status_replicas: ".status.replicas".into(),
            label_selector: Some(".status.selector".into()),
        }
    }

    #[test]
    fn a_scale_shows_and_changes_the_fields_that_the_definition_names() {
        let mut object = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "resourceVersion": "7"},
            "spec": {"size": {"replicas": 3}}, "status": {"replicas": 2, "selector": "app=a"}});
        let mut scale = shown(&object, &paths()).expect("a scale");
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
        assert_eq!(scale["metadata"], json!({"name": "a", "resourceVersion": "7"}));
        scale["spec"]["replicas"] = 5.into();
        set_replicas(&mut object, &paths(), &scale).expect("a change");
        assert_eq!(object["spec"]["size"]["replicas"], 5);
        scale["spec"]["replicas"] = (-1).into();
        assert_eq!(set_replicas(&mut object, &paths(), &scale).map_err(|s| s.code), Err(422));
        assert!(shown(&json!({"metadata": {}}), &paths()).is_err_and(|s| s.code == 500));
        scale["spec"]["replicas"] = UNSET.into();
        assert_eq!(set_replicas(&mut object, &paths(), &scale).map_err(|s| s.code), Err(400));
    }
}
