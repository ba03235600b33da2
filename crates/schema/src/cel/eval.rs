//! Evaluation of a parsed expression, with a cost that is counted while it runs: rules cannot make the server
//! work without end (`k8s.io/apiserver/pkg/apis/cel/config.go`).

use super::cost::{self, CALL_LIMIT, STEPS_PER_COST, TOO_EXPENSIVE};
use super::functions;
use super::value::{Key, Outcome, Val, select_field};
use crate::Effort;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Variables, the innermost first. A linked list on the stack: entering a loop allocates nothing.
pub(super) struct Scope<'a> {
    pub(super) name: &'a str,
    pub(super) value: Val,
    pub(super) outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<&Val> {
        if self.name == name { Some(&self.value) } else { self.outer?.find(name) }
    }
}

/// One evaluation.
#[derive(Default)]
pub(super) struct Run {
    /// What it has cost so far.
    pub(super) cost: u64,
}

impl Run {
    pub(super) fn spend(&mut self, cost: u64) -> Result<(), String> {
        // Counted before the work is done.
        self.cost = self.cost.saturating_add(cost);
        if self.cost > CALL_LIMIT { Err(TOO_EXPENSIVE.into()) } else { Ok(()) }
    }

    /// The value of an expression, or what went wrong, in cel-go's words.
    pub(super) fn eval(&mut self, expr: &IdedExpr, scope: &Scope<'_>) -> Outcome {
        let value = match &expr.expr {
            Expr::Literal(literal) => return Ok(constant(literal)),
            Expr::Ident(name) => {
                self.spend(1)?;
                match scope.find(name) {
                    Some(value) => value.clone(),
                    None => {
                        functions::type_value(name).ok_or_else(|| format!("no such attribute(s): {name}"))?
                    }
                }
            }
            Expr::Select(select) => {
                let operand = self.eval(&select.operand, scope)?;
                self.spend(1)?;
                select_field(&operand, &select.field, select.test)?
            }
            Expr::List(list) => {
                // `ListCreateBaseCost` and, for maps, `MapCreateBaseCost` in cel-go's `common/cost.go`.
                self.spend(10)?;
                let mut items = Vec::new();
                for (index, element) in list.elements.iter().enumerate() {
                    let value = self.eval(element, scope)?;
                    match value {
                        Val::Optional(inner) if list.optional_indices.contains(&index) => {
                            items.extend(inner.map(|v| (*v).clone()));
                        }
                        value => items.push(value),
                    }
                }
                Val::list(items)
            }
            Expr::Map(map) => self.map(&map.entries, scope)?,
            Expr::Comprehension(comprehension) => self.comprehend(comprehension, scope)?,
            Expr::Call(call) => self.call(call, scope)?,
            Expr::Struct(of) => return Err(format!("unknown type: {}", of.type_name)),
            Expr::Unspecified => return Err("unspecified expression".into()),
        };
        // Data that does not fit its schema becomes an error where it is used, not where it is passed by.
        match value {
            Val::Error(why) => Err(why.to_string()),
            value => Ok(value),
        }
    }

