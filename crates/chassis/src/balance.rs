//! Spreads calls over the replicas of a service, and tries another one when a replica dies before it has answered.
//!
//! Separate from `grpc.rs`, which dials: here it is decided whom to ask. A replica is asked when it has the fewest calls of two
//! drawn by lot ("the power of two choices", Mitzenmacher 2001); a replica that failed is left alone for a while, longer each
//! time, and must then show that it is there before it gets calls among others. `attempt.rs` asks one replica and says what became
//! of it. The invariant: a call is repeated only while nothing of its answer has been handed on, and never when it may change
//! something that a first attempt may have changed already.

mod attempt;

pub(crate) use attempt::DRAINING;

use attempt::{Fate, attempt, proof};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;
use tower::retry::budget::{Budget as _, TpsBudget};

/// Attempts of one call, the first included: enough to pass over a replica that went and one that is just going.
const ATTEMPTS: usize = 3;
/// Retries per second that are always allowed, and their share of all calls beyond that: replicas that are all ill are not
/// asked three times as much.
const RETRIES_PER_SECOND: u32 = 10;
const RETRY_SHARE: f32 = 0.2;
const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// How long a replica is left alone after its first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a replica may take to say that it is there, before it gets calls among others. One that loads its models has its
/// port already, and would keep a call until it has them.
const PROOF_TIMEOUT: Duration = Duration::from_millis(500);
/// Beginnings of method names whose calls change something: these are repeated only when they cannot have arrived.
const CHANGES: [&str; 7] = ["Create", "Update", "Upsert", "Delete", "Add", "Remove", "Put"];

/// A channel over all replicas; clones share everything.
#[derive(Clone)]
pub struct Balanced {
    shared: Arc<Shared>,
}

struct Shared {
    /// What the replicas serve, for metrics.
    service: &'static str,
    replicas: RwLock<Vec<Arc<Replica>>>,
    budget: TpsBudget,
}

/// One process that serves.
#[derive(Debug)]
pub(crate) struct Replica {
    /// What tells it from the others.
    pub(crate) name: String,
    channel: Channel,
    /// Calls whose answers have not ended.
    pending: AtomicUsize,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    paused_until: Option<Instant>,
    /// Whether it has answered since it was found, or failed last.
    proven: bool,
}

impl Replica {
    pub(crate) fn new(name: String, channel: Channel) -> Self {
        Self { name, channel, pending: AtomicUsize::new(0), health: Mutex::default() }
    }

    fn rests(&self, now: Instant) -> bool {
        self.health().paused_until.is_some_and(|until| now < until)
    }

    fn succeeded(&self) {
        *self.health() = Health { proven: true, ..Health::default() };
    }

    fn is_proven(&self) -> bool {
        self.health().proven
    }

    /// Whether it is there. Others leave it alone meanwhile.
    async fn proves_itself(self: &Arc<Self>) -> bool {
        self.health().paused_until = Some(Instant::now() + PROOF_TIMEOUT);
        let fate = tokio::time::timeout(PROOF_TIMEOUT, attempt(self, proof())).await;
        self.health().paused_until = None;
        let there = matches!(fate, Ok((_, Fate::Answered | Fate::Busy)));
        if there {
            self.succeeded();
        } else {
            self.failed();
        }
        there
    }

    /// What fails while it rests began before, and tells nothing new: many calls that break at once are one failure.
    fn failed(&self) {
        let now = Instant::now();
        let mut health = self.health();
        if health.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << health.failures.min(16)).min(LONGEST_PAUSE);
        health.failures = health.failures.saturating_add(1);
        health.paused_until = Some(now + pause);
        health.proven = false;
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        // A plain value: nothing can panic half-way through a change.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one call at its replica until it is dropped.
struct Pending(Arc<Replica>);

impl Pending {
    fn at(replica: &Arc<Replica>) -> Self {
        replica.pending.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(replica))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Balanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.shared.all().iter().map(|r| r.name.clone()).collect();
        f.debug_struct("Balanced").field("replicas", &names).finish()
    }
}

