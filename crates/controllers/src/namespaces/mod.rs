//! What belongs to namespaces: the objects that each of them has, and the deletion of their content.

pub(crate) mod conditions;
pub(crate) mod content;
pub(crate) mod defaults;
