//! The configuration of all services of this process, read from one file, with all problems reported together.

use chassis::config::{Sources, load_with_values};
use chassis::{Configured, Loaded, Problems, ServiceConfig};
use model_store::StoreConfig;
use serde::Deserialize;
use toml::Table;

/// The `standalone` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address, admin port, logs and drain deadline of the whole process.
    pub service: ServiceConfig,
    /// Where the models of all services are.
    pub models: StoreConfig,
}

impl Configured for Config {
    fn service(&self) -> &ServiceConfig {
        &self.service
    }

    fn check(&self, _problems: &mut Problems) {}

    fn check_files(&self, _problems: &mut Problems) {}
}

/// Everything this process needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The process.
    pub standalone: Config,
    /// The REST face.
    pub edge: edge::Config,
    /// The chat service.
    pub chat: chat::Config,
    /// The embedding service.
    pub embedding: embedding::Config,
    /// The content-safety service.
    pub content_safety: content_safety::Config,
}

impl Settings {
    /// Reads the tables of all services.
    ///
    /// # Errors
    /// The problems of all tables at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        Self::load_with_values(sources).map(|loaded| loaded.config)
    }

    /// The same, with the values.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_with_values(sources: &Sources) -> Result<Loaded<Self>, Problems> {
        let mut read = Read { sources, problems: Problems::default(), values: Table::new() };
        let standalone = read.table("standalone", crate::DEFAULTS);
        let edge = read.table("edge", edge::DEFAULTS);
        let chat = read.table("chat", chat::DEFAULTS);
        let embedding = read.table("embedding", embedding::DEFAULTS);
        let safety = read.table("content_safety", content_safety::DEFAULTS);
        let all = standalone.zip(edge).zip(chat).zip(embedding).zip(safety);
        let Some(((((standalone, edge), chat), embedding), content_safety)) = all else {
            return Err(read.problems);
        };
        let config = Self { standalone, edge, chat, embedding, content_safety };
        Ok(Loaded { config, values: read.values })
    }

    /// Looks at the files that the options name. Those of the services' doors are not among them: one process has none.
    ///
    /// # Errors
    /// Everything that is wrong with them at once.
    pub fn check_files(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        // The edge of this process is where this process listens.
        let mut edge = self.edge.clone();
        edge.service.listen.clone_from(&self.standalone.service.listen);
        for found in
            [Problems::in_files("standalone", &self.standalone), Problems::in_files("edge", &edge)]
        {
            problems.merge(found.err().unwrap_or_default());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The models that this configuration serves, and what runs them.
    ///
    /// # Errors
    /// When the manifest of the safety models is broken.
    pub fn model_names(&self) -> anyhow::Result<Vec<String>> {
        let mut names = self.chat.model_names();
        names.extend(embedding::model_names(&self.embedding));
        names.extend(content_safety::model_names(&self.content_safety)?);
        let mut unique = Vec::new();
        for name in names {
            if !unique.contains(&name) {
                unique.push(name);
            }
        }
        Ok(unique)
    }
}

/// Tables read one after the other.
struct Read<'a> {
    sources: &'a Sources,
    problems: Problems,
    values: Table,
}

impl Read<'_> {
    fn table<C: Configured>(&mut self, section: &str, defaults: &str) -> Option<C> {
        match load_with_values(section, defaults, self.sources) {
            Ok(Loaded { config, values }) => {
                self.values.extend(values);
                Some(config)
            }
            Err(found) => {
                self.problems.merge(found);
                None
            }
        }
    }
}
