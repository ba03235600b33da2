//! Type checking and cost estimates of expressions, before any of them runs: what cel-go's checker says about
//! fields, overloads and names that do not exist, and how much a rule may cost at worst
//! (`k8s.io/apiserver/pkg/cel/openapi`, `github.com/google/cel-go/checker/cost.go`).

use super::library;
use super::size;
use super::types::{GLOBALS, Node, Ty, overload, print_list};
use crate::{Schema, Type};
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::parser::Parser;
use std::rc::Rc;

pub(super) use super::types::MEMBERS;

/// A parsed and checked expression.
pub(super) struct Checked {
    pub(super) expr: IdedExpr,
    pub(super) ty: Ty,
    pub(super) uses_old_self: bool,
    /// At worst.
    pub(super) cost: u64,
}

/// Parses and checks `source` where `self` is a `node`. Errors: as cel-go prints its issues.
pub(super) fn check(source: &str, node: &Node, optional_old_self: bool) -> Result<Checked, String> {
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
    let old = if optional_old_self { Node::of(Ty::Optional(Rc::new(node.clone()))) } else { node.clone() };
    let mut checker = Checker { source, info: &info, issues: Vec::new(), uses_old_self: false };
    let old_scope = Vars { name: "oldSelf", node: old, outer: None };
    let scope = Vars { name: "self", node: node.clone(), outer: Some(&old_scope) };
    let seen = checker.visit(&expr, &scope);
    if !checker.issues.is_empty() {
        return Err(checker.issues.join("\n"));
    }
    let uses_old_self = checker.uses_old_self;
    Ok(Checked { expr, ty: seen.node.ty, uses_old_self, cost: seen.cost })
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
    node: Node,
    outer: Option<&'a Vars<'a>>,
}

impl Vars<'_> {
    fn find(&self, name: &str) -> Option<&Node> {
        if self.name == name { Some(&self.node) } else { self.outer?.find(name) }
    }
}

/// What an expression is, and what it costs.
struct Seen {
    node: Node,
    cost: u64,
}

struct Checker<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    issues: Vec<String>,
    uses_old_self: bool,
}

