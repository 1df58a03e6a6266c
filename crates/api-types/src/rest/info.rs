//! `GET /info`: which model answers here (section 7).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer. No field may be null: LangChain lower-cases the provider's name unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInformation {
    /// Name of the model.
    pub model_name: String,
    /// What it does.
    pub model_type: ModelType,
    /// Who published it.
    pub model_provider_name: String,
}

/// What a model does, in the spelling of the documentation, the only one every client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelType {
    /// Answers conversations. LlamaIndex wants exactly `chat-completions`.
    #[serde(alias = "chat-completion", alias = "chat_completion")]
    ChatCompletions,
    /// Continues text.
    #[serde(alias = "text_generation")]
    TextGeneration,
    /// Embeds texts.
    Embeddings,
    /// Embeds images.
    #[serde(alias = "image_embeddings")]
    ImageEmbeddings,
    /// Makes images.
    #[serde(alias = "image_generation")]
    ImageGeneration,
    /// Makes sound.
    #[serde(alias = "audio_generation")]
    AudioGeneration,
}
