//! Counters of this process: what one edge alone counts by, and what is left when Redis is gone.
//!
//! The arithmetic is the same as that of `take.lua` and `settle.lua`, line by line; a change here is a change there, and the
//! tests of both are the same.

use super::{Change, Counter, Demand, Kind, Settlement, Standing, Taken};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counters that count nothing any more are swept when there are this many.
const SWEEP_AT: usize = 10_000;

/// Counters of this process.
#[derive(Debug)]
pub struct Local {
    began: Instant,
    counts: Mutex<HashMap<String, Count>>,
}

#[derive(Debug)]
enum Count {
    Rate {
        window: u64,
        index: u64,
        current: u64,
        previous: u64,
    },
    /// Ids, and when each is free again.
    Slots(HashMap<String, u64>),
}

impl Default for Local {
    fn default() -> Self {
        Self { began: Instant::now(), counts: Mutex::default() }
    }
}

impl Local {
    /// Takes from all counters of `demand`, or from none.
    pub fn take(&self, demand: &Demand) -> Taken {
        self.take_at(self.now(), demand)
    }

    /// Gives back, or takes more, whatever the limit.
    pub fn settle(&self, settlement: &Settlement) {
        let mut counts = self.counts();
        for change in &settlement.changes {
            match (counts.get_mut(change.key()), change) {
                (
                    Some(Count::Rate { index: now, current, previous, .. }),
                    Change::Rate { index, delta, .. },
                ) => {
                    if now == index {
                        *current = current.saturating_add_signed(*delta);
                    } else if *now == index.saturating_add(1) {
                        *previous = previous.saturating_add_signed(*delta);
                    }
                }
                (Some(Count::Slots(held)), Change::Slot { .. }) => {
                    held.remove(&settlement.id);
                }
                // Swept since, or another kind under the same key: there is nothing to correct.
                (None, _)
                | (Some(Count::Rate { .. }), Change::Slot { .. })
                | (Some(Count::Slots(_)), Change::Rate { .. }) => {}
            }
        }
    }

    fn take_at(&self, now: u64, demand: &Demand) -> Taken {
        let mut counts = self.counts();
        if counts.len() >= SWEEP_AT {
            counts.retain(|_, count| count.matters(now));
        }
        let standings: Vec<_> =
            demand.counters.iter().map(|counter| stand(&mut counts, counter, now)).collect();
        let admitted = standings.iter().all(|s| s.wait.is_zero());
        if admitted && !demand.lease.is_zero() {
            for counter in &demand.counters {
                let free_at = now.saturating_add(milliseconds(demand.lease));
                match (counts.get_mut(&counter.key), counter.kind) {
                    (Some(Count::Rate { current, .. }), Kind::Rate { amount, .. }) => {
                        *current = current.saturating_add(amount);
                    }
                    (Some(Count::Slots(held)), Kind::Slots) => {
                        held.insert(demand.id.clone(), free_at);
                    }
                    // `stand` has just made it of this kind.
                    (None | Some(Count::Rate { .. } | Count::Slots(_)), _) => {}
                }
            }
        }
        Taken { admitted, standings }
    }

