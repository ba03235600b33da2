//! Recently decoded objects. Nearly every request looks at the same few objects, such as the namespace of the new object or
//! the account of the token, and decoding them each time would be most of the request's work.

use crate::cache::Object;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

const SLOTS: usize = 128;
/// Larger ones are decoded each time: as a tree, an object needs several times its bytes.
const LARGEST: usize = 4096;

type Slot = Mutex<Option<(Arc<Object>, Arc<Value>)>>;

/// A bounded number of objects with their trees: a direct-mapped cache by the address of the object. An object never changes (a
/// write makes another one), so an entry is never wrong, only unused.
pub(super) struct Decoded(Box<[Slot]>);

impl Default for Decoded {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| Slot::default()).collect())
    }
}

impl Decoded {
    /// The object as a tree ([`Object::value`]).
    pub(super) fn value(&self, object: &Arc<Object>) -> Arc<Value> {
        // An address can be used again once its object is freed. That does not matter: the slot holds the object that it knows,
        // and identity is compared below. The lowest four bits are the same for all allocations.
        let address = Arc::as_ptr(object) as usize;
        let slot = self.0.get((address >> 4) % SLOTS).filter(|_| object.size() <= LARGEST);
        let Some(slot) = slot else { return Arc::new(object.value()) };
        if let Some((known, value)) = &*slot.lock()
            && Arc::ptr_eq(known, object)
        {
            return value.clone();
        }
        // Decoded without the lock. Two threads may both do it; either result is right.
        let value = Arc::new(object.value());
        *slot.lock() = Some((object.clone(), value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(revision: u64, size: usize) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(size));
        Arc::new(Object::new("/registry/things/x".into(), revision, json.into()).unwrap())
    }

    #[test]
    fn each_object_has_its_own_tree_and_small_ones_are_decoded_once() {
        let decoded = Decoded::default();
        let objects: Vec<_> = (0..1000).map(|revision| object(revision, 10)).collect();
        for object in &objects {
            let value = decoded.value(object);
            assert_eq!(*value, object.value());
            assert!(Arc::ptr_eq(&value, &decoded.value(object)));
        }
        let large = object(1, LARGEST);
        assert!(!Arc::ptr_eq(&decoded.value(&large), &decoded.value(&large)));
        assert_eq!(*decoded.value(&large), large.value());
    }
}