    fn map(&mut self, entries: &[cel::common::ast::IdedEntryExpr], scope: &Scope<'_>) -> Outcome {
        self.spend(30)?;
        let mut out = BTreeMap::new();
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { return Err("no such overload".into()) };
            let key = self.eval(&entry.key, scope)?;
            let key = key.key().ok_or_else(|| format!("unsupported key type: {}", key.type_name()))?;
            let value = self.eval(&entry.value, scope)?;
            let value = match value {
                Val::Optional(inner) if entry.optional => match inner {
                    Some(inner) => (*inner).clone(),
                    None => continue,
                },
                value => value,
            };
            // Also if the keys are written differently: `1` and `1u` are one key.
            if out.insert(key, value).is_some() {
                return Err("Failed with repeated key".into());
            }
        }
        Ok(Val::Map(Rc::new(out)))
    }

    fn comprehend(&mut self, c: &ComprehensionExpr, scope: &Scope<'_>) -> Outcome {
        let range = self.eval(&c.iter_range, scope)?;
        // One after the other: a loop that ends at its first element must not cost all of them.
        let pairs: Box<dyn Iterator<Item = (Val, Val)>> = match &range {
            Val::List(list) => {
                let indexed = list.items.iter().enumerate();
                Box::new(indexed.map(|(i, v)| (Val::Int(i64::try_from(i).unwrap_or(i64::MAX)), v.clone())))
            }
            Val::Map(map) => Box::new(map.iter().map(|(k, v)| (key_value(k), v.clone()))),
            other => return Err(format!("no such overload: {} is not iterable", other.type_name())),
        };
        let over_map = matches!(range, Val::Map(_));
        let mut accumulated = self.eval(&c.accu_init, scope);
        for (first, second) in pairs {
            // With one variable a list gives its elements, a map its keys.
            let single = if over_map { first.clone() } else { second.clone() };
            let outer = Scope { name: &c.accu_var, value: error_as_value(&accumulated), outer: Some(scope) };
            let one = match &c.iter_var2 {
                None => Scope { name: &c.iter_var, value: single, outer: Some(&outer) },
                Some(_) => Scope { name: &c.iter_var, value: first, outer: Some(&outer) },
            };
            let two = c.iter_var2.as_ref().map(|name| Scope { name, value: second, outer: Some(&one) });
            let inner = two.as_ref().unwrap_or(&one);
            if !matches!(self.eval(&c.loop_cond, inner)?, Val::Bool(true)) {
                break;
            }
            let step = self.eval(&c.loop_step, inner);
            // The limit alone ends the loop at once: absorbed like any other error, it would limit nothing.
            if matches!(&step, Err(why) if why == TOO_EXPENSIVE) {
                return step;
            }
            accumulated = step;
        }
        let value = accumulated?;
        let last = Scope { name: &c.accu_var, value, outer: Some(scope) };
        self.eval(&c.result, &last)
    }

    fn call(&mut self, call: &cel::common::ast::CallExpr, scope: &Scope<'_>) -> Outcome {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => return self.logic(a, b, scope, false),
            (operators::LOGICAL_OR, [a, b]) => return self.logic(a, b, scope, true),
            (operators::CONDITIONAL, [test, yes, no]) => {
                return match self.eval(test, scope)? {
                    Val::Bool(true) => self.eval(yes, scope),
                    Val::Bool(false) => self.eval(no, scope),
                    _ => Err("no such overload".into()),
                };
            }
            (operators::NOT_STRICTLY_FALSE, [test]) => {
                let value = self.eval(test, scope);
                if matches!(&value, Err(why) if why == TOO_EXPENSIVE) {
                    return value;
                }
                return Ok(Val::Bool(!matches!(value, Ok(Val::Bool(false)))));
            }
            _ => {}
        }
        if let Some(value) = self.special(call, scope) {
            return value;
        }
        // In `optional.of(x)` the target is a namespace and must not be evaluated as a variable.
        let qualified = functions::qualified(call.target.as_deref(), name);
        let mut args = Vec::with_capacity(call.args.len() + 1);
        if let Some(target) = call.target.as_deref().filter(|_| qualified.is_none()) {
            args.push(self.eval(target, scope)?);
        }
        let member = !args.is_empty();
        for arg in &call.args {
            args.push(self.eval(arg, scope)?);
        }
        let before = self.cost;
        self.spend(cost::actual(name, &args))?;
        // The work of some functions is not bounded by what Kubernetes counts: it compares only the lengths of lists, and
        // compiles patterns for nothing. What goes beyond is counted here, and ends the evaluation at the same limit.
        let mut effort = Effort::new((CALL_LIMIT - self.cost + 1).saturating_mul(STEPS_PER_COST));
        let available = effort.left();
        let value = functions::call(qualified.as_deref().unwrap_or(name), member, &args, &mut effort);
        let work = (available - effort.left()) / STEPS_PER_COST;
        self.spend(work.saturating_sub(self.cost - before))?;
        value
    }

    /// `&&` and `||`: one side decides even if the other fails.
    fn logic(&mut self, a: &IdedExpr, b: &IdedExpr, scope: &Scope<'_>, decides: bool) -> Outcome {
        let left = self.eval(a, scope);
        match left {
            Ok(Val::Bool(value)) if value == decides => return left,
            Err(why) if why == TOO_EXPENSIVE => return Err(why),
            _ => {}
        }
        // The left side did not decide: it is the other boolean, an error, or of another type.
        match (left, self.eval(b, scope)) {
            (_, Ok(Val::Bool(value))) if value == decides => Ok(Val::Bool(value)),
            (Err(why), _) | (Ok(Val::Bool(_)), Err(why)) => Err(why),
            (Ok(Val::Bool(_)), Ok(Val::Bool(value))) => Ok(Val::Bool(value)),
            _ => Err("no such overload".into()),
        }
    }

    /// Calls whose arguments are not all values: `cel.bind`, `optMap`, `optFlatMap`.
    fn special(&mut self, call: &cel::common::ast::CallExpr, scope: &Scope<'_>) -> Option<Outcome> {
        let target = call.target.as_deref()?;
        let variable = |expr: &IdedExpr| match &expr.expr {
            Expr::Ident(name) => Some(name.clone()),
            _ => None,
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("bind", [name, value, body]) if matches!(&target.expr, Expr::Ident(n) if n == "cel") => {
                let name = variable(name)?;
                Some(
                    self.eval(value, scope)
                        .and_then(|value| self.eval(body, &Scope { name: &name, value, outer: Some(scope) })),
                )
            }
            (kind @ ("optMap" | "optFlatMap"), [name, body]) => {
                let name = variable(name)?;
                Some(match self.eval(target, scope) {
                    Ok(Val::Optional(None)) => Ok(Val::Optional(None)),
                    Ok(Val::Optional(Some(value))) => {
                        let inner = Scope { name: &name, value: (*value).clone(), outer: Some(scope) };
                        let mapped = self.eval(body, &inner);
                        if kind == "optMap" { mapped.map(Val::some) } else { mapped }
                    }
                    Ok(_) => Err("no such overload".into()),
                    Err(why) => Err(why),
                })
            }
            _ => None,
        }
    }
}

/// An error as a value of the accumulator. In `all` and `exists` an error in one element must not end the loop, because a
/// later element may decide; only an expression that uses the accumulator's value fails with it.
fn error_as_value(accumulated: &Outcome) -> Val {
    match accumulated {
        Ok(value) => value.clone(),
        Err(why) => Val::Error(why.as_str().into()),
    }
}

fn key_value(key: &Key) -> Val {
    match key {
        Key::Bool(b) => Val::Bool(*b),
        Key::Int(i) => i64::try_from(*i).map_or(Val::Uint(u64::try_from(*i).unwrap_or(u64::MAX)), Val::Int),
        Key::String(t) => Val::String(Rc::clone(t)),
    }
}

fn constant(literal: &LiteralValue) -> Val {
    match literal {
        LiteralValue::Boolean(b) => Val::Bool(*b.inner()),
        LiteralValue::Bytes(b) => Val::Bytes(b.inner().into()),
        LiteralValue::Double(d) => Val::Double(*d.inner()),
        LiteralValue::Int(i) => Val::Int(*i.inner()),
        LiteralValue::Null => Val::Null,
        LiteralValue::String(s) => Val::string(s.inner()),
        LiteralValue::UInt(u) => Val::Uint(*u.inner()),
    }
}
