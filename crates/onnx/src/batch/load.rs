//! What waits in a queue and how fast it goes: hence who is let in, and when the others may come again.
//!
//! Separate from the worker because callers look at it from their own threads. The invariant: the sum of all reservations is
//! `queued`, so a request gives back its share exactly once, however it ends.

use crate::error::OnnxError;
use metrics::Gauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Weight of the newest batch in the running speed.
const NEWEST_WEIGHT: f64 = 0.2;
/// Bounds of what a refused caller is told to wait.
const RETRY_SECONDS: (f64, f64) = (1.0, 60.0);

/// What waits, and how fast it goes.
#[derive(Debug)]
pub(super) struct Load {
    queued: AtomicUsize,
    /// The same for whoever scales; changed together with it, so that it is true between batches too.
    waiting: Gauge,
    running: Gauge,
    /// Bits of an `f64`: tokens per second; 0 before the first batch.
    speed: AtomicU64,
}

impl Load {
    /// Nothing waits for the model `name`, whose gauges are shown from now on.
    pub(super) fn of(name: &str) -> Self {
        let waiting = metrics::gauge!("onnx_queue_tokens", "model" => name.to_owned());
        let running = metrics::gauge!("onnx_in_flight_tokens", "model" => name.to_owned());
        waiting.set(0.0);
        running.set(0.0);
        Self { queued: AtomicUsize::new(0), waiting, running, speed: AtomicU64::new(0) }
    }

    /// So many tokens are being computed now.
    pub(super) fn runs(&self, cost: usize) {
        self.running.set(to_f64(cost));
    }

    /// A share of `cost`, where `limit` leaves room for it or nothing else waits.
    pub(super) fn reserve(
        self: &Arc<Self>,
        cost: usize,
        limit: usize,
    ) -> Result<Reserved, OnnxError> {
        let room = |queued: usize| (queued == 0 || queued + cost <= limit).then_some(queued + cost);
        match self.queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => {
                self.waiting.increment(to_f64(cost));
                Ok(Reserved { cost, load: Arc::clone(self) })
            }
            Err(queued) => Err(OnnxError::Overloaded { retry_after: self.clears_in(queued) }),
        }
    }

    /// What waits.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    fn release(&self, cost: usize) {
        self.queued.fetch_sub(cost, Ordering::AcqRel);
        self.waiting.decrement(to_f64(cost));
    }

    fn clears_in(&self, queued: usize) -> Duration {
        let speed = f64::from_bits(self.speed.load(Ordering::Acquire));
        let seconds = if speed > 0.0 { to_f64(queued) / speed } else { RETRY_SECONDS.0 };
        Duration::from_secs_f64(seconds.clamp(RETRY_SECONDS.0, RETRY_SECONDS.1))
    }

    pub(super) fn observe(&self, cost: usize, taken: Duration) {
        let now = to_f64(cost) / taken.as_secs_f64().max(1e-6);
        let before = f64::from_bits(self.speed.load(Ordering::Acquire));
        let mixed = if before > 0.0 { before + (now - before) * NEWEST_WEIGHT } else { now };
        self.speed.store(mixed.to_bits(), Ordering::Release);
    }
}

/// A request's share of the queue; what is left of it is given back when the request ends, however it ends.
#[derive(Debug)]
pub(super) struct Reserved {
    cost: usize,
    load: Arc<Load>,
}

impl Reserved {
    pub(super) fn give_back(&mut self, cost: usize) {
        let cost = cost.min(self.cost);
        self.cost -= cost;
        self.load.release(cost);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.load.release(self.cost);
    }
}

/// Exact for every count that fits in memory here.
pub(super) fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
