//! Tasks that stop in order, and the count of what is in flight.
//!
//! The only caller of `tokio::spawn`: an untracked task is lost at shutdown. Stopping has four phases: *leaving*
//! (not ready any more, and new work is still taken until those who send it have noticed), *draining* (new work is refused, what
//! runs goes on), *stopping* (listeners close), *done* (all tasks ended or the deadline passed).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// How long connections and tasks get to end by themselves once nothing is in flight.
const LINGER: Duration = Duration::from_secs(2);

/// Handle on the tasks of one service; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tracker: TaskTracker,
    leaving: CancellationToken,
    draining: CancellationToken,
    stopping: CancellationToken,
    ready: CancellationToken,
    in_flight: AtomicUsize,
    left: Notify,
}

/// One request in flight; dropping it says that the request has ended.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

impl Tasks {
    /// Fresh: not ready, nothing in flight.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` as a task that a stop waits for.
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.shared.tracker.track_future(future))
    }

    /// Runs `future` until it or this process ends.
    pub fn spawn_until_stop<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopping = self.stopping();
        self.spawn(async move {
            tokio::select! {
                () = future => {}
                () = stopping => {}
            }
        });
    }

    /// Runs a closure that blocks, on a thread that a stop waits for.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.shared.tracker.spawn_blocking(work)
    }

    /// Runs a task that a stop does not wait for: the one that stops the others.
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn spawn_untracked<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(future);
    }

    /// Says that models are loaded and requests may come.
    pub fn set_ready(&self) {
        self.shared.ready.cancel();
    }

    /// Whether requests may come: ready and not leaving.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.shared.ready.is_cancelled() && !self.is_leaving()
    }

    /// Resolves when `set_ready` was called.
    pub fn until_ready(&self) -> WaitForCancellationFutureOwned {
        self.shared.ready.clone().cancelled_owned()
    }

    /// Admits one request, or none while draining.
    #[must_use]
    pub fn admit(&self) -> Option<Admission> {
        // Count first, then look: a stop that begins in between either sees the count or is seen here.
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let admission = Admission { shared: Arc::clone(&self.shared) };
        (!self.shared.draining.is_cancelled()).then_some(admission)
    }

    /// Requests admitted and not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Whether nobody should send anything any more.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.shared.leaving.is_cancelled()
    }

    /// Resolves when nobody should send anything any more.
    pub fn leaving(&self) -> WaitForCancellationFutureOwned {
        self.shared.leaving.clone().cancelled_owned()
    }

    /// Resolves when new work is to be refused.
    pub fn draining(&self) -> WaitForCancellationFutureOwned {
        self.shared.draining.clone().cancelled_owned()
    }

    /// Resolves when listeners are to be closed and loops to end.
    pub fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.shared.stopping.clone().cancelled_owned()
    }

    /// Says that this process is about to go, and takes new work for `delay` more: load balancers learn late. Does not wait
    /// where nobody was told to send any, before it was ready.
    pub async fn leave(&self, delay: Duration) {
        let known = self.ready();
        self.shared.leaving.cancel();
        if known {
            tokio::time::sleep(delay).await;
        }
    }

    /// Refuses new work, lets what is in flight finish for at most `deadline`, then closes and waits for the tasks.
    /// Calling it again waits for the same end.
    pub async fn stop(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.shared.leaving.cancel();
        self.shared.draining.cancel();
        let idle = tokio::time::timeout_at(end, self.idle()).await.is_ok();
        if !idle {
            tracing::warn!(
                in_flight = self.in_flight(),
                "drain deadline passed; ending what still runs"
            );
        }
        self.shared.stopping.cancel();
        self.shared.tracker.close();
        let linger = tokio::time::timeout(LINGER, self.shared.tracker.wait()).await;
        if linger.is_err() {
            tracing::warn!(tasks = self.shared.tracker.len(), "tasks did not end by themselves");
        }
    }

    async fn idle(&self) {
        loop {
            let left = self.shared.left.notified();
            tokio::pin!(left);
            // Registered before the count is read, so that no wake-up is lost.
            left.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.shared.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_what_is_in_flight_and_refuses_the_rest() {
        let tasks = Tasks::new();
        let running = tasks.admit().unwrap();
        let stop = tasks.spawn({
            let tasks = tasks.clone();
            async move { tasks.shared.draining.cancelled().await }
        });
        let stopper = {
            let tasks = tasks.clone();
            tasks.clone().spawn(async move {
                tasks.shared.draining.cancel();
                tasks.idle().await;
            })
        };
        stop.await.unwrap();
        assert!(tasks.admit().is_none());
        assert!(!stopper.is_finished());
        drop(running);
        stopper.await.unwrap();
        assert_eq!(tasks.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn while_leaving_new_work_is_taken_and_readiness_is_off() {
        let tasks = Tasks::new();
        tasks.set_ready();
        let began = Instant::now();
        let mut leaving = std::pin::pin!(tasks.leave(Duration::from_secs(5)));
        assert!(futures::poll!(&mut leaving).is_pending());
        assert!(!tasks.ready() && tasks.is_leaving());
        drop(tasks.admit().expect("still taken"));
        leaving.await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        tasks.stop(Duration::ZERO).await;
        assert!(tasks.admit().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_never_ready_leaves_at_once() {
        let tasks = Tasks::new();
        let began = Instant::now();
        tasks.leave(Duration::from_secs(5)).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_the_wait() {
        let tasks = Tasks::new();
        let _stuck = tasks.admit().unwrap();
        tasks.stop(Duration::from_secs(30)).await;
        assert_eq!(tasks.in_flight(), 1);
    }
}
