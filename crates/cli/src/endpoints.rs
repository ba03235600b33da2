//! Where agent and manager serve their metrics and probes.

use crate::args::EndpointAddress;
use anyhow::Context as _;
use fleetpass_agent::Endpoint;
use tokio::net::TcpListener;

/// Listeners for those endpoints that are served somewhere.
///
/// # Errors
///
/// An address cannot be listened on; the error names the flag.
pub(crate) async fn listen(
    endpoints: &[(Endpoint, &'static str, EndpointAddress)],
) -> anyhow::Result<Vec<(Endpoint, TcpListener)>> {
    let mut listeners = Vec::new();
    for (endpoint, flag, EndpointAddress(addresses)) in endpoints {
        if addresses.is_empty() {
            continue;
        }
        let listener = TcpListener::bind(addresses.as_slice()).await.with_context(|| {
            format!("cannot listen on {}; choose another address with {flag}, or 0 for none", addresses[0])
        })?;
        listeners.push((*endpoint, listener));
    }
    Ok(listeners)
}
