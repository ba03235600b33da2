//! Roles: what may be done in one namespace.

use crate::strategy::Resource;

/// The row of Roles.
pub(crate) fn resource() -> Resource {
    super::rbac::roles(true)
}
