//! What an admitted request holds, and what becomes of it at the end.
//!
//! Dropping a ticket settles it, so that no way out of a request, not even a client that goes away, keeps a slot or tokens that
//! nobody spent.

use crate::limit::queue::Queue;
use crate::limit::rules::{Rule, Rules};
use crate::limit::store::{Store, Where};
use chassis::state::{Change, Settlement, Taken};
use std::sync::Arc;

/// What a request really spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// So many tokens, as the model counted them.
    Tokens(u64),
    /// The prompt, and about so many tokens of an answer that was cut short before anybody had counted.
    Pieces(u64),
    /// Nobody counts: what was reserved stays.
    Reserved,
    /// No tokens; the request itself counts.
    NoTokens,
    /// Nothing at all: it failed through no fault of the caller.
    Nothing,
}

/// What an admitted request holds.
#[derive(Debug)]
pub struct Ticket {
    store: Arc<Store>,
    at: Where,
    id: String,
    queue: Option<Arc<Queue>>,
    held: Vec<(Rule, u64)>,
    /// Estimated.
    prompt: u64,
    spent: Spent,
}

impl Ticket {
    /// What `rules` took.
    pub(super) fn new(
        (store, at): (Arc<Store>, Where),
        id: String,
        queue: Option<Arc<Queue>>,
        rules: Rules,
        taken: &Taken,
    ) -> Self {
        let windows = taken.standings.iter().map(|standing| standing.window);
        Self {
            store,
            at,
            id,
            queue,
            prompt: rules.estimate.prompt,
            held: rules.list.into_iter().zip(windows).collect(),
            // Until it is known better.
            spent: Spent::Nothing,
        }
    }

    /// Ends the request.
    pub fn settle(mut self, spent: Spent) {
        self.spent = spent;
    }

    fn changes(&self) -> Vec<Change> {
        let changes = self.held.iter().filter_map(|(rule, index)| {
            let key = rule.key.clone();
            let Some(window) = rule.what.window() else { return Some(Change::Slot { key }) };
            let delta = self.delta(rule);
            (delta != 0).then_some(Change::Rate { key, window, index: *index, delta })
        });
        changes.collect()
    }

    fn delta(&self, rule: &Rule) -> i64 {
        let counted = if rule.what.is_tokens() {
            match self.spent {
                Spent::Tokens(tokens) => tokens,
                Spent::Pieces(pieces) => self.prompt.saturating_add(pieces),
                Spent::Reserved => rule.amount,
                Spent::NoTokens | Spent::Nothing => 0,
            }
        } else {
            match self.spent {
                Spent::Tokens(_) | Spent::Pieces(_) | Spent::Reserved | Spent::NoTokens => {
                    rule.amount
                }
                Spent::Nothing => 0,
            }
        };
        i64::try_from(i128::from(counted) - i128::from(rule.amount)).unwrap_or(i64::MAX)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let changes = self.changes();
        let settlement = Settlement { id: std::mem::take(&mut self.id), changes };
        self.store.settle(self.at, settlement, self.queue.take());
    }
}
