//! What is reached without the proxy of the environment.
//!
//! hyper-util has such rules too, but they are curl's: they know no ports, and `.example.com` covers `example.com`.
//! Kubernetes' programs follow Go's (golang.org/x/net `http/httpproxy`, `useProxy`), and an administrator sets one
//! `NO_PROXY` for all of them.

use ipnet::IpNet;
use std::net::IpAddr;

/// A parsed `NO_PROXY`.
#[derive(Debug, Default)]
pub(super) struct NoProxy(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// `*`
    All,
    /// `10.0.0.0/8`
    Network(IpNet),
    /// `10.1.2.3`, `[fd00::1]:6443`
    Address(IpAddr, Option<u16>),
    /// `example.com`, `.example.com:6443`, `*.example.com`
    Domain {
        /// In lower case, with the dot before it.
        suffix: String,
        /// Whether the domain itself is meant, besides what is in it.
        itself: bool,
        port: Option<u16>,
    },
}

impl NoProxy {
    /// Entries that mean nothing are passed over, as in Go.
    pub(super) fn parse(list: &str) -> Self {
        Self(list.split(',').filter_map(|entry| Entry::parse(&entry.trim().to_lowercase())).collect())
    }

    /// Whether the server at this host (a name, or an address as it stands in a URL) and port is reached directly.
    pub(super) fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        // This machine is never looked for behind a proxy, whatever the list says.
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.0.iter().any(|entry| match (entry, address) {
            (Entry::All, _) => true,
            (Entry::Network(network), Some(address)) => network.contains(&address),
            (Entry::Address(meant, at), Some(address)) => *meant == address && at.is_none_or(|at| at == port),
            (Entry::Domain { suffix, itself, port: at }, _) => {
                let named = host.ends_with(suffix) || *itself && Some(&*host) == suffix.strip_prefix('.');
                named && at.is_none_or(|at| at == port)
            }
            _ => false,
        })
    }
}

impl Entry {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Ok(network) = entry.parse() {
            return Some(Self::Network(network));
        }
        let (host, port) = split_port(entry);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port?));
        }
        let domain = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        if domain.is_empty() {
            return None;
        }
        let itself = !domain.starts_with('.');
        let suffix = if itself { format!(".{domain}") } else { domain.to_owned() };
        Some(Self::Domain { suffix, itself, port: port? })
    }
}

/// Host and port; the outer `None` stands for a port that is none, which no server has.
#[allow(clippy::option_option)]
fn split_port(entry: &str) -> (&str, Option<Option<u16>>) {
    match entry.rsplit_once(':') {
        // Several colons without brackets are an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok().map(Some))
        }
        _ => (entry, Some(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of Go's documentation and of its test (`http/httpproxy/proxy_test.go`), as rules.
    #[test]
    fn the_rules_are_those_of_go() {
        for (list, host, port, direct) in [
            ("", "example.com", 443, false),
            ("", "localhost", 443, true),
            ("", "LOCALHOST", 443, true),
            ("", "localhost.example.com", 443, false),
            ("", "127.0.0.1", 443, true),
            ("", "127.9.9.9", 443, true),
            ("", "[::1]", 443, true),
            ("", "[::ffff:127.0.0.1]", 443, true),
            ("", "10.0.0.1", 443, false),
            ("*", "example.com", 443, true),
            ("a.com,*", "10.0.0.1", 443, true),
            ("example.com", "example.com", 443, true),
            ("example.com", "EXAMPLE.com", 443, true),
            ("EXAMPLE.com", "a.example.com", 443, true),
            ("example.com", "notexample.com", 443, false),
            (".example.com", "example.com", 443, false),
            (".example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "a.example.com", 443, true),
            ("a.*.com", "a.b.com", 443, false),
            ("example.com:6443", "example.com", 6443, true),
            ("example.com:6443", "example.com", 443, false),
            (".example.com:6443", "a.example.com", 6443, true),
            ("example.com:", "example.com", 443, false),
            ("example.com:x", "example.com", 443, false),
            (" x.org , example.com ", "example.com", 443, true),
            (",, ,:80,", "example.com", 80, false),
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1", "10.0.0.11", 443, false),
            ("10.0.0.1:443", "10.0.0.1", 443, true),
            ("10.0.0.1:443", "10.0.0.1", 6443, false),
            ("10.42.1.1/24", "10.42.1.200", 443, true),
            ("10.42.0.0/16", "10.43.0.1", 443, false),
            ("10.0.0.0/8", "10.example.com", 443, false),
            ("fd00::1", "[fd00::1]", 6443, true),
            ("[fd00::1]", "[fd00::1]", 6443, true),
            ("[fd00::1]:6443", "[fd00::1]", 6443, true),
            ("[fd00::1]:6443", "[fd00::1]", 443, false),
            ("fd00::/8", "[fdab::9]", 443, true),
            ("::ffff:10.0.0.1", "10.0.0.1", 443, true),
        ] {
            assert_eq!(NoProxy::parse(list).covers(host, port), direct, "NO_PROXY={list:?} {host}:{port}");
        }
    }
}
