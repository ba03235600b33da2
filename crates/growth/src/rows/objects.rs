//! What the rules of kinds do with objects: metadata, lists, errors.

use super::{Row, fill, post, request};
use crate::world::Request;

const DONE: &[u16] = &[200, 201, 413, 422, 500];
const INVALID: &[u16] = &[413, 422];

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps?dryRun=All";
const PODS: &str = "/api/v1/namespaces/default/pods?dryRun=All";
const ACCOUNTS: &str =
    "/apis/authentication.open-cluster-management.io/v1beta1/namespaces/default/managedserviceaccounts";

fn create(
    name: &str,
    statuses: &'static [u16],
    target: &'static str,
    body: impl Fn(usize) -> Vec<u8> + 'static,
) -> Row {
    Row::new(name, statuses, move |size| post(target, body(size)))
}

/// A ConfigMap whose metadata has a list or a map of these items.
fn metadata(
    name: &str,
    statuses: &'static [u16],
    open: &'static str,
    item: fn(usize) -> String,
    close: &'static str,
) -> Row {
    create(name, statuses, CONFIG_MAPS, move |size| {
        fill(size, &format!("{{\"metadata\":{{\"name\":\"a\",{open}"), item, &format!("{close}}}}}"))
    })
}

pub(super) fn rows() -> Vec<Row> {
    [common(), of_kinds()].into_iter().flatten().collect()
}

fn common() -> Vec<Row> {
    vec![
        metadata("labels", DONE, "\"labels\":{", |n| format!("\"k{n}\":\"v\""), "}"),
        metadata("bad labels", INVALID, "\"labels\":{", |n| format!("\"!{n}\":\"!\""), "}"),
        metadata("annotations", DONE, "\"annotations\":{", |n| format!("\"k{n}\":\"v\""), "}"),
        metadata("bad annotations", INVALID, "\"annotations\":{", |n| format!("\"!{n}\":\"v\""), "}"),
        metadata("finalizers", DONE, "\"finalizers\":[", |n| format!("\"a.b/c{n}\""), "]"),
        metadata("equal finalizers", DONE, "\"finalizers\":[", |_| "\"a.b/c\"".into(), "]"),
        metadata("bad finalizers", INVALID, "\"finalizers\":[", |n| format!("\"!{n}\""), "]"),
        metadata("owners", DONE, "\"ownerReferences\":[", owner, "]"),
        metadata("equal owners", DONE, "\"ownerReferences\":[", |_| owner(0), "]"),
        metadata("empty owners", INVALID, "\"ownerReferences\":[", |_| "{}".into(), "]"),
        metadata(
            "controllers",
            INVALID,
            "\"ownerReferences\":[",
            |n| owner(n).replace('}', ",\"controller\":true}"),
            "]",
        ),
        metadata("managers", DONE, "\"managedFields\":[", manager, "]"),
        metadata("equal managers", DONE, "\"managedFields\":[", |_| manager(0), "]"),
        metadata("empty managers", DONE, "\"managedFields\":[", |_| "{}".into(), "]"),
        create("secret data", DONE, "/api/v1/namespaces/default/secrets?dryRun=All", |size| {
            fill(size, "{\"metadata\":{\"name\":\"a\"},\"data\":{", |n| format!("\"k{n}\":\"YQ==\""), "}}")
        }),
        create("secret text", DONE, "/api/v1/namespaces/default/secrets?dryRun=All", |size| {
            fill(size, "{\"metadata\":{\"name\":\"a\"},\"stringData\":{", |n| format!("\"k{n}\":\"a\""), "}}")
        }),
        create("bad secret", INVALID, "/api/v1/namespaces/default/secrets?dryRun=All", |size| {
            fill(size, "{\"metadata\":{\"name\":\"a\"},\"data\":{", |n| format!("\"!{n}\":\"\""), "}}")
        }),
        create(
            "secrets of an account",
            DONE,
            "/api/v1/namespaces/default/serviceaccounts?dryRun=All",
            |size| {
                fill(
                    size,
                    "{\"metadata\":{\"name\":\"a\"},\"secrets\":[",
                    |n| format!("{{\"name\":\"s{n}\"}}"),
                    "]}",
                )
            },
        ),
        create("tolerations of a pod", DONE, PODS, |size| {
            fill(size, POD, |n| format!("{{\"key\":\"k{n}\",\"operator\":\"Exists\"}}"), "]}}")
        }),
    ]
}

