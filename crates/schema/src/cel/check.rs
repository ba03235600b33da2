//! Type checking and cost estimates of expressions, before any of them runs: what cel-go's checker says about
//! fields, overloads and names that do not exist, and how much a rule may cost at worst
//! (`k8s.io/apiserver/pkg/cel/openapi`, `github.com/google/cel-go/checker/cost.go`).

use super::cost::estimate;
use super::library;
use super::size;
use super::types::{DeclType, GLOBALS, MEMBERS, Ty, overload, print_list};
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::parser::Parser;
use std::rc::Rc;

/// A parsed and checked expression.
pub(super) struct Checked {
    pub(super) expr: IdedExpr,
    pub(super) ty: Ty,
    pub(super) uses_old_self: bool,
    /// At worst.
    pub(super) cost: u64,
}

/// Parses and checks `source` where `self` is a `decl`. Errors: as cel-go prints its issues.
pub(super) fn check(source: &str, decl: &DeclType, optional_old_self: bool) -> Result<Checked, String> {
    size::check(source).map_err(|message| format!("ERROR: <input>:-1:0: {message}"))?;
    let parser = Parser::new().enable_optional_syntax(true);
    let (expr, info) = parser.parse_with_source_info(source).map_err(|errors| {
        let issues = errors.errors.iter().map(|e| {
            let line = usize::try_from(e.pos.0).unwrap_or(1).max(1);
            let column = usize::try_from(e.pos.1).unwrap_or_default().max(1);
            issue(source, line, column - 1, &e.msg)
        });
        issues.collect::<Vec<_>>().join("\n")
    })?;
    let old =
        if optional_old_self { DeclType::of(Ty::Optional(Rc::new(decl.clone()))) } else { decl.clone() };
    let mut checker = Checker { source, info: &info, issues: Vec::new(), uses_old_self: false };
    let old_scope = Vars { name: "oldSelf", decl: old, outer: None };
    let scope = Vars { name: "self", decl: decl.clone(), outer: Some(&old_scope) };
    let inferred = checker.visit(&expr, &scope);
    if !checker.issues.is_empty() {
        return Err(checker.issues.join("\n"));
    }
    let uses_old_self = checker.uses_old_self;
    Ok(Checked { expr, ty: inferred.decl.ty, uses_old_self, cost: inferred.cost })
}

/// How many issues are told of (`common/errors.go`): each of them shows its line.
const MOST_ISSUES: usize = 100;

/// One issue with its line and a pointer to its column (from 0).
fn issue(source: &str, line: usize, column: usize, message: &str) -> String {
    let text = source.split('\n').nth(line - 1).unwrap_or_default();
    format!("ERROR: <input>:{line}:{}: {message}\n | {text}\n | {}^", column + 1, ".".repeat(column))
}

struct Vars<'a> {
    name: &'a str,
    decl: DeclType,
    outer: Option<&'a Vars<'a>>,
}

impl Vars<'_> {
    fn find(&self, name: &str) -> Option<&DeclType> {
        if self.name == name { Some(&self.decl) } else { self.outer?.find(name) }
    }
}

/// What an expression is, and what it costs.
struct Inferred {
    decl: DeclType,
    cost: u64,
}

struct Checker<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    issues: Vec<String>,
    uses_old_self: bool,
}

