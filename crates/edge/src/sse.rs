//! Updates → server-sent events, in the one form that every client reads (contract, section 8.8).
//!
//! `data: ` and one line of JSON, a blank line, at the end `[DONE]`; no comments, no keep-alives, no other fields. An error
//! before the first update is an ordinary JSON error; after it, an error event and then a broken connection, because a clean
//! end would look like success to clients that skip the event.

use crate::error::{self, ApiError};
use crate::events::Outcome;
use crate::extract::Head;
use crate::translate::chat_reply::ended_early;
use api_types::Fault;
use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use std::io;
use std::time::Duration;

/// Most chunks fit.
const EVENT_BYTES: usize = 512;
/// Ends a stream that is complete.
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// Between an error event and the broken connection, so that the event leaves first.
const LAST_WORD: Duration = Duration::from_millis(20);

/// Answers with `updates`, once the first has come.
///
/// # Errors
/// The fault that comes instead of the first update.
pub async fn respond(
    updates: impl Stream<Item = Result<impl Serialize + Send + 'static, Fault>> + Send + 'static,
    head: Head,
) -> Result<Response, ApiError> {
    let mut updates = Box::pin(updates);
    let first = updates.next().await.ok_or_else(ended_early)??;
    head.record.first_piece();
    let first = head.record.serialise(|| event(&first))?;
    let body = Body::from_stream(events(first, updates, head));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, must-revalidate"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn events<T: Serialize + Send + 'static>(
    first: Bytes,
    mut updates: impl Stream<Item = Result<T, Fault>> + Unpin + Send + 'static,
    head: Head,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    async_stream::stream! {
        yield Ok(first);
        while let Some(update) = updates.next().await {
            match update.and_then(|update| event(&update)) {
                Ok(event) => yield Ok(event),
                Err(fault) => {
                    head.record.ended(Outcome::Broken(fault.code));
                    yield Ok(framed(&error::event(&fault, &head.context)));
                    tokio::time::sleep(LAST_WORD).await;
                    yield Err(io::Error::other("the stream broke after its first byte"));
                    return;
                }
            }
        }
        yield Ok(DONE);
    }
}

fn event(update: &impl Serialize) -> Result<Bytes, Fault> {
    let mut out = BytesMut::with_capacity(EVENT_BYTES);
    out.put_slice(b"data: ");
    let written = serde_json::to_writer((&mut out).writer(), update);
    out.put_slice(b"\n\n");
    match written {
        Ok(()) => Ok(out.freeze()),
        Err(cause) => {
            tracing::error!(%cause, "an update could not be written");
            Err(Fault::new(
                api_types::ErrorCode::Internal,
                "the server had an error processing your request",
            ))
        }
    }
}

fn framed(json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + EVENT_BYTES);
    out.put_slice(b"data: ");
    out.put_slice(json);
    out.put_slice(b"\n\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::events::{Record, Route};
    use api_types::ErrorCode;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use tokio::time::Instant;
    use tracing::Span;

    fn head() -> Head {
        let context = Context::of(
            &"/chat/completions?api-version=2024-04-01-preview".parse().unwrap(),
            Instant::now(),
        );
        Head::for_tests(context, Arc::new(Record::begin(Route::ChatCompletions, Span::none())))
    }

    async fn bytes(updates: Vec<Result<Value, Fault>>) -> (Vec<u8>, bool) {
        let response = respond(futures::stream::iter(updates), head()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let mut body = response.into_body();
        let mut out = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => out.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => return (out, true),
            }
        }
        (out, false)
    }

    #[tokio::test]
    async fn events_are_one_line_each_and_end_with_done() {
        let (bytes, broken) =
            bytes(vec![Ok(json!({"text": "a\nb\r\u{2028}"})), Ok(json!({"n": 1}))]).await;
        assert!(!broken);
        let expected =
            "data: {\"text\":\"a\\nb\\r\u{2028}\"}\n\ndata: {\"n\":1}\n\ndata: [DONE]\n\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[tokio::test]
    async fn an_error_after_the_first_byte_is_an_event_and_a_broken_end() {
        let late = Fault::new(ErrorCode::Timeout, "late");
        let (bytes, broken) = bytes(vec![Ok(json!({})), Err(late), Ok(json!({"never": 1}))]).await;
        assert!(broken);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("data: {}\n\ndata: {\"") && text.ends_with("}\n\n"));
        assert!(!text.contains("[DONE]") && !text.contains("never"));
        let event: Value =
            serde_json::from_str(text.trim_end().rsplit_once("data: ").unwrap().1).unwrap();
        assert_eq!(event["error"]["code"], "GatewayTimeout");
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_silence_sends_no_byte() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let updates = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        sender.send(Ok::<_, Fault>(json!({"n": 1}))).await.unwrap();
        let mut body = respond(updates, head()).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.data_ref().unwrap(), "data: {\"n\":1}\n\n");
        let silence = tokio::time::timeout(Duration::from_secs(3600), body.frame()).await;
        assert!(silence.is_err(), "{silence:?}");
        sender.send(Ok(json!({"n": 2}))).await.unwrap();
        let next = body.frame().await.unwrap().unwrap();
        assert_eq!(next.data_ref().unwrap(), "data: {\"n\":2}\n\n");
    }

    #[tokio::test]
    async fn an_error_in_place_of_the_first_update_is_no_stream() {
        let fault = Fault::new(ErrorCode::Unavailable, "busy");
        let error = respond(futures::stream::iter([Err::<Value, _>(fault.clone())]), head())
            .await
            .unwrap_err();
        assert_eq!(error.fault(), &fault);
        assert!(respond(futures::stream::empty::<Result<Value, Fault>>(), head()).await.is_err());
    }
}
