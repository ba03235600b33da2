//! Server-side apply, and who owns which field.

use super::{Row, fill, post, request};
use crate::world::Request;

const DONE: &[u16] = &[200, 201, 413, 422, 500];
const CONFLICT: &[u16] = &[409];
const APPLY: &str = "application/apply-patch+yaml";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What is stored must not be refused for its length.
const MOST: usize = 1024 * 1024;

fn apply(size: usize, manager: &str, body: Vec<u8>) -> Request {
    request("PATCH", format!("{CONFIG_MAPS}/a{size}?fieldManager={manager}"), APPLY, body)
}

/// An applied ConfigMap of the name of this size, with these members, which take half of the size.
fn body(size: usize, open: &str, item: impl Fn(usize) -> String, close: &str) -> Vec<u8> {
    let head =
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"a{size}\"{open}");
    fill(size / 2, &head, item, close)
}

fn keys(size: usize, value: &str) -> Vec<u8> {
    body(size, "},\"data\":{", |n| format!("\"k{n}\":\"{value}\""), "}}")
}

fn finalizers(size: usize, prefix: &str) -> Vec<u8> {
    body(size, ",\"finalizers\":[", |n| format!("\"a.b/{prefix}{n}\""), "]}}")
}

/// A ConfigMap with a single key.
fn one_key(size: usize) -> Vec<u8> {
    format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"a{size}\"}},\"data\":{{\"z\":\"v\"}}}}")
        .into_bytes()
}

pub(super) fn rows() -> Vec<Row> {
    let new = |name, body: fn(usize) -> Vec<u8>| {
        Row::new(name, DONE, move |size| apply(size, "m", body(size))).at_most(MOST)
    };
    let applied = |size| vec![apply(size, "m", keys(size, "v"))];
    vec![
        new("keys", |size| keys(size, "v")),
        new("finalizers", |size| finalizers(size, "c")),
        new("labels", |size| body(size, ",\"labels\":{", |n| format!("\"k{n}\":\"v\""), "}}}")),
        new("owners", |size| {
            let owner = |n| format!("{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":\"o\",\"uid\":\"{n}\"}}");
            body(size, ",\"ownerReferences\":[", owner, "]}}")
        }),
        new("unknown members", |size| body(size, "},", |n| format!("\"k{n}\":1"), "}")),
        new("the same again", |size| keys(size, "v")).after(applied),
        new("nothing of what was applied", one_key).after(applied),
        new("finalizers again", |size| finalizers(size, "c"))
            .after(|size| vec![apply(size, "m", finalizers(size, "c"))]),
        new("other finalizers", |size| finalizers(size, "d"))
            .after(|size| vec![apply(size, "m", finalizers(size, "c"))]),
        Row::new("conflicts", CONFLICT, |size| apply(size, "n", keys(size, "w"))).at_most(MOST).after(applied),
        Row::new("an update of what was applied", DONE, |size| {
            request("PUT", format!("{CONFIG_MAPS}/a{size}"), "application/json", keys(size, "w"))
        })
        .at_most(MOST)
        .after(applied),
        Row::new("managers", DONE, |size| apply(size, "last", one_key(size))).at_most(MOST).after(|size| {
            let head = format!("{{\"metadata\":{{\"name\":\"a{size}\",\"managedFields\":[");
            let manager = |n| {
                format!(
                    "{{\"manager\":\"m{n}\",\"operation\":\"Update\",\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\
                    \"time\":\"2026-01-01T00:00:00Z\",\"fieldsV1\":{{\"f:data\":{{\"f:k{n}\":{{}}}}}}}}"
                )
            };
            vec![post(CONFIG_MAPS, fill(size / 4, &head, manager, "]}}"))]
        }),
    ]
}
