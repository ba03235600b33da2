//! The Table of pods (`printPod` in `pkg/printers/internalversion/printers.go`).

use super::super::printers;
use crate::strategy::Column;
use fleetpass_apimachinery::meta;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const NONE: &str = "<none>";

/// The columns.
pub(super) fn columns() -> Vec<Column> {
    let column = |name, description, priority| Column::new(name, "string", "", description, priority);
    vec![
        Column::name(),
        column("Ready", "How many containers are ready, of how many.", 0),
        column("Status", "Its phase, or the reason why it is not well.", 0),
        column("Restarts", "How often containers were restarted, and when last.", 0),
        Column::age(),
        column("IP", "Its address.", 1),
        column("Node", "Where it runs.", 1),
        column("Nominated Node", "Where it is to run when others have made room.", 1),
        column("Readiness Gates", "How many further conditions are met, of how many.", 1),
    ]
}

/// The cells of a pod.
pub(super) fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let summary = ContainerSummary::of(object);
    let or_none = |text: &str| if text.is_empty() { NONE.to_string() } else { text.to_string() };
    let mut restarts = summary.restarts.to_string();
    if summary.restarts != 0 && summary.last_restart.is_some() {
        restarts = format!("{restarts} ({} ago)", printers::since(summary.last_restart, now));
    }
    vec![
        printers::name(object),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        printers::age(object, now),
        or_none(address(object)).into(),
        or_none(meta::text(object, &["spec", "nodeName"])).into(),
        or_none(meta::text(object, &["status", "nominatedNodeName"])).into(),
        readiness_gates(object).into(),
    ]
}

/// The pod's first address, or empty.
pub(super) fn address(object: &Value) -> &str {
    meta::list(object, &["status", "podIPs"]).first().map_or("", |ip| meta::text(ip, &["ip"]))
}

fn readiness_gates(object: &Value) -> String {
    let gates = meta::list(object, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.into();
    }
    let mut states = BTreeMap::new();
    for condition in meta::list(object, &["status", "conditions"]) {
        states.entry(meta::text(condition, &["type"])).or_insert(meta::text(condition, &["status"]));
    }
    let met = gates.iter().filter(|g| states.get(meta::text(g, &["conditionType"])) == Some(&"True")).count();
    format!("{met}/{}", gates.len())
}

fn has_condition(object: &Value, kind: &str) -> bool {
    meta::list(object, &["status", "conditions"])
        .iter()
        .find(|c| meta::text(c, &["type"]) == kind)
        .is_some_and(|c| meta::text(c, &["status"]) == "True")
}

/// What the statuses of a pod's containers add up to.
struct ContainerSummary {
    total: usize,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    reason: String,
}