    fn now(&self) -> u64 {
        milliseconds(self.began.elapsed())
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, Count>> {
        // Nothing that holds this lock can panic half-way through a change.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// Whether it can still change an answer.
    fn matters(&self, now: u64) -> bool {
        match self {
            Self::Rate { window, index, .. } => now / window <= index.saturating_add(1),
            Self::Slots(held) => held.values().any(|free_at| *free_at > now),
        }
    }
}

/// How `counter` stands at `now`, moved on to the window that runs.
fn stand(counts: &mut HashMap<String, Count>, counter: &Counter, now: u64) -> Standing {
    match counter.kind {
        Kind::Rate { window, amount } => {
            let length = milliseconds(window).max(1);
            let index = now / length;
            let slot = counts.entry(counter.key.clone()).or_insert(Count::Slots(HashMap::new()));
            let (current, previous) = match *slot {
                Count::Rate { index: seen, current, previous, .. } if seen == index => {
                    (current, previous)
                }
                Count::Rate { index: seen, current, .. } if seen + 1 == index => (0, current),
                Count::Rate { .. } | Count::Slots(_) => (0, 0),
            };
            *slot = Count::Rate { window: length, index, current, previous };
            let rate = Rate { length, elapsed: now - index * length, current, previous };
            Standing {
                used: rate.used(),
                wait: rate.wait(counter.limit, amount),
                resets_in: rate.resets_in(),
                window: index,
            }
        }
        Kind::Slots => {
            let slot = counts.entry(counter.key.clone()).or_insert(Count::Slots(HashMap::new()));
            if let Count::Rate { .. } = slot {
                *slot = Count::Slots(HashMap::new());
            }
            let Count::Slots(held) = slot else { return Standing::NOTHING };
            held.retain(|_, free_at| *free_at > now);
            let used = u64::try_from(held.len()).unwrap_or(u64::MAX);
            let wait =
                if used >= counter.limit { Duration::from_millis(1) } else { Duration::ZERO };
            Standing { used, wait, ..Standing::NOTHING }
        }
    }
}

impl Standing {
    const NOTHING: Self =
        Self { used: 0, wait: Duration::ZERO, resets_in: Duration::ZERO, window: 0 };
}

/// A sliding window counter, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    length: u64,
    /// Of the window that runs; less than `length`.
    elapsed: u64,
    current: u64,
    previous: u64,
}

impl Rate {
    /// Rounded up, so that rounding never admits.
    fn used(self) -> u64 {
        let left = u128::from(self.length - self.elapsed);
        let weighted = (u128::from(self.previous) * left).div_ceil(u128::from(self.length));
        self.current.saturating_add(u64::try_from(weighted).unwrap_or(u64::MAX))
    }

    fn wait(self, limit: u64, amount: u64) -> Duration {
        if self.used().saturating_add(amount) <= limit {
            return Duration::ZERO;
        }
        let taken = self.current.saturating_add(amount);
        let wait = if taken <= limit {
            // Fits in this window, once enough of the one before has faded.
            self.faded(self.previous, limit - taken).saturating_sub(self.elapsed)
        } else {
            // Then what is taken now is the window before.
            let room = limit.saturating_sub(amount);
            (self.length - self.elapsed).saturating_add(self.faded(self.current, room))
        };
        Duration::from_millis(wait.max(1))
    }

    /// Time within a window until at most `room` is left of the `count` of the one before.
    fn faded(self, count: u64, room: u64) -> u64 {
        if count <= room {
            return 0;
        }
        let left = u128::from(room) * u128::from(self.length) / u128::from(count);
        self.length - u64::try_from(left).unwrap_or(self.length).min(self.length)
    }

