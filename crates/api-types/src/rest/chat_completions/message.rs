//! The messages of a conversation and the parts they are made of (sections 8.2 and 8.3).
//!
//! Lenient where real clients are sloppy: an assistant without `content`, `name: null`, a system message as parts, tool
//! calls without `type`, `format` beside `input_audio`. Unknown properties of a message are ignored, so an answer of ours
//! may be sent back as it is.

use super::super::json::{At, Object, filled, list, string, word};
use super::super::{Dialect, data_url};
use super::tool::{self, FunctionCall, FunctionKind, ToolCall};
use crate::Fault;
use schemars::JsonSchema;
use serde_json::Value;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: ChatRole,
    /// In order; a plain string is one text part. Empty where an assistant or a tool says nothing.
    pub content: Vec<ContentPart>,
    /// The author's name.
    pub name: Option<String>,
    /// Calls the assistant made.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool message answers.
    pub tool_call_id: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChatRole {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call; also OpenAI's old role `function`.
    Tool,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum ContentPart {
    /// `text`
    Text(String),
    /// `image_url`
    ImageUrl {
        /// An https URL or a data URL of an image; its form is checked, its data is not decoded.
        url: String,
        /// How closely to look.
        detail: ImageDetail,
    },
    /// `input_audio`
    InputAudio {
        /// Base64, not decoded.
        data: String,
        /// Of the decoded file.
        format: AudioFormat,
    },
    /// `audio_url`: an https URL or a data URL.
    AudioUrl(String),
}

/// How closely to look at an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum ImageDetail {
    /// The model decides.
    #[default]
    Auto,
    /// Coarsely.
    Low,
    /// Closely.
    High,
}

impl ImageDetail {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

/// Format of a sound file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum AudioFormat {
    /// `wav`
    Wav,
    /// `mp3`
    Mp3,
}

impl AudioFormat {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
        }
    }
}

/// A role as it is written; `function` is read as a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrittenRole {
    Of(ChatRole),
    Function,
}

/// `messages`: at least one.
pub(super) fn read_all(
    fields: &mut Object<'_>,
    dialect: Dialect,
) -> Result<Vec<ChatMessage>, Fault> {
    let read = |value: Value, at: At<'_>| read(value, at, dialect);
    let mut messages = fields.required("messages", list(1..=usize::MAX, read))?;
    join_functions(&mut messages);
    Ok(messages)
}

fn read(value: Value, at: At<'_>, dialect: Dialect) -> Result<ChatMessage, Fault> {
    let mut fields = Object::read(value, at)?;
    let written = fields.required("role", role(dialect))?;
    let name = fields.optional("name", string)?;
    let (role, content) = match written {
        WrittenRole::Of(role @ (ChatRole::System | ChatRole::Developer)) => {
            (role, fields.required("content", text_content(1))?)
        }
        WrittenRole::Of(role @ ChatRole::User) => (role, fields.required("content", content)?),
        WrittenRole::Of(role @ (ChatRole::Assistant | ChatRole::Tool)) => {
            (role, fields.optional("content", text_content(0))?.unwrap_or_default())
        }
        WrittenRole::Function => {
            (ChatRole::Tool, fields.optional("content", text_content(0))?.unwrap_or_default())
        }
    };
    let mut message =
        ChatMessage { role, content, name, tool_calls: Vec::new(), tool_call_id: None };
    match written {
        WrittenRole::Of(ChatRole::Assistant) => message.tool_calls = calls(&mut fields)?,
        WrittenRole::Of(ChatRole::Tool) => {
            message.tool_call_id = Some(fields.required("tool_call_id", string)?);
        }
        WrittenRole::Function if message.name.is_none() => return Err(at.missing("name")),
        WrittenRole::Function
        | WrittenRole::Of(ChatRole::System | ChatRole::Developer | ChatRole::User) => {}
    }
    Ok(message)
}

fn role(dialect: Dialect) -> impl Fn(Value, At<'_>) -> Result<WrittenRole, Fault> {
    const WORDS: &[(&str, WrittenRole)] = &[
        ("system", WrittenRole::Of(ChatRole::System)),
        ("developer", WrittenRole::Of(ChatRole::Developer)),
        ("user", WrittenRole::Of(ChatRole::User)),
        ("assistant", WrittenRole::Of(ChatRole::Assistant)),
        ("tool", WrittenRole::Of(ChatRole::Tool)),
        ("function", WrittenRole::Function),
    ];
    word(match dialect {
        Dialect::Inference => WORDS.split_last().map_or(WORDS, |(_, inference)| inference),
        Dialect::OpenAi => WORDS,
    })
}

