//! Validation of a custom object's values against its schema, with the messages and the order of
//! `kube-openapi/pkg/validation/validate` as `apiextensions-apiserver/pkg/apiserver/validation` reports them,
//! and the tolerance for old mistakes (`ratcheting.go`): on update, what was already wrong and did not change
//! is no error.

use crate::correlation::OldElements;
use crate::formats;
use crate::go;
use crate::go::number::{GoNumber, is_whole, print_float};
use crate::location::Location;
use crate::model::ValueValidation;
use crate::{Effort, Schema, Type};
use fleetpass_apimachinery::field::{Error, ErrorList, ErrorType, Path};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// How many steps the validation of one request may take: about a second of one core. A step is a value that is looked at by a
/// schema, an entry of an enum that it is compared with, or an instruction of a pattern for a character. Their number is the
/// product of what a definition says and what an object holds, both of which clients choose.
pub const STEPS: u64 = 100_000_000;

/// The errors of a new value. `prefix` is where the value lies; messages name the fields below it.
pub fn validate(prefix: &Path, schema: &Schema, value: &Value) -> ErrorList {
    validate_within(prefix, schema, value, &mut Effort::new(STEPS))
}

/// As [`validate`], for one of several values that come with one request and share the `effort`.
pub fn validate_within(prefix: &Path, schema: &Schema, value: &Value, effort: &mut Effort) -> ErrorList {
    let mut run = Run { prefix, effort, exhausted: false, shown: Cell::new(0) };
    let report = run.node(schema, value, &Location::ROOT, None);
    run.finish(report)
}

/// The errors of a changed value; what is wrong in parts that did not change is tolerated.
pub fn validate_update(prefix: &Path, schema: &Schema, new: &Value, old: &Value) -> ErrorList {
    let mut run = Run { prefix, effort: &mut Effort::new(STEPS), exhausted: false, shown: Cell::new(0) };
    let report = run.correlated(schema, new, &Location::ROOT, Some(old));
    run.finish(report)
}

/// Errors so far, and how many checks held: of several alternatives that fail, the one with the most is reported.
#[derive(Default)]
struct Report {
    /// No two are equal. All of them, as far as they may be made ([`Run`] bounds that), because a report of one alternative may
    /// be thrown away.
    errors: Vec<Error>,
    matches: usize,
    /// Where the errors are in `errors`, once there are many.
    index: Option<Box<ErrorIndex>>,
}

/// From so many errors on an equal one is looked up in an index. A list can have as many wrong elements as fit into a
/// request, and comparing each with each would keep a processor busy for minutes.
const MANY_ERRORS: usize = 32;

/// The places of errors by a hash of their field and detail.
#[derive(Default)]
struct ErrorIndex {
    hasher: RandomState,
    places: HashMap<u64, Vec<usize>>,
}

impl ErrorIndex {
    fn places_of(&mut self, error: &Error) -> &mut Vec<usize> {
        let hash = self.hasher.hash_one((error.field.as_str(), error.detail.as_str()));
        self.places.entry(hash).or_default()
    }
}

impl Report {
    fn add(&mut self, error: Error) {
        if self.errors.len() < MANY_ERRORS {
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
            return;
        }
        let index = self.index.get_or_insert_with(|| {
            let mut index = Box::<ErrorIndex>::default();
            for (place, error) in self.errors.iter().enumerate() {
                index.places_of(error).push(place);
            }
            index
        });
        let places = index.places_of(&error);
        // Equal hashes are a hint only; what counts is equality.
        if !places.iter().any(|place| self.errors[*place] == error) {
            places.push(self.errors.len());
            self.errors.push(error);
        }
    }
    fn merge(&mut self, other: Report) {
        self.matches += other.matches;
        if self.errors.is_empty() {
            // On the way up from a node that has errors to the root, they are moved and not looked at again.
            (self.errors, self.index) = (other.errors, other.index);
        } else {
            other.errors.into_iter().for_each(|e| self.add(e));
        }
    }
    fn with_error(error: Error) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
    fn held() -> Self {
        Self { matches: 1, ..Self::default() }
    }
    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

struct Run<'a> {
    prefix: &'a Path,
    effort: &'a mut Effort,
    /// The effort was not enough: what was not looked at counts as valid on the way, and the value as invalid in the end.
    exhausted: bool,
    /// How many bytes the paths of all errors take.
    shown: Cell<usize>,
}

/// So many bytes of paths are written for errors; then the rest of a value is not looked at any more.
const MOST_SHOWN: usize = 4 << 20;