impl Checker<'_> {
    fn complain(&mut self, id: u64, message: &str) -> Node {
        if self.issues.len() >= MOST_ISSUES {
            return Node::of(Ty::Dyn);
        }
        let offset = self.info.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before: String = self.source.chars().take(offset).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let issue = issue(self.source, line, column, message);
        if !self.issues.contains(&issue) {
            self.issues.push(issue);
        }
        Node::of(Ty::Dyn)
    }

    fn visit(&mut self, expr: &IdedExpr, scope: &Vars<'_>) -> Seen {
        match &expr.expr {
            Expr::Literal(literal) => Seen { node: constant(literal), cost: 0 },
            Expr::Ident(name) => {
                if let Some(node) = scope.find(name) {
                    // A comprehension may hide it, but then it would be found there.
                    self.uses_old_self |= name == "oldSelf";
                    return Seen { node: node.clone(), cost: 1 };
                }
                if super::functions::type_value(name).is_some() {
                    return Seen { node: Node::of(Ty::Type), cost: 1 };
                }
                let message = format!("undeclared reference to '{name}' (in container '')");
                Seen { node: self.complain(expr.id, &message), cost: 1 }
            }
            Expr::Select(select) => {
                let operand = self.visit(&select.operand, scope);
                let found = self.field(expr.id, &operand.node, &select.field);
                let node = if select.test { Node::of(Ty::Bool) } else { found };
                Seen { node, cost: operand.cost.saturating_add(1) }
            }
            Expr::List(list) => {
                let mut cost = 10_u64;
                let mut element: Option<Node> = None;
                for item in &list.elements {
                    let seen = self.visit(item, scope);
                    cost = cost.saturating_add(seen.cost);
                    element = Some(match element {
                        Some(element) => element.join(&seen.node),
                        None => seen.node,
                    });
                }
                let element = element.unwrap_or_else(|| Node::of(Ty::Dyn));
                let most = list.elements.len() as u64;
                Seen { node: Node { most, ..Node::of(Ty::List(Rc::new(element))) }, cost }
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
                let most = map.entries.len() as u64;
                let node = Node { most, ..Node::of(Ty::Map(Rc::new(Node::of(Ty::Dyn)))) };
                Seen { node, cost }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, scope),
            Expr::Call(call) => self.call(expr.id, call, scope),
            Expr::Struct(of) => {
                let message = format!("undeclared reference to '{}' (in container '')", of.type_name);
                Seen { node: self.complain(expr.id, &message), cost: 40 }
            }
            Expr::Unspecified => Seen { node: self.complain(expr.id, "unspecified expression"), cost: 0 },
        }
    }

    fn field(&mut self, id: u64, operand: &Node, field: &str) -> Node {
        match &operand.ty {
            Ty::Dyn => Node::of(Ty::Dyn),
            Ty::Map(value) => (**value).clone(),
            Ty::Object(fields) => match fields.get(field) {
                Some(node) => node.clone(),
                None => self.complain(id, &format!("undefined field '{field}'")),
            },
            Ty::Optional(inner) => Node::of(Ty::Optional(Rc::new(self.field(id, inner, field)))),
            other => {
                let message = format!("type '{}' does not support field selection", other.print());
                self.complain(id, &message)
            }
        }
    }

    fn comprehension(&mut self, c: &ComprehensionExpr, scope: &Vars<'_>) -> Seen {
        let range = self.visit(&c.iter_range, scope);
        let (key, value) = match &range.node.ty {
            Ty::List(element) => (Node::of(Ty::Int), (**element).clone()),
            Ty::Map(value) => (Node { most: range.node.most, ..Node::of(Ty::Text) }, (**value).clone()),
            Ty::Dyn => (Node::of(Ty::Dyn), Node::of(Ty::Dyn)),
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
        let single = if matches!(range.node.ty, Ty::Map(_)) { key.clone() } else { value.clone() };
        let outer = Vars { name: &c.accu_var, node: init.node.clone(), outer: Some(scope) };
        let first = if c.iter_var2.is_some() { key } else { single };
        let one = Vars { name: &c.iter_var, node: first, outer: Some(&outer) };
        let two = c.iter_var2.as_ref().map(|name| Vars { name, node: value, outer: Some(&one) });
        let inner = two.as_ref().unwrap_or(&one);
        let condition = self.visit(&c.loop_cond, inner);
        let step = self.visit(&c.loop_step, inner);
        let times = range.node.most;
        let accumulated = match &step.node.ty {
            Ty::List(element) => {
                let most = times.saturating_add(init.node.most);
                Node { most, ..Node::of(Ty::List(Rc::clone(element))) }
            }
            _ => step.node,
        };
        let last = Vars { name: &c.accu_var, node: accumulated, outer: Some(scope) };
        let result = self.visit(&c.result, &last);
        let each = condition.cost.saturating_add(step.cost);
        let cost = range.cost.saturating_add(init.cost).saturating_add(times.saturating_mul(each));
        Seen { node: result.node, cost: cost.saturating_add(result.cost) }
    }

    fn call(&mut self, id: u64, call: &cel::common::ast::CallExpr, scope: &Vars<'_>) -> Seen {
        let name = call.func_name.as_str();
        if let Some(seen) = self.special(call, scope) {
            return seen;
        }
        let qualified = super::functions::qualified(call.target.as_deref(), name);
        let target = call.target.as_deref().filter(|_| qualified.is_none());
        let mut args = Vec::with_capacity(call.args.len() + 1);
        let mut cost = 0_u64;
        for arg in target.into_iter().chain(&call.args) {
            let seen = self.visit(arg, scope);
            cost = cost.saturating_add(seen.cost);
            args.push(seen.node);
        }
        let full = qualified.as_deref().unwrap_or(name);
        let node = self.result(id, full, target.is_some(), &args, call);
        Seen { node, cost: cost.saturating_add(estimate(full, &args)) }
    }

    fn result(
        &mut self,
        id: u64,
        name: &str,
        member: bool,
        args: &[Node],
        call: &cel::common::ast::CallExpr,
    ) -> Node {
        if let (operators::OPT_SELECT, [operand, _], [_, field]) = (name, args, call.args.as_slice()) {
            let field = match &field.expr {
                Expr::Literal(LiteralValue::String(text)) => text.inner().to_string(),
                _ => String::new(),
            };
            let inner = self.field(id, operand.unwrapped(), &field);
            return Node::of(Ty::Optional(Rc::new(inner.unwrapped().clone())));
        }
        if let Some(result) = operator(name, args) {
            return result.unwrap_or_else(|| self.mismatch(id, name, false, args));
        }
        let table = if member { MEMBERS } else { GLOBALS };
        let mut known = false;
        for (_, params, result) in table.iter().filter(|(known, ..)| *known == name) {
            known = true;
            if let Some(node) = overload(params, *result, args) {
                return node;
            }
        }
        if known {
            return self.mismatch(id, name, member, args);
        }
        if library::is_namespaced(name) {
            return Node::of(Ty::Named("kubernetes.NamedFormat"));
        }
        self.complain(id, &format!("undeclared reference to '{name}' (in container '')"))
    }

    fn mismatch(&mut self, id: u64, name: &str, member: bool, args: &[Node]) -> Node {
        let applied = match args {
            [target, rest @ ..] if member => format!("{}.({})", target.ty.print(), print_list(rest)),
            args => format!("({})", print_list(args)),
        };
        self.complain(id, &format!("found no matching overload for '{name}' applied to '{applied}'"))
    }

    /// `cel.bind`, `optMap` and `optFlatMap`, whose first argument is a new name.
    fn special(&mut self, call: &cel::common::ast::CallExpr, scope: &Vars<'_>) -> Option<Seen> {
        let target = call.target.as_deref()?;
        let name = |expr: &IdedExpr| match &expr.expr {
            Expr::Ident(name) => Some(name.clone()),
            _ => None,
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("bind", [variable, value, body]) if matches!(&target.expr, Expr::Ident(n) if n == "cel") => {
                let variable = name(variable)?;
                let value = self.visit(value, scope);
                let inner = Vars { name: &variable, node: value.node, outer: Some(scope) };
                let body = self.visit(body, &inner);
                Some(Seen { node: body.node, cost: body.cost.saturating_add(value.cost) })
            }
            (kind @ ("optMap" | "optFlatMap"), [variable, body]) => {
                let variable = name(variable)?;
                let target = self.visit(target, scope);
                let inner =
                    Vars { name: &variable, node: target.node.unwrapped().clone(), outer: Some(scope) };
                let body = self.visit(body, &inner);
                let node = match kind {
                    "optMap" => Node::of(Ty::Optional(Rc::new(body.node))),
                    _ => body.node,
                };
                Some(Seen { node, cost: body.cost.saturating_add(target.cost) })
            }
            _ => None,
        }
    }
}

