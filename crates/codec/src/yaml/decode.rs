//! Nodes become values: aliases are followed, mappings merged, scalars resolved (`decode.go` of Go's yaml package, and
//! `convertToJSONableObject` of `sigs.k8s.io/yaml`).

use super::error::YamlError;
use super::resolve::{self, Int, Scalar, Tag};
use super::tree::{Node, Tree};
use super::{Document, MAX_DEPTH, too_deep};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::Raw;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How many bytes of scalars aliases may stand for: as many as a body could spell out. Go counts nodes only, so that a few bytes
/// could stand for a long scalar, again and again.
const MAX_ALIASED_TEXT: usize = 3 * 1024 * 1024;

/// How many duplicate keys are told one by one, and about how many bytes of text about them: keys may be long.
const MAX_DUPLICATES: usize = 100;
const MAX_DUPLICATES_TEXT: usize = 256 * 1024;

/// The value of a document.
pub(super) fn document<'a>(tree: &Tree<'a>) -> Result<Document<'a>, YamlError> {
    let mut decoder = Decoder::new(tree);
    let mut json = Json { refused: Vec::new() };
    let raw = match tree.root() {
        Some(root) => decoder.node(&mut json, root, 0)?,
        None => Raw::Null,
    };
    // Two steps, as in Go: what cannot be JSON is refused only when all was decoded, and if no later key of the same name has
    // replaced it.
    if let Some(refused) = json.first_refused(&raw) {
        return Err(refused.error(tree));
    }
    Ok(Document { raw, duplicates: decoder.duplicates() })
}

/// A key of a Go map: keys of different types differ (`1` and `"1"` are two), until they become the keys of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Null,
    Bool(bool),
    Int(Int),
    Float(String),
    String(Cow<'a, str>),
}

impl<'a> Key<'a> {
    /// The key that a scalar is.
    fn of(scalar: Scalar<'a>) -> Self {
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
            Key::Null => NIL.into(),
            Key::Bool(b) => b.to_string(),
            Key::Int(n) => n.to_string(),
            Key::Float(text) => text.clone(),
            Key::String(text) => go_quote(text),
        }
    }

    /// The key of a JSON object; null is none.
    fn into_text(self) -> Cow<'a, str> {
        match self {
            Key::String(text) => text,
            other => other.go_syntax().into(),
        }
    }
}

/// What values are built of while they are decoded.
trait Build<'a> {
    /// A value.
    type Out;

    fn scalar(&mut self, scalar: Scalar<'a>) -> Self::Out;
    fn list(&mut self, items: Vec<Self::Out>) -> Self::Out;
    fn map(&mut self, members: BTreeMap<Key<'a>, Member<Self::Out>>) -> Self::Out;
}

/// A value in a mapping, with its node.
struct Member<T> {
    value: T,
    node: u32,
}

/// Builds JSON.
struct Json {
    /// What is no JSON. In its place stands a number whose text is no number's: [`REFUSED`] and the index here.
    refused: Vec<Refused>,
}

const REFUSED: char = '!';

/// What YAML has and JSON has not.
enum Refused {
    Float(f64),
    /// The key null, with the node of its value.
    NullKey {
        value: u32,
    },
}

impl Refused {
    fn error(&self, tree: &Tree<'_>) -> YamlError {
        match self {
            Refused::Float(float) => YamlError(resolve::json_float(*float).err().unwrap_or_default()),
            // The value was decoded before, so it is decoded again without an error.
            Refused::NullKey { value } => match Decoder::new(tree).node(&mut GoSyntax, *value, 0) {
                Ok(value) => {
                    YamlError(format!("unsupported map key of type: %!s(<nil>), key: <nil>, value: {value}"))
                }
                Err(error) => error,
            },
        }
    }
}

impl Json {
    fn refuse(&mut self, refused: Refused) -> Raw<'static> {
        self.refused.push(refused);
        Raw::Number(format!("{REFUSED}{}", self.refused.len() - 1).into())
    }

    /// The first thing in a value that is no JSON. The value is at most [`MAX_DEPTH`] deep.
    fn first_refused(&self, value: &Raw<'_>) -> Option<&Refused> {
        if self.refused.is_empty() {
            return None;
        }
        match value {
            Raw::Number(text) => self.refused.get(text.strip_prefix(REFUSED)?.parse::<usize>().ok()?),
            Raw::Array(items) => items.iter().find_map(|item| self.first_refused(item)),
            Raw::Object(members) => members.iter().find_map(|(_, value)| self.first_refused(value)),
            Raw::Null | Raw::Bool(_) | Raw::String(_) => None,
        }
    }
}

