//! Leases: who holds what, for how long (`pkg/registry/coordination/lease`,
//! `pkg/apis/coordination/validation/validation.go`).

use super::printers;
use super::stored::{self, StoredKind};
use crate::strategy::{Column, Context, Resource, Strategy};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::metadata;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// The group of Leases.
pub(crate) const GROUP: &str = "coordination.k8s.io";
/// Their name in paths.
pub(crate) const PLURAL: &str = "leases";

/// The row of Leases.
pub(crate) fn resource() -> Resource {
    let kind = StoredKind {
        group: GROUP,
        version: "v1",
        kind: "Lease",
        plural: PLURAL,
        definition: "io.k8s.api.coordination.v1.Lease",
        namespaced: true,
        short_names: &[],
        selectable_fields: &[],
        columns: vec![
            Column::name(),
            Column::new("Holder", "string", "", "Who holds it now.", 0),
            Column::age(),
        ],
    };
    stored::resource(kind, Arc::new(Leases))
}

struct Leases;

impl Strategy for Leases {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        drop_coordinated_election(object, None);
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        drop_coordinated_election(new, Some(old));
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let mut errors = ErrorList::new();
        let at_least = [
            ("leaseDurationSeconds", 1, "must be greater than 0"),
            ("leaseTransitions", 0, "must be greater than or equal to 0"),
        ];
        for (name, minimum, detail) in at_least {
            // Absent is fine: a Lease that nobody holds has neither.
            if let Some(value) = meta::at(object, &["spec", name]).and_then(Value::as_i64)
                && value < minimum
            {
                errors.push(Error::invalid(&path.child(name), value, detail));
            }
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_update(new, old);
        errors.append(self.validate(ctx, new));
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = meta::text(object, &["spec", "holderIdentity"]).into();
        vec![printers::name(object), holder, printers::age(object, now)]
    }
}

/// Coordinated leader election is a feature that is off: its fields are dropped unless they were there before.
fn drop_coordinated_election(new: &mut Value, old: Option<&Value>) {
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for name in ["strategy", "preferredHolder"] {
        if old.and_then(|old| meta::at(old, &["spec", name])).is_none() {
            spec.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_and_transitions_have_a_minimum() {
        let world = World::default();
        let ctx = world.ctx("ns", "l");
        for (spec, wanted) in [
            (json!({"holderIdentity": "", "leaseDurationSeconds": 15, "leaseTransitions": 0}), vec![]),
            (
                json!({"holderIdentity": "", "leaseDurationSeconds": 0, "leaseTransitions": -1}),
                vec![
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ] {
            assert_eq!(texts(&Leases.validate(&ctx, &json!({"spec": spec}))), wanted);
        }
    }

    #[test]
    fn fields_of_a_feature_that_is_off_are_dropped() {
        let mut new = json!({"spec": {"strategy": "Oldest", "preferredHolder": "b"}});
        drop_coordinated_election(&mut new, Some(&json!({"spec": {"strategy": "Oldest"}})));
        assert_eq!(new, json!({"spec": {"strategy": "Oldest"}}));
    }
}
