//! Which sequence of the cache holds which tokens, and how many cells are left.
//!
//! llama.cpp's unified cache has `cells` places; each token of a sequence takes one, and sequences that were copied from
//! one another share them. This is the exact account of it, apart from llama.cpp so that it can be tested; what must be
//! done there comes back as operations. The invariant: `used` equals the cells that some slot refers to.

/// What to do to llama.cpp's cache, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheOp {
    /// Forget the tokens of `slot` from position `from` on.
    Truncate {
        /// Sequence id.
        slot: usize,
        /// First position to forget.
        from: usize,
    },
    /// Let sequence `to` share the first `length` tokens of `from`.
    Share {
        /// Sequence id.
        from: usize,
        /// Sequence id.
        to: usize,
        /// Tokens.
        length: usize,
    },
}

#[derive(Debug, Clone, Default)]
struct Slot {
    tokens: Vec<i32>,
    cells: Vec<usize>,
    busy: bool,
    last_used: u64,
}

/// A slot given to a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Sequence id.
    pub(crate) slot: usize,
    /// Tokens whose cache is there already.
    pub(crate) reused: usize,
    /// How to make it so.
    pub(crate) ops: Vec<CacheOp>,
}

/// The slots of one context.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    references: Vec<u32>,
    free: Vec<usize>,
    clock: u64,
}

impl Slots {
    /// `parallel` empty slots over `cells` free cells.
    pub(crate) fn new(parallel: usize, cells: usize) -> Self {
        Self {
            slots: vec![Slot::default(); parallel],
            references: vec![0; cells],
            free: (0..cells).rev().collect(),
            clock: 0,
        }
    }

    /// Whether a sequence could start.
    pub(crate) fn has_idle(&self) -> bool {
        self.slots.iter().any(|slot| !slot.busy)
    }

    /// Cells that nobody refers to.
    pub(crate) fn free_cells(&self) -> usize {
        self.free.len()
    }

    /// Cells that would be free if idle slots were forgotten.
    pub(crate) fn available_cells(&self) -> usize {
        let mut held = vec![false; self.references.len()];
        for cell in self.slots.iter().filter(|slot| slot.busy).flat_map(|slot| &slot.cells) {
            if let Some(held) = held.get_mut(*cell) {
                *held = true;
            }
        }
        held.iter().filter(|held| !**held).count()
    }

    /// The slot that shares the longest beginning with `tokens`, and its length. The last token never counts: its
    /// logits are needed.
    pub(crate) fn longest_prefix(&self, tokens: &[i32]) -> Option<(usize, usize)> {
        let most = tokens.len().saturating_sub(1);
        let common = |slot: &Slot| {
            slot.tokens.iter().zip(tokens).take(most).take_while(|(a, b)| a == b).count()
        };
        let lengths = self.slots.iter().map(common).enumerate();
        // Of equals the idle one: it needs no copy.
        lengths
            .filter(|(_, n)| *n > 0)
            .max_by_key(|&(i, n)| (n, self.slots.get(i).is_some_and(|s| !s.busy)))
    }

