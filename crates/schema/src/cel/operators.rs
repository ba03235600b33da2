//! The operators of expressions on values.

use super::cost::TOO_EXPENSIVE;
use super::value::{BYTES_PER_STEP, Outcome, Val, no_overload, print, select_optional};
use crate::Effort;
use cel::common::ast::operators;
use std::cmp::Ordering;
use std::rc::Rc;

fn compare(a: &Val, b: &Val, holds: fn(Ordering) -> bool) -> Outcome {
    match a.order(b) {
        Some(order) => Ok(Val::Bool(holds(order))),
        // Doubles have no order only if one of them is NaN, with which all comparisons are false.
        None if matches!((a, b), (Val::Double(_), _) | (_, Val::Double(_))) => Ok(Val::Bool(false)),
        None => no_overload(),
    }
}

/// Applies an operator; `None` if `name` is none.
pub(super) fn apply(name: &str, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
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
        operators::EQUALS => within(a.equals(b, effort)).map(Val::Bool),
        operators::NOT_EQUALS => within(a.equals(b, effort)).map(|equal| Val::Bool(!equal)),
        operators::LESS => compare(a, b, Ordering::is_lt),
        operators::LESS_EQUALS => compare(a, b, Ordering::is_le),
        operators::GREATER => compare(a, b, Ordering::is_gt),
        operators::GREATER_EQUALS => compare(a, b, Ordering::is_ge),
        operators::IN => contains(a, b, effort),
        operators::INDEX => index(a, b),
        operators::OPT_INDEX => Ok(match a {
            Val::Optional(None) => Val::Optional(None),
            Val::Optional(Some(inner)) => Val::Optional(index(inner, b).ok().map(Rc::new)),
            a => Val::Optional(index(a, b).ok().map(Rc::new)),
        }),
        operators::OPT_SELECT => match b {
            Val::String(field) => Ok(select_optional(a, field)),
            _ => no_overload(),
        },
        operators::ADD
        | operators::SUBSTRACT
        | operators::MULTIPLY
        | operators::DIVIDE
        | operators::MODULO => arithmetic(name, a, b, effort),
        _ => return None,
    })
}

/// `a + b`.
pub(super) fn add(a: &Val, b: &Val, effort: &mut Effort) -> Outcome {
    arithmetic(operators::ADD, a, b, effort)
}

/// What was found out, unless it would have taken too much work.
pub(super) fn within<T>(found: Option<T>) -> Result<T, String> {
    found.ok_or_else(|| TOO_EXPENSIVE.into())
}

fn checked(value: Option<Val>) -> Outcome {
    value.ok_or_else(|| "integer overflow".into())
}

fn arithmetic(name: &str, a: &Val, b: &Val, effort: &mut Effort) -> Outcome {
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
        // Zero was handled above.
        (operators::DIVIDE, Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a / b)),
        (operators::MODULO, Val::Uint(a), Val::Uint(b)) => Ok(Val::Uint(a % b)),
        (operators::ADD, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (operators::SUBSTRACT, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (operators::MULTIPLY, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        (operators::DIVIDE, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        (operators::ADD, Val::String(a), Val::String(b)) => {
            within(effort.spend((a.len() + b.len()) as u64 / BYTES_PER_STEP))?;
            Ok(Val::string(&format!("{a}{b}")))
        }
        (operators::ADD, Val::Bytes(a), Val::Bytes(b)) => {
            within(effort.spend((a.len() + b.len()) as u64 / BYTES_PER_STEP))?;
            Ok(Val::Bytes([&a[..], &b[..]].concat().into()))
        }
        (operators::ADD, Val::List(a), Val::List(b)) => {
            within(a.plus(b, effort)).map(|sum| Val::List(Rc::new(sum)))
        }
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

fn contains(element: &Val, of: &Val, effort: &mut Effort) -> Outcome {
    match of {
        Val::List(list) => {
            within(position(list.items.iter(), element, effort)).map(|found| Val::Bool(found.is_some()))
        }
        Val::Map(map) => Ok(Val::Bool(element.key().is_some_and(|key| map.contains_key(&key)))),
        _ => no_overload(),
    }
}

/// The place of the first of the values that is equal to `element`.
pub(super) fn position<'a>(
    values: impl Iterator<Item = &'a Val>,
    element: &Val,
    effort: &mut Effort,
) -> Option<Option<usize>> {
    for (place, value) in values.enumerate() {
        if value.equals(element, effort)? {
            return Some(Some(place));
        }
    }
    Some(None)
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
