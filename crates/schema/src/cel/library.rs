//! The functions that Kubernetes adds to CEL (`k8s.io/apiserver/pkg/cel/library`) and the extensions that it turns
//! on: strings, lists, regular expressions, URLs, quantities, addresses, formats, sets and optionals.

use super::cost::TOO_EXPENSIVE;
use super::operators;
use super::types::MEMBERS;
use super::value::{Key, Outcome, Val, length, no_overload};
use crate::go::Words;
use crate::go::regexp::{self, Effort, Program};
use crate::{formats, quantity};
use fleetpass_apimachinery::validation::names;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

const NAMESPACED: [&str; 8] = [
    "optional.of",
    "optional.ofNonZeroValue",
    "optional.none",
    "format.named",
    "ip.isCanonical",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
];

/// What is wrong with a text.
type Check = fn(&str) -> Vec<String>;

/// The formats of the `format` library.
const FORMATS: [(&str, Check); 13] = [
    ("dns1123Label", |t| names::is_dns1123_label(t, false)),
    ("dns1123Subdomain", |t| names::is_dns1123_subdomain(t, false)),
    ("dns1035Label", |t| names::is_dns1035_label(t, false)),
    ("qualifiedName", names::is_qualified_name),
    ("dns1123LabelPrefix", |t| names::is_dns1123_label(t, true)),
    ("dns1123SubdomainPrefix", |t| names::is_dns1123_subdomain(t, true)),
    ("dns1035LabelPrefix", |t| names::is_dns1035_label(t, true)),
    ("labelValue", names::is_label_value),
    ("uri", |t| schema_format("uri", t, "invalid URI")),
    ("uuid", |t| schema_format("uuid", t, "does not match the UUID format")),
    ("byte", |t| schema_format("byte", t, "invalid base64")),
    ("date", |t| schema_format("date", t, "invalid date")),
    ("datetime", |t| schema_format("datetime", t, "invalid datetime")),
];

fn schema_format(format: &str, text: &str, wrong: &str) -> Vec<String> {
    if formats::is_valid(format, text) { Vec::new() } else { vec![wrong.into()] }
}

fn format_of(name: &str) -> Option<&'static str> {
    FORMATS.iter().map(|(n, _)| *n).find(|n| *n == name)
}

/// Whether that is a function with a namespace.
pub(super) fn is_namespaced(name: &str) -> bool {
    NAMESPACED.contains(&name) || name.strip_prefix("format.").is_some_and(|f| format_of(f).is_some())
}

/// Calls a function; `None` if there is none of that name.
pub(super) fn call(name: &str, member: bool, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
    optional(name, args)
        .or_else(|| strings(name, args, effort))
        .or_else(|| lists(name, args, effort))
        .or_else(|| regexes(name, args, effort))
        .or_else(|| urls(name, args))
        .or_else(|| quantities(name, args))
        .or_else(|| addresses(name, args))
        .or_else(|| named_formats(name, args))
        .or_else(|| sets(name, args, effort))
        .or_else(|| (member && known(name)).then(no_overload))
}

/// Whether some member function has that name.
fn known(name: &str) -> bool {
    MEMBERS.iter().any(|(known, ..)| *known == name)
}

fn optional(name: &str, args: &[Val]) -> Option<Outcome> {
    Some(match (name, args) {
        ("optional.of", [value]) => Ok(Val::some(value.clone())),
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.ofNonZeroValue", [value]) if value.is_zero() => Ok(Val::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => Ok(Val::some(value.clone())),
        ("hasValue", [Val::Optional(value)]) => Ok(Val::Bool(value.is_some())),
        ("value", [Val::Optional(value)]) => match value {
            Some(value) => Ok((**value).clone()),
            None => Err("optional.none() dereference".into()),
        },
        ("orValue", [Val::Optional(value), other]) => {
            Ok(value.as_ref().map_or_else(|| other.clone(), |v| (**v).clone()))
        }
        ("or", [Val::Optional(value), other @ Val::Optional(_)]) => {
            Ok(value.as_ref().map_or_else(|| other.clone(), |v| Val::Optional(Some(Rc::clone(v)))))
        }
        _ => return None,
    })
}

