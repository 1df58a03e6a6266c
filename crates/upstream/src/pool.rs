//! The endpoints that serve one model: weights, another attempt elsewhere, and a breaker for each.
//!
//! An attempt is only repeated before the first byte reached the caller, so no piece is ever sent twice, and only while repeated
//! ones are a small share of all. Endpoints take turns by weight, smoothly: 3 to 1 goes a a b a, not a a a b.

use crate::breaker::{Breaker, Rule};
use crate::client::{ApiKey, Client};
use crate::error::UpstreamError;
use crate::events::Events;
use crate::options::Options;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tower::retry::budget::{Budget as _, TpsBudget};

/// The first pause before the same endpoint is tried again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Repeated attempts per second that are always allowed, and their share of all calls beyond that: servers that are all ill are not
/// asked three times as much.
const RETRIES_PER_SECOND: u32 = 10;
const RETRY_SHARE: f32 = 0.2;
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// Where a model is served.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// At least one.
    pub endpoints: Vec<EndpointConfig>,
    /// The key of all of them.
    pub api_key: Option<ApiKey>,
    /// Patience and repetition.
    pub options: Options,
    /// What is sent beside, asked for anew for each attempt where it is made: the context of a trace.
    pub headers: fn() -> HeaderMap,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Up to and including `/v1`.
    pub base_url: String,
    /// Its share of the calls, at least 1.
    pub weight: u32,
}

impl EndpointConfig {
    /// One for each base URL; those without a weight have 1.
    #[must_use]
    pub fn list(base_urls: &[String], weights: &[u32]) -> Vec<Self> {
        let weights = weights.iter().copied().chain(std::iter::repeat(1));
        let one = |(base_url, weight): (&String, u32)| Self { base_url: base_url.clone(), weight };
        base_urls.iter().zip(weights).map(one).collect()
    }
}

/// What is asked for as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/chat/completions`
    ChatCompletions,
    /// `/completions`
    Completions,
}

impl Route {
    const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Completions => "completions",
        }
    }
}

/// The endpoints of one model.
#[derive(Debug)]
pub struct Pool {
    endpoints: Vec<Endpoint>,
    turns: Mutex<Vec<i64>>,
    retries: u32,
    budget: TpsBudget,
    rule: Rule,
    health_interval: Duration,
}

#[derive(Debug)]
struct Endpoint {
    client: Arc<Client>,
    weight: u32,
    breaker: Mutex<Breaker>,
}

