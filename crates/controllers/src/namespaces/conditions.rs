//! What the status of a namespace says while its content is deleted.
//! (`pkg/controller/namespace/deletion/status_condition_utils.go`.)

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// How a pass over the content of a namespace went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Why not all resources are known.
    pub(crate) discovery: Option<String>,
    /// What could not be deleted, and why.
    pub(crate) failures: Vec<String>,
    /// How many objects are left, by `PLURAL.GROUP`.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// How many of them each finalizer holds.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Outcome {
    /// Whether nothing is left and nothing went wrong.
    pub(crate) fn is_complete(&self) -> bool {
        self == &Self::default()
    }
}

/// What a condition says, when all is well and otherwise.
struct Condition {
    kind: &'static str,
    well: (&'static str, &'static str),
    trouble: Option<(&'static str, String)>,
}

fn listed<'a>(counts: &'a BTreeMap<String, usize>, between: &'static str) -> String {
    let count = |(name, count): (&'a String, &usize)| format!("{name}{between}{count} resource instances");
    counts.iter().map(count).collect::<Vec<_>>().join(", ")
}

fn says(outcome: &Outcome) -> [Condition; 5] {
    // Sorted, or the message would change from pass to pass and every pass would be a write.
    let mut failures = outcome.failures.clone();
    failures.sort();
    let failed = || {
        format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "))
    };
    let remaining = || format!("Some resources are remaining: {}", listed(&outcome.remaining, " has "));
    let finalizers = || {
        let held = listed(&outcome.finalizers, " in ");
        format!("Some content in the namespace has finalizers remaining: {held}")
    };
    let if_any = |any: bool, reason, message: &dyn Fn() -> String| any.then(|| (reason, message()));
    [
        Condition {
            kind: "NamespaceDeletionDiscoveryFailure",
            well: ("ResourcesDiscovered", "All resources successfully discovered"),
            trouble: outcome.discovery.clone().map(|why| ("DiscoveryFailed", why)),
        },
        Condition {
            // Here group and version are never parsed from text; the condition is there because upstream sets it.
            kind: "NamespaceDeletionGroupVersionParsingFailure",
            well: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            trouble: None,
        },
        Condition {
            kind: "NamespaceDeletionContentFailure",
            well: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            trouble: if_any(!failures.is_empty(), "ContentDeletionFailed", &failed),
        },
        Condition {
            kind: "NamespaceContentRemaining",
            well: ("ContentRemoved", "All content successfully removed"),
            trouble: if_any(!outcome.remaining.is_empty(), "SomeResourcesRemain", &remaining),
        },
        Condition {
            kind: "NamespaceFinalizersRemaining",
            well: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            trouble: if_any(!outcome.finalizers.is_empty(), "SomeFinalizersRemain", &finalizers),
        },
    ]
}

/// The conditions after `outcome`, if they differ from `before`. Conditions of others are kept; the time of a
/// transition is that of a change of status.
pub(crate) fn conditions(
    before: &[NamespaceCondition],
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let mut after = before.to_vec();
    for Condition { kind, well, trouble } in says(outcome) {
        let status = if trouble.is_some() { "True" } else { "False" };
        let (reason, message) = trouble.unwrap_or((well.0, well.1.into()));
        let mut says = NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match after.iter_mut().find(|condition| condition.type_ == kind) {
            None => after.push(says),
            Some(condition) => {
                if condition.status == says.status {
                    says.last_transition_time = condition.last_transition_time.clone();
                }
                *condition = says;
            }
        }
    }
    (after != before).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn messages(conditions: &[NamespaceCondition]) -> Vec<(&str, &str)> {
        conditions.iter().map(|c| (c.status.as_str(), c.message.as_deref().unwrap())).collect()
    }

    #[test]
    fn a_pass_without_trouble_says_so_five_times() {
        let after = conditions(&[], &Outcome::default(), now(1)).unwrap();
        assert_eq!(
            messages(&after),
            [
                ("False", "All resources successfully discovered"),
                ("False", "All legacy kube types successfully parsed"),
                ("False", "All content successfully deleted, may be waiting on finalization"),
                ("False", "All content successfully removed"),
                ("False", "All content-preserving finalizers finished"),
            ]
        );
        assert_eq!(conditions(&after, &Outcome::default(), now(9)), None);
    }

    #[test]
    fn what_is_left_is_counted_by_resource_and_by_finalizer() {
        let outcome = Outcome {
            failures: vec!["b".into(), "a".into()],
            remaining: [("secrets.".into(), 1), ("as.a.io".into(), 2)].into(),
            finalizers: [("example.com/hold".into(), 1)].into(),
            ..Outcome::default()
        };
        let before = conditions(&[], &Outcome::default(), now(1)).unwrap();
        let after = conditions(&before, &outcome, now(5)).unwrap();
        assert_eq!(
            messages(&after)[2..],
            [
                ("True", "Failed to delete all resource types, 2 remaining: a, b"),
                (
                    "True",
                    "Some resources are remaining: as.a.io has 2 resource instances, secrets. has 1 resource instances"
                ),
                (
                    "True",
                    "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
                ),
            ]
        );
        assert_eq!(after[0].last_transition_time, Some(Time(now(1))));
        assert_eq!(after[3].last_transition_time, Some(Time(now(5))));
    }

    #[test]
    fn conditions_of_others_stay() {
        let mine = NamespaceCondition { type_: "example.com/Mine".into(), ..NamespaceCondition::default() };
        let after = conditions(std::slice::from_ref(&mine), &Outcome::default(), now(1)).unwrap();
        assert_eq!((after.len(), &after[0]), (6, &mine));
    }
}
