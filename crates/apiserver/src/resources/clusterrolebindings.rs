//! ClusterRoleBindings: who has a ClusterRole everywhere.

use crate::strategy::Resource;

/// The row of ClusterRoleBindings.
pub(crate) fn resource() -> Resource {
    super::rbac::bindings(false)
}
