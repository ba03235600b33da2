//! Rules of custom resources: `x-kubernetes-validations`
//! (`apiextensions-apiserver/pkg/apiserver/schema/cel`). The `cel` crate parses the expressions; they are checked,
//! priced and evaluated here, because a server must know the price of a rule before it accepts it and stop it while it
//! runs.
//!
//! ```text
//! definition:  rule ─► size ─► cel::Parser ─► check (types of decl, functions of types; cost) ─► RuleReport
//! object:      Value ─► object ─► eval (operators, functions, library; counts cost) ─► field errors
//! ```

mod check;
mod cost;
mod decl;
mod eval;
mod functions;
mod library;
mod object;
mod operators;
mod size;
mod types;
mod value;

use crate::correlation::OldElements;
use crate::fieldpath::field_path;
use crate::location::Location;
use crate::{Schema, Type, ValidationRule};
use cel::common::ast::IdedExpr;
use cost::{BUDGET, CALL_LIMIT, TOO_EXPENSIVE};
use decl::Decls;
use eval::{Run, Scope};
use fleetpass_apimachinery::field::{Error, ErrorList, ErrorType, Path};
use object::from_json;
use serde_json::Value;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{DeclType, Ty};
use value::{Key, Outcome, Val, escape};

/// The longest message that an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// What is known of a rule before it runs. Errors are worded as cel-go words them.
#[derive(Debug, Default)]
pub struct RuleReport {
    /// Why the rule cannot run.
    pub error: Option<String>,
    /// Why its message expression cannot run.
    pub message_error: Option<String>,
    /// Whether it compares with the old value.
    pub uses_old_self: bool,
    /// What one evaluation costs at worst.
    pub cost: u64,
    /// What one evaluation of its message costs at worst, if it has one.
    pub message_cost: Option<u64>,
    /// How often values of this schema can be in one request.
    pub cardinality: u64,
}

/// Checks the rules of a definition, node by node.
#[derive(Default)]
pub struct RuleChecker {
    decls: Decls,
}

impl RuleChecker {
    /// Checks the rules at one node of a schema. With `root`, its values are whole resources.
    ///
    /// All nodes that one checker sees must belong to one schema, which lives as long as the checker.
    pub fn check(&mut self, schema: &Schema, root: bool) -> Vec<RuleReport> {
        let rules = schema.validation.as_deref().map(|v| v.rules.as_slice()).unwrap_or_default();
        if rules.is_empty() {
            return Vec::new();
        }
        let this = self.decls.of(schema, root);
        rules.iter().map(|rule| compile(schema, rule, this.as_ref()).0).collect()
    }
}

/// `this` is the type of the schema's values; `None` if expressions cannot see them.
fn compile(schema: &Schema, rule: &ValidationRule, this: Option<&DeclType>) -> (RuleReport, Option<Program>) {
    let mut report = RuleReport::default();
    if rule.rule.trim().is_empty() {
        return (report, None);
    }
    let Some(this) = this else {
        report.error = Some("rules are not supported for values of this type".into());
        return (report, None);
    };
    report.cardinality = decl::max_cardinality(this.min_serialized_size);
    let optional = rule.optional_old_self == Some(true);
    let checked = match check::check(&rule.rule, this, optional) {
        Ok(checked) => checked,
        Err(issues) => {
            report.error = Some(format!("compilation failed: {issues}"));
            return (report, None);
        }
    };
    if !matches!(checked.ty, Ty::Bool) {
        report.error = Some("cel expression must evaluate to a bool".into());
        return (report, None);
    }
    report.uses_old_self = checked.uses_old_self;
    report.cost = checked.cost;
    let mut message = None;
    if !rule.message_expression.is_empty() {
        match check::check(&rule.message_expression, this, optional) {
            Err(issues) => {
                report.message_error = Some(format!("messageExpression compilation failed: {issues}"));
            }
            Ok(checked) if !matches!(checked.ty, Ty::String) => {
                report.message_error = Some("messageExpression must evaluate to a string".into());
            }
            Ok(checked) => {
                report.message_cost = Some(checked.cost);
                message = Some(checked.expr);
            }
        }
    }
    let field = match rule.field_path.as_str() {
        "" => None,
        path => field_path(path, schema, true).ok().map(|(path, _)| path),
    };
    let program = Program { expr: checked.expr, uses_old_self: checked.uses_old_self, message, field };
    (report, Some(program))
}

