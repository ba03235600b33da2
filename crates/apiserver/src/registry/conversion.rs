//! The forms of an object: stored, internal (what the kind's rules see) and external (what clients of one version see).

use super::scope::Scope;
use crate::cache::Object;
use crate::catalog::{Catalog, Row};
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_schema::typed;
use serde_json::Value;
use std::sync::Arc;

/// A stored object in the form that a row shows in one of its versions.
pub(crate) fn present(row: &Row, version: &str, stored: &Object) -> Value {
    let mut object = stored.value();
    // Stored under another version or an older schema of its CRD.
    if !row.is_uniform(stored.revision)
        && let Some(strategy) = row.strategy()
    {
        strategy.show(&mut object, version);
    }
    to_external(row, version, object)
}

/// From the internal form of an object, which is the one that the kind's rules see, to the external one, which clients see.
/// They differ for views (`events.k8s.io/v1` over core Events), and in `kind` and `apiVersion`.
pub(crate) fn to_external(row: &Row, version: &str, object: Value) -> Value {
    let mut shown = match &row.resource.view {
        Some(view) => view.show_stored(&object),
        None => object,
    };
    // Set and not compared: the stored `apiVersion` is that of the storage version, whatever the client speaks.
    if let Some(members) = shown.as_object_mut() {
        members.insert("kind".into(), row.resource.kind.clone().into());
        members.insert("apiVersion".into(), api_version(&row.resource.group, version).into());
    }
    shown
}

/// A complete object as a real server would read it back from its storage. Built-in kinds are stored as protobuf there, which
/// does not tell an empty list or map from an absent one, nor null bytes from empty ones; clients see the result. Custom
/// resources are stored as JSON and keep every difference.
pub(super) fn round_trip(catalog: &Catalog, scope: &Scope<'_>, object: Value) -> Value {
    if scope.row.resource.custom {
        return object;
    }
    let schema = match &scope.row.resource.view {
        None => Some(Arc::clone(&scope.version.schema)),
        // What a view writes is stored under the schema of the kind that it is a view of.
        Some(view) => {
            let (group, plural) = view.stored_as();
            let table = catalog.kinds();
            table
                .get(group, plural)
                .and_then(|row| row.resource.versions.first().map(|v| Arc::clone(&v.schema)))
        }
    };
    match schema {
        Some(schema) => typed::as_stored(&object, &schema),
        None => object,
    }
}

/// The opposite of [`to_external`].
pub(super) fn to_internal(row: &Row, object: Value) -> Value {
    match &row.resource.view {
        Some(view) => view.to_stored(&object),
        None => object,
    }
}

/// The stored form of an internal object: the same, under the `apiVersion` of the storage version.
pub(super) fn to_stored(row: &Row, object: &Value) -> Value {
    let mut stored = object.clone();
    if let Some(members) = stored.as_object_mut() {
        members.insert("kind".into(), row.resource.kind.clone().into());
        members.insert("apiVersion".into(), row.storage_api_version().into());
    }
    stored
}
