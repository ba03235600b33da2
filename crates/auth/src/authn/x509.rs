//! Client certificates (`k8s.io/apiserver/pkg/authentication/request/x509`). That the chain leads to a trusted authority
//! and is meant for clients was checked by the TLS handshake; the time is checked again on every request, because a
//! connection may outlive its certificate.

use super::outcome::CREDENTIAL_ID;
use aws_lc_rs::digest;
use fleetpass_apimachinery::user::UserInfo;
use jiff::Timestamp;
use std::fmt::Write as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

/// The attribute of a subject that holds the user's UID (an arc below Kubernetes' enterprise number).
const USER_UID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// Why a certificate names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not a certificate.
    #[error("the client certificate is malformed")]
    Malformed,
    /// An attribute of its subject is no text.
    #[error("an attribute of the client certificate's subject is not text")]
    Attribute,
    /// The UID attribute is empty.
    #[error("UID cannot be an empty string")]
    EmptyUid,
    /// There is more than one UID attribute.
    #[error("expected 1 UID, but found multiple")]
    ManyUids,
    /// Its time is over, or has not come.
    #[error("verifying certificate SN={0} failed: x509: certificate has expired or is not yet valid")]
    Time(String),
}

/// The certificate of a TLS client, read once for each connection.
// The error is kept, so that each request is refused with a 401; failing the handshake would leave the client guessing.
#[derive(Debug, Clone)]
pub struct ClientCertificate(Result<ParsedCertificate, CertificateError>);

/// What requests need to know of a certificate.
#[derive(Debug, Clone)]
struct ParsedCertificate {
    /// `None` without a common name.
    user: Option<UserInfo>,
    serial: String,
    /// The first and the last second in which it is valid, since the epoch.
    not_before: i64,
    not_after: i64,
}

impl ClientCertificate {
    /// Reads the end-entity certificate (DER) of a verified chain. One that cannot be read refuses every request.
    pub fn new(der: &[u8]) -> Self {
        Self(read(der))
    }

    /// The user that it names at `now`: common name, organizations as groups, the UID attribute, and the
    /// certificate's fingerprint as credential ID. `None` if it has no common name: then it counts as absent.
    pub fn user(&self, now: Timestamp) -> Result<Option<&UserInfo>, CertificateError> {
        let certificate = self.0.as_ref().map_err(Clone::clone)?;
        if !(certificate.not_before..=certificate.not_after).contains(&now.as_second()) {
            return Err(CertificateError::Time(certificate.serial.clone()));
        }
        Ok(certificate.user.as_ref())
    }
}

fn read(der: &[u8]) -> Result<ParsedCertificate, CertificateError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    // Bytes after the certificate would not be covered by its signature, but by its fingerprint.
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let subject = certificate.subject();
    let uid = match &attributes(subject, &USER_UID)?[..] {
        [] => String::new(),
        [uid] if uid.is_empty() => return Err(CertificateError::EmptyUid),
        [uid] => uid.clone(),
        _ => return Err(CertificateError::ManyUids),
    };
    // Of several common names Go keeps the last.
    let name = attributes(subject, &OID_X509_COMMON_NAME)?.pop().unwrap_or_default();
    let user = (!name.is_empty()).then_some(UserInfo {
        name,
        uid,
        groups: attributes(subject, &OID_X509_ORGANIZATION_NAME)?,
        extra: [(CREDENTIAL_ID.to_string(), vec![fingerprint(der)])].into(),
    });
    Ok(ParsedCertificate {
        user,
        serial: certificate.tbs_certificate.serial.to_string(),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// The values of a kind of attribute, in the order of the certificate.
fn attributes(name: &X509Name<'_>, kind: &Oid<'_>) -> Result<Vec<String>, CertificateError> {
    name.iter_by_oid(kind)
        .map(|attribute| attribute.as_str().map(Into::into).map_err(|_| CertificateError::Attribute))
        .collect()
}

/// The credential ID: the hash of the whole certificate.
fn fingerprint(der: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, der);
    digest.as_ref().iter().fold(String::from("X509SHA256="), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn certificate(subject: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }
    fn uid() -> DnType {
        DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2])
    }
    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_subject_names_the_user() {
        let der = certificate(&[
            (DnType::OrganizationName, "devs"),
            (DnType::CommonName, "alice"),
            (uid(), "alice-uid"),
        ]);
        let certificate = ClientCertificate::new(&der);
        let user = certificate.user(at("2026-01-01T12:00:00Z")).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("alice", "alice-uid"));
        assert_eq!(user.groups, ["devs"]);
        let id = &user.extra[CREDENTIAL_ID][0];
        let hex = id.strip_prefix("X509SHA256=").unwrap();
        assert!(hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{id}");
    }

    #[test]
    fn it_counts_only_in_its_time() {
        let certificate = ClientCertificate::new(&certificate(&[(DnType::CommonName, "alice")]));
        for (now, good) in [
            ("2025-12-31T23:59:59Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-02T00:00:00.9Z", true),
            ("2026-01-02T00:00:01Z", false),
        ] {
            assert_eq!(certificate.user(at(now)).is_ok(), good, "{now}");
        }
    }

    #[test]
    fn without_a_common_name_it_counts_as_absent_and_broken_ones_are_refused() {
        let now = at("2026-01-01T12:00:00Z");
        let nameless = ClientCertificate::new(&certificate(&[(DnType::OrganizationName, "system:masters")]));
        assert_eq!(nameless.user(now), Ok(None));
        let empty_uid = ClientCertificate::new(&certificate(&[(DnType::CommonName, "a"), (uid(), "")]));
        assert_eq!(empty_uid.user(now), Err(CertificateError::EmptyUid));
        assert_eq!(ClientCertificate::new(b"junk").user(now), Err(CertificateError::Malformed));
    }
}
