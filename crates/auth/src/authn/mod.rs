//! Authentication: *who asks?* Client certificates, bearer tokens, service-account tokens.
//!
//! The order and the words are those of kube-apiserver (`pkg/kubeapiserver/authenticator/config.go`): a client certificate
//! first, then the bearer token, first against the token file, then as a service-account token. Bad credentials refuse
//! the request; none at all leave the choice to the caller, who may let it pass as anonymous.
//!
//! All of it is CPU work without I/O: a hash of the token, a lookup in memory, and one signature check for a token that was
//! not seen lately. That check takes a fraction of a millisecond with RSA and ECDSA alike, and happens once while the
//! token is remembered, so it may run on the reactor. Making RSA signatures, which takes ten times as long and happens
//! for every new token, may not.

pub mod bearer;
mod cache;
pub mod oidc;
pub mod service_account;
pub mod tokenfile;
pub mod x509;

use aws_lc_rs::digest;
use bearer::Bearer;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, UserInfo};
use fleetpass_token::verify::intersect;
use jiff::Timestamp;
use service_account::ServiceAccounts;
use std::sync::Arc;
use tokenfile::TokenFile;
use x509::ClientCertificate;

/// The key in [`UserInfo::extra`] that names the credential: `JTI=…` or `X509SHA256=…`.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The SHA-256 of a token: what is kept where a token must be recognized.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of `token`.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// What authentication looks at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The value of the first `Authorization` header.
    pub authorization: Option<&'a [u8]>,
    /// The certificate that the client proved to hold in the TLS handshake.
    pub certificate: Option<&'a ClientCertificate>,
    /// The audiences of which the credential must be meant for at least one; `None`: those of the API server.
    pub audiences: Option<&'a [String]>,
    /// The present moment.
    pub now: Timestamp,
    /// The live objects, for service accounts and what their tokens are bound to.
    pub lister: &'a dyn Lister,
}

/// A user with good credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// Who it is, with the group `system:authenticated`.
    pub user: UserInfo,
    /// The audiences, of those asked for, that the credential is meant for.
    pub audiences: Vec<String>,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
    /// For the audit log, such as `authentication.k8s.io/stale-token`.
    pub annotations: Vec<(&'static str, String)>,
}

/// No user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// No credentials; the caller may let the request pass as anonymous.
    #[error("no credentials")]
    NoCredentials {
        /// For `Warning` headers.
        warnings: Vec<String>,
    },
    /// Bad credentials: 401. The text is what a TokenReview says in `status.error`.
    #[error("{0}")]
    Invalid(String),
}

/// Finds out who asks.
pub struct Authenticator {
    token_file: TokenFile,
    accounts: Option<Arc<ServiceAccounts>>,
    api_audiences: Vec<String>,
}

impl Authenticator {
    /// An authenticator for `api_audiences` that knows the tokens of `token_file` and, if given, those of service
    /// accounts.
    pub fn new(
        token_file: TokenFile,
        accounts: Option<Arc<ServiceAccounts>>,
        api_audiences: Vec<String>,
    ) -> Self {
        Self { token_file, accounts, api_audiences }
    }

    /// The audiences that the API server itself accepts (`--api-audiences`).
    pub fn api_audiences(&self) -> &[String] {
        &self.api_audiences
    }

    /// Authenticates a request.
    pub fn authenticate(&self, facts: &Facts<'_>) -> Result<Authenticated, Unauthenticated> {
        if let Some(certificate) = facts.certificate {
            match certificate.user(facts.now) {
                Ok(Some(user)) => return Ok(known(user.clone(), Vec::new())),
                Ok(None) => {}
                Err(error) => return Err(Unauthenticated::Invalid(error.to_string())),
            }
        }
        let header = String::from_utf8_lossy(facts.authorization.unwrap_or_default());
        match bearer::parse(&header) {
            Bearer::Absent => Err(Unauthenticated::NoCredentials { warnings: Vec::new() }),
            Bearer::ExtraSpace => {
                Err(Unauthenticated::NoCredentials { warnings: vec![bearer::EXTRA_SPACE_WARNING.into()] })
            }
            Bearer::Token(token) => self.token(token, facts),
        }
    }

