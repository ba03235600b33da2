//! The certificate authority of one control plane.

use super::identity::{Facts, Identity, encode_certificate, read_chain, read_key};
use super::renewal::{Standing, Validity, standing};
use crate::files::{self, Access, Fault};
use fleetpass_controllers::{AuthorityError, CertificateAuthority};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::path::Path;
use x509_parser::time::ASN1Time;

/// As long as kubeadm's authorities (`kubeadm/app/constants`, `CACertificateValidityPeriod`).
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// As long as kubeadm's certificates (`CertificateValidityPeriod`).
const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Who a client is, as its certificate says: the common name is the user, the organizations are its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientSubject {
    /// The user name.
    pub(crate) user: String,
    /// The groups, at most two.
    pub(crate) groups: Vec<String>,
}

/// The attribute type "organization", twice: rcgen's names hold one value of each type, and take a type that is given
/// by its number for another one.
fn organization_types() -> [DnType; 2] {
    [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])]
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// The subject has more groups than a certificate is made for.
    #[error("a certificate is made for at most two groups")]
    TooManyGroups,
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] rcgen::Error),
}

/// An authority that can issue certificates.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    facts: Facts,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
pub(super) enum Purpose<'a> {
    /// A server that is reached by these names and addresses.
    Server(&'a [String]),
    /// A client.
    Client(&'a ClientSubject),
}

impl Authority {
    /// Opens the authority in `directory` (`ca.crt`, `ca.key`), or makes one there if it has neither file. `name`
    /// tells it apart from others. A certificate that is gone or old is made again with the same key: whatever the
    /// authority issued stays good.
    ///
    /// # Errors
    ///
    /// [`Fault`]: a file cannot be read, is damaged, or does not fit the other. Nothing was changed.
    pub(crate) fn open(directory: &Path, name: &str, now: Timestamp) -> Result<Self, Fault> {
        let (key_path, path) = (directory.join("ca.key"), directory.join("ca.crt"));
        let key = files::read(&key_path, Access::OwnerOnly)?;
        let certificate = files::read(&path, Access::Given)?;
        let pair = match (&key, &certificate) {
            (Some(key), _) => read_key(key).map_err(|error| {
                Fault::new(&key_path, error.to_string(), "restore it from a backup: it cannot be made again")
            })?,
            (None, Some(_)) => {
                let remedy = "restore it from a backup; or, to begin with a new authority that no client trusts \
                              yet, remove ca.crt as well";
                return Err(Fault::new(&key_path, "is missing although ca.crt is there", remedy));
            }
            (None, None) => {
                let pair = KeyPair::generate().map_err(|error| cannot_make(&key_path, &error))?;
                files::write(&key_path, zeroize::Zeroizing::new(pair.serialize_pem()).as_bytes())?;
                pair
            }
        };
        if let Some(certificate) = certificate {
            let remedy = "restore it from a backup, or remove it: it is then made again from ca.key";
            let (chain, facts) =
                read_chain(&certificate).map_err(|error| Fault::new(&path, error.to_string(), remedy))?;
            // Reading it as an identity compares the public keys.
            Identity::from_pem(&certificate, pair.serialize_pem().as_bytes()).map_err(|_| {
                let remedy = "restore the two from the same backup; or, if ca.key is right, remove ca.crt: it is \
                              then made again";
                Fault::new(&path, "does not belong to the key in ca.key", remedy)
            })?;
            if !facts.is_authority || facts.subject_key.is_none() {
                return Err(Fault::new(&path, "is not the certificate of an authority", remedy));
            }
            match standing(facts.validity, now) {
                // Any other standing: it is made again below, with the same key.
                Standing::Fresh(_) => return Self::assemble(&path, chain[0].clone(), facts, pair),
                standing => {
                    tracing::info!(file = %path.display(), ?standing, "renewing the authority's certificate")
                }
            }
        }
        // The subject and the key stay as they were, so certificates of before chain to the new one too.
        let (der, facts) = self_signed(name, &pair, now).map_err(|error| cannot_make(&path, &error))?;
        files::write(&path, encode_certificate(&der).as_bytes())?;
        Self::assemble(&path, der, facts, pair)
    }

    fn assemble(
        path: &Path,
        certificate: CertificateDer<'static>,
        facts: Facts,
        pair: KeyPair,
    ) -> Result<Self, Fault> {
        let issuer = Issuer::from_ca_cert_der(&certificate, pair)
            .map_err(|error| Fault::new(path, format!("cannot issue certificates: {error}"), ""))?;
        Ok(Self { certificate_pem: encode_certificate(&certificate), certificate, facts, issuer })
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate as PEM: what clients trust.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What tells its key from others: the certificate's subject key identifier, in hexadecimal digits.
    pub(crate) fn key_id(&self) -> String {
        self.facts.subject_key.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The authority as the controller uses it that signs CertificateSigningRequests.
    ///
    /// # Errors
    ///
    /// Its own certificate and key do not fit what that controller needs.
    pub(crate) fn certificate_signer(&self) -> Result<CertificateAuthority, AuthorityError> {
        let key = zeroize::Zeroizing::new(self.issuer.key().serialize_pem());
        CertificateAuthority::from_pem(&self.certificate_pem, &key)
    }

    /// Whether this authority, or one with the same key, issued the certificate. A question of identity, not of
    /// security: both are files in the same private directory.
    pub(super) fn issued(&self, facts: &Facts) -> bool {
        facts.authority_key.is_some() && facts.authority_key == self.facts.subject_key
    }

    /// A new key and a certificate for a client.
    ///
    /// # Errors
    ///
    /// [`IssueError`].
    pub(crate) fn issue_client(
        &self,
        subject: &ClientSubject,
        now: Timestamp,
    ) -> Result<Identity, IssueError> {
        if subject.groups.len() > organization_types().len() {
            return Err(IssueError::TooManyGroups);
        }
        Ok(self.issue(&Purpose::Client(subject), now)?)
    }

    /// When a client's certificate is to be replaced; `None` for at once, also if it is not one of `subject` that
    /// this authority issued.
    pub(crate) fn client_renewal(
        &self,
        identity: &Identity,
        subject: &ClientSubject,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let facts = identity.facts();
        if facts.common_name != subject.user || facts.organizations != subject.groups {
            return None;
        }
        self.renewal(facts, now)
    }

    pub(super) fn renewal(&self, facts: &Facts, now: Timestamp) -> Option<Timestamp> {
        match standing(facts.validity, now) {
            Standing::Fresh(at) if self.issued(facts) => Some(at),
            _ => None,
        }
    }

    pub(super) fn issue(&self, purpose: &Purpose<'_>, now: Timestamp) -> Result<Identity, rcgen::Error> {
        let mut params = match purpose {
            Purpose::Server(names) => CertificateParams::new(names.to_vec())?,
            Purpose::Client(_) => CertificateParams::default(),
        };
        params.distinguished_name = DistinguishedName::new();
        match purpose {
            Purpose::Server(_) => {
                params.distinguished_name.push(DnType::CommonName, "fleetpass");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Purpose::Client(subject) => {
                for (kind, group) in organization_types().into_iter().zip(&subject.groups) {
                    params.distinguished_name.push(kind, group.as_str());
                }
                params.distinguished_name.push(DnType::CommonName, subject.user.as_str());
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        // A certificate that outlives its authority is refused by some verifiers and trusted by others.
        let limit = Some(self.facts.validity.not_after);
        set_time(&mut params, Validity::starting(now, LEAF_LIFETIME, limit))?;
        params.serial_number = Some(serial_number()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate()?;
        let certificate = params.signed_by(&pair, &self.issuer)?;
        let key = zeroize::Zeroizing::new(pair.serialize_pem());
        Identity::from_pem(certificate.pem().as_bytes(), key.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)
    }
}

fn self_signed(
    name: &str,
    pair: &KeyPair,
    now: Timestamp,
) -> Result<(CertificateDer<'static>, Facts), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("fleetpass-ca {name}"));
    set_time(&mut params, Validity::starting(now, AUTHORITY_LIFETIME, None))?;
    params.serial_number = Some(serial_number()?);
    // It issues leaves and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(pair)?;
    let (_, facts) =
        read_chain(certificate.pem().as_bytes()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok((certificate.into(), facts))
}

fn set_time(params: &mut CertificateParams, validity: Validity) -> Result<(), rcgen::Error> {
    let time = |at: Timestamp| {
        ASN1Time::from_timestamp(at.as_second()).map(|t| t.to_datetime()).map_err(|_| rcgen::Error::Time)
    };
    params.not_before = time(validity.not_before)?;
    params.not_after = time(validity.not_after)?;
    Ok(())
}

/// Sixteen random bytes, positive: two certificates of one authority never share a number.
fn serial_number() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    // DER integers are signed; RFC 5280 wants a positive one.
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn cannot_make(path: &Path, error: &rcgen::Error) -> Fault {
    Fault::new(path, format!("cannot be made: {error}"), "")
}
