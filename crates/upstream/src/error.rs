//! What can go wrong with a model server, told apart by what its caller should do about it.
//!
//! Separate so that the services can translate each case to a code of theirs. An endpoint is named by host and port alone;
//! neither keys nor full URLs appear. The server's own words are kept for the client who sent the request, not for a log:
//! they may repeat the prompt.

use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// Longest message of a server that is kept, in characters.
const LONGEST_MESSAGE: usize = 2000;
/// Longest code or field name that is kept, in characters.
const LONGEST_NAME: usize = 200;
/// Longer waits than this are cut: a client should ask again, not hang.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// An error of, or on the way to, a model server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// No connection: refused, no such name, TLS.
    #[error("cannot connect to `{endpoint}`: {reason}")]
    Connect {
        /// Host and port.
        endpoint: String,
        /// Why, without a URL.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("`{endpoint}` sent nothing for {} ms while {waiting_for} was due", after.as_millis())]
    Timeout {
        /// Host and port.
        endpoint: String,
        /// What was due.
        waiting_for: WaitingFor,
        /// How long nothing came.
        after: Duration,
    },
    /// The server answered that it will not.
    #[error("`{endpoint}` answered with status {}: {}", refusal.status, refusal.message)]
    Refused {
        /// Host and port.
        endpoint: String,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// The answer ended early or makes no sense.
    #[error("`{endpoint}` broke off its answer: {reason}")]
    Broken {
        /// Host and port.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// Every endpoint failed so often lately that none is tried.
    #[error("no endpoint is healthy; the next attempt is in {} ms", retry_after.as_millis())]
    Unhealthy {
        /// When the first of them is tried again.
        retry_after: Duration,
    },
}

/// What was due when nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingFor {
    /// A connection.
    Connection,
    /// The first byte of an answer.
    FirstByte,
    /// The next byte of an answer.
    NextByte,
}

impl std::fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connection => "a connection",
            Self::FirstByte => "the first byte",
            Self::NextByte => "the next byte",
        })
    }
}

/// What a server said when it refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status; for an error inside a stream, the one it names, or 500.
    pub status: u16,
    /// Its own words; empty when it said nothing readable.
    pub message: String,
    /// Its code, for example `context_length_exceeded`.
    pub code: Option<String>,
    /// The offending field.
    pub param: Option<String>,
    /// When to try again, at most a minute.
    pub retry_after: Option<Duration>,
}

impl UpstreamError {
    /// Every word of `kind` that a call may end with.
    pub const KINDS: [&str; 5] = ["connect", "timeout", "refused", "broken", "unhealthy"];

    /// The case as a word, for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::Refused { .. } => "refused",
            Self::Broken { .. } => "broken",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }

    /// The error without the server's own words, fit for a log.
    #[must_use]
    pub fn for_log(&self) -> String {
        match self {
            Self::Refused { endpoint, refusal } => {
                let code = refusal.code.as_deref().unwrap_or("none");
                format!("`{endpoint}` answered with status {}, code `{code}`", refusal.status)
            }
            Self::Config(_)
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Unhealthy { .. } => self.to_string(),
        }
    }

    /// Whether the endpoint itself is at fault, rather than the request or a quota.
    #[must_use]
    pub fn blames_endpoint(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::Refused { refusal, .. } => refusal.status >= 500,
            Self::Config(_) | Self::Unhealthy { .. } => false,
        }
    }

    /// Whether another attempt may do better. A server that kept us waiting is not asked twice: the client has waited long
    /// enough.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } => true,
            Self::Timeout { waiting_for, .. } => *waiting_for == WaitingFor::Connection,
            Self::Refused { refusal, .. } => matches!(refusal.status, 429 | 500 | 502..=504 | 529),
            Self::Config(_) | Self::Unhealthy { .. } => false,
        }
    }

    pub(crate) fn broken(endpoint: &str, reason: impl Into<String>) -> Self {
        Self::Broken { endpoint: endpoint.to_owned(), reason: reason.into() }
    }
}

