//! `metadata.managedFields`: its entries, their order, and how many there may be
//! (`k8s.io/apimachinery/pkg/util/managedfields/internal`: `managedfields.go`, `capmanagers.go`).

use super::fields::Set;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::time::rfc3339;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How many entries of updates an object keeps; the oldest beyond that are merged.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that merged entries are kept under.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells managers apart: appliers are the same in all versions. The order is that of the JSON text that
/// Kubernetes builds of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    text: String,
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    /// Empty for appliers.
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl Identity {
    pub(crate) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        let mut text = String::from("{");
        for (name, value) in [
            ("manager", manager),
            ("operation", operation.name()),
            ("apiVersion", api_version),
            ("subresource", subresource),
        ] {
            if !value.is_empty() {
                text.push_str(if text.len() > 1 { ",\"" } else { "\"" });
                text.push_str(name);
                text.push_str("\":");
                // A text can always be written.
                text.push_str(&serde_json::to_string(value).unwrap_or_default());
            }
        }
        text.push('}');
        Self {
            text,
            manager: manager.into(),
            operation,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }

    /// As conflicts name a manager: `"name" with subresource "status" using v1`.
    pub(crate) fn in_conflicts(&self) -> String {
        let mut text = go_quote(&self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", go_quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) fields: Set,
    pub(crate) api_version: String,
    /// When the set last changed together with the object; whole seconds count.
    pub(crate) time: Option<Timestamp>,
}

/// All managers of an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Managed(pub(crate) BTreeMap<Identity, Owned>);

impl Managed {
    /// Reads `metadata.managedFields`.
    ///
    /// Errors: an entry that is not well formed.
    pub(crate) fn decode(list: Option<&Value>) -> Result<Self, String> {
        let entries = match list {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err("managedFields is not a list".into()),
        };
        let mut managed = Self::default();
        for (i, entry) in entries.iter().enumerate() {
            let (identity, owned) = decode_entry(i, entry)?;
            managed.0.insert(identity, owned);
        }
        Ok(managed)
    }

    /// The list as it is printed: by operation, time in seconds (none first), manager, version, subresource;
    /// `None` if nobody owns anything.
    pub(crate) fn encode(&self) -> Option<Value> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_cached_key(|(identity, owned)| {
            (
                identity.operation,
                seconds(owned),
                identity.manager.clone(),
                owned.api_version.clone(),
                identity.subresource.clone(),
            )
        });
        let list: Vec<Value> =
            entries.into_iter().map(|(identity, owned)| encode_entry(identity, owned)).collect();
        (!list.is_empty()).then(|| list.into())
    }

    /// Merges the oldest entries of updates until there are no more than [`MAX_UPDATE_MANAGERS`].
    pub(crate) fn cap(&mut self) {
        let mut updaters: Vec<Identity> =
            self.0.keys().filter(|id| id.operation == Operation::Update).cloned().collect();
        let mut count = updaters.len();
        updaters.sort_by_cached_key(|id| (self.0.get(id).map_or(0, seconds), id.clone()));
        let mut first_of_version: BTreeMap<String, Identity> = BTreeMap::new();
        for identity in updaters {
            if count <= MAX_UPDATE_MANAGERS {
                break;
            }
            let Some(owned) = self.0.get(&identity).cloned() else { continue };
            let Some(first) = first_of_version.get(&owned.api_version) else {
                first_of_version.insert(owned.api_version, identity);
                continue;
            };
            let bucket = Identity::new(ANCIENT_CHANGES, Operation::Update, &owned.api_version, "");
            if bucket == identity {
                continue;
            }
            let older = if self.0.contains_key(&bucket) {
                self.0.get(&bucket).cloned()
            } else {
                self.0.remove(first)
            };
            let fields = older.map_or_else(Set::new, |older| older.fields).union(&owned.fields);
            self.0.remove(&identity);
            self.0.insert(bucket, Owned { fields, ..owned });
            count -= 1;
        }
    }
}

fn seconds(owned: &Owned) -> i64 {
    owned.time.map_or(0, Timestamp::as_second)
}

fn decode_entry(position: usize, entry: &Value) -> Result<(Identity, Owned), String> {
    let text = |name: &str| match entry.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(format!("{name} is not a string")),
    };
    let operation = match text("operation")? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".into()),
    };
    let api_version = text("apiVersion")?;
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".into());
    }
    match text("fieldsType")? {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {position}")),
        other => {
            return Err(format!("invalid fieldsType {} in managed fields entry {position}", go_quote(other)));
        }
    }
    let time = match text("time")? {
        "" => None,
        time => Some(time.parse::<Timestamp>().map_err(|e| e.to_string())?),
    };
    let fields = Set::from_fields_v1(entry.get("fieldsV1").unwrap_or(&Value::Null))?;
    let identity = Identity::new(text("manager")?, operation, api_version, text("subresource")?);
    Ok((identity, Owned { fields, api_version: api_version.into(), time }))
}

