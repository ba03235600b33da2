//! Which crate may need which.

use super::Finding;
use super::tree::{Crate, Structure};
use std::collections::HashMap;

/// What tells where the table is.
const TABLE: &str = "Cargo.toml";

/// The crates and dependencies that contradict the table, and the lines of the table that are about no crate.
pub(super) fn check(structure: &Structure, crates: &[Crate]) -> Vec<Finding> {
    let mut layer_of = HashMap::new();
    let mut findings = Vec::new();
    for (layer, name) in
        structure.layers.iter().enumerate().flat_map(|(n, names)| names.iter().map(move |m| (n, m)))
    {
        if layer_of.insert(name.as_str(), layer).is_some() {
            findings.push(in_table(structure, name, format!("{name} is in two layers; leave it in one")));
        }
        if !crates.iter().any(|krate| krate.name == *name) {
            findings.push(in_table(
                structure,
                name,
                format!("there is no crate {name}; take it off the table"),
            ));
        }
    }
    for name in structure.apart.iter().flat_map(|apart| apart.crates.iter().chain(&apart.from)) {
        if !layer_of.contains_key(name.as_str()) {
            findings.push(in_table(
                structure,
                name,
                format!("{name} is in no layer; name a crate that is in one"),
            ));
        }
    }
    for krate in crates {
        match layer_of.get(krate.name.as_str()) {
            Some(layer) => findings.extend(check_needs(structure, krate, *layer, &layer_of)),
            None => findings.push(Finding {
                file: krate.manifest.clone(),
                line: 1,
                message: format!(
                    "{} is in no layer; add it to `layers` in [workspace.metadata.structure] of the root Cargo.toml",
                    krate.name
                ),
            }),
        }
    }
    findings
}

/// The dependencies of one crate that it must not have.
fn check_needs(
    structure: &Structure,
    krate: &Crate,
    layer: usize,
    layer_of: &HashMap<&str, usize>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line, message| findings.push(Finding { file: krate.manifest.clone(), line, message });
    for need in &krate.needs {
        let (name, needed) = (&krate.name, &need.name);
        // One that is in no layer is found by itself.
        if layer_of.get(needed.as_str()).is_some_and(|needed| *needed >= layer) {
            found(
                need.line,
                format!(
                    "{name} must not need {needed}, which is not in a lower layer; move what both need down, or let \
                     {needed} need {name}"
                ),
            );
        }
        let apart =
            structure.apart.iter().find(|apart| apart.crates.contains(name) && apart.from.contains(needed));
        if let Some(apart) = apart {
            found(need.line, format!("{name} must not need {needed}: {}", apart.reason));
        }
    }
    findings
}

/// A finding about the line of the table that names a crate.
fn in_table(structure: &Structure, name: &str, message: String) -> Finding {
    let quoted = format!("\"{name}\"");
    let table =
        structure.manifest.lines().position(|line| line.starts_with("[workspace.metadata")).unwrap_or(0);
    let line = structure.manifest.lines().skip(table).position(|line| line.contains(&quoted)).unwrap_or(0);
    Finding { file: TABLE.into(), line: table + line + 1, message }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Apart, Need};
    use super::*;

    fn krate(name: &str, needs: &[&str]) -> Crate {
        let needs = needs.iter().enumerate();
        let needs = needs.map(|(index, name)| Need { name: (*name).into(), line: 10 + index }).collect();
        Crate { name: name.into(), manifest: format!("{name}/Cargo.toml"), needs, ..Crate::default() }
    }

    fn structure(layers: &[&[&str]]) -> Structure {
        let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Structure {
            layers: layers.iter().map(owned).collect(),
            manifest: "a = \"gone\"\n[workspace.metadata.structure]\nlayers = [\n\"gone\"\n]".into(),
            ..Structure::default()
        }
    }

    fn found(structure: &Structure, crates: &[Crate]) -> Vec<String> {
        check(structure, crates).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_crate_needs_lower_layers_only() {
        let structure = structure(&[&["api"], &["store", "token"], &["server"]]);
        let crates = [
            krate("api", &[]),
            krate("store", &["api"]),
            krate("token", &["api"]),
            krate("server", &["api", "token"]),
        ];
        assert_eq!(found(&structure, &crates), Vec::<String>::new());
        let crates = [
            krate("api", &["server"]),
            krate("store", &["api", "token"]),
            krate("token", &[]),
            krate("server", &[]),
        ];
        assert_eq!(
            found(&structure, &crates),
            [
                "api/Cargo.toml:10: api must not need server, which is not in a lower layer; move what both need \
                 down, or let server need api",
                "store/Cargo.toml:11: store must not need token, which is not in a lower layer; move what both need \
                 down, or let token need store",
            ]
        );
    }

    #[test]
    fn crates_that_have_to_be_apart_are() {
        let mut structure = structure(&[&["server"], &["agent"], &["cli"]]);
        let names = |name: &str| vec![name.to_owned()];
        structure.apart = vec![Apart {
            crates: names("agent"),
            from: names("server"),
            reason: "it knows no server".into(),
        }];
        let crates = [krate("server", &[]), krate("agent", &["server"]), krate("cli", &["server", "agent"])];
        assert_eq!(
            found(&structure, &crates),
            ["agent/Cargo.toml:10: agent must not need server: it knows no server"]
        );
    }

    #[test]
    fn table_and_tree_name_the_same_crates() {
        let structure = structure(&[&["api"], &["gone"], &["api"]]);
        let crates = [krate("api", &[]), krate("new", &["api"])];
        assert_eq!(
            found(&structure, &crates),
            [
                "Cargo.toml:4: there is no crate gone; take it off the table",
                "Cargo.toml:2: api is in two layers; leave it in one",
                "new/Cargo.toml:1: new is in no layer; add it to `layers` in [workspace.metadata.structure] of the \
                 root Cargo.toml",
            ]
        );
    }
}
