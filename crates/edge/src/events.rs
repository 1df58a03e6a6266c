//! Internal events: one struct writes the log line and the metrics of a request.
//!
//! Separate so that a line and its metric never disagree. A `Record` is made when a request comes, is filled on the way, and
//! writes itself when the last byte has left or the client has: dropping it is what ends a request. Label values are enums or
//! names from the deployment table, never text of a caller.

mod door;
mod generation;
mod route;
mod timing;

pub use door::{Queued, TurnedAway, limited, turned_away, uncounted};
pub use generation::{Generation, LONGEST_CONTENT, Operation};
pub use route::Route;
pub use timing::{Step, Timings};

use crate::cache::Source;
use crate::limit::{Figures, Spent, Ticket};
use crate::room::Held;
use api_types::ErrorCode;
use chassis::telemetry::trace;
use http::{HeaderValue, StatusCode};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use timing::milliseconds;
use tracing::{Instrument as _, Span};

/// How a call or a request ends whose caller has gone.
const CANCELLED: &str = "cancelled";

/// Has the counters there before anything is counted: a rate does not see how a series begins. Those with the name of a deployment
/// begin with it.
pub fn count_from_zero() {
    door::count_from_zero();
    for what in [Judged::Prompt, Judged::Reply].map(Judged::as_str) {
        for verdict in [Judgement::Cleared, Judgement::Blocked, Judgement::Unavailable] {
            metrics::counter!("edge_screened_texts_total", "what" => what, "verdict" => verdict.as_str())
                .increment(0);
        }
    }
    metrics::counter!("edge_repeated_answers_total").increment(0);
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The last byte left.
    Complete,
    /// The client went away first.
    Abandoned,
    /// An error after the first byte.
    Broken(ErrorCode),
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Abandoned => "abandoned",
            Self::Broken(_) => "broken",
        }
    }
}

/// What is known of one request.
#[derive(Debug)]
pub struct Record {
    route: Route,
    span: Span,
    began: Instant,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    caller: String,
    deployment: Option<String>,
    status: Option<StatusCode>,
    code: Option<ErrorCode>,
    outcome: Outcome,
    first_piece: Option<Duration>,
    prompt_tokens: u32,
    completion_tokens: u32,
    /// Steps of an answer that were seen while nobody had counted its tokens.
    pieces: u64,
    figures: Option<Figures>,
    ticket: Option<Ticket>,
    source: Option<Source>,
    /// The id of the answer, and whether it is streamed.
    answer: Option<(String, bool)>,
    /// Content safety blocked the prompt, or a part of the reply.
    blocked: bool,
    /// Until the request ends.
    room: Held,
    timings: Timings,
    /// What the request is taken to cost, and at which deployment.
    reserved: Option<(String, f64)>,
}

impl Record {
    /// A request that came just now.
    #[must_use]
    pub fn begin(route: Route, span: Span) -> Self {
        metrics::gauge!("edge_in_flight_requests").increment(1.0);
        let known = Known {
            caller: String::new(),
            deployment: None,
            status: None,
            code: None,
            // Until it is known better: a request that is dropped was abandoned.
            outcome: Outcome::Abandoned,
            first_piece: None,
            prompt_tokens: 0,
            completion_tokens: 0,
            pieces: 0,
            figures: None,
            ticket: None,
            source: None,
            answer: None,
            blocked: false,
            room: Held::default(),
            timings: Timings::default(),
            reserved: None,
        };
        Self { route, span, began: Instant::now(), known: Mutex::new(known) }
    }

    /// Which path the request came by.
    #[must_use]
    pub const fn route(&self) -> Route {
        self.route
    }

    /// The span of the request.
    #[must_use]
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// Notes who calls.
    pub fn caller(&self, name: &str) {
        name.clone_into(&mut self.known().caller);
    }

    /// Notes how the limits of the request stand.
    pub fn figures(&self, figures: Figures) {
        self.known().figures = Some(figures);
    }

    /// How the limits of the request stand; none where nothing is limited.
    #[must_use]
    pub fn standing(&self) -> Option<Figures> {
        self.known().figures
    }

    /// Notes how the answer came about, where it might have come from the cache.
    pub fn cached(&self, source: Source) {
        self.known().source = Some(source);
    }

