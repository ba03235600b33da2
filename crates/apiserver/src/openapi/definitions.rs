//! The schemas that documents refer to by name: those of the built-in kinds, in the words of the embedded OpenAPI
//! document, and those of custom kinds, made from their definitions.

use super::custom::{self, Dialect};
use super::descriptions::Descriptions;
use super::names::{COMPONENTS, LIST_META, OBJECT_META, custom_name};
use crate::catalog::{Kinds, Row};
use fleetpass_apimachinery::gvk::GroupVersionKind;
use fleetpass_schema::openapi::DOCUMENT;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// The types of API machinery that no kind refers to, but operations do.
const MACHINERY: &str = include_str!("../../data/openapi-machinery.json");

/// The definitions of the built-in kinds and of some custom kinds. Nothing is parsed before it is asked for.
pub(super) struct Definitions<'a> {
    builtin: &'static Builtin,
    /// The definition of each custom kind and of each kind of list.
    names: HashMap<GroupVersionKind, String>,
    custom: BTreeMap<String, Custom<'a>>,
}

/// What is the same for all documents.
struct Builtin {
    /// Unparsed, by name.
    definitions: BTreeMap<&'static str, &'static RawValue>,
    /// The definition of each kind, and of each kind of list.
    names: HashMap<GroupVersionKind, &'static str>,
    descriptions: Descriptions,
}

/// Read once, and kept: a document is made at each change of a CRD, and the embedded text is many times larger than most CRDs.
static BUILTIN: LazyLock<serde_json::Result<Builtin>> = LazyLock::new(Builtin::read);

impl Builtin {
    fn read() -> serde_json::Result<Self> {
        let mut definitions: BTreeMap<&str, &RawValue> = serde_json::from_str(DOCUMENT)?;
        definitions.append(&mut serde_json::from_str(MACHINERY)?);
        // Only the extension with the kinds is read of each definition. The rest stays text until `get` asks for
        // it: most documents need a few of hundreds.
        let mut names = HashMap::new();
        for (name, definition) in &definitions {
            for Kind { group, version, kind } in serde_json::from_str::<Extension>(definition.get())?.kinds {
                names.insert(GroupVersionKind { group, version, kind }, *name);
            }
        }
        Ok(Self { definitions, names, descriptions: Descriptions::load() })
    }
}

/// A custom kind, or its list, in one version.
struct Custom<'a> {
    row: &'a Row,
    version: &'a str,
    list: bool,
}

/// What a definition says of the kinds that it is the schema of.
#[derive(Deserialize)]
struct Extension {
    #[serde(rename = "x-kubernetes-group-version-kind", default)]
    kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

impl<'a> Definitions<'a> {
    /// Those of the embedded documents and of the custom kinds among `rows`.
    ///
    /// # Errors
    /// If an embedded document is no JSON, which the tests rule out.
    pub(super) fn new(rows: impl Iterator<Item = &'a Arc<Row>>) -> serde_json::Result<Self> {
        let builtin = BUILTIN.as_ref().map_err(serde::de::Error::custom)?;
        let (mut names, mut custom) = (HashMap::new(), BTreeMap::new());
        for row in rows.filter(|row| row.resource.custom) {
            for version in &row.resource.versions {
                for (kind, list) in [(&row.resource.kind, false), (&row.resource.list_kind, true)] {
                    let gvk = GroupVersionKind::new(&row.resource.group, &version.name, kind);
                    let name = custom_name(&gvk);
                    names.insert(gvk, name.clone());
                    custom.insert(name, Custom { row: row.as_ref(), version: &version.name, list });
                }
            }
        }
        Ok(Self { builtin, names, custom })
    }

    /// The name of a kind's definition.
    pub(super) fn of_kind(&self, gvk: &GroupVersionKind) -> Option<String> {
        let custom = self.names.get(gvk).cloned();
        custom.or_else(|| self.builtin.names.get(gvk).map(|name| (*name).to_string()))
    }

    /// The names of all definitions that can be reached from some.
    pub(super) fn closure<'n>(&self, from: impl Iterator<Item = &'n str>) -> BTreeSet<String> {
        let mut todo: Vec<String> = from.map(str::to_string).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = todo.pop() {
            // Each definition is followed once; schemas may refer to each other in circles.
            if seen.contains(&name) {
                continue;
            }
            match (self.builtin.definitions.get(name.as_str()), self.custom.get(&name)) {
                (Some(raw), _) => todo.extend(references(raw.get()).map(str::to_string)),
                (None, Some(custom)) => {
                    // A custom kind's schema refers to nothing but metadata, and its list to the kind.
                    todo.extend([OBJECT_META, LIST_META].map(str::to_string));
                    let gvk = GroupVersionKind::new(
                        &custom.row.resource.group,
                        custom.version,
                        &custom.row.resource.kind,
                    );
                    todo.extend(self.of_kind(&gvk));
                }
                (None, None) => continue,
            }
            seen.insert(name);
        }
        seen
    }

    /// A definition with descriptions, written for OpenAPI 3.0; what a dialect cannot express of a custom kind is
    /// left out.
    ///
    /// # Errors
    /// If the embedded document is no JSON, which the tests rule out.
    pub(super) fn get(&self, name: &str, dialect: Dialect) -> serde_json::Result<Option<Value>> {
        let mut definition = match (self.builtin.definitions.get(name), self.custom.get(name)) {
            (Some(raw), _) => serde_json::from_str(raw.get())?,
            (None, Some(custom)) => custom_definition(custom, dialect),
            (None, None) => return Ok(None),
        };
        // Also for custom kinds: the ones that come with this server have descriptions in the table.
        self.builtin.descriptions.fill_in(name, &mut definition);
        Ok(Some(definition))
    }
}

fn custom_definition(custom: &Custom<'_>, dialect: Dialect) -> Value {
    let resource = &custom.row.resource;
    if custom.list {
        return custom::list(resource, custom.version);
    }
    let Some(version) = custom.row.version(custom.version) else { return Value::Object(Map::new()) };
    custom::object(resource, version, dialect)
}

/// The definitions that a definition's text refers to. Found in the text, without parsing it: the embedded document is ours,
/// and has this prefix in references only.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split(COMPONENTS).skip(1).filter_map(|rest| rest.split('"').next())
}

/// The rows that a table's version of a group consists of, by plural name.
pub(super) fn rows_of<'t>(
    kinds: &'t Kinds,
    group: &'t str,
    version: &'t str,
) -> impl Iterator<Item = &'t Arc<Row>> {
    kinds.group(group).filter(move |row| row.version(version).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_embedded_documents_resolves() {
        let definitions = Definitions::new(std::iter::empty()).expect("embedded documents");
        for (name, raw) in &definitions.builtin.definitions {
            for target in references(raw.get()) {
                assert!(definitions.builtin.definitions.contains_key(target), "{name} refers to {target}");
            }
        }
        let reached = definitions.closure(["io.k8s.api.core.v1.SecretList"].into_iter());
        assert!(reached.contains(OBJECT_META) && reached.contains("io.k8s.api.core.v1.Secret"));
        assert!(!reached.contains("io.k8s.api.core.v1.PodSpec"));
    }
}
