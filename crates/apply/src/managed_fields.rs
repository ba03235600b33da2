//! `metadata.managedFields`: its entries, their order, and how many there may be
//! (`k8s.io/apimachinery/pkg/util/managedfields/internal`: `managedfields.go`, `capmanagers.go`).

use crate::fieldpath::{FieldsV1Error, Set};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::time::rfc3339;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// How many entries of updates an object keeps; the oldest beyond that are merged.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that merged entries are kept under.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager came to own its fields. Appliers stand before updaters in `managedFields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply: what it does not apply any more goes.
    Apply,
    /// By any other write.
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

/// A field manager as it stands in `managedFields`: who owns a set of fields. It prints as in conflicts: `"name" with
/// subresource "status" using v1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The rest as JSON, by which Kubernetes sorts managers (`BuildManagerIdentifier`). First, so that the derived order
    /// is that one.
    identifier: String,
    /// The name of the manager.
    pub manager: String,
    /// How it came to own its fields.
    pub operation: Operation,
    /// The version in which it updated. Empty for appliers: one that applies in another version stays the same owner.
    pub api_version: String,
    /// The subresource that it wrote; empty for the object itself.
    pub subresource: String,
}

impl Owner {
    pub(crate) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        let mut identifier = String::from("{");
        for (name, value) in [
            ("manager", manager),
            ("operation", operation.name()),
            ("apiVersion", api_version),
            ("subresource", subresource),
        ] {
            if !value.is_empty() {
                identifier.push_str(if identifier.len() > 1 { ",\"" } else { "\"" });
                identifier.push_str(name);
                identifier.push_str("\":");
                // A text can always be written.
                identifier.push_str(&serde_json::to_string(value).unwrap_or_default());
            }
        }
        identifier.push('}');
        Self {
            identifier,
            manager: manager.into(),
            operation,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_quote(&self.manager))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", go_quote(&self.subresource))?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// Why a list of `managedFields` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagedFieldsError {
    /// It is no list.
    #[error("managedFields is not a list")]
    NotAList,
    /// This member of an entry is no string.
    #[error("{0} is not a string")]
    NotAString(&'static str),
    /// An operation that does not exist.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// An entry without a version.
    #[error("apiVersion must not be empty")]
    NoApiVersion,
    /// An entry that does not say in which form its fields are.
    #[error("missing fieldsType in managed fields entry {entry}")]
    NoFieldsType {
        /// Which, from 0.
        entry: usize,
    },
    /// An entry whose fields are in an unknown form.
    #[error("invalid fieldsType {} in managed fields entry {entry}", go_quote(found))]
    FieldsType {
        /// Which, from 0.
        entry: usize,
        /// The form.
        found: String,
    },
    /// A time that is none.
    #[error("{0}")]
    Time(String),
    /// The fields themselves.
    #[error("{0}")]
    Fields(FieldsV1Error),
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) fields: Set,
    pub(crate) api_version: String,
    /// When the set last changed together with the object; whole seconds count.
    pub(crate) time: Option<Timestamp>,
}

/// All managers of an object, in the order in which Kubernetes goes through them; conflicts are reported in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Managed(pub(crate) BTreeMap<Owner, Owned>);

impl Managed {
    /// Reads `metadata.managedFields`.
    ///
    /// Errors: an entry that is not well formed.
    pub(crate) fn decode(list: Option<&Value>) -> Result<Self, ManagedFieldsError> {
        let entries = match list {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(ManagedFieldsError::NotAList),
        };
        let mut managed = Self::default();
        for (i, entry) in entries.iter().enumerate() {
            let (owner, owned) = decode_entry(i, entry)?;
            managed.0.insert(owner, owned);
        }
        Ok(managed)
    }

    /// The list as it is printed: by operation, time in seconds (none first), manager, version, subresource;
    /// `None` if nobody owns anything.
    pub(crate) fn encode(&self) -> Option<Value> {
        let mut entries: Vec<_> = self.0.iter().collect();
        // Not the order of the map: this is `sortEncodedManagedFields`, by which appliers come first.
        entries.sort_by_cached_key(|(owner, owned)| {
            (
                owner.operation,
                seconds(owned),
                owner.manager.clone(),
                owned.api_version.clone(),
                owner.subresource.clone(),
            )
        });
        let list: Vec<Value> = entries.into_iter().map(|(owner, owned)| encode_entry(owner, owned)).collect();
        (!list.is_empty()).then(|| list.into())
    }

