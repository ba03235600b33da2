//! What a user reads: the account's status, rebuilt from a verdict and compared with what is there.

use crate::observe::Account;
use fleetpass_api::{
    account::{SecretRef, Status},
    names,
};
use fleetpass_apimachinery::time::whole_seconds;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What there is to say about an account.
pub(crate) struct Verdict {
    secret_created: Finding,
    token_reported: Finding,
    /// That the token comes to its end, and why it was not replaced; `None` as long as there is time.
    expiring: Option<Finding>,
    token: TokenFact,
}

/// What the hub holds of ours for an account.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// Whether our Secret exists.
    pub(crate) exists: bool,
    /// When the token in it expires, if that is still to come.
    pub(crate) good_until: Option<Timestamp>,
    /// What is known of that token's being accepted.
    pub(crate) accepted: Accepted,
    /// When the token in it expires or expired, if half of the time is gone in which it should have been replaced.
    pub(crate) expiring: Option<Timestamp>,
}

/// Whether the cluster takes a token whose time is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// As far as is known.
    Yes,
    /// It said something that excludes it.
    No,
    /// It does not let the agent see, or there was no word since it said no.
    Unknown,
}

impl Held {
    /// Until when the token is good; `None` if it is not, or is not known to be.
    fn good(self) -> Option<Timestamp> {
        self.good_until.filter(|_| self.accepted == Accepted::Yes)
    }

    /// What there is to say about a token that nears its end, and cannot be replaced because of that.
    fn expiring_because(self, reason: &'static str, cause: &str) -> Option<Finding> {
        let end = whole_seconds(self.expiring?);
        let verb = if self.good_until.is_some() { "expires" } else { "expired" };
        let message = format!("the token {verb} at {end} and could not be renewed: {cause}");
        Some(Finding { status: true, reason, message })
    }
}

struct Finding {
    status: bool,
    reason: &'static str,
    message: String,
}

enum TokenFact {
    /// This token is in the Secret.
    Reported { expires_at: Timestamp, refreshed_at: Timestamp },
    /// Whatever was said about the token stays.
    Unchanged,
    /// There is no token of ours.
    None,
}

impl Verdict {
    /// All is well.
    pub(crate) fn reported(expires_at: Timestamp, refreshed_at: Timestamp) -> Self {
        Self {
            secret_created: Finding::secret(true),
            token_reported: Finding {
                status: true,
                reason: names::REASON_TOKEN_REPORTED,
                message: String::new(),
            },
            expiring: None,
            token: TokenFact::Reported { expires_at, refreshed_at },
        }
    }

    /// Somebody else's object is in the way.
    pub(crate) fn conflict(held: Held, message: String) -> Self {
        Self::blocked(held, names::REASON_NAME_CONFLICT, message)
    }

    /// The account asks for what no cluster grants.
    pub(crate) fn invalid_validity(held: Held, message: String) -> Self {
        Self::blocked(held, names::REASON_INVALID_VALIDITY, message)
    }

    /// The ServiceAccount is on its way out.
    pub(crate) fn service_account_terminating(held: Held) -> Self {
        let message = "the ServiceAccount is being deleted; a finalizer holds it".to_owned();
        Self::blocked(held, names::REASON_SERVICE_ACCOUNT_TERMINATING, message)
    }

    /// The Secret is on its way out: no other token gets into it, and none into another of its name.
    pub(crate) fn secret_terminating(held: Held) -> Self {
        let message = "the Secret is being deleted; a finalizer holds it";
        Self::failing(held, names::REASON_SECRET_TERMINATING, message)
    }

    fn blocked(held: Held, reason: &'static str, message: String) -> Self {
        Self {
            secret_created: Finding::secret(held.exists),
            expiring: held.expiring_because(reason, &message),
            token_reported: Finding { status: false, reason, message },
            // The token in our Secret goes on working until it expires, whatever is in the way of the next one. Without
            // a Secret of ours there is nothing to point at, least of all somebody else's.
            token: if held.exists { TokenFact::Unchanged } else { TokenFact::None },
        }
    }

