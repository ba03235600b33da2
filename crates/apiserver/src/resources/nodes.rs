//! Nodes, as far as tokens need them: stored, checked, tainted until somebody calls them ready
//! (`pkg/registry/core/node`, `plugin/pkg/admission/nodetaint`, `ValidateNode` in
//! `pkg/apis/core/validation/validation.go`).

use super::printers;
use super::stored::{self, SUBRESOURCE_VERBS, StoredKind};
use crate::strategy::{Column, Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::{metadata, names};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";
const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

/// The row of Nodes.
pub(crate) fn resource() -> Resource {
    let wide = |name, description| Column::new(name, "string", "", description, 1);
    let kind = StoredKind {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        definition: "io.k8s.api.core.v1.Node",
        namespaced: false,
        short_names: &["no"],
        selectable_fields: &["spec.unschedulable"],
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "", "Whether it is ready, and whether it takes pods.", 0),
            Column::new("Roles", "string", "", "Its roles, by label.", 0),
            Column::age(),
            Column::new("Version", "string", "", "The version of its kubelet.", 0),
            wide("Internal-IP", "Its address inside the cluster."),
            wide("External-IP", "Its address outside."),
            wide("OS-Image", "What it runs."),
            wide("Kernel-Version", "Its kernel."),
            wide("Container-Runtime", "What runs its containers."),
        ],
    };
    let mut resource = stored::resource(kind, Arc::new(Nodes { status: false }));
    resource.subresources = vec![Subresource {
        name: "status",
        body: None,
        schema: None,
        verbs: SUBRESOURCE_VERBS,
        handler: Handler::Update(Arc::new(Nodes { status: true })),
        versions: None,
    }];
    resource
}

struct Nodes {
    /// Whether this is the subresource `status`.
    status: bool,
}

