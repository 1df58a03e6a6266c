//! Conversations in, pieces out.
//!
//! A service of its own because generating scales by memory and cores, not by requests, and because what generates can be
//! replaced: the embedded engine, or a server elsewhere. Reading order: the gRPC door (`service`), the seam (`backend`) and
//! who is behind it (`backends`), the engine of ours (`local`), a server elsewhere (`remote`), and what is made of generated text (`text`, `reasoning`,
//! `tools`).

pub mod backend;
pub mod backends;
pub mod config;
pub mod error;
mod events;
pub mod local;
mod reasoning;
pub mod remote;
mod service;
mod text;
mod tools;

pub use backend::Backend;
pub use backends::Backends;
pub use config::Config;
pub use error::ChatError;
pub use local::{LocalEngine, LocalOptions};
pub use remote::Remote;

use anyhow::Context as _;
use chassis::Tasks;
use model_store::{Log, Progress, Store, Terminal};
use std::io::IsTerminal as _;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Fetches and loads the models, then serves until the tasks stop.
///
/// # Errors
/// When a model cannot be fetched or loaded, or the listener fails.
pub async fn serve(config: Config, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let store = Store::open(config.models.clone()).context("`chat.models`")?;
    let progress: Box<dyn Progress> = if std::io::stderr().is_terminal() {
        Box::new(Terminal::new())
    } else {
        Box::new(Log::default())
    };
    let backends = tokio::select! {
        loaded = load(&config, &store, &*progress, &tasks) => loaded?,
        // Told to stop while a download runs: there is nothing to finish.
        () = tasks.draining() => return Ok(()),
    };
    serve_with(backends, &config, listener, tasks).await
}

/// Fetches what is missing and loads every model that `config` names. The engines end with `tasks`.
///
/// # Errors
/// When a model is unknown, cannot be fetched or cannot be loaded; the message names it.
pub async fn load(
    config: &Config,
    store: &Store,
    progress: &dyn Progress,
    tasks: &Tasks,
) -> anyhow::Result<Backends> {
    let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
    for local in &config.local {
        let model = store.ensure(&local.name, progress).await?;
        let engine = backends::load_local(&model, config.engine_of(local)).await?;
        let stopper = engine.stopper();
        let stopping = tasks.stopping();
        let inner = tasks.clone();
        tasks.spawn(async move {
            stopping.await;
            stopper.stop();
            // A process must not end under a thread that decodes.
            let joined = inner.spawn_blocking(move || stopper.join()).await;
            if let Err(error) = joined {
                tracing::error!(%error, "an engine could not be joined");
            }
        });
        backends.push(Arc::new(engine));
    }
    for remote in &config.remote {
        let remote = Remote::build(remote)?;
        tasks.spawn_until_stop(remote.watch());
        backends.push(Arc::new(remote));
    }
    Ok(Backends::new(backends)?)
}

/// Serves what `backends` can do until the tasks stop.
///
/// # Errors
/// When the listener fails, or a file of the door cannot be used.
pub async fn serve_with(
    backends: Backends,
    config: &Config,
    listener: TcpListener,
    tasks: Tasks,
) -> anyhow::Result<()> {
    events::count_from_zero();
    let door = chassis::grpc::Door::build("chat", &config.door, &tasks)?;
    service::serve(backends, door, listener, &tasks).await
}
