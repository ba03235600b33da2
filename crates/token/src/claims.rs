//! What a token says: the claims that kube-apiserver 1.36 writes (`pkg/serviceaccount/claims.go`, and `legacy.go` for
//! the tokens that live in Secrets), and how the claims follow from a TokenRequest
//! (`pkg/registry/core/serviceaccount/storage/token.go`).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// The issuer of tokens that live in Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The lifetime, in seconds, that a kubelet asks for when the pod did not say how long: `WarnOnlyBoundTokenExpirationSeconds`
/// in `pkg/serviceaccount/claims.go`. The odd seven seconds tell such a request from one that a user wrote.
const WARN_ONLY_EXPIRATION_SECONDS: i64 = 3607;
/// What such a token gets instead, in seconds: a year (`ExpirationExtensionSeconds` in the same file), with a warning after
/// the time that was asked for.
const EXTENDED_EXPIRATION_SECONDS: i64 = 365 * 24 * 60 * 60;
/// By how much clocks may differ (`jwt.DefaultLeeway` of go-jose).
pub const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Claims that a key can sign: this crate's own types only.
pub trait SignableClaims: Serialize + sealed::Sealed {}

// A key that signs whatever it is given would sign tokens of any issuer. With a sealed trait the types here are the
// only ones, so what can be signed is reviewed in this file.
mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Claims {}
    impl Sealed for super::LegacyClaims {}
}
impl SignableClaims for Claims {}
impl SignableClaims for LegacyClaims {}

/// An object that a token names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectRef {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its UID; empty for the node of a pod whose Node object was missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl ObjectRef {
    /// An object by name and UID.
    pub fn new(name: impl Into<String>, uid: impl Into<String>) -> Self {
        Self { name: name.into(), uid: uid.into() }
    }
}

/// The private claims, under `kubernetes.io`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    /// The namespace of the account and of a bound pod or secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node that the token is bound to, or that the bound pod runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    /// The pod that the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    /// The secret that the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    /// The account.
    pub serviceaccount: ObjectRef,
    /// After this time, in seconds since 1970, the token should have been refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a token from the TokenRequest API. Fields are in the order in which kube-apiserver writes them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Who should accept the token.
    #[serde(deserialize_with = "audience", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// When it expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// When it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Who issued it.
    pub iss: String,
    /// The ID of this credential, a UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What Kubernetes adds.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    /// From when it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// `aud` is a list, or one string (RFC 7519).
fn audience<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Audience>::deserialize(from)? {
        None => Vec::new(),
        Some(Audience::One(one)) => vec![one],
        Some(Audience::Many(many)) => many,
    })
}

/// The claims of a token that lives in a Secret of type `kubernetes.io/service-account-token` and never expires.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LegacyClaims {
    /// [`LEGACY_ISSUER`].
    pub iss: String,
    /// The namespace of account and secret.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The secret that holds the token.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret_name: String,
    /// The account's name.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account_name: String,
    /// The account's UID.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

impl LegacyClaims {
    /// The claims of the token in the secret `secret_name`.
    pub fn new(account: &Account<'_>, secret_name: &str) -> Self {
        Self {
            iss: LEGACY_ISSUER.into(),
            namespace: account.namespace.into(),
            secret_name: secret_name.into(),
            account_name: account.name.into(),
            account_uid: account.uid.into(),
            sub: account.user_name(),
        }
    }
}

/// A service account, as far as a token names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

impl Account<'_> {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// What a token is bound to: it dies with that object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Binding {
    /// Only the account.
    #[default]
    Account,
    /// A pod; its node is told, not checked.
    Pod {
        /// The pod.
        pod: ObjectRef,
        /// The node that it is assigned to, if any; without UID if there is no such Node.
        node: Option<ObjectRef>,
    },
    /// A secret.
    Secret(ObjectRef),
    /// A node.
    Node(ObjectRef),
}

