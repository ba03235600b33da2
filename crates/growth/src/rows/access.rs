//! Who may do what, and who somebody is: RBAC, reviews, tokens, certificate requests.

use super::{Row, fill, post, repeated};
use crate::world::{Request, User};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};

const DONE: &[u16] = &[201, 413, 422, 500];
const FORBIDDEN: &[u16] = &[403, 413, 422];

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/roles?dryRun=All";

/// A role that a tenant makes.
fn role(name: &str, statuses: &'static [u16], body: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| post(ROLES, body(size)).by(User::Tenant))
}

/// A rule of as many of each as fit.
fn product(size: usize, parts: &[(&str, &str)]) -> Vec<u8> {
    let room = (size - 100) / parts.len();
    let lists = parts.iter().map(|(key, item)| {
        let list = fill(room, &format!("\"{key}\":["), |n| format!("\"{item}{n}\""), "]");
        String::from_utf8(list).expect("names are text")
    });
    let rule = lists.collect::<Vec<_>>().join(",");
    format!("{{\"metadata\":{{\"name\":\"a\"}},\"rules\":[{{{rule}}}]}}").into_bytes()
}

fn rules(size: usize, rule: impl Fn(usize) -> String) -> Vec<u8> {
    fill(size, "{\"metadata\":{\"name\":\"a\"},\"rules\":[", rule, "]}")
}

fn review(name: &str, path: &'static str, body: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, &[201, 400, 422], move |size| post(path, body(size)))
}

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests?dryRun=All";

pub(super) fn rows() -> Vec<Row> {
    [common(), identities()].into_iter().flatten().collect()
}

fn common() -> Vec<Row> {
    vec![
        role("groups, resources and verbs", FORBIDDEN, |size| {
            product(size, &[("apiGroups", "g"), ("resources", "r"), ("verbs", "v")])
        }),
        role("groups, resources, verbs and names", FORBIDDEN, |size| {
            product(size, &[("apiGroups", "g"), ("resources", "r"), ("verbs", "v"), ("resourceNames", "n")])
        }),
        role("verbs", FORBIDDEN, |size| {
            rules(size, |n| format!("{{\"apiGroups\":[\"\"],\"resources\":[\"pods\"],\"verbs\":[\"v{n}\"]}}"))
        }),
        role("names that are allowed", DONE, |size| {
            rules(size, |n| {
                format!("{{\"apiGroups\":[\"\"],\"resources\":[\"secrets\"],\"verbs\":[\"get\"],\"resourceNames\":[\"n{n}\"]}}")
            })
        }),
        role("names of one rule", DONE, |size| {
            let head = "{\"metadata\":{\"name\":\"a\"},\"rules\":[{\"apiGroups\":[\"\"],\"resources\":[\"secrets\"],\
                \"verbs\":[\"get\"],\"resourceNames\":[";
            fill(size, head, |n| format!("\"n{n}\""), "]}]}")
        }),
        role("empty rules", FORBIDDEN, |size| rules(size, |_| "{}".into())),
        Row::new("subjects", DONE, |size| {
            let head = "{\"metadata\":{\"name\":\"a\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\
                \"kind\":\"ClusterRole\",\"name\":\"view\"},\"subjects\":[";
            let subject = |n| format!("{{\"kind\":\"ServiceAccount\",\"name\":\"a{n}\",\"namespace\":\"b\"}}");
            post(
                "/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/rolebindings?dryRun=All",
                fill(size, head, subject, "]}"),
            )
            .by(User::Tenant)
        }),
        Row::new("a binding to a long role", FORBIDDEN, |_| {
            let body = "{\"metadata\":{\"name\":\"b\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\
                \"kind\":\"Role\",\"name\":\"long\"},\"subjects\":[]}";
            let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/rolebindings?dryRun=All";
            post(path, body.into()).by(User::Tenant)
        })
        .at_most(1024 * 1024)
        .after(|size| vec![long_role(size)]),
        review("groups of a user", ACCESS_REVIEWS, |size| {
            let head = "{\"spec\":{\"resourceAttributes\":{\"verb\":\"get\",\"resource\":\"pods\"},\"groups\":[";
            fill(size, head, |n| format!("\"g{n}\""), "]}}")
        }),
    ]
}

