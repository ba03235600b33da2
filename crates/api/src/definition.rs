//! The CustomResourceDefinition of ManagedServiceAccount: upstream's fields and defaults, and beside them what makes the kind
//! better to use: columns for `kubectl get`, a short name, and rules for `spec.rotation.validity`.

use crate::GoDuration;
use serde_json::{Value, json};

/// The manifest of the CustomResourceDefinition (JSON), both versions, with [`LONGEST_VALIDITY`] as limit.
pub const CRD_JSON: &str = include_str!("../crds/managedserviceaccounts.json");

/// The longest `spec.rotation.validity` unless an operator sets another limit: 100 years, which is what "for ever" is
/// written as. (A TokenRequest takes up to 2^32 seconds, 136 years; upstream has no limit and leaves the refusal to the
/// cluster.)
pub const LONGEST_VALIDITY: GoDuration = GoDuration::from_nanos(876_000 * 3_600 * 1_000_000_000);

/// `time.ParseDuration` of Go as a regular expression, but for sums that overflow.
const GO_DURATION: &str = r"^[-+]?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(h|m|s|ms|us|µs|μs|ns))+)$";

/// The CustomResourceDefinition, with the longest validity that accounts on this hub may ask for. A hub refuses anything else
/// when an account is written; one that was there before may still be changed otherwise (Kubernetes' ratcheting).
///
/// # Errors
///
/// None: the manifest is part of the program, and a test reads it.
pub fn account_definition(longest: GoDuration) -> Result<Value, serde_json::Error> {
    let mut definition: Value = serde_json::from_str(CRD_JSON)?;
    let rules = validity_rules(longest);
    for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
        if let Some(validity) = version.pointer_mut(VALIDITY) {
            validity["x-kubernetes-validations"] = rules.clone();
        }
    }
    Ok(definition)
}

/// Where the schema of `spec.rotation.validity` is in a version.
const VALIDITY: &str = "/schema/openAPIV3Schema/properties/spec/properties/rotation/properties/validity";

/// The rules in CEL. The first is about the form, in the words of a user who wrote `1d`; the second is about the lifetime,
/// and silent where the first speaks.
fn validity_rules(longest: GoDuration) -> Value {
    json!([
        {
            "rule": format!("self.matches('{GO_DURATION}')"),
            "message": "must be a duration as Go writes it: numbers with the units h, m, s, ms, us or ns, such as 720h or \
                1h30m; a day is 24h",
        },
        {
            "rule": format!(
                "!self.matches('{GO_DURATION}') || (duration(self) >= duration('10m') && \
                 duration(self) <= duration('{longest}'))"
            ),
            "message": format!(
                "must be at least 10m, the shortest lifetime that a cluster gives a token, and at most {longest}, the limit \
                 of this hub"
            ),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn the_manifest_is_of_this_kind() {
        let crd: Value = serde_json::from_str(CRD_JSON).unwrap();
        assert_eq!(crd["spec"]["group"], names::GROUP);
        assert_eq!(crd["spec"]["names"]["plural"], names::PLURAL);
        assert_eq!(crd["spec"]["versions"][1]["name"], names::V1BETA1);
    }

    #[test]
    fn the_manifest_has_the_default_limit_and_another_one_replaces_it() {
        let default = account_definition(LONGEST_VALIDITY).unwrap();
        assert_eq!(default, serde_json::from_str::<Value>(CRD_JSON).unwrap());
        let other = account_definition("720h".parse().unwrap()).unwrap();
        for version in other["spec"]["versions"].as_array().unwrap() {
            let rules = &version.pointer(VALIDITY).unwrap()["x-kubernetes-validations"];
            assert!(rules[1]["rule"].as_str().unwrap().contains("duration(self) <= duration('720h0m0s')"));
            assert!(rules[1]["message"].as_str().unwrap().contains("at most 720h0m0s"));
        }
    }
}
