//! What the operator learns: one place for the log lines and metrics of requests and of the engine.
//!
//! A request is written when its stream ends, whatever ended it. Labels come from enums; no text of a client is in any.

use crate::backend::{FinishReason, Piece, Usage};
use crate::error::ChatError;
use api_types::ErrorCode;
use std::time::{Duration, Instant};
use tracing::Span;
use upstream::UpstreamError;

/// Who provides the models, where conventions ask for a provider.
const PROVIDER: &str = "koine";
/// How a request ends whose caller has gone.
const CANCELLED: &str = "cancelled";
/// How a request ends that the engine had no room or no time for. Beside it `ServiceUnavailable` is a server upstream that is
/// away, or a service that stops: more replicas of ours help against the one alone.
const BUSY: &str = "busy";

/// Has the counters there before anything is counted: a rate does not see how a series begins.
pub(crate) fn count_from_zero() {
    let codes = [ErrorCode::Internal, ErrorCode::UpstreamFailed, ErrorCode::Unavailable];
    let ends = [FinishReason::Stop, FinishReason::Length].map(finish_name);
    for method in Method::ALL.map(Method::as_str) {
        for outcome in codes.map(ErrorCode::as_str).into_iter().chain(ends).chain([BUSY, CANCELLED])
        {
            metrics::counter!("chat_requests_total", "method" => method, "outcome" => outcome)
                .increment(0);
        }
    }
    for name in [
        "chat_prompt_tokens_total",
        "chat_cached_tokens_total",
        "chat_completion_tokens_total",
        "chat_decoded_sequences_total",
        "chat_step_backs_total",
    ] {
        metrics::counter!(name).increment(0);
    }
    for kind in UpstreamError::KINDS {
        metrics::counter!("chat_remote_failures_total", "kind" => kind).increment(0);
    }
}

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// A conversation.
    Generate,
    /// Prompts.
    Complete,
}

impl Method {
    const ALL: [Self; 2] = [Self::Generate, Self::Complete];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Complete => "complete",
        }
    }

    /// By its name in OpenTelemetry's conventions for generative AI.
    const fn operation(self) -> &'static str {
        match self {
            Self::Generate => "chat",
            Self::Complete => "text_completion",
        }
    }
}

/// A request being answered; dropping it writes the line and the metrics.
#[derive(Debug)]
pub(crate) struct RequestEvent {
    span: Span,
    method: Method,
    /// Known here, or empty: a label.
    model: String,
    started: Instant,
    first: Option<Duration>,
    outcome: Option<&'static str>,
    /// The code of the error that ended it.
    failed: Option<&'static str>,
    complete: bool,
    usage: Usage,
    pieces: u32,
}

impl RequestEvent {
    /// A request for `model` has come, in the current span; none where nobody here has the model that it names.
    pub(crate) fn begin(method: Method, model: Option<&str>) -> Self {
        let model = model.unwrap_or_default().to_owned();
        metrics::gauge!("chat_in_flight_requests", "model" => model.clone()).increment(1.0);
        Self {
            span: Span::current(),
            method,
            model,
            started: Instant::now(),
            first: None,
            outcome: None,
            failed: None,
            complete: false,
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
            Ok(Piece::Usage(usage)) => {
                self.usage = *usage;
                self.complete = true;
            }
            Err(error) => self.failed(error),
        }
    }

    /// Takes note of an error, and logs its cause when it is ours.
    pub(crate) fn failed(&mut self, error: &ChatError) {
        let code = error.code();
        let word = if matches!(error, ChatError::Busy { .. }) { BUSY } else { code.as_str() };
        self.outcome = Some(word);
        self.failed = Some(word);
        if matches!(code, ErrorCode::Internal | ErrorCode::UpstreamFailed) {
            tracing::error!(model = self.model, %error, "generation failed");
        }
    }
}

impl RequestEvent {
    /// The three times that the conventions ask of a model server.
    fn measure(&self, took: Duration, completion_tokens: u32) {
        let error = if self.complete { "" } else { self.failed.unwrap_or(CANCELLED) };
        let (operation, model) = (self.method.operation(), || self.model.clone());
        metrics::histogram!("gen_ai_server_request_duration_seconds", "gen_ai_operation_name" => operation,
            "gen_ai_provider_name" => PROVIDER, "gen_ai_request_model" => model(), "error_type" => error)
        .record(took);
        let Some(first) = self.first.filter(|_| self.complete) else { return };
        metrics::histogram!("gen_ai_server_time_to_first_token_seconds", "gen_ai_operation_name" => operation,
            "gen_ai_provider_name" => PROVIDER, "gen_ai_request_model" => model())
        .record(first);
        if completion_tokens > 1 {
            metrics::histogram!("gen_ai_server_time_per_output_token_seconds", "gen_ai_operation_name" => operation,
                "gen_ai_provider_name" => PROVIDER, "gen_ai_request_model" => model())
            .record(took.saturating_sub(first) / (completion_tokens - 1));
        }
    }
}

impl Drop for RequestEvent {
    fn drop(&mut self) {
        let span = self.span.clone();
        let _in_span = span.enter();
        metrics::gauge!("chat_in_flight_requests", "model" => self.model.clone()).decrement(1.0);
        let cancelled = !self.complete && self.failed.is_none();
        let outcome = if cancelled { CANCELLED } else { self.outcome.unwrap_or(CANCELLED) };
        let method = self.method.as_str();
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
        self.measure(took, completion_tokens);
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

/// How busy the engine of `model` is: its sequences, and the tokens of all of them, prompts and answers so far.
pub(crate) fn load(model: &str, active: usize, waiting: usize, tokens: usize) {
    for (name, value) in [
        ("chat_active_sequences", active),
        ("chat_waiting_sequences", waiting),
        ("chat_in_flight_tokens", tokens),
    ] {
        let value = u32::try_from(value).map_or(f64::MAX, f64::from);
        metrics::gauge!(name, "model" => model.to_owned()).set(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::Fault;

    #[test]
    fn a_queue_of_ours_that_is_full_is_told_from_a_server_that_is_away() {
        let outcome = |error: &ChatError| {
            let mut event = RequestEvent::begin(Method::Generate, None);
            event.failed(error);
            event.outcome
        };
        let full = ChatError::Busy { model: "m".into(), after: Duration::from_secs(1) };
        assert_eq!(outcome(&full), Some("busy"));
        let away = ChatError::from(Fault::new(ErrorCode::Unavailable, "away"));
        assert_eq!(outcome(&away), Some("ServiceUnavailable"));
        assert_eq!(outcome(&ChatError::Stopping), Some("ServiceUnavailable"));
    }
}
