//! The only place where an error becomes an HTTP response.
//!
//! An `ApiError` leaves a handler or a layer as an empty response that carries the fault; `render` writes the body once the
//! family and version of the request are at hand. So every error of every layer has the same shape, and no layer needs to know
//! the shape.

use crate::context::{Context, Family};
use api_types::rest::{ContentFilterResults, ErrorBody, ErrorStyle};
use api_types::{ErrorCode, Fault};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Every error says its code here too.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
/// `Retry-After`, finer.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// When to try again where nobody knows better.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// Longest time a client is asked to wait: some sleep all of it (contract, section 16.2).
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A fault on its way to a client.
#[derive(Debug, Clone)]
pub struct ApiError {
    fault: Fault,
    /// What content safety found, where it blocked.
    found: Option<ContentFilterResults>,
}

impl ApiError {
    /// A prompt that a safety policy blocked, and why.
    #[must_use]
    pub fn blocked(found: ContentFilterResults) -> Self {
        let fault = Fault::new(
            ErrorCode::ContentFiltered,
            "The response was filtered: the prompt was blocked by the content policy of this deployment. \
             Change the prompt and try again.",
        );
        Self { fault, found: Some(found) }
    }

    /// Whether a safety policy blocked the prompt.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.found.is_some()
    }

    /// The fault.
    #[must_use]
    pub const fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self { fault, found: None }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = StatusCode::from_u16(self.fault.code.http())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The error that `response` carries.
#[must_use]
pub fn code_of(response: &Response) -> Option<ErrorCode> {
    response.extensions().get::<Arc<ApiError>>().map(|error| error.fault.code)
}

/// Writes the body of a response that carries an error; leaves others alone.
#[must_use]
pub fn render(mut response: Response, context: &Context) -> Response {
    let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() else { return response };
    let (mut parts, _empty) = response.into_parts();
    let style = style(context);
    parts.status = StatusCode::from_u16(style.status(error.fault.code)).unwrap_or(parts.status);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(ERROR_CODE, HeaderValue::from_static(style.code(error.fault.code)));
    if error.fault.code.retryable() {
        write_retry(&mut parts.headers, error.fault.retry_after.unwrap_or(DEFAULT_RETRY));
    }
    Response::from_parts(parts, Body::from(body(&error, style)))
}

/// The status and the body that `error` would be answered with.
#[must_use]
pub fn foreseen(error: &ApiError, context: &Context) -> (u16, ErrorBody) {
    let style = style(context);
    (style.status(error.fault.code), error_body(error, style))
}

/// The JSON of an error after the first byte of a stream: always with an `error` object, which is what clients look for there.
#[must_use]
pub fn event(fault: &Fault, context: &Context) -> Bytes {
    let style = match style(context) {
        ErrorStyle::Flat => ErrorStyle::Hybrid,
        style @ (ErrorStyle::Hybrid | ErrorStyle::OpenAi | ErrorStyle::ContentSafety) => style,
    };
    body(&ApiError::from(fault.clone()), style)
}

fn style(context: &Context) -> ErrorStyle {
    match context.family {
        Family::Inference if context.flat_errors() => ErrorStyle::Flat,
        Family::Inference => ErrorStyle::Hybrid,
        Family::Deployments | Family::OpenAi => ErrorStyle::OpenAi,
        Family::ContentSafety => ErrorStyle::ContentSafety,
    }
}

fn style_for(style: ErrorStyle, code: ErrorCode) -> ErrorStyle {
    // The flat form of the first version is specified for these two alone; the rest of its errors are readable both ways.
    let specified =
        [ErrorCode::ParameterNotSupported, ErrorCode::ParameterRefused, ErrorCode::ContentFiltered]
            .contains(&code);
    if style == ErrorStyle::Flat && !specified { ErrorStyle::Hybrid } else { style }
}

fn body(error: &ApiError, style: ErrorStyle) -> Bytes {
    // Strings and numbers under string keys cannot fail to serialise.
    Bytes::from(serde_json::to_vec(&error_body(error, style)).unwrap_or_default())
}

fn error_body(error: &ApiError, style: ErrorStyle) -> ErrorBody {
    let style = style_for(style, error.fault.code);
    match &error.found {
        Some(found) => ErrorBody::content_filtered(&error.fault, found, style),
        None => ErrorBody::new(&error.fault, style),
    }
}

/// Both headers: Azure's clients read the seconds, OpenAI's the milliseconds.
fn write_retry(headers: &mut HeaderMap, after: Duration) {
    let after = after.min(LONGEST_RETRY);
    let seconds = after.as_millis().div_ceil(1000).max(1);
    let milliseconds = after.as_millis().max(1);
    for (name, value) in [(RETRY_AFTER, seconds), (RETRY_AFTER_MS, milliseconds)] {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            headers.insert(name, value);
        }
    }
}

