//! Who is next where requests wait for a slot of a deployment: interactive classes before batch, and within each the callers in
//! turn, so that one who sends a hundred does not stand before one who sends a single one.
//!
//! Whoever waits has a `Place`. One place at a time is called to try for a slot; it is called again when a slot may have become
//! free (`call_next`). Leaving a place, for whatever reason, calls the next, so no wake-up is lost with a caller that goes away.

use crate::limit::config::Priority;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Requests that wait for a slot of one deployment.
#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    interactive: Lane,
    batch: Lane,
    count: usize,
    last_id: u64,
    /// Who is trying for a slot.
    called: Option<u64>,
    /// Whether a slot may have become free while somebody was trying.
    again: bool,
}

/// Callers in the order of their turns, each with its requests in the order of their arrival.
#[derive(Debug, Default)]
struct Lane {
    callers: VecDeque<(Arc<str>, Requests)>,
}

/// Ids, and what rings for each.
type Requests = VecDeque<(u64, Arc<Notify>)>;

impl Queue {
    /// An empty queue with room for `most`.
    #[must_use]
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, waiting: Mutex::default() })
    }

    /// Whether nobody waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().count == 0
    }

    /// A place behind the others; none where the queue is full.
    #[must_use]
    pub(super) fn enter(self: &Arc<Self>, priority: Priority, caller: &str) -> Option<Place> {
        let mut waiting = self.waiting();
        if waiting.count >= self.most {
            return None;
        }
        waiting.count += 1;
        waiting.last_id += 1;
        let (id, bell) = (waiting.last_id, Arc::new(Notify::new()));
        waiting.lane(priority).push(caller, id, Arc::clone(&bell));
        Some(Place { queue: Arc::clone(self), id, priority, bell })
    }

    /// Calls whoever is next, as a slot may have become free.
    pub(super) fn call_next(&self) {
        let mut waiting = self.waiting();
        if waiting.called.is_some() {
            waiting.again = true;
            return;
        }
        waiting.call();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds this lock can panic half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    const fn lane(&mut self, priority: Priority) -> &mut Lane {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }

    fn call(&mut self) {
        self.again = false;
        let next = self.interactive.first().or_else(|| self.batch.first());
        self.called = next.map(|(id, bell)| {
            bell.notify_one();
            *id
        });
    }
}

impl Lane {
    fn first(&self) -> Option<&(u64, Arc<Notify>)> {
        self.callers.front().and_then(|(_, requests)| requests.front())
    }

    fn push(&mut self, caller: &str, id: u64, bell: Arc<Notify>) {
        match self.callers.iter_mut().find(|(name, _)| &**name == caller) {
            Some((_, requests)) => requests.push_back((id, bell)),
            None => self.callers.push_back((caller.into(), VecDeque::from([(id, bell)]))),
        }
    }

    /// Removes a request; the caller whose turn it was goes to the end.
    fn remove(&mut self, id: u64, had_turn: bool) {
        let holds = |(_, requests): &(_, Requests)| requests.iter().any(|(i, _)| *i == id);
        let Some(at) = self.callers.iter().position(holds) else { return };
        let Some((name, mut requests)) = self.callers.remove(at) else { return };
        requests.retain(|(i, _)| *i != id);
        if requests.is_empty() {
            return;
        }
        if had_turn {
            self.callers.push_back((name, requests));
        } else {
            self.callers.insert(at, (name, requests));
        }
    }
}

/// A place in a queue; leaving it is dropping it.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<Queue>,
    id: u64,
    priority: Priority,
    bell: Arc<Notify>,
}

impl Place {
    /// Resolves when it is this place's turn to try.
    pub(super) async fn called(&self) {
        self.bell.notified().await;
    }

    /// There was no slot: somebody tries again when one may have become free.
    pub(super) fn missed(&self) {
        let mut waiting = self.queue.waiting();
        if waiting.called == Some(self.id) {
            waiting.called = None;
            if waiting.again {
                waiting.call();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        let had_turn = waiting.called == Some(self.id);
        let id = self.id;
        waiting.lane(self.priority).remove(id, had_turn);
        waiting.count -= 1;
        if had_turn {
            // There may be more than one free slot.
            waiting.called = None;
            waiting.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn is_called(place: &Place) -> bool {
        place.called().now_or_never().is_some()
    }

    /// Who gets a slot, when one slot after the other becomes free.
    fn order(queue: &Arc<Queue>, mut places: Vec<(&'static str, Place)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        queue.call_next();
        while let Some(at) = places.iter().position(|(_, place)| is_called(place)) {
            let (name, place) = places.remove(at);
            order.push(name);
            drop(place);
        }
        assert!(places.is_empty(), "everybody is called");
        order
    }

    #[test]
    fn callers_take_turns_and_interactive_goes_first() {
        let queue = Queue::new(16);
        let enter = |name, priority| (name, queue.enter(priority, name).unwrap());
        let places = vec![
            enter("night", Priority::Batch),
            enter("busy", Priority::Interactive),
            enter("busy", Priority::Interactive),
            enter("busy", Priority::Interactive),
            enter("calm", Priority::Interactive),
            enter("night", Priority::Batch),
            enter("other", Priority::Batch),
        ];
        assert_eq!(
            order(&queue, places),
            ["busy", "calm", "busy", "busy", "night", "other", "night"]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_takes_nobody_until_somebody_leaves() {
        let queue = Queue::new(1);
        let first = queue.enter(Priority::Batch, "a").unwrap();
        assert!(queue.enter(Priority::Interactive, "b").is_none());
        drop(first);
        assert!(queue.enter(Priority::Interactive, "b").is_some());
        assert!(Queue::new(0).enter(Priority::Interactive, "a").is_none());
    }

    #[test]
    fn one_tries_at_a_time_and_a_slot_that_comes_meanwhile_is_not_forgotten() {
        let queue = Queue::new(4);
        let first = queue.enter(Priority::Interactive, "a").unwrap();
        let second = queue.enter(Priority::Interactive, "b").unwrap();
        queue.call_next();
        assert!(is_called(&first) && !is_called(&second));
        queue.call_next();
        assert!(!is_called(&second));
        first.missed();
        assert!(is_called(&first), "the slot that came meanwhile");
        first.missed();
        assert!(!is_called(&first));
    }

    #[test]
    fn whoever_leaves_while_called_calls_the_next() {
        let queue = Queue::new(4);
        let first = queue.enter(Priority::Interactive, "a").unwrap();
        let second = queue.enter(Priority::Batch, "b").unwrap();
        queue.call_next();
        drop(first);
        assert!(is_called(&second));
    }

    #[test]
    fn a_newcomer_of_higher_priority_is_called_before_those_who_waited() {
        let queue = Queue::new(4);
        let batch = queue.enter(Priority::Batch, "b").unwrap();
        queue.call_next();
        batch.missed();
        assert!(is_called(&batch));
        let interactive = queue.enter(Priority::Interactive, "a").unwrap();
        queue.call_next();
        assert!(is_called(&interactive) && !is_called(&batch));
    }
}
