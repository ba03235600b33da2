//! What should happen to one account now? Every rule of the agent is here, without I/O and without a clock.
//!
//! [`decide`] looks at what was observed and names the next step; the shell takes it, notes what came of it in
//! [`Observed`], and asks again, until there is nothing left to do. So every intermediate state is one that the
//! rules know, and a crash between two steps is an ordinary start.
//!
//! Guarantees, checked as properties in the tests:
//! - an object without our label is never minted for, overwritten or deleted;
//! - a good token is not replaced before 80 % of its lifetime and is replaced before it ends;
//! - taking the steps ends in a state that asks for no further step.

use crate::{
    observe::{Account, Minted, Observed, Projection, Service},
    report::{self, Held, Verdict},
    token::{Claims, Token},
};
use fleetpass_api::{GoDuration, account::Status, names};
use jiff::Timestamp;

/// What the rules depend on besides the objects.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The cluster: its namespace on the hub.
    pub cluster: String,
    /// Where the ServiceAccounts live on the cluster.
    pub agent_namespace: String,
    /// Audiences to request; empty for the cluster's default.
    pub audiences: Vec<String>,
    /// Seconds between two questions to the cluster whether a token is still good.
    pub review_seconds: i64,
    /// Seconds between two looks at an object that is in the way and that no watch shows.
    pub obstacle_seconds: i64,
}

/// The next step, and when to look again if nothing happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What to do now; `None` when all is as it should be, or must wait.
    pub step: Option<Step>,
    /// When to look again without being told; `None`: only when something changes.
    pub next: Option<Timestamp>,
}

/// One change to the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Create the ServiceAccount, with our label.
    CreateServiceAccount,
    /// Ask the cluster for a token.
    RequestToken(Wish, Cause),
    /// Ask the cluster whether the token in the Secret is still good.
    ReviewToken,
    /// Create or replace the Secret.
    WriteSecret(Source),
    /// Delete the ServiceAccount with this UID.
    DeleteServiceAccount {
        /// UID that it must still have.
        uid: String,
    },
    /// Delete the Secret with this UID.
    DeleteSecret {
        /// UID that it must still have.
        uid: String,
    },
    /// Replace the account's status.
    PatchStatus(Status),
}

/// Which token to write into the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The one that was just issued, and why.
    Minted(Cause),
    /// The one that is there: only what surrounds it is wrong.
    Present,
}

/// Why a token is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The Secret does not exist.
    SecretMissing,
    /// The Secret holds something that was not projected there.
    SecretAltered,
    /// The ServiceAccount was deleted and created again.
    ServiceAccountRecreated,
    /// The cluster does not accept the token.
    Rejected,
    /// Lifetime or audiences are not those that are wanted.
    RequestChanged,
    /// It is time.
    Due,
}

impl Cause {
    /// The cause as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretMissing => "secret_missing",
            Self::SecretAltered => "secret_altered",
            Self::ServiceAccountRecreated => "service_account_recreated",
            Self::Rejected => "rejected",
            Self::RequestChanged => "request_changed",
            Self::Due => "due",
        }
    }
}

/// The token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Lifetime to ask for; the cluster may shorten it.
    pub expiration_seconds: i64,
    /// Audiences; empty for the cluster's default.
    pub audiences: Vec<String>,
}

impl Wish {
    /// The wish as the Secret's annotation records it.
    pub fn record(&self) -> String {
        serde_json::json!({"audiences": self.audiences, "expirationSeconds": self.expiration_seconds})
            .to_string()
    }

    /// Whether a token that carries no record may be taken for an answer to this wish: as long as wanted, give or
    /// take a minute, and for the audiences that were named.
    fn is_met_by(&self, claims: &Claims) -> bool {
        let close = (claims.lifetime_seconds() - self.expiration_seconds).abs() <= 60;
        close && (self.audiences.is_empty() || self.audiences == claims.audiences)
    }
}

/// Bounds of `spec.expirationSeconds` (k8s.io/kubernetes, `pkg/apis/authentication/validation/validation.go`).
const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;

