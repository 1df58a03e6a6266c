//! `POST /completions`: prompts and their continuations (section 9).

use super::chat_completions::response::nullable;
use super::chat_completions::{CompletionsUsage, FinishReason};
use super::content_filter::{ContentFilterOffsets, ContentFilterResults, PromptFilterResult};
use super::json::{At, Object, boolean, count, object, string};
use super::sampling::{Sampling, StreamOptions, describe_stop, model, stream_options};
use super::schema::inline_schema;
use super::text_input::{self, TextInput};
use super::{Dialect, Fields, Names, Parsed, Vocabulary};
use crate::Fault;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Length of a continuation nobody bounded, on the inference routes.
pub const DEFAULT_MAX_TOKENS_INFERENCE: u32 = 256;
/// Length of a continuation nobody bounded, on OpenAI's routes.
pub const DEFAULT_MAX_TOKENS_OPENAI: u32 = 16;
/// Alternatives per token that may be asked for.
const MOST_LOGPROBS: u32 = 5;
/// Continuations that may be sampled for one prompt.
const MOST_BEST_OF: u32 = 20;
/// Prompts of one request: each is a generation of its own.
const MOST_PROMPTS: usize = 2048;

pub(super) const NAMES: Names = Names {
    ordinary: &[
        "prompt",
        "model",
        "max_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "stream",
    ],
    openai: &["best_of", "n", "echo", "logprobs", "logit_bias", "suffix", "user", "stream_options"],
};

/// Prompts to continue.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
pub struct CompletionsRequest {
    /// At least one; prompt `i` has the choices `i*n .. i*n+n`.
    #[schemars(rename = "prompt", schema_with = "prompt_schema")]
    pub prompts: Vec<TextInput>,
    /// The deployment; none when absent, null or empty.
    pub model: Option<String>,
    /// How to sample; without `max_tokens` the route's default applies ([`CompletionsRequest::max_tokens`]).
    #[schemars(flatten)]
    pub sampling: Sampling,
    /// Whether to answer piece by piece.
    #[schemars(with = "Option<bool>")]
    pub stream: bool,
    /// Only with `stream`. OpenAI's name.
    pub stream_options: Option<StreamOptions>,
    /// Sample this many and keep the `n` most probable, 1..20, not below `n`; 0 asks for nothing. OpenAI's name.
    #[schemars(range(max = MOST_BEST_OF))]
    pub best_of: Option<u32>,
    /// Whether the prompt comes before its continuation. OpenAI's name.
    #[schemars(with = "Option<bool>")]
    pub echo: bool,
    /// Alternatives per token, 0..5; none and false report no log probabilities. OpenAI's name.
    #[schemars(with = "Option<Alternatives>")]
    pub logprobs: Option<u32>,
    /// Text after the gap to fill. OpenAI's name.
    pub suffix: Option<String>,
    /// The caller's own user. OpenAI's name.
    pub user: Option<String>,
    /// Accepted names without a field of their own: forwarded to models that take them, ignored by others.
    #[schemars(skip)]
    pub others: Fields,
}

fn prompt_schema(_: &mut SchemaGenerator) -> Schema {
    text_input::schema(0, MOST_PROMPTS)
}

inline_schema!(
    Alternatives,
    json_schema!({"anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MOST_LOGPROBS},
        {"const": false},
        {"type": "null"},
    ]})
);

