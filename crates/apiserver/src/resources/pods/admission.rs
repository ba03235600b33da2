//! What the plugins that kube-apiserver runs by default do to a pod: ServiceAccount, Priority and
//! DefaultTolerationSeconds (`plugin/pkg/admission/{serviceaccount,priority,defaulttolerationseconds}`).

use super::containers::{CONTAINER_LISTS, containers};
use super::defaults;
use crate::strategy::Context;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::validation::prepare;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The annotation of pods that a kubelet made from a file of its own, and only mirrors here.
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-";
/// A little more than an hour (`WarnOnlyBoundTokenExpirationSeconds` in `pkg/serviceaccount/claims.go`). By this odd number
/// `token::claims` knows tokens that were mounted without being asked for, and lets them live longer.
const TOKEN_EXPIRATION_SECONDS: i64 = 3607;
const PRIORITY_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Completes or refuses a new pod.
pub(super) fn admit_new(ctx: &Context<'_>, object: &mut Value) -> Result<(), Status> {
    // In the order in which kube-apiserver runs its plugins. A mirror pod runs already; all that a reference to an
    // account or a Secret in one could do is to open that Secret to its node.
    if meta::annotation(object, MIRROR).is_some() {
        refuse_in_mirror_pods(object)?;
    } else {
        apply_service_account(ctx, object)?;
    }
    apply_priority(object)?;
    add_default_tolerations(object);
    Ok(())
}

/// Keeps in an update what admission gave the pod at first.
pub(super) fn admit_change(object: &mut Value, old: &Value) {
    // A client that sends a pod as it first wrote it would otherwise seem to change what must not change.
    for name in ["priority", "preemptionPolicy"] {
        if meta::at(object, &["spec", name]).is_none()
            && let Some(value) = meta::at(old, &["spec", name])
        {
            spec_mut(object).insert(name.into(), value.clone());
        }
    }
    add_default_tolerations(object);
}

fn forbidden(object: &Value, why: impl std::fmt::Display) -> Status {
    let pods = GroupResource { group: "", resource: "pods" };
    Status::forbidden(pods, meta::admission_name("", object), why)
}

fn spec_mut(object: &mut Value) -> &mut Map<String, Value> {
    meta::child_mut(meta::as_map_mut(object), "spec")
}

