//! What authentication finds out (`k8s.io/apiserver/pkg/authentication/authenticator.Response`).

use fleetpass_apimachinery::user::UserInfo;

/// The key in [`UserInfo::extra`] that names the credential: `JTI=…` or `X509SHA256=…`.
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

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
