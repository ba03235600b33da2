//! Why a value does not fit its schema, in the words of structured-merge-diff.

use crate::fieldpath::{Path, PathElement};
use crate::limit::and_more;
use crate::value::Found;
use crate::words::{Expected, GoWords, Words};
use fleetpass_apimachinery::field::go_quote;

/// One thing that is wrong with a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.message(&GoWords))]
pub struct ValidationError {
    /// Where; empty for the value as a whole.
    pub path: Path,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.message(&GoWords))]
pub struct ValidationErrors {
    /// The first hundred errors, or fewer if their paths are long; never empty.
    pub errors: Vec<ValidationError>,
    /// How many there are besides.
    pub more: usize,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// The schema has no such field.
    Undeclared,
    /// It has not the type that the schema wants.
    Type {
        /// The type that is wanted.
        expected: Expected,
        /// The value.
        found: Found,
    },
    /// A list has more than one element with this key.
    Duplicate(PathElement),
    /// An element of a list cannot be told apart from others.
    Element {
        /// Its position.
        index: usize,
        /// What is wrong with it.
        problem: KeyError,
    },
}

/// Why an element of a list has no key in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The list is owned as a whole: its elements have no keys.
    #[error("invalid indexing of non-associative list")]
    Atomic,
    /// A set holds scalars, not objects.
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    /// A set holds scalars, not lists.
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    /// A set holds scalars, not null.
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
    /// A list of objects with keys holds null.
    #[error("associative list with keys may not have a null element")]
    Null,
    /// A list of objects with keys holds something else.
    #[error("associative list with keys may not have non-map elements")]
    NotAMap,
    /// An object has none of these keys, and none of them has a default.
    #[error(
        "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for \
         any key fields)", quoted(.0)
    )]
    NoKeys(Vec<String>),
}

/// A list of strings as Go's `%q` prints it, without the brackets.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| go_quote(name)).collect::<Vec<_>>().join(" ")
}

impl ValidationError {
    /// `.path: what is wrong`.
    pub fn message(&self, words: &dyn Words) -> String {
        let problem = match &self.problem {
            Problem::Undeclared => "field not declared in schema".to_string(),
            Problem::Type { expected, found } => words.unexpected(&found.0, *expected),
            Problem::Duplicate(element) => format!("duplicate entries for key {element}"),
            Problem::Element { index, problem } => format!("element {index}: {problem}"),
        };
        if self.path.is_empty() { problem } else { format!("{}: {problem}", self.path) }
    }
}

impl ValidationErrors {
    /// The error, or one line for each.
    pub fn message(&self, words: &dyn Words) -> String {
        match self.errors.as_slice() {
            [one] if self.more == 0 => one.message(words),
            many => {
                let mut out = String::from("errors:");
                for error in many {
                    out.push_str("\n  ");
                    out.push_str(&error.message(words));
                }
                if self.more > 0 {
                    out.push_str("\n  ");
                    out.push_str(&and_more(self.more));
                }
                out
            }
        }
    }
}
