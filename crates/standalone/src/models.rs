//! `koine models`: what the catalog knows, what is here, and whether it is sound.

use crate::Settings;
use model_store::{FileState, Store, Terminal};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What `verify` found.
#[derive(Debug)]
pub struct Report {
    /// A line for each file.
    pub text: String,
    /// Whether every file has the bytes that the catalog names.
    pub sound: bool,
}

/// A table of the catalog: name, task, size, licence, and whether the model is here or served by default.
///
/// # Errors
/// When the store cannot be opened.
pub fn list(settings: &Settings) -> anyhow::Result<String> {
    let store = open(settings)?;
    let served = settings.model_names()?;
    let mut table =
        format!("{:<32} {:<18} {:>9}  {:<12} {}\n", "NAME", "TASK", "SIZE", "LICENCE", "STATE");
    for entry in store.catalog().entries() {
        let here = if store.installed(&entry.name) { "here" } else { "not fetched" };
        let used = if served.contains(&entry.name) { ", served" } else { "" };
        let mib = entry.bytes() / (1024 * 1024);
        let task = format!("{:?}", entry.task);
        writeln!(
            table,
            "{:<32} {task:<18} {mib:>5} MiB  {:<12} {here}{used}",
            entry.name, entry.license
        )?;
    }
    Ok(table.trim_end().to_owned())
}

/// Fetches `names`, or what the configuration serves, with a progress bar; answers the directory.
///
/// # Errors
/// When a model cannot be had; the message names it and the remedy.
pub async fn pull(settings: &Settings, names: Vec<String>) -> anyhow::Result<PathBuf> {
    let store = open(settings)?;
    let names = if names.is_empty() { settings.model_names()? } else { names };
    let progress = Terminal::new();
    for name in names {
        store.ensure(&name, &progress).await?;
    }
    Ok(store.dir().to_path_buf())
}

/// Hashes every file of `names`, or of all models that are here, again.
///
/// # Errors
/// When a name is unknown or a file cannot be read.
pub async fn verify(settings: &Settings, names: Vec<String>) -> anyhow::Result<Report> {
    let store = open(settings)?;
    let names = if names.is_empty() { here(settings, &store)? } else { names };
    let mut report = Report { text: String::new(), sound: true };
    for name in names {
        for file in store.verify(&name).await? {
            let sound = matches!(file.state, FileState::Sound);
            report.sound &= sound;
            writeln!(report.text, "{:<28} {:<40} {}", name, file.path.display(), file.state)?;
        }
    }
    report.text.push_str(if report.sound {
        "all files are sound"
    } else {
        "run `koine models pull` to repair"
    });
    Ok(report)
}

/// What is here, and what is served and should be.
fn here(settings: &Settings, store: &Store) -> anyhow::Result<Vec<String>> {
    let served = settings.model_names()?;
    let wanted = |name: &String| served.contains(name) || store.installed(name);
    Ok(store.catalog().entries().map(|e| e.name.clone()).filter(wanted).collect())
}

fn open(settings: &Settings) -> anyhow::Result<Store> {
    Ok(Store::open(settings.standalone.models.clone())?)
}
