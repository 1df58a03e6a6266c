//! By what an answer is found again.
//!
//! Separate because a key that forgets something gives somebody a wrong answer: everything that an answer depends on goes in,
//! and what of it is text of a caller only as a digest.

use sha2::{Digest as _, Sha256};

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Embed`
    Embedding,
    /// `Generate`
    Chat,
    /// `Complete`
    Completions,
    /// `Screen`
    Verdict,
}

impl Kind {
    /// In keys and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Verdict => "verdict",
        }
    }
}

/// By what an answer is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Key {
    /// The key of an encoded `request`; `owner` is who alone may be given the answer, empty for everybody, and `version` that of
    /// the model.
    #[must_use]
    pub fn new(kind: Kind, owner: &str, version: &str, request: &[u8]) -> Self {
        let mut digest = Sha256::new();
        for part in [owner.as_bytes(), version.as_bytes(), request] {
            // With its length, so that no two lists of parts are the same bytes.
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        let kind_name = kind.as_str();
        Self { kind, name: format!("answer:{kind_name}:{}", hex(&digest.finalize())) }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_when_anything_does() {
        let key = Key::new(Kind::Chat, "a", "1", b"x");
        assert_eq!(key, Key::new(Kind::Chat, "a", "1", b"x"));
        for other in [
            Key::new(Kind::Completions, "a", "1", b"x"),
            Key::new(Kind::Chat, "b", "1", b"x"),
            Key::new(Kind::Chat, "a", "2", b"x"),
            Key::new(Kind::Chat, "a", "1", b"y"),
            Key::new(Kind::Chat, "a1", "", b"x"),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn a_key_shows_nothing_of_the_request() {
        let key = Key::new(Kind::Chat, "team", "1", b"a secret prompt").name;
        assert!(!key.contains("secret") && !key.contains("team"), "{key}");
    }
}
