//! The paths and the media type of the ManagedServiceAccount document that no real server has, end to end.

use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use fleetpass_testkit::cluster::Cluster;
use serde_json::Value;

const COLLECTION: &str = "/apis/multicluster.openshift.io/v1alpha1/ManagedServiceAccounts";
const ITEM: &str =
    "/cluster.open-cluster-management.io/v1alpha1/namespaces/default/managedserviceaccounts/my-sample";

fn client(cluster: &Cluster) -> kube::Client {
    let user = UserInfo { name: "admin".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
    kube::Client::new(cluster.server.client_service(user), "default")
}

async fn ask(client: &kube::Client, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
    use http_body_util::BodyExt;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "managedserviceaccount/yaml")
        .body(kube::client::Body::from(body.as_bytes().to_vec()))?;
    let response = client.send(request).await?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_document_to_the_letter_succeeds() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let client = client(&cluster);
    let body = |metadata: &str| {
        format!(
            "apiVersion: authentication.open-cluster-management.io/v1alpha1\nkind: ManagedServiceAccount\n\
             metadata: {metadata}\nspec: {{rotation: {{}}}}\n"
        )
    };
    let (status, answer) = ask(&client, "POST", COLLECTION, &body("{name: my-sample}")).await?;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["message"].as_str().unwrap_or_default().starts_with("metadata.namespace is missing"),
        "{answer}"
    );

    let named = body("{name: my-sample, namespace: default}");
    let (status, made) = ask(&client, "POST", COLLECTION, &named).await?;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["spec"]["rotation"]["validity"], "8640h0m0s");

    for path in [ITEM.to_string(), format!("/kubernetes/apis{ITEM}")] {
        let (status, found) = ask(&client, "GET", &path, "").await?;
        assert_eq!((status, &found["metadata"]["uid"]), (200, &made["metadata"]["uid"]), "{path}");
    }
    let (status, _) = ask(&client, "DELETE", ITEM, "").await?;
    assert_eq!(status, 200);
    let (status, _) = ask(&client, "GET", ITEM, "").await?;
    assert_eq!(status, 404);
    Ok(())
}
