//! Which names a definition is granted, and what its conditions say of it (`pkg/controller/{status,establish}` of
//! apiextensions-apiserver).

use super::{Condition, set_condition};
use fleetpass_apimachinery::meta;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Group, name and the definition that has it.
type Granted = (String, String, String);

/// The names that definitions have been granted: who has a name is looked up, however many definitions there are.
#[derive(Debug, Default)]
pub struct GrantedNames {
    /// Plural, singular and short names.
    resources: BTreeSet<Granted>,
    /// The same for kinds and kinds of lists.
    kinds: BTreeSet<Granted>,
}

impl GrantedNames {
    /// Adds the names that a definition has been granted.
    pub fn add(&mut self, definition: &Value) {
        self.change(definition, |names, entry| {
            names.insert(entry);
        });
    }

    /// Takes out what [`GrantedNames::add`] has added for the same definition.
    pub(crate) fn remove(&mut self, definition: &Value) {
        self.change(definition, |names, entry| {
            names.remove(&entry);
        });
    }

    fn change(&mut self, definition: &Value, change: fn(&mut BTreeSet<Granted>, Granted)) {
        let accepted = &definition["status"]["acceptedNames"];
        let entry = |name: &str| {
            let group = meta::text(definition, &["spec", "group"]);
            (group.to_string(), name.to_string(), meta::name(definition).to_string())
        };
        resource_names(accepted).for_each(|name| change(&mut self.resources, entry(name)));
        kind_names(accepted).for_each(|name| change(&mut self.kinds, entry(name)));
    }
}

/// Whether a definition of `group` other than `definition` has `name`.
fn is_taken(names: &BTreeSet<Granted>, group: &str, name: &str, definition: &str) -> bool {
    let from = (group.to_string(), name.to_string(), String::new());
    let having = names.range(from..).take_while(|(g, n, _)| g == group && n == name);
    // Two at most are looked at: only one of them can be the definition itself.
    having.take(2).any(|(_, _, other)| other != definition)
}

/// The names that a definition has been granted.
pub(crate) fn accepted_names(definition: &Value) -> impl Iterator<Item = &str> {
    let accepted = &definition["status"]["acceptedNames"];
    resource_names(accepted).chain(kind_names(accepted))
}

/// The names that a definition asks for.
pub(crate) fn requested_names(definition: &Value) -> impl Iterator<Item = &str> {
    let requested = &definition["spec"]["names"];
    resource_names(requested).chain(kind_names(requested))
}

/// Plural, singular and short names, which must differ within a group; absent ones are empty, as in Go.
fn resource_names(names: &Value) -> impl Iterator<Item = &str> {
    [text(names, "plural"), text(names, "singular")].into_iter().chain(short_names(names))
}

fn kind_names(names: &Value) -> impl Iterator<Item = &str> {
    [text(names, "kind"), text(names, "listKind")].into_iter()
}

fn text<'a>(names: &'a Value, field: &str) -> &'a str {
    names[field].as_str().unwrap_or_default()
}

