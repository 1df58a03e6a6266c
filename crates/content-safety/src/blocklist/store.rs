//! All blocklists of a service: those of the configuration, and those that callers manage.
//!
//! Separate from a list, which is only compared with, and from the directory, which only keeps. Readers take what is there now
//! and never wait; changes come one after the other, here and among replicas, and are on disk before anybody sees them.
//! Everything here blocks: call it from a blocking thread.

use super::directory::{Change, Directory};
use super::lists::Lists;
use super::{Blocklist, Item, NewItem, is_name};
use crate::config::BlocklistsConfig;
use crate::error::SafetyError;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much callers may keep.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lists.
    pub lists: usize,
    /// Items of all lists together.
    pub items: usize,
    /// Those of them that are regular expressions.
    pub regexes: usize,
}

/// What becomes of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Description {
    /// It stays as it is.
    Keep,
    /// It is this from now on, or there is none.
    Set(Option<String>),
}

/// The lists of a service.
#[derive(Debug)]
pub struct Blocklists {
    now: ArcSwap<Lists>,
    limits: Limits,
    /// Whoever holds it may change `now`.
    kept: Mutex<Kept>,
}

/// Where managed lists are kept.
#[derive(Debug)]
struct Kept {
    /// None keeps them in memory alone.
    directory: Option<Directory>,
    /// Lists whose file was damaged after the start: they go on as they were, and nobody changes them.
    damaged: BTreeSet<String>,
}

/// What an edit makes of a list.
enum Edited {
    Same,
    Stored(Blocklist),
    Gone,
}

impl Blocklists {
    /// Compiles the lists of the configuration and reads those that were kept.
    ///
    /// # Errors
    /// When a list cannot be used, or the directory cannot; the message names list, file and remedy.
    pub fn open(config: &BlocklistsConfig) -> Result<Self, SafetyError> {
        let limits = config.limits();
        let directory = match config.dir.as_str() {
            "" => None,
            path => Some(Directory::open(Path::new(path))?),
        };
        let lists = Self {
            now: ArcSwap::from_pointee(Lists::configured(&config.lists)?),
            limits,
            kept: Mutex::new(Kept { directory, damaged: BTreeSet::new() }),
        };
        let damaged = lists.reload(&mut lists.kept())?;
        damaged.into_iter().next().map_or(Ok(()), Err)?;
        Ok(lists)
    }

    /// The lists as they are now.
    #[must_use]
    pub fn now(&self) -> Arc<Lists> {
        self.now.load_full()
    }

    /// Takes in what other replicas changed since the last look.
    ///
    /// # Errors
    /// When the directory cannot be read. Damaged lists are logged and go on as they were.
    pub fn refresh(&self) -> Result<(), SafetyError> {
        let damaged = self.reload(&mut self.kept())?;
        for error in damaged {
            tracing::error!(%error, "a blocklist cannot be read again; what it was before stays in force");
        }
        Ok(())
    }

    /// Makes the list `name`, or changes its description; the list as it is now, and whether it was made.
    ///
    /// # Errors
    /// When the name or description cannot be used, the list is the operator's, or there is no room for one more.
    pub fn upsert(
        &self,
        name: &str,
        description: Description,
    ) -> Result<(Arc<Blocklist>, bool), SafetyError> {
        let created = self.change(name, |present| {
            let (present, items) = match present {
                Some(list) => (list.description.clone(), list.items.clone()),
                None => (None, Vec::new()),
            };
            let description = match description {
                Description::Keep => present,
                Description::Set(description) => description,
            };
            let list = Blocklist::of_items(name, description, items).map_err(SafetyError::Model)?;
            Ok((Edited::Stored(list), ()))
        });
        let (before, ()) = created?;
        Ok((self.get(name)?, before.is_none()))
    }

    /// Removes the list `name`.
    ///
    /// # Errors
    /// When it is not there, or the operator's.
    pub fn delete(&self, name: &str) -> Result<(), SafetyError> {
        self.change(name, |present| {
            present.ok_or_else(|| missing(name))?;
            Ok((Edited::Gone, ()))
        })?;
        Ok(())
    }

    /// Adds `items` to the list `name`, all or none; one that is there already gets the new description.
    ///
    /// # Errors
    /// When the list is not there or the operator's, an item cannot be used, or there is no room for them.
    pub fn upsert_items(&self, name: &str, items: Vec<NewItem>) -> Result<Vec<Item>, SafetyError> {
        for (at, item) in items.iter().enumerate() {
            item.check().map_err(|reason| {
                SafetyError::invalid(format!("items.{at}"), format!("item {at} {reason}"))
            })?;
        }
        let added: Vec<Item> = items.into_iter().map(|item| item.named(name)).collect();
        let (_, added) = self.change(name, |present| {
            let list = present.ok_or_else(|| missing(name))?;
            let mut all = list.items.clone();
            let mut places: BTreeMap<String, usize> =
                (0..).zip(&all).map(|(place, item)| (item.id.clone(), place)).collect();
            for item in &added {
                match places.get(&item.id).and_then(|place| all.get_mut(*place)) {
                    Some(there) => there.description.clone_from(&item.description),
                    None => {
                        places.insert(item.id.clone(), all.len());
                        all.push(item.clone());
                    }
                }
            }
            let list = Blocklist::of_items(name, list.description.clone(), all)
                .map_err(|reason| SafetyError::invalid("items", reason))?;
            Ok((Edited::Stored(list), added))
        })?;
        Ok(added)
    }

