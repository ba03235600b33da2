//! The four kinds of patches.

use super::{admin, configmap, configmaps, refusal};
use anyhow::{Context as _, Result, ensure};
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_testkit::cluster::Cluster;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::response::reason;
use serde_json::{Value, json};

fn applied(data: &Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}))
}

/// The managers of an object, each with the fields below `data` that it has.
fn owners(object: &ConfigMap) -> Vec<(String, Vec<String>)> {
    let entries = object.metadata.managed_fields.iter().flatten();
    let mut owners: Vec<(String, Vec<String>)> = entries
        .map(|entry| {
            let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0["f:data"].as_object());
            let fields = fields.into_iter().flat_map(|fields| fields.keys());
            let fields = fields.filter_map(|key| key.strip_prefix("f:")).map(str::to_owned).collect();
            (entry.manager.clone().unwrap_or_default(), fields)
        })
        .collect();
    owners.sort();
    owners
}

fn owner(manager: &str, fields: &[&str]) -> (String, Vec<String>) {
    (manager.to_owned(), fields.iter().map(|&field| field.to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_appliers_share_an_object() -> Result<()> {
    let cluster = Cluster::start().await?;
    let api = configmaps(&admin(&cluster).await?);
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let made = api.patch("shared", &one, &applied(&json!({"a": "1", "b": "1"}))).await?;
    assert_eq!(owners(&made), [owner("one", &["a", "b"])]);
    let same = api.patch("shared", &one, &applied(&json!({"a": "1", "b": "1"}))).await?;
    assert_eq!(made.metadata.resource_version, same.metadata.resource_version, "nothing changed");

    let said = refusal(api.patch("shared", &two, &applied(&json!({"b": "2", "c": "2"}))).await);
    assert_eq!((said.code, said.reason.as_str()), (409, reason::CONFLICT));
    let said = said.details.context("details")?;
    assert_eq!(said.causes.len(), 1);
    assert_eq!(said.causes[0].reason, "FieldManagerConflict");
    assert_eq!(said.causes[0].field, ".data.b");
    assert_eq!(said.causes[0].message, "conflict with \"one\"");

    let forced = api.patch("shared", &two.clone().force(), &applied(&json!({"b": "2", "c": "2"}))).await?;
    assert_eq!(owners(&forced), [owner("one", &["a"]), owner("two", &["b", "c"])]);
    // What its only owner leaves out goes; a dry run shows it and does not do it.
    let dry = api.patch("shared", &one.clone().dry_run(), &applied(&json!({}))).await?;
    ensure!(!dry.data.unwrap_or_default().contains_key("a"));
    assert_eq!(api.get("shared").await?, forced);
    let left = api.patch("shared", &one, &applied(&json!({}))).await?;
    assert_eq!(json!(left.data), json!({"b": "2", "c": "2"}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_json_and_strategic_patches_do_what_they_say() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    let api = configmaps(&client);
    let plain = PatchParams::default();
    api.create(&PostParams::default(), &configmap("one", &json!({"a": "1", "b": "1"}))?).await?;
    let merged = api.patch("one", &plain, &Patch::Merge(json!({"data": {"a": null, "c": "1"}}))).await?;
    assert_eq!(json!(merged.data), json!({"b": "1", "c": "1"}));

    let operations = |expected: &str| -> Result<Patch<ConfigMap>> {
        Ok(Patch::Json(serde_json::from_value(json!([
            {"op": "test", "path": "/data/b", "value": expected},
            {"op": "move", "from": "/data/c", "path": "/data/d"},
            {"op": "replace", "path": "/data/b", "value": "2"},
        ]))?))
    };
    let said = refusal(api.patch("one", &plain, &operations("9")?).await);
    assert_eq!((said.code, said.reason.as_str()), (422, reason::INVALID));
    let moved = api.patch("one", &plain, &operations("1")?).await?;
    assert_eq!(json!(moved.data), json!({"b": "2", "d": "1"}));

    // Lists that are merged by key: a merge patch replaces them, a strategic one does not.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"metadata": {"name": "sa"}, "secrets": [{"name": "x"}]}))?,
        )
        .await?;
    let add = json!({"secrets": [{"name": "y"}]});
    let added = accounts.patch("sa", &plain, &Patch::Strategic(add)).await?;
    assert_eq!(json!(added.secrets), json!([{"name": "y"}, {"name": "x"}]));
    let take = json!({"secrets": [{"name": "x", "$patch": "delete"}]});
    let taken = accounts.patch("sa", &plain, &Patch::Strategic(take)).await?;
    assert_eq!(json!(taken.secrets), json!([{"name": "y"}]));

    // Custom resources know no strategic patch.
    let custom: Api<ManagedServiceAccount> = Api::namespaced(client, "default");
    custom.create(&PostParams::default(), &ManagedServiceAccount::new("default", "one")).await?;
    let change = json!({"spec": {"ttlSecondsAfterCreation": 5}});
    let said = refusal(custom.patch("one", &plain, &Patch::Strategic(change)).await);
    assert_eq!((said.code, said.reason.as_str()), (415, reason::UNSUPPORTED_MEDIA_TYPE));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_applied_by_itself() -> Result<()> {
    let cluster = Cluster::start().await?;
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(admin(&cluster).await?, "default");
    accounts.create(&PostParams::default(), &ManagedServiceAccount::new("default", "one")).await?;
    let status = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::V1BETA1), "kind": names::KIND,
        "spec": {"ttlSecondsAfterCreation": 5},
        "status": {"conditions": [{
            "type": names::CONDITION_TOKEN_REPORTED, "status": "True", "message": "",
            "reason": names::REASON_TOKEN_REPORTED, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    let said = accounts.patch_status("one", &PatchParams::apply("agent"), &Patch::Apply(status)).await?;
    assert_eq!(said.spec.ttl_seconds_after_creation, None, "spec is not the status");
    assert_eq!(said.metadata.generation, Some(1));
    let found = accounts.get_status("one").await?;
    let condition = found.status.as_ref().and_then(|s| s.condition(names::CONDITION_TOKEN_REPORTED));
    assert_eq!(condition.context("a condition")?.status, "True");
    // And it is not changed through the object itself.
    let mut changed = found.clone();
    changed.status = None;
    let replaced = accounts.replace("one", &PostParams::default(), &changed).await?;
    assert_eq!(replaced.status, found.status);
    Ok(())
}