/// A token is due at 80 % of its lifetime, and up to 2 % later: accounts that were created together drift apart.
const DUE_PER_MYRIAD: i64 = 8_000;
const SPREAD_PER_MYRIAD: u64 = 200;

/// The next step for the account `name`, as it was `seen`, at `now`.
pub fn decide(name: &str, seen: &Observed, policy: &Policy, now: Timestamp) -> Plan {
    let account = match &seen.account {
        Some(account) if !account.terminating => account,
        _ => return clear_away(name, seen),
    };
    let report = |verdict: Verdict, next| Plan {
        step: report::status(name, account, &verdict, now).map(Step::PatchStatus),
        next,
    };
    let later = after(now, policy.obstacle_seconds);
    if let Some(message) = conflict(name, seen, policy) {
        return report(Verdict::conflict(held(seen, now), message), Some(later));
    }
    let wish = match wish(account, policy) {
        Ok(wish) => wish,
        Err(message) => {
            return report(Verdict::invalid_validity(held(seen, now), message), None);
        }
    };
    let service = match &seen.service_account {
        None => return Plan { step: Some(Step::CreateServiceAccount), next: None },
        Some(service) if service.terminating => {
            return report(Verdict::service_account_terminating(held(seen, now)), Some(later));
        }
        Some(service) => service,
    };
    match token_step(name, account, service, &wish, seen, policy, now) {
        TokenStep::Take(step) => Plan { step: Some(step), next: None },
        TokenStep::Wait => Plan { step: None, next: Some(later) },
        TokenStep::Good { expires_at, refreshed_at, next } => {
            report(Verdict::reported(expires_at, refreshed_at), Some(next))
        }
    }
}

