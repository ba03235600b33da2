//! `TokenRequest`, the `token` subresource of ServiceAccounts
//! (`pkg/registry/core/serviceaccount/storage/token.go`, `pkg/apis/authentication/validation`).
//!
//! What the registry has done before, in this order: authorization (`create serviceaccounts/token`, by name); content
//! type, query options, decoding and defaulting; 400 if the body names another namespace; 404 if the namespace is
//! missing and 403 if it is being deleted. It leaves `metadata.name`, `uid` and the other system fields of the body as
//! they are (`rest.SubresourceObjectMetaPreserver`) and adds `managedFields`. A dry run comes here like any other request
//! and gets a working token: nothing would be stored anyway.
//!
//! What this action does, in this order: 422 if the body names another account; 404 if the account is missing; 409 if
//! the body has another account's UID; validation of the spec; the bound object; the token.

use super::token_review::{member, object, strings};
use crate::strategy::{Action, ActionRequest, Context, Handler, Subresource};
use crate::work::{Flow, Pool, PoolLimits};
use async_trait::async_trait;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::field::{self, ErrorList, Path, go_quote};
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::time::rfc3339;
use fleetpass_auth::authn::ServiceAccounts;
use fleetpass_schema::Schema;
use fleetpass_token::claims::{Account, Binding, Claims, ObjectRef, Request, grant};
use fleetpass_token::key::SigningKey;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// The audit annotation that ties a token to the request it came from; its user's `credential-id` says the same later.
const ISSUED_CREDENTIAL_ID: &str = "authentication.kubernetes.io/issued-credential-id";
/// The lifetime if none is asked for, in seconds.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;

struct TokenRequest {
    accounts: Arc<ServiceAccounts>,
    signing: Pool,
}

/// The action: issues tokens with the keys and lifetimes of `accounts`.
///
/// RSA signatures are made on threads of their own, in turn for those who ask; ECDSA takes a small fraction of their time and is
/// done in place. An RSA signature keeps a core busy for up to a millisecond, which would stall all connections of a thread. Under
/// load these threads never sleep, so nothing is spent on waking them, and other requests stay quick, because the operating system
/// shares the cores between them and the threads of connections.
pub(crate) fn action(accounts: Arc<ServiceAccounts>) -> Arc<dyn Action> {
    // How many wait is bounded by the limit of requests that write.
    let limits = PoolLimits { tasks: usize::MAX, tasks_of_flow: usize::MAX, threads: None, gives_way: false };
    Arc::new(TokenRequest { accounts, signing: Pool::new("signing", limits) })
}

/// The `token` subresource; `schema` is that of TokenRequest.
pub(crate) fn subresource(schema: Arc<Schema>, accounts: Arc<ServiceAccounts>) -> Subresource {
    Subresource {
        name: "token",
        body: Some((GROUP, "v1", KIND)),
        schema: Some(schema),
        verbs: &["create"],
        handler: Handler::Create(action(accounts)),
        versions: None,
    }
}

#[async_trait]
impl Action for TokenRequest {
    fn default(&self, object: &mut Value) {
        let seconds = member(object, "spec").entry("expirationSeconds").or_insert(Value::Null);
        if seconds.is_null() {
            *seconds = DEFAULT_EXPIRATION_SECONDS.into();
        }
    }

    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        let ActionRequest { ctx, object: mut body, notes, .. } = request;
        let config = self.accounts.config();
        // The order of all that follows is visible: a request that is wrong in several ways is told the first of
        // them. The account comes first, so for one that is missing it is 404 whatever the spec says.
        let account = account(&ctx, &body)?;
        let uid = text(&account["metadata"]["uid"]);
        let mut audiences = strings(&body["spec"]["audiences"]);
        // Without audiences the token is for this API server.
        if audiences.is_empty() {
            audiences.clone_from(&config.api_audiences);
        }
        let errors = validate(&body);
        if !errors.is_empty() {
            return Err(Status::invalid(GROUP, KIND, "", &errors));
        }
        let request = Request {
            account: Account { namespace: ctx.namespace, name: ctx.name, uid },
            binding: binding(&ctx, &body["spec"]["boundObjectRef"])?,
            audiences: audiences.clone(),
            expiration_seconds: body["spec"]["expirationSeconds"].as_i64().unwrap_or_default(),
        };
        let issuer = self.accounts.issuer();
        // Time and token id are given to it, so that what is granted is a pure function of the request.
        let grant = grant(request, issuer, &config.api_audiences, &config.lifetimes, ctx.now, Uuid::new_v4());
        let issued = format!("JTI={}", grant.claims.jti);
        // Not the newest key but the one that signs now: a rotation's next key waits until verifiers know it.
        let signer = self.accounts.ring().signer(ctx.now).cloned();
        let signer =
            signer.ok_or_else(|| Status::internal("failed to generate token: there is no signing key"))?;
        let token = self.sign(Flow::of(ctx.user), signer, grant.claims).await?;
        // Only now: the audit log must not name a credential that was never issued.
        notes.annotate(ISSUED_CREDENTIAL_ID, issued);

