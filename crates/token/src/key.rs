//! Keys: read from PEM as kube-apiserver reads them (`k8s.io/client-go/util/keyutil`), named by the `kid` that it
//! derives (`pkg/serviceaccount/jwt.go`).
//!
//! A private key never leaves its [`SigningKey`]: it cannot be printed or exported, the PEM and DER buffers that it
//! was read from are wiped here, and the cryptographic library wipes its own copy when it is dropped.

use crate::claims::Encodable;
use crate::der::{self, Curve, PublicKeyInfo};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair};
use aws_lc_rs::{digest, error};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A JWS signature algorithm (RFC 7518); the key decides it, never the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// RSASSA-PKCS1-v1_5 with SHA-256; the only one that kube-apiserver uses with RSA keys of any size.
    Rs256,
}

impl Algorithm {
    /// The name in a JWS header and a JWK.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Rs256 => "RS256",
        }
    }
    fn of_curve(curve: Curve) -> Self {
        match curve {
            Curve::P256 => Self::Es256,
            Curve::P384 => Self::Es384,
            Curve::P521 => Self::Es512,
        }
    }
    fn verification(self) -> &'static dyn signature::VerificationAlgorithm {
        match self {
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a key could not be used. Says nothing about the key's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not well-formed PEM.
    #[error("the data is not well-formed PEM")]
    Pem,
    /// There is PEM, but no block of a kind that fits.
    #[error("the data does not contain any valid RSA or ECDSA key")]
    Missing,
    /// A block holds no RSA key and no key on P-256, P-384 or P-521.
    #[error("a PEM block holds neither an RSA key nor an ECDSA key on P-256, P-384 or P-521")]
    Unsupported,
    /// The numbers are no usable key: the RSA modulus has not 2048 to 8192 bits, the point is not on its curve, …
    #[error("the key is not usable: RSA keys need 2048 to 8192 bits, ECDSA points must lie on their curve")]
    Rejected,
    /// The cryptographic library failed to make a key or a signature.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl From<error::Unspecified> for KeyError {
    fn from(_: error::Unspecified) -> Self {
        Self::Crypto
    }
}

/// The public numbers of a key, big endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// RSA modulus and public exponent, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// The coordinates of a point, padded to the length of the curve's field.
    Ec {
        /// The x coordinate.
        x: Vec<u8>,
        /// The y coordinate.
        y: Vec<u8>,
    },
}

/// A public key, parsed once.
pub struct VerifyingKey {
    id: Arc<str>,
    algorithm: Algorithm,
    numbers: Numbers,
    parsed: ParsedPublicKey,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).field("algorithm", &self.algorithm).finish()
    }
}

impl VerifyingKey {
    /// All public keys of a file given to `--service-account-key-file`: PKIX public keys, certificates, and private
    /// keys, of which only the public half is kept. Blocks of other kinds are passed over.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for (kind, der) in sections(pem)? {
            match kind {
                SectionKind::PublicKey => keys.push(Self::from_public_key_info(&der)?),
                SectionKind::Certificate => {
                    let info = der::certificate_public_key_info(&der).ok_or(KeyError::Unsupported)?;
                    keys.push(Self::from_public_key_info(info)?);
                }
                kind if is_private(kind) => {
                    let public = SigningKey::from_section(kind, &der)?.public;
                    keys.push(Arc::into_inner(public).ok_or(KeyError::Crypto)?);
                }
                _ => {}
            }
        }
        if keys.is_empty() { Err(KeyError::Missing) } else { Ok(keys) }
    }

    /// From a DER SubjectPublicKeyInfo.
    pub fn from_public_key_info(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(der::read_public_key_info(der).ok_or(KeyError::Unsupported)?)
    }

    fn new(info: PublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let info_der = der::write_public_key_info(&info);
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &info_der));
        let (algorithm, numbers, bytes) = match info {
            PublicKeyInfo::Rsa { n, e } => (
                Algorithm::Rs256,
                Numbers::Rsa { n: n.to_vec(), e: e.to_vec() },
                der::write_rsa_public_key(n, e),
            ),
            PublicKeyInfo::Ec { curve, point } => {
                let (x, y) = point[1..].split_at(curve.coordinate_len());
                let numbers = Numbers::Ec { x: x.to_vec(), y: y.to_vec() };
                (Algorithm::of_curve(curve), numbers, point.to_vec())
            }
        };
        let parsed = ParsedPublicKey::new(algorithm.verification(), bytes).map_err(|_| KeyError::Rejected)?;
        if let Numbers::Rsa { n, .. } = &numbers
            && !(256..=1024).contains(&n.len())
        {
            return Err(KeyError::Rejected);
        }
        Ok(Self { id: id.into(), algorithm, numbers, parsed })
    }

    /// The key ID as kube-apiserver derives it: base64url, without padding, of the SHA-256 of the PKIX DER.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }
    /// The only algorithm that this key verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// The numbers, for a JWK.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }
    /// Whether `signature` (for ECDSA: `r || s`) is this key's signature of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

