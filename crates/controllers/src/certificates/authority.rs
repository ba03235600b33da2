//! A certificate authority that signs what CertificateSigningRequests ask for.
//!
//! A certificate carries the subject, the public key and the alternative names of the request as they are, byte for
//! byte: groups are organizations, and a name may hold any number of them. All else is decided here, as kube-controller-
//! manager decides it (`pkg/controller/certificates/authority`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;

/// How far a certificate's validity reaches back, for clients whose clocks are slow.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates that live shorter than this keep the lifetime that was asked for, counted from now.
const SHORT: SignedDuration = SignedDuration::from_hours(8);

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `BOOLEAN TRUE`.
const TRUE: &[u8] = &[1, 1, 0xff];
/// `INTEGER 2`, explicitly tagged: version 3.
const VERSION_3: &[u8] = &[0xa0, 3, INTEGER, 1, 2];
const OID_KEY_USAGE: &[u8] = &[6, 3, 0x55, 0x1d, 0x0f];
const OID_SUBJECT_ALT_NAME: &[u8] = &[6, 3, 0x55, 0x1d, 0x11];
const OID_BASIC_CONSTRAINTS: &[u8] = &[6, 3, 0x55, 0x1d, 0x13];
const OID_AUTHORITY_KEY_ID: &[u8] = &[6, 3, 0x55, 0x1d, 0x23];
const OID_EXTENDED_KEY_USAGE: &[u8] = &[6, 3, 0x55, 0x1d, 0x25];
const OID_CLIENT_AUTH: &[u8] = &[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];

/// The signature algorithms of authorities, as `AlgorithmIdentifier`s.
const ALGORITHMS: &[(&rcgen::SignatureAlgorithm, &[u8])] = &[
    (&rcgen::PKCS_ECDSA_P256_SHA256, &[SEQUENCE, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]),
    (&rcgen::PKCS_ECDSA_P384_SHA384, &[SEQUENCE, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]),
    (&rcgen::PKCS_RSA_SHA256, &[SEQUENCE, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0]),
    (&rcgen::PKCS_ED25519, &[SEQUENCE, 5, 6, 3, 0x2b, 0x65, 0x70]),
];

/// Why an authority cannot be used, or cannot sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The certificate of the authority is not one.
    #[error("the certificate of the authority cannot be read: {0}")]
    Certificate(String),
    /// The key of the authority cannot be read, or is of a kind that is not used for signing here.
    #[error("the key of the authority cannot be used: {0}")]
    Key(String),
    /// Key and certificate of the authority do not belong together.
    #[error("the key does not belong to the certificate of the authority")]
    Mismatch,
    /// The authority's own certificate has ended.
    #[error("the signer has expired: NotAfter={0}")]
    Expired(Timestamp),
    /// No signature could be made.
    #[error("signing failed")]
    Signature,
}

/// A certificate authority: its certificate and the key to sign with.
pub struct CertificateAuthority {
    key: KeyPair,
    algorithm: &'static [u8],
    /// Its name, DER.
    name: Vec<u8>,
    /// Its subject key identifier, if it has one.
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Which lifetime a certificate gets that asked for `seconds`: at most `longest`, at least ten minutes.
/// (`duration` in `pkg/controller/certificates/signer/signer.go`.)
pub(crate) fn lifetime(seconds: Option<i32>, longest: SignedDuration) -> SignedDuration {
    let Some(seconds) = seconds else { return longest };
    SignedDuration::from_secs(i64::from(seconds)).max(BACKDATE * 2).min(longest)
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usages {
    pub(crate) digital_signature: bool,
    pub(crate) key_encipherment: bool,
}

/// A request whose signature was checked: whoever made it holds the key.
#[derive(Debug)]
pub(crate) struct Request {
    /// DER.
    subject: Vec<u8>,
    /// DER.
    public_key: Vec<u8>,
    /// The content of the extension, and whether it is critical.
    alternative_names: Option<(Vec<u8>, bool)>,
}

impl Request {
    /// Reads a PEM request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| "the request is not PEM")?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST".into());
        }
        let (rest, request) =
            X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes follow the request".into());
        }
        request.verify_signature().map_err(|_| "the signature of the request does not fit its key")?;
        let info = &request.certification_request_info;
        let extensions = info.iter_attributes().filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => Some(&request.extensions),
            _ => None,
        });
        let names = extensions.flatten().find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
        Ok(Self {
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            alternative_names: names.map(|extension| (extension.value.to_vec(), extension.critical)),
        })
    }
}

