//! Where the time of a request goes: the steps of `Server-Timing`, and a span for each.
//!
//! Separate from the record, which only keeps them. Steps may run beside each other (content safety judges while the model
//! works), so they do not add up to the whole.

use http::HeaderValue;
use std::fmt::Write as _;
use std::time::Duration;
use tracing::Span;

/// A step of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Finding out who calls.
    Auth,
    /// Taking from the limits, with the wait for a slot of the deployment.
    Limit,
    /// The judgement of the prompt.
    SafetyIn,
    /// From the call of the model's service until it begins: its queue, and of a generation reading the prompt.
    Queue,
    /// From there until the model's last piece; where an answer is streamed, what had passed when its headers left.
    Model,
    /// The judgement of the reply; where an answer is streamed, of its first part.
    SafetyOut,
    /// Writing the answer; where it is streamed, its first event.
    Serialise,
}

impl Step {
    /// In the order of `Server-Timing`.
    pub const ALL: [Self; 7] = [
        Self::Auth,
        Self::Limit,
        Self::SafetyIn,
        Self::Queue,
        Self::Model,
        Self::SafetyOut,
        Self::Serialise,
    ];

    /// Its name in `Server-Timing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Limit => "limit",
            Self::SafetyIn => "safety_in",
            Self::Queue => "queue",
            Self::Model => "model",
            Self::SafetyOut => "safety_out",
            Self::Serialise => "serialise",
        }
    }

    /// A span of the same name, for those who trace. Judging is a call of content safety, which graphs of services want to know.
    #[must_use]
    pub fn span(self) -> Span {
        let kind = match self {
            Self::SafetyIn | Self::SafetyOut => "client",
            Self::Auth | Self::Limit | Self::Queue | Self::Model | Self::Serialise => "internal",
        };
        tracing::debug_span!("step", otel.name = self.as_str(), otel.kind = kind)
    }
}

/// How long the steps of a request took, as far as is known.
#[derive(Debug, Default)]
pub struct Timings {
    took: [Option<Duration>; Step::ALL.len()],
}

impl Timings {
    /// Notes that a step took so long; a step that comes again takes longer.
    pub fn add(&mut self, step: Step, time: Duration) {
        let slot = self.slot(step);
        *slot = Some(slot.unwrap_or_default().saturating_add(time));
    }

    /// Notes a call of the model that took so long, of which the time in its queue is known already.
    pub fn called(&mut self, time: Duration) {
        let queued = self.slot(Step::Queue).unwrap_or_default();
        self.add(Step::Model, time.saturating_sub(queued));
    }

    /// Notes that a step has taken so long by now.
    pub fn set(&mut self, step: Step, time: Duration) {
        *self.slot(step) = Some(time);
    }

    /// The value of `Server-Timing`: milliseconds of each step that took place, and of the whole.
    #[must_use]
    pub fn header(&self, total: Duration) -> HeaderValue {
        let mut text = String::with_capacity(160);
        for (step, time) in Step::ALL.iter().zip(self.took) {
            if let Some(time) = time {
                // Writing to a String cannot fail.
                let _written = write!(text, "{};dur={:.3}, ", step.as_str(), milliseconds(time));
            }
        }
        let _written = write!(text, "total;dur={:.3}", milliseconds(total));
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("total"))
    }

    const fn slot(&mut self, step: Step) -> &mut Option<Duration> {
        &mut self.took[step as usize]
    }
}

/// In milliseconds.
#[must_use]
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_steps_that_took_place_in_their_order() {
        let mut timings = Timings::default();
        timings.add(Step::SafetyOut, Duration::from_millis(2));
        timings.add(Step::SafetyOut, Duration::from_millis(3));
        timings.set(Step::Auth, Duration::from_micros(1500));
        timings.add(Step::Queue, Duration::from_millis(1));
        timings.called(Duration::from_millis(4));
        let header = timings.header(Duration::from_millis(10));
        assert_eq!(
            header,
            "auth;dur=1.500, queue;dur=1.000, model;dur=3.000, safety_out;dur=5.000, total;dur=10.000"
        );
    }
}
