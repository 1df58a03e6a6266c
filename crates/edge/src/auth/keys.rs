//! Keys as hashes, and the comparison that takes the same time whatever is presented.

use crate::auth::caller::Caller;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// A SHA-256.
pub(super) type Hash = [u8; 32];
/// Letters of the hash that stand for a key without a name: enough to tell some thousand apart, and they tell nothing of it.
const NAME_LETTERS: usize = 12;

/// The SHA-256 of `key` as hexadecimal digits: what a key file holds of a key.
#[must_use]
pub fn hash_of(key: &str) -> String {
    hexadecimal(&hash(key))
}

/// A valid key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) hash: Hash,
    pub(super) caller: Arc<Caller>,
    /// Unix seconds; none means never.
    pub(super) expires: Option<i64>,
}

impl Key {
    /// A key that is known itself, and may do everything.
    pub(super) fn plain(key: &str) -> Self {
        let hash = hash(key);
        let mut name = format!("key-{}", hexadecimal(&hash));
        name.truncate("key-".len() + NAME_LETTERS);
        Self { hash, caller: Arc::new(Caller::unrestricted(name)), expires: None }
    }

    /// A key of which only the hash is known.
    pub(super) fn named(caller: Caller, hash: Hash) -> Self {
        Self { hash, caller: Arc::new(caller), expires: None }
    }
}

/// All keys from one place.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    list: Vec<Key>,
}

/// What a credential turned out to be.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Valid(Arc<Caller>),
    Expired,
    Unknown,
}

impl Found {
    pub(super) fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Unknown => other(),
            Self::Valid(_) | Self::Expired => self,
        }
    }
}

impl Keys {
    pub(super) const fn new(list: Vec<Key>) -> Self {
        Self { list }
    }

    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Compares with every key, whichever matches.
    pub(super) fn find(&self, credential: &[u8]) -> Found {
        let presented = hash(credential);
        let (mut any, mut at) = (Choice::from(0), 0_u64);
        for (i, key) in (0..).zip(&self.list) {
            let same = key.hash.ct_eq(&presented);
            at.conditional_assign(&i, same);
            any |= same;
        }
        let key = usize::try_from(at).ok().and_then(|at| self.list.get(at));
        match key.filter(|_| any.into()) {
            Some(key) if key.expires.is_some_and(|end| end <= now()) => Found::Expired,
            Some(key) => Found::Valid(Arc::clone(&key.caller)),
            None => Found::Unknown,
        }
    }
}

fn now() -> i64 {
    i64::try_from(crate::app::unix_seconds()).unwrap_or(i64::MAX)
}

fn hash(key: impl AsRef<[u8]>) -> Hash {
    Sha256::digest(key).into()
}

fn hexadecimal(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(2 * hash.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
