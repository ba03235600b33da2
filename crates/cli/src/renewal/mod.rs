//! The agent's own credential for the hub: watched until it ends, and, if it is a client certificate, renewed before.
//!
//! # Flow
//! At two thirds of the certificate's life: make a key, ask the hub for a certificate of the same subject
//! (CertificateSigningRequest), wait until somebody approves it and the signer answers, look whether it is what was asked
//! for and whether the hub takes it, write both to where the old ones were. The agent notices that the file changed, as if
//! somebody else had written it, and goes on with it.
//!
//! ```text
//! rules     when, for how long, what is accepted, when to warn   pure
//! subject   the request                                          pure
//! edit      another certificate in a kubeconfig                  pure
//! place     files: found, read, written back
//! secret    the same, in the Secret that a pod's files come from
//! ask       the hub: request, approval, certificate
//! ```
//!
//! # Guarantees
//!
//! - The old credential stays until the hub was seen to take the new one.
//! - Killed at any moment, a start finds a pair that fits: the key is in memory only until both are written.
//! - Where it cannot work, the agent goes on: why is said once, tried again, and warned of when the end is near.
//!
//! # Caveats
//!
//! The first certificate is somebody else's to bring. Whoever renews this one too (Open Cluster Management's registration
//! agent) may do so at any time: what was written last and lives longer counts.

mod ask;
mod edit;
mod place;
mod rules;
mod secret;
mod subject;

use crate::clients::Source;
use anyhow::Context as _;
use ask::{Asked, Trouble};
use fleetpass_agent::{Handle, Side};
use fleetpass_api::clock::SharedClock;
use jiff::Timestamp;
use kube::Client;
use place::{Credential, Place};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a credential is looked at, which also bounds what a clock that is set can do.
const LOOK: Duration = Duration::from_secs(60);
/// Of a certificate's life, the part at whose end a warning comes at the latest.
const CERTIFICATE_SHARE: i32 = 4;
/// The same of a token's: kubelets renew theirs when a fifth is left, and nobody is to be warned of that.
const TOKEN_SHARE: i32 = 10;
/// Where a pod's token is.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A Secret on the cluster from which the files of the hub's kubeconfig come.
#[derive(Clone)]
pub(crate) struct SecretRef {
    /// A client of the cluster.
    pub(crate) client: Client,
    /// Its namespace: that of the pod.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

/// Keeps an eye on one side's credential.
#[derive(Clone)]
pub(crate) struct Watched {
    /// Which side.
    pub(crate) side: Side,
    /// Where the credential comes from.
    pub(crate) source: Source,
    /// Who tells others of it.
    pub(crate) handle: Handle,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Why it is not renewed, if there is a reason.
    trouble: Arc<Mutex<Option<String>>>,
}

/// Renews the credential of the hub.
pub(crate) struct Renewer {
    /// What is renewed.
    pub(crate) watched: Watched,
    /// The name of the cluster, for the name of the request.
    pub(crate) cluster: String,
    /// Where the files come from, if not from whoever writes files.
    pub(crate) secret: Option<SecretRef>,
}

/// Before kubeconfigs are read: brings to its end a renewal that was cut off when the process was killed. What cannot be
/// done is logged: the kubeconfigs may be good all the same.
pub(crate) async fn recover(source: &Source) {
    let Source::Files(paths) = source.clone() else { return };
    let recovered = tokio::task::spawn_blocking(move || place::recover(&paths)).await;
    if let Ok(Err(error)) = recovered {
        tracing::warn!("the renewal of a certificate was interrupted and cannot be completed: {error:#}");
    }
}

impl Watched {
    pub(crate) fn new(side: Side, source: Source, handle: Handle, clock: SharedClock) -> Self {
        Self { side, source, handle, clock, trouble: Arc::default() }
    }

    /// Tells when the credential ends, and warns when that is near, until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut warned = None;
        loop {
            let credential = self.find().await;
            if let Ok(credential) = &credential {
                self.tell(credential, &mut warned);
            }
            if pause(LOOK, &stop).await {
                return;
            }
        }
    }

    /// `warned` is the end of which was warned last.
    fn tell(&self, credential: &Credential, warned: &mut Option<Timestamp>) {
        let (begins, ends, share) = match credential {
            Credential::Certificate(_, identity) => {
                let validity = identity.validity();
                (validity.not_before, validity.not_after, CERTIFICATE_SHARE)
            }
            Credential::Token(begins, ends) => (*begins, *ends, TOKEN_SHARE),
            Credential::Other => return self.handle.credential_ends(self.side, None, None),
        };
        let now = self.clock.now();
        let warning = (now >= rules::warn_at(begins, ends, share)).then(|| {
            let why = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let why = why.unwrap_or_else(|| "nobody has renewed it yet".into());
            let when = if now < ends { "ends" } else { "ended" };
            format!("the agent's credential for the {} {when} at {ends}: {why}", self.side.as_str())
        });
        match &warning {
            None => *warned = None,
            Some(warning) if warned.replace(ends) != Some(ends) => tracing::warn!("{warning}"),
            Some(_) => {}
        }
        self.handle.credential_ends(self.side, Some(ends), warning);
    }

