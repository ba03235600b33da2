//! Which control plane a side is: the UID of its namespace `kube-system`.

use crate::{
    calls::{CallError, Calls},
    side::Side,
};
use fleetpass_api::names;
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};

/// How long an answer is good for. A control plane that is set up anew behind the same address is another one; that is
/// rare, and whoever does it waits for longer than this anyway.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// The identity of one side, asked for now and then.
///
/// An async mutex, held while the side is asked: all accounts want to know at once when the agent starts, and one
/// question is enough.
#[derive(Debug)]
pub(crate) struct Identity {
    side: Side,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The last answer that said something.
    uid: Option<String>,
    /// When the side answered last.
    asked: Option<Instant>,
    /// When it did not, and what came instead.
    failed: Option<(Instant, CallError)>,
    /// That it does not say was said.
    told: bool,
}

impl Identity {
    pub(crate) fn of(side: Side) -> Self {
        Self { side, known: Mutex::default() }
    }

    /// The identity; `None` if the side does not say. A side that does not answer is an error, unless it said before.
    ///
    /// Cancel safety: what is dropped while it asks has changed nothing; the next caller asks.
    pub(crate) async fn read(&self, calls: &Calls) -> Result<Option<String>, CallError> {
        let began = Instant::now();
        let mut known = self.known.lock().await;
        if known.asked.is_some_and(|asked| asked.elapsed() < KEPT) {
            return Ok(known.uid.clone());
        }
        // Asked in vain while this one waited for its turn: each of many would wait for the same silence in turn.
        if let Some((at, error)) = &known.failed
            && *at >= began
        {
            return Err(error.clone());
        }
        match calls.identity(self.side).await {
            // A right that was taken away does not make the side another one.
            Ok(uid) => known.uid = uid.or(known.uid.take()),
            Err(_) if known.uid.is_some() => return Ok(known.uid.clone()),
            Err(error) => {
                known.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        }
        known.asked = Some(Instant::now());
        if known.uid.is_none() && !std::mem::replace(&mut known.told, true) {
            tracing::warn!(
                side = self.side.as_str(),
                "may not read the namespace {}, whose UID tells control planes apart: {}. Apply the manifests of \
                 `fleetpass install cluster` anew",
                names::NAMESPACE_OF_IDENTITY,
                match self.side {
                    Side::Hub =>
                        "nothing guards against the agent of another hub in the same agent namespace",
                    Side::Cluster => "nothing guards against the agent of another cluster under this name",
                }
            );
        }
        Ok(known.uid.clone())
    }
}