impl Checker<'_> {
    fn complain(&mut self, id: u64, message: &str) -> DeclType {
        if self.issues.len() >= MOST_ISSUES {
            return DeclType::of(Ty::Dyn);
        }
        let offset = self.info.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before: String = self.source.chars().take(offset).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let issue = issue(self.source, line, column, message);
        if !self.issues.contains(&issue) {
            self.issues.push(issue);
        }
        DeclType::of(Ty::Dyn)
    }

    fn visit(&mut self, expr: &IdedExpr, scope: &Vars<'_>) -> Inferred {
        match &expr.expr {
            Expr::Literal(literal) => Inferred { decl: constant(literal), cost: 0 },
            Expr::Ident(name) => {
                if let Some(decl) = scope.find(name) {
                    // A comprehension may hide it, but then it would be found there.
                    self.uses_old_self |= name == "oldSelf";
                    return Inferred { decl: decl.clone(), cost: 1 };
                }
                if super::functions::type_value(name).is_some() {
                    return Inferred { decl: DeclType::of(Ty::Type), cost: 1 };
                }
                let message = format!("undeclared reference to '{name}' (in container '')");
                Inferred { decl: self.complain(expr.id, &message), cost: 1 }
            }
            Expr::Select(select) => {
                let operand = self.visit(&select.operand, scope);
                let found = self.field(expr.id, &operand.decl, &select.field);
                let decl = if select.test { DeclType::of(Ty::Bool) } else { found };
                Inferred { decl, cost: operand.cost.saturating_add(1) }
            }
            Expr::List(list) => {
                let mut cost = 10_u64;
                let mut element: Option<DeclType> = None;
                for item in &list.elements {
                    let inferred = self.visit(item, scope);
                    cost = cost.saturating_add(inferred.cost);
                    element = Some(match element {
                        Some(element) => element.join(&inferred.decl),
                        None => inferred.decl,
                    });
                }
                let element = element.unwrap_or_else(|| DeclType::of(Ty::Dyn));
                let max_elements = list.elements.len() as u64;
                Inferred { decl: DeclType { max_elements, ..DeclType::of(Ty::List(Rc::new(element))) }, cost }
            }
            Expr::Map(map) => {
                let mut cost = 30_u64;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        for part in [&entry.key, &entry.value] {
                            cost = cost.saturating_add(self.visit(part, scope).cost);
                        }
                    }
                }
                let max_elements = map.entries.len() as u64;
                let decl = DeclType { max_elements, ..DeclType::of(Ty::Map(Rc::new(DeclType::of(Ty::Dyn)))) };
                Inferred { decl, cost }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, scope),
            Expr::Call(call) => self.call(expr.id, call, scope),
            Expr::Struct(of) => {
                let message = format!("undeclared reference to '{}' (in container '')", of.type_name);
                Inferred { decl: self.complain(expr.id, &message), cost: 40 }
            }
            Expr::Unspecified => Inferred { decl: self.complain(expr.id, "unspecified expression"), cost: 0 },
        }
    }

    fn field(&mut self, id: u64, operand: &DeclType, field: &str) -> DeclType {
        match &operand.ty {
            Ty::Dyn => DeclType::of(Ty::Dyn),
            Ty::Map(value) => (**value).clone(),
            Ty::Object(fields) => match fields.get(field) {
                Some(decl) => decl.clone(),
                None => self.complain(id, &format!("undefined field '{field}'")),
            },
            Ty::Optional(inner) => DeclType::of(Ty::Optional(Rc::new(self.field(id, inner, field)))),
            other => {
                let message = format!("type '{}' does not support field selection", other.print());
                self.complain(id, &message)
            }
        }
    }

    fn comprehension(&mut self, c: &ComprehensionExpr, scope: &Vars<'_>) -> Inferred {
        let range = self.visit(&c.iter_range, scope);
        let (key, value) = match &range.decl.ty {
            Ty::List(element) => (DeclType::of(Ty::Int), (**element).clone()),
            Ty::Map(value) => (
                DeclType { max_elements: range.decl.max_elements, ..DeclType::of(Ty::String) },
                (**value).clone(),
            ),
            Ty::Dyn => (DeclType::of(Ty::Dyn), DeclType::of(Ty::Dyn)),
            other => {
                let message = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    other.print()
                );
                let unknown = self.complain(c.iter_range.id, &message);
                (unknown.clone(), unknown)
            }
        };
        let init = self.visit(&c.accu_init, scope);
        let single = if matches!(range.decl.ty, Ty::Map(_)) { key.clone() } else { value.clone() };
        let outer = Vars { name: &c.accu_var, decl: init.decl.clone(), outer: Some(scope) };
        let first = if c.iter_var2.is_some() { key } else { single };
        let one = Vars { name: &c.iter_var, decl: first, outer: Some(&outer) };
        let two = c.iter_var2.as_ref().map(|name| Vars { name, decl: value, outer: Some(&one) });
        let inner = two.as_ref().unwrap_or(&one);
        let condition = self.visit(&c.loop_cond, inner);
        let step = self.visit(&c.loop_step, inner);
        let times = range.decl.max_elements;
        let accumulated = match &step.decl.ty {
            Ty::List(element) => {
                let max_elements = times.saturating_add(init.decl.max_elements);
                DeclType { max_elements, ..DeclType::of(Ty::List(Rc::clone(element))) }
            }
            _ => step.decl,
        };
        let last = Vars { name: &c.accu_var, decl: accumulated, outer: Some(scope) };
        let result = self.visit(&c.result, &last);
        let each = condition.cost.saturating_add(step.cost);
        let cost = range.cost.saturating_add(init.cost).saturating_add(times.saturating_mul(each));
        Inferred { decl: result.decl, cost: cost.saturating_add(result.cost) }
    }

    fn call(&mut self, id: u64, call: &cel::common::ast::CallExpr, scope: &Vars<'_>) -> Inferred {
        let name = call.func_name.as_str();
        if let Some(inferred) = self.special(call, scope) {
            return inferred;
        }
        let qualified = super::functions::qualified(call.target.as_deref(), name);
        let target = call.target.as_deref().filter(|_| qualified.is_none());
        let mut args = Vec::with_capacity(call.args.len() + 1);
        let mut cost = 0_u64;
        for arg in target.into_iter().chain(&call.args) {
            let inferred = self.visit(arg, scope);
            cost = cost.saturating_add(inferred.cost);
            args.push(inferred.decl);
        }
        let full = qualified.as_deref().unwrap_or(name);
        let decl = self.result(id, full, target.is_some(), &args, call);
        Inferred { decl, cost: cost.saturating_add(estimate(full, &args)) }
    }

    fn result(
        &mut self,
        id: u64,
        name: &str,
        member: bool,
        args: &[DeclType],
        call: &cel::common::ast::CallExpr,
    ) -> DeclType {
        if let (operators::OPT_SELECT, [operand, _], [_, field]) = (name, args, call.args.as_slice()) {
            let field = match &field.expr {
                Expr::Literal(LiteralValue::String(text)) => text.inner().to_string(),
                _ => String::new(),
            };
            let inner = self.field(id, operand.unwrapped(), &field);
            return DeclType::of(Ty::Optional(Rc::new(inner.unwrapped().clone())));
        }
        if let Some(result) = operator(name, args) {
            return result.unwrap_or_else(|| self.mismatch(id, name, false, args));
        }
        let table = if member { MEMBERS } else { GLOBALS };
        let mut known = false;
        for (_, params, result) in table.iter().filter(|(known, ..)| *known == name) {
            known = true;
            if let Some(decl) = overload(params, *result, args) {
                return decl;
            }
        }
        if known {
            return self.mismatch(id, name, member, args);
        }
        if library::is_namespaced(name) {
            return DeclType::of(Ty::Named("kubernetes.NamedFormat"));
        }
        self.complain(id, &format!("undeclared reference to '{name}' (in container '')"))
    }

    fn mismatch(&mut self, id: u64, name: &str, member: bool, args: &[DeclType]) -> DeclType {
        let applied = match args {
            [target, rest @ ..] if member => format!("{}.({})", target.ty.print(), print_list(rest)),
            args => format!("({})", print_list(args)),
        };
        self.complain(id, &format!("found no matching overload for '{name}' applied to '{applied}'"))
    }

    /// `cel.bind`, `optMap` and `optFlatMap`, whose first argument is a new name.
    fn special(&mut self, call: &cel::common::ast::CallExpr, scope: &Vars<'_>) -> Option<Inferred> {
        let target = call.target.as_deref()?;
        let name = |expr: &IdedExpr| match &expr.expr {
            Expr::Ident(name) => Some(name.clone()),
            _ => None,
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("bind", [variable, value, body]) if matches!(&target.expr, Expr::Ident(n) if n == "cel") => {
                let variable = name(variable)?;
                let value = self.visit(value, scope);
                let inner = Vars { name: &variable, decl: value.decl, outer: Some(scope) };
                let body = self.visit(body, &inner);
                Some(Inferred { decl: body.decl, cost: body.cost.saturating_add(value.cost) })
            }
            (kind @ ("optMap" | "optFlatMap"), [variable, body]) => {
                let variable = name(variable)?;
                let target = self.visit(target, scope);
                let inner =
                    Vars { name: &variable, decl: target.decl.unwrapped().clone(), outer: Some(scope) };
                let body = self.visit(body, &inner);
                let decl = match kind {
                    "optMap" => DeclType::of(Ty::Optional(Rc::new(body.decl))),
                    _ => body.decl,
                };
                Some(Inferred { decl, cost: body.cost.saturating_add(target.cost) })
            }
            _ => None,
        }
    }
}