impl Run<'_> {
    fn finish(self, report: Report) -> ErrorList {
        let mut errors = ErrorList::new();
        if self.exhausted {
            // Here, and not where it happened: an alternative that holds would hide it there. The first of all, because of many
            // errors the last ones are not told.
            let detail = format!(
                "validation takes more than {STEPS} steps; simplify the patterns, enums and alternatives of the schema, or \
                 make the value smaller"
            );
            errors.push(Error::invalid(self.prefix, "", detail));
        }
        errors.extend(report.errors);
        errors
    }

    /// Whether so many steps may be taken.
    fn spend(&mut self, steps: usize) -> bool {
        self.exhausted |= self.effort.spend(steps as u64).is_none() || self.shown.get() > MOST_SHOWN;
        !self.exhausted
    }

    /// The path of a field error. What all of them take together is bounded: each may be as long as the object.
    fn at(&self, path: &Location<'_>) -> Path {
        let text = path.to_string();
        self.shown.set(self.shown.get() + text.len());
        let path = text.strip_prefix('.').unwrap_or(&text);
        if path.is_empty() { self.prefix.clone() } else { self.prefix.child(path) }
    }

    /// A node whose old value is known: its errors do not count if nothing changed.
    fn correlated(
        &mut self,
        schema: &Schema,
        value: &Value,
        path: &Location<'_>,
        old: Option<&Value>,
    ) -> Report {
        let mut report = self.node(schema, value, path, old);
        // Comparing costs as much as the value is large, so only what has errors is compared.
        if !report.is_valid() && old == Some(value) {
            (report.errors, report.index) = (Vec::new(), None);
        }
        report
    }

    fn node(&mut self, schema: &Schema, value: &Value, path: &Location<'_>, old: Option<&Value>) -> Report {
        let mut report = Report::default();
        if !self.spend(1) {
            return report;
        }
        let empty = ValueValidation::default();
        let rules = schema.validation.as_deref().unwrap_or(&empty);
        // Of null only its type and the enum are judged: it has neither length nor members.
        if value.is_null() {
            report.merge(self.type_of(schema, value, path));
            report.merge(self.enumeration(rules, value, path));
            return report;
        }
        let typed = !types(schema).is_empty() || schema.format.is_some();
        let mut step = |part: Report| {
            report.merge(part);
            report.matches += 1;
        };
        if typed {
            step(self.type_of(schema, value, path));
        }
        step(self.junctors(rules, value, path, old));
        match value {
            Value::String(text) => {
                step(self.string(rules, text, path));
                if let Some(format) = schema.format.as_deref().filter(|f| formats::is_string_format(f)) {
                    step(self.format(format, text, path));
                }
                step(self.enumeration(rules, value, path));
            }
            Value::Number(number) => {
                step(self.number(schema, rules, GoNumber::new(number), path));
                step(self.enumeration(rules, value, path));
            }
            Value::Array(elements) => {
                step(self.list(schema, rules, elements, path, old));
                step(self.enumeration(rules, value, path));
            }
            Value::Object(members) => {
                step(self.enumeration(rules, value, path));
                step(self.object(schema, rules, members, path, old));
            }
            Value::Bool(_) | Value::Null => step(self.enumeration(rules, value, path)),
        }
        report.matches += 1;
        report
    }

    fn type_of(&self, schema: &Schema, value: &Value, path: &Location<'_>) -> Report {
        let expected = types(schema);
        let has = |name: &str| expected.contains(&name);
        let wrong = |expected: &str, found: &str| {
            let detail = format!("{path} in body must be of type {expected}: \"{found}\"");
            Report::with_error(Error::type_invalid(&self.at(path), found, detail))
        };
        let right = Report::held;
        if value.is_null() {
            let refused = !expected.is_empty() && !schema.nullable;
            return if refused { wrong(&expected.join(","), "null") } else { right() };
        }
        let (found, found_format, float) = found(value);
        // JSON does not tell 1 from 1.0, Go's decoder does: both are whole numbers.
        let whole_float = float.is_some_and(is_whole) && has("integer");
        let integer_for_number = found == "integer" && has("number");
        let fits = has(found) || whole_float || integer_for_number;
        // Text with a format passes here whatever its type should be, lists too: the check of formats follows
        // (`kube-openapi/pkg/validation/validate/type.go`).
        let textual = value.is_string() || value.is_array();
        if let Some(format) = &schema.format {
            if !textual && !fits && found_format != format {
                return wrong(format, found_format);
            }
            if textual && !has("number") && !has("integer") {
                return right();
            }
        }
        if fits { right() } else { wrong(&expected.join(","), found) }
    }

    fn enumeration(&mut self, rules: &ValueValidation, value: &Value, path: &Location<'_>) -> Report {
        let mut report = Report::default();
        if !self.spend(rules.enumeration.len()) {
            return report;
        }
        // Go's comparison by reflection finds no null, even where the enum lists it.
        let listed = !value.is_null() && rules.enumeration.iter().any(|allowed| same(allowed, value));
        if rules.enumeration.is_empty() || listed {
            return report;
        }
        let words: Vec<String> = rules
            .enumeration
            .iter()
            .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_string))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        report.add(Error::not_supported(&self.at(path), shown(value), &words));
        report
    }

    /// An error without a field of its own.
    fn about_schema(&self, path: &Location<'_>, what: &str) -> Error {
        Error::invalid(
            self.prefix,
            "",
            format!("{} {what}", fleetpass_apimachinery::field::go_quote(&path.to_string())),
        )
    }

    fn junctors(
        &mut self,
        rules: &ValueValidation,
        value: &Value,
        path: &Location<'_>,
        old: Option<&Value>,
    ) -> Report {
        let mut report = Report::default();
        if !rules.any_of.is_empty() {
            report.merge(self.any_of(rules, value, path, old));
        }
        if !rules.one_of.is_empty() {
            report.merge(self.one_of(rules, value, path, old));
        }
        if !rules.all_of.is_empty() {
            let mut valid = 0;
            for schema in &rules.all_of {
                let result = self.node(schema, value, path, old);
                valid += usize::from(result.is_valid());
                report.merge(result);
            }
            // The errors of the parts are reported, too, before this one.
            if valid != rules.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                report.add(self.about_schema(path, &format!("must validate all the schemas (allOf){none}")));
            }
        }
        if let Some(not) = &rules.not
            && self.node(not, value, path, old).is_valid()
        {
            report.add(self.about_schema(path, "must not validate the schema (not)"));
        }
        report.matches += 1;
        report
    }

    fn any_of(
        &mut self,
        rules: &ValueValidation,
        value: &Value,
        path: &Location<'_>,
        old: Option<&Value>,
    ) -> Report {
        let mut report = Report::default();
        let mut best: Option<Report> = None;
        for schema in &rules.any_of {
            let result = self.node(schema, value, path, old);
            if result.is_valid() {
                // The others need not be tried, and what they would complain about is not reported.
                return result;
            }
            if best.as_ref().is_none_or(|b| result.matches > b.matches) {
                best = Some(result);
            }
        }
        report.add(self.about_schema(path, "must validate at least one schema (anyOf)"));
        report.merge(best.unwrap_or_default());
        report
    }

    fn one_of(
        &mut self,
        rules: &ValueValidation,
        value: &Value,
        path: &Location<'_>,
        old: Option<&Value>,
    ) -> Report {
        let mut report = Report::default();
        let (mut best, mut first): (Option<Report>, Option<Report>) = (None, None);
        let mut valid = 0;
        for schema in &rules.one_of {
            let result = self.node(schema, value, path, old);
            if result.is_valid() {
                valid += 1;
                best = None;
                first.get_or_insert(result);
                // Once an alternative fits, the errors of those that do not are of no interest.
            } else if valid == 0 && best.as_ref().is_none_or(|b| result.matches > b.matches) {
                best = Some(result);
            }
        }
        if valid == 1 {
            return first.unwrap_or_default();
        }
        let found =
            if valid == 0 { "Found none valid".into() } else { format!("Found {valid} valid alternatives") };
        report
            .add(self.about_schema(path, &format!("must validate one and only one schema (oneOf). {found}")));
        report.merge(best.unwrap_or_default());
        report
    }

    fn string(&mut self, rules: &ValueValidation, text: &str, path: &Location<'_>) -> Report {
        // Only the first that does not hold is reported.
        let mut report = Report::default();
        let length = text.chars().count() as i64;
        if let Some(most) = rules.max_length.filter(|most| length > *most) {
            report.add(Error::too_long(&self.at(path), usize::try_from(most).unwrap_or_default()));
        } else if let Some(fewest) = rules.min_length.filter(|fewest| length < *fewest) {
            let detail = format!("{path} in body should be at least {fewest} chars long");
            report.add(Error::invalid(&self.at(path), text, detail));
        } else if let Some(pattern) = &rules.pattern {
            match pattern.is_match(text, self.effort) {
                Some(true) => {}
                Some(false) => {
                    let why = pattern.error();
                    let broken = why.map(|e| format!(", but pattern is invalid: {}", go::Words(&e)));
                    let source = pattern.source();
                    let detail =
                        format!("{path} in body should match '{source}{}'", broken.unwrap_or_default());
                    report.add(Error::invalid(&self.at(path), text, detail));
                }
                None => self.exhausted = true,
            }
        }
        report
    }

    fn format(&self, format: &str, text: &str, path: &Location<'_>) -> Report {
        let mut report = Report::default();
        if !formats::is_valid(format, text) {
            let detail = format!(
                "{path} in body must be of type {format}: {}",
                fleetpass_apimachinery::field::go_quote(text)
            );
            report.add(Error::type_invalid(&self.at(path), text, detail));
        }
        report
    }

    fn number(
        &self,
        schema: &Schema,
        rules: &ValueValidation,
        number: GoNumber,
        path: &Location<'_>,
    ) -> Report {
        let mut report = Report::held();
        let kind = if schema.int_or_string { None } else { schema.kind };
        if !in_range(number, kind, schema.format.as_deref()) {
            let message = match (kind, schema.format.as_deref()) {
                (Some(Type::Number), format) => {
                    format!(
                        "Checked value must be of type number with format {} in {path}",
                        format.unwrap_or("")
                    )
                }
                (_, Some(format)) => {
                    format!("Checked value must be of type integer with format {format} in {path}")
                }
                (_, None) => format!("Checked value must be of type integer (default format) in {path}"),
            };
            report.add(Error::invalid(self.prefix, "", message));
        }
        let complain = |what: String| {
            Error::invalid(&self.at(path), number.to_value(), format!("{path} in body should be {what}"))
        };
        if let Some(factor) = rules.multiple_of {
            match multiple(number, factor) {
                Some(true) => {}
                Some(false) => report.add(complain(format!("a multiple of {}", bound(number, factor)))),
                None => {
                    let detail = format!(
                        "factor MultipleOf declared for {path} must be positive: {}",
                        bound(number, factor)
                    );
                    report.add(Error::invalid(&self.at(path), number.like(factor).to_value(), detail));
                }
            }
        }
        if let Some(minimum) = rules.minimum {
            let (less, equal) = compare(number, minimum);
            if less || (equal && rules.exclusive_minimum) {
                let than = if rules.exclusive_minimum { "greater than" } else { "greater than or equal to" };
                report.add(complain(format!("{than} {}", bound(number, minimum))));
            }
        }
        if let Some(maximum) = rules.maximum {
            let (less, equal) = compare(number, maximum);
            if !(less || equal) || (equal && rules.exclusive_maximum) {
                let than = if rules.exclusive_maximum { "less than" } else { "less than or equal to" };
                report.add(complain(format!("{than} {}", bound(number, maximum))));
            }
        }
        report
    }

    fn list(
        &mut self,
        schema: &Schema,
        rules: &ValueValidation,
        elements: &[Value],
        path: &Location<'_>,
        old: Option<&Value>,
    ) -> Report {
        let mut report = Report::default();
        if let Some(items) = &schema.items {
            let old = OldElements::new(schema, old);
            for (index, element) in elements.iter().enumerate() {
                let old = old.as_ref().and_then(|old| old.get(element));
                report.merge(self.correlated(items, element, &path.index(index), old));
            }
        }
        let count = elements.len() as i64;
        if let Some(fewest) = rules.min_items.filter(|fewest| count < *fewest) {
            let detail = format!("{path} in body should have at least {fewest} items");
            report.add(Error::invalid(&self.at(path), count, detail));
        }
        if let Some(most) = rules.max_items.filter(|most| count > *most) {
            report.add(Error::too_many(
                &self.at(path),
                elements.len(),
                usize::try_from(most).unwrap_or_default(),
            ));
        }
        // Quadratic, but unreachable from outside: definitions with `uniqueItems` are refused for that reason.
        if rules.unique_items && elements.iter().enumerate().any(|(i, e)| elements[..i].contains(e)) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            report.add(Error::invalid(&self.at(path), "", detail));
        }
        report.matches += 1;
        report
    }

    fn object(
        &mut self,
        schema: &Schema,
        rules: &ValueValidation,
        members: &Map<String, Value>,
        path: &Location<'_>,
        old: Option<&Value>,
    ) -> Report {
        let mut report = Report::default();
        let count = members.len() as i64;
        if let Some(fewest) = rules.min_properties.filter(|fewest| count < *fewest) {
            let detail = format!("{path} in body should have at least {fewest} properties");
            report.add(Error::invalid(&self.at(path), count, detail));
        }
        if let Some(most) = rules.max_properties.filter(|most| count > *most) {
            report.add(Error::too_many(
                &self.at(path),
                members.len(),
                usize::try_from(most).unwrap_or_default(),
            ));
        }
        // The order of the three loops is the order in which kube-apiserver reports.
        for (name, member) in members {
            if schema.properties.contains_key(name) {
                continue;
            }
            if rules.forbid_additional {
                let detail = format!("{path}.{name} in body is a forbidden property");
                report.add(Error::invalid(&self.at(path), name.as_str(), detail));
            } else if let Some(additional) = &schema.additional {
                let old = old.and_then(|o| o.get(name));
                report.merge(self.correlated(additional, member, &path.key(name), old));
            }
        }
        for (name, property) in &schema.properties {
            let Some(member) = members.get(name) else { continue };
            // Old and new apiVersion and kind were converted to be the same: they tell nothing.
            let type_meta = path.is_root() && matches!(name.as_str(), "apiVersion" | "kind");
            let old = old.filter(|_| !type_meta).and_then(|o| o.get(name));
            report.merge(self.correlated(property, member, &path.field(name), old));
        }
        for name in &schema.required {
            if !members.contains_key(name) {
                report.add(Error::required(&self.at(&path.key(name)), ""));
            }
        }
        report
    }
}

