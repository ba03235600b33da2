//! The namespaces and Deployments in which agent and manager run on a Kubernetes.

use serde_json::{Value, json};

/// A user who is nobody on the machine, as distroless images have it.
const USER: u32 = 65_532;
/// The port of `/metrics` in a pod.
const METRICS_PORT: u16 = 8080;
/// The port of `/healthz` and `/readyz` in a pod.
const PROBES_PORT: u16 = 8081;

/// A namespace. It names the label that the server would set: what is applied and then set by the server changes the
/// owner of that field, and with it the object, when it is applied again.
pub fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    })
}

/// A part of Fleetpass in pods of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload<'a> {
    /// The name of the Deployment and the value of its label `app.kubernetes.io/name`.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The ServiceAccount of the pods.
    pub service_account: &'a str,
    /// The image; its entry point is the program `fleetpass`.
    pub image: &'a str,
    /// The command and its flags; where metrics and probes are served is added.
    pub arguments: Vec<String>,
    /// How many pods.
    pub replicas: Replicas,
    /// A Secret that the program finds as files in a directory: the Secret's name, and the directory.
    pub secret: Option<(&'a str, &'a str)>,
}

/// How many pods, and how one takes another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// One at a time: the old one ends before the new one starts.
    One,
    /// Some: they elect a leader among themselves.
    Elected(u32),
}

impl Workload<'_> {
    /// The Deployment. It is within the Pod Security Standard `restricted`: no privileges, no writable root, a user
    /// who is nobody.
    pub fn deployment(&self) -> Value {
        let labels = json!({"app.kubernetes.io/name": self.name});
        // Agents elect no leader. Two of them side by side would each rotate the same tokens, so the old pod ends first,
        // and for a moment there is none: tokens are renewed long before they end.
        let (replicas, strategy) = match self.replicas {
            Replicas::One => (1, "Recreate"),
            Replicas::Elected(replicas) => (replicas, "RollingUpdate"),
        };
        let mut pod = json!({
            "serviceAccountName": self.service_account,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self.container()],
        });
        if let Some((secret, _)) = self.secret {
            pod["volumes"] = json!([{"name": "files", "secret": {"secretName": secret}}]);
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": labels},
            "spec": {
                "replicas": replicas,
                "strategy": {"type": strategy},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        })
    }

    fn container(&self) -> Value {
        let mut arguments = self.arguments.clone();
        arguments.push(format!("--metrics-bind-address=:{METRICS_PORT}"));
        arguments.push(format!("--health-probe-bind-address=:{PROBES_PORT}"));
        // `/healthz` tells that the process works, `/readyz` that it has reached its API servers: one that waits for them
        // is not restarted.
        let probe = |path| json!({"httpGet": {"path": path, "port": "probes"}});
        let mut container = json!({
            "name": "fleetpass", "image": self.image, "args": arguments,
            "ports": [
                {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                {"name": "probes", "containerPort": PROBES_PORT, "protocol": "TCP"},
            ],
            "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
            // No limits: what a fleet needs depends on its size, and a limit that is too low kills the agent when there is
            // most to do.
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        });
        if let Some((_, directory)) = self.secret {
            container["volumeMounts"] = json!([{"name": "files", "mountPath": directory, "readOnly": true}]);
        }
        container
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    #[test]
    fn a_deployment_says_what_kubernetes_understands_and_no_more_than_it_stores() {
        for (replicas, secret) in
            [(Replicas::One, Some(("kubeconfig", "/etc/hub"))), (Replicas::Elected(2), None)]
        {
            let workload = Workload {
                name: "part",
                namespace: "here",
                service_account: "somebody",
                image: "example.com/fleetpass:1",
                arguments: vec!["part".into()],
                replicas,
                secret,
            };
            let printed = workload.deployment();
            let typed: Deployment = serde_json::from_value(printed.clone()).unwrap();
            assert_eq!(serde_json::to_value(&typed).unwrap(), printed, "a field has no place in the type");
            let spec = typed.spec.unwrap();
            assert_eq!(spec.selector.match_labels, spec.template.metadata.unwrap().labels);
            let pod = spec.template.spec.unwrap();
            let mounts: Vec<_> = pod.containers[0].volume_mounts.iter().flatten().map(|m| &m.name).collect();
            assert_eq!(mounts, pod.volumes.iter().flatten().map(|v| &v.name).collect::<Vec<_>>());
        }
    }
}
