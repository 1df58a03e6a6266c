//! The list of known models: the built-in `catalog.toml`, and a file of the operator's own on top.
//!
//! Separate from fetching, so that a list can be read, checked and shown without touching disk or network.
//! The invariant: an entry that is in a `Catalog` has been checked; names and paths in it are safe to use as file names.

mod check;
mod entry;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(crate) use entry::platform;
pub use entry::{
    Artifact, Build, Engine, Entry, FileSpec, Input, Link, Pick, Quantize, Source, Task,
};

use crate::error::StoreError;

/// The built-in catalog: data and documentation in one file.
pub const BUILT_IN: &str = include_str!("../catalog.toml");
/// Chat templates that the built-in catalog names with `chat_template_file`.
const TEMPLATES: [(&str, &str); 2] = [
    ("data/chatml.jinja", include_str!("../data/chatml.jinja")),
    ("data/qwen2.5-tools.jinja", include_str!("../data/qwen2.5-tools.jinja")),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "model")]
    models: Vec<Entry>,
}

/// Every known model, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
}

impl Catalog {
    /// The built-in catalog alone.
    ///
    /// # Errors
    /// `StoreError::Catalog`; a test makes sure that it does not happen.
    pub fn built_in() -> Result<Self, StoreError> {
        let mut catalog = Self { entries: BTreeMap::new() };
        catalog.add(BUILT_IN, "built into this program", None)?;
        Ok(catalog)
    }

    /// The built-in catalog with the entries of `file` added; an entry of the same name takes the place of ours.
    ///
    /// # Errors
    /// `StoreError::Catalog` when the file cannot be read, is not TOML, or an entry is incomplete.
    pub fn with_file(file: &Path) -> Result<Self, StoreError> {
        let name = format!("`{}`", file.display());
        let text = std::fs::read_to_string(file)
            .map_err(|e| StoreError::Catalog { catalog: name.clone(), cause: e.to_string() })?;
        let mut catalog = Self::built_in()?;
        let dir = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        catalog.add(&text, &name, Some(&dir))?;
        Ok(catalog)
    }

