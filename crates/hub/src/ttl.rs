//! `spec.ttlSecondsAfterCreation`: accounts that are deleted when their time is over (feature `EphemeralIdentity`;
//! upstream `pkg/addon/commoncontroller/ephemeral_identity_controller.go`).

use crate::{Scope, control::control};
use fleetpass_api::{ManagedServiceAccount, clock::SharedClock};
use fleetpass_workqueue::Next;
use jiff::Timestamp;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Preconditions},
    runtime::{reflector::ObjectRef, watcher},
};
use prometheus_client::metrics::counter::Counter;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// The longest sleep: timers have an upper bound.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Time to the next attempt after one that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often the clock is looked at, and by how much it may differ from the time that has passed.
const LOOK: Duration = Duration::from_secs(1);
const DRIFT_MILLIS: i64 = 250;

/// When the account's time is over; `None` if it has no end, or has not been created yet.
fn end_of_life(account: &ManagedServiceAccount) -> Option<Timestamp> {
    let created = account.metadata.creation_timestamp.as_ref()?.0;
    let seconds = account.spec.ttl_seconds_after_creation?;
    Timestamp::from_second(created.as_second().checked_add(i64::from(seconds))?).ok()
}

/// How long to wait before the account is to be deleted: zero when it is due, `None` when it stays (because it has
/// no end, or is being deleted already).
fn remaining(account: &ManagedServiceAccount, now: Timestamp) -> Option<Duration> {
    if account.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let end = end_of_life(account)?;
    // Milliseconds, or an account would go up to a second early.
    let millis = end.as_millisecond().saturating_sub(now.as_millisecond());
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

struct Context {
    client: Client,
    clock: SharedClock,
    deleted: Counter,
}

/// Deletes accounts when their time is over, until shut down; counts them in `deleted`.
pub async fn run(
    client: Client,
    scope: Scope,
    clock: SharedClock,
    deleted: Counter,
    shutdown: CancellationToken,
) {
    let api: Api<ManagedServiceAccount> = scope.api(client.clone());
    let failed = |account: &ObjectRef<_>, error: &kube::Error| {
        tracing::warn!(account = account.name, %error, "an expired account could not be deleted");
    };
    let context = Arc::new(Context { client, clock, deleted });
    let reconcile = |account| reconcile(account, context.clone());
    let jumped = Notify::new();
    let work = control(api, watcher::Config::default(), RETRY, reconcile, failed, &jumped, shutdown);
    tokio::select! {
        () = work => {}
        () = watch_clock(&context.clock, &jumped) => {}
    }
}

/// Notifies when the clock was set, or the machine slept: timers measure what passes while it runs, and accounts end by the
/// clock.
async fn watch_clock(clock: &SharedClock, jumped: &Notify) {
    let mut before = (clock.now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = (clock.now(), Instant::now());
        if drift_millis(before, now).abs() > DRIFT_MILLIS {
            jumped.notify_one();
        }
        before = now;
    }
}

/// By how much more the clock moved than time passed.
fn drift_millis(before: (Timestamp, Instant), now: (Timestamp, Instant)) -> i64 {
    let moved = now.0.as_millisecond().saturating_sub(before.0.as_millisecond());
    let passed = now.1.saturating_duration_since(before.1).as_millis();
    moved.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX))
}

async fn reconcile(account: Arc<ManagedServiceAccount>, context: Arc<Context>) -> Result<Next, kube::Error> {
    let Some(wait) = remaining(&account, context.clock.now()) else { return Ok(Next::Wait) };
    if !wait.is_zero() {
        return Ok(Next::After(wait.min(LONGEST_WAIT)));
    }
    let (namespace, name) = (account.namespace().unwrap_or_default(), account.name_any());
    let api = Api::<ManagedServiceAccount>::namespaced(context.client.clone(), &namespace);
    // The UID only, as upstream: the agent writes the status often, and an account whose status changed in this moment
    // is over all the same.
    let only = Preconditions { uid: account.meta().uid.clone(), resource_version: None };
    match api.delete(&name, &DeleteParams::default().preconditions(only)).await {
        Ok(_) => {
            context.deleted.inc();
            tracing::info!(namespace, name, "deleted an account whose time was over");
        }
        // Gone, or another one of that name by now: its own event is on the way.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(error),
    }
    Ok(Next::Wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_noticed() {
        let at = |milli| Timestamp::from_millisecond(milli).unwrap();
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        for (moved, drift) in [(1_000, 0), (1_100, 100), (61_000, 60_000), (-3_599_000, -3_600_000)] {
            assert_eq!(drift_millis((at(0), start), (at(moved), later)), drift);
        }
    }

    #[test]
    fn an_account_ends_when_its_time_is_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut account = ManagedServiceAccount::new("cluster1", "robot");
        assert_eq!(remaining(&account, at(0)), None);
        account.spec.ttl_seconds_after_creation = Some(60);
        assert_eq!(remaining(&account, at(0)), None, "not created yet");
        account.metadata.creation_timestamp = Some(Time(at(1_000)));
        assert_eq!(remaining(&account, at(1_000)), Some(Duration::from_secs(60)));
        assert_eq!(remaining(&account, at(1_059)), Some(Duration::from_secs(1)));
        assert_eq!(remaining(&account, at(1_060)), Some(Duration::ZERO));
        assert_eq!(remaining(&account, at(9_999)), Some(Duration::ZERO));
        account.metadata.deletion_timestamp = Some(Time(at(1_001)));
        assert_eq!(remaining(&account, at(9_999)), None);
        account.metadata.deletion_timestamp = None;
        account.metadata.creation_timestamp = Some(Time(Timestamp::MAX));
        assert_eq!(remaining(&account, at(0)), None, "beyond time");
    }
}
