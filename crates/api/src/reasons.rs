//! Every reason that a condition of an account can have: what it means, and what to do. docs/operations.md is written from
//! this list.

use crate::names;

/// A reason of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The condition.
    pub condition: &'static str,
    /// Its status with this reason, or both if it depends.
    pub status: &'static str,
    /// The reason, as the condition has it.
    pub reason: &'static str,
    /// What it means.
    pub means: &'static str,
    /// What to do about it; empty where there is nothing to do.
    pub remedy: &'static str,
}

const fn reason(
    (condition, status): (&'static str, &'static str),
    reason: &'static str,
    means: &'static str,
    remedy: &'static str,
) -> Reason {
    Reason { condition, status, reason, means, remedy }
}

const CREATED: &str = names::CONDITION_SECRET_CREATED;
const REPORTED: &str = names::CONDITION_TOKEN_REPORTED;
const EXPIRING: &str = names::CONDITION_TOKEN_EXPIRING;
const AVAILABLE: &str = names::CONDITION_AGENT_AVAILABLE;

/// All reasons, in the order in which to look for them.
pub const REASONS: &[Reason] = &[
    reason(
        (AVAILABLE, "False"),
        names::REASON_NO_AGENT,
        "no agent has been seen in the account's namespace",
        "is the account in the namespace of its cluster, and was the cluster joined (`fleetpass install cluster`)? Does the \
         agent run, with this `--cluster-name`? What does its log say of the hub?",
    ),
    reason(
        (AVAILABLE, "False"),
        names::REASON_AGENT_GONE,
        "there was an agent; the message says since when it is not seen any more",
        "look at the agent's process on the cluster, its `/readyz` and its log; tokens are good until they expire, and nobody \
         renews them",
    ),
    reason(
        (REPORTED, "True or False"),
        names::REASON_CLUSTER_UNREACHABLE,
        "the cluster's API server did not answer the agent, or the connection to it could not be trusted; the message says why",
        "follow the message: network and proxy between agent and cluster, the CA in the agent's kubeconfig of the cluster, the \
         clocks of both. Nothing else is needed: the agent tries again every 30 s at least",
    ),
    reason(
        (REPORTED, "True or False"),
        names::REASON_CLUSTER_REFUSED,
        "the cluster answered, but not with what was asked for; the message has the request and the answer",
        "401: renew the agent's credential for the cluster. 403: apply the manifests of `fleetpass install cluster --side \
         cluster` again; if an admission plugin says no, it is for its owner to say why",
    ),
    reason(
        (REPORTED, "True or False"),
        names::REASON_HUB_REFUSED,
        "the hub did not let the agent write or read what it has to; the message has the request and the answer",
        "401: renew the agent's credential for the hub. 403: apply the manifests of `fleetpass install cluster --side hub` \
         again; or a quota of the namespace is used up",
    ),
    reason(
        (REPORTED, "False"),
        names::REASON_NAME_CONFLICT,
        "a ServiceAccount on the cluster or a Secret on the hub has that name and belongs to somebody else",
        "name the account otherwise, or delete the object that the message names, if nobody needs it; the agent looks again \
         every 30 s",
    ),
    reason(
        (REPORTED, "False"),
        names::REASON_INVALID_VALIDITY,
        "`spec.rotation.validity` is no lifetime that a token can have",
        "set one from 10m on, as Go writes durations: a day is 24h",
    ),
    reason(
        (REPORTED, "False"),
        names::REASON_SERVICE_ACCOUNT_TERMINATING,
        "the ServiceAccount is being deleted, and a finalizer of somebody's holds it",
        "find out from `metadata.finalizers` of the ServiceAccount on the cluster who has to let go; after that it is made anew",
    ),
    reason(
        (REPORTED, "True or False"),
        names::REASON_SECRET_TERMINATING,
        "the Secret is being deleted, and a finalizer of somebody's holds it: no other token gets into it. True as long as the one \
         in it is good",
        "find out from `metadata.finalizers` of the Secret on the hub who has to let go; after that it is made anew",
    ),
    reason(
        (REPORTED, "False"),
        names::REASON_CLUSTER_NAME_IN_USE,
        "said by the agent, in its log and on `/readyz`, not by the account: another cluster works under this one's name",
        "give each agent a `--cluster-name` of its own. If the other cluster is gone for good, delete the Lease \
         `fleetpass-agent` in the namespace on the hub",
    ),
    reason(
        (EXPIRING, "True"),
        "(that of the failure)",
        "half of the last fifth of the token's lifetime is gone and it could not be renewed, or it has expired",
        "as for the same reason of `TokenReported`, soon: whoever uses the token is about to get 401",
    ),
    reason((CREATED, "False"), names::REASON_SECRET_MISSING, "there is no Secret", "see `TokenReported`"),
    reason((CREATED, "True"), names::REASON_SECRET_CREATED, "the Secret is there", ""),
    reason(
        (REPORTED, "True"),
        names::REASON_TOKEN_REPORTED,
        "the Secret holds a token that the cluster accepts",
        "",
    ),
    reason((EXPIRING, "False"), names::REASON_TOKEN_NOT_EXPIRING, "it was so once, and is no longer", ""),
    reason((AVAILABLE, "True"), names::REASON_AGENT_SEEN, "an agent looks after the account", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fmt::Write as _, path::Path};

    /// The table of docs/operations.md.
    fn table() -> String {
        let mut text = String::from(
            "| condition | status | reason | meaning | what to do |\n| --- | --- | --- | --- | --- |\n",
        );
        for Reason { condition, status, reason, means, remedy } in REASONS {
            let reason = if reason.starts_with('(') { (*reason).to_owned() } else { format!("`{reason}`") };
            let remedy = if remedy.is_empty() { "nothing" } else { remedy };
            writeln!(text, "| `{condition}` | {status} | {reason} | {means} | {remedy} |").unwrap();
        }
        text
    }

    /// `UPDATE_DOCS=1` writes it instead.
    #[test]
    fn the_document_has_this_list() {
        const BEGIN: &str = "<!-- reasons of conditions, written from crates/api/src/reasons.rs -->\n";
        const END: &str = "<!-- end of the reasons -->\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once(BEGIN).unwrap();
        let (there, tail) = rest.split_once(END).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", table())).unwrap();
            return;
        }
        assert!(there == table(), "docs/operations.md is not up to date: run this test with UPDATE_DOCS=1");
    }

    /// Whoever adds a reason to `names.rs` has to say here what it means.
    #[test]
    fn no_reason_is_left_out() {
        let named = include_str!("names.rs").lines().filter_map(|line| {
            let line = line.strip_prefix("pub const REASON_")?;
            line.split('"').nth(1)
        });
        let mut named: Vec<&str> = named.collect();
        let mut listed: Vec<&str> =
            REASONS.iter().map(|reason| reason.reason).filter(|reason| !reason.starts_with('(')).collect();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
        for Reason { reason, status, remedy, .. } in REASONS {
            // What is False asks for something, but for a warning that is over.
            let good =
                *status == "True" && !reason.starts_with('(') || *reason == names::REASON_TOKEN_NOT_EXPIRING;
            assert_eq!(remedy.is_empty(), good, "{reason}");
        }
    }
}
