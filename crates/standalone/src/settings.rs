//! The configuration of all services of this process, read from one file, with all problems reported together.

use chassis::config::{Sources, load};
use chassis::{Configured, Problems, ServiceConfig};
use model_store::StoreConfig;
use serde::Deserialize;

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
        let mut problems = Problems::default();
        let standalone = keep(load("standalone", crate::DEFAULTS, sources), &mut problems);
        let edge = keep(load("edge", edge::DEFAULTS, sources), &mut problems);
        let chat = keep(load("chat", chat::DEFAULTS, sources), &mut problems);
        let embedding = keep(load("embedding", embedding::DEFAULTS, sources), &mut problems);
        let safety = keep(load("content_safety", content_safety::DEFAULTS, sources), &mut problems);
        let all = standalone.zip(edge).zip(chat).zip(embedding).zip(safety);
        let Some(((((standalone, edge), chat), embedding), content_safety)) = all else {
            return Err(problems);
        };
        Ok(Self { standalone, edge, chat, embedding, content_safety })
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

fn keep<C>(loaded: Result<C, Problems>, problems: &mut Problems) -> Option<C> {
    loaded.map_err(|found| problems.merge(found)).ok()
}
