//! TokenRequest: how many in a second and how fast, beside what the keys allow and beside kube-apiserver.

use crate::load::{self, Answers, Plan, Protocol};
use crate::pace::Pace;
use crate::plot::Plot;
use crate::report::{Goal, Section, round};
use crate::servers::{self, Program, program_name};
use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use fleetpass_token::key::{KeyKind, SigningKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const TARGET: &str = "/api/v1/namespaces/bench/serviceaccounts/robot/token";

/// Connections, and requests under way on each of HTTP/2.
const CONNECTIONS: [usize; 3] = [1, EIGHT, 64];
const EIGHT: usize = 8;
const STREAMS: usize = 8;

/// What a server gave with one kind of key.
struct Measured {
    program: Program,
    key: KeyKind,
    runs: Vec<(Protocol, usize, Answers)>,
    /// At half of the rate that it reaches with HTTP/2 and 8 connections.
    half: Answers,
}

impl Measured {
    fn with(&self, protocol: Protocol, connections: usize) -> Option<&Answers> {
        self.runs.iter().find(|(p, c, _)| *p == protocol && *c == connections).map(|(_, _, answers)| answers)
    }

    fn rate(&self, protocol: Protocol, connections: usize) -> f64 {
        self.with(protocol, connections).map_or(f64::NAN, Answers::rate)
    }
}

/// Measures both servers with both kinds of keys.
///
/// # Errors
///
/// A server does not start, or refuses a request.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let mut section = Section::new(
        "TokenRequest",
        "POST of a TokenRequest for one ServiceAccount, as an administrator with a static token, over TLS; 8 requests under way \
         on each connection with HTTP/2, one with HTTP/1.1. The load generator has the same two cores. The bare rate is what \
         the library alone signs on all cores.",
        &["key", "server", "protocol", "connections", "requests/s", "p50 ms", "p99 ms"],
    );
    let mut measured = Vec::new();
    for key in [KeyKind::Rsa2048, KeyKind::P256] {
        let bare = bare_rate(key, pace.span(3.0)).await?;
        section.row([
            name(key).into(),
            "bare signing".into(),
            "".into(),
            "".into(),
            bare.into(),
            "".into(),
            "".into(),
        ]);
        for program in Program::BOTH {
            let one = measure_one(pace, program, key).await?;
            for (protocol, connections, answers) in &one.runs {
                section.row([
                    name(key).into(),
                    program_name(program).into(),
                    protocol_name(*protocol).into(),
                    (*connections).into(),
                    answers.rate().into(),
                    answers.quantile(0.5).into(),
                    answers.quantile(0.99).into(),
                ]);
            }
            section.row([
                name(key).into(),
                program_name(program).into(),
                "HTTP/2, half of the rate".into(),
                8.into(),
                one.half.rate().into(),
                one.half.quantile(0.5).into(),
                one.half.quantile(0.99).into(),
            ]);
            measured.push(one);
        }
        goals(&mut section, key, bare, &measured);
    }
    section.plots = [KeyKind::Rsa2048, KeyKind::P256].iter().map(|key| plot(*key, &measured)).collect();
    Ok(section)
}

async fn measure_one(pace: &Pace, program: Program, key: KeyKind) -> Result<Measured> {
    let plane = servers::start(program, key).await?;
    let make = load::post(
        TARGET,
        &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
    );
    let plan = |protocol, connections| Plan {
        protocol,
        connections,
        streams: STREAMS,
        warm_up: pace.span(1.0),
        duration: pace.span(5.0),
        rate: None,
    };
    let mut runs = Vec::new();
    for protocol in [Protocol::Http2, Protocol::Http1] {
        for connections in CONNECTIONS {
            if pace.quick && connections > EIGHT {
                continue;
            }
            let answers = load::run(plane.endpoint(), plan(protocol, connections), make.clone()).await?;
            runs.push((protocol, connections, answers));
        }
    }
    let most = runs.iter().find(|(p, c, _)| (*p, *c) == (Protocol::Http2, EIGHT)).map(|run| run.2.rate());
    let rate = Some(most.context("the run with 8 connections")? / 2.0);
    let half = load::run(plane.endpoint(), Plan { rate, ..plan(Protocol::Http2, EIGHT) }, make).await?;
    Ok(Measured { program, key, runs, half })
}