/// What the server makes of requested lifetimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// `--service-account-max-token-expiration`, in seconds; longer requests are shortened, with a warning.
    pub max_seconds: Option<i64>,
    /// `--service-account-extend-token-expiration`: the token of a kubelet's default request lives for a year.
    pub extend: bool,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { max_seconds: None, extend: true }
    }
}

/// A validated request for a token.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// For whom.
    pub account: Account<'a>,
    /// Bound to what.
    pub binding: Binding,
    /// For which audiences; the caller has filled in the server's own if the client named none.
    pub audiences: Vec<String>,
    /// For how long, in seconds.
    pub expiration_seconds: i64,
}

/// A token about to be signed, and what the client is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The claims.
    pub claims: Claims,
    /// `spec.expirationSeconds` of the answer.
    pub expiration_seconds: i64,
    /// `status.expirationTimestamp` of the answer: when to have refreshed, before an extended token really expires.
    pub expires: Timestamp,
    /// A warning, if the request was shortened.
    pub warning: Option<String>,
}

/// What to sign for `request` at `now`, with `jti` as the credential's ID. `issuer` is the server's; `api_audiences`
/// are those that the server itself accepts.
pub fn grant(
    request: Request<'_>,
    issuer: &str,
    api_audiences: &[String],
    lifetimes: &Lifetimes,
    now: Timestamp,
    jti: Uuid,
) -> Grant {
    let mut seconds = request.expiration_seconds;
    let mut warning = None;
    // First the maximum, then the extension, as in Go: a maximum below 3607 seconds also switches the extension off, and
    // an extended token may outlive the maximum.
    if let Some(max) = lifetimes.max_seconds.filter(|max| *max > 0 && *max < seconds) {
        warning = Some(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
        seconds = max;
    }
    // Programs from before bound tokens read their token once. They may go on for a year, and `warnafter` shows which
    // tokens should have been read again. Only for the API server itself: for other audiences nobody could warn.
    let extended = lifetimes.extend
        && seconds == WARN_ONLY_EXPIRATION_SECONDS
        && matches!(request.binding, Binding::Pod { .. })
        && request.audiences.iter().all(|audience| api_audiences.contains(audience));
    // NumericDate is in whole seconds here, cut as `time.Unix()` cuts them. `nbf` equals `iat`: verifiers allow a leeway.
    let issued = now.as_second();
    let lifetime = if extended { EXTENDED_EXPIRATION_SECONDS } else { seconds };
    let (pod, secret, node) = match request.binding {
        Binding::Account => (None, None, None),
        Binding::Pod { pod, node } => (Some(pod), None, node),
        Binding::Secret(secret) => (None, Some(secret), None),
        Binding::Node(node) => (None, None, Some(node)),
    };
    let claims = Claims {
        aud: request.audiences,
        exp: Some(issued.saturating_add(lifetime)),
        iat: Some(issued),
        iss: issuer.into(),
        jti: jti.to_string(),
        kubernetes: Kubernetes {
            namespace: request.account.namespace.into(),
            node,
            pod,
            secret,
            serviceaccount: ObjectRef::new(request.account.name, request.account.uid),
            warnafter: extended.then(|| issued.saturating_add(seconds)),
        },
        nbf: Some(issued),
        sub: request.account.user_name(),
    };
    // Of an extended token too the client is told the time that it asked for: it is to come back then.
    let expires = Timestamp::from_second(issued.saturating_add(seconds)).unwrap_or(Timestamp::MAX);
    Grant { claims, expiration_seconds: seconds, expires, warning }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const API: &str = "https://kubernetes.default.svc";

    fn request(binding: Binding, audiences: &[&str], seconds: i64) -> Request<'static> {
        Request {
            account: Account { namespace: "ns", name: "robot", uid: "u1" },
            binding,
            audiences: audiences.iter().map(|a| a.to_string()).collect(),
            expiration_seconds: seconds,
        }
    }
    fn granted(request: Request<'_>, lifetimes: &Lifetimes) -> Grant {
        let now = "2026-01-02T03:04:05.6Z".parse().unwrap();
        grant(request, API, &[API.into(), "api".into()], lifetimes, now, Uuid::nil())
    }
    fn pod() -> Binding {
        Binding::Pod { pod: ObjectRef::new("p1", "u2"), node: Some(ObjectRef::new("n1", "")) }
    }

    #[test]
    fn writes_the_claims_in_the_servers_form_and_order() {
        let text =
            serde_json::to_string(&granted(request(pod(), &[API], 3600), &Lifetimes::default()).claims)
                .unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"aud":["https://kubernetes.default.svc"],"exp":1767326645,"iat":1767323045,"#,
                r#""iss":"https://kubernetes.default.svc","jti":"00000000-0000-0000-0000-000000000000","#,
                r#""kubernetes.io":{"namespace":"ns","node":{"name":"n1"},"pod":{"name":"p1","uid":"u2"},"#,
                r#""serviceaccount":{"name":"robot","uid":"u1"}},"nbf":1767323045,"sub":"system:serviceaccount:ns:robot"}"#
            )
        );
    }

    #[test]
    fn only_the_kubelets_default_request_is_extended() {
        let default = Lifetimes::default();
        let off = Lifetimes { extend: false, ..Lifetimes::default() };
        let year = EXTENDED_EXPIRATION_SECONDS;
        for (binding, audiences, seconds, lifetimes, lifetime, warn) in [
            (pod(), &[API][..], 3607, &default, year, Some(3607)),
            (pod(), &[API, "api"], 3607, &default, year, Some(3607)),
            (pod(), &[API], 3607, &off, 3607, None),
            (pod(), &[API], 3606, &default, 3606, None),
            (pod(), &[API], 3608, &default, 3608, None),
            (pod(), &["vault"], 3607, &default, 3607, None),
            (pod(), &[API, "vault"], 3607, &default, 3607, None),
            (Binding::Node(ObjectRef::new("n1", "u3")), &[API], 3607, &default, 3607, None),
            (Binding::Secret(ObjectRef::new("s1", "u4")), &[API], 3607, &default, 3607, None),
            (Binding::Account, &[API], 3607, &default, 3607, None),
        ] {
            let label = format!("{binding:?} {audiences:?} {seconds}");
            let grant = granted(request(binding, audiences, seconds), lifetimes);
            let iat = grant.claims.iat.unwrap();
            assert_eq!(grant.claims.exp.unwrap() - iat, lifetime, "{label}");
            assert_eq!(grant.claims.kubernetes.warnafter.map(|at| at - iat), warn, "{label}");
            assert_eq!(grant.expiration_seconds, seconds, "{label}");
            assert_eq!(grant.expires.as_second() - iat, seconds, "{label}");
        }
    }

    #[test]
    fn the_servers_maximum_shortens_and_says_so() {
        let limited = Lifetimes { max_seconds: Some(7200), ..Lifetimes::default() };
        let grant = granted(request(Binding::Account, &[API], 86_400), &limited);
        assert_eq!(grant.expiration_seconds, 7200);
        assert_eq!(grant.claims.exp.unwrap() - grant.claims.iat.unwrap(), 7200);
        assert_eq!(
            grant.warning.as_deref(),
            Some("requested expiration of 86400 seconds shortened to 7200 seconds")
        );
        assert_eq!(granted(request(Binding::Account, &[API], 7200), &limited).warning, None);
        let unlimited = Lifetimes { max_seconds: Some(0), ..Lifetimes::default() };
        assert_eq!(
            granted(request(Binding::Account, &[API], 1 << 32), &unlimited).expiration_seconds,
            1 << 32
        );
    }

    #[test]
    fn reads_one_audience_or_many_or_none() {
        for (aud, expected) in
            [(json!("a"), vec!["a"]), (json!(["a", "b"]), vec!["a", "b"]), (json!(null), vec![])]
        {
            let claims: Claims = serde_json::from_value(json!({"aud": aud})).unwrap();
            assert_eq!(claims.aud, expected);
        }
        assert!(serde_json::from_value::<Claims>(json!({"aud": [1]})).is_err());
    }
}
