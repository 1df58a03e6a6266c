//! Counters in Redis: what several edges count by together.
//!
//! A connection that failed or timed out is thrown away, for nobody knows what is still on its way; the next call dials again.

use super::{Change, Demand, Kind, Settlement, Standing, StateConfig, StateError, Taken};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError,
    Script, TlsCertificates,
};
use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// In front of every key, for a Redis that others use too.
const PREFIX: &str = "koine:";
/// How often a Redis that failed is asked whether it answers again.
const RETRY: Duration = Duration::from_millis(250);
/// Figures per counter in the answer of `take.lua`.
const FIGURES: usize = 4;

/// Counters in Redis.
pub struct Shared {
    server: ConnectionInfo,
    /// Empty for those that the system trusts.
    ca_file: String,
    connection: Mutex<Option<MultiplexedConnection>>,
    timeout: Duration,
    take: Script,
    settle: Script,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The server's part may hold a password.
        f.debug_struct("Shared").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Shared {
    /// Parses the URL and connects to nothing yet; none where no URL is configured.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn open(config: &StateConfig) -> Result<Option<Self>, StateError> {
        let url = config.redis_url.expose();
        if url.is_empty() {
            return Ok(None);
        }
        // The library's own message may quote the URL, and with it a password.
        let server = url.into_connection_info().map_err(|_quotes_url| {
            let expected = "`redis_url` is not a URL like redis://host:6379 or rediss://host:6380";
            StateError::Redis(expected.to_owned())
        })?;
        Ok(Some(Self {
            server,
            ca_file: config.redis_ca_file.clone(),
            connection: Mutex::default(),
            timeout: Duration::from_millis(config.timeout_ms),
            take: Script::new(include_str!("take.lua")),
            settle: Script::new(include_str!("settle.lua")),
        }))
    }

    /// Takes from all counters of `demand`, or from none.
    ///
    /// # Errors
    /// When Redis does not answer in time or refuses. Then it may all the same have taken: settle the slots of `demand`.
    pub async fn take(&self, demand: &Demand) -> Result<Taken, StateError> {
        let mut call = self.take.prepare_invoke();
        let least = u64::from(!demand.lease.is_zero());
        call.arg(&demand.id).arg(milliseconds(demand.lease).max(least));
        for counter in &demand.counters {
            let (window, amount) = match counter.kind {
                Kind::Rate { window, amount } => (milliseconds(window).max(1), amount),
                Kind::Slots => (0, 0),
            };
            call.key(key(&counter.key)).arg(counter.limit).arg(window).arg(amount);
        }
        let ask = async |mut connection| call.invoke_async(&mut connection).await;
        let answer: Vec<i64> = self.bounded(ask).await?;
        let figure = |n: i64| u64::try_from(n).unwrap_or(0);
        let Some((admitted, figures)) = answer.split_first() else {
            return Err(StateError::Redis("no figures".to_owned()));
        };
        let standings = figures.chunks_exact(FIGURES).map(|f| Standing {
            used: figure(f[0]),
            wait: Duration::from_millis(figure(f[1])),
            resets_in: Duration::from_millis(figure(f[2])),
            window: figure(f[3]),
        });
        Ok(Taken { admitted: *admitted == 1, standings: standings.collect() })
    }