/// A rule that can run.
struct Program {
    expr: IdedExpr,
    uses_old_self: bool,
    /// `messageExpression`, if it is sound.
    message: Option<IdedExpr>,
    /// `fieldPath`, relative to the node of the rule.
    field: Option<Path>,
}

/// The compiled rules of a schema and of all schemas below it.
pub struct Rules {
    schema: Arc<Schema>,
    /// Values are whole resources: rules see their `apiVersion`, `kind` and name.
    root: bool,
    /// The rules of this node. One that does not compile is kept with its error, which every object is told: a rule that
    /// was stored by another version must not be passed over in silence.
    rules: Vec<(ValidationRule, Result<Program, String>)>,
    /// Only schemas with rules in them or below them are here, so that a walk skips all others.
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

impl Rules {
    /// Compiles the rules of a schema; `None` if there are none. With `root`, its values are whole resources.
    pub fn new(schema: &Arc<Schema>, root: bool) -> Option<Self> {
        Self::of(schema, root, &mut Decls::default())
    }

    fn of(schema: &Arc<Schema>, root: bool, decls: &mut Decls) -> Option<Self> {
        let own = schema.validation.as_deref().map(|v| v.rules.as_slice()).unwrap_or_default();
        let this = if own.is_empty() { None } else { decls.of(schema, root) };
        let rules: Vec<_> = own
            .iter()
            .filter(|rule| !rule.rule.trim().is_empty())
            .map(|rule| {
                let (report, program) = compile(schema, rule, this.as_ref());
                (rule.clone(), program.ok_or_else(|| report.error.unwrap_or_default()))
            })
            .collect();
        let mut below = |schema: &Arc<Schema>| Self::of(schema, schema.embedded_resource, decls);
        let properties: BTreeMap<String, Rules> =
            schema.properties.iter().filter_map(|(k, s)| Some((k.clone(), below(s)?))).collect();
        let additional = schema.additional.as_ref().and_then(&mut below).map(Box::new);
        let items = schema.items.as_ref().and_then(&mut below).map(Box::new);
        let none = rules.is_empty() && properties.is_empty() && additional.is_none() && items.is_none();
        (!none).then(|| Self { schema: Arc::clone(schema), root, rules, properties, additional, items })
    }

    /// The errors of a new value, or of a changed one.
    ///
    /// Rules that use `oldSelf` are not evaluated where there is no old value, unless they ask for an optional one
    /// (`optionalOldSelf`). What is wrong in parts that did not change is tolerated. All rules together may cost so much
    /// and no more; after that nothing is evaluated, and an error says so.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let mut pass = Pass { errors: ErrorList::new(), budget: BUDGET, spent: false };
        let unchanged = old.map(|old| Unchanged { new, old, found: OnceCell::new(), above: None });
        let node = Node { at: &Location::ROOT, new, old, this: None, unchanged: unchanged.as_ref() };
        pass.node(self, &node, true);
        pass.errors
    }
}

/// A value that rules are asked about.
struct Node<'a> {
    at: &'a Location<'a>,
    new: &'a Value,
    old: Option<&'a Value>,
    /// The value as expressions see it, if the one around it was converted: what is converted once is not converted again.
    this: Option<Val>,
    /// About the nearest value whose old value is known; `None` if none is.
    unchanged: Option<&'a Unchanged<'a>>,
}

/// Whether a value equals its old one. It is found out when a rule does not hold, and follows from the value around it if that
/// did not change: comparing at each level would cost the depth times the size.
struct Unchanged<'a> {
    new: &'a Value,
    old: &'a Value,
    found: OnceCell<bool>,
    above: Option<&'a Unchanged<'a>>,
}

impl Unchanged<'_> {
    fn holds(&self) -> bool {
        let above = || self.above.is_some_and(|above| above.found.get() == Some(&true));
        *self.found.get_or_init(|| above() || self.new == self.old)
    }
}