    /// All entries, in the order of their names.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The entry called `name`.
    ///
    /// # Errors
    /// `StoreError::Unknown`, which lists the names there are.
    pub fn get(&self, name: &str) -> Result<&Entry, StoreError> {
        self.entries.get(name).ok_or_else(|| {
            let known: Vec<_> = self.entries.keys().map(|n| format!("`{n}`")).collect();
            StoreError::Unknown { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The entry called `name` after everything that it requires, each once.
    ///
    /// # Errors
    /// `StoreError::Unknown`.
    pub(crate) fn with_requirements(&self, name: &str) -> Result<Vec<&Entry>, StoreError> {
        let mut order = Vec::new();
        self.collect(name, &mut order)?;
        Ok(order)
    }

    /// Depth first; ends because `check` refuses circles.
    fn collect<'a>(&'a self, name: &str, order: &mut Vec<&'a Entry>) -> Result<(), StoreError> {
        let entry = self.get(name)?;
        for required in &entry.requires {
            self.collect(required, order)?;
        }
        if !order.iter().any(|e| e.name == entry.name) {
            order.push(entry);
        }
        Ok(())
    }

    fn add(&mut self, text: &str, origin: &str, dir: Option<&Path>) -> Result<(), StoreError> {
        let wrong = |cause: String| StoreError::Catalog { catalog: origin.to_owned(), cause };
        let document: Document =
            toml::from_str(text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        for mut entry in document.models {
            check::entry(&entry)
                .map_err(|cause| wrong(format!("model `{}`: {cause}", entry.name)))?;
            let template = template(&entry, dir).map_err(&wrong)?;
            entry.settle(dir, template);
            self.entries.insert(entry.name.clone(), entry);
        }
        check::requirements(&self.entries).map_err(wrong)
    }
}

/// The text of the entry's chat template file, if it names one.
fn template(entry: &Entry, dir: Option<&Path>) -> Result<Option<String>, String> {
    let name = entry.chat_template_file.as_str();
    if name.is_empty() {
        return Ok(None);
    }
    let Some(dir) = dir else {
        let found = TEMPLATES.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned());
        return found
            .map(Some)
            .ok_or_else(|| format!("model `{}`: no chat template `{name}`", entry.name));
    };
    let path = dir.join(name);
    let read = std::fs::read_to_string(&path);
    read.map(Some)
        .map_err(|e| format!("model `{}`: chat template `{}`: {e}", entry.name, path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalog_is_valid_and_complete() {
        let catalog = Catalog::built_in().unwrap();
        let names: Vec<_> = catalog.entries().map(|e| e.name.as_str()).collect();
        for expected in [
            "smollm2-135m-instruct",
            "qwen2.5-coder-1.5b-instruct",
            "all-minilm-l6-v2",
            "multilingual-e5-small",
            "efficientnet-lite0-minilm",
            "open-nsfw",
            "onnxruntime",
        ] {
            assert!(names.contains(&expected), "{expected} is not in {names:?}");
        }
        for entry in catalog.entries() {
            assert!(!entry.license.is_empty() && !entry.publisher.is_empty(), "{}", entry.name);
            assert!(
                entry.build.is_some() || !entry.sources.is_empty(),
                "{} has no source",
                entry.name
            );
            assert!(!entry.files.is_empty(), "{} has no file", entry.name);
        }
    }

    #[test]
    fn a_shared_space_model_comes_after_what_it_is_made_from() {
        let catalog = Catalog::built_in().unwrap();
        let order = catalog.with_requirements("efficientnet-lite0-minilm").unwrap();
        let names: Vec<_> = order.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["efficientnet-lite0", "all-minilm-l6-v2", "efficientnet-lite0-minilm"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = Catalog::built_in().unwrap().get("gpt-9").unwrap_err().to_string();
        assert!(
            error.contains("`gpt-9`")
                && error.contains("`open-nsfw`")
                && error.contains("models.catalog"),
            "{error}"
        );
    }

    #[test]
    fn a_file_adds_entries_and_takes_the_place_of_built_in_ones() {
        let dir = tempfile::tempdir().unwrap();
        let sha = "a".repeat(64);
        let file = dir.path().join("mine.toml");
        let entry = |name: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nversion = \"7\"\ntask = \"embeddings\"\nengine = \"onnx\"\nlicense = \"MIT\"\n\
                 publisher = \"me\"\nchat_template_file = \"t.jinja\"\n[[model.file]]\nrole = \"model\"\npath = \"m.onnx\"\n\
                 sha256 = \"{sha}\"\nbytes = 3\n[[model.source]]\nkind = \"file\"\nfiles = [{{ from = \"raw.onnx\", to = \"m.onnx\" }}]\n"
            )
        };
        std::fs::write(&file, entry("open-nsfw") + &entry("mine")).unwrap();
        std::fs::write(dir.path().join("t.jinja"), "{{ x }}").unwrap();
        let catalog = Catalog::with_file(&file).unwrap();
        assert_eq!(catalog.get("open-nsfw").unwrap().version, "7");
        let mine = catalog.get("mine").unwrap();
        assert_eq!(
            mine.capabilities::<toml::Table>().unwrap()["chat_template"].as_str(),
            Some("{{ x }}")
        );
        let Source::File { files, .. } = &mine.sources[0] else { panic!("{mine:?}") };
        assert_eq!(files[0].from, dir.path().join("raw.onnx").display().to_string());
    }

    #[test]
    fn the_corrected_chat_template_reaches_the_capabilities() {
        let catalog = Catalog::built_in().unwrap();
        let table: toml::Table =
            catalog.get("qwen2.5-coder-1.5b-instruct").unwrap().capabilities().unwrap();
        let template = table["chat_template"].as_str().unwrap();
        assert!(template.contains("<tools>") && !template.contains("{{{{"));
    }
}