fn types(schema: &Schema) -> Vec<&'static str> {
    if schema.int_or_string {
        return vec!["integer", "string"];
    }
    match schema.kind {
        None => Vec::new(),
        Some(kind) => vec![kind.name()],
    }
}

/// The type and format of a value, and its number if it is a float.
fn found(value: &Value) -> (&'static str, &'static str, Option<f64>) {
    match value {
        Value::Null => ("null", "", None),
        Value::Bool(_) => ("boolean", "", None),
        Value::String(_) => ("string", "", None),
        Value::Array(_) => ("array", "", None),
        Value::Object(_) => ("object", "", None),
        Value::Number(number) => match GoNumber::new(number) {
            GoNumber::Int(_) => ("integer", "int64", None),
            GoNumber::Float(float) => ("number", "float64", Some(float)),
        },
    }
}

/// A value as an error shows it: floats as Go writes them.
fn shown(value: &Value) -> Value {
    match value {
        Value::Number(number) => GoNumber::new(number).to_value(),
        other => other.clone(),
    }
}

/// Equality of numbers is by value, whether written `1` or `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => GoNumber::new(a).as_f64() == GoNumber::new(b).as_f64(),
        _ => a == b,
    }
}

/// Whether a number fits its type and format.
fn in_range(number: GoNumber, kind: Option<Type>, format: Option<&str>) -> bool {
    match (kind, format) {
        (Some(Type::Integer), format) => match number {
            GoNumber::Int(int) => format != Some("int32") || i32::try_from(int).is_ok(),
            // Go prints the float and parses that as an integer: exponents and fractions do not parse.
            GoNumber::Float(float) => {
                let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
                let narrow = format != Some("int32") || i32::try_from(float as i64).is_ok();
                float.fract() == 0.0 && fits && narrow
            }
        },
        (Some(Type::Number), Some("float")) => number.as_f64().abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

/// `less`, `equal`: integers are compared as integers, cutting the bound, as Go does.
fn compare(number: GoNumber, bound: f64) -> (bool, bool) {
    match number {
        GoNumber::Int(int) => (int < bound as i64, int == bound as i64),
        GoNumber::Float(float) => (float < bound, float == bound),
    }
}

fn bound(number: GoNumber, bound: f64) -> String {
    match number {
        GoNumber::Int(_) => (bound as i64).to_string(),
        GoNumber::Float(_) => print_float(bound),
    }
}

/// Whether a number is a multiple; `None` if the factor is not positive.
fn multiple(number: GoNumber, factor: f64) -> Option<bool> {
    match number {
        GoNumber::Int(int) => {
            let factor = factor as i64;
            (factor > 0).then(|| int % factor == 0)
        }
        GoNumber::Float(float) => {
            // `validate/values.go` multiplies by the inverse of a small factor, which rounds differently.
            let times = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
            (factor > 0.0).then(|| is_whole(times))
        }
    }
}

/// Errors after which rules (`x-kubernetes-validations`) are not evaluated: types, enums, required fields, sizes.
pub fn blocks_rules(errors: &ErrorList) -> bool {
    use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    errors.has(&[NotSupported, Required, TooLong, TooMany, TypeInvalid])
}

#[cfg(test)]
mod tests;
