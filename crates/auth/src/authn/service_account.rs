//! Tokens of service accounts: from a token to a user, by its claims and the live objects that it names
//! (`pkg/serviceaccount/claims.go`, `legacy.go` and `jwt.go`).
//!
//! Deleting the account, or the object that a token is bound to, revokes the token, one minute after the deletion
//! began or as soon as the object is gone. A recreated object has another UID and does not revive it.

use super::cache::SignatureCache;
use super::digest::TokenDigest;
use super::outcome::{Authenticated, CREDENTIAL_ID};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::user::{ALL_SERVICE_ACCOUNTS, UserInfo};
use fleetpass_token::claims::{Account, Claims, LEEWAY, LegacyClaims, Lifetimes, ObjectRef};
use fleetpass_token::ring::KeyRing;
use fleetpass_token::verify::{
    self, VerifiedClaims, VerifiedToken, VerifyError, check_audiences, check_time,
};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// Audit annotation: a token was used after the time at which it should have been refreshed.
const STALE_TOKEN: &str = "authentication.k8s.io/stale-token";
/// Audit annotation: a token without audiences was used.
const LEGACY_TOKEN: &str = "authentication.k8s.io/legacy-token";
/// A label on Secrets whose tokens have not been used for long.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// The client's warning for a token whose Secret the token controller made by itself, as it did before Kubernetes 1.24.
const AUTO_GENERATED_WARNING: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";
/// How many verified signatures are cached: enough for each client of a large fleet.
const CACHED_SIGNATURES: usize = 32_768;

/// How a server issues and accepts service-account tokens.
#[derive(Debug, Clone)]
pub struct ServiceAccountConfig {
    /// `--service-account-issuer`: the first issues, all are accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`; the first issuer if the flag is not given.
    pub api_audiences: Vec<String>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
}

/// Why a service-account token was refused; the texts are the server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// The token by itself.
    #[error(transparent)]
    Token(#[from] VerifyError),
    /// There is no such account.
    #[error("serviceaccounts {} not found", go_quote(.0))]
    NoAccount(String),
    /// The account was recreated.
    #[error("service account UID ({found}) does not match claim ({claim})")]
    AccountUid {
        /// The account's UID.
        found: String,
        /// The token's.
        claim: String,
    },
    /// The account was deleted more than a minute ago.
    #[error("service account {0}/{1} has been deleted")]
    AccountDeleted(String, String),
    /// The bound object is gone, or was deleted more than a minute ago.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// The bound object was recreated.
    #[error("{kind} UID ({found}) does not match service account {kind} ref claim ({claim})")]
    BoundUid {
        /// `secret`, `pod` or `node`.
        kind: &'static str,
        /// The object's UID.
        found: String,
        /// The token's.
        claim: String,
    },
    /// A token from a Secret lacks a claim, or has a wrong one.
    #[error("{0}")]
    LegacyClaim(&'static str),
    /// The Secret of such a token is gone or being deleted.
    #[error("Token has been invalidated")]
    LegacyInvalidated,
    /// The Secret holds another token by now.
    #[error("Token does not match server's copy")]
    LegacyMismatch,
    /// The account of such a token is being deleted.
    #[error("ServiceAccount {0}/{1} has been deleted")]
    LegacyAccountDeleted(String, String),
    /// The account of such a token was recreated.
    #[error("ServiceAccount UID ({found}) does not match claim ({claim})")]
    LegacyAccountUid {
        /// The account's UID.
        found: String,
        /// The token's.
        claim: String,
    },
    /// The Secret is marked as unused for long.
    #[error(
        "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
    )]
    LegacyMarkedInvalid {
        /// The namespace of both.
        namespace: String,
        /// The Secret.
        secret: String,
        /// The account.
        account: String,
    },
}