impl Pool {
    /// Builds the clients; connects to nothing yet.
    ///
    /// # Errors
    /// `Config` when there is no endpoint, or a base URL or a weight cannot work.
    pub fn build(config: &PoolConfig) -> Result<Self, UpstreamError> {
        let options = &config.options;
        let mut endpoints = Vec::with_capacity(config.endpoints.len());
        for EndpointConfig { base_url, weight } in &config.endpoints {
            if *weight == 0 {
                return Err(UpstreamError::Config("a weight must be at least 1".to_owned()));
            }
            let with = (options.timeouts(), config.headers);
            let client = Client::build(base_url, config.api_key.as_ref(), with)?;
            endpoints.push(Endpoint {
                client: Arc::new(client),
                weight: *weight,
                breaker: Mutex::default(),
            });
        }
        if endpoints.is_empty() {
            return Err(UpstreamError::Config("there must be at least one endpoint".to_owned()));
        }
        let rule = Rule {
            failures: options.breaker_failures.max(1),
            pause: Duration::from_millis(options.breaker_pause_ms),
        };
        let turns = Mutex::new(vec![0; endpoints.len()]);
        Ok(Self {
            endpoints,
            turns,
            retries: options.retries,
            budget: TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_SHARE),
            rule,
            health_interval: Duration::from_millis(options.health_interval_ms),
        })
    }

    /// Asks every endpoint for its models now and then, for ever: one that is back is used at once, one that went before a
    /// caller finds out. Returns at once where that is not wanted.
    pub async fn watch(&self) {
        if self.health_interval.is_zero() {
            return;
        }
        loop {
            tokio::time::sleep(self.health_interval).await;
            futures::future::join_all(self.endpoints.iter().map(|e| self.look_at(e))).await;
        }
    }

    /// An endpoint that says no is well: it answers.
    async fn look_at(&self, endpoint: &Endpoint) {
        let asked = tokio::time::timeout(self.health_interval, endpoint.client.get("models")).await;
        match asked {
            Ok(answer) => endpoint.record(&answer, self.rule),
            Err(_elapsed) => lock(&endpoint.breaker).failed(self.rule, Instant::now()),
        }
    }

    /// Asks for a stream; `body` must say `"stream": true`. The first event is there when this returns.
    ///
    /// # Errors
    /// Of the last attempt.
    pub async fn stream(&self, route: Route, body: &Value) -> Result<Events, UpstreamError> {
        let body = Bytes::from(body.to_string());
        self.attempt(|client| {
            let body = body.clone();
            async move { client.stream(route.path(), body).await }
        })
        .await
    }

    /// `/embeddings`
    ///
    /// # Errors
    /// Of the last attempt.
    pub async fn embeddings(&self, body: &Value) -> Result<Value, UpstreamError> {
        let body = Bytes::from(body.to_string());
        self.attempt(|client| {
            let body = body.clone();
            async move { client.post("embeddings", body).await }
        })
        .await
    }

    /// `/models`: what the server says it serves.
    ///
    /// # Errors
    /// Of the last attempt.
    pub async fn models(&self) -> Result<Value, UpstreamError> {
        self.attempt(|client| async move { client.get("models").await }).await
    }

    // Not an `AsyncFn(&Client)`: its futures cannot be shown to be `Send` for every lifetime.
    async fn attempt<T, F>(&self, call: impl Fn(Arc<Client>) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut tried = vec![false; self.endpoints.len()];
        let mut pause = FIRST_PAUSE;
        let mut failure = None;
        self.budget.deposit();
        for _ in 0..=self.retries {
            if let Some(failure) = failure.take_if(|_| !self.budget.withdraw()) {
                return Err(failure);
            }
            if failure.is_some() && !self.has_fresh(&tried) {
                // Everyone had a turn: give them time, unequally so that callers do not come back as one.
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                tried.fill(false);
            }
            let (index, endpoint) = match self.choose(&tried) {
                Ok(chosen) => chosen,
                Err(unhealthy) => return Err(failure.unwrap_or(unhealthy)),
            };
            tried[index] = true;
            let result = call(Arc::clone(&endpoint.client)).await;
            endpoint.record(&result, self.rule);
            match result {
                Err(error) if error.retryable() => failure = Some(error),
                done @ (Ok(_) | Err(_)) => return done,
            }
        }
        Err(failure.unwrap_or(UpstreamError::Unhealthy { retry_after: Duration::ZERO }))
    }

    /// Whether a healthy endpoint is left that this request has not tried.
    fn has_fresh(&self, tried: &[bool]) -> bool {
        !self.candidates(tried, Instant::now()).is_empty()
    }

    fn candidates(&self, tried: &[bool], now: Instant) -> Vec<usize> {
        let healthy = |index: &usize| lock(&self.endpoints[*index].breaker).wait(now).is_none();
        (0..self.endpoints.len()).filter(|index| !tried[*index]).filter(healthy).collect()
    }

    /// The healthy endpoint whose turn it is, of those not tried.
    fn choose(&self, tried: &[bool]) -> Result<(usize, &Endpoint), UpstreamError> {
        let now = Instant::now();
        let Some((index, endpoint)) = self.take_turn(self.candidates(tried, now)) else {
            let waits = self.endpoints.iter().filter_map(|e| lock(&e.breaker).wait(now));
            return Err(UpstreamError::Unhealthy { retry_after: waits.min().unwrap_or_default() });
        };
        lock(&endpoint.breaker).begin(self.rule, now);
        Ok((index, endpoint))
    }

    /// Smooth weighted turns: everyone earns its weight, the richest goes and pays for all.
    fn take_turn(&self, candidates: Vec<usize>) -> Option<(usize, &Endpoint)> {
        let mut turns = lock(&self.turns);
        let mut total = 0;
        for &index in &candidates {
            let weight = i64::from(self.endpoints[index].weight);
            turns[index] += weight;
            total += weight;
        }
        // `rev`: of equals the first goes.
        let chosen = candidates.into_iter().rev().max_by_key(|&index| turns[index])?;
        turns[chosen] -= total;
        Some((chosen, &self.endpoints[chosen]))
    }
}