    /// Merges the oldest entries of updates until there are no more than [`MAX_UPDATE_MANAGERS`]: controllers with a
    /// random part in their names would otherwise make the object grow without end. Only entries of one version are
    /// merged, since a set of fields is in the terms of its version, so more may be left.
    pub(crate) fn cap(&mut self) {
        let is_updater = |owner: &&Owner| owner.operation == Operation::Update;
        // Nearly every write ends here.
        let mut count = self.0.keys().filter(is_updater).count();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let mut updaters: Vec<Owner> = self.0.keys().filter(is_updater).cloned().collect();
        updaters.sort_by_cached_key(|owner| (self.0.get(owner).map_or(0, seconds), owner.clone()));
        let mut first_of_version: BTreeMap<String, Owner> = BTreeMap::new();
        for owner in updaters {
            if count <= MAX_UPDATE_MANAGERS {
                break;
            }
            let Some(owned) = self.0.get(&owner) else { continue };
            // The first of a version stays by itself until a second one can be merged with it.
            let Some(first) = first_of_version.get(&owned.api_version) else {
                first_of_version.insert(owned.api_version.clone(), owner);
                continue;
            };
            let bucket = Owner::new(ANCIENT_CHANGES, Operation::Update, &owned.api_version, "");
            if bucket == owner {
                continue;
            }
            let older =
                if self.0.contains_key(&bucket) { self.0.remove(&bucket) } else { self.0.remove(first) };
            let Some(owned) = self.0.remove(&owner) else { continue };
            // What is merged already is taken along, not copied: there may be thousands of entries.
            let mut fields = older.map_or_else(Set::new, |older| older.fields);
            fields.union_with(owned.fields);
            self.0.insert(bucket, Owned { fields, ..owned });
            count -= 1;
        }
    }
}

fn seconds(owned: &Owned) -> i64 {
    owned.time.map_or(0, Timestamp::as_second)
}

fn decode_entry(position: usize, entry: &Value) -> Result<(Owner, Owned), ManagedFieldsError> {
    let text = |name: &'static str| match entry.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(ManagedFieldsError::NotAString(name)),
    };
    let operation = match text("operation")? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagedFieldsError::Operation),
    };
    let api_version = text("apiVersion")?;
    if api_version.is_empty() {
        return Err(ManagedFieldsError::NoApiVersion);
    }
    match text("fieldsType")? {
        "FieldsV1" => {}
        "" => return Err(ManagedFieldsError::NoFieldsType { entry: position }),
        other => return Err(ManagedFieldsError::FieldsType { entry: position, found: other.into() }),
    }
    let time = match text("time")? {
        "" => None,
        time => Some(time.parse::<Timestamp>().map_err(|why| ManagedFieldsError::Time(why.to_string()))?),
    };
    let fields = Set::from_fields_v1(entry.get("fieldsV1").unwrap_or(&Value::Null))
        .map_err(ManagedFieldsError::Fields)?;
    let owner = Owner::new(text("manager")?, operation, api_version, text("subresource")?);
    Ok((owner, Owned { fields, api_version: api_version.into(), time }))
}

fn encode_entry(owner: &Owner, owned: &Owned) -> Value {
    let mut out = Map::new();
    for (name, text) in [
        ("manager", owner.manager.as_str()),
        ("operation", owner.operation.name()),
        ("apiVersion", &owned.api_version),
        ("fieldsType", "FieldsV1"),
        ("subresource", &owner.subresource),
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
            // Go cannot tell an entry without members from one whose members are all empty.
            [Value::Object(entry)] => entry.values().all(|v| v.is_null() || v == ""),
            _ => false,
        },
        _ => false,
    }
}

/// The `metadata.managedFields` of an object.
pub(crate) fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// A copy of the object without its `managedFields`: they own nothing themselves.
pub(crate) fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Sets the list, or takes it away.
pub(crate) fn set_managed_fields(object: &mut Value, list: Option<Value>) {
    let Value::Object(members) = object else { return };
    match (members.get_mut("metadata"), list) {
        (Some(Value::Object(metadata)), Some(list)) => {
            metadata.insert("managedFields".into(), list);
        }
        (Some(Value::Object(metadata)), None) => {
            metadata.remove("managedFields");
        }
        // Bodies of actions, such as a TokenRequest, may come without metadata.
        (_, Some(list)) => {
            members.insert("metadata".into(), json!({"managedFields": list}));
        }
        (_, None) => {}
    }
}

/// Takes back the times in `new`'s `managedFields` if nothing but times changed, so that the write is none
/// (`IgnoreManagedFieldsTimestampsTransformer` in `k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager`).
pub fn keep_times(new: &mut Value, old: &Value) {
    // A write that defaulting turns back into what is stored must be none: a controller that repeats it would wake everybody
    // who watches the object, itself included.
    let (Some(new_list), Some(old_list)) = (managed_fields(new), managed_fields(old)) else { return };
    let timeless = |list: &Value| {
        let mut list = list.clone();
        for entry in list.as_array_mut().into_iter().flatten() {
            if let Value::Object(entry) = entry {
                entry.remove("time");
            }
        }
        list
    };
    if timeless(new_list) == timeless(old_list) && without_managed_fields(new) == without_managed_fields(old)
    {
        let list = old_list.clone();
        set_managed_fields(new, Some(list));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
