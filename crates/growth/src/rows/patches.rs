//! Patches: JSON, merge and strategic merge.

use super::{Row, fill, post, repeated, request};
use crate::world::Request;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const DONE: &[u16] = &[200, 413, 422, 500];
const REFUSED: &[u16] = &[400, 413, 422, 500];
/// Small ones are good, and large ones have too many operations.
const ANY: &[u16] = &[200, 413, 422, 500];

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// A patch of a ConfigMap with a single member.
fn small(
    name: &str,
    statuses: &'static [u16],
    kind: &'static str,
    body: impl Fn(usize) -> Vec<u8> + 'static,
) -> Row {
    Row::new(name, statuses, move |size| {
        request("PATCH", format!("{CONFIG_MAPS}/p{size}?dryRun=All"), kind, body(size))
    })
    .after(|size| vec![config_map(size, "\"a\":\"b\"".into())])
}

/// A patch of an object that was made by another request, each of half the size.
fn large(
    name: &str,
    statuses: &'static [u16],
    kind: &'static str,
    collection: &'static str,
    before: impl Fn(usize) -> Request + 'static,
    body: impl Fn(usize) -> Vec<u8> + 'static,
) -> Row {
    // What is stored must not be refused for its length.
    const MOST: usize = 1024 * 1024;
    Row::new(name, statuses, move |size| {
        request("PATCH", format!("{collection}/p{size}?dryRun=All"), kind, body(size / 2))
    })
    .after(move |size| vec![before(size)])
    .at_most(MOST)
}

fn config_map(size: usize, data: String) -> Request {
    post(CONFIG_MAPS, format!("{{\"metadata\":{{\"name\":\"p{size}\"}},\"data\":{{{data}}}}}").into_bytes())
}

fn operations(size: usize, operation: fn(usize) -> String) -> Vec<u8> {
    fill(size, "[", operation, "]")
}

/// An account with as many secrets as fit into half of the size.
fn account(size: usize) -> Request {
    let head = format!("{{\"metadata\":{{\"name\":\"p{size}\"}},\"imagePullSecrets\":[");
    post(ACCOUNTS, fill(size / 2, &head, |n| format!("{{\"name\":\"s{n}\"}}"), "]}"))
}

/// A ConfigMap with as many keys as fit into half of the size.
fn keys(size: usize) -> Request {
    let head = format!("{{\"metadata\":{{\"name\":\"p{size}\"}},\"data\":{{");
    post(CONFIG_MAPS, fill(size / 2, &head, |n| format!("\"k{n}\":\"\""), "}}"))
}

/// A ConfigMap with as many finalizers as fit into half of the size.
fn finalizers(size: usize) -> Request {
    let head = format!("{{\"metadata\":{{\"name\":\"p{size}\",\"finalizers\":[");
    post(CONFIG_MAPS, fill(size / 2, &head, |n| format!("\"a.b/c{n}\""), "]}}"))
}

pub(super) fn rows() -> Vec<Row> {
    [common(), strategic()].into_iter().flatten().collect()
}

