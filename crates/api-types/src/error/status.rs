//! Faults as gRPC statuses and back: code, target and details travel as error details (google.rpc.ErrorInfo, BadRequest, RetryInfo).
//!
//! Separate from the codes, which know nothing of gRPC but its status codes. What is written here is read back unchanged.

use super::{Detail, ErrorCode, Fault};
use std::collections::HashMap;
use tonic::metadata::MetadataValue;
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of our `google.rpc.ErrorInfo`.
const DOMAIN: &str = "koine";
/// gRPC metadata must stay small (8 KiB by default in most proxies), so a long offending input is left out.
const LONGEST_INPUT: usize = 1024;
/// Tells clients that retry by themselves not to, where it is negative (gRPC, proposal A6): the service has tried all there is.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Fault {
    /// This fault as a gRPC status.
    #[must_use]
    pub fn into_status(self) -> tonic::Status {
        let mut metadata = HashMap::new();
        if let Some(target) = self.target {
            metadata.insert("target".to_owned(), target);
        }
        if let Some(input) = self.input.map(|v| v.to_string()).filter(|s| s.len() <= LONGEST_INPUT)
        {
            metadata.insert("input".to_owned(), input);
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(self.code.reason(), DOMAIN, metadata);
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        for d in self.details {
            details.add_bad_request_violation(d.target, format!("{}: {}", d.code, d.message));
        }
        let mut status = tonic::Status::with_error_details(self.code.grpc(), self.message, details);
        if self.code == ErrorCode::UpstreamFailed {
            status.metadata_mut().insert(PUSHBACK, MetadataValue::from_static("-1"));
        }
        status
    }
}

impl From<Fault> for tonic::Status {
    fn from(fault: Fault) -> Self {
        fault.into_status()
    }
}

impl From<tonic::Status> for Fault {
    /// Reads back what `into_status` wrote; a status from elsewhere gets the nearest code.
    fn from(status: tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let code = info.and_then(|info| ErrorCode::from_reason(&info.reason));
        let Some((info, code)) = info.zip(code) else {
            return Self::new(ErrorCode::from_grpc(status.code()), foreign_message(&status));
        };
        let violations = details.bad_request().map_or(&[][..], |b| &b.field_violations);
        Self {
            code,
            message: status.message().to_owned(),
            target: info.metadata.get("target").cloned(),
            input: info.metadata.get("input").and_then(|s| serde_json::from_str(s).ok()),
            details: violations.iter().map(detail_from_violation).collect(),
            retry_after: details.retry_info().and_then(|r| r.retry_delay),
        }
    }
}

fn detail_from_violation(v: &tonic_types::FieldViolation) -> Detail {
    let (code, message) = v.description.split_once(": ").unwrap_or(("invalid", &v.description));
    Detail { code: code.to_owned(), message: message.to_owned(), target: v.field.clone() }
}

/// What a client may read of a status that is not ours: transport details stay in our log.
fn foreign_message(status: &tonic::Status) -> String {
    match ErrorCode::from_grpc(status.code()) {
        ErrorCode::Unavailable => "a service behind this endpoint is not reachable".to_owned(),
        ErrorCode::Timeout => "a service behind this endpoint did not answer in time".to_owned(),
        ErrorCode::Internal => "the server had an error processing your request".to_owned(),
        ErrorCode::InvalidRequest
        | ErrorCode::MissingApiVersion
        | ErrorCode::UnsupportedApiVersion
        | ErrorCode::ExtraParameters
        | ErrorCode::NoModelName
        | ErrorCode::ContextLengthExceeded
        | ErrorCode::ContentFiltered
        | ErrorCode::Unauthorized
        | ErrorCode::PermissionDenied
        | ErrorCode::NotFound
        | ErrorCode::UnknownModel
        | ErrorCode::DeploymentNotFound
        | ErrorCode::ModalityNotSupported
        | ErrorCode::ResourceNotFound
        | ErrorCode::InvalidResourceName
        | ErrorCode::MethodNotAllowed
        | ErrorCode::PayloadTooLarge
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::ParameterNotSupported
        | ErrorCode::ParameterRefused
        | ErrorCode::RateLimited
        | ErrorCode::UpstreamFailed => status.message().to_owned(),
    }
}
