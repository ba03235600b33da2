//! Why a strategic merge patch cannot be merged.

use crate::value::Found;
use crate::words::{Container, GoWords, Words};
use fleetpass_apimachinery::field::go_quote;

/// A directive about a list or map that stands beside it in the patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Directive {
    /// `$deleteFromPrimitiveList/name`
    #[error("invalid patch format of primitive list")]
    DeleteFromPrimitiveList,
    /// `$retainKeys`
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder/name`
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
}

/// Why a strategic merge patch cannot be merged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.message(&GoWords))]
pub enum StrategicError {
    /// A directive is not well formed.
    MalformedDirective(Directive),
    /// A list holds lists; such are not merged.
    ListOfLists,
    /// The patch goes into a field that the type does not have.
    UnknownField {
        /// The Go type, without its package.
        go_type: String,
        /// The field.
        field: String,
    },
    /// Elements of a list do not come in the order that `$setElementOrder` gives.
    OutOfOrder {
        /// The elements.
        list: Found,
        /// The order.
        order: Found,
    },
    /// Neither a list nor what is merged into it has elements, so it is not known how to tell them apart.
    NoElements,
    /// A list mixes elements of several types.
    MixedElements(Found),
    /// The schema says that a list of objects is merged, but not by which key.
    NoMergeKey,
    /// An element of a list has no value of the key by which the list is merged.
    MissingMergeKey {
        /// The element.
        element: Found,
        /// The key.
        key: String,
    },
    /// Something else stands where a list or a map has to be.
    WrongContainer {
        /// What has to be there.
        expected: Container,
        /// What is.
        found: Found,
    },
    /// `$patch: merge` in an element of a list, which does not exist.
    MergeDirectiveInList,
    /// The patch names elements of lists again and again, and merging them each time would cost more than one request may.
    RemergesTooMuch {
        /// How many values may be merged anew.
        max: usize,
    },
    /// A `$patch` that does not exist.
    UnknownDirective {
        /// Its value.
        directive: Found,
        /// The map in which it stands.
        patch: Found,
    },
}

impl StrategicError {
    /// The message of `k8s.io/apimachinery/pkg/util/strategicpatch`, with these words about values and types.
    pub fn message(&self, words: &dyn Words) -> String {
        match self {
            Self::MalformedDirective(directive) => directive.to_string(),
            Self::ListOfLists => "lists of lists are not merged".to_string(),
            Self::UnknownField { go_type, field } => {
                format!("unable to find api field in struct {go_type} for the json field {}", go_quote(field))
            }
            Self::OutOfOrder { list, order } => format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                words.value(&list.0),
                words.value(&order.0)
            ),
            Self::NoElements => "no elements in any of the given slices".to_string(),
            Self::MixedElements(lists) => {
                format!("list element types are not identical: {}", words.value(&lists.0))
            }
            Self::NoMergeKey => "cannot merge lists without merge key for type struct".to_string(),
            Self::MissingMergeKey { element, key } => {
                format!("map: {} does not contain declared merge key: {key}", words.value(&element.0))
            }
            Self::WrongContainer { expected, found } => words.wrong_container(&found.0, *expected),
            Self::RemergesTooMuch { max } => format!(
                "the patch names elements of lists more than once, and to merge them again takes more than the allowed \
                 maximum of {max} values"
            ),
            Self::MergeDirectiveInList => "merging lists cannot yet be specified in the patch".to_string(),
            Self::UnknownDirective { directive, patch } => format!(
                "unknown patch type: {} in map: {}",
                words.directive(&directive.0),
                words.value(&patch.0)
            ),
        }
    }
}
