//! The defaults of a pod (`pkg/apis/core/v1/defaults.go`).

use super::containers::CONTAINER_LISTS;
use fleetpass_apimachinery::meta;
use serde_json::{Map, Value, json};

/// What is readable for all and writable for the owner: 0644.
const FILE_MODE: i64 = 420;

/// Fills in the defaults.
pub(super) fn apply(object: &mut Value) {
    let spec = meta::child_mut(meta::as_map_mut(object), "spec");
    for (name, value) in [
        ("dnsPolicy", json!("ClusterFirst")),
        ("restartPolicy", json!("Always")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
    ] {
        set_default(spec, name, value);
    }
    fill_both_account_fields(spec);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        for container in objects_mut(spec, list) {
            apply_to_container(container, host_network);
        }
    }
    for volume in objects_mut(spec, "volumes") {
        apply_to_volume(volume);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are printed, and the new one wins
/// (`pkg/apis/core/v1/conversion.go`).
pub(super) fn fill_both_account_fields(spec: &mut Map<String, Value>) {
    let text = |name: &str| spec.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    if let Some(name) = text("serviceAccountName").or_else(|| text("serviceAccount")).map(str::to_string) {
        spec.insert("serviceAccountName".into(), name.clone().into());
        spec.insert("serviceAccount".into(), name.into());
    }
}

fn apply_to_container(container: &mut Map<String, Value>, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    for (name, value) in [
        ("imagePullPolicy", json!(policy)),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("resources", json!({})),
    ] {
        set_default(container, name, value);
    }
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut)
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        // A limit without a request is a request for as much.
        let requests = meta::child_mut(resources, "requests");
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
    for port in objects_mut(container, "ports") {
        set_default(port, "protocol", json!("TCP"));
        // On the host's network, a container's port is the host's.
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    }
    for variable in objects_mut(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom").and_then(Value::as_object_mut) {
            apply_to_field_reference(source);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).and_then(Value::as_object_mut) {
            apply_to_probe(probe);
        }
    }
}

/// Whether an image has the tag `latest`, by name or because it has neither tag nor digest.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    match name.split_once(':') {
        // A digest decides what runs; a tag beside it still counts for the policy, a missing one does not.
        _ if name.is_empty() || name.contains('@') => name.contains(":latest@"),
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

fn apply_to_probe(probe: &mut Map<String, Value>) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        set_default(probe, name, json!(value));
    }
    if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
        set_default(get, "path", json!("/"));
        set_default(get, "scheme", json!("HTTP"));
    }
    if let Some(call) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        call.entry("service").or_insert_with(|| "".into());
    }
}

fn apply_to_volume(volume: &mut Map<String, Value>) {
    // A volume without a source is an empty directory, as it was in the first versions.
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).and_then(Value::as_object_mut) {
            set_default(source, "defaultMode", json!(FILE_MODE));
            for item in objects_mut(source, "items") {
                apply_to_field_reference(item);
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        path.entry("type").or_insert_with(|| "".into());
    }
    let projected = volume.get_mut("projected").and_then(Value::as_object_mut);
    for source in projected.into_iter().flat_map(|p| objects_mut(p, "sources").collect::<Vec<_>>()) {
        if let Some(token) = source.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
            set_default(token, "expirationSeconds", json!(3600));
        }
        if let Some(fields) = source.get_mut("downwardAPI").and_then(Value::as_object_mut) {
            for item in objects_mut(fields, "items") {
                apply_to_field_reference(item);
            }
        }
    }
}

fn apply_to_field_reference(holder: &mut Map<String, Value>) {
    if let Some(reference) = holder.get_mut("fieldRef").and_then(Value::as_object_mut) {
        set_default(reference, "apiVersion", json!("v1"));
    }
}

/// Sets a member that is missing, `null`, an empty string or 0: in Go these are the same, except where the field is a pointer.
fn set_default(object: &mut Map<String, Value>, name: &str, value: Value) {
    let slot = object.entry(name).or_insert(Value::Null);
    // The pointers among these fields: a 0 in them was written by the client.
    let nullable =
        name == "terminationGracePeriodSeconds" || name == "defaultMode" || name == "expirationSeconds";
    if slot.is_null() || *slot == "" || (*slot == 0 && !nullable) {
        *slot = value;
    }
}

/// The objects in the list `name`.
fn objects_mut<'a>(
    object: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = object.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default();
    list.iter_mut().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_latest_by_name_or_by_omission() {
        for (image, latest) in [
            ("i", true),
            ("registry:5000/i", true),
            ("i:latest", true),
            ("i:1", false),
            ("registry:5000/a/i:1", false),
            ("i@sha256:0a", false),
            ("i:latest@sha256:0a", true),
            ("", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn volumes_probes_and_references() {
        let mut pod = json!({"spec": {"serviceAccount": "old",
            "containers": [{"livenessProbe": {"httpGet": {"port": 1}, "timeoutSeconds": 7},
                "ports": [{"containerPort": 80}], "env": [{"valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}],
            "volumes": [{"name": "e"}, {"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}}]}}]}});
        apply(&mut pod);
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "old");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(
            spec["volumes"][1]["projected"],
            json!({"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]})
        );
        let container = &spec["containers"][0];
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 7, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    }
}
