//! The `pub` items of a library that nobody but the library itself uses: they should be `pub(crate)`, so that readers, and
//! the compiler's warnings of unused code, know that they may change.
//!
//! Names are compared as words, without resolving them. An item counts as used if its name occurs in the code of another
//! crate, of a program, test, example or benchmark, or of an example in documentation, or in what another item that is used
//! shows of itself. So what is found is unused; an unused item with a common name is not found.

mod items;
mod lexer;
mod uses;

use super::Finding;
use super::tree::{Crate, Source, Tree};
use items::Declarations;
use std::collections::HashSet;

/// What of a source file matters to other files.
struct File<'a> {
    path: &'a str,
    /// The library, as an index of the crates, that the file is part of.
    library: Option<usize>,
    names: HashSet<&'a str>,
    /// The names in the examples of its documentation, which use the library from outside.
    examples: HashSet<String>,
    declares: Declarations<'a>,
}

/// The unused items of each crate that has a library.
pub(super) fn check(tree: &Tree) -> Vec<(String, Vec<Finding>)> {
    let files: Vec<File<'_>> = tree.sources.iter().map(|source| File::read(source, &tree.crates)).collect();
    let libraries = tree.crates.iter().enumerate().filter(|(_, krate)| krate.library.is_some());
    libraries.map(|(index, krate)| (krate.name.clone(), unused(index, &files))).collect()
}

impl<'a> File<'a> {
    fn read(source: &'a Source, crates: &[Crate]) -> Self {
        let tokens = lexer::tokens(&source.text);
        let examples = uses::examples(&tokens);
        let owned = uses::in_code(&lexer::tokens(&examples)).into_iter().map(str::to_owned).collect();
        Self {
            path: &source.path,
            library: crates.iter().position(|krate| is_of_library(krate, &source.path)),
            names: uses::in_code(&tokens),
            examples: owned,
            declares: items::read(&tokens),
        }
    }
}

/// Whether a file is part of the library of a crate. The crate's programs, which are in the same folder, are not.
fn is_of_library(krate: &Crate, path: &str) -> bool {
    let library = krate.library.as_deref().and_then(|folder| path.strip_prefix(folder)?.strip_prefix('/'));
    library.is_some_and(|inside| !inside.starts_with("bin/"))
        && !krate.programs.iter().any(|program| program == path)
}

/// The items of one library that nobody else uses.
fn unused(library: usize, files: &[File<'_>]) -> Vec<Finding> {
    let (own, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.library == Some(library));
    let mut used: HashSet<&str> = HashSet::new();
    for file in &others {
        used.extend(&file.names);
    }
    for file in &own {
        used.extend(file.examples.iter().map(String::as_str));
        used.extend(&file.declares.needed);
    }
    let mut unsettled: Vec<_> =
        own.iter().flat_map(|file| file.declares.items.iter().map(|item| (file.path, item))).collect();
    let declared: HashSet<&str> = unsettled.iter().map(|(_, item)| item.name).collect();
    // A method is used only if its type is. What a used item shows is used, and so on until nothing is added.
    let unused_owner = |used: &HashSet<&str>, owner: Option<&str>| {
        owner.is_some_and(|owner| declared.contains(owner) && !used.contains(owner))
    };
    loop {
        let before = unsettled.len();
        unsettled.retain(|(_, item)| {
            let is_used = used.contains(item.name) && !unused_owner(&used, item.owner);
            if is_used {
                used.extend(&item.shows);
            }
            !is_used
        });
        if unsettled.len() == before {
            break;
        }
    }
    // Once a type is `pub(crate)` the compiler names its methods.
    unsettled.retain(|(_, item)| !unused_owner(&used, item.owner));
    let finding = |(path, item): (&str, &items::Item<'_>)| Finding {
        file: path.to_owned(),
        line: item.line,
        message: format!("{} is pub but nobody outside the crate uses it; make it pub(crate)", item.name),
    };
    unsettled.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::Structure;
    use super::*;

    /// The unused items of the library in `lib/src`.
    fn found(sources: &[(&str, &str)]) -> Vec<String> {
        let library = Crate {
            name: "lib".into(),
            library: Some("lib/src".into()),
            programs: vec!["lib/src/main.rs".into()],
            ..Crate::default()
        };
        let program = Crate { name: "program".into(), ..Crate::default() };
        let source = |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
        let tree = Tree {
            structure: Structure::default(),
            crates: vec![program, library],
            sources: sources.iter().map(source).collect(),
        };
        let found = check(&tree);
        assert_eq!(found.len(), 1, "only one crate has a library");
        found[0]
            .1
            .iter()
            .map(|finding| format!("{}:{}: {}", finding.file, finding.line, name(finding)))
            .collect()
    }

    fn name(finding: &Finding) -> &str {
        finding.message.split(' ').next().unwrap_or_default()
    }

    #[test]
    fn what_only_the_library_uses_is_found() {
        let lib = "pub fn used() {}\npub fn unused() { used() }\nmod tests { fn f() { unused() } }";
        assert_eq!(
            found(&[("lib/src/lib.rs", lib), ("program/src/main.rs", "fn main() { lib::used() }")]),
            ["lib/src/lib.rs:2: unused"]
        );
    }

    #[test]
    fn programs_tests_and_examples_of_the_crate_are_outside() {
        let lib = "/// ```\n/// lib::a();\n/// ```\npub fn a() {}\npub fn b() {}\npub fn c() {}\npub fn d() {}\npub fn e() {}";
        assert_eq!(
            found(&[
                ("lib/src/lib.rs", lib),
                ("lib/src/bin/x.rs", "fn main() { lib::b() }"),
                ("lib/src/main.rs", "fn main() { lib::c() }"),
                ("lib/tests/t.rs", "fn t() { lib::d() }"),
                ("lib/src/other.rs", "// fn e\nfn f() { crate::e() }"),
            ]),
            ["lib/src/lib.rs:8: e"]
        );
    }

    #[test]
    fn what_a_used_item_shows_is_used() {
        let lib = "pub fn f(a: Argument) -> Answer {}\npub struct Argument;\npub struct Answer { pub part: Part, rest: Rest }\n\
                   pub struct Part;\npub struct Rest;\npub fn g() -> Other {}\npub struct Other;";
        assert_eq!(
            found(&[("lib/src/lib.rs", lib), ("program/src/main.rs", "fn main() { lib::f() }")]),
            ["lib/src/lib.rs:5: Rest", "lib/src/lib.rs:6: g", "lib/src/lib.rs:7: Other"]
        );
    }

    #[test]
    fn a_method_is_used_if_its_type_is() {
        let lib = "pub struct A;\nimpl A {\npub fn new() -> C {}\npub fn unused() {}\n}\n\
                   pub struct B;\nimpl B { pub fn new() -> D {} }\npub struct C;\npub struct D;";
        assert_eq!(
            found(&[("lib/src/lib.rs", lib), ("program/src/main.rs", "fn main() { lib::A::new() }")]),
            ["lib/src/lib.rs:4: unused", "lib/src/lib.rs:6: B", "lib/src/lib.rs:9: D"]
        );
    }

    #[test]
    fn an_alias_uses_what_it_stands_for() {
        let lib = "pub use inner::{A as B, C};\nmod inner;";
        let inner = "pub struct A;\npub struct C;";
        assert_eq!(
            found(&[
                ("lib/src/inner.rs", inner),
                ("lib/src/lib.rs", lib),
                ("program/src/main.rs", "use lib::B;"),
            ]),
            ["lib/src/inner.rs:2: C", "lib/src/lib.rs:1: C"]
        );
    }
}
