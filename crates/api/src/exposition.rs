//! Metrics in the format that a scraper asks for: OpenMetrics 1.0, which is what our programs write, or Prometheus' text
//! format 0.0.4, which everybody reads (prometheus.io/docs/instrumenting/exposition_formats).

use std::{collections::HashMap, fmt::Write as _};

/// `Content-Type` of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// `Content-Type` of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer to a scrape: its `Content-Type`, and the metrics, which are given as OpenMetrics text. As Prometheus' own
/// libraries do it, OpenMetrics is for those who name it in `Accept`, and text for all others.
pub fn answer(accept: Option<&str>, open_metrics: String) -> (&'static str, String) {
    if asks_for_open_metrics(accept.unwrap_or_default()) {
        (OPEN_METRICS, open_metrics)
    } else {
        (TEXT, text(&open_metrics))
    }
}

/// Whether OpenMetrics is named, with a quality that is above zero and not below that of text.
fn asks_for_open_metrics(accept: &str) -> bool {
    let quality = |media: &str| {
        let mut best = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            if parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media)) {
                let q = parts
                    .find_map(|part| part.strip_prefix("q="))
                    .map_or(Some(1.0), |q| q.parse::<f64>().ok());
                best = q.filter(|q| best.is_none_or(|best| *q > best)).or(best);
            }
        }
        best.unwrap_or(0.0)
    };
    let open = quality("application/openmetrics-text");
    open > 0.0 && open >= quality("text/plain")
}

/// OpenMetrics text as text format 0.0.4: the name of a family is that of its samples there, and there is neither unit nor end.
fn text(open_metrics: &str) -> String {
    let types: HashMap<&str, &str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let meta = ["HELP", "TYPE"].into_iter().find_map(|word| {
            let (name, rest) =
                line.strip_prefix("# ")?.strip_prefix(word)?.strip_prefix(' ')?.split_once(' ')?;
            Some((word, name, rest))
        });
        match meta {
            Some((word, name, rest)) => {
                let kind = types.get(name).copied().unwrap_or_default();
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let rest = match (word, rest) {
                    ("TYPE", "info" | "stateset") => "gauge",
                    ("TYPE", "unknown" | "gaugehistogram") => "untyped",
                    (_, rest) => rest,
                };
                // Writing to a String does not fail.
                let _ = writeln!(text, "# {word} {name}{suffix} {rest}");
            }
            None if line.starts_with("# UNIT ") || line == "# EOF" => {}
            None => {
                // An exemplar is a comment that 0.0.4 does not have.
                text.push_str(line.split(" # {").next().unwrap_or(line));
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "# HELP requests Requests that came.\n# TYPE requests counter\nrequests_total{a=\"b\"} 1\n\
        # HELP seconds Time.\n# TYPE seconds histogram\n# UNIT seconds seconds\nseconds_bucket{le=\"+Inf\"} 1 # {id=\"x\"} 1\n\
        # TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";

    #[test]
    fn text_is_for_all_who_do_not_ask_for_open_metrics() {
        let open = [
            "application/openmetrics-text",
            "text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0;q=0.75",
        ];
        for accept in open {
            assert_eq!(answer(Some(accept), OPEN.into()), (OPEN_METRICS, OPEN.to_owned()), "{accept}");
        }
        let others = [
            None,
            Some("*/*"),
            Some("text/plain"),
            Some("application/openmetrics-text;q=0, */*"),
            Some("application/json"),
        ];
        for accept in others {
            assert_eq!(answer(accept, OPEN.into()).0, TEXT, "{accept:?}");
        }
    }

    #[test]
    fn text_has_the_names_of_its_samples() {
        let expected = "# HELP requests_total Requests that came.\n# TYPE requests_total counter\nrequests_total{a=\"b\"} 1\n\
            # HELP seconds Time.\n# TYPE seconds histogram\nseconds_bucket{le=\"+Inf\"} 1\n\
            # TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n";
        assert_eq!(text(OPEN), expected);
    }
}
