//! The steps of a request through the engine, each a span for those who trace: `prepare`, `queue`, `prefill`, `decode`.
//!
//! Separate because the request goes from thread to thread, and no span is ever entered on its way: a step lasts from the moment
//! it is begun until the next one is.

use crate::backend::Usage;
use chassis::telemetry::trace;
use tracing::{Span, debug_span};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its text becomes tokens.
    Prepare,
    /// It waits for a slot.
    Queue,
    /// The engine reads its prompts.
    Prefill,
    /// The engine writes.
    Decode,
}

/// Where a request is.
#[derive(Debug)]
pub(crate) struct Steps {
    request: Span,
    step: Step,
    span: Span,
}

impl Steps {
    /// A request has come, in the current span.
    pub(crate) fn begin() -> Self {
        let request = Span::current();
        let span = span_of(Step::Prepare, &request);
        Self { request, step: Step::Prepare, span }
    }

    /// The next step begins; nothing happens where it has begun already.
    pub(crate) fn enter(&mut self, step: Step) {
        if self.step != step {
            self.step = step;
            self.span = span_of(step, &self.request);
        }
    }

    /// The last step ends, with so many tokens spent in all of them.
    pub(crate) fn end(&mut self, usage: &Usage) {
        for (key, tokens) in [
            ("koine.prompt_tokens", usage.prompt_tokens),
            ("koine.cached_tokens", usage.cached_tokens),
            ("koine.completion_tokens", usage.completion_tokens),
        ] {
            trace::attribute(&self.span, key, i64::from(tokens));
        }
        self.span = Span::none();
    }
}

fn span_of(step: Step, request: &Span) -> Span {
    match step {
        Step::Prepare => debug_span!(parent: request, "prepare"),
        Step::Queue => debug_span!(parent: request, "queue"),
        Step::Prefill => debug_span!(parent: request, "prefill"),
        Step::Decode => debug_span!(parent: request, "decode"),
    }
}
