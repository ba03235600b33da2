//! The requests that carry out the steps.
//!
//! They are built by kube and sent by its client, but answers are read here: the client logs an answer that it
//! cannot parse, and these contain tokens.

use crate::{
    decide::TokenRequestSpec,
    gone::Answer,
    observe::{self, Account, Mark, Secret, ServiceAccount},
    side::{
        Side,
        call::Call,
        cause::{Cause, Verdict},
        peer::{Failure, OBJECT_BYTES, Peer, TOKEN_BYTES},
    },
    token::{Claims, Token},
};
use fleetpass_api::{ManagedServiceAccount, names};
use http::Request;
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenReview},
        coordination::v1::Lease,
        core::v1,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Resource,
    api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions},
    core::{Request as Builder, Status},
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;
use std::sync::Arc;

/// A request that did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} on the {}: {kind}", side.as_str())]
pub(crate) struct CallError {
    /// Whom it was sent to.
    pub(crate) side: Side,
    /// Which request, for people.
    pub(crate) call: &'static str,
    /// What went wrong.
    pub(crate) kind: CallErrorKind,
}

/// What went wrong with a request. No variant holds anything that a Secret or token could have leaked into:
/// messages of the server are kept for requests without either only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallErrorKind {
    /// No answer, or one that says that the server is not able to give one now (429, 5xx): why.
    #[error("{0}")]
    Unavailable(String),
    /// The side refuses the agent as a whole, or answers with what is no answer: why.
    #[error("{0}")]
    Turned(String),
    /// The object is not what it was when it was read, or exists already: look again.
    #[error("the object has changed")]
    Conflict,
    /// The server does not know the thing (404).
    #[error("not found: {0}")]
    NotFound(String),
    /// The server says no.
    #[error("{code} {reason}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// `metav1.Status` reason.
        reason: String,
        /// `metav1.Status` message, or empty.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("the answer cannot be used: {0}")]
    Unusable(&'static str),
}

impl CallError {
    /// Whether it says nothing about the account, so that there is no point in saying it of each: it has been said of the
    /// side.
    pub(crate) fn is_of_side(&self) -> bool {
        match self.kind {
            CallErrorKind::Unavailable(_) | CallErrorKind::Turned(_) => true,
            CallErrorKind::Refused { code, .. } => matches!(code, 401 | 403 | 404 | 405),
            _ => false,
        }
    }
}

/// The requests to both sides. None is tried again here: a reconcile that failed is repeated as a whole, after a new
/// look.
pub(crate) struct Calls {
    pub(crate) hub: Arc<Peer>,
    pub(crate) spoke: Arc<Peer>,
    pub(crate) cluster: String,
    pub(crate) agent_namespace: String,
}

/// Builds requests for a kind in a namespace.
fn path<K: Resource<DynamicType = ()>>(namespace: &str) -> Builder {
    Builder::new(K::url_path(&(), Some(namespace)))
}

type Built = Result<Request<Vec<u8>>, kube::core::request::Error>;

