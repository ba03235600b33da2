//! A certificate authority that signs what CertificateSigningRequests ask for.
//!
//! A certificate carries the subject, the public key and the alternative names of the request as they are, byte for
//! byte: groups are organizations, and a name may hold any number of them. All else is decided here, as
//! kube-controller-manager decides it (`pkg/controller/certificates/authority`).

use jiff::{SignedDuration, Timestamp};
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der};

/// How far a certificate's validity reaches back, for clients whose clocks are slow.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates that live shorter than this keep the lifetime that was asked for, counted from now.
const SHORT: SignedDuration = SignedDuration::from_hours(8);

const OID_KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const OID_SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const OID_BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const OID_AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const OID_EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const OID_CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// The signature algorithms of authorities: their object identifiers, and whether a NULL stands for parameters.
const ALGORITHMS: &[(&rcgen::SignatureAlgorithm, &[u64], bool)] = &[
    (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
    (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
    (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113549, 1, 1, 11], true),
    (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
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
    /// How it signs, DER.
    algorithm: Vec<u8>,
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
        // Proof of possession: otherwise anybody could have somebody else's public key certified under a name of
        // theirs.
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
        // Without the library's error: it may quote the key.
        let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::Key("it cannot be read".into()))?;
        if key.subject_public_key_info() != certificate.public_key().raw {
            return Err(AuthorityError::Mismatch);
        }
        let algorithm = ALGORITHMS.iter().find(|(algorithm, ..)| *algorithm == key.algorithm());
        let (_, oid, null) = algorithm.ok_or_else(|| AuthorityError::Key("unknown kind of key".into()))?;
        let algorithm = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                if *null {
                    writer.next().write_null();
                }
            });
        });
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
        // A short life is counted from now, a long one from the backdated start (`authority/policies.go`): five minutes
        // matter to the one and not to the other.
        let end = if lifetime < SHORT { now + lifetime } else { not_before + lifetime };
        let not_after = end.min(self.not_after);
        if now >= self.not_after {
            return Err(AuthorityError::Expired(self.not_after));
        }
        let body = construct_der(|writer| {
            writer.write_sequence(|writer| {
                // The fields of TBSCertificate in the order of RFC 5280, 4.1. Version 3, which is written as 2.
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&serial, true);
                writer.next().write_der(&self.algorithm);
                writer.next().write_der(&self.name);
                writer.next().write_sequence(|writer| {
                    write_time(writer.next(), not_before);
                    write_time(writer.next(), not_after);
                });
                // The bytes of the request: taken apart and written anew, a subject could change its meaning.
                writer.next().write_der(&request.subject);
                writer.next().write_der(&request.public_key);
                writer.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|writer| self.write_extensions(writer, request, usages));
                });
            });
        });
        let signature = self.key.sign(&body).map_err(|_| AuthorityError::Signature)?;
        let certificate = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                writer.next().write_der(&self.algorithm);
                writer.next().write_bitvec_bytes(&signature, 8 * signature.len());
            });
        });
        Ok(encode("CERTIFICATE", certificate))
    }

    fn write_extensions(&self, writer: &mut DERWriterSeq<'_>, request: &Request, usages: Usages) {
        // Bit 0 of KeyUsage (RFC 5280, 4.2.1.3) is the highest of the byte; DER leaves off zeros at the end.
        let bits = u8::from(usages.digital_signature) << 7 | u8::from(usages.key_encipherment) << 5;
        if bits != 0 {
            let significant = u8::BITS - bits.trailing_zeros();
            let usage = construct_der(|writer| writer.write_bitvec_bytes(&[bits], significant as usize));
            write_extension(writer.next(), OID_KEY_USAGE, true, &usage);
        }
        let purposes = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(OID_CLIENT_AUTH));
            });
        });
        write_extension(writer.next(), OID_EXTENDED_KEY_USAGE, false, &purposes);
        // Not an authority.
        let constraints = construct_der(|writer| writer.write_sequence(|_| {}));
        write_extension(writer.next(), OID_BASIC_CONSTRAINTS, true, &constraints);
        if let Some(id) = &self.key_id {
            // `keyIdentifier [0]`; the other members are optional, and Go's `crypto/x509` leaves them out too.
            let id = construct_der(|writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
                });
            });
            write_extension(writer.next(), OID_AUTHORITY_KEY_ID, false, &id);
        }
        if let Some((names, critical)) = &request.alternative_names {
            write_extension(writer.next(), OID_SUBJECT_ALT_NAME, *critical, names);
        }
    }
}

/// When the first certificate in `pem` ends; none if there is none.
pub(crate) fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn write_extension(writer: DERWriter<'_>, oid: &[u64], critical: bool, content: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(content);
    });
}

/// A time as RFC 5280 asks for it: with two digits of the year up to 2049.
fn write_time(writer: DERWriter<'_>, time: Timestamp) {
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC);
    let (tag, format) = if (1950..2050).contains(&utc.year()) {
        (TAG_UTCTIME, "%y%m%d%H%M%SZ")
    } else {
        (TAG_GENERALIZEDTIME, "%Y%m%d%H%M%SZ")
    };
    let text = utc.strftime(format).to_string();
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

/// DER as PEM.
fn encode(label: &str, der: Vec<u8>) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
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
        let mut request = Request::from_pem(request("robot").as_bytes()).unwrap();
        request.subject = construct_der(|writer| {
            writer.write_sequence(|writer| {
                for group in ["devs", "ops"] {
                    writer.next().write_set(|writer| {
                        writer.next().write_sequence(|writer| {
                            writer.next().write_oid(&ObjectIdentifier::from_slice(&[2, 5, 4, 10]));
                            writer.next().write_utf8_string(group);
                        });
                    });
                }
            });
        });
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
        let forged = encode("CERTIFICATE REQUEST", forged.contents);
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
    fn years_have_two_digits_as_long_as_they_can() {
        let written = |time: &str| construct_der(|writer| write_time(writer, time.parse().unwrap()));
        assert_eq!(written("1949-12-31T23:59:59Z"), *b"\x18\x0f19491231235959Z");
        assert_eq!(written("1950-01-01T00:00:00Z"), *b"\x17\x0d500101000000Z");
        assert_eq!(written("2049-12-31T23:59:59Z"), *b"\x17\x0d491231235959Z");
        assert_eq!(written("2050-01-01T00:00:00Z"), *b"\x18\x0f20500101000000Z");
    }
}
