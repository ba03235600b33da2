//! The part of a pod's validation that matters where pods only have tokens bound to them: names, references, and how little of a pod
//! may change (`ValidatePodSpec`, `ValidatePodUpdate`, `ValidatePodStatusUpdate` in
//! `pkg/apis/core/validation/validation.go`).

use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::{metadata, names};
use serde_json::Value;
use std::collections::BTreeSet;

const MAX_SECONDS: i64 = i32::MAX as i64;
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The errors of a new pod.
pub(super) fn validate_new(object: &Value) -> ErrorList {
    let mut errors = validate_spec(object);
    let path = Path::new("spec");
    if !meta::list(object, &["spec", "ephemeralContainers"]).is_empty() {
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    let gated = !meta::list(object, &["spec", "schedulingGates"]).is_empty();
    if gated && !meta::text(object, &["spec", "nodeName"]).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
    errors
}

/// The errors of a change of the pod itself.
pub(super) fn validate_change(new: &Value, old: &Value) -> ErrorList {
    let mut errors = metadata::validate_update(new, old);
    errors.append(metadata::validate(new, true, &names::is_dns1123_subdomain));
    errors.append(validate_spec(new));
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        let field = path.child(list);
        let containers = meta::list(new, &["spec", list]);
        // The comparison below pairs containers by their place, which needs as many as before.
        if containers.len() != meta::list(old, &["spec", list]).len() {
            errors.push(Error::forbidden(&field, "pod updates may not add or remove containers"));
            return errors;
        }
        for (index, container) in containers.iter().enumerate() {
            let field = field.index(index).child("image");
            let image = meta::text(container, &["image"]);
            if image.is_empty() {
                errors.push(Error::required(&field, ""));
            }
            if image.trim().len() != image.len() {
                errors.push(Error::invalid(&field, image, "must not have leading or trailing whitespace"));
            }
        }
    }
    // Where Go returns early, so do we: what comes later would be reported in addition.
    let Ok(()) = validate_deadline(new, old, &path.child("activeDeadlineSeconds"), &mut errors) else {
        return errors;
    };
    errors.extend(validate_tolerations_kept(new, old, &path.child("tolerations")));
    if !meta::same(new.get("spec").map(|s| munged(s, old)).as_ref(), old.get("spec")) {
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n");
        errors.push(Error::forbidden(&path, detail));
    }
    errors
}

/// The errors of a change of the pod's status.
pub(super) fn validate_status(new: &Value, old: &Value) -> ErrorList {
    let mut errors = metadata::validate_update(new, old);
    let path = Path::new("status");
    for (index, condition) in meta::list(new, &["status", "conditions"]).iter().enumerate() {
        let kind = meta::text(condition, &["type"]);
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            // Spelled with a capital in kube-apiserver's answers.
            let field = path.child("conditions").index(index).child("Type");
            errors
                .extend(names::is_qualified_name(kind).into_iter().map(|m| Error::invalid(&field, kind, m)));
        }
    }
    let class = |object| meta::at(object, &["status", "qosClass"]);
    errors.extend(metadata::validate_immutable(class(new), class(old), &path.child("qosClass")));
    errors
}

/// The errors of a spec, new or changed. Much of `ValidatePodSpec` (probes, ports, security contexts, affinity) is not checked:
/// nothing here runs pods.
fn validate_spec(object: &Value) -> ErrorList {
    let path = Path::new("spec");
    let text = |name: &str| meta::text(object, &["spec", name]);
    let mut errors = ErrorList::new();
    let invalid = |field: &Path, value: &str, wrong: Vec<String>, errors: &mut ErrorList| {
        errors.extend(wrong.into_iter().map(|m| Error::invalid(field, value, m)));
    };
    validate_volumes(meta::list(object, &["spec", "volumes"]), &path.child("volumes"), &mut errors);
    let containers = meta::list(object, &["spec", "containers"]);
    if containers.is_empty() {
        errors.push(Error::required(&path.child("containers"), ""));
    }
    let mut seen = BTreeSet::new();
    validate_containers(containers, &path.child("containers"), &mut seen, &mut errors);
    let first = meta::list(object, &["spec", "initContainers"]);
    validate_containers(first, &path.child("initContainers"), &mut seen, &mut errors);
    let policies: [(&str, &[&str]); 2] = [
        ("restartPolicy", &["Always", "OnFailure", "Never"]),
        ("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    ];
    for (name, allowed) in policies {
        if text(name).is_empty() {
            errors.push(Error::required(&path.child(name), ""));
        } else if !allowed.contains(&text(name)) {
            errors.push(Error::not_supported(&path.child(name), text(name), allowed));
        }
    }
    if let Some(selector) = meta::map(object, &["spec", "nodeSelector"]) {
        errors.append(metadata::validate_labels(selector, &path.child("nodeSelector")));
    }
    for name in ["serviceAccountName", "nodeName"].into_iter().filter(|name| !text(name).is_empty()) {
        let wrong = names::is_dns1123_subdomain(text(name), false);
        invalid(&path.child(name), text(name), wrong, &mut errors);
    }
    if let Some(seconds) = meta::at(object, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64)
        && !(1..=MAX_SECONDS).contains(&seconds)
    {
        let detail = format!("must be between 1 and {MAX_SECONDS}, inclusive");
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, detail));
    }
    for name in ["hostname", "subdomain"].into_iter().filter(|name| !text(name).is_empty()) {
        let wrong = names::is_dns1123_label(text(name), false);
        invalid(&path.child(name), text(name), wrong, &mut errors);
    }
    errors
}

