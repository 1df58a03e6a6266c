//! Who runs next: slots and cells for those who wait.
//!
//! Separate from the loop, which asks once a turn. The invariant: what is admitted fits into the cells that are free.

use super::{EXPECTED_ANSWER, Engine};
use crate::backend::Usage;
use crate::local::sequence::Sequence;

impl Engine<'_> {
    /// Gives free slots to waiting sequences, first come first served.
    pub(super) fn admit(&mut self) {
        let mut index = 0;
        while self.slots.has_idle() {
            let Some(sequence) = self.waiting.get(index) else { return };
            if self.awaits_sibling(sequence) {
                index += 1;
                continue;
            }
            let prefix = self.prefix_for(sequence);
            if !self.fits(sequence, prefix) {
                return;
            }
            let Some(sequence) = self.waiting.remove(index) else { return };
            self.start(sequence, prefix);
        }
    }

    /// Whether another choice works on the same prompt: its cache will be shared when it is done.
    fn awaits_sibling(&self, sequence: &Sequence) -> bool {
        let works = |other: &Sequence| {
            other.group == sequence.group
                && other.prompt == sequence.prompt
                && other.decoded + 1 < other.prompt_length
        };
        self.settings.share && !sequence.scores_prompt() && self.running.iter().any(works)
    }

    fn prefix_for(&self, sequence: &Sequence) -> Option<(usize, usize)> {
        if !self.settings.share || sequence.scores_prompt() {
            return None;
        }
        let tokens: Vec<i32> = sequence.tokens.iter().map(|t| t.0).collect();
        self.slots.longest_prefix(&tokens)
    }

    /// Whether there are cells for what it is expected to need, beside what the running ones are expected to need.
    fn fits(&self, sequence: &Sequence, prefix: Option<(usize, usize)>) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let (shared, taken) = match prefix {
            Some((slot, length)) => (length, if self.slots.is_idle(slot) { length } else { 0 }),
            None => (0, 0),
        };
        let promised: usize = self.running.iter().map(|s| s.expected_cells(EXPECTED_ANSWER)).sum();
        let needed = sequence.expected_cells(EXPECTED_ANSWER).saturating_sub(shared);
        needed + promised + taken <= self.slots.available_cells()
    }

    fn start(&mut self, mut sequence: Sequence, prefix: Option<(usize, usize)>) {
        let Some(taken) = self.slots.take(prefix) else {
            self.waiting.push_front(sequence);
            return;
        };
        self.apply(&taken.ops);
        sequence.slot = Some(taken.slot);
        sequence.decoded = taken.reused;
        if let Some(group) = self.groups.get_mut(&sequence.group) {
            group.begin();
            if !sequence.counted {
                let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                group.spend(Usage {
                    prompt_tokens: count(sequence.prompt_length),
                    cached_tokens: count(taken.reused),
                    ..Usage::default()
                });
            }
        }
        sequence.counted = true;
        self.running.push(sequence);
    }
}