fn goals(section: &mut Section, key: KeyKind, bare: f64, measured: &[Measured]) {
    let find = |program| measured.iter().find(|one| one.key == key && one.program == program);
    let (Some(ours), Some(theirs)) = (find(Program::Fleetpass), find(Program::Kubernetes)) else { return };
    let (our_rate, their_rate) = (ours.rate(Protocol::Http2, EIGHT), theirs.rate(Protocol::Http2, EIGHT));
    let what = format!("TokenRequest {}, 8 connections", name(key));
    let detail = format!("{}/s to {}/s", round(our_rate), round(their_rate));
    let at_least = if key == KeyKind::Rsa2048 { 4.0 } else { 10.0 };
    section.goals.push(Goal::ratio(&what, "kube-apiserver", at_least, our_rate / their_rate, &detail));
    if key == KeyKind::Rsa2048 {
        let detail = format!("{}/s of {}/s", round(our_rate), round(bare));
        section.goals.push(Goal::ratio(&what, "the bare signing rate", 0.6, our_rate / bare, &detail));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let signing = 1e3 * cores / bare;
    section.goals.push(Goal::at_most(
        &format!("TokenRequest {}, p99 at half of the rate", name(key)),
        (3.0 * signing + 1.0).mul_add(100.0, 0.0).round() / 100.0,
        ours.half.quantile(0.99),
        "ms",
        &format!("3 × {} ms of signing + 1 ms", round(signing)),
    ));
}

fn plot(key: KeyKind, measured: &[Measured]) -> Plot {
    let mut lines = Vec::new();
    for one in measured.iter().filter(|one| one.key == key) {
        for protocol in [Protocol::Http2, Protocol::Http1] {
            let of_protocol = one.runs.iter().filter(|(p, _, _)| *p == protocol);
            let points = of_protocol.map(|(_, c, answers)| (*c as f64, answers.rate())).collect();
            lines.push((format!("{}, {}", program_name(one.program), protocol_name(protocol)), points));
        }
    }
    Plot {
        file: format!("tokenrequest-{}", name(key).to_lowercase()),
        title: format!("TokenRequest with {} keys", name(key)),
        x: "connections".into(),
        y: "requests/s".into(),
        lines,
    }
}

fn name(key: KeyKind) -> &'static str {
    match key {
        KeyKind::Rsa2048 => "RS256",
        KeyKind::P256 => "ES256",
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2",
    }
}

/// Signs one message after the other.
type Sign = Box<dyn Fn(&[u8]) -> Result<(), aws_lc_rs::error::Unspecified> + Send + Sync>;

fn signer(key: KeyKind) -> Result<Sign> {
    let pem = SigningKey::generate_pem(key)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.expose_secret().as_bytes())?;
    let random = SystemRandom::new();
    Ok(match key {
        KeyKind::Rsa2048 => {
            let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())?;
            Box::new(move |message| {
                let mut signature = [0; 256];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            })
        }
        KeyKind::P256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())?;
            Box::new(move |message| pair.sign(&random, message).map(|_| ()))
        }
    })
}

/// How many signatures per second the library makes on all cores.
async fn bare_rate(key: KeyKind, span: Duration) -> Result<f64> {
    let sign = Arc::new(signer(key)?);
    let (made, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let cores = std::thread::available_parallelism()?.get();
    let threads: Vec<_> = (0..cores)
        .map(|_| {
            let (sign, made, over) = (sign.clone(), made.clone(), over.clone());
            std::thread::spawn(move || {
                // As long as header and claims of a usual token.
                let message = [b'x'; 700];
                while !over.load(Ordering::Relaxed) {
                    sign(&message)?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, aws_lc_rs::error::Unspecified>(())
            })
        })
        .collect();
    tokio::time::sleep(span).await;
    let count = made.load(Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a signing thread panicked"))??;
    }
    Ok(count as f64 / span.as_secs_f64())
}