/// `tool_calls`, or the one call of the old `function_call`.
fn calls(fields: &mut Object<'_>) -> Result<Vec<ToolCall>, Fault> {
    let calls = fields.optional("tool_calls", list(0..=usize::MAX, tool::call))?;
    let old = fields.optional("function_call", tool::called_function)?;
    Ok(match (calls, old) {
        (Some(calls), _) if !calls.is_empty() => calls,
        (Some(_) | None, Some(function)) => vec![old_call(function)],
        (Some(_) | None, None) => Vec::new(),
    })
}

/// A call by the old name has no id: its function's name serves, and the answer refers to it.
fn old_call(function: FunctionCall) -> ToolCall {
    ToolCall { id: old_call_id(&function.name), kind: FunctionKind::Function, function }
}

fn old_call_id(function: &str) -> String {
    format!("call_{function}")
}

/// Gives messages of the old role `function` the id of the call they answer.
fn join_functions(messages: &mut [ChatMessage]) {
    for message in messages {
        if message.role == ChatRole::Tool && message.tool_call_id.is_none() {
            message.tool_call_id = message.name.as_deref().map(old_call_id);
        }
    }
}

/// A string, or parts of any kind.
fn content(value: Value, at: At<'_>) -> Result<Vec<ContentPart>, Fault> {
    match value {
        Value::String(text) => Ok(vec![ContentPart::Text(text)]),
        parts @ Value::Array(_) => list(1..=usize::MAX, part)(parts, at),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Err(at.expected("a string or an array of content parts", &other))
        }
    }
}

/// A string, or at least so many parts that are text.
fn text_content(least: usize) -> impl Fn(Value, At<'_>) -> Result<Vec<ContentPart>, Fault> {
    move |value, at| match value {
        Value::String(text) => Ok(vec![ContentPart::Text(text)]),
        parts @ Value::Array(_) => list(least..=usize::MAX, text_part)(parts, at),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Err(at.expected("a string or an array of text parts", &other))
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum PartKind {
    Text,
    ImageUrl,
    InputAudio,
    AudioUrl,
}

fn part(value: Value, at: At<'_>) -> Result<ContentPart, Fault> {
    const KINDS: &[(&str, PartKind)] = &[
        ("text", PartKind::Text),
        ("image_url", PartKind::ImageUrl),
        ("input_audio", PartKind::InputAudio),
        ("audio_url", PartKind::AudioUrl),
    ];
    let mut fields = Object::read(value, at)?;
    match fields.required("type", word(KINDS))? {
        PartKind::Text => Ok(ContentPart::Text(fields.required("text", string)?)),
        PartKind::ImageUrl => fields.required("image_url", image_url),
        PartKind::AudioUrl => fields.required("audio_url", audio_url),
        PartKind::InputAudio => {
            let beside = fields.optional("format", audio_format)?;
            fields.required("input_audio", |value, at| input_audio(value, at, beside))
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum TextPartKind {
    Text,
    Refusal,
}

/// A text part, or the refusal OpenAI's assistant may have spoken.
fn text_part(value: Value, at: At<'_>) -> Result<ContentPart, Fault> {
    const KINDS: &[(&str, TextPartKind)] =
        &[("text", TextPartKind::Text), ("refusal", TextPartKind::Refusal)];
    let mut fields = Object::read(value, at)?;
    let name = match fields.required("type", word(KINDS))? {
        TextPartKind::Text => "text",
        TextPartKind::Refusal => "refusal",
    };
    Ok(ContentPart::Text(fields.required(name, string)?))
}

fn image_url(value: Value, at: At<'_>) -> Result<ContentPart, Fault> {
    const DETAILS: &[(&str, ImageDetail)] =
        &[("auto", ImageDetail::Auto), ("low", ImageDetail::Low), ("high", ImageDetail::High)];
    let mut fields = Object::read(value, at)?;
    let url = fields.required("url", |value, at| {
        let url = filled(value, at)?;
        data_url::check_image_url(&url, at).map(|()| url)
    })?;
    let detail = fields.optional("detail", word(DETAILS))?.unwrap_or_default();
    Ok(ContentPart::ImageUrl { url, detail })
}

fn audio_url(value: Value, at: At<'_>) -> Result<ContentPart, Fault> {
    let mut fields = Object::read(value, at)?;
    fields.required("url", |value, at| {
        let url = filled(value, at)?;
        data_url::check_audio_url(&url, at).map(|()| ContentPart::AudioUrl(url))
    })
}

fn input_audio(
    value: Value,
    at: At<'_>,
    beside: Option<AudioFormat>,
) -> Result<ContentPart, Fault> {
    let mut fields = Object::read(value, at)?;
    let data = fields.required("data", filled)?;
    let format = fields.optional("format", audio_format)?.or(beside);
    let format = format.ok_or_else(|| at.missing("format"))?;
    Ok(ContentPart::InputAudio { data, format })
}

fn audio_format(value: Value, at: At<'_>) -> Result<AudioFormat, Fault> {
    word(&[("wav", AudioFormat::Wav), ("mp3", AudioFormat::Mp3)])(value, at)
}