    async fn find(&self) -> anyhow::Result<Credential> {
        let source = self.source.clone();
        let found = tokio::task::spawn_blocking(move || match &source {
            Source::Files(paths) => place::find(paths),
            Source::InCluster => place::token_file(Path::new(POD_TOKEN)),
        });
        found.await.context("the credential could not be looked at")?
    }

    /// Says why there is no renewal, if it was not said last.
    fn complain(&self, trouble: &Trouble) {
        let text = trouble.to_string();
        let mut said = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() == Some(&text) {
            tracing::debug!(why = text, "the agent's certificate still cannot be renewed");
        } else {
            tracing::warn!(why = text, "the agent's certificate cannot be renewed now; trying again");
            *said = Some(text);
        }
    }

    fn all_is_well(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What became of an attempt.
enum Renewed {
    /// The new certificate is where the old one was, and ends then.
    Until(Timestamp),
    /// The Secret has one already, and the file does not have it yet.
    OnItsWay,
}

impl Renewer {
    /// Renews until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.work() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Cancel safety: dropped anywhere it leaves at most a request on the hub that nobody collects. Writing is a task of its
    /// own, which goes on to its end.
    async fn work(&self) {
        let mut failures = 0;
        loop {
            let wait = match self.watched.find().await {
                Ok(Credential::Certificate(place, identity)) => {
                    let (validity, now) = (identity.validity(), self.watched.clock.now());
                    let due = rules::renew_at(validity, rules::spread(&identity.chain()[0]));
                    if now < due {
                        failures = 0;
                        Duration::try_from(due.duration_since(now)).unwrap_or_default()
                    } else {
                        let left = validity.not_after.duration_since(now);
                        self.attempt(place, &identity, &mut failures, left).await
                    }
                }
                // Tokens and the like are renewed by whoever gave them; what cannot be read is complained of by the loader.
                _ => LOOK,
            };
            // At most a look's time even when the next renewal is months away: the file, or the clock, may change.
            tokio::time::sleep(if failures == 0 {
                wait.clamp(Duration::from_millis(10), LOOK)
            } else {
                wait
            })
            .await;
        }
    }

    /// One attempt, and how long to wait after it.
    async fn attempt(
        &self,
        place: Place,
        identity: &crate::pki::Identity,
        failures: &mut u32,
        left: jiff::SignedDuration,
    ) -> Duration {
        match self.renew(place, identity).await {
            Ok(Renewed::Until(ends)) => {
                self.watched.all_is_well();
                tracing::info!(%ends, "renewed the agent's certificate");
                *failures = 0;
                LOOK
            }
            Ok(Renewed::OnItsWay) => LOOK,
            Err(trouble) => {
                self.watched.complain(&trouble);
                *failures += 1;
                rules::retry_after(*failures, left, ask::random())
            }
        }
    }

    async fn renew(&self, place: Place, old: &crate::pki::Identity) -> Result<Renewed, Trouble> {
        // Whether it could be kept, before it is asked for.
        if let Some(secret) = &self.secret {
            if secret.prepare(&place, old).await.map_err(Trouble::Keep)? {
                return Ok(Renewed::OnItsWay);
            }
        } else if place.is_on_volume() {
            return Err(Trouble::Volume);
        } else {
            let place = place.clone();
            blocking(move || Ok(place.require_writable()?)).await.map_err(Trouble::Keep)?;
        }
        // As it is now: an agent that runs for months has seen other authorities and proxies come.
        let hub = self.watched.source.load().await.map_err(Trouble::Keep)?;
        let asked = Asked::new(old).map_err(Trouble::Keep)?;
        let new = asked
            .answer(&hub, &self.cluster, &self.watched.clock, |trouble| self.watched.complain(trouble))
            .await?;
        let ends = new.validity().not_after;
        let new = Arc::new(new);
        // The certificate is there and only has to be kept: a full disk is waited for, and does not cost a request each time.
        for failures in 1.. {
            let kept = match &self.secret {
                Some(secret) => secret.write(&place, &new).await,
                None => {
                    let (place, new) = (place.clone(), new.clone());
                    blocking(move || place.write(&new)).await
                }
            };
            let Err(error) = kept else { break };
            let left = old.validity().not_after.duration_since(self.watched.clock.now());
            if !left.is_positive() {
                return Err(Trouble::Keep(error));
            }
            self.watched.complain(&Trouble::Keep(error));
            tokio::time::sleep(rules::retry_after(failures, left, ask::random())).await;
        }
        Ok(Renewed::Until(ends))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a task ended early")?
}

/// Waits; true if it was told to stop meanwhile.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        () = stop.cancelled() => true,
    }
}

#[cfg(test)]
mod tests;
