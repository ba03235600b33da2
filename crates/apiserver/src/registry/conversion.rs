//! The forms of an object: stored, internal (what the kind's rules see) and external (what clients of one version see).

use super::scope::Scope;
use crate::cache::Object;
use crate::catalog::{Catalog, Row};
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_schema::typed;
use serde_json::Value;

/// A stored object in the form that a row shows in one of its versions.
pub(crate) fn present(row: &Row, version: &str, stored: &Object) -> Value {
    let mut object = stored.value();
    if !row.is_uniform(stored.revision)
        && let Some(strategy) = row.strategy()
    {
        strategy.show(&mut object, version);
    }
    to_external(row, version, object)
}

/// A tree in the form in which a kind's rules see it, as clients see it in one version.
pub(crate) fn to_external(row: &Row, version: &str, object: Value) -> Value {
    let mut shown = match &row.resource.view {
        Some(view) => view.show_stored(&object),
        None => object,
    };
    if let Some(members) = shown.as_object_mut() {
        members.insert("kind".into(), row.resource.kind.clone().into());
        members.insert("apiVersion".into(), api_version(&row.resource.group, version).into());
    }
    shown
}

/// A complete object as a real server gives it back from its storage, where built-in kinds are kept as protobuf: a
/// list or map without elements is not there, bytes that are null are empty.
pub(super) fn round_trip(catalog: &Catalog, scope: &Scope<'_>, object: Value) -> Value {
    if scope.row.resource.custom {
        return object;
    }
    let schema = match &scope.row.resource.view {
        None => Some(scope.version.schema.clone()),
        Some(view) => {
            let (group, plural) = view.stored_as();
            let table = catalog.kinds();
            table.get(group, plural).and_then(|row| row.resource.versions.first().map(|v| v.schema.clone()))
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

/// The form in which a tree is stored: that of the rules, under the stored `apiVersion`.
pub(super) fn to_stored(row: &Row, object: &Value) -> Value {
    let mut stored = object.clone();
    if let Some(members) = stored.as_object_mut() {
        members.insert("kind".into(), row.resource.kind.clone().into());
        members.insert("apiVersion".into(), row.storage_api_version().into());
    }
    stored
}
