//! The nodes of a document, before scalars are resolved and aliases followed.

use super::error::YamlError;
use super::events::{Event, Events, Located};
use super::resolve::Tag;
use super::scanner::{Text, Texts};
use super::{MAX_DEPTH, too_deep};
use std::collections::HashMap;

/// A node as it was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Scalar {
        value: Text,
        tag: Option<Tag>,
        plain: bool,
    },
    Alias {
        name: Text,
        target: u32,
    },
    /// The children follow, up to the node `end`.
    Sequence {
        end: u32,
    },
    /// Keys and values follow in turn, up to the node `end`.
    Mapping {
        end: u32,
    },
}

/// The nodes of a document in the order in which they begin. A node is its number: an alias may stand for a node that contains
/// it.
///
/// There may be a node for each byte of a document, so they are kept small and in one piece.
pub(super) struct Tree<'a> {
    /// Each with its line, from 0. Empty for an empty stream; else the first one is the root.
    nodes: Vec<(Node, u32)>,
    texts: Texts<'a>,
}

impl<'a> Tree<'a> {
    /// Reads the first document.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, YamlError> {
        let mut events = Events::new(bytes)?;
        let mut nodes: Vec<(Node, u32)> = Vec::new();
        let mut anchors: HashMap<&'a str, u32> = HashMap::new();
        // The collections whose end has not come yet.
        let mut open: Vec<usize> = Vec::new();
        loop {
            let Located { event, line } = events.next_event()?;
            // The scanner refuses streams that could have more nodes than that.
            let at = nodes.len() as u32;
            let node = match event {
                // What follows the first document is not read, so that it may even be wrong, as for `yaml.Unmarshal`.
                Event::StreamEnd | Event::DocumentEnd => break,
                Event::DocumentStart => continue,
                Event::Alias(name) => {
                    let text = events.texts().name(name);
                    let unknown = || YamlError::new(format_args!("unknown anchor '{text}' referenced"));
                    Node::Alias { name, target: *anchors.get(text).ok_or_else(unknown)? }
                }
                Event::Scalar { anchor, tag, value, plain } => {
                    anchors.extend(anchor.map(|name| (events.texts().name(name), at)));
                    Node::Scalar { value, tag, plain }
                }
                Event::Start { anchor, is_mapping } => {
                    anchors.extend(anchor.map(|name| (events.texts().name(name), at)));
                    if open.len() >= MAX_DEPTH {
                        return Err(too_deep());
                    }
                    open.push(nodes.len());
                    // The end is filled in when it comes.
                    if is_mapping { Node::Mapping { end: at } } else { Node::Sequence { end: at } }
                }
                Event::End => {
                    if let Some((Node::Mapping { end } | Node::Sequence { end }, _)) =
                        open.pop().and_then(|open| nodes.get_mut(open))
                    {
                        *end = at;
                    }
                    continue;
                }
            };
            nodes.push((node, line));
        }
        Ok(Tree { nodes, texts: events.into_texts() })
    }

    /// The outermost node; `None` for an empty stream.
    pub(super) fn root(&self) -> Option<u32> {
        (!self.nodes.is_empty()).then_some(0)
    }

    /// A node. Its number comes from this tree.
    pub(super) fn node(&self, at: u32) -> Node {
        self.nodes[at as usize].0
    }

    /// The line on which a node begins, from 0.
    pub(super) fn line(&self, at: u32) -> u32 {
        self.nodes[at as usize].1
    }

    /// The text of a scalar, or the name of an alias.
    pub(super) fn text(&self, text: Text) -> &str {
        self.texts.get(text)
    }

    /// The text of a scalar as it stands in the stream, unless it had to be made.
    pub(super) fn written(&self, text: Text) -> Option<&'a str> {
        self.texts.written(text)
    }

    /// The nodes directly inside a collection that ends before `end`.
    pub(super) fn children(&self, at: u32, end: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = at + 1;
        std::iter::from_fn(move || {
            let child = (next < end).then_some(next)?;
            next = match self.node(child) {
                Node::Mapping { end } | Node::Sequence { end } => end,
                Node::Scalar { .. } | Node::Alias { .. } => child + 1,
            };
            Some(child)
        })
    }
}
