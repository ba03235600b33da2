//! Prometheus metrics of the server, under the names that kube-apiserver gives them.

use super::connections::Connections;
use crate::work::{Flow, FlowId, FlowLoad};
use fleetpass_apimachinery::RequestInfo;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLabels {
    flow: String,
}

/// So many flows have a time series of their own; users beyond share one. Who can ask for certificates can make any number of
/// users, and a time series is kept for ever.
const MAX_FLOWS: usize = 500;

/// The metrics of one server.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
    under_way: Gauge,
    pub(super) watches: Gauge,
    refused: Family<FlowLabels, Counter>,
    /// The flows that `refused` has a time series for.
    refused_flows: Mutex<HashSet<FlowId>>,
    /// The exposition text of what works in the same process.
    more: OnceLock<Box<dyn Fn() -> String + Send + Sync>>,
}

fn buckets() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Metrics {
    /// The metrics of a server that keeps this audit log.
    pub(super) fn new(audit: Option<&crate::audit::Log>) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        // A function pointer, so that the type of the family can be written down.
        let durations = Family::new_with_constructor(buckets as fn() -> Histogram);
        let (under_way, watches) = (Gauge::default(), Gauge::default());
        // The library appends `_total` to counters.
        registry.register(
            "apiserver_request",
            "Requests by what they ask for and the answer's code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            durations.clone(),
        );
        registry.register("apiserver_current_requests", "Requests under way", under_way.clone());
        registry.register("apiserver_longrunning_requests", "Watches under way", watches.clone());
        let refused = Family::default();
        registry.register(
            "apiserver_flow_refused_requests",
            "Requests that were answered 429, by flow: a user, or the service accounts of a namespace",
            refused.clone(),
        );
        if let Some(log) = audit {
            log.register(&mut registry);
        }
        Self {
            registry,
            requests,
            durations,
            under_way,
            watches,
            refused,
            refused_flows: Mutex::default(),
            more: OnceLock::new(),
        }
    }

    /// The same, with those of the server's connections.
    pub(super) fn with(mut self, connections: &Connections) -> Self {
        connections.register(&mut self.registry);
        self
    }

    /// Shows the metrics of something else too, as OpenMetrics text of other names. Once.
    pub(super) fn add(&self, more: Box<dyn Fn() -> String + Send + Sync>) {
        // A second one would be a second owner of the names.
        let _ = self.more.set(more);
    }

    /// A request of a flow was answered 429.
    pub(super) fn refused(&self, flow: Flow<'_>) {
        let mut known = self.refused_flows.lock();
        let shown = known.contains(&flow.id) || (known.len() < MAX_FLOWS && known.insert(flow.id));
        drop(known);
        let flow = if shown { flow.name } else { "other" }.to_owned();
        self.refused.get_or_create(&FlowLabels { flow }).inc();
    }

    /// The exposition text, with how many objects each resource has, and what each flow has to do in the pools for heavy work.
    pub(super) fn text(&self, counts: &[(String, usize)], loads: &[(&str, Vec<FlowLoad>)]) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        let mut objects = String::from(
            "# HELP apiserver_resource_objects Stored objects.\n# TYPE apiserver_resource_objects gauge\n",
        );
        for (prefix, count) in counts {
            let resource = match prefix.strip_prefix("/registry/").unwrap_or(prefix) {
                // Nodes are stored under their old name.
                "minions" => "nodes",
                resource => resource,
            };
            objects.push_str(&format!("apiserver_resource_objects{{resource=\"{resource}\"}} {count}\n"));
        }
        objects.push_str(&flow_loads(loads));
        if let Some(more) = self.more.get() {
            let more = more();
            objects.push_str(more.trim_end().trim_end_matches("# EOF"));
        }
        // OpenMetrics ends with this line; nothing may come after it.
        match out.rfind("# EOF") {
            Some(at) => out.insert_str(at, &objects),
            None => out.push_str(&objects),
        }
        out
    }
}