impl Endpoint {
    fn record<T>(&self, result: &Result<T, UpstreamError>, rule: Rule) {
        let mut breaker = lock(&self.breaker);
        match result {
            Err(error) if error.blames_endpoint() => breaker.failed(rule, Instant::now()),
            Ok(_) | Err(_) => breaker.succeeded(),
        }
    }
}

/// What these locks guard is valid at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(weights: &[u32]) -> PoolConfig {
        let base_urls = vec!["http://127.0.0.1:1/v1".to_owned(); weights.len()];
        PoolConfig {
            endpoints: EndpointConfig::list(&base_urls, weights),
            api_key: None,
            options: Options { breaker_failures: 1, ..Options::default() },
            headers: HeaderMap::new,
        }
    }

    fn pool(weights: &[u32]) -> Pool {
        Pool::build(&config(weights)).unwrap()
    }

    fn turns(pool: &Pool, many: usize) -> Vec<usize> {
        (0..many).map(|_| pool.choose(&vec![false; pool.endpoints.len()]).unwrap().0).collect()
    }

    #[test]
    fn endpoints_take_turns_by_weight() {
        assert_eq!(turns(&pool(&[1, 1]), 4), [0, 1, 0, 1]);
        assert_eq!(turns(&pool(&[3, 1]), 8), [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_request_tries_everyone_before_anyone_twice() {
        let pool = pool(&[9, 1, 1]);
        let mut tried = vec![false; 3];
        let mut order = Vec::new();
        for _ in 0..3 {
            let (index, _) = pool.choose(&tried).unwrap();
            tried[index] = true;
            order.push(index);
        }
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
        assert!(!pool.has_fresh(&tried));
    }

    #[test]
    fn a_broken_endpoint_is_passed_over_and_all_broken_fail_at_once() {
        let pool = pool(&[1, 1]);
        let broken = || Err::<(), _>(UpstreamError::broken("a", "died"));
        pool.endpoints[0].record(&broken(), pool.rule);
        assert_eq!(turns(&pool, 3), [1, 1, 1]);
        pool.endpoints[1].record(&broken(), pool.rule);
        let error = pool.choose(&[false, false]).unwrap_err();
        assert!(matches!(error, UpstreamError::Unhealthy { .. }), "{error}");
        pool.endpoints[0].record(&Ok(()), pool.rule);
        assert_eq!(turns(&pool, 2), [0, 0]);
    }

    #[tokio::test]
    async fn repeated_attempts_stay_a_small_share_of_all() {
        let mut config = config(&[1, 1]);
        config.options = Options { breaker_failures: u32::MAX, retries: 1, ..Options::default() };
        let pool = Pool::build(&config).unwrap();
        let attempts = std::sync::atomic::AtomicU32::new(0);
        for _ in 0..1_000 {
            let attempt = |_| {
                attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::future::ready(Err::<(), _>(UpstreamError::broken("a", "died")))
            };
            pool.attempt(attempt).await.unwrap_err();
        }
        let repeated = attempts.into_inner() - 1_000;
        assert!((100..=400).contains(&repeated), "{repeated}");
    }

    #[test]
    fn a_pool_without_endpoints_or_weight_is_refused() {
        assert!(Pool::build(&config(&[])).is_err());
        assert!(Pool::build(&config(&[1, 0])).is_err());
    }

    #[test]
    fn endpoints_without_weights_have_equal_shares() {
        let base_urls = ["a".to_owned(), "b".to_owned()];
        let shares = |weights: &[u32]| -> Vec<u32> {
            EndpointConfig::list(&base_urls, weights).iter().map(|e| e.weight).collect()
        };
        assert_eq!(shares(&[]), [1, 1]);
        assert_eq!(shares(&[3, 2]), [3, 2]);
    }
}
