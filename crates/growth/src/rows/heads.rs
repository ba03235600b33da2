//! Paths, queries and headers.

use super::{HEAD, Row, fill, get, joined, post};
use crate::world::Request;

const DONE: &[u16] = &[200];
const REFUSED: &[u16] = &[400];

/// A list of ConfigMaps with this query.
fn list(name: &str, statuses: &'static [u16], query: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| {
        let query = String::from_utf8(query(size)).expect("queries are text");
        get(format!("/api/v1/namespaces/default/configmaps?{query}"))
    })
    .at_most(HEAD)
}

/// A list with this `Accept`.
fn accept(name: &str, statuses: &'static [u16], header: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| Request {
        accept: String::from_utf8(header(size)).expect("headers are text"),
        ..get("/api/v1/namespaces/default/configmaps")
    })
    .at_most(HEAD)
}

pub(super) fn rows() -> Vec<Row> {
    let labelled = |size: usize| {
        let labels = (0..size / 200).map(|n| format!("\"k{n}\":\"v\"")).collect::<Vec<_>>().join(",");
        let body = format!("{{\"metadata\":{{\"name\":\"h{size}\",\"labels\":{{{labels}}}}}}}");
        vec![post("/api/v1/namespaces/default/configmaps", body.into_bytes())]
    };
    vec![
        list("requirements", DONE, |size| fill(size, "labelSelector=", |n| format!("k{n}"), ""))
            .after(labelled),
        list("requirements of one key", DONE, |size| {
            fill(size, "labelSelector=", |n| format!("k!=v{n}"), "")
        })
        .after(labelled),
        list("values", DONE, |size| fill(size, "labelSelector=k%20in%20(", |n| format!("v{n}"), ")"))
            .after(labelled),
        list("equal values", DONE, |size| fill(size, "labelSelector=k%20in%20(", |_| "v".into(), ")"))
            .after(labelled),
        list("bad values", REFUSED, |size| fill(size, "labelSelector=k%20in%20(", |n| format!("!{n}"), ")")),
        list("terms of a field selector", DONE, |size| {
            fill(size, "fieldSelector=", |n| format!("metadata.name!=a{n}"), "")
        })
        .after(labelled),
        list("equal terms of a field selector", DONE, |size| {
            fill(size, "fieldSelector=", |_| "metadata.name=a".into(), "")
        }),
        list("escapes", REFUSED, |size| joined(size, "labelSelector=", |_| "%2C%28".into(), "", "")),
        list("parameters", DONE, |size| joined(size, "", |n| format!("p{n}=1"), "&", "")),
        list("one parameter many times", DONE, |size| joined(size, "", |_| "limit=1".into(), "&", "")),
        list("a long token of a page", REFUSED, |size| {
            joined(size, "limit=1&continue=", |_| "eyJ2".into(), "", "")
        })
        // The head of a request is no longer.
        .at_most(64 * 1024),
        accept("types", &[406], |size| fill(size, "", |n| format!("a/b{n}"), "")),
        accept("weights", &[200, 406], |size| {
            fill(size, "", |n| format!("a/b{n};q=0.{}", n % 900 + 100), ",*/*")
        }),
        accept("tables", &[200, 406], |size| {
            fill(size, "", |n| format!("application/json;as=T{n};v=v1;g=meta.k8s.io"), "")
        }),
        accept("parameters of a type", &[200, 406], |size| {
            joined(size, "application/json", |n| format!(";p{n}=1"), "", "")
        }),
        Row::new("dry runs", &[400, 422], |size| {
            let query =
                String::from_utf8(joined(size, "", |n| format!("dryRun=a{n}"), "&", "")).expect("it is text");
            post(format!("/api/v1/namespaces/default/configmaps?{query}"), b"{}".to_vec())
        })
        .at_most(HEAD),
        Row::new("a path", &[404], |size| {
            get(String::from_utf8(joined(size, "/apis/", |_| "a/".into(), "", "")).expect("it is text"))
        })
        .at_most(HEAD),
    ]
}
