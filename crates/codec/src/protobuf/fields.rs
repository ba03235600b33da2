//! The table of messages and their fields, read from `data/protobuf-fields.txt`, whose head explains its format.

use fleetpass_apimachinery::gvk::GroupVersionKind;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("../../data/protobuf-fields.txt");

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| Messages::read(TABLE));

struct Messages {
    /// In the order of the table; a [`Reference`] is an index.
    all: Vec<Message>,
    /// By `apiVersion` (`*`: any) and kind.
    kinds: HashMap<(&'static str, &'static str), usize>,
}

/// A message of the table; a number that only this module gives out.
// Not a `&'static Message`: messages refer to each other, also in circles (a JSON schema contains schemas).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference(usize);

impl Reference {
    pub(super) fn message(self) -> &'static Message {
        &MESSAGES.all[self.0]
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Package and Go type: `core.v1.Secret`.
    name: &'static str,
    pub(super) shape: Shape,
    /// Ordered by number.
    pub(super) fields: Vec<Field>,
}

/// How a message looks in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object of its fields.
    Object,
    /// `metav1.Time` (`time_proto.go`).
    Time,
    /// `metav1.MicroTime` (`micro_time_proto.go`).
    MicroTime,
    /// `resource.Quantity` (`quantity_proto.go`).
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// The value whose text is the only field.
    Json,
    /// The list that is the only field.
    List,
    /// `apiextensions.JSONSchemaPropsOrArray`.
    SchemaOrArray,
    /// `apiextensions.JSONSchemaPropsOrBool`.
    SchemaOrBool,
    /// `apiextensions.JSONSchemaPropsOrStringArray`.
    SchemaOrStrings,
}

/// How often a field may be there, and when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// Always.
    Always,
    /// If it is there.
    Optional,
    /// Once for each element.
    List,
    /// Once for each entry, with string keys.
    Map,
    /// Always; its fields are those of the message around it in JSON.
    Inline,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Bytes,
    /// The bytes of a JSON text.
    Json,
    Message(Reference),
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: i32,
    /// Its name in JSON.
    pub(super) name: &'static str,
    /// The name of the Go struct's field, if it is not the JSON name with a capital.
    go_name: Option<&'static str>,
    pub(super) label: Label,
    pub(super) kind: Type,
}

impl Message {
    /// The field of that number.
    pub(super) fn field(&self, number: i32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| &self.fields[index])
    }

    /// The Go type without its package.
    pub(super) fn go_name(&self) -> &'static str {
        last_part(self.name)
    }
}

impl Field {
    /// The name of the Go struct's field.
    pub(super) fn go_name(&self) -> Cow<'static, str> {
        self.go_name.map_or_else(
            || {
                let (first, rest) = self.name.split_at(1);
                Cow::Owned(first.to_ascii_uppercase() + rest)
            },
            Cow::Borrowed,
        )
    }
}

/// The message of a kind, if it has one.
pub(super) fn of_kind(gvk: &GroupVersionKind) -> Option<&'static Message> {
    let version = gvk.api_version();
    let find = |version: &str| MESSAGES.kinds.get(&(version, gvk.kind.as_str())).copied();
    // The meta types (`DeleteOptions`, `Status`) are kinds of every version.
    find(&version).or_else(|| find("*")).map(|index| Reference(index).message())
}

impl Messages {
    /// Reads the table.
    // It is part of the program: a line that cannot be read is a mistake in it, which any test finds.
    fn read(table: &'static str) -> Self {
        // Twice: a field may refer to a message that comes later.
        let lines = || table.lines().filter(|line| !line.starts_with('#'));
        let names = lines().filter_map(header).map(|(name, _)| name);
        let indices: HashMap<&str, usize> = names.enumerate().map(|(index, name)| (name, index)).collect();
        let mut messages = Self { all: Vec::new(), kinds: HashMap::new() };
        for line in lines() {
            if let Some((name, rest)) = header(line) {
                let mut shape = Shape::Object;
                for word in rest.split_ascii_whitespace() {
                    match word.strip_prefix('=') {
                        Some(word) => shape = read_shape(word),
                        None => {
                            messages.kinds.insert((word, last_part(name)), messages.all.len());
                        }
                    }
                }
                messages.all.push(Message { name, shape, fields: Vec::new() });
            } else {
                let message = messages.all.last_mut().expect("the table begins with a message");
                message.fields.push(read_field(line, &indices));
            }
        }
        messages
    }
}

/// The Go type without its package.
fn last_part(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The name in brackets and what follows it.
fn header(line: &'static str) -> Option<(&'static str, &'static str)> {
    line.strip_prefix('[')?.split_once(']')
}

/// The shape after a `=`.
fn read_shape(word: &str) -> Shape {
    match word {
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "quantity" => Shape::Quantity,
        "int-or-string" => Shape::IntOrString,
        "json" => Shape::Json,
        "list" => Shape::List,
        "schema-or-array" => Shape::SchemaOrArray,
        "schema-or-bool" => Shape::SchemaOrBool,
        "schema-or-strings" => Shape::SchemaOrStrings,
        other => panic!("the table of protobuf fields has an unknown shape {other}"),
    }
}

/// A line about a field.
fn read_field(line: &'static str, indices: &HashMap<&str, usize>) -> Field {
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next();
    let (Some(number), Some(name), Some(kind)) = (word(), word(), word()) else {
        panic!("the table of protobuf fields has a short line: {line}");
    };
    let labelled = |sign: char, label: Label| kind.strip_prefix(sign).map(|kind| (label, kind));
    let (label, kind) = labelled('?', Label::Optional)
        .or_else(|| labelled('*', Label::List))
        .or_else(|| labelled('%', Label::Map))
        .or_else(|| labelled('@', Label::Inline))
        .unwrap_or((Label::Always, kind));
    let kind = match kind {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "json" => Type::Json,
        message => Type::Message(Reference(indices[message])),
    };
    let number = number.parse().expect("a field of the table begins with its number");
    Field { number, name, go_name: word(), label, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let gvk = |group: &str, version: &str, kind: &str| GroupVersionKind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        };
        let secret = of_kind(&gvk("", "v1", "Secret")).unwrap();
        assert_eq!((secret.go_name(), secret.shape), ("Secret", Shape::Object));
        let data = secret.field(2).unwrap();
        assert_eq!(
            (data.name, &*data.go_name(), data.label, data.kind),
            ("data", "Data", Label::Map, Type::Bytes)
        );
        assert_eq!(secret.field(1).unwrap().go_name(), "ObjectMeta");
        assert!(secret.field(6).is_none());
        for version in ["v1", "rbac.authorization.k8s.io/v1"] {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            assert!(of_kind(&gvk(group, version, "DeleteOptions")).is_some());
        }
        assert!(of_kind(&gvk("rbac.authorization.k8s.io", "v1", "Secret")).is_none());
        for message in &MESSAGES.all {
            assert!(message.fields.is_sorted_by_key(|field| field.number), "{}", message.name);
        }
    }
}
