//! Bodies in YAML.

use super::{Row, fill, joined, nested, repeated, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps?dryRun=All";
const DONE: &[u16] = &[201, 413, 422, 500];
const REFUSED: &[u16] = &[400];

fn config_map(name: &str, statuses: &'static [u16], body: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| request("POST", CONFIG_MAPS, "application/yaml", body(size)))
}

/// As [`config_map`], with something else in the unknown member `a`.
fn unknown(name: &str, statuses: &'static [u16], body: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    config_map(name, statuses, move |size| [HEAD.as_bytes(), &body(size - HEAD.len())].concat())
}

const HEAD: &str = "metadata: {name: a}\n";

pub(super) fn rows() -> Vec<Row> {
    [common(), references(), lines()].into_iter().flatten().collect()
}

fn common() -> Vec<Row> {
    vec![
        unknown("mappings in a list", DONE, |size| fill(size, "a: [", |_| "a: b".into(), "]\n")),
        unknown("short items", DONE, |size| fill(size, "a: [", |_| "a".into(), "]\n")),
        unknown("dashes", DONE, |size| repeated(size, "a:\n", "-\n", "")),
        unknown("many keys", DONE, |size| joined(size, "data:\n", |n| format!(" k{n}: v"), "\n", "\n")),
        unknown("many keys in braces", DONE, |size| fill(size, "a: {", |n| n.to_string(), "}\n")),
        unknown("one key many times", DONE, |size| repeated(size, "data:\n", " a: b\n", "")),
        unknown("one key many times in braces", DONE, |size| repeated(size, "a: {", "a,", "}\n")),
        unknown("keys of other types", DONE, |size| {
            fill(size, "a: {", |n| format!("{n}: 1, {n}.5: 2"), "}\n")
        }),
        unknown("long equal beginnings of keys", DONE, |size| {
            joined(size, "data:\n", |n| format!(" {}{n}: v", "k".repeat(900)), "\n", "\n")
        }),
        unknown("a long key", DONE, |size| repeated(size, "? ", "k", "\n: v\n")),
        unknown("a long key that is none", REFUSED, |size| repeated(size, "", "k", ": v\n")),
        unknown("aliases of a short scalar", &[201, 400], |size| {
            fill(size, "a: &a x\nb: [", |_| "*a".into(), "]\n")
        }),
        unknown("aliases of a long scalar", &[201, 400], |size| {
            let head = format!("a: &a {}\nb: [", "x".repeat(size / 2));
            fill(size, &head, |_| "*a".into(), "]\n")
        }),
        unknown("aliases as keys", &[201, 400], |size| {
            let head = format!("? &a {}\n: b\n", "x".repeat(size / 2));
            joined(size, &head, |_| "*a : c".into(), "\n", "\n")
        }),
        unknown("aliases beside as many scalars", DONE, |size| {
            fill(size, "a: &a x\nb: [", |_| "*a, x, x, x, x, x, x, x, x, x, x, x".into(), "]\n")
        }),
    ]
}

fn references() -> Vec<Row> {
    vec![
        unknown("anchors", DONE, |size| fill(size, "a: [", |n| format!("&a{n} x"), "]\n")),
        unknown("laughter", REFUSED, |size| {
            let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
            for n in 1..9 {
                let list = vec![format!("*a{}", n - 1); 9].join(", ");
                text.push_str(&format!("a{n}: &a{n} [{list}]\n"));
            }
            repeated(size, &text, "#\n", "")
        }),
        unknown("merges", &[201, 400, 422], |size| {
            fill(size, "a: &a {b: 1, c: 2, d: 3}\nb: [", |_| "{<<: *a}".into(), "]\n")
        }),
        unknown("merges of one list", &[201, 400, 422], |size| {
            fill(size, "a: &a {b: 1}\nb:\n  <<: [", |_| "*a".into(), "]\n")
        }),
        unknown("tags with a long prefix", DONE, |size| {
            let head = format!("%TAG !a! {}\n---\na: [", "x".repeat(size / 2));
            fill(size, &head, |_| "!a!b c".into(), "]\n")
        })
        .without_head(),
        unknown("handles of tags", DONE, |size| {
            joined(size, "", |n| format!("%TAG !a{n}! b"), "\n", "\n---\nmetadata: {name: a}\n")
        })
        .without_head(),
        unknown("tags", DONE, |size| fill(size, "a: [", |_| "!!str a".into(), "]\n")),
        unknown("comments", DONE, |size| repeated(size, "a: b\n", "#\n", "")),
        unknown("empty lines of a block scalar", DONE, |size| repeated(size, "a: |\n  b\n", "\n", "  c\n")),
        unknown("lines of a block scalar", DONE, |size| repeated(size, "a: |\n", "  b\n", "")),
        unknown("folded lines", DONE, |size| repeated(size, "a: >\n", "  b\n\n", "")),
    ]
}

fn lines() -> Vec<Row> {
    vec![
        unknown("lines of a plain scalar", DONE, |size| repeated(size, "a: b\n", "  c\n", "")),
        unknown("escapes", DONE, |size| repeated(size, "a: \"", "\\L", "\"\n")),
        unknown("escaped breaks", DONE, |size| repeated(size, "a: \"", "\\\n", "\"\n")),
        unknown("doubled quotes", DONE, |size| repeated(size, "a: '", "''", "'\n")),
        unknown("blanks", DONE, |size| repeated(size, "a: ", " ", "b\n")),
        unknown("words", DONE, |size| repeated(size, "a: ", "b ", "\n")),
        unknown("letters of two bytes", DONE, |size| repeated(size, "a: ", "\u{e9}", "\n")),
        unknown("digits", DONE, |size| repeated(size, "a: ", "9", "\n")),
        unknown("documents", DONE, |size| repeated(size, "a: b\n", "---\n", "")),
        unknown("question marks", REFUSED, |size| repeated(size, "a: ", "? ", "\n")),
        unknown("anchors without a node", REFUSED, |size| repeated(size, "a: ", "&a ", "\n")),
        unknown("deep lists", DONE, |size| {
            let deep = format!("{}{}", "[".repeat(190), "]".repeat(190));
            fill(size, "a: [", move |_| deep.clone(), "]\n")
        }),
        unknown("too many lists in lists", REFUSED, |size| nested(size, size, ["a: ", "[", "", "]", "\n"])),
        unknown("a list as a key", REFUSED, |size| fill(size, "a: {[", |_| "a".into(), "]: b}\n")),
        unknown("a null key", REFUSED, |size| {
            let head = format!("a: {}", "{~: [".repeat(90));
            fill(size, &head, |_| "a".into(), &format!("{}\n", "]}".repeat(90)))
        }),
        unknown("JSON", DONE, |size| {
            fill(size, "{\"data\": {", |n| format!("\"k{n}\": \"v\""), "}, \"metadata\": {\"name\": \"a\"}}")
        })
        .without_head(),
        Row::new("alias paths", &[403], |size| {
            let body = fill(size, "a: [", |_| "a: b".into(), "]\nmetadata: {namespace: elsewhere}\n");
            let path = "/apis/multicluster.openshift.io/v1alpha1/ManagedServiceAccounts";
            request("POST", path, "managedserviceaccount/yaml", body).by(crate::world::User::Tenant)
        }),
    ]
}

impl Row {
    /// The body as it was made, without the line that [`unknown`] puts before it.
    fn without_head(self) -> Self {
        let attack = self.attack;
        Self {
            attack: Box::new(move |size| {
                let mut request = attack(size);
                request.body.drain(..HEAD.len());
                request
            }),
            ..self
        }
    }
}