/// An index of characters that a call gives.
fn place(at: &Val, most: usize) -> Result<usize, String> {
    let Val::Int(at) = at else { return Err("no such overload".into()) };
    let found = usize::try_from(*at).ok().filter(|at| *at <= most);
    found.ok_or_else(|| format!("index out of range: {at}"))
}

fn strings(name: &str, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
    let [Val::String(text), rest @ ..] = args else {
        return match (name, args) {
            ("join", [Val::List(list), rest @ ..]) => Some(join(&list.items, rest, effort)),
            _ => None,
        };
    };
    let chars = || text.chars().collect::<Vec<char>>();
    let slice = |from: usize, to: usize| Val::string(&chars()[from..to].iter().collect::<String>());
    Some(match (name, rest) {
        ("charAt", [at]) => place(at, chars().len())
            .map(|at| chars().get(at).map_or_else(|| Val::string(""), |c| Val::string(&c.to_string()))),
        ("indexOf", [Val::String(part)]) => Ok(position(text, part, 0)),
        ("indexOf", [Val::String(part), from]) => {
            place(from, chars().len()).map(|from| position(text, part, from))
        }
        ("lastIndexOf", [Val::String(part)]) => {
            Ok(text.rfind(&**part).map_or(Val::Int(-1), |at| length(text[..at].chars().count())))
        }
        ("lowerAscii", []) => Ok(Val::string(&text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::string(&text.to_ascii_uppercase())),
        ("trim", []) => Ok(Val::string(text.trim())),
        ("reverse", []) => Ok(Val::string(&text.chars().rev().collect::<String>())),
        ("replace", [Val::String(from), Val::String(to)]) => replace(text, from, to, usize::MAX, effort),
        // A negative limit is none.
        ("replace", [Val::String(from), Val::String(to), Val::Int(most)]) => {
            replace(text, from, to, usize::try_from(*most).unwrap_or(usize::MAX), effort)
        }
        ("split", [Val::String(by)]) => Ok(split(text, by, None)),
        ("split", [Val::String(by), Val::Int(most)]) => Ok(split(text, by, usize::try_from(*most).ok())),
        ("substring", [from]) => place(from, chars().len()).map(|from| slice(from, chars().len())),
        ("substring", [from, to]) => place(from, chars().len()).and_then(|from| {
            let to = place(to, chars().len())?;
            if from > to {
                Err(format!("invalid substring range. start: {from}, end: {to}"))
            } else {
                Ok(slice(from, to))
            }
        }),
        _ => return None,
    })
}

fn position(text: &str, part: &str, from: usize) -> Val {
    let skip = text.char_indices().nth(from).map_or(text.len(), |(at, _)| at);
    text[skip..].find(part).map_or(Val::Int(-1), |at| length(text[..skip + at].chars().count()))
}

fn split(text: &str, by: &str, most: Option<usize>) -> Val {
    let parts: Vec<Val> = match (by, most) {
        (_, Some(0)) => Vec::new(),
        ("", None) => text.chars().map(|c| Val::string(&c.to_string())).collect(),
        (by, None) => text.split(by).map(Val::string).collect(),
        (by, Some(most)) => text.splitn(most, by).map(Val::string).collect(),
    };
    Val::list(parts)
}

/// The result may be as long as the product of both lengths; it is paid for before it is made.
fn replace(text: &str, from: &str, to: &str, most: usize, effort: &mut Effort) -> Outcome {
    let times = text.matches(from).take(most).count();
    operators::within(effort.spend((text.len() + times.saturating_mul(to.len())) as u64))?;
    Ok(Val::string(&text.replacen(from, to, most)))
}

fn join(items: &[Val], rest: &[Val], effort: &mut Effort) -> Outcome {
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let Val::String(text) = item else { return no_overload() };
        texts.push(&**text);
    }
    let between = match rest {
        [Val::String(by)] => by.len().saturating_mul(texts.len()),
        _ => 0,
    };
    let length = texts.iter().map(|text| text.len()).sum::<usize>().saturating_add(between);
    operators::within(effort.spend(length as u64))?;
    match rest {
        [] => Ok(Val::string(&texts.concat())),
        [Val::String(by)] => Ok(Val::string(&texts.join(by))),
        _ => no_overload(),
    }
}

