//! The directory in which the lists that callers manage are kept: one JSON file per list, `NAME.json`.
//!
//! Separate because it alone touches files. A file is written beside its place, synced and renamed into it, so a reader sees the
//! old list or the new one and never half of one. Replicas may share a directory: a lock file orders their changes, and since
//! every write sets a modification time later than any seen before, a changed file always differs in its stamp.

use super::store::Limits;
use super::{Blocklist, Kind, NewItem, is_name, name_rule};
use crate::error::SafetyError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Ends the name of a list's file, and of one that is being written.
const STORED: &str = ".json";
const UNFINISHED: &str = ".unfinished";
/// Whoever holds a lock on it may change files.
const LOCK: &str = ".lock";
/// Version of the files' form.
const FORMAT: u32 = 1;
/// File systems keep modification times at least this finely.
const TICK: Duration = Duration::from_millis(1);
/// Most bytes of an item in a file: text and description with every character escaped, and names around them.
const ITEM_BYTES: u64 = 8 << 10;
/// Most bytes of a file besides its items.
const FRAME_BYTES: u64 = 16 << 10;

/// The directory, and what was last seen there.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// By the name of the list.
    stamps: BTreeMap<String, Stamp>,
    /// The latest modification time of any file that was seen.
    newest: SystemTime,
}

/// What tells one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

/// What is different from the last look.
#[derive(Debug)]
pub(super) enum Change {
    /// A list that is new or was changed.
    Stored(Blocklist),
    /// A list whose file is gone.
    Gone(String),
    /// A file that cannot be read as a list, by the name that the list would have.
    Damaged(String, SafetyError),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StoredList {
    format: u32,
    blocklist_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    blocklist_items: Vec<StoredItem>,
}

/// The id of an item is made of its text, so no file holds it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StoredItem {
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default)]
    is_regex: bool,
}

impl Directory {
    /// Makes the directory where it is missing, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// When it cannot be made, listed or written to.
    pub(super) fn open(path: &Path) -> Result<Self, SafetyError> {
        let directory =
            Self { path: path.to_owned(), stamps: BTreeMap::new(), newest: SystemTime::UNIX_EPOCH };
        fs::create_dir_all(path).map_err(|cause| failed("make", path, &cause))?;
        let held = directory.lock()?;
        for file in directory.names()?.iter().filter(|name| name.ends_with(UNFINISHED)) {
            let file = path.join(file);
            fs::remove_file(&file).map_err(|cause| failed("remove", &file, &cause))?;
        }
        drop(held);
        Ok(directory)
    }