fn constant(literal: &LiteralValue) -> Node {
    match literal {
        LiteralValue::Boolean(_) => Node::of(Ty::Bool),
        LiteralValue::Bytes(b) => Node { most: b.inner().len() as u64, ..Node::of(Ty::Bytes) },
        LiteralValue::Double(_) => Node::of(Ty::Double),
        LiteralValue::Int(_) => Node::of(Ty::Int),
        LiteralValue::Null => Node::of(Ty::Null),
        LiteralValue::String(s) => Node { most: s.inner().len() as u64, ..Node::of(Ty::Text) },
        LiteralValue::UInt(_) => Node::of(Ty::Uint),
    }
}

/// The type of an operator's value: `None` if this is no operator, `Some(None)` if its operands do not fit.
fn operator(name: &str, args: &[Node]) -> Option<Option<Node>> {
    use operators as op;
    let bool = || Some(Node::of(Ty::Bool));
    let fits = |node: &Node, ty: &Ty| matches!(node.ty, Ty::Dyn) || node.ty.same_kind(ty);
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
            Ty::Map(_) if matches!(element.ty, Ty::Text | Ty::Dyn | Ty::Int | Ty::Uint | Ty::Bool) => bool(),
            _ => None,
        },
        (op::INDEX, [of, at]) => of.element(at),
        (op::OPT_INDEX, [of, at]) => {
            of.unwrapped().element(at).map(|node| Node::of(Ty::Optional(Rc::new(node.unwrapped().clone()))))
        }
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => arithmetic(name, a, b),
        _ => return None,
    })
}