    /// How the answer came about; none where the cache had no part in it.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        self.known().source
    }

    /// Notes by which id a generated answer goes, and whether it is streamed: for the span of the call that makes it.
    pub fn answers(&self, id: &str, stream: bool) {
        self.known().answer = Some((id.to_owned(), stream));
    }

    fn answer(&self) -> Option<(String, bool)> {
        self.known().answer.clone()
    }

    /// Notes that content safety blocked the prompt, or a part of the reply.
    pub fn blocked(&self) {
        self.known().blocked = true;
    }

    /// Whether content safety blocked something.
    fn is_blocked(&self) -> bool {
        self.known().blocked
    }

    /// Keeps the room that the body takes until the end of the request.
    pub fn hold_room(&self, room: Held) {
        self.known().room = room;
    }

    /// Keeps what the request holds until its end, and settles it then.
    pub fn hold(&self, ticket: Ticket) {
        self.known().ticket = Some(ticket);
    }

    /// Counts what the request is taken to cost among the tokens in flight, until its end.
    pub fn reserve(&self, deployment: &str, tokens: u64) {
        // Exact as far as anybody's limit reaches.
        let tokens = u32::try_from(tokens).map_or(f64::MAX, f64::from);
        metrics::gauge!("edge_in_flight_tokens", "deployment" => deployment.to_owned())
            .increment(tokens);
        self.known().reserved = Some((deployment.to_owned(), tokens));
    }

    /// Does a step of the request, and notes how long it took.
    pub async fn timed<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.instrument(step.span()).await;
        self.took(step, began.elapsed());
        done
    }

    /// Writes an answer, and notes how long that took.
    pub fn serialise<T>(&self, write: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let written = write();
        self.took(Step::Serialise, began.elapsed());
        written
    }

    /// Notes that a step took so long.
    pub fn took(&self, step: Step, time: Duration) {
        self.known().timings.add(step, time);
    }

    /// Notes that the model's service had the request wait so long.
    pub fn queued(&self, time: Duration) {
        if !time.is_zero() {
            self.took(Step::Queue, time);
        }
    }

    /// Notes that the call of the model's service took so long, its queue included.
    pub fn called(&self, time: Duration) {
        self.known().timings.called(time);
    }

    /// Notes that a step has taken so long by now.
    pub fn has_taken(&self, step: Step, time: Duration) {
        self.known().timings.set(step, time);
    }

    /// Where the time went, as `Server-Timing` says it.
    #[must_use]
    pub fn server_timing(&self) -> HeaderValue {
        self.known().timings.header(self.began.elapsed())
    }

    /// Notes that a step of an answer came.
    pub fn piece(&self) {
        self.known().pieces += 1;
    }

    /// Notes which deployment answers; `name` must come from the table.
    pub fn deployment(&self, name: &str) {
        self.known().deployment = Some(name.to_owned());
    }

    /// Notes the status of the answer, and the error behind it.
    pub fn answered(&self, status: StatusCode, code: Option<ErrorCode>) {
        let mut known = self.known();
        known.status = Some(status);
        known.code = code;
    }

    /// Notes that the first piece of an answer came.
    pub fn first_piece(&self) {
        let elapsed = self.began.elapsed();
        self.known().first_piece.get_or_insert(elapsed);
    }

    /// Notes the tokens spent.
    pub fn tokens(&self, prompt: u32, completion: u32) {
        let mut known = self.known();
        known.prompt_tokens = prompt;
        known.completion_tokens = completion;
    }

    /// Notes how it ended; the first word counts.
    pub fn ended(&self, outcome: Outcome) {
        let mut known = self.known();
        if known.outcome == Outcome::Abandoned {
            known.outcome = outcome;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds this lock can panic half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        metrics::gauge!("edge_in_flight_requests").decrement(1.0);
        let seconds = self.began.elapsed();
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _in_span = self.span.enter();
        known.emit(self.route, seconds);
        match known.outcome {
            Outcome::Complete => {}
            Outcome::Abandoned => trace::cut_short(&self.span, CANCELLED),
            Outcome::Broken(code) => trace::failed(&self.span, code.as_str()),
        }
        if let Some((deployment, tokens)) = known.reserved.take() {
            metrics::gauge!("edge_in_flight_tokens", "deployment" => deployment).decrement(tokens);
        }
        if let Some(ticket) = known.ticket.take() {
            ticket.settle(known.spent());
        }
    }
}

impl Known {
    /// What the request costs its caller: what the model counted; of an answer that the caller did not wait for, what was seen
    /// of it; of one that failed, nothing.
    fn spent(&self) -> Spent {
        let tokens = u64::from(self.prompt_tokens) + u64::from(self.completion_tokens);
        let status = self.status.map_or(200, |status| status.as_u16());
        let broken = matches!(self.outcome, Outcome::Broken(_));
        if tokens > 0 {
            Spent::Tokens(tokens)
        } else if broken || status >= 500 || status == 429 {
            Spent::Nothing
        } else if status >= 400 {
            Spent::NoTokens
        } else if self.outcome == Outcome::Abandoned {
            Spent::Pieces(self.pieces)
        } else {
            Spent::Reserved
        }
    }

