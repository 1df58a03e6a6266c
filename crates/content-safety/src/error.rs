//! What can go wrong while judging, in the service's own terms.
//!
//! Separate so that every error has one place where it gets its code; clients see these words and nothing else. None of them
//! holds a judged text.

use api_types::{ErrorCode, Fault};
use onnx::OnnxError;

/// An error of the content safety service.
#[derive(Debug, thiserror::Error)]
pub enum SafetyError {
    /// No policy of this name.
    #[error("unknown content safety policy `{name}`; known policies: {}", quoted(.known))]
    UnknownPolicy {
        /// What was asked for.
        name: String,
        /// The names that would do.
        known: Vec<String>,
    },
    /// No blocklist of this name.
    #[error("unknown blocklist `{name}`; known blocklists: {}", quoted(.known))]
    UnknownBlocklist {
        /// What was asked for.
        name: String,
        /// The names that would do.
        known: Vec<String>,
    },
    /// No blocklist of this name, where the path names it.
    #[error("there is no blocklist `{name}`")]
    NoBlocklist {
        /// What was asked for.
        name: String,
    },
    /// No item of this id.
    #[error("the blocklist `{list}` has no item of this id")]
    NoItem {
        /// The list.
        list: String,
    },
    /// No list can be called so.
    #[error("not a name of a blocklist: {}", crate::blocklist::name_rule())]
    InvalidName,
    /// A list of the configuration was to be changed.
    #[error("the blocklist `{name}` is part of this server's configuration; no call can change it")]
    ReadOnly {
        /// The list.
        name: String,
    },
    /// Changes of blocklists take longer than callers wait.
    #[error("the blocklists are being changed; try again later")]
    Changing,
    /// Files of blocklists, policies or protected texts, which are the operator's to mend.
    #[error("{0}")]
    Storage(String),
    /// There is nothing to compare with.
    #[error(
        "this server has no protected {what} to compare with; put files into the folder `{what}` of \
             `content_safety.protected.dir`"
    )]
    NothingProtected {
        /// `text` or `code`.
        what: &'static str,
    },
    /// A blocklist that cannot be used: an operator's mistake, met at start.
    #[error("`content_safety.blocklists`: list `{list}`: {reason}")]
    Blocklist {
        /// Which list.
        list: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request does not fit the API.
    #[error("{message}")]
    Invalid {
        /// The offending field as a dotted path.
        target: String,
        /// What was expected.
        message: String,
    },
    /// No model of this service judges pictures.
    #[error("this service judges no images; name an image model in `content_safety.image_model`")]
    NoImages,
    /// The model's queue is full, or the service is stopping.
    #[error("the content safety models are at capacity; try again later")]
    Busy(OnnxError),
    /// A model failed in a way that no request explains.
    #[error("the content safety models failed: {0}")]
    Model(String),
}

impl SafetyError {
    /// The code that clients see.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPolicy { .. }
            | Self::UnknownBlocklist { .. }
            | Self::NoBlocklist { .. }
            | Self::NoItem { .. }
            | Self::NothingProtected { .. } => ErrorCode::ResourceNotFound,
            Self::InvalidName => ErrorCode::InvalidResourceName,
            Self::ReadOnly { .. } => ErrorCode::PermissionDenied,
            Self::Invalid { .. } => ErrorCode::InvalidRequest,
            Self::NoImages => ErrorCode::ModalityNotSupported,
            Self::Busy(_) | Self::Changing => ErrorCode::Unavailable,
            Self::Blocklist { .. } | Self::Storage(_) | Self::Model(_) => ErrorCode::Internal,
        }
    }

    /// A request that does not fit the API: `target` is a dotted path.
    pub fn invalid(target: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { target: target.into(), message: message.into() }
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl From<OnnxError> for SafetyError {
    fn from(cause: OnnxError) -> Self {
        match cause {
            OnnxError::Overloaded { .. } | OnnxError::Stopped => Self::Busy(cause),
            OnnxError::Library { .. }
            | OnnxError::OtherLibrary { .. }
            | OnnxError::Model { .. }
            | OnnxError::Tokenizer { .. }
            | OnnxError::Tokenize(_)
            | OnnxError::UnknownToken(_)
            | OnnxError::WrongItem(_)
            | OnnxError::Run(_) => Self::Model(cause.to_string()),
        }
    }
}

impl From<SafetyError> for Fault {
    fn from(error: SafetyError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        match error {
            SafetyError::UnknownPolicy { .. } => Self::new(code, message).with_target("policy"),
            SafetyError::UnknownBlocklist { .. } => {
                Self::new(code, message).with_target("blocklists")
            }
            SafetyError::Invalid { target, .. } => Self::invalid(target, message),
            SafetyError::Busy(OnnxError::Overloaded { retry_after }) => {
                Self::new(code, message).with_retry_after(retry_after)
            }
            SafetyError::NoImages
            | SafetyError::Busy(_)
            | SafetyError::Changing
            | SafetyError::NoBlocklist { .. }
            | SafetyError::NoItem { .. }
            | SafetyError::InvalidName
            | SafetyError::ReadOnly { .. }
            | SafetyError::NothingProtected { .. } => Self::new(code, message),
            // The reason is in the log, where the error was swallowed.
            SafetyError::Blocklist { .. } | SafetyError::Storage(_) | SafetyError::Model(_) => {
                Self::new(code, "the server had an error processing your request")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_unknown_policy_is_named_with_those_that_are_known() {
        let known = vec!["default".to_owned(), "strict".to_owned()];
        let fault = Fault::from(SafetyError::UnknownPolicy { name: "lax".into(), known });
        assert_eq!((fault.code.http(), fault.target.as_deref()), (404, Some("policy")));
        assert!(fault.message.contains("`lax`") && fault.message.contains("`default`, `strict`"));
    }

    #[test]
    fn a_full_queue_says_when_to_try_again() {
        let retry_after = Duration::from_secs(3);
        let fault = Fault::from(SafetyError::from(OnnxError::Overloaded { retry_after }));
        assert_eq!((fault.code, fault.retry_after), (ErrorCode::Unavailable, Some(retry_after)));
    }

    #[test]
    fn a_failing_model_does_not_show_its_cause_to_clients() {
        let fault = Fault::from(SafetyError::from(OnnxError::Run("/models/x at node 7".into())));
        assert_eq!(fault.code, ErrorCode::Internal);
        assert!(!fault.message.contains("/models"));
    }
}
