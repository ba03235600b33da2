//! YAML as `sigs.k8s.io/yaml` reads and prints it: version 1.1 (`yes` is a boolean), by way of JSON.
//!
//! ```text
//! bytes ─► scanner: tokens ─► events: grammar ─► Tree: nodes, anchors ─► Decoder: aliases, merges, resolve ─► Raw (JSON)
//! ```
//!
//! Not a general YAML library, because clients see what Go's one says: its errors with its line numbers (an off-by-one of the
//! original included), its resolution of plain scalars, its printing to the byte. Each stage is the counterpart of one of its
//! files.

mod error;
mod events;
mod print;
mod resolve;
mod scanner;

pub use error::YamlError;
pub use print::print;

use events::{Event, Events, Located};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::Raw;
use resolve::Scalar;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How deeply YAML may be nested here: more could not be stored, and it makes the recursions below safe. (libyaml allows 10,000.)
const MAX_DEPTH: usize = 200;

/// A YAML document as the JSON it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The tree: keys sorted, each there once.
    pub raw: Raw,
    /// What strict decoding objects to, in order: `line 7: key "k" already set in map`.
    pub duplicates: Vec<String>,
}

/// The objections of strict decoding as one error (`yaml.TypeError`).
pub(super) fn unmarshal_errors(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

/// Reads the first document of a YAML stream; an empty stream is `null`. Never panics, whatever the bytes are.
/// Aliases may stand for a limited share of a document only. Errors: what is wrong, in Go's words.
pub fn parse(bytes: &[u8]) -> Result<Document, YamlError> {
    let tree = Tree::read(bytes)?;
    let mut decoder = Decoder {
        tree: &tree,
        open: HashSet::new(),
        decoded: 0,
        aliased: 0,
        alias_depth: 0,
        duplicates: Vec::new(),
    };
    // Two steps, as in Go: first a value with typed keys, then JSON, because each step has errors of its own.
    let raw = match tree.root {
        Some(root) => decoder.node(root, 0)?.into_raw()?,
        None => Raw::Null,
    };
    Ok(Document { raw, duplicates: decoder.duplicates })
}

/// A node as it was written, before scalars are resolved and aliases followed.
enum Node {
    Scalar { value: String, tag: Option<String>, plain: bool },
    Alias { name: String, target: usize },
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
}

/// The nodes of a document; they refer to each other by index, since an alias may stand for a node that contains it.
struct Tree {
    /// Each with its line, from 0.
    nodes: Vec<(Node, usize)>,
    /// `None` for an empty stream.
    root: Option<usize>,
}

/// A collection whose end has not come yet.
struct Open {
    node: usize,
    is_mapping: bool,
    children: Vec<usize>,
}

impl Tree {
    /// Reads the first document.
    fn read(bytes: &[u8]) -> Result<Self, YamlError> {
        let mut events = Events::new(bytes)?;
        let mut tree = Tree { nodes: Vec::new(), root: None };
        let mut anchors: HashMap<String, usize> = HashMap::new();
        let mut open: Vec<Open> = Vec::new();
        loop {
            let Located { event, line } = events.next_event()?;
            let at = tree.nodes.len();
            let anchored = |anchors: &mut HashMap<String, usize>, name: Option<String>| {
                if let Some(name) = name {
                    anchors.insert(name, at);
                }
            };
            let finished = match event {
                // What follows the first document is not read, so that it may even be wrong, as for `yaml.Unmarshal`.
                Event::StreamEnd | Event::DocumentEnd => return Ok(tree),
                Event::DocumentStart => continue,
                Event::Alias(name) => {
                    let target = *anchors
                        .get(&name)
                        .ok_or_else(|| YamlError::new(format_args!("unknown anchor '{name}' referenced")))?;
                    tree.nodes.push((Node::Alias { name, target }, line));
                    at
                }
                Event::Scalar { anchor, tag, value, plain } => {
                    anchored(&mut anchors, anchor);
                    tree.nodes.push((Node::Scalar { value, tag, plain }, line));
                    at
                }
                Event::Start { anchor, is_mapping } => {
                    anchored(&mut anchors, anchor);
                    if open.len() >= MAX_DEPTH {
                        return Err(YamlError::new(format_args!("exceeded depth of {MAX_DEPTH}")));
                    }
                    // A placeholder: the anchor has to name a node already, before its children are known.
                    tree.nodes.push((Node::Sequence(Vec::new()), line));
                    open.push(Open { node: at, is_mapping, children: Vec::new() });
                    continue;
                }
                Event::End => {
                    let Some(done) = open.pop() else { continue };
                    tree.nodes[done.node].0 = if done.is_mapping {
                        Node::Mapping(done.children.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
                    } else {
                        Node::Sequence(done.children)
                    };
                    done.node
                }
            };
            match open.last_mut() {
                Some(parent) => parent.children.push(finished),
                None => tree.root = Some(finished),
            }
        }
    }
}

/// A decoded value, before it becomes JSON.
#[derive(Clone)]
enum Decoded {
    Scalar(Scalar),
    List(Vec<Decoded>),
    Map(BTreeMap<Key, Decoded>),
}

/// A key of a Go map: keys of different types differ (`1` and `"1"` are two), until they become the keys of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Null,
    Bool(bool),
    Int(i128),
    Float(String),
    String(String),
}

impl Key {
    /// The key that a scalar is.
    fn of(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Null => Key::Null,
            Scalar::Bool(b) => Key::Bool(b),
            Scalar::Int(n) => Key::Int(n),
            Scalar::Float(f) => Key::Float(resolve::float_key(f)),
            Scalar::String(text) => Key::String(text),
        }
    }
    /// As Go's `%#v` prints it.
    fn go_syntax(&self) -> String {
        match self {
            Key::Null => "<nil>".into(),
            Key::Bool(b) => b.to_string(),
            Key::Int(n) => n.to_string(),
            Key::Float(text) => text.clone(),
            Key::String(text) => go_quote(text),
        }
    }
}

