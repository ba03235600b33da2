//! A token as the agent holds it: opaque to logs, its claims read but not verified.
//!
//! The agent asks the cluster whether a token is good (TokenReview); the claims only tell when to ask for the
//! next one and for whom this one was made.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fleetpass_api::names;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A service-account token. `Debug` shows its claims at most.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    secret: SecretString,
    fingerprint: Fingerprint,
    claims: Option<Claims>,
}

/// Tells tokens apart without keeping them: a keyless 64-bit hash, only ever compared within this process. Whoever can
/// put a colliding token into the Secret has the rights to put any token there, and the next TokenReview finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(u64);

/// What a service-account token says about itself (k8s.io/kubernetes, `pkg/serviceaccount/claims.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    /// `iat`.
    pub(crate) issued_at: Timestamp,
    /// `exp`, later than `iat`.
    pub(crate) expires_at: Timestamp,
    /// `sub`: `system:serviceaccount:NAMESPACE:NAME`.
    pub(crate) subject: String,
    /// `kubernetes.io`, `serviceaccount`, `uid`.
    pub(crate) account_uid: String,
    /// `aud`.
    pub(crate) audiences: Vec<String>,
}

impl Token {
    /// Takes a token in; text that is no service-account token is kept, with no claims.
    pub(crate) fn new(text: String) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let claims = read_claims(&text);
        Self { secret: text.into(), fingerprint: Fingerprint(hasher.finish()), claims }
    }

    /// The claims, unless the text is no service-account token.
    pub(crate) fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// What to compare tokens by.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The token itself: for a request body, never for a log.
    pub(crate) fn expose(&self) -> &str {
        self.secret.expose_secret()
    }
}

impl Claims {
    /// Seconds between `iat` and `exp`; at least 1.
    pub(crate) fn lifetime_seconds(&self) -> i64 {
        self.expires_at.as_second() - self.issued_at.as_second()
    }

    /// What the Secret says about the token, for readers that do not want to take it apart.
    pub(crate) fn annotations(&self) -> [(&'static str, String); 2] {
        [
            (names::ANNOTATION_TOKEN_ISSUED_AT, self.issued_at.to_string()),
            (names::ANNOTATION_TOKEN_EXPIRES_AT, self.expires_at.to_string()),
        ]
    }
}

#[derive(Deserialize)]
struct Payload {
    iat: i64,
    exp: i64,
    sub: String,
    #[serde(default)]
    aud: Audience,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
}

#[derive(Deserialize)]
struct Private {
    serviceaccount: Reference,
}

#[derive(Deserialize)]
struct Reference {
    uid: String,
}

/// RFC 7519, 4.1.3: one audience may be a plain string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    Many(Vec<String>),
    One(String),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

fn read_claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    // Exactly three parts: header, payload, signature.
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let payload: Payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // The rules divide its lifetime; a token that ends before it begins has none.
    if payload.exp <= payload.iat {
        return None;
    }
    Some(Claims {
        issued_at: Timestamp::from_second(payload.iat).ok()?,
        expires_at: Timestamp::from_second(payload.exp).ok()?,
        subject: payload.sub,
        account_uid: payload.kubernetes.serviceaccount.uid,
        audiences: match payload.aud {
            Audience::Many(audiences) => audiences,
            Audience::One(audience) => vec![audience],
        },
    })
}

#[cfg(test)]
pub(crate) fn forge(subject: &str, uid: &str, iat: i64, exp: i64, id: u64) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let payload = serde_json::json!({
        "aud": ["https://kubernetes.default.svc"], "iat": iat, "exp": exp, "sub": subject, "jti": id.to_string(),
        "kubernetes.io": {"namespace": "agents", "serviceaccount": {"name": "x", "uid": uid}},
    });
    format!("{}.{}.c2lnbmF0dXJl", part(serde_json::json!({"alg": "none"})), part(payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_claims() {
        let token = Token::new(forge("system:serviceaccount:a:b", "u1", 1_000, 4_600, 1));
        let claims = token.claims().unwrap();
        assert_eq!((claims.lifetime_seconds(), claims.account_uid.as_str()), (3_600, "u1"));
        assert_eq!(claims.subject, "system:serviceaccount:a:b");
    }

    #[test]
    fn refuses_nonsense_and_never_shows_the_token() {
        for text in ["", "a.b", "a.b.c", "a.e30.c", &forge("s", "u", 10, 10, 1)] {
            assert_eq!(Token::new(text.to_owned()).claims(), None, "{text}");
        }
        let text = forge("s", "u", 1, 2, 1);
        assert!(!format!("{:?}", Token::new(text.clone())).contains(&text));
    }

    proptest! {
        #[test]
        fn no_token_panics(payload in "\\PC{0,80}", iat: i64, exp: i64) {
            let encoded = URL_SAFE_NO_PAD.encode(&payload);
            Token::new(format!("x.{encoded}.y"));
            Token::new(forge("s", "u", iat, exp, 0));
        }
    }
}
