//! What surrounds every call at the door: its span, its count while the service drains, its end.
//!
//! Separate from the door, which only stacks it. A call lasts until the last byte of its answer: so long it is counted, and so
//! long its span is open and current, whoever polls the answer.

use crate::balance::DRAINING;
use crate::tasks::{Admission, Tasks};
use crate::telemetry::trace;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Span;

/// Paths that are not traced: probes and tools, not requests.
const UNTRACED: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];
/// What the edge asks every service all the time, on behalf of nobody: traced where a caller began the trace.
const POLLED: &str = "/ListModels";

/// The span of a call, a child of the caller's.
pub(super) fn span(request: &http::Request<()>) -> Span {
    let path = request.uri().path();
    let polled = path.ends_with(POLLED) && !trace::is_continued(request.headers());
    if polled || UNTRACED.iter().any(|prefix| path.starts_with(prefix)) {
        return Span::none();
    }
    let name = path.trim_start_matches('/');
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    let span = tracing::info_span!(
        "grpc",
        otel.name = name,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method
    );
    trace::continue_trace(&span, request.headers());
    span
}

/// Refuses calls while draining, and keeps the others counted until the last byte of their answer.
#[derive(Debug, Clone)]
pub(super) struct DrainLayer {
    pub(super) tasks: Tasks,
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;
    fn layer(&self, inner: S) -> Drain<S> {
        Drain { inner, tasks: self.tasks.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Drain<S> {
    inner: S,
    tasks: Tasks,
}

impl<S, B> Service<http::Request<B>> for Drain<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // Health answers until the end: "not serving" is an answer too.
        if request.uri().path().starts_with("/grpc.health.") {
            return Box::pin(self.inner.call(request));
        }
        let Some(admission) = self.tasks.admit() else {
            return Box::pin(async { Ok(Status::unavailable(DRAINING).into_http()) });
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // Polled within the span that the door opened.
            let span = Span::current();
            let ended = conclude(&span, response.headers());
            Ok(response.map(|body| Body::new(Answer { body, span, ended, _admission: admission })))
        })
    }
}

/// Writes the status in `headers` on `span`; whether there is one.
fn conclude(span: &Span, headers: &HeaderMap) -> bool {
    let Some(status) = Status::from_header_map(headers) else { return false };
    let code = status.code();
    trace::attribute(span, "rpc.grpc.status_code", i64::from(i32::from(code)));
    if let Some(kind) = failure(code) {
        trace::failed(span, kind);
    }
    true
}

/// The codes that are failures of the service and not of its caller, by OpenTelemetry's conventions for gRPC.
const fn failure(code: Code) -> Option<&'static str> {
    match code {
        Code::Unknown => Some("UNKNOWN"),
        Code::DeadlineExceeded => Some("DEADLINE_EXCEEDED"),
        Code::Unimplemented => Some("UNIMPLEMENTED"),
        Code::Internal => Some("INTERNAL"),
        Code::Unavailable => Some("UNAVAILABLE"),
        Code::DataLoss => Some("DATA_LOSS"),
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => None,
    }
}

/// An answer on its way; dropping it before its status came says that the caller has gone.
struct Answer {
    body: Body,
    span: Span,
    ended: bool,
    _admission: Admission,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.span.clone();
        let _in_span = span.enter();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.ended = conclude(&span, trailers);
                }
            }
            Some(Err(_)) | None => self.ended = true,
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

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            trace::attribute(
                &self.span,
                "rpc.grpc.status_code",
                i64::from(i32::from(Code::Cancelled)),
            );
        }
    }
}
