//! Files that are looked at again and again: configuration, certificates, tokens.
//!
//! Contents are compared, not times, because a mounted secret may change within the second and keep its time; of contents only
//! a hash is kept. Polling instead of notifications, which mounted volumes and network file systems do not give.

use crate::Tasks;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// What one file held; none where it could not be read.
type Seen = Option<[u8; 32]>;

/// Some files, and what they held when somebody last looked.
#[derive(Debug)]
pub struct Watched {
    files: Vec<(PathBuf, Seen)>,
}

impl Watched {
    /// `paths` as they are now; empty names are left out.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let named = paths.into_iter().filter(|path| !path.as_os_str().is_empty());
        let files = named.map(|path| {
            let seen = std::fs::read(&path).ok().map(|bytes| hash(&bytes));
            (path, seen)
        });
        Self { files: files.collect() }
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a file is not what it was when this was last asked.
    pub async fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.files {
            let now = tokio::fs::read(path).await.ok().map(|bytes| hash(&bytes));
            changed |= now != *seen;
            *seen = now;
        }
        changed
    }

    /// Calls `reload` after each change, until `tasks` stop or `reload` says false. Looks every `every`.
    pub fn follow(
        mut self,
        every: Duration,
        tasks: &Tasks,
        mut reload: impl FnMut() -> bool + Send + 'static,
    ) {
        if self.is_empty() {
            return;
        }
        let stopping = tasks.stopping();
        tasks.spawn(async move {
            let look = async {
                let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    if self.changed().await && !reload() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = look => {}
                () = stopping => {}
            }
        });
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_so_is_a_file_that_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "a").unwrap();
        let mut watched = Watched::new([path.clone(), PathBuf::new()]);
        assert!(!watched.changed().await);
        std::fs::write(&path, "b").unwrap();
        assert!(watched.changed().await && !watched.changed().await);
        std::fs::remove_file(&path).unwrap();
        assert!(watched.changed().await && !watched.changed().await);
        assert!(Watched::new([PathBuf::new()]).is_empty());
    }
}
