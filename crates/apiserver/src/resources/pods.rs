//! Pods, as far as tokens need them: stored with their defaults, run under a service account, bound to a node,
//! deleted gracefully. Nothing schedules or runs them here (`pkg/registry/core/pod/strategy.go`).

mod admission;
mod cells;
mod containers;
mod defaults;
mod validation;

use self::containers::{CONTAINER_LISTS, containers};
use super::stored::{self, SUBRESOURCE_VERBS, StoredKind};
use crate::strategy::{Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row of Pods.
pub(crate) fn resource() -> Resource {
    let kind = StoredKind {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        definition: "io.k8s.api.core.v1.Pod",
        namespaced: true,
        short_names: &["po"],
        selectable_fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
            "spec.host",
        ],
        columns: cells::columns(),
    };
    let mut resource = stored::resource(kind, Arc::new(Pods { status: false }));
    // For `kubectl get all`.
    resource.categories = vec!["all".into()];
    resource.delete_returns_object = true;
    resource.subresources = vec![Subresource {
        name: "status",
        body: None,
        schema: None,
        verbs: SUBRESOURCE_VERBS,
        handler: Handler::Update(Arc::new(Pods { status: true })),
        versions: None,
    }];
    resource
}

struct Pods {
    /// Whether this is the subresource `status`.
    status: bool,
}

impl Strategy for Pods {
    fn default(&self, object: &mut Value) {
        defaults::apply(object);
    }