    /// Gives back, or takes more, whatever the limit.
    ///
    /// # Errors
    /// When Redis does not answer in time or refuses.
    pub async fn settle(&self, settlement: &Settlement) -> Result<(), StateError> {
        if settlement.changes.is_empty() {
            return Ok(());
        }
        let mut call = self.settle.prepare_invoke();
        call.arg(&settlement.id);
        for change in &settlement.changes {
            let (window, index, delta) = match change {
                Change::Rate { window, index, delta, .. } => {
                    (milliseconds(*window).max(1), *index, *delta)
                }
                Change::Slot { .. } => (0, 0, 0),
            };
            call.key(key(change.key())).arg(window).arg(index).arg(delta);
        }
        let ask = async |mut connection| call.invoke_async::<i64>(&mut connection).await;
        self.bounded(ask).await.map(|_done| ())
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StateError> {
        let ask = async |mut connection: MultiplexedConnection| {
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        self.bounded(ask).await.map(|_pong| ())
    }

    /// Returns when Redis answers again; asks now and then, for as long as it is polled.
    pub async fn until_it_answers(&self) {
        loop {
            tokio::time::sleep(RETRY).await;
            if self.ping().await.is_ok() {
                return;
            }
        }
    }

    /// Connects where it must and asks, both within the timeout.
    pub(super) async fn bounded<T, F>(
        &self,
        ask: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, StateError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let whole = async { ask(self.connection().await?).await };
        let outcome = match tokio::time::timeout(self.timeout, whole).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if refused(&error) => StateError::Refused,
            Ok(Err(error)) => StateError::Redis(describe(&error)),
            Err(_elapsed) => StateError::Timeout(self.timeout),
        };
        // Somebody else may be dialling; then there is nothing to throw away.
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
        Err(outcome)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let client = self.client().await?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Made for each connection, so that certificates that were renewed count with the next one.
    async fn client(&self) -> Result<Client, RedisError> {
        let server = self.server.clone();
        if self.ca_file.is_empty() {
            return Client::open(server);
        }
        let root_cert = Some(tokio::fs::read(&self.ca_file).await?);
        Client::build_with_tls(server, TlsCertificates { client_tls: None, root_cert })
    }
}

pub(super) fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Whether it is the user or the password that is wrong, or missing.
fn refused(error: &RedisError) -> bool {
    let code = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    code || error.kind() == ErrorKind::AuthenticationFailed
}

/// The kind of error with the code of Redis, or with what the network or TLS says; the message of Redis could quote what was sent.
fn describe(error: &RedisError) -> String {
    let cause = error.code().map(str::to_owned).or_else(|| network(error));
    match cause {
        Some(cause) => format!("{} ({cause})", error.category()),
        None => error.category().to_owned(),
    }
}

fn network(error: &RedisError) -> Option<String> {
    let held = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    held.downcast_ref::<io::Error>().map(ToString::to_string)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Counter;
    use super::*;
    use crate::Secret;

    pub(in super::super) fn demand<const N: usize>(id: &str, counters: [Counter; N]) -> Demand {
        Demand { id: id.into(), lease: Duration::from_secs(10), counters: counters.into() }
    }

    pub(in super::super) fn rate(key: &str, limit: u64, amount: u64) -> Counter {
        let kind = Kind::Rate { window: Duration::from_secs(60), amount };
        Counter { key: key.into(), limit, kind }
    }

    pub(in super::super) fn slots(key: &str, limit: u64) -> Counter {
        Counter { key: key.into(), limit, kind: Kind::Slots }
    }

    pub(in super::super) fn settle_rate(key: &str, index: u64, delta: i64) -> Settlement {
        let window = Duration::from_secs(60);
        let change = Change::Rate { key: key.into(), window, index, delta };
        Settlement { id: "d".into(), changes: vec![change] }
    }

    fn open(url: &str) -> Result<Option<Shared>, StateError> {
        Shared::open(&StateConfig {
            redis_url: Secret::new(url),
            redis_ca_file: String::new(),
            timeout_ms: 200,
        })
    }

    #[tokio::test]
    async fn a_redis_that_is_silent_is_an_error_in_time_and_shows_no_password() {
        // Bound and never accepted from: a port that nothing answers on.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let state = open(&format!("redis://:hush@127.0.0.1:{port}")).unwrap().unwrap();
        let error = state.take(&demand("d", [rate("a", 1, 1)])).await.unwrap_err();
        assert!(!format!("{error} {state:?}").contains("hush"));
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_quoting_it() {
        let error = open("http://:hush@nowhere").unwrap_err().to_string();
        assert!(error.contains("redis://host:6379") && !error.contains("hush"), "{error}");
        assert!(open("").unwrap().is_none());
    }
}