/// One walk over an object with its rules.
struct Pass {
    errors: ErrorList,
    /// What may still be spent: one budget for all rules of the object, however many values they are evaluated on.
    budget: u64,
    /// The budget is used up: nothing more is checked.
    spent: bool,
}

impl Pass {
    fn node(&mut self, rules: &Rules, node: &Node<'_>, top: bool) {
        if self.spent || node.new.is_null() {
            return;
        }
        let old = node.old.filter(|o| !o.is_null());
        let mut this = node.this.clone();
        if !rules.rules.is_empty() {
            let value = this.get_or_insert_with(|| from_json(node.new, Some(&rules.schema), rules.root));
            self.expressions(rules, node, value, old);
        }
        match node.new {
            Value::Object(members) => {
                // The parts of an atomic map are not told apart.
                let correlatable = !rules.schema.atomic;
                for (name, member) in members {
                    let (below, at) = match (rules.properties.get(name), &rules.additional) {
                        (Some(below), _) => (below, node.at.field(name)),
                        (None, Some(below)) if !rules.schema.properties.contains_key(name) => {
                            (&**below, node.at.key(name))
                        }
                        _ => continue,
                    };
                    let before = old.and_then(|o| o.get(name));
                    // Both versions were converted to the same apiVersion and kind: that they are equal tells nothing.
                    let type_meta = top && matches!(name.as_str(), "apiVersion" | "kind");
                    let own = before.map(|old| Unchanged::below(member, old, node.unchanged));
                    let unchanged = match &own {
                        _ if type_meta => None,
                        Some(own) => Some(own),
                        None => node.unchanged,
                    };
                    let this = this.as_ref().and_then(|this| member_of(rules, this, name));
                    let old = before.filter(|_| correlatable);
                    self.node(below, &Node { at: &at, new: member, old, this, unchanged }, false);
                }
            }
            Value::Array(elements) => {
                let Some(below) = &rules.items else { return };
                let old = OldElements::new(&rules.schema, old);
                for (index, element) in elements.iter().enumerate() {
                    let before = old.as_ref().and_then(|old| old.get(element));
                    // Of duplicates the first is the old one of all, so nothing follows from the list.
                    let own = before.map(|old| Unchanged::below(element, old, None));
                    let this = match &this {
                        Some(Val::List(list)) => list.items.get(index).cloned(),
                        _ => None,
                    };
                    let (at, unchanged) = (node.at.index(index), own.as_ref().or(node.unchanged));
                    self.node(below, &Node { at: &at, new: element, old: before, this, unchanged }, false);
                }
            }
            _ => {}
        }
    }

    fn expressions(&mut self, rules: &Rules, node: &Node<'_>, this: &Val, old: Option<&Value>) {
        let kind = type_word(&rules.schema);
        // Converted once for all rules of the node; the clones below copy a pointer.
        let before = old.map(|old| from_json(old, Some(&rules.schema), rules.root));
        for (rule, program) in &rules.rules {
            let program = match program {
                Ok(program) => program,
                Err(why) => {
                    let detail = format!("rule compile error: {why}");
                    self.errors.push(Error::invalid(&node.at.path(), kind, detail));
                    continue;
                }
            };
            let optional = rule.optional_old_self == Some(true);
            if program.uses_old_self && before.is_none() && !optional {
                continue;
            }
            let old_self = match &before {
                Some(value) if optional => Val::some(value.clone()),
                Some(value) => value.clone(),
                None => Val::Optional(None),
            };
            let old_scope = Scope { name: "oldSelf", value: old_self, outer: None };
            let scope = Scope { name: "self", value: this.clone(), outer: Some(&old_scope) };
            let mut run = Run::default();
            let result = run.eval(&program.expr, &scope);
            if let Some(detail) = self.too_expensive(&run, &result, rule) {
                self.errors.push(Error::invalid(&node.at.path(), kind, detail));
                self.spent = true;
                return;
            }
            let detail = match result {
                Ok(Val::Bool(true)) => continue,
                Ok(Val::Bool(false)) => {
                    // Transition rules are not tolerated: they judge the change itself.
                    if !program.uses_old_self && node.unchanged.is_some_and(Unchanged::holds) {
                        continue;
                    }
                    let detail = self.message(rule, program, &scope);
                    let at = node.at.path();
                    self.errors.push(failure(&at, &rules.schema, node.new, rule, program, detail));
                    continue;
                }
                Ok(_) => overload_detail("no such overload", rule),
                Err(why) if why.starts_with("no such overload") => overload_detail(&why, rule),
                Err(why) => format!("{why} evaluating rule: {}", named(rule)),
            };
            self.errors.push(Error::invalid(&node.at.path(), kind, detail));
        }
    }

