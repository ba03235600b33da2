//! The documents by which others learn the public keys: the JSON Web Key Set and the OIDC discovery document, byte for
//! byte in the form of `pkg/serviceaccount/openidmetadata.go` (fields in the order of go-jose's structs).

use crate::key::{Algorithm, Numbers, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use std::collections::BTreeSet;

/// The path of the discovery document, below the issuer.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// The path of the key set on the API server.
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// One key of the set. The order of the fields is that of go-jose's `rawJSONWebKey`, and is visible: the documents are
/// compared byte for byte with kube-apiserver's.
#[derive(Serialize)]
struct Jwk<'a> {
    #[serde(rename = "use")]
    purpose: &'static str,
    kty: &'static str,
    kid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

impl<'a> Jwk<'a> {
    fn new(key: &'a VerifyingKey) -> Self {
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let mut jwk = Self {
            purpose: "sig",
            kty: "EC",
            kid: key.id(),
            crv: match key.algorithm() {
                Algorithm::Es256 => Some("P-256"),
                Algorithm::Es384 => Some("P-384"),
                Algorithm::Es512 => Some("P-521"),
                Algorithm::Rs256 => None,
            },
            alg: key.algorithm().name(),
            x: None,
            y: None,
            n: None,
            e: None,
        };
        // Coordinates keep their leading zeros (RFC 7518, 6.2.1.2), RSA numbers have none (6.3.1.1).
        match key.numbers() {
            Numbers::Rsa { n, e } => {
                jwk.kty = "RSA";
                (jwk.n, jwk.e) = (text(n), text(e));
            }
            Numbers::Ec { x, y } => (jwk.x, jwk.y) = (text(x), text(y)),
        }
        jwk
    }
}

/// The JSON Web Key Set of these keys, in their order.
pub fn key_set<'a>(keys: impl IntoIterator<Item = &'a VerifyingKey>) -> String {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: Vec<Jwk<'a>>,
    }
    to_json(&Set { keys: keys.into_iter().map(Jwk::new).collect() })
}

/// The OIDC discovery document of `issuer`, whose keys are at `jwks_uri`; the algorithms are those of `keys`.
pub fn configuration<'a>(
    issuer: &str,
    jwks_uri: &str,
    keys: impl IntoIterator<Item = &'a VerifyingKey>,
) -> String {
    #[derive(Serialize)]
    struct Configuration<'a> {
        issuer: &'a str,
        jwks_uri: &'a str,
        response_types_supported: [&'static str; 1],
        subject_types_supported: [&'static str; 1],
        id_token_signing_alg_values_supported: Vec<&'static str>,
    }
    // Sorted and without duplicates, as `sets.List` in Go gives them.
    let algorithms: BTreeSet<&str> = keys.into_iter().map(|key| key.algorithm().name()).collect();
    to_json(&Configuration {
        issuer,
        jwks_uri,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algorithms.into_iter().collect(),
    })
}

fn to_json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("structs of strings serialize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, SigningKey};
    use secrecy::ExposeSecret as _;

    const MODULUS: &str = "lp7t08rrx39Ir71qoTx0WsJZqyn101CwDXOI_n6u4JycQBtkoDjMvFH67WJ0JSyPLSIXj1hWV1t1EYMjMnr_M-e02hXKLPdd2OP4_kJaNG3WTr2xFmQFqxFolmTZd-xBTt-XS6uL9IXKp_uAwEtk3PZ_RmOx4xyMEagKIsCOnro6GD5Qi4TOXXZ2OTbqvT7StKi4rTnTthrgLEEKe9ovyLFSX9e2YVEHJtHI2xHHi1eyFjvn3LyORsyohuJE9K5qsjrf_3KDsHqguCG7CqXSohFwHlQSkRIxYIYSrf_oGjFozFoCJqhnWzUFTGDySSWLmgYQEq0oYx1xi3J3qZs1pQ";

    fn recorded() -> VerifyingKey {
        let n = URL_SAFE_NO_PAD.decode(MODULUS).unwrap();
        VerifyingKey::from_public_key_info(&crate::key::tests::rsa_public_key_info(&n)).unwrap()
    }

    #[test]
    fn documents_are_the_servers() {
        let ec = SigningKey::generate_pem(KeyKind::P256).unwrap();
        let ec = VerifyingKey::from_pem(ec.expose_secret().as_bytes()).unwrap().remove(0);
        let rsa = recorded();
        let Numbers::Ec { x, y } = ec.numbers() else { panic!("not on a curve") };
        assert_eq!(
            key_set([&rsa, &ec]),
            format!(
                r#"{{"keys":[{{"use":"sig","kty":"RSA","kid":"S_DTbvTskksYcZeLNe55ZmatppL-N5NyQS39V_PdgJE","alg":"RS256","n":"{MODULUS}","e":"AQAB"}},{{"use":"sig","kty":"EC","kid":"{}","crv":"P-256","alg":"ES256","x":"{}","y":"{}"}}]}}"#,
                ec.id(),
                URL_SAFE_NO_PAD.encode(x),
                URL_SAFE_NO_PAD.encode(y),
            )
        );
        assert_eq!(
            configuration(
                "https://kubernetes.default.svc",
                "https://192.0.2.2:7443/openid/v1/jwks",
                [&rsa, &rsa, &ec]
            ),
            concat!(
                r#"{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://192.0.2.2:7443/openid/v1/jwks","#,
                r#""response_types_supported":["id_token"],"subject_types_supported":["public"],"#,
                r#""id_token_signing_alg_values_supported":["ES256","RS256"]}"#
            )
        );
    }
}