fn encode_entry(identity: &Identity, owned: &Owned) -> Value {
    let mut out = Map::new();
    for (name, text) in [
        ("manager", identity.manager.as_str()),
        ("operation", identity.operation.name()),
        ("apiVersion", &owned.api_version),
        ("fieldsType", "FieldsV1"),
        ("subresource", &identity.subresource),
    ] {
        if !text.is_empty() {
            out.insert(name.into(), text.into());
        }
    }
    out.insert("fieldsV1".into(), owned.fields.to_fields_v1());
    if let Some(time) = owned.time {
        out.insert("time".into(), rfc3339(time).into());
    }
    out.into()
}

/// Whether a client asks to forget who owns what: it sent an empty list, or one empty entry.
pub(crate) fn is_reset(list: Option<&Value>) -> bool {
    match list {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [Value::Object(entry)] => entry.values().all(|v| v.is_null() || v == ""),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, version: &str, time: Option<i64>, field: &str) -> Value {
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": {format!("f:{field}"): {}}});
        if let Some(time) = time {
            entry["time"] = rfc3339(Timestamp::from_second(time).unwrap()).into();
        }
        entry
    }

    #[test]
    fn entries_are_sorted_by_operation_time_and_manager() {
        let sorted = json!([
            entry("z", "Apply", "v1", None, "a"),
            entry("b", "Apply", "v1", Some(5), "a"),
            entry("a", "Apply", "v1", Some(7), "a"),
            entry("a", "Update", "v1", Some(3), "a"),
            entry("b", "Update", "v1", Some(3), "a"),
        ]);
        let mut shuffled = sorted.as_array().unwrap().clone();
        shuffled.reverse();
        shuffled.swap(0, 2);
        let managed = Managed::decode(Some(&shuffled.into())).unwrap();
        assert_eq!(managed.encode().unwrap(), sorted);
        assert_eq!(Managed::default().encode(), None);
    }

    #[test]
    fn malformed_entries_are_refused() {
        for (name, bad) in [
            ("operation", json!("Patch")),
            ("apiVersion", json!("")),
            ("fieldsType", json!("FieldsV2")),
            ("fieldsType", Value::Null),
            ("fieldsV1", json!({"bad": {}})),
            ("manager", json!(1)),
            ("time", json!("yesterday")),
        ] {
            let mut entry = entry("m", "Apply", "v1", None, "a");
            entry[name] = bad;
            assert!(Managed::decode(Some(&json!([entry]))).is_err(), "{entry}");
        }
        assert!(Managed::decode(Some(&json!([1]))).is_err());
    }

    #[test]
    fn the_oldest_updates_become_ancient_changes() {
        let mut entries: Vec<Value> = (0..12)
            .map(|i| entry(&format!("m{i:02}"), "Update", "v1", Some(i), &format!("f{i:02}")))
            .collect();
        entries.push(entry("old", "Update", "v0", Some(0), "x"));
        entries.push(entry("applier", "Apply", "v1", Some(0), "y"));
        let mut managed = Managed::decode(Some(&entries.into())).unwrap();
        managed.cap();
        let list = managed.encode().unwrap();
        let names: Vec<_> = list.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["applier", "old", "ancient-changes", "m04", "m05", "m06", "m07", "m08", "m09", "m10", "m11"]
        );
        assert_eq!(list[2]["fieldsV1"], json!({"f:f00": {}, "f:f01": {}, "f:f02": {}, "f:f03": {}}));
        assert_eq!(list[2]["time"], "1970-01-01T00:00:03Z");
        // The next one goes into the same bucket.
        let mut more = managed.clone();
        let (id, owned) = decode_entry(0, &entry("m12", "Update", "v1", Some(12), "f12")).unwrap();
        more.0.insert(id, owned);
        more.cap();
        let list = more.encode().unwrap();
        assert_eq!(list[2]["fieldsV1"].as_object().unwrap().len(), 5);
    }

    #[test]
    fn resets() {
        for (list, want) in [
            (json!([]), true),
            (json!([{}]), true),
            (json!([{"manager": ""}]), true),
            (json!([{"manager": "a"}]), false),
            (json!([{}, {}]), false),
            (Value::Null, false),
        ] {
            assert_eq!(is_reset(Some(&list)), want, "{list}");
        }
        assert!(!is_reset(None));
    }
}
