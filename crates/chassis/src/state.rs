//! Small state that replicas share: counters of what has been taken, in this process (`Local`) or in Redis (`Shared`), and
//! answers that may be given again (`Kept`, or the same Redis).
//!
//! The only place that knows Redis. A request takes from all its counters at once or from none, and gives back what it did not
//! use; each is one step that nothing can come between, in Redis one script and one round trip. Every call is bounded in time:
//! a Redis that is slow or gone is an error for the caller to decide about, never a hang.
//!
//! Rates are sliding window counters: the count of the window that runs and that of the one before, weighted by how much of
//! it still lies within the last window (Cloudflare, "How we built rate limiting capable of scaling to millions of domains",
//! 2017). Chosen over a token bucket because exactly `limit` fit into a window that begins empty, and because what was
//! reserved can be given back to the window that it was taken from. Slots are leases with an end, so that those of a process
//! that died come back.

mod answers;
mod local;
mod shared;

pub use answers::Kept;
pub use local::Local;
pub use shared::Shared;

use crate::{Problems, Secret};
use serde::Deserialize;
use std::time::Duration;

/// How URLs of a Redis with TLS begin.
const SECURE: &str = "rediss://";

/// Where shared state lives.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// `redis://host:6379`, or `rediss://` with TLS; empty keeps state in this process, where replicas do not see each other's.
    pub redis_url: Secret,
    /// PEM: who signs the certificate of Redis; empty means those that the system trusts.
    pub redis_ca_file: String,
    /// How long one call may take.
    pub timeout_ms: u64,
}

impl StateConfig {
    /// Notes what cannot be.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = Shared::open(self) {
            problems.add("state.redis_url", error);
        }
        if !self.redis_ca_file.is_empty() && !self.redis_url.expose().starts_with(SECURE) {
            let message =
                format!("is set, but there is no TLS unless `redis_url` begins with {SECURE}");
            problems.add("state.redis_ca_file", message);
        }
    }

    /// Notes files that cannot be used.
    pub fn check_files(&self, problems: &mut Problems) {
        if !self.redis_ca_file.is_empty() {
            crate::tls::check_roots("state", ("redis_ca_file", &self.redis_ca_file), problems);
        }
    }
}

/// What is wrong with who `config` says we are; nothing where Redis cannot be reached, which is no mistake of the configuration.
///
/// # Errors
/// The problem, under `section`.
pub async fn check_access(section: &str, config: &StateConfig) -> Result<(), Problems> {
    let Ok(Some(shared)) = Shared::open(config) else { return Ok(()) };
    let Err(error @ StateError::Refused) = shared.ping().await else { return Ok(()) };
    let mut problems = Problems::of(section);
    problems.add("state.redis_url", error);
    Err(problems)
}

/// Why shared state could not be reached; never holds the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No answer within `timeout_ms`.
    #[error("Redis did not answer within {0:?}")]
    Timeout(Duration),
    /// Redis is there and does not let us in.
    #[error(
        "Redis refuses the user or the password; correct those in the URL (redis://user:password@host:6379)"
    )]
    Refused,
    /// Redis refused or is unreachable.
    #[error("Redis failed: {0}")]
    Redis(String),
}

/// What a request takes: from all counters, or from none where one of them is at its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Unlike that of any other demand; slots are held under it.
    pub id: String,
    /// After this long slots that were not given back are free again. Zero only looks, and takes nothing.
    pub lease: Duration,
    /// No key twice.
    pub counters: Vec<Counter>,
}

/// One thing that is limited, and how much of it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Names the counter; replicas with the same key share it. A part in braces decides where a Redis cluster keeps it, and must
    /// be the same in all counters of a demand.
    pub key: String,
    /// Most that may be taken.
    pub limit: u64,
    /// Of what.
    pub kind: Kind,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// So much within a sliding window.
    Rate {
        /// At least a millisecond.
        window: Duration,
        /// Taken now; at most the limit, or it never fits.
        amount: u64,
    },
    /// So many at the same time; one is taken.
    Slots,
}

/// What came of a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Whether everything was taken, or would have been; else nothing was.
    pub admitted: bool,
    /// One for each counter, in order.
    pub standings: Vec<Standing>,
}

/// How a counter stood before the demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Taken by others.
    pub used: u64,
    /// Until the demand fits, if nobody takes more; zero where it fits. Of slots nobody knows when one comes back: it is then
    /// a millisecond.
    pub wait: Duration,
    /// Until nothing that was taken counts any more; zero for slots.
    pub resets_in: Duration,
    /// Which window the demand was counted in, to give back to.
    pub window: u64,
}

/// What a request gives back at its end, or takes besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// That of the demand.
    pub id: String,
    /// At most one for each counter of the demand.
    pub changes: Vec<Change>,
}

/// A correction of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// More, or less, was used than taken.
    Rate {
        /// That of the counter.
        key: String,
        /// That of the counter.
        window: Duration,
        /// `Standing::window` of the demand.
        index: u64,
        /// Added; a count never falls below zero.
        delta: i64,
    },
    /// The slot comes back.
    Slot {
        /// That of the counter.
        key: String,
    },
}

impl Change {
    /// That of the counter.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Rate { key, .. } | Self::Slot { key } => key,
        }
    }
}
