//! Makes one model complete: lock, check the space, fetch, convert, put in place.
//!
//! Separate from the store's door because this is the order of work, and from the sources, which know how to fetch.
//! The invariant: whatever goes wrong, good files stay, and nothing incomplete gets a final name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::catalog::{Artifact, Build, Entry, FileSpec};
use crate::config::StoreConfig;
use crate::convert;
use crate::error::{Attempt, StoreError};
use crate::lock::FolderLock;
use crate::progress::{Event, Progress};
use crate::source::http::Http;
use crate::source::{self, Failure, Meter, Place, Tools};
use crate::store::{in_background, missing};
use crate::verify::{self, FileState, Refusal};

/// Folder of files for the build step, within the model's folder.
const INPUTS: &str = ".inputs";
/// Folder for what sources need while they work, within the model's folder.
const WORK: &str = ".work";
/// Path of the ONNX file in the folder of an image classifier.
const CLASSIFIER: &str = "model.onnx";

/// Everything that installing one model needs.
pub(crate) struct Install<'a> {
    pub(crate) config: &'a StoreConfig,
    pub(crate) entry: &'a Entry,
    pub(crate) folder: PathBuf,
    pub(crate) http: Http,
    pub(crate) progress: &'a dyn Progress,
}

impl Install<'_> {
    /// Does it all; returns when the model is complete.
    pub(crate) async fn run(self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder).map_err(StoreError::io("make", &self.folder))?;
        let _lock = FolderLock::acquire(&self.folder, &self.entry.name, self.progress).await?;
        // Another process may have done the work while this one waited.
        let missing = missing(self.entry, &self.folder).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let work = WorkFolder::make(self.folder.join(WORK))?;
        let wanted = self.wanted(&missing).await?;
        self.check_space(&missing, &wanted)?;
        let total_bytes: u64 = wanted.iter().map(|p| p.artifact.bytes).sum();
        self.progress.report(&self.entry.name, Event::Started { total_bytes });
        self.fetch(wanted, &work.path).await?;
        self.convert(&missing).await?;
        self.progress.report(&self.entry.name, Event::Done);
        Ok(())
    }

    /// What the sources must give: missing files, and the inputs of missing files that are built.
    async fn wanted(&self, missing: &[String]) -> Result<Vec<Place>, StoreError> {
        let is_missing = |path: &String| missing.contains(path);
        let fetched = self.entry.files_here().filter(|f| !f.built && is_missing(&f.path));
        let mut wanted: Vec<_> =
            fetched.map(|f| Place::new(Artifact::from(f), &self.folder)).collect();
        if self.entry.files_here().any(|f| f.built && is_missing(&f.path)) {
            let inputs = self.folder.join(INPUTS);
            fs::create_dir_all(&inputs).map_err(StoreError::io("make", &inputs))?;
            for input in &self.entry.inputs {
                let place = Place::new(Artifact::from(input), &inputs);
                let (path, artifact) = (place.path.clone(), place.artifact.clone());
                if in_background(move || verify::quick(&path, &artifact)).await? != FileState::Sound
                {
                    wanted.push(place);
                }
            }
        }
        for place in &wanted {
            if let Some(dir) = place.path.parent() {
                fs::create_dir_all(dir).map_err(StoreError::io("make", dir))?;
            }
        }
        Ok(wanted)
    }

    /// Refuses to begin what cannot end: downloads, the archive that the largest comes in, and built files.
    fn check_space(&self, missing: &[String], wanted: &[Place]) -> Result<(), StoreError> {
        let here: u64 =
            wanted.iter().filter_map(|p| fs::metadata(&p.partial).ok()).map(|m| m.len()).sum();
        let fetched: u64 = wanted.iter().map(|p| p.artifact.bytes).sum();
        let archive = wanted.iter().map(|p| p.artifact.bytes).max().unwrap_or(0);
        let built: u64 = self
            .entry
            .files_here()
            .filter(|f| f.built && missing.contains(&f.path))
            .map(|f| f.bytes)
            .sum();
        let needed = (fetched + archive + built).saturating_sub(here);
        let free = rustix::fs::statvfs(&self.folder)
            .map_err(|e| StoreError::io("look at", &self.folder)(e.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        if free >= needed {
            return Ok(());
        }
        let (model, dir) = (self.entry.name.clone(), self.config.dir.clone());
        Err(StoreError::DiskSpace { model, dir, needed, free })
    }

    /// Goes through the sources in order until everything is there.
    async fn fetch(&self, wanted: Vec<Place>, work: &Path) -> Result<(), StoreError> {
        let meter = Meter::new(self.progress, &self.entry.name);
        let tools = Tools { http: &self.http, config: self.config, work, meter: &meter };
        let (mut open, mut attempts) = (wanted, Vec::new());
        for place in self.entry.sources_here() {
            let picks = source::offered(place, &open);
            if picks.is_empty() {
                continue;
            }
            match Box::pin(source::fetch(place, &picks, &tools)).await {
                Ok(()) => {}
                Err(Failure::Next(cause)) => {
                    attempts.push(Attempt { source: place.describe(), cause });
                }
                Err(Failure::Stop(error)) => return Err(error),
            }
            open = still_open(open).await?;
        }
        if open.is_empty() {
            return Ok(());
        }
        let remedy = source::remedy(&self.entry.name, &attempts);
        Err(StoreError::Fetch { model: self.entry.name.clone(), attempts, remedy })
    }

    /// Makes the built files that are missing, and deletes the inputs.
    async fn convert(&self, missing: &[String]) -> Result<(), StoreError> {
        let Some(build) = self.entry.build.clone() else { return Ok(()) };
        let built: Vec<_> = self.entry.files_here().filter(|f| f.built).cloned().collect();
        if !built.iter().any(|f| missing.contains(&f.path)) {
            return Ok(());
        }
        self.progress.report(&self.entry.name, Event::Step("converting"));
        let (model, folder) = (self.entry.name.clone(), self.folder.clone());
        let image_model = self.image_model();
        in_background(move || {
            let inputs = folder.join(INPUTS);
            let made = convert::run(&build, &inputs, image_model.as_deref());
            let made = made
                .map_err(|e| StoreError::Convert { model: model.clone(), cause: e.to_string() })?;
            for file in built {
                let content =
                    made.iter().find(|(role, _)| *role == file.role).map(|(_, content)| content);
                let cause = format!("the conversion makes no file of role `{}`", file.role);
                let content = content.ok_or(StoreError::Convert { model: model.clone(), cause })?;
                write(&model, &folder, &file, content)?;
            }
            remove_folder(&inputs)
        })
        .await
    }

    /// Path of the classifier that a `conse` build is made from; it is complete, because it is required.
    fn image_model(&self) -> Option<PathBuf> {
        let Some(Build::Conse { image_model }) = &self.entry.build else { return None };
        Some(self.config.dir.join(image_model).join(CLASSIFIER))
    }
}

/// Writes a built file and puts it in place.
fn write(model: &str, folder: &Path, file: &FileSpec, content: &[u8]) -> Result<(), StoreError> {
    let place = Place::new(Artifact::from(file), folder);
    fs::write(&place.partial, content).map_err(StoreError::io("write", &place.partial))?;
    place.settle().map_err(|refusal| match refusal {
        Refusal::Mismatch(cause) => StoreError::Convert { model: model.to_owned(), cause },
        Refusal::Io(error) => error,
    })
}

/// Those of `places` that are not good yet. Cheap after a success, because of the stamps.
async fn still_open(places: Vec<Place>) -> Result<Vec<Place>, StoreError> {
    in_background(move || {
        let mut open = Vec::new();
        for place in places {
            if verify::quick(&place.path, &place.artifact)? != FileState::Sound {
                open.push(place);
            }
        }
        Ok(open)
    })
    .await
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", folder)(e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// An empty folder that goes when dropped. What a killed process left is removed first; the lock makes sure it is dead.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn make(path: PathBuf) -> Result<Self, StoreError> {
        remove_folder(&path)?;
        fs::create_dir_all(&path).map_err(StoreError::io("make", &path))?;
        Ok(Self { path })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.path) {
            tracing::debug!(%error, "left for the next run");
        }
    }
}
