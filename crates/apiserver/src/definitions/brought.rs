//! CRDs that the server brings along: brought up to date at each start, but for what an operator may have changed of how
//! `kubectl` shows them.

use fleetpass_apimachinery::meta;
use serde_json::Value;

/// Annotation of a definition that the server brings along: what its columns and short names were when the server wrote
/// them, as a hash. So a start can tell those that an operator changed, which stay, from those of an earlier version of the
/// program, which are renewed.
const SHOWN_AS: &str = "fleetpass.io/shown-as";
/// The members of `spec.names` that only make a kind easier to ask for.
const HANDY_NAMES: [&str; 2] = ["shortNames", "categories"];
/// The columns of a version.
const COLUMNS: &str = "additionalPrinterColumns";

/// What has to be written so that a CRD that the server brings along has the desired spec; `None` if it has. Labels, status and
/// whatever else was added to it stay, and columns, short names and categories that are not as a server of ours wrote them.
pub(crate) fn updated_spec(existing: Option<&Value>, desired: &Value) -> Option<Value> {
    let Some(existing) = existing else {
        let mut created = desired.clone();
        note(&mut created, shown_as(&desired["spec"]));
        return Some(created);
    };
    let mut wanted = existing.clone();
    for (name, value) in desired["spec"].as_object()? {
        wanted["spec"][name.as_str()] = value.clone();
    }
    // Without a note it is of a version that had neither columns nor short names.
    let written = meta::text(existing, &["metadata", "annotations", SHOWN_AS]);
    let untouched = if written.is_empty() { shown_as(&Value::Null) } else { written.to_owned() };
    if shown_as(&existing["spec"]) == untouched {
        note(&mut wanted, shown_as(&desired["spec"]));
    } else {
        keep_shown(&mut wanted["spec"], &existing["spec"]);
    }
    // Compared after defaulting, since what is stored was defaulted: otherwise every start would write.
    let mut defaulted = wanted.clone();
    if let Some(strategy) = crate::resources::customresourcedefinitions::resource().strategy() {
        strategy.default(&mut defaulted);
    }
    let same = |member: &str| meta::same(Some(&defaulted[member]), Some(&existing[member]));
    (!(same("spec") && same("metadata"))).then_some(wanted)
}

fn note(definition: &mut Value, shown: String) {
    // Nothing to show is what a definition without a note is taken for.
    if shown != shown_as(&Value::Null) {
        definition["metadata"]["annotations"][SHOWN_AS] = shown.into();
    }
}

/// Puts the columns and handy names of `existing` into `spec`.
fn keep_shown(spec: &mut Value, existing: &Value) {
    let put =
        |target: &mut Value, source: &Value, member: &str| match (target.as_object_mut(), source.get(member))
        {
            (Some(target), Some(value)) => drop(target.insert(member.to_owned(), value.clone())),
            (Some(target), None) => drop(target.remove(member)),
            (None, _) => {}
        };
    for member in HANDY_NAMES {
        put(&mut spec["names"], &existing["names"], member);
    }
    let versions = |spec: &Value| spec["versions"].as_array().cloned().unwrap_or_default();
    let before = versions(existing);
    for version in spec["versions"].as_array_mut().into_iter().flatten() {
        // A version that is new comes as it is brought.
        if let Some(before) = before.iter().find(|before| before["name"] == version["name"]) {
            put(version, before, COLUMNS);
        }
    }
}

/// A hash of what an operator may change: 64 bits of FNV-1a, the same in every version of the program. It tells a change from
/// none, and guards nothing: whoever may write the annotation may write the columns.
fn shown_as(spec: &Value) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for member in HANDY_NAMES {
        for name in spec["names"][member].as_array().into_iter().flatten() {
            add(member);
            add(name.as_str().unwrap_or_default());
        }
    }
    for version in spec["versions"].as_array().into_iter().flatten() {
        for column in version[COLUMNS].as_array().into_iter().flatten() {
            // One after the other, so that it is the same whatever the order of members is; a priority of 0 may be left out.
            add(meta::text(version, &["name"]));
            for member in ["name", "type", "format", "description", "jsonPath"] {
                add(meta::text(column, &[member]));
            }
            add(&column["priority"].as_i64().unwrap_or(0).to_string());
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn column(name: &str) -> Value {
        json!({"name": name, "type": "string", "jsonPath": ".spec.x"})
    }

    fn brought(columns: &[&str]) -> Value {
        let columns: Vec<Value> = columns.iter().map(|name| column(name)).collect();
        json!({"metadata": {"name": "as.g"}, "spec": {"group": "g", "scope": "Namespaced",
            "names": {"plural": "as", "kind": "A", "shortNames": ["a"]},
            "versions": [{"name": "v1", "served": true, "storage": true, COLUMNS: columns}]}})
    }

    /// As the store has it.
    fn stored(mut definition: Value) -> Value {
        definition["metadata"]["uid"] = "u".into();
        definition["status"] = json!({"conditions": []});
        if let Some(strategy) = crate::resources::customresourcedefinitions::resource().strategy() {
            strategy.default(&mut definition);
        }
        definition
    }

    #[test]
    fn what_is_up_to_date_is_not_written() {
        let created = stored(updated_spec(None, &brought(&["One"])).expect("it is missing"));
        assert_eq!(updated_spec(Some(&created), &brought(&["One"])), None);
    }

    #[test]
    fn columns_of_an_earlier_version_are_renewed_and_an_operators_stay() {
        let first = stored(updated_spec(None, &brought(&["One"])).expect("it is missing"));
        let second = stored(updated_spec(Some(&first), &brought(&["One", "Two"])).expect("two columns"));
        assert_eq!(second["spec"]["versions"][0][COLUMNS].as_array().map(Vec::len), Some(2));
        assert_eq!(second["metadata"]["uid"], "u");

        type Change = fn(&mut Value);
        let changes: [Change; 4] = [
            |spec| spec["versions"][0][COLUMNS] = json!([column("Mine")]),
            |spec| drop(spec["versions"][0].as_object_mut().and_then(|version| version.remove(COLUMNS))),
            |spec| spec["names"]["shortNames"] = json!([]),
            |spec| spec["names"]["categories"] = json!(["all"]),
        ];
        for change in changes {
            let mut edited = second.clone();
            change(&mut edited["spec"]);
            for desired in [brought(&["One", "Two"]), brought(&["Three"])] {
                assert_eq!(updated_spec(Some(&edited), &desired), None, "the operator's stay");
            }
            let mut other = brought(&["Three"]);
            other["spec"]["versions"][0]["served"] = false.into();
            let renewed = updated_spec(Some(&edited), &other).expect("another spec");
            assert_eq!(renewed["spec"]["versions"][0]["served"], false);
            assert_eq!(shown_as(&renewed["spec"]), shown_as(&edited["spec"]), "{}", edited["spec"]);
        }
    }

    #[test]
    fn a_definition_from_before_the_columns_gets_them_unless_somebody_made_others() {
        let mut before = stored(brought(&[]));
        before["spec"]["names"].as_object_mut().expect("names").remove("shortNames");
        let renewed = updated_spec(Some(&before), &brought(&["One"])).expect("columns");
        assert_eq!(renewed["spec"]["versions"][0][COLUMNS][0]["name"], "One");
        assert_eq!(renewed["spec"]["names"]["shortNames"], json!(["a"]));
        before["spec"]["versions"][0][COLUMNS] = json!([column("Mine")]);
        assert_eq!(updated_spec(Some(&before), &brought(&["One"])), None);
    }
}
