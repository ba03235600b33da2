//! ClusterRoles: what may be done in the cluster, or in each namespace where a RoleBinding says so.

use crate::strategy::Resource;

/// The row of ClusterRoles.
pub(crate) fn resource() -> Resource {
    super::rbac::roles(false)
}
