//! From the text of a token to its claims: the steps and the words of `pkg/serviceaccount/jwt.go` and of the time
//! checks of `claims.go`. Whether account and bound object still live is not asked here.
//!
//! Stricter than Go in one point: base64 must be canonical, so that no two texts are the same token.

use crate::claims::{Claims, LEEWAY, LEGACY_ISSUER, LegacyClaims};
use crate::ring::KeyRing;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// Why a token was refused. The texts are those that kube-apiserver puts into `TokenReview` `status.error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a JWS in compact form from an issuer that we know: somebody else's token, or none at all. The server
    /// has no opinion about those, and says only "invalid bearer token".
    #[error("not a token of this issuer")]
    NotOurs,
    /// The `kid` names no key of the ring.
    #[error("invalid signature, no keys found")]
    NoKeys,
    /// No key verifies the signature, or the header asks for an algorithm that is not the key's.
    #[error("go-jose/go-jose: error in cryptographic primitive")]
    Signature,
    /// The signature is good, but the claims have the wrong types.
    #[error("service account token claims could not be validated due to unexpected validation error")]
    Claims,
    /// None of the token's audiences is among those asked for.
    #[error("token audiences {} is invalid for the target audiences {}", quoted(.token), quoted(.target))]
    Audience {
        /// The token's.
        token: Vec<String>,
        /// Those asked for.
        target: Vec<String>,
    },
    /// `exp` is over.
    #[error("service account token has expired")]
    Expired,
    /// `nbf` is yet to come.
    #[error("service account token is not valid yet")]
    NotValidYet,
    /// `iat` is yet to come.
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
}

/// A list as Go's `%q` prints it.
fn quoted(list: &[String]) -> String {
    let mut out = String::from("[");
    for (index, text) in list.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push(']');
    out
}

/// The claims of a token whose signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "the small variant is rare, and both live behind an Arc where many are kept"
)]
pub enum VerifiedClaims {
    /// A token from the TokenRequest API.
    Bound(Claims),
    /// A token from a Secret.
    Legacy(LegacyClaims),
}

/// A token whose signature and issuer are good; nothing else was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    /// What it says.
    pub claims: VerifiedClaims,
    /// The ID of the key that verified it.
    pub key_id: Arc<str>,
}

/// What is read of a JWS header before the signature was verified. `alg` is any JSON, so that a wrong type is a bad
/// signature, as it is for go-jose, and not somebody else's token.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(default)]
    alg: Value,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    #[serde(default)]
    crit: Option<Value>,
}

/// The only claim that is read before the signature was verified: it decides whose token this is.
#[derive(Deserialize)]
struct Issuer<'a> {
    #[serde(borrow, default)]
    iss: Option<Cow<'a, str>>,
}

/// Verifies issuer and signature of a token in compact form, with the keys that `ring` has at `now`. Tokens from
/// Secrets are accepted from [`LEGACY_ISSUER`] in addition to `issuers`.
pub fn verify(
    token: &str,
    issuers: &[String],
    ring: &KeyRing,
    now: Timestamp,
) -> Result<VerifiedToken, VerifyError> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(VerifyError::NotOurs);
    };
    // Signed is the text, not what it decodes to.
    let signed = &token[..header.len() + 1 + payload.len()];
    let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| VerifyError::NotOurs);
    // The issuer first: a token that is not ours (an OIDC provider's, say) has to cost little and be left to others,
    // whatever is wrong with it besides. The signature is verified before any other claim is read.
    let payload = decode(payload)?;
    let issuer: Issuer<'_> = serde_json::from_slice(&payload).map_err(|_| VerifyError::NotOurs)?;
    let issuer = issuer.iss.unwrap_or_default();
    let legacy = issuer == LEGACY_ISSUER;
    if !legacy && !issuers.iter().any(|known| *known == issuer) {
        return Err(VerifyError::NotOurs);
    }
    let header = decode(header)?;
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| VerifyError::NotOurs)?;
    let signature = decode(signature)?;

    // Without a `kid` every key is tried, as in Go: tokens of Secrets that were signed by old servers have none.
    let wanted = header.kid.as_deref().unwrap_or_default();
    let mut candidates =
        ring.verifying_keys(now).filter(|key| wanted.is_empty() || **key.id() == *wanted).peekable();
    if candidates.peek().is_none() {
        return Err(VerifyError::NoKeys);
    }
    // An extension that must be understood is one that we do not understand (RFC 7515, 4.1.11).
    let key = candidates
        // The key says the algorithm and the header has to agree, never the other way round: a header that says "none",
        // or HMAC with the public key as its secret, must not choose how it is verified.
        .find(|key| {
            header.crit.is_none()
                && header.alg == key.algorithm().name()
                && key.verifies(signed.as_bytes(), &signature)
        })
        .ok_or(VerifyError::Signature)?;
    let claims = if legacy {
        serde_json::from_slice(&payload).map(VerifiedClaims::Legacy)
    } else {
        serde_json::from_slice(&payload).map(VerifiedClaims::Bound)
    };
    Ok(VerifiedToken { claims: claims.map_err(|_| VerifyError::Claims)?, key_id: key.id().clone() })
}

