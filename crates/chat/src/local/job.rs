//! A request on its way from preparation to the engine: token ids instead of text, everything checked.

use super::compose::Rules;
use super::sampling::Plan;
use super::steps::Steps;
use crate::backend::Piece;
use crate::error::ChatError;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// What to generate.
#[derive(Debug)]
pub(crate) struct Job {
    /// At least one.
    pub(crate) prompts: Vec<Prompt>,
    /// Sampled per prompt.
    pub(crate) candidates: u32,
    /// Kept per prompt; at most `candidates`.
    pub(crate) choices: u32,
    /// Generated tokens per choice that the client asked for; none goes up to the context window.
    pub(crate) max_tokens: Option<u32>,
    /// How to choose tokens.
    pub(crate) plan: Plan,
    /// What the answer is held to.
    pub(crate) grammar: Option<LlamaSampler>,
    /// What is made of the text.
    pub(crate) rules: Rules,
    /// Alternatives to report per token; none reports no log probabilities.
    pub(crate) top_logprobs: Option<usize>,
}

/// A prompt to continue.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    /// At least one, and fewer than the context window holds.
    pub(crate) tokens: Arc<[LlamaToken]>,
    /// The prompt as text, to be repeated before its continuation.
    pub(crate) echo: Option<Arc<str>>,
}

/// Where the answer goes.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Pieces; closed when nobody listens any more.
    pub(crate) pieces: mpsc::Sender<Result<Piece, ChatError>>,
    /// Told once: the generation has begun, or why not.
    pub(crate) begun: oneshot::Sender<Result<(), ChatError>>,
    /// One of the requests that may run and wait; returned when this is dropped.
    pub(crate) _permit: OwnedSemaphorePermit,
    /// When the request came.
    pub(crate) since: Instant,
    /// How far it has come since, for traces.
    pub(crate) steps: Steps,
}
