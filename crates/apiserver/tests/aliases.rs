//! Paths of the ManagedServiceAccount document whose namespace is in the body.

mod common;

use bytes::Bytes;
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Posts a body that is no document, piece by piece; gives the answer and how many pieces were read for it.
async fn post(user: UserInfo) -> (StatusCode, String, usize) {
    let stop = CancellationToken::new();
    let service = common::server(&stop).await.client_service(user);
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let pieces = futures::stream::repeat("[a: b, ").take(1000).map(move |piece| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))
    });
    let request = Request::post("/apis/multicluster.openshift.io/v1alpha1/ManagedServiceAccounts")
        .header("content-type", "managedserviceaccount/yaml")
        .body(StreamBody::new(pieces))
        .expect("a request");
    let response = service.oneshot(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    stop.cancel();
    (status, String::from_utf8(body.to_vec()).expect("text"), read.load(Ordering::Relaxed))
}

#[tokio::test]
async fn nobody_is_refused_before_the_body_is_read() {
    let (status, body, read) = post(UserInfo::anonymous()).await;
    assert_eq!((status, read), (StatusCode::FORBIDDEN, 0), "{body}");
    assert!(
        body.contains(r#"User \"system:anonymous\" cannot create resource \"managedserviceaccounts\""#),
        "{body}"
    );
    assert!(body.contains("at the cluster scope"), "{body}");
}

#[tokio::test]
async fn for_a_user_the_body_says_where() {
    let user = UserInfo { name: "root".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
    let (status, _, read) = post(user).await;
    assert_eq!((status, read), (StatusCode::BAD_REQUEST, 1000));
}