impl<'a> Build<'a> for Json {
    type Out = Raw<'a>;

    fn scalar(&mut self, scalar: Scalar<'a>) -> Raw<'a> {
        match scalar {
            Scalar::Null => Raw::Null,
            Scalar::Bool(b) => Raw::Bool(b),
            Scalar::Int(n) => Raw::Number(n.to_string().into()),
            Scalar::Float(f) => match resolve::json_float(f) {
                Ok(text) => Raw::Number(text.into()),
                Err(_) => self.refuse(Refused::Float(f)),
            },
            Scalar::String(text) => Raw::String(text),
        }
    }

    fn list(&mut self, items: Vec<Raw<'a>>) -> Raw<'a> {
        Raw::Array(items)
    }

    fn map(&mut self, members: BTreeMap<Key<'a>, Member<Raw<'a>>>) -> Raw<'a> {
        if let Some(Member { node, .. }) = members.get(&Key::Null) {
            return self.refuse(Refused::NullKey { value: *node });
        }
        let as_text = members.into_iter().map(|(key, member)| (key, member.value));
        // Keys that are text already are in order; they come last.
        let mut out: Vec<(Cow<'a, str>, Raw<'a>)> = Vec::with_capacity(as_text.len());
        let mut sorted = true;
        for (key, value) in as_text {
            sorted &= matches!(key, Key::String(_));
            out.push((key.into_text(), value));
        }
        if !sorted {
            // Sorted once more, now as text; of keys that have become the same the last one counts.
            let by_text: BTreeMap<Cow<'a, str>, Raw<'a>> = out.into_iter().collect();
            out = by_text.into_iter().collect();
        }
        Raw::Object(out)
    }
}

/// Builds the text that Go's `%#v` prints of a value.
struct GoSyntax;

/// Null as `%#v` prints it by itself. Texts are printed in quotes, so nothing else is printed like it.
const NIL: &str = "<nil>";

/// A printed value as it is printed inside a collection.
fn go_element(value: &str) -> &str {
    if value == NIL { "interface {}(nil)" } else { value }
}

impl<'a> Build<'a> for GoSyntax {
    type Out = String;

    fn scalar(&mut self, scalar: Scalar<'a>) -> String {
        Key::of(scalar).go_syntax()
    }

    fn list(&mut self, items: Vec<String>) -> String {
        let items: Vec<&str> = items.iter().map(|item| go_element(item)).collect();
        format!("[]interface {{}}{{{}}}", items.join(", "))
    }

    fn map(&mut self, members: BTreeMap<Key<'a>, Member<String>>) -> String {
        let member = |(key, member): (&Key<'_>, &Member<String>)| {
            format!("{}:{}", go_element(&key.go_syntax()), go_element(&member.value))
        };
        let members: Vec<String> = members.iter().map(member).collect();
        format!("map[interface {{}}]interface {{}}{{{}}}", members.join(", "))
    }
}

/// The members of a mapping so far.
type Members<'a, B> = BTreeMap<Key<'a>, Member<<B as Build<'a>>::Out>>;

/// Go's decoder into an `interface{}`.
struct Decoder<'t, 'a> {
    tree: &'t Tree<'a>,
    /// The aliases that are being followed, one inside the other: meeting one of them again is a circle. At most
    /// [`MAX_DEPTH`].
    open: Vec<u32>,
    /// How many nodes were decoded, and how many of them below an alias.
    decoded: usize,
    aliased: usize,
    /// How many bytes of text were decoded below an alias.
    aliased_text: usize,
    /// What strict decoding objects to, so far: the first of them, the length of their text, and how many more there are.
    duplicates: Vec<String>,
    duplicates_text: usize,
    more_duplicates: usize,
}

impl<'t, 'a> Decoder<'t, 'a> {
    fn new(tree: &'t Tree<'a>) -> Self {
        Self {
            tree,
            open: Vec::new(),
            decoded: 0,
            aliased: 0,
            aliased_text: 0,
            duplicates: Vec::new(),
            duplicates_text: 0,
            more_duplicates: 0,
        }
    }

