//! The layers around every request, besides authentication: identity, trace, drain, deadline, body size.
//!
//! Separate from the router, which only stacks them. Their errors are faults like any other, which `trace`
//! turns into bytes for all of them.

use crate::context::Context;
use crate::error::{self, ApiError};
use crate::events::{Outcome, Record, Route};
use api_types::{ErrorCode, Fault};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use chassis::telemetry::trace;
use chassis::{Admission, Tasks};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body::{Frame, SizeHint};
use http_body_util::Limited;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument as _;
use tracing::field::Empty;
use uuid::Uuid;

/// Our id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, where Azure's tools look for it.
const APIM_REQUEST_ID: HeaderName = HeaderName::from_static("apim-request-id");
/// The caller's id of a request, the same over retries.
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
/// How an answer came about that the cache may have given.
const CACHE: HeaderName = HeaderName::from_static("x-koine-cache");
/// Where the time of a request went, as browsers and proxies read it.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// A longer id of a caller is not repeated.
const LONGEST_ID: usize = 128;
/// A body of so many bytes comes along with its headers, and hyper takes it off the connection whoever wants it or not.
const READ_ANYWAY: usize = 4096;
/// When to try again while this replica stops; another one answers by then.
const DRAIN_RETRY: Duration = Duration::from_secs(1);

/// Gives the request an id and a deadline, and writes the id on every answer.
pub async fn identify(State(limit): State<Duration>, mut request: Request, next: Next) -> Response {
    let context = Context::of(request.uri(), Instant::now() + limit);
    let ids = Ids::of(request.headers());
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(ids.clone());
    let mut response = next.run(request).await;
    ids.write(response.headers_mut());
    response
}

/// The ids of a request.
#[derive(Debug, Clone)]
struct Ids {
    request: HeaderValue,
    own: HeaderValue,
    client: HeaderValue,
}

impl Ids {
    fn of(headers: &HeaderMap) -> Self {
        let mut buffer = Uuid::encode_buffer();
        let own: &str = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        let own = HeaderValue::from_str(own).unwrap_or_else(|_| HeaderValue::from_static(""));
        let given = |name: &HeaderName| {
            let value = headers.get(name).filter(|v| v.len() <= LONGEST_ID && v.to_str().is_ok());
            value.cloned().unwrap_or_else(|| own.clone())
        };
        Self { request: given(&REQUEST_ID), client: given(&CLIENT_REQUEST_ID), own }
    }

    fn write(self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.request);
        headers.insert(APIM_REQUEST_ID, self.own);
        headers.insert(CLIENT_REQUEST_ID, self.client);
    }
}

/// Opens the span of the request as a child of the caller's, turns faults into bodies, and keeps the record and the admission
/// of the request until the last byte of its answer.
pub async fn trace(mut request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Context>().copied();
    let route = match context {
        Some(Context { dry_run: true, .. }) => Route::DryRun,
        Some(Context { route, .. }) => route,
        None => Route::Unknown,
    };
    let id = request
        .extensions()
        .get::<Ids>()
        .and_then(|ids| ids.request.to_str().ok())
        .unwrap_or_default();
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.name = name(request.method(), route),
        id,
        http.response.status_code = Empty
    );
    trace::continue_trace(&span, request.headers());
    // Not fields, which every line of log would repeat.
    let method = method(request.method()).unwrap_or("_OTHER");
    trace::attribute(&span, "http.request.method", method.to_owned());
    if route != Route::Unknown {
        trace::attribute(&span, "http.route", route.path());
    }
    let record = Arc::new(Record::begin(route, span.clone()));
    request.extensions_mut().insert(Arc::clone(&record));
    let old = request.version() <= Version::HTTP_11;
    let unread = old && may_stay_unread(request.headers());
    let chunked = old && request.headers().contains_key(TRANSFER_ENCODING);
    let mut response = next.run(request).instrument(span).await;
    let admission = response.extensions_mut().remove::<Arc<Admission>>();
    let code = error::code_of(&response);
    let mut response = match context {
        Some(context) => error::render(response, &context),
        None => response,
    };
    if let Some(figures) = record.standing() {
        figures.write(response.headers_mut());
    }
    if let Some(source) = record.source() {
        response.headers_mut().insert(CACHE, HeaderValue::from_static(source.as_str()));
    }
    // Of a request with a length and with chunks hyper believes the chunks and hides the length. Whoever passed it on may have
    // believed the length; what comes next on this connection could then be a stranger's (RFC 9112, section 6.1).
    if chunked || (code.is_some() && unread) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().insert(SERVER_TIMING, record.server_timing());
    record.answered(response.status(), code);
    record.span().record("http.response.status_code", i64::from(response.status().as_u16()));
    if let Some(code) = code.filter(|code| code.http() >= 500) {
        trace::failed(record.span(), code.as_str());
    }
    response.map(|body| Body::new(Held { body, record, admission }))
}

