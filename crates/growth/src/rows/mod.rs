//! The table of requests, by what they attack.

mod access;
mod apply;
mod definitions;
mod heads;
mod json;
mod objects;
mod patches;
mod protobuf;
mod yaml;

use crate::world::{Request, User};

/// The largest body that is accepted.
const BODY: usize = 3 * 1024 * 1024;

/// The longest head that is accepted, about: the limits are those of HTTP/1.1 and HTTP/2.
const HEAD: usize = 64 * 1024;

/// A kind of request, of any size.
pub(crate) struct Row {
    pub(crate) name: String,
    /// How large it may become.
    pub(crate) most: usize,
    /// What has to be done before, and is not counted. Must succeed.
    pub(crate) prepare: Box<dyn Fn(usize) -> Vec<Request>>,
    /// The request, of about so many bytes, but not more. What it names should be made of the size, so that requests of two sizes
    /// do not meet.
    pub(crate) attack: Box<dyn Fn(usize) -> Request>,
    /// The statuses that it may be answered with. One that is given before the work is done makes a row worthless.
    pub(crate) statuses: &'static [u16],
}

/// All rows.
pub(crate) fn all() -> Vec<Row> {
    let tables = [
        ("json", json::rows()),
        ("yaml", yaml::rows()),
        ("protobuf", protobuf::rows()),
        ("objects", objects::rows()),
        ("patches", patches::rows()),
        ("apply", apply::rows()),
        ("definitions", definitions::rows()),
        ("access", access::rows()),
        ("heads", heads::rows()),
    ];
    tables
        .into_iter()
        .flat_map(|(table, rows)| {
            rows.into_iter().map(move |row| Row { name: format!("{table}/{}", row.name), ..row })
        })
        .collect()
}

impl Row {
    /// A row of requests with a body and nothing to prepare.
    fn new(name: &str, statuses: &'static [u16], attack: impl Fn(usize) -> Request + 'static) -> Self {
        Self {
            name: name.into(),
            most: BODY,
            prepare: Box::new(|_| Vec::new()),
            attack: Box::new(attack),
            statuses,
        }
    }

    /// With something to do before.
    fn after(self, prepare: impl Fn(usize) -> Vec<Request> + 'static) -> Self {
        Self { prepare: Box::new(prepare), ..self }
    }

    /// With another limit than that of bodies.
    fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }
}

/// A request of the administrator with a body.
fn request(
    method: &'static str,
    target: impl Into<String>,
    content_type: &'static str,
    body: Vec<u8>,
) -> Request {
    let target = target.into();
    Request { user: User::Admin, method, target, content_type, accept: "application/json".into(), body }
}

/// A POST of JSON.
pub(crate) fn post(target: impl Into<String>, body: Vec<u8>) -> Request {
    request("POST", target, "application/json", body)
}

/// A GET.
fn get(target: impl Into<String>) -> Request {
    request("GET", target, "application/json", Vec::new())
}

impl Request {
    fn by(self, user: User) -> Self {
        Self { user, ..self }
    }
}

/// `head`, then items with commas between them as long as `tail` still fits into `size`.
fn fill(size: usize, head: &str, item: impl Fn(usize) -> String, tail: &str) -> Vec<u8> {
    joined(size, head, item, ",", tail)
}

/// The same with another separator.
fn joined(size: usize, head: &str, item: impl Fn(usize) -> String, separator: &str, tail: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(head.as_bytes());
    for n in 0.. {
        let item = item(n);
        if out.len() + separator.len() + item.len() + tail.len() > size {
            break;
        }
        if n > 0 {
            out.extend_from_slice(separator.as_bytes());
        }
        out.extend_from_slice(item.as_bytes());
    }
    out.extend_from_slice(tail.as_bytes());
    out
}

/// `head`, then `open`s around `middle` with as many `close`s, then `tail`; as many as fit, and at most `levels`.
fn nested(size: usize, levels: usize, [head, open, middle, close, tail]: [&str; 5]) -> Vec<u8> {
    let room = size.saturating_sub(head.len() + middle.len() + tail.len());
    let levels = levels.min(room / (open.len() + close.len()));
    [head, &open.repeat(levels), middle, &close.repeat(levels), tail].concat().into_bytes()
}

/// `head`, then `unit` as often as it fits, then `tail`.
fn repeated(size: usize, head: &str, unit: &str, tail: &str) -> Vec<u8> {
    let times = size.saturating_sub(head.len() + tail.len()) / unit.len();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(head.as_bytes());
    for _ in 0..times {
        out.extend_from_slice(unit.as_bytes());
    }
    out.extend_from_slice(tail.as_bytes());
    out
}
