//! Answers that are given again: to a request that is the same as an earlier one, and to requests that are the same at the same
//! time.
//!
//! Separate from the clients in `app.rs`, which it wraps: what is kept are the messages of a service, before content safety
//! looks at them, so that every answer is screened by the policy of its own request. The invariants: only whole answers are
//! kept; a computation runs while anybody waits for it and no longer; a cache that is away costs a caller nothing but the work.

mod flight;
mod key;
mod store;

pub use key::{Key, Kind};

use crate::config::Config;
use crate::events;
use api_types::{ErrorCode, Fault};
use chassis::Tasks;
use chassis::state::StateError;
use flight::{Flight, Flights, Frames};
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::Message;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tracing::Instrument as _;

/// Encoded messages of a service, in order.
pub type FrameStream = BoxStream<'static, Result<bytes::Bytes, Fault>>;

/// Which answers are given again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Vectors.
    pub embeddings: bool,
    /// Generated text of requests with temperature 0 or a seed.
    pub chat: bool,
    /// Verdicts of content safety.
    pub verdicts: bool,
    /// Who may be given an answer that was computed for somebody.
    pub scope: Scope,
    /// Where answers are kept.
    pub store: Place,
    /// How long an answer is given again.
    pub ttl_secs: u64,
    /// How long a verdict is given again.
    pub verdict_ttl_secs: u64,
    /// Room for answers in this process.
    pub memory_bytes: u64,
    /// Larger answers are not kept.
    pub entry_bytes: usize,
}

/// Who may be given an answer that was computed for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The same caller.
    Caller,
    /// Everybody.
    Shared,
}

/// Where answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In each edge.
    Process,
    /// In the Redis of `edge.state`.
    Redis,
}

impl CacheConfig {
    /// Whether answers of `kind` are given again.
    #[must_use]
    pub const fn keeps(&self, kind: Kind) -> bool {
        match kind {
            Kind::Embedding => self.embeddings,
            Kind::Chat | Kind::Completions => self.chat,
            Kind::Verdict => self.verdicts,
        }
    }

    const fn ttl(&self, kind: Kind) -> Duration {
        Duration::from_secs(match kind {
            Kind::Embedding | Kind::Chat | Kind::Completions => self.ttl_secs,
            Kind::Verdict => self.verdict_ttl_secs,
        })
    }
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was kept.
    Hit,
    /// It is computed for this request.
    Miss,
    /// It is computed for another request that is the same.
    Joined,
}

impl Source {
    /// As the header `x-koine-cache` says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
        }
    }
}

/// The cache; clones share everything.
#[derive(Debug, Clone)]
pub struct Cache {
    config: Arc<CacheConfig>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    tasks: Tasks,
}

impl Cache {
    /// The cache of `config`; keeps nothing where it says so.
    ///
    /// # Errors
    /// When the URL of Redis is not one.
    pub fn build(config: &Config, tasks: &Tasks) -> Result<Self, StateError> {
        Ok(Self {
            config: Arc::new(config.cache.clone()),
            store: Store::open(&config.cache, &config.state, tasks)?,
            flights: Arc::default(),
            tasks: tasks.clone(),
        })
    }

    /// The options.
    #[must_use]
    pub fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// The messages that answer `key`: kept ones, those on their way to somebody else, or what `compute` gives. The first is
    /// there when this returns.
    ///
    /// # Errors
    /// What `compute` says before its first message.
    pub async fn answer(
        &self,
        key: Key,
        compute: impl Future<Output = Result<FrameStream, Fault>> + Send + 'static,
    ) -> Result<(Source, FrameStream), Fault> {
        let kind = key.kind;
        if let Some(frames) = self.store.get(&key).await {
            events::cached(kind.as_str(), Source::Hit.as_str());
            return Ok((Source::Hit, frames.into_stream()));
        }
        let (flight, follower) = match self.flights.enter(&key) {
            (Some(flight), follower) => (flight, follower),
            (None, follower) => match follower.begin().await {
                Ok(stream) => {
                    events::cached(kind.as_str(), Source::Joined.as_str());
                    return Ok((Source::Joined, stream));
                }
                // Another's failure: it may have been out of time where this request is not.
                Err(_) => Flight::new(),
            },
        };
        events::cached(kind.as_str(), Source::Miss.as_str());
        self.tasks.spawn(self.clone().lead(flight, key, compute).in_current_span());
        Ok((Source::Miss, follower.begin().await?))
    }

    /// The one message that answers `key`; as `answer`.
    ///
    /// # Errors
    /// What `compute` says.
    pub(crate) async fn message<M: Message + Default + 'static>(
        &self,
        key: Key,
        compute: impl Future<Output = Result<M, Fault>> + Send + 'static,
    ) -> Result<(Source, M), Fault> {
        let frames = async move {
            let message = compute.await?;
            Ok(stream::iter([Ok(message.encode_to_vec().into())]).boxed())
        };
        let (source, mut frames) = self.answer(key, frames).await?;
        // No message must never be read as the empty one: of verdicts, that one blocks nothing.
        let frame = frames.next().await.ok_or_else(unreadable)??;
        Ok((source, decode(frame)?))
    }

    /// Computes an answer for as long as anybody waits, and keeps it.
    async fn lead(
        self,
        flight: Flight,
        key: Key,
        compute: impl Future<Output = Result<FrameStream, Fault>> + Send,
    ) {
        let whole: Option<Frames> = flight.run(compute).await;
        // Kept first, so that whoever comes now finds one or the other.
        if let Some(frames) = whole.filter(|frames| frames.bytes() <= self.config.entry_bytes) {
            self.store.put(&key, &frames, self.config.ttl(key.kind)).await;
        }
        self.flights.close(&key, &flight);
    }
}

/// A message that was kept.
///
/// # Errors
/// When it is none.
pub(crate) fn decode<M: Message + Default>(frame: bytes::Bytes) -> Result<M, Fault> {
    M::decode(frame).map_err(|_| unreadable())
}

fn unreadable() -> Fault {
    Fault::new(ErrorCode::Internal, "the server had an error processing your request")
}

#[cfg(test)]
mod tests;
