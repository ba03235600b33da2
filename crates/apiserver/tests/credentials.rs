//! A service in process without a user of its own: who asks is whoever the credentials of a request say.

mod common;

use bytes::Bytes;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apiserver::ClientService;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn ask(
    service: &ClientService,
    method: &str,
    path: &str,
    token: &str,
    body: Value,
) -> Result<(StatusCode, Value), Failure> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let answer = service.clone().oneshot(request.body(Full::new(body))?).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&bytes)?))
}

#[tokio::test]
async fn credentials_say_who_asks() -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let server = common::server(&stop).await;
    let root = UserInfo { name: "root".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
    let admin = server.client_service(root);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot = json!({"metadata": {"name": "robot"}});
    assert_eq!(ask(&admin, "POST", accounts, "", robot).await?.0, StatusCode::CREATED);
    let path = format!("{accounts}/robot/token");
    let (_, granted) = ask(&admin, "POST", &path, "", json!({"spec": {"audiences": []}})).await?;
    let token = granted["status"]["token"].as_str().unwrap_or_default();

    let service = server.service();
    let namespace = "/api/v1/namespaces/default";
    // Nobody is let in by having no user, and a user is not taken from a service that had one.
    let (status, refusal) = ask(&service, "GET", namespace, "", Value::Null).await?;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("system:anonymous")), "{refusal}");
    assert_eq!(ask(&service, "GET", namespace, "wrong", Value::Null).await?.0, StatusCode::UNAUTHORIZED);
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, review) = ask(&service, "POST", reviews, token, json!({})).await?;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(review["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    Ok(())
}
