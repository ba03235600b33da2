//! The types of expressions, and which function takes and gives which.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A type.
#[derive(Debug, Clone)]
pub(super) enum Ty {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    Type,
    List(Rc<Node>),
    Map(Rc<Node>),
    Object(Rc<BTreeMap<String, Node>>),
    Optional(Rc<Node>),
    Named(&'static str),
}

/// A type with the bounds that costs depend on.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) ty: Ty,
    /// The greatest size: characters, elements.
    pub(super) most: u64,
    /// The fewest bytes that a value takes in a request.
    pub(super) least: u64,
}

impl Ty {
    pub(super) fn print(&self) -> String {
        match self {
            Self::Dyn => "dyn".into(),
            Self::Null => "null".into(),
            Self::Bool => "bool".into(),
            Self::Int => "int".into(),
            Self::Uint => "uint".into(),
            Self::Double => "double".into(),
            Self::Text => "string".into(),
            Self::Bytes => "bytes".into(),
            Self::Timestamp => "timestamp".into(),
            Self::Duration => "duration".into(),
            Self::Type => "type".into(),
            Self::List(of) => format!("list({})", of.ty.print()),
            Self::Map(of) => format!("map(string, {})", of.ty.print()),
            Self::Object(_) => "object".into(),
            Self::Optional(of) => format!("optional_type({})", of.ty.print()),
            Self::Named(name) => (*name).into(),
        }
    }

    /// Whether the outermost types are the same.
    pub(super) fn same_kind(&self, other: &Ty) -> bool {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// Whether values of both types may be compared for equality.
    pub(super) fn comparable(&self, other: &Ty) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Null, _) | (_, Self::Dyn | Self::Null) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.ty.comparable(&b.ty),
            (Self::Map(a), Self::Map(b)) => a.ty.comparable(&b.ty),
            (a, b) => a.same_kind(b),
        }
    }

    /// Whether values of both types have an order; numbers of all kinds have one.
    pub(super) fn ordered(&self, other: &Ty) -> bool {
        let number = |ty: &Ty| matches!(ty, Self::Int | Self::Uint | Self::Double);
        let scalar = |ty: &Ty| {
            number(ty)
                || matches!(ty, Self::Bool | Self::Text | Self::Bytes | Self::Timestamp | Self::Duration)
        };
        match (self, other) {
            (Self::Dyn, other) | (other, Self::Dyn) => matches!(other, Self::Dyn) || scalar(other),
            (a, b) => scalar(a) && (a.same_kind(b) || (number(a) && number(b))),
        }
    }
}

impl Node {
    pub(super) fn of(ty: Ty) -> Self {
        Self { ty, most: 1, least: 1 }
    }

    /// The type of values that are one or the other.
    pub(super) fn join(&self, other: &Node) -> Node {
        let most = self.most.max(other.most);
        let ty = match (&self.ty, &other.ty) {
            (Ty::Dyn, _) | (_, Ty::Dyn) => match (&self.ty, &other.ty) {
                (Ty::Dyn, other) => other.clone(),
                (ty, _) => ty.clone(),
            },
            (Ty::List(a), Ty::List(b)) => Ty::List(Rc::new(a.join(b))),
            (a, b) if a.same_kind(b) => a.clone(),
            _ => Ty::Dyn,
        };
        Node { ty, most, least: self.least.min(other.least) }
    }

    /// What an optional may hold; anything else itself.
    pub(super) fn unwrapped(&self) -> &Node {
        match &self.ty {
            Ty::Optional(inner) => inner,
            _ => self,
        }
    }

    /// The type of `self[at]`.
    pub(super) fn element(&self, at: &Node) -> Option<Node> {
        match (&self.ty, &at.ty) {
            (Ty::Dyn, _) => Some(Node::of(Ty::Dyn)),
            (Ty::List(of), Ty::Int | Ty::Uint | Ty::Double | Ty::Dyn) => Some((**of).clone()),
            (Ty::Map(of), Ty::Text | Ty::Dyn | Ty::Int | Ty::Uint | Ty::Bool) => Some((**of).clone()),
            (Ty::Optional(of), _) => of.element(at).map(|node| Node::of(Ty::Optional(Rc::new(node)))),
            _ => None,
        }
    }
}

pub(super) fn print_list(nodes: &[Node]) -> String {
    nodes.iter().map(|n| n.ty.print()).collect::<Vec<_>>().join(", ")
}

/// A parameter, or a simple result.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum P {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    List,
    TextList,
    Map,
    Optional,
    Type,
    Quantity,
    Url,
    Ip,
    Cidr,
    Format,
}