/// The status after a step failed: what a user should know while the agent tries again. `None` when there is
/// nothing new to say, or nobody to say it to.
pub fn after_failure(
    name: &str,
    seen: &Observed,
    policy: &Policy,
    (reason, message): (&'static str, &str),
    now: Timestamp,
) -> Option<Status> {
    let account = seen.account.as_ref().filter(|account| !account.terminating)?;
    if conflict(name, seen, policy).is_some() {
        return None;
    }
    let verdict = Verdict::failing(held(seen, now), reason, message);
    report::status(name, account, &verdict, now)
}

/// The account is gone or going: its token is revoked by deleting the ServiceAccount, then the Secret goes.
fn clear_away(name: &str, seen: &Observed) -> Plan {
    let service = seen.service_account.as_ref().filter(|service| service.managed && !service.terminating);
    let secret = ours(seen).filter(|secret| secret.owned_by_name(name) && !secret.terminating());
    let step = match (service, secret) {
        (Some(service), _) => Some(Step::DeleteServiceAccount { uid: service.uid.clone() }),
        (None, Some(secret)) => Some(Step::DeleteSecret { uid: secret.uid().to_owned() }),
        (None, None) => None,
    };
    Plan { step, next: None }
}

/// Who stands in the way, if anybody. The upstream addon mints for any ServiceAccount of that name, so that
/// whoever may create a ManagedServiceAccount owns every account in the agent's namespace; not so here.
fn conflict(name: &str, seen: &Observed, policy: &Policy) -> Option<String> {
    let label = names::LABEL_IS_MANAGED;
    if seen.service_account.as_ref().is_some_and(|service| !service.managed) {
        let namespace = &policy.agent_namespace;
        return Some(format!(
            "ServiceAccount {namespace}/{name} of the cluster is not labelled {label}=true"
        ));
    }
    if seen.secret.as_ref().is_some_and(|secret| !secret.managed) {
        let namespace = &policy.cluster;
        return Some(format!(
            "Secret {namespace}/{name} of the hub is not of type Opaque with the label {label}=true"
        ));
    }
    None
}

/// The Secret, if it is ours.
fn ours(seen: &Observed) -> Option<&Projection> {
    seen.secret.as_ref().filter(|secret| secret.managed)
}

/// What the hub holds of ours.
fn held(seen: &Observed, now: Timestamp) -> Held {
    let secret = ours(seen);
    let claims = secret.and_then(|secret| secret.token.as_ref()?.claims());
    let good_until = claims.map(|claims| claims.expires_at).filter(|expires_at| *expires_at > now);
    Held { exists: secret.is_some(), good_until }
}

fn wish(account: &Account, policy: &Policy) -> Result<Wish, String> {
    let validity: GoDuration =
        account.validity.parse().map_err(|error| format!("spec.rotation.validity: {error}"))?;
    let expiration_seconds = validity.as_secs();
    if !(SHORTEST..=LONGEST).contains(&expiration_seconds) {
        return Err(format!(
            "spec.rotation.validity: {validity} is {expiration_seconds} s; a token lives {SHORTEST} to {LONGEST} s"
        ));
    }
    Ok(Wish { expiration_seconds, audiences: policy.audiences.clone() })
}

/// The record of the token that is wanted; `None` when the account asks for what no cluster grants.
pub(crate) fn wanted_record(seen: &Observed, policy: &Policy) -> Option<String> {
    wish(seen.account.as_ref()?, policy).ok().map(|wish| wish.record())
}

enum TokenStep {
    Take(Step),
    Wait,
    Good { expires_at: Timestamp, refreshed_at: Timestamp, next: Timestamp },
}

/// The rules about the token and its Secret, once nothing stands in the way.
fn token_step(
    name: &str,
    account: &Account,
    service: &Service,
    wish: &Wish,
    seen: &Observed,
    policy: &Policy,
    now: Timestamp,
) -> TokenStep {
    if seen.secret.as_ref().is_some_and(Projection::terminating) {
        return TokenStep::Wait;
    }
    let judged = judge(name, account, service, wish, seen, policy, now);
    let write = |source| match &seen.secret {
        Some(secret) if secret.immutable => Step::DeleteSecret { uid: secret.uid().to_owned() },
        _ => Step::WriteSecret(source),
    };
    match judged {
        Err(cause) => {
            let minted = seen.memory.minted.as_ref();
            let usable = minted.is_some_and(|minted| is_usable(minted, name, service, wish, policy, now));
            TokenStep::Take(if usable {
                write(Source::Minted(cause))
            } else {
                Step::RequestToken(wish.clone(), cause)
            })
        }
        Ok(Good { secret, .. }) if !is_tidy(secret, name, account, wish, &seen.ca) => {
            TokenStep::Take(write(Source::Present))
        }
        Ok(Good { token, claims, due, refreshed_at, .. }) => {
            let spread = spread(&[name, &account.uid, "review"], 1_000) as i64;
            let interval = policy.review_seconds - policy.review_seconds * spread / 10_000;
            let reviewed = seen.memory.review.filter(|review| review.token == token.fingerprint());
            match reviewed.map(|review| (review.at, after(review.at, interval))) {
                Some((at, again)) if at <= now && now < again => {
                    TokenStep::Good { expires_at: claims.expires_at, refreshed_at, next: due.min(again) }
                }
                _ => TokenStep::Take(Step::ReviewToken),
            }
        }
    }
}

struct Good<'a> {
    secret: &'a Projection,
    token: &'a Token,
    claims: &'a Claims,
    due: Timestamp,
    refreshed_at: Timestamp,
}

/// Whether the token in the Secret may stay, or why it must be replaced.
fn judge<'a>(
    name: &str,
    account: &Account,
    service: &Service,
    wish: &Wish,
    seen: &'a Observed,
    policy: &Policy,
    now: Timestamp,
) -> Result<Good<'a>, Cause> {
    let secret = seen.secret.as_ref().ok_or(Cause::SecretMissing)?;
    let token = secret.token.as_ref().ok_or(Cause::SecretAltered)?;
    if seen.memory.projected.is_some_and(|(projected, _)| projected != token.fingerprint()) {
        return Err(Cause::SecretAltered);
    }
    let claims = made_for(token, name, service, policy)?;
    if seen.memory.review.is_some_and(|review| review.token == token.fingerprint() && !review.accepted) {
        return Err(Cause::Rejected);
    }
    let wanted = match secret.record() {
        Some(record) => record == wish.record(),
        None => wish.is_met_by(claims),
    };
    if !wanted {
        return Err(Cause::RequestChanged);
    }
    let projected_at = projected_at(token, seen);
    let due = due(claims, projected_at, now, spread(&[name, &account.uid], SPREAD_PER_MYRIAD + 1));
    if now >= due {
        return Err(Cause::Due);
    }
    let refreshed_at = projected_at.unwrap_or_else(|| reported_refresh(name, account, claims));
    Ok(Good { secret, token, claims, due, refreshed_at })
}

