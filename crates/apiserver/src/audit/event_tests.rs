use super::*;
use fleetpass_apimachinery::Query;
use fleetpass_apimachinery::status::{Cause, Details};
use http::{HeaderName, HeaderValue, Method};
use serde_json::json;

const RECEIVED: &str = "2026-01-02T03:04:05.6Z";
const AT: &str = "2026-01-02T03:04:06.000001Z";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn facts(method: &str, target: &str, pairs: &[(&'static str, &str)]) -> AuditContext {
    let (method, uri): (Method, Uri) = (method.parse().unwrap(), target.parse().unwrap());
    let peer = Some("10.0.0.9".parse().unwrap());
    let received = RECEIVED.parse().unwrap();
    let mut facts = AuditContext::new("id-1".into(), &method, &uri, &headers(pairs), peer, received);
    let query = Query::parse(uri.query().unwrap_or_default());
    facts.info = Some(RequestInfo::parse(method.as_str(), uri.path(), &query));
    let user = UserInfo { name: "alice".into(), groups: vec!["devs".into()], ..UserInfo::default() };
    facts.user = Some(Arc::new(user));
    facts
}

fn event(facts: &AuditContext, stage: Stage, outcome: &Outcome) -> Value {
    let line = line(facts, stage, outcome, AT.parse().unwrap());
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&line).unwrap()
}

#[test]
fn an_event_says_who_did_what() {
    let mut facts = facts(
        "PUT",
        "/api/v1/namespaces/a/secrets/b?dryRun=All",
        &[("user-agent", "kubectl/v1"), ("x-forwarded-for", "192.0.2.1, nonsense,192.0.2.2")],
    );
    let robot = UserInfo {
        name: "system:serviceaccount:a:robot".into(),
        uid: "u".into(),
        groups: vec!["system:serviceaccounts".into()],
        extra: [("authentication.kubernetes.io/credential-id".into(), vec!["JTI=1".into()])].into(),
    };
    facts.impersonated = Some((Arc::new(robot), Some("impersonate:serviceaccount")));
    facts.notes.annotate(DECISION, "allow");
    facts.notes.annotate(REASON, "");
    facts.notes.object(
        &json!({"metadata": {"name": "other", "uid": "u1", "resourceVersion": "7"}, "data": {"k": "djM="}}),
    );
    let line = line(&facts, Stage::ResponseComplete, &Outcome::Code(200), AT.parse().unwrap());
    // The order of members is that of kube-apiserver.
    let expected = concat!(
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-1","#,
        r#""stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/secrets/b?dryRun=All","verb":"update","#,
        r#""user":{"username":"alice","groups":["devs"]},"impersonatedUser":{"#,
        r#""username":"system:serviceaccount:a:robot","uid":"u","groups":["system:serviceaccounts"],"#,
        r#""extra":{"authentication.kubernetes.io/credential-id":["JTI=1"]}},"#,
        r#""authenticationMetadata":{"impersonationConstraint":"impersonate:serviceaccount"},"#,
        r#""sourceIPs":["192.0.2.1","192.0.2.2","10.0.0.9"],"userAgent":"kubectl/v1","#,
        r#""objectRef":{"resource":"secrets","namespace":"a","name":"b","uid":"u1","apiVersion":"v1","#,
        r#""resourceVersion":"7"},"responseStatus":{"metadata":{},"code":200},"#,
        r#""requestReceivedTimestamp":"2026-01-02T03:04:05.600000Z","stageTimestamp":"2026-01-02T03:04:06.000001Z","#,
        r#""annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

#[test]
fn objects_are_named_by_the_path_and_else_by_the_body() {
    let body = json!({"metadata": {"name": "n", "namespace": "m"}});
    for (method, target, verb, object) in [
        (
            "POST",
            "/api/v1/namespaces/a/secrets",
            "create",
            json!({"resource": "secrets", "namespace": "a", "name": "n", "apiVersion": "v1"}),
        ),
        (
            "POST",
            "/api/v1/namespaces/a/serviceaccounts/r/token",
            "create",
            json!({"resource": "serviceaccounts", "namespace": "a", "name": "r", "apiVersion": "v1",
                "subresource": "token"}),
        ),
        (
            "GET",
            "/apis/x.y/v2/things?watch=true",
            "watch",
            json!({"resource": "things", "namespace": "m", "name": "n", "apiGroup": "x.y", "apiVersion": "v2"}),
        ),
        ("GET", "/version", "get", Value::Null),
    ] {
        let facts = facts(method, target, &[]);
        facts.notes.object(&body);
        let event = event(&facts, Stage::ResponseStarted, &Outcome::Code(200));
        assert_eq!((&event["verb"], &event["objectRef"]), (&verb.into(), &object), "{target}");
        assert_eq!(event.get("userAgent"), None);
        assert_eq!(event.get("annotations"), None);
        assert_eq!(event.get("impersonatedUser"), None);
    }
    let facts = facts("POST", "/api/v1/secrets", &[]);
    facts.notes.object(&json!({"metadata": {"name": "x".repeat(254)}}));
    let event = event(&facts, Stage::ResponseComplete, &Outcome::Code(422));
    assert_eq!(event["objectRef"], json!({"resource": "secrets", "apiVersion": "v1"}));
}

#[test]
fn answers_are_told_without_words_of_the_body() {
    let refused = |code, reason, message: &str| {
        let cause = Cause { message: "Invalid value: \"hunter2\"".into(), ..Cause::default() };
        let details = Details { name: "b".into(), causes: vec![cause], ..Details::default() };
        Outcome::Refused(Status { details: Some(Box::new(details)), ..Status::new(code, reason, message) })
    };
    let facts = facts("POST", "/api/v1/secrets", &[]);
    for (outcome, stage, status) in [
        (Outcome::Code(404), Stage::ResponseComplete, json!({"metadata": {}, "code": 404})),
        (
            Outcome::ClosedEarly,
            Stage::ResponseComplete,
            json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200}),
        ),
        (
            Outcome::Panicked,
            Stage::Panic,
            json!({"metadata": {}, "status": "Failure", "message": "APIServer panic'd", "reason": "InternalError",
                "code": 500}),
        ),
        (
            refused(422, "Invalid", "data: Invalid value: \"hunter2\""),
            Stage::ResponseComplete,
            json!({"metadata": {}, "status": "Failure", "reason": "Invalid", "details": {"name": "b"}, "code": 422}),
        ),
        (
            refused(400, "BadRequest", "cannot decode hunter2"),
            Stage::ResponseComplete,
            json!({"metadata": {}, "status": "Failure", "reason": "BadRequest", "details": {"name": "b"}, "code": 400}),
        ),
        (
            Outcome::Refused(Status::plain_error(
                "failed to create typed patch object: expected map, got hunter2",
            )),
            Stage::ResponseComplete,
            json!({"metadata": {}, "status": "Failure", "code": 500}),
        ),
        (
            Outcome::Refused(Status::not_found(
                fleetpass_apimachinery::status::GroupResource { group: "", resource: "secrets" },
                "b",
            )),
            Stage::ResponseComplete,
            json!({"metadata": {}, "status": "Failure", "message": "secrets \"b\" not found", "reason": "NotFound",
                "details": {"name": "b", "kind": "secrets"}, "code": 404}),
        ),
    ] {
        let event = event(&facts, stage, &outcome);
        assert_eq!(event["responseStatus"], status);
        assert_eq!(event["stage"], json!(stage));
    }
}

#[test]
fn bad_credentials_are_named_but_not_shown() {
    for (target, pairs, certificate, attempted) in [
        ("/", vec![("authorization", "Bearer s3cr3t")], false, "bearer"),
        ("/", vec![("authorization", "bEARER s3cr3t")], true, "bearer, x509"),
        ("/", vec![("authorization", "Basic czNjcjN0OnMzY3IzdA==")], false, "basic"),
        ("/?access_token=s3cr3t", vec![], false, "access_token"),
    ] {
        let mut facts = facts("GET", target, &pairs);
        (facts.user, facts.info) = (None, None);
        let message = super::attempted(&headers(&pairs), &target.parse().unwrap(), certificate);
        let event = event(&facts, Stage::ResponseStarted, &Outcome::Unauthenticated(message));
        let expected = format!("Authentication failed, attempted: {attempted}");
        assert_eq!(event["responseStatus"], json!({"metadata": {}, "message": expected, "code": 401}));
        assert_eq!((&event["user"], &event["verb"]), (&json!({}), &json!("get")));
        let text = event.to_string();
        assert!(!text.contains("s3cr3t") && !text.contains("czNjcjN0"), "{text}");
    }
    let none = attempted(&HeaderMap::new(), &"/".parse().unwrap(), false);
    assert_eq!(none, "Authentication failed, no credentials provided");
}

#[test]
fn queries_keep_what_the_api_knows_and_nothing_else() {
    for (target, written) in [
        (
            "/api/v1/secrets?labelSelector=a%3Db&limit=5&watch",
            "/api/v1/secrets?labelSelector=a%3Db&limit=5&watch",
        ),
        ("/x?token=s3cr3t", "/x?token=REDACTED"),
        (
            "/x?access_token=s3cr3t&pretty=true&password=s3cr3t",
            "/x?access_token=REDACTED&pretty=true&password=REDACTED",
        ),
        ("/x?Timeout=s3cr3t", "/x?Timeout=REDACTED"),
        ("/x?%74imeout=5s&to%6ben=s3cr3t", "/x?%74imeout=5s&to%6ben=REDACTED"),
        ("/x?s3cr3t", "/x?REDACTED"),
        ("/x?s3cr3t&watch=1&&token=", "/x?REDACTED&watch=1&&token="),
        ("/x?a=b=s3cr3t", "/x?a=REDACTED"),
        ("/a%2Fb?", "/a%2Fb?"),
    ] {
        assert_eq!(redacted(&target.parse().unwrap()), written, "{target}");
    }
}

#[test]
fn addresses_are_those_of_proxies_and_last_the_peer() {
    let ips = |pairs: &[(&'static str, &str)], peer: &str| {
        let ips = sources(&headers(pairs), peer.parse().ok());
        ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ips(&[], "192.0.2.1"), "192.0.2.1");
    assert_eq!(ips(&[], "::ffff:192.0.2.1"), "192.0.2.1");
    assert_eq!(ips(&[], "nowhere"), "");
    assert_eq!(ips(&[("x-real-ip", "192.0.2.7")], "192.0.2.1"), "192.0.2.7 192.0.2.1");
    let chain = [("x-forwarded-for", "192.0.2.7,192.0.2.1"), ("x-real-ip", "192.0.2.7")];
    assert_eq!(ips(&chain, "192.0.2.1"), "192.0.2.7 192.0.2.1");
}

#[test]
fn what_clients_say_of_themselves_is_bounded() {
    let id = |text: &str| requested_id(&headers(&[("audit-id", text)]));
    assert_eq!(id("5e7b"), Some("5e7b".into()));
    assert_eq!(id(&"x".repeat(65)), Some("x".repeat(64)));
    assert_eq!(id(""), None);
    assert_eq!(id("a b"), Some("ab".into()));
    assert_eq!(requested_id(&HeaderMap::new()), None);
    let agent = |length: usize| user_agent(&headers(&[("user-agent", &"x".repeat(length))]));
    assert_eq!(agent(1024), "x".repeat(1024));
    assert_eq!(agent(1025), format!("{}...TRUNCATED", "x".repeat(1024)));
}
