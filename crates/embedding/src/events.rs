//! What happened, as a metric and a log line.
//!
//! Separate so that names and labels stand in one place. Labels come from enums, never from what a caller sent.

use crate::embedder::{Embedded, Inputs};
use crate::error::EmbeddingError;
use api_types::ErrorCode;
use std::time::Duration;

/// What the inputs of a request are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Texts,
    Images,
}

impl Kind {
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

/// A request has been answered.
pub(crate) fn answered(kind: Kind, taken: Duration, outcome: &Result<Embedded, EmbeddingError>) {
    let kind = kind.as_str();
    let code = match outcome {
        Ok(_) => "ok",
        Err(error) => error.code().as_str(),
    };
    metrics::counter!("embedding_requests_total", "kind" => kind, "code" => code).increment(1);
    metrics::histogram!("embedding_request_seconds", "kind" => kind).record(taken);
    match outcome {
        Ok(embedded) => {
            let inputs = u64::try_from(embedded.vectors.len()).unwrap_or(u64::MAX);
            metrics::counter!("embedding_inputs_total", "kind" => kind).increment(inputs);
            metrics::counter!("embedding_tokens_total")
                .increment(u64::from(embedded.prompt_tokens));
        }
        // A caller's mistakes are the caller's to read; these are the operator's.
        Err(error) if matches!(error.code(), ErrorCode::Internal) => {
            tracing::error!(%error, "embedding failed");
        }
        Err(error) => tracing::debug!(code, %error, "embedding refused"),
    }
}
