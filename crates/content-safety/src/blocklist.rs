//! Words and patterns that an operator or a caller does not want to see: one list of them, ready to be looked for.
//!
//! Separate and pure: a list is compiled once, and matching takes time linear in the text whatever the items are. Those of the
//! configuration and those that callers manage (`store`) are the same here. Invariant: every id names exactly one item.

pub mod lists;
mod matcher;

mod directory;
pub mod store;

use crate::error::SafetyError;
use matcher::Matcher;
pub(crate) use matcher::is_word;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use uuid::Builder;

/// Most lists of a configuration.
pub const MOST_LISTS: usize = 100;
/// Most items of a configured list.
pub const MOST_ITEMS: usize = 10_000;
/// Longest text of an item, in characters (contract, section 14).
pub const LONGEST_TEXT: usize = 128;
/// Longest regular expression of a configured list, in characters.
pub const LONGEST_REGEX: usize = 1024;
/// Longest description of a list or an item, in characters (contract, section 14).
pub const LONGEST_DESCRIPTION: usize = 1024;
/// Longest name of a list (contract, section 14).
const LONGEST_NAME: usize = 64;
/// Memory of one compiled regular expression of an operator, in bytes: enough for any sensible one, and a repetition bomb is
/// refused.
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

/// An item as configured: `text`, `substring` or `regex`, exactly one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemConfig {
    /// Names the item in answers; empty is its place in the list, from 1.
    pub id: String,
    /// Words, found anywhere between word boundaries, whatever their case.
    pub text: String,
    /// Characters, found anywhere, within words too, whatever their case.
    pub substring: String,
    /// A regular expression in the syntax of the `regex` crate, whatever the case.
    pub regex: String,
}

/// How an item is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Between word boundaries.
    Words,
    /// Anywhere.
    Substring,
    /// As a regular expression.
    Regex,
}

/// An item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Unique in its list.
    pub id: String,
    /// What is looked for.
    pub text: String,
    /// How.
    pub kind: Kind,
    /// For people.
    pub description: Option<String>,
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

/// A list that texts can be compared with.
#[derive(Debug)]
pub struct Blocklist {
    /// 1 to 64 of letters, digits and `._~-`.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// In the order in which they were added.
    pub items: Vec<Item>,
    /// Whether callers may change it; a list of the configuration is the operator's alone.
    pub managed: bool,
    matcher: Matcher,
}

impl Blocklist {
    /// Compiles a list of the configuration.
    ///
    /// # Errors
    /// When its name, an id, a text or a regular expression cannot be used; the message names the item.
    pub fn configured(config: &ListConfig) -> Result<Self, SafetyError> {
        let name = &config.name;
        if !is_name(name) {
            return Err(wrong(name, name_rule()));
        }
        if config.items.len() > MOST_ITEMS {
            return Err(wrong(name, format!("at most {MOST_ITEMS} items are possible")));
        }
        let mut ids = BTreeSet::new();
        let mut items = Vec::with_capacity(config.items.len());
        for (place, item) in (1..).zip(&config.items) {
            let id = if item.id.is_empty() { format!("{place}") } else { item.id.clone() };
            let item = configured(id, item).map_err(|reason| wrong(name, reason))?;
            if !ids.insert(item.id.clone()) {
                return Err(wrong(name, format!("the id `{}` is used twice", item.id)));
            }
            items.push(item);
        }
        let matcher = Matcher::build(&items, REGEX_BYTES).map_err(|reason| wrong(name, reason))?;
        Ok(Self { name: name.clone(), description: None, items, managed: false, matcher })
    }

    /// Compiles a list that callers manage; its ids are made here.
    ///
    /// # Errors
    /// What is wrong with which item, for a sentence that says whose items they are.
    fn managed(
        name: &str,
        description: Option<String>,
        items: Vec<NewItem>,
    ) -> Result<Self, String> {
        let mut ids = BTreeSet::new();
        let mut named = Vec::with_capacity(items.len());
        for (place, item) in (1..).zip(items) {
            item.check().map_err(|reason| format!("item {place} {reason}"))?;
            let item = item.named(name);
            if !ids.insert(item.id.clone()) {
                return Err(format!("item {place} is there twice"));
            }
            named.push(item);
        }
        Self::of_items(name, description, named)
    }

