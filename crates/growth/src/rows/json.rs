//! Bodies in JSON: what its reader and the typed decoding of built-in kinds make of them.

use super::{Row, fill, nested, post, repeated};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps?dryRun=All";
/// Good, or what the rules of ConfigMaps or the limit of stored objects refuse when it is large.
const DONE: &[u16] = &[201, 413, 422, 500];
const REFUSED: &[u16] = &[400];
const INVALID: &[u16] = &[422];

/// A ConfigMap with these members beside.
fn config_map(name: &str, statuses: &'static [u16], body: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| post(CONFIG_MAPS, body(size)))
}

const HEAD: &str = r#"{"metadata":{"name":"a"},"#;

fn in_data(size: usize, item: fn(usize) -> String) -> Vec<u8> {
    fill(size, &format!("{HEAD}\"data\":{{"), item, "}}")
}

fn beside(size: usize, item: fn(usize) -> String) -> Vec<u8> {
    fill(size, HEAD, item, "}")
}

pub(super) fn rows() -> Vec<Row> {
    [common(), unusual()].into_iter().flatten().collect()
}

fn common() -> Vec<Row> {
    vec![
        config_map("many keys", DONE, |size| in_data(size, |n| format!("\"k{n}\":\"\""))),
        config_map("keys in reverse order", DONE, |size| {
            in_data(size, |n| format!("\"k{}\":\"\"", 9_999_999 - n))
        }),
        config_map("long equal beginnings of keys", DONE, |size| {
            in_data(size, |n| format!("\"{}{n}\":\"\"", "k".repeat(200)))
        }),
        config_map("one key many times", DONE, |size| in_data(size, |_| "\"a\":\"\"".into())),
        config_map("each key twice", DONE, |size| in_data(size, |n| format!("\"k{}\":\"\"", n / 2))),
        config_map("bad keys", INVALID, |size| in_data(size, |n| format!("\"!{n}\":\"\""))),
        config_map("a long value", DONE, |size| {
            repeated(size, &format!("{HEAD}\"data\":{{\"a\":\""), "b", "\"}}")
        }),
        config_map("a value of escapes", DONE, |size| {
            repeated(size, &format!("{HEAD}\"data\":{{\"a\":\""), "\\u0000", "\"}}")
        }),
        config_map("a value of lone surrogates", DONE, |size| {
            repeated(size, &format!("{HEAD}\"data\":{{\"a\":\""), "\\ud800", "\"}}")
        }),
        config_map("bytes that are no UTF-8", DONE, |size| {
            let mut body = repeated(size, &format!("{HEAD}\"data\":{{\"a\":\""), "?", "\"}}");
            body.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xff);
            body
        }),
        config_map("unknown members", DONE, |size| beside(size, |n| format!("\"k{n}\":1"))),
        config_map("an unknown member many times", DONE, |size| beside(size, |_| "\"k\":1".into())),
        config_map("unknown members below a long key", DONE, |size| {
            let head = format!("{HEAD}\"{}\":{{", "k".repeat(size / 2));
            fill(size, &head, |n| format!("\"k{n}\":1"), "}}")
        }),
        config_map("unknown members of metadata", DONE, |size| {
            fill(size, r#"{"metadata":{"name":"a","#, |n| format!("\"k{n}\":1"), "}}")
        }),
    ]
}

fn unusual() -> Vec<Row> {
    vec![
        config_map("unknown members, strictly", REFUSED, |size| beside(size, |n| format!("\"k{n}\":1")))
            .strictly(),
        config_map("duplicate members, strictly", REFUSED, |size| {
            in_data(size, |n| format!("\"k{}\":\"\"", n / 2))
        })
        .strictly(),
        config_map("lists in lists", DONE, |size| {
            nested(size, 9_000, [&format!("{HEAD}\"a\":"), "[", "", "]", "}"])
        }),
        config_map("too many lists in lists", &[201, 400], |size| {
            nested(size, size, [&format!("{HEAD}\"a\":"), "[", "", "]", "}"])
        }),
        config_map("many deep lists", DONE, |size| {
            let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
            fill(size, &format!("{HEAD}\"a\":["), move |_| deep.clone(), "]}")
        }),
        config_map("brackets that open", REFUSED, |size| vec![b'['; size]),
        config_map("a list of numbers", DONE, |size| {
            fill(size, &format!("{HEAD}\"a\":["), |_| "1".into(), "]}")
        }),
        config_map("a number of many digits", DONE, |size| {
            repeated(size, &format!("{HEAD}\"a\":"), "9", "}")
        }),
        config_map("numbers with exponents", DONE, |size| {
            fill(size, &format!("{HEAD}\"a\":["), |_| "1e999999999".into(), "]}")
        }),
        config_map("a long name", INVALID, |size| repeated(size, r#"{"metadata":{"name":""#, "A", "\"}}")),
        config_map("a wrong kind, quoted", REFUSED, |size| repeated(size, r#"{"kind":""#, "\\u00e9", "\"}")),
        config_map("a version that is none, with the body", REFUSED, |size| {
            repeated(size, r#"{"kind":"ConfigMap","apiVersion":"a/b/c","a":""#, "\\\"", "\"}")
        }),
    ]
}

impl Row {
    /// The same, with `fieldValidation=Strict`.
    fn strictly(self) -> Self {
        let attack = self.attack;
        Self {
            attack: Box::new(move |size| {
                let mut request = attack(size);
                request.target.push_str("&fieldValidation=Strict");
                request
            }),
            ..self
        }
    }
}