/// A result.
#[derive(Clone, Copy)]
pub(super) enum R {
    Is(P),
    /// An element of the first argument.
    Element,
    /// What the first argument holds.
    Unwrapped,
    /// The type of the first argument.
    First,
    /// An optional of the first argument.
    OptionalOfFirst,
    /// An optional of that.
    OptionalOf(P),
}

const QUANTITY: &str = "kubernetes.Quantity";
const URL: &str = "kubernetes.URL";
const IP: &str = "net.IP";
const CIDR: &str = "net.CIDR";
const FORMAT: &str = "kubernetes.NamedFormat";

impl P {
    fn accepts(self, ty: &Ty) -> bool {
        match (self, ty) {
            (_, Ty::Dyn) | (Self::Any, _) => true,
            (Self::Map, Ty::Map(_) | Ty::Object(_)) => true,
            (Self::TextList, Ty::List(of)) => matches!(of.ty, Ty::Text | Ty::Dyn),
            (p, ty) => p.node().ty.same_kind(ty),
        }
    }

    fn node(self) -> Node {
        let any = || Rc::new(Node::of(Ty::Dyn));
        Node::of(match self {
            Self::Any => Ty::Dyn,
            Self::Bool => Ty::Bool,
            Self::Int => Ty::Int,
            Self::Uint => Ty::Uint,
            Self::Double => Ty::Double,
            Self::Text => Ty::Text,
            Self::Bytes => Ty::Bytes,
            Self::Timestamp => Ty::Timestamp,
            Self::Duration => Ty::Duration,
            Self::List => Ty::List(any()),
            Self::TextList => Ty::List(Rc::new(Node::of(Ty::Text))),
            Self::Map => Ty::Map(any()),
            Self::Optional => Ty::Optional(any()),
            Self::Type => Ty::Type,
            Self::Quantity => Ty::Named(QUANTITY),
            Self::Url => Ty::Named(URL),
            Self::Ip => Ty::Named(IP),
            Self::Cidr => Ty::Named(CIDR),
            Self::Format => Ty::Named(FORMAT),
        })
    }
}

/// The type of a call's value, if the arguments fit the parameters.
pub(super) fn overload(params: &[P], result: R, args: &[Node]) -> Option<Node> {
    let fits = params.len() == args.len() && params.iter().zip(args).all(|(p, a)| p.accepts(&a.ty));
    if !fits {
        return None;
    }
    let first = || args.first().cloned().unwrap_or_else(|| Node::of(Ty::Dyn));
    let most = args.iter().map(|a| a.most).max().unwrap_or(1);
    Some(match result {
        R::Is(p @ (P::Text | P::TextList | P::List | P::Bytes)) => Node { most, ..p.node() },
        R::Is(p) => p.node(),
        R::Element => match &first().ty {
            Ty::List(of) => (**of).clone(),
            _ => Node::of(Ty::Dyn),
        },
        R::Unwrapped => first().unwrapped().clone(),
        R::First => first(),
        R::OptionalOfFirst => Node::of(Ty::Optional(Rc::new(first()))),
        R::OptionalOf(p) => Node::of(Ty::Optional(Rc::new(p.node()))),
    })
}

type Overload = (&'static str, &'static [P], R);

