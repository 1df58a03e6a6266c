//! The places that files come from.
//!
//! Separate from `install`, which decides what is wanted and in which order sources are asked.
//! The invariant: a source collects bytes under a temporary name; only `Place::settle` gives the final one.

pub(crate) mod http;
mod package;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::{Artifact, Pick, Source};
use crate::config::StoreConfig;
use crate::error::{Attempt, StoreError};
use crate::progress::{Event, Progress};
use crate::source::http::Http;
use crate::store::in_background;
use crate::verify::{self, Refusal};

/// Why a source gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Its own fault: the next source may do better.
    Next(String),
    /// The disk's or ours: no other source would help.
    Stop(StoreError),
}

/// What sources work with.
pub(crate) struct Tools<'a> {
    pub(crate) http: &'a Http,
    pub(crate) config: &'a StoreConfig,
    /// An empty folder that goes when the work is done.
    pub(crate) work: &'a Path,
    pub(crate) meter: &'a Meter<'a>,
}

/// Where an artifact goes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) artifact: Artifact,
    /// Its final place.
    pub(crate) path: PathBuf,
    /// Where its bytes are collected; kept when a download breaks off.
    pub(crate) partial: PathBuf,
}

impl Place {
    pub(crate) fn new(artifact: Artifact, folder: &Path) -> Self {
        let path = folder.join(&artifact.to);
        let partial = verify::partial_path(&path);
        Self { artifact, path, partial }
    }

    /// Checks what was collected and gives it its final name. Blocks while it hashes.
    pub(crate) fn settle(&self) -> Result<(), Refusal> {
        verify::place(&self.partial, &self.path, &self.artifact)
    }

    /// As `settle`, on a thread made for it, with the refusal as a source's failure.
    async fn settle_in_background(&self) -> Result<(), Failure> {
        let place = self.clone();
        let settled = in_background(move || Ok(place.settle())).await.map_err(Failure::Stop)?;
        settled.map_err(|refusal| match refusal {
            Refusal::Mismatch(message) => Failure::Next(message),
            Refusal::Io(error) => Failure::Stop(error),
        })
    }
}

/// How far all downloads of one model are.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    model: &'a str,
    finished: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, model: &'a str) -> Self {
        Self { progress, model, finished: AtomicU64::new(0) }
    }

    /// So many bytes of what is being fetched now are here.
    fn fetched(&self, bytes: u64) {
        let bytes = self.finished.load(Ordering::Relaxed).saturating_add(bytes);
        self.progress.report(self.model, Event::Fetched { bytes });
    }

    /// What was being fetched is complete.
    fn finish(&self, bytes: u64) {
        self.finished.fetch_add(bytes, Ordering::Relaxed);
        self.fetched(0);
    }

    fn step(&self, text: &str) {
        self.progress.report(self.model, Event::Step(text));
    }
}

/// What `source` has of `open`.
pub(crate) fn offered<'a>(source: &'a Source, open: &'a [Place]) -> Vec<(&'a Pick, &'a Place)> {
    let pair =
        |pick: &'a Pick| open.iter().find(|p| p.artifact.to == pick.to).map(|place| (pick, place));
    source.files().iter().filter_map(pair).collect()
}

/// Fetches `picks` from `source` and puts them in place.
pub(crate) async fn fetch(
    source: &Source,
    picks: &[(&Pick, &Place)],
    tools: &Tools<'_>,
) -> Result<(), Failure> {
    tools.meter.step(&format!("from {}", source.describe()));
    match source {
        Source::Package { package, version, parts, tag, python_version, files: _, platform: _ } => {
            let wheels = package::Wheels { package, version, parts: *parts, tag, python_version };
            package::fetch(&wheels, picks, tools).await
        }
        Source::Hub { repo, revision, files: _, platform: _ } => {
            let hub = tools.config.hub.trim_end_matches('/');
            for (pick, place) in picks {
                download(&format!("{hub}/{repo}/resolve/{revision}/{}", pick.from), place, tools)
                    .await?;
            }
            Ok(())
        }
        Source::Https { files: _, platform: _ } => {
            for (pick, place) in picks {
                download(&pick.from, place, tools).await?;
            }
            Ok(())
        }
        Source::File { files: _, platform: _ } => {
            for (pick, place) in picks {
                copy(Path::new(&pick.from), place, tools).await?;
            }
            Ok(())
        }
    }
}

/// Downloads to `place`. When the bytes of an earlier, broken download turn out to be of something else, begins anew.
async fn download(url: &str, place: &Place, tools: &Tools<'_>) -> Result<(), Failure> {
    let resumed = place.partial.exists();
    tools.http.download(url, place, tools.meter).await?;
    match place.settle_in_background().await {
        Err(Failure::Next(_)) if resumed => {
            tools.http.download(url, place, tools.meter).await?;
            place.settle_in_background().await?;
        }
        settled => settled?,
    }
    tools.meter.finish(place.artifact.bytes);
    Ok(())
}

async fn copy(from: &Path, place: &Place, tools: &Tools<'_>) -> Result<(), Failure> {
    if !from.is_file() {
        return Err(Failure::Next("no such file".to_owned()));
    }
    let (from, to) = (from.to_path_buf(), place.partial.clone());
    let copied =
        in_background(move || std::fs::copy(&from, &to).map_err(StoreError::io("copy to", &to)));
    copied.await.map_err(Failure::Stop)?;
    place.settle_in_background().await?;
    tools.meter.finish(place.artifact.bytes);
    Ok(())
}

/// What to do when no source gave the files.
pub(crate) fn remedy(model: &str, attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "the catalog entry has no source for this machine; add one, or copy the files here"
            .to_owned();
    }
    let mut remedy = format!(
        "check the network, or run `models pull {model}` on a machine that has one and copy the directory here \
         (then set `models.offline`)"
    );
    if let Some(hint) = attempts.iter().find_map(|a| package::remedy(&a.cause)) {
        remedy = format!("{hint}; or {remedy}");
    }
    remedy
}
