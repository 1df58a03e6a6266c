//! Words and patterns that an operator does not want to see.
//!
//! Separate and pure: lists are compiled once at start, and matching takes time linear in the text whatever the items are.
//! Invariant: every id in a list names exactly one item.

use crate::error::SafetyError;
use crate::normalise::fold;
use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most lists of a service.
pub const MOST_LISTS: usize = 100;
/// Most items of a list.
pub const MOST_ITEMS: usize = 10_000;
/// Longest text of an item, in characters (contract, section 14).
pub const LONGEST_TEXT: usize = 128;
/// Longest regular expression, in characters.
pub const LONGEST_REGEX: usize = 1024;
/// Longest name of a list (contract, section 14).
const LONGEST_NAME: usize = 64;
/// Memory of one compiled regular expression, in bytes: enough for any sensible one, and a repetition bomb is refused.
const REGEX_BYTES: usize = 1 << 20;

/// A list as configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConfig {
    /// 1 to 64 of letters, digits and `._~-`.
    pub name: String,
    /// What to look for.
    pub items: Vec<ItemConfig>,
}

/// An item as configured: `text` or `regex`, exactly one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemConfig {
    /// Names the item in answers; empty is its place in the list, from 1.
    pub id: String,
    /// Words, found anywhere between word boundaries, whatever their case.
    pub text: String,
    /// A regular expression in the syntax of the `regex` crate, whatever the case.
    pub regex: String,
}

/// An item that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Name of the list.
    pub list: String,
    /// Id of the item.
    pub id: String,
    /// The item's text or regular expression.
    pub text: String,
}

/// All lists, by name.
#[derive(Debug, Default)]
pub struct Blocklists {
    lists: BTreeMap<String, List>,
}

#[derive(Debug)]
struct List {
    words: AhoCorasick,
    /// Items of the patterns of `words`, in their order.
    word_items: Vec<Item>,
    regexes: Vec<(Regex, Item)>,
}

#[derive(Debug, Clone)]
struct Item {
    id: String,
    text: String,
}

impl Blocklists {
    /// Compiles `configs`.
    ///
    /// # Errors
    /// When a name, id, text or regular expression cannot be used; the message names the option.
    pub fn build(configs: &[ListConfig]) -> Result<Self, SafetyError> {
        if configs.len() > MOST_LISTS {
            return Err(wrong("", format!("at most {MOST_LISTS} lists are possible")));
        }
        let mut lists = BTreeMap::new();
        for config in configs {
            check_name(&config.name)?;
            let list = List::build(config)?;
            if lists.insert(config.name.clone(), list).is_some() {
                return Err(wrong(&config.name, "there is another list of this name".to_owned()));
            }
        }
        Ok(Self { lists })
    }

    /// Whether there is a list `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.lists.contains_key(name)
    }

    /// Every item of the lists `names` that `text` holds, each once.
    ///
    /// # Errors
    /// `UnknownBlocklist` for the first name that is not there.
    pub fn find(&self, names: &[String], text: &str) -> Result<BTreeSet<Hit>, SafetyError> {
        let mut hits = BTreeSet::new();
        if names.is_empty() {
            return Ok(hits);
        }
        let folded = fold(text);
        for name in names {
            let Some(list) = self.lists.get(name) else {
                let known = self.lists.keys().cloned().collect();
                return Err(SafetyError::UnknownBlocklist { name: name.clone(), known });
            };
            hits.extend(list.find(text, &folded).map(|item| Hit {
                list: name.clone(),
                id: item.id.clone(),
                text: item.text.clone(),
            }));
        }
        Ok(hits)
    }
}

impl List {
    fn build(config: &ListConfig) -> Result<Self, SafetyError> {
        let name = &config.name;
        if config.items.len() > MOST_ITEMS {
            return Err(wrong(name, format!("at most {MOST_ITEMS} items are possible")));
        }
        let mut ids = BTreeSet::new();
        let (mut patterns, mut word_items, mut regexes) = (Vec::new(), Vec::new(), Vec::new());
        for (place, item) in (1..).zip(&config.items) {
            let id = if item.id.is_empty() { format!("{place}") } else { item.id.clone() };
            if !ids.insert(id.clone()) {
                return Err(wrong(name, format!("the id `{id}` is used twice")));
            }
            match (item.text.trim(), item.regex.as_str()) {
                ("", "") => {
                    return Err(wrong(name, format!("item `{id}` needs `text` or `regex`")));
                }
                (text, "") => {
                    check_length(name, &id, text, LONGEST_TEXT)?;
                    patterns.push(fold(text));
                    word_items.push(Item { id, text: text.to_owned() });
                }
                ("", regex) => {
                    check_length(name, &id, regex, LONGEST_REGEX)?;
                    regexes.push((compile(name, &id, regex)?, Item { id, text: regex.to_owned() }));
                }
                (_, _) => {
                    return Err(wrong(name, format!("item `{id}` has both `text` and `regex`")));
                }
            }
        }
        let words = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .map_err(|error| wrong(name, error.to_string()))?;
        Ok(Self { words, word_items, regexes })
    }

