//! One vocabulary of errors with three faces: HTTP status, gRPC status, and the `code` string of the JSON body.
//!
//! Adding a code breaks the exhaustive matches side by side below; that is the review. A `Fault` survives the way
//! through gRPC (`Fault` → `tonic::Status` → `Fault`) with its target, its offending input and its details.

mod status;

use schemars::JsonSchema;
use serde_json::Value;
use std::time::Duration;

/// What went wrong, in the terms of the API contract (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema)]
pub enum ErrorCode {
    /// The body does not fit the API: malformed JSON, wrong type, out of range, missing.
    InvalidRequest,
    /// The query has no `api-version` (section 2).
    MissingApiVersion,
    /// The `api-version` is not one that is served (section 2).
    UnsupportedApiVersion,
    /// A top-level property is not part of the API (section 5).
    ExtraParameters,
    /// Several deployments, none chosen, no default (section 6.2).
    NoModelName,
    /// Prompt and answer do not fit the model's context window (section 8.1).
    ContextLengthExceeded,
    /// A safety policy blocked the prompt (section 13.3).
    ContentFiltered,
    /// No valid credential (section 3).
    Unauthorized,
    /// A valid credential that may not do this.
    PermissionDenied,
    /// No such route.
    NotFound,
    /// No such model on the inference routes.
    UnknownModel,
    /// No such deployment on the Azure OpenAI routes.
    DeploymentNotFound,
    /// The model does not serve this route.
    ModalityNotSupported,
    /// No such resource, for example a blocklist.
    ResourceNotFound,
    /// A resource cannot have this name (section 14).
    InvalidResourceName,
    /// The route exists, but not for this method.
    MethodNotAllowed,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// The body is not JSON by its content type.
    UnsupportedMediaType,
    /// Valid for the API, but the model cannot do it (section 6.2).
    ParameterNotSupported,
    /// The same, where the model does not take the parameter whatever its value: OpenAI's routes tell the two apart.
    ParameterRefused,
    /// Over the caller's rate limit (section 16).
    RateLimited,
    /// A bug or an unexpected failure of ours.
    Internal,
    /// A model server behind us failed.
    UpstreamFailed,
    /// A service is starting, stopping, over capacity or unreachable.
    Unavailable,
    /// A service or upstream did not answer in time.
    Timeout,
}

