//! The functions and operators of expressions: CEL's own, and where a name is not among them, those that
//! Kubernetes adds ([`super::library`]). Errors are worded as cel-go words them.

use super::eval::{Outcome, select_optional};
use super::library;
use super::value::{Val, parse_duration};
use crate::go::number::print_float;
use crate::go::{Words, regexp};
use cel::common::ast::{Expr, IdedExpr, operators};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use std::cmp::Ordering;
use std::rc::Rc;

const TYPES: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "optional_type",
    "string",
    "type",
    "uint",
    "error",
];

pub(super) fn no_overload() -> Outcome {
    Err("no such overload".into())
}

/// The name of a type as a value.
pub(super) fn type_value(name: &str) -> Option<Val> {
    TYPES.iter().find(|t| **t == name).map(|t| Val::Type(t))
}

/// `optional.of`, `format.named`, …: a function whose name has a namespace; `None` where the target is a value.
pub(super) fn qualified(target: Option<&IdedExpr>, name: &str) -> Option<String> {
    let Expr::Ident(namespace) = &target?.expr else { return None };
    let full = format!("{namespace}.{name}");
    library::is_namespaced(&full).then_some(full)
}

/// What a call costs beyond the evaluation of its arguments.
pub(super) fn cost(name: &str, args: &[Val]) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Val::size);
    let tenth = |size: u64| size.div_ceil(10);
    match name {
        "matches" | "find" | "findAll" => 1 + tenth(size(0)) * size(1).div_ceil(4),
        "contains" | "replace" | "split" | "indexOf" | "lastIndexOf" => {
            1 + tenth(size(0)) * tenth(size(1)).max(1)
        }
        operators::EQUALS | operators::NOT_EQUALS => tenth(size(0).min(size(1))).max(1),
        operators::IN => size(1).max(1),
        operators::ADD => 1 + tenth(size(0) + size(1)),
        "isSorted" | "sum" | "min" | "max" | "sets.contains" | "sets.intersects" | "sets.equivalent" => {
            1 + size(0) * size(1).max(1)
        }
        _ => 1 + tenth(args.iter().map(Val::size).sum::<u64>()),
    }
}

/// Calls a function; of a `member` call the target is the first argument.
pub(super) fn call(name: &str, member: bool, args: &[Val]) -> Outcome {
    if let Some(value) = operator(name, args) {
        return value;
    }
    if let Some(value) = conversion(name, args) {
        return value;
    }
    if let Some(value) = text(name, args) {
        return value;
    }
    if let Some(value) = time(name, args) {
        return value;
    }
    library::call(name, member, args).unwrap_or_else(|| Err(format!("no such overload: {name}")))
}

fn compare(a: &Val, b: &Val, holds: fn(Ordering) -> bool) -> Outcome {
    match a.order(b) {
        Some(order) => Ok(Val::Bool(holds(order))),
        // Comparisons with NaN are false.
        None if matches!((a, b), (Val::Double(_), _) | (_, Val::Double(_))) => Ok(Val::Bool(false)),
        None => no_overload(),
    }
}

fn operator(name: &str, args: &[Val]) -> Option<Outcome> {
    let [a, rest @ ..] = args else { return None };
    let Some(b) = rest.first() else {
        return Some(match (name, a) {
            (operators::LOGICAL_NOT, Val::Bool(b)) => Ok(Val::Bool(!b)),
            (operators::NEGATE, Val::Int(i)) => checked(i.checked_neg().map(Val::Int)),
            (operators::NEGATE, Val::Double(d)) => Ok(Val::Double(-d)),
            (operators::LOGICAL_NOT | operators::NEGATE, _) => no_overload(),
            _ => return None,
        });
    };
    Some(match name {
        operators::EQUALS => Ok(Val::Bool(a.equals(b))),
        operators::NOT_EQUALS => Ok(Val::Bool(!a.equals(b))),
        operators::LESS => compare(a, b, Ordering::is_lt),
        operators::LESS_EQUALS => compare(a, b, Ordering::is_le),
        operators::GREATER => compare(a, b, Ordering::is_gt),
        operators::GREATER_EQUALS => compare(a, b, Ordering::is_ge),
        operators::IN => contains(a, b),
        operators::INDEX => index(a, b),
        operators::OPT_INDEX => Ok(match a {
            Val::Optional(None) => Val::Optional(None),
            Val::Optional(Some(inner)) => Val::Optional(index(inner, b).ok().map(Rc::new)),
            a => Val::Optional(index(a, b).ok().map(Rc::new)),
        }),
        operators::OPT_SELECT => match b {
            Val::Text(field) => Ok(select_optional(a, field)),
            _ => no_overload(),
        },
        operators::ADD
        | operators::SUBSTRACT
        | operators::MULTIPLY
        | operators::DIVIDE
        | operators::MODULO => arithmetic(name, a, b),
        _ => return None,
    })
}

