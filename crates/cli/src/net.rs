//! Listeners and addresses.

use anyhow::Context as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// A listener on that address. `flag` is what chose the port.
///
/// # Errors
///
/// The port is taken, or the address cannot be listened on; the error names both and says what to do.
pub(crate) async fn bind(ip: IpAddr, port: u16, flag: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(ip, port);
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {port} is taken: another program listens on {address}; stop it, or choose another port with {flag}"
        ),
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("port {port} needs privileges ({error}); choose one above 1023 with {flag}")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
    })
}

/// Listeners on `count` ports, `first` and the next ones; with 0, on free ones.
///
/// # Errors
///
/// As [`bind`]; or the ports would go beyond 65535.
pub(crate) async fn bind_row(
    ip: IpAddr,
    first: u16,
    count: u16,
    flag: &str,
) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(count.into());
    for i in 0..count {
        // With 0 the system chooses each time.
        let port = match first {
            0 => 0,
            first => first.checked_add(i).with_context(|| {
                format!("{count} ports from {first} on go beyond 65535; choose a lower port with {flag}")
            })?,
        };
        listeners.push(bind(ip, port, flag).await?);
    }
    Ok(listeners)
}

/// The address by which a client on this machine reaches a listener.
pub(crate) fn local(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// The name of this machine, if it has one that is text.
pub(crate) fn hostname() -> Option<String> {
    hostname::get().ok().and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty())
}

/// A name for a candidate of an election, as client-go's candidates call themselves: a host may have several.
///
/// # Errors
///
/// There is no randomness.
pub(crate) fn candidate() -> anyhow::Result<String> {
    let host = hostname().unwrap_or_else(|| "unknown".to_owned());
    let suffix = getrandom::u64().context("no randomness")?;
    Ok(format!("{host}_{suffix:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let taken = bind(ip, 0, "--port").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind_row(ip, port, 1, "--port").await.unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} is taken")) && error.contains("--port"), "{error}");
        let error = bind_row(ip, 65535, 2, "--port").await.unwrap_err().to_string();
        assert!(error.contains("65535"), "{error}");
        assert_eq!(bind_row(ip, 0, 3, "--port").await.unwrap().len(), 3);
    }

    #[test]
    fn everywhere_is_reached_here() {
        for (bound, reached) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("192.0.2.7:1", "192.0.2.7:1")]
        {
            assert_eq!(local(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