impl Balanced {
    pub(crate) fn new(service: &'static str, replicas: Vec<Replica>) -> Self {
        let budget = TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE);
        let shared = Shared { service, replicas: RwLock::default(), budget };
        let balanced = Self { shared: Arc::new(shared) };
        // There before the first retry, for a rate does not see how a series begins.
        metrics::counter!("client_retries_total", "callee" => service).increment(0);
        balanced.set(replicas);
        balanced
    }

    pub(crate) fn downgrade(&self) -> WeakBalanced {
        WeakBalanced { shared: Arc::downgrade(&self.shared) }
    }

    /// From now on these are the replicas; one of a name that is known keeps its connection and its record, and calls at one
    /// that is gone end undisturbed.
    pub(crate) fn set(&self, replicas: Vec<Replica>) {
        let mut known = self.shared.replicas.write().unwrap_or_else(PoisonError::into_inner);
        let kept = |new: Replica| {
            let old = known.iter().find(|old| old.name == new.name).map(Arc::clone);
            old.unwrap_or_else(|| Arc::new(new))
        };
        *known = replicas.into_iter().map(kept).collect();
        metrics::gauge!("client_replicas", "callee" => self.shared.service)
            .set(u32::try_from(known.len()).map_or(f64::MAX, f64::from));
    }
}

/// A channel that does not keep its replicas.
#[derive(Clone)]
pub(crate) struct WeakBalanced {
    shared: Weak<Shared>,
}

impl WeakBalanced {
    /// The channel, while somebody has it.
    pub(crate) fn upgrade(&self) -> Option<Balanced> {
        self.shared.upgrade().map(|shared| Balanced { shared })
    }
}

impl Shared {
    fn all(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The replica to ask: not one of `tried` if there is another, nor one that rests.
    fn pick(&self, tried: &[Arc<Replica>]) -> Option<Arc<Replica>> {
        let now = Instant::now();
        let all = self.all();
        let fresh = |r: &&Arc<Replica>| !tried.iter().any(|t| Arc::ptr_eq(t, r));
        let mut choice: Vec<_> = all.iter().filter(fresh).filter(|r| !r.rests(now)).collect();
        if choice.is_empty() {
            choice = all.iter().filter(fresh).collect();
        }
        if choice.is_empty() {
            choice = all.iter().collect();
        }
        let draw = || choice.get(rand::random_range(0..choice.len().max(1)));
        let (one, other) = (draw()?, draw()?);
        let fewest =
            std::cmp::min_by_key(one, other, |replica| replica.pending.load(Ordering::Acquire));
        Some(Arc::clone(fewest))
    }

    async fn call(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        self.budget.deposit();
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(status) => return status.into_http(),
        };
        let harmless = !changes(head.uri.path());
        let mut tried: Vec<Arc<Replica>> = Vec::new();
        loop {
            let Some(replica) = self.pick(&tried) else {
                return Status::unavailable("no replica is known").into_http();
            };
            let alone = self.all().len() < 2;
            let last = tried.len() + 1 >= ATTEMPTS;
            if !alone && !last && !replica.is_proven() && !replica.proves_itself().await {
                tried.push(replica);
                continue;
            }
            let request = Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            let (answer, fate) = attempt(&replica, request).await;
            match fate {
                Fate::Answered => replica.succeeded(),
                // A full queue has many calls pending, which is looked at anyway.
                Fate::Busy | Fate::Late => {}
                Fate::Leaving | Fate::NotReached | Fate::Lost => replica.failed(),
            }
            tried.push(replica);
            let again = tried.len() < ATTEMPTS
                && match fate {
                    Fate::Answered | Fate::Late => false,
                    // The same one would say the same. It cost nothing, so that no budget is needed: without one, a replica
                    // that leaves in good order would fail whatever the others could not take out of it.
                    Fate::Leaving => !alone,
                    Fate::Busy | Fate::NotReached => !alone && self.budget.withdraw(),
                    Fate::Lost => harmless && self.budget.withdraw(),
                };
            if !again {
                return answer;
            }
            metrics::counter!("client_retries_total", "callee" => self.service).increment(1);
        }
    }
}

/// Whether a call of the method at `path` (`/package.Service/Method`) may change something.
fn changes(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    CHANGES.iter().any(|verb| method.starts_with(verb))
}

impl Service<Request<Body>> for Balanced {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(shared.call(request).await) })
    }
}

#[cfg(test)]
mod tests;
