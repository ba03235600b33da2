//! The OIDC documents of the token issuer, as the server answers them (`pkg/routes/openidmetadata.go`).

use super::service_account::ServiceAccounts;
use bytes::Bytes;
use fleetpass_apimachinery::status::{Details, Status};
use fleetpass_token::jwks;
use jiff::Timestamp;

pub use fleetpass_token::jwks::{CONFIGURATION_PATH, JWKS_PATH};

/// The `Cache-Control` header of both documents. In a rotation a new key has to be published for as many seconds before it
/// signs, or verifiers that cached the old set refuse its tokens.
pub const CACHE_CONTROL: &str = "public, max-age=3600";

/// One of the two documents, as an HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The body, JSON.
    pub body: Bytes,
}

/// Why a server cannot publish these documents; it may still issue tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The issuer is no URL with scheme https, without query and fragment, as OIDC wants it.
    #[error(
        "the issuer must be an https URL without query and fragment to be served by OIDC discovery, got: {0}"
    )]
    Issuer(String),
    /// The address of the key set is not https.
    #[error("the JWKS URI must be an https URL, got: {0}")]
    JwksUri(String),
}

/// The documents of one issuer.
#[derive(Debug, Clone)]
pub struct Oidc {
    issuer: String,
    jwks_uri: String,
}

impl Oidc {
    /// The documents of `issuer`, whose key set is at `jwks_uri` (`--service-account-jwks-uri`), or at
    /// [`JWKS_PATH`] of `external_address` (host and port) if that is `None`.
    pub fn new(issuer: &str, jwks_uri: Option<&str>, external_address: &str) -> Result<Self, OidcError> {
        let https = |url: &str| {
            url.parse::<http::Uri>()
                .is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
        };
        if !https(issuer) || issuer.contains(['?', '#']) {
            return Err(OidcError::Issuer(issuer.into()));
        }
        let jwks_uri = jwks_uri.map_or_else(|| format!("https://{external_address}{JWKS_PATH}"), Into::into);
        if !https(&jwks_uri) {
            return Err(OidcError::JwksUri(jwks_uri));
        }
        Ok(Self { issuer: issuer.into(), jwks_uri })
    }

    /// Answers GET of `path` ([`CONFIGURATION_PATH`] or [`JWKS_PATH`], else 404) with the keys that are published at
    /// `now`. `accept` is the `Accept` header; only the document's own type fits, and `*/*` (406).
    pub fn serve(
        &self,
        path: &str,
        accept: Option<&str>,
        accounts: &ServiceAccounts,
        now: Timestamp,
    ) -> Result<Document, Status> {
        let ring = accounts.ring();
        let keys = || ring.verifying_keys(now).map(|key| &**key);
        let (content_type, body) = match path {
            CONFIGURATION_PATH => {
                negotiate("application/json", accept)?;
                ("application/json", jwks::configuration(&self.issuer, &self.jwks_uri, keys()))
            }
            JWKS_PATH => {
                negotiate("application/jwk-set+json", accept)?;
                ("application/jwk-set+json", jwks::key_set(keys()))
            }
            _ => return Err(Status::unknown_path()),
        };
        Ok(Document { content_type, body: body.into() })
    }
}

/// Whether `produced` is acceptable, by the rules of go-restful: parameters are ignored, subtypes have no wildcard.
fn negotiate(produced: &str, accept: Option<&str>) -> Result<(), Status> {
    let accept = accept.filter(|accept| !accept.is_empty()).unwrap_or("*/*");
    // No quality values either: whoever accepts the type at all gets it, since there is nothing to choose from.
    let mut kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    if kinds.any(|kind| kind == "*/*" || kind == produced) {
        return Ok(());
    }
    let mut status =
        Status::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {produced}"));
    status.details = Some(Box::new(Details::default()));
    Err(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{API, accounts, now};
    use serde_json::{Value, json};

    #[test]
    fn serves_both_documents_under_their_own_types() {
        let accounts = accounts();
        let oidc = Oidc::new(API, None, "192.0.2.2:7443").unwrap();
        let get = |path, accept| oidc.serve(path, accept, &accounts, now());
        let configuration = get(CONFIGURATION_PATH, None).unwrap();
        assert_eq!(configuration.content_type, "application/json");
        assert_eq!(
            serde_json::from_slice::<Value>(&configuration.body).unwrap(),
            json!({
                "issuer": API,
                "jwks_uri": "https://192.0.2.2:7443/openid/v1/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            })
        );
        let keys = get(JWKS_PATH, Some("text/html, application/jwk-set+json;q=0.5")).unwrap();
        assert_eq!(keys.content_type, "application/jwk-set+json");
        let id = accounts.ring().signer(now()).unwrap().public().id().clone();
        assert_eq!(serde_json::from_slice::<Value>(&keys.body).unwrap()["keys"][0]["kid"], *id);

        for (path, accept, code) in [
            (JWKS_PATH, "application/json", 406),
            (JWKS_PATH, "application/*", 406),
            (CONFIGURATION_PATH, "application/jwk-set+json", 406),
            ("/openid/v2/jwks", "*/*", 404),
        ] {
            assert_eq!(get(path, Some(accept)).unwrap_err().code, code, "{path} {accept}");
        }
        assert_eq!(
            get(JWKS_PATH, Some("application/json")).unwrap_err().message,
            "406: Not Acceptable\n\nAvailable representations: application/jwk-set+json"
        );
    }

    #[test]
    fn refuses_issuers_that_oidc_does_not_allow() {
        for issuer in ["http://a", "a", "", "https://a?b", "https://a#b", "https://"] {
            assert!(Oidc::new(issuer, None, "h:1").is_err(), "{issuer}");
        }
        assert!(Oidc::new("https://a/b", Some("http://a"), "").is_err());
        assert!(Oidc::new("https://a/b", Some("https://c/keys"), "").is_ok());
    }
}