    const fn resets_in(self) -> Duration {
        let left = self.length - self.elapsed;
        Duration::from_millis(if self.current > 0 {
            left.saturating_add(self.length)
        } else if self.previous > 0 {
            left
        } else {
            0
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::shared::tests::{demand, rate, settle_rate, slots};
    use super::*;

    const MINUTE: u64 = 60_000;

    fn used(local: &Local, now: u64, key: &str) -> u64 {
        local.take_at(now, &demand("look", [rate(key, u64::MAX, 0)])).standings[0].used
    }

    #[test]
    fn exactly_the_limit_fits_into_a_window() {
        let local = Local::default();
        let admitted =
            (0..150).filter(|_| local.take_at(5, &demand("d", [rate("a", 100, 1)])).admitted);
        assert_eq!(admitted.count(), 100);
        assert!(!local.take_at(MINUTE, &demand("d", [rate("a", 100, 1)])).admitted);
    }

    #[test]
    fn the_window_before_fades_and_the_wait_is_exact() {
        let local = Local::default();
        assert!(local.take_at(MINUTE / 2, &demand("d", [rate("a", 60, 60)])).admitted);
        let refused = local.take_at(MINUTE + 100, &demand("d", [rate("a", 60, 1)]));
        assert_eq!(refused.standings[0].wait, Duration::from_millis(900));
        assert!(!local.take_at(MINUTE + 999, &demand("d", [rate("a", 60, 1)])).admitted);
        assert!(local.take_at(MINUTE + 1000, &demand("d", [rate("a", 60, 1)])).admitted);
        assert_eq!(used(&local, 3 * MINUTE, "a"), 0);
    }

    #[test]
    fn the_wait_reaches_into_the_next_window() {
        let local = Local::default();
        assert!(local.take_at(0, &demand("d", [rate("a", 60, 60)])).admitted);
        let wait = local.take_at(10_000, &demand("d", [rate("a", 60, 30)])).standings[0].wait;
        assert_eq!(wait, Duration::from_millis(50_000 + 30_000));
        assert!(!local.take_at(89_999, &demand("d", [rate("a", 60, 30)])).admitted);
        assert!(local.take_at(90_000, &demand("d", [rate("a", 60, 30)])).admitted);
    }

    #[test]
    fn all_or_nothing_is_taken() {
        let local = Local::default();
        let both = || demand("d", [rate("a", 10, 1), rate("b", 2, 1)]);
        assert!(local.take_at(0, &both()).admitted && local.take_at(0, &both()).admitted);
        let refused = local.take_at(0, &both());
        assert!(!refused.admitted);
        assert!(refused.standings[0].wait.is_zero() && !refused.standings[1].wait.is_zero());
        assert_eq!(used(&local, 0, "a"), 2);
    }

    #[test]
    fn what_is_given_back_goes_to_its_own_window() {
        let local = Local::default();
        let taken = local.take_at(0, &demand("d", [rate("a", 100, 80)]));
        local.settle(&settle_rate("a", taken.standings[0].window, -50));
        assert_eq!(used(&local, 0, "a"), 30);
        assert_eq!(used(&local, MINUTE, "a"), 30);
        local.settle(&settle_rate("a", taken.standings[0].window, -10));
        assert_eq!(used(&local, MINUTE, "a"), 20);
        local.settle(&settle_rate("a", taken.standings[0].window + 1, -10));
        assert_eq!(used(&local, MINUTE, "a"), 20, "a count never falls below zero");
        local.settle(&settle_rate("a", taken.standings[0].window, 25));
        assert_eq!(used(&local, MINUTE, "a"), 45);
        assert_eq!(used(&local, 5 * MINUTE, "a"), 0);
        local.settle(&settle_rate("a", taken.standings[0].window, 25));
        assert_eq!(used(&local, 5 * MINUTE, "a"), 0, "a window that is over is not corrected");
    }

    #[test]
    fn slots_come_back_when_they_are_given_back_or_their_lease_ends() {
        let local = Local::default();
        let take = |now, id: &str| local.take_at(now, &demand(id, [slots("s", 2)])).admitted;
        assert!(take(0, "one") && take(1, "two") && !take(2, "three"));
        let change = Change::Slot { key: "s".into() };
        local.settle(&Settlement { id: "one".into(), changes: vec![change] });
        assert!(take(3, "three") && !take(4, "four"));
        assert!(take(10_001, "five"), "the lease of `two` has ended");
        assert!(!take(10_002, "six"), "that of `three` has not");
    }

    #[test]
    fn counters_that_count_nothing_any_more_are_swept() {
        let local = Local::default();
        for i in 0..SWEEP_AT {
            local.take_at(0, &demand("d", [rate(&i.to_string(), 1, 1)]));
        }
        local.take_at(5 * MINUTE, &demand("d", [rate("new", 1, 1)]));
        assert_eq!(local.counts().len(), 1);
    }
}