    /// A step failed and will be tried again. As long as the token is known to be good, it is reported; the reason says
    /// what is wrong.
    pub(crate) fn failing(held: Held, reason: &'static str, message: &str) -> Self {
        let expiring = held.expiring_because(reason, message);
        let message = match (held.good_until, held.accepted) {
            (None, _) => message.to_owned(),
            (Some(until), Accepted::Yes) => {
                format!("{message}; the token is good until {}", whole_seconds(until))
            }
            (Some(_), Accepted::No) => {
                format!("{message}; the cluster no longer accepts the token in the Secret")
            }
            (Some(_), Accepted::Unknown) => {
                format!("{message}; whether the cluster still accepts the token in the Secret is not known")
            }
        };
        Self {
            secret_created: Finding::secret(held.exists),
            token_reported: Finding { status: held.good().is_some(), reason, message },
            expiring,
            token: TokenFact::Unchanged,
        }
    }
}

impl Finding {
    fn secret(exists: bool) -> Self {
        let reason = if exists { names::REASON_SECRET_CREATED } else { names::REASON_SECRET_MISSING };
        Self { status: exists, reason, message: String::new() }
    }

    fn not_expiring() -> Self {
        Self { status: false, reason: names::REASON_TOKEN_NOT_EXPIRING, message: String::new() }
    }
}

/// The account's status as it should be; `None` if that is what it is.
pub(crate) fn status(name: &str, account: &Account, verdict: &Verdict, now: Timestamp) -> Option<Status> {
    // Changed, not made anew: conditions of other types are somebody else's and stay.
    let mut status = account.status.clone();
    set(&mut status.conditions, names::CONDITION_SECRET_CREATED, &verdict.secret_created, now);
    set(&mut status.conditions, names::CONDITION_TOKEN_REPORTED, &verdict.token_reported, now);
    let expiring = names::CONDITION_TOKEN_EXPIRING;
    match &verdict.expiring {
        Some(finding) => set(&mut status.conditions, expiring, finding, now),
        // Not taken away: that it was so, and until when, is worth knowing. Not added either, so that an account that is
        // well looks as the upstream addon's agent leaves it.
        None if status.condition(expiring).is_some() => {
            set(&mut status.conditions, expiring, &Finding::not_expiring(), now);
        }
        None => {}
    }
    match verdict.token {
        TokenFact::Unchanged => {}
        TokenFact::None => {
            status.expiration_timestamp = None;
            status.token_secret_ref = None;
        }
        TokenFact::Reported { expires_at, refreshed_at } => {
            status.expiration_timestamp = Some(Time(whole_seconds(expires_at)));
            let last_refresh_timestamp = Time(whole_seconds(refreshed_at));
            status.token_secret_ref = Some(SecretRef { name: name.to_owned(), last_refresh_timestamp });
        }
    }
    (status != account.status).then_some(status)
}

/// Sets a condition as `meta.SetStatusCondition` does (k8s.io/apimachinery, `pkg/api/meta/conditions.go`): the
/// transition time moves only with the status; conditions of others stay.
fn set(conditions: &mut Vec<Condition>, type_: &str, finding: &Finding, now: Timestamp) {
    let status = if finding.status { "True" } else { "False" };
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(condition) => {
            if condition.status != status {
                condition.last_transition_time = Time(whole_seconds(now));
            }
            condition.status = status.to_owned();
            condition.reason = finding.reason.to_owned();
            condition.message.clone_from(&finding.message);
        }
        None => conditions.push(Condition {
            last_transition_time: Time(whole_seconds(now)),
            message: finding.message.clone(),
            observed_generation: None,
            reason: finding.reason.to_owned(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        }),
    }
}

/// The merge patch (RFC 7386) that makes `status` the account's, provided that it still is what was read: a merge patch
/// replaces the list of conditions whole, so one that somebody else wrote meanwhile would be lost without the
/// precondition.
pub(crate) fn patch(account: &Account, status: &Status) -> serde_json::Value {
    serde_json::json!({
        "metadata": {"resourceVersion": account.resource_version},
        "status": {
            "conditions": status.conditions,
            // What is absent has to be null: a member that a merge patch does not name stays.
            "expirationTimestamp": status.expiration_timestamp,
            "tokenSecretRef": status.token_secret_ref,
        },
    })
}
