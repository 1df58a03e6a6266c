//! The gRPC door of a service and the client that reaches it.
//!
//! The door adds what every service needs (drain and trace context in `call.rs`, health, reflection, TCP_NODELAY); the client dials
//! lazily, keeps connections alive and spreads calls over all replicas (`balance.rs`), which it finds by name (`resolve.rs`).

mod call;
mod resolve;

use crate::balance::Balanced;
use crate::tasks::Tasks;
use crate::telemetry::trace;
use anyhow::Context as _;
use serde::Deserialize;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Largest gRPC message either way: a full batch of images fits.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Idle connections are probed this often, so that a dead peer is noticed, and given up when it does not answer for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a service is and how to reach it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// `http://host:port` of each replica, or of a name that stands for all of them, as a headless service does: every
    /// address of a name is a replica.
    pub endpoints: Vec<String>,
    /// How long dialling may take.
    pub connect_timeout_ms: u64,
    /// How often names are looked up again.
    pub resolve_interval_ms: u64,
}

impl ClientConfig {
    /// The replicas at `endpoints`, with times that suit one machine.
    #[must_use]
    pub const fn to(endpoints: Vec<String>) -> Self {
        Self { endpoints, connect_timeout_ms: 5000, resolve_interval_ms: 5000 }
    }
}

/// A connection to all replicas of a service that propagates the trace context.
pub type Client = InterceptedService<Balanced, Propagate>;

/// Serves `routes` until the tasks stop. `names` are the gRPC services for health, `descriptors` their schema for
/// reflection. Sets the tasks ready: call it when models are loaded.
///
/// # Errors
/// When the listener fails or the descriptors do not parse.
pub async fn serve(
    names: &[&'static str],
    descriptors: &'static [u8],
    routes: Routes,
    listener: TcpListener,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in names {
        reporter.set_service_status(*name, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("descriptors for reflection")?;
    let names = names.to_vec();
    let draining = tasks.draining();
    tasks.spawn(async move {
        draining.await;
        for name in names {
            reporter.set_service_status(name, tonic_health::ServingStatus::NotServing).await;
        }
    });
    tasks.set_ready();
    Server::builder()
        .trace_fn(call::span)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .layer(call::DrainLayer { tasks: tasks.clone() })
        .add_routes(routes.add_service(health).add_service(reflection))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            tasks.stopping(),
        )
        .await
        .context("gRPC door")
}

/// A client for the replicas in `config`, named `service` in metrics. Dials on first use and redials by itself; follows the
/// names in `config` until `tasks` drain.
///
/// # Errors
/// When there is no endpoint or one is not a URL.
pub fn client(
    service: &'static str,
    config: &ClientConfig,
    tasks: &Tasks,
) -> anyhow::Result<Client> {
    anyhow::ensure!(
        !config.endpoints.is_empty(),
        "`endpoints` is empty; name at least one, like http://127.0.0.1:50051"
    );
    let names = config.endpoints.iter().map(|url| resolve::Name::parse(url));
    let names = names.collect::<anyhow::Result<Vec<_>>>()?;
    let dial = resolve::Dial { connect_timeout: Duration::from_millis(config.connect_timeout_ms) };
    let balanced = Balanced::new(service, names.iter().map(|name| dial.by_name(name)).collect());
    let interval = Duration::from_millis(config.resolve_interval_ms);
    if names.iter().any(|name| !name.is_address()) {
        tasks.spawn(resolve::follow(names, dial, balanced.clone(), (interval, tasks.clone())));
    }
    Ok(InterceptedService::new(balanced, Propagate))
}

/// Makes the current span the parent of what the called service does.
#[derive(Debug, Clone, Copy)]
pub struct Propagate;

impl Interceptor for Propagate {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        trace::inject(request.metadata_mut());
        Ok(request)
    }
}
