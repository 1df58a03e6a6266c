//! The gRPC door of a service and the client that reaches it.
//!
//! The server adds what every service needs (drain and trace context in `call.rs`, health, reflection, TCP_NODELAY) behind a door
//! that may ask for a token and for TLS (`door.rs`); the client dials lazily, keeps connections alive and spreads calls over all
//! replicas (`balance.rs`), which it finds by name (`resolve.rs`).

mod call;
mod door;
mod resolve;
#[cfg(test)]
mod tests;
mod token;

pub use door::{Door, DoorConfig, DoorsConfig, Guarded, Pass};
pub(crate) use resolve::secure_channel;

use crate::Problems;
use crate::balance::Balanced;
use crate::tasks::Tasks;
use crate::telemetry::trace;
use anyhow::Context as _;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::Server;

/// Largest gRPC message either way: a full batch of images fits.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Idle connections are probed this often, so that a dead peer is noticed, and given up when it does not answer for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// By what name health speaks of all services of a server.
const WHOLE_SERVER: &str = "";
/// How long a connection may take to close once the tasks stop. One that watches the health of the service never does by itself.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// Where a service is and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// `http://host:port`, or `https` of a door with TLS, of each replica, or of a name that stands for all of them, as a headless service does: every
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

    /// Notes endpoints of `option` that are no URLs, and such with TLS where `doors` have none.
    pub fn check(&self, option: &str, doors: &DoorsConfig, problems: &mut Problems) {
        for (i, url) in self.endpoints.iter().enumerate() {
            let option = format!("{option}.endpoints[{i}]");
            match resolve::Name::parse(url) {
                Err(message) => problems.add(&option, message),
                Ok(name) if name.is_secure() && !doors.tls.is_on() => {
                    let message = "begins with https; say in `edge.doors.tls.ca_file` who signs its certificate";
                    problems.add(&option, message);
                }
                Ok(_) => {}
            }
        }
        for (field, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("resolve_interval_ms", self.resolve_interval_ms),
        ] {
            if value == 0 {
                problems.add(&format!("{option}.{field}"), "must be at least 1 millisecond");
            }
        }
    }
}

/// A connection to all replicas of a service that propagates the trace context.
pub type Client = InterceptedService<Balanced, Propagate>;

/// What a service serves: the names of its gRPC services for health, their schema for reflection, and what answers.
#[derive(Debug)]
pub struct Served {
    /// Names.
    pub names: &'static [&'static str],
    /// Schema.
    pub descriptors: &'static [u8],
    /// What answers.
    pub routes: Routes,
}

/// Serves `served` behind `door` until the tasks stop. Sets the tasks ready: call it when models are loaded.
///
/// # Errors
/// When the listener fails or the descriptors do not parse.
pub async fn serve(
    served: Served,
    door: Door,
    listener: TcpListener,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let Served { names, descriptors, routes } = served;
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in names {
        reporter.set_service_status(*name, tonic_health::ServingStatus::Serving).await;
    }
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = reflect().build_v1().context("descriptors for reflection")?;
    // What Python's library and older tools ask for.
    let older = reflect().build_v1alpha().context("descriptors for older reflection")?;
    let leaving = tasks.leaving();
    tasks.spawn(async move {
        leaving.await;
        for name in names.iter().chain(&[WHOLE_SERVER]) {
            reporter.set_service_status(*name, tonic_health::ServingStatus::NotServing).await;
        }
    });
    tasks.set_ready();
    let incoming = door.incoming(listener, tasks);
    let routes = routes.add_service(health).add_service(reflection).add_service(older);
    let served = Server::builder()
        .trace_fn(call::span)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        // Before anything is counted or done for a stranger.
        .layer(door)
        .layer(call::DrainLayer { tasks: tasks.clone() })
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, tasks.stopping());
    let stopping = tasks.stopping();
    tokio::select! {
        served = served => served.context("gRPC door"),
        () = async {
            stopping.await;
            tokio::time::sleep(LAST_GRACE).await;
        } => Ok(()),
    }
}

/// A client for the replicas in `config`, named `service` in metrics. Dials on first use and redials by itself; follows the
/// names in `config` until `tasks` drain or nobody has the client any more. Shows `pass` at every door.
///
/// # Errors
/// When there is no endpoint or one is not a URL.
pub fn client(
    service: &'static str,
    config: &ClientConfig,
    pass: &Pass,
    tasks: &Tasks,
) -> anyhow::Result<Client> {
    anyhow::ensure!(
        !config.endpoints.is_empty(),
        "`endpoints` is empty; name at least one, like http://127.0.0.1:50051"
    );
    let names = config.endpoints.iter().map(|url| resolve::Name::parse(url));
    let names = names.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::msg)?;
    let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
    let dial = resolve::Dial { connect_timeout, tls: pass.tls() };
    let replicas = names.iter().map(|name| dial.by_name(name)).collect();
    let balanced = Balanced::new(service, replicas);
    let interval = Duration::from_millis(config.resolve_interval_ms);
    if names.iter().any(|name| !name.is_address()) {
        let weak = balanced.downgrade();
        tasks.spawn(resolve::follow(names, dial, weak, (interval, tasks.clone())));
    }
    Ok(InterceptedService::new(balanced, Propagate { pass: pass.clone() }))
}

/// Says what is wrong with `url` as one of a gRPC server.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    resolve::Name::parse(url).map(|_| ())
}

/// Makes the current span the parent of what the called service does, and shows the token at its door.
#[derive(Debug, Clone)]
pub struct Propagate {
    pass: Pass,
}

impl Interceptor for Propagate {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        trace::inject(request.metadata_mut());
        if let Some(token) = self.pass.metadata() {
            request.metadata_mut().insert(AUTHORIZATION.as_str(), token);
        }
        Ok(request)
    }
}
