//! Small languages inside of objects: rules, paths, quantities, times, patterns.

use crate::kinds::THING;
use crate::refusal::check_refusal;
use fleetpass_apimachinery::json::{self, Numbers};
use fleetpass_apimachinery::validation::names;
use fleetpass_schema::cel::{self as rules, Rules};
use fleetpass_schema::jsonpath::{self, JsonPath};
use fleetpass_schema::{
    Effort, Pattern, Schema, Type, ValidationRule, ValueValidation, formats, go, quantity, time,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a rule may cost at worst; the server refuses more.
const RULE_LIMIT: u64 = 10_000_000;

/// Separated by zero bytes: a rule on `spec` of a thing, its message expression, and the new and old `spec` as JSON.
pub fn cel(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    let rule = ValidationRule { rule: next().into(), message_expression: next().into(), ..rule() };
    let values = [next(), next()].map(|text| json::parse(text.as_bytes()).ok()?.to_value(Numbers::Go).ok());
    let mut spec: Schema = (*THING.properties["spec"]).clone();
    spec.validation = Some(Box::new(ValueValidation { rules: vec![rule], ..ValueValidation::default() }));
    let reports = rules::RuleChecker::default().check(&spec, false);
    let [report] = reports.as_slice() else { panic!("one rule, {} reports", reports.len()) };
    for error in [&report.error, &report.message_error].into_iter().flatten() {
        check_refusal(error, 50 * text.len());
    }
    let cost = report.cost.saturating_add(report.message_cost.unwrap_or(0));
    if report.error.is_some() || report.message_error.is_some() || cost > RULE_LIMIT {
        return;
    }
    let Some(rules) = Rules::new(&Arc::new(spec), false) else { return };
    let [new, old] = values;
    let sample = json!({"count": 2, "ratio": 1.5, "on": true, "port": "http", "mode": "a", "code": "x", "words": ["b", "a"],
        "atoms": [3, 1], "pairs": [{"k": "x", "n": 1, "l": ["y"]}], "map": {"a": "b"}, "whole": {"c": 1},
        "deep": {"x": {"y": 1}}});
    let new = new.unwrap_or(sample);
    let errors = rules.validate(&new, None);
    assert_eq!(errors, rules.validate(&new, None));
    rules.validate(&new, old.as_ref());
}

fn rule() -> ValidationRule {
    ValidationRule {
        rule: String::new(),
        message: String::new(),
        message_expression: String::new(),
        reason: None,
        field_path: String::new(),
        optional_old_self: None,
    }
}

/// A line that is taken for everything that is read from a string; what follows it is matched against it as a pattern.
pub fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, subject) = text.split_once('\n').unwrap_or((text, "a-1"));
    path(text);
    if let Ok(canonical) = quantity::canonical(text) {
        assert_eq!(quantity::canonical(&canonical).as_ref(), Ok(&canonical), "{text}");
        assert_eq!(quantity::nanos(text), quantity::nanos(&canonical), "{text}");
    }
    for canonical_form in [time::canonical_time, time::canonical_micro_time] {
        match canonical_form(text) {
            Ok(Some(canonical)) => {
                assert_eq!(canonical_form(&canonical), Ok(Some(canonical.clone())), "{text}")
            }
            Ok(None) => {}
            Err(error) => check_refusal(&go::Words(&error).to_string(), text.len()),
        }
    }
    match go::decode_base64(text) {
        Ok(bytes) => assert!(bytes.len() <= text.len()),
        Err(error) => check_refusal(&go::Words(&error).to_string(), text.len()),
    }
    let pattern = Pattern::new(text);
    if pattern.error().is_none() {
        let matches = || pattern.is_match(subject, &mut Effort::new(10_000_000));
        assert_eq!(matches(), matches());
    }
    for format in FORMATS {
        if formats::applies(format, Some(Type::String)) {
            formats::is_valid(format, text);
        }
    }
    for rule in [
        names::is_dns1123_subdomain,
        names::is_dns1123_label,
        names::is_dns1035_label,
        names::is_path_segment,
    ] {
        // A name that is good is good as the beginning of one.
        assert!(!rule(text, false).is_empty() || rule(text, true).is_empty(), "{text}");
    }
    for errors in
        [names::is_qualified_name(text), names::is_label_value(text), names::is_config_map_key(text)]
    {
        errors.iter().for_each(|error| check_refusal(error, text.len()));
    }
}

const FORMATS: [&str; 25] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "date-time",
];

fn path(text: &str) {
    let path = match JsonPath::parse(text) {
        Ok(path) => path,
        Err(error) => return check_refusal(&error.to_string(), text.len()),
    };
    let object = json!({"metadata": {"name": "a", "labels": {"a.b/c": "d"}}, "spec": {"list": [{"type": "x", "n": 1},
        {"type": "y", "n": 2.5, "deep": {"type": [1, 2, [3]]}}], "a": {"a": {"a": null}}}, "status": {"ok": true}});
    let mut effort = Effort::new(100_000);
    if let Some(found) = path.first(&object, &mut effort) {
        drop(jsonpath::print(found));
    }
    // Of nothing there is nothing but itself.
    assert!(path.first(&Value::Null, &mut effort).is_none_or(Value::is_null));
}