/// The lines of what flows have to do. Made when they are asked for, so that a flow that has ended leaves nothing behind; at
/// most as many as the pool has tasks.
fn flow_loads(loads: &[(&str, Vec<FlowLoad>)]) -> String {
    let mut out = String::new();
    type Value = fn(&FlowLoad) -> usize;
    let families: [(&str, &str, Value); 2] = [
        ("queued", "Heavy requests that wait for their flow's turn.", |load| load.queued),
        ("running", "Heavy requests that are worked on, or wait for something else.", |load| load.running),
    ];
    for (name, help, value) in families {
        let name = format!("apiserver_flow_{name}_requests");
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (pool, load) in loads.iter().flat_map(|(pool, loads)| loads.iter().map(move |load| (pool, load)))
        {
            // The escapes of label values in the exposition formats; users' names may hold anything.
            let flow = load.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            out.push_str(&format!("{name}{{pool=\"{pool}\",flow=\"{flow}\"}} {}\n", value(load)));
        }
    }
    out
}

/// One request that is measured.
pub(super) struct Measured {
    metrics: Arc<Metrics>,
    labels: DurationLabels,
    version: String,
}

impl Measured {
    pub(super) fn begin(metrics: Arc<Metrics>) -> Self {
        metrics.under_way.inc();
        let labels = DurationLabels {
            verb: String::new(),
            group: String::new(),
            resource: String::new(),
            subresource: String::new(),
        };
        Self { metrics, labels, version: String::new() }
    }

    /// Labels the request by what it asks for. Paths are chosen by clients: what does not look like a name becomes `other`, or
    /// each invented text would be a label value, and a time series, for ever.
    pub(super) fn resolved(&mut self, info: &RequestInfo) {
        let bounded = |text: &str| {
            let plain =
                text.len() < 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            if plain { text.to_string() } else { "other".into() }
        };
        self.labels.verb = if info.is_resource { bounded(&info.verb).to_uppercase() } else { "OTHER".into() };
        if info.is_resource {
            self.labels.group = bounded(&info.group);
            self.labels.resource = bounded(&info.resource);
            self.labels.subresource = bounded(&info.subresource);
            self.version = bounded(&info.version);
        }
    }

    pub(super) fn end(&self, code: u16, took: Duration) {
        let mut labels = self.labels.clone();
        if code == 404 || code == 401 || code == 403 {
            // Here the names need not exist at all, and may well be shaped like real ones.
            (labels.group, labels.resource, labels.subresource) = Default::default();
        }
        let request = RequestLabels {
            verb: labels.verb.clone(),
            group: labels.group.clone(),
            version: if labels.resource.is_empty() { String::new() } else { self.version.clone() },
            resource: labels.resource.clone(),
            subresource: labels.subresource.clone(),
            code,
        };
        self.metrics.requests.get_or_create(&request).inc();
        self.metrics.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.metrics.under_way.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_shown_with_what_they_do() {
        let load = |name: &str, queued, running| FlowLoad { name: name.into(), queued, running };
        let text = flow_loads(&[
            ("heavy", vec![load("alice", 3, 1), load("a\"b\\c\nd", 0, 2)]),
            ("large", vec![load("alice", 1, 0)]),
        ]);
        assert!(text.contains("apiserver_flow_queued_requests{pool=\"heavy\",flow=\"alice\"} 3\n"), "{text}");
        assert!(
            text.contains("apiserver_flow_running_requests{pool=\"heavy\",flow=\"a\\\"b\\\\c\\nd\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("apiserver_flow_queued_requests{pool=\"large\",flow=\"alice\"} 1\n"), "{text}");
    }

    #[test]
    fn refusals_of_any_number_of_users_are_a_bounded_number_of_series() {
        let metrics = Metrics::new(None);
        for number in 0..2 * MAX_FLOWS {
            let user =
                fleetpass_apimachinery::user::UserInfo { name: format!("u{number}"), ..Default::default() };
            metrics.refused(Flow::of(&user));
        }
        let text = metrics.text(&[], &[]);
        let series = text.lines().filter(|line| line.starts_with("apiserver_flow_refused_requests_total{"));
        assert_eq!(series.count(), MAX_FLOWS + 1);
        assert!(text.contains(&format!("{{flow=\"other\"}} {MAX_FLOWS}\n")), "{text}");
    }
}