    /// Removes the items `ids` from the list `name`; ids that are not there are passed over.
    ///
    /// # Errors
    /// When the list is not there, or the operator's.
    pub fn remove_items(&self, name: &str, ids: &[String]) -> Result<(), SafetyError> {
        self.change(name, |present| {
            let list = present.ok_or_else(|| missing(name))?;
            let kept = list.items.iter().filter(|item| !ids.contains(&item.id));
            let kept: Vec<Item> = kept.cloned().collect();
            if kept.len() == list.items.len() {
                return Ok((Edited::Same, ()));
            }
            let list = Blocklist::of_items(name, list.description.clone(), kept)
                .map_err(SafetyError::Model)?;
            Ok((Edited::Stored(list), ()))
        })?;
        Ok(())
    }

    /// The list `name`.
    ///
    /// # Errors
    /// `InvalidName` for what no list can be called, `NoBlocklist` for one that is not there.
    pub fn get(&self, name: &str) -> Result<Arc<Blocklist>, SafetyError> {
        if !is_name(name) {
            return Err(SafetyError::InvalidName);
        }
        self.now().get(name).map(Arc::clone).ok_or_else(|| missing(name))
    }

    /// Lets `edit` make something of the list `name`: the list before, and what `edit` answers.
    fn change<T>(
        &self,
        name: &str,
        edit: impl FnOnce(Option<&Blocklist>) -> Result<(Edited, T), SafetyError>,
    ) -> Result<(Option<Arc<Blocklist>>, T), SafetyError> {
        if !is_name(name) {
            return Err(SafetyError::InvalidName);
        }
        let mut kept = self.kept();
        let _turn = kept.directory.as_ref().map(Directory::lock).transpose()?;
        for error in self.reload(&mut kept)? {
            tracing::error!(%error, "a blocklist cannot be read again");
        }
        if kept.damaged.contains(name) {
            return Err(SafetyError::Storage(format!(
                "the file of the blocklist `{name}` is damaged"
            )));
        }
        let mut lists = Lists::clone(&self.now());
        let before = lists.get(name).map(Arc::clone);
        if before.as_ref().is_some_and(|list| !list.managed) {
            return Err(SafetyError::ReadOnly { name: name.to_owned() });
        }
        let (edited, answer) = edit(before.as_deref())?;
        match edited {
            Edited::Same => return Ok((before, answer)),
            Edited::Stored(list) => {
                self.check_room(&lists, &list)
                    .map_err(|reason| SafetyError::invalid("name", reason))?;
                if let Some(directory) = &mut kept.directory {
                    directory.write(&list)?;
                }
                lists.insert(Arc::new(list));
            }
            Edited::Gone => {
                if let Some(directory) = &mut kept.directory {
                    directory.remove(name)?;
                }
                lists.remove(name);
            }
        }
        self.now.store(Arc::new(lists));
        Ok((before, answer))
    }

    /// Brings `now` up to date with the directory; what could not be read.
    fn reload(&self, kept: &mut Kept) -> Result<Vec<SafetyError>, SafetyError> {
        let Some(directory) = &mut kept.directory else { return Ok(Vec::new()) };
        let changes = directory.changes(&self.limits)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut lists = Lists::clone(&self.now());
        let mut errors = Vec::new();
        for change in changes {
            match change {
                Change::Stored(list) => match self.check_kept(&lists, &list) {
                    Ok(()) => {
                        kept.damaged.remove(&list.name);
                        lists.insert(Arc::new(list));
                    }
                    Err(error) => {
                        kept.damaged.insert(list.name.clone());
                        errors.push(error);
                    }
                },
                Change::Gone(name) => {
                    kept.damaged.remove(&name);
                    if lists.get(&name).is_some_and(|list| list.managed) {
                        lists.remove(&name);
                    }
                }
                Change::Damaged(name, error) => {
                    kept.damaged.insert(name);
                    errors.push(error);
                }
            }
        }
        self.now.store(Arc::new(lists));
        Ok(errors)
    }

    /// Whether a list that was found in the directory can be taken in.
    fn check_kept(&self, lists: &Lists, list: &Blocklist) -> Result<(), SafetyError> {
        let name = &list.name;
        if lists.get(name).is_some_and(|present| !present.managed) {
            let reason = "the configuration has a list of this name, and the directory another; rename one of them";
            return Err(SafetyError::Blocklist { list: name.clone(), reason: reason.to_owned() });
        }
        self.check_room(lists, list).map_err(|reason| {
            let reason = format!("{reason}; raise the limit or remove its file");
            SafetyError::Blocklist { list: name.clone(), reason }
        })
    }

    /// Whether there is room for `list` among, or in the place of one of, `lists`. What is no more than before always fits, so
    /// that lists can be made shorter after a limit was lowered.
    fn check_room(&self, lists: &Lists, list: &Blocklist) -> Result<(), String> {
        let Limits { lists: most_lists, items: most_items, regexes: most_regexes } = self.limits;
        let counts: [(Count, usize, &str); 3] = [
            (|_| 1, most_lists, "blocklists"),
            (|list| list.items.len(), most_items, "items in all blocklists"),
            (Blocklist::regexes, most_regexes, "regular expressions in all blocklists"),
        ];
        for (count, most, what) in counts {
            let before: usize = lists.managed().map(|list| count(list)).sum();
            let replaced = lists.get(&list.name).map_or(0, |list| count(list));
            let after = before - replaced + count(list);
            if after > most && after > before {
                return Err(format!("there would be {after} {what}; the limit is {most}"));
            }
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change is complete before it is stored in `now`, so a panic on the way left nothing half-done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of something a list has.
type Count = fn(&Blocklist) -> usize;

fn missing(name: &str) -> SafetyError {
    SafetyError::NoBlocklist { name: name.to_owned() }
}

#[cfg(test)]
mod tests;
