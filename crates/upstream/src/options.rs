//! What an operator may set about the calls to a server: patience, repetition, and when to give up on an endpoint.
//!
//! Here and not in the services because chat and embedding offer the same options. Entries of a list cannot take their
//! defaults from a `config.toml`, so the defaults are constants here; the commented examples there state each of them.

use crate::client::Timeouts;
use serde::Deserialize;
use std::time::Duration;

/// Long enough for a slow network, short enough to try another endpoint.
const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// A queue and a long prompt.
const FIRST_BYTE_TIMEOUT_MS: u64 = 120_000;
/// No model thinks this long about one token.
const BETWEEN_BYTES_TIMEOUT_MS: u64 = 60_000;
/// One for an endpoint that went away, one for the next that does.
const RETRIES: u32 = 2;
/// More would only lengthen an outage for those who wait.
const MOST_RETRIES: u32 = 10;
/// A single failure is chance.
const BREAKER_FAILURES: u32 = 5;
/// About what a restart takes, and not much of anyone's patience.
const BREAKER_PAUSE_MS: u64 = 10_000;

/// The table `connection` of a remote model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Longest wait for a connection.
    pub connect_timeout_ms: u64,
    /// Longest wait from the request to the first byte of the answer.
    pub first_byte_timeout_ms: u64,
    /// Longest wait within an answer.
    pub between_bytes_timeout_ms: u64,
    /// Further attempts before the first byte, 0..10.
    pub retries: u32,
    /// Failures in a row after which an endpoint is left alone, at least 1.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_pause_ms: u64,
    /// How often each endpoint is asked for its models, to learn of its health before a caller does; 0 asks never.
    pub health_interval_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            first_byte_timeout_ms: FIRST_BYTE_TIMEOUT_MS,
            between_bytes_timeout_ms: BETWEEN_BYTES_TIMEOUT_MS,
            retries: RETRIES,
            breaker_failures: BREAKER_FAILURES,
            breaker_pause_ms: BREAKER_PAUSE_MS,
            health_interval_ms: 0,
        }
    }
}

impl Options {
    /// What cannot work: option and what it must be.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("between_bytes_timeout_ms", self.between_bytes_timeout_ms),
            ("breaker_failures", u64::from(self.breaker_failures)),
        ] {
            if value == 0 {
                problems.push((name, "must be at least 1"));
            }
        }
        if self.retries > MOST_RETRIES {
            problems.push(("retries", "must be at most 10"));
        }
        problems
    }

    pub(crate) const fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(self.connect_timeout_ms),
            first_byte: Duration::from_millis(self.first_byte_timeout_ms),
            between_bytes: Duration::from_millis(self.between_bytes_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_work_and_nonsense_is_named() {
        assert_eq!(Options::default().problems(), []);
        let nonsense = Options { first_byte_timeout_ms: 0, retries: 11, ..Options::default() };
        let names: Vec<_> = nonsense.problems().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["first_byte_timeout_ms", "retries"]);
    }
}
