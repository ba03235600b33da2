//! Who owns which field after a write: the registry's side of [`FieldManager`].

use super::patch_status::patch_status;
use super::scope::Scope;
use fleetpass_apimachinery::gvk::{GvkRef, api_version};
use fleetpass_apimachinery::status::Status;
use fleetpass_apply::fieldpath::Set;
use fleetpass_apply::{FieldManager, keep_times, manager_name};
use serde_json::Value;
use std::sync::LazyLock;

static NOTHING: LazyLock<Set> = LazyLock::new(Set::new);
static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of(&["status"]));
static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of(&["spec"]));
static ALL_BUT_STATUS: LazyLock<Set> = LazyLock::new(|| Set::of(&["metadata", "spec"]));

/// The fields that a write to this resource or subresource leaves as they were (`GetResetFields`): nobody becomes the owner of
/// a value that the server throws away.
fn reset_fields(scope: &Scope<'_>) -> &'static Set {
    // Kinds with a status subresource ignore `status` in writes to the main resource, and everything else in those to it.
    let has_status = scope.row.subresource("status", &scope.version.name).is_some();
    match (scope.subresource, scope.row.resource.custom) {
        ("" | "approval", _) if has_status => &STATUS,
        ("status", true) => &ALL_BUT_STATUS,
        ("status", false) => &SPEC,
        _ => &NOTHING,
    }
}

/// Calls `act` with the field manager of the request. A closure, because the manager borrows from values that live here.
fn with_manager<T>(scope: &Scope<'_>, act: impl FnOnce(&FieldManager<'_>) -> T) -> T {
    let resource = &scope.row.resource;
    let known: Vec<String> =
        resource.versions.iter().map(|v| api_version(&resource.group, &v.name)).collect();
    let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
    if resource.view.is_some() || resource.plural == "events" {
        // Two faces of one kind: what was written through one is owned under that one's version.
        known.clear();
    }
    act(&FieldManager {
        name: &manager_name(&scope.options.field_manager, scope.user_agent),
        schema: &scope.version.schema,
        kind: GvkRef { group: &resource.group, version: &scope.version.name, kind: &resource.kind },
        subresource: scope.subresource,
        reset_fields: reset_fields(scope),
        known_versions: &known,
        now: scope.now,
    })
}

/// Makes the manager of the request the owner of all that a new object sets.
pub(super) fn track_create(scope: &Scope<'_>, object: &mut Value) {
    if !scope.strategy.tracks_fields() {
        return;
    }
    with_manager(scope, |manager| manager.update(None, object));
}

/// Makes the manager of the request the owner of what an update changes.
pub(super) fn track_update(scope: &Scope<'_>, old: &Value, object: &mut Value) {
    if !scope.strategy.tracks_fields() {
        return;
    }
    with_manager(scope, |manager| manager.update(Some(old), object));
}

/// Puts back the times of managed fields if nothing else has changed, so that the write is recognised as one that changes
/// nothing: an apply that is repeated every minute must not write every minute (`IgnoreManagedFieldsTimestampsTransformer` in
/// `k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager/equality.go`).
pub(super) fn keep_unchanged_times(object: &mut Value, old: &Value) {
    keep_times(object, old);
}

/// Applies a configuration to what is there, or to nothing.
pub(super) fn apply(
    scope: &Scope<'_>,
    live: Option<&Value>,
    patch: &Value,
    force: bool,
) -> Result<Value, Status> {
    with_manager(scope, |manager| manager.apply(live, patch, force)).map_err(patch_status)
}

/// Makes the manager of the request the owner of what the body of an action sets: `group`, `version` and `kind` are
/// the body's.
pub(crate) fn track_action(
    body: GvkRef<'_>,
    schema: &fleetpass_schema::Schema,
    subresource: &str,
    manager: &str,
    now: jiff::Timestamp,
    object: &mut Value,
) {
    let manager = FieldManager {
        name: manager,
        schema,
        kind: body,
        subresource,
        reset_fields: &STATUS,
        known_versions: &[],
        now,
    };
    manager.update(None, object);
}