    fn token(&self, token: &str, facts: &Facts<'_>) -> Result<Authenticated, Unauthenticated> {
        let requested = facts.audiences.unwrap_or(&self.api_audiences);
        let digest = TokenDigest::of(token);
        // A static token is meant for the API server and nobody else (`authenticator.WrapAudienceAgnosticToken`).
        let common = intersect(&self.api_audiences, requested);
        if (!common.is_empty() || facts.audiences.is_none())
            && let Some(user) = self.token_file.user(&digest)
        {
            return Ok(known(user.clone(), common));
        }
        let found = match &self.accounts {
            Some(accounts) => accounts.authenticate(token, &digest, requested, facts.now, facts.lister),
            None => Ok(None),
        };
        match found {
            Ok(Some(mut found)) => {
                add_group(&mut found.user);
                Ok(found)
            }
            Ok(None) => Err(Unauthenticated::Invalid("invalid bearer token".into())),
            Err(error) => Err(Unauthenticated::Invalid(format!("[invalid bearer token, {error}]"))),
        }
    }
}

fn known(mut user: UserInfo, audiences: Vec<String>) -> Authenticated {
    add_group(&mut user);
    Authenticated { user, audiences, warnings: Vec::new(), annotations: Vec::new() }
}

/// Every authenticated user is in `system:authenticated` (`group.NewAuthenticatedGroupAdder`).
fn add_group(user: &mut UserInfo) {
    if !user.in_group(ALL_AUTHENTICATED) && !user.in_group(ALL_UNAUTHENTICATED) {
        user.groups.push(ALL_AUTHENTICATED.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{API, Objects, accounts, authenticator, now};

    fn ask(header: Option<&str>, audiences: Option<&[&str]>) -> Result<Authenticated, Unauthenticated> {
        let audiences = audiences.map(|list| list.iter().map(|a| a.to_string()).collect::<Vec<_>>());
        authenticator(&accounts()).authenticate(&Facts {
            authorization: header.map(str::as_bytes),
            certificate: None,
            audiences: audiences.as_deref(),
            now: now(),
            lister: &Objects::default(),
        })
    }

    #[test]
    fn no_credentials_are_not_bad_credentials() {
        for header in [None, Some(""), Some("Bearer"), Some("Basic YTpi")] {
            assert_eq!(
                ask(header, None),
                Err(Unauthenticated::NoCredentials { warnings: vec![] }),
                "{header:?}"
            );
        }
        let warnings = vec![bearer::EXTRA_SPACE_WARNING.to_string()];
        assert_eq!(ask(Some("Bearer  alicetoken"), None), Err(Unauthenticated::NoCredentials { warnings }));
        let invalid = Err(Unauthenticated::Invalid("invalid bearer token".into()));
        for token in ["garbage", "a.b.c", "alicetokens"] {
            assert_eq!(ask(Some(&format!("Bearer {token}")), None), invalid, "{token}");
        }
    }

    #[test]
    fn static_tokens_are_for_the_api_server_only() {
        for (audiences, expected) in [
            (None, Some(vec![API])),
            (Some(&[API][..]), Some(vec![API])),
            (Some(&["vault", API]), Some(vec![API])),
            (Some(&["vault"]), None),
        ] {
            match (ask(Some("Bearer alicetoken"), audiences), expected) {
                (Ok(found), Some(expected)) => {
                    assert_eq!(found.audiences, expected);
                    assert_eq!(found.user.groups, ["devs", "system:authenticated"]);
                }
                (Err(Unauthenticated::Invalid(text)), None) => assert_eq!(text, "invalid bearer token"),
                (found, _) => panic!("{found:?} for {audiences:?}"),
            }
        }
    }
}