impl CompletionsRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8], vocabulary: Vocabulary<'_>) -> Result<Parsed<Self>, Fault> {
        let sorted = NAMES.sort(object(body)?, vocabulary);
        let mut fields = Object::root(sorted.known);
        let mut request = Self {
            prompts: fields.required("prompt", |value, at| {
                text_input::read(value, at, MOST_PROMPTS, string)
            })?,
            model: model(&mut fields)?,
            sampling: Sampling::read(&mut fields, vocabulary.dialect)?,
            stream: fields.optional("stream", boolean)?.unwrap_or_default(),
            others: sorted.others,
            ..Self::default()
        };
        request.read_openai(fields)?;
        Ok(Parsed { request, extra: sorted.extra })
    }

    /// The schema of a body whose top-level names are those of `vocabulary`.
    #[must_use]
    pub fn schema(generator: &mut SchemaGenerator, vocabulary: Vocabulary<'_>) -> Schema {
        let mut schema = Self::json_schema(generator);
        NAMES.describe(&mut schema, vocabulary, |properties| {
            describe_stop(properties, vocabulary.dialect);
        });
        schema
    }

    fn read_openai(&mut self, mut fields: Object<'_>) -> Result<(), Fault> {
        self.sampling.read_openai(&mut fields)?;
        // OpenAI allows 0 here; it asks for nothing.
        let best_of = fields.optional("best_of", count(0..=MOST_BEST_OF))?.filter(|&many| many > 0);
        self.best_of = best_of.or(self.best_of);
        self.echo |= fields.optional("echo", boolean)?.unwrap_or_default();
        self.logprobs = fields.optional("logprobs", logprobs)?.flatten().or(self.logprobs);
        // Prompt flow sends empty strings for what it has not.
        let filled = |text: &String| !text.is_empty();
        self.suffix = fields.optional("suffix", string)?.filter(filled).or(self.suffix.take());
        self.user = fields.optional("user", string)?.filter(filled).or(self.user.take());
        let options = fields.optional("stream_options", stream_options)?;
        self.stream_options = options.or(self.stream_options);
        self.others.extend(fields.rest());
        self.check()
    }

    fn check(&self) -> Result<(), Fault> {
        let n = self.sampling.n.unwrap_or(1);
        if let Some(best_of) = self.best_of {
            if best_of < n {
                let message = format!("`best_of` must not be below `n`: found {best_of} and {n}");
                return Err(Fault::invalid("best_of", message));
            }
            if self.stream && best_of > n {
                let message = "`best_of` above `n` cannot be streamed";
                return Err(Fault::invalid("best_of", message));
            }
        }
        if self.stream_options.is_some() && !self.stream {
            let message = "`stream_options` needs `stream` to be true";
            return Err(Fault::invalid("stream_options", message));
        }
        Ok(())
    }

    /// Longest continuation in tokens, with the default of the route's family.
    #[must_use]
    pub fn max_tokens(&self, dialect: Dialect) -> u32 {
        self.sampling.max_tokens.unwrap_or(match dialect {
            Dialect::Inference => DEFAULT_MAX_TOKENS_INFERENCE,
            Dialect::OpenAi => DEFAULT_MAX_TOKENS_OPENAI,
        })
    }
}

impl Parsed<CompletionsRequest> {
    /// Reads OpenAI's names among the extra properties as the fields they are, for a caller who asked to pass extras
    /// through. What is left in `extra` is for the model alone.
    ///
    /// # Errors
    /// `InvalidRequest` when one of them is not valid.
    pub fn admit(mut self) -> Result<Self, Fault> {
        let fields = NAMES.admit(&mut self.extra);
        self.request.read_openai(Object::root(fields))?;
        Ok(self)
    }
}

/// A number, or false, which asks for none.
fn logprobs(value: Value, at: At<'_>) -> Result<Option<u32>, Fault> {
    if value == Value::Bool(false) {
        return Ok(None);
    }
    count(0..=MOST_LOGPROBS)(value, at).map(Some)
}

/// Continuations: a whole answer, or one chunk of a streamed one, which has the same shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Completions {
    /// Opaque.
    pub id: String,
    /// Always `text_completion`.
    #[serde(default)]
    pub object: CompletionsObject,
    /// Unix seconds.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// `n` per prompt, in the order of the prompts.
    pub choices: Vec<CompletionChoice>,
    /// What the filter found in the prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_filter_results: Option<Vec<PromptFilterResult>>,
    /// Tokens spent: none leaves the key out, `Some(None)` is null, as OpenAI's `include_usage` wants in all but the last.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub usage: Option<Option<CompletionsUsage>>,
    /// What made the answer; OpenAI's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// The `object` of continuations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CompletionsObject {
    /// `text_completion`
    #[default]
    #[serde(rename = "text_completion")]
    TextCompletion,
}

/// One continuation, or the next piece of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionChoice {
    /// From 0, over all prompts.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Null until the last piece.
    pub finish_reason: Option<FinishReason>,
    /// Null unless asked for.
    #[serde(default)]
    pub logprobs: Option<CompletionLogprobs>,
    /// What the filter found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filter_results: Option<ContentFilterResults>,
    /// What the annotation is about, where the filter runs behind the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filter_offsets: Option<ContentFilterOffsets>,
}

/// Log probabilities in the shape of `/completions`: four lists of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionLogprobs {
    /// The tokens as text.
    pub tokens: Vec<String>,
    /// Their log probabilities; null for the very first token of a prompt that is echoed.
    pub token_logprobs: Vec<Option<f32>>,
    /// Per token: alternative → log probability; null as above.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<u32>,
}
