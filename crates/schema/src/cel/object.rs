//! How a custom object becomes a value (`k8s.io/apiserver/pkg/cel/common/values.go`): dates are timestamps, names are
//! escaped, lists know their keys.

use super::value::{Key, List, Val, escape, parse_duration};
use crate::go::number::GoNumber;
use crate::{Schema, Type};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A part of a custom object as expressions see it. With `root` it is a whole resource.
pub(super) fn from_json(json: &Json, schema: Option<&Schema>, root: bool) -> Val {
    let Some(schema) = schema else { return untyped(json) };
    if schema.int_or_string {
        return untyped(json);
    }
    match (json, schema.kind) {
        (Json::Null, _) => Val::Null,
        (Json::Object(members), _) => {
            let mut out = BTreeMap::new();
            let resource = root || schema.embedded_resource;
            for (name, member) in members {
                let meta = resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                if meta {
                    out.insert(Key::String(name.as_str().into()), metadata(name, member));
                } else if let Some(property) = schema.properties.get(name) {
                    if let Some(name) = escape(name) {
                        let value = from_json(member, Some(property), property.embedded_resource);
                        out.insert(Key::String(name.as_str().into()), value);
                    }
                } else if let Some(additional) = &schema.additional {
                    let value = from_json(member, Some(additional), additional.embedded_resource);
                    out.insert(Key::String(name.as_str().into()), value);
                }
            }
            Val::Map(Rc::new(out))
        }
        (Json::Array(elements), _) => {
            let items = schema.items.as_deref();
            let items =
                elements.iter().map(|e| from_json(e, items, items.is_some_and(|i| i.embedded_resource)));
            Val::List(Rc::new(List { items: items.collect(), kind: schema.list_type.clone() }))
        }
        (Json::String(text), Some(Type::String)) => formatted(text, schema.format.as_deref()),
        (Json::Number(number), Some(Type::Number)) => Val::Double(GoNumber::new(number).as_f64()),
        (Json::Number(number), Some(Type::Integer)) => match GoNumber::new(number) {
            GoNumber::Int(int) => Val::Int(int),
            GoNumber::Float(float) if float.fract() == 0.0 && float.abs() < 9.2e18 => Val::Int(float as i64),
            GoNumber::Float(_) => Val::Error("integer expected".into()),
        },
        _ => untyped(json),
    }
}

/// Of metadata, expressions see the name and nothing else.
fn metadata(name: &str, member: &Json) -> Val {
    let Some(members) = member.as_object().filter(|_| name == "metadata") else { return untyped(member) };
    let seen = members.iter().filter(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    Val::Map(Rc::new(seen.map(|(k, v)| (Key::String(k.as_str().into()), untyped(v))).collect()))
}

fn formatted(text: &str, format: Option<&str>) -> Val {
    let broken = |what: &str| Val::Error(format!("Invalid {what} {text:?}").as_str().into());
    match format {
        Some("date") => {
            let date = text.parse::<jiff::civil::Date>().ok();
            let midnight = date.and_then(|d| d.to_zoned(jiff::tz::TimeZone::UTC).ok());
            midnight.map_or_else(|| broken("date"), |z| Val::Timestamp(z.timestamp()))
        }
        Some("date-time" | "datetime") => text.parse().map_or_else(|_| broken("date"), Val::Timestamp),
        Some("duration") => parse_duration(text).map_or_else(|| broken("duration"), Val::Duration),
        Some("byte") => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
            bytes.map_or_else(|| broken("base64"), |b| Val::Bytes(b.into()))
        }
        _ => Val::string(text),
    }
}

fn untyped(json: &Json) -> Val {
    match json {
        Json::Null => Val::Null,
        Json::Bool(b) => Val::Bool(*b),
        Json::Number(number) => match GoNumber::new(number) {
            GoNumber::Int(int) => Val::Int(int),
            GoNumber::Float(float) => Val::Double(float),
        },
        Json::String(text) => Val::string(text),
        Json::Array(elements) => Val::list(elements.iter().map(untyped).collect()),
        Json::Object(members) => Val::Map(Rc::new(
            members.iter().map(|(k, v)| (Key::String(k.as_str().into()), untyped(v))).collect(),
        )),
    }
}
