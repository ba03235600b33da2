//! Whether a value fits its schema (`sigs.k8s.io/structured-merge-diff/typed/validate.go`).

use super::schema::{Form, ListAtom, MapAtom, Scalar, TypeRef};
use super::validation_error::{Problem, ValidationError, ValidationErrors};
use crate::fieldpath::{Path, PathElement};
use crate::limit::Telling;
use crate::value::Found;
use crate::words::Expected;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Checks the value. `allow_duplicates`: whether a list may have elements with the same key, as one may that was stored
/// before its schema said how to tell elements apart.
pub(crate) fn validate(
    schema: TypeRef<'_>,
    value: &Value,
    allow_duplicates: bool,
) -> Result<(), ValidationErrors> {
    let mut check = Check { allow_duplicates, errors: Vec::new(), more: 0, telling: Telling::new() };
    check.node(schema, value, &mut Path::root());
    let Check { errors, more, .. } = check;
    if errors.is_empty() { Ok(()) } else { Err(ValidationErrors { errors, more }) }
}

struct Check {
    allow_duplicates: bool,
    errors: Vec<ValidationError>,
    /// How many there are besides.
    more: usize,
    telling: Telling,
}

impl Check {
    fn error(&mut self, path: &Path, problem: impl FnOnce() -> Problem) {
        if self.telling.is_over() {
            self.more += 1;
            return;
        }
        self.telling.tell(path.to_string().len());
        self.errors.push(ValidationError { path: path.clone(), problem: problem() });
    }

    fn unexpected(&mut self, path: &Path, found: &Value, expected: Expected) {
        self.error(path, || Problem::Type { expected, found: Found::from(found) });
    }

    fn node(&mut self, schema: TypeRef<'_>, value: &Value, path: &mut Path) {
        let atom = schema.atom();
        match atom.handled_as(Some(value)) {
            Form::Map => match value {
                Value::Null => {}
                Value::Object(members) => {
                    if let Some(map) = &atom.map {
                        self.map(map, members, path);
                    }
                }
                other => self.unexpected(path, other, Expected::Map),
            },
            Form::List => match value {
                Value::Null => {}
                Value::Array(items) => {
                    if let Some(list) = &atom.list {
                        self.list(list, items, path);
                    }
                }
                other => self.unexpected(path, other, Expected::List),
            },
            Form::Scalar => {
                if let Some(expected) = atom.scalar.and_then(|scalar| wrong_scalar(scalar, value)) {
                    self.unexpected(path, value, expected);
                }
            }
        }
    }

    fn map(&mut self, map: &MapAtom<'_>, members: &Map<String, Value>, path: &mut Path) {
        for (name, value) in members {
            path.push(PathElement::field(name));
            let entry = map.entry(name);
            match entry {
                Some(entry) => self.node(entry, value, path),
                None => self.error(path, || Problem::Undeclared),
            }
            path.pop();
            // Of unknown fields Kubernetes reports the first of each map only.
            if entry.is_none() {
                return;
            }
        }
    }

    fn list(&mut self, list: &ListAtom<'_>, items: &[Value], path: &mut Path) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = if list.atomic() {
                PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
            } else {
                match list.path_element(item) {
                    Ok(element) => element,
                    Err(problem) => return self.error(path, || Problem::Element { index, problem }),
                }
            };
            if !list.atomic() && !seen.insert(element.clone()) && !self.allow_duplicates {
                self.error(path, || Problem::Duplicate(element.clone()));
            }
            path.push(element);
            self.node(list.element, item, path);
            path.pop();
        }
    }
}

/// What a value should be that does not have the type of a scalar.
fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<Expected> {
    let (fits, expected) = match scalar {
        Scalar::Numeric => (value.is_number(), Expected::Number),
        Scalar::String => (value.is_string(), Expected::String),
        Scalar::Boolean => (value.is_boolean(), Expected::Boolean),
        Scalar::Any => (!value.is_object() && !value.is_array(), Expected::Scalar),
    };
    (!fits && !value.is_null()).then_some(expected)
}
