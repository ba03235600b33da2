//! Something between a client and a server that counts their connections and cuts them.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes bytes on, until it is told to cut; cuts when it is dropped.
pub struct Proxy {
    /// Where clients find it.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// One in front of a server.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let connection = tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    // However it ends: both sides see that.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
                kept.lock().expect("no panic").push(connection);
            }
        });
        Ok(Self { address, connections, accepting })
    }

    /// How many connections were made since the last cut.
    pub fn connections(&self) -> usize {
        self.connections.lock().expect("no panic").len()
    }

    /// Cuts every connection that is there; how many those are.
    pub fn cut(&self) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().expect("no panic"));
        connections.iter().filter(|one| !one.is_finished()).map(JoinHandle::abort).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
