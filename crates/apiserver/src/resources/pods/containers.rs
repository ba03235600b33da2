//! The containers of a pod.

use fleetpass_apimachinery::meta;
use serde_json::Value;

/// The lists of containers in a pod's spec.
pub(super) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// All containers of the given lists.
pub(super) fn containers<'a>(object: &'a Value, lists: &[&str]) -> impl Iterator<Item = &'a Value> {
    lists.iter().flat_map(|list| meta::list(object, &["spec", list])).collect::<Vec<_>>().into_iter()
}