fn checked(value: Option<Val>) -> Outcome {
    value.ok_or_else(|| "integer overflow".into())
}

fn arithmetic(name: &str, a: &Val, b: &Val) -> Outcome {
    let zero = || match name {
        operators::DIVIDE => Err("division by zero".into()),
        _ => Err("modulus by zero".into()),
    };
    match (name, a, b) {
        (operators::ADD, Val::Int(a), Val::Int(b)) => checked(a.checked_add(*b).map(Val::Int)),
        (operators::SUBSTRACT, Val::Int(a), Val::Int(b)) => checked(a.checked_sub(*b).map(Val::Int)),
        (operators::MULTIPLY, Val::Int(a), Val::Int(b)) => checked(a.checked_mul(*b).map(Val::Int)),
        (operators::DIVIDE | operators::MODULO, Val::Int(_), Val::Int(0))
        | (operators::DIVIDE | operators::MODULO, Val::Uint(_), Val::Uint(0)) => zero(),
        (operators::DIVIDE, Val::Int(a), Val::Int(b)) => checked(a.checked_div(*b).map(Val::Int)),
        (operators::MODULO, Val::Int(a), Val::Int(b)) => checked(a.checked_rem(*b).map(Val::Int)),
        (operators::ADD, Val::Uint(a), Val::Uint(b)) => checked(a.checked_add(*b).map(Val::Uint)),
        (operators::SUBSTRACT, Val::Uint(a), Val::Uint(b)) => checked(a.checked_sub(*b).map(Val::Uint)),
        (operators::MULTIPLY, Val::Uint(a), Val::Uint(b)) => checked(a.checked_mul(*b).map(Val::Uint)),
        (operators::DIVIDE, Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a / b)),
        (operators::MODULO, Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a % b)),
        (operators::ADD, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (operators::SUBSTRACT, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (operators::MULTIPLY, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        (operators::DIVIDE, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        (operators::ADD, Val::Text(a), Val::Text(b)) => Ok(Val::text(&format!("{a}{b}"))),
        (operators::ADD, Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&a[..], &b[..]].concat().into())),
        (operators::ADD, Val::List(a), Val::List(b)) => Ok(Val::List(Rc::new(a.plus(b)))),
        (operators::ADD, Val::Duration(a), Val::Duration(b)) => checked(a.checked_add(*b).map(Val::Duration)),
        (operators::SUBSTRACT, Val::Duration(a), Val::Duration(b)) => {
            checked(a.checked_sub(*b).map(Val::Duration))
        }
        (operators::ADD, Val::Timestamp(t), Val::Duration(d))
        | (operators::ADD, Val::Duration(d), Val::Timestamp(t)) => {
            checked(t.checked_add(*d).ok().map(Val::Timestamp))
        }
        (operators::SUBSTRACT, Val::Timestamp(t), Val::Duration(d)) => {
            checked(t.checked_sub(*d).ok().map(Val::Timestamp))
        }
        (operators::SUBSTRACT, Val::Timestamp(a), Val::Timestamp(b)) => {
            Ok(Val::Duration(a.duration_since(*b)))
        }
        _ => no_overload(),
    }
}

fn contains(element: &Val, of: &Val) -> Outcome {
    match of {
        Val::List(list) => Ok(Val::Bool(list.items.iter().any(|item| item.equals(element)))),
        Val::Map(map) => Ok(Val::Bool(element.key().is_some_and(|key| map.contains_key(&key)))),
        _ => no_overload(),
    }
}

