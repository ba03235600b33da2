//! Why a controller could not do something.

use crate::certificates::authority::AuthorityError;

/// Why a controller could not do something. It tries again by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, or could not be asked.
    #[error("{}", message(.0))]
    Kube(#[from] kube::Error),
    /// An owner is of a kind that the server does not know.
    #[error("the server has no resource for the owner kind {0}")]
    UnknownKind(String),
    /// No token could be signed.
    #[error("no token could be signed: {0}")]
    Token(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No certificate could be signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Something is not done yet.
    #[error("{0}")]
    Incomplete(String),
}

/// What went wrong, in the words of the server where it has some.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
