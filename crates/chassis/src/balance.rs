//! Spreads calls over the replicas of a service, and tries another one when a replica dies before it has answered.
//!
//! Separate from `grpc.rs`, which dials: here it is decided whom to ask. A replica is asked when it has the fewest calls of two
//! drawn by lot ("the power of two choices", Mitzenmacher 2001); a replica that failed is left alone for a while, longer each
//! time. The invariant: a call is repeated only while nothing of its answer has been handed on, and never when it may change
//! something that a first attempt may have changed already.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Service, ServiceExt as _};

/// Attempts of one call, the first included: enough to pass over a replica that went and one that is just going.
const ATTEMPTS: usize = 3;
/// Retries per second that are always allowed, and their share of all calls beyond that: replicas that are all ill are not
/// asked three times as much.
const RETRIES_PER_SECOND: u32 = 10;
const RETRY_SHARE: f32 = 0.2;
const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// How long a replica is left alone after its first failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Beginnings of method names whose calls change something: these are repeated only when they cannot have arrived.
const CHANGES: [&str; 6] = ["Create", "Update", "Delete", "Add", "Remove", "Put"];

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
}

impl Replica {
    pub(crate) fn new(name: String, channel: Channel) -> Self {
        Self { name, channel, pending: AtomicUsize::new(0), health: Mutex::default() }
    }

    fn rests(&self, now: Instant) -> bool {
        self.health().paused_until.is_some_and(|until| now < until)
    }

    fn succeeded(&self) {
        *self.health() = Health::default();
    }

    fn failed(&self) {
        let mut health = self.health();
        let pause = FIRST_PAUSE.saturating_mul(1 << health.failures.min(16)).min(LONGEST_PAUSE);
        health.failures = health.failures.saturating_add(1);
        health.paused_until = Some(Instant::now() + pause);
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
        balanced.set(replicas);
        balanced
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
            let request = Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            let (answer, fate) = attempt(&replica, request).await;
            match fate {
                Fate::Answered => replica.succeeded(),
                Fate::Busy => {}
                Fate::NotReached | Fate::Lost => replica.failed(),
            }
            let alone = self.all().len() < 2;
            let again = match fate {
                Fate::Answered => false,
                // The same one would say the same.
                Fate::Busy | Fate::NotReached => !alone,
                Fate::Lost => harmless,
            };
            tried.push(replica);
            if !again || tried.len() >= ATTEMPTS || !self.budget.withdraw() {
                return answer;
            }
            metrics::counter!("client_retries_total", "callee" => self.service).increment(1);
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// There is an answer, good or bad.
    Answered,
    /// It refuses: it is draining, or its queue is full.
    Busy,
    /// No connection.
    NotReached,
    /// The connection broke before the first part of the answer.
    Lost,
}

/// One attempt, waited for until the first part of the answer is there.
async fn attempt(replica: &Arc<Replica>, request: Request<Body>) -> (Response<Body>, Fate) {
    let pending = Pending::at(replica);
    let sent = async {
        let mut channel = replica.channel.clone();
        channel.ready().await?.call(request).await
    };
    let response = match sent.await {
        Ok(response) => response,
        Err(error) => {
            let fate = if unreached(&error) { Fate::NotReached } else { Fate::Lost };
            return (Status::from_error(Box::new(error)).into_http(), fate);
        }
    };
    let (head, mut body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return (Response::from_parts(head, body), fate_of(status.code()));
    }
    let first = body.frame().await;
    let fate = match &first {
        // The connection broke; a status of the service comes in a frame of trailers.
        Some(Err(status)) if lost(status.code()) => Fate::Lost,
        Some(Ok(frame)) => frame
            .trailers_ref()
            .and_then(Status::from_header_map)
            .map_or(Fate::Answered, |status| fate_of(status.code())),
        Some(Err(_)) | None => Fate::Answered,
    };
    (Response::from_parts(head, rest(first, body, pending)), fate)
}

/// The body again, whose first frame was taken; `pending` is dropped with it.
fn rest(first: Option<Result<Frame<Bytes>, Status>>, body: Body, pending: Pending) -> Body {
    let frames = stream::iter(first).chain(body.into_stream());
    Body::new(StreamBody::new(frames.map(move |frame| {
        let _held = &pending;
        frame
    })))
}

const fn fate_of(code: Code) -> Fate {
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        Fate::Busy
    } else {
        Fate::Answered
    }
}

/// How tonic reports a connection that broke.
const fn lost(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// Whether the request cannot have arrived: the connection was never made.
fn unreached(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<tonic::ConnectError>().is_some() {
            return true;
        }
        cause = error.source();
    }
    false
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
