//! The embedded engine: llama.cpp behind a `Backend`.
//!
//! The door of `local/`, the only place that names the library. A model has two threads: one prepares requests, one decodes
//! them all; this file starts both and carries requests to them. The invariant: a request is admitted (a permit), prepared,
//! begun, and only then does its stream exist, so every error of a request comes before its first piece.

mod compose;
mod engine;
mod grammar;
mod group;
mod jinja;
mod job;
mod load;
mod logprobs;
mod prepare;
mod prompt;
mod sampling;
mod schema;
mod sequence;
mod slots;
mod steps;
mod stream;

use crate::backend::{Backend, CompleteRequest, GenerateRequest, ModelInfo, PieceStream};
use crate::config::EngineConfig;
use crate::error::ChatError;
use async_trait::async_trait;
use engine::{RETRY_AFTER, Shared};
use job::Sink;
use prepare::Intake;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Instant;
use steps::Steps;
use stream::Pieces;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Pieces that may wait for their reader: a slow client slows its own generation, nobody else's.
const PIECES: usize = 8;

/// What to load and how to run it.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Name that requests use.
    pub name: String,
    /// Who published the weights.
    pub publisher: String,
    /// Version of the weights.
    pub version: String,
    /// A GGUF file.
    pub path: PathBuf,
    /// Replaces the chat template of the file.
    pub chat_template: Option<String>,
    /// Limits and defaults.
    pub engine: EngineConfig,
}

/// A model in this process. Its threads end when the last handle is gone and the last answer is given.
#[derive(Debug)]
pub struct LocalEngine {
    info: ModelInfo,
    intake: SyncSender<(Intake, Sink)>,
    places: Arc<Semaphore>,
    stopper: Stopper,
}

/// Ends an engine before its time.
#[derive(Debug, Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
    engine: Thread,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl LocalEngine {
    /// Loads the model and starts its threads.
    ///
    /// # Errors
    /// When the file is no model that llama.cpp knows, there is not enough memory, or its chat template does not parse.
    pub async fn load(options: LocalOptions) -> Result<Self, ChatError> {
        load::load(options).await
    }

    /// Ends the engine when called, with an error for whoever is being answered.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Choices that generate now, and choices that wait for a slot.
    #[must_use]
    pub fn load_now(&self) -> (usize, usize) {
        let shared = &self.stopper.shared;
        (shared.active.load(Ordering::Acquire), shared.waiting.load(Ordering::Acquire))
    }

    async fn submit(&self, intake: Intake) -> Result<PieceStream, ChatError> {
        let busy = || ChatError::Busy { model: self.info.name.clone(), after: RETRY_AFTER };
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let (pieces, reader) = mpsc::channel(PIECES);
        let (begun, begins) = oneshot::channel();
        // From here on a caller who leaves drops the stream, and with it the request.
        let stream = Pieces::new(reader, self.stopper.engine.clone());
        let (since, steps) = (Instant::now(), Steps::begin());
        let sink = Sink { pieces, begun, _permit: permit, since, steps };
        self.intake.try_send((intake, sink)).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => ended(),
        })?;
        begins.await.map_err(|_| ended())??;
        Ok(Box::pin(stream))
    }
}

#[async_trait]
impl Backend for LocalEngine {
    fn models(&self) -> Vec<ModelInfo> {
        vec![self.info.clone()]
    }

    async fn generate(&self, request: GenerateRequest) -> Result<PieceStream, ChatError> {
        self.submit(Intake::Generate(Box::new(request))).await
    }

    async fn complete(&self, request: CompleteRequest) -> Result<PieceStream, ChatError> {
        self.submit(Intake::Complete(Box::new(request))).await
    }
}

impl Stopper {
    /// Tells the engine to end at once.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.engine.unpark();
    }

    /// Waits until the threads have ended; blocks, one decoding step at most after `stop`.
    pub fn join(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine has panicked");
            }
        }
    }
}

fn ended() -> ChatError {
    ChatError::Engine(
        "the engine has ended; see the log for why, and restart the service".to_owned(),
    )
}
