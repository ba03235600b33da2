//! Tokens, pages, discovery, events, and optimistic writes.

use super::{admin, configmap, configmaps, refusal};
use anyhow::{Context as _, Result, ensure};
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_testkit::cluster::Cluster;
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, SelfSubjectReview, TokenRequest, TokenRequestSpec,
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::core::response::reason;
use kube::core::{GroupVersion, GroupVersionKind};
use kube::discovery::{self, Discovery, Scope, verbs};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource as _, ResourceExt};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_speaks_until_what_it_is_bound_to_goes() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    let post = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    accounts.create(&post, &serde_json::from_value(json!({"metadata": {"name": "robot"}}))?).await?;
    let bound = secrets.create(&post, &serde_json::from_value(json!({"metadata": {"name": "s"}}))?).await?;
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec!["https://kubernetes.default.svc".into()]),
            expiration_seconds: Some(3600),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Secret".into()),
                name: bound.metadata.name.clone(),
                uid: bound.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request("robot", &post, &request).await?;
    let token = answer.status.and_then(|status| status.token).context("a token")?;
    let robot = cluster.client_over_tls(cluster.address, &token).await?;
    let reviews: Api<SelfSubjectReview> = Api::all(robot.clone());
    let who = async || reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let user = who().await?.status.and_then(|status| status.user_info).and_then(|user| user.username);
    assert_eq!(user.as_deref(), Some("system:serviceaccount:default:robot"));
    let said = refusal(configmaps(&robot).list(&ListParams::default()).await);
    assert_eq!((said.code, said.reason.as_str()), (403, reason::FORBIDDEN));

    secrets.delete("s", &DeleteParams::default()).await?;
    let said = refusal(who().await);
    assert_eq!((said.code, said.reason.as_str()), (401, reason::UNAUTHORIZED));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_of_one_moment() -> Result<()> {
    let cluster = Cluster::bare(fleetpass_api::clock::system()).await?;
    let api = configmaps(&admin(&cluster).await?);
    for n in 0..10 {
        api.create(&PostParams::default(), &configmap(&format!("c{n}"), &json!({}))?).await?;
    }
    let mut page = api.list(&ListParams::default().limit(4)).await?;
    assert_eq!(page.metadata.remaining_item_count, Some(6));
    // Changes after the first page are not in the others.
    api.create(&PostParams::default(), &configmap("c99", &json!({}))?).await?;
    api.delete("c7", &DeleteParams::default()).await?;
    let revision = page.metadata.resource_version.clone();
    let mut names: Vec<String> = page.iter().map(ResourceExt::name_any).collect();
    let mut pages = 1;
    while let Some(next) = page.metadata.continue_.filter(|next| !next.is_empty()) {
        page = api.list(&ListParams::default().limit(4).continue_token(&next)).await?;
        assert_eq!(page.metadata.resource_version, revision);
        names.extend(page.iter().map(ResourceExt::name_any));
        pages += 1;
    }
    assert_eq!(names, (0..10).map(|n| format!("c{n}")).collect::<Vec<_>>());
    assert_eq!(pages, 3);
    let said = refusal(api.list(&ListParams::default().limit(4).continue_token("nonsense")).await);
    assert_eq!(said.code, 400);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_finds_what_is_served() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    // Kinds of both ways to ask, which have to say the same.
    let one_by_one = Discovery::new(client.clone()).run().await?;
    let at_once = Discovery::new(client.clone()).run_aggregated().await?;
    let said = |discovery: &Discovery| {
        let mut said: Vec<String> = discovery
            .groups_alphabetical()
            .iter()
            .flat_map(|group| group.resources_by_stability())
            .map(|(kind, able)| {
                let mut verbs = able.operations.clone();
                verbs.sort();
                format!("{} {} {} {:?} {verbs:?}", kind.api_version, kind.kind, kind.plural, able.scope)
            })
            .collect();
        said.sort();
        said
    };
    ensure!(said(&one_by_one).len() > 15);
    assert_eq!(said(&one_by_one), said(&at_once));

    let group = discovery::group(&client, names::GROUP).await?;
    assert_eq!(group.preferred_version(), Some(names::V1BETA1));
    let (kind, able) = group.recommended_kind(names::KIND).context("our kind")?;
    assert_eq!(kind.plural, names::PLURAL);
    ensure!(able.scope == Scope::Namespaced && able.supports_operation(verbs::WATCH));
    let status = able.subresources.iter().any(|(sub, _)| sub.plural.ends_with("status"));
    ensure!(status, "{:?}", able.subresources);
    let pinned = discovery::pinned_group(&client, &GroupVersion::gv(names::GROUP, names::V1ALPHA1)).await?;
    ensure!(pinned.recommended_kind(names::KIND).is_some());

    // What discovery found is enough to work with.
    let (kind, _) = discovery::pinned_kind(&client, &GroupVersionKind::gvk("", "v1", "ConfigMap")).await?;
    let dynamic: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind);
    let object = DynamicObject::new("dynamic", &kind).data(json!({"data": {"a": "1"}}));
    let made = dynamic.create(&PostParams::default(), &object).await?;
    assert_eq!(made.data["data"]["a"], "1");
    assert_eq!(client.apiserver_version().await?.major, "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_is_told_so() -> Result<()> {
    let cluster = Cluster::start().await?;
    let api = configmaps(&admin(&cluster).await?);
    let post = PostParams::default();
    let made = api.create(&post, &configmap("one", &json!({"a": "1"}))?).await?;
    let said = refusal(api.create(&post, &configmap("one", &json!({}))?).await);
    assert_eq!((said.code, said.reason.as_str()), (409, reason::ALREADY_EXISTS));
    let mut first = api.entry("one").await?.or_insert(Default::default);
    first.get_mut().labels_mut().insert("by".into(), "first".into());
    let mut second = api.entry("one").await?.or_insert(Default::default);
    second.get_mut().labels_mut().insert("by".into(), "second".into());
    first.commit(&post).await?;
    ensure!(second.commit(&post).await.is_err(), "the object has changed since it was read");
    let said = refusal(api.replace("one", &post, &made).await);
    assert_eq!((said.code, said.reason.as_str()), (409, reason::CONFLICT));
    let stale = Preconditions { resource_version: made.resource_version(), uid: None };
    let said = refusal(api.delete("one", &DeleteParams::default().preconditions(stale)).await);
    assert_eq!((said.code, said.reason.as_str()), (409, reason::CONFLICT));
    assert_eq!(api.get("one").await?.labels()["by"], "first");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_again_is_counted() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(client.clone(), "default");
    let account =
        accounts.create(&PostParams::default(), &ManagedServiceAccount::new("default", "a")).await?;
    let recorder = Recorder::new(client.clone(), "test-reporter".to_owned().into());
    let event = Event {
        type_: EventType::Normal,
        reason: "Seen".into(),
        note: Some("it was seen".into()),
        action: "Seeing".into(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &account.object_ref(&())).await?;
    }
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client, "default");
    let found = events.list(&ListParams::default().fields("involvedObject.name=a,reason=Seen")).await?;
    assert_eq!(found.items.len(), 1);
    let series = found.items[0].series.as_ref().context("a series")?;
    assert_eq!(series.count, Some(3));
    Ok(())
}
