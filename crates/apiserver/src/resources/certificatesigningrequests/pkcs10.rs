//! Reading certificate requests and certificates, and saying what is wrong with them in Go's words
//! (`ParseCSR` in `pkg/apis/certificates/helpers.go`, Go's `crypto/x509`).

use super::super::pem;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the server looks at in a certificate request.
#[derive(Debug)]
pub(super) struct Request {
    /// The organizations of the subject: the groups of a client.
    pub(super) organizations: Vec<String>,
    /// What is wrong with the signature, if anything.
    pub(super) bad_signature: Option<&'static str>,
}

/// Reads the first PEM block as a PKCS #10 request; the error says what is wrong.
pub(super) fn parse(text: &[u8]) -> Result<Request, String> {
    let block = pem::blocks(text).into_iter().next().filter(|block| block.kind == "CERTIFICATE REQUEST");
    let Some(block) = block else {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    };
    // Go's decoder names what is wrong in detail. Its words are followed for the outermost header, where most
    // garbage fails; deeper errors get one sentence for all.
    check_outer_sequence(&block.bytes)?;
    let (rest, request) = X509CertificationRequest::from_der(&block.bytes)
        .map_err(|_| "asn1: structure error: malformed certificate request".to_string())?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".into());
    }
    let info = &request.certification_request_info;
    let organizations =
        info.subject.iter_organization().filter_map(|name| name.as_str().ok().map(str::to_string)).collect();
    // In Go each kind of key fails with words of its own.
    let key = &info.subject_pki.algorithm.algorithm;
    let bad_signature = request.verify_signature().err().map(|_| match key {
        key if *key == OID_PKCS1_RSAENCRYPTION => "crypto/rsa: verification error",
        key if *key == OID_KEY_TYPE_EC_PUBLIC_KEY => "x509: ECDSA verification failure",
        key if *key == OID_SIG_ED25519 => "x509: Ed25519 verification failure",
        _ => "x509: cannot verify signature: algorithm unimplemented",
    });
    Ok(Request { organizations, bad_signature })
}

/// What is wrong with a chain of certificates in PEM; nothing is wrong with an empty one.
pub(super) fn check_certificates(text: &[u8]) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let blocks = pem::blocks(text);
    for block in &blocks {
        if block.kind != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found \"{}\"", block.kind));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".into());
        }
        let mut rest = block.bytes.as_slice();
        if rest.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        // A block may hold several certificates one after the other; each pass consumes one, so this ends.
        while !rest.is_empty() {
            rest = X509Certificate::from_der(rest).map_err(|_| "x509: malformed certificate".to_string())?.0;
        }
    }
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    Ok(())
}

/// Go's `encoding/asn1` on the header of the outermost value, which must be a SEQUENCE.
fn check_outer_sequence(der: &[u8]) -> Result<(), String> {
    let truncated = || "asn1: syntax error: truncated tag or length".to_string();
    let Some((first, rest)) = der.split_first() else {
        return Err("asn1: syntax error: sequence truncated".into());
    };
    let (length_byte, mut rest) = rest.split_first().ok_or_else(truncated)?;
    let mut length = usize::from(*length_byte);
    let mut header = 2;
    if length_byte & 0x80 != 0 {
        let count = usize::from(length_byte & 0x7f);
        if count == 0 {
            return Err("asn1: syntax error: indefinite length found (not DER)".into());
        }
        // A length of more than four bytes cannot be that of a body.
        if count > 4 {
            return Err("asn1: structure error: length too large".into());
        }
        let bytes = rest.get(..count).ok_or_else(truncated)?;
        length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = &rest[count..];
        header += count;
    }
    let (class, compound, tag) = (first >> 6, first & 0x20 != 0, first & 0x1f);
    if (class, compound, tag) != (0, true, 16) {
        return Err(format!(
            "asn1: structure error: tags don't match (16 vs {{class:{class} tag:{tag} length:{length} isCompound:{compound}}}) {{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> stringType:0 timeType:0 set:false omitEmpty:false}} certificateRequest @{header}"
        ));
    }
    if length > rest.len() { Err("asn1: syntax error: data truncated".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem_of(kind: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n")
    }

    fn der() -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        let good = der();
        let mut headless = good.clone();
        headless[..3].fill(0);
        let cases = [
            (String::new(), "PEM block type must be CERTIFICATE REQUEST"),
            (pem_of("CERTIFICATE", &good), "PEM block type must be CERTIFICATE REQUEST"),
            (pem_of("CERTIFICATE REQUEST", &[]), "asn1: syntax error: sequence truncated"),
            (pem_of("CERTIFICATE REQUEST", &good[..40]), "asn1: syntax error: data truncated"),
            (
                pem_of("CERTIFICATE REQUEST", &[0x30, 0x80]),
                "asn1: syntax error: indefinite length found (not DER)",
            ),
            (
                pem_of("CERTIFICATE REQUEST", &[good.clone(), vec![0]].concat()),
                "asn1: syntax error: trailing data",
            ),
            (
                pem_of("CERTIFICATE REQUEST", &headless),
                "asn1: structure error: tags don't match (16 vs {class:0 tag:0 length:0 isCompound:false}) {optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> stringType:0 timeType:0 set:false omitEmpty:false} certificateRequest @2",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), wanted);
        }
        assert_eq!(parse(pem_of("CERTIFICATE REQUEST", &good).as_bytes()).unwrap().bad_signature, None);
    }

    #[test]
    fn signatures_are_checked() {
        let mut der = der();
        let last = der.len() - 1;
        der[last] ^= 1;
        let request = parse(pem_of("CERTIFICATE REQUEST", &der).as_bytes()).unwrap();
        assert_eq!(request.bad_signature, Some("x509: ECDSA verification failure"));
    }

    #[test]
    fn chains_hold_certificates_only() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        assert_eq!(check_certificates(b""), Ok(()));
        assert_eq!(check_certificates(format!("{good}{good}").as_bytes()), Ok(()));
        for (text, wanted) in [
            ("garbage".to_string(), "must contain at least one CERTIFICATE PEM block"),
            (
                format!("{good}{}", pem_of("CERTIFICATE REQUEST", &[])),
                "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"",
            ),
            (pem_of("CERTIFICATE", &[1, 2]), "x509: malformed certificate"),
        ] {
            assert_eq!(check_certificates(text.as_bytes()).unwrap_err(), wanted);
        }
    }
}
