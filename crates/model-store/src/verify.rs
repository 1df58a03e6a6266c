//! Decides whether the bytes on disk are the bytes of the catalog, and puts new files in place.
//!
//! Separate because this is the one file that turns a download into a model file. The order is the invariant:
//! hash, write through to disk, rename, stamp. A stamp (`NAME.verified`) says that these very bytes were hashed before,
//! so that a start does not read a gigabyte again; it counts only while size and time of change are the same.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::catalog::Artifact;
use crate::error::StoreError;

/// Read at a time: large enough for full disk speed.
const CHUNK: usize = 1 << 20;

/// How one file fares against the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCheck {
    /// Its role in the model.
    pub role: String,
    /// Where it is or should be.
    pub path: PathBuf,
    /// What was found.
    pub state: FileState,
}

/// What is at a file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// The very bytes of the catalog.
    Sound,
    /// Nothing.
    Missing,
    /// A file of another size: half-written, or of another version.
    WrongSize {
        /// Bytes on disk.
        found: u64,
        /// Bytes in the catalog.
        expected: u64,
    },
    /// Other content.
    WrongContent {
        /// SHA-256 on disk.
        found: String,
        /// SHA-256 in the catalog.
        expected: String,
    },
}

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => f.write_str("sound"),
            Self::Missing => f.write_str("missing"),
            Self::WrongSize { found, expected } => {
                write!(f, "has {found} bytes instead of {expected}")
            }
            Self::WrongContent { found, expected } => {
                write!(f, "has sha256 {found} instead of {expected}")
            }
        }
    }
}

/// Why a new file was not put in place.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Not the bytes of the catalog; the file is deleted.
    Mismatch(String),
    /// The file system failed.
    Io(StoreError),
}

/// Looks at `path` without reading it when its stamp fits; otherwise hashes it and renews the stamp.
pub(crate) fn quick(path: &Path, expected: &Artifact) -> Result<FileState, StoreError> {
    let Some(found) = size_of(path)? else { return Ok(FileState::Missing) };
    if found != expected.bytes {
        return Ok(FileState::WrongSize { found, expected: expected.bytes });
    }
    let stamp = Stamp::of(path, &expected.sha256).map_err(StoreError::io("look at", path))?;
    let written = fs::read_to_string(stamp_path(path)).ok();
    if written.as_deref() == Some(&stamp) {
        return Ok(FileState::Sound);
    }
    full(path, expected)
}

/// Hashes `path`, and renews or removes its stamp.
pub(crate) fn full(path: &Path, expected: &Artifact) -> Result<FileState, StoreError> {
    let Some(found) = size_of(path)? else { return Ok(FileState::Missing) };
    if found != expected.bytes {
        return Ok(FileState::WrongSize { found, expected: expected.bytes });
    }
    let found = sha256(path).map_err(StoreError::io("read", path))?;
    if found == expected.sha256 {
        stamp(path, &found);
        return Ok(FileState::Sound);
    }
    let _absent = fs::remove_file(stamp_path(path));
    Ok(FileState::WrongContent { found, expected: expected.sha256.clone() })
}

/// Moves `partial` to `path` if it has the bytes of the catalog, and deletes it if not.
pub(crate) fn place(partial: &Path, path: &Path, expected: &Artifact) -> Result<(), Refusal> {
    let io = |action, path: &Path| {
        let wrap = StoreError::io(action, path);
        move |e| Refusal::Io(wrap(e))
    };
    let size = fs::metadata(partial).map_err(io("look at", partial))?.len();
    let found = sha256(partial).map_err(io("read", partial))?;
    if size != expected.bytes || found != expected.sha256 {
        let _absent = fs::remove_file(partial);
        let Artifact { to, sha256, bytes } = expected;
        let message =
            format!("`{to}` has {size} bytes of sha256 {found} instead of {bytes} of {sha256}");
        return Err(Refusal::Mismatch(message));
    }
    File::open(partial).and_then(|f| f.sync_all()).map_err(io("write", partial))?;
    fs::rename(partial, path).map_err(io("rename", partial))?;
    if let Some(dir) = path.parent() {
        // The rename itself must survive a power cut; not every file system can be asked to, and then it may be late.
        let _unsupported = File::open(dir).and_then(|d| d.sync_all());
    }
    stamp(path, &found);
    Ok(())
}

/// SHA-256 of a file, in lower-case hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Size of a file, or none when there is nothing.
pub(crate) fn size_of(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("look at", path)(e)),
    }
}

struct Stamp;

impl Stamp {
    /// What the stamp of the file must say if its content has this hash.
    fn of(path: &Path, sha256: &str) -> io::Result<String> {
        let found = fs::metadata(path)?;
        Ok(format!(
            "bytes {}\nmodified {}.{:09}\nsha256 {sha256}\n",
            found.len(),
            found.mtime(),
            found.mtime_nsec()
        ))
    }
}

/// Notes that the file was hashed. A store that cannot be written to works too, it only hashes at every start.
fn stamp(path: &Path, sha256: &str) {
    let written = Stamp::of(path, sha256).and_then(|text| fs::write(stamp_path(path), text));
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "no stamp written; the file is hashed again at the next start");
    }
}

fn stamp_path(path: &Path) -> PathBuf {
    with_suffix(path, ".verified")
}

/// Where the bytes of `path` are collected.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    with_suffix(path, ".partial")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(content: &[u8]) -> Artifact {
        let sha256 = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        Artifact { to: "f".to_owned(), sha256, bytes: content.len() as u64 }
    }

    #[test]
    fn a_file_with_another_content_of_the_same_size_is_found_when_its_stamp_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(dir.path().join("f.partial"), "good").unwrap();
        place(&partial_path(&path), &path, &artifact(b"good")).unwrap();
        assert_eq!(quick(&path, &artifact(b"good")).unwrap(), FileState::Sound);

        fs::write(&path, "evil").unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        assert!(matches!(
            quick(&path, &artifact(b"good")).unwrap(),
            FileState::WrongContent { .. }
        ));
        assert!(!stamp_path(&path).exists(), "a stamp that lies must go");
    }

    #[test]
    fn a_stamp_spares_the_hash_but_not_the_full_check() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "good").unwrap();
        assert_eq!(full(&path, &artifact(b"good")).unwrap(), FileState::Sound);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "evil").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(
            quick(&path, &artifact(b"good")).unwrap(),
            FileState::Sound,
            "the stamp is believed"
        );
        assert!(matches!(full(&path, &artifact(b"good")).unwrap(), FileState::WrongContent { .. }));
    }

    #[test]
    fn a_wrong_download_is_refused_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (path, partial) = (dir.path().join("f"), dir.path().join("f.partial"));
        fs::write(&partial, "evil").unwrap();
        let Err(Refusal::Mismatch(message)) = place(&partial, &path, &artifact(b"good")) else {
            panic!()
        };
        assert!(
            message.contains(&artifact(b"good").sha256)
                && message.contains(&artifact(b"evil").sha256)
        );
        assert!(!partial.exists() && !path.exists());
    }
}
