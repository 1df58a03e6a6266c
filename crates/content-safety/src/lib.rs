//! Text or images in, severities and a verdict out.
//!
//! A service of its own because judging scales otherwise than chat and must go on when chat is busy. Reading order: the gRPC
//! door (`service`), what is judged for what (`screen`), the seam (`judge`) and the ensemble behind it (`classify`), then what
//! makes a verdict (`policy`, `blocklist`, `protected`). How the encoder came about is in `training/README.md`.

pub mod config;
mod service;

mod conversation;
mod screen;

pub mod category;
pub mod judge;
pub mod picture;
pub mod policy;

pub mod blocklist;
pub mod protected;

mod cache;
pub mod classify;
mod copies;
pub mod error;
mod events;
mod function_words;
pub mod load;
mod manifest;
mod normalise;

pub use category::{Attack, Category, Grade, Grades, Severity, Span, TextFinding};
pub use config::Config;
pub use error::SafetyError;
pub use judge::Judge;
pub use load::{load, model_names};
pub use picture::Picture;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use blocklist::store::Blocklists;
use chassis::Tasks;
use model_store::{Log, Progress, Store, Terminal};
use policy::Policies;
use policy::file::PolicyFile;
use protected::Protected;
use screen::Screen;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

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
/// When a blocklist or a protected text cannot be read or used, or the listener fails.
pub async fn serve_with(
    judge: Arc<dyn Judge>,
    config: &Config,
    listener: TcpListener,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let file = PolicyFile::of(config).map(Arc::new);
    let policies = match file.clone() {
        Some(file) => tasks.spawn_blocking(move || file.load()).await?,
        None => Ok(Policies::new(config.policies.clone())),
    };
    let policies =
        Arc::new(ArcSwap::from_pointee(policies.context("`content_safety.policy_file`")?));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (lists, protected) = (config.blocklists.clone(), config.protected.clone());
    let read = move || Ok((Blocklists::open(&lists)?, Protected::load(&protected)?));
    let (blocklists, protected) =
        tasks.spawn_blocking(read).await?.map_err(|error: SafetyError| anyhow::anyhow!(error))?;
    let screen = Screen {
        judge,
        policies: Arc::clone(&policies),
        blocklists: Arc::new(blocklists),
        protected: Arc::new(protected),
        limits: config.limits.to_screen(),
        workers: Arc::new(Semaphore::new(cores)),
        tasks: tasks.clone(),
    };
    if let Some(file) = file {
        let every = Duration::from_millis(config.policy_reload_ms);
        tasks.spawn(watch(file, policies, every, tasks.clone()));
    }
    if !config.blocklists.dir.is_empty() {
        let every = Duration::from_millis(config.blocklists.refresh_ms);
        tasks.spawn(refresh(Arc::clone(&screen.blocklists), every, tasks.clone()));
    }
    events::count_from_zero();
    let door = chassis::grpc::Door::build("content_safety", &config.door, &tasks)?;
    service::serve(screen, door, listener, &tasks).await
}

/// Puts policies in force whose file has changed, until the tasks stop.
async fn watch(
    file: Arc<PolicyFile>,
    policies: Arc<ArcSwap<Policies>>,
    every: Duration,
    tasks: Tasks,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = std::pin::pin!(tasks.stopping());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut stopping => return,
        }
        let file = Arc::clone(&file);
        match tasks.spawn_blocking(move || file.changed()).await {
            Ok(Some(Ok(changed))) => {
                tracing::info!(policies = changed.names().join(","), "policies were read again");
                policies.store(Arc::new(changed));
            }
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "policies cannot be read; those of before stay in force");
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// Takes in what other replicas change in the directory of the blocklists, until the tasks stop.
async fn refresh(blocklists: Arc<Blocklists>, every: Duration, tasks: Tasks) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = std::pin::pin!(tasks.stopping());
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut stopping => return,
        }
        let blocklists = Arc::clone(&blocklists);
        let outcome = tasks.spawn_blocking(move || blocklists.refresh()).await;
        // Once per failure, not once per look.
        if let Ok(Err(error)) = &outcome
            && !failing
        {
            tracing::error!(%error, "blocklists cannot be read; those of before stay in force");
        }
        failing = !matches!(outcome, Ok(Ok(())));
    }
}
