//! JSON values as field management compares and prints them (`sigs.k8s.io/structured-merge-diff/value`).

use crate::words::number;
use fleetpass_apimachinery::field::go_quote;
use serde_json::Value;
use std::cmp::Ordering;
use std::fmt;

/// A JSON value with a total order, so that it can be part of a sorted set; 1 and 1.0 are the same.
#[derive(Debug, Clone)]
pub struct OrderedValue(pub Value);

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        // Whole numbers are compared as such: as floats, large ones would fall together.
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => {
                work::count(1);
                a.cmp(&b)
            }
            _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        },
        (Value::String(a), Value::String(b)) => {
            work::count(1 + a.len().min(b.len()));
            a.cmp(b)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let different = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            different.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let members = a.iter().zip(b);
            let different = members
                .map(|((name_a, a), (name_b, b))| name_a.cmp(name_b).then_with(|| compare(a, b)))
                .find(|order| order.is_ne());
            different.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

impl Ord for OrderedValue {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for OrderedValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrderedValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for OrderedValue {}

impl fmt::Display for OrderedValue {
    /// As paths show it (`value.ToString`): strings quoted, lists with commas, objects as `key=value` without
    /// separators.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&readable(&self.0))
    }
}

fn readable(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Number(n) => number(n),
        Value::Array(items) => format!("[{}]", items.iter().map(readable).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(k, v)| format!("{k}={}", readable(v))).collect(),
        other => other.to_string(),
    }
}

/// Whether two values are equal where 1 and 1.0 are the same (`value.Equals`).
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

/// A value that an error is about. The client that sent it may read it in the error's message; as the object may be a
/// Secret, `Debug` says only what kind of value it is.
#[derive(Clone, PartialEq)]
pub struct Found(pub Value);

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Found({})", crate::words::json_kind(&self.0))
    }
}

impl From<&Value> for Found {
    fn from(value: &Value) -> Self {
        Self(value.clone())
    }
}

/// Counts what is compared to find elements in sets, in bytes of texts, so that tests can see how the work grows.
pub(crate) mod work {
    #[cfg(test)]
    std::thread_local! {
        static COUNT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[cfg_attr(not(test), allow(unused_variables))]
    pub(super) fn count(bytes: usize) {
        #[cfg(test)]
        COUNT.with(|count| count.set(count.get() + bytes));
    }

    /// How much `act` counts.
    #[cfg(test)]
    pub(crate) fn of(act: impl FnOnce()) -> usize {
        let before = COUNT.with(std::cell::Cell::get);
        act();
        COUNT.with(std::cell::Cell::get) - before
    }
}
