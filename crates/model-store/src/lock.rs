//! One process at a time works on a model's folder.
//!
//! Separate because it is the only guard between two services that start at once and fetch the same model.
//! The lock is the operating system's, on a file: it ends with the process, so none can be left behind.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::error::StoreError;
use crate::progress::{Event, Progress};

/// Between two tries: short against any download, long against the work of trying.
const RETRY: Duration = Duration::from_millis(200);
/// Name of the lock file in a model's folder.
const LOCK_FILE: &str = ".lock";

/// Holds a model's folder until dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Waits until no other process holds `folder`.
    ///
    /// Tries again and again instead of blocking a thread, so that a cancelled start does not hang on it.
    pub(crate) async fn acquire(
        folder: &Path,
        model: &str,
        progress: &dyn Progress,
    ) -> Result<Self, StoreError> {
        let path = folder.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        let mut tries = tokio::time::interval(RETRY);
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        progress.report(
                            model,
                            Event::Step("waiting for another process that fetches it"),
                        );
                    }
                    told = true;
                    tries.tick().await;
                }
            }
        }
    }
}
