//! The types of a custom object's parts, with the bounds that costs depend on: `SchemaDeclType` and `estimateMaxElements…`
//! in `k8s.io/apiserver/pkg/cel/common/schemas.go`.

use super::types::{DeclType, Ty};
use super::value::escape;
use crate::{Schema, Type};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// The largest request, in bytes, which bounds what has no bound of its own.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// How often a value of that least serialized size can be in a request.
pub(super) fn max_cardinality(min_serialized_size: u64) -> u64 {
    MAX_REQUEST / (min_serialized_size + 1)
}

/// The types of the schemas below one root. What is below several nodes with rules is described once: a definition may have
/// rules at each of its levels.
#[derive(Default)]
pub(super) struct Decls {
    /// By the address of the schema, which is never followed: whoever asks holds the root, and so all that is below it.
    known: HashMap<*const Schema, Option<DeclType>>,
}

impl Decls {
    /// The type of the values of a schema; `None` where expressions cannot see them. With `root` they are whole resources.
    pub(super) fn of(&mut self, schema: &Schema, root: bool) -> Option<DeclType> {
        // The values of a root are seen otherwise than those of the same schema within another.
        if root {
            return self.describe(schema, true);
        }
        if let Some(known) = self.known.get(&std::ptr::from_ref(schema)) {
            return known.clone();
        }
        let decl = self.describe(schema, false);
        self.known.insert(std::ptr::from_ref(schema), decl.clone());
        decl
    }

    fn describe(&mut self, schema: &Schema, root: bool) -> Option<DeclType> {
        if schema.int_or_string {
            return Some(DeclType { max_elements: MAX_REQUEST - 2, min_serialized_size: 1, ty: Ty::Dyn });
        }
        let rules = schema.validation.as_deref();
        let bound = |given: Option<i64>| given.map(|n| u64::try_from(n).unwrap_or_default());
        match schema.kind? {
            Type::Boolean => Some(DeclType { min_serialized_size: 4, ..DeclType::of(Ty::Bool) }),
            Type::Integer => Some(DeclType::of(Ty::Int)),
            Type::Number => Some(DeclType::of(Ty::Double)),
            Type::String => Some(string_type(schema, bound(rules.and_then(|r| r.max_length)))),
            Type::Array => {
                let element = self.of(schema.items.as_deref()?, false)?;
                // Two brackets around all elements, a comma after each.
                let unbounded = (MAX_REQUEST - 2) / (element.min_serialized_size + 1);
                let max_elements = bound(rules.and_then(|r| r.max_items)).unwrap_or(unbounded);
                Some(DeclType { ty: Ty::List(Rc::new(element)), max_elements, min_serialized_size: 2 })
            }
            Type::Object => {
                if let Some(additional) = &schema.additional {
                    let value = self.of(additional, false)?;
                    // Of each member at least a key in quotes, a colon and a comma.
                    let unbounded = (MAX_REQUEST - 2) / (value.min_serialized_size + 6);
                    let max_elements = bound(rules.and_then(|r| r.max_properties)).unwrap_or(unbounded);
                    return Some(DeclType {
                        ty: Ty::Map(Rc::new(value)),
                        max_elements,
                        min_serialized_size: 2,
                    });
                }
                Some(self.object(schema, root || schema.embedded_resource))
            }
        }
    }

    fn object(&mut self, schema: &Schema, resource: bool) -> DeclType {
        let mut fields = BTreeMap::new();
        // Looked up for each property: a list would make that quadratic.
        let required: HashSet<&str> = schema.required.iter().map(String::as_str).collect();
        let mut min_serialized_size = 2;
        for (name, property) in &schema.properties {
            if let (Some(decl), Some(name)) = (self.of(property, false), escape(name)) {
                // Only what must be given makes an object longer at the least.
                if required.contains(name.as_str()) && property.default.is_none() {
                    min_serialized_size += name.len() as u64 + 4 + decl.min_serialized_size;
                }
                fields.insert(name, decl);
            }
        }
        if resource {
            let text = || DeclType { max_elements: MAX_REQUEST - 2, min_serialized_size: 2, ty: Ty::String };
            let names = ["name", "generateName"].map(|name| (name.to_string(), text()));
            let metadata = DeclType::of(Ty::Object(Rc::new(names.into_iter().collect())));
            fields.insert("apiVersion".into(), text());
            fields.insert("kind".into(), text());
            fields.insert("metadata".into(), metadata);
        }
        DeclType { ty: Ty::Object(Rc::new(fields)), max_elements: 1, min_serialized_size }
    }
}

fn string_type(schema: &Schema, max_elements: Option<u64>) -> DeclType {
    let fixed = |ty, max_elements| DeclType { ty, max_elements, min_serialized_size: 2 };
    match schema.format.as_deref() {
        Some("byte") => fixed(Ty::Bytes, max_elements.unwrap_or(MAX_REQUEST - 2)),
        Some("duration") => fixed(Ty::Duration, 1),
        Some("date" | "date-time" | "datetime") => fixed(Ty::Timestamp, 1),
        _ => {
            let listed = schema.validation.as_deref().filter(|v| !v.enumeration.is_empty());
            let longest =
                listed.and_then(|v| v.enumeration.iter().filter_map(|e| e.as_str().map(str::len)).max());
            // Lengths count characters, costs count bytes: up to four each.
            let max_elements = max_elements.map(|n| n.saturating_mul(4)).or(longest.map(|n| n as u64));
            fixed(Ty::String, max_elements.unwrap_or(MAX_REQUEST - 2))
        }
    }
}