        // The answer is the request with its gaps filled in; labels, annotations and the like come back as they
        // were sent.
        let top = object(&mut body);
        top.insert("apiVersion".into(), format!("{GROUP}/v1").into());
        top.insert("kind".into(), KIND.into());
        top.insert(
            "status".into(),
            json!({"expirationTimestamp": rfc3339(grant.expires), "token": token.expose_secret()}),
        );
        let metadata = member(&mut body, "metadata");
        metadata.insert("name".into(), ctx.name.into());
        metadata.insert("namespace".into(), ctx.namespace.into());
        metadata.insert("uid".into(), uid.into());
        metadata.insert("creationTimestamp".into(), rfc3339(ctx.now).into());
        let spec = member(&mut body, "spec");
        spec.insert("audiences".into(), audiences.into());
        spec.insert("expirationSeconds".into(), grant.expiration_seconds.into());
        // Printed even where there is none: the Go field has no omitempty.
        spec.entry("boundObjectRef").or_insert(Value::Null);
        Ok((body, grant.warning.into_iter().collect()))
    }
}

impl TokenRequest {
    async fn sign(
        &self,
        flow: Flow<'_>,
        key: Arc<SigningKey>,
        claims: Claims,
    ) -> Result<SecretString, Status> {
        let failed = |why: String| Status::internal(format!("failed to generate token: {why}"));
        if !key.is_slow() {
            return key.sign(&claims).map_err(|error| failed(error.to_string()));
        }
        // If the client goes away now, this future is dropped and the job is skipped when its turn comes, unsigned.
        let signed = self.signing.run(flow, move || key.sign(&claims)).await;
        signed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The account in the path, which the body must not contradict.
fn account(ctx: &Context<'_>, body: &Value) -> Result<Arc<Value>, Status> {
    let name = text(&body["metadata"]["name"]);
    if !name.is_empty() && name != ctx.name {
        let path = Path::new("metadata").child("name");
        let error = field::Error::invalid(&path, name, "must match the service account name if specified");
        return Err(Status::invalid(GROUP, KIND, ctx.name, &[error].into()));
    }
    // Between the two comparisons: the name can be judged without the account, the UID cannot.
    let account = get(ctx.lister, "serviceaccounts", ctx.namespace, ctx.name)?;
    let (claimed, uid) = (text(&body["metadata"]["uid"]), text(&account["metadata"]["uid"]));
    if !claimed.is_empty() && claimed != uid {
        let why = format!(
            "the UID in the token request ({claimed}) does not match the UID of the service account ({uid})"
        );
        return Err(Status::conflict(GroupResource { group: GROUP, resource: KIND }, ctx.name, why));
    }
    Ok(account)
}

/// The errors of the spec.
fn validate(body: &Value) -> ErrorList {
    let path = Path::new("spec").child("expirationSeconds");
    let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
    let mut errors = ErrorList::new();
    if seconds < 10 * 60 {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(field::Error::invalid(&path, seconds, detail));
    }
    if seconds > 1 << 32 {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(field::Error::invalid(&path, seconds, detail));
    }
    errors
}

/// An object by its key, or the error of the generic store: a name must be a single segment of a path
/// (`registry/generic/registry/store.go`, `api/validation/path/name.go`).
fn get(lister: &dyn Lister, resource: &str, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    // The store refuses such names before it looks them up, so this is 400 and not 404. A reference's name is free
    // text; in a key, a slash would lead to other objects.
    let wrong: Vec<String> = match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|part| name.contains(**part))
            .map(|part| format!("may not contain '{part}'"))
            .collect(),
    };
    if !wrong.is_empty() {
        let name = go_quote(name);
        return Err(Status::bad_request(format!("Name parameter invalid: {name}: {}", wrong.join(";"))));
    }
    lister
        .get("", resource, namespace, name)
        .ok_or_else(|| Status::not_found(GroupResource { group: "", resource }, name))
}

/// Group and version of an `apiVersion`; both empty if it is malformed (`schema.FromAPIVersionAndKind`).
fn group_version(api_version: &str) -> (&str, &str) {
    match api_version.split_once('/') {
        None => ("", api_version),
        Some((_, version)) if version.contains('/') => ("", ""),
        Some((group, version)) => (group, version),
    }
}

