//! ManagedServiceAccount on the cluster side: decide, request, project, rotate.
//!
//! For every ManagedServiceAccount in its cluster's namespace on the hub, the [`Agent`] keeps a ServiceAccount of
//! that name in its own namespace on the cluster, requests a token for it, and projects token and CA as a Secret of
//! that name on the hub. The rules are in `decide`; the rest fetches, calls them, and carries their answer out.
//!
//! ```text
//!   hub: watch accounts, Secrets ──┐                              ┌─► cluster: ServiceAccount, TokenRequest, TokenReview
//!   cluster: watch ServiceAccounts ┴► news ─► queue ─► reconcile ─┤
//!                                           (by name)  ▲   │      └─► hub: Secret, status
//!                                                      └ decide
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | `watch` | three watches of metadata, which say that something of a name changed |
//! | `news` | drops what a reconcile has already taken into account, such as the echo of its own writes |
//! | `run` | the options, the loop, and the handle on a running agent |
//! | `reconcile` | reads one account on both sides, asks `decide`, takes the step, asks again |
//! | `decide`, `promise`, `report` | pure functions: the next step; when a token is due; the account's status |
//! | `gone` | a pure function: whether an account was deleted, or the agent is only refused |
//! | `events` | what is told about an account as Events, and how often |
//! | `calls` | the requests, and what their answers mean |
//! | `claim` | the Lease on the hub: which cluster works under the name |
//! | `identity`, `marking` | which hub this is; whether ServiceAccounts can be marked as this agent's |
//! | `side` | what the agent knows of each server (`state`, pure), and the one way to ask it (`peer`) |
//! | `health`, `metrics`, `serve`, `lease` | what others can see of the agent |
//!
//! # Example
//!
//! An agent is given two clients. Here they are functions that answer as API servers would.
//!
//! ```
//! use fleetpass_agent::{Agent, CaSource, Options};
//! use serde_json::{Value, json};
//! use std::time::Duration;
//! use tokio_util::sync::CancellationToken;
//! # use fleetpass_api::clock::{Clock, SharedClock};
//! # use kube::{Client, client::Body};
//! # use std::sync::Arc;
//!
//! # struct Standing;
//! # impl Clock for Standing {
//! #     fn now(&self) -> jiff::Timestamp {
//! #         jiff::Timestamp::from_second(1_800_000_000).unwrap()
//! #     }
//! # }
//! #
//! # /// A client of a server whose answers this function gives. Watches stay silent; what it does not know is a 404.
//! # fn client(answer: impl Fn(&str, &str, Value) -> Option<Value> + Clone + Send + Sync + 'static) -> Client {
//! #     let service = tower::service_fn(move |request: http::Request<Body>| {
//! #         let answer = answer.clone();
//! #         async move {
//! #             let (parts, body) = request.into_parts();
//! #             if parts.uri.query().unwrap_or_default().contains("watch=") {
//! #                 std::future::pending::<()>().await;
//! #             }
//! #             let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
//! #             let sent = serde_json::from_slice(&body).unwrap_or_default();
//! #             let path = parts.uri.path();
//! #             let name = path.rsplit('/').next().unwrap_or_default();
//! #             let (code, answer) = match answer(parts.method.as_str(), path, sent) {
//! #                 Some(answer) => (200, answer),
//! #                 None if parts.method == "GET" && name.ends_with('s') => {
//! #                     (200, json!({"metadata": {"resourceVersion": "1"}, "items": []}))
//! #                 }
//! #                 None => (404, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
//! #                     "code": 404, "reason": "NotFound", "message": "not found", "details": {"name": name}})),
//! #             };
//! #             let answer = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
//! #             http::Response::builder().status(code).body(answer).map_err(kube::Error::HttpError)
//! #         }
//! #     });
//! #     Client::new(service, "default")
//! # }
//! #
//! # /// An unsigned service-account token of the next hour: to the agent a token is opaque but for its claims.
//! # fn token() -> String {
//! #     use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
//! #     let payload = json!({"iat": 1_800_000_000, "exp": 1_800_003_600,
//! #         "kubernetes.io": {"serviceaccount": {"uid": "u1"}},
//! #         "sub": "system:serviceaccount:open-cluster-management-agent-addon:robot"});
//! #     format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
//! # }
//! #
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # let account = json!({"metadata": {"name": "robot", "namespace": "cluster1", "uid": "a1", "resourceVersion": "1"},
//! #     "spec": {"rotation": {"validity": "1h"}}});
//! # let (projected, mut secret) = tokio::sync::mpsc::unbounded_channel();
//! // The hub has the account `robot` in the namespace of its cluster, and no Secret yet.
//! let hub = client(move |method, path, sent| match (method, path.rsplit('/').next()?) {
//!     ("GET", "managedserviceaccounts") => {
//!         Some(json!({"metadata": {"resourceVersion": "1"}, "items": [account]}))
//!     }
//!     ("GET", "robot") if path.contains("/managedserviceaccounts/") => Some(account.clone()),
//!     ("POST", "secrets") => {
//!         projected.send(sent.clone()).ok()?;
//!         Some(sent)
//!     }
//!     _ => None,
//! });
//! // The cluster has nothing, and does what it is asked for.
//! let cluster = client(|method, path, mut sent| match (method, path.rsplit('/').next()?) {
//!     ("POST", "serviceaccounts") => {
//!         sent["metadata"]["uid"] = json!("u1");
//!         Some(sent)
//!     }
//!     ("POST", "token") => Some(json!({"spec": sent["spec"], "status": {"token": token()}})),
//!     _ => None,
//! });
//!
//! # let clock: SharedClock = Arc::new(Standing);
//! let options = Options {
//!     ca: CaSource::Pem(b"PEM".to_vec()),
//!     concurrency: 8,
//!     review_interval: Duration::from_secs(300),
//!     shutdown_grace: Duration::ZERO,
//!     ..Options::new("cluster1", clock)
//! };
//! let (agent, handle) = Agent::new(hub, cluster, options).unwrap();
//! let stop = CancellationToken::new();
//! let running = tokio::spawn(agent.run(stop.clone()));
//!
//! let secret: Value = secret.recv().await.unwrap();
//! assert_eq!(secret["metadata"]["name"], "robot");
//! assert_eq!(secret["metadata"]["ownerReferences"][0]["kind"], "ManagedServiceAccount");
//! let keys: Vec<_> = secret["data"].as_object().unwrap().keys().collect();
//! assert_eq!(keys, ["ca.crt", "token"]);
//! assert!(handle.metrics().contains("fleetpass_agent_side_up{cluster=\"cluster1\",side=\"cluster\"} 1"));
//!
//! stop.cancel();
//! running.await.unwrap();
//! # }
//! ```
//!
//! # Guarantees
//!
//! - One reconcile per account at a time, different accounts side by side; a failing account delays no other.
//! - An object without our label, or with the mark of another agent, is never minted for, overwritten or deleted.
//! - A side that is away costs nothing that was there: "gone" is only what a server says is gone,
//!   and a refusal does not say so (`gone`).
//! - It is never deaf: watches begin anew with a list after whatever did not go by plan, and every nine minutes.
//! - Whatever a server sends, it takes bounded memory, and no more than a few requests a minute once it fails.
//! - It may be killed at any moment. What it remembers saves requests and is never needed; the order of its steps is
//!   chosen so that what a crash leaves is harmless (`decide`).
//! - No token is logged. One is in memory while its account is worked on, and while the hub does not take it.
//!
//! # Caveats
//!
//! - The agent acts as long as it runs and may reach both sides: nobody else renews a token.
//! - A Secret or ServiceAccount without our label is seen only when its account's turn comes.
//! - There is no election among agents of one cluster and namespace: at worst they replace each other's tokens. Of two
//!   clusters under one name only one works, see `claim`.
//!
//! # What it deliberately does not do
//!
//! - No finalizer on an account: the upstream addon's agent has no right to change one, and ours has the same rights.
//!   So it has to notice by itself that an account is gone, even one that went while it was down.
//! - No verification of tokens: it asks the cluster (TokenReview). Claims are read to know when a token ends and whose
//!   it is.
//! - No permissions for the ServiceAccount: what a token may do is for the cluster's own RBAC to say.

mod ca;
mod calls;
mod claim;
mod decide;
mod events;
#[cfg(test)]
mod fake;
mod gone;
mod health;
mod identity;
mod lease;
mod manifests;
mod marking;
mod metrics;
mod news;
mod observe;
mod promise;
mod reconcile;
mod report;
mod run;
mod serve;
mod side;
mod token;
mod watch;

pub use ca::CaSource;
pub use health::Health;
pub use manifests::{InCluster, spoke_manifests};
pub use run::{Agent, Error, Handle, Options};
pub use serve::{Endpoint, Observed, serve};
pub use side::Side;
