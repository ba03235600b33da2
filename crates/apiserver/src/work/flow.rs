//! Whose work something is.

use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

/// Seeds the ids. Random, so that nobody can choose a name whose id is that of somebody else's flow and push their work back.
static SEEDS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Tells flows apart. A hash instead of the name: it is made for every request, and this way it costs no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowId(u64);

#[cfg(test)]
impl FlowId {
    pub(super) fn new(id: u64) -> Self {
        Self(id)
    }
}

/// Whose work something is: that of a user, or of all service accounts of a namespace together, because whoever administers a
/// namespace can make any number of accounts in it. What API Priority and Fairness calls a flow
/// (`k8s.io/apiserver/pkg/util/flowcontrol`), with the distinguisher chosen here instead of in a FlowSchema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    /// Of `name`.
    pub(crate) id: FlowId,
    /// The user's name, or `system:serviceaccount:NAMESPACE`.
    pub(crate) name: &'a str,
    /// Goes before all others and is never refused: an operator (`system:masters`) has to be able to look into an overload. As
    /// the priority level `exempt` of kube-apiserver.
    pub(crate) exempt: bool,
}

impl<'a> Flow<'a> {
    /// The flow that work for `user` belongs to.
    pub(crate) fn of(user: &'a UserInfo) -> Self {
        let name = match user.service_account() {
            // The colon and the account's own name are cut off.
            Some((_, account)) => &user.name[..user.name.len() - account.len() - 1],
            None => &user.name,
        };
        Self { id: FlowId(SEEDS.hash_one(name)), name, exempt: user.in_group(SYSTEM_MASTERS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        UserInfo { name: name.into(), groups, ..UserInfo::default() }
    }

    #[test]
    fn service_accounts_of_a_namespace_share_a_flow() {
        let (a, b) = (user("system:serviceaccount:ns:a", &[]), user("system:serviceaccount:ns:b", &[]));
        let other = user("system:serviceaccount:ns2:a", &[]);
        assert_eq!(Flow::of(&a).name, "system:serviceaccount:ns");
        assert_eq!(Flow::of(&a).id, Flow::of(&b).id);
        assert_ne!(Flow::of(&a).id, Flow::of(&other).id);
    }

    #[test]
    fn all_others_have_a_flow_each() {
        let (a, b) = (user("alice", &[]), user("bob", &[SYSTEM_MASTERS]));
        assert_eq!(Flow::of(&a).name, "alice");
        assert_ne!(Flow::of(&a).id, Flow::of(&b).id);
        assert!(!Flow::of(&a).exempt && Flow::of(&b).exempt);
        // No name of an account: not a service account's user, whatever it begins with.
        assert_eq!(Flow::of(&user("system:serviceaccount:ns", &[])).name, "system:serviceaccount:ns");
    }
}