    /// Compiles a list of items that were checked before.
    fn of_items(name: &str, description: Option<String>, items: Vec<Item>) -> Result<Self, String> {
        let matcher = Matcher::build(&items, matcher::MANAGED_REGEX_BYTES)?;
        Ok(Self { name: name.to_owned(), description, items, managed: true, matcher })
    }

    /// The item `id`.
    #[must_use]
    pub fn item(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    /// How many of the items are regular expressions: each costs a pass over the text.
    #[must_use]
    pub fn regexes(&self) -> usize {
        self.matcher.regexes()
    }

    /// Every item that `text` holds, each once; `folded` is the text as [`crate::normalise::fold`] makes it.
    fn find(&self, text: &str, folded: &str) -> impl Iterator<Item = Hit> {
        let found = self.matcher.find(text, folded);
        found.into_iter().filter_map(|at| self.items.get(at)).map(|item| Hit {
            list: self.name.clone(),
            id: item.id.clone(),
            text: item.text.clone(),
        })
    }
}

/// An item that a caller adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItem {
    /// What to look for.
    pub text: String,
    /// For people.
    pub description: Option<String>,
    /// Whether `text` is a regular expression; else it is words.
    pub is_regex: bool,
}

impl NewItem {
    const fn kind(&self) -> Kind {
        if self.is_regex { Kind::Regex } else { Kind::Words }
    }

    /// Whether a list could hold it; the reason follows the item's name in a sentence.
    fn check(&self) -> Result<(), String> {
        check_length(&self.text, LONGEST_TEXT)?;
        if self.description.as_ref().is_some_and(|d| d.chars().count() > LONGEST_DESCRIPTION) {
            return Err(format!("has a description of more than {LONGEST_DESCRIPTION} characters"));
        }
        matcher::check(self.kind(), &self.text, matcher::MANAGED_REGEX_BYTES)
    }

    /// The item in the list `list`. Its id is made of what it is, so that adding it again names the same one, on any replica.
    fn named(self, list: &str) -> Item {
        let kind = self.kind();
        let regex = [u8::from(self.is_regex)];
        // The lengths keep one part from running into the next.
        let mut hash = Sha256::new();
        for part in [list.as_bytes(), &regex, self.text.as_bytes()] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        let id = Builder::from_custom_bytes(bytes).into_uuid().to_string();
        Item { id, text: self.text, kind, description: self.description }
    }
}

fn configured(id: String, item: &ItemConfig) -> Result<Item, String> {
    let (kind, text, longest) =
        match (item.text.trim(), item.substring.as_str(), item.regex.as_str()) {
            ("", "", "") => {
                return Err(format!("item `{id}` needs `text`, `substring` or `regex`"));
            }
            (text, "", "") => (Kind::Words, text, LONGEST_TEXT),
            ("", text, "") => (Kind::Substring, text, LONGEST_TEXT),
            ("", "", text) => (Kind::Regex, text, LONGEST_REGEX),
            (_, _, _) => {
                let expected = "exactly one of `text`, `substring` and `regex`";
                return Err(format!("item `{id}` must have {expected}"));
            }
        };
    check_length(text, longest)
        .and_then(|()| matcher::check(kind, text, REGEX_BYTES))
        .map_err(|reason| format!("item `{id}` {reason}"))?;
    Ok(Item { id, text: text.to_owned(), kind, description: None })
}

fn check_length(text: &str, most: usize) -> Result<(), String> {
    let length = text.chars().count();
    if length > most {
        return Err(format!("has {length} characters; the limit is {most}"));
    }
    Ok(())
}

/// Whether a list can be called `name` (contract, section 14).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(good)
}

/// The rule of `is_name` in words.
#[must_use]
pub fn name_rule() -> String {
    format!("a name has 1 to {LONGEST_NAME} letters, digits or `._~-`")
}

fn wrong(list: &str, reason: String) -> SafetyError {
    SafetyError::Blocklist { list: list.to_owned(), reason }
}

#[cfg(test)]
mod tests;