impl Refusal {
    /// Reads an error answer. Servers disagree on its shape: OpenAI's object, a string under `error` (TGI, Ollama), the
    /// object itself (older vLLM), `detail` (FastAPI).
    pub(crate) fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        Self { retry_after: retry_after(headers), ..Self::from_json(&body, status) }
    }

    /// The error in an event of a stream, if it is one.
    pub(crate) fn in_event(event: &Value) -> Option<Self> {
        let is_error = event.get("error").is_some_and(|error| !error.is_null())
            || event.get("object").and_then(Value::as_str) == Some("error");
        is_error.then(|| {
            let error = event.get("error").unwrap_or(event);
            let named = ["code", "status", "http_status_code"]
                .iter()
                .find_map(|name| error.get(*name).and_then(Value::as_u64));
            let status = named.and_then(|status| u16::try_from(status).ok());
            let is_status = |status: &u16| (400..600).contains(status);
            Self::from_json(event, status.filter(is_status).unwrap_or(500))
        })
    }

    fn from_json(body: &Value, status: u16) -> Self {
        let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let message = error
            .as_str()
            .or_else(|| text("message"))
            .or_else(|| text("detail"))
            .or_else(|| body.get("message").and_then(Value::as_str));
        let code = text("code").or_else(|| text("type")).or_else(|| text("error_type"));
        let cut = |text: &str, longest| text.chars().take(longest).collect::<String>();
        Self {
            status,
            message: cut(message.unwrap_or_default(), LONGEST_MESSAGE),
            code: code.map(|code| cut(code, LONGEST_NAME)),
            param: text("param").map(|name| cut(name, LONGEST_NAME)),
            retry_after: None,
        }
    }
}

/// `retry-after-ms`, or `retry-after` in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| {
        let seconds = headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok()?;
        (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
    };
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"));
    let longest = LONGEST_RETRY_AFTER.as_secs_f64();
    seconds.map(|seconds| Duration::from_secs_f64(seconds.min(longest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Refusal {
        Refusal::read(400, &HeaderMap::new(), body.to_string().as_bytes())
    }

    #[test]
    fn the_words_of_every_kind_of_server_are_found() {
        for body in [
            json!({"error": {"message": "too long", "type": "invalid", "code": null}}),
            json!({"error": "too long", "error_type": "validation"}),
            json!({"object": "error", "message": "too long", "code": 400}),
            json!({"detail": "too long"}),
            json!({"error": null, "message": "too long"}),
        ] {
            assert_eq!(read(&body).message, "too long", "{body}");
        }
        assert_eq!(
            read(&json!({"error": {"code": "context_length_exceeded"}})).code.as_deref(),
            Some("context_length_exceeded")
        );
        assert_eq!(Refusal::read(502, &HeaderMap::new(), b"<html>bad gateway</html>").message, "");
    }

    #[test]
    fn a_long_message_is_cut() {
        let body = json!({"error": {"message": "ä".repeat(10_000)}});
        assert_eq!(read(&body).message.chars().count(), LONGEST_MESSAGE);
    }

    #[test]
    fn the_time_to_wait_is_read_and_bounded() {
        let after = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                reqwest::header::HeaderName::from_static(name),
                reqwest::header::HeaderValue::from_static(value),
            )]);
            Refusal::read(429, &headers, b"{}").retry_after
        };
        assert_eq!(after("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(after("retry-after-ms", "1500"), Some(Duration::from_millis(1500)));
        assert_eq!(after("retry-after", "86400"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(after("retry-after", "-1"), None);
        assert_eq!(after("retry-after", "inf"), None);
        assert_eq!(after("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn an_error_event_keeps_the_status_it_names() {
        let refusal = Refusal::in_event(&json!({"error": {"message": "m", "code": 400}})).unwrap();
        assert_eq!((refusal.status, refusal.message.as_str()), (400, "m"));
        let refusal = Refusal::in_event(&json!({"error": {"message": "m", "code": "x"}})).unwrap();
        assert_eq!((refusal.status, refusal.code.as_deref()), (500, Some("x")));
        assert_eq!(Refusal::in_event(&json!({"choices": [], "error": null})), None);
    }
}