impl Key {
    /// As it is printed inside a collection.
    fn go_element(&self) -> String {
        if *self == Key::Null { "interface {}(nil)".into() } else { self.go_syntax() }
    }
}

impl Decoded {
    /// As JSON (`convertToJSONableObject` of `sigs.k8s.io/yaml`): keys become text.
    fn into_raw(self) -> Result<Raw, YamlError> {
        Ok(match self {
            Decoded::Scalar(Scalar::Null) => Raw::Null,
            Decoded::Scalar(Scalar::Bool(b)) => Raw::Bool(b),
            Decoded::Scalar(Scalar::Int(n)) => Raw::Number(n.to_string()),
            Decoded::Scalar(Scalar::Float(f)) => Raw::Number(resolve::json_float(f).map_err(YamlError)?),
            Decoded::Scalar(Scalar::String(text)) => Raw::String(text),
            Decoded::List(items) => {
                Raw::Array(items.into_iter().map(Decoded::into_raw).collect::<Result<_, _>>()?)
            }
            Decoded::Map(members) => {
                // Sorted once more, now as text; of keys that have become the same the last one counts.
                let mut out = BTreeMap::new();
                for (key, value) in members {
                    let key = match key {
                        Key::Null => {
                            let value = value.go_syntax();
                            return Err(YamlError(format!(
                                "unsupported map key of type: %!s(<nil>), key: <nil>, value: {value}"
                            )));
                        }
                        Key::String(text) => text,
                        other => other.go_syntax(),
                    };
                    out.insert(key, value.into_raw()?);
                }
                Raw::Object(out.into_iter().collect())
            }
        })
    }

    /// As Go's `%#v` prints it.
    fn go_syntax(&self) -> String {
        match self {
            Decoded::Scalar(scalar) => Key::of(scalar.clone()).go_syntax(),
            Decoded::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.go_element()).collect();
                format!("[]interface {{}}{{{}}}", items.join(", "))
            }
            Decoded::Map(members) => {
                let members: Vec<String> =
                    members.iter().map(|(k, v)| format!("{}:{}", k.go_element(), v.go_element())).collect();
                format!("map[interface {{}}]interface {{}}{{{}}}", members.join(", "))
            }
        }
    }

    /// As it is printed inside a collection.
    fn go_element(&self) -> String {
        match self {
            Decoded::Scalar(Scalar::Null) => "interface {}(nil)".into(),
            other => other.go_syntax(),
        }
    }
}

