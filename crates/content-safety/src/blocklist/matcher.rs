//! Looks for the items of one list in a text.
//!
//! Separate because it alone knows the engines: one automaton for all words together, one regular expression each for the
//! rest. Both take time linear in the text. Trap: an item that folds to nothing would be found everywhere, so it is refused.

use super::{Item, Kind};
use crate::normalise::{fold, is_unspaced};
use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Regex, RegexBuilder};

/// Memory of one compiled regular expression of a caller, in bytes, and again as much while it runs. Less than an operator's,
/// since callers may add many.
pub(super) const MANAGED_REGEX_BYTES: usize = 1 << 18;

/// The items of one list, compiled.
#[derive(Debug)]
pub(super) struct Matcher {
    words: AhoCorasick,
    /// Place of the item of each pattern of `words`, and whether it must stand alone.
    word_items: Vec<(usize, bool)>,
    regexes: Vec<(Regex, usize)>,
}

impl Matcher {
    /// Compiles `items`; a regular expression may take `regex_bytes`.
    pub(super) fn build(items: &[Item], regex_bytes: usize) -> Result<Self, String> {
        let (mut patterns, mut word_items, mut regexes) = (Vec::new(), Vec::new(), Vec::new());
        for (place, item) in items.iter().enumerate() {
            match item.kind {
                Kind::Words | Kind::Substring => {
                    patterns.push(pattern(item.kind, &item.text));
                    word_items.push((place, item.kind == Kind::Words));
                }
                Kind::Regex => regexes.push((
                    compile(&item.text, regex_bytes)
                        .map_err(|reason| format!("item `{}` {reason}", item.id))?,
                    place,
                )),
            }
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .map_err(|error| error.to_string())?;
        Ok(Self { words, word_items, regexes })
    }

    /// How many regular expressions there are.
    pub(super) const fn regexes(&self) -> usize {
        self.regexes.len()
    }

    /// Places of the items that are found, each once, in their order.
    pub(super) fn find(&self, text: &str, folded: &str) -> Vec<usize> {
        let mut found = vec![false; self.word_items.len() + self.regexes.len()];
        for hit in self.words.find_overlapping_iter(folded) {
            let Some((place, alone)) = self.word_items.get(hit.pattern().as_usize()) else {
                continue;
            };
            let Some(seen) = found.get_mut(*place) else { continue };
            *seen = *seen || !alone || stands_alone(folded, hit.start(), hit.end());
        }
        for (regex, place) in &self.regexes {
            let hit = regex.is_match(text) || (folded != text && regex.is_match(folded));
            if let Some(seen) = found.get_mut(*place) {
                *seen = hit;
            }
        }
        found.iter().enumerate().filter(|(_, seen)| **seen).map(|(place, _)| place).collect()
    }
}

/// Whether `text` can be looked for as `kind`; the reason follows the item's name in a sentence.
pub(super) fn check(kind: Kind, text: &str, regex_bytes: usize) -> Result<(), String> {
    match kind {
        Kind::Words | Kind::Substring => {
            if pattern(kind, text).trim().is_empty() {
                return Err("has no visible characters".to_owned());
            }
            Ok(())
        }
        Kind::Regex => {
            let regex = compile(text, regex_bytes)?;
            // It would be found in every text, most of all in the harmless ones.
            if regex.is_match("") {
                return Err("is a regular expression that matches the empty text".to_owned());
            }
            Ok(())
        }
    }
}

/// What is looked for in a folded text. White space around words says nothing; within a substring it does.
fn pattern(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Words => fold(text.trim()),
        Kind::Substring | Kind::Regex => fold(text),
    }
}

fn compile(regex: &str, bytes: usize) -> Result<Regex, String> {
    RegexBuilder::new(regex)
        .case_insensitive(true)
        .size_limit(bytes)
        .dfa_size_limit(bytes)
        .build()
        .map_err(|error| format!("is no regular expression that can be used: {}", brief(&error)))
}

/// The last line says what is wrong; those before it draw where.
fn brief(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// Whether what lies between the bytes `start` and `end` is not a part of longer words.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let (Some(head), Some(found), Some(tail)) =
        (text.get(..start), text.get(start..end), text.get(end..))
    else {
        return false;
    };
    let joined = |a: Option<char>, b: Option<char>| match (a, b) {
        (Some(a), Some(b)) => is_word(a) && is_word(b),
        (Some(_) | None, None) | (None, Some(_)) => false,
    };
    !joined(head.chars().next_back(), found.chars().next())
        && !joined(found.chars().next_back(), tail.chars().next())
}

/// Part of a word in a script that puts spaces between words.
pub(crate) fn is_word(c: char) -> bool {
    !is_unspaced(c) && (c.is_alphanumeric() || c == '_')
}