enum Private {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// The longest signature: RSA with 8192 bits.
const MAX_SIGNATURE: usize = 1024;

/// A private key with all that signing needs, computed once. Prints as its key ID only.
pub struct SigningKey {
    private: Private,
    public: Arc<VerifyingKey>,
    /// `base64url({"alg":…,"kid":…}).`
    header: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.id).finish()
    }
}

/// What kind of key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with 2048 bits: what every verifier of Kubernetes tokens understands.
    Rsa2048,
    /// ECDSA on P-256: signs more than ten times faster, verifies somewhat slower.
    P256,
}

impl SigningKey {
    /// The first private key of a PEM file: PKCS#1, PKCS#8 or SEC1. Other blocks are passed over.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        sections(pem)?
            .iter()
            .find(|(kind, _)| is_private(*kind))
            .ok_or(KeyError::Missing)
            .and_then(|(kind, der)| Self::from_section(*kind, der))
    }

    fn from_section(kind: SectionKind, der: &[u8]) -> Result<Self, KeyError> {
        let rsa = match kind {
            SectionKind::RsaPrivateKey => RsaKeyPair::from_der(der),
            _ => RsaKeyPair::from_pkcs8(der),
        };
        if let Ok(pair) = rsa {
            let public = VerifyingKey::new(
                der::read_rsa_public_key(pair.public_key().as_ref()).ok_or(KeyError::Unsupported)?,
            )?;
            return Ok(Self::new(Private::Rsa(pair), public));
        }
        for curve in Curve::ALL {
            let algorithm = match curve {
                Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                Curve::P521 => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            };
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(algorithm, der) {
                let point = pair.public_key().as_ref().to_vec();
                let public = VerifyingKey::new(PublicKeyInfo::Ec { curve, point: &point })?;
                return Ok(Self::new(Private::Ec(pair), public));
            }
        }
        Err(KeyError::Unsupported)
    }

    fn new(private: Private, public: VerifyingKey) -> Self {
        let json = format!(r#"{{"alg":"{}","kid":"{}"}}"#, public.algorithm, public.id);
        let mut header = URL_SAFE_NO_PAD.encode(json);
        header.push('.');
        Self { private, public: Arc::new(public), header }
    }

    /// Makes a key and returns it as PKCS#8 PEM, to be kept in a file that only its owner may read.
    pub fn generate_pem(kind: KeyKind) -> Result<SecretString, KeyError> {
        let der = Zeroizing::new(match kind {
            KeyKind::Rsa2048 => RsaKeyPair::generate(KeySize::Rsa2048)?.as_der()?.as_ref().to_vec(),
            KeyKind::P256 => {
                let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())?.as_ref().to_vec()
            }
        });
        let body = Zeroizing::new(STANDARD.encode(&*der));
        let mut pem = String::with_capacity(body.len() + body.len() / 64 + 64);
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest: &str = &body;
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem.into())
    }

    /// The public half.
    pub fn public(&self) -> &Arc<VerifyingKey> {
        &self.public
    }

    /// Whether one signature takes about a millisecond (RSA) rather than a small fraction of that (ECDSA): whether to
    /// hand it to another thread.
    pub fn is_slow(&self) -> bool {
        matches!(self.private, Private::Rsa(_))
    }

    /// Signs claims: a JWS in compact form. Allocates the payload and the token, nothing else.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the cryptographic library fails.
    pub fn sign(&self, claims: &impl Encodable) -> Result<SecretString, KeyError> {
        let mut payload = Vec::with_capacity(512);
        serde_json::to_writer(&mut payload, claims).map_err(|_| KeyError::Crypto)?;
        let encoded = |bytes: usize| (bytes * 4).div_ceil(3);
        let mut signature = [0; MAX_SIGNATURE];
        let signature_len = match &self.private {
            Private::Rsa(pair) => pair.public_modulus_len(),
            Private::Ec(_) => 2 * Curve::P521.coordinate_len(),
        };
        let capacity = self.header.len() + encoded(payload.len()) + 1 + encoded(signature_len);
        let mut token = String::with_capacity(capacity);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let random = SystemRandom::new();
        match &self.private {
            Private::Rsa(pair) => {
                let out = signature.get_mut(..signature_len).ok_or(KeyError::Crypto)?;
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, token.as_bytes(), out)?;
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(out, &mut token);
            }
            Private::Ec(pair) => {
                let made = pair.sign(&random, token.as_bytes())?;
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(made.as_ref(), &mut token);
            }
        }
        Ok(token.into())
    }
}