    /// Takes what an evaluation has cost from the budget. What to say if that, or the limit for one, is exceeded.
    fn too_expensive(&mut self, run: &Run, result: &Outcome, rule: &ValidationRule) -> Option<String> {
        if run.cost > CALL_LIMIT || matches!(result, Err(why) if why == TOO_EXPENSIVE) {
            return Some(format!(
                "'{TOO_EXPENSIVE}': no further validation rules will be run due to call cost exceeds limit for \
                 rule: {}",
                named(rule)
            ));
        }
        match self.budget.checked_sub(run.cost) {
            Some(left) => self.budget = left,
            None => {
                let detail = "validation failed due to running out of cost budget, no further validation rules \
                              will be run";
                return Some(detail.into());
            }
        }
        None
    }

    /// What to say about a rule that does not hold.
    fn message(&mut self, rule: &ValidationRule, program: &Program, scope: &Scope<'_>) -> String {
        if let Some(expr) = &program.message {
            let mut run = Run::default();
            let result = run.eval(expr, scope);
            self.budget = self.budget.saturating_sub(run.cost);
            // A message that fails, or that could break the answer's layout, falls back to the fixed one.
            if let Ok(Val::String(text)) = result {
                let text = text.trim();
                if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
                    return text.into();
                }
            }
        }
        match rule.message.trim() {
            "" => format!("failed rule: {}", rule.rule.trim()),
            message => message.into(),
        }
    }
}

impl<'a> Unchanged<'a> {
    fn below(new: &'a Value, old: &'a Value, above: Option<&'a Unchanged<'a>>) -> Self {
        Self { new, old, found: OnceCell::new(), above }
    }
}

/// The member of a converted object; `None` if expressions cannot see it there, or see another in its place.
fn member_of(rules: &Rules, this: &Val, name: &str) -> Option<Val> {
    let Val::Map(members) = this else { return None };
    // Metadata is cut down for the resource around it, but not for rules on itself.
    let resource = rules.root || rules.schema.embedded_resource;
    if resource && matches!(name, "apiVersion" | "kind" | "metadata") {
        return None;
    }
    let key = match rules.schema.properties.contains_key(name) {
        true => escape(name)?,
        false => name.to_string(),
    };
    members.get(&Key::String(key.as_str().into())).cloned()
}

fn overload_detail(why: &str, rule: &ValidationRule) -> String {
    format!(
        "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
        named(rule)
    )
}

/// The message of a rule, or the rule.
fn named(rule: &ValidationRule) -> &str {
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}

fn failure(
    path: &Path,
    schema: &Schema,
    value: &Value,
    rule: &ValidationRule,
    program: &Program,
    detail: String,
) -> Error {
    let field = match &program.field {
        Some(below) if path.as_str().is_empty() => below.clone(),
        Some(below) => path.child(below.as_str()),
        None => path.clone(),
    };
    let compound = matches!(schema.kind, Some(Type::Object | Type::Array));
    let shown = (!compound).then(|| value.clone());
    match rule.reason.as_deref() {
        Some("FieldValueForbidden") => Error::forbidden(&field, detail),
        Some("FieldValueRequired") => Error::required(&field, detail),
        Some("FieldValueDuplicate") => {
            Error { kind: ErrorType::Duplicate, field, value: shown, detail: String::new() }
        }
        _ => Error { kind: ErrorType::Invalid, field, value: shown, detail },
    }
}

/// The name of the schema's type; Kubernetes shows it in place of the value if a rule cannot be evaluated.
fn type_word(schema: &Schema) -> &'static str {
    schema.kind.map_or("", Type::name)
}

#[cfg(test)]
mod tests;