impl ErrorCode {
    /// All codes, for tests and for reading a code back from gRPC.
    pub const ALL: [Self; 25] = [
        Self::InvalidRequest,
        Self::MissingApiVersion,
        Self::UnsupportedApiVersion,
        Self::ExtraParameters,
        Self::NoModelName,
        Self::ContextLengthExceeded,
        Self::ContentFiltered,
        Self::Unauthorized,
        Self::PermissionDenied,
        Self::NotFound,
        Self::UnknownModel,
        Self::DeploymentNotFound,
        Self::ModalityNotSupported,
        Self::ResourceNotFound,
        Self::InvalidResourceName,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::ParameterNotSupported,
        Self::ParameterRefused,
        Self::RateLimited,
        Self::Internal,
        Self::UpstreamFailed,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// HTTP status of the answer.
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::InvalidRequest
            | Self::MissingApiVersion
            | Self::UnsupportedApiVersion
            | Self::ExtraParameters
            | Self::NoModelName
            | Self::ContextLengthExceeded
            | Self::ContentFiltered
            | Self::InvalidResourceName => 400,
            Self::Unauthorized => 401,
            Self::PermissionDenied => 403,
            Self::NotFound
            | Self::UnknownModel
            | Self::DeploymentNotFound
            | Self::ModalityNotSupported
            | Self::ResourceNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::ParameterNotSupported | Self::ParameterRefused => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::UpstreamFailed => 502,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// gRPC status between the services.
    #[must_use]
    pub const fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidRequest
            | Self::MissingApiVersion
            | Self::UnsupportedApiVersion
            | Self::ExtraParameters
            | Self::NoModelName
            | Self::InvalidResourceName
            | Self::UnsupportedMediaType
            | Self::ParameterNotSupported
            | Self::ParameterRefused => tonic::Code::InvalidArgument,
            Self::ContextLengthExceeded | Self::PayloadTooLarge => tonic::Code::OutOfRange,
            Self::ContentFiltered => tonic::Code::FailedPrecondition,
            Self::Unauthorized => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::NotFound
            | Self::UnknownModel
            | Self::DeploymentNotFound
            | Self::ResourceNotFound => tonic::Code::NotFound,
            Self::ModalityNotSupported | Self::MethodNotAllowed => tonic::Code::Unimplemented,
            Self::RateLimited => tonic::Code::ResourceExhausted,
            Self::Internal => tonic::Code::Internal,
            Self::UpstreamFailed | Self::Unavailable => tonic::Code::Unavailable,
            Self::Timeout => tonic::Code::DeadlineExceeded,
        }
    }

    /// The `error.code` of the JSON body and the value of `x-ms-error-code`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::UnsupportedApiVersion => "BadRequest",
            Self::MissingApiVersion => "MissingApiVersionParameter",
            Self::ExtraParameters => "extra_parameters_not_allowed",
            Self::NoModelName => "no_model_name",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::ContentFiltered => "content_filter",
            Self::Unauthorized => "401",
            Self::PermissionDenied => "PermissionDenied",
            Self::NotFound => "404",
            Self::UnknownModel => "unknown_model",
            Self::DeploymentNotFound => "DeploymentNotFound",
            Self::ModalityNotSupported => "modality_not_supported",
            Self::ResourceNotFound => "ResourceNotFound",
            Self::InvalidResourceName => "InvalidResourceName",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::PayloadTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::ParameterNotSupported | Self::ParameterRefused => "parameter_not_supported",
            Self::RateLimited => "429",
            Self::Internal => "InternalServerError",
            Self::UpstreamFailed => "BadGateway",
            Self::Unavailable => "ServiceUnavailable",
            Self::Timeout => "GatewayTimeout",
        }
    }

    /// Whether the same request may succeed later; only such answers may carry `Retry-After` (section 16).
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Unavailable => true,
            Self::InvalidRequest
            | Self::MissingApiVersion
            | Self::UnsupportedApiVersion
            | Self::ExtraParameters
            | Self::NoModelName
            | Self::ContextLengthExceeded
            | Self::ContentFiltered
            | Self::Unauthorized
            | Self::PermissionDenied
            | Self::NotFound
            | Self::UnknownModel
            | Self::DeploymentNotFound
            | Self::ModalityNotSupported
            | Self::ResourceNotFound
            | Self::InvalidResourceName
            | Self::MethodNotAllowed
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::ParameterNotSupported
            | Self::ParameterRefused
            | Self::Internal
            | Self::UpstreamFailed
            | Self::Timeout => false,
        }
    }

    /// The unique name of the code on gRPC (`ErrorInfo.reason`): the variant in upper snake case.
    fn reason(self) -> String {
        let mut out = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_uppercase());
        }
        out
    }

    fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.reason() == reason)
    }

    /// The nearest code for a status that some other software made (a proxy, tonic itself).
    const fn from_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => Self::InvalidRequest,
            tonic::Code::OutOfRange => Self::PayloadTooLarge,
            tonic::Code::NotFound => Self::ResourceNotFound,
            tonic::Code::Unauthenticated
            | tonic::Code::PermissionDenied
            | tonic::Code::Ok
            | tonic::Code::Unknown
            | tonic::Code::AlreadyExists
            | tonic::Code::Aborted
            | tonic::Code::Unimplemented
            | tonic::Code::Internal
            | tonic::Code::DataLoss => Self::Internal,
            tonic::Code::ResourceExhausted | tonic::Code::Unavailable | tonic::Code::Cancelled => {
                Self::Unavailable
            }
            tonic::Code::DeadlineExceeded => Self::Timeout,
        }
    }
}

/// One of several things wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// A code of its own, for example `extra_parameter`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The field, as a dotted path (`messages.0.role`).
    pub target: String,
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of error.
    pub code: ErrorCode,
    /// For people: what was wrong and what was expected. Never holds a secret or prompt text.
    pub message: String,
    /// The offending field as a dotted path (`messages.0.role`); none when no single field is to blame.
    pub target: Option<String>,
    /// The offending value, where the model cannot do it.
    pub input: Option<Value>,
    /// Every offence when there are several.
    pub details: Vec<Detail>,
    /// When to try again; only for retryable codes.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault without a target.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            target: None,
            input: None,
            details: Vec::new(),
            retry_after: None,
        }
    }

    /// A request that does not fit the API: `target` names the field as a dotted path.
    #[must_use]
    pub fn invalid(target: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message).with_target(target)
    }

    /// A request that fits the API but not the model: 422 with `detail.loc` and `detail.input`.
    #[must_use]
    pub fn unsupported(
        target: impl Into<String>,
        input: Value,
        message: impl Into<String>,
    ) -> Self {
        let mut fault = Self::new(ErrorCode::ParameterNotSupported, message).with_target(target);
        fault.input = Some(input);
        fault
    }

    /// A parameter that the model does not take at all: as `unsupported`, but OpenAI's routes name the parameter.
    #[must_use]
    pub fn refused(target: impl Into<String>, input: Value, message: impl Into<String>) -> Self {
        Self { code: ErrorCode::ParameterRefused, ..Self::unsupported(target, input, message) }
    }

    /// The same fault with `target`.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// The same fault with a time to try again.
    #[must_use]
    pub const fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

#[cfg(test)]
mod tests;