/// Functions that are called by their name.
pub(super) const GLOBALS: &[Overload] = &[
    ("size", &[P::Text], R::Is(P::Int)),
    ("size", &[P::Bytes], R::Is(P::Int)),
    ("size", &[P::List], R::Is(P::Int)),
    ("size", &[P::Map], R::Is(P::Int)),
    ("matches", &[P::Text, P::Text], R::Is(P::Bool)),
    ("dyn", &[P::Any], R::Is(P::Any)),
    ("type", &[P::Any], R::Is(P::Type)),
    ("int", &[P::Int], R::Is(P::Int)),
    ("int", &[P::Uint], R::Is(P::Int)),
    ("int", &[P::Double], R::Is(P::Int)),
    ("int", &[P::Text], R::Is(P::Int)),
    ("int", &[P::Timestamp], R::Is(P::Int)),
    ("int", &[P::Duration], R::Is(P::Int)),
    ("uint", &[P::Uint], R::Is(P::Uint)),
    ("uint", &[P::Int], R::Is(P::Uint)),
    ("uint", &[P::Double], R::Is(P::Uint)),
    ("uint", &[P::Text], R::Is(P::Uint)),
    ("double", &[P::Double], R::Is(P::Double)),
    ("double", &[P::Int], R::Is(P::Double)),
    ("double", &[P::Uint], R::Is(P::Double)),
    ("double", &[P::Text], R::Is(P::Double)),
    ("bool", &[P::Bool], R::Is(P::Bool)),
    ("bool", &[P::Text], R::Is(P::Bool)),
    ("bytes", &[P::Text], R::Is(P::Bytes)),
    ("bytes", &[P::Bytes], R::Is(P::Bytes)),
    ("string", &[P::Text], R::Is(P::Text)),
    ("string", &[P::Bool], R::Is(P::Text)),
    ("string", &[P::Int], R::Is(P::Text)),
    ("string", &[P::Uint], R::Is(P::Text)),
    ("string", &[P::Double], R::Is(P::Text)),
    ("string", &[P::Bytes], R::Is(P::Text)),
    ("string", &[P::Timestamp], R::Is(P::Text)),
    ("string", &[P::Duration], R::Is(P::Text)),
    ("string", &[P::Ip], R::Is(P::Text)),
    ("string", &[P::Cidr], R::Is(P::Text)),
    ("timestamp", &[P::Text], R::Is(P::Timestamp)),
    ("timestamp", &[P::Int], R::Is(P::Timestamp)),
    ("timestamp", &[P::Timestamp], R::Is(P::Timestamp)),
    ("duration", &[P::Text], R::Is(P::Duration)),
    ("duration", &[P::Int], R::Is(P::Duration)),
    ("duration", &[P::Duration], R::Is(P::Duration)),
    ("quantity", &[P::Text], R::Is(P::Quantity)),
    ("isQuantity", &[P::Text], R::Is(P::Bool)),
    ("url", &[P::Text], R::Is(P::Url)),
    ("isURL", &[P::Text], R::Is(P::Bool)),
    ("ip", &[P::Text], R::Is(P::Ip)),
    ("isIP", &[P::Text], R::Is(P::Bool)),
    ("ip.isCanonical", &[P::Text], R::Is(P::Bool)),
    ("cidr", &[P::Text], R::Is(P::Cidr)),
    ("isCIDR", &[P::Text], R::Is(P::Bool)),
    ("optional.of", &[P::Any], R::OptionalOfFirst),
    ("optional.ofNonZeroValue", &[P::Any], R::OptionalOfFirst),
    ("optional.none", &[], R::Is(P::Optional)),
    ("format.named", &[P::Text], R::OptionalOf(P::Format)),
    ("sets.contains", &[P::List, P::List], R::Is(P::Bool)),
    ("sets.equivalent", &[P::List, P::List], R::Is(P::Bool)),
    ("sets.intersects", &[P::List, P::List], R::Is(P::Bool)),
];

