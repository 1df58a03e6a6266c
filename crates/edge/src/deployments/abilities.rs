//! What a deployment can do, and how the configuration overrides it.
//!
//! Separate from the table of names because it mirrors what the services say of their models. These abilities are the only
//! source of a 422.

use super::parameters::{Parameter, ParameterLimit, ParameterLimits};
use api_types::rest::embeddings::EncodingFormat;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A deployment in the configuration: a name of its own, or other properties for a listed model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentConfig {
    /// What requests say.
    pub name: String,
    /// Which service.
    pub service: ServiceName,
    /// The service's name for the model; absent means `name`.
    pub model: Option<String>,
    /// Safety policy; absent means the edge's, empty means none.
    pub policy: Option<String>,
    /// What `/info` says; absent means what the service says.
    pub publisher: Option<String>,
    /// The deployment that answers in its place while its model cannot.
    pub fallback: Option<String>,
    /// Each of the following: absent means what the service says.
    pub completions: Option<bool>,
    /// Whether tools are understood.
    pub tools: Option<bool>,
    /// Whether an answer can be held to JSON.
    pub json_object: Option<bool>,
    /// Whether an answer can be held to a schema.
    pub json_schema: Option<bool>,
    /// Whether image parts are understood.
    pub images: Option<bool>,
    /// Whether audio parts are understood.
    pub audio: Option<bool>,
    /// Whether log probabilities are reported.
    pub logprobs: Option<bool>,
    /// Whether an image may come with a text.
    pub image_with_text: Option<bool>,
    /// Lengths of vectors that may be asked for.
    pub dimensions: Option<Vec<u32>>,
    /// `input_type` values besides `text`.
    pub input_types: Option<Vec<Purpose>>,
    /// Extra parameters that may be passed through; `*` is any.
    pub extra_parameters: Option<Vec<String>>,
    /// Tokens of prompt and answer together, as `/v1/models` says.
    pub context_tokens: Option<u32>,
    /// Sampling parameters of which less is taken than the API allows; those named here, the others as the service says.
    #[serde(default)]
    pub parameters: BTreeMap<Parameter, ParameterLimit>,
    /// Whether a prompt may have a suffix.
    pub suffix: Option<bool>,
    /// `encoding_format` values.
    pub encodings: Option<Vec<EncodingFormat>>,
    /// Most images of one request; 0 is the edge's own limit.
    pub images_per_call: Option<u32>,
}

/// Which service serves a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceName {
    /// The chat service.
    Chat,
    /// The embedding service.
    Embedding,
}

/// What an embedding is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Nothing in particular.
    Text,
    /// A search query.
    Query,
    /// A document to be found.
    Document,
}

/// What a chat model can do; the fields are those of `inference.chat.v1.Model`.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent abilities")]
pub struct ChatAbilities {
    /// Serves conversations.
    pub chat: bool,
    /// Serves raw prompts.
    pub completions: bool,
    /// Understands tools.
    pub tools: bool,
    /// Can be held to any JSON object.
    pub json_object: bool,
    /// Can be held to a JSON Schema.
    pub json_schema: bool,
    /// Understands image parts.
    pub images: bool,
    /// Understands audio parts.
    pub audio: bool,
    /// Reports log probabilities.
    pub logprobs: bool,
    /// Extra parameters it takes; `*` is any.
    pub extra_parameters: Vec<String>,
    /// Tokens of prompt and answer together; 0 is unknown.
    pub context_tokens: u32,
    /// Sampling parameters of which it takes less than the API allows.
    pub parameters: ParameterLimits,
    /// Takes prompts with a suffix.
    pub suffix: bool,
}

/// What an embedding model can do; the fields are those of `inference.embedding.v1.Model`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a table of independent abilities")]
pub struct EmbeddingAbilities {
    /// Embeds texts.
    pub text: bool,
    /// Embeds images.
    pub image: bool,
    /// Takes a text along with an image.
    pub image_with_text: bool,
    /// Length of the full vector.
    pub full_dimensions: u32,
    /// Other lengths that may be asked for.
    pub dimensions: Vec<u32>,
    /// Whether any length up to the full one may be asked for.
    pub any_dimensions: bool,
    /// `input_type` values besides `text`.
    pub input_types: Vec<Purpose>,
    /// Extra parameters it takes; `*` is any.
    pub extra_parameters: Vec<String>,
    /// Tokens of one text; 0 is unknown.
    pub max_tokens: u32,
    /// `encoding_format` values. The edge writes all of them, so fewer is the operator's choice.
    pub encodings: Vec<EncodingFormat>,
    /// Most images of one request; 0 is the edge's own limit.
    pub images_per_call: u32,
}

impl Default for EmbeddingAbilities {
    fn default() -> Self {
        Self {
            text: false,
            image: false,
            image_with_text: false,
            full_dimensions: 0,
            dimensions: Vec::new(),
            any_dimensions: false,
            input_types: Vec::new(),
            extra_parameters: Vec::new(),
            max_tokens: 0,
            encodings: EncodingFormat::ALL.to_vec(),
            images_per_call: 0,
        }
    }
}

/// What a deployment can do.
#[derive(Debug, Clone, PartialEq)]
pub enum Abilities {
    /// Served by the chat service.
    Chat(ChatAbilities),
    /// Served by the embedding service.
    Embedding(EmbeddingAbilities),
}

impl Abilities {
    pub(super) const fn service(&self) -> ServiceName {
        match self {
            Self::Chat(_) => ServiceName::Chat,
            Self::Embedding(_) => ServiceName::Embedding,
        }
    }

    pub(super) fn apply(&mut self, over: &DeploymentConfig) {
        fn set<T: Clone>(slot: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                slot.clone_from(value);
            }
        }
        match self {
            Self::Chat(chat) => {
                set(&mut chat.completions, over.completions.as_ref());
                set(&mut chat.tools, over.tools.as_ref());
                set(&mut chat.json_object, over.json_object.as_ref());
                set(&mut chat.json_schema, over.json_schema.as_ref());
                set(&mut chat.images, over.images.as_ref());
                set(&mut chat.audio, over.audio.as_ref());
                set(&mut chat.logprobs, over.logprobs.as_ref());
                set(&mut chat.extra_parameters, over.extra_parameters.as_ref());
                set(&mut chat.context_tokens, over.context_tokens.as_ref());
                set(&mut chat.suffix, over.suffix.as_ref());
                chat.parameters.narrow(&over.parameters);
            }
            Self::Embedding(embedding) => {
                set(&mut embedding.image_with_text, over.image_with_text.as_ref());
                set(&mut embedding.input_types, over.input_types.as_ref());
                set(&mut embedding.extra_parameters, over.extra_parameters.as_ref());
                set(&mut embedding.max_tokens, over.context_tokens.as_ref());
                set(&mut embedding.encodings, over.encodings.as_ref());
                set(&mut embedding.images_per_call, over.images_per_call.as_ref());
                if let Some(dimensions) = &over.dimensions {
                    embedding.dimensions.clone_from(dimensions);
                    embedding.any_dimensions = false;
                }
            }
        }
    }
}
