//! Rules of custom resources: `x-kubernetes-validations`
//! (`apiextensions-apiserver/pkg/apiserver/schema/cel`). The `cel` crate reads the expressions; they are checked,
//! priced and evaluated here, because a server must know the price of a rule before it runs and stop it while it
//! runs.

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

use crate::fieldpath::field_path;
use crate::{ListType, Schema, Type, ValidationRule};
use cel::common::ast::IdedExpr;
use cost::{BUDGET, CALL_LIMIT, TOO_EXPENSIVE};
use eval::{Run, Scope};
use fleetpass_apimachinery::field::{Error, ErrorList, ErrorType, Path};
use object::from_json;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::Ty;
use value::Val;

/// The longest message that an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// What is known of a rule before it runs.
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

/// Checks the rules at one node of a schema. With `root`, its values are whole resources.
pub fn check_rules(schema: &Schema, root: bool) -> Vec<RuleReport> {
    let rules = schema.validation.as_deref().map(|v| v.rules.as_slice()).unwrap_or_default();
    rules.iter().map(|rule| compile(schema, rule, root).0).collect()
}

fn compile(schema: &Schema, rule: &ValidationRule, root: bool) -> (RuleReport, Option<Program>) {
    let mut report = RuleReport::default();
    if rule.rule.trim().is_empty() {
        return (report, None);
    }
    let Some(this) = decl::decl_type_of(schema, root) else {
        report.error = Some("rules are not supported for values of this type".into());
        return (report, None);
    };
    report.cardinality = decl::max_cardinality(this.min_serialized_size);
    let optional = rule.optional_old_self == Some(true);
    let checked = match check::check(&rule.rule, &this, optional) {
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
        match check::check(&rule.message_expression, &this, optional) {
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

struct Program {
    expr: IdedExpr,
    uses_old_self: bool,
    message: Option<IdedExpr>,
    field: Option<Path>,
}

/// The compiled rules of a schema and of all schemas below it.
pub struct Rules {
    schema: Arc<Schema>,
    root: bool,
    rules: Vec<(ValidationRule, Result<Program, String>)>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

impl Rules {
    /// Compiles the rules of a schema; `None` if there are none. With `root`, its values are whole resources.
    pub fn new(schema: &Arc<Schema>, root: bool) -> Option<Self> {
        let own = schema.validation.as_deref().map(|v| v.rules.as_slice()).unwrap_or_default();
        let rules: Vec<_> = own
            .iter()
            .filter(|rule| !rule.rule.trim().is_empty())
            .map(|rule| {
                let (report, program) = compile(schema, rule, root);
                (rule.clone(), program.ok_or_else(|| report.error.unwrap_or_default()))
            })
            .collect();
        let below = |schema: &Arc<Schema>| Self::new(schema, schema.embedded_resource);
        let properties: BTreeMap<String, Rules> =
            schema.properties.iter().filter_map(|(k, s)| Some((k.clone(), below(s)?))).collect();
        let additional = schema.additional.as_ref().and_then(below).map(Box::new);
        let items = schema.items.as_ref().and_then(below).map(Box::new);
        let none = rules.is_empty() && properties.is_empty() && additional.is_none() && items.is_none();
        (!none).then(|| Self { schema: Arc::clone(schema), root, rules, properties, additional, items })
    }

    /// The errors of a new value, or of a changed one. Rules that compare with the old value hold on create,
    /// unless they ask for an optional one; what is wrong in parts that did not change is tolerated.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let mut pass = Pass { errors: ErrorList::new(), budget: BUDGET, spent: false };
        let unchanged = old.is_some_and(|old| old == new);
        pass.node(self, &Path::default(), new, old, old.map(|_| unchanged), true);
        pass.errors
    }
}

struct Pass {
    errors: ErrorList,
    budget: u64,
    /// The budget is used up: nothing more is checked.
    spent: bool,
}

impl Pass {
    /// `unchanged` is whether the nearest value whose old value is known equals that; `None` if none is known.
    fn node(
        &mut self,
        rules: &Rules,
        path: &Path,
        new: &Value,
        old: Option<&Value>,
        unchanged: Option<bool>,
        top: bool,
    ) {
        if self.spent || new.is_null() {
            return;
        }
        let old = old.filter(|o| !o.is_null());
        if !rules.rules.is_empty() {
            self.expressions(rules, path, new, old, unchanged == Some(true));
        }
        match new {
            Value::Object(members) => {
                // The parts of an atomic map are not told apart.
                let correlatable = !rules.schema.atomic;
                for (name, member) in members {
                    let (below, at) = match (rules.properties.get(name), &rules.additional) {
                        (Some(below), _) => (below, path.child(name)),
                        (None, Some(below)) if !rules.schema.properties.contains_key(name) => {
                            (&**below, path.key(name))
                        }
                        _ => continue,
                    };
                    let before = old.and_then(|o| o.get(name));
                    let type_meta = top && matches!(name.as_str(), "apiVersion" | "kind");
                    let same = match before {
                        _ if type_meta => None,
                        Some(before) => Some(before == member),
                        None => unchanged,
                    };
                    self.node(below, &at, member, before.filter(|_| correlatable), same, false);
                }
            }
            Value::Array(elements) => {
                let Some(below) = &rules.items else { return };
                for (index, element) in elements.iter().enumerate() {
                    let before = old.and_then(|o| same_element(&rules.schema, o, element));
                    let same = before.map_or(unchanged, |before| Some(before == element));
                    self.node(below, &path.index(index), element, before, same, false);
                }
            }
            _ => {}
        }
    }

    fn expressions(&mut self, rules: &Rules, path: &Path, new: &Value, old: Option<&Value>, unchanged: bool) {
        let kind = type_word(&rules.schema);
        let this = from_json(new, Some(&rules.schema), rules.root);
        let before = old.map(|old| from_json(old, Some(&rules.schema), rules.root));
        for (rule, program) in &rules.rules {
            let program = match program {
                Ok(program) => program,
                Err(why) => {
                    self.errors.push(Error::invalid(path, kind, format!("rule compile error: {why}")));
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
            if run.cost > CALL_LIMIT || matches!(&result, Err(why) if why == TOO_EXPENSIVE) {
                let detail = format!(
                    "'{TOO_EXPENSIVE}': no further validation rules will be run due to call cost exceeds limit for \
                     rule: {}",
                    named(rule)
                );
                self.errors.push(Error::invalid(path, kind, detail));
                self.spent = true;
                return;
            }
            if run.cost > self.budget {
                let detail = "validation failed due to running out of cost budget, no further validation rules \
                              will be run";
                self.errors.push(Error::invalid(path, kind, detail));
                self.spent = true;
                return;
            }
            self.budget -= run.cost;
            match result {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => {
                    if unchanged && !program.uses_old_self {
                        continue;
                    }
                    let detail = self.message(rule, program, &scope);
                    self.errors.push(failure(path, &rules.schema, new, rule, program, detail));
                }
                Ok(_) => {
                    self.errors.push(Error::invalid(path, kind, overload_detail("no such overload", rule)));
                }
                Err(why) if why.starts_with("no such overload") => {
                    self.errors.push(Error::invalid(path, kind, overload_detail(&why, rule)));
                }
                Err(why) => {
                    self.errors.push(Error::invalid(
                        path,
                        kind,
                        format!("{why} evaluating rule: {}", named(rule)),
                    ));
                }
            }
        }
    }

    /// What to say about a rule that does not hold.
    fn message(&mut self, rule: &ValidationRule, program: &Program, scope: &Scope<'_>) -> String {
        if let Some(expr) = &program.message {
            let mut run = Run::default();
            let result = run.eval(expr, scope);
            self.budget = self.budget.saturating_sub(run.cost);
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

fn same_element<'a>(schema: &Schema, old: &'a Value, element: &Value) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list_type else { return None };
    old.as_array()?.iter().find(|o| !keys.is_empty() && keys.iter().all(|key| o.get(key) == element.get(key)))
}

#[cfg(test)]
mod tests;
