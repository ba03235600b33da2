//! Reading fields of certificate signing requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetpass_apimachinery::meta;
use serde_json::Value;

/// The bytes of a base64 field; empty where there are none.
pub(super) fn bytes(object: &Value, path: &[&str]) -> Vec<u8> {
    STANDARD.decode(meta::text(object, path)).unwrap_or_default()
}

/// The conditions of a type.
pub(super) fn conditions<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    meta::list(object, &["status", "conditions"])
        .iter()
        .filter(|condition| meta::text(condition, &["type"]) == kind)
        .collect()
}
