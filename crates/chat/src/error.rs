//! What can go wrong while answering, in the service's own terms.
//!
//! Separate so that every error has one place where it gets its code; clients see these words and nothing else.

use api_types::{ErrorCode, Fault};
use serde_json::Value;
use std::time::Duration;

/// An error of the chat service.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// No backend serves the model.
    #[error("unknown model `{model}`; known models: {known}")]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// The names that would do, quoted and separated by commas.
        known: String,
    },
    /// The model is served, but not by this method.
    #[error("the model `{model}` does not serve {method}")]
    WrongMethod {
        /// What was asked for.
        model: String,
        /// `chat completions` or `completions`.
        method: &'static str,
    },
    /// Prompt and answer do not fit the context window.
    #[error("{message}")]
    ContextLength {
        /// Names the tokens and the limit.
        message: String,
        /// The field to shorten.
        target: &'static str,
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
    /// As many requests as configured run and wait already, or this one waited too long.
    #[error("the model `{model}` is at capacity; try again later")]
    Busy {
        /// Whose queue is full.
        model: String,
        /// When to try again.
        after: Duration,
    },
    /// The answer ended before its time.
    #[error("the answer was cut off: it was not read in time, or the engine has ended")]
    Abandoned,
    /// The engine ends because the service stops.
    #[error("the service is stopping")]
    Stopping,
    /// A model could not be loaded.
    #[error("cannot load the model `{model}`: {reason}")]
    Load {
        /// Which model.
        model: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The engine failed in a way that no request explains.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// A fault that carries its own code, for example of an upstream server.
    #[error(transparent)]
    Fault(Box<Fault>),
}

impl ChatError {
    /// The code that clients see.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownModel { .. } => ErrorCode::UnknownModel,
            Self::WrongMethod { .. } => ErrorCode::ModalityNotSupported,
            Self::ContextLength { .. } => ErrorCode::ContextLengthExceeded,
            Self::Invalid { .. } => ErrorCode::InvalidRequest,
            Self::Unsupported { .. } => ErrorCode::ParameterNotSupported,
            Self::Busy { .. } | Self::Stopping => ErrorCode::Unavailable,
            Self::Abandoned => ErrorCode::Timeout,
            Self::Load { .. } | Self::Engine(_) => ErrorCode::Internal,
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
}

impl From<Fault> for ChatError {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<ChatError> for Fault {
    fn from(error: ChatError) -> Self {
        let code = error.code();
        let message = error.to_string();
        match error {
            ChatError::UnknownModel { .. } | ChatError::WrongMethod { .. } => {
                Self::new(code, message).with_target("model")
            }
            ChatError::ContextLength { target, .. } => Self::new(code, message).with_target(target),
            ChatError::Invalid { target, message } => Self::invalid(target, message),
            ChatError::Unsupported { target, input, message } => {
                Self::unsupported(target, input, message)
            }
            ChatError::Busy { after, .. } => Self::new(code, message).with_retry_after(after),
            ChatError::Abandoned | ChatError::Stopping => Self::new(code, message),
            // The reason is in the log, where the error was swallowed.
            ChatError::Load { .. } | ChatError::Engine(_) => {
                Self::new(code, "the server had an error processing your request")
            }
            ChatError::Fault(fault) => *fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_busy_model_says_when_to_try_again() {
        let fault =
            Fault::from(ChatError::Busy { model: "m".into(), after: Duration::from_secs(2) });
        assert_eq!(fault.code, ErrorCode::Unavailable);
        assert_eq!(fault.retry_after, Some(Duration::from_secs(2)));
        assert!(fault.message.contains("`m`"));
    }

    #[test]
    fn an_engine_failure_does_not_show_its_cause_to_clients() {
        let fault = Fault::from(ChatError::Engine("decode -3 at /models/x".into()));
        assert_eq!(fault.code, ErrorCode::Internal);
        assert!(!fault.message.contains("/models"));
    }

    #[test]
    fn an_unsupported_parameter_keeps_its_target_and_input() {
        let fault = Fault::from(ChatError::unsupported("mirostat", json!(2), "not here"));
        assert_eq!(fault.code, ErrorCode::ParameterNotSupported);
        assert_eq!(fault.target.as_deref(), Some("mirostat"));
        assert_eq!(fault.input, Some(json!(2)));
    }
}
