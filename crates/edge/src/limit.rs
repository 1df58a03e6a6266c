//! How much a caller may ask of a deployment: requests, tokens, and how many at the same time.
//!
//! Separate from `auth`, which only says who calls. A request is admitted once its deployment is known and before anything is
//! done for it: it takes from every limit that applies, of the caller's class and of the deployment, or from none. What it
//! holds is a `Ticket`; dropping that settles by what was really spent. When only the deployment's slots are taken, the request
//! waits its turn for a bounded time.

pub mod config;
pub mod estimate;
mod figures;
mod forecast;
mod queue;
mod rules;
mod store;
mod ticket;

pub use config::RatesConfig;
pub use estimate::Estimate;
pub use figures::Figures;
pub use forecast::Forecast;
pub use ticket::{Spent, Ticket};

use crate::auth::Caller;
use crate::config::Config;
use crate::events;
use api_types::{ErrorCode, Fault};
use chassis::Tasks;
use chassis::state::{Demand, StateError};
use queue::{Place, Queue};
use rules::{Rule, Rules};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Answer, Store};
use tokio::time::Instant;
use uuid::Uuid;

/// When to try again where all slots are taken: nobody knows when one comes back.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// Longest time a client is asked to wait: some sleep all of it (contract, section 16.2).
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How often a request that waits looks for slots that other edges gave back, which nobody tells this one.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a slot may be on its way back to Redis after the last byte of an answer has left.
const SETTLING: Duration = Duration::from_millis(20);
/// Slots outlive the longest request by this much, so that none is free while its request still runs.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// The limits of all callers and deployments; clones share everything.
#[derive(Debug, Clone)]
pub struct Limits {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RatesConfig,
    store: Arc<Store>,
    /// Of deployments with a limit of slots, by name.
    queues: Arc<Mutex<HashMap<String, Arc<Queue>>>>,
    lease: Duration,
    /// Unlike that of any other edge.
    edge: Uuid,
    requests: Arc<AtomicU64>,
}

/// What came of asking.
#[derive(Debug)]
pub struct Outcome {
    /// For the headers of the answer; none where nothing is limited.
    pub figures: Option<Figures>,
    /// What the request holds; none where nothing is limited.
    pub ticket: Result<Option<Ticket>, Fault>,
}

impl Outcome {
    const UNLIMITED: Self = Self { figures: None, ticket: Ok(None) };
}

/// How a demand ended.
enum Turn {
    Answered(Answer),
    /// Nobody else may wait.
    QueueFull,
    /// Waited in vain.
    TooLong,
}

