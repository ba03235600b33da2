//! Keys: read from PEM as kube-apiserver reads them (`k8s.io/client-go/util/keyutil`), named by the `kid` that it
//! derives (`pkg/serviceaccount/jwt.go`).
//!
//! A private key never leaves its [`SigningKey`]: it cannot be printed or exported, the PEM and DER buffers that it
//! was read from are wiped here, and the cryptographic library wipes its own copy when it is dropped.

use crate::claims::Encodable;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
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
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};
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
    /// The algorithm of the keys that a SubjectPublicKeyInfo is about; `None` if they are neither RSA keys nor on one
    /// of the three NIST curves, which are all that kube-apiserver knows.
    fn of_keys(identifier: &AlgorithmIdentifier<'_>) -> Option<Self> {
        if identifier.algorithm == OID_PKCS1_RSAENCRYPTION {
            return Some(Self::Rs256);
        }
        if identifier.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = identifier.parameters.as_ref()?.as_oid().ok()?;
        let curves =
            [(OID_EC_P256, Self::Es256), (OID_NIST_EC_P384, Self::Es384), (OID_NIST_EC_P521, Self::Es512)];
        curves.into_iter().find(|(known, _)| *known == curve).map(|(_, algorithm)| algorithm)
    }
    /// The length of one coordinate of a point, in bytes; `None` for RSA.
    fn coordinate_len(self) -> Option<usize> {
        match self {
            Self::Es256 => Some(32),
            Self::Es384 => Some(48),
            Self::Es512 => Some(66),
            Self::Rs256 => None,
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

impl Numbers {
    /// Reads the key inside a SubjectPublicKeyInfo: an `RSAPublicKey` (PKCS#1), or an uncompressed point
    /// `04 || x || y`. Compressed points are `None`, as they are no keys for kube-apiserver.
    fn read(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let Some(width) = algorithm.coordinate_len() else {
            let (_, key) = RSAPublicKey::from_der(key).ok()?;
            // A number whose first bit is set has a zero before it in DER, or it would be negative.
            let unsigned = |number: &[u8]| number.strip_prefix(&[0]).unwrap_or(number).to_vec();
            return Some(Self::Rsa { n: unsigned(key.modulus), e: unsigned(key.exponent) });
        };
        let (x, y) = key.strip_prefix(&[4])?.split_at_checked(width)?;
        (y.len() == width).then(|| Self::Ec { x: x.to_vec(), y: y.to_vec() })
    }
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
                    let (rest, certificate) =
                        X509Certificate::from_der(&der).map_err(|_| KeyError::Unsupported)?;
                    if !rest.is_empty() {
                        return Err(KeyError::Unsupported);
                    }
                    keys.push(Self::from_public_key_info(certificate.public_key().raw)?);
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

    /// From a SubjectPublicKeyInfo (PKIX) in DER.
    pub fn from_public_key_info(der: &[u8]) -> Result<Self, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Unsupported)?;
        let algorithm = Algorithm::of_keys(&info.algorithm).ok_or(KeyError::Unsupported)?;
        let key = Self::new(algorithm, &info.subject_public_key.data)?;
        // The parser is lenient, Go's is not: a key has one encoding in DER, and what differs from it (lengths that
        // are not minimal, bytes behind the end, RSA without its NULL parameter) is no key.
        if canonical(&key.parsed)?.as_ref() == der { Ok(key) } else { Err(KeyError::Unsupported) }
    }

    /// From the key inside a SubjectPublicKeyInfo; see [`Numbers::read`].
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, KeyError> {
        let numbers = Numbers::read(algorithm, key).ok_or(KeyError::Unsupported)?;
        let parsed = ParsedPublicKey::new(algorithm.verification(), key).map_err(|_| KeyError::Rejected)?;
        if let Numbers::Rsa { n, .. } = &numbers
            && !(256..=1024).contains(&n.len())
        {
            return Err(KeyError::Rejected);
        }
        let info = canonical(&parsed)?;
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, info.as_ref())).into();
        Ok(Self { id, algorithm, numbers, parsed })
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

/// The SubjectPublicKeyInfo of a key in DER, byte for byte that of Go's `x509.MarshalPKIXPublicKey`. The `kid` is its
/// hash, so a key has the same `kid` whether it was read from a public key, a private key or a certificate.
fn canonical(key: &ParsedPublicKey) -> Result<PublicKeyX509Der<'static>, KeyError> {
    Ok(key.as_der()?)
}

