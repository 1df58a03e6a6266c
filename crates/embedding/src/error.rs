//! What can go wrong while embedding, in the service's own terms.
//!
//! Separate so that every error has one place where it gets its code; clients see these words and nothing else.

use api_types::{ErrorCode, Fault};
use onnx::OnnxError;
use serde_json::Value;

/// An error of the embedding service.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingError {
    /// Nothing serves the model.
    #[error("unknown model `{model}`; known models: {known}")]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// The names that would do, quoted and separated by commas.
        known: String,
    },
    /// The model is served, but not for this kind of input.
    #[error("the model `{model}` does not embed {kind}")]
    WrongKind {
        /// What was asked for.
        model: String,
        /// `texts` or `images`.
        kind: &'static str,
    },
    /// The request does not fit the API.
    #[error("{message}")]
    Invalid {
        /// The offending field as a dotted path.
        target: String,
        /// What was expected.
        message: String,
    },
    /// The request fits the API but not the model.
    #[error("{message}")]
    Unsupported {
        /// The offending field as a dotted path.
        target: String,
        /// The offending value.
        input: Value,
        /// What the model cannot do.
        message: String,
    },
    /// A text is longer than the model takes, and the service is configured to refuse it.
    #[error(
        "the text has {tokens} tokens, but the model `{model}` takes at most {limit}; send shorter texts"
    )]
    TooLong {
        /// The offending field.
        target: String,
        /// Which model.
        model: String,
        /// Tokens of the text, special tokens included.
        tokens: usize,
        /// Tokens that the model takes.
        limit: usize,
    },
    /// The model's queue is full, or the service is stopping.
    #[error("the model `{model}` is at capacity; try again later")]
    Busy {
        /// Which model.
        model: String,
        /// Full queue, with the time to wait, or stopped.
        cause: OnnxError,
    },
    /// The model failed in a way that no request explains.
    #[error("the model `{model}` failed: {reason}")]
    Model {
        /// Which model.
        model: String,
        /// Why.
        reason: String,
    },
    /// A fault that carries its own code, for example of an upstream server.
    #[error(transparent)]
    Fault(Box<Fault>),
}

impl EmbeddingError {
    /// The code that clients see.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownModel { .. } => ErrorCode::UnknownModel,
            Self::WrongKind { .. } => ErrorCode::ModalityNotSupported,
            Self::Invalid { .. } => ErrorCode::InvalidRequest,
            Self::Unsupported { .. } => ErrorCode::ParameterNotSupported,
            Self::TooLong { .. } => ErrorCode::ContextLengthExceeded,
            Self::Busy { .. } => ErrorCode::Unavailable,
            Self::Model { .. } => ErrorCode::Internal,
            Self::Fault(fault) => fault.code,
        }
    }

    /// A request that does not fit the API: `target` is a dotted path.
    pub fn invalid(target: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { target: target.into(), message: message.into() }
    }

    /// A request that fits the API but not the model: `target` is a dotted path, `input` the offending value.
    pub fn unsupported(
        target: impl Into<String>,
        input: Value,
        message: impl Into<String>,
    ) -> Self {
        Self::Unsupported { target: target.into(), input, message: message.into() }
    }

    /// What a failure of the runtime means for a request to `model`.
    #[must_use]
    pub fn from_onnx(model: &str, cause: OnnxError) -> Self {
        let model = model.to_owned();
        match cause {
            OnnxError::Overloaded { .. } | OnnxError::Stopped => Self::Busy { model, cause },
            OnnxError::Library { .. }
            | OnnxError::OtherLibrary { .. }
            | OnnxError::Model { .. }
            | OnnxError::Tokenizer { .. }
            | OnnxError::Tokenize(_)
            | OnnxError::UnknownToken(_)
            | OnnxError::WrongItem(_)
            | OnnxError::Run(_) => Self::Model { model, reason: cause.to_string() },
        }
    }
}

impl From<Fault> for EmbeddingError {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<EmbeddingError> for Fault {
    fn from(error: EmbeddingError) -> Self {
        let code = error.code();
        let message = error.to_string();
        match error {
            EmbeddingError::UnknownModel { .. } | EmbeddingError::WrongKind { .. } => {
                Self::new(code, message).with_target("model")
            }
            EmbeddingError::Invalid { target, .. } => Self::invalid(target, message),
            EmbeddingError::Unsupported { target, input, .. } => {
                Self::unsupported(target, input, message)
            }
            EmbeddingError::TooLong { target, .. } => Self::new(code, message).with_target(target),
            EmbeddingError::Busy { cause: OnnxError::Overloaded { retry_after }, .. } => {
                Self::new(code, message).with_retry_after(retry_after)
            }
            EmbeddingError::Busy { .. } => Self::new(code, message),
            // The reason is in the log, where the error was swallowed.
            EmbeddingError::Model { .. } => {
                Self::new(code, "the server had an error processing your request")
            }
            EmbeddingError::Fault(fault) => *fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_full_queue_says_when_to_try_again() {
        let cause = OnnxError::Overloaded { retry_after: Duration::from_secs(3) };
        let fault = Fault::from(EmbeddingError::from_onnx("m", cause));
        assert_eq!(fault.code, ErrorCode::Unavailable);
        assert_eq!(fault.retry_after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_failing_model_does_not_show_its_cause_to_clients() {
        let fault = Fault::from(EmbeddingError::from_onnx(
            "m",
            OnnxError::Run("/models/x at node 7".into()),
        ));
        assert_eq!(fault.code, ErrorCode::Internal);
        assert!(!fault.message.contains("/models"));
    }

    #[test]
    fn a_text_that_is_too_long_is_a_400_that_names_the_limit() {
        let error = EmbeddingError::TooLong {
            target: "input".into(),
            model: "m".into(),
            tokens: 300,
            limit: 256,
        };
        let fault = Fault::from(error);
        assert_eq!(fault.code.http(), 400);
        assert_eq!(fault.target.as_deref(), Some("input"));
        assert!(fault.message.contains("300") && fault.message.contains("256"));
    }
}
