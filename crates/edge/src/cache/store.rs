//! Where answers are kept, and what happens while Redis does not answer.
//!
//! Separate so that an outage is one decision in one place: everything is a miss then. After a failure nobody asks Redis until a
//! task has seen it answer, so an outage costs one timeout, not one for each request.

use super::flight::Frames;
use super::{CacheConfig, Key, Place};
use chassis::Tasks;
use chassis::state::{Kept, Shared, StateConfig, StateError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where answers are kept.
#[derive(Debug)]
pub(super) struct Store {
    kept: Kept,
    /// None where each edge keeps its own.
    shared: Option<Shared>,
    healthy: AtomicBool,
    tasks: Tasks,
}

impl Store {
    pub(super) fn open(
        config: &CacheConfig,
        state: &StateConfig,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StateError> {
        let shared = match config.store {
            Place::Process => None,
            Place::Redis => Shared::open(state)?,
        };
        Ok(Arc::new(Self {
            kept: Kept::with_room(config.memory_bytes),
            shared,
            healthy: AtomicBool::new(true),
            tasks: tasks.clone(),
        }))
    }

    /// What was kept for `key`; none also where nobody can say.
    pub(super) async fn get(self: &Arc<Self>, key: &Key) -> Option<Frames> {
        let Some(shared) = &self.shared else {
            return self.kept.get(&key.name).and_then(Frames::decode);
        };
        if !self.healthy.load(Ordering::Acquire) {
            return None;
        }
        match shared.get(&key.name).await {
            Ok(found) => found.and_then(Frames::decode),
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Keeps `frames`, where that can be done.
    pub(super) async fn put(self: &Arc<Self>, key: &Key, frames: &Frames, ttl: Duration) {
        let Some(shared) = &self.shared else {
            return self.kept.put(key.name.clone(), frames.encode(), ttl);
        };
        if self.healthy.load(Ordering::Acquire)
            && let Err(error) = shared.put(&key.name, &frames.encode(), ttl).await
        {
            self.failed(&error);
        }
    }

    /// Stops asking Redis until it answers again.
    fn failed(self: &Arc<Self>, error: &StateError) {
        if self.healthy.swap(false, Ordering::AcqRel) {
            tracing::warn!(%error, "no answers are kept while Redis is away; see `edge.state.redis_url`");
            let store = Arc::clone(self);
            self.tasks.spawn_until_stop(async move { store.recover().await });
        }
    }

    async fn recover(&self) {
        let Some(shared) = &self.shared else { return };
        shared.until_it_answers().await;
        self.healthy.store(true, Ordering::Release);
        tracing::info!("answers are kept in Redis again");
    }
}
