//! Whether somebody looks after the accounts of a cluster: the rules of the condition `AgentAvailable`.
//!
//! An agent of ours renews a Lease in the cluster's namespace. The upstream addon's agent has none there; of it is known
//! what it wrote into the status of its accounts. So a Lease says that an agent is there or gone. Without one, a token
//! that is good says that somebody was there, and nothing is claimed; tokens that all have ended say that nobody is
//! any more; and where no account ever got one, nobody was.
//!
//! Leases are compared with how long this process saw them unchanged, as node leases are by kube-controller-manager:
//! the clock of the agent's machine may be wrong. Their times are for people.

use fleetpass_api::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};
use std::time::Duration;

/// How long an account may be without a token before that says something: agents take a second or two.
const GRACE: SignedDuration = SignedDuration::from_mins(2);
/// A Lease counts for as many times its length: one renewal that failed is no reason to say anything.
const TIMES: u32 = 2;
/// The longest that a Lease lasts, whatever it says, as for agents.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// The length of a Lease that does not say it.
const USUAL: Duration = Duration::from_secs(60);
/// The longest wait: accounts whose tokens are good for a year are looked at all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// A Lease as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// When the agent renewed it, by its own clock.
    pub(crate) renewed: Option<Timestamp>,
    /// How long it lasts.
    pub(crate) lasts: Duration,
}

impl Lease {
    pub(crate) fn new(renewed: Option<Timestamp>, seconds: Option<i32>) -> Self {
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        Self { renewed, lasts: seconds.map_or(USUAL, Duration::from_secs).min(LONGEST) }
    }

    /// How it stands, unchanged for so long; `witnessed`: this process saw a renewal.
    pub(crate) fn standing(&self, unchanged: Duration, witnessed: bool, now: Timestamp) -> Standing {
        let limit = self.lasts * TIMES;
        let left = limit.saturating_sub(unchanged);
        let recent = self.renewed.is_some_and(|at| now.duration_since(at).unsigned_abs() <= limit);
        match left {
            Duration::ZERO => Standing::Gone(self.renewed),
            // It may be that this process has just started, and that the agent went long ago.
            _ if !witnessed && !recent => Standing::Unsure(left),
            _ => Standing::Alive(left),
        }
    }
}

/// What a Lease says of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is at work, and this can be said for so long.
    Alive(Duration),
    /// It was there until then.
    Gone(Option<Timestamp>),
    /// It has to be seen: in so long there is an answer.
    Unsure(Duration),
}

/// What matters of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) created: Option<Timestamp>,
    /// When its token ends.
    pub(crate) expires: Option<Timestamp>,
    /// When its token was renewed.
    pub(crate) refreshed: Option<Timestamp>,
}

/// What is said in the condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Finding {
    pub(crate) available: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Finding {
    fn seen() -> Self {
        Self { available: true, reason: names::REASON_AGENT_SEEN, message: String::new() }
    }

    fn gone(cluster: &str, last: Option<Timestamp>) -> Self {
        let last = last.and_then(|at| Timestamp::from_second(at.as_second()).ok());
        let when = last.map_or_else(String::new, |at| format!(" at {at}"));
        let message = format!(
            "the agent of {cluster} was last seen{when}: tokens are no longer renewed; look at the agent on the cluster"
        );
        Self { available: false, reason: names::REASON_AGENT_GONE, message }
    }

    fn none(cluster: &str) -> Self {
        let message = format!(
            "no agent has been seen for {cluster}: nobody requests tokens; start one with --cluster-name {cluster}, or \
             create the account in the namespace of a cluster that has one"
        );
        Self { available: false, reason: names::REASON_NO_AGENT, message }
    }

    /// Whether a condition says this.
    pub(crate) fn is_said(&self, condition: &Condition) -> bool {
        condition.status == self.status()
            && condition.reason == self.reason
            && condition.message == self.message
    }

    fn status(&self) -> &'static str {
        if self.available { "True" } else { "False" }
    }
}

/// What is to be said of the accounts of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This, of all of them.
    All(Finding),
    /// This of those that were created at that time or before; of the others nothing yet.
    Older(Timestamp, Finding),
    /// Somebody is at work who does not say so: what was said stays, unless it was that nobody is.
    NotAbsent,
    /// Nothing: what was said stays.
    Nothing,
}

