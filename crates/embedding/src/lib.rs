//! Texts or images in, vectors out.
//!
//! A service of its own because embedding scales otherwise than chat: many small calls, no state, batches across callers.
//! Reading order: the gRPC door (`service`), the seam (`embedder`), a model of ours behind it (`local`) or a server elsewhere
//! (`remote`), and what a local model does with texts, images and rows.

pub mod config;
pub mod embedder;
pub mod error;
mod events;
mod image;
pub mod load;
mod local;
mod pooling;
pub mod remote;
mod service;
mod text;

pub use config::Config;
pub use embedder::{Embedder, Embedders};
pub use error::EmbeddingError;
pub use load::{load, model_names};
pub use remote::Remote;

use anyhow::Context as _;
use chassis::Tasks;
use model_store::{Log, Progress, Store, Terminal};
use std::io::IsTerminal as _;
use tokio::net::TcpListener;

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Fetches and loads the models, then serves until the tasks stop.
///
/// # Errors
/// When a model cannot be fetched or loaded, or the listener fails.
pub async fn serve(config: Config, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let store = Store::open(config.models.clone()).context("`embedding.models`")?;
    let progress: Box<dyn Progress> = if std::io::stderr().is_terminal() {
        Box::new(Terminal::new())
    } else {
        Box::new(Log::default())
    };
    let embedders = tokio::select! {
        loaded = load(&config, &store, &*progress, &tasks) => loaded?,
        // Told to stop while a download runs: there is nothing to finish.
        () = tasks.draining() => return Ok(()),
    };
    serve_with(embedders, &config, listener, tasks).await
}

/// Serves what `embedders` can do until the tasks stop.
///
/// # Errors
/// When the listener fails, or a file of the door cannot be used.
pub async fn serve_with(
    embedders: Embedders,
    config: &Config,
    listener: TcpListener,
    tasks: Tasks,
) -> anyhow::Result<()> {
    events::count_from_zero();
    let door = chassis::grpc::Door::build("embedding", &config.door, &tasks)?;
    service::serve((embedders, config.limits.inputs), door, listener, &tasks).await
}
