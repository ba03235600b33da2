//! What is known of all definitions, and what an event of one of them changes in it. No I/O, no locks.

use crate::catalog::Row;
use crate::resources::customresourcedefinitions::{GrantedNames, accepted_names, requested_names};
use crate::resources::customresources::{Definition, row_of};
use crate::strategy::Resource;
use fleetpass_apimachinery::meta;
use fleetpass_store::Revision;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One definition as it was last seen.
pub(super) struct Known {
    pub(super) definition: Definition,
    /// Objects written at this revision or later were pruned and defaulted by the present schemas and look the same in every
    /// version, so their stored bytes can be served as they are. `Revision::MAX`: none, since versions differ.
    uniform_since: Revision,
    /// The row of the catalog; `None` if it is not established, or is one that cannot be served.
    pub(super) row: Option<Arc<Row>>,
}

impl Known {
    /// Reads a definition that was written at `revision`. What is as it was `before` is shared with it.
    ///
    /// # Errors
    /// If the text is no definition.
    pub(super) fn read(text: &[u8], revision: Revision, before: Option<&Self>) -> serde_json::Result<Self> {
        let definition = Definition::read(text, before.map(|known| &known.definition))?;
        // A change of the status or of labels leaves the stored form of objects as it is.
        let unchanged = before.filter(|known| definition.has_spec_of(&known.definition));
        let uniform_since = match unchanged {
            Some(known) => known.uniform_since,
            None if definition.versions_agree() => revision,
            None => Revision::MAX,
        };
        // The row shows nothing of the metadata.
        let same = unchanged.filter(|known| known.outline()["status"] == definition.outline["status"]);
        let row = match same {
            Some(known) => known.row.clone(),
            None => served(&definition, uniform_since),
        };
        Ok(Self { definition, uniform_since, row })
    }

    /// The definition without its schemas.
    pub(super) fn outline(&self) -> &Value {
        &self.definition.outline
    }

    fn are_names_accepted(&self) -> bool {
        meta::list(self.outline(), &["status", "conditions"])
            .iter()
            .any(|c| c["type"] == "NamesAccepted" && c["status"] == "True")
    }
}

fn served(definition: &Definition, uniform_since: Revision) -> Option<Arc<Row>> {
    match row_of(definition) {
        Ok(row) => row.map(|row| Arc::new(Row::new(Resource { uniform_since, ..row }))),
        Err(why) => {
            let name = meta::name(&definition.outline);
            tracing::warn!(name, why, "a CustomResourceDefinition cannot be served");
            None
        }
    }
}

/// All definitions, and what follows from all of them together.
#[derive(Default)]
pub(super) struct State {
    known: BTreeMap<String, Arc<Known>>,
    pub(super) names: GrantedNames,
    /// Group, name and definition, of definitions that ask for names and have not been granted all of them: when somebody
    /// else lets go of one, they are looked at again.
    refused: BTreeSet<(String, String, String)>,
}

impl State {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Known>> {
        self.known.get(name)
    }

    /// Takes in what is known of a definition now; `None` if it is gone. Gives the definitions that have to be looked at
    /// because of that, itself among them. It costs time for the names of the one definition, and for those that it gives.
    pub(super) fn change(&mut self, name: &str, now: Option<Arc<Known>>) -> BTreeSet<String> {
        let before = match &now {
            Some(now) => self.known.insert(name.into(), Arc::clone(now)),
            None => self.known.remove(name),
        };
        let mut due = BTreeSet::from([name.to_string()]);
        if let Some(before) = &before {
            self.names.remove(before.outline());
            refused(name, before).for_each(|entry| {
                self.refused.remove(&entry);
            });
        }
        if let Some(now) = &now {
            self.names.add(now.outline());
            self.refused.extend(refused(name, now));
        }
        let Some(before) = before else { return due };
        let group = meta::text(before.outline(), &["spec", "group"]);
        let kept: BTreeSet<&str> = now.iter().flat_map(|now| accepted_names(now.outline())).collect();
        for free in accepted_names(before.outline()).filter(|name| !kept.contains(name)) {
            let from = (group.to_string(), free.to_string(), String::new());
            let waiting = self.refused.range(from..).take_while(|(g, n, _)| g == group && n == free);
            due.extend(waiting.map(|(_, _, definition)| definition.clone()));
        }
        due
    }
}

/// The entries of [`State::refused`] for a definition.
fn refused<'a>(name: &'a str, known: &'a Known) -> impl Iterator<Item = (String, String, String)> + 'a {
    let group = meta::text(known.outline(), &["spec", "group"]);
    let waits = !known.are_names_accepted();
    let wanted = waits.then(|| requested_names(known.outline())).into_iter().flatten();
    wanted.map(move |wanted| (group.to_string(), wanted.to_string(), name.to_string()))
}