/// The request's time is up.
#[must_use]
pub fn too_late() -> Fault {
    Fault::new(ErrorCode::Timeout, "the answer took longer than this endpoint allows")
}

/// The body passes the limit of `limit` bytes.
#[must_use]
pub fn too_large(limit: usize) -> Fault {
    Fault::new(ErrorCode::PayloadTooLarge, format!("The request body exceeds {limit} bytes."))
}

/// A route that is not served.
pub async fn not_found() -> ApiError {
    Fault::new(ErrorCode::NotFound, "Resource not found").into()
}

/// A route that is served by another method; the router adds `Allow`.
pub async fn method_not_allowed(method: http::Method, uri: http::Uri) -> ApiError {
    let message = format!("{method} is not supported on {}.", uri.path());
    Fault::new(ErrorCode::MethodNotAllowed, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::rest::content_filter::{Severity, SeverityResult};
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    async fn rendered(error: ApiError, uri: &str) -> (StatusCode, HeaderMap, Value) {
        let context = Context::of(&uri.parse().unwrap(), Instant::now());
        let response = render(error.into_response(), &context);
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    fn no_json() -> ApiError {
        Fault::unsupported("response_format", json!("json_object"), "not here").into()
    }

    fn blocked() -> ApiError {
        let high = SeverityResult { filtered: true, severity: Severity::High };
        ApiError::blocked(ContentFilterResults { violence: Some(high), ..Default::default() })
    }

    #[tokio::test]
    async fn the_first_version_gets_exactly_its_flat_bodies() {
        let uri = "/chat/completions?api-version=2024-04-01-preview";
        let (status, _, body) = rendered(no_json(), uri).await;
        assert_eq!(status, 422);
        assert_eq!(
            body,
            json!({"status":422,"code":"parameter_not_supported",
                "detail":{"loc":["body","response_format"],"input":"json_object"},
                "message":"One of the parameters contain invalid values."})
        );
        let (status, _, body) = rendered(blocked(), uri).await;
        assert_eq!(status, 400);
        assert_eq!(
            body,
            json!({"status":400,"code":"content_filter","message":"The response was filtered",
                "param":"messages","type":null})
        );
    }

    #[tokio::test]
    async fn later_versions_get_both_shapes_in_one() {
        let (status, headers, body) =
            rendered(no_json(), "/chat/completions?api-version=2024-05-01-preview").await;
        assert_eq!(status, 422);
        assert_eq!(headers["x-ms-error-code"], "parameter_not_supported");
        assert_eq!(body["error"]["code"], "parameter_not_supported");
        assert_eq!(body["detail"], json!({"loc":["body","response_format"],"input":"json_object"}));
        let (_, _, body) =
            rendered(blocked(), "/chat/completions?api-version=2024-05-01-preview").await;
        let found = &body["error"]["innererror"]["content_filter_result"];
        assert_eq!(found["violence"], json!({"filtered": true, "severity": "high"}));
        assert_eq!(body["code"], "content_filter");
    }

    #[tokio::test]
    async fn openai_routes_say_400_and_whether_name_or_value_is_refused() {
        let (status, headers, body) = rendered(no_json(), "/v1/chat/completions").await;
        assert_eq!(status, 400);
        assert_eq!(body["error"]["code"], "unsupported_value");
        assert_eq!(headers["x-ms-error-code"], "unsupported_value");
        let tools = Fault::refused("tools", json!(["f"]), "no tools").into();
        let (_, headers, body) = rendered(tools, "/openai/deployments/d/chat/completions").await;
        assert_eq!(body["error"]["code"], "unsupported_parameter");
        assert_eq!(headers["x-ms-error-code"], "unsupported_parameter");
    }

    #[tokio::test]
    async fn only_retryable_errors_say_when_to_retry() {
        let soon = Fault::new(ErrorCode::Unavailable, "busy")
            .with_retry_after(Duration::from_millis(1500));
        let (_, headers, _) = rendered(soon.into(), "/info").await;
        assert_eq!(
            (&headers["retry-after"], &headers["retry-after-ms"]),
            (&"2".parse().unwrap(), &"1500".parse().unwrap())
        );
        for code in ErrorCode::ALL.into_iter().filter(|c| !c.retryable()) {
            let (_, headers, body) = rendered(Fault::new(code, "x").into(), "/info").await;
            assert!(!headers.contains_key("retry-after"), "{code:?}");
            assert!(body["error"].is_object(), "{code:?}");
        }
    }

    #[test]
    fn an_event_has_an_error_object_in_every_version() {
        for uri in [
            "/chat/completions?api-version=2024-04-01-preview",
            "/v1/chat/completions",
            "/chat/completions",
        ] {
            let context = Context::of(&uri.parse().unwrap(), Instant::now());
            let json: Value = serde_json::from_slice(&event(&too_late(), &context)).unwrap();
            assert_eq!(json["error"]["code"], "GatewayTimeout", "{uri}");
        }
    }
}
