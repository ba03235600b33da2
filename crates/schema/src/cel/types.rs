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
    String,
    Bytes,
    Timestamp,
    Duration,
    Type,
    List(Rc<DeclType>),
    Map(Rc<DeclType>),
    Object(Rc<BTreeMap<String, DeclType>>),
    Optional(Rc<DeclType>),
    Named(&'static str),
}

/// A type with the bounds that costs depend on.
#[derive(Debug, Clone)]
pub(super) struct DeclType {
    pub(super) ty: Ty,
    /// The greatest size: characters, elements.
    pub(super) max_elements: u64,
    /// The fewest bytes that a value takes in a request.
    pub(super) min_serialized_size: u64,
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
            Self::String => "string".into(),
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
                || matches!(ty, Self::Bool | Self::String | Self::Bytes | Self::Timestamp | Self::Duration)
        };
        match (self, other) {
            (Self::Dyn, other) | (other, Self::Dyn) => matches!(other, Self::Dyn) || scalar(other),
            (a, b) => scalar(a) && (a.same_kind(b) || (number(a) && number(b))),
        }
    }
}

impl DeclType {
    pub(super) fn of(ty: Ty) -> Self {
        Self { ty, max_elements: 1, min_serialized_size: 1 }
    }

    /// The type of values that are one or the other.
    pub(super) fn join(&self, other: &DeclType) -> DeclType {
        let max_elements = self.max_elements.max(other.max_elements);
        let ty = match (&self.ty, &other.ty) {
            (Ty::Dyn, _) | (_, Ty::Dyn) => match (&self.ty, &other.ty) {
                (Ty::Dyn, other) => other.clone(),
                (ty, _) => ty.clone(),
            },
            (Ty::List(a), Ty::List(b)) => Ty::List(Rc::new(a.join(b))),
            (a, b) if a.same_kind(b) => a.clone(),
            _ => Ty::Dyn,
        };
        DeclType {
            ty,
            max_elements,
            min_serialized_size: self.min_serialized_size.min(other.min_serialized_size),
        }
    }

    /// What an optional may hold; anything else itself.
    pub(super) fn unwrapped(&self) -> &DeclType {
        match &self.ty {
            Ty::Optional(inner) => inner,
            _ => self,
        }
    }

    /// The type of `self[at]`.
    pub(super) fn element(&self, at: &DeclType) -> Option<DeclType> {
        match (&self.ty, &at.ty) {
            (Ty::Dyn, _) => Some(DeclType::of(Ty::Dyn)),
            (Ty::List(of), Ty::Int | Ty::Uint | Ty::Double | Ty::Dyn) => Some((**of).clone()),
            (Ty::Map(of), Ty::String | Ty::Dyn | Ty::Int | Ty::Uint | Ty::Bool) => Some((**of).clone()),
            (Ty::Optional(of), _) => of.element(at).map(|decl| DeclType::of(Ty::Optional(Rc::new(decl)))),
            _ => None,
        }
    }
}

pub(super) fn print_list(types: &[DeclType]) -> String {
    types.iter().map(|n| n.ty.print()).collect::<Vec<_>>().join(", ")
}

