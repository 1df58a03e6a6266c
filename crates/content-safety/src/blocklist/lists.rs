//! All lists at one moment, and what they find in a text.
//!
//! Separate from the store, which replaces the whole of them at every change: whoever took them goes on with what they were.

use super::{Blocklist, Hit, ListConfig, MOST_LISTS};
use crate::error::SafetyError;
use crate::normalise::fold;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of lists that an error message repeats at most: it travels in headers.
const MOST_NAMED: usize = 10;

/// All lists at one moment, by name.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    by_name: BTreeMap<String, Arc<Blocklist>>,
}

impl Lists {
    /// Compiles the lists of a configuration.
    ///
    /// # Errors
    /// When there are too many, or one cannot be used; the message names it.
    pub fn configured(configs: &[ListConfig]) -> Result<Self, SafetyError> {
        let wrong =
            |list: &str, reason: String| SafetyError::Blocklist { list: list.to_owned(), reason };
        if configs.len() > MOST_LISTS {
            return Err(wrong("", format!("at most {MOST_LISTS} lists are possible")));
        }
        let mut lists = Self::default();
        for config in configs {
            let list = Arc::new(Blocklist::configured(config)?);
            if lists.insert(list).is_some() {
                return Err(wrong(&config.name, "there is another list of this name".to_owned()));
            }
        }
        Ok(lists)
    }

    /// The list `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Blocklist>> {
        self.by_name.get(name)
    }

    /// All of them, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Blocklist>> {
        self.by_name.values()
    }

    /// The lists `names`.
    ///
    /// # Errors
    /// `UnknownBlocklist` for the first name that is not there.
    pub fn named(&self, names: &[String]) -> Result<Vec<Arc<Blocklist>>, SafetyError> {
        let list = |name: &String| {
            let list = self.get(name).map(Arc::clone);
            list.ok_or_else(|| SafetyError::UnknownBlocklist {
                name: name.clone(),
                known: self.by_name.keys().take(MOST_NAMED).cloned().collect(),
            })
        };
        names.iter().map(list).collect()
    }

    /// Puts `list` under its name; the one before.
    pub(super) fn insert(&mut self, list: Arc<Blocklist>) -> Option<Arc<Blocklist>> {
        self.by_name.insert(list.name.clone(), list)
    }

    /// Takes the list `name` out.
    pub(super) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// Those that callers manage.
    pub(super) fn managed(&self) -> impl Iterator<Item = &Arc<Blocklist>> {
        self.all().filter(|list| list.managed)
    }
}

/// Every item of `lists` that `text` holds, each once.
#[must_use]
pub fn find(lists: &[Arc<Blocklist>], text: &str) -> BTreeSet<Hit> {
    if lists.is_empty() {
        return BTreeSet::new();
    }
    let folded = fold(text);
    lists.iter().flat_map(|list| list.find(text, &folded)).collect()
}
