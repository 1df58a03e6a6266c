//! What the engine does with the cells of llama.cpp's cache: make room, give back, clean up after a failed batch.
//!
//! Separate from the loop, which decides when. `slots.rs` knows who holds which cells; here its operations meet the context.

use super::{Engine, Share, row};
use crate::error::ChatError;
use crate::events;
use crate::local::slots::CacheOp;
use llama_cpp_2::DecodeError;

impl Engine<'_> {
    /// Forgets idle caches until `wanted` cells are free, or as many as can be.
    pub(super) fn make_room(&mut self, wanted: usize) -> usize {
        while self.slots.free_cells() < wanted {
            let Some(ops) = self.slots.evict() else { break };
            self.apply(&ops);
        }
        self.slots.free_cells()
    }

    /// The youngest sequence gives its cells back and starts over later, before all who wait.
    pub(super) fn step_back(&mut self) {
        let Some(mut sequence) = self.running.pop() else { return };
        if let Some(slot) = sequence.slot.take() {
            let ops = self.slots.clear(slot);
            self.apply(&ops);
        }
        sequence.decoded = 0;
        sequence.prompt_logprobs.clear();
        events::stepped_back();
        self.waiting.push_front(sequence);
    }

    pub(super) fn free(&mut self, slot: Option<usize>) {
        let Some(slot) = slot else { return };
        if self.settings.share {
            self.slots.release(slot);
        } else {
            let ops = self.slots.clear(slot);
            self.apply(&ops);
        }
    }

    /// A batch failed for good: its requests fail, the others go on.
    pub(super) fn break_down(&mut self, shares: &[Share], error: &DecodeError) {
        tracing::error!(model = self.settings.name, %error, "decoding failed");
        let groups: Vec<u64> =
            shares.iter().filter_map(|s| self.running.get(s.index)).map(|s| s.group).collect();
        for id in groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.fail(ChatError::Engine(error.to_string()));
                group.flush();
            }
            let slots: Vec<usize> =
                self.running.iter().filter(|s| s.group == id).filter_map(|s| s.slot).collect();
            self.forget(id);
            for slot in slots {
                // What is left of the batch in the cache is unknown.
                let mut ops = self.slots.clear(slot);
                ops.push(CacheOp::Truncate { slot, from: 0 });
                self.apply(&ops);
            }
        }
    }

    pub(super) fn apply(&mut self, ops: &[CacheOp]) {
        let id = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        for op in ops {
            let done = match *op {
                CacheOp::Truncate { slot, from } => {
                    self.context.clear_kv_cache_seq(Some(id(slot)), Some(id(from)), None)
                }
                CacheOp::Share { from, to, length } => {
                    let (from, to) = (row(from), row(to));
                    self.context.kv_cache_seq_cp(from, to, Some(0), Some(id(length))).map(|()| true)
                }
            };
            if !matches!(done, Ok(true)) {
                tracing::error!(?op, "the cache refused an operation");
            }
        }
    }
}
