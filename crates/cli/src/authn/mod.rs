//! Credentials that do not stay the same: of an exec plugin, or in a file that somebody replaces.
//!
//! ```text
//!  request ─► Source::current ─► credential ─► Authorization, client certificate ─► server
//!                  ▲                                                                  │
//!                  └────────── Source::refused: asked for again, the request repeated ┘ 401
//! ```
//!
//! kube's client asks a plugin again when the time has come that the plugin named, and never because of a 401; a certificate
//! of a plugin it never replaces. The rules here are client-go's (`plugin/pkg/client/auth/exec/exec.go`,
//! `transport/token_source.go`), with these differences: a request that got 401 is sent once more with the new credential,
//! files are looked at more often, and a plugin that is called in vain is not called again at once.

mod plugin;
#[cfg(test)]
mod tests;

pub(crate) use plugin::Plugin;

use fleetpass_api::clock::SharedClock;
use http::HeaderValue;
use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long a token that was read from a file is taken for what is in the file.
const FILE_AGE: Duration = Duration::from_secs(5);
/// How long a plugin, or a file, is left alone that was asked because of a 401 and did not help, or that failed. Whoever
/// needs the credential tries again with a backoff of their own; this is for hundreds who need it at the same time.
const PAUSE: Duration = Duration::from_secs(2);

/// Who asks, as one request tells it. It is not printed: there is no `Debug`.
pub(crate) struct Credential {
    /// `Authorization`, marked as sensitive.
    pub(crate) header: Option<HeaderValue>,
    /// The certificate for connections, with its key.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
}

/// Where a credential comes from.
pub(crate) enum Origin {
    /// A program that prints it.
    Plugin(Box<Plugin>),
    /// A bearer token in a file. Until it could be read, and while it cannot be, the token before counts.
    TokenFile {
        path: PathBuf,
        /// The token in the kubeconfig itself.
        fallback: Option<Arc<Credential>>,
    },
}

/// There is no credential, and why; whose fault it is stands in it. It has no `source`, because whoever logs only the last
/// cause of an error shall still name the plugin or the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoCredential(String);

/// What a credential is taken from, and what was got last. For many requests at the same time it is asked once.
pub(crate) struct Source {
    origin: Origin,
    clock: SharedClock,
    /// Held while the origin is asked: all who need the answer wait for it.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    credential: Option<Arc<Credential>>,
    /// When it has to be asked for again.
    until: Until,
    /// When the origin was asked last that failed, or was asked because of a 401; with its failure.
    asked: Option<(Instant, Option<NoCredential>)>,
}

/// How long a credential is good without asking again.
#[derive(Default)]
enum Until {
    /// Until a server refuses it.
    #[default]
    Refused,
    /// The time that a plugin named.
    Time(Timestamp),
    /// What a file is believed.
    Age(Instant),
}

/// What an origin gave.
struct Answer {
    credential: Credential,
    until: Until,
}

impl Source {
    pub(crate) fn new(origin: Origin, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { origin, clock, state: Arc::default() })
    }

    /// The credential for the next request.
    ///
    /// # Errors
    ///
    /// There is none: the plugin is missing or fails, the file cannot be read.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<Credential>, NoCredential> {
        let state = self.state.clone().lock_owned().await;
        let good = match state.until {
            Until::Refused => true,
            // Without a margin, as client-go: plugins give the same credential until it ends.
            Until::Time(end) => self.clock.now() < end,
            Until::Age(end) => Instant::now() < end,
        };
        if let Some(credential) = state.credential.as_ref().filter(|_| good) {
            return Ok(credential.clone());
        }
        if let Some((_, Some(error))) = state.asked.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(error.clone());
        }
        self.renew(state, false).await
    }

    /// The server did not take this credential; another one, if there is one now.
    ///
    /// # Errors
    ///
    /// As [`Source::current`].
    pub(crate) async fn refused(
        self: &Arc<Self>,
        refused: &Arc<Credential>,
    ) -> Result<Option<Arc<Credential>>, NoCredential> {
        let state = self.state.clone().lock_owned().await;
        match &state.credential {
            // Somebody else was faster.
            Some(credential) if !Arc::ptr_eq(credential, refused) => return Ok(Some(credential.clone())),
            _ => {}
        }
        if let Some((_, outcome)) = state.asked.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return outcome.clone().map_or(Ok(None), Err);
        }
        let renewed = self.renew(state, true).await?;
        Ok(Some(renewed).filter(|renewed| !Arc::ptr_eq(renewed, refused)))
    }

    /// Asks the origin. In a task of its own: a plugin may take longer than the request that needs it, and would never
    /// come to an end if it ended with that.
    async fn renew(
        self: &Arc<Self>,
        mut state: OwnedMutexGuard<State>,
        refused: bool,
    ) -> Result<Arc<Credential>, NoCredential> {
        let this = self.clone();
        let asking = tokio::spawn(async move {
            let answer = match &this.origin {
                Origin::Plugin(plugin) => plugin.ask().await,
                Origin::TokenFile { path, .. } => read_token(path).await,
            };
            state.take(answer, &this.origin, refused)
        });
        asking.await.unwrap_or_else(|_| Err(NoCredential("asking for the credential was cut off".to_owned())))
    }
}

impl State {
    fn take(
        &mut self,
        answer: Result<Answer, NoCredential>,
        origin: &Origin,
        refused: bool,
    ) -> Result<Arc<Credential>, NoCredential> {
        let answer = match (answer, origin) {
            (Ok(answer), _) => answer,
            // kubelets and others remove such files before they write new ones; servers say whether the token is still good.
            (Err(error), Origin::TokenFile { fallback, .. }) => {
                let before = self.credential.clone().or_else(|| fallback.clone()).ok_or(error)?;
                self.until = Until::Age(Instant::now() + FILE_AGE);
                self.credential = Some(before.clone());
                return Ok(before);
            }
            (Err(error), Origin::Plugin(_)) => {
                self.asked = Some((Instant::now(), Some(error.clone())));
                return Err(error);
            }
        };
        self.until = answer.until;
        // What stays the same stays the same object, so that nothing is built anew for it.
        let next = match &self.credential {
            Some(before) if before.is(&answer.credential) => before.clone(),
            _ => Arc::new(answer.credential),
        };
        self.asked = refused.then(|| (Instant::now(), None));
        self.credential = Some(next.clone());
        Ok(next)
    }
}

impl Credential {
    /// From a token as it stands in a file or in the answer of a plugin.
    pub(crate) fn bearer(token: &str) -> Result<Self, NoCredential> {
        let text = Zeroizing::new(format!("Bearer {}", token.trim()));
        let mut header = HeaderValue::from_str(&text)
            .map_err(|_| NoCredential("the token has characters that no header may have".to_owned()))?;
        header.set_sensitive(true);
        Ok(Self { header: Some(header), identity: None })
    }

    fn is(&self, other: &Self) -> bool {
        let certificates =
            |credential: &Self| credential.identity.as_ref().map(|identity| identity.cert.clone());
        self.header == other.header && certificates(self) == certificates(other)
    }
}

async fn read_token(path: &PathBuf) -> Result<Answer, NoCredential> {
    let unusable =
        |why: String| NoCredential(format!("the token file {} cannot be used: {why}", path.display()));
    let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
    let text = text.map_err(|error| unusable(error.to_string()))?;
    if text.trim().is_empty() {
        return Err(unusable("it is empty".to_owned()));
    }
    let credential = Credential::bearer(&text).map_err(|NoCredential(why)| unusable(why))?;
    Ok(Answer { credential, until: Until::Age(Instant::now() + FILE_AGE) })
}