/// What the token is to be bound to; it must exist, and be the one with the UID that was given. Of the `apiVersion` only
/// the group counts.
fn binding(ctx: &Context<'_>, reference: &Value) -> Result<Binding, Status> {
    if !reference.is_object() {
        return Ok(Binding::Account);
    }
    let kind = text(&reference["kind"]);
    let name = text(&reference["name"]);
    let (group, version) = group_version(text(&reference["apiVersion"]));
    let found = |object: &Value| ObjectRef::new(name, text(&object["metadata"]["uid"]));
    let (uid, binding) = match (group, kind) {
        ("", "Pod") => {
            let pod = get(ctx.lister, "pods", ctx.namespace, name)?;
            // A token of one account bound to a pod of another would speak for a pod that does not run as this
            // account.
            if text(&pod["spec"]["serviceAccountName"]) != ctx.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    go_quote(ctx.name)
                )));
            }
            let pod_ref = found(&pod);
            (pod_ref.uid.clone(), Binding::Pod { pod: pod_ref, node: node_of(ctx.lister, &pod) })
        }
        ("", "Node") => {
            let node = found(&*get(ctx.lister, "nodes", "", name)?);
            (node.uid.clone(), Binding::Node(node))
        }
        ("", "Secret") => {
            let secret = found(&*get(ctx.lister, "secrets", ctx.namespace, name)?);
            (secret.uid.clone(), Binding::Secret(secret))
        }
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    // After the lookup, and after the pod's account was compared: a client that holds an old UID learns first
    // whether there is such an object at all.
    let claimed = text(&reference["uid"]);
    if !claimed.is_empty() && claimed != uid {
        let why = format!(
            "the UID in the bound object reference ({claimed}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(GroupResource { group, resource: kind }, name, why));
    }
    Ok(binding)
}

/// The node that a pod is assigned to; without UID if there is no such Node.
fn node_of(lister: &dyn Lister, pod: &Value) -> Option<ObjectRef> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    // A missing Node is no error: whoever inspects the token still sees where its pod was to run.
    let node = lister.get("", "nodes", "", name);
    let uid = node.as_deref().map_or("", |node| text(&node["metadata"]["uid"]));
    Some(ObjectRef::new(name, uid))
}

#[cfg(test)]
mod tests {
    use super::super::testing::create;
    use super::*;
    use fleetpass_apimachinery::user::UserInfo;
    use fleetpass_auth::authn::ServiceAccountConfig;
    use fleetpass_auth::testing::{API, NOW, Objects, accounts, now, ring};
    use fleetpass_token::claims::Lifetimes;
    use fleetpass_token::key::KeyKind;
    use fleetpass_token::verify::{VerifiedClaims, verify};

    async fn ask(
        accounts: &Arc<ServiceAccounts>,
        name: &str,
        body: Value,
    ) -> Result<(Value, Vec<String>), Status> {
        let action = action(accounts.clone());
        create(&*action, &Objects::sample(), &UserInfo::default(), ("ns", name), body).await
    }
    fn claims(accounts: &ServiceAccounts, answer: &Value) -> Claims {
        let token = answer["status"]["token"].as_str().unwrap();
        match verify(token, &[API.into()], accounts.ring(), now()).unwrap().claims {
            VerifiedClaims::Bound(claims) => claims,
            VerifiedClaims::Legacy(_) => panic!("a legacy token"),
        }
    }

