//! The names of the members of a patch that say how to merge, instead of what.

/// `replace` or `delete` the map in which it stands; of elements of lists `delete` and `replace` too.
pub(super) const DIRECTIVE: &str = "$patch";
/// Which fields of a map stay; all others go.
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
/// `$deleteFromPrimitiveList/name`: which values go from the list `name`.
pub(super) const DELETE_FROM: &str = "$deleteFromPrimitiveList";
/// `$setElementOrder/name`: the keys or values of the list `name` in the order that they are to have.
pub(super) const ELEMENT_ORDER: &str = "$setElementOrder";
