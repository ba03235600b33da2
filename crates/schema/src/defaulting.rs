//! Defaulting of custom resources, and the removal of nulls that no schema allows
//! (`apiextensions-apiserver/pkg/apiserver/schema/defaulting/{algorithm,prunenulls}.go`).

use crate::Schema;
use serde_json::Value;

/// Fills in what is missing, and what is null although its schema does not allow null, from the defaults.
pub fn default(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(members) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let missing = match members.get(name) {
                    None => true,
                    Some(Value::Null) => !property.nullable,
                    Some(_) => false,
                };
                if missing {
                    members.insert(name.clone(), default.clone());
                }
            }
            for (name, member) in members.iter_mut() {
                if let Some(property) = schema.properties.get(name) {
                    default(member, property);
                } else if let Some(additional) = &schema.additional {
                    fill_null(member, additional);
                    default(member, additional);
                }
            }
        }
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return };
            for element in elements {
                fill_null(element, items);
                default(element, items);
            }
        }
        _ => {}
    }
}

fn fill_null(value: &mut Value, schema: &Schema) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

/// Removes members that are null, may not be null, and have no default. Nulls in lists stay.
pub(crate) fn prune_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(members) => members.retain(|name, member| {
            let schema = schema.and_then(|s| s.properties.get(name).or(s.additional.as_ref()));
            if member.is_null() && schema.is_some_and(|s| !s.nullable && s.default.is_none()) {
                return false;
            }
            prune_nulls(member, schema.map(AsRef::as_ref));
            true
        }),
        Value::Array(elements) => {
            let items = schema.and_then(|s| s.items.as_deref());
            for element in elements {
                prune_nulls(element, items);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;
    use serde_json::json;

    #[test]
    fn fills_nested_and_listed_defaults_but_nothing_into_what_is_absent() {
        let schema = crd::schema(&json!({"type": "object", "properties": {
            "maybe": {"type": "string", "nullable": true, "default": "x"},
            "color": {"type": "string", "default": "red"},
            "nested": {"type": "object", "default": {}, "properties": {
                "a": {"type": "integer", "default": 1},
                "b": {"type": "object", "default": {"c": 2}, "properties": {
                    "c": {"type": "integer"}, "d": {"type": "string", "default": "dee"}}}}},
            "absent": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}},
            "items": {"type": "array", "items": {"type": "object", "properties": {
                "v": {"type": "string", "default": "vee"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
            "plain": {"type": "string"},
        }}));
        let mut value = json!({
            "maybe": null, "color": null, "plain": null, "nested": {"b": {}},
            "items": [{"v": null}, {"v": "w"}], "map": {"a": null, "b": 1},
        });
        default(&mut value, &schema);
        prune_nulls(&mut value, Some(&schema));
        assert_eq!(
            value,
            json!({
                "maybe": null, "color": "red", "nested": {"a": 1, "b": {"d": "dee"}},
                "items": [{"v": "vee"}, {"v": "w"}], "map": {"a": 7, "b": 1},
            })
        );
    }
}
