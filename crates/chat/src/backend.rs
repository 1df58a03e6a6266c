//! What can answer: a conversation or prompts in, a stream of pieces out.
//!
//! The seam between the gRPC door and everything that generates: the embedded engine, an upstream server, the fake of the
//! tests. These types are the service's own; only `service.rs` knows their wire form.

use crate::error::ChatError;
use async_trait::async_trait;
use futures::Stream;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

/// Pieces as they are generated. Dropping the stream ends the generation within one decode step.
pub type PieceStream = Pin<Box<dyn Stream<Item = Result<Piece, ChatError>> + Send>>;

/// Something that generates. A backend serves one or more models.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// The models it serves, with what each can do: the source of every 422, so it must be true.
    fn models(&self) -> Vec<ModelInfo>;

    /// Answers a conversation. The stream ends with `Piece::Usage`, after one `Piece::Finished` for each choice.
    ///
    /// # Errors
    /// Before the first piece: unknown model, a prompt longer than the context window, no free capacity, upstream down.
    async fn generate(&self, request: GenerateRequest) -> Result<PieceStream, ChatError>;

    /// Continues raw prompts; same stream as `generate`, text pieces only.
    ///
    /// # Errors
    /// As `generate`.
    async fn complete(&self, request: CompleteRequest) -> Result<PieceStream, ChatError>;
}

/// A model and what it can do (see `proto/inference/chat/v1/chat.proto`, `Model`, for each field's meaning).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelInfo {
    /// Name that requests use.
    pub name: String,
    /// Who published the weights.
    pub publisher: String,
    /// Version of the weights.
    pub version: String,
    /// Tokens of prompt and answer together; 0 is unknown.
    pub context_tokens: u32,
    /// Serves `generate`.
    pub chat: bool,
    /// Serves `complete`.
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
    /// Sampling parameters of which it takes less than the API allows, by name.
    pub parameters: BTreeMap<String, ParameterLimit>,
    /// Takes prompts with a suffix.
    pub suffix: bool,
}

/// How much of a sampling parameter a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterLimit {
    /// Least value; none is the API's.
    pub minimum: Option<f64>,
    /// Largest value; none is the API's.
    pub maximum: Option<f64>,
    /// No value at all is taken.
    #[serde(default)]
    pub refused: bool,
}

/// A conversation to answer.
#[derive(Debug, Clone, Default)]
pub struct GenerateRequest {
    /// Which model.
    pub model: String,
    /// Oldest first, at least one.
    pub messages: Vec<Message>,
    /// How to sample.
    pub sampling: Sampling,
    /// What the answer must look like.
    pub response_format: ResponseFormat,
    /// Functions the model may call.
    pub tools: Vec<Tool>,
    /// Whether one must be called.
    pub tool_choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// Passed-through parameters that are not part of the API.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Prompts to continue.
#[derive(Debug, Clone, Default)]
pub struct CompleteRequest {
    /// Which model.
    pub model: String,
    /// At least one; prompt `i` has the choices `i*n .. i*n+n`.
    pub prompts: Vec<Prompt>,
    /// How to sample.
    pub sampling: Sampling,
    /// Text after the gap to fill.
    pub suffix: Option<String>,
    /// Repeat the prompt before its continuation.
    pub echo: bool,
    /// Sample this many, keep the `n` most probable.
    pub best_of: Option<u32>,
    /// As in `GenerateRequest`.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text to be tokenised.
    Text(String),
    /// Token ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Parts in order; empty for an assistant that only calls tools.
    pub content: Vec<Part>,
    /// The author's name.
    pub name: Option<String>,
    /// Calls the assistant made.
    pub tool_calls: Vec<ToolCall>,
    /// The call a tool message answers.
    pub tool_call_id: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// An image by https or data URL, with `detail` auto, low or high.
    ImageUrl {
        /// https or data URL.
        url: String,
        /// auto, low or high.
        detail: String,
    },
    /// Sound, base64, `format` wav or mp3.
    InputAudio {
        /// base64.
        data: String,
        /// wav or mp3.
        format: String,
    },
    /// Sound by URL.
    AudioUrl(String),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Identifies the call in the conversation.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON as text, as the model wrote it.
    pub arguments: String,
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments; none means no parameters.
    pub parameters: Option<serde_json::Value>,
    /// Arguments must fit the schema exactly.
    pub strict: bool,
}

/// Whether a tool must be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No calls.
    None,
    /// At least one call.
    Required,
    /// A call of this function.
    Named(String),
}

/// What the answer must look like.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ResponseFormat {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// For people.
        name: String,
        /// The schema.
        schema: serde_json::Value,
        /// Whether the caller wants it held to exactly; the embedded engine always does.
        strict: bool,
    },
}

/// How to sample; none leaves it to the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0..2, 0 is greedy.
    pub temperature: Option<f32>,
    /// 0..1.
    pub top_p: Option<f32>,
    /// -2..2.
    pub frequency_penalty: Option<f32>,
    /// -2..2.
    pub presence_penalty: Option<f32>,
    /// Generated tokens per choice.
    pub max_tokens: Option<u32>,
    /// Ends the answer; not part of it.
    pub stop: Vec<String>,
    /// Repeatable sampling.
    pub seed: Option<i64>,
    /// Choices, at least 1.
    pub n: u32,
    /// Alternatives to report per token; none reports no log probabilities.
    pub top_logprobs: Option<u32>,
    /// Token id → bias, -100..100.
    pub logit_bias: BTreeMap<u32, f32>,
}

/// A step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text of choice `choice`, whole characters only.
    Text {
        /// From 0.
        choice: u32,
        /// May be empty when only log probabilities arrive.
        text: String,
        /// One per token where asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// What a reasoning model thinks before it answers.
    Reasoning {
        /// From 0.
        choice: u32,
        /// Whole characters only.
        text: String,
    },
    /// A step of a tool call; `id` and `name` in the first step of a call only.
    ToolCall {
        /// From 0.
        choice: u32,
        /// Which call, from 0.
        index: u32,
        /// First step only.
        id: Option<String>,
        /// First step only.
        name: Option<String>,
        /// The next piece of the JSON text.
        arguments: String,
    },
    /// Choice `choice` has ended.
    Finished {
        /// From 0.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// Always the last piece.
    Usage(Usage),
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// End of answer or a stop string.
    Stop,
    /// `max_tokens` or the context window.
    Length,
    /// The answer calls tools.
    ToolCalls,
    /// An upstream's filter.
    ContentFilter,
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, template included.
    pub prompt_tokens: u32,
    /// Generated, over all choices.
    pub completion_tokens: u32,
    /// Part of `prompt_tokens` served from a cache.
    pub cached_tokens: u32,
    /// Part of `completion_tokens` spent on reasoning.
    pub reasoning_tokens: u32,
}

/// A generated token's log probability (natural logarithm).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token as text, lossy where it is a part of a character.
    pub token: String,
    /// Its log probability.
    pub logprob: f32,
    /// Its own bytes.
    pub bytes: Vec<u8>,
    /// Others that could have stood here, most probable first: (token, logprob, bytes).
    pub alternatives: Vec<(String, f32, Vec<u8>)>,
}
