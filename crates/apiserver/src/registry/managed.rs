use super::Scope;
use serde_json::Value;
pub(super) fn track_create(_s: &Scope<'_>, _o: &mut Value) {}
pub(super) fn track_update(_s: &Scope<'_>, _old: &Value, _o: &mut Value) {}
pub(super) fn settle_times(_o: &mut Value, _old: &Value) {}
