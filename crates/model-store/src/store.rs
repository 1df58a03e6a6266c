//! The door of this crate: a model's name in, its files out.
//!
//! Separate from `install`, which does the work: most calls find everything in place and touch neither lock nor network.
//! A store is cheap to clone; all clones speak of the same directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{Artifact, Catalog, Entry};
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::install::Install;
use crate::local::LocalModel;
use crate::progress::Progress;
use crate::source::http::Http;
use crate::verify::{self, FileCheck, FileState};

/// A directory of models and the catalog that says what belongs there.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: StoreConfig,
    catalog: Catalog,
}

impl Store {
    /// Reads the catalogs. The directory is made when the first model is fetched.
    ///
    /// # Errors
    /// `StoreError::Catalog` when the operator's catalog is not usable.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let catalog = match config.catalog.as_str() {
            "" => Catalog::built_in()?,
            file => Catalog::with_file(Path::new(file))?,
        };
        Ok(Self { inner: Arc::new(Inner { config, catalog }) })
    }

    /// All known models.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Directory of the models.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.config.dir
    }

    /// Makes `name` and all that it requires complete on disk, and says where the files are.
    ///
    /// What is there already is not fetched again and nothing is written. May take minutes otherwise, and may be dropped
    /// at any time: what was downloaded over https is continued by the next call.
    ///
    /// # Errors
    /// Any `StoreError`; the message names every source that was tried.
    pub async fn ensure(
        &self,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<LocalModel, StoreError> {
        let catalog = &self.inner.catalog;
        for entry in catalog.with_requirements(name)? {
            Box::pin(self.ensure_one(entry, progress)).await?;
        }
        LocalModel::new(catalog, self.dir(), catalog.get(name)?)
    }

    async fn ensure_one(&self, entry: &Entry, progress: &dyn Progress) -> Result<(), StoreError> {
        if entry.files_here().next().is_none() {
            let platform = crate::catalog::platform();
            return Err(StoreError::Platform { model: entry.name.clone(), platform });
        }
        let folder = self.dir().join(&entry.name);
        let missing = missing(entry, &folder).await?;
        if missing.is_empty() {
            return Ok(());
        }
        if self.inner.config.offline {
            return Err(StoreError::Offline { model: entry.name.clone(), dir: folder, missing });
        }
        let http = Http::new()?;
        Install { config: &self.inner.config, entry, folder, http, progress }.run().await
    }

    /// Whether every file of `name` and of what it requires is there with the right size. Quick; does not read the files.
    #[must_use]
    pub fn installed(&self, name: &str) -> bool {
        let Ok(order) = self.inner.catalog.with_requirements(name) else { return false };
        let is_there = |entry: &Entry| {
            let folder = self.dir().join(&entry.name);
            let mut sizes = entry
                .files_here()
                .map(|f| (verify::size_of(&folder.join(&f.path)), f.bytes))
                .peekable();
            sizes.peek().is_some()
                && sizes.all(|(found, expected)| found.ok().flatten() == Some(expected))
        };
        order.into_iter().all(is_there)
    }

    /// Reads every file of `name` and of what it requires, and compares it with the catalog. Changes no model file;
    /// a file that is not good is fetched anew by the next `ensure`.
    ///
    /// # Errors
    /// `StoreError::Unknown`, or `StoreError::Io` when a file cannot be read.
    pub async fn verify(&self, name: &str) -> Result<Vec<FileCheck>, StoreError> {
        let mut checks = Vec::new();
        for entry in self.inner.catalog.with_requirements(name)? {
            let folder = self.dir().join(&entry.name);
            for file in entry.files_here() {
                let (path, artifact) = (folder.join(&file.path), Artifact::from(file));
                let state = in_background({
                    let path = path.clone();
                    move || verify::full(&path, &artifact)
                });
                checks.push(FileCheck { role: file.role.clone(), path, state: state.await? });
            }
        }
        Ok(checks)
    }
}

/// Paths of the files that are not there or not right.
pub(crate) async fn missing(entry: &Entry, folder: &Path) -> Result<Vec<String>, StoreError> {
    let files: Vec<Artifact> = entry.files_here().map(Artifact::from).collect();
    let folder: PathBuf = folder.to_path_buf();
    in_background(move || {
        let mut missing = Vec::new();
        for file in files {
            if verify::quick(&folder.join(&file.to), &file)? != FileState::Sound {
                missing.push(file.to);
            }
        }
        Ok(missing)
    })
    .await
}

/// Runs blocking work (hashing, converting) on a thread made for it.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::background(&e))?
}

#[cfg(test)]
mod tests;