    /// Whether the cells of a prefix in `slot` belong to idle slots only, so that using it makes them unavailable.
    pub(crate) fn is_idle(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| !slot.busy)
    }

    /// Gives an idle slot to a sequence that begins with `tokens`, with `prefix` (of `longest_prefix`) made use of.
    pub(crate) fn take(&mut self, prefix: Option<(usize, usize)>) -> Option<Taken> {
        let mut ops = Vec::new();
        let (slot, reused) = match prefix {
            Some((source, length)) if self.is_idle(source) => (source, length),
            other => {
                let target = self.oldest_idle()?;
                self.truncate(target, 0, &mut ops);
                if let Some((source, length)) = other {
                    self.share(source, target, length);
                    ops.push(CacheOp::Share { from: source, to: target, length });
                }
                (target, other.map_or(0, |(_, length)| length))
            }
        };
        self.truncate(slot, reused, &mut ops);
        self.slots.get_mut(slot)?.busy = true;
        Some(Taken { slot, reused, ops })
    }

    /// Notes that `tokens` were added to `slot`. False when there were not enough free cells, which `free_cells` tells.
    pub(crate) fn extend(&mut self, slot: usize, tokens: &[i32]) -> bool {
        let Some(slot) = self.slots.get_mut(slot) else { return false };
        for token in tokens {
            let Some(cell) = self.free.pop() else { return false };
            if let Some(count) = self.references.get_mut(cell) {
                *count = 1;
            }
            slot.tokens.push(*token);
            slot.cells.push(cell);
        }
        true
    }

    /// The sequence has ended; its tokens stay for others to begin with.
    pub(crate) fn release(&mut self, slot: usize) {
        self.clock += 1;
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.busy = false;
            slot.last_used = self.clock;
        }
    }

    /// The sequence has ended and its tokens are of no use.
    pub(crate) fn clear(&mut self, slot: usize) -> Vec<CacheOp> {
        let mut ops = Vec::new();
        self.truncate(slot, 0, &mut ops);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.busy = false;
            slot.last_used = 0;
        }
        ops
    }

    /// Forgets the idle slot that was used longest ago; none when there is nothing to forget.
    pub(crate) fn evict(&mut self) -> Option<Vec<CacheOp>> {
        let filled = self.slots.iter().enumerate().filter(|(_, s)| !s.busy && !s.tokens.is_empty());
        let oldest = filled.min_by_key(|(_, slot)| slot.last_used).map(|(index, _)| index)?;
        Some(self.clear(oldest))
    }

    /// An empty idle slot, else the one used longest ago.
    fn oldest_idle(&self) -> Option<usize> {
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy);
        idle.min_by_key(|(_, slot)| (!slot.tokens.is_empty(), slot.last_used))
            .map(|(index, _)| index)
    }

    fn share(&mut self, from: usize, to: usize, length: usize) {
        let Some(source) = self.slots.get(from) else { return };
        let tokens: Vec<i32> = source.tokens.iter().take(length).copied().collect();
        let cells: Vec<usize> = source.cells.iter().take(length).copied().collect();
        for cell in &cells {
            if let Some(count) = self.references.get_mut(*cell) {
                *count += 1;
            }
        }
        if let Some(target) = self.slots.get_mut(to) {
            target.tokens = tokens;
            target.cells = cells;
        }
    }

    fn truncate(&mut self, index: usize, from: usize, ops: &mut Vec<CacheOp>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.tokens.len() <= from {
            return;
        }
        slot.tokens.truncate(from);
        for cell in slot.cells.drain(from..) {
            let Some(count) = self.references.get_mut(cell) else { continue };
            *count -= 1;
            if *count == 0 {
                self.free.push(cell);
            }
        }
        ops.push(CacheOp::Truncate { slot: index, from });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(slots: &mut Slots, tokens: &[i32]) -> Taken {
        let prefix = slots.longest_prefix(tokens);
        let taken = slots.take(prefix).unwrap();
        assert!(slots.extend(taken.slot, &tokens[taken.reused..]));
        taken
    }

    #[test]
    fn a_prompt_that_was_seen_before_is_reused_in_its_slot() {
        let mut slots = Slots::new(2, 100);
        let first = start(&mut slots, &[1, 2, 3, 4]);
        slots.release(first.slot);
        let second = start(&mut slots, &[1, 2, 3, 9, 9]);
        assert_eq!((second.slot, second.reused), (first.slot, 3));
        assert_eq!(second.ops, [CacheOp::Truncate { slot: first.slot, from: 3 }]);
        assert_eq!(slots.free_cells(), 95);
    }

    #[test]
    fn the_last_token_is_never_reused() {
        let mut slots = Slots::new(1, 10);
        let first = start(&mut slots, &[1, 2, 3]);
        slots.release(first.slot);
        assert_eq!(start(&mut slots, &[1, 2, 3]).reused, 2);
    }

    #[test]
    fn sequences_with_a_common_prompt_share_its_cells() {
        let mut slots = Slots::new(3, 100);
        let first = start(&mut slots, &[1, 2, 3, 4]);
        let second = start(&mut slots, &[1, 2, 3, 4]);
        assert_ne!(first.slot, second.slot);
        assert_eq!(second.ops, [CacheOp::Share { from: first.slot, to: second.slot, length: 3 }]);
        assert_eq!(slots.free_cells(), 100 - 4 - 1);
        slots.clear(first.slot);
        assert_eq!(slots.free_cells(), 96, "the shared cells stay with the second");
        slots.clear(second.slot);
        assert_eq!(slots.free_cells(), 100);
    }

    #[test]
    fn idle_slots_are_forgotten_oldest_first_and_busy_ones_never() {
        let mut slots = Slots::new(3, 9);
        let busy = start(&mut slots, &[1, 1, 1]);
        let old = start(&mut slots, &[2, 2, 2]);
        let new = start(&mut slots, &[3, 3, 3]);
        slots.release(old.slot);
        slots.release(new.slot);
        assert_eq!((slots.free_cells(), slots.available_cells()), (0, 6));
        assert!(!slots.extend(busy.slot, &[1]));
        assert_eq!(slots.evict().unwrap(), [CacheOp::Truncate { slot: old.slot, from: 0 }]);
        assert_eq!(slots.evict().unwrap(), [CacheOp::Truncate { slot: new.slot, from: 0 }]);
        assert_eq!(slots.evict(), None);
        assert_eq!(slots.free_cells(), 6);
    }

    #[test]
    fn without_an_idle_slot_nobody_starts() {
        let mut slots = Slots::new(1, 9);
        start(&mut slots, &[1, 2]);
        assert!(!slots.has_idle());
        assert_eq!(slots.take(None), None);
    }

    #[test]
    fn no_cell_is_lost_or_doubled_by_any_order_of_events() {
        let mut slots = Slots::new(4, 64);
        let mut seed = 7_u32;
        let mut random = move |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::try_from((seed >> 16) % n).unwrap()
        };
        let mut busy: Vec<usize> = Vec::new();
        for _ in 0..5000 {
            match random(4) {
                0 if slots.has_idle() => {
                    let tokens: Vec<i32> =
                        (0..=random(12)).map(|i| i32::from(i > random(12))).collect();
                    let prefix = slots.longest_prefix(&tokens);
                    let taken = slots.take(prefix).unwrap();
                    slots.extend(taken.slot, &tokens[taken.reused..]);
                    busy.push(taken.slot);
                }
                1 if !busy.is_empty() => slots.release(busy.swap_remove(random(4) % busy.len())),
                2 if !busy.is_empty() => {
                    slots.clear(busy.swap_remove(random(4) % busy.len()));
                }
                _ => {
                    slots.evict();
                }
            }
            let used = slots.references.iter().filter(|n| **n > 0).count();
            assert_eq!(used + slots.free_cells(), 64);
            let held: u32 = slots.slots.iter().map(|s| u32::try_from(s.cells.len()).unwrap()).sum();
            assert_eq!(held, slots.references.iter().sum::<u32>());
        }
    }
}