fn common() -> Vec<Row> {
    vec![
        small("json: adds", ANY, JSON, |size| {
            operations(size, |n| format!("{{\"op\":\"add\",\"path\":\"/data/k{n}\",\"value\":\"\"}}"))
        }),
        small("json: tests", ANY, JSON, |size| {
            operations(size, |_| "{\"op\":\"test\",\"path\":\"/data/a\",\"value\":\"b\"}".into())
        }),
        // A long value, so that both sizes meet the limit of what a patch may copy.
        Row::new("json: copies", REFUSED, |size| {
            let body =
                operations(size, |_| "{\"op\":\"copy\",\"from\":\"/data/a\",\"path\":\"/data/b\"}".into());
            request("PATCH", format!("{CONFIG_MAPS}/p{size}?dryRun=All"), JSON, body)
        })
        .after(|size| vec![config_map(size, format!("\"a\":\"{}\"", "b".repeat(100_000)))]),
        small("json: a deep path", REFUSED, JSON, |size| {
            repeated(size, "[{\"op\":\"add\",\"value\":1,\"path\":\"", "/a", "\"}]")
        }),
        small("json: a long value, tested", REFUSED, JSON, |size| {
            fill(size, "[{\"op\":\"test\",\"path\":\"/data\",\"value\":{", |n| format!("\"k{n}\":1"), "}}]")
        }),
        large("json: moves in a list", DONE, JSON, CONFIG_MAPS, finalizers, |size| {
            // At most as many operations as kube-apiserver takes.
            let operation =
                "{\"op\":\"move\",\"from\":\"/metadata/finalizers/0\",\"path\":\"/metadata/finalizers/-\"}";
            fill(size.min(10_000 * (operation.len() + 1)), "[", |_| operation.into(), "]")
        }),
        large("json: additions to a list", DONE, JSON, CONFIG_MAPS, finalizers, |size| {
            let operation = "{\"op\":\"add\",\"path\":\"/metadata/finalizers/0\",\"value\":\"x.y/z\"}";
            fill(size.min(10_000 * (operation.len() + 1)), "[", |_| operation.into(), "]")
        }),
        small("merge: keys", DONE, MERGE, |size| {
            fill(size, "{\"data\":{", |n| format!("\"k{n}\":\"\""), "}}")
        }),
        small("merge: nulls", DONE, MERGE, |size| {
            fill(size, "{\"data\":{", |n| format!("\"k{n}\":null"), "}}")
        }),
        small("merge: unknown members", DONE, MERGE, |size| fill(size, "{", |n| format!("\"k{n}\":1"), "}")),
        large("merge: other keys", DONE, MERGE, CONFIG_MAPS, keys, |size| {
            fill(size, "{\"data\":{", |n| format!("\"l{n}\":\"\""), "}}")
        }),
    ]
}

fn strategic() -> Vec<Row> {
    vec![
        small("strategic: keys", DONE, STRATEGIC, |size| {
            fill(size, "{\"data\":{", |n| format!("\"k{n}\":\"\""), "}}")
        }),
        large("strategic: equal items", DONE, STRATEGIC, ACCOUNTS, account, |size| {
            fill(size, "{\"imagePullSecrets\":[", |n| format!("{{\"name\":\"s{n}\"}}"), "]}")
        }),
        large("strategic: other items", DONE, STRATEGIC, ACCOUNTS, account, |size| {
            fill(size, "{\"imagePullSecrets\":[", |n| format!("{{\"name\":\"t{n}\"}}"), "]}")
        }),
        large("strategic: one item many times", DONE, STRATEGIC, ACCOUNTS, account, |size| {
            fill(size, "{\"imagePullSecrets\":[", |_| "{\"name\":\"t\"}".into(), "]}")
        }),
        large("strategic: deletions", DONE, STRATEGIC, ACCOUNTS, account, |size| {
            fill(
                size,
                "{\"imagePullSecrets\":[",
                |n| format!("{{\"$patch\":\"delete\",\"name\":\"s{n}\"}}"),
                "]}",
            )
        }),
        large("strategic: an order", DONE, STRATEGIC, ACCOUNTS, account, |size| {
            fill(
                size,
                "{\"$setElementOrder/imagePullSecrets\":[",
                |n| format!("{{\"name\":\"s{}\"}}", 99_999 - n),
                "]}",
            )
        }),
        large("strategic: deletions from a list", DONE, STRATEGIC, CONFIG_MAPS, finalizers, |size| {
            let head = "{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[";
            fill(size, head, |n| format!("\"a.b/c{n}\""), "]}}")
        }),
        large("strategic: finalizers", DONE, STRATEGIC, CONFIG_MAPS, finalizers, |size| {
            fill(size, "{\"metadata\":{\"finalizers\":[", |n| format!("\"a.b/d{n}\""), "]}}")
        }),
    ]
}
