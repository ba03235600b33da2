//! CustomResourceDefinitions, and objects of the kinds that they define.

use super::{Row, fill, nested, post, repeated, request};
use crate::world::Request;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DONE: &[u16] = &[200, 201, 413, 422, 500];
const INVALID: &[u16] = &[413, 422];

/// A definition whose `spec` has this schema.
fn definition(size: usize, schema: &str) -> Vec<u8> {
    format!(
        "{{\"metadata\":{{\"name\":\"things{size}.growth.example.com\"}},\"spec\":{{\"group\":\"growth.example.com\",\
        \"scope\":\"Namespaced\",\"names\":{{\"plural\":\"things{size}\",\"kind\":\"Thing{size}\"}},\"versions\":[{{\
        \"name\":\"v1\",\"served\":true,\"storage\":true,\"schema\":{{\"openAPIV3Schema\":{{\"type\":\"object\",\
        \"properties\":{{\"spec\":{schema}}}}}}}}}]}}}}"
    )
    .into_bytes()
}

/// A definition with a schema of the size.
fn schema(name: &str, statuses: &'static [u16], schema: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| {
        let text = String::from_utf8(schema(size - 500)).expect("schemas are text");
        post(format!("{DEFINITIONS}?dryRun=All"), definition(size, &text))
    })
}

/// An object whose `spec` is of the size, of a kind whose `spec` has this schema.
fn object(
    name: &str,
    statuses: &'static [u16],
    schema: &'static str,
    spec: impl Fn(usize) -> Vec<u8> + 'static,
) -> Row {
    Row::new(name, statuses, move |size| create(size, &spec(size - 200)))
        .after(move |size| vec![post(DEFINITIONS, definition(size, schema))])
}

/// As [`object`], and then the object is replaced by the other.
fn update(
    name: &str,
    schema: &'static str,
    before: impl Fn(usize) -> Vec<u8> + 'static,
    after: impl Fn(usize) -> Vec<u8> + 'static,
) -> Row {
    // What is stored must not be refused for its length.
    const MOST: usize = 1024 * 1024;
    Row::new(name, DONE, move |size| {
        let body = [b"{\"spec\":".to_vec(), after(size - 200), b"}".to_vec()].concat();
        request("PATCH", format!("{}/a", collection(size)), "application/merge-patch+json", body)
    })
    .after(move |size| vec![post(DEFINITIONS, definition(size, schema)), create(size, &before(size - 200))])
    .at_most(MOST)
}

fn collection(size: usize) -> String {
    format!("/apis/growth.example.com/v1/namespaces/default/things{size}")
}

fn create(size: usize, spec: &[u8]) -> Request {
    let head = format!(
        "{{\"apiVersion\":\"growth.example.com/v1\",\"kind\":\"Thing{size}\",\"metadata\":{{\"name\":\"a\"}},\"spec\":"
    );
    post(collection(size), [head.as_bytes(), spec, b"}"].concat())
}

const TEXT: &str = "{\"type\":\"string\"}";
const ANYTHING: &str = "{\"x-kubernetes-preserve-unknown-fields\":true}";
const NOTHING: &str = "{\"type\":\"object\"}";
const TEXTS: &str = "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}}";
const LIST: &str = "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"integer\"},\
    \"d\":{\"type\":\"string\",\"default\":\"d\"}}}}";
const POSITIVE: &str = "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":1}}";
const ALTERNATIVES: &str = "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"anyOf\":[{\"minimum\":5},{\"maximum\":-5}],\
    \"oneOf\":[{\"minimum\":7},{\"maximum\":-7}],\"not\":{\"enum\":[0]}}}";
const UNIQUE: &str =
    "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"x-kubernetes-list-type\":\"set\"}";
const BY_KEY: &str = "{\"type\":\"array\",\"x-kubernetes-list-type\":\"map\",\"x-kubernetes-list-map-keys\":[\"k\"],\
    \"items\":{\"type\":\"object\",\"required\":[\"k\"],\"properties\":{\"k\":{\"type\":\"integer\"},\"v\":{\"type\":\"string\"}}}}";
const RULED: &str = "{\"type\":\"array\",\"maxItems\":200000,\"items\":{\"type\":\"integer\",\
    \"x-kubernetes-validations\":[{\"rule\":\"self > 0\"}]}}";
const ENUM: &str = "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"enum\":[\"a\",\"b\"]}}";
const PATTERN: &str = "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^(a|aa)+$\"}}";
const LARGE_PATTERN: &str =
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^(a|aa)+(bc?d?){900}$\"}}";

