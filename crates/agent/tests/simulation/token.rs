//! The tokens of a simulated cluster: service-account tokens that say what real ones say, with a checksum instead of a
//! signature. Nobody forges them here; what matters is that a text which the cluster did not issue is not accepted.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The audience of a server that is asked for no other.
pub(crate) const AUDIENCE: &str = "https://kubernetes.default.svc";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) issued_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) audiences: Vec<String>,
}

impl Claims {
    pub(crate) fn lifetime(&self) -> i64 {
        self.expires_at - self.issued_at
    }
}

/// The token with these claims, sealed with the cluster's key. `id` makes each different.
pub(crate) fn issue(claims: &Claims, key: u64, id: u64) -> String {
    let Claims { issued_at, expires_at, namespace, name, uid, audiences } = claims;
    let payload = json!({
        "aud": audiences, "iat": issued_at, "nbf": issued_at, "exp": expires_at, "jti": id.to_string(),
        "iss": AUDIENCE, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
    });
    let body = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(payload.to_string())
    );
    let seal = seal(&body, key);
    format!("{body}.{seal}")
}

/// The claims of a token that was sealed with this key.
pub(crate) fn open(token: &str, key: u64) -> Option<Claims> {
    let (body, sealed) = token.rsplit_once('.')?;
    if sealed != seal(body, key) {
        return None;
    }
    let payload: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body.split_once('.')?.1).ok()?).ok()?;
    let account = &payload["kubernetes.io"]["serviceaccount"];
    Some(Claims {
        issued_at: payload["iat"].as_i64()?,
        expires_at: payload["exp"].as_i64()?,
        namespace: payload["kubernetes.io"]["namespace"].as_str()?.to_owned(),
        name: account["name"].as_str()?.to_owned(),
        uid: account["uid"].as_str()?.to_owned(),
        audiences: serde_json::from_value(payload["aud"].clone()).ok()?,
    })
}

fn seal(body: &str, key: u64) -> String {
    let mut hasher = DefaultHasher::new();
    (key, body).hash(&mut hasher);
    URL_SAFE_NO_PAD.encode(hasher.finish().to_be_bytes())
}
