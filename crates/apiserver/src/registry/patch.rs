//! patch: JSON, merge and strategic merge patches, and server-side apply
//! (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).

use super::conversion::to_external;
use super::engine::Registry;
use super::identity::check_identity;
use super::managed;
use super::patch_status::{patch_status, undecodable};
use super::scope::{Scope, Written};
use super::update::{Change, Tracking};
use fleetpass_apimachinery::field::{Error, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::metadata;
use fleetpass_apply::{Body, PatchKind, conversion_error, patch};
use fleetpass_codec::body::{self, FieldValidation};
use fleetpass_codec::redecode;
use fleetpass_schema::Schema;
use serde_json::Value;
use std::sync::Arc;

/// A patch, decoded as far as that is possible without the object.
pub(crate) struct PatchRequest {
    /// The kind of patch.
    pub kind: PatchKind,
    /// The document.
    pub document: Value,
    /// `duplicate field "path"` for each member that stands twice.
    pub duplicates: Vec<String>,
    /// What becomes of unknown and duplicate fields.
    pub validation: FieldValidation,
    /// `force` of an apply.
    pub force: bool,
}

impl Registry {
    /// Patches one object; an apply creates it if it is missing.
    pub(crate) async fn patch(&self, scope: &Scope<'_>, request: &PatchRequest) -> Result<Written, Status> {
        self.wait_until_fresh().await?;
        if request.kind == PatchKind::Apply {
            return self.apply(scope, request).await;
        }
        // The patch is applied inside the loop: on a conflict it is applied again, to the newer object.
        self.change(scope, None, |old| {
            let body = Body {
                value: &request.document,
                duplicates: &request.duplicates,
                validated: request.validation != FieldValidation::Ignore,
            };
            let patched = patch(request.kind, old, &body, &scope.version.schema).map_err(patch_status)?;
            let (mut object, warnings) = decode_patched(scope, request, patched.object, patched.strict)?;
            check_identity(scope, &mut object)?;
            Ok(Change { object, tracking: Tracking::Update, warnings })
        })
        .await
    }

    /// Server-side apply. Managed fields are part of the merge itself, so the loop must not track them once more.
    async fn apply(&self, scope: &Scope<'_>, request: &PatchRequest) -> Result<Written, Status> {
        if self.cache.get(&scope.key(scope.name)).is_none() {
            if !scope.subresource.is_empty() {
                return Err(scope.not_found());
            }
            let object = managed::apply(scope, None, &request.document, request.force)?;
            let (mut object, mut warnings) = decode_applied(scope, request, object)?;
            check_identity(scope, &mut object)?;
            // The version of an object that is not there is ignored, not refused.
            meta::metadata_mut(&mut object).remove("resourceVersion");
            if !meta::uid(&object).is_empty() {
                return Err(uid_is_immutable(scope, &object));
            }
            let object = self.create_tracked(scope, object, Tracking::Done, &mut warnings).await?;
            let object = to_external(scope.row, &scope.version.name, object);
            return Ok(Written { object, created: true, warnings });
        }
        self.change(scope, None, |old| {
            let object = managed::apply(scope, Some(old), &request.document, request.force)?;
            let (mut object, warnings) = decode_applied(scope, request, object)?;
            check_identity(scope, &mut object)?;
            Ok(Change { object, tracking: Tracking::Done, warnings })
        })
        .await
    }
}

/// Decodes and defaults an object that an apply has made.
fn decode_applied(
    scope: &Scope<'_>,
    request: &PatchRequest,
    object: Value,
) -> Result<(Value, Vec<String>), Status> {
    let mut object = object;
    let undecodable = |why: String| Status::plain_error(why);
    let strict =
        redecode(&mut object, &scope.version.schema, scope.row.resource.custom).map_err(undecodable)?;
    scope.strategy.default(&mut object);
    let warnings = match request.validation {
        FieldValidation::Ignore => Vec::new(),
        _ => strict.into_iter().chain(request.duplicates.iter().cloned()).collect(),
    };
    Ok((object, warnings))
}

/// Decodes and defaults a patched object as a body of its kind would be.
fn decode_patched(
    scope: &Scope<'_>,
    request: &PatchRequest,
    patched: Value,
    mut strict: Vec<String>,
) -> Result<(Value, Vec<String>), Status> {
    let mut object = patched.clone();
    let refuse = |why: &str| undecodable(request.kind, &request.document, &patched, why);
    // A custom resource is an untyped map in Go, so decoding does not look at its kind; validation does.
    if !scope.row.resource.custom {
        check_kind(scope, &patched).map_err(|why| refuse(&why))?;
    }
    // The patched object goes through the same decoding as a body: a patch cannot store what a PUT could not.
    let found = redecode(&mut object, &scope.version.schema, scope.row.resource.custom)
        .map_err(|why| refuse(&undecoded(request.kind, &patched, &scope.version.schema, why)))?;
    strict.extend(found);
    // What the patch itself had twice and what its result has unknown are one error.
    if request.validation == FieldValidation::Strict && !strict.is_empty() {
        return Err(refuse(&body::strict_error(&strict)));
    }
    if request.validation == FieldValidation::Ignore {
        strict.clear();
    }
    scope.strategy.default(&mut object);
    Ok((object, strict))
}

/// Why a patched object does not decode: `why` is the JSON decoder's answer. What a strategic merge patch leaves behind is
/// never JSON again in kube-apiserver, so its converter has the word.
fn undecoded(kind: PatchKind, patched: &Value, schema: &Arc<Schema>, why: String) -> String {
    match kind {
        PatchKind::Strategic => conversion_error(patched, schema).map_or(why, |error| error.to_string()),
        PatchKind::Json | PatchKind::Merge | PatchKind::Apply => why,
    }
}

/// A patch cannot turn an object of a built-in kind into one of another kind or version.
fn check_kind(scope: &Scope<'_>, patched: &Value) -> Result<(), String> {
    let resource = &scope.row.resource;
    let (kind, version) = (meta::text(patched, &["kind"]), meta::text(patched, &["apiVersion"]));
    let expected = fleetpass_apimachinery::gvk::api_version(&resource.group, &scope.version.name);
    if kind == resource.kind && version == expected {
        return Ok(());
    }
    Err(format!("the patched object is {version}, Kind={kind}, not {expected}, Kind={}", resource.kind))
}

/// An apply cannot choose the UID of a new object.
fn uid_is_immutable(scope: &Scope<'_>, object: &Value) -> Status {
    let path = Path::new("metadata.uid");
    let error = Error::invalid(&path, meta::uid(object), metadata::IMMUTABLE);
    scope.invalid(object, &[error.clone(), error].into())
}