/// The span's name by the conventions: the method, and the route where there is one.
fn name(asked: &Method, route: Route) -> String {
    let method = method(asked).unwrap_or("HTTP");
    if route == Route::Unknown { method.to_owned() } else { format!("{method} {}", route.path()) }
}

/// The method, if it is one that HTTP knows: callers may write anything.
fn method(method: &Method) -> Option<&str> {
    match *method {
        Method::GET
        | Method::POST
        | Method::PATCH
        | Method::DELETE
        | Method::PUT
        | Method::HEAD
        | Method::OPTIONS => Some(method.as_str()),
        _ => None,
    }
}

/// Whether a refusal may leave before the body has been read. The connection then ends with it, and the client must know:
/// otherwise it sends its next request on a connection that is about to close.
fn may_stay_unread(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) => length > READ_ANYWAY,
        None => headers.contains_key(TRANSFER_ENCODING),
    }
}

/// Refuses requests while draining; `trace` keeps the others counted until the last byte of their answer. From leaving on,
/// answers end their connection: whoever keeps connections open finds another edge with the next one.
pub async fn drain(State(tasks): State<Tasks>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = match tasks.admit() {
        Some(admission) => {
            let mut response = next.run(request).await;
            response.extensions_mut().insert(Arc::new(admission));
            response
        }
        None => draining(),
    };
    if tasks.is_leaving() && version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn draining() -> Response {
    let fault = Fault::new(ErrorCode::Unavailable, "this replica is stopping; try again");
    axum::response::IntoResponse::into_response(ApiError::from(fault.with_retry_after(DRAIN_RETRY)))
}

/// Ends requests that have no answer by their deadline; a streamed answer watches its own end (`generation.rs`).
///
/// # Errors
/// 504.
pub async fn deadline(request: Request, next: Next) -> Result<Response, ApiError> {
    let Some(deadline) = request.extensions().get::<Context>().map(|c| c.deadline) else {
        return Ok(next.run(request).await);
    };
    let answer = tokio::time::timeout_at(deadline, next.run(request)).await;
    answer.map_err(|_elapsed| error::too_late().into())
}

/// Refuses bodies over the limit: at once where they say so, else when they pass it (`extract.rs` answers then).
///
/// # Errors
/// 413.
pub async fn body_size(
    State(limit): State<usize>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(error::too_large(limit).into());
    }
    Ok(next.run(request.map(|body| Body::new(Limited::new(body, limit)))).await)
}

/// A body that holds on to the record and the admission of its request until its last byte.
struct Held {
    body: Body,
    record: Arc<Record>,
    #[expect(dead_code, reason = "held for its Drop")]
    admission: Option<Arc<Admission>>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Calls that a streamed answer still makes belong to the request.
        let record = Arc::clone(&self.record);
        let _in_span = record.span().enter();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.body.is_end_stream()) {
            self.record.ended(Outcome::Complete);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // An answer without a body is complete although nobody ever asks it for a frame.
        if http_body::Body::is_end_stream(&self.body) {
            self.record.ended(Outcome::Complete);
        }
    }
}