fn short_names(names: &Value) -> impl Iterator<Item = &str> {
    names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The status of a definition after its names were compared with those that all definitions have been `granted`, its own among
/// them; `None` if nothing changes. A definition whose names are all accepted is established. It costs time for its own names.
pub fn naming_conditions(definition: &Value, granted: &GrantedNames, now: Timestamp) -> Option<Value> {
    let (group, own) = (meta::text(definition, &["spec", "group"]), meta::name(definition));
    let requested = &definition["spec"]["names"];
    let accepted = &definition["status"]["acceptedNames"];
    // Its own names are taken, too; `accept_names` lets a definition keep what it has, but not have a name twice.
    let own_resources: BTreeSet<&str> = resource_names(accepted).collect();
    let own_kinds: BTreeSet<&str> = kind_names(accepted).collect();
    let (names, conflict) = accept_names(
        requested,
        accepted,
        &|name| own_resources.contains(name) || is_taken(&granted.resources, group, name, own),
        &|name| own_kinds.contains(name) || is_taken(&granted.kinds, group, name, own),
    );
    let mut status = definition.get("status").cloned().unwrap_or_else(|| json!({}));
    let old = status.clone();
    let members = meta::as_map_mut(&mut status);
    members.insert("acceptedNames".into(), names);
    let established = meta::list(definition, &["status", "conditions"])
        .iter()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    match conflict {
        Some((reason, message)) => {
            set_condition(members, Condition::new("NamesAccepted", false, reason, message), now);
            // Established is never taken back: there may be objects, and their kind is served under the names it
            // has.
            if !established {
                let refused =
                    Condition::new("Established", false, "NotAccepted", "not all names are accepted");
                set_condition(members, refused, now);
            }
        }
        None => {
            set_condition(
                members,
                Condition::new("NamesAccepted", true, "NoConflicts", "no conflicts found"),
                now,
            );
            if !established {
                // kube-apiserver has a second controller do this (`pkg/controller/establish`), after a pause for other
                // replicas to learn of the names. Here both conditions are set in one write.
                let message = "the initial names have been accepted";
                let done = Condition::new("Established", true, "InitialNamesAccepted", message);
                set_condition(members, done, now);
            }
        }
    }
    (status != old).then_some(status)
}

/// The names that are granted now, and the conflict to report, if any (`calculateNamesAndConditions` in
/// `pkg/controller/status/naming_controller.go`). Names without a conflict are granted whatever the others do.
fn accept_names(
    requested: &Value,
    accepted: &Value,
    resources: &dyn Fn(&str) -> bool,
    kinds: &dyn Fn(&str) -> bool,
) -> (Value, Option<(&'static str, String)>) {
    let mut names = meta::as_map_mut(&mut accepted.clone()).clone();
    let mut conflict = None;
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_string();
    let in_use = |name: &str| format!("{} is already in use", fleetpass_apimachinery::field::go_quote(name));
    let mut single = |field: &str, reason, names: &mut Map<String, Value>| {
        let (wanted, has) = (text(requested, field), text(accepted, field));
        if wanted != has && resources(&wanted) {
            conflict = Some((reason, in_use(&wanted)));
        } else {
            names.insert(field.into(), wanted.into());
        }
    };
    single("plural", "PluralConflict", &mut names);
    single("singular", "SingularConflict", &mut names);
    let (wanted, has) = (short_names(requested), short_names(accepted).collect::<BTreeSet<&str>>());
    let wanted: Vec<&str> = wanted.collect();
    let taken: Vec<String> =
        wanted.iter().filter(|n| !has.contains(*n) && resources(n)).map(|n| in_use(n)).collect();
    let mut short_conflict = None;
    match taken.as_slice() {
        [] if wanted.is_empty() => {
            names.remove("shortNames");
        }
        [] => {
            names.insert("shortNames".into(), wanted.into());
        }
        // One error is printed bare and several in brackets, as Go's `utilerrors.NewAggregate` does.
        [one] => short_conflict = Some(("ShortNamesConflict", one.clone())),
        many => short_conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    let mut kind_conflict = None;
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let (wanted, has) = (text(requested, field), text(accepted, field));
        if wanted != has && kinds(&wanted) {
            kind_conflict = Some((reason, in_use(&wanted)));
        } else {
            names.insert(field.into(), wanted.into());
        }
    }
    match requested.get("categories").filter(|c| c.as_array().is_some_and(|c| !c.is_empty())) {
        Some(categories) => names.insert("categories".into(), categories.clone()),
        None => names.remove("categories"),
    };
    // `plural` and `kind` are printed even when empty; these two have omitempty in Go.
    for field in ["singular", "listKind"] {
        if names.get(field).is_some_and(|n| n == "") {
            names.remove(field);
        }
    }
    // In Go each conflict overwrites the one before it: plural, singular, short names, kind, listKind.
    (names.into(), kind_conflict.or(short_conflict).or(conflict))
}
