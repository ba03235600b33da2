//! The words in messages that are about values and types. kube-apiserver prints them with Go's `fmt`, so its clients
//! read `map[a:1]` and `[]interface {}`; whoever serves others can choose other words.

use fleetpass_apimachinery::field::go_quote;
use serde_json::{Number, Value};
use std::fmt::Write;

/// The type that a value should have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// An object.
    Map,
    /// A list.
    List,
    /// A number.
    Number,
    /// A string.
    String,
    /// `true` or `false`.
    Boolean,
    /// Anything but an object or a list.
    Scalar,
}

/// What a strategic merge patch expected to find or to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// An object.
    Map,
    /// A list.
    List,
}

/// The part of a patch's document that has the wrong type, and so what it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchPart {
    /// The whole document: an object.
    Object,
    /// The whole document: a list of operations.
    Operations,
    /// An element of that list: an object.
    Operation,
    /// This member (`op`, `path`, `from`) of an operation: a string.
    OperationMember(String),
}

/// Where the converter that follows a strategic merge patch could not put a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A map.
    Map,
    /// A struct.
    Struct,
    /// A list.
    Slice,
    /// A value of this type, to which some values of the same family can be converted.
    Convertible(String),
    /// A value of this basic type, to which nothing of another family can be converted.
    Basic(String),
}

/// How values and types are spoken of. What surrounds them in a message is the error's own
/// ([`Error::message`](crate::Error::message)).
pub trait Words {
    /// The value, in running text.
    fn value(&self, value: &Value) -> String;

    /// The value of a directive of a strategic merge patch, which should have been a known text.
    fn directive(&self, value: &Value) -> String;

    /// A document, or a part of one, is not what a patch is made of. `validated`: whether it was found while unknown and
    /// repeated fields were looked for too.
    fn not_a_patch(&self, found: &Value, part: &PatchPart, validated: bool) -> String;

    /// A value does not have the type that its schema wants.
    fn unexpected(&self, found: &Value, expected: Expected) -> String;

    /// A strategic merge patch has a list or map where the object, or the directive, has something else.
    fn wrong_container(&self, found: &Value, expected: Container) -> String;

    /// A value does not go where its Go type would have it.
    fn inconvertible(&self, found: &Value, destination: &Destination) -> String;
}

/// The words of kube-apiserver.
#[derive(Debug, Clone, Copy, Default)]
pub struct GoWords;

impl Words for GoWords {
    fn value(&self, value: &Value) -> String {
        plain(value)
    }

    fn directive(&self, value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            // What `%s` makes of a value that is no string.
            other => format!("%!s({}={})", type_name(other), plain(other)),
        }
    }

    fn not_a_patch(&self, found: &Value, part: &PatchPart, validated: bool) -> String {
        // Two decoders read a JSON patch, the handler's if it is validated, and each names its own types.
        let target = match (part, validated) {
            (PatchPart::Object, _) => "Go value of type map[string]interface {}".to_string(),
            (PatchPart::Operations, true) => "Go value of type []handlers.jsonPatchOp".to_string(),
            (PatchPart::Operations, false) => "Go value of type jsonpatch.Patch".to_string(),
            (PatchPart::Operation, true) => "Go value of type handlers.jsonPatchOp".to_string(),
            (PatchPart::Operation, false) => "Go value of type jsonpatch.Operation".to_string(),
            (PatchPart::OperationMember(name), _) => {
                format!("Go struct field jsonPatchOp.{name} of type string")
            }
        };
        format!("json: cannot unmarshal {} into {target}", json_kind(found))
    }

    fn unexpected(&self, found: &Value, expected: Expected) -> String {
        // structured-merge-diff prints its wrapper of the value: `&{…}` is a pointer to a struct.
        match expected {
            Expected::Map => format!("expected map, got &{{{}}}", plain(found)),
            Expected::List => format!("expected list, got &{{{}}}", plain(found)),
            Expected::Number => format!("expected numeric (int or float), got {}", type_name(found)),
            Expected::String => {
                format!("expected string, got &value.valueUnstructured{{Value:{}}}", syntax(found))
            }
            Expected::Boolean => format!("expected boolean, got &{{{}}}", plain(found)),
            Expected::Scalar => format!("expected any scalar, got &{{{}}}", plain(found)),
        }
    }

    fn wrong_container(&self, found: &Value, expected: Container) -> String {
        let expected = match expected {
            Container::Map => "map[string]interface {}",
            Container::List => "[]interface {}",
        };
        // `%s` of the type of nil, which is nil.
        let found = if found.is_null() { "%!s(<nil>)" } else { type_name(found) };
        format!("expected a {expected}, but received a {found}")
    }

    fn inconvertible(&self, found: &Value, destination: &Destination) -> String {
        let kind = match found {
            Value::Object(_) => "map",
            Value::Array(_) => "slice",
            other => type_name(other),
        };
        match destination {
            Destination::Map => format!("cannot restore map from {kind}"),
            Destination::Struct => format!("cannot restore struct from: {kind}"),
            Destination::Slice => format!("cannot restore slice from {kind}"),
            Destination::Convertible(name) => format!("cannot convert {} to {name}", type_name(found)),
            Destination::Basic(name) => format!("unrecognized type: {name}"),
        }
    }
}

/// `value` as `%v` prints the decoded `interface{}`: `map[a:1 b:[x y]]`, `<nil>`, bare strings.
fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_plain(&mut out, value);
    out
}

/// `value` as `%#v` prints the decoded `interface{}`: `map[string]interface {}{"a":1}`, quoted strings.
fn syntax(value: &Value) -> String {
    let mut out = String::new();
    write_syntax(&mut out, value);
    out
}

/// The Go type that a JSON value is decoded to where nothing says otherwise (`%T`).
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The word that `encoding/json` uses for the kind of a JSON value when it does not fit a Go type.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A number as `%v` prints an `int64` or a `float64` (shortest form, exponent outside 1e-4..1e21).
pub(crate) fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_text(float),
        _ => number.to_string(),
    }
}

fn float_text(float: f64) -> String {
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        // Rust prints `1e21`, Go `1e+21`; Go's exponent has at least two digits.
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        format!("{mantissa}e{sign}{digits:0>2}")
    } else {
        float.to_string()
    }
}

fn write_plain(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(s) => out.push_str(s),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write_plain(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                let _ = write!(out, "{key}:");
                write_plain(out, item);
            }
            out.push(']');
        }
    }
}

fn write_syntax(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("interface {}(nil)"),
        Value::String(s) => out.push_str(&go_quote(s)),
        Value::Array(items) => {
            out.push_str("[]interface {}{");
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_syntax(out, item);
            }
            out.push('}');
        }
        Value::Object(map) => {
            out.push_str("map[string]interface {}{");
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                let _ = write!(out, "{}:", go_quote(key));
                write_syntax(out, item);
            }
            out.push('}');
        }
        scalar => write_plain(out, scalar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_print_as_in_go() {
        let value = json!({"b": [1, "x", null, true], "a": {"c": 1.5}});
        assert_eq!(plain(&value), "map[a:map[c:1.5] b:[1 x <nil> true]]");
        assert_eq!(
            syntax(&value),
            "map[string]interface {}{\"a\":map[string]interface {}{\"c\":1.5}, \
             \"b\":[]interface {}{1, \"x\", interface {}(nil), true}}"
        );
        for (float, text) in
            [(1e21, "1e+21"), (1e20, "100000000000000000000"), (2.5e-7, "2.5e-07"), (5.0, "5")]
        {
            assert_eq!(plain(&json!(float)), text);
        }
    }
}
