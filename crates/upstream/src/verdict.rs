//! What an error of a model server means for the client whose request met it.
//!
//! Separate from the errors themselves: chat and embedding both answer by it, each with a code of its own API.

use crate::error::{Refusal, UpstreamError};
use std::time::Duration;

/// Words in refusals of prompts that are too long; only OpenAI has a code for it.
const TOO_LONG: &[&str] = &["context length", "context_length", "context window", "context size"];
/// When to try again if the server does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// What an error means for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request is wrong, by the server's own words.
    BadRequest,
    /// The prompt does not fit the model.
    TooLong,
    /// The server's filter blocked the prompt.
    Filtered,
    /// The server does not accept our key: the operator's business, not the client's.
    KeyRefused,
    /// The server does not know the model.
    UnknownModel,
    /// Too many requests; try again after this long.
    RateLimited(Duration),
    /// Not reachable, not healthy or over capacity; try again after this long.
    Unavailable(Duration),
    /// The server failed.
    Failed,
    /// The server did not answer in time.
    Late,
}

impl UpstreamError {
    /// What this error means for the client.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Refused { refusal, .. } => refusal.verdict(),
            Self::Timeout { .. } => Verdict::Late,
            Self::Connect { .. } => Verdict::Unavailable(DEFAULT_WAIT),
            Self::Unhealthy { retry_after } => Verdict::Unavailable(*retry_after),
            Self::Config(_) | Self::Broken { .. } => Verdict::Failed,
        }
    }

    /// What the client may read: the server's words where they explain a bad request, ours otherwise. The latter name the
    /// model and nothing of the server.
    #[must_use]
    pub fn for_client(&self, model: &str) -> String {
        let words = self.refusal().map(|refusal| refusal.message.as_str()).unwrap_or_default();
        let own = |text: &str| format!("the server behind `{model}` {text}");
        let theirs = |text: &str| if words.is_empty() { own(text) } else { words.to_owned() };
        match self.verdict() {
            Verdict::BadRequest => theirs("refused the request"),
            Verdict::TooLong => theirs("takes no prompt of this length"),
            Verdict::Filtered => theirs("blocked the prompt"),
            Verdict::KeyRefused => own("refused the credentials of this service"),
            Verdict::UnknownModel => own("does not know the model"),
            Verdict::RateLimited(after) => {
                let seconds = after.as_secs_f64().ceil();
                own(&format!("is over its rate limit; please retry after {seconds} seconds"))
            }
            Verdict::Unavailable(_) => own("is not reachable or over capacity; try again later"),
            Verdict::Failed => own(&format!("failed ({})", self.kind())),
            Verdict::Late => own("did not answer in time"),
        }
    }

    /// The field of the request that the server blames.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.refusal()?.param.as_deref()
    }

    /// What the server said, if it said anything.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Config(_)
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Unhealthy { .. } => None,
        }
    }
}

impl Refusal {
    fn verdict(&self) -> Verdict {
        let wait = self.retry_after.unwrap_or(DEFAULT_WAIT);
        match self.status {
            400 | 413 | 422 if self.is_about_length() => Verdict::TooLong,
            400 if self.code.as_deref() == Some("content_filter") => Verdict::Filtered,
            400 | 409 | 413 | 415 | 422 => Verdict::BadRequest,
            401 | 403 => Verdict::KeyRefused,
            404 => Verdict::UnknownModel,
            408 | 504 => Verdict::Late,
            429 => Verdict::RateLimited(wait),
            503 | 529 => Verdict::Unavailable(wait),
            _ => Verdict::Failed,
        }
    }

    fn is_about_length(&self) -> bool {
        let message = self.message.to_lowercase();
        self.code.as_deref() == Some("context_length_exceeded")
            || TOO_LONG.iter().any(|words| message.contains(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, code: &str, message: &str) -> Verdict {
        let refusal = Refusal {
            status,
            message: message.to_owned(),
            code: Some(code.to_owned()),
            ..Refusal::default()
        };
        UpstreamError::Refused { endpoint: "a:1".to_owned(), refusal: Box::new(refusal) }.verdict()
    }

    #[test]
    fn a_prompt_that_is_too_long_is_known_by_code_or_words() {
        for (code, message) in [
            ("context_length_exceeded", ""),
            ("400", "This model's maximum context length is 4096 tokens."),
            ("exceed_context_size_error", "the request exceeds the available context size"),
        ] {
            assert_eq!(verdict(400, code, message), Verdict::TooLong);
        }
        assert_eq!(verdict(400, "x", "bad seed"), Verdict::BadRequest);
    }

    #[test]
    fn clients_read_the_servers_words_only_about_their_own_request() {
        for (status, shown) in [(400, true), (422, true), (401, false), (404, false), (500, false)]
        {
            let refusal = Refusal { status, message: "words".to_owned(), ..Refusal::default() };
            let error =
                UpstreamError::Refused { endpoint: "a:1".to_owned(), refusal: Box::new(refusal) };
            let text = error.for_client("m");
            assert_eq!(text == "words", shown, "{text}");
            assert_eq!(text.contains("`m`"), !shown, "{text}");
            assert!(!text.contains("a:1"), "{text}");
        }
    }

    #[test]
    fn every_status_means_something() {
        assert_eq!(verdict(400, "content_filter", ""), Verdict::Filtered);
        assert_eq!(verdict(401, "", ""), Verdict::KeyRefused);
        assert_eq!(verdict(403, "", ""), Verdict::KeyRefused);
        assert_eq!(verdict(404, "", ""), Verdict::UnknownModel);
        assert_eq!(verdict(422, "", ""), Verdict::BadRequest);
        assert_eq!(verdict(429, "", ""), Verdict::RateLimited(DEFAULT_WAIT));
        assert_eq!(verdict(500, "", ""), Verdict::Failed);
        assert_eq!(verdict(503, "", ""), Verdict::Unavailable(DEFAULT_WAIT));
        assert_eq!(verdict(307, "", ""), Verdict::Failed);
    }
}
