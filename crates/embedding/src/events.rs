//! What happened, as a metric and a log line.
//!
//! Separate so that names and labels stand in one place. Labels come from enums, never from what a caller sent.

use crate::embedder::{Embedded, Inputs};
use crate::error::EmbeddingError;
use api_types::ErrorCode;
use onnx::OnnxError;
use std::time::Instant;
use tracing::Span;
use upstream::UpstreamError;

/// Who provides the models, where conventions ask for a provider.
const PROVIDER: &str = "koine";
/// How a request ends whose caller has gone.
const CANCELLED: &str = "cancelled";
/// How a request ends that the model's queue had no room for. Beside it `ServiceUnavailable` is a server upstream that is away,
/// or a service that stops: more replicas of ours help against the one alone.
const BUSY: &str = "busy";

/// Has the counters there before anything is counted: a rate does not see how a series begins.
pub(crate) fn count_from_zero() {
    let codes = [ErrorCode::Internal, ErrorCode::UpstreamFailed, ErrorCode::Unavailable];
    for kind in Kind::ALL.map(Kind::as_str) {
        for code in codes.map(ErrorCode::as_str).into_iter().chain(["ok", BUSY, CANCELLED]) {
            metrics::counter!("embedding_requests_total", "kind" => kind, "code" => code)
                .increment(0);
        }
        metrics::counter!("embedding_inputs_total", "kind" => kind).increment(0);
    }
    metrics::counter!("embedding_tokens_total").increment(0);
    for kind in UpstreamError::KINDS {
        metrics::counter!("embedding_remote_failures_total", "kind" => kind).increment(0);
    }
}

/// The word for an error.
fn word(error: &EmbeddingError) -> &'static str {
    let busy = matches!(error, EmbeddingError::Busy { cause: OnnxError::Overloaded { .. }, .. });
    if busy { BUSY } else { error.code().as_str() }
}

/// What the inputs of a request are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Texts,
    Images,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Texts, Self::Images];

    pub(crate) const fn of(inputs: &Inputs) -> Self {
        match inputs {
            Inputs::Texts(_) => Self::Texts,
            Inputs::Images(_) => Self::Images,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Texts => "texts",
            Self::Images => "images",
        }
    }
}

/// A request could not be read.
pub(crate) fn refused(error: &EmbeddingError) {
    let code = error.code().as_str();
    metrics::counter!("embedding_requests_total", "kind" => "none", "code" => code).increment(1);
    tracing::debug!(code, %error, "embedding refused");
}

/// A request that is being answered; dropping it unanswered says that its caller has gone.
#[derive(Debug)]
pub(crate) struct Request {
    span: Span,
    kind: &'static str,
    /// Known here, or empty: a label.
    model: String,
    started: Instant,
    code: &'static str,
}

impl Request {
    /// A request has come, in the current span; no model where nobody here has the one that it names.
    pub(crate) fn begin(kind: Kind, model: Option<&str>) -> Self {
        let model = model.unwrap_or_default().to_owned();
        metrics::gauge!("embedding_in_flight_requests", "model" => model.clone()).increment(1.0);
        let (span, started) = (Span::current(), Instant::now());
        Self { span, kind: kind.as_str(), model, started, code: CANCELLED }
    }

    /// It has been answered.
    pub(crate) fn answered(mut self, outcome: &Result<Embedded, EmbeddingError>) {
        self.code = match outcome {
            Ok(_) => "ok",
            Err(error) => word(error),
        };
        match outcome {
            Ok(embedded) => {
                let inputs = u64::try_from(embedded.vectors.len()).unwrap_or(u64::MAX);
                metrics::counter!("embedding_inputs_total", "kind" => self.kind).increment(inputs);
                metrics::counter!("embedding_tokens_total")
                    .increment(u64::from(embedded.prompt_tokens));
            }
            // A caller's mistakes are the caller's to read; these are the operator's.
            Err(error) if matches!(error.code(), ErrorCode::Internal) => {
                tracing::error!(%error, "embedding failed");
            }
            Err(error) => tracing::debug!(code = self.code, %error, "embedding refused"),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let Self { kind, code, .. } = *self;
        let (taken, model) = (self.started.elapsed(), || self.model.clone());
        metrics::gauge!("embedding_in_flight_requests", "model" => model()).decrement(1.0);
        metrics::counter!("embedding_requests_total", "kind" => kind, "code" => code).increment(1);
        metrics::histogram!("embedding_request_seconds", "kind" => kind).record(taken);
        let error = if code == "ok" { "" } else { code };
        metrics::histogram!("gen_ai_server_request_duration_seconds", "gen_ai_operation_name" => "embeddings",
            "gen_ai_provider_name" => PROVIDER, "gen_ai_request_model" => model(), "error_type" => error)
        .record(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_queue_of_ours_that_is_full_is_told_from_a_service_that_stops() {
        let full = OnnxError::Overloaded { retry_after: Duration::from_secs(1) };
        assert_eq!(word(&EmbeddingError::from_onnx("m", full)), "busy");
        assert_eq!(word(&EmbeddingError::from_onnx("m", OnnxError::Stopped)), "ServiceUnavailable");
    }
}
