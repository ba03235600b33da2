//! Bodies in protobuf, and answers in it.

use super::{Row, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps?dryRun=All";
const DONE: &[u16] = &[201, 413, 422, 500];

/// A field of a message that is delimited.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    varint(&mut out, number << 3 | 2);
    varint(&mut out, u32::try_from(bytes.len()).expect("bodies are smaller"));
    out.extend_from_slice(bytes);
    out
}

fn varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A message of a core kind with its envelope.
fn envelope(kind: &str, message: &[u8]) -> Vec<u8> {
    let names = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &names), field(2, message)].concat()
}

/// A ConfigMap of the name `a` with as many of these fields behind as fit.
fn config_map(name: &str, statuses: &'static [u16], next: impl Fn(usize) -> Vec<u8> + 'static) -> Row {
    Row::new(name, statuses, move |size| {
        let mut message = field(1, &field(1, b"a"));
        let room = size - 40;
        for n in 0.. {
            let more = next(n);
            if message.len() + more.len() > room {
                break;
            }
            message.extend(more);
        }
        let body = envelope("ConfigMap", &message);
        let mut request = request("POST", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", body);
        request.accept = "application/vnd.kubernetes.protobuf".into();
        request
    })
}

pub(super) fn rows() -> Vec<Row> {
    let entry = |n: usize| [field(1, format!("k{n}").as_bytes()), field(2, b"v")].concat();
    // The numbers are those of `metav1.ObjectMeta`.
    let in_metadata = |number, bytes: Vec<u8>| field(1, &field(number, &bytes));
    vec![
        config_map("data", DONE, move |n| field(2, &entry(n))),
        config_map("one key many times", DONE, move |_| field(2, &entry(0))),
        config_map("bytes", DONE, move |n| field(3, &entry(n))),
        config_map("unknown fields", DONE, |_| vec![0xf8, 1, 1]),
        config_map("unknown groups", DONE, |_| vec![0x2b, 0x2c]),
        config_map("groups that open", &[400], |_| vec![0x2b]),
        config_map("metadata many times", DONE, move |_| in_metadata(1, b"a".to_vec())),
        config_map("labels in many metadata", DONE, move |n| in_metadata(11, entry(n))),
        config_map("bad labels", &[422], move |n| {
            in_metadata(11, [field(1, format!("!{n}").as_bytes()), field(2, b"v")].concat())
        }),
        config_map("finalizers in many metadata", DONE, move |n| {
            in_metadata(14, format!("a.b/c{n}").into_bytes())
        }),
        config_map("owners in many metadata", DONE, move |n| {
            let owner =
                [field(1, b"Node"), field(3, b"o"), field(4, n.to_string().as_bytes()), field(5, b"v1")];
            in_metadata(13, owner.concat())
        }),
    ]
}