fn numbers(size: usize) -> Vec<u8> {
    fill(size, "[", |n| n.to_string(), "]")
}

fn zeros(size: usize) -> Vec<u8> {
    fill(size, "[", |_| "0".into(), "]")
}

fn keyed(size: usize) -> Vec<u8> {
    fill(size, "[", |n| format!("{{\"k\":{n}}}"), "]")
}

fn keyed_again(size: usize) -> Vec<u8> {
    fill(size, "[", |n| format!("{{\"k\":{n},\"v\":\"w\"}}"), "]")
}

fn texts(size: usize) -> Vec<u8> {
    fill(size, "[", |n| format!("\"{n}\""), "]")
}

pub(super) fn rows() -> Vec<Row> {
    [common(), rules_and_lists(), objects_by_schema()].into_iter().flatten().collect()
}

fn common() -> Vec<Row> {
    vec![
        schema("properties", DONE, |size| {
            fill(size, "{\"type\":\"object\",\"properties\":{", |n| format!("\"k{n}\":{TEXT}"), "}}")
        }),
        schema("bad properties", INVALID, |size| {
            fill(size, "{\"type\":\"object\",\"properties\":{", |n| format!("\"k{n}\":{{}}"), "}}")
        }),
        schema("properties in properties", DONE, |size| {
            nested(size, 50, ["", "{\"type\":\"object\",\"properties\":{\"a\":", TEXT, "}}", ""])
        }),
        schema("a schema that is too deep", &[400, 422], |size| {
            nested(size, 9_000, ["", "{\"type\":\"object\",\"properties\":{\"a\":", TEXT, "}}", ""])
        }),
        schema("required members", DONE, |size| {
            fill(size, "{\"type\":\"object\",\"required\":[", |n| format!("\"k{n}\""), "]}")
        }),
        schema("an enum", DONE, |size| {
            fill(size, "{\"type\":\"string\",\"enum\":[", |n| format!("\"k{n}\""), "]}")
        }),
        schema("an enum of equals", DONE, |size| {
            fill(size, "{\"type\":\"string\",\"enum\":[", |_| "\"k\"".into(), "]}")
        }),
        schema("alternatives", DONE, |size| {
            fill(size, "{\"type\":\"object\",\"anyOf\":[", |n| format!("{{\"required\":[\"k{n}\"]}}"), "]}")
        }),
        schema("bad alternatives", INVALID, |size| {
            fill(size, "{\"type\":\"object\",\"anyOf\":[", |_| "{\"type\":\"string\"}".into(), "]}")
        }),
        schema("keys of a list", INVALID, |size| {
            let head = "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"string\"}}},\
                \"x-kubernetes-list-type\":\"map\",\"x-kubernetes-list-map-keys\":[";
            fill(size, head, |n| format!("\"k{n}\""), "]}")
        }),
        schema("a default", DONE, |size| {
            let head = "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"},\"default\":{";
            fill(size, head, |n| format!("\"k{n}\":\"\""), "}}")
        }),
        schema("a description", DONE, |size| {
            repeated(size, "{\"type\":\"string\",\"description\":\"", "d", "\"}")
        }),
    ]
}

fn rules_and_lists() -> Vec<Row> {
    vec![
        schema("patterns", DONE, |size| {
            fill(size, "{\"type\":\"object\",\"properties\":{", |n| {
                format!("\"k{n}\":{{\"type\":\"string\",\"pattern\":\"^a{n}$\"}}")
            }, "}}")
        })
        .at_most(256 * 1024),
        schema("rules", DONE, |size| {
            let rules = |n| format!("{{\"rule\":\"self.k + 0 == {n}\"}}");
            let head = "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"integer\"}},\"x-kubernetes-validations\":[";
            fill(size, head, rules, "]}")
        })
        .at_most(64 * 1024),
        schema("a long rule", INVALID, |size| {
            repeated(size, "{\"type\":\"integer\",\"x-kubernetes-validations\":[{\"rule\":\"self > 0", " + 1", "\"}]}")
        })
        .at_most(64 * 1024),
        Row::new("columns", DONE, |size| {
            let text = String::from_utf8(definition(size, NOTHING)).expect("a definition is text");
            let column = |n| format!("{{\"name\":\"c{n}\",\"type\":\"string\",\"jsonPath\":\".spec.a{n}\"}}");
            let columns = fill(size - text.len(), ",\"additionalPrinterColumns\":[", column, "]");
            let columns = String::from_utf8(columns).expect("columns are text");
            let body = text.replace("\"storage\":true", &format!("\"storage\":true{columns}"));
            post(format!("{DEFINITIONS}?dryRun=All"), body.into_bytes())
        }),
        Row::new("versions", DONE, |size| {
            let version = |n| {
                format!("{{\"name\":\"v{}\",\"served\":true,\"storage\":{},\"schema\":{{\"openAPIV3Schema\":{{\"type\":\"object\"}}}}}}", n + 1, n == 0)
            };
            let head = format!(
                "{{\"metadata\":{{\"name\":\"things{size}.growth.example.com\"}},\"spec\":{{\"group\":\"growth.example.com\",\
                \"scope\":\"Namespaced\",\"names\":{{\"plural\":\"things{size}\",\"kind\":\"Thing{size}\"}},\"versions\":["
            );
            post(format!("{DEFINITIONS}?dryRun=All"), fill(size, &head, version, "]}}"))
        }),
    ]
}

