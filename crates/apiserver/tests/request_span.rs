//! A request's debug lines can be followed by its audit id, and hold no secret.

mod common;

use bytes::Bytes;
use fleetpass_apimachinery::user::UserInfo;
use http::Request;
use http_body_util::Full;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

/// The lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics here").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn debug_lines_name_the_request_and_no_value() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG).with_writer(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let stop = CancellationToken::new();
    let user = UserInfo { name: "root".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
    let service = common::server(&stop).await.client_service(user);
    let secret = r#"{"metadata":{"name":"s"},"stringData":{"password":"hush-hush"}}"#;
    let request = Request::post("/api/v1/namespaces/default/secrets?pretty=hush-hush")
        .header("audit-id", "follow-me")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(secret)))
        .expect("a request");
    let response = service.oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["audit-id"], "follow-me");
    stop.cancel();

    let text = String::from_utf8(lines.0.lock().expect("no test panics here").clone()).expect("text");
    let answered = text.lines().find(|line| line.contains("\"answered\"")).expect("the request left a line");
    let line: serde_json::Value = serde_json::from_str(answered).expect("JSON");
    let span = &line["span"];
    assert_eq!(line["fields"]["code"], 201);
    assert_eq!(
        (&span["name"], &span["audit_id"], &span["verb"], &span["resource"]),
        (&"request".into(), &"follow-me".into(), &"create".into(), &"secrets".into())
    );
    assert!(!text.contains("hush-hush"), "{text}");
}
