//! The events of a streamed answer, each a JSON value.
//!
//! Separate because reading goes on long after the request was sent. Dropping `Events` closes the connection, which every
//! server takes as a cancellation. A server that answers a stream's request with one JSON document yields that one.

use crate::client::Timeouts;
use crate::error::{Refusal, UpstreamError, WaitingFor};
use crate::sse::{Event, Parser};
use bytes::Bytes;
use futures::Stream;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Largest answer that is not a stream: 1,024 vectors of 4,096 numbers written out have 90 MB.
const LARGEST_BODY: usize = 128 * 1024 * 1024;
/// Largest error answer that is read.
const LARGEST_ERROR: usize = 64 * 1024;
/// How long the end of the body may take after `[DONE]`; most servers send both at once.
const DRAIN: Duration = Duration::from_millis(50);
/// What ends a stream.
const DONE: &[u8] = b"[DONE]";

/// The body of an answer, with its clock.
#[derive(Debug)]
pub(crate) struct Body {
    response: Response,
    endpoint: String,
    between_bytes: Duration,
    /// When the next bytes must be here, and what they are.
    due: Instant,
    waited: Duration,
    waiting_for: WaitingFor,
}

impl Body {
    /// The body of `response`, to a request sent at `sent`.
    pub(crate) fn new(
        response: Response,
        endpoint: &str,
        timeouts: Timeouts,
        sent: Instant,
    ) -> Self {
        Self {
            response,
            endpoint: endpoint.to_owned(),
            between_bytes: timeouts.between_bytes,
            due: sent + timeouts.first_byte,
            waited: timeouts.first_byte,
            waiting_for: WaitingFor::FirstByte,
        }
    }

    fn is_json(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.trim_start().starts_with("application/json"))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Ok(read) = timeout_at(self.due, self.response.chunk()).await else {
            return Err(UpstreamError::Timeout {
                endpoint: self.endpoint.clone(),
                waiting_for: self.waiting_for,
                after: self.waited,
            });
        };
        self.due = Instant::now() + self.between_bytes;
        self.waited = self.between_bytes;
        self.waiting_for = WaitingFor::NextByte;
        read.map_err(|cause| {
            UpstreamError::broken(&self.endpoint, crate::client::causes(&cause.without_url()))
        })
    }

    /// Everything, as JSON.
    pub(crate) async fn json(mut self) -> Result<Value, UpstreamError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > LARGEST_BODY {
                let reason = format!("the answer is larger than {LARGEST_BODY} bytes");
                return Err(UpstreamError::broken(&self.endpoint, reason));
            }
            whole.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&whole).map_err(|cause| {
            UpstreamError::broken(&self.endpoint, format!("the answer is not JSON: {cause}"))
        })
    }

    /// What an answer with an error status says. Whatever cannot be read says nothing.
    pub(crate) async fn refusal(mut self) -> UpstreamError {
        let mut whole = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            whole.extend_from_slice(&chunk);
            if whole.len() > LARGEST_ERROR {
                break;
            }
        }
        let status = self.response.status().as_u16();
        let refusal = Refusal::read(status, self.response.headers(), &whole);
        UpstreamError::Refused { endpoint: self.endpoint, refusal: Box::new(refusal) }
    }
}

/// The events of one answer. The first has been read already, so that an answer which fails at once can be asked for
/// elsewhere.
#[derive(Debug)]
pub struct Events {
    first: Option<Value>,
    rest: Reader,
}

#[derive(Debug)]
struct Reader {
    /// None when everything was read.
    body: Option<Body>,
    endpoint: String,
    parser: Parser,
}

impl Events {
    /// Reads up to the first event.
    pub(crate) async fn begin(body: Body) -> Result<Self, UpstreamError> {
        let endpoint = body.endpoint.clone();
        if body.is_json() {
            let whole = body.json().await?;
            let first = Some(checked(whole, &endpoint)?);
            return Ok(Self {
                first,
                rest: Reader { body: None, endpoint, parser: Parser::default() },
            });
        }
        let mut rest = Reader { body: Some(body), endpoint, parser: Parser::default() };
        let Some(first) = rest.next().await? else {
            return Err(UpstreamError::broken(&rest.endpoint, "the stream has no events"));
        };
        Ok(Self { first: Some(first), rest })
    }

    /// Host and port of the server that answers.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.rest.endpoint
    }

    /// The next event; none at the end, with or without `[DONE]`: whether the answer is whole shows in its events alone.
    ///
    /// # Errors
    /// A timeout, a broken connection, an event that is not JSON, or an error that the server put into the stream.
    pub async fn next(&mut self) -> Result<Option<Value>, UpstreamError> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.rest.next().await,
        }
    }

    /// The events as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Value, UpstreamError>> + Send {
        futures::stream::unfold(Some(self), async |events| {
            let mut events = events?;
            match events.next().await {
                Ok(event) => event.map(|event| (Ok(event), Some(events))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Value>, UpstreamError> {
        loop {
            if let Some(event) = self.parser.next() {
                return self.read(event).await;
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            let parsed = match body.chunk().await? {
                Some(bytes) => self.parser.push(&bytes),
                None => {
                    self.body = None;
                    self.parser.finish()
                }
            };
            parsed.map_err(|_| UpstreamError::broken(&self.endpoint, "an event is too large"))?;
        }
    }

    async fn read(&mut self, event: Event) -> Result<Option<Value>, UpstreamError> {
        let (data, is_error) = match event {
            Event::Data(data) => (data, false),
            Event::Error(data) => (data, true),
        };
        if data.trim_ascii() == DONE {
            self.parser = Parser::default();
            if let Some(mut body) = self.body.take() {
                let drained = async { while let Ok(Some(_)) = body.chunk().await {} };
                // A connection that is not at its end is closed, which costs the next request a new one.
                let _at_end = timeout(DRAIN, drained).await;
            }
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(&data).map_err(|cause| {
            UpstreamError::broken(&self.endpoint, format!("an event is not JSON: {cause}"))
        })?;
        let value = if is_error { serde_json::json!({ "error": value }) } else { value };
        checked(value, &self.endpoint).map(Some)
    }
}

/// An event, unless it is an error.
fn checked(event: Value, endpoint: &str) -> Result<Value, UpstreamError> {
    match Refusal::in_event(&event) {
        Some(refusal) => {
            let endpoint = endpoint.to_owned();
            Err(UpstreamError::Refused { endpoint, refusal: Box::new(refusal) })
        }
        None => Ok(event),
    }
}