    fn find<'a>(&'a self, text: &'a str, folded: &'a str) -> impl Iterator<Item = &'a Item> {
        let words = self
            .words
            .find_overlapping_iter(folded)
            .filter(|m| stands_alone(folded, m.start(), m.end()))
            .filter_map(|m| self.word_items.get(m.pattern().as_usize()));
        let regexes = self.regexes.iter().filter(|(r, _)| r.is_match(text) || r.is_match(folded));
        words.chain(regexes.map(|(_, item)| item))
    }
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

/// Part of a word in a script that puts spaces between words; Thai, Lao, Khmer, kana and Han do not.
fn is_word(c: char) -> bool {
    let unspaced = matches!(
        c,
        '\u{e00}'..='\u{eff}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
    );
    !unspaced && (c.is_alphanumeric() || c == '_')
}

fn compile(list: &str, id: &str, regex: &str) -> Result<Regex, SafetyError> {
    RegexBuilder::new(regex)
        .case_insensitive(true)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .build()
        .map_err(|error| wrong(list, format!("item `{id}`: {error}")))
}

fn check_name(name: &str) -> Result<(), SafetyError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(good) {
        let expected = format!("a name has 1 to {LONGEST_NAME} letters, digits or `._~-`");
        return Err(wrong(name, expected));
    }
    Ok(())
}

fn check_length(list: &str, id: &str, text: &str, most: usize) -> Result<(), SafetyError> {
    if text.chars().count() > most {
        return Err(wrong(list, format!("item `{id}` is longer than {most} characters")));
    }
    Ok(())
}

fn wrong(list: &str, reason: String) -> SafetyError {
    SafetyError::Blocklist { list: list.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, text: &str, regex: &str) -> ItemConfig {
        ItemConfig { id: id.into(), text: text.into(), regex: regex.into() }
    }

    fn lists(items: Vec<ItemConfig>) -> Result<Blocklists, SafetyError> {
        Blocklists::build(&[ListConfig { name: "words".into(), items }])
    }

    fn ids(lists: &Blocklists, text: &str) -> Vec<String> {
        let hits = lists.find(&["words".to_owned()], text).unwrap();
        hits.into_iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn words_are_found_whole_whatever_their_case() {
        let lists = lists(vec![item("", "Acme", ""), item("long", "acme rocket", "")]).unwrap();
        assert_eq!(ids(&lists, "an ACME-Rocket"), ["1"]);
        assert_eq!(ids(&lists, "the acme rocket."), ["1", "long"]);
        assert_eq!(ids(&lists, "acmeology, Pacme"), Vec::<String>::new());
    }

    #[test]
    fn look_alikes_and_invisible_characters_do_not_hide_a_word() {
        let lists = lists(vec![item("", "acme", "")]).unwrap();
        assert_eq!(ids(&lists, "a\u{441}m\u{200b}e"), ["1"]);
    }

    #[test]
    fn scripts_without_spaces_need_no_boundary() {
        let lists = lists(vec![item("", "禁止", "")]).unwrap();
        assert_eq!(ids(&lists, "これは禁止です"), ["1"]);
    }

    #[test]
    fn regular_expressions_match_and_are_bounded() {
        let list = lists(vec![item("ssn", "", r"\b\d{3}-\d{2}-\d{4}\b")]).unwrap();
        assert_eq!(ids(&list, "it is 123-45-6789"), ["ssn"]);
        let bomb = lists(vec![item("", "", r"(\w{1000}){1000}")]).unwrap_err().to_string();
        assert!(bomb.contains("`words`") && bomb.contains("item `1`"), "{bomb}");
    }

    #[test]
    fn an_item_is_a_text_or_a_regex_and_its_id_is_its_own() {
        assert!(lists(vec![item("", "", "")]).is_err());
        assert!(lists(vec![item("", "a", "b")]).is_err());
        assert!(lists(vec![item("x", "a", ""), item("x", "b", "")]).is_err());
        assert!(lists(vec![item("", &"x".repeat(LONGEST_TEXT + 1), "")]).is_err());
    }

    #[test]
    fn an_unknown_list_is_named_with_those_that_are_known() {
        let lists = lists(Vec::new()).unwrap();
        let error = lists.find(&["nope".to_owned()], "x").unwrap_err().to_string();
        assert!(error.contains("`nope`") && error.contains("`words`"), "{error}");
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let build =
            |name: &str| Blocklists::build(&[ListConfig { name: name.into(), items: Vec::new() }]);
        assert!(build("a.B_9~-").is_ok());
        assert!(build("").is_err());
        assert!(build("with space").is_err());
        assert!(build(&"x".repeat(65)).is_err());
    }
}
