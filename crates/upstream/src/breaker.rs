//! Leaves an endpoint alone for a while after it failed several times in a row.
//!
//! Pure state over a clock that is passed in. Closed: every call is admitted. Open: none is, until the pause is over. Then one
//! call probes, and the others wait another pause; its success closes the breaker. A probe whose caller left needs no clean-up:
//! the pause simply ends again.

use std::time::Duration;
use tokio::time::Instant;

/// When to give up on an endpoint, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Failures in a row, at least 1.
    pub(crate) failures: u32,
    /// How long the endpoint is left alone.
    pub(crate) pause: Duration,
}

/// The state of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Breaker {
    /// How long this endpoint is still left alone; none when a call may go there.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.paused_until
            .map(|until| until.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    /// A call goes there: after a pause it is the probe, and the next pause begins.
    pub(crate) fn begin(&mut self, rule: Rule, now: Instant) {
        if self.paused_until.is_some() {
            self.paused_until = Some(now + rule.pause);
        }
    }

    /// The endpoint answered, even if it refused the request.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The endpoint failed.
    pub(crate) fn failed(&mut self, rule: Rule, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= rule.failures {
            self.paused_until = Some(now + rule.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { failures: 3, pause: Duration::from_secs(10) };

    fn broken(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(RULE, now));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.failed(RULE, now);
        breaker.failed(RULE, now);
        breaker.succeeded();
        breaker.failed(RULE, now);
        assert_eq!(breaker.wait(now), None);
        assert_eq!(broken(now).wait(now), Some(RULE.pause));
    }

    #[test]
    fn after_the_pause_one_call_probes_and_the_others_wait() {
        let now = Instant::now();
        let mut breaker = broken(now);
        let later = now + RULE.pause;
        assert_eq!(breaker.wait(later), None);
        breaker.begin(RULE, later);
        assert_eq!(breaker.wait(later), Some(RULE.pause));
    }

    #[test]
    fn a_probe_closes_it_or_opens_it_again_at_once() {
        let now = Instant::now();
        let later = now + RULE.pause;
        let mut breaker = broken(now);
        breaker.begin(RULE, later);
        breaker.failed(RULE, later);
        assert_eq!(breaker.wait(later), Some(RULE.pause));
        breaker.succeeded();
        assert_eq!(breaker.wait(later), None);
    }
}
