//! What can go wrong between a model's name and its files.
//!
//! Separate so that every message is written in one place: cause, subject, remedy.
//! A `StoreError` is met by operators at start or in `models pull`, never by an API caller.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a model's files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No catalog entry has this name.
    #[error(
        "unknown model `{name}`; known models: {known}; more can be added with a catalog of your own (`models.catalog`)"
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// All names of the catalog, in backticks.
        known: String,
    },
    /// A catalog is not valid.
    #[error("cannot use the model catalog {catalog}: {cause}")]
    Catalog {
        /// File name, or that it is the built-in one.
        catalog: String,
        /// What is wrong with which entry.
        cause: String,
    },
    /// The capabilities of an entry do not fit what the engine expects.
    #[error("the catalog entry of model `{model}` has unusable capabilities: {cause}")]
    Capabilities {
        /// The entry.
        model: String,
        /// What the reader said.
        cause: String,
    },
    /// The entry has no file of that role.
    #[error("model `{model}` has no file of role `{role}`; it has: {known}")]
    Role {
        /// The entry.
        model: String,
        /// The role asked for.
        role: String,
        /// Its roles, in backticks.
        known: String,
    },
    /// The entry has no file for this machine.
    #[error(
        "model `{model}` has no files for `{platform}`; install it by other means and give its path in the configuration"
    )]
    Platform {
        /// The entry.
        model: String,
        /// Operating system and processor, such as `linux-x86_64`.
        platform: String,
    },
    /// Files are missing and fetching is switched off.
    #[error(
        "model `{model}` is not complete in `{}` ({}) and `models.offline` is set; run `models pull {model}` on a \
         machine with network and copy the directory here, or unset `models.offline`", dir.display(), missing.join(", ")
    )]
    Offline {
        /// The entry.
        model: String,
        /// Its directory.
        dir: PathBuf,
        /// The files that are missing or damaged.
        missing: Vec<String>,
    },
    /// No source gave the files.
    #[error("cannot fetch model `{model}`: {}; {remedy}", Attempts(attempts))]
    Fetch {
        /// The entry.
        model: String,
        /// Every source tried, with its cause.
        attempts: Vec<Attempt>,
        /// What to do.
        remedy: String,
    },
    /// Less space than the model needs.
    #[error(
        "model `{model}` needs {} MB in `{}` and {} MB are free; free some space or point `models.dir` to a larger disk",
        megabytes(*needed), dir.display(), megabytes(*free)
    )]
    DiskSpace {
        /// The entry.
        model: String,
        /// Directory of the models.
        dir: PathBuf,
        /// Bytes needed while fetching and converting.
        needed: u64,
        /// Bytes free for this user.
        free: u64,
    },
    /// A conversion failed, or gave other bytes than the catalog names.
    #[error("cannot convert model `{model}`: {cause}")]
    Convert {
        /// The entry.
        model: String,
        /// What did not fit.
        cause: String,
    },
    /// The file system refused something.
    #[error("cannot {action} `{}`: {cause}{}", path.display(), remedy_for(cause))]
    Io {
        /// A verb: what was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The download client could not be made.
    #[error(
        "cannot set up downloads: {0}; install the system's certificates (`ca-certificates`) or set `models.offline`"
    )]
    Client(String),
}

/// One source that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The source in words, such as ``package `x` 1.0``.
    pub source: String,
    /// Why it gave nothing.
    pub cause: String,
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, attempt) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "; " };
            write!(f, "{comma}{}: {}", attempt.source, attempt.cause)?;
        }
        Ok(())
    }
}

impl StoreError {
    /// For `map_err`: wraps an I/O error with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |cause| Self::Io { action, path, cause }
    }

    /// A background thread of ours ended before its work was done: it was cancelled at shutdown, or it has a bug.
    pub(crate) fn background(error: &tokio::task::JoinError) -> Self {
        Self::Io {
            action: "finish background work on",
            path: PathBuf::new(),
            cause: io::Error::other(error.to_string()),
        }
    }
}

fn remedy_for(cause: &io::Error) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kinds of I/O errors are the library's, not ours"
    )]
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; free some space or point `models.dir` to a larger disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make `models.dir` writable for this user, or fetch the models beforehand with `models pull`"
        }
        _ => "",
    }
}

/// Whole megabytes, rounded up: enough for a message.
pub(crate) const fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
