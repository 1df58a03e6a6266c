//! Small state that replicas share: counters that expire. In this process, or in Redis.
//!
//! The only file that knows Redis. Every call is one round trip and bounded in time: a Redis that is slow or gone is an
//! error for the caller to decide about, never a hang.

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OnceCell};

use crate::Secret;

/// Counts and expires in one step, so that no counter lives for ever: two commands could be cut apart.
const COUNT: &str = "local n = redis.call('INCRBY', KEYS[1], ARGV[1])
local ttl = redis.call('PTTL', KEYS[1])
if ttl < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) ttl = tonumber(ARGV[2]) end
return {n, ttl}";
/// Expired counters of this process are swept when there are this many.
const SWEEP_AT: usize = 10_000;

/// Where shared state lives.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// `redis://host:6379`; empty keeps state in this process, where replicas do not see each other's.
    pub redis_url: Secret,
    /// How long one call may take.
    pub timeout_ms: u64,
}

/// A counter's value after counting, and when it starts again from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Including what was just added.
    pub total: u64,
    /// Time until the window ends.
    pub resets_in: Duration,
}

/// Why shared state could not be reached; never holds the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No answer within `timeout_ms`.
    #[error("shared state did not answer within {0:?}")]
    Timeout(Duration),
    /// Redis refused or is unreachable.
    #[error("shared state failed: {0}")]
    Redis(String),
}

/// Handle on shared state; clones share everything.
#[derive(Debug, Clone)]
pub struct State {
    place: Arc<Place>,
    timeout: Duration,
}

enum Place {
    Here(Mutex<HashMap<String, (u64, Instant)>>),
    Redis { client: redis::Client, connection: OnceCell<ConnectionManager> },
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Redis { .. } => "Redis",
        })
    }
}

impl State {
    /// Parses the URL; connects on first use and reconnects by itself.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn open(config: &StateConfig) -> Result<Self, StateError> {
        let timeout = Duration::from_millis(config.timeout_ms);
        let url = config.redis_url.expose();
        let place = if url.is_empty() {
            Place::Here(Mutex::default())
        } else {
            // The library's own message may quote the URL, and with it a password.
            let client = redis::Client::open(url).map_err(|_quotes_url| {
                StateError::Redis("`redis_url` is not a URL like redis://host:6379".to_owned())
            })?;
            Place::Redis { client, connection: OnceCell::new() }
        };
        Ok(Self { place: Arc::new(place), timeout })
    }

    /// Adds `amount` to the counter `key`, which starts at zero every `window`.
    ///
    /// # Errors
    /// When Redis does not answer in time.
    pub async fn count(
        &self,
        key: &str,
        amount: u64,
        window: Duration,
    ) -> Result<Count, StateError> {
        match self.place.as_ref() {
            Place::Here(counters) => {
                Ok(count_here(&mut *counters.lock().await, key, amount, window))
            }
            Place::Redis { client, connection } => {
                let ask = count_redis(client, connection, (key, amount, window), self.timeout);
                tokio::time::timeout(self.timeout, ask)
                    .await
                    .map_err(|_elapsed| StateError::Timeout(self.timeout))?
            }
        }
    }
}

fn count_here(
    counters: &mut HashMap<String, (u64, Instant)>,
    key: &str,
    amount: u64,
    window: Duration,
) -> Count {
    let now = Instant::now();
    if counters.len() >= SWEEP_AT {
        counters.retain(|_, (_, ends)| *ends > now);
    }
    let entry = counters.entry(key.to_owned()).or_insert((0, now + window));
    if entry.1 <= now {
        *entry = (0, now + window);
    }
    entry.0 = entry.0.saturating_add(amount);
    Count { total: entry.0, resets_in: entry.1.saturating_duration_since(now) }
}

async fn count_redis(
    client: &redis::Client,
    connection: &OnceCell<ConnectionManager>,
    (key, amount, window): (&str, u64, Duration),
    timeout: Duration,
) -> Result<Count, StateError> {
    let failed = |error: redis::RedisError| StateError::Redis(error.category().to_owned());
    let connect = || async {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        client.get_connection_manager_with_config(config).await
    };
    let mut connection = connection.get_or_try_init(connect).await.map_err(failed)?.clone();
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let (total, ttl): (u64, u64) = redis::Script::new(COUNT)
        .key(format!("koine:count:{key}"))
        .arg(amount)
        .arg(window_ms)
        .invoke_async(&mut connection)
        .await
        .map_err(failed)?;
    Ok(Count { total, resets_in: Duration::from_millis(ttl) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<State, StateError> {
        State::open(&StateConfig { redis_url: Secret::new(url), timeout_ms: 200 })
    }

    #[tokio::test]
    async fn counts_within_a_window_and_starts_again_after_it() {
        let state = open("").unwrap();
        assert_eq!(state.count("a", 2, Duration::from_secs(60)).await.unwrap().total, 2);
        let second = state.count("a", 3, Duration::from_secs(60)).await.unwrap();
        assert_eq!(second.total, 5);
        assert!(second.resets_in <= Duration::from_secs(60));
        assert_eq!(state.count("b", 1, Duration::ZERO).await.unwrap().total, 1);
        assert_eq!(state.count("b", 1, Duration::ZERO).await.unwrap().total, 1);
    }

    #[tokio::test]
    async fn a_redis_that_is_gone_is_an_error_in_time_and_shows_no_password() {
        // Bound and never accepted from: a port that nothing answers on.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let state = open(&format!("redis://:hush@127.0.0.1:{port}")).unwrap();
        let error = state.count("a", 1, Duration::from_secs(1)).await.unwrap_err();
        assert!(!format!("{error} {state:?}").contains("hush"));
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_quoting_it() {
        let error = open("http://:hush@nowhere").unwrap_err().to_string();
        assert!(error.contains("redis://host:6379") && !error.contains("hush"), "{error}");
    }
}