/// The claims of a token that was made for this very ServiceAccount.
fn made_for<'a>(
    token: &'a Token,
    name: &str,
    service: &Service,
    policy: &Policy,
) -> Result<&'a Claims, Cause> {
    let claims = token.claims().ok_or(Cause::SecretAltered)?;
    if claims.subject != names::service_account_user(&policy.agent_namespace, name) {
        return Err(Cause::SecretAltered);
    }
    if claims.account_uid != service.uid {
        return Err(Cause::ServiceAccountRecreated);
    }
    Ok(claims)
}

/// Why a token that the cluster just issued cannot be used, if it cannot.
pub(crate) fn refuse_issued(
    token: &Token,
    name: &str,
    service: &Service,
    policy: &Policy,
) -> Option<&'static str> {
    match made_for(token, name, service, policy) {
        Ok(_) => None,
        Err(Cause::ServiceAccountRecreated) => Some("the token is of another ServiceAccount of that name"),
        Err(_) => Some("the token is no service-account token for this account"),
    }
}

/// Whether a token that waits to be projected still is the one to project: it has half of its life before it.
fn is_usable(
    minted: &Minted,
    name: &str,
    service: &Service,
    wish: &Wish,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    let fresh = |claims: &Claims| minted.at <= now && now < after(minted.at, claims.lifetime_seconds() / 2);
    minted.record == wish.record() && made_for(&minted.token, name, service, policy).is_ok_and(fresh)
}

/// When this agent projected this very token, if it did and remembers.
fn projected_at(token: &Token, seen: &Observed) -> Option<Timestamp> {
    seen.memory.projected.filter(|(projected, _)| *projected == token.fingerprint()).map(|(_, at)| at)
}

/// When the token was last renewed, as it was reported or as the token says itself.
fn reported_refresh(name: &str, account: &Account, claims: &Claims) -> Timestamp {
    let reported = account.status.token_secret_ref.as_ref().filter(|reference| reference.name == name);
    reported.map_or(claims.issued_at, |reference| reference.last_refresh_timestamp.0)
}

/// When a token is to be replaced.
///
/// At 80 % of its real lifetime, plus the account's share of the spread. But never within a tenth of its lifetime
/// after this agent projected it: where the clocks of cluster and agent disagree, the agent must not ask again and
/// again.
fn due(
    claims: &Claims,
    projected_at: Option<Timestamp>,
    now: Timestamp,
    spread_per_myriad: u64,
) -> Timestamp {
    let lifetime = claims.lifetime_seconds();
    let share = DUE_PER_MYRIAD + spread_per_myriad as i64;
    let regular = after(claims.issued_at, (i128::from(lifetime) * i128::from(share) / 10_000) as i64);
    match projected_at {
        Some(at) if at <= now => regular.max(after(at, lifetime / 10)),
        _ => regular,
    }
}

/// Whether all that surrounds the token in the Secret is as it should be.
fn is_tidy(secret: &Projection, name: &str, account: &Account, wish: &Wish, ca: &[u8]) -> bool {
    secret.ca.as_deref() == Some(ca)
        && !secret.extra_keys
        && secret.owned_by(name, &account.uid)
        && secret.record() == Some(wish.record().as_str())
}

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(time.as_second().saturating_add(seconds)).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// A number below `bound` that is always the same for the same parts (FNV-1a, so that it is the same in every
/// version of the program).
pub(crate) fn spread(parts: &[&str], bound: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits of FNV-1a mix poorly for short inputs.
    (hash ^ (hash >> 32)) % bound.max(1)
}

#[cfg(test)]
mod tests;