impl Limits {
    /// The limits of `config`; counts in Redis where it is configured.
    ///
    /// # Errors
    /// When the URL of Redis is not one.
    pub fn build(config: &Config, tasks: &Tasks) -> Result<Self, StateError> {
        let inner = Inner {
            config: config.rates.clone(),
            store: Store::open(&config.state, config.rates.when_unavailable, tasks)?,
            queues: Arc::default(),
            lease: lease(config),
            edge: Uuid::new_v4(),
            requests: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same limits with the figures of `config`; what has been taken stays taken. Where they are counted, what happens when
    /// Redis does not answer, and the length of queues stay too.
    #[must_use]
    pub fn rebuild(&self, config: &Config) -> Self {
        let inner = Inner {
            config: RatesConfig {
                queue_length: self.inner.config.queue_length,
                ..config.rates.clone()
            },
            store: Arc::clone(&self.inner.store),
            queues: Arc::clone(&self.inner.queues),
            lease: lease(config),
            edge: self.inner.edge,
            requests: Arc::clone(&self.inner.requests),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The length of an answer where a request does not say.
    #[must_use]
    pub fn completion_tokens(&self) -> u32 {
        self.inner.config.completion_tokens
    }

    /// Admits a request of `caller` to `deployment`, or says why not and when to come back.
    pub async fn admit(&self, caller: &Caller, deployment: &str, estimate: Estimate) -> Outcome {
        let inner = &self.inner;
        let rules = Rules::of(&inner.config, caller, deployment, estimate);
        if rules.list.is_empty() {
            return Outcome::UNLIMITED;
        }
        let number = inner.requests.fetch_add(1, Ordering::Relaxed);
        let demand = Demand {
            id: format!("{}:{number}", inner.edge),
            lease: inner.lease,
            counters: rules.list.iter().map(Rule::counter).collect(),
        };
        let queue = rules.queues().then(|| inner.queue(deployment));
        let turn = match &queue {
            Some(queue) => inner.take_in_turn(queue, &rules, &demand).await,
            None => Turn::Answered(inner.take(&rules, &demand).await),
        };
        match turn {
            Turn::Answered(answer) => inner.conclude(answer, rules, demand.id, queue),
            Turn::QueueFull | Turn::TooLong => {
                let figures = inner.look(&rules, demand).await;
                events::limited(deployment, rules::Limited::Concurrent.as_str());
                Outcome { figures, ticket: Err(refusal(rules::Limited::Concurrent, BUSY_RETRY)) }
            }
        }
    }
}

impl Inner {
    /// What an answer of the counters means for the request.
    fn conclude(
        &self,
        answer: Answer,
        rules: Rules,
        id: String,
        queue: Option<Arc<Queue>>,
    ) -> Outcome {
        let (taken, at) = match answer {
            Answer::Counted(taken, at) => (taken, at),
            Answer::Free => return Outcome::UNLIMITED,
            Answer::Unavailable => {
                return Outcome { figures: None, ticket: Err(uncounted()) };
            }
        };
        let figures = Figures::of(&rules, &taken);
        let ticket = match rules.refused_by(&taken) {
            None => Ok(Some(Ticket::new((Arc::clone(&self.store), at), id, queue, rules, &taken))),
            Some((what, wait)) => {
                events::limited(&rules.deployment, what.as_str());
                Err(refusal(what, wait))
            }
        };
        Outcome { figures: Some(figures), ticket }
    }

    /// Asks a second time where only a slot of the caller is missing: that of its last request may still be on its way back.
    async fn take(&self, rules: &Rules, demand: &Demand) -> Answer {
        let answer = self.store.take(demand).await;
        if !self.store.is_shared() || !rules.lack_own_slot(&answer) {
            return answer;
        }
        tokio::time::sleep(SETTLING).await;
        self.store.take(demand).await
    }

    /// Takes at once where nobody waits, else in turn.
    async fn take_in_turn(&self, queue: &Arc<Queue>, rules: &Rules, demand: &Demand) -> Turn {
        if queue.is_empty() {
            let answer = self.take(rules, demand).await;
            if !rules.lack_a_slot(&answer) {
                return Turn::Answered(answer);
            }
        }
        match queue.enter(rules.priority, &rules.caller) {
            Some(place) => self.wait(queue, &place, rules, demand).await,
            None => Turn::QueueFull,
        }
    }

    async fn wait(
        &self,
        queue: &Arc<Queue>,
        place: &Place,
        rules: &Rules,
        demand: &Demand,
    ) -> Turn {
        let _counted = events::Queued::begin(&rules.deployment);
        let deadline = Instant::now() + Duration::from_millis(self.config.queue_timeout_ms);
        // A slot may have become free since the last attempt.
        queue.call_next();
        loop {
            let look = deadline.min(Instant::now() + LOOK_EVERY);
            let until = if self.store.is_shared() { look } else { deadline };
            match tokio::time::timeout_at(until, place.called()).await {
                Ok(()) => {
                    let answer = self.take(rules, demand).await;
                    if !rules.lack_a_slot(&answer) {
                        return Turn::Answered(answer);
                    }
                    place.missed();
                }
                Err(_elapsed) if Instant::now() >= deadline => return Turn::TooLong,
                Err(_elapsed) => queue.call_next(),
            }
        }
    }

    /// How the limits stand for a request that is refused without having asked.
    async fn look(&self, rules: &Rules, demand: Demand) -> Option<Figures> {
        let look = Demand { lease: Duration::ZERO, ..demand };
        match self.store.take(&look).await {
            Answer::Counted(taken, _) => {
                Some(Figures::of_rates(rules, &taken).refused(rules::Limited::Concurrent))
            }
            Answer::Free | Answer::Unavailable => None,
        }
    }

    fn queue(&self, deployment: &str) -> Arc<Queue> {
        // Nothing that holds this lock can panic half-way through a change.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues
            .entry(deployment.to_owned())
            .or_insert_with(|| Queue::new(self.config.queue_length));
        Arc::clone(queue)
    }
}

fn lease(config: &Config) -> Duration {
    Duration::from_millis(config.limits.request_timeout_ms) + LEASE_MARGIN
}

/// 503: nobody counts, and so nobody may pass.
fn uncounted() -> Fault {
    let message = "limits cannot be checked at the moment; try again";
    Fault::new(ErrorCode::Unavailable, message).with_retry_after(BUSY_RETRY)
}

/// 429. The words `retry after N seconds` are part of the contract (section 16.1).
fn refusal(what: rules::Limited, wait: Duration) -> Fault {
    let wait = if what.is_slots() { BUSY_RETRY } else { wait.min(LONGEST_RETRY) };
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    let words = what.words();
    let message = format!(
        "Requests have exceeded the {words} of this deployment. Please retry after {seconds} seconds."
    );
    Fault::new(ErrorCode::RateLimited, message).with_retry_after(wait)
}

#[cfg(test)]
mod tests;
