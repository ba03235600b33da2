//! The order of elements of merged lists: that of the patch, with what only the server has in between.

use super::directives::DIRECTIVE;
use super::error::StrategicError;
use super::keys::{Key, Keys, Positions};
use crate::value::Found;
use crate::words::Container;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The elements of the patch must be listed, and in the order of the list.
pub(super) fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), StrategicError> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Value> = if key.is_empty() {
        change.iter().collect()
    } else {
        // All have to be maps, also those that are filtered out next.
        change.iter().map(object).collect::<Result<Vec<_>, _>>()?;
        change.iter().filter(|element| !is_delete(element)).collect()
    };
    // The elements must be a subsequence of the order: one walk over both. Elements of the order that are not in the patch
    // are those that stay as they are.
    let mut position = 0;
    let mut ordered = order.iter();
    while let Some(element) = kept.get(position) {
        if element.get(DIRECTIVE).is_some() {
            position += 1;
            continue;
        }
        let Some(listed) = ordered.next() else {
            return Err(StrategicError::OutOfOrder {
                list: Found(change.to_vec().into()),
                order: Found(order.to_vec().into()),
            });
        };
        let equal = if key.is_empty() {
            *element == listed
        } else {
            merge_key(object(element)?, key)? == merge_key(object(listed)?, key)?
        };
        if equal {
            position += 1;
        }
    }
    Ok(())
}

/// The elements that `by` has too, and those that it has not.
pub(super) fn partition(
    list: Vec<Value>,
    by: &[Value],
    key: Key<'_>,
) -> Result<(Vec<Value>, Vec<Value>), StrategicError> {
    // A list without a merge key is one of scalars. One with a key holds maps, also where there was nothing to see that by.
    let key = Key { name: key.name, maps: !key.name.is_empty() };
    if key.maps {
        for element in &list {
            merge_key(object(element)?, key.name)?;
        }
    }
    let wanted = Keys::of(by, key);
    Ok(list.into_iter().partition(|element| wanted.contain(element, key)))
}

/// Sorts the elements of the patch by the patch's order and those that only the server has by the server's, and
/// puts each of the latter before the first element of the patch that came after it on the server.
pub(super) fn interleave(
    patch: Vec<Value>,
    server_only: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Key<'_>,
) -> Result<Vec<Value>, StrategicError> {
    let patch = sorted(patch, patch_order, key)?;
    let server_only = sorted(server_only, server_order, key)?;
    let on_server = Positions::of(server_order, key);
    let mut out = Vec::with_capacity(patch.len() + server_only.len());
    // A merge of two sorted lists by the server's order. An element of the patch that is new to the server has no place in
    // it, so nothing is put before it. Each element is looked up once, not each time that it is compared: it may be long.
    let mut left = server_only.into_iter().map(|element| (on_server.find(&element, key), element)).peekable();
    for right in patch {
        let place = on_server.find(&right, key);
        while let (Some((Some(l), _)), Some(r)) = (left.peek(), place)
            && *l < r
        {
            out.extend(left.next().map(|(_, element)| element));
        }
        out.push(right);
    }
    out.extend(left.map(|(_, element)| element));
    Ok(out)
}

/// The list in this order, with elements that are to be deleted at the end.
fn sorted(mut list: Vec<Value>, order: &[Value], key: Key<'_>) -> Result<Vec<Value>, StrategicError> {
    let mut deleted = Vec::new();
    if key.maps {
        for element in list.iter().chain(order) {
            merge_key(object(element)?, key.name)?;
        }
        (deleted, list) = list.into_iter().partition(is_delete);
    }
    let positions = Positions::of(order, key);
    // Stable, and `None` sorts first: elements that the order does not know keep their sequence in front of the others.
    list.sort_by_cached_key(|element| positions.find(element, key));
    list.extend(deleted);
    Ok(list)
}

fn is_delete(element: &Value) -> bool {
    element.get(DIRECTIVE).is_some_and(|directive| directive == "delete")
}

/// The members of an element, or the error that it is no map.
pub(super) fn object(value: &Value) -> Result<&Object, StrategicError> {
    value
        .as_object()
        .ok_or_else(|| StrategicError::WrongContainer { expected: Container::Map, found: Found::from(value) })
}

/// The value by which an element is told apart.
pub(super) fn merge_key<'a>(element: &'a Object, key: &str) -> Result<&'a Value, StrategicError> {
    element.get(key).ok_or_else(|| StrategicError::MissingMergeKey {
        element: Found(Value::Object(element.clone())),
        key: key.into(),
    })
}