    fn admit(&self, ctx: &Context<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        match (self.status, old) {
            // The plugins look at pods themselves and leave their subresources alone.
            (true, _) => Ok(()),
            (false, None) => admission::admit_new(ctx, object),
            (false, Some(old)) => {
                admission::admit_change(object, old);
                Ok(())
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        let class = quality_of_service(object);
        meta::as_map_mut(object).insert("status".into(), json!({"phase": "Pending", "qosClass": class}));
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        validation::validate_new(object)
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if !self.status {
            meta::keep(new, old, "status");
            return;
        }
        meta::keep(new, old, "spec");
        let old_metadata = old.get("metadata");
        // Old kubelets send these two back wrong, and owners decide what garbage collection deletes
        // (`podStatusStrategy.PrepareForUpdate`).
        for name in ["deletionTimestamp", "ownerReferences"] {
            let metadata = meta::metadata_mut(new);
            match old_metadata.and_then(|m| m.get(name)) {
                Some(value) => metadata.insert(name.into(), value.clone()),
                None => metadata.remove(name),
            };
        }
        // A class that is left out is kept; one that changes is refused by validation.
        if meta::text(new, &["status", "qosClass"]).is_empty()
            && let Some(class) = meta::at(old, &["status", "qosClass"])
        {
            meta::child_mut(meta::as_map_mut(new), "status").insert("qosClass".into(), class.clone());
        }
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if self.status {
            validation::validate_status(new, old)
        } else {
            validation::validate_change(new, old)
        }
    }

    fn graceful_deletion(&self, _ctx: &Context<'_>, object: &Value, requested: Option<i64>) -> Option<i64> {
        let own = || {
            meta::at(object, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0)
        };
        let phase = meta::text(object, &["status", "phase"]);
        let unscheduled = meta::text(object, &["spec", "nodeName"]).is_empty();
        // Nothing runs, so there is nobody to wait for. Otherwise the pod is only marked, and its kubelet deletes
        // it with a grace period of 0 when all has stopped.
        if unscheduled || phase == "Failed" || phase == "Succeeded" {
            return Some(0);
        }
        let seconds = requested.unwrap_or_else(own);
        // Negative values are from before they were refused; 1 means as soon as possible, while 0 would not wait
        // for the kubelet.
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        match label {
            // The name of `spec.nodeName` in the first versions of Kubernetes.
            "spec.host" => meta::text(object, &["spec", "nodeName"]).into(),
            "spec.hostNetwork" => {
                (meta::at(object, &["spec", "hostNetwork"]) == Some(&Value::Bool(true))).to_string()
            }
            "status.podIP" | "status.podIPs" => cells::address(object).into(),
            label => {
                label.split_once('.').map_or("", |(part, name)| meta::text(object, &[part, name])).into()
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells::cells(object, now)
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort` (`pkg/apis/core/v1/helper/qos`), container by container.
fn quality_of_service(object: &Value) -> &'static str {
    let positive = |quantity: &Value| {
        let text = quantity.as_str().unwrap_or_default();
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        !text.starts_with('-') && mantissa.contains(|c: char| matches!(c, '1'..='9'))
    };
    let (mut any, mut guaranteed) = (false, true);
    for container in containers(object, &CONTAINER_LISTS[..2]) {
        for name in ["cpu", "memory"] {
            let amount = |kind| meta::at(container, &["resources", kind, name]).filter(|q| positive(q));
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            // Quantities are compared as they are written: `1` and `1000m` differ here. It only decides which class
            // is shown.
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;

    fn world() -> World {
        World::with(vec![(
            "",
            "serviceaccounts",
            json!({"metadata": {"name": "default", "namespace": "ns"}, "imagePullSecrets": [{"name": "p"}]}),
        )])
    }

    fn created(mut object: Value) -> Result<Value, Status> {
        let world = world();
        let pods = Pods { status: false };
        let ctx = world.ctx("ns", "");
        Strategy::default(&pods, &mut object);
        pods.admit(&ctx, &mut object, None)?;
        pods.prepare_for_create(&ctx, &mut object);
        Ok(object)
    }

    #[test]
    fn a_minimal_pod_gets_its_defaults() {
        let pod = created(json!({"metadata": {"name": "p"}, "spec": {"automountServiceAccountToken": false,
            "imagePullSecrets": [{"name": "mine"}],
            "containers": [{"name": "c", "image": "registry.example.com/img:1"}]}}))
        .unwrap();
        assert_eq!(
            pod,
            json!({"metadata": {"name": "p"}, "spec": {
                "containers": [{"name": "c", "image": "registry.example.com/img:1", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent"}],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default", "serviceAccount": "default",
                "automountServiceAccountToken": false, "securityContext": {}, "imagePullSecrets": [{"name": "mine"}],
                "schedulerName": "default-scheduler",
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                        "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                        "tolerationSeconds": 300}],
                "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority"},
                "status": {"phase": "Pending", "qosClass": "BestEffort"}})
        );
    }

    #[test]
    fn a_pod_gets_a_token_and_the_pull_secrets_of_its_account() {
        let pod = created(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        )
        .unwrap();
        let spec = &pod["spec"];
        let name = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
        assert_eq!(
            spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
            3607
        );
        assert_eq!(
            spec["containers"][0]["volumeMounts"],
            json!([{"name": name, "readOnly": true,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
        );
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "p"}]));
    }

    #[test]
    fn a_missing_account_is_refused() {
        let refusal = created(json!({"metadata": {"name": "nosa", "namespace": "ns"},
            "spec": {"serviceAccountName": "missing"}}))
        .unwrap_err();
        assert_eq!(refusal.code, 403);
        assert_eq!(
            refusal.message,
            "pods \"nosa\" is forbidden: error looking up service account ns/missing: serviceaccount \"missing\" not found"
        );
    }

    #[test]
    fn bad_pods_are_refused() {
        let world = world();
        let pods = Pods { status: false };
        for (spec, wanted) in [
            (json!({}), vec!["spec.containers: Required value"]),
            (
                json!({"containers": [{"name": "Bad_Name"}, {"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
                vec![
                    "spec.containers[0].name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 label",
                    "spec.containers[0].image: Required value",
                    "spec.containers[2].name: Duplicate value: \"a\"",
                ],
            ),
        ] {
            let object = created(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
            let found = texts(&pods.validate(&world.ctx("ns", ""), &object));
            assert_eq!(found.len(), wanted.len(), "{found:#?}");
            assert!(found.iter().zip(wanted).all(|(f, w)| f.starts_with(w)), "{found:#?}");
        }
    }

    #[test]
    fn little_of_a_pod_may_change() {
        let world = world();
        let pods = Pods { status: false };
        let old = created(json!({"metadata": {"name": "p", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .unwrap();
        let errors = |change: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new);
            texts(&pods.validate_update(&world.ctx("ns", "p"), &new, &old))
        };
        assert!(errors(&|p| p["spec"]["containers"][0]["image"] = "j".into()).is_empty());
        assert!(errors(&|p| p["spec"]["activeDeadlineSeconds"] = 5.into()).is_empty());
        let found = errors(&|p| p["spec"]["serviceAccountName"] = "other".into());
        assert!(
            found.len() == 1 && found[0].starts_with("spec: Forbidden: pod updates may not"),
            "{found:?}"
        );
        assert_eq!(
            errors(&|p| p["spec"]["tolerations"] = json!([])),
            [
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
            ]
        );
    }

    #[test]
    fn the_grace_period_is_the_requests_or_the_pods_own() {
        let world = world();
        let ctx = world.ctx("ns", "p");
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}, "status": {"phase": phase}});
        for (object, requested, seconds) in [
            (pod("", "Pending"), None, 0),
            (pod("", "Pending"), Some(5), 0),
            (pod("n", "Running"), None, 20),
            (pod("n", "Running"), Some(5), 5),
            (pod("n", "Running"), Some(-3), 1),
            (pod("n", "Succeeded"), Some(5), 0),
        ] {
            assert_eq!(Pods { status: false }.graceful_deletion(&ctx, &object, requested), Some(seconds));
        }
    }

    #[test]
    fn quality_follows_requests_and_limits() {
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            let mut pod =
                json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}});
            defaults::apply(&mut pod);
            assert_eq!(quality_of_service(&pod), class, "{resources}");
        }
    }
}