fn index(of: &Val, at: &Val) -> Outcome {
    match (of, at) {
        (Val::List(list), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            let place = match at {
                Val::Int(i) => usize::try_from(*i).ok(),
                Val::Uint(u) => usize::try_from(*u).ok(),
                Val::Double(d) if d.fract() == 0.0 && *d >= 0.0 => Some(*d as usize),
                _ => None,
            };
            let found = place.and_then(|place| list.items.get(place));
            found.cloned().ok_or_else(|| format!("index out of bounds: {}", print(at)))
        }
        (Val::Map(map), key) => match key.key().and_then(|key| map.get(&key)) {
            Some(value) => Ok(value.clone()),
            None => Err(format!("no such key: {}", print(key))),
        },
        (Val::Optional(None), _) => Ok(Val::Optional(None)),
        (Val::Optional(Some(inner)), at) => Ok(Val::Optional(index(inner, at).ok().map(Rc::new))),
        _ => no_overload(),
    }
}

/// A value as `string()` gives it.
pub(super) fn print(value: &Val) -> String {
    match value {
        Val::Bool(b) => b.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Double(d) => print_float(*d),
        Val::Text(t) | Val::Url(t) => t.to_string(),
        Val::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Val::Timestamp(t) => t.to_string(),
        Val::Duration(d) => {
            let text = format!("{:.9}", d.as_secs_f64());
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        Val::Type(name) => (*name).into(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(ip, bits) => format!("{ip}/{bits}"),
        other => format!("<{}>", other.type_name()),
    }
}

fn conversion(name: &str, args: &[Val]) -> Option<Outcome> {
    let [value] = args else { return None };
    if name == "size" {
        return Some(match value {
            Val::Text(text) => Ok(length(text.chars().count())),
            Val::Bytes(_) | Val::List(_) | Val::Map(_) => {
                Ok(Val::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
            }
            _ => no_overload(),
        });
    }
    cast(name, value)
}

/// The functions that are named after the type they give.
fn cast(name: &str, value: &Val) -> Option<Outcome> {
    let overflow = || Err("integer overflow".into());
    let syntax = |function: &str, text: &str| {
        Err(format!(
            "strconv.{function}: parsing {}: invalid syntax",
            fleetpass_apimachinery::field::go_quote(text)
        ))
    };
    Some(match (name, value) {
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Val::Type(value.type_name())),
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) => Ok(value.clone()),
        ("int", Val::Uint(u)) => i64::try_from(*u).map_or_else(|_| overflow(), |i| Ok(Val::Int(i))),
        ("int", Val::Double(d)) if d.abs() < 9.2e18 => Ok(Val::Int(*d as i64)),
        ("int", Val::Double(_)) => overflow(),
        ("int", Val::Text(t)) => t.parse().map_or_else(|_| syntax("ParseInt", t), |i| Ok(Val::Int(i))),
        ("int", Val::Timestamp(t)) => Ok(Val::Int(t.as_second())),
        ("int", Val::Duration(d)) => {
            i64::try_from(d.as_nanos()).map_or_else(|_| overflow(), |i| Ok(Val::Int(i)))
        }
        ("uint", Val::Int(i)) => {
            u64::try_from(*i).map_or_else(|_| Err("unsigned integer overflow".into()), |u| Ok(Val::Uint(u)))
        }
        ("uint", Val::Double(d)) if *d >= 0.0 && *d < 1.8e19 => Ok(Val::Uint(*d as u64)),
        ("uint", Val::Double(_)) => Err("unsigned integer overflow".into()),
        ("uint", Val::Text(t)) => t.parse().map_or_else(|_| syntax("ParseUint", t), |u| Ok(Val::Uint(u))),
        ("double", Val::Int(i)) => Ok(Val::Double(*i as f64)),
        ("double", Val::Uint(u)) => Ok(Val::Double(*u as f64)),
        ("double", Val::Text(t)) => {
            t.parse().map_or_else(|_| syntax("ParseFloat", t), |d| Ok(Val::Double(d)))
        }
        ("bool", Val::Bool(_)) => Ok(value.clone()),
        ("bool", Val::Text(t)) => match &**t {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            other => syntax("ParseBool", other),
        },
        ("bytes", Val::Text(t)) => Ok(Val::Bytes(t.as_bytes().into())),
        ("bytes", Val::Bytes(_)) | ("timestamp", Val::Timestamp(_)) | ("duration", Val::Duration(_)) => {
            Ok(value.clone())
        }
        ("string", Val::Bytes(b)) => match std::str::from_utf8(b) {
            Ok(text) => Ok(Val::text(text)),
            Err(_) => Err("invalid UTF-8 in bytes, cannot convert to string".into()),
        },
        (
            "string",
            Val::Bool(_)
            | Val::Int(_)
            | Val::Uint(_)
            | Val::Double(_)
            | Val::Text(_)
            | Val::Timestamp(_)
            | Val::Duration(_)
            | Val::Ip(_)
            | Val::Cidr(..),
        ) => Ok(Val::text(&print(value))),
        ("timestamp", Val::Text(t)) => t.parse::<Timestamp>().map_or_else(
            |_| {
                Err(format!(
                    "parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as \"2006\"",
                    fleetpass_apimachinery::field::go_quote(t)
                ))
            },
            |t| Ok(Val::Timestamp(t)),
        ),
        ("timestamp", Val::Int(i)) => Timestamp::from_second(*i)
            .map_or_else(|_| Err("timestamp overflow".into()), |t| Ok(Val::Timestamp(t))),
        ("duration", Val::Text(t)) => parse_duration(t).map_or_else(
            || Err(format!("time: invalid duration {}", fleetpass_apimachinery::field::go_quote(t))),
            |d| Ok(Val::Duration(d)),
        ),
        ("duration", Val::Int(i)) => Ok(Val::Duration(SignedDuration::from_nanos(*i))),
        ("int" | "uint" | "double" | "bool" | "bytes" | "string" | "timestamp" | "duration", _) => {
            no_overload()
        }
        _ => return None,
    })
}

pub(super) fn length(count: usize) -> Val {
    Val::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn text(name: &str, args: &[Val]) -> Option<Outcome> {
    Some(match (name, args) {
        ("contains", [Val::Text(t), Val::Text(p)]) => Ok(Val::Bool(t.contains(&**p))),
        ("startsWith", [Val::Text(t), Val::Text(p)]) => Ok(Val::Bool(t.starts_with(&**p))),
        ("endsWith", [Val::Text(t), Val::Text(p)]) => Ok(Val::Bool(t.ends_with(&**p))),
        ("matches", [Val::Text(t), Val::Text(p)]) => regex(p).map(|r| Val::Bool(r.is_match(t))),
        ("contains" | "startsWith" | "endsWith" | "matches", _) => no_overload(),
        _ => return None,
    })
}

/// A pattern that an expression gives, compiled when it is used.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    regexp::compile(pattern).map_err(|error| Words(&error).to_string())
}

fn time(name: &str, args: &[Val]) -> Option<Outcome> {
    if let [Val::Duration(d)] = args {
        let value = match name {
            "getHours" => d.as_hours(),
            "getMinutes" => d.as_mins(),
            "getSeconds" => d.as_secs(),
            "getMilliseconds" => i64::from(d.subsec_millis()),
            _ => return None,
        };
        return Some(Ok(Val::Int(value)));
    }
    let (at, zone) = match args {
        [Val::Timestamp(t)] => (t, "UTC"),
        [Val::Timestamp(t), Val::Text(zone)] => (t, &**zone),
        _ => return None,
    };
    if !name.starts_with("get") {
        return None;
    }
    let Some(zone) = time_zone(zone) else { return Some(Err(format!("unknown time zone {zone}"))) };
    let there = at.to_zoned(zone);
    let value = match name {
        "getFullYear" => i64::from(there.year()),
        "getMonth" => i64::from(there.month()) - 1,
        "getDate" => i64::from(there.day()),
        "getDayOfMonth" => i64::from(there.day()) - 1,
        "getDayOfWeek" => i64::from(there.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(there.day_of_year()) - 1,
        "getHours" => i64::from(there.hour()),
        "getMinutes" => i64::from(there.minute()),
        "getSeconds" => i64::from(there.second()),
        "getMilliseconds" => i64::from(there.millisecond()),
        _ => return None,
    };
    Some(Ok(Val::Int(value)))
}

/// UTC, or an offset such as `+02:00`; no other zone is known here.
fn time_zone(name: &str) -> Option<jiff::tz::TimeZone> {
    if matches!(name, "UTC" | "") {
        return Some(jiff::tz::TimeZone::UTC);
    }
    let (sign, rest) = match name.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = sign * (hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60);
    jiff::tz::Offset::from_seconds(seconds).ok().map(jiff::tz::TimeZone::fixed)
}
