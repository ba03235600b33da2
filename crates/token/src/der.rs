//! The little DER that public keys need: read a SubjectPublicKeyInfo (alone or inside a certificate), write a
//! canonical one. Strict: definite, minimal lengths only; anything else is `None`.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version of a certificate.
const CONTEXT_0: u8 = 0xa0;

/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const SECP256R1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// 1.3.132.0.35
const SECP521R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// A named curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => SECP256R1,
            Self::P384 => SECP384R1,
            Self::P521 => SECP521R1,
        }
    }
    /// The length of one coordinate, in bytes.
    pub(crate) fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// What a SubjectPublicKeyInfo holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PublicKeyInfo<'a> {
    /// Modulus and exponent, big endian, without leading zeros.
    Rsa { n: &'a [u8], e: &'a [u8] },
    /// An uncompressed point: `04 || x || y`.
    Ec { curve: Curve, point: &'a [u8] },
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut len = usize::from(first);
        if first & 0x80 != 0 {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 || rest.len() < count {
                return None;
            }
            let (digits, after) = rest.split_at(count);
            len = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            if digits[0] == 0 || len < 0x80 {
                return None;
            }
            rest = after;
        }
        if rest.len() < len {
            return None;
        }
        let (content, rest) = rest.split_at(len);
        self.0 = rest;
        Some((tag, content))
    }
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// The content of an outer SEQUENCE that is the whole input.
fn sequence(der: &[u8]) -> Option<Reader<'_>> {
    let mut outer = Reader(der);
    let content = outer.expect(SEQUENCE)?;
    outer.end()?;
    Some(Reader(content))
}

/// A positive INTEGER without its sign byte.
fn positive<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let bytes = match reader.expect(INTEGER)? {
        [0, rest @ ..] if rest.first().is_some_and(|b| b & 0x80 != 0) => rest,
        bytes => bytes,
    };
    (bytes.first().is_some_and(|b| *b != 0)).then_some(bytes)
}

/// Reads an `RSAPublicKey` (PKCS#1): modulus and exponent.
pub(crate) fn read_rsa_public_key(der: &[u8]) -> Option<PublicKeyInfo<'_>> {
    let mut reader = sequence(der)?;
    let n = positive(&mut reader)?;
    let e = positive(&mut reader)?;
    reader.end()?;
    Some(PublicKeyInfo::Rsa { n, e })
}

/// Reads a SubjectPublicKeyInfo (PKIX). Keys other than RSA and the three NIST curves, and compressed points, are
/// `None`, as they are for kube-apiserver.
pub(crate) fn read_public_key_info(der: &[u8]) -> Option<PublicKeyInfo<'_>> {
    let mut reader = sequence(der)?;
    let mut algorithm = Reader(reader.expect(SEQUENCE)?);
    let bits = reader.expect(BIT_STRING)?;
    reader.end()?;
    let (&unused, key) = bits.split_first()?;
    if unused != 0 {
        return None;
    }
    let oid = algorithm.expect(OBJECT_ID)?;
    if oid == RSA_ENCRYPTION {
        return read_rsa_public_key(key);
    }
    if oid != EC_PUBLIC_KEY {
        return None;
    }
    let named = algorithm.expect(OBJECT_ID)?;
    let curve = Curve::ALL.into_iter().find(|curve| curve.oid() == named)?;
    (key.first() == Some(&4) && key.len() == 1 + 2 * curve.coordinate_len())
        .then_some(PublicKeyInfo::Ec { curve, point: key })
}

/// The SubjectPublicKeyInfo of an X.509 certificate, whole.
pub(crate) fn certificate_public_key_info(der: &[u8]) -> Option<&[u8]> {
    let mut certificate = sequence(der)?;
    let mut tbs = Reader(certificate.expect(SEQUENCE)?);
    tbs.skip_if(CONTEXT_0);
    tbs.expect(INTEGER)?; // serial number
    for _ in ["signature", "issuer", "validity", "subject"] {
        tbs.expect(SEQUENCE)?;
    }
    let start = tbs.0;
    tbs.expect(SEQUENCE)?;
    Some(&start[..start.len() - tbs.0.len()])
}

fn write(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let len = content.len();
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let digits: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | digits.len() as u8);
        out.extend(digits);
    }
    out.extend_from_slice(content);
}

fn write_positive(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.first().is_some_and(|b| b & 0x80 != 0) {
        let mut signed = vec![0];
        signed.extend_from_slice(bytes);
        write(out, INTEGER, &signed);
    } else {
        write(out, INTEGER, bytes);
    }
}

/// Writes an `RSAPublicKey` (PKCS#1).
pub(crate) fn write_rsa_public_key(n: &[u8], e: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(n.len() + e.len() + 16);
    write_positive(&mut numbers, n);
    write_positive(&mut numbers, e);
    let mut out = Vec::with_capacity(numbers.len() + 8);
    write(&mut out, SEQUENCE, &numbers);
    out
}

/// Writes a SubjectPublicKeyInfo as Go's `x509.MarshalPKIXPublicKey` writes it: the `kid` is its hash, so the same
/// key has the same `kid` however its file encodes it.
pub(crate) fn write_public_key_info(key: &PublicKeyInfo<'_>) -> Vec<u8> {
    let mut algorithm = Vec::new();
    let mut bits = vec![0];
    match key {
        PublicKeyInfo::Rsa { n, e } => {
            write(&mut algorithm, OBJECT_ID, RSA_ENCRYPTION);
            write(&mut algorithm, NULL, &[]);
            bits.extend(write_rsa_public_key(n, e));
        }
        PublicKeyInfo::Ec { curve, point } => {
            write(&mut algorithm, OBJECT_ID, EC_PUBLIC_KEY);
            write(&mut algorithm, OBJECT_ID, curve.oid());
            bits.extend_from_slice(point);
        }
    }
    let mut content = Vec::with_capacity(bits.len() + 32);
    write(&mut content, SEQUENCE, &algorithm);
    write(&mut content, BIT_STRING, &bits);
    let mut out = Vec::with_capacity(content.len() + 8);
    write(&mut out, SEQUENCE, &content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_lengths_that_are_not_minimal_or_lie() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x81, 0x01, 0x00],
            &[0x30, 0x02, 0x00],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x00, 0x00],
        ] {
            assert_eq!(read_public_key_info(bad), None, "{bad:x?}");
            assert_eq!(certificate_public_key_info(bad), None, "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(mut n in proptest::collection::vec(any::<u8>(), 1..600), e in 1u8..) {
            n[0] |= 1;
            let key = PublicKeyInfo::Rsa { n: &n, e: &[e] };
            let der = write_public_key_info(&key);
            prop_assert_eq!(read_public_key_info(&der), Some(key));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_public_key_info(&bytes);
            let _ = certificate_public_key_info(&bytes);
        }
    }
}
