//! The parts of JSON values, with nothing for a value that has another form or is not there.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The members of a map; `None` of anything else.
pub(super) fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

/// The elements of a list; none of anything else.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The names of the members of both maps, sorted.
pub(super) fn member_names<'a>(
    left: Option<&'a Map<String, Value>>,
    right: Option<&'a Map<String, Value>>,
) -> BTreeSet<&'a String> {
    left.into_iter().chain(right).flat_map(Map::keys).collect()
}
