//! Prometheus metrics of the server, under the names that kube-apiserver gives them.

use fleetpass_apimachinery::RequestInfo;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
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

/// The metrics of one server.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
    under_way: Gauge,
    pub(super) watches: Gauge,
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
        if let Some(log) = audit {
            log.register(&mut registry);
        }
        Self { registry, requests, durations, under_way, watches }
    }

    /// The exposition text, with how many objects each resource has.
    pub(super) fn text(&self, counts: &[(String, usize)]) -> String {
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
        // OpenMetrics ends with this line; nothing may come after it.
        match out.rfind("# EOF") {
            Some(at) => out.insert_str(at, &objects),
            None => out.push_str(&objects),
        }
        out
    }
}

/// One request that is measured.
pub(super) struct Measured<'a> {
    metrics: &'a Metrics,
    labels: DurationLabels,
    version: String,
}

impl<'a> Measured<'a> {
    pub(super) fn begin(metrics: &'a Metrics) -> Self {
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

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.metrics.under_way.dec();
    }
}
