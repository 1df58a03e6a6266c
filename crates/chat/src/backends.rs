//! Names → who answers: the local engines and the servers elsewhere behind one door.
//!
//! Separate from the door, so that routing is tested without a wire, and from the engine, so that this is the only file that
//! knows the model store.

use crate::backend::{Backend, CompleteRequest, GenerateRequest, ModelInfo, PieceStream};
use crate::config::EngineConfig;
use crate::error::ChatError;
use crate::local::{LocalEngine, LocalOptions};
use model_store::{Engine, LocalModel};
use serde::Deserialize;
use std::sync::Arc;

/// Role of a model's GGUF file in the catalog.
const MODEL_FILE: &str = "model";

/// Everything that answers. No two backends list the same model.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    list: Vec<Arc<dyn Backend>>,
}

impl Backends {
    /// Takes backends whose models all have different names.
    ///
    /// # Errors
    /// When two list the same model.
    pub fn new(list: Vec<Arc<dyn Backend>>) -> Result<Self, ChatError> {
        let mut names: Vec<String> = Vec::new();
        for model in list.iter().flat_map(|backend| backend.models()) {
            if names.contains(&model.name) {
                return Err(ChatError::Load {
                    model: model.name,
                    reason: "it is configured twice".to_owned(),
                });
            }
            names.push(model.name);
        }
        Ok(Self { list })
    }

    /// The models of all backends, in the order of the configuration.
    #[must_use]
    pub fn models(&self) -> Vec<ModelInfo> {
        self.list.iter().flat_map(|backend| backend.models()).collect()
    }

    /// Whether one of them has a model of this name.
    #[must_use]
    pub fn serves(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Answers a conversation by the model it names.
    ///
    /// # Errors
    /// As `Backend::generate`; a model that is unknown or serves no conversations.
    pub async fn generate(&self, request: GenerateRequest) -> Result<PieceStream, ChatError> {
        let (backend, model) = self.find(&request.model)?;
        if !model.chat {
            return Err(ChatError::WrongMethod { model: model.name, method: "chat completions" });
        }
        backend.generate(request).await
    }

    /// Continues prompts by the model they name.
    ///
    /// # Errors
    /// As `Backend::complete`; a model that is unknown or serves no prompts.
    pub async fn complete(&self, request: CompleteRequest) -> Result<PieceStream, ChatError> {
        let (backend, model) = self.find(&request.model)?;
        if !model.completions {
            return Err(ChatError::WrongMethod { model: model.name, method: "completions" });
        }
        backend.complete(request).await
    }

    fn find(&self, name: &str) -> Result<(&Arc<dyn Backend>, ModelInfo), ChatError> {
        let mut known = Vec::new();
        for backend in &self.list {
            for model in backend.models() {
                if model.name == name {
                    return Ok((backend, model));
                }
                known.push(format!("`{}`", model.name));
            }
        }
        Err(ChatError::UnknownModel { model: name.to_owned(), known: known.join(", ") })
    }
}

/// What a catalog entry says about a chat model that this service uses; the rest is found in the file itself.
#[derive(Debug, Default, Deserialize)]
struct Capabilities {
    /// Replaces the chat template of the file.
    chat_template: Option<String>,
}

/// Loads a model of the store.
///
/// # Errors
/// When it is no model for this engine, or cannot be loaded.
pub(crate) async fn load_local(
    model: &LocalModel,
    engine: EngineConfig,
) -> Result<LocalEngine, ChatError> {
    let entry = &model.entry;
    let failed = |reason: String| ChatError::Load { model: entry.name.clone(), reason };
    if entry.engine != Engine::Llama {
        return Err(failed(
            "the catalog has it for another engine; chat takes models of the engine `llama`"
                .to_owned(),
        ));
    }
    let capabilities: Capabilities = entry.capabilities().map_err(|e| failed(e.to_string()))?;
    let options = LocalOptions {
        name: entry.name.clone(),
        publisher: entry.publisher.clone(),
        version: model.version().to_owned(),
        path: model.file(MODEL_FILE).map_err(|e| failed(e.to_string()))?,
        chat_template: capabilities.chat_template,
        engine,
    };
    LocalEngine::load(options).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    #[derive(Debug)]
    struct Named(&'static str);

    #[async_trait]
    impl Backend for Named {
        fn models(&self) -> Vec<ModelInfo> {
            vec![ModelInfo { name: self.0.into(), chat: true, ..ModelInfo::default() }]
        }
        async fn generate(&self, _request: GenerateRequest) -> Result<PieceStream, ChatError> {
            Err(ChatError::Engine(self.0.into()))
        }
        async fn complete(&self, _request: CompleteRequest) -> Result<PieceStream, ChatError> {
            Err(ChatError::Stopping)
        }
    }

    fn backends(names: &[&'static str]) -> Result<Backends, ChatError> {
        Backends::new(names.iter().map(|name| Arc::new(Named(name)) as Arc<dyn Backend>).collect())
    }

    async fn error(model: &str) -> ChatError {
        let request = GenerateRequest { model: model.into(), ..GenerateRequest::default() };
        let answer = backends(&["a", "b"]).unwrap().generate(request).await;
        answer.map(|_| ()).unwrap_err()
    }

    #[tokio::test]
    async fn a_request_goes_to_the_backend_that_lists_its_model() {
        assert!(matches!(error("b").await, ChatError::Engine(name) if name == "b"));
    }

    #[tokio::test]
    async fn an_unknown_model_is_answered_with_the_known_ones() {
        let text = error("c").await.to_string();
        assert!(text.contains("`c`") && text.contains("`a`, `b`"), "{text}");
    }

    #[tokio::test]
    async fn a_model_without_prompts_refuses_them() {
        let request = CompleteRequest { model: "a".into(), ..CompleteRequest::default() };
        let answer = backends(&["a"]).unwrap().complete(request).await;
        assert!(matches!(answer.map(|_| ()), Err(ChatError::WrongMethod { .. })));
    }

    #[test]
    fn two_backends_with_the_same_model_are_refused() {
        assert!(backends(&["a", "a"]).unwrap_err().to_string().contains("`a`"));
    }
}