/// Go's decoder into an `interface{}` (`decode.go`).
struct Decoder<'a> {
    tree: &'a Tree,
    /// The aliases that are being followed: meeting one of them again is a circle.
    open: HashSet<usize>,
    /// How many nodes were decoded, and how many of them below an alias.
    decoded: usize,
    aliased: usize,
    /// How many aliases are being followed, one inside the other.
    alias_depth: usize,
    /// What strict decoding objects to, so far.
    duplicates: Vec<String>,
}

impl Decoder<'_> {
    /// Decodes a node.
    fn node(&mut self, at: usize, depth: usize) -> Result<Decoded, YamlError> {
        self.count()?;
        if depth > MAX_DEPTH {
            return Err(YamlError::new(format_args!("exceeded depth of {MAX_DEPTH}")));
        }
        let tree = self.tree;
        match &tree.nodes[at].0 {
            Node::Scalar { value, tag, plain } => {
                resolve::resolve(tag.as_deref(), value, *plain).map(Decoded::Scalar).map_err(YamlError::new)
            }
            Node::Alias { name, target } => self.alias(at, name, |decoder| decoder.node(*target, depth + 1)),
            Node::Sequence(items) => {
                let items = items.iter().map(|&item| self.node(item, depth + 1)).collect::<Result<_, _>>()?;
                Ok(Decoded::List(items))
            }
            Node::Mapping(_) => {
                let mut out = BTreeMap::new();
                self.mapping(at, &mut out, depth)?;
                Ok(Decoded::Map(out))
            }
        }
    }

    /// Adds the members of a mapping, or of the mapping that an alias names, to `out`.
    fn mapping(
        &mut self,
        at: usize,
        out: &mut BTreeMap<Key, Decoded>,
        depth: usize,
    ) -> Result<(), YamlError> {
        let tree = self.tree;
        let members = match &tree.nodes[at].0 {
            Node::Mapping(members) => members,
            Node::Alias { name, target } => {
                // Counted twice on purpose: the alias and what it stands for, as in Go.
                self.count()?;
                return self.alias(at, name, |decoder| {
                    decoder.count()?;
                    decoder.mapping(*target, out, depth + 1)
                });
            }
            _ => return Err(want_map()),
        };
        if depth > MAX_DEPTH {
            return Err(YamlError::new(format_args!("exceeded depth of {MAX_DEPTH}")));
        }
        for &(key, value) in members {
            if self.is_merge(key) {
                self.merge(value, out, depth + 1)?;
                continue;
            }
            let key = match self.node(key, depth + 1)? {
                Decoded::Scalar(scalar) => Key::of(scalar),
                other => {
                    let key = other.go_syntax();
                    return Err(YamlError::new(format_args!("invalid map key: {key}")));
                }
            };
            // The line of the value, not of the key: they differ where the value begins on the next line.
            let line = tree.nodes[value].1 + 1;
            let value = self.node(value, depth + 1)?;
            // Not an error yet: without strict decoding the last one counts.
            if out.contains_key(&key) {
                let key = key.go_syntax();
                self.duplicates.push(format!("line {line}: key {key} already set in map"));
            }
            out.insert(key, value);
        }
        Ok(())
    }

    /// Whether a key is `<<`, which merges other mappings into the one around it.
    fn is_merge(&self, at: usize) -> bool {
        match &self.tree.nodes[at].0 {
            Node::Scalar { value, tag, plain } => {
                value == "<<" && (*plain || tag.as_deref() == Some("tag:yaml.org,2002:merge"))
            }
            _ => false,
        }
    }

    /// Adds the members of the mapping at `at`, or of several in a list. What was there before is overwritten: keys written out
    /// take precedence only where they follow, as in Go.
    fn merge(&mut self, at: usize, out: &mut BTreeMap<Key, Decoded>, depth: usize) -> Result<(), YamlError> {
        let tree = self.tree;
        let is_map = |at: usize| match &tree.nodes[at].0 {
            Node::Mapping(_) => true,
            Node::Alias { target, .. } => matches!(tree.nodes[*target].0, Node::Mapping(_)),
            _ => false,
        };
        let sources = match &tree.nodes[at].0 {
            // Earlier ones take precedence, so they are added last and overwrite the others.
            Node::Sequence(items) => items.iter().rev().copied().collect(),
            _ => vec![at],
        };
        for source in sources {
            if !is_map(source) {
                return Err(want_map());
            }
            self.mapping(source, out, depth)?;
        }
        Ok(())
    }

    /// Runs `follow` on what an alias stands for. Errors: the alias is being followed already.
    fn alias<T>(
        &mut self,
        at: usize,
        name: &str,
        follow: impl FnOnce(&mut Self) -> Result<T, YamlError>,
    ) -> Result<T, YamlError> {
        // By the alias and not by its target: the same node may be used many times, one after the other.
        if !self.open.insert(at) {
            return Err(YamlError::new(format_args!("anchor '{name}' value contains itself")));
        }
        self.alias_depth += 1;
        let value = follow(self)?;
        self.alias_depth -= 1;
        self.open.remove(&at);
        Ok(value)
    }

    /// Counts a decoded node, and refuses documents that are mostly expanded aliases ("billion laughs").
    fn count(&mut self) -> Result<(), YamlError> {
        // Go's numbers (`allowedAliasRatio`): of a small document nearly all may be aliases, of a large one a tenth.
        const LOW: f64 = 400_000.0;
        const HIGH: f64 = 4_000_000.0;
        self.decoded += 1;
        if self.alias_depth > 0 {
            self.aliased += 1;
        }
        let decoded = self.decoded as f64;
        let allowed = 0.99 - 0.89 * ((decoded - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        if self.aliased > 100 && self.decoded > 1000 && self.aliased as f64 / decoded > allowed {
            return Err(YamlError::new("document contains excessive aliasing"));
        }
        Ok(())
    }
}

/// `failWantMap`.
fn want_map() -> YamlError {
    YamlError::new("map merge requires map or sequence of maps as the value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::json::Numbers;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn value(text: &str) -> Value {
        parse(text.as_bytes()).unwrap().raw.to_value(Numbers::Go).unwrap()
    }

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn documents_become_json() {
        for (text, expected) in [
            ("", json!(null)),
            ("# only a comment\n", json!(null)),
            ("a: 1\n---\nb: 2\n", json!({"a": 1})),
            ("{\"a\": [1, \"x\", null]}", json!({"a": [1, "x", null]})),
            (
                "a: y\nb: 'y'\nc: 017\nd: 0x1f\ne: 1_000\nf: 1.50\n",
                json!({"a": true, "b": "y", "c": 15, "d": 31, "e": 1000, "f": 1.5}),
            ),
            (
                "t: 2026-01-02T03:04:05Z\nd: 2026-01-02\n",
                json!({"t": "2026-01-02T03:04:05Z", "d": "2026-01-02"}),
            ),
            ("1: a\ntrue: b\n1.5: c\n", json!({"1": "a", "true": "b", "1.5": "c"})),
            (
                "a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n",
                json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}}),
            ),
            ("a: |\n  one\n  two\nb: >-\n  one\n  two\n", json!({"a": "one\ntwo\n", "b": "one two"})),
            ("a: !!str 1\nb: !!binary aGk=\n", json!({"a": "1", "b": "hi"})),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn duplicate_keys_are_reported_with_the_line_of_their_value() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: one\n  k: two\n";
        let document = parse(text.as_bytes()).unwrap();
        assert_eq!(document.duplicates, ["line 7: key \"k\" already set in map"]);
        assert_eq!(document.raw.get("data").and_then(|d| d.get("k")), Some(&Raw::String("two".into())));
    }

    #[test]
    fn what_cannot_be_json_is_refused() {
        for (text, expected) in [
            ("a: .nan", "json: unsupported value: NaN"),
            ("{a: b}: c", "yaml: invalid map key: map[interface {}]interface {}{\"a\":\"b\"}"),
            ("<<: 1", "yaml: map merge requires map or sequence of maps as the value"),
            ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn laughter_is_limited() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (name, before) in ('b'..='i').zip('a'..) {
            let aliases = vec![format!("*{before}"); 10].join(",");
            text.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        assert_eq!(error(&text), "yaml: document contains excessive aliasing");
        assert!(error(&"[".repeat(100_000)).starts_with("yaml: "));
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "[-a-c0-9:?,&*!|>'\"%@`#{}\\[\\]\n\t ~.<]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