fn validate_volumes(volumes: &[Value], path: &Path, errors: &mut ErrorList) {
    // Names are unique over both lists.
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let field = path.index(index).child("name");
        let name = meta::text(volume, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&field, ""));
        } else {
            let wrong = names::is_dns1123_label(name, false);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&field, name, m)));
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&field, name));
        }
    }
}

fn validate_containers<'a>(
    containers: &'a [Value],
    path: &Path,
    seen: &mut BTreeSet<&'a str>,
    errors: &mut ErrorList,
) {
    const MESSAGES: &[&str] = &["File", "FallbackToLogsOnError"];
    const PULLS: &[&str] = &["Always", "IfNotPresent", "Never"];
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let field = path.child("name");
        let name = meta::text(container, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&field, ""));
        } else {
            let wrong = names::is_dns1123_label(name, false);
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&field, name, m)));
        }
        if meta::text(container, &["image"]).is_empty() {
            errors.push(Error::required(&path.child("image"), ""));
        }
        for (name, allowed) in [("terminationMessagePolicy", MESSAGES), ("imagePullPolicy", PULLS)] {
            let value = meta::text(container, &[name]);
            if !allowed.contains(&value) {
                errors.push(Error::not_supported(&path.child(name), value, allowed));
            }
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&field, name));
        }
    }
}

/// A deadline may come and shrink. `Err` means that the first error was enough.
fn validate_deadline(new: &Value, old: &Value, field: &Path, errors: &mut ErrorList) -> Result<(), ()> {
    let deadline = |object| meta::at(object, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64);
    match (deadline(new), deadline(old)) {
        (Some(new), _) if !(0..=MAX_SECONDS).contains(&new) => {
            let detail = format!("must be between 0 and {MAX_SECONDS}, inclusive");
            errors.push(Error::invalid(field, new, detail));
            Err(())
        }
        (Some(new), Some(old)) if new > old => {
            errors.push(Error::invalid(field, new, "must be less than or equal to previous value"));
            Err(())
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(Error::invalid(field, "null", detail));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Tolerations may be added, and their seconds may change.
fn validate_tolerations_kept(new: &Value, old: &Value, field: &Path) -> Option<Error> {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        meta::as_map_mut(&mut toleration).remove("tolerationSeconds");
        toleration.to_string()
    };
    let set = |object| -> BTreeSet<String> {
        meta::list(object, &["spec", "tolerations"]).iter().map(without_seconds).collect()
    };
    (!set(old).is_subset(&set(new))).then(|| {
        Error::forbidden(field, "existing toleration can not be modified except its tolerationSeconds")
    })
}

/// The new spec with all that may change set back to what it was (`mungedPodSpec` in Go): any difference that is left is one
/// too many. So fields that are not known here are fixed as well.
fn munged(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        let images = meta::list(old, &["spec", list]).iter().map(|c| c.get("image").cloned());
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, image) in containers.zip(images) {
            meta::as_map_mut(container).insert("image".into(), image.unwrap_or_default());
        }
    }
    let members = meta::as_map_mut(&mut spec);
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match meta::at(old, &["spec", name]) {
            Some(value) => members.insert(name.into(), value.clone()),
            None => members.remove(name),
        };
    }
    let grace = "terminationGracePeriodSeconds";
    let before = meta::at(old, &["spec", grace]).and_then(Value::as_i64);
    if members.get(grace).and_then(Value::as_i64) == Some(1)
        && let Some(before) = before.filter(|seconds| *seconds < 0)
    {
        members.insert(grace.into(), before.into());
    }
    spec
}
