//! kube-rs as its users have it, over TLS: what a program does with it works on Fleetpass as its documentation says.

mod controller;
mod objects;
mod patches;
mod reflectors;

use anyhow::Result;
use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::{Value, json};

/// The administrator's client of a cluster.
async fn admin(cluster: &Cluster) -> Result<Client> {
    cluster.client_over_tls(cluster.address, ADMIN_TOKEN).await
}

/// The ConfigMaps of the namespace `default`.
fn configmaps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

/// A ConfigMap.
fn configmap(name: &str, data: &Value) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "data": data}))?)
}

/// What a server says when it refuses.
fn refusal<T>(answer: kube::Result<T>) -> Box<kube::core::Status> {
    match answer {
        Ok(_) => panic!("the server does not refuse"),
        Err(kube::Error::Api(status)) => status,
        Err(other) => panic!("not a refusal but: {other}"),
    }
}