impl Calls {
    /// Reads the account; `None` only if the hub, knowing the kind, does not know the object. An answer without
    /// the object's name is about the kind: a hub whose CRD is missing must not look like one without accounts.
    pub(crate) async fn account(&self, name: &str) -> Result<Option<Account>, CallError> {
        let request = path::<ManagedServiceAccount>(&self.cluster).get(name, &GetParams::default());
        let call = "GET ManagedServiceAccount";
        match self.send::<ManagedServiceAccount>(Side::Hub, call, request, name).await {
            Ok(account) => Ok(Some(account.into())),
            // Only this is "gone", on which deletions follow; every other failure is "not known".
            Err(CallError { kind: CallErrorKind::NotFound(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the ServiceAccount; `None` only if the cluster does not know the object.
    pub(crate) async fn service_account(&self, name: &str) -> Result<Option<ServiceAccount>, CallError> {
        let request = path::<v1::ServiceAccount>(&self.agent_namespace).get(name, &GetParams::default());
        let call = "GET ServiceAccount";
        match self.send::<v1::ServiceAccount>(Side::Cluster, call, request, name).await {
            Ok(account) => Ok(Some(account.into())),
            Err(CallError { kind: CallErrorKind::NotFound(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the Secret; `None` only if the hub does not know the object.
    pub(crate) async fn secret(&self, name: &str) -> Result<Option<Secret>, CallError> {
        let request = path::<v1::Secret>(&self.cluster).get(name, &GetParams::default());
        match self.send::<v1::Secret>(Side::Hub, "GET Secret", request, name).await {
            Ok(secret) => Ok(Some(secret.into())),
            Err(CallError { kind: CallErrorKind::NotFound(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The CA bundle that kube-controller-manager keeps in every namespace.
    pub(crate) async fn root_ca(&self) -> Result<Vec<u8>, CallError> {
        let name = names::ROOT_CA_CONFIG_MAP;
        let request = path::<v1::ConfigMap>(&self.agent_namespace).get(name, &GetParams::default());
        let call = "GET ConfigMap kube-root-ca.crt";
        let map: v1::ConfigMap = self.send(Side::Cluster, call, request, name).await?;
        let bundle = map.data.and_then(|mut data| data.remove(names::SECRET_KEY_CA));
        bundle.filter(|bundle| !bundle.is_empty()).map(String::into_bytes).ok_or(CallError {
            side: Side::Cluster,
            call,
            kind: CallErrorKind::Unusable("it has no ca.crt"),
        })
    }

    /// Creates the ServiceAccount with our label and mark; a conflict if there is one, which then is somebody else's or was not
    /// seen yet.
    pub(crate) async fn create_service_account(
        &self,
        name: &str,
        mark: &Mark,
    ) -> Result<ServiceAccount, CallError> {
        let body = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {
                "name": name, "namespace": self.agent_namespace,
                "labels": {names::LABEL_IS_MANAGED: names::LABEL_IS_MANAGED_VALUE},
                "annotations": mark.annotations(),
            },
        });
        let request =
            path::<v1::ServiceAccount>(&self.agent_namespace).create(&PostParams::default(), bytes(&body));
        let call = "POST ServiceAccount";
        Ok(self.send::<v1::ServiceAccount>(Side::Cluster, call, request, name).await?.into())
    }

    /// Puts the mark on the ServiceAccount as it was read; a conflict if it has changed.
    pub(crate) async fn mark_service_account(
        &self,
        name: &str,
        found: &ServiceAccount,
        mark: &Mark,
    ) -> Result<ServiceAccount, CallError> {
        // With the precondition: another agent may be adopting it in the same moment, and one of the two has to see
        // that it came second.
        let patch = json!({
            "metadata": {"resourceVersion": found.resource_version, "annotations": mark.annotations()},
        });
        let request = path::<v1::ServiceAccount>(&self.agent_namespace).patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        );
        let call = "PATCH ServiceAccount";
        Ok(self.try_to::<v1::ServiceAccount>(Side::Cluster, call, request, name).await?.into())
    }

    /// Which control plane the side is; `None` if it does not say: it has no such namespace, or does not let the agent
    /// read it.
    pub(crate) async fn identity(&self, side: Side) -> Result<Option<String>, CallError> {
        let name = names::NAMESPACE_OF_IDENTITY;
        let request = Builder::new(v1::Namespace::url_path(&(), None)).get(name, &GetParams::default());
        match self.try_to::<v1::Namespace>(side, "GET Namespace", request, name).await {
            Ok(namespace) => Ok(namespace.metadata.uid.filter(|uid| !uid.is_empty())),
            Err(CallError { kind: CallErrorKind::NotFound(_), .. }) => Ok(None),
            Err(CallError { kind: CallErrorKind::Refused { code, .. }, .. }) if code != 401 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the namespace of the cluster is there on the hub.
    pub(crate) async fn namespace(&self) -> Answer {
        let name = self.cluster.as_str();
        let request = Builder::new(v1::Namespace::url_path(&(), None)).get(name, &GetParams::default());
        let Ok(request) = request else { return Answer::Nothing };
        // Not every agent may ask, and one that may not has lost nothing by it.
        let call = Call::of(request.method(), request.uri().path(), None).optional();
        match self.hub.call(&call, request, OBJECT_BYTES, |_| Ok(())).await {
            Ok(()) => Answer::There,
            Err(Failure::Status(status)) => {
                // Tokens are given up on this word: it has to be the API's, about this very object.
                let details = status.details.as_ref();
                let named = details.is_some_and(|about| about.kind == "namespaces" && about.name == name);
                if status.code == 404 && named { Answer::NotThere } else { Answer::Refused }
            }
            Err(Failure::Cause(_)) => Answer::Nothing,
        }
    }

    /// Reads the agent's Lease on the hub; `None` only if the hub does not know the object.
    pub(crate) async fn lease(&self) -> Result<Option<Lease>, CallError> {
        let name = names::AGENT_LEASE;
        let request = path::<Lease>(&self.cluster).get(name, &GetParams::default());
        match self.try_to::<Lease>(Side::Hub, "GET Lease", request, name).await {
            Ok(lease) => Ok(Some(lease)),
            Err(CallError { kind: CallErrorKind::NotFound(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the Lease, or replaces the one that was seen and nothing newer.
    pub(crate) async fn write_lease(&self, lease: &Lease, present: bool) -> Result<Lease, CallError> {
        let request = path::<Lease>(&self.cluster);
        let (call, request) = if present {
            ("PUT Lease", request.replace(names::AGENT_LEASE, &PostParams::default(), bytes(lease)))
        } else {
            ("POST Lease", request.create(&PostParams::default(), bytes(lease)))
        };
        self.try_to(Side::Hub, call, request, names::AGENT_LEASE).await
    }

    /// A token for the ServiceAccount with this UID. The UID is no part of the request (the API has no such
    /// precondition): the caller checks the token's.
    pub(crate) async fn request_token(
        &self,
        name: &str,
        wanted: &TokenRequestSpec,
    ) -> Result<Token, CallError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": wanted.audiences, "expirationSeconds": wanted.expiration_seconds},
        });
        let request = path::<v1::ServiceAccount>(&self.agent_namespace).create_subresource(
            "token",
            name,
            &PostParams::default(),
            bytes(&body),
        );
        let call = "POST ServiceAccount/token";
        let answer: TokenRequest = self.send(Side::Cluster, call, request, name).await?;
        // Not `status.expirationTimestamp`: the token's own claims say when it ends, also after a restart.
        let token = answer.status.and_then(|status| status.token).filter(|token| !token.is_empty());
        token.map(Token::new).ok_or(CallError {
            side: Side::Cluster,
            call,
            kind: CallErrorKind::Unusable("it has no status.token"),
        })
    }

    /// Whether the cluster takes the token for the ServiceAccount `name`. A token that is good, but of somebody else,
    /// is not: it would give the hub's users the rights of another account.
    pub(crate) async fn review(
        &self,
        name: &str,
        token: &Token,
        audiences: &[String],
    ) -> Result<bool, CallError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token.expose(), "audiences": audiences},
        });
        let request =
            Builder::new(TokenReview::url_path(&(), None)).create(&PostParams::default(), bytes(&body));
        let call = "POST TokenReview";
        let answer: TokenReview = self.send(Side::Cluster, call, request, name).await?;
        let status = answer.status.unwrap_or_default();
        // `authenticated` says that the token is good; whose it is has to be compared.
        let user = status.user.and_then(|user| user.username);
        let expected = names::service_account_user(&self.agent_namespace, name);
        Ok(status.authenticated == Some(true) && user == Some(expected))
    }

    /// Creates the Secret, or replaces the one that was seen and nothing newer.
    pub(crate) async fn write_secret(
        &self,
        name: &str,
        content: &Content<'_>,
        present: Option<&Secret>,
    ) -> Result<Secret, CallError> {
        let secret = content.secret(name, &self.cluster, present.map(|secret| &secret.metadata));
        let request = path::<v1::Secret>(&self.cluster);
        let (call, request) = match present {
            None => ("POST Secret", request.create(&PostParams::default(), bytes(&secret))),
            Some(_) => ("PUT Secret", request.replace(name, &PostParams::default(), bytes(&secret))),
        };
        Ok(self.send::<v1::Secret>(Side::Hub, call, request, name).await?.into())
    }

    /// Deletes the Secret with this UID; a conflict if another has its name by now.
    pub(crate) async fn delete_secret(&self, name: &str, uid: &str) -> Result<(), CallError> {
        let request = path::<v1::Secret>(&self.cluster).delete(name, &only(uid));
        self.gone(Side::Hub, "DELETE Secret", request, name).await
    }

    /// Deletes the ServiceAccount with this UID; a conflict if another has its name by now.
    pub(crate) async fn delete_service_account(&self, name: &str, uid: &str) -> Result<(), CallError> {
        let request = path::<v1::ServiceAccount>(&self.agent_namespace).delete(name, &only(uid));
        self.gone(Side::Cluster, "DELETE ServiceAccount", request, name).await
    }

    /// Applies a merge patch to the account's status; gives the account as it is then.
    pub(crate) async fn patch_status(
        &self,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<Account, CallError> {
        let request = path::<ManagedServiceAccount>(&self.cluster).patch_subresource(
            "status",
            name,
            &PatchParams::default(),
            &Patch::Merge(patch),
        );
        let call = "PATCH ManagedServiceAccount/status";
        Ok(self.send::<ManagedServiceAccount>(Side::Hub, call, request, name).await?.into())
    }

    /// Deletes; what does not exist is gone, as it should be.
    async fn gone(
        &self,
        side: Side,
        call: &'static str,
        request: Built,
        name: &str,
    ) -> Result<(), CallError> {
        match self.send::<IgnoredAny>(side, call, request, name).await {
            Ok(_) | Err(CallError { kind: CallErrorKind::NotFound(_), .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends and reads, about the object of that name. A 404 counts as [`CallErrorKind::NotFound`] only if it is about that
    /// object, and not about its kind or namespace.
    async fn send<T: DeserializeOwned>(
        &self,
        side: Side,
        call: &'static str,
        request: Built,
        name: &str,
    ) -> Result<T, CallError> {
        self.exchange(side, call, request, |call| call.about(name)).await
    }

    /// [`send`](Self::send) for what the agent can do without: a refusal says nothing about the side.
    async fn try_to<T: DeserializeOwned>(
        &self,
        side: Side,
        call: &'static str,
        request: Built,
        name: &str,
    ) -> Result<T, CallError> {
        self.exchange(side, call, request, |call| call.about(name).optional()).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        side: Side,
        call: &'static str,
        request: Built,
        what: impl FnOnce(Call) -> Call,
    ) -> Result<T, CallError> {
        let fail = |kind| CallError { side, call, kind };
        let request = request.map_err(|_| fail(CallErrorKind::Unusable("the request could not be built")))?;
        let peer = match side {
            Side::Hub => &self.hub,
            Side::Cluster => &self.spoke,
        };
        let what = what(Call::of(request.method(), request.uri().path(), request.uri().query()));
        peer.health().may_ask(side, &what).map_err(|cause| fail(cause.into()))?;
        let limit = if what.resource == "serviceaccounts/token" { TOKEN_BYTES } else { OBJECT_BYTES };
        let read = |answer: &[u8]| serde_json::from_slice(answer).map_err(|_| "it cannot be parsed");
        peer.call(&what, request, limit, read).await.map_err(|failure| fail(of_failure(&what, failure)))
    }
}

fn of_failure(call: &Call, failure: Failure) -> CallErrorKind {
    let status = match failure {
        Failure::Cause(cause) => return cause.into(),
        Failure::Status(status) => status,
    };
    let Status { code, message, reason, .. } = *status;
    let message = if call.is_sensitive() { String::new() } else { message };
    match code {
        404 => CallErrorKind::NotFound(message),
        // AlreadyExists is a 409 too, and means the same here: look again.
        409 => CallErrorKind::Conflict,
        code => CallErrorKind::Refused { code, reason, message },
    }
}

impl From<Cause> for CallErrorKind {
    fn from(cause: Cause) -> Self {
        match (cause.verdict(), cause) {
            (Verdict::Unreachable, cause) => Self::Unavailable(cause.to_string()),
            (Verdict::Refused, Cause::Answer { code, reason, message, .. }) => {
                Self::Refused { code, reason, message }
            }
            (Verdict::Refused, cause) => Self::Turned(cause.to_string()),
        }
    }
}

/// A deletion of the object with this UID, and of no other that took its name meanwhile.
fn only(uid: &str) -> DeleteParams {
    // An empty precondition would fit no object. A server that gives no UIDs is no Kubernetes; the name has to do
    // there.
    let uid = (!uid.is_empty()).then(|| uid.to_owned());
    DeleteParams::default().preconditions(Preconditions { uid, resource_version: None })
}

fn bytes<T: serde::Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("string keys and plain values always serialize")
}

/// What a projected Secret says.
pub(crate) struct Content<'a> {
    pub(crate) account_uid: &'a str,
    pub(crate) token: &'a Token,
    pub(crate) ca: &'a [u8],
    pub(crate) record: &'a str,
}

impl Content<'_> {
    /// The Secret, whole. Labels, annotations, owners and finalizers that others put on the present one stay;
    /// data of others does not.
    fn secret(&self, name: &str, namespace: &str, present: Option<&ObjectMeta>) -> v1::Secret {
        let mut metadata = present.cloned().unwrap_or_default();
        metadata.managed_fields = None;
        metadata.name = Some(name.to_owned());
        metadata.namespace = Some(namespace.to_owned());
        // The resourceVersion of the present one stays in: it makes the replacement fail if there is a newer one.
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(names::LABEL_IS_MANAGED.to_owned(), names::LABEL_IS_MANAGED_VALUE.to_owned());
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_TOKEN_REQUEST.to_owned(), self.record.to_owned());
        // In the write of the token itself, so that they never tell of another.
        for (key, value) in self.token.claims().map(Claims::annotations).into_iter().flatten() {
            annotations.insert(key.to_owned(), value);
        }
        // References to earlier accounts of this name go: the garbage collector would see an owner that is gone.
        let owners = metadata.owner_references.get_or_insert_default();
        owners.retain(|owner| !observe::refers_to(owner, name));
        owners.push(OwnerReference {
            api_version: ManagedServiceAccount::api_version(&()).into_owned(),
            kind: names::KIND.to_owned(),
            name: name.to_owned(),
            uid: self.account_uid.to_owned(),
            ..OwnerReference::default()
        });
        let data = [
            (names::SECRET_KEY_CA.to_owned(), ByteString(self.ca.to_vec())),
            (names::SECRET_KEY_TOKEN.to_owned(), ByteString(self.token.expose().as_bytes().to_vec())),
        ];
        v1::Secret {
            metadata,
            data: Some(data.into()),
            type_: Some(names::SECRET_TYPE_OPAQUE.to_owned()),
            ..v1::Secret::default()
        }
    }
}
