//! Where limits are counted: in this process, in Redis, and what happens when Redis does not answer.
//!
//! Separate so that a failing Redis is one decision in one place. After a failure nobody asks Redis again until a task has seen
//! it answer: an outage costs one timeout, not one for each request. What could not be given back meanwhile is given back then.

use crate::events;
use crate::limit::config::WhenStateless;
use crate::limit::queue::Queue;
use chassis::Tasks;
use chassis::state::{
    Change, Demand, Kind, Local, Settlement, Shared, StateConfig, StateError, Taken,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most settlements that wait for Redis; what is beyond is lost, and its slots come back when their lease ends.
const MOST_PENDING: usize = 10_000;

/// Where something was counted, and is to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Here,
    Redis,
}

/// What came of a demand.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was counted, or refused.
    Counted(Taken, Where),
    /// Nobody counts, and that is meant to be so.
    Free,
    /// Nobody counts, and so nobody may pass.
    Unavailable,
}

/// The counters of all limits.
#[derive(Debug)]
pub(super) struct Store {
    local: Local,
    shared: Option<Shared>,
    when_unavailable: WhenStateless,
    healthy: AtomicBool,
    pending: Mutex<VecDeque<Settlement>>,
    tasks: Tasks,
}

impl Store {
    /// The counters of `config`; looks at once whether Redis answers, where it is configured.
    pub(super) fn open(
        config: &StateConfig,
        when_unavailable: WhenStateless,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StateError> {
        let store = Arc::new(Self {
            local: Local::default(),
            shared: Shared::open(config)?,
            when_unavailable,
            healthy: AtomicBool::new(true),
            pending: Mutex::default(),
            tasks: tasks.clone(),
        });
        if store.shared.is_some() {
            let asked = Arc::clone(&store);
            tasks.spawn(async move { asked.first_look().await });
        }
        Ok(store)
    }

    /// Whether other edges count here too.
    pub(super) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Takes everything, or nothing.
    pub(super) async fn take(self: &Arc<Self>, demand: &Demand) -> Answer {
        let Some(shared) = &self.shared else {
            return Answer::Counted(self.local.take(demand), Where::Here);
        };
        if self.healthy.load(Ordering::Acquire) {
            match shared.take(demand).await {
                Ok(taken) => return Answer::Counted(taken, Where::Redis),
                // It may have been taken all the same.
                Err(error) => self.failed(&error, Some(slots_of(demand))),
            }
        }
        events::uncounted(self.when_unavailable);
        match self.when_unavailable {
            WhenStateless::Local => Answer::Counted(self.local.take(demand), Where::Here),
            WhenStateless::Refuse => Answer::Unavailable,
            WhenStateless::Allow => Answer::Free,
        }
    }

    /// Gives back, soon; then calls whoever waits in `queue`.
    pub(super) fn settle(
        self: &Arc<Self>,
        at: Where,
        settlement: Settlement,
        queue: Option<Arc<Queue>>,
    ) {
        if at == Where::Here {
            self.local.settle(&settlement);
            if let Some(queue) = queue {
                queue.call_next();
            }
            return;
        }
        // Dropped with the runtime itself: the lease gives back what nobody can any more.
        if settlement.changes.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let store = Arc::clone(self);
        self.tasks.spawn(async move {
            store.settle_shared(settlement).await;
            if let Some(queue) = queue {
                queue.call_next();
            }
        });
    }

    async fn settle_shared(self: &Arc<Self>, settlement: Settlement) {
        let Some(shared) = &self.shared else { return };
        if !self.healthy.load(Ordering::Acquire) {
            self.postpone(settlement);
        } else if let Err(error) = shared.settle(&settlement).await {
            self.failed(&error, Some(only_slots(settlement)));
        }
    }

    async fn first_look(self: &Arc<Self>) {
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.ping().await {
            self.failed(&error, None);
        }
    }

    /// Stops asking Redis until it answers again.
    fn failed(self: &Arc<Self>, error: &StateError, undone: Option<Settlement>) {
        if let Some(undone) = undone {
            self.postpone(undone);
        }
        if self.healthy.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                %error,
                when_unavailable = ?self.when_unavailable,
                "limits cannot be counted in Redis; see `edge.state.redis_url`"
            );
            let store = Arc::clone(self);
            self.tasks.spawn_until_stop(async move { store.recover().await });
        }
    }

    async fn recover(&self) {
        let Some(shared) = &self.shared else { return };
        loop {
            shared.until_it_answers().await;
            if self.catch_up(shared).await.is_ok() {
                self.healthy.store(true, Ordering::Release);
                // What was postponed by somebody who had just looked.
                let _again = self.catch_up(shared).await;
                tracing::info!("limits are counted in Redis again");
                return;
            }
        }
    }

    async fn catch_up(&self, shared: &Shared) -> Result<(), StateError> {
        loop {
            let next = self.pending.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(settlement) = next else { return Ok(()) };
            if let Err(error) = shared.settle(&settlement).await {
                self.postpone(only_slots(settlement));
                return Err(error);
            }
        }
    }

    fn postpone(&self, settlement: Settlement) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < MOST_PENDING && !settlement.changes.is_empty() {
            pending.push_back(settlement);
        }
    }
}

/// What may be done twice without harm: a settlement that failed may have been made all the same.
fn only_slots(mut settlement: Settlement) -> Settlement {
    settlement.changes.retain(|change| matches!(change, Change::Slot { .. }));
    settlement
}

/// Gives back the slots of a demand of which nobody knows whether it was met. Rates are not: nobody knows their window.
fn slots_of(demand: &Demand) -> Settlement {
    let slots = demand.counters.iter().filter_map(|counter| match counter.kind {
        Kind::Slots => Some(Change::Slot { key: counter.key.clone() }),
        Kind::Rate { .. } => None,
    });
    Settlement { id: demand.id.clone(), changes: slots.collect() }
}