    /// Tokens of the answer: what the model counted; of an answer that ended before it did, the steps that were seen, each about a
    /// token.
    fn completion_tokens(&self) -> u32 {
        let counted = self.prompt_tokens > 0 || self.completion_tokens > 0;
        let seen = || u32::try_from(self.pieces).unwrap_or(u32::MAX);
        if counted { self.completion_tokens } else { seen() }
    }

    fn emit(&self, route: Route, elapsed: Duration) {
        let completion_tokens = self.completion_tokens();
        let deployment = self.deployment.clone().unwrap_or_default();
        let status = self.status.map_or(0, |s| s.as_u16());
        let (route, outcome) = (route.as_str(), self.outcome.as_str());
        metrics::counter!("edge_requests_total", "route" => route, "deployment" => deployment.clone(),
            "status" => status.to_string(), "outcome" => outcome)
        .increment(1);
        metrics::histogram!("edge_request_seconds", "route" => route).record(elapsed.as_secs_f64());
        if let Some(first) = self.first_piece {
            metrics::histogram!("edge_first_token_seconds", "route" => route, "deployment" => deployment.clone())
                .record(first.as_secs_f64());
        }
        for (kind, tokens) in [("prompt", self.prompt_tokens), ("completion", completion_tokens)] {
            if tokens > 0 {
                metrics::counter!("edge_tokens_total", "deployment" => deployment.clone(), "kind" => kind)
                    .increment(u64::from(tokens));
            }
        }
        let code = match self.outcome {
            Outcome::Broken(code) => Some(code),
            Outcome::Complete | Outcome::Abandoned => self.code,
        };
        tracing::info!(
            route,
            caller = self.caller,
            deployment,
            status,
            outcome,
            code = code.map_or("", ErrorCode::as_str),
            prompt_tokens = self.prompt_tokens,
            completion_tokens,
            first_piece_ms = self.first_piece.map(milliseconds),
            duration_ms = milliseconds(elapsed),
            "request"
        );
    }
}

/// An answer that the cache had a part in; both are names of enums.
pub fn cached(what: &'static str, source: &'static str) {
    metrics::counter!("edge_cache_answers_total", "what" => what, "source" => source).increment(1);
}

/// A deployment whose model could not answer, and the one that did in its place.
pub fn fell_back(deployment: &str, fallback: &str, code: ErrorCode) {
    metrics::counter!("edge_fallbacks_total", "deployment" => deployment.to_owned(),
        "fallback" => fallback.to_owned())
    .increment(1);
    tracing::warn!(deployment, fallback, code = code.as_str(), "another deployment answers");
}

/// What a judgement of content safety came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing to object to.
    Cleared,
    /// The policy blocked it.
    Blocked,
    /// No answer from the service.
    Unavailable,
}

impl Judgement {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Blocked => "blocked",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Which text was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// What goes into a model.
    Prompt,
    /// What comes out.
    Reply,
}

impl Judged {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Reply => "reply",
        }
    }
}

/// Counts one judgement of content safety.
pub fn screened(judged: Judged, judgement: Judgement, took: Duration) {
    let (what, verdict) = (judged.as_str(), judgement.as_str());
    metrics::counter!("edge_screened_texts_total", "what" => what, "verdict" => verdict)
        .increment(1);
    metrics::histogram!("edge_screening_seconds", "what" => what).record(took.as_secs_f64());
}

/// Counts one answer that was asked for again, because its replica died before any of it had left.
pub fn repeated() {
    metrics::counter!("edge_repeated_answers_total").increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_nobody_waited_for_has_the_tokens_that_were_seen() {
        let record = Record::begin(Route::ChatCompletions, Span::none());
        (0..3).for_each(|_| record.piece());
        assert_eq!(record.known().completion_tokens(), 3);
        record.tokens(7, 2);
        assert_eq!(record.known().completion_tokens(), 2, "what was counted counts");
    }

    #[test]
    fn the_first_ending_counts() {
        let record = Record::begin(Route::Info, Span::none());
        record.ended(Outcome::Broken(ErrorCode::Timeout));
        record.ended(Outcome::Complete);
        assert_eq!(record.known().outcome, Outcome::Broken(ErrorCode::Timeout));
    }
}