/// What is to be said, and after what time to look again.
pub(crate) fn judge(
    cluster: &str,
    lease: Option<Standing>,
    accounts: &[Facts],
    now: Timestamp,
) -> (Verdict, Duration) {
    match lease {
        Some(Standing::Alive(left)) => return (Verdict::All(Finding::seen()), left),
        Some(Standing::Gone(last)) => return (Verdict::All(Finding::gone(cluster, last)), LONGEST_WAIT),
        Some(Standing::Unsure(left)) => return (Verdict::Nothing, left),
        None => {}
    }
    let until = |at: Timestamp| {
        // A little later than that, or the look would come a moment too early.
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default() + Duration::from_secs(1);
        wait.min(LONGEST_WAIT)
    };
    if let Some(expires) = accounts.iter().filter_map(|account| account.expires).max() {
        if expires > now {
            return (Verdict::NotAbsent, until(expires));
        }
        let last = accounts.iter().filter_map(|account| account.refreshed).max();
        return (Verdict::All(Finding::gone(cluster, last)), LONGEST_WAIT);
    }
    let oldest = now.saturating_sub(GRACE).unwrap_or(Timestamp::MIN);
    let young = accounts.iter().filter_map(|account| account.created).filter(|created| *created > oldest);
    let next =
        young.min().map_or(LONGEST_WAIT, |created| until(created.saturating_add(GRACE).unwrap_or(now)));
    (Verdict::Older(oldest, Finding::none(cluster)), next)
}

impl Verdict {
    /// What is to be said of an account of which this is said now; `None` if that stays.
    pub(crate) fn of(&self, account: &Facts, said: Option<bool>) -> Option<Finding> {
        match self {
            Self::All(finding) => Some(finding.clone()),
            Self::Older(time, finding) => {
                account.created.is_some_and(|created| created <= *time).then(|| finding.clone())
            }
            Self::NotAbsent => (said == Some(false)).then(Finding::seen),
            Self::Nothing => None,
        }
    }
}

