//! A server for tests: a function from requests to answers, behind a real client.

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;

/// A request as the server gets it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    #[allow(dead_code)] // not every test looks at it
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    code: u16,
    body: Value,
}

impl Answer {
    /// 200 with a body.
    pub(crate) fn ok(body: Value) -> Self {
        Self { code: 200, body }
    }

    /// 404.
    pub(crate) fn not_found() -> Self {
        Self::refusal(404, json!({"reason": "NotFound", "message": "not found"}))
    }

    /// A Status with this code, completed by `members`.
    pub(crate) fn refusal(code: u16, members: Value) -> Self {
        let mut body =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code});
        if let (Some(body), Value::Object(members)) = (body.as_object_mut(), members) {
            body.extend(members);
        }
        Self { code, body }
    }
}

/// A client of a server that answers with `answer`.
pub(crate) fn server(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.expect("a body in memory").to_bytes();
            let request = Request {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            };
            let answer = answer(request);
            let response = http::Response::builder().status(answer.code);
            Ok::<_, Infallible>(
                response.body(Body::from(answer.body.to_string().into_bytes())).expect("a response"),
            )
        }
    });
    Client::new(service, "default")
}