fn refuse_in_mirror_pods(object: &Value) -> Result<(), Status> {
    if !meta::text(object, &["spec", "serviceAccountName"]).is_empty() {
        return Err(forbidden(object, "a mirror pod may not reference service accounts"));
    }
    let volumes = meta::list(object, &["spec", "volumes"]);
    let in_containers = containers(object, &CONTAINER_LISTS).any(|c| secrets_of(c).next().is_some());
    let pull = !meta::list(object, &["spec", "imagePullSecrets"]).is_empty();
    if pull || in_containers || volumes.iter().any(|v| v.get("secret").is_some()) {
        return Err(forbidden(object, "a mirror pod may not reference secrets"));
    }
    let token = |source: &Value| source.get("serviceAccountToken").is_some();
    if volumes.iter().any(|v| meta::list(v, &["projected", "sources"]).iter().any(token)) {
        return Err(forbidden(object, "a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

/// Names the account, mounts its token and adds its image pull secrets.
fn apply_service_account(ctx: &Context<'_>, object: &mut Value) -> Result<(), Status> {
    let spec = spec_mut(object);
    if spec.get("serviceAccountName").and_then(Value::as_str).is_none_or(str::is_empty) {
        spec.insert("serviceAccountName".into(), "default".into());
    }
    defaults::fill_both_account_fields(spec);
    let name = meta::text(object, &["spec", "serviceAccountName"]).to_string();
    let Some(account) = ctx.lister.get("", "serviceaccounts", ctx.namespace, &name) else {
        // 403 and not 404: it is the plugin that refuses. kube-apiserver waits a moment for the account `default`
        // of a new namespace; here it is not waited for.
        let missing = Status::not_found(GroupResource { group: "", resource: "serviceaccount" }, &name);
        let why = format!("error looking up service account {}/{name}: {}", ctx.namespace, missing.message);
        return Err(forbidden(object, why));
    };
    let wants = |of: &Value| of.get("automountServiceAccountToken").and_then(Value::as_bool);
    // The pod's wish counts before the account's; without either, the token is mounted.
    if object.get("spec").and_then(wants).or_else(|| wants(&account)).unwrap_or(true) {
        mount_token(object, ctx);
    }
    let lent: Vec<Value> = meta::list(&account, &["imagePullSecrets"])
        .iter()
        .map(|secret| json!({"name": meta::text(secret, &["name"])}))
        .collect();
    // Not merged: a pod that names pull secrets of its own wants those only.
    if meta::list(object, &["spec", "imagePullSecrets"]).is_empty() && !lent.is_empty() {
        spec_mut(object).insert("imagePullSecrets".into(), lent.into());
    }
    // What Go's ParseBool takes for true; anything else is false, not an error.
    if matches!(
        meta::annotation(&account, ENFORCE_MOUNTABLE),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True")
    ) {
        // After the pull secrets were added, which then are the account's and pass.
        enforce_mountable_secrets(object, &account)?;
    }
    Ok(())
}

fn mount_token(object: &mut Value, ctx: &Context<'_>) {
    let existing = meta::list(object, &["spec", "volumes"])
        .iter()
        .map(|v| meta::text(v, &["name"]))
        .find(|name| name.starts_with(TOKEN_VOLUME))
        .map(str::to_string);
    let has_volume = existing.is_some();
    let volume = existing.unwrap_or_else(|| {
        // The suffix need only be new within the pod; it tells nothing and protects nothing.
        let mut hasher = DefaultHasher::new();
        (ctx.namespace, meta::admission_name(ctx.name, object), ctx.now.as_nanosecond()).hash(&mut hasher);
        prepare::generate_name(TOKEN_VOLUME, hasher.finish())
    });
    let spec = spec_mut(object);
    let mut mounted = false;
    // Not the ephemeral containers, which a new pod cannot have.
    for list in &CONTAINER_LISTS[..2] {
        for container in spec.get_mut(*list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = meta::as_map_mut(container).entry("volumeMounts").or_insert_with(|| json!([]));
            if let Value::Array(mounts) = mounts
                // Whoever mounts something at this path has brought a token along.
                && !mounts.iter().any(|m| m["mountPath"] == TOKEN_PATH)
            {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                mounted = true;
            }
        }
    }
    // A volume that no container mounts is not added.
    if mounted
        && !has_volume
        && let Value::Array(volumes) = spec.entry("volumes").or_insert_with(|| json!([]))
    {
        volumes.push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_EXPIRATION_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// The secrets that a container's environment names, as `(how it says so, secret)`.
fn secrets_of(container: &Value) -> impl Iterator<Item = (String, &str)> {
    let single = meta::list(container, &["env"]).iter().filter_map(|env| {
        let secret = meta::at(env, &["valueFrom", "secretKeyRef"])?;
        Some((format!("envVar {}", meta::text(env, &["name"])), meta::text(secret, &["name"])))
    });
    let whole = meta::list(container, &["envFrom"])
        .iter()
        .filter_map(|from| Some(("envFrom".to_string(), meta::text(from.get("secretRef")?, &["name"]))));
    single.chain(whole)
}

/// Refuses secrets that an account with the (deprecated) annotation does not list.
fn enforce_mountable_secrets(object: &Value, account: &Value) -> Result<(), Status> {
    let account_name = meta::name(account);
    let names_in = |list| -> BTreeSet<&str> {
        meta::list(account, &[list]).iter().map(|secret| meta::text(secret, &["name"])).collect()
    };
    let (secrets, pull_secrets) = (names_in("secrets"), names_in("imagePullSecrets"));
    for volume in meta::list(object, &["spec", "volumes"]) {
        if let Some(secret) = volume.get("secret") {
            let name = meta::text(secret, &["secretName"]);
            if !secrets.contains(name) {
                let why = format!(
                    "volume with secret.secretName=\"{name}\" is not allowed because service account {account_name} does not reference that secret"
                );
                return Err(forbidden(object, why));
            }
        }
    }
    for (list, what) in [("initContainers", "init container"), ("containers", "container")] {
        for container in containers(object, &[list]) {
            let unlisted = secrets_of(container).find(|(_, secret)| !secrets.contains(secret));
            if let Some((how, secret)) = unlisted {
                let why = format!(
                    "{what} {} with {how} referencing secret.secretName=\"{secret}\" is not allowed because service account {account_name} does not reference that secret",
                    meta::text(container, &["name"])
                );
                return Err(forbidden(object, why));
            }
        }
    }
    for (index, secret) in meta::list(object, &["spec", "imagePullSecrets"]).iter().enumerate() {
        let name = meta::text(secret, &["name"]);
        if !pull_secrets.contains(name) {
            let why = format!(
                "imagePullSecrets[{index}].name=\"{name}\" is not allowed because service account {account_name} does not reference that imagePullSecret"
            );
            return Err(forbidden(object, why));
        }
    }
    Ok(())
}

/// There are no PriorityClasses here but the two that Kubernetes always has.
fn apply_priority(object: &mut Value) -> Result<(), Status> {
    let class = meta::text(object, &["spec", "priorityClassName"]);
    let known = PRIORITY_CLASSES.iter().find(|(name, _)| *name == class).map(|(_, value)| *value);
    // No class is the priority 0: there is no PriorityClass that could be the global default.
    let Some(priority) = known.or(class.is_empty().then_some(0)) else {
        return Err(forbidden(object, format!("no PriorityClass with name {class} was found")));
    };
    let given = meta::at(object, &["spec", "priority"]).and_then(Value::as_i64);
    // Only the class counts, or everybody could outrank the system's pods by a number.
    if let Some(given) = given.filter(|given| *given != priority) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(forbidden(object, why));
    }
    let policy = "PreemptLowerPriority";
    let given = meta::text(object, &["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(forbidden(object, why));
    }
    let spec = spec_mut(object);
    spec.insert("priority".into(), priority.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// Lets a pod stay five minutes on a node that fails, unless it says otherwise.
fn add_default_tolerations(object: &mut Value) {
    let tolerations = spec_mut(object).entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(tolerations) = tolerations else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            // An empty key or effect tolerates every one.
            ["", key].contains(&meta::text(t, &["key"]))
                && ["", "NoExecute"].contains(&meta::text(t, &["effect"]))
        });
        if !tolerated {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_limited_to_those_of_the_account() {
        let account = json!({"metadata": {"name": "a"}, "secrets": [{"name": "s"}]});
        let pod = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
        assert_eq!(
            enforce_mountable_secrets(
                &pod(json!({"volumes": [{"secret": {"secretName": "s"}}, {"name": "e"}]})),
                &account
            ),
            Ok(())
        );
        for (spec, why) in [
            (
                json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "t"}}}]}]}),
                "container c with envVar E referencing secret.secretName=\"t\" is not allowed because service account a does not reference that secret",
            ),
            (
                json!({"imagePullSecrets": [{"name": "t"}]}),
                "imagePullSecrets[0].name=\"t\" is not allowed because service account a does not reference that imagePullSecret",
            ),
        ] {
            let refusal = enforce_mountable_secrets(&pod(spec), &account).unwrap_err();
            assert_eq!(refusal.message, format!("pods \"p\" is forbidden: {why}"));
        }
    }

    #[test]
    fn priority_comes_from_the_class() {
        let mut pod = json!({"metadata": {"generateName": "p-"}, "spec": {"priorityClassName": "system-node-critical"}});
        apply_priority(&mut pod).unwrap();
        assert_eq!(pod["spec"]["priority"], 2_000_001_000);
        let mut unknown = json!({"metadata": {"generateName": "p-"}, "spec": {"priorityClassName": "x"}});
        assert_eq!(
            apply_priority(&mut unknown).unwrap_err().message,
            "pods \"p-\" is forbidden: no PriorityClass with name x was found"
        );
    }

    #[test]
    fn mirror_pods_reference_nothing() {
        let mut pod = json!({"metadata": {"name": "m", "annotations": {MIRROR: "x"}},
            "spec": {"volumes": [{"name": "s", "secret": {}}]}});
        let refusal = refuse_in_mirror_pods(&pod).unwrap_err();
        assert!(refusal.message.ends_with("a mirror pod may not reference secrets"));
        pod["spec"] = json!({});
        assert_eq!(refuse_in_mirror_pods(&pod), Ok(()));
    }
}
