//! A certificate and its key.

use super::renewal::Validity;
use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, Oid};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

/// A certificate chain and the private key of its first certificate; they fit. Prints without the key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    key_pem: SecretString,
    facts: Facts,
}

/// What the leaf of a chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) validity: Validity,
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    /// DNS names and IP addresses, as text.
    pub(super) names: Vec<String>,
    pub(super) authority_key: Option<Vec<u8>>,
    pub(super) subject_key: Option<Vec<u8>>,
    pub(super) is_authority: bool,
    public_key: Vec<u8>,
}

/// Why PEM text is no identity. Says nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    /// No certificate, or one that cannot be read.
    #[error("holds no certificate that can be read: it is damaged or cut short")]
    Certificate,
    /// No private key, or one that cannot be read.
    #[error("holds no private key that can be read: it is damaged or cut short")]
    Key,
    /// The key belongs to another certificate.
    #[error("holds a certificate and a private key that do not belong together")]
    Mismatch,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a chain, leaf first, and its key. Text before, between and behind the PEM blocks is ignored.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]: one of them is missing or malformed, or they do not fit.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let pair = read_key(key)?;
        let (certificates, facts) = read_chain(chain)?;
        if facts.public_key != pair.subject_public_key_info() {
            return Err(IdentityError::Mismatch);
        }
        Ok(Self {
            chain_pem: certificates.iter().map(|der| encode_certificate(der)).collect(),
            chain: certificates,
            key_pem: pair.serialize_pem().into(),
            facts,
        })
    }

    /// The chain, leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key, as rustls takes it.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Key`] if it is of a kind that rustls does not know.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.expose_secret().as_bytes()).map_err(|_| IdentityError::Key)
    }

    /// The chain as PEM.
    pub(crate) fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key as PEM.
    pub(crate) fn key_pem(&self) -> &SecretString {
        &self.key_pem
    }

    /// When the leaf is good.
    pub(crate) fn validity(&self) -> Validity {
        self.facts.validity
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// A private key: PKCS#8, PKCS#1 or SEC1.
pub(super) fn read_key(pem: &[u8]) -> Result<KeyPair, IdentityError> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| IdentityError::Key)?;
    KeyPair::try_from(&der).map_err(|_| IdentityError::Key)
}

/// All certificates of a PEM text, and what the first one says.
pub(super) fn read_chain(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Facts), IdentityError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| IdentityError::Certificate)?;
    let leaf = certificates.first().ok_or(IdentityError::Certificate)?;
    let facts = read_facts(leaf).ok_or(IdentityError::Certificate)?;
    Ok((certificates, facts))
}

fn read_facts(der: &[u8]) -> Option<Facts> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let time = |at: x509_parser::time::ASN1Time| Timestamp::from_second(at.timestamp()).ok();
    let validity = certificate.validity();
    // Extensions that cannot be parsed are passed over: whatever needs them finds them missing, and makes another certificate
    // or refuses this one.
    let mut facts = Facts {
        validity: Validity { not_before: time(validity.not_before)?, not_after: time(validity.not_after)? },
        common_name: texts(certificate.subject(), &OID_X509_COMMON_NAME)
            .into_iter()
            .next()
            .unwrap_or_default(),
        organizations: texts(certificate.subject(), &OID_X509_ORGANIZATION_NAME),
        names: Vec::new(),
        authority_key: None,
        subject_key: None,
        is_authority: certificate.is_ca(),
        public_key: certificate.public_key().raw.to_vec(),
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                facts.names = names.general_names.iter().filter_map(name_text).collect();
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key = Some(id.0.to_vec()),
            _ => {}
        }
    }
    Some(facts)
}

/// The values of the attributes with this object identifier.
fn texts(name: &X509Name<'_>, oid: &Oid<'_>) -> Vec<String> {
    name.iter_by_oid(oid).filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            ref bytes => <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
        },
        _ => None,
    }
}

/// PEM text of a certificate.
pub(super) fn encode_certificate(der: &[u8]) -> String {
    pem::encode_config(&Pem::new("CERTIFICATE", der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}
