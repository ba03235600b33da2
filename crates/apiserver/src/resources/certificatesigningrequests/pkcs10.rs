//! Reading certificate requests and certificates, and saying what is wrong with them in Go's words
//! (`ParseCSR` in `pkg/apis/certificates/helpers.go`, Go's `crypto/x509`).

use super::super::pem;
use x509_parser::asn1_rs::{Any, Class, Oid, Tag, oid};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519, OID_X509_COMMON_NAME,
    OID_X509_ORGANIZATION_NAME,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// The attribute that becomes a user's UID (`userUID` in `k8s.io/apiserver/pkg/authentication/request/x509/x509.go`).
const OID_USERID: Oid<'_> = oid!(1.3.6.1.4.1.57683.2);

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
    let organizations = organizations(&info.subject)?;
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

/// The organizations of a subject. All of its attributes have to be readable, as in Go, where the subject is read before anything
/// is asked of it: an organization that was passed over here would still be in the certificate, byte for byte.
fn organizations(subject: &X509Name<'_>) -> Result<Vec<String>, String> {
    let mut organizations = Vec::new();
    for attribute in subject.iter_attributes() {
        let kind = attribute.attr_type();
        let names = [&OID_X509_ORGANIZATION_NAME, &OID_X509_COMMON_NAME, &OID_USERID];
        match text(attribute.attr_value())? {
            Some(value) if *kind == OID_X509_ORGANIZATION_NAME => organizations.push(value),
            Some(_) => {}
            // Go passes over attributes that are no strings (a bit string can be a unique identifier). What names the user and
            // the groups is never passed over here.
            None if names.contains(&kind) => {
                return Err(format!("x509: attribute {kind} of the subject is not a string"));
            }
            None => {}
        }
    }
    Ok(organizations)
}

/// A value as text, with the errors of Go's `encoding/asn1` (`parseField` and what it calls for an `interface{}`); `None` if it
/// is of a type that Go does not make a string of.
fn text(value: &Any<'_>) -> Result<Option<String>, String> {
    if value.class() != Class::Universal || value.header.is_constructed() {
        return Ok(None);
    }
    let bytes = value.data;
    // All of these are subsets of ASCII.
    let subset = |kind: &str, contains: fn(u8) -> bool| {
        if bytes.iter().all(|byte| contains(*byte)) {
            Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
        } else {
            Err(format!("asn1: syntax error: {kind} contains invalid character"))
        }
    };
    let text = match value.tag() {
        // With `*` and `&`, which Go allows because certificates have them.
        Tag::PrintableString => subset("PrintableString", |byte| {
            byte.is_ascii_alphanumeric() || b"'()+,-./ :=?*&".contains(&byte)
        })?,
        Tag::NumericString => subset("NumericString", |byte| byte.is_ascii_digit() || byte == b' ')?,
        Tag::Ia5String => subset("IA5String", |byte| byte.is_ascii())?,
        // Taken for Latin-1, as everybody does.
        Tag::T61String => bytes.iter().map(|byte| char::from(*byte)).collect(),
        Tag::Utf8String => {
            String::from_utf8(bytes.to_vec()).map_err(|_| "asn1: invalid UTF-8 string".to_string())?
        }
        Tag::BmpString => bmp(bytes).ok_or("invalid BMPString")?,
        _ => return Ok(None),
    };
    Ok(Some(text))
}

/// Text of 16 bits for each character (`parseBMPString`): without surrogates and the code points that are never characters.
fn bmp(bytes: &[u8]) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let bytes = bytes.strip_suffix(&[0, 0]).unwrap_or(bytes);
    let points = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    points
        .map(|point| match point {
            0xfffe | 0xffff | 0xfdd0..=0xfdef => None,
            // Refuses surrogates.
            point => char::from_u32(point),
        })
        .collect()
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

    /// A request whose subject has one attribute, of this type, with this tag and value.
    fn with_attribute(oid: &[u64], tag: u8, value: &[u8]) -> Vec<u8> {
        use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // As long as the value that takes its place, so that the lengths around it stay right.
        let placeholder = "x".repeat(value.len());
        params.distinguished_name.push(DnType::CustomDnType(oid.to_vec()), placeholder.clone());
        let mut der = params.serialize_request(&key).unwrap().der().to_vec();
        let at = der.windows(placeholder.len()).position(|window| window == placeholder.as_bytes()).unwrap();
        der[at - 2] = tag;
        der[at..at + value.len()].copy_from_slice(value);
        der
    }

    #[test]
    fn an_attribute_that_cannot_be_read_is_a_refusal() {
        const O: &[u64] = &[2, 5, 4, 10];
        const UNIQUE_ID: &[u64] = &[2, 5, 4, 45];
        let invalid = |kind| Err(format!("asn1: syntax error: {kind} contains invalid character"));
        let text = |text: &str| Ok(vec![text.to_string()]);
        let no_string = |oid| Err(format!("x509: attribute {oid} of the subject is not a string"));
        for (oid, tag, value, wanted) in [
            (O, 12, &b"system:masters"[..], text("system:masters")),
            (O, 12, b"system\xff", Err("asn1: invalid UTF-8 string".into())),
            (O, 19, b"a & b, *", text("a & b, *")),
            (O, 19, b"a@b.example", invalid("PrintableString")),
            (O, 18, b"0 1 2 3", text("0 1 2 3")),
            (O, 18, b"0 1 2 x", invalid("NumericString")),
            (O, 22, b"a@b.example", text("a@b.example")),
            (O, 22, b"a\x80bcdefg", invalid("IA5String")),
            (O, 20, b"M\xfcnchen..", text("M\u{fc}nchen..")),
            (O, 30, b"\0s\0y\0s\0\0", text("sys")),
            (O, 30, b"\0s\0y\xd8\0\0t", Err("invalid BMPString".into())),
            (O, 30, b"\0s\0y\xff\xfe\0t", Err("invalid BMPString".into())),
            (O, 30, b"\0s\0y\0s\0t\0", Err("invalid BMPString".into())),
            // UniversalString, an integer, a value of another class, one that is made of others.
            (O, 28, b"\0\0\0s\0\0\0y", no_string("2.5.4.10")),
            (O, 2, b"1234567", no_string("2.5.4.10")),
            (O, 0x8c, b"1234567", no_string("2.5.4.10")),
            (O, 0x2c, b"1234567", no_string("2.5.4.10")),
            (&[2, 5, 4, 3], 28, b"\0\0\0s\0\0\0y", no_string("2.5.4.3")),
            (UNIQUE_ID, 3, b"\x001234567", Ok(vec![])),
            (UNIQUE_ID, 12, b"123456\xff", Err("asn1: invalid UTF-8 string".into())),
        ] {
            // The signature does not fit any longer, which is said later and of no interest here.
            let request = pem_of("CERTIFICATE REQUEST", &with_attribute(oid, tag, value));
            let got = parse(request.as_bytes()).map(|request| request.organizations);
            assert_eq!(got, wanted, "{oid:?} {tag} {value:?}");
        }
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
