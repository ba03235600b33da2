//! Several authorizers as one: the first that says yes decides.

use super::rbac::Index;
use super::{Attributes, Authorizer, Decision, UserRules, join_errors};
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use std::sync::Arc;

/// Allows everything to members of `system:masters`, whatever the roles say, so that no change of RBAC can lock
/// out the operator (`k8s.io/apiserver/pkg/authorization/authorizerfactory/builtin.go`).
#[derive(Debug, Clone, Copy, Default)]
struct PrivilegedGroup;

impl Authorizer for PrivilegedGroup {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(SYSTEM_MASTERS) { Decision::allow("") } else { Decision::refuse("") }
    }
    fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        // Nothing, and complete, as in Go: the bootstrap roles bind `cluster-admin` to the same group, so its rules are listed
        // by RBAC.
        UserRules::default()
    }
}

/// Several authorizers, asked in order (`k8s.io/apiserver/pkg/authorization/union/union.go`). Refuses when none
/// allows, with all reasons, one per line.
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    /// Allows members of `system:masters` everything, and others what RBAC allows them.
    pub fn masters_and_rbac(index: Arc<Index>) -> Self {
        // In this order, because looking at the groups costs nothing.
        Self(vec![Arc::new(PrivilegedGroup), index])
    }
}

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for authorizer in &self.0 {
            let decision = authorizer.authorize(attributes);
            if decision.allowed {
                return decision;
            }
            reasons.extend(Some(decision.reason).filter(|r| !r.is_empty()));
            errors.extend(Some(decision.evaluation_error).filter(|e| !e.is_empty()));
        }
        Decision { allowed: false, reason: reasons.join("\n"), evaluation_error: join_errors(&errors) }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        for authorizer in &self.0 {
            let part = authorizer.rules_for(user, namespace);
            all.rules.extend(part.rules);
            all.errors.extend(part.errors);
            all.incomplete |= part.incomplete;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_may_do_everything_and_others_need_a_rule() {
        let union = Union::masters_and_rbac(Arc::new(Index::new()));
        let may = |group: &str| {
            let user = UserInfo { name: "root".into(), groups: vec![group.into()], ..UserInfo::default() };
            let paths = union.authorize(&Attributes::path(&user, "get", "/anything"));
            assert_eq!(paths, union.authorize(&Attributes::resource(&user, "*", "*", "*")));
            paths
        };
        assert_eq!(may(SYSTEM_MASTERS), Decision::allow(""));
        assert_eq!(may("System:Masters"), Decision::refuse(""));
        assert!(!union.rules_for(&UserInfo::default(), "").incomplete);
    }
}