fn of_kinds() -> Vec<Row> {
    vec![
        create("containers of a pod", DONE, PODS, |size| {
            let head = "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[";
            fill(size, head, |n| format!("{{\"name\":\"c{n}\",\"image\":\"i\"}}"), "]}}")
        }),
        create("finalizers of a namespace", DONE, "/api/v1/namespaces?dryRun=All", |size| {
            fill(
                size,
                "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"finalizers\":[",
                |n| format!("\"a.b/c{n}\""),
                "]}}",
            )
        }),
        create("empty rotation", INVALID, ACCOUNTS, |size| {
            fill(
                size,
                "{\"apiVersion\":\"authentication.open-cluster-management.io/v1beta1\",\"kind\":\"ManagedServiceAccount\",\
                \"metadata\":{\"name\":\"a\"},\"spec\":{\"rotation\":[",
                |_| "{}".into(),
                "]}}",
            )
        }),
        conditions("empty conditions", INVALID, |_| "{}".into()),
        conditions("equal conditions", DONE, |_| condition(0)),
        conditions("conditions", DONE, condition),
        Row::new("options of a deletion", &[200], |size| {
            let mut request = post(
                format!("/api/v1/namespaces/default/configmaps/d{size}?dryRun=All"),
                fill(size, "{\"a\":{", |n| format!("\"k{n}\":1"), "}}"),
            );
            request.method = "DELETE";
            request
        })
        .after(|size| {
            let body = format!("{{\"metadata\":{{\"name\":\"d{size}\"}}}}");
            vec![post("/api/v1/namespaces/default/configmaps", body.into_bytes())]
        }),
        Row::new("dry runs of a deletion", &[422], |size| {
            let mut request = post(
                format!("/api/v1/namespaces/default/configmaps/d{size}"),
                fill(size, "{\"dryRun\":[", |n| format!("\"a{n}\""), "]}"),
            );
            request.method = "DELETE";
            request
        }),
    ]
}

const POD: &str = "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"serviceAccountName\":\"default\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}],\"tolerations\":[";

fn owner(n: usize) -> String {
    format!("{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":\"o\",\"uid\":\"{n}\"}}")
}

fn manager(n: usize) -> String {
    format!(
        "{{\"manager\":\"m{n}\",\"operation\":\"Update\",\"apiVersion\":\"v1\",\"time\":\"2026-01-01T00:00:00Z\",\
        \"fieldsType\":\"FieldsV1\",\"fieldsV1\":{{\"f:data\":{{\"f:k{n}\":{{}}}}}}}}"
    )
}

fn condition(n: usize) -> String {
    format!(
        "{{\"type\":\"T{n}\",\"status\":\"True\",\"reason\":\"R\",\"message\":\"\",\
        \"lastTransitionTime\":\"2026-01-01T00:00:00Z\"}}"
    )
}

/// What an agent may change: the conditions of an account.
fn conditions(name: &str, statuses: &'static [u16], item: fn(usize) -> String) -> Row {
    let account = |size: usize| format!("{ACCOUNTS}/c{size}");
    Row::new(name, statuses, move |size| {
        let body = fill(size, "{\"status\":{\"conditions\":[", item, "]}}");
        request("PATCH", format!("{}/status", account(size)), "application/merge-patch+json", body)
    })
    .after(|size| -> Vec<Request> {
        let body = format!(
            "{{\"apiVersion\":\"authentication.open-cluster-management.io/v1beta1\",\
            \"kind\":\"ManagedServiceAccount\",\"metadata\":{{\"name\":\"c{size}\"}},\"spec\":{{\"rotation\":{{}}}}}}"
        );
        vec![post(ACCOUNTS, body.into_bytes())]
    })
}