    #[tokio::test]
    async fn an_empty_request_gets_the_defaults() {
        let accounts = accounts();
        for body in [json!({}), json!(null), json!({"spec": null}), json!({"spec": {"audiences": []}})] {
            let (mut answer, warnings) = ask(&accounts, "robot", body).await.unwrap();
            let claims = claims(&accounts, &answer);
            assert_eq!(claims.exp.unwrap() - claims.iat.unwrap(), 3600);
            answer["status"].as_object_mut().unwrap().remove("token");
            let expected = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "metadata": {"name": "robot", "namespace": "ns", "uid": "u-robot", "creationTimestamp": "2026-01-02T03:04:05Z"},
                "spec": {"audiences": [API], "boundObjectRef": null, "expirationSeconds": 3600},
                "status": {"expirationTimestamp": "2026-01-02T04:04:05Z"},
            });
            assert_eq!((answer, warnings), (expected, vec![]));
        }
    }

    #[tokio::test]
    async fn checks_come_in_the_servers_order() {
        let accounts = accounts();
        let short = json!({"expirationSeconds": 5, "boundObjectRef": {"kind": "ConfigMap"}});
        let reference = |kind: &str, version: &str, name: &str, uid: &str| json!({"spec": {"boundObjectRef": {"kind": kind, "apiVersion": version, "name": name, "uid": uid}}});
        let uid = |kind: &str, name: &str| {
            format!(
                "Operation cannot be fulfilled on {kind} \"{name}\": the UID in the bound object reference (bad) does not match the UID in record. The object might have been deleted and then recreated"
            )
        };
        let seconds = |value: i64, detail: &str| {
            format!(
                "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {value}: {detail}"
            )
        };
        for (name, body, code, message) in [
            (
                "ghost",
                json!({"metadata": {"name": "robot"}}),
                422,
                "TokenRequest.authentication.k8s.io \"ghost\" is invalid: metadata.name: Invalid value: \"robot\": must match the service account name if specified".to_string(),
            ),
            ("ghost", json!({"spec": short}), 404, "serviceaccounts \"ghost\" not found".into()),
            (
                "robot",
                json!({"metadata": {"uid": "bad"}, "spec": short}),
                409,
                "Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"robot\": the UID in the token request (bad) does not match the UID of the service account (u-robot)".into(),
            ),
            ("robot", json!({"spec": short}), 422, seconds(5, "may not specify a duration less than 10 minutes")),
            (
                "robot",
                json!({"spec": {"expirationSeconds": i64::MAX}}),
                422,
                seconds(i64::MAX, "may not specify a duration larger than 2^32 seconds"),
            ),
            (
                "robot",
                reference("ConfigMap", "v1", "x", ""),
                400,
                "cannot bind token to object of type /v1, Kind=ConfigMap".into(),
            ),
            (
                "robot",
                reference("Node", "node.k8s.io/v1", "n1", ""),
                400,
                "cannot bind token to object of type node.k8s.io/v1, Kind=Node".into(),
            ),
            ("robot", reference("Pod", "v1", "", ""), 400, "Name parameter required.".into()),
            (
                "robot",
                reference("Secret", "v1", "a/b%", ""),
                400,
                "Name parameter invalid: \"a/b%\": may not contain '/';may not contain '%'".into(),
            ),
            ("robot", reference("Pod", "v1", "ghost", ""), 404, "pods \"ghost\" not found".into()),
            ("robot", reference("Node", "v1", "ghost", ""), 404, "nodes \"ghost\" not found".into()),
            (
                "robot",
                reference("Pod", "v1", "p2", "bad"),
                400,
                "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.".into(),
            ),
            ("robot", reference("Pod", "v1", "p1", "bad"), 409, uid("Pod", "p1")),
            ("robot", reference("Secret", "v1", "s1", "bad"), 409, uid("Secret", "s1")),
            ("robot", reference("Node", "v1", "n1", "bad"), 409, uid("Node", "n1")),
        ] {
            let label = body.to_string();
            let status = ask(&accounts, name, body).await.unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, message.as_str()), "{label}");
        }
    }

    #[tokio::test]
    async fn binds_to_pods_nodes_and_secrets() {
        let accounts = accounts();
        let r = |name: &str, uid: &str| Some(ObjectRef::new(name, uid));
        for (kind, version, name, uid, pod, node, secret) in [
            ("Pod", "v1", "p1", "", r("p1", "u-p1"), None, None),
            ("Pod", "v7", "p1", "u-p1", r("p1", "u-p1"), None, None),
            ("Pod", "a/b/c", "p3", "", r("p3", "u-p3"), r("ghost", ""), None),
            ("Pod", "", "p4", "", r("p4", "u-p4"), r("n1", "u-n1"), None),
            ("Node", "v1", "n1", "", None, r("n1", "u-n1"), None),
            ("Secret", "v1", "s1", "u-s1", None, None, r("s1", "u-s1")),
        ] {
            let reference = json!({"kind": kind, "apiVersion": version, "name": name, "uid": uid});
            let (answer, _) =
                ask(&accounts, "robot", json!({"spec": {"boundObjectRef": reference}})).await.unwrap();
            let kubernetes = claims(&accounts, &answer).kubernetes;
            assert_eq!(
                (kubernetes.pod, kubernetes.node, kubernetes.secret),
                (pod, node, secret),
                "{kind} {name}"
            );
            assert_eq!(answer["spec"]["boundObjectRef"], reference);
        }
    }

    #[tokio::test]
    async fn signs_with_rsa_off_the_reactor_and_warns_of_shortened_lifetimes() {
        let config = ServiceAccountConfig {
            issuers: vec![API.into()],
            api_audiences: vec![API.into()],
            lifetimes: Lifetimes { max_seconds: Some(7200), ..Lifetimes::default() },
        };
        let accounts = Arc::new(ServiceAccounts::new(config, ring(KeyKind::Rsa2048)).unwrap());
        let (answer, warnings) =
            ask(&accounts, "robot", json!({"spec": {"expirationSeconds": 86400}})).await.unwrap();
        assert_eq!(warnings, ["requested expiration of 86400 seconds shortened to 7200 seconds"]);
        assert_eq!(answer["spec"]["expirationSeconds"], 7200);
        let claims = claims(&accounts, &answer);
        let issued = NOW.parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!((claims.iat, claims.exp), (Some(issued), Some(issued + 7200)));
    }
}