fn constant(literal: &LiteralValue) -> DeclType {
    match literal {
        LiteralValue::Boolean(_) => DeclType::of(Ty::Bool),
        LiteralValue::Bytes(b) => {
            DeclType { max_elements: b.inner().len() as u64, ..DeclType::of(Ty::Bytes) }
        }
        LiteralValue::Double(_) => DeclType::of(Ty::Double),
        LiteralValue::Int(_) => DeclType::of(Ty::Int),
        LiteralValue::Null => DeclType::of(Ty::Null),
        LiteralValue::String(s) => {
            DeclType { max_elements: s.inner().len() as u64, ..DeclType::of(Ty::String) }
        }
        LiteralValue::UInt(_) => DeclType::of(Ty::Uint),
    }
}

/// The type of an operator's value: `None` if this is no operator, `Some(None)` if its operands do not fit.
fn operator(name: &str, args: &[DeclType]) -> Option<Option<DeclType>> {
    use operators as op;
    let bool = || Some(DeclType::of(Ty::Bool));
    let fits = |decl: &DeclType, ty: &Ty| matches!(decl.ty, Ty::Dyn) || decl.ty.same_kind(ty);
    Some(match (name, args) {
        (op::LOGICAL_AND | op::LOGICAL_OR, [a, b]) => {
            if fits(a, &Ty::Bool) && fits(b, &Ty::Bool) {
                bool()
            } else {
                None
            }
        }
        (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [a]) => {
            if fits(a, &Ty::Bool) {
                bool()
            } else {
                None
            }
        }
        (op::NEGATE, [a]) => match a.ty {
            Ty::Int | Ty::Double | Ty::Dyn => Some(a.clone()),
            _ => None,
        },
        (op::CONDITIONAL, [test, yes, no]) => {
            let agree = fits(test, &Ty::Bool) && yes.ty.comparable(&no.ty);
            agree.then(|| yes.join(no))
        }
        (op::EQUALS | op::NOT_EQUALS, [a, b]) => {
            if a.ty.comparable(&b.ty) {
                bool()
            } else {
                None
            }
        }
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
            if a.ty.ordered(&b.ty) {
                bool()
            } else {
                None
            }
        }
        (op::IN, [element, of]) => match &of.ty {
            Ty::Dyn => bool(),
            Ty::List(of) if element.ty.comparable(&of.ty) => bool(),
            Ty::Map(_) if matches!(element.ty, Ty::String | Ty::Dyn | Ty::Int | Ty::Uint | Ty::Bool) => {
                bool()
            }
            _ => None,
        },
        (op::INDEX, [of, at]) => of.element(at),
        (op::OPT_INDEX, [of, at]) => of
            .unwrapped()
            .element(at)
            .map(|decl| DeclType::of(Ty::Optional(Rc::new(decl.unwrapped().clone())))),
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => arithmetic(name, a, b),
        _ => return None,
    })
}