fn arithmetic(name: &str, a: &Node, b: &Node) -> Option<Node> {
    use operators as op;
    let sum = a.most.saturating_add(b.most);
    match (&a.ty, &b.ty) {
        (Ty::Dyn, _) | (_, Ty::Dyn) => Some(Node { most: sum, ..Node::of(Ty::Dyn) }),
        (Ty::Int, Ty::Int) | (Ty::Uint, Ty::Uint) => Some(a.clone()),
        (Ty::Double, Ty::Double) if name != op::MODULO => Some(a.clone()),
        (Ty::Text, Ty::Text) | (Ty::Bytes, Ty::Bytes) if name == op::ADD => {
            Some(Node { most: sum, ..a.clone() })
        }
        (Ty::List(x), Ty::List(y)) if name == op::ADD && x.ty.comparable(&y.ty) => {
            Some(Node { most: sum, ..Node::of(Ty::List(Rc::new(x.join(y)))) })
        }
        (Ty::Timestamp, Ty::Duration) if matches!(name, op::ADD | op::SUBSTRACT) => Some(a.clone()),
        (Ty::Duration, Ty::Timestamp) if name == op::ADD => Some(b.clone()),
        (Ty::Duration, Ty::Duration) if matches!(name, op::ADD | op::SUBSTRACT) => Some(a.clone()),
        (Ty::Timestamp, Ty::Timestamp) if name == op::SUBSTRACT => Some(Node::of(Ty::Duration)),
        _ => None,
    }
}

/// What a call may cost at worst, beyond its arguments.
fn estimate(name: &str, args: &[Node]) -> u64 {
    let most = |index: usize| args.get(index).map_or(1, |node| node.most);
    let tenth = |size: u64| size.div_ceil(10).max(1);
    match name {
        "matches" | "find" | "findAll" => {
            tenth(most(0).saturating_add(1)).saturating_mul(most(1).div_ceil(4).max(1))
        }
        "contains" => tenth(most(0)).saturating_mul(tenth(most(1))),
        "startsWith" | "endsWith" => tenth(most(1)),
        operators::EQUALS | operators::NOT_EQUALS => tenth(most(0).min(most(1))),
        operators::IN => match args.get(1).map(|of| &of.ty) {
            Some(Ty::List(element)) => most(1).saturating_mul(tenth(most(0).min(element.most))),
            _ => 1,
        },
        operators::ADD => match args.first().map(|a| &a.ty) {
            Some(Ty::Text | Ty::Bytes) => tenth(most(0).saturating_add(most(1))),
            _ => 1,
        },
        "isSorted" | "sum" | "min" | "max" => most(0).max(1),
        "indexOf" | "lastIndexOf" | "replace" | "split" => tenth(most(0)).saturating_mul(tenth(most(1))),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => most(0).saturating_mul(most(1)).max(1),
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "join" | "url" | "isURL" | "quantity"
        | "isQuantity" | "ip" | "isIP" | "cidr" | "isCIDR" | "validate" | "string" | "bytes" => {
            tenth(most(0))
        }
        _ => 1,
    }
}