/// A parameter, or a simple result.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum P {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List,
    StringList,
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
            (Self::StringList, Ty::List(of)) => matches!(of.ty, Ty::String | Ty::Dyn),
            (p, ty) => p.decl().ty.same_kind(ty),
        }
    }

    fn decl(self) -> DeclType {
        let any = || Rc::new(DeclType::of(Ty::Dyn));
        DeclType::of(match self {
            Self::Any => Ty::Dyn,
            Self::Bool => Ty::Bool,
            Self::Int => Ty::Int,
            Self::Uint => Ty::Uint,
            Self::Double => Ty::Double,
            Self::String => Ty::String,
            Self::Bytes => Ty::Bytes,
            Self::Timestamp => Ty::Timestamp,
            Self::Duration => Ty::Duration,
            Self::List => Ty::List(any()),
            Self::StringList => Ty::List(Rc::new(DeclType::of(Ty::String))),
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
pub(super) fn overload(params: &[P], result: R, args: &[DeclType]) -> Option<DeclType> {
    let fits = params.len() == args.len() && params.iter().zip(args).all(|(p, a)| p.accepts(&a.ty));
    if !fits {
        return None;
    }
    let first = || args.first().cloned().unwrap_or_else(|| DeclType::of(Ty::Dyn));
    let max_elements = args.iter().map(|a| a.max_elements).max().unwrap_or(1);
    Some(match result {
        R::Is(p @ (P::String | P::StringList | P::List | P::Bytes)) => DeclType { max_elements, ..p.decl() },
        R::Is(p) => p.decl(),
        R::Element => match &first().ty {
            Ty::List(of) => (**of).clone(),
            _ => DeclType::of(Ty::Dyn),
        },
        R::Unwrapped => first().unwrapped().clone(),
        R::First => first(),
        R::OptionalOfFirst => DeclType::of(Ty::Optional(Rc::new(first()))),
        R::OptionalOf(p) => DeclType::of(Ty::Optional(Rc::new(p.decl()))),
    })
}

type Overload = (&'static str, &'static [P], R);

/// Functions that are called by their name.
pub(super) const GLOBALS: &[Overload] = &[
    ("size", &[P::String], R::Is(P::Int)),
    ("size", &[P::Bytes], R::Is(P::Int)),
    ("size", &[P::List], R::Is(P::Int)),
    ("size", &[P::Map], R::Is(P::Int)),
    ("matches", &[P::String, P::String], R::Is(P::Bool)),
    ("dyn", &[P::Any], R::Is(P::Any)),
    ("type", &[P::Any], R::Is(P::Type)),
    ("int", &[P::Int], R::Is(P::Int)),
    ("int", &[P::Uint], R::Is(P::Int)),
    ("int", &[P::Double], R::Is(P::Int)),
    ("int", &[P::String], R::Is(P::Int)),
    ("int", &[P::Timestamp], R::Is(P::Int)),
    ("int", &[P::Duration], R::Is(P::Int)),
    ("uint", &[P::Uint], R::Is(P::Uint)),
    ("uint", &[P::Int], R::Is(P::Uint)),
    ("uint", &[P::Double], R::Is(P::Uint)),
    ("uint", &[P::String], R::Is(P::Uint)),
    ("double", &[P::Double], R::Is(P::Double)),
    ("double", &[P::Int], R::Is(P::Double)),
    ("double", &[P::Uint], R::Is(P::Double)),
    ("double", &[P::String], R::Is(P::Double)),
    ("bool", &[P::Bool], R::Is(P::Bool)),
    ("bool", &[P::String], R::Is(P::Bool)),
    ("bytes", &[P::String], R::Is(P::Bytes)),
    ("bytes", &[P::Bytes], R::Is(P::Bytes)),
    ("string", &[P::String], R::Is(P::String)),
    ("string", &[P::Bool], R::Is(P::String)),
    ("string", &[P::Int], R::Is(P::String)),
    ("string", &[P::Uint], R::Is(P::String)),
    ("string", &[P::Double], R::Is(P::String)),
    ("string", &[P::Bytes], R::Is(P::String)),
    ("string", &[P::Timestamp], R::Is(P::String)),
    ("string", &[P::Duration], R::Is(P::String)),
    ("string", &[P::Ip], R::Is(P::String)),
    ("string", &[P::Cidr], R::Is(P::String)),
    ("timestamp", &[P::String], R::Is(P::Timestamp)),
    ("timestamp", &[P::Int], R::Is(P::Timestamp)),
    ("timestamp", &[P::Timestamp], R::Is(P::Timestamp)),
    ("duration", &[P::String], R::Is(P::Duration)),
    ("duration", &[P::Int], R::Is(P::Duration)),
    ("duration", &[P::Duration], R::Is(P::Duration)),
    ("quantity", &[P::String], R::Is(P::Quantity)),
    ("isQuantity", &[P::String], R::Is(P::Bool)),
    ("url", &[P::String], R::Is(P::Url)),
    ("isURL", &[P::String], R::Is(P::Bool)),
    ("ip", &[P::String], R::Is(P::Ip)),
    ("isIP", &[P::String], R::Is(P::Bool)),
    ("ip.isCanonical", &[P::String], R::Is(P::Bool)),
    ("cidr", &[P::String], R::Is(P::Cidr)),
    ("isCIDR", &[P::String], R::Is(P::Bool)),
    ("optional.of", &[P::Any], R::OptionalOfFirst),
    ("optional.ofNonZeroValue", &[P::Any], R::OptionalOfFirst),
    ("optional.none", &[], R::Is(P::Optional)),
    ("format.named", &[P::String], R::OptionalOf(P::Format)),
    ("sets.contains", &[P::List, P::List], R::Is(P::Bool)),
    ("sets.equivalent", &[P::List, P::List], R::Is(P::Bool)),
    ("sets.intersects", &[P::List, P::List], R::Is(P::Bool)),
];

/// Functions that are called on their first argument.
pub(super) const MEMBERS: &[Overload] = &[
    ("size", &[P::String], R::Is(P::Int)),
    ("size", &[P::Bytes], R::Is(P::Int)),
    ("size", &[P::List], R::Is(P::Int)),
    ("size", &[P::Map], R::Is(P::Int)),
    ("contains", &[P::String, P::String], R::Is(P::Bool)),
    ("startsWith", &[P::String, P::String], R::Is(P::Bool)),
    ("endsWith", &[P::String, P::String], R::Is(P::Bool)),
    ("matches", &[P::String, P::String], R::Is(P::Bool)),
    ("charAt", &[P::String, P::Int], R::Is(P::String)),
    ("indexOf", &[P::String, P::String], R::Is(P::Int)),
    ("indexOf", &[P::String, P::String, P::Int], R::Is(P::Int)),
    ("indexOf", &[P::List, P::Any], R::Is(P::Int)),
    ("lastIndexOf", &[P::String, P::String], R::Is(P::Int)),
    ("lastIndexOf", &[P::List, P::Any], R::Is(P::Int)),
    ("lowerAscii", &[P::String], R::Is(P::String)),
    ("upperAscii", &[P::String], R::Is(P::String)),
    ("trim", &[P::String], R::Is(P::String)),
    ("reverse", &[P::String], R::Is(P::String)),
    ("replace", &[P::String, P::String, P::String], R::Is(P::String)),
    ("replace", &[P::String, P::String, P::String, P::Int], R::Is(P::String)),
    ("split", &[P::String, P::String], R::Is(P::StringList)),
    ("split", &[P::String, P::String, P::Int], R::Is(P::StringList)),
    ("substring", &[P::String, P::Int], R::Is(P::String)),
    ("substring", &[P::String, P::Int, P::Int], R::Is(P::String)),
    ("join", &[P::StringList], R::Is(P::String)),
    ("join", &[P::StringList, P::String], R::Is(P::String)),
    ("isSorted", &[P::List], R::Is(P::Bool)),
    ("sum", &[P::List], R::Element),
    ("min", &[P::List], R::Element),
    ("max", &[P::List], R::Element),
    ("find", &[P::String, P::String], R::Is(P::String)),
    ("findAll", &[P::String, P::String], R::Is(P::StringList)),
    ("findAll", &[P::String, P::String, P::Int], R::Is(P::StringList)),
    ("getScheme", &[P::Url], R::Is(P::String)),
    ("getHost", &[P::Url], R::Is(P::String)),
    ("getHostname", &[P::Url], R::Is(P::String)),
    ("getPort", &[P::Url], R::Is(P::String)),
    ("getEscapedPath", &[P::Url], R::Is(P::String)),
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
    ("containsIP", &[P::Cidr, P::String], R::Is(P::Bool)),
    ("containsCIDR", &[P::Cidr, P::Cidr], R::Is(P::Bool)),
    ("containsCIDR", &[P::Cidr, P::String], R::Is(P::Bool)),
    ("ip", &[P::Cidr], R::Is(P::Ip)),
    ("masked", &[P::Cidr], R::First),
    ("prefixLength", &[P::Cidr], R::Is(P::Int)),
    ("validate", &[P::Format, P::String], R::OptionalOf(P::StringList)),
    ("hasValue", &[P::Optional], R::Is(P::Bool)),
    ("value", &[P::Optional], R::Unwrapped),
    ("orValue", &[P::Optional, P::Any], R::Unwrapped),
    ("or", &[P::Optional, P::Optional], R::First),
    ("getFullYear", &[P::Timestamp], R::Is(P::Int)),
    ("getFullYear", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getMonth", &[P::Timestamp], R::Is(P::Int)),
    ("getMonth", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getDate", &[P::Timestamp], R::Is(P::Int)),
    ("getDate", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getDayOfMonth", &[P::Timestamp], R::Is(P::Int)),
    ("getDayOfMonth", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getDayOfWeek", &[P::Timestamp], R::Is(P::Int)),
    ("getDayOfWeek", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getDayOfYear", &[P::Timestamp], R::Is(P::Int)),
    ("getDayOfYear", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getHours", &[P::Timestamp], R::Is(P::Int)),
    ("getHours", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getHours", &[P::Duration], R::Is(P::Int)),
    ("getMinutes", &[P::Timestamp], R::Is(P::Int)),
    ("getMinutes", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getMinutes", &[P::Duration], R::Is(P::Int)),
    ("getSeconds", &[P::Timestamp], R::Is(P::Int)),
    ("getSeconds", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getSeconds", &[P::Duration], R::Is(P::Int)),
    ("getMilliseconds", &[P::Timestamp], R::Is(P::Int)),
    ("getMilliseconds", &[P::Timestamp, P::String], R::Is(P::Int)),
    ("getMilliseconds", &[P::Duration], R::Is(P::Int)),
];
