//! Authentication: *who asks?* Client certificates, bearer tokens, service-account tokens.
//!
//! [`Authenticator`] tries them in the order of kube-apiserver (`pkg/kubeapiserver/authenticator/config.go`) and with its
//! messages: a client certificate first, then the bearer token, which is looked for in the token file and then verified as a
//! service-account token. Bad credentials refuse the request; none at all leave the choice to the caller, who may let it pass
//! as anonymous.
//!
//! All of it is CPU work without I/O: a hash of the token, a lookup in memory, and one signature check for a token that was
//! not seen lately. That check takes a fraction of a millisecond with RSA and ECDSA alike, and happens once while the
//! token is remembered, so it may run on the reactor. Making RSA signatures, which takes ten times as long and happens
//! for every new token, may not.

mod authenticator;
mod bearer;
mod cache;
mod digest;
pub mod oidc;
mod outcome;
mod service_account;
mod tokenfile;
mod x509;

pub use authenticator::{AuthenticationRequest, Authenticator};
pub use outcome::{Authenticated, Unauthenticated};
pub use service_account::{NoIssuer, ServiceAccountConfig, ServiceAccounts};
pub use tokenfile::{TokenFile, TokenFileError};
pub use x509::ClientCertificate;

use digest::TokenDigest;
