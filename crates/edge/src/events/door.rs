//! Requests that are not let in, or not at once.
//!
//! Separate from the record: these are counted whether or not a request gets so far as to have a deployment.

use crate::limit::config::WhenStateless;
use std::time::Instant;

/// Why a caller was turned away at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// No credential, or none that is known.
    Unknown,
    /// A key or token whose time is over.
    Expired,
    /// A valid one that may not do this.
    Forbidden,
    /// A token that could not be checked.
    Unchecked,
}

impl TurnedAway {
    const ALL: [Self; 4] = [Self::Unknown, Self::Expired, Self::Forbidden, Self::Unchecked];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Has the counters of this file there before anything is counted.
pub(super) fn count_from_zero() {
    for why in TurnedAway::ALL {
        metrics::counter!("edge_turned_away_total", "why" => why.as_str()).increment(0);
    }
    for instead in [WhenStateless::Local, WhenStateless::Refuse, WhenStateless::Allow] {
        metrics::counter!("edge_limits_unavailable_total", "instead" => word(instead)).increment(0);
    }
}

/// Counts one caller that was turned away.
pub fn turned_away(why: TurnedAway) {
    metrics::counter!("edge_turned_away_total", "why" => why.as_str()).increment(1);
}

/// Counts one request over a limit; `deployment` comes from the table, `limit` from an enum.
pub fn limited(deployment: &str, limit: &'static str) {
    metrics::counter!("edge_limited_requests_total", "deployment" => deployment.to_owned(), "limit" => limit)
        .increment(1);
}

/// Counts one request whose limits could not be counted in Redis.
pub fn uncounted(instead: WhenStateless) {
    metrics::counter!("edge_limits_unavailable_total", "instead" => word(instead)).increment(1);
}

const fn word(instead: WhenStateless) -> &'static str {
    match instead {
        WhenStateless::Local => "local",
        WhenStateless::Refuse => "refuse",
        WhenStateless::Allow => "allow",
    }
}

/// A request that waits for a slot; dropping it ends the wait.
#[derive(Debug)]
pub struct Queued {
    deployment: String,
    began: Instant,
}

impl Queued {
    /// The wait begins.
    #[must_use]
    pub fn begin(deployment: &str) -> Self {
        metrics::gauge!("edge_queued_requests", "deployment" => deployment.to_owned())
            .increment(1.0);
        Self { deployment: deployment.to_owned(), began: Instant::now() }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let deployment = std::mem::take(&mut self.deployment);
        metrics::gauge!("edge_queued_requests", "deployment" => deployment.clone()).decrement(1.0);
        metrics::histogram!("edge_queue_seconds", "deployment" => deployment)
            .record(self.began.elapsed().as_secs_f64());
    }
}
