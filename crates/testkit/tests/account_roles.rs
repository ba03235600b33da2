//! Who has `view`, `edit` or `admin` in a cluster's namespace may do so much with its accounts, and no more.

use anyhow::Result;
use fleetpass_api::names;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_hub::{join, roles};
use fleetpass_testkit::cluster::Cluster;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

#[tokio::test]
async fn the_roles_for_people_include_accounts() -> Result<()> {
    let hub = Cluster::start().await?;
    join::ensure(&hub.admin(), &roles::account_roles()).await?;
    let mut manifests =
        vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cluster1"}})];
    for role in ["view", "edit", "admin"] {
        manifests.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": "cluster1"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
        }));
    }
    join::ensure(&hub.admin(), &manifests).await?;
    let may = async |user: &str, verb: &str, resource: &str, namespace: &str| -> Result<bool> {
        let groups = vec!["system:authenticated".into()];
        let client = hub.client(UserInfo { name: user.into(), groups, ..UserInfo::default() });
        let (group, resource) = resource.split_once('/').unwrap_or(("", resource));
        let review = serde_json::from_value(json!({"spec": {"resourceAttributes":
            {"group": group, "resource": resource, "verb": verb, "namespace": namespace}}}))?;
        let answer =
            Api::<SelfSubjectAccessReview>::all(client).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    let accounts = format!("{}/{}", names::GROUP, names::PLURAL);
    // The controller that aggregates has to have seen them.
    Cluster::eventually("admin may delete accounts", async || {
        may("admin", "delete", &accounts, "cluster1").await.unwrap_or(false)
    })
    .await?;
    Cluster::eventually("view may see accounts", async || {
        may("view", "watch", &accounts, "cluster1").await.unwrap_or(false)
    })
    .await?;
    for (user, verb, resource, allowed) in [
        ("view", "get", accounts.as_str(), true),
        ("view", "create", &accounts, false),
        ("view", "get", "secrets", false),
        ("edit", "list", &accounts, true),
        ("edit", "create", &accounts, true),
        ("edit", "deletecollection", &accounts, true),
        ("admin", "patch", &accounts, true),
        ("admin", "update", &format!("{accounts}/status"), false),
    ] {
        assert_eq!(may(user, verb, resource, "cluster1").await?, allowed, "{user} {verb} {resource}");
        assert!(!may(user, verb, resource, "cluster2").await?, "{user} {verb} {resource} elsewhere");
    }

    // An operator who wants none of it says so as with Kubernetes' own roles, and a hub that starts again respects it.
    let api: Api<ClusterRole> = Api::all(hub.admin());
    let name = roles::account_roles()[1]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let taken = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"},
        "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": null}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&taken)).await?;
    join::ensure(&hub.admin(), &roles::account_roles()).await?;
    let labels = api.get(&name).await?.labels().clone();
    assert_eq!(labels.into_keys().collect::<Vec<_>>(), ["rbac.authorization.k8s.io/aggregate-to-admin"]);
    Ok(())
}