fn lists(name: &str, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
    let [Val::List(list), rest @ ..] = args else { return None };
    let items = &list.items;
    let extreme = |wanted: Ordering| -> Outcome {
        let mut best: Option<&Val> = None;
        for item in items {
            let better = match best {
                None => true,
                Some(best) => item.order(best).ok_or("no such overload")? == wanted,
            };
            if better {
                best = Some(item);
            }
        }
        let word = if wanted == Ordering::Less { "min" } else { "max" };
        best.cloned().ok_or_else(|| format!("{word} called on empty list"))
    };
    Some(match (name, rest) {
        ("isSorted", []) => items
            .windows(2)
            .try_fold(true, |sorted, pair| Some(sorted && pair[0].order(&pair[1])? != Ordering::Greater))
            .map_or_else(no_overload, |sorted| Ok(Val::Bool(sorted))),
        ("sum", []) => items.split_first().map_or(Ok(Val::Int(0)), |(first, rest)| {
            rest.iter().try_fold(first.clone(), |sum, item| operators::add(&sum, item, effort))
        }),
        ("min", []) => extreme(Ordering::Less),
        ("max", []) => extreme(Ordering::Greater),
        ("indexOf", [element]) => {
            let found = operators::within(operators::position(items.iter(), element, effort));
            found.map(|found| found.map_or(Val::Int(-1), length))
        }
        ("lastIndexOf", [element]) => {
            let found = operators::within(operators::position(items.iter().rev(), element, effort));
            found.map(|found| found.map_or(Val::Int(-1), |back| length(items.len() - 1 - back)))
        }
        _ => return None,
    })
}

