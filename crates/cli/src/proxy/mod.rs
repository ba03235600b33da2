//! Proxies between a client and its server: which one, if any.
//!
//! ```text
//!  kubeconfig: proxy-url ──────────────────────────┐
//!                                                  ├─► Option<Proxy> ─► connect::Route ─► TLS with the server
//!  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY ───┘
//! ```
//!
//! The rules are those of Go's programs, so that what kubectl can reach an agent can reach, too: client-go takes the
//! `proxy-url` of a kubeconfig as it is (`tools/clientcmd/client_config.go`, `parseProxyURL`), and asks the environment
//! otherwise, in pods also (`net/http.ProxyFromEnvironment`, whose rules are in golang.org/x/net `http/httpproxy`).
//! `ALL_PROXY` is curl's: it counts for schemes that have no variable of their own.
//!
//! The credentials in a proxy's URL are in no error, log or `Debug`: a [`Proxy`] shows its address only.

mod connect;
mod no_proxy;
#[cfg(test)]
mod tests;

pub(crate) use connect::{Route, Via};

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use no_proxy::NoProxy;
use std::fmt;

/// A proxy, and what it is to be told about who asks.
#[derive(Clone)]
pub(crate) struct Proxy {
    /// The address without credentials; these are kept apart in it, and are not printed.
    intercept: Intercept,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// `CONNECT` in plain text.
    Http,
    /// `CONNECT` inside of TLS.
    Https,
    /// RFC 1928. The proxy resolves names, as Go's client leaves it to it.
    Socks5,
}

impl Proxy {
    /// The proxy that a URL names. Without a scheme it is taken for an HTTP proxy, as is usual in environment variables.
    /// None: it is no such URL. The text may hold a password, so it is no part of an answer.
    fn parse(url: &str) -> Option<Self> {
        // hyper-util reads the URL, and decodes and hides the credentials in it; the destination does not matter here.
        let intercept =
            Matcher::builder().all(url.trim()).build().intercept(&Uri::from_static("http://any.invalid"))?;
        let protocol = match intercept.uri().scheme_str() {
            Some("http") => Protocol::Http,
            Some("https") => Protocol::Https,
            Some("socks5" | "socks5h") => Protocol::Socks5,
            _ => return None,
        };
        let (authority, host) =
            (intercept.uri().authority()?, intercept.uri().host().filter(|host| !host.is_empty())?);
        // hyper takes a port that is no number for none.
        let port = authority.as_str().strip_prefix(host)?;
        if !matches!(port, "" | ":") && authority.port_u16().is_none() {
            return None;
        }
        Some(Self { intercept, protocol })
    }

    /// The proxy that a kubeconfig asks for, which needs a scheme, as client-go insists.
    ///
    /// # Errors
    ///
    /// It is no URL of a proxy.
    pub(crate) fn of_kubeconfig(url: &str) -> anyhow::Result<Self> {
        let parsed = url.contains("://").then(|| Self::parse(url)).flatten();
        parsed.ok_or_else(|| anyhow::anyhow!("its proxy-url is no URL of a proxy: {EXPECTED}"))
    }

    fn port(&self) -> u16 {
        let usual = match self.protocol {
            Protocol::Http => 80,
            Protocol::Https => 443,
            Protocol::Socks5 => 1080,
        };
        self.intercept.uri().port_u16().unwrap_or(usual)
    }
}

const EXPECTED: &str = "expected http://, https:// or socks5://, then [USER:PASSWORD@]HOST[:PORT], with %XX for \
    special characters of user and password";

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.intercept.uri();
        write!(
            f,
            "{}://{}:{}",
            uri.scheme_str().unwrap_or("http"),
            uri.host().unwrap_or_default(),
            self.port()
        )
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// What the environment says about proxies.
#[derive(Default)]
pub(crate) struct Environment {
    http: Variable,
    https: Variable,
    no_proxy: NoProxy,
}

/// A variable that is set, and its value, which may hold a password.
type Variable = Option<(&'static str, String)>;

impl Environment {
    /// Of this process.
    pub(crate) fn of_process() -> Self {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// As `variable` gives it. Of two spellings the first that is not empty counts.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.trim().is_empty())?;
                Some((name, value))
            })
        };
        let all = || first(["ALL_PROXY", "all_proxy"]);
        Self {
            http: first(["HTTP_PROXY", "http_proxy"]).or_else(all),
            https: first(["HTTPS_PROXY", "https_proxy"]).or_else(all),
            no_proxy: NoProxy::parse(
                &first(["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default(),
            ),
        }
    }

    /// The proxy on the way to a server, if there is to be one. A variable that is not used may say anything.
    ///
    /// # Errors
    ///
    /// The variable for this server is no URL of a proxy.
    pub(crate) fn proxy_for(&self, server: &Uri) -> anyhow::Result<Option<Proxy>> {
        let (variable, usual) = match server.scheme_str() {
            Some("http") => (&self.http, 80),
            _ => (&self.https, 443),
        };
        let Some(((name, value), host)) = variable.as_ref().zip(server.host()) else { return Ok(None) };
        if self.no_proxy.covers(host, server.port_u16().unwrap_or(usual)) {
            return Ok(None);
        }
        let proxy = Proxy::parse(value).ok_or_else(|| {
            anyhow::anyhow!(
                "the environment variable {name} is no URL of a proxy: {EXPECTED}; or name {host} in NO_PROXY, if it \
                 is to be reached directly"
            )
        })?;
        Ok(Some(proxy))
    }
}
