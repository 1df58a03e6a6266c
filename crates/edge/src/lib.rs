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
pub mod fallback;
pub mod globs;

pub mod check;
pub mod guard;
pub mod pieces;
pub mod repeat;
pub mod translate;

pub mod error;
pub mod events;
pub mod sse;

pub use config::Config;

use anyhow::Context as _;
use chassis::Tasks;
use tokio::net::TcpListener;

/// The commented defaults of every option.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Serves the REST API on `listener` until the tasks stop; ready once every service has listed its models.
///
/// # Errors
/// When an endpoint is not a URL, the key file cannot be read, there is no key on an address that others can reach.
pub async fn serve(config: Config, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let address = listener.local_addr().context("address of the listener")?;
    let access = auth::Access::build(&config, address)?;
    if access.is_open() {
        tracing::info!(%address, "no keys are required");
    }
    access.keep_fresh(&tasks);
    let limits = config.limits;
    let app = app::App::build(config, &tasks)?;
    tasks.spawn(discovery::run(app.clone(), tasks.clone()));
    let router = router::build(app, access, tasks.clone());
    server::serve(router, listener, &limits, &tasks).await;
    Ok(())
}