fn is_private(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// A block of a PEM file.
type Section = (SectionKind, Zeroizing<Vec<u8>>);

/// The blocks of a PEM file; wiped when dropped, as they may be private keys.
fn sections(pem: &[u8]) -> Result<Vec<Section>, KeyError> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem)
        .map(|section| section.map(|(kind, der)| (kind, Zeroizing::new(der))).map_err(|_| KeyError::Pem))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    /// A JWK that a real kube-apiserver publishes, and the `kid` it gives it.
    const N: &str = "lp7t08rrx39Ir71qoTx0WsJZqyn101CwDXOI_n6u4JycQBtkoDjMvFH67WJ0JSyPLSIXj1hWV1t1EYMjMnr_M-e02hXKLPdd2OP4_kJaNG3WTr2xFmQFqxFolmTZd-xBTt-XS6uL9IXKp_uAwEtk3PZ_RmOx4xyMEagKIsCOnro6GD5Qi4TOXXZ2OTbqvT7StKi4rTnTthrgLEEKe9ovyLFSX9e2YVEHJtHI2xHHi1eyFjvn3LyORsyohuJE9K5qsjrf_3KDsHqguCG7CqXSohFwHlQSkRIxYIYSrf_oGjFozFoCJqhnWzUFTGDySSWLmgYQEq0oYx1xi3J3qZs1pQ";
    const KID: &str = "S_DTbvTskksYcZeLNe55ZmatppL-N5NyQS39V_PdgJE";

    #[test]
    fn key_id_is_the_servers() {
        let n = URL_SAFE_NO_PAD.decode(N).unwrap();
        let der = der::write_public_key_info(&PublicKeyInfo::Rsa { n: &n, e: &[1, 0, 1] });
        let key = VerifyingKey::from_public_key_info(&der).unwrap();
        assert_eq!(&**key.id(), KID);
        assert_eq!(key.algorithm(), Algorithm::Rs256);
        assert_eq!(key.numbers(), &Numbers::Rsa { n, e: vec![1, 0, 1] });
    }

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn every_encoding_of_a_key_is_the_same_key() {
        let text = SigningKey::generate_pem(KeyKind::Rsa2048).unwrap();
        let pkcs8 = sections(text.expose_secret().as_bytes()).unwrap().remove(0).1;
        // The PKCS#1 key is the OCTET STRING that ends the PKCS#8 document.
        let at = pkcs8.windows(4).rposition(|w| w[0] == 0x30 && w[1] == 0x82 && w[2] == 0x04).unwrap();
        let from_pkcs8 = SigningKey::from_pem(text.expose_secret().as_bytes()).unwrap();
        let from_pkcs1 = SigningKey::from_pem(pem("RSA PRIVATE KEY", &pkcs8[at..]).as_bytes()).unwrap();
        assert_eq!(from_pkcs8.public().id(), from_pkcs1.public().id());

        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let sec1 = pair.private_key();
        let sec1: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> = sec1.as_der().unwrap();
        let public = pair.public_key().as_der().unwrap();
        // A parameters block comes first in files that openssl writes.
        let file = pem("EC PARAMETERS", &[6, 1, 0]) + &pem("EC PRIVATE KEY", sec1.as_ref());
        let private = SigningKey::from_pem(file.as_bytes()).unwrap();
        assert_eq!(private.public().algorithm(), Algorithm::Es384);
        let both = file + &pem("PUBLIC KEY", public.as_ref()) + text.expose_secret();
        let ids: Vec<_> =
            VerifyingKey::from_pem(both.as_bytes()).unwrap().iter().map(|key| key.id().clone()).collect();
        let expected = [private.public().id(), private.public().id(), from_pkcs8.public().id()];
        assert_eq!(ids.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn refuses_what_is_no_key() {
        let small = der::write_public_key_info(&PublicKeyInfo::Rsa { n: &[0xff; 128], e: &[1, 0, 1] });
        let off_curve = [&[4][..], &[1; 64]].concat();
        let off_curve =
            der::write_public_key_info(&PublicKeyInfo::Ec { curve: Curve::P256, point: &off_curve });
        for (text, why) in [
            (String::new(), KeyError::Missing),
            ("hello".into(), KeyError::Missing),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n".into(), KeyError::Pem),
            (pem("PUBLIC KEY", b"junk"), KeyError::Unsupported),
            (pem("PRIVATE KEY", b"junk"), KeyError::Unsupported),
            (pem("CERTIFICATE", b"junk"), KeyError::Unsupported),
            (pem("PUBLIC KEY", &small), KeyError::Rejected),
            (pem("PUBLIC KEY", &off_curve), KeyError::Rejected),
        ] {
            assert_eq!(VerifyingKey::from_pem(text.as_bytes()).unwrap_err(), why, "{text}");
        }
        assert_eq!(
            SigningKey::from_pem(pem("PUBLIC KEY", &small).as_bytes()).unwrap_err(),
            KeyError::Missing
        );
    }

    #[test]
    fn private_keys_do_not_print() {
        let text = SigningKey::generate_pem(KeyKind::P256).unwrap();
        let key = SigningKey::from_pem(text.expose_secret().as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), format!("SigningKey({:?})", key.public().id()));
        assert!(!format!("{text:?}").contains("BEGIN"));
    }
}