fn regexes(name: &str, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
    Some(match (name, args) {
        ("find", [Val::String(text), Val::String(pattern)]) => {
            let found = with_pattern(pattern, effort, |p, effort| p.find(text, 1, effort));
            found.map(|found| Val::string(found.first().map_or("", |(start, end)| &text[*start..*end])))
        }
        ("findAll", [Val::String(text), Val::String(pattern), rest @ ..]) => {
            let most = match rest {
                [Val::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let found = with_pattern(pattern, effort, |p, effort| p.find(text, most, effort));
            found.map(|found| {
                Val::list(found.into_iter().map(|(start, end)| Val::string(&text[start..end])).collect())
            })
        }
        _ => return None,
    })
}

/// Matches a text against a pattern that an expression gives, which is compiled when it is used.
pub(super) fn with_pattern<T>(
    pattern: &str,
    effort: &mut Effort,
    run: impl FnOnce(&Program, &mut Effort) -> Option<T>,
) -> Result<T, String> {
    let (program, fresh) = regexp::program(pattern);
    let program = program.as_ref().as_ref().map_err(|error| Words(error).to_string())?;
    let price = if fresh { program.price() } else { 0 };
    effort.spend(price).and_then(|()| run(program, effort)).ok_or_else(|| TOO_EXPENSIVE.into())
}

fn urls(name: &str, args: &[Val]) -> Option<Outcome> {
    let url = match (name, args) {
        ("isURL", [Val::String(text)]) => return Some(Ok(Val::Bool(formats::is_valid("uri", text)))),
        ("url", [Val::String(text)]) => {
            let fine = formats::is_valid("uri", text);
            let wrong = format!(
                "URL parse error during conversion from string: parse {}: invalid URI for request",
                fleetpass_apimachinery::field::go_quote(text)
            );
            return Some(if fine { Ok(Val::Url(Rc::clone(text))) } else { Err(wrong) });
        }
        (_, [Val::Url(url)]) => url,
        _ => return None,
    };
    // It was checked when it became a URL: splitting is enough here.
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority_end = if scheme.is_empty() { 0 } else { rest.find(['/', '?']).unwrap_or(rest.len()) };
    let (authority, tail) = rest.split_at(authority_end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let (name_part, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    Some(Ok(match name {
        "getScheme" => Val::string(scheme),
        "getHost" => Val::string(host),
        "getHostname" => Val::string(name_part.trim_matches(['[', ']'])),
        "getPort" => Val::string(port),
        "getEscapedPath" => Val::string(path),
        "getQuery" => {
            let mut members: BTreeMap<Key, Vec<Val>> = Default::default();
            for pair in query.split('&').filter(|p| !p.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let plain = |text: &str| {
                    let text = text.replace('+', " ");
                    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
                };
                let key = Key::String(plain(key).as_str().into());
                members.entry(key).or_default().push(Val::string(&plain(value)));
            }
            Val::Map(Rc::new(members.into_iter().map(|(k, v)| (k, Val::list(v))).collect()))
        }
        _ => return None,
    }))
}

fn quantities(name: &str, args: &[Val]) -> Option<Outcome> {
    const ONE: i128 = 1_000_000_000;
    match (name, args) {
        ("isQuantity", [Val::String(text)]) => return Some(Ok(Val::Bool(quantity::nanos(text).is_ok()))),
        ("quantity", [Val::String(text)]) => {
            return Some(quantity::nanos(text).map(Val::Quantity).map_err(|e| Words(&e).to_string()));
        }
        _ => {}
    }
    let [Val::Quantity(a), rest @ ..] = args else { return None };
    let b = match rest {
        [Val::Quantity(b)] => Some(*b),
        [Val::Int(b)] => Some(i128::from(*b) * ONE),
        _ => None,
    };
    let whole = || a % ONE == 0 && i64::try_from(a / ONE).is_ok();
    let overflow = || "quantity overflow".to_string();
    Some(match (name, b) {
        ("isGreaterThan", Some(b)) => Ok(Val::Bool(*a > b)),
        ("isLessThan", Some(b)) => Ok(Val::Bool(*a < b)),
        ("compareTo", Some(b)) => Ok(Val::Int(a.cmp(&b) as i64)),
        ("add", Some(b)) => a.checked_add(b).map(Val::Quantity).ok_or_else(overflow),
        ("sub", Some(b)) => a.checked_sub(b).map(Val::Quantity).ok_or_else(overflow),
        ("sign", None) => Ok(Val::Int(a.signum() as i64)),
        ("isInteger", None) => Ok(Val::Bool(whole())),
        ("asInteger", None) if whole() => Ok(Val::Int((a / ONE) as i64)),
        ("asInteger", None) => Err("cannot convert value to integer".into()),
        ("asApproximateFloat", None) => Ok(Val::Double(*a as f64 / ONE as f64)),
        _ => return None,
    })
}

/// Reads an address as `library/ip.go` does: one form for each address, so no IPv4 in IPv6 clothes and no zones.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let quoted = fleetpass_apimachinery::field::go_quote(text);
    let ip: IpAddr =
        text.parse().map_err(|_| format!("IP Address {quoted} parse error during conversion from string: ParseAddr({quoted}): unable to parse IP"))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {quoted} is not allowed"))
        }
        ip => Ok(ip),
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || {
        format!(
            "network address parse error during conversion from string: {}",
            fleetpass_apimachinery::field::go_quote(text)
        )
    };
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let (ip, bits) = (parse_ip(address).map_err(|_| wrong())?, bits.parse::<u8>().map_err(|_| wrong())?);
    if bits > width(ip) { Err(wrong()) } else { Ok((ip, bits)) }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The leading bits of an address.
fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            // Shifting by the full width, for a prefix of no bits, overflows: the mask is then empty.
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn addresses(name: &str, args: &[Val]) -> Option<Outcome> {
    // The leading bits decide, whatever bits of the network's own address follow them.
    let inside = |network: (IpAddr, u8), ip: IpAddr| {
        network.0.is_ipv4() == ip.is_ipv4() && masked(network.0, network.1) == masked(ip, network.1)
    };
    Some(match (name, args) {
        ("isIP", [Val::String(text)]) => Ok(Val::Bool(parse_ip(text).is_ok())),
        ("ip", [Val::String(text)]) => parse_ip(text).map(Val::Ip),
        ("ip.isCanonical", [Val::String(text)]) => {
            parse_ip(text).map(|ip| Val::Bool(ip.to_string() == **text))
        }
        ("isCIDR", [Val::String(text)]) => Ok(Val::Bool(parse_cidr(text).is_ok())),
        ("cidr", [Val::String(text)]) => parse_cidr(text).map(|(ip, bits)| Val::Cidr(ip, bits)),
        ("family", [Val::Ip(ip)]) => Ok(Val::Int(if ip.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", [Val::Ip(ip)]) => Ok(Val::Bool(ip.is_unspecified())),
        ("isLoopback", [Val::Ip(ip)]) => Ok(Val::Bool(ip.is_loopback())),
        ("isLinkLocalMulticast", [Val::Ip(ip)]) => Ok(Val::Bool(match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        })),
        ("isLinkLocalUnicast", [Val::Ip(ip)]) => Ok(Val::Bool(link_local(ip))),
        ("isGlobalUnicast", [Val::Ip(ip)]) => {
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            let other =
                ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip) || broadcast;
            Ok(Val::Bool(!other))
        }
        ("containsIP", [Val::Cidr(net, bits), Val::Ip(ip)]) => Ok(Val::Bool(inside((*net, *bits), *ip))),
        ("containsIP", [Val::Cidr(net, bits), Val::String(ip)]) => {
            parse_ip(ip).map(|ip| Val::Bool(inside((*net, *bits), ip)))
        }
        ("containsCIDR", [Val::Cidr(net, bits), Val::Cidr(ip, narrow)]) => {
            Ok(Val::Bool(bits <= narrow && inside((*net, *bits), *ip)))
        }
        ("containsCIDR", [Val::Cidr(net, bits), Val::String(other)]) => {
            parse_cidr(other).map(|(ip, narrow)| Val::Bool(*bits <= narrow && inside((*net, *bits), ip)))
        }
        ("ip", [Val::Cidr(net, _)]) => Ok(Val::Ip(*net)),
        ("masked", [Val::Cidr(net, bits)]) => Ok(Val::Cidr(masked(*net, *bits), *bits)),
        ("prefixLength", [Val::Cidr(_, bits)]) => Ok(Val::Int(i64::from(*bits))),
        _ => return None,
    })
}

fn link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn named_formats(name: &str, args: &[Val]) -> Option<Outcome> {
    match (name, args) {
        ("format.named", [Val::String(name)]) => {
            Some(Ok(Val::Optional(format_of(name).map(|f| Rc::new(Val::Format(f))))))
        }
        ("validate", [Val::Format(format), Val::String(text)]) => {
            let (_, wrong) = FORMATS.iter().find(|(name, _)| name == format)?;
            let wrong = wrong(text);
            Some(Ok(if wrong.is_empty() {
                Val::Optional(None)
            } else {
                Val::some(Val::list(wrong.iter().map(|w| Val::string(w)).collect()))
            }))
        }
        (name, []) => Some(Ok(Val::Format(format_of(name.strip_prefix("format.")?)?))),
        _ => None,
    }
}

fn sets(name: &str, args: &[Val], effort: &mut Effort) -> Option<Outcome> {
    let [Val::List(a), Val::List(b)] = args else { return None };
    // Whether an element of `of` is in `list`, for the first of which `wanted` is the answer.
    let mut any = |of: &[Val], list: &[Val], wanted: bool| -> Option<bool> {
        for element in of {
            if operators::position(list.iter(), element, effort)?.is_some() == wanted {
                return Some(true);
            }
        }
        Some(false)
    };
    let found = match name {
        "sets.contains" => any(&b.items, &a.items, false).map(|missing| !missing),
        "sets.equivalent" => match any(&b.items, &a.items, false) {
            Some(false) => any(&a.items, &b.items, false).map(|missing| !missing),
            missing => missing.map(|missing| !missing),
        },
        "sets.intersects" => any(&a.items, &b.items, true),
        _ => return None,
    };
    Some(operators::within(found).map(Val::Bool))
}
