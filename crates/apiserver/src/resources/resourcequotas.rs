//! ResourceQuotas: how much of what a namespace may hold (`pkg/registry/core/resourcequota`). New objects are charged by
//! `registry::quota`, by the rules in [`charging`]; that what is gone counts no more is the quota controller's business.

mod charging;
mod validation;

pub(crate) use charging::charge;

use super::printers;
use super::stored::{self, SUBRESOURCE_VERBS, StoredKind};
use crate::strategy::{Column, Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::GroupResource;
use fleetpass_apimachinery::validation::metadata;
use fleetpass_schema::quantity;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The resource itself.
pub(crate) const RESOURCE: GroupResource<'static> = GroupResource { group: "", resource: "resourcequotas" };

/// The row of ResourceQuotas.
pub(crate) fn resource() -> Resource {
    let kind = StoredKind {
        group: RESOURCE.group,
        version: "v1",
        kind: "ResourceQuota",
        plural: RESOURCE.resource,
        definition: "io.k8s.api.core.v1.ResourceQuota",
        namespaced: true,
        short_names: &["quota"],
        selectable_fields: &[],
        columns: vec![
            Column::name(),
            Column::new("Request", "string", "", "How much there is, and the limit.", 0),
            Column::new("Limit", "string", "", "The same for the limits of what runs.", 0),
            Column::age(),
        ],
    };
    let mut resource = stored::resource(kind, Arc::new(ResourceQuotas { status: false }));
    resource.delete_returns_object = true;
    resource.subresources = vec![Subresource {
        name: "status",
        body: None,
        schema: None,
        verbs: SUBRESOURCE_VERBS,
        handler: Handler::Update(Arc::new(ResourceQuotas { status: true })),
        versions: None,
    }];
    resource
}

struct ResourceQuotas {
    /// Whether this is the subresource `status`.
    status: bool,
}

impl Strategy for ResourceQuotas {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        meta::as_map_mut(object).insert("status".into(), json!({}));
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        meta::keep(new, old, if self.status { "spec" } else { "status" });
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        validation::validate_spec(object)
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_update(new, old);
        if self.status {
            errors.append(validation::validate_status(new));
        } else {
            errors.append(validation::validate_spec(new));
            errors.append(validation::validate_scopes_kept(new, old));
        }
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { requests_above_limits(object) }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (requests, limits) = amounts(object);
        vec![printers::name(object), requests.into(), limits.into(), printers::age(object, now)]
    }
}

/// Warnings for requests that may be greater than the limits of the same thing (`WarningsOnCreate`).
fn requests_above_limits(object: &Value) -> Vec<String> {
    let amount = |name: &str| meta::at(object, &["spec", "hard", name]).and_then(Value::as_str);
    let warn = |name: &str| {
        let (mut request, mut asked) = (format!("requests.{name}"), amount(&format!("requests.{name}")));
        if asked.is_none() && (name == "cpu" || name == "memory") {
            (request, asked) = (name.to_string(), amount(name));
        }
        let limit = format!("limits.{name}");
        let (asked, limited) = (asked?, amount(&limit)?);
        let greater = quantity::nanos(asked).ok()? > quantity::nanos(limited).ok()?;
        greater.then(|| format!("ResourceQuota {request} ({asked}) should be less than {limit} ({limited})"))
    };
    ["cpu", "memory", "storage", "ephemeral-storage"].into_iter().filter_map(warn).collect()
}

/// `name: used/hard` for all that is limited, separated by commas; what begins with `limits.` is apart
/// (`printResourceQuota` in `pkg/printers/internalversion/printers.go`).
fn amounts(object: &Value) -> (String, String) {
    let mut hard: Vec<(&String, &Value)> =
        meta::map(object, &["status", "hard"]).into_iter().flat_map(Map::iter).collect();
    hard.sort_unstable_by_key(|(name, _)| *name);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in hard {
        let used = meta::text(object, &["status", "used", name]);
        let used = if used.is_empty() { "0" } else { used };
        let cell = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
        if name.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
    }
    (requests.join(", "), limits.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;

    #[test]
    fn each_part_changes_its_own() {
        let world = World::default();
        let ctx = world.ctx("ns", "q");
        let old = json!({"metadata": {"name": "q", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"hard": {"secrets": "1"}}, "status": {"hard": {"secrets": "1"}, "used": {"secrets": "0"}}});
        let sent = json!({"metadata": {"name": "q", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"hard": {"secrets": "2"}}, "status": {"hard": {"bogus": "2"}}});
        for (status, hard, bogus, wrong) in [(false, "2", false, 0), (true, "1", true, 2)] {
            let strategy = ResourceQuotas { status };
            let mut new = sent.clone();
            strategy.prepare_for_update(&ctx, &mut new, &old);
            assert_eq!(new["spec"]["hard"]["secrets"], hard);
            assert_eq!(new["status"]["hard"].get("bogus").is_some(), bogus);
            assert_eq!(texts(&strategy.validate_update(&ctx, &new, &old)).len(), wrong);
        }
        let mut created = sent;
        ResourceQuotas { status: false }.prepare_for_create(&ctx, &mut created);
        assert_eq!(created["status"], json!({}));
    }

    #[test]
    fn requests_above_the_limits_are_warned_of() {
        let warnings = |hard: Value| requests_above_limits(&json!({"spec": {"hard": hard}}));
        assert_eq!(
            warnings(
                json!({"cpu": "2", "limits.cpu": "1500m", "requests.memory": "1Gi", "limits.memory": "1Gi"})
            ),
            ["ResourceQuota cpu (2) should be less than limits.cpu (1500m)"]
        );
        assert_eq!(warnings(json!({"requests.cpu": "2", "secrets": "1"})), [""; 0]);
    }

    #[test]
    fn a_row_says_how_much_there_is_of_what() {
        let quota = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"secrets": "5", "count/configmaps": "1k", "limits.cpu": "2"},
            "used": {"secrets": "3", "limits.cpu": "500m"}}});
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let cells = ResourceQuotas { status: false }.cells(&quota, now);
        assert_eq!(cells[1], "count/configmaps: 0/1k, secrets: 3/5");
        assert_eq!(cells[2], "limits.cpu: 500m/2");
        let fresh = ResourceQuotas { status: false }.cells(&json!({"metadata": {"name": "q"}}), now);
        assert_eq!(fresh[1..3], ["", ""]);
    }
}
