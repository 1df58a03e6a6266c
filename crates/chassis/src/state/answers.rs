//! Finished answers by key, for a while: in this process (`Kept`), or in Redis, where replicas find each other's.
//!
//! Separate from the counters because losing an answer costs work and nothing else: what does not fit is dropped, the least
//! asked for first.

use super::StateError;
use super::shared::{Shared, milliseconds};
use bytes::Bytes;
use moka::Expiry;
use moka::sync::Cache;
use std::time::{Duration, Instant};

/// What an entry takes besides its key and its bytes.
const ENTRY_OVERHEAD: usize = 128;

/// Answers in this process.
#[derive(Debug, Clone)]
pub struct Kept {
    cache: Cache<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    answer: Bytes,
    ttl: Duration,
}

/// Each entry has a time of its own.
struct Own;

impl Expiry<String, Entry> for Own {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl Kept {
    /// Room for `bytes`, keys included.
    #[must_use]
    pub fn with_room(bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(bytes)
            .weigher(|key: &String, entry: &Entry| {
                u32::try_from(key.len() + entry.answer.len() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
            })
            .expire_after(Own)
            .build();
        Self { cache }
    }

    /// What was put under `key` and is still good.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.cache.get(key).map(|entry| entry.answer)
    }

    /// Keeps `answer` for `ttl`, or until room is needed.
    pub fn put(&self, key: String, answer: Bytes, ttl: Duration) {
        self.cache.insert(key, Entry { answer, ttl });
    }
}

impl Shared {
    /// What was put under `key` and is still good.
    ///
    /// # Errors
    /// When Redis does not answer in time or refuses.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        let mut command = redis::cmd("GET");
        command.arg(super::shared::key(key));
        let ask = async |mut connection: redis::aio::MultiplexedConnection| {
            command.query_async::<Option<Vec<u8>>>(&mut connection).await
        };
        Ok(self.bounded(ask).await?.map(Bytes::from))
    }

    /// Keeps `answer` for `ttl`, or until Redis needs room.
    ///
    /// # Errors
    /// When Redis does not answer in time or refuses.
    pub async fn put(&self, key: &str, answer: &[u8], ttl: Duration) -> Result<(), StateError> {
        let mut command = redis::cmd("SET");
        command.arg(super::shared::key(key)).arg(answer).arg("PX").arg(milliseconds(ttl).max(1));
        let ask = async |mut connection: redis::aio::MultiplexedConnection| {
            command.query_async::<()>(&mut connection).await
        };
        self.bounded(ask).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_until_its_time_is_over() {
        let kept = Kept::with_room(10_000);
        kept.put("a".into(), Bytes::from_static(b"1"), Duration::from_secs(60));
        kept.put("gone".into(), Bytes::from_static(b"2"), Duration::ZERO);
        assert_eq!(kept.get("a").as_deref(), Some(&b"1"[..]));
        assert_eq!(kept.get("gone"), None);
        assert_eq!(kept.get("b"), None);
        kept.put("a".into(), Bytes::from_static(b"3"), Duration::from_secs(60));
        assert_eq!(kept.get("a").as_deref(), Some(&b"3"[..]));
    }

    #[test]
    fn there_is_never_more_than_fits() {
        let kept = Kept::with_room(10_000);
        for i in 0..100 {
            kept.put(i.to_string(), Bytes::from(vec![0; 1_000]), Duration::from_secs(60));
        }
        kept.cache.run_pending_tasks();
        assert!(kept.cache.weighted_size() <= 10_000);
        kept.put("large".into(), Bytes::from(vec![0; 20_000]), Duration::from_secs(60));
        kept.cache.run_pending_tasks();
        assert_eq!(kept.get("large"), None);
    }
}
