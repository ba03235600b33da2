//! The fields of recent objects that field selectors asked for. Many watchers with the same selector look at the same event, and
//! each of them would decode its object anew, before and after the change.

use crate::cache::Object;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

const SLOTS: usize = 64;
/// Longer values are looked up each time.
const LONGEST: usize = 256;

/// What is known of an object in one group and version (Events are served in two groups): the fields that were asked for. There
/// are no more than the kind lets selectors name.
struct Known {
    /// Weak, so that the object is not kept for this. Its address is not used again as long as this is here.
    object: Weak<Object>,
    group: Box<str>,
    version: Box<str>,
    fields: Vec<(Box<str>, Box<str>)>,
}

/// A bounded number of objects with their fields: a direct-mapped cache by the address of the object. An object never changes (a
/// write makes another one), so an entry is never wrong, only unused.
pub(super) struct Selected(Box<[Mutex<Option<Known>>]>);

impl Default for Selected {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| Mutex::default()).collect())
    }
}

impl Selected {
    /// The value of a field of the object in a group and version; `find` looks for it if it is not known.
    pub(super) fn value(
        &self,
        object: &Arc<Object>,
        (group, version): (&str, &str),
        field: &str,
        find: impl FnOnce() -> String,
    ) -> String {
        // The lowest four bits are the same for all allocations.
        let slot = &self.0[(Arc::as_ptr(object) as usize >> 4) % SLOTS];
        let is_it = |known: &Known| {
            let same = known.object.as_ptr() == Arc::as_ptr(object);
            same && *known.group == *group && *known.version == *version
        };
        // Held while one looks for the value, so that the others, who come at the same time, wait for it instead of decoding too.
        let mut slot = slot.lock();
        if let Some(known) = slot.as_ref().filter(|known| is_it(known))
            && let Some((_, value)) = known.fields.iter().find(|(name, _)| **name == *field)
        {
            return value.to_string();
        }
        let value = find();
        if value.len() <= LONGEST {
            let entry = (field.into(), value.as_str().into());
            match slot.as_mut().filter(|known| is_it(known)) {
                Some(known) => known.fields.push(entry),
                None => {
                    let (fields, version) = (vec![entry], version.into());
                    *slot =
                        Some(Known { object: Arc::downgrade(object), group: group.into(), version, fields });
                }
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_field_of_an_object_is_looked_for_once() {
        let selected = Selected::default();
        let object = |revision| {
            let json = r#"{"metadata":{}}"#.into();
            Arc::new(Object::new("/registry/things/x".into(), revision, json).unwrap())
        };
        let objects: Vec<_> = (0..1000).map(object).collect();
        let looked = Cell::new(0);
        for object in &objects {
            // The group is told apart as well as the version, but an object is rarely asked for in two: the last one is kept.
            let same =
                [(("", "v1"), "type"), (("", "v1"), "type"), (("", "v1"), "other"), (("", "v1"), "type")];
            for (version, field) in same.into_iter().chain([(("g", "v1"), "type"), (("g", "v2"), "type")]) {
                let expected = format!("{version:?} {field} {}", object.revision);
                let found = selected.value(object, version, field, || {
                    looked.set(looked.get() + 1);
                    expected.clone()
                });
                assert_eq!(found, expected);
            }
        }
        assert_eq!(looked.get(), 4 * objects.len());
        let long = selected.value(&objects[0], ("", "v1"), "long", || "x".repeat(LONGEST + 1));
        assert_ne!(
            selected.value(&objects[0], ("", "v1"), "long", String::new),
            long,
            "long values are not kept"
        );
    }

    #[test]
    fn objects_are_not_kept() {
        let selected = Selected::default();
        let object = Object::new("/registry/things/x".into(), 1, r#"{"metadata":{}}"#.into()).unwrap();
        let object = Arc::new(object);
        selected.value(&object, ("", "v1"), "type", String::new);
        assert_eq!(Arc::strong_count(&object), 1);
    }
}
