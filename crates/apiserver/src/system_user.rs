//! The identity under which the server writes by itself, such as the status of CRDs.

use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};

/// The user on whose behalf the server itself writes.
pub(crate) fn system_user() -> UserInfo {
    UserInfo {
        name: "system:apiserver".into(),
        groups: vec![SYSTEM_MASTERS.into(), ALL_AUTHENTICATED.into()],
        ..UserInfo::default()
    }
}
