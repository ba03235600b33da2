//! The subject of a certificate, and a request for another one of the same subject.

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;
use yasna::models::ObjectIdentifier;
use yasna::{Tag, construct_der};

/// `ecdsa-with-SHA256` (RFC 5758): what [`KeyPair::generate`]'s keys sign with.
const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];

/// The attributes of a name, in an order of their own: type and value.
pub(super) fn attributes(name: &X509Name<'_>) -> Vec<(String, Vec<u8>)> {
    let mut attributes: Vec<_> = name
        .iter_attributes()
        .map(|attribute| {
            // The text and not its encoding: there are several for the same text.
            let value = attribute.as_str().map_or_else(|_| attribute.as_slice(), str::as_bytes);
            (attribute.attr_type().to_id_string(), value.to_vec())
        })
        .collect();
    attributes.sort();
    attributes
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the present certificate cannot be read")]
    Certificate,
    #[error("the new key does not sign: {0}")]
    Key(#[from] rcgen::Error),
}

/// A PEM request (PKCS #10, RFC 2986) for the subject of the certificate `leaf`, byte for byte, and `key`, which is one of
/// [`KeyPair::generate`]. rcgen's own requests hold one organization only.
pub(super) fn request(leaf: &[u8], key: &KeyPair) -> Result<String, RequestError> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| RequestError::Certificate)?;
    let body = construct_der(|writer| {
        writer.write_sequence(|writer| {
            // Version 1, which is written as 0.
            writer.next().write_u8(0);
            writer.next().write_der(certificate.subject().as_raw());
            writer.next().write_der(&key.subject_public_key_info());
            // Attributes: none. Approvers look at them, and there is nothing to ask for.
            writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_set(|_| {}));
        });
    });
    let signature = key.sign(&body)?;
    let request = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&body);
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(ECDSA_WITH_SHA256));
            });
            writer.next().write_bitvec_bytes(&signature, 8 * signature.len());
        });
    });
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Ok(pem::encode_config(&Pem::new("CERTIFICATE REQUEST", request), config))
}