/// The requested audiences that the token is for, in the order (and as often) as they were requested. A token without
/// audiences, as those from Secrets, is for the `api` audiences.
pub fn check_audiences(
    token: &[String],
    requested: &[String],
    api: &[String],
) -> Result<Vec<String>, VerifyError> {
    let token = if token.is_empty() { api } else { token };
    let common = intersect(token, requested);
    // A server without audiences of its own does not check them (`pkg/serviceaccount/jwt.go`, `AuthenticateToken`).
    if common.is_empty() && !api.is_empty() {
        return Err(VerifyError::Audience { token: token.to_vec(), target: requested.to_vec() });
    }
    Ok(common)
}

/// Those of `requested` that `have` holds, in the order of `requested` (`authenticator.Audiences.Intersect`).
pub fn intersect(have: &[String], requested: &[String]) -> Vec<String> {
    // Who asks for a review chooses both lists, and both may be long. Nearly always they hold one or two each.
    if have.len() <= 8 {
        return requested.iter().filter(|audience| have.contains(audience)).cloned().collect();
    }
    let have: HashSet<&String> = have.iter().collect();
    requested.iter().filter(|audience| have.contains(audience)).cloned().collect()
}

/// Whether the token is valid at `now`, give or take [`LEEWAY`], in the order in which go-jose asks.
pub fn check_time(claims: &Claims, now: Timestamp) -> Result<(), VerifyError> {
    // The clocks of issuer and verifier differ: `nbf` and `iat` may lie this much ahead, `exp` this much behind.
    let early = now.saturating_add(LEEWAY).unwrap_or(Timestamp::MAX);
    let late = now.saturating_sub(LEEWAY).unwrap_or(Timestamp::MIN);
    // Compared by seconds: a claim may lie outside of what a Timestamp can hold.
    let in_future = |second: i64| early.as_second() < second;
    let in_past = |second: i64| {
        late.as_second() > second || (late.as_second() == second && late.subsec_nanosecond() > 0)
    };
    if claims.nbf.is_some_and(in_future) {
        return Err(VerifyError::NotValidYet);
    }
    if claims.exp.is_some_and(in_past) {
        return Err(VerifyError::Expired);
    }
    if claims.iat.is_some_and(in_future) {
        return Err(VerifyError::IssuedInTheFuture);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, SigningKey};
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;
    use std::sync::LazyLock;

    const ISSUER: &str = "https://kubernetes.default.svc";
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn key(kind: KeyKind) -> SigningKey {
        SigningKey::from_pem(SigningKey::generate_pem(kind).unwrap().expose_secret().as_bytes()).unwrap()
    }
    fn issuers() -> Vec<String> {
        vec![ISSUER.into()]
    }
    fn claims() -> Claims {
        Claims {
            iss: ISSUER.into(),
            aud: vec!["a".into()],
            sub: "s".into(),
            exp: Some(1),
            ..Claims::default()
        }
    }
    fn token(ring: &KeyRing, claims: &Claims) -> String {
        ring.signer(NOW).unwrap().sign(claims).unwrap().expose_secret().to_owned()
    }

    static RINGS: LazyLock<[(KeyRing, String); 2]> = LazyLock::new(|| {
        [KeyKind::Rsa2048, KeyKind::P256].map(|kind| {
            let ring = KeyRing::new(key(kind));
            let text = token(&ring, &claims());
            (ring, text)
        })
    });

    proptest! {
        #[test]
        fn what_is_signed_is_read_back(aud in proptest::collection::vec(".*", 1..4), exp in any::<i64>(), sub in ".*", jti in ".*") {
            for (ring, _) in RINGS.iter() {
                let claims = Claims { aud: aud.clone(), exp: Some(exp), sub: sub.clone(), jti: jti.clone(), ..claims() };
                let verified = verify(&token(ring, &claims), &issuers(), ring, NOW).unwrap();
                prop_assert_eq!(&verified.claims, &VerifiedClaims::Bound(claims));
                prop_assert_eq!(&verified.key_id, ring.signer(NOW).unwrap().public().id());
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in ".*", bytes in proptest::collection::vec("[A-Za-z0-9_-]{0,80}", 3)) {
            let ring = &RINGS[0].0;
            prop_assert!(verify(&text, &issuers(), ring, NOW).is_err());
            prop_assert!(verify(&bytes.join("."), &issuers(), ring, NOW).is_err());
        }
    }

    #[test]
    fn a_change_of_any_byte_is_refused() {
        for (ring, text) in RINGS.iter() {
            for at in 0..text.len() {
                for change in [b'A', b'B', b'g', b'w', b'.', b'=', b'\n'] {
                    let mut bytes = text.clone().into_bytes();
                    if bytes[at] == change {
                        continue;
                    }
                    bytes[at] = change;
                    let changed = String::from_utf8(bytes).unwrap();
                    assert!(verify(&changed, &issuers(), ring, NOW).is_err(), "byte {at}: {changed}");
                }
            }
            for changed in [format!("{text}A"), format!("{text}AAAA"), format!("{text}."), text[1..].into()] {
                assert!(verify(&changed, &issuers(), ring, NOW).is_err(), "{changed}");
            }
        }
    }

    /// The parts of a token, re-encoded after a change.
    fn forged(header: &str, payload: &str, signature: &[u8]) -> String {
        [header.as_bytes(), payload.as_bytes(), signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    #[test]
    fn refusals_are_worded_as_the_server_words_them() {
        let (ring, text) = &RINGS[0];
        let id = ring.signer(NOW).unwrap().public().id();
        let ours = format!(r#"{{"iss":"{ISSUER}"}}"#);
        let legacy = r#"{"iss":"kubernetes/serviceaccount"}"#;
        let (no_opinion, no_keys, bad) = (VerifyError::NotOurs, VerifyError::NoKeys, VerifyError::Signature);
        for (token, expected) in [
            ("garbage".to_string(), &no_opinion),
            ("a.b.c".into(), &no_opinion),
            (format!("{text}.AAAA"), &no_opinion),
            (forged(r#"{"alg":"RS256"}"#, "not json", b"x"), &no_opinion),
            (forged(r#"{"alg":"RS256"}"#, r#"{"iss":"https://example.com"}"#, b"x"), &no_opinion),
            (forged("not json", &ours, b"x"), &no_opinion),
            (forged(r#"{"alg":"RS256","kid":7}"#, &ours, b"x"), &no_opinion),
            (forged(r#"{"alg":"RS256","kid":"forged"}"#, &ours, b"x"), &no_keys),
            (forged(r#"{"alg":"none"}"#, &ours, b""), &bad),
            (forged(r#"{"alg":"HS256","typ":"JWT"}"#, &ours, &[0; 32]), &bad),
            (forged(r#"{"alg":"PS256"}"#, &ours, &[0; 256]), &bad),
            (forged(r#"{}"#, &ours, &[0; 256]), &bad),
            (forged(r#"{"alg":"RS256","kid":""}"#, &ours, &[0; 256]), &bad),
            (forged(&format!(r#"{{"alg":"RS256","kid":"{id}"}}"#), &ours, &[0; 256]), &bad),
            (forged(r#"{"alg":"RS256"}"#, legacy, &[0; 256]), &bad),
            (format!("{text}AAAA"), &bad),
        ] {
            assert_eq!(verify(&token, &issuers(), ring, NOW).as_ref(), Err(expected), "{token}");
        }
        assert_eq!(no_keys.to_string(), "invalid signature, no keys found");
        assert_eq!(bad.to_string(), "go-jose/go-jose: error in cryptographic primitive");
    }

    #[test]
    fn a_signature_is_no_signature_for_another_key_or_extension() {
        let (rsa, ec) = (&RINGS[0], &RINGS[1]);
        assert_eq!(verify(&rsa.1, &issuers(), &ec.0, NOW), Err(VerifyError::NoKeys));
        let payload = serde_json::to_string(&claims()).unwrap();
        let header = r#"{"alg":"RS256","crit":["b64"],"b64":true}"#;
        let text = forged(header, &payload, b"");
        assert_eq!(verify(&text, &issuers(), &rsa.0, NOW), Err(VerifyError::Signature));
    }

    #[test]
    fn a_token_without_a_key_id_is_tried_with_every_key() {
        let mut ring = RINGS[1].0.clone();
        ring.add_verifying_key(RINGS[0].0.signer(NOW).unwrap().public().clone());
        for (_, text) in RINGS.iter() {
            assert!(verify(text, &issuers(), &ring, NOW).is_ok());
        }
    }

    #[test]
    fn a_key_verifies_no_longer_than_its_time() {
        let (mut ring, text) = RINGS[1].clone();
        let rotation = crate::ring::Rotation {
            publish_for: SignedDuration::ZERO,
            longest_token: SignedDuration::from_hours(1),
        };
        ring.rotate(key(KeyKind::P256), NOW, rotation);
        let late = NOW + SignedDuration::from_hours(1) + LEEWAY;
        assert!(verify(&text, &issuers(), &ring, late).is_ok());
        let later = late + SignedDuration::from_secs(1);
        assert_eq!(verify(&text, &issuers(), &ring, later), Err(VerifyError::NoKeys));
    }

    /// With a search of the one list for each of the other this would take minutes.
    #[test]
    fn long_lists_of_audiences_are_looked_up() {
        let list = |from: usize| (from..from + 200_000).map(|i| format!("audience-{i}")).collect::<Vec<_>>();
        let common = intersect(&list(0), &list(100_000));
        assert_eq!((common.len(), common[0].as_str()), (100_000, "audience-100000"));
    }

    #[test]
    fn audiences_come_back_in_the_order_asked_for() {
        let list = |text: &str| -> Vec<String> { text.split_terminator(',').map(Into::into).collect() };
        for (token, requested, expected) in [
            ("vault,db,api", "db,other,vault", Ok("db,vault")),
            ("vault,db,api", "api,db,vault", Ok("api,db,vault")),
            ("vault", "vault,vault", Ok("vault,vault")),
            ("vault,vault", "vault", Ok("vault")),
            ("", "api", Ok("api")),
            (
                "vault,db",
                "api",
                Err(r#"token audiences ["vault" "db"] is invalid for the target audiences ["api"]"#),
            ),
            (
                "vault",
                "Vault",
                Err(r#"token audiences ["vault"] is invalid for the target audiences ["Vault"]"#),
            ),
            ("a\"b", "x\n", Err(r#"token audiences ["a\"b"] is invalid for the target audiences ["x\n"]"#)),
        ] {
            let found = check_audiences(&list(token), &list(requested), &list("api"));
            assert_eq!(
                found.map_err(|e| e.to_string()),
                expected.map(list).map_err(Into::into),
                "{token} for {requested}"
            );
        }
        assert_eq!(check_audiences(&[], &[], &[]), Ok(vec![]));
    }

    #[test]
    fn time_is_judged_with_a_minute_of_leeway() {
        let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let second = now.as_second();
        let with = |nbf, iat, exp| Claims { nbf, iat, exp, ..Claims::default() };
        for (claims, expected) in [
            (with(None, None, None), Ok(())),
            (with(None, None, Some(second - 59)), Ok(())),
            (with(None, None, Some(second - 60)), Err(VerifyError::Expired)),
            (with(None, None, Some(i64::MIN)), Err(VerifyError::Expired)),
            (with(Some(second + 60), None, None), Ok(())),
            (with(Some(second + 61), None, None), Err(VerifyError::NotValidYet)),
            (with(None, Some(second + 60), None), Ok(())),
            (with(None, Some(second + 61), Some(i64::MAX)), Err(VerifyError::IssuedInTheFuture)),
            (with(Some(i64::MAX), Some(i64::MAX), Some(0)), Err(VerifyError::NotValidYet)),
        ] {
            assert_eq!(check_time(&claims, now), expected, "{claims:?}");
        }
    }
}
