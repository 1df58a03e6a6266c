//! Which replicas there are: the addresses behind the names in the configuration, looked up again and again.
//!
//! Separate from the balancer, which takes what is found here. The invariant: a name that cannot be looked up changes nothing.

use super::{KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use crate::balance::{Replica, WeakBalanced};
use crate::tasks::Tasks;
use crate::tls::Connector;
use hyper_util::rt::TokioIo;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// The option with the TLS of services.
const DOORS_TLS: &str = "edge.doors.tls";
/// Longest wait for one answer of the name service.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A URL of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Name {
    url: Uri,
    endpoint: Endpoint,
    host: String,
    port: u16,
}

impl Name {
    /// Reads a URL; the message of an error holds neither a user nor a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = if text.contains('@') { "it" } else { &format!("`{text}`") };
            format!("{shown} is not a URL like http://host:50051 (or https), without user and path")
        };
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(host)) = (url.scheme_str(), url.host()) else {
            return Err(wrong());
        };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        if text.contains('@') || host.is_empty() || !matches!(url.path(), "" | "/") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| wrong())?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(default_port);
        Ok(Self { url, endpoint, host, port })
    }

    /// Whether its door has TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    /// Whether there is nothing to look up.
    pub(super) fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

/// How replicas are dialled.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) connect_timeout: Duration,
    /// For those whose URL begins with `https`.
    pub(super) tls: Option<Connector>,
}

impl Dial {
    /// Whatever `name` leads to when it is dialled.
    pub(super) fn by_name(&self, name: &Name) -> Replica {
        self.replica(name.url.to_string(), name.endpoint.clone(), name)
    }

    fn by_address(&self, name: &Name, address: SocketAddr) -> Option<Replica> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint.origin(name.url.clone());
        Some(self.replica(format!("{} at {address}", name.url), endpoint, name))
    }

    fn replica(&self, shown: String, endpoint: Endpoint, name: &Name) -> Replica {
        let endpoint = endpoint
            .tcp_nodelay(true)
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let tls = self.tls.clone().filter(|_| name.is_secure());
        let channel = match tls {
            None => endpoint.connect_lazy(),
            Some(tls) => {
                let host: Arc<str> = name.host.as_str().into();
                let port = name.port;
                let with = (tls, DOORS_TLS);
                let dial = move |to: Uri| secure(with.clone(), Arc::clone(&host), (to, port));
                endpoint.connect_with_connector_lazy(service_fn(dial))
            }
        };
        Replica::new(shown, channel)
    }
}

/// A lazy connection to `url` over TLS, which is the option `with.1`.
pub(crate) fn secure_channel(
    url: &str,
    with: (Connector, &'static str),
) -> Result<Channel, String> {
    let name = Name::parse(url)?;
    let (host, port): (Arc<str>, u16) = (name.host.as_str().into(), name.port);
    let dial = move |to: Uri| secure(with.clone(), Arc::clone(&host), (to, port));
    Ok(name.endpoint.connect_with_connector_lazy(service_fn(dial)))
}

/// A connection to `to`, whose certificate must be that of `host`.
async fn secure(
    (tls, option): (Connector, &'static str),
    host: Arc<str>,
    (to, port): (Uri, u16),
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let address = to.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((address, to.port_u16().unwrap_or(port))).await?;
    stream.set_nodelay(true)?;
    let secured = tls.connect(&host, stream).await.inspect_err(|error| {
        tracing::warn!(callee = %host, %error, option, "TLS failed; see the option");
    })?;
    Ok(TokioIo::new(secured))
}

/// Keeps the replicas at what `names` stand for, until the tasks drain or nobody calls them any more.
pub(super) async fn follow(
    names: Vec<Name>,
    dial: Dial,
    balanced: WeakBalanced,
    (interval, tasks): (Duration, Tasks),
) {
    let mut ticks = tokio::time::interval(interval);
    let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); names.len()];
    loop {
        tokio::select! {
            () = tasks.draining() => return,
            _ = ticks.tick() => {}
        }
        let Some(balanced) = balanced.upgrade() else { return };
        let before = known.clone();
        for (name, addresses) in names.iter().zip(&mut known) {
            look_up(name, addresses).await;
        }
        if before != known {
            balanced.set(replicas(&names, &known, &dial));
        }
    }
}

/// Replaces `addresses` by those of `name`, unless there is no answer.
async fn look_up(name: &Name, addresses: &mut BTreeSet<SocketAddr>) {
    let asked = tokio::net::lookup_host((name.host.as_str(), name.port));
    match tokio::time::timeout(LOOKUP_TIMEOUT, asked).await {
        Ok(Ok(found)) => {
            let found: BTreeSet<SocketAddr> = found.collect();
            if !found.is_empty() {
                *addresses = found;
            }
        }
        Ok(Err(error)) => tracing::warn!(name = name.host, %error, "name lookup failed"),
        Err(_elapsed) => tracing::warn!(name = name.host, "name lookup takes too long"),
    }
}

/// A replica per address; a name that was never looked up is one by itself.
fn replicas(names: &[Name], known: &[BTreeSet<SocketAddr>], dial: &Dial) -> Vec<Replica> {
    let mut all = Vec::new();
    for (name, addresses) in names.iter().zip(known) {
        if addresses.is_empty() {
            all.push(dial.by_name(name));
        }
        all.extend(addresses.iter().filter_map(|address| dial.by_address(name, *address)));
    }
    all
}
