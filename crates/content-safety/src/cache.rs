//! Findings of texts that were judged lately.
//!
//! Separate because it is a matter of speed alone: a conversation comes again with every turn, and only its last message is
//! new. Holds keyed hashes and scores, never a text; forgets the oldest first.

use crate::category::TextFinding;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};

/// 128 bits under keys of this process: nobody can make two texts collide on purpose, nor by accident.
pub(crate) type Key = (u64, u64);

/// At most `most` findings.
#[derive(Debug)]
pub(crate) struct Cache {
    most: usize,
    keys: (RandomState, RandomState),
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    findings: HashMap<Key, TextFinding>,
    order: VecDeque<Key>,
}

impl Cache {
    /// Empty; `most` 0 keeps nothing.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, keys: (RandomState::new(), RandomState::new()), kept: Mutex::default() }
    }

    pub(crate) fn key(&self, text: &str) -> Key {
        (self.keys.0.hash_one(text), self.keys.1.hash_one(text))
    }

    pub(crate) fn get(&self, key: Key) -> Option<TextFinding> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.findings.get(&key).copied()
    }

    pub(crate) fn put(&self, key: Key, finding: TextFinding) {
        if self.most == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.findings.insert(key, finding).is_none() {
            kept.order.push_back(key);
        }
        while kept.order.len() > self.most {
            if let Some(oldest) = kept.order.pop_front() {
                kept.findings.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::category::Attack;

    fn finding(score: f32) -> TextFinding {
        TextFinding { jailbreak: Attack { score, ..Attack::default() }, ..TextFinding::default() }
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_rest_is_kept() {
        let cache = Cache::new(2);
        let keys = ["a", "b", "c"].map(|text| cache.key(text));
        for (key, score) in keys.into_iter().zip([0.1, 0.2, 0.3]) {
            cache.put(key, finding(score));
        }
        assert_eq!(cache.get(keys[0]), None);
        assert_eq!(cache.get(keys[2]), Some(finding(0.3)));
        cache.put(keys[1], finding(0.9));
        assert_eq!(cache.get(keys[1]), Some(finding(0.9)));
        assert_eq!(cache.get(keys[2]), Some(finding(0.3)));
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let cache = Cache::new(0);
        cache.put(cache.key("a"), finding(0.1));
        assert_eq!(cache.get(cache.key("a")), None);
    }
}