fn identities() -> Vec<Row> {
    vec![
        review("extra of a user", ACCESS_REVIEWS, |size| {
            let head = "{\"spec\":{\"user\":\"u\",\"resourceAttributes\":{\"verb\":\"get\",\"resource\":\"pods\"},\"extra\":{";
            fill(size, head, |n| format!("\"e{n}\":[\"v\"]"), "}}}")
        }),
        review("requirements of a selector", ACCESS_REVIEWS, |size| {
            let head = "{\"spec\":{\"user\":\"u\",\"resourceAttributes\":{\"verb\":\"list\",\"resource\":\"pods\",\
                \"labelSelector\":{\"requirements\":[";
            fill(
                size,
                head,
                |n| format!("{{\"key\":\"k{n}\",\"operator\":\"In\",\"values\":[\"v\"]}}"),
                "]}}}}",
            )
        }),
        review("a long token", TOKEN_REVIEWS, |size| repeated(size, "{\"spec\":{\"token\":\"", "a", "\"}}")),
        review("a token of dots", TOKEN_REVIEWS, |size| {
            repeated(size, "{\"spec\":{\"token\":\"", ".", "\"}}")
        }),
        review("claims of a token", TOKEN_REVIEWS, |size| {
            let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
            let head = "{\"iss\":\"https://kubernetes.default.svc\",\"aud\":[";
            let claims = fill(size / 4 * 3 - 200, head, |n| format!("\"a{n}\""), "]}");
            let token = format!("{}.{}.AAAA", encode(b"{\"alg\":\"ES256\"}"), encode(&claims));
            format!("{{\"spec\":{{\"token\":\"{token}\"}}}}").into_bytes()
        }),
        review("audiences of a review", TOKEN_REVIEWS, |size| {
            fill(size, "{\"spec\":{\"token\":\"a.b.c\",\"audiences\":[", |n| format!("\"a{n}\""), "]}}")
        }),
        Row::new("audiences of a token", &[201, 400, 413, 422, 500], |size| {
            let head = "{\"spec\":{\"audiences\":[";
            post(
                format!("/api/v1/namespaces/default/serviceaccounts/s{size}/token"),
                fill(size, head, |n| format!("\"a{n}\""), "]}}"),
            )
        })
        .after(|size| {
            let body = format!("{{\"metadata\":{{\"name\":\"s{size}\"}}}}");
            vec![post("/api/v1/namespaces/default/serviceaccounts", body.into_bytes())]
        }),
        Row::new("names of a certificate", DONE, |size| post(REQUESTS, certificate_request(size))),
        Row::new("usages of a certificate", DONE, |size| {
            let request = certificate_request(2_000);
            let text = String::from_utf8(request).expect("a request is text");
            let usages = fill(size - text.len(), "\"usages\":[", |_| "\"client auth\"".into(), ",");
            let usages = String::from_utf8(usages).expect("usages are text");
            post(REQUESTS, text.replace("\"usages\":[", &usages).into_bytes())
        }),
    ]
}

/// A role that only the administrator may make, with as many names as fit.
fn long_role(size: usize) -> Request {
    let head = "{\"metadata\":{\"name\":\"long\"},\"rules\":[{\"apiGroups\":[\"x\"],\"resources\":[\"secrets\"],\
        \"verbs\":[\"get\"],\"resourceNames\":[";
    let mut request = post(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/roles/long",
        fill(size, head, |n| format!("\"n{n}\""), "]}]}"),
    );
    request.method = "PUT";
    request
}

/// A CertificateSigningRequest with so many names that it is about as long.
fn certificate_request(size: usize) -> Vec<u8> {
    // Each is 20 bytes of DER, and base64 is put on it twice.
    let names = (size / 40).max(1);
    let names: Vec<String> = (0..names).map(|n| format!("n{n:06}.example.com")).collect();
    let key = KeyPair::generate().expect("a key can be made");
    let params = CertificateParams::new(names).expect("they are names");
    let request =
        params.serialize_request(&key).and_then(|request| request.pem()).expect("a request can be made");
    format!(
        "{{\"metadata\":{{\"name\":\"a\"}},\"spec\":{{\"request\":\"{}\",\"signerName\":\"example.com/a\",\"usages\":[\
        \"client auth\"]}}}}",
        STANDARD.encode(request)
    )
    .into_bytes()
}
