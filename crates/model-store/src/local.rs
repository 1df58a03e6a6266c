//! A model that is complete on disk.
//!
//! Separate because this is all that an engine needs to see of the store.
//! Holding one means that its files were there, and right, when `ensure` returned it.

use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, Entry};
use crate::error::StoreError;

/// Digits of the version that a model reports: as many as a short commit id, enough to tell files apart.
const VERSION_DIGITS: usize = 12;
/// The role that a model is known by, when it has it.
const MAIN_ROLE: &str = "model";

/// An installed model.
#[derive(Debug, Clone)]
pub struct LocalModel {
    /// What it is and can do.
    pub entry: Entry,
    files: Vec<(String, PathBuf)>,
    version: String,
}

impl LocalModel {
    pub(crate) fn new(catalog: &Catalog, dir: &Path, entry: &Entry) -> Result<Self, StoreError> {
        let paths = |e: &Entry| {
            let folder = dir.join(&e.name);
            e.files_here().map(|f| (f.role.clone(), folder.join(&f.path))).collect::<Vec<_>>()
        };
        let mut files = paths(entry);
        for link in &entry.links {
            let other = paths(catalog.get(&link.model)?);
            let found = other.into_iter().find(|(role, _)| *role == link.from_role);
            files.extend(found.map(|(_, path)| (link.role.clone(), path)));
        }
        let main =
            entry.files_here().find(|f| f.role == MAIN_ROLE).or_else(|| entry.files_here().next());
        let version =
            main.map_or_else(String::new, |f| f.sha256.chars().take(VERSION_DIGITS).collect());
        Ok(Self { entry: entry.clone(), files, version })
    }

    /// Path of the file that has this role.
    ///
    /// # Errors
    /// `StoreError::Role`, which lists the roles there are.
    pub fn file(&self, role: &str) -> Result<PathBuf, StoreError> {
        self.find(role).ok_or_else(|| {
            let known: Vec<_> = self.files.iter().map(|(role, _)| format!("`{role}`")).collect();
            StoreError::Role {
                model: self.entry.name.clone(),
                role: role.to_owned(),
                known: known.join(", "),
            }
        })
    }

    /// Path of the file that has this role, where a model may be without.
    #[must_use]
    pub fn find(&self, role: &str) -> Option<PathBuf> {
        self.files.iter().find(|(r, _)| r == role).map(|(_, path)| path.clone())
    }

    /// The first 12 hexadecimal digits of the main file's SHA-256.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}