    /// Waits for the right to change files; dropping the answer gives it back.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub(super) fn lock(&self) -> Result<File, SafetyError> {
        let path = self.path.join(LOCK);
        let lock = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|cause: io::Error| failed("lock", &path, &cause))
    }

    /// What changed since the last look.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(super) fn changes(&mut self, limits: &Limits) -> Result<Vec<Change>, SafetyError> {
        let mut present = BTreeSet::new();
        let mut changes = Vec::new();
        for file in self.names()? {
            let Some(name) = file.strip_suffix(STORED).map(str::to_owned) else { continue };
            let path = self.path.join(&file);
            match self.look(&name, &path, limits) {
                Ok(change) => changes.extend(change.map(Change::Stored)),
                // Removed since it was listed.
                Err(Damage::Gone) => continue,
                Err(Damage::Broken(error)) => changes.push(Change::Damaged(name.clone(), error)),
            }
            present.insert(name);
        }
        let gone = self.stamps.keys().filter(|name| !present.contains(*name)).cloned();
        let gone: Vec<String> = gone.collect();
        for name in gone {
            self.stamps.remove(&name);
            changes.push(Change::Gone(name));
        }
        Ok(changes)
    }

    /// The list in `path` if it is another than at the last look. A damaged file is damage once, until it changes again.
    fn look(
        &mut self,
        name: &str,
        path: &Path,
        limits: &Limits,
    ) -> Result<Option<Blocklist>, Damage> {
        let read = |cause: io::Error| {
            if cause.kind() == io::ErrorKind::NotFound {
                return Damage::Gone;
            }
            Damage::Broken(failed("read", path, &cause))
        };
        let stamp = Stamp::of(&fs::metadata(path).map_err(read)?).map_err(read)?;
        if self.stamps.insert(name.to_owned(), stamp) == Some(stamp) {
            return Ok(None);
        }
        self.newest = self.newest.max(stamp.modified);
        let damaged = |reason: String| Damage::Broken(damaged(path, &reason));
        let items = u64::try_from(limits.items).unwrap_or(u64::MAX);
        let most = items.saturating_mul(ITEM_BYTES).saturating_add(FRAME_BYTES);
        if stamp.length > most {
            return Err(damaged(format!("it has {} bytes; the limit is {most}", stamp.length)));
        }
        let bytes = fs::read(path).map_err(read)?;
        parse(name, &bytes).map(Some).map_err(damaged)
    }

    /// Puts `list` in the place of the file before; on any error that one stays.
    ///
    /// # Errors
    /// When the file cannot be written, for want of space for example.
    pub(super) fn write(&mut self, list: &Blocklist) -> Result<(), SafetyError> {
        let path = self.path.join(format!("{}{STORED}", list.name));
        let unfinished = self.path.join(format!(".{}{UNFINISHED}", list.name));
        let now = SystemTime::now();
        let modified = self.newest.checked_add(TICK).map_or(now, |later| later.max(now));
        let put = || {
            let file = File::create(&unfinished)?;
            let mut writer = BufWriter::new(&file);
            serde_json::to_writer_pretty(&mut writer, &StoredList::of(list))?;
            writer.flush()?;
            drop(writer);
            file.set_modified(modified)?;
            file.sync_all()?;
            let stamp = Stamp::of(&file.metadata()?)?;
            fs::rename(&unfinished, &path)?;
            Ok(stamp)
        };
        let stamp = put().map_err(|cause: io::Error| {
            // It is not the list, and the next start removes it if this fails too.
            let _left = fs::remove_file(&unfinished);
            failed("write", &path, &cause)
        })?;
        self.sync();
        self.newest = self.newest.max(stamp.modified);
        self.stamps.insert(list.name.clone(), stamp);
        Ok(())
    }

    /// Removes the file of the list `name`.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), SafetyError> {
        let path = self.path.join(format!("{name}{STORED}"));
        if let Err(cause) = fs::remove_file(&path)
            && cause.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("remove", &path, &cause));
        }
        self.sync();
        self.stamps.remove(name);
        Ok(())
    }

    /// The rename itself must survive a power cut; not every file system can be asked to, and then it may be late.
    fn sync(&self) {
        let _unsupported = File::open(&self.path).and_then(|directory| directory.sync_all());
    }

    /// Names of the files, in order; what is no text is not ours.
    fn names(&self) -> Result<Vec<String>, SafetyError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        };
        let mut names = list().map_err(|cause| failed("list", &self.path, &cause))?;
        names.sort_unstable();
        Ok(names)
    }
}

enum Damage {
    Gone,
    Broken(SafetyError),
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self { modified: metadata.modified()?, length: metadata.len() })
    }
}

impl StoredList {
    fn of(list: &Blocklist) -> Self {
        let items = list.items.iter().map(|item| StoredItem {
            text: item.text.clone(),
            description: item.description.clone(),
            is_regex: item.kind == Kind::Regex,
        });
        Self {
            format: FORMAT,
            blocklist_name: list.name.clone(),
            description: list.description.clone(),
            blocklist_items: items.collect(),
        }
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Blocklist, String> {
    let stored: StoredList = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let StoredList { format, blocklist_name, description, blocklist_items } = stored;
    if format != FORMAT {
        return Err(format!("its `format` is {format}; this version knows {FORMAT}"));
    }
    if blocklist_name != name {
        return Err(format!("it holds the list `{blocklist_name}`"));
    }
    if !is_name(name) {
        return Err(name_rule());
    }
    let item = |item: StoredItem| {
        let StoredItem { text, description, is_regex } = item;
        NewItem { text, description, is_regex }
    };
    Blocklist::managed(name, description, blocklist_items.into_iter().map(item).collect())
}

fn failed(what: &str, path: &Path, cause: &io::Error) -> SafetyError {
    SafetyError::Storage(format!("cannot {what} `{}`: {cause}", path.display()))
}

fn damaged(path: &Path, reason: &str) -> SafetyError {
    SafetyError::Storage(format!(
        "`{}` is no blocklist that can be used: {reason}; mend it, put a copy of before in its place, or remove it",
        path.display()
    ))
}
