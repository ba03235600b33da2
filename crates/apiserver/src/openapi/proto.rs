//! Swagger 2.0 in protobuf (`gnostic-models/openapiv2/OpenAPIv2.proto`), the form in which client-go asks for
//! `/openapi/v2`. A piece of the JSON document is encoded at a time: a message that occurs once may be split, its
//! parts are merged by who reads them, so that `paths` and `definitions` need not be in memory as a whole.

use serde_json::{Map, Value};

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The low seven bits, with the mark that more follow.
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        // The tag: field number, and wire type 2 for what has a length.
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, message: &Message) {
        self.bytes(field, &message.0);
    }

    /// A string; nothing if there is none.
    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, values: &Value) {
        for text in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u32, value: &Value) {
        // Zero is proto3's default and is not written.
        if let Some(number) = value.as_i64().filter(|n| *n != 0) {
            self.varint(u64::from(field) << 3);
            // A negative number is ten bytes long: its two's complement.
            self.varint(number.cast_unsigned());
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_f64().filter(|n| *n != 0.0) {
            self.varint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A message of `name = 1` and `value = 2`.
    fn named(&mut self, field: u32, name: &str, value: &Message) {
        let mut out = Message::default();
        out.bytes(1, name.as_bytes());
        out.message(2, value);
        self.message(field, &out);
    }

    /// The members that begin with `x-`.
    fn extensions(&mut self, field: u32, members: &Map<String, Value>) {
        for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, &any(value));
        }
    }
}

/// A value of any shape, in YAML; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

/// The beginning of a document: version and title.
pub(super) fn head(swagger: &str, info: &Value) -> Vec<u8> {
    let mut about = Message::default();
    about.text(1, &info["title"]);
    about.text(2, &info["version"]);
    let mut out = Message::default();
    out.bytes(1, swagger.as_bytes());
    out.message(2, &about);
    out.0
}

/// One of the document's paths.
pub(super) fn path(name: &str, item: &Value) -> Vec<u8> {
    let mut encoded = Message::default();
    // Fields of `PathItem`; 6 and 7 are options and head, which no path has.
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(members) = item[method].as_object() {
            encoded.message(field, &operation(members));
        }
    }
    parameters(&mut encoded, 9, &item["parameters"]);
    let mut paths = Message::default();
    paths.named(2, name, &encoded);
    let mut out = Message::default();
    out.message(8, &paths);
    out.0
}

/// One of the document's definitions.
pub(super) fn definition(name: &str, definition: &Value) -> Vec<u8> {
    let mut definitions = Message::default();
    definitions.named(1, name, &schema(definition));
    let mut out = Message::default();
    out.message(9, &definitions);
    out.0
}

/// How clients authenticate, and that they have to: API keys by name.
pub(super) fn security(schemes: &Value) -> Vec<u8> {
    let mut out = Message::default();
    for (name, scheme) in schemes.as_object().into_iter().flatten() {
        let mut requirement = Message::default();
        requirement.named(1, name, &Message::default());
        out.message(12, &requirement);
        let mut key = Message::default();
        for (member, field) in [("type", 1), ("name", 2), ("in", 3), ("description", 4)] {
            key.text(field, &scheme[member]);
        }
        let mut item = Message::default();
        item.message(2, &key);
        let mut definitions = Message::default();
        definitions.named(1, name, &item);
        out.message(13, &definitions);
    }
    out.0
}

fn operation(members: &Map<String, Value>) -> Message {
    let get = |name: &str| members.get(name).unwrap_or(&Value::Null);
    let mut out = Message::default();
    out.texts(1, get("tags"));
    out.text(3, get("description"));
    out.text(5, get("operationId"));
    out.texts(6, get("produces"));
    out.texts(7, get("consumes"));
    parameters(&mut out, 8, get("parameters"));
    // `Responses` holds named values, each a choice between a response and a reference.
    let mut responses = Message::default();
    for (code, answer) in get("responses").as_object().into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, &answer["description"]);
        if answer["schema"].is_object() {
            let mut item = Message::default();
            item.message(1, &schema(&answer["schema"]));
            response.message(2, &item);
        }
        let mut value = Message::default();
        value.message(1, &response);
        responses.named(1, code, &value);
    }
    out.message(9, &responses);
    out.texts(10, get("schemes"));
    out.extensions(13, members);
    out
}

