//! CustomResourceDefinitions: defaults, what may change, names and conditions, and how one is deleted
//! (`apiextensions-apiserver/pkg/registry/customresourcedefinition`, `pkg/controller/{status,establish,finalizer}`).
//! What a definition may say is in the submodule `validation`; the kind that it defines is in [`super::customresources`].

mod go_json;
mod hoisted;
mod naming;
mod schema_validation;
mod structural;
mod validation;

pub use naming::{GrantedNames, naming_conditions};
pub(crate) use naming::{accepted_names, requested_names};

use super::printers;
use super::stored::{self, SUBRESOURCE_VERBS, StoredKind};
use crate::strategy::{Column, Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::time::rfc3339;
use fleetpass_schema::formats;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The finalizer that keeps a deleted definition until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The group of the kind.
pub(crate) const GROUP: &str = "apiextensions.k8s.io";

const PLURAL: &str = "customresourcedefinitions";

/// The row of CustomResourceDefinitions.
pub fn resource() -> Resource {
    let kind = StoredKind {
        group: GROUP,
        version: "v1",
        kind: "CustomResourceDefinition",
        plural: PLURAL,
        definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        namespaced: false,
        short_names: &["crd", "crds"],
        selectable_fields: &[],
        columns: vec![
            Column::name(),
            Column::new("Created At", "date", "", "When the definition was created.", 0),
        ],
    };
    let mut resource = stored::resource(kind, Arc::new(Definitions { status: false }));
    resource.categories = vec!["api-extensions".into()];
    resource.subresources = vec![Subresource {
        name: "status",
        body: None,
        schema: None,
        verbs: SUBRESOURCE_VERBS,
        handler: Handler::Update(Arc::new(Definitions { status: true })),
        versions: None,
    }];
    resource
}

struct Definitions {
    /// Whether this is the subresource `status`.
    status: bool,
}

impl Strategy for Definitions {
    /// Patterns and rules are compiled and priced.
    fn is_heavy(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let stored = storage_version(object).map(str::to_string);
        let spec = meta::child_mut(meta::as_map_mut(object), "spec");
        let names = meta::child_mut(spec, "names");
        let text = |names: &Map<String, Value>, field: &str| {
            names.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
        };
        // The defaults of the spec (`SetDefaults_CustomResourceDefinitionSpec` in
        // `apis/apiextensions/v1/defaults.go`).
        let kind = text(names, "kind");
        if !kind.is_empty() {
            if text(names, "singular").is_empty() {
                names.insert("singular".into(), kind.to_lowercase().into());
            }
            if text(names, "listKind").is_empty() {
                names.insert("listKind".into(), format!("{kind}List").into());
            }
        }
        if spec.get("conversion").is_none_or(Value::is_null) {
            spec.insert("conversion".into(), json!({"strategy": "None"}));
        }
        if let Some(service) = spec["conversion"].pointer_mut("/webhook/clientConfig/service")
            && let Some(service) = service.as_object_mut()
        {
            service.entry("port").or_insert_with(|| 443.into());
        }
        // A default as well: a status sent without storedVersions would fail validation. `conditions` and
        // `acceptedNames` are printed even when empty, their Go fields have no omitempty.
        if let Some(stored) = stored
            && meta::list(object, &["status", "storedVersions"]).is_empty()
        {
            let status = meta::child_mut(meta::as_map_mut(object), "status");
            status.insert("storedVersions".into(), json!([stored]));
            status.entry("conditions").or_insert(Value::Null);
            status.entry("acceptedNames").or_insert_with(|| json!({"plural": "", "kind": ""}));
        }
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        // Whatever status the client sent is dropped: nothing is stored yet but by the storage version, and no name
        // is accepted before the others were looked at.
        let stored: Vec<&str> = storage_version(object).into_iter().collect();
        let mut status = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}});
        status["storedVersions"] = if stored.is_empty() { Value::Null } else { stored.into() };
        meta::as_map_mut(object).insert("status".into(), status);
        meta::metadata_mut(object).insert("generation".into(), 1.into());
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if self.status {
            meta::keep(new, old, "spec");
            return;
        }
        meta::keep(new, old, "status");
        let changed = new.get("spec") != old.get("spec");
        let generation = meta::generation(old) + i64::from(changed);
        meta::metadata_mut(new).insert("generation".into(), generation.into());
        // A version that once was the storage version stays listed, because objects may still be stored in it. Only
        // who has migrated them takes it off, through `/status`.
        if let Some(stored) = storage_version(new).map(Value::from)
            && !meta::list(new, &["status", "storedVersions"]).contains(&stored)
        {
            let status = meta::child_mut(meta::as_map_mut(new), "status");
            match status.get_mut("storedVersions").and_then(Value::as_array_mut) {
                Some(versions) => versions.push(stored),
                None => {
                    status.insert("storedVersions".into(), json!([stored]));
                }
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        validation::validate(object)
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if self.status { validation::validate_status(new) } else { validation::validate_update(new, old) }
    }

    fn warnings(&self, _ctx: &Context<'_>, object: &Value, old: Option<&Value>) -> Vec<String> {
        if self.status {
            return Vec::new();
        }
        // Only what this update brings in: nobody is told the same at each change of a label.
        let before: BTreeSet<String> = old.map(schema_warnings).unwrap_or_default().into_iter().collect();
        let mut warnings = schema_warnings(object);
        warnings.retain(|w| !before.contains(w));
        warnings
    }

    fn begin_deletion(&self, object: &mut Value) {
        let deleted = meta::time(object, &["metadata", "deletionTimestamp"]).unwrap_or_default();
        let generation = meta::generation(object);
        let metadata = meta::metadata_mut(object);
        // The deletion of a definition is no graceful one, whatever propagation it asks for: it has no grace
        // period, is no new generation, and waits for the objects of the kind alone.
        metadata.remove("deletionGracePeriodSeconds");
        // The registry has counted a new generation already; that is taken back.
        if generation > 1 {
            metadata.insert("generation".into(), (generation - 1).into());
        }
        if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|f| f != "foregroundDeletion" && f != "orphan");
        }
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|f| f == CLEANUP_FINALIZER)
        {
            finalizers.push(CLEANUP_FINALIZER.into());
        }
        let pending = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let condition = Condition::new("Terminating", true, "InstanceDeletionPending", pending);
        let status = meta::child_mut(meta::as_map_mut(object), "status");
        set_condition(status, condition, deleted);
    }

    fn refuse_preconditions(
        &self,
        object: &Value,
        uid: Option<&str>,
        version: Option<&str>,
    ) -> Option<Status> {
        // Checked here as well as in the generic registry because kube-apiserver does, in other words and with the
        // UID first (`registry/customresourcedefinition/etcd.go`, `Delete`).
        let meta_version = meta::text(object, &["metadata", "resourceVersion"]);
        let asked = [("UID", uid, meta::uid(object)), ("ResourceVersion", version, meta_version)];
        let (what, asked, found) = asked.into_iter().find_map(|(what, asked, found)| {
            let asked = asked.filter(|asked| *asked != found)?;
            Some((what, asked, found))
        })?;
        let resource = GroupResource { group: GROUP, resource: PLURAL };
        let why =
            format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}");
        Some(Status::conflict(resource, meta::name(object), why))
    }

    fn is_held(&self, object: &Value) -> bool {
        // The first request to delete only marks; from then on the finalizer holds.
        !meta::is_being_deleted(object)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![printers::name(object), object["metadata"]["creationTimestamp"].clone()]
    }
}

