//! Values seen through their schema: do they fit it, which fields do they have, how do two of them differ, what is one
//! merged into the other (`sigs.k8s.io/structured-merge-diff/typed`; the files have the same names).

mod compare;
mod fieldset;
mod members;
mod merge;
mod reconcile;
mod remove;
mod schema;
mod validate;
mod validation_error;

pub(crate) use compare::{Comparison, compare, written};
pub(crate) use fieldset::{to_set, with_named_parents};
pub(crate) use merge::merge;
pub(crate) use reconcile::reconcile;
pub(crate) use remove::remove;
pub(crate) use schema::TypeRef;
pub(crate) use validate::validate;
pub use validation_error::{KeyError, Problem, ValidationError, ValidationErrors};