fn objects_by_schema() -> Vec<Row> {
    vec![
        Row::new("short names", INVALID, |size| {
            let text = String::from_utf8(definition(size, NOTHING)).expect("a definition is text");
            let names = fill(size - text.len(), ",\"shortNames\":[", |n| format!("\"!{n}\""), "]");
            let names = String::from_utf8(names).expect("names are text");
            let kind = format!("\"kind\":\"Thing{size}\"");
            post(
                format!("{DEFINITIONS}?dryRun=All"),
                text.replace(&kind, &format!("{kind}{names}")).into_bytes(),
            )
        }),
        object("members of a map", DONE, TEXTS, |size| fill(size, "{", |n| format!("\"k{n}\":\"\""), "}")),
        object("bad members of a map", INVALID, TEXTS, |size| {
            fill(size, "{", |n| format!("\"k{n}\":1"), "}")
        }),
        object("unknown members", DONE, NOTHING, |size| fill(size, "{", |n| format!("\"k{n}\":1"), "}")),
        object("unknown members of items", DONE, LIST, |size| {
            fill(size, "[", |n| format!("{{\"k{n}\":1}}"), "]")
        }),
        object("items with defaults", DONE, LIST, |size| fill(size, "[", |_| "{}".into(), "]")),
        object("anything deep", DONE, ANYTHING, |size| {
            let deep = format!("{}{}", "[".repeat(90), "]".repeat(90));
            fill(size, "[", move |_| deep.clone(), "]")
        }),
        object("anything large", DONE, ANYTHING, numbers),
        object("numbers that are too small", INVALID, POSITIVE, zeros),
        object("numbers without an alternative", INVALID, ALTERNATIVES, zeros),
        object("texts that are no numbers", INVALID, POSITIVE, texts),
        object("a set", DONE, UNIQUE, texts),
        object("equal items of a set", INVALID, UNIQUE, |size| fill(size, "[", |_| "\"a\"".into(), "]")),
        object("pairs of equal items of a set", INVALID, UNIQUE, |size| {
            fill(size, "[", |n| format!("\"{}\"", n / 2), "]")
        }),
        object("items by key", DONE, BY_KEY, keyed),
        object("items of one key", INVALID, BY_KEY, |size| fill(size, "[", |_| "{\"k\":1}".into(), "]")),
        object("items without a key", INVALID, BY_KEY, |size| fill(size, "[", |_| "{}".into(), "]")),
        object("items that break a rule", INVALID, RULED, zeros).at_most(384 * 1024),
        object("items that are not in an enum", INVALID, ENUM, texts),
        object("items that do not match", INVALID, PATTERN, |size| {
            fill(size, "[", |_| "\"aaaaaaaaaaaaab\"".into(), "]")
        }),
        // Both sizes on the same side of the bound between the two ways to match, whose costs differ by a factor.
        object("a text that does not match", INVALID, PATTERN, |size| repeated(size, "[\"", "a", "b\"]"))
            .at_most(64 * 1024),
        // Only the slower one takes an expression of so many states.
        object("a text that does not match what is large", INVALID, LARGE_PATTERN, |size| {
            repeated(size, "[\"", "a", "b\"]")
        }),
        update("changed items by key", BY_KEY, |size| keyed(size / 2), |size| keyed_again(size / 2)),
        update(
            "a changed set",
            UNIQUE,
            |size| texts(size / 2),
            |size| fill(size / 2, "[", |n| format!("\"b{n}\""), "]"),
        ),
        update(
            "a changed map",
            TEXTS,
            |size| fill(size / 2, "{", |n| format!("\"k{n}\":\"\""), "}"),
            |size| fill(size / 2, "{", |n| format!("\"k{n}\":\"v\""), "}"),
        ),
    ]
}
