//! `/healthz`, `/livez`, `/readyz`: whether the server lives and is ready, as a whole and check by check
//! (`k8s.io/apiserver/pkg/server/healthz`).

use fleetpass_apimachinery::Query;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One check: its name, and what is wrong, if anything. Reasons go to the log and not to the client, who may be anonymous.
pub(super) struct Check {
    /// Its name, as in the path (`/readyz/store`).
    name: &'static str,
    check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Whether the log says that it fails. Probes come every few seconds, from more than one side; the log has a line when it
    /// begins to fail and one when it is over. Nothing else depends on it, so relaxed ordering is enough.
    failing: AtomicBool,
}

impl Check {
    /// A check that looks at the present state. It must not block: it runs on a connection's thread. What has to be waited for
    /// is observed in the background (`start::probe_store`).
    pub(super) fn new(
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { name, check: Box::new(check), failing: AtomicBool::new(false) }
    }

    fn passes(&self) -> bool {
        let outcome = (self.check)();
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(why) if !failed_before => tracing::warn!(check = self.name, why, "a health check fails"),
            Ok(()) if failed_before => tracing::info!(check = self.name, "a health check passes again"),
            _ => {}
        }
        outcome.is_ok()
    }
}

/// The checks behind the three paths.
#[derive(Default)]
pub(super) struct Health {
    live: Vec<Check>,
    ready: Vec<Check>,
    /// What is also waited for. Locked for a copy or for an addition, both of a moment.
    awaited: Mutex<Vec<Awaited>>,
}

/// Something that the server waits for before it is ready.
struct Awaited {
    check: Arc<Check>,
    come: Arc<AtomicBool>,
}

/// Whether a path is answered by [`Health::answer`].
pub(super) fn is_path(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    matches!(first, Some("healthz" | "livez" | "readyz"))
}

/// The text of an answer and its status code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HealthAnswer {
    /// 200, 404 or 500.
    pub code: u16,
    /// The plain text body.
    pub text: String,
}

impl Health {
    /// `ping` alone is always there; `live` checks decide over a restart, `ready` ones over traffic as well.
    pub(super) fn new(live: Vec<Check>, ready: Vec<Check>) -> Self {
        Self { live, ready, awaited: Mutex::default() }
    }

    /// The server is not ready before [`Health::has_come`] is called with this name.
    pub(super) fn await_for_ready(&self, name: &'static str) {
        let come = Arc::new(AtomicBool::new(false));
        let seen = come.clone();
        let check =
            Check::new(name, move || seen.load(Ordering::Relaxed).then_some(()).ok_or("not yet".to_owned()));
        self.awaited.lock().push(Awaited { check: Arc::new(check), come });
    }

    /// What was waited for has come, once and for all.
    pub(super) fn has_come(&self, name: &'static str) {
        let awaited = self.awaited.lock();
        awaited.iter().filter(|a| a.check.name == name).for_each(|a| a.come.store(true, Ordering::Relaxed));
    }

    /// The answer to a path (`/readyz`, `/livez/ping`); `None` if it is no health path.
    pub(super) fn answer(&self, path: &str, query: &Query) -> Option<HealthAnswer> {
        let (endpoint, rest) = match path[1..].split_once('/') {
            Some((endpoint, rest)) => (endpoint, Some(rest)),
            None => (&path[1..], None),
        };
        let ready = match endpoint {
            "healthz" | "readyz" => true,
            "livez" => false,
            _ => return None,
        };
        let ping = Check::new("ping", || Ok(()));
        let more = if ready { self.ready.as_slice() } else { &[] };
        let awaited: Vec<Arc<Check>> = match ready {
            true => self.awaited.lock().iter().map(|awaited| awaited.check.clone()).collect(),
            false => Vec::new(),
        };
        let awaited = awaited.iter().map(Arc::as_ref);
        let checks: Vec<&Check> =
            std::iter::once(&ping).chain(&self.live).chain(more).chain(awaited).collect();
        Some(match rest {
            None => all(endpoint, &checks, query),
            Some(name) => match checks.iter().find(|check| check.name == name) {
                Some(check) => one(check),
                None => HealthAnswer { code: 404, text: "404 page not found\n".into() },
            },
        })
    }
}

fn one(check: &Check) -> HealthAnswer {
    match check.passes() {
        true => HealthAnswer { code: 200, text: "ok".into() },
        false => HealthAnswer { code: 500, text: "internal server error: reason withheld\n".into() },
    }
}

fn all(endpoint: &str, checks: &[&Check], query: &Query) -> HealthAnswer {
    let excluded: Vec<&str> =
        query.pairs().iter().filter(|(k, _)| k == "exclude").map(|(_, v)| v.as_str()).collect();
    let mut text = String::new();
    let mut failed = false;
    for check in checks {
        let line = if excluded.contains(&check.name) {
            format!("[+]{} excluded: ok\n", check.name)
        } else if check.passes() {
            format!("[+]{} ok\n", check.name)
        } else {
            failed = true;
            format!("[-]{} failed: reason withheld\n", check.name)
        };
        text.push_str(&line);
    }
    if failed {
        text.push_str(&format!("{endpoint} check failed\n"));
        return HealthAnswer { code: 500, text };
    }
    if query.get("verbose").is_none() {
        return HealthAnswer { code: 200, text: "ok".into() };
    }
    text.push_str(&format!("{endpoint} check passed\n"));
    HealthAnswer { code: 200, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(ready: bool) -> Health {
        let check = move || if ready { Ok(()) } else { Err("no".into()) };
        Health::new(Vec::new(), vec![Check::new("store", check)])
    }

    #[test]
    fn paths_answer_as_kube_apiserver_does() {
        for (ready, path, query, code, text) in [
            (true, "/healthz", "", 200, "ok"),
            (true, "/readyz", "verbose", 200, "[+]ping ok\n[+]store ok\nreadyz check passed\n"),
            (true, "/livez/ping", "", 200, "ok"),
            (true, "/livez/store", "", 404, "404 page not found\n"),
            (true, "/healthz/", "", 404, "404 page not found\n"),
            (false, "/livez", "", 200, "ok"),
            (
                false,
                "/readyz",
                "",
                500,
                "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n",
            ),
            (false, "/readyz", "exclude=store", 200, "ok"),
            (false, "/readyz/store", "", 500, "internal server error: reason withheld\n"),
        ] {
            let want = HealthAnswer { code, text: text.into() };
            assert_eq!(health(ready).answer(path, &Query::parse(query)), Some(want), "{path}?{query}");
        }
        assert_eq!(health(true).answer("/version", &Query::default()), None);
    }

    #[test]
    fn a_server_is_ready_when_what_it_waits_for_has_come() {
        let health = health(true);
        let code = |path| health.answer(path, &Query::default()).map(|answer| answer.code);
        health.await_for_ready("roles");
        assert_eq!(
            (code("/readyz"), code("/readyz/roles"), code("/livez")),
            (Some(500), Some(500), Some(200))
        );
        health.has_come("other");
        assert_eq!(code("/readyz"), Some(500));
        health.has_come("roles");
        assert_eq!((code("/readyz"), code("/readyz/roles")), (Some(200), Some(200)));
    }
}
