//! The cells that many kinds have in their `metav1.Table`, and times as people read them (`k8s.io/apimachinery/pkg/util/duration`,
//! `pkg/printers/internalversion/printers.go`).

use fleetpass_apimachinery::meta;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// What stands in a cell whose value is not known.
pub(crate) const UNKNOWN: &str = "<unknown>";

/// A duration with two or three significant figures (`HumanDuration`): `5s`, `3m12s`, `47h`, `2y30d`.
pub(crate) fn human_duration(duration: SignedDuration) -> String {
    // The thresholds are those of Go's `HumanDuration`: kubectl users compare ages by eye, so they must not look
    // different here.
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match () {
        // Clocks differ: up to two seconds in the future is now.
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

/// How long ago `time` was; `<unknown>` where there is no time.
pub(crate) fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| UNKNOWN.into(), |time| human_duration(now.duration_since(time)))
}

/// The cell of the Age column.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(meta::time(object, &["metadata", "creationTimestamp"]), now).into()
}

/// The cell of the Name column.
pub(crate) fn name(object: &Value) -> Value {
    meta::name(object).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let (minute, hour, day) = (60, 3600, 86400);
        let year = 365 * day;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (9 * minute + 59, "9m59s"),
            (10 * minute + 59, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 59 * minute, "7h59m"),
            (47 * hour + 59 * minute, "47h"),
            (2 * day, "2d"),
            (7 * day + 23 * hour, "7d23h"),
            (8 * day + hour, "8d"),
            (2 * year - day, "729d"),
            (2 * year, "2y"),
            (7 * year + 364 * day, "7y364d"),
            (8 * year + day, "8y"),
        ] {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), text);
        }
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let object = serde_json::json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:00Z"}});
        assert_eq!(age(&object, now), "5s");
        assert_eq!(age(&serde_json::json!({}), now), UNKNOWN);
    }
}