impl CertificateAuthority {
    /// An authority from its certificate and key, both PEM. Of several certificates the first counts.
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let unreadable = |error: String| AuthorityError::Certificate(error);
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
            .map_err(|error| unreadable(error.to_string()))?;
        let certificate = pem.parse_x509().map_err(|error| unreadable(error.to_string()))?;
        // What the library says of a key may quote it.
        let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::Key("it cannot be read".into()))?;
        if key.subject_public_key_info() != certificate.public_key().raw {
            return Err(AuthorityError::Mismatch);
        }
        let algorithm = ALGORITHMS.iter().find(|(algorithm, _)| *algorithm == key.algorithm());
        let (_, algorithm) = algorithm.ok_or_else(|| AuthorityError::Key("unknown kind of key".into()))?;
        let key_id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp());
        Ok(Self {
            algorithm,
            name: certificate.subject().as_raw().to_vec(),
            key_id,
            not_after: not_after.map_err(|error| unreadable(error.to_string()))?,
            key,
        })
    }

    /// The certificate (PEM) of a client: for `request`, valid for `lifetime` from `now`, but not longer than the
    /// authority itself. `serial` is random.
    pub(crate) fn sign(
        &self,
        request: &Request,
        usages: Usages,
        lifetime: SignedDuration,
        now: Timestamp,
        serial: [u8; 16],
    ) -> Result<String, AuthorityError> {
        let not_before = now - BACKDATE;
        let end = if lifetime < SHORT { now + lifetime } else { not_before + lifetime };
        let not_after = end.min(self.not_after);
        if now >= self.not_after {
            return Err(AuthorityError::Expired(self.not_after));
        }
        let body = tlv(
            SEQUENCE,
            &[
                VERSION_3,
                &integer(serial),
                self.algorithm,
                &self.name,
                &tlv(SEQUENCE, &[&time(not_before), &time(not_after)]),
                &request.subject,
                &request.public_key,
                &tlv(0xa3, &[&tlv(SEQUENCE, &[&self.extensions(request, usages)])]),
            ],
        );
        let signature = self.key.sign(&body).map_err(|_| AuthorityError::Signature)?;
        let certificate = tlv(SEQUENCE, &[&body, self.algorithm, &tlv(BIT_STRING, &[&[0], &signature])]);
        Ok(pem("CERTIFICATE", &certificate))
    }

    fn extensions(&self, request: &Request, usages: Usages) -> Vec<u8> {
        let mut extensions = Vec::new();
        let bits = u8::from(usages.digital_signature) << 7 | u8::from(usages.key_encipherment) << 5;
        if bits != 0 {
            let unused = u8::try_from(bits.trailing_zeros()).unwrap_or(0);
            extensions.extend(extension(OID_KEY_USAGE, true, &[BIT_STRING, 2, unused, bits]));
        }
        extensions.extend(extension(OID_EXTENDED_KEY_USAGE, false, &tlv(SEQUENCE, &[OID_CLIENT_AUTH])));
        // Not an authority.
        extensions.extend(extension(OID_BASIC_CONSTRAINTS, true, &tlv(SEQUENCE, &[])));
        if let Some(id) = &self.key_id {
            extensions.extend(extension(OID_AUTHORITY_KEY_ID, false, &tlv(SEQUENCE, &[&tlv(0x80, &[id])])));
        }
        if let Some((names, critical)) = &request.alternative_names {
            extensions.extend(extension(OID_SUBJECT_ALT_NAME, *critical, names));
        }
        extensions
    }
}

/// When the first certificate in `pem` ends; none if there is none.
pub(crate) fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// A DER value of the parts, one after the other.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
    let mut value = vec![tag];
    if length >= 0x80 {
        // At most eight bytes of length follow.
        value.push(0x80 | significant.len() as u8);
    }
    value.extend(significant);
    parts.iter().for_each(|part| value.extend(*part));
    value
}

/// A positive INTEGER in its shortest form.
fn integer(bytes: [u8; 16]) -> Vec<u8> {
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
    let sign: &[u8] = if significant[0] & 0x80 == 0 { &[] } else { &[0] };
    tlv(INTEGER, &[sign, significant])
}

fn extension(oid: &[u8], critical: bool, content: &[u8]) -> Vec<u8> {
    let critical = if critical { TRUE } else { &[] };
    tlv(SEQUENCE, &[oid, critical, &tlv(OCTET_STRING, &[content])])
}

