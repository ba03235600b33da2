//! Who owns which field after a write: the registry's side of [`fleetpass_apply::apply`].

use super::Scope;
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_apimachinery::status::Status;
use fleetpass_apply::apply::{self, Target};
use fleetpass_apply::fields::Set;
use fleetpass_apply::manager;
use serde_json::Value;
use std::sync::LazyLock;

static NOTHING: LazyLock<Set> = LazyLock::new(Set::new);
static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of(&["status"]));
static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of(&["spec"]));
static ALL_BUT_STATUS: LazyLock<Set> = LazyLock::new(|| Set::of(&["metadata", "spec"]));

/// The fields that a write to this resource or subresource leaves as they were (`GetResetFields`).
fn reset(scope: &Scope<'_>) -> &'static Set {
    let has_status = scope.row.subresource("status", &scope.version.name).is_some();
    match (scope.subresource, scope.row.resource.custom) {
        ("" | "approval", _) if has_status => &STATUS,
        ("status", true) => &ALL_BUT_STATUS,
        ("status", false) => &SPEC,
        _ => &NOTHING,
    }
}

fn with_target<T>(scope: &Scope<'_>, act: impl FnOnce(&Target<'_>) -> T) -> T {
    let resource = &scope.row.resource;
    let known: Vec<String> =
        resource.versions.iter().map(|v| api_version(&resource.group, &v.name)).collect();
    let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
    if resource.view.is_some() || resource.plural == "events" {
        // Two faces of one kind: what was written through one is owned under that one's version.
        known.clear();
    }
    act(&Target {
        schema: &scope.version.schema,
        group: &resource.group,
        version: &scope.version.name,
        kind: &resource.kind,
        subresource: scope.subresource,
        reset: reset(scope),
        known: &known,
        now: scope.now,
    })
}

fn manager_of(scope: &Scope<'_>) -> String {
    manager(&scope.options.field_manager, scope.user_agent)
}

/// Makes the manager of the request the owner of all that a new object sets.
pub(super) fn track_create(scope: &Scope<'_>, object: &mut Value) {
    if !scope.strategy.tracks_fields() {
        return;
    }
    with_target(scope, |target| apply::update(target, None, object, &manager_of(scope)));
}

/// Makes the manager of the request the owner of what an update changes.
pub(super) fn track_update(scope: &Scope<'_>, old: &Value, object: &mut Value) {
    if !scope.strategy.tracks_fields() {
        return;
    }
    with_target(scope, |target| apply::update(target, Some(old), object, &manager_of(scope)));
}

/// Takes back times in managed fields if nothing else changed, so that the write is none.
pub(super) fn settle_times(object: &mut Value, old: &Value) {
    apply::keep_times(object, old);
}

/// Applies a configuration to what is there, or to nothing.
pub(super) fn apply(
    scope: &Scope<'_>,
    live: Option<&Value>,
    patch: &Value,
    force: bool,
) -> Result<Value, Status> {
    with_target(scope, |target| apply::apply(target, live, patch, &manager_of(scope), force))
}

/// Makes the manager of the request the owner of what the body of an action sets: `group`, `version` and `kind` are
/// the body's.
pub(crate) fn track_action(
    body: fleetpass_apimachinery::gvk::GvkRef<'_>,
    schema: &fleetpass_schema::Schema,
    subresource: &str,
    manager: &str,
    now: jiff::Timestamp,
    object: &mut Value,
) {
    let target = Target {
        schema,
        group: body.group,
        version: body.version,
        kind: body.kind,
        subresource,
        reset: &STATUS,
        known: &[],
        now,
    };
    apply::update(&target, None, object, manager);
}
