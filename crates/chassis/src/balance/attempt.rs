//! One call of one replica: sent, waited for until the first part of its answer is there, and judged.
//!
//! Separate from the balancer, which decides what follows. The trap: tonic calls a connection that broke by many names, and some of
//! them are also what a service says; a service says it in headers or trailers, never as an error of the body.

use super::{Pending, Replica};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use std::sync::Arc;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

/// What a replica says that drains. It has taken nothing, and another one is asked at once.
pub(crate) const DRAINING: &str = "draining";
/// Says how long to wait before asking again; negative, not to (gRPC, proposal A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The call that proves that a replica is there; any answer does.
const PROOF: &str = "/grpc.health.v1.Health/Check";
/// An empty message as gRPC frames it.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Asks a replica whether it is there.
pub(super) fn proof() -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(Bytes::from_static(&EMPTY_MESSAGE))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(PROOF);
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    request
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is an answer, good or bad.
    Answered,
    /// It refuses: its queue is full, or what it needs itself is not available.
    Busy,
    /// It drains.
    Leaving,
    /// The caller's time is over: the replica may be well, and nobody waits for another one.
    Late,
    /// No connection.
    NotReached,
    /// The connection broke before the first part of the answer.
    Lost,
}

/// One attempt, waited for until the first part of the answer is there.
pub(super) async fn attempt(
    replica: &Arc<Replica>,
    request: Request<Body>,
) -> (Response<Body>, Fate) {
    let pending = Pending::at(replica);
    let sent = async {
        let mut channel = replica.channel.clone();
        channel.ready().await?.call(request).await
    };
    let response = match sent.await {
        Ok(response) => response,
        Err(error) => {
            let fate = fate_of_error(&error);
            let status = match fate {
                Fate::NotReached | Fate::Lost => broke(&error),
                Fate::Answered | Fate::Busy | Fate::Leaving | Fate::Late => {
                    Status::from_error(Box::new(error))
                }
            };
            return (status.into_http(), fate);
        }
    };
    let (head, mut body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return (Response::from_parts(head, body), fate_of(&status));
    }
    let first = body.frame().await;
    let fate = match &first {
        // The connection broke; a status of the service comes in a frame of trailers.
        Some(Err(status)) if lost(status.code()) => Fate::Lost,
        Some(Ok(frame)) => frame
            .trailers_ref()
            .and_then(Status::from_header_map)
            .map_or(Fate::Answered, |status| fate_of(&status)),
        Some(Err(_)) | None => Fate::Answered,
    };
    (Response::from_parts(head, rest(first, body, pending)), fate)
}

/// The body again, whose first frame was taken; `pending` is dropped with it. Where it breaks off, the replica rests, and the
/// status is `Unavailable`: whoever reads it may ask again.
fn rest(first: Option<Result<Frame<Bytes>, Status>>, body: Body, pending: Pending) -> Body {
    let frames = stream::iter(first).chain(body.into_stream());
    let frames = frames.map(move |frame| {
        frame.map_err(|status| {
            if !lost(status.code()) {
                return status;
            }
            pending.0.failed();
            broke(&status)
        })
    });
    Body::new(StreamBody::new(frames))
}

fn fate_of(status: &Status) -> Fate {
    let unavailable = status.code() == Code::Unavailable;
    let pushed_back = status.metadata().get(PUSHBACK).and_then(|value| value.to_str().ok());
    if pushed_back.is_some_and(|value| value.starts_with('-')) {
        // Nor can another one: they would all ask the same upstream.
        Fate::Answered
    } else if unavailable && status.message() == DRAINING {
        Fate::Leaving
    } else if unavailable || status.code() == Code::ResourceExhausted {
        Fate::Busy
    } else {
        Fate::Answered
    }
}

/// Why an attempt has no answer.
fn fate_of_error(error: &tonic::transport::Error) -> Fate {
    if has_cause::<tonic::ConnectError>(error) {
        // The request cannot have arrived: the connection was never made.
        Fate::NotReached
    } else if has_cause::<tonic::TimeoutExpired>(error) {
        Fate::Late
    } else {
        Fate::Lost
    }
}

/// A connection that broke, however tonic calls it: the service cannot be reached, and another attempt may succeed.
fn broke(error: &dyn std::error::Error) -> Status {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    Status::unavailable(format!("no answer from the replica: {}", causes.join(": ")))
}

/// How tonic reports a connection that broke.
const fn lost(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// Whether an error of this type is among the causes of `error`.
fn has_cause<T: std::error::Error + 'static>(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        cause = error.source();
    }
    false
}