fn arithmetic(name: &str, a: &DeclType, b: &DeclType) -> Option<DeclType> {
    use operators as op;
    let sum = a.max_elements.saturating_add(b.max_elements);
    match (&a.ty, &b.ty) {
        (Ty::Dyn, _) | (_, Ty::Dyn) => Some(DeclType { max_elements: sum, ..DeclType::of(Ty::Dyn) }),
        (Ty::Int, Ty::Int) | (Ty::Uint, Ty::Uint) => Some(a.clone()),
        (Ty::Double, Ty::Double) if name != op::MODULO => Some(a.clone()),
        (Ty::String, Ty::String) | (Ty::Bytes, Ty::Bytes) if name == op::ADD => {
            Some(DeclType { max_elements: sum, ..a.clone() })
        }
        (Ty::List(x), Ty::List(y)) if name == op::ADD && x.ty.comparable(&y.ty) => {
            Some(DeclType { max_elements: sum, ..DeclType::of(Ty::List(Rc::new(x.join(y)))) })
        }
        (Ty::Timestamp, Ty::Duration) if matches!(name, op::ADD | op::SUBSTRACT) => Some(a.clone()),
        (Ty::Duration, Ty::Timestamp) if name == op::ADD => Some(b.clone()),
        (Ty::Duration, Ty::Duration) if matches!(name, op::ADD | op::SUBSTRACT) => Some(a.clone()),
        (Ty::Timestamp, Ty::Timestamp) if name == op::SUBSTRACT => Some(DeclType::of(Ty::Duration)),
        _ => None,
    }
}
