//! Service-account tokens: claims, key ring, signing, verification, JWKS; no I/O.
//!
//! The tokens are those of kube-apiserver 1.36 (`pkg/serviceaccount` in its repository), so that keys and tokens can
//! move between the two. Everything here is a function of its arguments: time and identifiers are passed in. Signing
//! and key generation draw randomness from the cryptographic library.
//!
//! ```text
//!  TokenRequest                                    bearer token
//!       │                                               │
//!       ▼                                               ▼
//!  claims::grant ─► Claims                        verify::verify ─► check_audiences, check_time ─► is the account
//!                     │                                 ▲                                           still there?
//!                     ▼                                 │ which keys?                               (the caller)
//!       SigningKey::sign ◄── who signs now? ── ring::KeyRing
//!                     │                                 │
//!                     ▼                                 ▼
//!                   token                         jwks::key_set, jwks::configuration: for verifiers elsewhere
//! ```
//!
//! - [`claims`]: what a token says, and how a TokenRequest becomes that;
//! - [`key`]: private and public keys, read from PEM, and the `kid` that names them;
//! - [`ring`]: which key signs and which verify at a given moment;
//! - [`verify`]: from the text of a token back to its claims;
//! - [`jwks`]: the documents by which others learn the public keys.
//!
//! ```
//! use fleetpass_token::claims::{Account, Binding, Lifetimes, Request, grant};
//! use fleetpass_token::key::{KeyKind, SigningKey};
//! use fleetpass_token::ring::KeyRing;
//! use fleetpass_token::verify::{VerifiedClaims, check_time, verify};
//! use secrecy::ExposeSecret as _;
//!
//! let pem = SigningKey::generate_pem(KeyKind::P256)?;
//! let ring = KeyRing::new(SigningKey::from_pem(pem.expose_secret().as_bytes())?);
//! let issuer = "https://kubernetes.default.svc".to_owned();
//! let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse()?;
//!
//! let request = Request {
//!     account: Account { namespace: "default", name: "robot", uid: "6c9a" },
//!     binding: Binding::Account,
//!     audiences: vec![issuer.clone()],
//!     expiration_seconds: 3600,
//! };
//! let audiences = [issuer.clone()];
//! let granted = grant(request, &issuer, &audiences, &Lifetimes::default(), now, uuid::Uuid::nil());
//! let signer = ring.signer(now).expect("its key signs from the beginning of time");
//! let token = signer.sign(&granted.claims)?;
//!
//! let verified = verify(token.expose_secret(), &[issuer], &ring, now)?;
//! println!("signed by the key with the kid {}", verified.key_id);
//! assert_eq!(&verified.key_id, signer.public().id());
//! let VerifiedClaims::Bound(claims) = verified.claims else { panic!("it is not from a Secret") };
//! assert_eq!(claims.sub, "system:serviceaccount:default:robot");
//! assert!(check_time(&claims, granted.expires).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//! - It does not ask whether the account, or the Secret, Pod or Node that a token is bound to, still exists: a token whose
//!   signature and times are good may still be one to refuse.
//! - It does not validate a TokenRequest, and does not fill in audiences that the client left out.
//! - It reads no files and keeps no keys: it is given PEM and gives PEM.
//! - It verifies the keys and algorithms of kube-apiserver, not JWTs in general: RS256, ES256, ES384 and ES512, compact
//!   form, no encryption, no critical extensions.
//! - It does not fetch the keys of other issuers.

pub mod claims;
pub mod jwks;
pub mod key;
pub mod ring;
pub mod verify;
