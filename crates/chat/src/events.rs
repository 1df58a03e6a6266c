//! What the operator learns: one place for the log lines and metrics of requests and of the engine.
//!
//! A request is written when its stream ends, whatever ended it. Labels come from enums; no text of a client is in any.

use crate::backend::{FinishReason, Piece, Usage};
use crate::error::ChatError;
use api_types::ErrorCode;
use std::time::{Duration, Instant};

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// A conversation.
    Generate,
    /// Prompts.
    Complete,
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Complete => "complete",
        }
    }
}

/// A request being answered; dropping it writes the line and the metrics.
#[derive(Debug)]
pub(crate) struct RequestEvent {
    method: Method,
    model: String,
    started: Instant,
    first: Option<Duration>,
    outcome: Option<&'static str>,
    usage: Usage,
    pieces: u32,
}

impl RequestEvent {
    /// A request for `model` has come.
    pub(crate) fn begin(method: Method, model: &str) -> Self {
        let model = model.to_owned();
        Self {
            method,
            model,
            started: Instant::now(),
            first: None,
            outcome: None,
            usage: Usage::default(),
            pieces: 0,
        }
    }

    /// Takes note of what the stream brought.
    pub(crate) fn observe(&mut self, item: &Result<Piece, ChatError>) {
        match item {
            Ok(Piece::Text { .. } | Piece::Reasoning { .. } | Piece::ToolCall { .. }) => {
                self.pieces += 1;
                self.first.get_or_insert(self.started.elapsed());
            }
            Ok(Piece::Finished { reason, .. }) => self.outcome = Some(finish_name(*reason)),
            Ok(Piece::Usage(usage)) => self.usage = *usage,
            Err(error) => self.failed(error),
        }
    }

    /// Takes note of an error, and logs its cause when it is ours.
    pub(crate) fn failed(&mut self, error: &ChatError) {
        let code = error.code();
        self.outcome = Some(code.as_str());
        if matches!(code, ErrorCode::Internal | ErrorCode::UpstreamFailed) {
            tracing::error!(model = self.model, %error, "generation failed");
        }
    }
}

impl Drop for RequestEvent {
    fn drop(&mut self) {
        let (method, outcome) = (self.method.as_str(), self.outcome.unwrap_or("cancelled"));
        let took = self.started.elapsed();
        let Usage { prompt_tokens, mut completion_tokens, cached_tokens, reasoning_tokens: _ } =
            self.usage;
        if completion_tokens == 0 {
            // Cut short: a piece is about a token.
            completion_tokens = self.pieces;
        }
        metrics::counter!("chat_requests_total", "method" => method, "outcome" => outcome)
            .increment(1);
        metrics::counter!("chat_prompt_tokens_total").increment(u64::from(prompt_tokens));
        metrics::counter!("chat_cached_tokens_total").increment(u64::from(cached_tokens));
        metrics::counter!("chat_completion_tokens_total").increment(u64::from(completion_tokens));
        metrics::histogram!("chat_request_seconds", "method" => method).record(took);
        if let Some(first) = self.first {
            metrics::histogram!("chat_first_token_seconds", "method" => method).record(first);
        }
        tracing::info!(
            method,
            model = self.model,
            outcome,
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            first_ms = self.first.map(|f| u64::try_from(f.as_millis()).unwrap_or(u64::MAX)),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "answered"
        );
    }
}

const fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// A batch with tokens of `sequences` sequences was decoded.
pub(crate) fn decode_step(took: Duration, sequences: usize) {
    metrics::histogram!("chat_decode_step_seconds").record(took);
    metrics::counter!("chat_decoded_sequences_total")
        .increment(u64::try_from(sequences).unwrap_or(u64::MAX));
}

/// A sequence gave its cells back because the cache was full.
pub(crate) fn stepped_back() {
    metrics::counter!("chat_step_backs_total").increment(1);
    tracing::debug!("the cache is full; the youngest sequence starts over");
}

/// How busy the engine of `model` is.
pub(crate) fn load(model: &str, active: usize, waiting: usize) {
    #[expect(clippy::cast_precision_loss, reason = "hundreds at most")]
    for (name, value) in
        [("chat_active_sequences", active as f64), ("chat_waiting_sequences", waiting as f64)]
    {
        metrics::gauge!(name, "model" => model.to_owned()).set(value);
    }
}