/// A time as RFC 5280 asks for it: with two digits of the year up to 2049.
fn time(time: Timestamp) -> Vec<u8> {
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC);
    if (1950..2050).contains(&utc.year()) {
        tlv(UTC_TIME, &[utc.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()])
    } else {
        tlv(GENERALIZED_TIME, &[utc.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};

    fn now() -> Timestamp {
        "2026-05-01T12:00:00Z".parse().unwrap()
    }

    /// An authority and its certificate.
    pub(crate) fn authority(kind: &'static rcgen::SignatureAlgorithm) -> (CertificateAuthority, String) {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2028, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        (CertificateAuthority::from_pem(&certificate, &key.serialize_pem()).unwrap(), certificate)
    }

    /// A request of `name`.
    pub(crate) fn request(name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example.com".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "devs");
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn certificates_verify_and_say_what_was_asked_for() {
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let (authority, ca) = authority(kind);
            let request = Request::from_pem(request("robot").as_bytes()).unwrap();
            let usages = Usages { digital_signature: true, key_encipherment: true };
            let hour = SignedDuration::from_hours(1);
            let signed = authority.sign(&request, usages, hour, now(), [0xff; 16]).unwrap();

            let (_, ca) = x509_parser::pem::parse_x509_pem(ca.as_bytes()).unwrap();
            let ca = ca.parse_x509().unwrap();
            let (_, signed) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
            let signed = signed.parse_x509().unwrap();
            signed.verify_signature(Some(ca.public_key())).unwrap();
            assert_eq!(signed.subject().to_string(), "CN=robot, O=devs");
            assert_eq!(signed.issuer().as_raw(), ca.subject().as_raw());
            assert!(!signed.is_ca());
            let usage = signed.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
            let extended = signed.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && !extended.server_auth && !extended.any);
            assert_eq!(signed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
            assert_eq!(signed.validity().not_after.timestamp(), (now() + hour).as_second());
            assert_eq!(signed.validity().not_before.timestamp(), (now() - BACKDATE).as_second());
            assert_eq!(signed.raw_serial()[..2], [0, 0xff]);
        }
    }

    #[test]
    fn all_organizations_of_a_subject_are_kept() {
        let mut subject = Vec::new();
        for group in ["devs", "ops"] {
            let attribute = tlv(SEQUENCE, &[&[6, 3, 0x55, 4, 10], &tlv(0x0c, &[group.as_bytes()])]);
            subject.extend(tlv(0x31, &[&attribute]));
        }
        let mut request = Request::from_pem(request("robot").as_bytes()).unwrap();
        request.subject = tlv(SEQUENCE, &[&subject]);
        let (authority, _) = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
        let signed = authority
            .sign(&request, Usages::default(), SignedDuration::from_hours(9), now(), [1; 16])
            .unwrap();
        let (_, signed) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        assert_eq!(signed.parse_x509().unwrap().subject().iter_organization().count(), 2);
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let (authority, _) = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
        let request = Request::from_pem(request("robot").as_bytes()).unwrap();
        let sign = |now| {
            authority.sign(
                &request,
                Usages::default(),
                SignedDuration::from_hours(24 * 365 * 9),
                now,
                [1; 16],
            )
        };
        assert_eq!(expiry(sign(now()).unwrap().as_bytes()), Some(authority.not_after));
        assert!(matches!(sign(authority.not_after), Err(AuthorityError::Expired(_))));
    }

    #[test]
    fn requests_that_are_none_or_do_not_hold_their_key_are_refused() {
        assert!(Request::from_pem(b"nonsense").is_err());
        let (_, certificate) = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(
            Request::from_pem(certificate.as_bytes()).unwrap_err(),
            "PEM block type must be CERTIFICATE REQUEST"
        );
        let (_, mut forged) = x509_parser::pem::parse_x509_pem(request("robot").as_bytes()).unwrap();
        let at = forged.contents.windows(5).position(|window| window == b"robot").unwrap();
        forged.contents[at] = b'R';
        let forged = pem("CERTIFICATE REQUEST", &forged.contents);
        assert_eq!(
            Request::from_pem(forged.as_bytes()).unwrap_err(),
            "the signature of the request does not fit its key"
        );
    }

    #[test]
    fn keys_of_others_are_refused() {
        let (_, certificate) = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
        let other = KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(
            CertificateAuthority::from_pem(&certificate, &other),
            Err(AuthorityError::Mismatch)
        ));
    }

    #[test]
    fn lifetimes_are_bounded_on_both_sides() {
        let year = SignedDuration::from_hours(24 * 365);
        assert_eq!(lifetime(None, year), year);
        assert_eq!(lifetime(Some(3600), year), SignedDuration::from_hours(1));
        assert_eq!(lifetime(Some(60), year), SignedDuration::from_mins(10));
        assert_eq!(lifetime(Some(i32::MAX), year), year);
    }

    #[test]
    fn lengths_and_times_are_in_their_shortest_form() {
        assert_eq!(tlv(4, &[&[7; 0x7f]])[..2], [4, 0x7f]);
        assert_eq!(tlv(4, &[&[7; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[&[7; 0x100]])[..4], [4, 0x82, 1, 0]);
        assert_eq!(integer([0; 16]), [INTEGER, 1, 0]);
        assert_eq!(time("2049-12-31T23:59:59Z".parse().unwrap())[0], UTC_TIME);
        assert_eq!(time("2050-01-01T00:00:00Z".parse().unwrap())[2..], *b"20500101000000Z");
    }
}
