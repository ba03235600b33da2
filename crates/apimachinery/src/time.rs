//! How Kubernetes writes times (`k8s.io/apimachinery/pkg/apis/meta/v1/{time,micro_time}.go`). No clock: times are given.

use jiff::Timestamp;

/// `time` cut to whole seconds, as `metav1.Time` stores and prints it.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a timestamp's seconds are in range")
}

/// `time` as `metav1.Time` prints it: RFC 3339, UTC, whole seconds (`2026-01-02T03:04:05Z`).
pub fn rfc3339(time: Timestamp) -> String {
    whole_seconds(time).to_string()
}

/// `time` as `metav1.MicroTime` prints it: RFC 3339, UTC, six decimals.
pub fn rfc3339_micro(time: Timestamp) -> String {
    format!("{time:.6}")
}