/// The tokens of service accounts: keys, configuration, and a cache of verified signatures.
pub struct ServiceAccounts {
    /// Has at least one issuer.
    config: ServiceAccountConfig,
    /// Does not change while the server runs: a rotation is a matter of times that are in the ring from the start.
    ring: KeyRing,
    signatures: SignatureCache,
}

/// The server's configuration names no issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at least one service account issuer is needed")]
pub struct NoIssuer;

impl ServiceAccounts {
    /// Tokens that are signed and verified with the keys of `ring`.
    ///
    /// # Errors
    /// [`NoIssuer`] if there is no issuer, or an empty one.
    pub fn new(config: ServiceAccountConfig, ring: KeyRing) -> Result<Self, NoIssuer> {
        // An empty issuer would match tokens that name none.
        if config.issuers.is_empty() || config.issuers.iter().any(String::is_empty) {
            return Err(NoIssuer);
        }
        let signatures = SignatureCache::new(CACHED_SIGNATURES);
        Ok(Self { config, ring, signatures })
    }

    /// The configuration.
    pub fn config(&self) -> &ServiceAccountConfig {
        &self.config
    }
    /// The issuer of new tokens.
    pub fn issuer(&self) -> &str {
        &self.config.issuers[0]
    }
    /// The keys in use.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The user of `token`, whose digest is `digest`, if it is meant for one of the `requested` audiences. `None`: not
    /// a service-account token of this server.
    pub(super) fn authenticate(
        &self,
        token: &str,
        digest: &TokenDigest,
        requested: &[String],
        now: Timestamp,
        lister: &dyn Lister,
    ) -> Result<Option<Authenticated>, TokenError> {
        let verified = match self.verified(token, digest, now) {
            Ok(verified) => verified,
            // Not a refusal: another authenticator may know the token (in kube-apiserver, a webhook or OIDC).
            Err(VerifyError::NotOurs) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (subject, audiences) = match &verified.claims {
            VerifiedClaims::Bound(claims) => (&claims.sub, &claims.aud[..]),
            VerifiedClaims::Legacy(claims) => (&claims.sub, &[][..]),
        };
        let mut annotations = Vec::new();
        // Tokens without audiences are those that live in Secrets; operators are to find out who still uses them.
        if audiences.is_empty() {
            annotations.push((LEGACY_TOKEN, subject.clone()));
        }
        let audiences = check_audiences(audiences, requested, &self.config.api_audiences)?;
        let mut warnings = Vec::new();
        let user = match &verified.claims {
            VerifiedClaims::Bound(claims) => {
                let user = bound_user(claims, now, lister)?;
                annotations.extend(stale(claims, now).map(|text| (STALE_TOKEN, text)));
                user
            }
            VerifiedClaims::Legacy(claims) => {
                let (user, warning) = legacy_user(claims, token, lister)?;
                warnings.extend(warning.map(Into::into));
                user
            }
        };
        Ok(Some(Authenticated { user, audiences, warnings, annotations }))
    }

    /// The token with a good signature, from the cache if it was seen lately.
    fn verified(
        &self,
        token: &str,
        digest: &TokenDigest,
        now: Timestamp,
    ) -> Result<Arc<VerifiedToken>, VerifyError> {
        // Whether the key is still one to verify with depends on the time, so it is asked again for a cached signature: the old
        // key of a rotation ends while tokens that it signed are in the cache.
        let current = |known: &Arc<VerifiedToken>| self.ring.verifies(&known.key_id, now);
        if let Some(known) = self.signatures.get(digest).filter(current) {
            return Ok(known);
        }
        let verified = Arc::new(verify::verify(token, &self.config.issuers, &self.ring, now)?);
        self.signatures.insert(*digest, verified.clone(), token.len());
        Ok(verified)
    }
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Whether its deletion began before `before`. A time that cannot be read counts as long ago.
fn deleted_before(object: &Value, before: Timestamp) -> bool {
    match &object["metadata"]["deletionTimestamp"] {
        Value::Null => false,
        Value::String(text) => text.parse::<Timestamp>().map_or(true, |at| at < before),
        _ => true,
    }
}

/// The user that a service account is, without extra.
fn account_user(account: &Account<'_>) -> UserInfo {
    UserInfo {
        name: account.user_name(),
        uid: account.uid.into(),
        groups: vec![ALL_SERVICE_ACCOUNTS.into(), format!("{ALL_SERVICE_ACCOUNTS}:{}", account.namespace)],
        ..UserInfo::default()
    }
}

/// The user of a token from the TokenRequest API.
fn bound_user(claims: &Claims, now: Timestamp, lister: &dyn Lister) -> Result<UserInfo, TokenError> {
    check_time(claims, now)?;
    // The leeway for clocks that differ applies to deletions as to expirations, as in Go.
    let before = now.saturating_sub(LEEWAY).unwrap_or(Timestamp::MIN);
    let kubernetes = &claims.kubernetes;
    let namespace = &kubernetes.namespace;
    let claim = &kubernetes.serviceaccount;
    let account = lister
        .get("", "serviceaccounts", namespace, &claim.name)
        .ok_or_else(|| TokenError::NoAccount(claim.name.clone()))?;
    // Another UID is another account: the one that the token was made for was deleted, and the name was given anew.
    if uid(&account) != claim.uid {
        return Err(TokenError::AccountUid { found: uid(&account).into(), claim: claim.uid.clone() });
    }
    if deleted_before(&account, before) {
        return Err(TokenError::AccountDeleted(namespace.clone(), claim.name.clone()));
    }
    let check = |kind, resource: &str, namespace: &str, claim: &ObjectRef| {
        let object = lister.get("", resource, namespace, &claim.name).ok_or(TokenError::Invalidated)?;
        if uid(&object) != claim.uid {
            return Err(TokenError::BoundUid { kind, found: uid(&object).into(), claim: claim.uid.clone() });
        }
        if deleted_before(&object, before) { Err(TokenError::Invalidated) } else { Ok(()) }
    };
    if let Some(secret) = &kubernetes.secret {
        check("secret", "secrets", namespace, secret)?;
    }
    let mut user = account_user(&Account { namespace, name: &claim.name, uid: &claim.uid });
    let mut add_extra = |key: &str, value: &str| user.extra.insert(key.into(), vec![value.into()]);
    if !claims.jti.is_empty() {
        add_extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &kubernetes.pod {
        check("pod", "pods", namespace, pod)?;
        if !pod.name.is_empty() && !pod.uid.is_empty() {
            add_extra(POD_NAME, &pod.name);
            add_extra(POD_UID, &pod.uid);
        }
    }
    if let Some(node) = &kubernetes.node {
        // Of a token that is bound to a pod the node is only reported: the token is good as long as the pod is there.
        if kubernetes.pod.is_none() {
            check("node", "nodes", "", node)?;
        }
        if !node.name.is_empty() {
            add_extra(NODE_NAME, &node.name);
            if !node.uid.is_empty() {
                add_extra(NODE_UID, &node.uid);
            }
        }
    }
    Ok(user)
}

/// The audit annotation of a token that should have been refreshed before `now`; `None` for a fresh one.
fn stale(claims: &Claims, now: Timestamp) -> Option<String> {
    let warn_after = claims.kubernetes.warnafter.filter(|at| *at != 0)?;
    let late = now.as_second().checked_sub(warn_after)?;
    let after = late > 0 || (late == 0 && now.subsec_nanosecond() > 0);
    after.then(|| format!("subject: {}, seconds after warning threshold: {late}", claims.sub))
}

/// The user of a token that lives in a Secret, with a warning if a controller made that Secret by itself.
///
/// Such a token never expires. What ends it are the Secret, the account, and the mark for tokens that were not used for long.
/// The order of the checks is that of `legacyValidator.Validate`, because each has its own message.
fn legacy_user(
    claims: &LegacyClaims,
    token: &str,
    lister: &dyn Lister,
) -> Result<(UserInfo, Option<&'static str>), TokenError> {
    for (claim, missing) in [
        (&claims.sub, "sub claim is missing"),
        (&claims.namespace, "namespace claim is missing"),
        (&claims.secret_name, "secretName claim is missing"),
        (&claims.account_name, "serviceAccountName claim is missing"),
        (&claims.account_uid, "serviceAccountUID claim is missing"),
    ] {
        if claim.is_empty() {
            return Err(TokenError::LegacyClaim(missing));
        }
    }
    let namespace = &claims.namespace;
    let claimed = Account { namespace, name: &claims.account_name, uid: &claims.account_uid };
    if claims.sub != claimed.user_name() {
        return Err(TokenError::LegacyClaim("sub claim is invalid"));
    }
    let secret =
        lister.get("", "secrets", namespace, &claims.secret_name).ok_or(TokenError::LegacyInvalidated)?;
    if !secret["metadata"]["deletionTimestamp"].is_null() {
        return Err(TokenError::LegacyInvalidated);
    }
    // The Secret must still hold this very token: writing another one into it revokes the first. The comparison takes constant
    // time, as in Go, although only tokens with a good signature get here.
    let copy = secret["data"]["token"].as_str().and_then(|text| STANDARD.decode(text).ok());
    if !bool::from(copy.unwrap_or_default().ct_eq(token.as_bytes())) {
        return Err(TokenError::LegacyMismatch);
    }
    let account = lister
        .get("", "serviceaccounts", namespace, claimed.name)
        .ok_or_else(|| TokenError::NoAccount(claimed.name.into()))?;
    if !account["metadata"]["deletionTimestamp"].is_null() {
        return Err(TokenError::LegacyAccountDeleted(namespace.clone(), claimed.name.into()));
    }
    if uid(&account) != claimed.uid {
        return Err(TokenError::LegacyAccountUid { found: uid(&account).into(), claim: claimed.uid.into() });
    }
    if secret["metadata"]["labels"][INVALID_SINCE].as_str().is_some_and(|since| !since.is_empty()) {
        return Err(TokenError::LegacyMarkedInvalid {
            namespace: namespace.clone(),
            secret: claims.secret_name.clone(),
            account: claimed.name.into(),
        });
    }
    // Only the controller of old added the Secrets that it made to the account's list.
    let references = account["secrets"].as_array().map_or(&[][..], Vec::as_slice);
    let generated = references.iter().any(|reference| reference["name"] == *claims.secret_name);
    Ok((account_user(&claimed), generated.then_some(AUTO_GENERATED_WARNING)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{API, Objects, accounts, now, ring};
    use fleetpass_token::claims::{Binding, Request, grant};
    use fleetpass_token::key::KeyKind;
    use jiff::SignedDuration;
    use secrecy::ExposeSecret as _;
    use serde_json::json;
    use uuid::Uuid;

    const ROBOT: Account<'static> = Account { namespace: "ns", name: "robot", uid: "u-robot" };

    fn issue(accounts: &ServiceAccounts, binding: Binding, seconds: i64) -> String {
        let request =
            Request { account: ROBOT, binding, audiences: vec![API.into()], expiration_seconds: seconds };
        let config = accounts.config();
        let grant = grant(request, API, &config.api_audiences, &config.lifetimes, now(), Uuid::nil());
        accounts.ring().signer(now()).unwrap().sign(&grant.claims).unwrap().expose_secret().to_owned()
    }
    fn ask(
        accounts: &ServiceAccounts,
        token: &str,
        at: Timestamp,
        live: &Objects,
    ) -> Result<Authenticated, String> {
        accounts
            .authenticate(token, &TokenDigest::of(token), &[API.into()], at, live)
            .map(|found| found.expect("one of ours"))
            .map_err(|e| e.to_string())
    }
    fn pod(node: Option<ObjectRef>) -> Binding {
        Binding::Pod { pod: ObjectRef::new("p4", "u-p4"), node }
    }

    #[test]
    fn the_user_is_told_by_the_claims() {
        let accounts = accounts();
        let live = Objects::sample();
        let jti = [(CREDENTIAL_ID, "JTI=00000000-0000-0000-0000-000000000000")];
        let n1 = || ObjectRef::new("n1", "u-n1");
        for (binding, extra) in [
            (Binding::Account, &[][..]),
            (Binding::Secret(ObjectRef::new("s1", "u-s1")), &[]),
            (Binding::Node(n1()), &[(NODE_NAME, "n1"), (NODE_UID, "u-n1")]),
            (pod(None), &[(POD_NAME, "p4"), (POD_UID, "u-p4")]),
            (
                pod(Some(ObjectRef::new("ghost", ""))),
                &[(NODE_NAME, "ghost"), (POD_NAME, "p4"), (POD_UID, "u-p4")],
            ),
            (pod(Some(n1())), &[(NODE_NAME, "n1"), (NODE_UID, "u-n1"), (POD_NAME, "p4"), (POD_UID, "u-p4")]),
        ] {
            let found = ask(&accounts, &issue(&accounts, binding, 3600), now(), &live).unwrap();
            assert_eq!(found.user.name, "system:serviceaccount:ns:robot");
            assert_eq!(found.user.uid, "u-robot");
            assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
            let expected =
                jti.iter().chain(extra).map(|(k, v)| (k.to_string(), vec![v.to_string()])).collect();
            assert_eq!(found.user.extra, expected);
            assert_eq!((found.audiences, found.annotations), (vec![API.to_string()], vec![]));
        }
    }

    #[test]
    fn a_token_dies_with_what_it_is_bound_to() {
        let n1 = || ObjectRef::new("n1", "u-n1");
        for (binding, resource, namespace, name, kind) in [
            (Binding::Account, "serviceaccounts", "ns", "robot", None),
            (Binding::Secret(ObjectRef::new("s1", "u-s1")), "secrets", "ns", "s1", Some("secret")),
            (pod(Some(n1())), "pods", "ns", "p4", Some("pod")),
            (Binding::Node(n1()), "nodes", "", "n1", Some("node")),
        ] {
            let accounts = accounts();
            let token = issue(&accounts, binding, 3600);
            let mut live = Objects::sample();
            // Asked once before, so that the signature is remembered: it must not help.
            assert!(ask(&accounts, &token, now(), &live).is_ok());
            let original = live.get("", resource, namespace, name).unwrap();

            let mut deleted = (*original).clone();
            deleted["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z".into();
            live.put(resource, namespace, name, deleted);
            let minute = |extra| "2026-01-02T03:05:00Z".parse::<Timestamp>().unwrap() + extra;
            assert!(ask(&accounts, &token, minute(SignedDuration::ZERO), &live).is_ok(), "{resource}");
            let gone = if kind.is_some() {
                "service account token has been invalidated"
            } else {
                "service account ns/robot has been deleted"
            };
            let late = minute(SignedDuration::from_nanos(1));
            assert_eq!(ask(&accounts, &token, late, &live).unwrap_err(), gone, "{resource}");

            live.put(resource, namespace, name, json!({"metadata": {"uid": "u-new"}}));
            let other = match kind {
                Some(kind) => format!(
                    "{kind} UID (u-new) does not match service account {kind} ref claim ({})",
                    uid(&original)
                ),
                None => "service account UID (u-new) does not match claim (u-robot)".into(),
            };
            assert_eq!(ask(&accounts, &token, now(), &live).unwrap_err(), other);

            live.remove(resource, namespace, name);
            let missing = if kind.is_some() { gone } else { r#"serviceaccounts "robot" not found"# };
            assert_eq!(ask(&accounts, &token, now(), &live).unwrap_err(), missing);
        }
    }

    #[test]
    fn a_pods_token_outlives_its_node() {
        let accounts = accounts();
        let token = issue(&accounts, pod(Some(ObjectRef::new("n1", "u-n1"))), 3600);
        let mut live = Objects::sample();
        live.remove("nodes", "", "n1");
        assert!(ask(&accounts, &token, now(), &live).is_ok());
    }

    #[test]
    fn time_counts_although_the_signature_is_remembered() {
        let accounts = accounts();
        let live = Objects::sample();
        let token = issue(&accounts, Binding::Account, 3600);
        assert!(ask(&accounts, &token, now() + SignedDuration::from_secs(3659), &live).is_ok());
        let late = now() + SignedDuration::from_secs(3661);
        assert_eq!(ask(&accounts, &token, late, &live).unwrap_err(), "service account token has expired");
    }

    #[test]
    fn a_key_that_left_the_ring_verifies_nothing_more() {
        let mut accounts = accounts();
        let live = Objects::sample();
        let token = issue(&accounts, Binding::Account, 3600);
        assert!(ask(&accounts, &token, now(), &live).is_ok());
        // The cache stays.
        Arc::get_mut(&mut accounts).unwrap().ring = ring(KeyKind::P256);
        let error = ask(&accounts, &token, now(), &live).unwrap_err();
        assert_eq!(error, "invalid signature, no keys found");
    }

    #[test]
    fn a_stale_token_is_noted_in_the_audit_log() {
        let accounts = accounts();
        let live = Objects::sample();
        let token = issue(&accounts, pod(None), 3607);
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        assert_eq!(ask(&accounts, &token, at(3600), &live).unwrap().annotations, []);
        assert_eq!(
            ask(&accounts, &token, at(3617), &live).unwrap().annotations,
            [(
                STALE_TOKEN,
                "subject: system:serviceaccount:ns:robot, seconds after warning threshold: 10".to_string()
            )]
        );
    }

    #[test]
    fn tokens_in_secrets_live_as_long_as_their_copy() {
        let accounts = accounts();
        let claims = LegacyClaims::new(&ROBOT, "s1");
        let signer = accounts.ring().signer(now()).unwrap().clone();
        let token = signer.sign(&claims).unwrap().expose_secret().to_owned();
        let mut live = Objects::sample();
        assert_eq!(ask(&accounts, &token, now(), &live).unwrap_err(), "Token does not match server's copy");
        let secret = |labels: Value| json!({"metadata": {"uid": "u-s1", "labels": labels}, "data": {"token": STANDARD.encode(&token)}});
        live.put("secrets", "ns", "s1", secret(json!({})));
        let found = ask(&accounts, &token, now(), &live).unwrap();
        assert_eq!(found.user, account_user(&ROBOT));
        assert_eq!((found.audiences, found.warnings), (vec![API.to_string()], vec![]));
        assert_eq!(found.annotations, [(LEGACY_TOKEN, "system:serviceaccount:ns:robot".to_string())]);

        let account = json!({"metadata": {"uid": "u-robot"}, "secrets": [{"name": "s1"}]});
        live.put("serviceaccounts", "ns", "robot", account);
        assert_eq!(ask(&accounts, &token, now(), &live).unwrap().warnings, [AUTO_GENERATED_WARNING]);

        live.put("secrets", "ns", "s1", secret(json!({INVALID_SINCE: "2026-01-01"})));
        assert!(ask(&accounts, &token, now(), &live).unwrap_err().contains("has been marked invalid"));
        live.remove("secrets", "ns", "s1");
        assert_eq!(ask(&accounts, &token, now(), &live).unwrap_err(), "Token has been invalidated");

        let forged = LegacyClaims { sub: "system:serviceaccount:ns:admin".into(), ..claims };
        let token = signer.sign(&forged).unwrap().expose_secret().to_owned();
        assert_eq!(ask(&accounts, &token, now(), &live).unwrap_err(), "sub claim is invalid");
    }
}
