//! Values of flags: how their text is read, and with what words it is refused.

use fleetpass_api::GoDuration;
use fleetpass_api::duration::ParseError;
use fleetpass_api::features::{FeatureError, FeatureGates, Role};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Where something is served; empty for nowhere. Several addresses are tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointAddress(pub(crate) Vec<std::net::SocketAddr>);

/// `host:port` with an IP address, `:port` for all addresses, `0` or nothing for nowhere, as controller-runtime
/// (`pkg/metrics/server`) reads it.
pub(super) fn endpoint(text: &str) -> Result<EndpointAddress, String> {
    if text.is_empty() || text == "0" {
        return Ok(EndpointAddress(Vec::new()));
    }
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse::<u16>().map_err(|_| format!("{port:?} is no port"))?;
        let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        return Ok(EndpointAddress(any.map(|ip| (ip, port).into()).into()));
    }
    let text =
        text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    // No other names: resolving one would be I/O, and may give another address at every start.
    let address = text.parse().map_err(|_| "expected IP:PORT, :PORT, or 0".to_owned())?;
    Ok(EndpointAddress(vec![address]))
}

/// `pkg/kubeapiserver/options/authentication.go` (kubernetes): no empty issuer, and a colon only in a URL.
pub(super) fn issuer(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    // An issuer without a colon is any text, as it was before issuers were URLs.
    if text.contains(':') && text.parse::<http::Uri>().is_err() {
        return Err("contains a ':' but is not a valid URL".into());
    }
    Ok(text.to_owned())
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.into()) }
}

/// Bounds of kube-apiserver (`pkg/controlplane/apiserver/options/options.go`).
pub(super) fn max_token_expiration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(3600) || duration > Duration::from_secs(1 << 32) {
        return Err("must be between 1 hour and 2^32 seconds".into());
    }
    Ok(duration)
}

/// A limit of `spec.rotation.validity`, within what a TokenRequest takes (kubernetes,
/// `pkg/apis/authentication/validation/validation.go`).
pub(super) fn validity_limit(text: &str) -> Result<GoDuration, String> {
    let limit: GoDuration = text.parse().map_err(|error: ParseError| error.to_string())?;
    if limit.as_secs() < 600 || limit.as_secs() > 1 << 32 {
        return Err("must be between 10 minutes and 2^32 seconds".into());
    }
    Ok(limit)
}

/// A Go duration that is not negative.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration: GoDuration = text.parse().map_err(|error: ParseError| error.to_string())?;
    u64::try_from(duration.as_nanos())
        .map(Duration::from_nanos)
        .map_err(|_| "must not be negative".to_owned())
}

pub(super) fn request_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0".into()),
        timeout => Ok(timeout),
    }
}

/// Of an agent, to which gates of upstream's manager are known.
pub(super) fn agent_gates(text: &str) -> Result<FeatureGates, FeatureError> {
    FeatureGates::parse(text, Role::Agent)
}