/// The merge patch with which an account's status says so, and all else that it said, provided that it still is at this
/// version; `None` if it says so already.
pub(crate) fn patch(
    version: Option<&str>,
    conditions: &[Condition],
    finding: &Finding,
    now: Timestamp,
) -> Option<Value> {
    let mut conditions = conditions.to_vec();
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut new = Condition {
        type_: names::CONDITION_AGENT_AVAILABLE.to_owned(),
        status: finding.status().to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.message.clone(),
        last_transition_time: Time(second),
        observed_generation: None,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == new.type_) {
        Some(known) if finding.is_said(known) => return None,
        Some(known) => {
            // As `meta.SetStatusCondition`: the time moves with the status only.
            if known.status == new.status {
                new.last_transition_time = known.last_transition_time.clone();
            }
            *known = new;
        }
        None => conditions.push(new),
    }
    // A merge patch replaces the list whole, so without the version what the agent writes meanwhile would be lost.
    Some(json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_says_what_was_seen_of_it() {
        let now = at(10_000);
        for (renewed, lasts, unchanged, witnessed, expected) in [
            (Some(10_000), Some(60), 0, false, Standing::Alive(seconds(120))),
            (Some(9_950), Some(60), 50, true, Standing::Alive(seconds(70))),
            (Some(9_881), Some(60), 119, true, Standing::Alive(seconds(1))),
            (Some(9_880), Some(60), 120, true, Standing::Gone(Some(at(9_880)))),
            // Its clock is an hour behind or ahead: what counts is that it is renewed.
            (Some(6_400), Some(60), 10, true, Standing::Alive(seconds(110))),
            (Some(13_600), Some(60), 10, true, Standing::Alive(seconds(110))),
            (Some(13_600), Some(60), 120, true, Standing::Gone(Some(at(13_600)))),
            // This process has just started.
            (Some(6_400), Some(60), 10, false, Standing::Unsure(seconds(110))),
            (None, Some(60), 10, false, Standing::Unsure(seconds(110))),
            (Some(6_400), Some(60), 120, false, Standing::Gone(Some(at(6_400)))),
            // What makes no sense is as usual, and what would last for ever does not.
            (Some(10_000), None, 0, false, Standing::Alive(seconds(120))),
            (Some(10_000), Some(0), 0, false, Standing::Alive(seconds(120))),
            (Some(10_000), Some(-5), 0, false, Standing::Alive(seconds(120))),
            (Some(10_000), Some(i32::MAX), 0, false, Standing::Alive(seconds(1_200))),
        ] {
            let standing = Lease::new(renewed.map(at), lasts).standing(seconds(unchanged), witnessed, now);
            assert_eq!(standing, expected, "{renewed:?} {lasts:?} {unchanged} {witnessed}");
        }
    }

    fn account(created: i64, expires: Option<i64>) -> Facts {
        let refreshed = expires.map(|expires| at(expires - 100));
        Facts { created: Some(at(created)), expires: expires.map(at), refreshed }
    }

    fn said(verdict: &Verdict, account: &Facts, before: Option<bool>) -> Option<(bool, &'static str)> {
        verdict.of(account, before).map(|finding| (finding.available, finding.reason))
    }

    #[test]
    fn what_is_said_follows_from_lease_and_tokens() {
        let now = at(10_000);
        let (old, new) = (account(0, None), account(9_999, None));
        let (good, over) = (account(0, Some(10_500)), account(0, Some(9_500)));
        let (seen, gone, none) =
            (Some((true, "AgentSeen")), Some((false, "AgentGone")), Some((false, "NoAgent")));
        let alive = Some(Standing::Alive(seconds(7)));
        let dead = Some(Standing::Gone(Some(at(9_000))));
        let unsure = Some(Standing::Unsure(seconds(9)));
        for (lease, accounts, before, expected, again) in [
            // A Lease decides, whatever the tokens are.
            (alive, vec![old, over], None, vec![seen, seen], 7),
            (dead, vec![good, new], Some(true), vec![gone, gone], 3_600),
            (unsure, vec![old, over], Some(false), vec![None, None], 9),
            // Without one, a good token says that somebody is there, or was not long ago.
            (None, vec![good, old], None, vec![None, None], 501),
            (None, vec![good, old], Some(false), vec![seen, seen], 501),
            (None, vec![good, old], Some(true), vec![None, None], 501),
            (None, vec![over, new], Some(true), vec![gone, gone], 3_600),
            // Nobody ever did anything here.
            (None, vec![old], None, vec![none], 3_600),
            (None, vec![new, old], None, vec![None, none], 120),
            (None, vec![new], None, vec![None], 120),
            (None, vec![Facts::default()], None, vec![None], 3_600),
        ] {
            let (verdict, next) = judge("c1", lease, &accounts, now);
            let findings: Vec<_> = accounts.iter().map(|account| said(&verdict, account, before)).collect();
            assert_eq!((findings, next), (expected, seconds(again)), "{lease:?} {accounts:?} {before:?}");
        }
        let (verdict, _) = judge("c1", dead, &[good], now);
        let message = verdict.of(&good, None).unwrap().message;
        assert!(message.contains("1970-01-01T02:30:00Z") && message.contains("c1"), "{message}");
    }

    #[test]
    fn only_its_own_condition_is_written_and_only_when_it_changes() {
        let other = Condition {
            type_: "TokenReported".into(),
            status: "True".into(),
            reason: "r".into(),
            message: "m".into(),
            last_transition_time: Time(at(5)),
            observed_generation: Some(3),
        };
        let written = |conditions: &[Condition], finding: &Finding, now| {
            patch(Some("7"), conditions, finding, at(now)).map(|patch| {
                assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
                assert_eq!(patch["status"].as_object().unwrap().len(), 1, "nothing else of the status");
                serde_json::from_value::<Vec<Condition>>(patch["status"]["conditions"].clone()).unwrap()
            })
        };
        let first = written(std::slice::from_ref(&other), &Finding::seen(), 10).unwrap();
        assert_eq!(first[0], other);
        assert_eq!((first[1].type_.as_str(), first[1].status.as_str()), ("AgentAvailable", "True"));
        assert_eq!(written(&first, &Finding::seen(), 20), None);
        let gone = written(&first, &Finding::gone("c1", None), 20).unwrap();
        assert_eq!((gone[0].clone(), gone.len()), (other, 2));
        assert_eq!((gone[1].status.as_str(), gone[1].last_transition_time.0), ("False", at(20)));
        let again = written(&gone, &Finding::none("c1"), 30).unwrap();
        assert_eq!(again[1].last_transition_time.0, at(20), "it was False before");
    }
}
