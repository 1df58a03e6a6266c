//! What `/chat/completions` answers: whole (section 8.6) and streamed (section 8.8).
//!
//! Traps: `content` of a message is always there, if null; `content` of a delta never is null; `tool_calls` is left out
//! rather than null, because .NET dies on it; `created` is an integer. Where usage goes is the edge's business.

use super::super::content_filter::{
    ContentFilterOffsets, ContentFilterResults, PromptFilterResult,
};
use super::tool::{FunctionCall, ToolCall, ToolCallDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletions {
    /// Opaque.
    pub id: String,
    /// Always `chat.completion`.
    #[serde(default)]
    pub object: ChatCompletionsObject,
    /// Unix seconds.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// One, or `n`.
    pub choices: Vec<ChatChoice>,
    /// What the filter found in the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_filter_results: Option<Vec<PromptFilterResult>>,
    /// Tokens spent.
    pub usage: CompletionsUsage,
    /// What made the answer; OpenAI's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// The `object` of a whole answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChatCompletionsObject {
    /// `chat.completion`
    #[default]
    #[serde(rename = "chat.completion")]
    ChatCompletion,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatChoice {
    /// From 0.
    pub index: u32,
    /// What was said.
    pub message: ChatResponseMessage,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
    /// Null unless asked for.
    #[serde(default)]
    pub logprobs: Option<ChoiceLogprobs>,
    /// What the filter found in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filter_results: Option<ContentFilterResults>,
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatResponseMessage {
    /// Always `assistant`.
    #[serde(default)]
    pub role: AssistantRole,
    /// Always on the wire, null where there is none.
    #[serde(default)]
    pub content: Option<String>,
    /// What was thought before; 2025-04-01 and newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Left out where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The one call of a request by the old names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall>,
    /// Why the model would not answer; OpenAI's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// The role of everything that is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssistantRole {
    /// `assistant`
    #[default]
    #[serde(rename = "assistant")]
    Assistant,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The end, or a stop string.
    Stop,
    /// `max_tokens` or the context window.
    Length,
    /// A filter cut it.
    ContentFilter,
    /// It calls tools.
    ToolCalls,
    /// It calls a function of a request by the old names.
    FunctionCall,
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionsUsage {
    /// Of the prompt, template included.
    pub prompt_tokens: u32,
    /// Generated, over all choices.
    pub completion_tokens: u32,
    /// The sum.
    pub total_tokens: u32,
    /// Parts of `completion_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionTokensDetails>,
    /// Parts of `prompt_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

impl CompletionsUsage {
    /// Counts without details.
    #[must_use]
    pub const fn new(prompt_tokens: u32, completion_tokens: u32) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            completion_tokens_details: None,
            prompt_tokens_details: None,
        }
    }
}

/// Parts of `completion_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CompletionTokensDetails {
    /// Spent on reasoning.
    pub reasoning_tokens: u32,
    /// Spent on sound.
    pub audio_tokens: u32,
}

/// Parts of `prompt_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptTokensDetails {
    /// Served from a cache.
    pub cached_tokens: u32,
    /// Sound.
    pub audio_tokens: u32,
}

/// Log probabilities of an answer's tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceLogprobs {
    /// One per token.
    #[serde(default)]
    pub content: Option<Vec<TokenLogprob>>,
    /// One per token of a refusal; always null here, present as OpenAI's clients expect.
    #[serde(default)]
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A token and how probable it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// As text, lossy where it is a part of a character.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f32,
    /// Its own bytes.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
    /// Others that could have stood here, most probable first.
    #[serde(default)]
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that could have stood there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopLogprob {
    /// As text, lossy where it is a part of a character.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f32,
    /// Its own bytes.
    #[serde(default)]
    pub bytes: Option<Vec<u8>>,
}

/// One chunk of a streamed answer. `id`, `created` and `model` are the same in every chunk of one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletionsUpdate {
    /// Opaque.
    pub id: String,
    /// `chat.completion.chunk`.
    #[serde(default)]
    pub object: ChatCompletionsUpdateObject,
    /// Unix seconds.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// Always on the wire; empty only in OpenAI's usage chunk and prompt annotation.
    pub choices: Vec<ChatUpdateChoice>,
    /// What the filter found in the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_filter_results: Option<Vec<PromptFilterResult>>,
    /// Tokens spent: none leaves the key out, `Some(None)` is null, as OpenAI's `include_usage` wants in all but the last.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub usage: Option<Option<CompletionsUsage>>,
    /// What made the answer; OpenAI's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// The `object` of a chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChatCompletionsUpdateObject {
    /// `chat.completion.chunk`
    #[default]
    #[serde(rename = "chat.completion.chunk")]
    ChatCompletionChunk,
    /// Empty: Azure's annotation chunk of the prompt (section 13.6).
    #[serde(rename = "")]
    Annotation,
}

/// One choice of a chunk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatUpdateChoice {
    /// From 0.
    pub index: u32,
    /// What is new; always on the wire.
    pub delta: ChatDelta,
    /// Null until the last.
    pub finish_reason: Option<FinishReason>,
    /// Null unless asked for.
    #[serde(default)]
    pub logprobs: Option<ChoiceLogprobs>,
    /// What the filter found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filter_results: Option<ContentFilterResults>,
    /// What the annotation is about, where the filter runs behind the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filter_offsets: Option<ContentFilterOffsets>,
}

/// What is new. Every field is left out rather than null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatDelta {
    /// First chunk only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AssistantRole>,
    /// The next piece of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The next piece of the thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Steps of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
    /// A step of the one call of a request by the old names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_call: Option<super::tool::FunctionCallDelta>,
    /// The next piece of a refusal; OpenAI's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// Tells a null, which is `Some(None)`, from an absent key.
pub(in crate::rest) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}
