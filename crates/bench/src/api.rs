//! What else a hub is asked: TokenReview, get, list, create, watch; beside kube-apiserver with etcd.

use crate::load::{self, Answers, Plan, Protocol};
use crate::pace::Pace;
use crate::proc::cpu_seconds;
use crate::report::{Goal, Section, round};
use crate::servers::{self, Program, program_name};
use crate::watchers;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use fleetpass_testkit::rig::{ControlPlane, Endpoint};
use fleetpass_token::key::KeyKind;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// What one server gave.
struct Measured {
    get: Answers,
    review: Answers,
    create: Answers,
    /// Seconds of one list.
    list: Answers,
    list_bytes: usize,
    fan_out: watchers::FanOut,
}

/// How much there is to list and to watch.
struct Amounts {
    secrets: usize,
    watchers: usize,
    events: usize,
}

/// Measures both servers.
///
/// # Errors
///
/// A server does not start, or refuses a request.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let amounts = Amounts {
        secrets: pace.count(10_000, 200),
        watchers: pace.count(1_000, 20),
        events: pace.count(1_000, 20),
    };
    let how = format!(
        "Over TLS as an administrator, HTTP/2: 8 connections with 8 requests under way on each for get of a ServiceAccount and \
         TokenReview of a bound token; 64 connections with one for creates of ConfigMaps, each answered when it is on disk; \
         one list of {} Secrets (JSON, not packed) after the other; {} watches of ConfigMaps, of which one is changed {} \
         times: the processor seconds of the server, until the last watcher has the last event.",
        amounts.secrets, amounts.watchers, amounts.events
    );
    let mut section =
        Section::new("The API", &how, &["what", "server", "per second", "p50 ms", "p99 ms", "remark"]);
    let mut both = Vec::new();
    for program in Program::BOTH {
        let measured = measure_one(pace, program, &amounts).await?;
        rows(&mut section, program, &measured);
        both.push(measured);
    }
    if let [ours, theirs] = &both[..] {
        goals(&mut section, ours, theirs);
    }
    Ok(section)
}

fn rows(section: &mut Section, program: Program, measured: &Measured) {
    let list = format!("{} MB each", round(measured.list_bytes as f64 / 1e6));
    for (what, answers, remark) in [
        ("get", &measured.get, ""),
        ("TokenReview", &measured.review, ""),
        ("create", &measured.create, ""),
        ("list", &measured.list, list.as_str()),
    ] {
        section.row([
            what.into(),
            program_name(program).into(),
            answers.rate().into(),
            answers.quantile(0.5).into(),
            answers.quantile(0.99).into(),
            remark.into(),
        ]);
    }
    let fan_out = &measured.fan_out;
    section.row([
        "events to watchers".into(),
        program_name(program).into(),
        (fan_out.events as f64 / fan_out.seconds).into(),
        "".into(),
        "".into(),
        format!(
            "{} events in {} s, {} CPU s",
            round(fan_out.events as f64),
            round(fan_out.seconds),
            round(fan_out.cpu_seconds)
        )
        .into(),
    ]);
}

fn goals(section: &mut Section, ours: &Measured, theirs: &Measured) {
    for (what, of, at_least, a, b) in [
        ("TokenReview", "kube-apiserver", 5.0, &ours.review, &theirs.review),
        ("get", "kube-apiserver", 5.0, &ours.get, &theirs.get),
        ("list of Secrets", "kube-apiserver", 5.0, &ours.list, &theirs.list),
        ("durable creates, 64 writers", "kube-apiserver + etcd", 3.0, &ours.create, &theirs.create),
    ] {
        let detail = format!("{}/s to {}/s", round(a.rate()), round(b.rate()));
        section.goals.push(Goal::ratio(what, of, at_least, a.rate() / b.rate(), &detail));
    }
    let (a, b) = (ours.fan_out.cpu_seconds, theirs.fan_out.cpu_seconds);
    let detail = format!("{} CPU s to {} CPU s", round(a), round(b));
    section.goals.push(Goal::ratio(
        "watch fan-out, fewer CPU seconds",
        "kube-apiserver",
        5.0,
        b / a,
        &detail,
    ));
}

async fn measure_one(pace: &Pace, program: Program, amounts: &Amounts) -> Result<Measured> {
    let plane = servers::start(program, KeyKind::Rsa2048).await?;
    let endpoint = plane.endpoint();
    let client = endpoint.admin().await?;
    let plan = |connections, streams| Plan {
        protocol: Protocol::Http2,
        connections,
        streams,
        warm_up: pace.span(1.0),
        duration: pace.span(5.0),
        rate: None,
    };
    let account = load::get("/api/v1/namespaces/bench/serviceaccounts/robot");
    let get = load::run(endpoint, plan(8, 8), account).await?;
    let review = load::run(endpoint, plan(8, 8), token_review(&client).await?).await?;
    let create = load::run(endpoint, plan(64, 1), creates()).await?;
    put_secrets(&client, amounts.secrets).await?;
    let path = "/api/v1/namespaces/bench/secrets";
    let list_bytes = size_of_list(&client, path).await?;
    let list = load::run(endpoint, plan(1, 1), load::get(path)).await?;
    let fan_out = fan_out(&plane, &client, amounts).await?;
    Ok(Measured { get, review, create, list, list_bytes, fan_out })
}

async fn token_review(client: &Client) -> Result<load::Make> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "bench");
    let token =
        accounts.create_token_request("robot", &PostParams::default(), &TokenRequest::default()).await?;
    let token = token.status.and_then(|status| status.token).context("the answer has no token")?;
    let review: TokenReview = serde_json::from_value(json!({"spec": {"token": token}}))?;
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    let authenticated = answer.status.and_then(|status| status.authenticated);
    anyhow::ensure!(authenticated == Some(true), "the token is refused");
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    Ok(load::post("/apis/authentication.k8s.io/v1/tokenreviews", &body))
}

/// Each of another ConfigMap.
fn creates() -> load::Make {
    Arc::new(|number| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("made-{number}")},
            "data": {"text": "some text that is as long as a line of a usual configuration file is"}});
        load::request("POST", "/api/v1/namespaces/bench/configmaps", Bytes::from(body.to_string()))
    })
}

/// Secrets as an agent projects them: a token of usual length and an authority.
async fn put_secrets(client: &Client, count: usize) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "bench");
    let (token, authority) = ("t".repeat(900), "c".repeat(1_100));
    futures::stream::iter(0..count)
        .map(|number| {
            let (secrets, token, authority) = (secrets.clone(), &token, &authority);
            async move {
                let secret: Secret = serde_json::from_value(json!({
                    "metadata": {"name": format!("token-{number}"), "labels": {"app": "bench"}},
                    "stringData": {"token": token, "ca.crt": authority}}))?;
                secrets.create(&PostParams::default(), &secret).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(32)
        .try_collect()
        .await
}

async fn size_of_list(client: &Client, path: &str) -> Result<usize> {
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(client.request_text(request).await?.len())
}

async fn fan_out(plane: &ControlPlane, client: &Client, amounts: &Amounts) -> Result<watchers::FanOut> {
    let processes = plane.processes();
    let endpoint: &Endpoint = plane.endpoint();
    let watching = watchers::Watchers::start(endpoint, amounts.watchers).await?;
    // What they cost to start is not meant.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cpu_seconds(&processes)?;
    let mut measured = watching.see(client, amounts.events).await?;
    measured.cpu_seconds = cpu_seconds(&processes)? - before;
    Ok(measured)
}