impl ContainerSummary {
    fn of(object: &Value) -> Self {
        let phase = meta::text(object, &["status", "phase"]);
        let own_reason = meta::text(object, &["status", "reason"]);
        let sidecars =
            meta::list(object, &["spec", "initContainers"]).iter().filter(|c| is_sidecar(c)).count();
        let mut summary = Self {
            total: meta::list(object, &["spec", "containers"]).len() + sidecars,
            ready: 0,
            restarts: 0,
            last_restart: None,
            reason: if own_reason.is_empty() { phase } else { own_reason }.into(),
        };
        // Each step below may overwrite the reason that the step before has found; their order is `printPod`'s.
        let gated = |c: &Value| {
            meta::text(c, &["type"]) == "PodScheduled" && meta::text(c, &["reason"]) == "SchedulingGated"
        };
        if meta::list(object, &["status", "conditions"]).iter().any(gated) {
            summary.reason = "SchedulingGated".into();
        }
        let initializing = summary.look_at_init_containers(object);
        // Until then the pod's own containers have not started and would only hide what is awaited.
        if !initializing || has_condition(object, "Initialized") {
            summary.look_at_containers(object);
        }
        if meta::is_being_deleted(object) {
            if own_reason == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if phase != "Failed" && phase != "Succeeded" {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += meta::at(status, &["restartCount"]).and_then(Value::as_i64).unwrap_or_default();
        let finished = meta::time(status, &["lastState", "terminated", "finishedAt"]);
        self.last_restart = self.last_restart.max(finished);
    }

    /// Whether some init container is not done; then the reason says which, and restarts are theirs.
    fn look_at_init_containers(&mut self, object: &Value) -> bool {
        let specs = meta::list(object, &["spec", "initContainers"]);
        let sidecars: BTreeSet<&str> =
            specs.iter().filter(|c| is_sidecar(c)).map(|c| meta::text(c, &["name"])).collect();
        let (mut sidecar_restarts, mut sidecar_last) = (0, None);
        let mut initializing = false;
        // In order, up to the first that is not done: it is the one that the pod waits for.
        for (index, status) in meta::list(object, &["status", "initContainerStatuses"]).iter().enumerate() {
            let sidecar = sidecars.contains(meta::text(status, &["name"]));
            let (before, last) = (self.restarts, self.last_restart);
            self.count_restarts(status);
            if sidecar {
                sidecar_restarts += self.restarts - before;
                sidecar_last = self.last_restart.max(sidecar_last).filter(|_| self.last_restart != last);
            }
            let terminated = meta::at(status, &["state", "terminated"]);
            let exit = terminated.map(|t| integer(t, "exitCode"));
            let started = status.get("started") == Some(&Value::Bool(true));
            if exit == Some(0) {
                continue;
            }
            if sidecar && started {
                self.ready += usize::from(status.get("ready") == Some(&Value::Bool(true)));
                continue;
            }
            let waiting = meta::text(status, &["state", "waiting", "reason"]);
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", ending(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            };
            initializing = true;
            break;
        }
        if !initializing || has_condition(object, "Initialized") {
            // Restarts of init containers do not count any more; sidecars go on running, so theirs do.
            (self.restarts, self.last_restart) = (sidecar_restarts, sidecar_last);
        }
        initializing
    }

    fn look_at_containers(&mut self, object: &Value) {
        let (mut running, mut failure) = (false, String::new());
        // From the last to the first, so that the reason of the first one stays.
        for status in meta::list(object, &["status", "containerStatuses"]).iter().rev() {
            self.count_restarts(status);
            let waiting = meta::text(status, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.into();
            } else if let Some(terminated) = meta::at(status, &["state", "terminated"]) {
                self.reason = ending(terminated);
                if integer(terminated, "exitCode") != 0 {
                    failure.clone_from(&self.reason);
                }
            } else if status.get("ready") == Some(&Value::Bool(true))
                && meta::at(status, &["state", "running"]).is_some()
            {
                running = true;
                self.ready += 1;
            }
        }
        // One container has ended well while others may run or have failed.
        if self.reason == "Completed" {
            if running && has_condition(object, "Ready") {
                self.reason = "Running".into();
            } else if !failure.is_empty() {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".into();
            }
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    meta::text(container, &["restartPolicy"]) == "Always"
}

fn integer(object: &Value, name: &str) -> i64 {
    object.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// How a container ended.
fn ending(terminated: &Value) -> String {
    let reason = meta::text(terminated, &["reason"]);
    match (reason, integer(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", integer(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_say_how_a_pod_is() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let cases = [
            (json!({"spec": two, "status": {"phase": "Pending"}}), ("0/2", "Pending", "0")),
            (
                json!({"spec": two, "status": {"phase": "Running", "containerStatuses": [
                    {"ready": true, "state": {"running": {}}, "restartCount": 2,
                        "lastState": {"terminated": {"finishedAt": "2026-01-02T03:04:00Z"}}},
                    {"state": {"terminated": {"exitCode": 3}}, "restartCount": 0}]}}),
                ("1/2", "ExitCode:3", "2 (5s ago)"),
            ),
            (
                json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]},
                    "status": {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {}}}]}}),
                ("0/1", "Init:0/1", "0"),
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}, "spec": two,
                    "status": {"phase": "Running"}}),
                ("0/2", "Terminating", "0"),
            ),
        ];
        for (object, (ready, status, restarts)) in cases {
            let found = cells(&object, now);
            assert_eq!((&found[1], &found[2], &found[3]), (&ready.into(), &status.into(), &restarts.into()));
            assert_eq!(found.len(), columns().len());
        }
    }
}
