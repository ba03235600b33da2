//! What becomes of an object whose owners may be gone: a function of what the server just said.
//! (`attemptToDeleteItem` and `classifyReferences` in `pkg/controller/garbagecollector/garbagecollector.go`.)

use super::graph::{FOREGROUND, ORPHAN};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

/// What the server says about an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// It exists.
    Solid,
    /// There is no object of that name, or it is another one.
    Gone,
    /// It exists, is being deleted, and waits for its dependents.
    Waiting,
    /// It is gone, and its dependents were to stay: it was deleted with the policy to orphan them.
    Orphaning,
}

/// What is to be done with an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing.
    Keep,
    /// Take the references to these UIDs away: other owners keep it.
    Release(Vec<String>),
    /// Delete it.
    Delete(PropagationPolicy),
    /// Delete it in the foreground; first let its owners go on without it: they wait for each other in a circle.
    BreakCircle,
}

/// What is to be done with the object `latest`, whose owners are in these states, in the order of its references.
/// `has_dependents` and `dependent_waits` are what the graph knows of its dependents.
pub(crate) fn judge(
    latest: &ObjectMeta,
    owners: &[(&OwnerReference, OwnerState)],
    has_dependents: bool,
    dependent_waits: bool,
) -> Verdict {
    // The order of the cases is that of `attemptToDeleteItem`.
    if owners.is_empty() || latest.deletion_timestamp.is_some() {
        return Verdict::Keep;
    }
    let any = |state| owners.iter().any(|(_, owner)| *owner == state);
    // As if it had been told when the owner was still there. What becomes of it without the reference is decided next.
    if any(OwnerState::Orphaning) {
        let left = owners.iter().filter(|(_, state)| *state == OwnerState::Orphaning);
        return Verdict::Release(left.map(|(owner, _)| owner.uid.clone()).collect());
    }
    if any(OwnerState::Solid) {
        let leaving = owners.iter().filter(|(_, state)| *state != OwnerState::Solid);
        let leaving: Vec<_> = leaving.map(|(owner, _)| owner.uid.clone()).collect();
        return if leaving.is_empty() { Verdict::Keep } else { Verdict::Release(leaving) };
    }
    if any(OwnerState::Waiting) && has_dependents {
        // The owner's deletion is in the foreground, so is that of its dependents.
        return if dependent_waits {
            Verdict::BreakCircle
        } else {
            Verdict::Delete(PropagationPolicy::Foreground)
        };
    }
    // Nobody said how this object is to go, so its finalizers say it: they were put there by whoever wanted it so.
    let has = |finalizer: &str| latest.finalizers.iter().flatten().any(|held| held == finalizer);
    Verdict::Delete(if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

/// The state of the owner that `reference` names, given what the server has under that name and whether that owner's dependents
/// were orphaned.
pub(crate) fn owner_state(
    reference: &OwnerReference,
    found: Option<&ObjectMeta>,
    was_orphaned: bool,
) -> OwnerState {
    match found {
        Some(owner) if owner.uid.as_ref() == Some(&reference.uid) => {
            let waits = owner.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
            if owner.deletion_timestamp.is_some() && waits { OwnerState::Waiting } else { OwnerState::Solid }
        }
        _ if was_orphaned => OwnerState::Orphaning,
        _ => OwnerState::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::OwnerState::{Gone, Orphaning, Solid, Waiting};
    use super::*;
    use serde_json::json;

    fn reference(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), ..OwnerReference::default() }
    }

    fn held(finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta {
            finalizers: Some(finalizers.iter().map(|held| (*held).into()).collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn verdicts() {
        use PropagationPolicy::{Background, Foreground, Orphan};
        let free = held(&["example.com/mine"]);
        let table = [
            (&free, vec![], false, false, Verdict::Keep),
            (&free, vec![Solid, Solid], false, false, Verdict::Keep),
            (&free, vec![Solid, Gone, Waiting], false, false, Verdict::Release(vec!["1".into(), "2".into()])),
            (&free, vec![Gone], true, true, Verdict::Delete(Background)),
            (&free, vec![Gone, Waiting], false, false, Verdict::Delete(Background)),
            (&free, vec![Gone, Waiting], true, false, Verdict::Delete(Foreground)),
            (&free, vec![Waiting], true, true, Verdict::BreakCircle),
            (&free, vec![Gone, Orphaning], false, false, Verdict::Release(vec!["1".into()])),
            (&held(&[ORPHAN, FOREGROUND]), vec![Gone], false, false, Verdict::Delete(Orphan)),
            (&held(&[FOREGROUND]), vec![Gone], false, false, Verdict::Delete(Foreground)),
        ];
        for (latest, states, has_dependents, dependent_waits, expected) in table {
            let references: Vec<_> = (0..states.len()).map(|n| reference(&n.to_string())).collect();
            let owners: Vec<_> = references.iter().zip(states.clone()).collect();
            assert_eq!(judge(latest, &owners, has_dependents, dependent_waits), expected, "{states:?}");
        }
    }

    #[test]
    fn an_object_that_is_being_deleted_is_left_to_its_finalizers() {
        let mut latest = held(&["example.com/mine"]);
        latest.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(judge(&latest, &[(&reference("a"), Gone)], false, false), Verdict::Keep);
    }

    #[test]
    fn an_owner_is_who_it_is_by_uid() {
        let mut owner = held(&[FOREGROUND]);
        owner.uid = Some("a".into());
        assert_eq!(owner_state(&reference("a"), None, false), Gone);
        assert_eq!(owner_state(&reference("b"), Some(&owner), false), Gone);
        assert_eq!(owner_state(&reference("b"), Some(&owner), true), Orphaning);
        assert_eq!(owner_state(&reference("a"), Some(&owner), true), Solid);
        assert_eq!(owner_state(&reference("a"), Some(&owner), false), Solid);
        owner.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(owner_state(&reference("a"), Some(&owner), false), Waiting);
    }
}