enum Private {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// The longest signature: RSA with 8192 bits.
const MAX_SIGNATURE: usize = 1024;
/// The longest signature of an ECDSA key: two numbers of 66 bytes, on P-521.
const MAX_EC_SIGNATURE: usize = 2 * 66;

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
            let public = VerifyingKey::new(Algorithm::Rs256, pair.public_key().as_ref())?;
            return Ok(Self::new(Private::Rsa(pair), public));
        }
        for (algorithm, signing) in [
            (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        ] {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(signing, der) {
                let public = VerifyingKey::new(algorithm, pair.public_key().as_ref())?;
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
    /// Encoded here and not by the `pem` crate, whose copies of the key would not be wiped.
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
            Private::Ec(_) => MAX_EC_SIGNATURE,
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
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    /// A JWK that a real kube-apiserver publishes, and the `kid` it gives it.
    const N: &str = "lp7t08rrx39Ir71qoTx0WsJZqyn101CwDXOI_n6u4JycQBtkoDjMvFH67WJ0JSyPLSIXj1hWV1t1EYMjMnr_M-e02hXKLPdd2OP4_kJaNG3WTr2xFmQFqxFolmTZd-xBTt-XS6uL9IXKp_uAwEtk3PZ_RmOx4xyMEagKIsCOnro6GD5Qi4TOXXZ2OTbqvT7StKi4rTnTthrgLEEKe9ovyLFSX9e2YVEHJtHI2xHHi1eyFjvn3LyORsyohuJE9K5qsjrf_3KDsHqguCG7CqXSohFwHlQSkRIxYIYSrf_oGjFozFoCJqhnWzUFTGDySSWLmgYQEq0oYx1xi3J3qZs1pQ";
    const KID: &str = "S_DTbvTskksYcZeLNe55ZmatppL-N5NyQS39V_PdgJE";

    #[test]
    fn key_id_is_the_servers() {
        let n = URL_SAFE_NO_PAD.decode(N).unwrap();
        let key = VerifyingKey::from_public_key_info(&rsa_public_key_info(&n)).unwrap();
        assert_eq!(&**key.id(), KID);
        assert_eq!(key.algorithm(), Algorithm::Rs256);
        assert_eq!(key.numbers(), &Numbers::Rsa { n, e: vec![1, 0, 1] });
    }

    /// Public keys on the curves, and their `kid` as openssl computes it from what it writes:
    /// `openssl pkey -pubout -outform DER | openssl dgst -sha256 -binary | basenc --base64url`.
    const EC: [(&str, &str, Algorithm); 3] = [
        (
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAER7g6uwWNBSLe9YHfV5qX0D5hzE1dYq3n0e04mOGGieRMNQ9R71DNae/xfl9+ukrPe9r15Fitno892E8g9nPk+w==",
            "rrJjJKzeQIthztdJL04BdHUMCCIAp_tJxrdXVICsSyc",
            Algorithm::Es256,
        ),
        (
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEw2IiSfg7YFLq1jmsR+AignmwgQTT8XUBHKNnv9mcz5eh9sfzD40HKWSm8gKrDMc5I/iutvPS3pe8dxb9LU3Zmo7rqIP1d4nqe8Z5WMf0QxU461xzb8kpf4hGW1ObF3q/",
            "VPYFO_52BJF9A7ZirGxQzXmfV3Hk0EtVIY9a-75uNkI",
            Algorithm::Es384,
        ),
        (
            "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBoYil1mc32n5wWd4gQ8r5aJC9BuSfsMMf1DHZ7fSMUx+0/law78VGDQgTboQIdgrPVQRJKVG6zhdDniMWVMvlEj4AAEO03Z7J9CWkEAjBAMSpe69LqpYzENp6U3QzT2Oi/UvsTCfqj7leHy5LweJKWzt8q92ZxK1fw8aiE7LPUC3TrKo=",
            "qt4Xcs8xx6PoQgLU3w4neGKdH2UjK7NWV_HgEtRltfs",
            Algorithm::Es512,
        ),
    ];
    /// A certificate of the first of these keys.
    const CERTIFICATE: &str = "MIIBbDCCAROgAwIBAgIUB9aAt2D5bwK1CgqahHvq/USjlEAwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBazAeFw0yNjEyMDEwNDU5NDZaFw0zNjExMjgwNDU5NDZaMAwxCjAIBgNVBAMMAWswWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARHuDq7BY0FIt71gd9XmpfQPmHMTV1irefR7TiY4YaJ5Ew1D1HvUM1p7/F+X366Ss972vXkWK2ejz3YTyD2c+T7o1MwUTAdBgNVHQ4EFgQUc92JdmBaur9259U5OApBO9xpjC8wHwYDVR0jBBgwFoAUc92JdmBaur9259U5OApBO9xpjC8wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAvz+I/UQPeyJR8kpXJlCt26Pgd2u62QlZ76XgZE4KzUwIgamfIIEXAprn8r43eGBcKJACGOOVLDTMibwBRdrtzsEg=";

    #[test]
    fn keys_on_curves_are_named_by_their_hash() {
        for (info, id, algorithm) in EC {
            let info = STANDARD.decode(info).unwrap();
            let key = VerifyingKey::from_public_key_info(&info).unwrap();
            assert_eq!((&**key.id(), key.algorithm()), (id, algorithm));
            let Numbers::Ec { x, y } = key.numbers() else { panic!("on no curve") };
            assert_eq!([&x[..], y].concat(), info[info.len() - x.len() - y.len()..]);
        }
        let certificate = STANDARD.decode(CERTIFICATE).unwrap();
        let keys = VerifyingKey::from_pem(pem("CERTIFICATE", &certificate).as_bytes()).unwrap();
        assert_eq!(&**keys[0].id(), EC[0].1);
        let longer = [&certificate[..], &[0]].concat();
        assert_eq!(
            VerifyingKey::from_pem(pem("CERTIFICATE", &longer).as_bytes()).unwrap_err(),
            KeyError::Unsupported
        );
    }

    #[test]
    fn a_key_has_one_encoding() {
        let good = STANDARD.decode(EC[0].0).unwrap();
        let edited = |edit: fn(&mut Vec<u8>)| {
            let mut der = good.clone();
            edit(&mut der);
            der
        };
        let bad = [
            Vec::new(),
            vec![0x30],
            vec![0x30, 0x80],
            vec![0x30, 0x81, 0x01, 0x00],
            vec![0x30, 0x02, 0x00],
            vec![0x30, 0x85, 1, 1, 1, 1, 1],
            vec![0x30, 0x00, 0x00],
            // The outer length in two bytes, although one is enough.
            edited(|der| drop(der.splice(1..2, [0x81, 0x59]))),
            // Bytes behind the end, outside and inside of the sequence.
            edited(|der| der.push(0)),
            edited(|der| {
                der[1] += 2;
                der.extend([5, 0]);
            }),
            // A bit string whose last bit does not count.
            edited(|der| der[25] = 1),
            // A point said to be compressed; the curve secp256k1.
            edited(|der| der[26] = 2),
            edited(|der| {
                der.splice(13..23, [6, 5, 0x2b, 0x81, 0x04, 0x00, 0x0a]);
                (der[1], der[3]) = (der[1] - 3, der[3] - 3);
            }),
        ];
        for der in bad {
            assert_eq!(
                VerifyingKey::from_public_key_info(&der).unwrap_err(),
                KeyError::Unsupported,
                "{der:x?}"
            );
        }
        // An RSA key without the NULL that RFC 3279 asks for: Go refuses it as well.
        let mut der = rsa_public_key_info(&URL_SAFE_NO_PAD.decode(N).unwrap());
        der.drain(17..19);
        (der[3], der[5]) = (der[3] - 2, der[5] - 2);
        assert_eq!(VerifyingKey::from_public_key_info(&der).unwrap_err(), KeyError::Unsupported);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = VerifyingKey::from_public_key_info(&bytes);
            let _ = VerifyingKey::from_pem(pem("CERTIFICATE", &bytes).as_bytes());
        }
    }

    /// The DER of the RSA key with this modulus.
    pub(crate) fn rsa_public_key_info(n: &[u8]) -> Vec<u8> {
        let info: PublicKeyX509Der<'_> =
            signature::RsaPublicKeyComponents { n, e: &[1, 0, 1] }.as_der().unwrap();
        info.as_ref().to_vec()
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
        let small = rsa_public_key_info(&[0xff; 128]);
        let mut off_curve = STANDARD.decode(EC[0].0).unwrap();
        let point = off_curve.len() - 64;
        off_curve[point..].fill(1);
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
