//! `POST /chat/completions`: a conversation and how to answer it (section 8).
//!
//! What the caller may send is here, what is answered in `response`; messages and tools have files of their own.

pub mod message;
pub mod response;
pub mod tool;

mod written;

pub use message::{AudioFormat, ChatMessage, ChatRole, ContentPart, ImageDetail};
pub use response::{
    ChatChoice, ChatCompletions, ChatCompletionsUpdate, ChatDelta, ChatResponseMessage,
    ChatUpdateChoice, ChoiceLogprobs, CompletionTokensDetails, CompletionsUsage, FinishReason,
    PromptTokensDetails, TokenLogprob, TopLogprob,
};
pub use tool::{
    FunctionCall, FunctionKind, ResponseFormat, Tool, ToolCall, ToolCallDelta, ToolChoice,
};

use super::json::{At, Object, boolean, count, list, object, sized, string, word};
use super::sampling::{MOST_TOKENS, Sampling, StreamOptions, model, stream_options};
use super::{Dialect, Fields, Names, Parsed, Vocabulary};
use crate::Fault;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use written::{Functions, MessageOfAnyRole, WrittenMessage, WrittenTool};

/// Alternatives per token that may be asked for.
const MOST_TOP_LOGPROBS: u32 = 20;
/// Of `user_security_context`: the API's own bounds.
const LONGEST_APPLICATION_NAME: usize = 100;
/// A GUID as text.
const GUID_LENGTH: usize = 36;
/// The shortest IPv6 address as text, `::`.
const SHORTEST_ADDRESS: usize = 2;
/// The longest IPv6 address as text.
const LONGEST_ADDRESS: usize = 45;

pub(super) const NAMES: Names = Names {
    ordinary: &[
        "messages",
        "model",
        "frequency_penalty",
        "presence_penalty",
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
        "stream",
        "response_format",
        "tools",
        "tool_choice",
        "modalities",
        "user_security_context",
    ],
    openai: &[
        "max_completion_tokens",
        "n",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "parallel_tool_calls",
        "user",
        "stream_options",
        "functions",
        "function_call",
        "reasoning_effort",
        "store",
        "metadata",
        "service_tier",
        "prediction",
        "audio",
        "verbosity",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "web_search_options",
    ],
};

/// A conversation to answer.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
pub struct ChatCompletionsRequest {
    /// Oldest first, at least one.
    #[schemars(with = "Vec<MessageOfAnyRole>", length(min = 1))]
    pub messages: Vec<ChatMessage>,
    /// The deployment; none when absent, null or empty.
    pub model: Option<String>,
    /// How to sample.
    #[schemars(flatten)]
    pub sampling: Sampling,
    /// Whether to answer piece by piece.
    #[schemars(with = "Option<bool>")]
    pub stream: bool,
    /// Only with `stream`. OpenAI's name.
    pub stream_options: Option<StreamOptions>,
    /// What the answer must look like; none is text.
    #[schemars(with = "Option<written::WrittenFormat>")]
    pub response_format: Option<ResponseFormat>,
    /// Functions the model may call.
    #[schemars(with = "Option<Vec<WrittenTool>>", length(min = 1, max = tool::MOST_TOOLS))]
    pub tools: Vec<Tool>,
    /// None is auto with tools; a named tool is one of `tools`.
    #[schemars(with = "Option<written::WrittenChoice>")]
    pub tool_choice: Option<ToolChoice>,
    /// Whether one answer may hold several calls; none is yes. OpenAI's name.
    pub parallel_tool_calls: Option<bool>,
    /// Whether the tools came by their old names `functions` and `function_call`: the answer then has `function_call`.
    #[schemars(skip)]
    pub legacy_functions: bool,
    /// What the answer may be made of; none is text.
    #[schemars(with = "Option<Vec<Modality>>", length(min = 1))]
    pub modalities: Vec<Modality>,
    /// On whose behalf the caller acts; for logs and audit only.
    pub user_security_context: Option<UserSecurityContext>,
    /// Whether to report log probabilities. OpenAI's name.
    #[schemars(with = "Option<bool>")]
    pub logprobs: bool,
    /// Alternatives per token, 0..20, only with `logprobs`. OpenAI's name.
    #[schemars(range(max = MOST_TOP_LOGPROBS))]
    pub top_logprobs: Option<u32>,
    /// The caller's own user. OpenAI's name.
    pub user: Option<String>,
    /// Accepted names without a field of their own (`reasoning_effort`, `store`, ..., and those the operator admits):
    /// forwarded to models that take them, ignored by others.
    #[schemars(skip)]
    pub others: Fields,
}

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Modality {
    /// `text`
    Text,
    /// `audio`
    Audio,
}

/// On whose behalf the caller acts.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
pub struct UserSecurityContext {
    /// Name of the application.
    #[schemars(length(max = LONGEST_APPLICATION_NAME))]
    pub application_name: Option<String>,
    /// GUID of the user.
    #[schemars(length(equal = GUID_LENGTH))]
    pub end_user_id: Option<String>,
    /// GUID of the user's tenant.
    #[schemars(length(equal = GUID_LENGTH))]
    pub end_user_tenant_id: Option<String>,
    /// Address of the user.
    #[schemars(length(min = SHORTEST_ADDRESS, max = LONGEST_ADDRESS))]
    pub source_ip: Option<String>,
}

