//! The functions of expressions: CEL's own, and where a name is not among them, those that Kubernetes adds
//! ([`super::library`]). Errors are worded as cel-go words them.

use super::library::{self, with_pattern};
use super::operators;
use super::value::{Outcome, Val, length, no_overload, parse_duration, print};
use crate::go::regexp::Effort;
use cel::common::ast::{Expr, IdedExpr};
use jiff::{SignedDuration, Timestamp};

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

/// Calls a function; of a `member` call the target is the first argument.
/// What takes more work than its cost says is taken from `effort`.
pub(super) fn call(name: &str, member: bool, args: &[Val], effort: &mut Effort) -> Outcome {
    // Group by group; what no group knows with such arguments ends in the last line.
    if let Some(value) = operators::apply(name, args, effort) {
        return value;
    }
    if let Some(value) = conversion(name, args) {
        return value;
    }
    if let Some(value) = text(name, args, effort) {
        return value;
    }
    if let Some(value) = time(name, args) {
        return value;
    }
    library::call(name, member, args, effort).unwrap_or_else(|| Err(format!("no such overload: {name}")))
}

fn conversion(name: &str, args: &[Val]) -> Option<Outcome> {
    let [value] = args else { return None };
    if name == "size" {
        return Some(match value {
            Val::String(text) => Ok(length(text.chars().count())),
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
        // Just below 2^63, the first double that does not fit.
        ("int", Val::Double(d)) if d.abs() < 9.2e18 => Ok(Val::Int(*d as i64)),
        ("int", Val::Double(_)) => overflow(),
        ("int", Val::String(t)) => t.parse().map_or_else(|_| syntax("ParseInt", t), |i| Ok(Val::Int(i))),
        ("int", Val::Timestamp(t)) => Ok(Val::Int(t.as_second())),
        ("int", Val::Duration(d)) => {
            i64::try_from(d.as_nanos()).map_or_else(|_| overflow(), |i| Ok(Val::Int(i)))
        }
        ("uint", Val::Int(i)) => {
            u64::try_from(*i).map_or_else(|_| Err("unsigned integer overflow".into()), |u| Ok(Val::Uint(u)))
        }
        ("uint", Val::Double(d)) if *d >= 0.0 && *d < 1.8e19 => Ok(Val::Uint(*d as u64)),
        ("uint", Val::Double(_)) => Err("unsigned integer overflow".into()),
        ("uint", Val::String(t)) => t.parse().map_or_else(|_| syntax("ParseUint", t), |u| Ok(Val::Uint(u))),
        ("double", Val::Int(i)) => Ok(Val::Double(*i as f64)),
        ("double", Val::Uint(u)) => Ok(Val::Double(*u as f64)),
        ("double", Val::String(t)) => {
            t.parse().map_or_else(|_| syntax("ParseFloat", t), |d| Ok(Val::Double(d)))
        }
        ("bool", Val::Bool(_)) => Ok(value.clone()),
        ("bool", Val::String(t)) => match &**t {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            other => syntax("ParseBool", other),
        },
        ("bytes", Val::String(t)) => Ok(Val::Bytes(t.as_bytes().into())),
        ("bytes", Val::Bytes(_)) | ("timestamp", Val::Timestamp(_)) | ("duration", Val::Duration(_)) => {
            Ok(value.clone())
        }
        ("string", Val::Bytes(b)) => match std::str::from_utf8(b) {
            Ok(text) => Ok(Val::string(text)),
            Err(_) => Err("invalid UTF-8 in bytes, cannot convert to string".into()),
        },
        (
            "string",
            Val::Bool(_)
            | Val::Int(_)
            | Val::Uint(_)
            | Val::Double(_)
            | Val::String(_)
            | Val::Timestamp(_)
            | Val::Duration(_)
            | Val::Ip(_)
            | Val::Cidr(..),
        ) => Ok(Val::string(&print(value))),
        // What cel-go says of any text that it cannot convert (`common/types/string.go`).
        ("timestamp", Val::String(t)) => t.parse::<Timestamp>().map_or_else(
            |_| Err("type conversion error from 'string' to 'google.protobuf.Timestamp'".into()),
            |t| Ok(Val::Timestamp(t)),
        ),
        ("timestamp", Val::Int(i)) => Timestamp::from_second(*i)
            .map_or_else(|_| Err("timestamp overflow".into()), |t| Ok(Val::Timestamp(t))),
        ("duration", Val::String(t)) => parse_duration(t).map_or_else(
            || Err("type conversion error from 'string' to 'google.protobuf.Duration'".into()),
            |d| Ok(Val::Duration(d)),
        ),
        ("duration", Val::Int(i)) => Ok(Val::Duration(SignedDuration::from_nanos(*i))),
        ("int" | "uint" | "double" | "bool" | "bytes" | "string" | "timestamp" | "duration", _) => {
            no_overload()
        }
        _ => return None,
    })
}

fn text(name: &str, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
    Some(match (name, args) {
        ("contains", [Val::String(t), Val::String(p)]) => Ok(Val::Bool(t.contains(&**p))),
        ("startsWith", [Val::String(t), Val::String(p)]) => Ok(Val::Bool(t.starts_with(&**p))),
        ("endsWith", [Val::String(t), Val::String(p)]) => Ok(Val::Bool(t.ends_with(&**p))),
        ("matches", [Val::String(t), Val::String(p)]) => {
            with_pattern(p, effort, |p, effort| p.is_match(t, effort)).map(Val::Bool)
        }
        ("contains" | "startsWith" | "endsWith" | "matches", _) => no_overload(),
        _ => return None,
    })
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
        [Val::Timestamp(t), Val::String(zone)] => (t, &**zone),
        _ => return None,
    };
    if !name.starts_with("get") {
        return None;
    }
    let Some(zone) = time_zone(zone) else { return Some(Err(format!("unknown time zone {zone}"))) };
    // CEL counts months, days of months and of years from 0, but the date of `getDate` from 1.
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
    // Names such as `Europe/Berlin` need a database, which jiff is built without.
    let (sign, rest) = match name.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = sign * (hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60);
    jiff::tz::Offset::from_seconds(seconds).ok().map(jiff::tz::TimeZone::fixed)
}
