//! The contract of authorizers (`k8s.io/apiserver/pkg/authorization/authorizer/interfaces.go`).

use super::PolicyRule;
use super::attributes::Attributes;
use fleetpass_apimachinery::user::UserInfo;
use std::collections::HashSet;

/// The answer of an authorizer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Whether the request may go on. Deny by default.
    pub allowed: bool,
    /// Why, as SubjectAccessReview prints it (`RBAC: allowed by …`); may be empty.
    pub reason: String,
    /// What went wrong while deciding, such as a webhook that did not answer; may be empty. A binding whose role
    /// is missing is no such error: it is the `reason` of a refusal.
    pub evaluation_error: String,
}

impl Decision {
    /// Yes, for this reason.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { allowed: true, reason: reason.into(), evaluation_error: String::new() }
    }
    /// No, for this reason (often empty).
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self { allowed: false, reason: reason.into(), evaluation_error: String::new() }
    }
}

/// The rules that apply to a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRules {
    /// Each of them holds, even if the list is not complete: rules only ever add.
    pub rules: Vec<PolicyRule>,
    /// Whether there may be more that could not be listed.
    pub incomplete: bool,
    /// What went wrong, such as bindings whose role is missing.
    pub errors: Vec<String>,
}

/// Decides what users may do. The server cannot be built without one.
// Both methods are required: an authorizer that forgot `rules_for` would have `SelfSubjectRulesReview` and the check against
// escalation believe that nobody has any rights.
pub trait Authorizer: Send + Sync + 'static {
    /// May `attributes.user` do this? Looks only at memory; never blocks.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// All rules that apply to a user in a namespace (empty: only those that hold at the cluster scope). An authorizer that
    /// does not work with rules answers with [`UserRules::incomplete`].
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules;
}

/// Joins messages as `utilerrors.NewAggregate` does: duplicates are dropped, more than one stand in brackets.
pub fn join_errors(errors: &[String]) -> String {
    // Of thousands of bindings, each to a role that is gone, everybody whom they name would be told with each refusal.
    const MAX_TOLD: usize = 100;
    let mut seen = HashSet::new();
    let mut told: Vec<&str> = errors.iter().map(String::as_str).filter(|error| seen.insert(*error)).collect();
    let more = told.len().saturating_sub(MAX_TOLD);
    let rest = format!("and {more} more");
    if more > 0 {
        told.truncate(MAX_TOLD);
        told.push(&rest);
    }
    match told.as_slice() {
        [] => String::new(),
        [one] => (*one).into(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_errors_are_joined() {
        let errors: Vec<String> = (0..150).map(|i| format!("e{}", i / 2)).collect();
        assert!(join_errors(&errors).starts_with("[e0, e1, ") && join_errors(&errors).ends_with(", e74]"));
        let errors: Vec<String> = (0..150).map(|i| format!("e{i}")).collect();
        assert!(join_errors(&errors).ends_with(", e99, and 50 more]"), "{}", join_errors(&errors));
        assert_eq!(join_errors(&errors[..1]), "e0");
        assert_eq!(join_errors(&[]), "");
    }
}
