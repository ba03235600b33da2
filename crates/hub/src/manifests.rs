//! What makes a Kubernetes a hub.

use fleetpass_api::account::CRD_JSON;
use serde_json::Value;

/// The CustomResourceDefinition of ManagedServiceAccount, as a Fleetpass hub serves it.
///
/// # Errors
///
/// None: the manifest is part of the program, and a test reads it.
pub fn account_definition() -> Result<Value, serde_json::Error> {
    serde_json::from_str(CRD_JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_can_be_read() {
        assert_eq!(account_definition().unwrap()["kind"], "CustomResourceDefinition");
    }
}