    /// Decodes a node.
    fn node<B: Build<'a>>(&mut self, build: &mut B, at: u32, depth: usize) -> Result<B::Out, YamlError> {
        self.count()?;
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        let tree = self.tree;
        match tree.node(at) {
            Node::Scalar { .. } => Ok(build.scalar(self.scalar(at)?)),
            Node::Alias { target, .. } => self.alias(at, |decoder| decoder.node(build, target, depth + 1)),
            Node::Sequence { end } => {
                let mut items = Vec::with_capacity(tree.children(at, end).count());
                for item in tree.children(at, end) {
                    items.push(self.node(build, item, depth + 1)?);
                }
                Ok(build.list(items))
            }
            Node::Mapping { .. } => {
                let mut members = Members::<B>::new();
                self.mapping(build, at, &mut members, depth)?;
                Ok(build.map(members))
            }
        }
    }

    /// What a scalar means.
    fn scalar(&mut self, at: u32) -> Result<Scalar<'a>, YamlError> {
        let Node::Scalar { value, tag, plain } = self.tree.node(at) else { return Ok(Scalar::Null) };
        let text = self.tree.text(value);
        if !self.open.is_empty() {
            self.aliased_text += text.len();
            if self.aliased_text > MAX_ALIASED_TEXT {
                return Err(excessive_aliasing());
            }
        }
        let scalar = match self.tree.written(value) {
            Some(text) => resolve::resolve(tag, text, plain),
            None => resolve::resolve(tag, text, plain).map(Scalar::into_owned),
        };
        scalar.map_err(YamlError::new)
    }

    /// Decodes the node of a key: a scalar, or an alias of one.
    fn key(&mut self, at: u32, depth: usize) -> Result<Key<'a>, YamlError> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match self.tree.node(at) {
            Node::Scalar { .. } => {
                self.count()?;
                self.scalar(at).map(Key::of)
            }
            Node::Alias { target, .. } => {
                self.count()?;
                self.alias(at, |decoder| decoder.key(target, depth + 1))
            }
            Node::Sequence { .. } | Node::Mapping { .. } => {
                let key = self.node(&mut GoSyntax, at, depth)?;
                Err(YamlError::new(format_args!("invalid map key: {key}")))
            }
        }
    }

    /// Adds the members of a mapping, or of the mapping that an alias names, to `out`.
    fn mapping<B: Build<'a>>(
        &mut self,
        build: &mut B,
        at: u32,
        out: &mut Members<'a, B>,
        depth: usize,
    ) -> Result<(), YamlError> {
        let tree = self.tree;
        let end = match tree.node(at) {
            Node::Mapping { end } => end,
            Node::Alias { target, .. } => {
                // Counted twice on purpose: the alias and what it stands for, as in Go.
                self.count()?;
                return self.alias(at, |decoder| {
                    decoder.count()?;
                    decoder.mapping(build, target, out, depth + 1)
                });
            }
            Node::Scalar { .. } | Node::Sequence { .. } => return Err(want_map()),
        };
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        let mut nodes = tree.children(at, end);
        while let (Some(key), Some(node)) = (nodes.next(), nodes.next()) {
            if self.is_merge(key) {
                self.merge(build, node, out, depth + 1)?;
                continue;
            }
            let key = self.key(key, depth + 1)?;
            let value = self.node(build, node, depth + 1)?;
            // Not an error yet: without strict decoding the last one counts.
            if out.contains_key(&key) {
                self.duplicate(&key, node);
            }
            out.insert(key, Member { value, node });
        }
        Ok(())
    }

    /// Notes a key that is there already.
    fn duplicate(&mut self, key: &Key<'_>, value: u32) {
        if self.duplicates.len() >= MAX_DUPLICATES || self.duplicates_text >= MAX_DUPLICATES_TEXT {
            self.more_duplicates += 1;
            return;
        }
        // The line of the value, not of the key: they differ where the value begins on the next line.
        let line = self.tree.line(value) + 1;
        let text = format!("line {line}: key {} already set in map", key.go_syntax());
        self.duplicates_text += text.len();
        self.duplicates.push(text);
    }

    /// What strict decoding objects to; the last one says how many there are beside.
    fn duplicates(self) -> Vec<String> {
        let mut all = self.duplicates;
        if self.more_duplicates > 0 {
            all.push(format!("and {} more", self.more_duplicates));
        }
        all
    }

    /// Whether a key is `<<`, which merges other mappings into the one around it.
    fn is_merge(&self, at: u32) -> bool {
        match self.tree.node(at) {
            Node::Scalar { value, tag, plain } => {
                (plain || tag == Some(Tag::Merge)) && self.tree.text(value) == "<<"
            }
            _ => false,
        }
    }

    /// Adds the members of the mapping at `at`, or of several in a list. What was there before is overwritten: keys written out
    /// take precedence only where they follow, as in Go.
    fn merge<B: Build<'a>>(
        &mut self,
        build: &mut B,
        at: u32,
        out: &mut Members<'a, B>,
        depth: usize,
    ) -> Result<(), YamlError> {
        let tree = self.tree;
        let is_map = |at| match tree.node(at) {
            Node::Mapping { .. } => true,
            Node::Alias { target, .. } => matches!(tree.node(target), Node::Mapping { .. }),
            Node::Scalar { .. } | Node::Sequence { .. } => false,
        };
        let mut sources = match tree.node(at) {
            Node::Sequence { end } => tree.children(at, end).collect(),
            _ => vec![at],
        };
        // Earlier ones take precedence, so they are added last and overwrite the others.
        while let Some(source) = sources.pop() {
            if !is_map(source) {
                return Err(want_map());
            }
            self.mapping(build, source, out, depth)?;
        }
        Ok(())
    }

    /// Runs `follow` on what an alias stands for. Errors: the alias is being followed already.
    fn alias<T>(
        &mut self,
        at: u32,
        follow: impl FnOnce(&mut Self) -> Result<T, YamlError>,
    ) -> Result<T, YamlError> {
        // By the alias and not by its target: the same node may be used many times, one after the other.
        if self.open.contains(&at) {
            let name = match self.tree.node(at) {
                Node::Alias { name, .. } => self.tree.text(name),
                _ => "",
            };
            return Err(YamlError::new(format_args!("anchor '{name}' value contains itself")));
        }
        self.open.push(at);
        let value = follow(self)?;
        self.open.pop();
        Ok(value)
    }

    /// Counts a decoded node, and refuses documents that are mostly expanded aliases ("billion laughs").
    fn count(&mut self) -> Result<(), YamlError> {
        // Go's numbers (`allowedAliasRatio`): of a small document nearly all may be aliases, of a large one a tenth.
        const LOW: f64 = 400_000.0;
        const HIGH: f64 = 4_000_000.0;
        self.decoded += 1;
        if !self.open.is_empty() {
            self.aliased += 1;
        }
        if self.aliased > 100 && self.decoded > 1000 {
            let decoded = self.decoded as f64;
            let allowed = 0.99 - 0.89 * ((decoded - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
            if self.aliased as f64 / decoded > allowed {
                return Err(excessive_aliasing());
            }
        }
        Ok(())
    }
}

fn excessive_aliasing() -> YamlError {
    YamlError::new("document contains excessive aliasing")
}

/// `failWantMap`.
fn want_map() -> YamlError {
    YamlError::new("map merge requires map or sequence of maps as the value")
}
