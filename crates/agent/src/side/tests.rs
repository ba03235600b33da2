//! Every step of an agent × every way in which it can fail: what the log, the account, the metrics and `/readyz` say, and how
//! often it is tried again. Connections and certificates that fail are in `tls`.

mod tls;

use crate::{
    Agent, CaSource, Handle, Options,
    fake::{FakeClock, Fault, Log, Server},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "/apis/authentication.open-cluster-management.io/v1beta1/namespaces/cluster1/managedserviceaccounts/robot";
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A step of an agent, named as RBAC does.
struct Step {
    call: &'static str,
    side: &'static str,
    /// Whether it fails for one account, with a condition to say so, as long as the hub can be told.
    told: bool,
}

const STEPS: [Step; 13] = [
    Step { call: "list managedserviceaccounts", side: "hub", told: false },
    Step { call: "watch managedserviceaccounts", side: "hub", told: false },
    Step { call: "list secrets", side: "hub", told: false },
    Step { call: "watch secrets", side: "hub", told: false },
    Step { call: "list serviceaccounts", side: "cluster", told: false },
    Step { call: "watch serviceaccounts", side: "cluster", told: false },
    Step { call: "get secrets", side: "hub", told: false },
    Step { call: "get serviceaccounts", side: "cluster", told: true },
    Step { call: "create serviceaccounts", side: "cluster", told: true },
    Step { call: "create serviceaccounts/token", side: "cluster", told: true },
    Step { call: "create tokenreviews", side: "cluster", told: true },
    Step { call: "create secrets", side: "hub", told: true },
    Step { call: "patch managedserviceaccounts/status", side: "hub", told: false },
];

impl Step {
    /// Whether it is only for an account that has a token already.
    fn needs_token(&self) -> bool {
        self.call == "create tokenreviews"
    }

    fn is_list(&self) -> bool {
        self.call.starts_with("list")
    }
}

/// A way to fail, and what has to come of it.
struct Row {
    name: &'static str,
    fault: Fault,
    state: &'static str,
    cause: &'static str,
    /// Is in the log, and, of a step of an account, in its condition.
    says: &'static str,
    /// The least time between two attempts, if the server asked for one.
    apart: Duration,
}

fn status(code: u16, reason: &str, details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "what the server says", "details": details})
}

fn row(
    name: &'static str,
    fault: Fault,
    state: &'static str,
    cause: &'static str,
    says: &'static str,
) -> Row {
    Row { name, fault, state, cause, says, apart: Duration::ZERO }
}

fn rows() -> Vec<Row> {
    let mut rows = rows_of_answers();
    rows.extend(rows_of_bodies());
    rows
}

fn rows_of_answers() -> Vec<Row> {
    let answer = |code, reason| Fault::Answer(code, vec![], status(code, reason, json!({})));
    let wait = |code, reason, seconds| {
        Fault::Answer(code, vec![("retry-after", seconds)], status(code, reason, json!({})))
    };
    vec![
        row(
            "401",
            answer(401, "Unauthorized"),
            "refused",
            "unauthorized",
            "it does not take the agent's credential",
        ),
        row("403", answer(403, "Forbidden"), "refused", "forbidden", "403 Forbidden: "),
        row(
            "kind",
            Fault::Text(404, "404 page not found"),
            "refused",
            "missing",
            "the server does not know ",
        ),
        row(
            "namespace",
            Fault::Answer(
                404,
                vec![],
                status(404, "NotFound", json!({"kind": "namespaces", "name": "robot"})),
            ),
            "refused",
            "missing",
            "404 NotFound",
        ),
        row("405", answer(405, "MethodNotAllowed"), "refused", "missing", "405 MethodNotAllowed"),
        row("429", answer(429, "TooManyRequests"), "unreachable", "busy", "429 TooManyRequests"),
        Row {
            apart: Duration::from_secs(45),
            ..row(
                "429, later",
                wait(429, "TooManyRequests", "45"),
                "unreachable",
                "busy",
                "429 TooManyRequests",
            )
        },
        row("500", answer(500, "InternalError"), "unreachable", "failing", "500 InternalError"),
        row("502", Fault::Text(502, "<html>proxy</html>"), "unreachable", "failing", "502 Bad Gateway"),
        Row {
            apart: Duration::from_secs(90),
            ..row(
                "503, later",
                wait(503, "ServiceUnavailable", "90"),
                "unreachable",
                "failing",
                "503 ServiceUnavailable",
            )
        },
        Row {
            apart: super::cause::LONGEST_RETRY_AFTER,
            ..row(
                "503, much later",
                wait(503, "ServiceUnavailable", "999999999"),
                "unreachable",
                "failing",
                "503",
            )
        },
    ]
}