impl Strategy for Nodes {
    fn default(&self, object: &mut Value) {
        pair_ranges(object);
        if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
            // A kubelet that reserves nothing for itself does not say what is allocatable
            // (`SetDefaults_NodeStatus`).
            && !status.contains_key("allocatable")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".into(), capacity);
        }
    }

    fn admit(&self, _ctx: &Context<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        // On create only: whoever calls the node ready takes the taint off with an update.
        if old.is_none() {
            taint_not_ready(object);
        }
        Ok(())
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        // Fields of dynamic kubelet configuration, which is gone from Kubernetes: dropped unless an old object has
        // them.
        for (part, name) in [("spec", "configSource"), ("status", "config")] {
            if let Some(part) = object.get_mut(part).and_then(Value::as_object_mut) {
                part.remove(name);
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        validate_taints(object)
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        meta::keep(new, old, if self.status { "spec" } else { "status" });
        let (part, name) = if self.status { ("status", "config") } else { ("spec", "configSource") };
        if meta::at(old, &[part, name]).is_none()
            && let Some(part) = new.get_mut(part).and_then(Value::as_object_mut)
        {
            part.remove(name);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if !self.status {
            errors.append(metadata::validate(new, false, &names::is_dns1123_subdomain));
            errors.append(self.validate(ctx, new));
        }
        errors.append(metadata::validate_update(new, old));
        let mut seen = BTreeSet::new();
        for (index, address) in meta::list(new, &["status", "addresses"]).iter().enumerate() {
            if !seen.insert((meta::text(address, &["type"]), meta::text(address, &["address"]))) {
                errors.push(Error::duplicate(&Path::new("status.addresses").index(index), address.clone()));
            }
        }
        errors.append(validate_set_once(new, old));
        // Taints once more, as `ValidateNodeUpdate` does after `ValidateNode`: their errors are reported twice.
        errors.append(validate_taints(new));
        if meta::text(new, &["spec", "externalID"]) != meta::text(old, &["spec", "externalID"]) {
            errors.push(Error::forbidden(&Path::new("spec.externalID"), "may not be updated"));
        }
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.status && !meta::text(object, &["spec", "externalID"]).is_empty() {
            warnings
                .push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_string());
        }
        warnings
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        match label {
            "spec.unschedulable" => is_unschedulable(object).to_string(),
            _ => String::new(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |name| meta::text(object, &["status", "nodeInfo", name]);
        let known =
            |text: &str| if text.is_empty() { printers::UNKNOWN.to_string() } else { text.to_string() };
        let mut kernel = known(info("kernelVersion"));
        if !info("architecture").is_empty() {
            kernel.push_str(&format!(" ({})", info("architecture")));
        }
        vec![
            printers::name(object),
            readiness(object).into(),
            roles(object).into(),
            printers::age(object, now),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            known(info("osImage")).into(),
            kernel.into(),
            known(info("containerRuntimeVersion")).into(),
        ]
    }
}

/// The first range of addresses is in `podCIDR` too; where the two are not the same, `podCIDR` is right
/// (`Convert_v1_NodeSpec_To_core_NodeSpec` in `pkg/apis/core/v1/conversion.go`).
fn pair_ranges(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let one = spec.get("podCIDR").and_then(Value::as_str).filter(|one| !one.is_empty());
    let first = spec.get("podCIDRs").and_then(|all| all.get(0)).and_then(Value::as_str);
    let (name, right) = match (one, first) {
        (Some(one), first) if first != Some(one) => ("podCIDRs", json!([one])),
        (None, Some(first)) => ("podCIDR", json!(first)),
        _ => return,
    };
    spec.insert(name.into(), right);
}

fn taint_not_ready(object: &mut Value) {
    let spec = meta::child_mut(meta::as_map_mut(object), "spec");
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if let Value::Array(taints) = taints
        && !taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == NO_SCHEDULE)
    {
        taints.push(json!({"key": NOT_READY, "effect": NO_SCHEDULE}));
    }
}

fn validate_taints(object: &Value) -> ErrorList {
    // kube-apiserver reports them below metadata.
    let path = Path::new("metadata.taints");
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in meta::list(object, &["spec", "taints"]).iter().enumerate() {
        let path = path.index(index);
        let (key, effect) = (meta::text(taint, &["key"]), meta::text(taint, &["effect"]));
        let value = meta::text(taint, &["value"]);
        let field = path.child("key");
        errors.extend(names::is_qualified_name(key).into_iter().map(|m| Error::invalid(&field, key, m)));
        let wrong = names::is_label_value(value);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, wrong.join(";")));
        }
        let field = path.child("effect");
        if effect.is_empty() {
            errors.push(Error::required(&field, ""));
        } else if !TAINT_EFFECTS.contains(&effect) {
            errors.push(Error::not_supported(&field, effect, TAINT_EFFECTS));
        }
        if !seen.insert((key, effect)) {
            // Unlike other duplicates, this one says what must be unique.
            let mut error = Error::duplicate(&path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
    errors
}

/// What a controller may set once and nobody may change.
fn validate_set_once(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let ranges = |object| meta::list(object, &["spec", "podCIDRs"]);
    if !ranges(old).is_empty() && ranges(old) != ranges(new) {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(Error::forbidden(&Path::new("spec.podCIDRs"), detail));
    }
    let provider = |object| meta::text(object, &["spec", "providerID"]);
    if !provider(old).is_empty() && provider(old) != provider(new) {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(Error::forbidden(&Path::new("spec.providerID"), detail));
    }
    errors
}

fn is_unschedulable(object: &Value) -> bool {
    meta::at(object, &["spec", "unschedulable"]) == Some(&Value::Bool(true))
}

fn readiness(object: &Value) -> String {
    let ready = meta::list(object, &["status", "conditions"])
        .iter()
        // Go collects the conditions in a map, so the last of a type counts.
        .rev()
        .find(|c| meta::text(c, &["type"]) == "Ready")
        .map(|c| if meta::text(c, &["status"]) == "True" { "Ready" } else { "NotReady" });
    let mut text = ready.unwrap_or("Unknown").to_string();
    if is_unschedulable(object) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(object: &Value) -> String {
    let labels = meta::map(object, &["metadata", "labels"]).into_iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    meta::list(object, &["status", "addresses"])
        .iter()
        .find(|a| meta::text(a, &["type"]) == kind)
        .map_or("<none>", |a| meta::text(a, &["address"]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;

    #[test]
    fn a_new_node_is_tainted_once() {
        let world = World::default();
        let nodes = Nodes { status: false };
        let mut object = json!({"metadata": {"name": "n"}});
        for _ in 0..2 {
            nodes.admit(&world.ctx("", ""), &mut object, None).unwrap();
            assert_eq!(object["spec"], json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]}));
        }
    }

    #[test]
    fn ranges_of_addresses_come_in_both_forms() {
        for (given, want) in [
            (json!({"podCIDR": "a"}), json!({"podCIDR": "a", "podCIDRs": ["a"]})),
            (json!({"podCIDRs": ["a", "b"]}), json!({"podCIDR": "a", "podCIDRs": ["a", "b"]})),
            (json!({"podCIDR": "c", "podCIDRs": ["a", "b"]}), json!({"podCIDR": "c", "podCIDRs": ["c"]})),
            (json!({}), json!({})),
        ] {
            let mut object = json!({"spec": given});
            Nodes { status: false }.default(&mut object);
            assert_eq!(object["spec"], want);
        }
    }

    #[test]
    fn what_is_set_once_stays() {
        let world = World::default();
        let ctx = world.ctx("", "n");
        let old = json!({"metadata": {"name": "n", "resourceVersion": "1"},
            "spec": {"providerID": "a", "podCIDRs": ["10.0.0.0/24"], "externalID": "x"}});
        let new = json!({"metadata": {"name": "n", "resourceVersion": "1"},
            "spec": {"taints": [{"key": "k", "effect": "Odd"}]}});
        let twice = "metadata.taints[0].effect: Unsupported value: \"Odd\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"";
        assert_eq!(
            texts(&Nodes { status: false }.validate_update(&ctx, &new, &old)),
            [
                twice,
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
                twice,
                "spec.externalID: Forbidden: may not be updated",
            ]
        );
    }

    #[test]
    fn cells_say_how_a_node_is() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let object = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", ROLE_LABEL: "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "False"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kernelVersion": "6.1", "architecture": "arm64", "kubeletVersion": "v1.36.2"}}});
        let cells = Nodes { status: false }.cells(&object, now);
        assert_eq!(
            Value::from(cells),
            json!([
                "n",
                "NotReady,SchedulingDisabled",
                "edge,worker",
                "<unknown>",
                "v1.36.2",
                "10.0.0.1",
                "<none>",
                "<unknown>",
                "6.1 (arm64)",
                "<unknown>"
            ])
        );
    }
}