/// The largest request, in bytes, which bounds what has no bound of its own.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// How often a value of that least size can be in a request.
pub(super) fn most_in_request(least: u64) -> u64 {
    MAX_REQUEST / (least + 1)
}

/// The type of the values of a schema; `None` where expressions cannot see them. With `root` they are whole resources.
pub(super) fn node_of(schema: &Schema, root: bool) -> Option<Node> {
    if schema.int_or_string {
        return Some(Node { most: MAX_REQUEST - 2, least: 1, ty: Ty::Dyn });
    }
    let rules = schema.validation.as_deref();
    let bound = |given: Option<i64>| given.map(|n| u64::try_from(n).unwrap_or_default());
    match schema.kind? {
        Type::Boolean => Some(Node { least: 4, ..Node::of(Ty::Bool) }),
        Type::Integer => Some(Node::of(Ty::Int)),
        Type::Number => Some(Node::of(Ty::Double)),
        Type::String => Some(text_node(schema, bound(rules.and_then(|r| r.max_length)))),
        Type::Array => {
            let element = node_of(schema.items.as_deref()?, false)?;
            let unbounded = (MAX_REQUEST - 2) / (element.least + 1);
            let most = bound(rules.and_then(|r| r.max_items)).unwrap_or(unbounded);
            Some(Node { ty: Ty::List(Rc::new(element)), most, least: 2 })
        }
        Type::Object => {
            if let Some(additional) = &schema.additional {
                let value = node_of(additional, false)?;
                let unbounded = (MAX_REQUEST - 2) / (value.least + 6);
                let most = bound(rules.and_then(|r| r.max_properties)).unwrap_or(unbounded);
                return Some(Node { ty: Ty::Map(Rc::new(value)), most, least: 2 });
            }
            Some(object_node(schema, root || schema.embedded_resource))
        }
    }
}

fn text_node(schema: &Schema, most: Option<u64>) -> Node {
    let fixed = |ty, most| Node { ty, most, least: 2 };
    match schema.format.as_deref() {
        Some("byte") => fixed(Ty::Bytes, most.unwrap_or(MAX_REQUEST - 2)),
        Some("duration") => fixed(Ty::Duration, 1),
        Some("date" | "date-time" | "datetime") => fixed(Ty::Timestamp, 1),
        _ => {
            let listed = schema.validation.as_deref().filter(|v| !v.enumeration.is_empty());
            let longest =
                listed.and_then(|v| v.enumeration.iter().filter_map(|e| e.as_str().map(str::len)).max());
            // Lengths count characters, costs count bytes: up to four each.
            let most = most.map(|n| n.saturating_mul(4)).or(longest.map(|n| n as u64));
            fixed(Ty::Text, most.unwrap_or(MAX_REQUEST - 2))
        }
    }
}

fn object_node(schema: &Schema, resource: bool) -> Node {
    let mut fields = std::collections::BTreeMap::new();
    let mut least = 2;
    for (name, property) in &schema.properties {
        if let (Some(node), Some(name)) = (node_of(property, false), super::value::escape(name)) {
            if schema.required.contains(&name) && property.default.is_none() {
                least += name.len() as u64 + 4 + node.least;
            }
            fields.insert(name, node);
        }
    }
    if resource {
        let text = || Node { most: MAX_REQUEST - 2, least: 2, ty: Ty::Text };
        let names = ["name", "generateName"].map(|name| (name.to_string(), text()));
        let metadata = Node::of(Ty::Object(Rc::new(names.into_iter().collect())));
        fields.insert("apiVersion".into(), text());
        fields.insert("kind".into(), text());
        fields.insert("metadata".into(), metadata);
    }
    Node { ty: Ty::Object(Rc::new(fields)), most: 1, least }
}
