//! Which replicas there are: the addresses behind the names in the configuration, looked up again and again.
//!
//! Separate from the balancer, which takes what is found here. The invariant: a name that cannot be looked up changes nothing.

use super::{KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use crate::balance::{Balanced, Replica};
use crate::tasks::Tasks;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tonic::transport::{Endpoint, Uri};

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
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("`{text}` is not a URL like http://host:50051");
        let url: Uri = text.parse().with_context(wrong)?;
        let endpoint = Endpoint::from_shared(text.to_owned()).with_context(wrong)?;
        anyhow::ensure!(url.scheme_str() == Some("http"), wrong());
        let host = url.host().with_context(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(80);
        Ok(Self { url, endpoint, host, port })
    }

    /// Whether there is nothing to look up.
    pub(super) fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

/// How replicas are dialled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial {
    pub(super) connect_timeout: Duration,
}

impl Dial {
    /// Whatever `name` leads to when it is dialled.
    pub(super) fn by_name(self, name: &Name) -> Replica {
        self.replica(name.url.to_string(), name.endpoint.clone())
    }

    fn by_address(self, name: &Name, address: SocketAddr) -> Option<Replica> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        Some(self.replica(format!("{} at {address}", name.url), endpoint.origin(name.url.clone())))
    }

    fn replica(self, name: String, endpoint: Endpoint) -> Replica {
        let endpoint = endpoint
            .tcp_nodelay(true)
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Replica::new(name, endpoint.connect_lazy())
    }
}

/// Keeps `balanced` at what `names` stand for, until the tasks drain.
pub(super) async fn follow(
    names: Vec<Name>,
    dial: Dial,
    balanced: Balanced,
    (interval, tasks): (Duration, Tasks),
) {
    let mut ticks = tokio::time::interval(interval);
    let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); names.len()];
    loop {
        tokio::select! {
            () = tasks.draining() => return,
            _ = ticks.tick() => {}
        }
        let before = known.clone();
        for (name, addresses) in names.iter().zip(&mut known) {
            look_up(name, addresses).await;
        }
        if before != known {
            balanced.set(replicas(&names, &known, dial));
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
fn replicas(names: &[Name], known: &[BTreeSet<SocketAddr>], dial: Dial) -> Vec<Replica> {
    let mut all = Vec::new();
    for (name, addresses) in names.iter().zip(known) {
        if addresses.is_empty() {
            all.push(dial.by_name(name));
        }
        all.extend(addresses.iter().filter_map(|address| dial.by_address(name, *address)));
    }
    all
}
