//! The REST face: authenticate, validate, screen, translate, stream.
//!
//! Separate from the services, which it alone orchestrates; it holds no model and no state of a conversation. One request is
//! read top to bottom: `router` → `layers` → `extract` → `routes` → `check` → `guard` → `translate` → `sse`.

pub mod config;

pub mod router;
pub mod server;

pub mod auth;
pub mod cors;
pub mod layers;
pub mod limit;
pub mod room;

pub mod context;
pub mod extract;
pub mod openapi;
pub mod routes;

pub mod app;
pub mod cache;
pub mod deployments;
pub mod discovery;
pub mod dry_run;
pub mod fallback;
pub mod globs;
pub mod live;

pub mod check;
pub mod guard;
pub mod pieces;
pub mod remote_content;
pub mod repeat;
pub mod translate;

pub mod error;
pub mod events;
pub mod sse;

pub use config::Config;

use anyhow::Context as _;
use chassis::tls::{self, Acceptor};
use chassis::{Reloads, Tasks};
use std::time::Duration;
use tokio::net::TcpListener;

/// The commented defaults of every option.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Serves the REST API on `listener` until the tasks stop; ready once every service has listed its models. What comes out of
/// `reloads` is put in force meanwhile.
///
/// # Errors
/// When an endpoint is not a URL, the key file or a certificate cannot be used, there is no key on an address that others can
/// reach.
pub async fn serve(
    config: Config,
    reloads: Reloads<Config>,
    listener: TcpListener,
    tasks: Tasks,
) -> anyhow::Result<()> {
    events::count_from_zero();
    let address = listener.local_addr().context("address of the listener")?;
    let every = Duration::from_millis(config.service.reload_ms);
    let tls = Acceptor::build(("edge", "tls"), &config.tls, &tls::HTTP, (every, &tasks))?;
    let live = live::Live::build(config, address, &tasks)?;
    if live.current().access.is_open() {
        tracing::info!(%address, "no keys are required");
    }
    tasks.spawn(discovery::run(live.clone(), tasks.clone()));
    tasks.spawn(live.clone().follow(reloads));
    server::serve(live, tls, listener, &tasks).await;
    Ok(())
}
