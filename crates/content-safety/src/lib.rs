//! Text or images in, severities and a verdict out.
//!
//! A service of its own because judging scales otherwise than chat and must go on when chat is busy. Reading order: the gRPC
//! door (`service`), what is judged for what (`screen`), the seam (`judge`) and the ensemble behind it (`classify`), then what
//! makes a verdict (`policy`, `blocklist`). How the heads came about is in `training/README.md`.

pub mod config;
mod service;

mod screen;

pub mod category;
pub mod judge;
pub mod picture;
pub mod policy;

pub mod blocklist;
mod cache;
pub mod classify;
pub mod error;
mod events;
pub mod load;
mod manifest;
mod normalise;

pub use category::{Attack, Category, Grade, Grades, Severity, TextFinding};
pub use config::Config;
pub use error::SafetyError;
pub use judge::Judge;
pub use load::{load, model_names};
pub use picture::Picture;

use anyhow::Context as _;
use blocklist::Blocklists;
use chassis::Tasks;
use model_store::{Log, Progress, Store, Terminal};
use policy::Policies;
use screen::Screen;
use std::io::IsTerminal as _;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Fetches and loads the models, then serves until the tasks stop.
///
/// # Errors
/// When a model cannot be fetched or loaded, or the listener fails.
pub async fn serve(config: Config, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let store = Store::open(config.models.clone()).context("`content_safety.models`")?;
    let progress: Box<dyn Progress> = if std::io::stderr().is_terminal() {
        Box::new(Terminal::new())
    } else {
        Box::new(Log::default())
    };
    let ensemble = tokio::select! {
        loaded = load(&config, &store, &*progress, &tasks) => loaded?,
        // Told to stop while a download runs: there is nothing to finish.
        () = tasks.draining() => return Ok(()),
    };
    serve_with(Arc::new(ensemble), &config, listener, tasks).await
}

/// Serves what `judge` finds under the policies of `config` until the tasks stop.
///
/// # Errors
/// When a blocklist does not compile or the listener fails.
pub async fn serve_with(
    judge: Arc<dyn Judge>,
    config: &Config,
    listener: TcpListener,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let screen = Screen {
        judge,
        policies: Policies::new(config.policies.clone()),
        blocklists: Blocklists::build(&config.blocklists)?,
        limits: config.limits.to_screen(),
        decoders: Arc::new(Semaphore::new(cores)),
        tasks: tasks.clone(),
    };
    service::serve(screen, listener, &tasks).await
}
