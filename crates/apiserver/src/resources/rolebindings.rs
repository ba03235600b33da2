//! RoleBindings: who has a role in one namespace.

use crate::strategy::Resource;

/// The row of RoleBindings.
pub(crate) fn resource() -> Resource {
    super::rbac::bindings(true)
}