fn storage_version(definition: &Value) -> Option<&str> {
    let versions = meta::list(definition, &["spec", "versions"]);
    versions.iter().find(|v| v["storage"] == true).map(|v| meta::text(v, &["name"]))
}

/// The warnings of a definition's schemas: formats that are not known, in the order of the schemas, then sets whose elements
/// are not scalars.
fn schema_warnings(definition: &Value) -> Vec<String> {
    let (mut unknown, mut sets) = (Vec::new(), BTreeSet::new());
    for version in meta::list(definition, &["spec", "versions"]) {
        schema_validation::walk(&version["schema"]["openAPIV3Schema"], &mut |schema| {
            let format = meta::text(schema, &["format"]);
            let known = match meta::text(schema, &["type"]) {
                "" | "string" => formats::is_string_format(format),
                "integer" => matches!(format, "int32" | "int64"),
                "number" => matches!(format, "float" | "double"),
                _ => false,
            };
            if !format.is_empty() && !known {
                unknown
                    .push(format!("unrecognized format {}", fleetpass_apimachinery::field::go_quote(format)));
            }
            let items = meta::text(schema, &["items", "type"]);
            if schema["x-kubernetes-list-type"] == "set" && matches!(items, "object" | "array") {
                sets.insert(format!(
                    "x-kubernetes-list-type: set for items of type {} is not supported by server-side apply or \
                     CEL validation rules",
                    fleetpass_apimachinery::field::go_quote(items)
                ));
            }
        });
    }
    unknown.extend(sets);
    unknown
}

/// A condition of a definition, without its time.
struct Condition<'a> {
    kind: &'a str,
    status: bool,
    reason: &'a str,
    message: String,
}

impl<'a> Condition<'a> {
    fn new(kind: &'a str, status: bool, reason: &'a str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// Sets a condition; its time changes only with its status (`SetCRDCondition` in `pkg/apihelpers/helpers.go`).
fn set_condition(status: &mut Map<String, Value>, condition: Condition<'_>, now: Timestamp) {
    if !status.get("conditions").is_some_and(Value::is_array) {
        status.insert("conditions".into(), json!([]));
    }
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    let word = if condition.status { "True" } else { "False" };
    let fresh = json!({"type": condition.kind, "status": word, "lastTransitionTime": rfc3339(now),
        "reason": condition.reason, "message": condition.message});
    match conditions.iter_mut().find(|c| c["type"] == condition.kind) {
        None => conditions.push(fresh),
        Some(existing) => {
            let time = existing["lastTransitionTime"].clone();
            let keep = existing["status"] == word && !time.is_null();
            *existing = fresh;
            if keep {
                existing["lastTransitionTime"] = time;
            }
        }
    }
}

/// The status of a definition whose objects are being deleted now (`crd_finalizer.go`).
pub(crate) fn deletion_in_progress(definition: &Value, now: Timestamp) -> Value {
    let mut status = definition.get("status").cloned().unwrap_or_else(|| json!({}));
    let condition = Condition::new(
        "Terminating",
        true,
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
    );
    set_condition(meta::as_map_mut(&mut status), condition, now);
    status
}

#[cfg(test)]
#[path = "customresourcedefinitions_tests.rs"]
mod tests;