fn rows_of_bodies() -> Vec<Row> {
    vec![
        row("endless", Fault::Endless, "refused", "too_large", " KiB is not read"),
        row("cut", Fault::Cut, "unreachable", "broken", "the connection broke"),
        row(
            "redirect",
            Fault::Answer(307, vec![("location", "https://elsewhere/?secret")], json!({})),
            "refused",
            "redirect",
            "redirect (307) to https://elsewhere/, which is not followed",
        ),
        row("silence", Fault::Silence, "unreachable", "silence", "no answer within 30 s"),
        row("junk", Fault::Text(200, "hello\n"), "refused", "junk", "no answer of a Kubernetes API server"),
        row(
            "another kind",
            Fault::Text(200, "[3]\n"),
            "refused",
            "junk",
            "no answer of a Kubernetes API server",
        ),
    ]
}

fn clock() -> Arc<FakeClock> {
    Arc::new(FakeClock(AtomicI64::new(1_800_000_000)))
}

fn account() -> Value {
    json!({"metadata": {"name": "robot", "namespace": "cluster1"}, "spec": {"rotation": {"validity": "1h"}}})
}

fn options(server: &Server) -> Options {
    let clock = server.now.clone().unwrap();
    Options { ca: CaSource::Pem(b"ca".to_vec()), ..Options::new("cluster1", clock) }
}

/// An agent between two servers on which all is well.
struct Scene {
    hub: Server,
    spoke: Server,
    agent: Agent,
    handle: Handle,
}

impl Scene {
    fn new() -> Self {
        let clock = clock();
        let server = || Server { now: Some(clock.clone()), ..Server::default() };
        let (hub, spoke) = (server(), server());
        let (agent, handle) = Agent::new(hub.client(), spoke.client(), options(&hub)).unwrap();
        hub.put(ACCOUNT, account());
        for (server, uid) in [(&hub, "hub"), (&spoke, "cluster")] {
            server.put(
                "/api/v1/namespaces/kube-system",
                json!({"metadata": {"name": "kube-system", "uid": uid}}),
            );
        }
        Self { hub, spoke, agent, handle }
    }

    /// The same after it was left alone for a minute, with an agent that remembers nothing.
    async fn settled(self) -> Self {
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(self.agent.run(shutdown.clone()));
        tokio::time::sleep(Duration::from_secs(60)).await;
        shutdown.cancel();
        running.await.unwrap();
        assert_eq!(condition(&self.hub)["reason"], "TokenReported");
        let (agent, handle) = Agent::new(self.hub.client(), self.spoke.client(), options(&self.hub)).unwrap();
        Self { agent, handle, ..self }
    }
}