fn parameters(out: &mut Message, field: u32, parameters: &Value) {
    for parameter in parameters.as_array().into_iter().flatten() {
        let mut encoded = Message::default();
        let place = parameter["in"].as_str().unwrap_or_default();
        if place == "body" {
            encoded.text(1, &parameter["description"]);
            encoded.text(2, &parameter["name"]);
            encoded.text(3, &parameter["in"]);
            encoded.flag(4, &parameter["required"]);
            encoded.message(5, &schema(&parameter["schema"]));
        } else {
            encoded.flag(1, &parameter["required"]);
            encoded.text(2, &parameter["in"]);
            encoded.text(3, &parameter["description"]);
            encoded.text(4, &parameter["name"]);
            // Query parameters have `allowEmptyValue` as their fifth field, path parameters do not.
            let (kind, unique) = if place == "query" { (6, 20) } else { (5, 19) };
            encoded.text(kind, &parameter["type"]);
            encoded.flag(unique, &parameter["uniqueItems"]);
        }
        // Each alternative is wrapped in a message of its own: body, or not body and there query or path.
        let wrap = |field: u32, inner: Message| {
            let mut out = Message::default();
            out.message(field, &inner);
            out
        };
        let chosen = match place {
            "body" => wrap(1, encoded),
            "query" => wrap(2, wrap(3, encoded)),
            _ => wrap(2, wrap(4, encoded)),
        };
        out.message(field, &wrap(1, chosen));
    }
}

/// A `Schema`. The numbers are its fields in `OpenAPIv2.proto`; members without a field (defaults, junctors) were removed
/// by `v2::downgrade` and would be skipped here.
fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let Some(members) = value.as_object() else { return out };
    for (name, value) in members {
        match name.as_str() {
            "$ref" => out.text(1, value),
            "format" => out.text(2, value),
            "title" => out.text(3, value),
            "description" => out.text(4, value),
            "multipleOf" => out.double(6, value),
            "maximum" => out.double(7, value),
            "exclusiveMaximum" => out.flag(8, value),
            "minimum" => out.double(9, value),
            "exclusiveMinimum" => out.flag(10, value),
            "maxLength" => out.integer(11, value),
            "minLength" => out.integer(12, value),
            "pattern" => out.text(13, value),
            "maxItems" => out.integer(14, value),
            "minItems" => out.integer(15, value),
            "uniqueItems" => out.flag(16, value),
            "maxProperties" => out.integer(17, value),
            "minProperties" => out.integer(18, value),
            "required" => out.texts(19, value),
            "enum" => value.as_array().into_iter().flatten().for_each(|v| out.message(20, &any(v))),
            "additionalProperties" => out.message(21, &additional(value)),
            // A list in the message, because JSON Schema allows several types; we have one.
            "type" => {
                let mut kinds = Message::default();
                kinds.text(1, value);
                out.message(22, &kinds);
            }
            "items" => {
                let mut items = Message::default();
                items.message(1, &schema(value));
                out.message(23, &items);
            }
            "properties" => {
                let mut properties = Message::default();
                for (name, property) in value.as_object().into_iter().flatten() {
                    properties.named(1, name, &schema(property));
                }
                out.message(25, &properties);
            }
            "externalDocs" => {
                let mut docs = Message::default();
                docs.text(1, &value["description"]);
                docs.text(2, &value["url"]);
                out.message(29, &docs);
            }
            "example" => out.message(30, &any(value)),
            _ => {}
        }
    }
    // After the loop, together: extensions are one repeated field of name and value.
    out.extensions(31, members);
    out
}

fn additional(value: &Value) -> Message {
    let mut out = Message::default();
    match value {
        // An alternative is written even if it is false.
        Value::Bool(allowed) => {
            out.varint(2 << 3);
            out.varint(u64::from(*allowed));
        }
        _ => out.message(1, &schema(value)),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_in_groups_of_seven_bits() {
        for (number, want) in [
            (1, vec![0x08, 1]),
            (300, vec![0x08, 0xac, 0x02]),
            (-1, [vec![0x08], vec![0xff; 9], vec![1]].concat()),
        ] {
            let mut out = Message::default();
            out.integer(1, &json!(number));
            assert_eq!(out.0, want, "{number}");
        }
    }

    /// Bytes that `gnostic-models` v0.7.0 reads back as this definition.
    #[test]
    fn a_definition_is_a_part_of_definitions() {
        let bytes = definition("a.B", &json!({"type": "object", "x-y": true}));
        let want = b"\x4a\x24\x0a\x22\x0a\x03a.B\x12\x1b\xb2\x01\x08\x0a\x06object\xfa\x01\x0d\x0a\x03x-y\x12\x06\x12\x04true";
        assert_eq!(bytes, want);
    }
}
