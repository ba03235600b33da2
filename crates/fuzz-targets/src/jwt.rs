//! Tokens: whatever they say, ours are only those that we signed.

use crate::kinds::NOW;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleetpass_token::claims::{Claims, LEEWAY, LEGACY_ISSUER, LegacyClaims};
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use fleetpass_token::verify::{VerifiedClaims, VerifyError, check_audiences, check_time, intersect, verify};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use std::sync::LazyLock;

/// The issuer of the keys here.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";
/// Stands for the ID of the signing key, which is another one in each run.
pub(crate) const KEY_ID: &str = "KEY-ID";

/// A ring, its key once more in the hands of another library, and a token.
struct Ours {
    ring: KeyRing,
    pair: EcdsaKeyPair,
    id: String,
    issuers: Vec<String>,
    token: String,
}

static OURS: LazyLock<Ours> = LazyLock::new(|| {
    let pem = SigningKey::generate_pem(KeyKind::P256).expect("a key can be made");
    let pem = pem.expose_secret();
    let key = SigningKey::from_pem(pem.as_bytes()).expect("it can be read");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).expect("PEM is base64");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("it is PKCS#8");
    let id = key.public().id().to_string();
    let claims = Claims {
        iss: ISSUER.into(),
        aud: vec!["a".into()],
        sub: "s".into(),
        exp: Some(1),
        ..Claims::default()
    };
    let token = key.sign(&claims).expect("it signs").expose_secret().to_string();
    Ours { ring: KeyRing::new(key), pair, id, issuers: vec![ISSUER.into()], token }
});

/// Begins with `T` for the text of a token, `E` for changes of a good token (position, byte, …), `S` for header and
/// payload, a line each, that are signed with our key.
pub fn jwt(data: &[u8]) {
    match data.split_first() {
        Some((b'T', text)) => {
            if let Ok(text) = std::str::from_utf8(text) {
                refused(text);
            }
        }
        Some((b'E', edits)) => edited(edits),
        Some((b'S', parts)) => {
            if let Some(at) = parts.iter().position(|b| *b == b'\n') {
                signed(&parts[..at], &parts[at + 1..]);
            }
        }
        _ => {}
    }
}

/// Nobody but us can have signed it.
fn refused(text: &str) {
    let error = verify(text, &OURS.issuers, &OURS.ring, NOW).expect_err("a token that we did not sign");
    assert!(!matches!(error, VerifyError::Claims), "claims are not read before the signature is good");
    assert!(error.to_string().len() < 200);
}

fn edited(edits: &[u8]) {
    let mut bytes = OURS.token.clone().into_bytes();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]]));
        match edit[2] {
            0 => bytes.truncate(at.max(1)),
            byte if at < bytes.len() => bytes[at] = byte,
            byte => bytes.push(byte),
        }
    }
    let Ok(text) = String::from_utf8(bytes) else { return };
    if text != OURS.token {
        refused(&text);
    }
}

/// Header and payload are the sender's, the signature is good.
fn signed(header: &[u8], payload: &[u8]) {
    let header = match std::str::from_utf8(header) {
        Ok(text) => text.replace(KEY_ID, &OURS.id).into_bytes(),
        Err(_) => header.to_vec(),
    };
    let mut text = format!("{}.{}", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(payload));
    let signature = OURS.pair.sign(&SystemRandom::new(), text.as_bytes()).expect("it signs");
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
    let verified = match verify(&text, &OURS.issuers, &OURS.ring, NOW) {
        Ok(verified) => verified,
        Err(error) => return assert!(error.to_string().len() < 200),
    };
    // In members that mean nothing a text may be one that this reader refuses.
    let Ok(header) = serde_json::from_slice::<Value>(&header) else { return };
    assert_eq!(header["alg"], "ES256");
    assert!(header["kid"].is_null() || header["kid"] == "" || header["kid"] == *OURS.id);
    assert!(header["crit"].is_null());
    assert_eq!(*verified.key_id, *OURS.id);
    match verified.claims {
        VerifiedClaims::Legacy(claims) => {
            assert_eq!(claims.iss, LEGACY_ISSUER);
            legacy(&claims);
        }
        VerifiedClaims::Bound(claims) => {
            assert_eq!(claims.iss, ISSUER);
            bound(&claims);
        }
    }
}

fn legacy(claims: &LegacyClaims) {
    let text = serde_json::to_string(claims).expect("claims can be printed");
    assert_eq!(serde_json::from_str::<LegacyClaims>(&text).as_ref().ok(), Some(claims));
}

fn bound(claims: &Claims) {
    let text = serde_json::to_string(claims).expect("claims can be printed");
    assert_eq!(serde_json::from_str::<Claims>(&text).as_ref().ok(), Some(claims));
    for now in [NOW, Timestamp::MIN, Timestamp::MAX, Timestamp::constant(1_800_000_000, 1)] {
        if check_time(claims, now).is_ok() {
            let late = now.saturating_sub(LEEWAY).unwrap_or(Timestamp::MIN);
            let early = now.saturating_add(LEEWAY + SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX);
            assert!(claims.exp.is_none_or(|exp| exp >= late.as_second()));
            assert!(claims.nbf.is_none_or(|nbf| nbf <= early.as_second()));
            assert!(claims.iat.is_none_or(|iat| iat <= early.as_second()));
        }
    }
    let api = vec![ISSUER.to_string()];
    for requested in [vec![], vec!["a".to_string(), "a".into()], claims.aud.clone()] {
        match check_audiences(&claims.aud, &requested, &api) {
            Ok(common) => {
                assert!(!common.is_empty() && common.iter().all(|audience| requested.contains(audience)));
                let token = if claims.aud.is_empty() { &api } else { &claims.aud };
                assert_eq!(common, intersect(token, &requested));
            }
            Err(error) => assert!(matches!(error, VerifyError::Audience { .. })),
        }
    }
}