fn condition(hub: &Server) -> Value {
    let account = hub.get(ACCOUNT).unwrap();
    let conditions = account["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "TokenReported").unwrap_or_default()
}

/// What is wrong with how an agent bears it.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

async fn fails(step: &Step, row: &Row) -> Findings {
    let mut found = Findings::default();
    let scene = if step.needs_token() { Scene::new().settled().await } else { Scene::new() };
    let (log, _guard) = Log::begin();
    let Scene { hub, spoke, agent, handle } = scene;
    let server = if step.side == "hub" { hub.clone() } else { spoke };
    server.state.lock().unwrap().fault = Some((step.call, row.fault.clone()));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(agent.run(shutdown.clone()));
    tokio::time::sleep(TEN_MINUTES).await;
    let tried = server.state.lock().unwrap().faults;
    // The first ones are under way when the server asks for quiet.
    let most = (600_usize).checked_div(row.apart.as_secs() as usize).map_or(120, |times| times + 5);
    found.expect(tried > 1 && tried <= most, || format!("tried {tried} times, {most} at most"));
    expect_said_once(&mut found, &log, step, row);
    expect_shown(&mut found, &handle, &hub, step, row);

    // And it is over by itself.
    server.state.lock().unwrap().fault = None;
    tokio::time::sleep(TEN_MINUTES).await;
    found.expect(handle.health().awaits().is_none(), || format!("not ready: {:?}", handle.health().awaits()));
    found.expect(condition(&hub)["reason"] == "TokenReported", || condition(&hub).to_string());
    let lines = log.lines();
    found.expect(lines.iter().filter(|line| line.contains(" WARN ")).count() == 1, || {
        format!("later: {lines:#?}")
    });
    let again = lines.iter().filter(|line| line.contains("answers again")).count();
    found.expect(again == 1, || format!("{again} times again: {lines:#?}"));
    shutdown.cancel();
    running.await.unwrap();
    found
}

/// One line, however often it was tried.
fn expect_said_once(found: &mut Findings, log: &Log, step: &Step, row: &Row) {
    let lines = log.lines();
    let troubles: Vec<_> = lines.iter().filter(|line| line.contains(" WARN ")).collect();
    let [line] = troubles.as_slice() else {
        return found.0.push(format!("{} warnings: {lines:#?}", troubles.len()));
    };
    found.expect(line.contains(&format!("side=\"{}\"", step.side)), || format!("which side? {line}"));
    found.expect(line.contains(row.says), || format!("why? {line}"));
    let call = step.call.split('/').next().unwrap();
    found.expect(row.cause == "unauthorized" || line.contains(call), || format!("which call? {line}"));
}

fn expect_shown(found: &mut Findings, handle: &Handle, hub: &Server, step: &Step, row: &Row) {
    let Step { side, .. } = step;
    let Row { state, cause, says, .. } = row;
    let metrics = handle.metrics();
    let series = format!(
        "fleetpass_agent_side_state{{cluster=\"cluster1\",side=\"{side}\",state=\"{state}\",cause=\"{cause}\"}} 1"
    );
    found.expect(metrics.contains(&series), || format!("{series} not in {metrics}"));
    let series = format!("fleetpass_agent_side_up{{cluster=\"cluster1\",side=\"{side}\"}} 0");
    found.expect(metrics.contains(&series), || format!("{series} not in {metrics}"));
    let awaits = handle.health().awaits();
    // A side that is away makes the agent unready only if it was never seen.
    let ready = *state != "refused" && !step.is_list();
    found.expect(awaits.is_none() == ready, || format!("ready? {awaits:?}"));
    found.expect(awaits.as_ref().is_none_or(|awaits| awaits.contains(says)), || format!("why? {awaits:?}"));
    if step.told && (*side == "cluster" || *state == "refused" && *cause != "unauthorized") {
        let condition = condition(hub);
        let reason = match (*side, *state) {
            ("hub", _) => "HubRefused",
            (_, "refused") => "ClusterRefused",
            _ => "ClusterUnreachable",
        };
        found.expect(condition["reason"] == reason, || format!("{reason} expected: {condition}"));
        let message = condition["message"].as_str().unwrap_or_default();
        found.expect(message.contains(says), || format!("{says}? {condition}"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_and_every_way_to_fail() {
    let mut all = Vec::new();
    for row in rows() {
        for step in &STEPS {
            let found = fails(step, &row).await;
            all.extend(found.0.into_iter().map(|what| format!("{}, {}: {what}", step.call, row.name)));
        }
    }
    assert!(all.is_empty(), "{}: {}", all.len(), all.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn watches_that_do_not_last() {
    let line = |event: Value| -> &'static str { Box::leak(format!("{event}\n").into_boxed_str()) };
    let of = |text| Fault::Text(200, text);
    let error = |code, details| line(json!({"type": "ERROR", "object": status(code, "", details)}));
    let too_large =
        json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
    let bookmark = line(json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}}));
    // The last: what the metric says; none where the agent only has to list anew.
    let rows = [
        ("ends at once", of(""), "brief"),
        ("ends after an event", of(bookmark), "brief"),
        ("gone", of(error(410, json!({}))), "none"),
        ("gone, before it begins", Fault::Answer(410, vec![], status(410, "Expired", json!({}))), "none"),
        ("from the future", of(error(504, too_large.clone())), "none"),
        (
            "from the future, before it begins",
            Fault::Answer(504, vec![], status(504, "Timeout", too_large)),
            "none",
        ),
        ("fails", of(error(500, json!({}))), "failing"),
        ("says nonsense", of("{}\n"), "junk"),
        ("has no version", of(line(json!({"type": "ADDED", "object": {"metadata": {"name": "a"}}}))), "junk"),
        (
            "has no name",
            of(line(json!({"type": "ADDED", "object": {"metadata": {"resourceVersion": "1"}}}))),
            "junk",
        ),
    ];
    for (name, fault, cause) in rows {
        let (log, _guard) = Log::begin();
        let Scene { hub, spoke, agent, handle } = Scene::new();
        spoke.state.lock().unwrap().fault = Some(("watch serviceaccounts", fault));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(agent.run(shutdown.clone()));
        tokio::time::sleep(TEN_MINUTES).await;
        let tried = spoke.state.lock().unwrap().faults;
        assert!(tried > 10 && tried < 120, "{name}: {tried} times");
        let metrics = handle.metrics();
        assert!(metrics.contains(&format!("cause=\"{cause}\"}} 1")), "{name}: {metrics}");
        let warnings = log.lines().iter().filter(|line| line.contains(" WARN ")).count();
        assert_eq!(warnings, usize::from(cause != "none"), "{name}: {:#?}", log.lines());
        assert_eq!(
            condition(&hub)["reason"],
            "TokenReported",
            "{name}: accounts are not kept from their tokens"
        );

        spoke.state.lock().unwrap().fault = None;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(
            handle
                .metrics()
                .contains("{cluster=\"cluster1\",side=\"cluster\",state=\"admitted\",cause=\"none\"} 1"),
            "{name}"
        );
        shutdown.cancel();
        running.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_about_an_object_is_no_trouble_of_the_side() {
    for (code, reason) in
        [(400, "BadRequest"), (409, "Conflict"), (410, "Gone"), (413, "TooLarge"), (422, "Invalid")]
    {
        for step in STEPS.iter().filter(|step| step.told || step.call.starts_with("patch")) {
            let what = format!("{}: {code}", step.call);
            let scene = if step.needs_token() { Scene::new().settled().await } else { Scene::new() };
            let (log, _guard) = Log::begin();
            let Scene { hub, spoke, agent, handle } = scene;
            let server = if step.side == "hub" { hub.clone() } else { spoke };
            let details = json!({"name": "robot"});
            server.state.lock().unwrap().fault =
                Some((step.call, Fault::Answer(code, vec![], status(code, reason, details))));
            let shutdown = CancellationToken::new();
            let running = tokio::spawn(agent.run(shutdown.clone()));
            tokio::time::sleep(TEN_MINUTES).await;
            let tried = server.state.lock().unwrap().faults;
            // A conflict is looked at again at once, a few times.
            assert!(tried > 1 && tried < 300, "{what}: {tried} times");
            assert_eq!(handle.health().awaits(), None, "{what}");
            assert!(handle.metrics().contains("state=\"admitted\""), "{what}");
            let lines = log.lines();
            assert!(lines.iter().filter(|line| line.contains(" WARN ")).count() <= 1, "{what}: {lines:#?}");
            shutdown.cancel();
            running.await.unwrap();
        }
    }
}
