//! Read access to stored objects for rules that depend on other objects.

use serde_json::Value;
use std::sync::Arc;

/// The latest state of all stored objects, in memory, as `client-go`'s listers give it: rules that depend on other objects
/// take one, and never wait for I/O.
// A trait, so that the rules do not depend on the watch cache that implements it, and are tested with a map of objects.
pub trait Lister: Send + Sync {
    /// The object of that group, plural resource, namespace (empty for cluster scope) and name, with its
    /// `metadata.resourceVersion`; `None` if there is none.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource in a namespace (empty: all namespaces), ordered by key.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>>;
}
