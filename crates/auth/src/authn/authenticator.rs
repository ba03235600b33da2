//! The authenticators one after the other.

use super::bearer::{self, Bearer};
use super::digest::TokenDigest;
use super::outcome::{Authenticated, Unauthenticated};
use super::service_account::ServiceAccounts;
use super::tokenfile::TokenFile;
use super::x509::ClientCertificate;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, UserInfo};
use fleetpass_token::verify::intersect;
use jiff::Timestamp;
use std::sync::Arc;

/// What authentication looks at: the credentials of one request, and the state against which they are checked.
#[derive(Clone, Copy)]
pub struct AuthenticationRequest<'a> {
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

/// Longer tokens are not looked at. kube-apiserver cannot be presented with one either: it is as much as Go's server takes of
/// headers (`http.DefaultMaxHeaderBytes`). Only a TokenReview could bring one here.
const MAX_TOKEN_BYTES: usize = 1 << 20;

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
    pub fn authenticate(
        &self,
        request: &AuthenticationRequest<'_>,
    ) -> Result<Authenticated, Unauthenticated> {
        // A certificate that names a user, is out of date or cannot be read decides; the token is not looked at then.
        if let Some(certificate) = request.certificate {
            match certificate.user(request.now) {
                Ok(Some(user)) => return Ok(authenticated(user.clone(), Vec::new())),
                // Without a common name it is no credential at all, and another may follow.
                Ok(None) => {}
                Err(error) => return Err(Unauthenticated::Invalid(error.to_string())),
            }
        }
        // A header that is not UTF-8 is not refused as such: no token matches it.
        let header = String::from_utf8_lossy(request.authorization.unwrap_or_default());
        match bearer::parse(&header) {
            Bearer::Absent => Err(Unauthenticated::NoCredentials { warnings: Vec::new() }),
            Bearer::ExtraSpace => {
                Err(Unauthenticated::NoCredentials { warnings: vec![bearer::EXTRA_SPACE_WARNING.into()] })
            }
            Bearer::Token(token) => self.token(token, request),
        }
    }

    /// Authenticates a bearer token.
    fn token(
        &self,
        token: &str,
        request: &AuthenticationRequest<'_>,
    ) -> Result<Authenticated, Unauthenticated> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Unauthenticated::Invalid("invalid bearer token".into()));
        }
        let requested = request.audiences.unwrap_or(&self.api_audiences);
        let digest = TokenDigest::of(token);
        // A static token is meant for the API server and nobody else (`authenticator.WrapAudienceAgnosticToken`). The second
        // condition is for a server without audiences, whose static tokens work for itself all the same.
        let common = intersect(&self.api_audiences, requested);
        if (!common.is_empty() || request.audiences.is_none())
            && let Some(user) = self.token_file.user(&digest)
        {
            return Ok(authenticated(user.clone(), common));
        }
        let found = match &self.accounts {
            Some(accounts) => accounts.authenticate(token, &digest, requested, request.now, request.lister),
            None => Ok(None),
        };
        match found {
            Ok(Some(mut found)) => {
                add_group(&mut found.user);
                Ok(found)
            }
            Ok(None) => Err(Unauthenticated::Invalid("invalid bearer token".into())),
            // Go's aggregate of the general error and the one of the authenticator that knew the token.
            Err(error) => Err(Unauthenticated::Invalid(format!("[invalid bearer token, {error}]"))),
        }
    }
}

/// The outcome for a user whose credential has neither warnings nor annotations.
fn authenticated(mut user: UserInfo, audiences: Vec<String>) -> Authenticated {
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
        authenticator(&accounts()).authenticate(&AuthenticationRequest {
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

    /// Only a TokenReview can bring such a token; a static one shows that it is not looked at.
    #[test]
    fn a_token_that_no_header_could_carry_is_not_looked_at() {
        for (length, found) in [(MAX_TOKEN_BYTES, true), (MAX_TOKEN_BYTES + 1, false)] {
            let token = "x".repeat(length);
            let file = TokenFile::parse(&format!("{token},alice,1")).unwrap();
            let authenticator = Authenticator::new(file, None, vec![API.into()]);
            let outcome = authenticator.authenticate(&AuthenticationRequest {
                authorization: Some(format!("Bearer {token}").as_bytes()),
                certificate: None,
                audiences: None,
                now: now(),
                lister: &Objects::default(),
            });
            assert_eq!(outcome.is_ok(), found, "{length}");
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