impl ChatCompletionsRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target: not JSON, missing, of the wrong type, out of range.
    pub fn parse(body: &[u8], vocabulary: Vocabulary<'_>) -> Result<Parsed<Self>, Fault> {
        let sorted = NAMES.sort(object(body)?, vocabulary);
        let mut fields = Object::root(sorted.known);
        let mut request = Self::read(&mut fields, vocabulary.dialect)?;
        request.others = sorted.others;
        request.read_openai(fields)?;
        Ok(Parsed { request, extra: sorted.extra })
    }

    /// The schema of a body whose top-level names are those of `vocabulary`.
    #[must_use]
    pub fn schema(generator: &mut SchemaGenerator, vocabulary: Vocabulary<'_>) -> Schema {
        let mut schema = Self::json_schema(generator);
        let inference = generator.subschema_for::<WrittenMessage>();
        NAMES.describe(&mut schema, vocabulary, |properties| {
            super::sampling::describe_stop(properties, vocabulary.dialect);
            Functions::describe(properties, generator);
            if let Some(tokens) = properties.get("max_tokens").cloned() {
                properties.insert("max_completion_tokens".to_owned(), tokens);
            }
            if vocabulary.dialect == Dialect::Inference
                && let Some(items) = properties.get_mut("messages").and_then(|m| m.get_mut("items"))
            {
                *items = inference.to_value();
            }
        });
        schema
    }

    fn read(fields: &mut Object<'_>, dialect: Dialect) -> Result<Self, Fault> {
        Ok(Self {
            messages: message::read_all(fields, dialect)?,
            model: model(fields)?,
            sampling: Sampling::read(fields, dialect)?,
            stream: fields.optional("stream", boolean)?.unwrap_or_default(),
            response_format: fields.optional("response_format", tool::response_format)?,
            tools: fields.optional("tools", tool::tools)?.unwrap_or_default(),
            tool_choice: fields.optional("tool_choice", tool::tool_choice)?,
            modalities: fields.optional("modalities", modalities)?.unwrap_or_default(),
            user_security_context: fields
                .optional("user_security_context", user_security_context)?,
            ..Self::default()
        })
    }

    /// The names of OpenAI's API, then the rules that need several fields at once.
    fn read_openai(&mut self, mut fields: Object<'_>) -> Result<(), Fault> {
        self.sampling.read_openai(&mut fields)?;
        let tokens = fields.optional("max_completion_tokens", count(0..=MOST_TOKENS))?;
        self.sampling.max_tokens = tokens.or(self.sampling.max_tokens);
        self.logprobs |= fields.optional("logprobs", boolean)?.unwrap_or_default();
        let top_logprobs = fields.optional("top_logprobs", count(0..=MOST_TOP_LOGPROBS))?;
        self.top_logprobs = top_logprobs.or(self.top_logprobs);
        let parallel = fields.optional("parallel_tool_calls", boolean)?;
        self.parallel_tool_calls = parallel.or(self.parallel_tool_calls);
        self.user = fields.optional("user", string)?.or(self.user.take());
        let options = fields.optional("stream_options", stream_options)?;
        self.stream_options = options.or(self.stream_options);
        self.read_functions(&mut fields)?;
        self.others.extend(fields.rest());
        self.check()
    }

    /// `functions` and `function_call`, the old names of tools; the new ones win.
    fn read_functions(&mut self, fields: &mut Object<'_>) -> Result<(), Fault> {
        let functions = fields.optional("functions", tool::functions)?;
        let call = fields.optional("function_call", tool::function_call)?;
        if self.tools.is_empty()
            && let Some(functions) = functions
        {
            self.tools = functions;
            self.tool_choice = self.tool_choice.take().or(call);
            self.legacy_functions = true;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Fault> {
        if self.top_logprobs.is_some() && !self.logprobs {
            return Err(Fault::invalid(
                "top_logprobs",
                "`top_logprobs` needs `logprobs` to be true",
            ));
        }
        if self.stream_options.is_some() && !self.stream {
            return Err(Fault::invalid(
                "stream_options",
                "`stream_options` needs `stream` to be true",
            ));
        }
        self.tool_choice = tool::settle_choice(self.tool_choice.take(), &self.tools)?;
        Ok(())
    }
}

impl Parsed<ChatCompletionsRequest> {
    /// Reads OpenAI's names among the extra properties as the fields they are (`n`, `max_completion_tokens`, ...), for
    /// a caller who asked to pass extras through. What is left in `extra` is for the model alone.
    ///
    /// # Errors
    /// `InvalidRequest` when one of them is not valid.
    pub fn admit(mut self) -> Result<Self, Fault> {
        let fields = NAMES.admit(&mut self.extra);
        self.request.read_openai(Object::root(fields))?;
        Ok(self)
    }
}

fn modalities(value: Value, at: At<'_>) -> Result<Vec<Modality>, Fault> {
    const WORDS: &[(&str, Modality)] = &[("text", Modality::Text), ("audio", Modality::Audio)];
    let mut modalities = list(1..=usize::MAX, word(WORDS))(value, at)?;
    modalities.dedup();
    Ok(modalities)
}

fn user_security_context(value: Value, at: At<'_>) -> Result<UserSecurityContext, Fault> {
    let mut fields = Object::read(value, at)?;
    let guid = || sized(GUID_LENGTH..=GUID_LENGTH);
    Ok(UserSecurityContext {
        application_name: fields
            .optional("application_name", sized(0..=LONGEST_APPLICATION_NAME))?,
        end_user_id: fields.optional("end_user_id", guid())?,
        end_user_tenant_id: fields.optional("end_user_tenant_id", guid())?,
        source_ip: fields.optional("source_ip", sized(SHORTEST_ADDRESS..=LONGEST_ADDRESS))?,
    })
}
