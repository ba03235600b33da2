//! Uniqueness in lists that are sets or maps (`apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go`).

use crate::{ListType, Schema};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The duplicates in the sets and maps of a custom object.
pub fn validate(path: &Path, schema: &Schema, value: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    visit(path, schema, value, &mut errors);
    errors
}

fn visit(path: &Path, schema: &Schema, value: &Value, errors: &mut ErrorList) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if let Some(property) = schema.properties.get(name) {
                    visit(&path.child(name), property, member, errors);
                } else if let Some(additional) = &schema.additional {
                    visit(&path.key(name), additional, member, errors);
                }
            }
        }
        Value::Array(elements) => {
            match &schema.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for index in duplicates(elements.iter().cloned()) {
                        errors.push(Error::duplicate(&path.index(index), elements[index].clone()));
                    }
                }
                ListType::Map(keys) => map(path, keys, elements, errors),
            }
            if let Some(items) = &schema.items {
                for (index, element) in elements.iter().enumerate() {
                    visit(&path.index(index), items, element, errors);
                }
            }
        }
        _ => {}
    }
}

fn map(path: &Path, keys: &[String], elements: &[Value], errors: &mut ErrorList) {
    for (index, element) in elements.iter().enumerate() {
        if !element.is_null() && !element.is_object() {
            let detail = "must be an object for an array of list-type map";
            errors.push(Error::invalid(&path.index(index), element.clone(), detail));
            return;
        }
    }
    let key = |element: &Value| -> Value {
        let given = keys.iter().filter_map(|key| Some((key.clone(), element.get(key)?.clone())));
        given.collect::<Map<String, Value>>().into()
    };
    for index in duplicates(elements.iter().map(key)) {
        errors.push(Error::duplicate(&path.index(index), key(&elements[index])));
    }
}

/// The index of the second of each group of equal values.
fn duplicates(values: impl Iterator<Item = Value>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(index);
        }
    }
    found
}