/// Functions that are called on their first argument.
pub(super) const MEMBERS: &[Overload] = &[
    ("size", &[P::Text], R::Is(P::Int)),
    ("size", &[P::Bytes], R::Is(P::Int)),
    ("size", &[P::List], R::Is(P::Int)),
    ("size", &[P::Map], R::Is(P::Int)),
    ("contains", &[P::Text, P::Text], R::Is(P::Bool)),
    ("startsWith", &[P::Text, P::Text], R::Is(P::Bool)),
    ("endsWith", &[P::Text, P::Text], R::Is(P::Bool)),
    ("matches", &[P::Text, P::Text], R::Is(P::Bool)),
    ("charAt", &[P::Text, P::Int], R::Is(P::Text)),
    ("indexOf", &[P::Text, P::Text], R::Is(P::Int)),
    ("indexOf", &[P::Text, P::Text, P::Int], R::Is(P::Int)),
    ("indexOf", &[P::List, P::Any], R::Is(P::Int)),
    ("lastIndexOf", &[P::Text, P::Text], R::Is(P::Int)),
    ("lastIndexOf", &[P::List, P::Any], R::Is(P::Int)),
    ("lowerAscii", &[P::Text], R::Is(P::Text)),
    ("upperAscii", &[P::Text], R::Is(P::Text)),
    ("trim", &[P::Text], R::Is(P::Text)),
    ("reverse", &[P::Text], R::Is(P::Text)),
    ("replace", &[P::Text, P::Text, P::Text], R::Is(P::Text)),
    ("replace", &[P::Text, P::Text, P::Text, P::Int], R::Is(P::Text)),
    ("split", &[P::Text, P::Text], R::Is(P::TextList)),
    ("split", &[P::Text, P::Text, P::Int], R::Is(P::TextList)),
    ("substring", &[P::Text, P::Int], R::Is(P::Text)),
    ("substring", &[P::Text, P::Int, P::Int], R::Is(P::Text)),
    ("join", &[P::TextList], R::Is(P::Text)),
    ("join", &[P::TextList, P::Text], R::Is(P::Text)),
    ("isSorted", &[P::List], R::Is(P::Bool)),
    ("sum", &[P::List], R::Element),
    ("min", &[P::List], R::Element),
    ("max", &[P::List], R::Element),
    ("find", &[P::Text, P::Text], R::Is(P::Text)),
    ("findAll", &[P::Text, P::Text], R::Is(P::TextList)),
    ("findAll", &[P::Text, P::Text, P::Int], R::Is(P::TextList)),
    ("getScheme", &[P::Url], R::Is(P::Text)),
    ("getHost", &[P::Url], R::Is(P::Text)),
    ("getHostname", &[P::Url], R::Is(P::Text)),
    ("getPort", &[P::Url], R::Is(P::Text)),
    ("getEscapedPath", &[P::Url], R::Is(P::Text)),
    ("getQuery", &[P::Url], R::Is(P::Map)),
    ("isGreaterThan", &[P::Quantity, P::Quantity], R::Is(P::Bool)),
    ("isLessThan", &[P::Quantity, P::Quantity], R::Is(P::Bool)),
    ("compareTo", &[P::Quantity, P::Quantity], R::Is(P::Int)),
    ("add", &[P::Quantity, P::Quantity], R::First),
    ("add", &[P::Quantity, P::Int], R::First),
    ("sub", &[P::Quantity, P::Quantity], R::First),
    ("sub", &[P::Quantity, P::Int], R::First),
    ("sign", &[P::Quantity], R::Is(P::Int)),
    ("isInteger", &[P::Quantity], R::Is(P::Bool)),
    ("asInteger", &[P::Quantity], R::Is(P::Int)),
    ("asApproximateFloat", &[P::Quantity], R::Is(P::Double)),
    ("family", &[P::Ip], R::Is(P::Int)),
    ("isUnspecified", &[P::Ip], R::Is(P::Bool)),
    ("isLoopback", &[P::Ip], R::Is(P::Bool)),
    ("isLinkLocalMulticast", &[P::Ip], R::Is(P::Bool)),
    ("isLinkLocalUnicast", &[P::Ip], R::Is(P::Bool)),
    ("isGlobalUnicast", &[P::Ip], R::Is(P::Bool)),
    ("containsIP", &[P::Cidr, P::Ip], R::Is(P::Bool)),
    ("containsIP", &[P::Cidr, P::Text], R::Is(P::Bool)),
    ("containsCIDR", &[P::Cidr, P::Cidr], R::Is(P::Bool)),
    ("containsCIDR", &[P::Cidr, P::Text], R::Is(P::Bool)),
    ("ip", &[P::Cidr], R::Is(P::Ip)),
    ("masked", &[P::Cidr], R::First),
    ("prefixLength", &[P::Cidr], R::Is(P::Int)),
    ("validate", &[P::Format, P::Text], R::OptionalOf(P::TextList)),
    ("hasValue", &[P::Optional], R::Is(P::Bool)),
    ("value", &[P::Optional], R::Unwrapped),
    ("orValue", &[P::Optional, P::Any], R::Unwrapped),
    ("or", &[P::Optional, P::Optional], R::First),
    ("getFullYear", &[P::Timestamp], R::Is(P::Int)),
    ("getFullYear", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getMonth", &[P::Timestamp], R::Is(P::Int)),
    ("getMonth", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getDate", &[P::Timestamp], R::Is(P::Int)),
    ("getDate", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getDayOfMonth", &[P::Timestamp], R::Is(P::Int)),
    ("getDayOfMonth", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getDayOfWeek", &[P::Timestamp], R::Is(P::Int)),
    ("getDayOfWeek", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getDayOfYear", &[P::Timestamp], R::Is(P::Int)),
    ("getDayOfYear", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getHours", &[P::Timestamp], R::Is(P::Int)),
    ("getHours", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getHours", &[P::Duration], R::Is(P::Int)),
    ("getMinutes", &[P::Timestamp], R::Is(P::Int)),
    ("getMinutes", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getMinutes", &[P::Duration], R::Is(P::Int)),
    ("getSeconds", &[P::Timestamp], R::Is(P::Int)),
    ("getSeconds", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getSeconds", &[P::Duration], R::Is(P::Int)),
    ("getMilliseconds", &[P::Timestamp], R::Is(P::Int)),
    ("getMilliseconds", &[P::Timestamp, P::Text], R::Is(P::Int)),
    ("getMilliseconds", &[P::Duration], R::Is(P::Int)),
];
