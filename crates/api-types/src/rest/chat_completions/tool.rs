//! Tools, the choice between them, calls of them, and the shape of an answer (sections 8.4 and 8.5).

use super::super::json::{At, Object, any_object, boolean, list, shorten, string, word};
use crate::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tools one request may offer.
pub(super) const MOST_TOOLS: usize = 128;
/// Characters of a function's or schema's name.
const LONGEST_NAME: usize = 64;

/// A function the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments, an object; none means no parameters.
    pub parameters: Option<Value>,
    /// Whether arguments must fit the schema exactly.
    pub strict: bool,
}

/// Whether a tool must be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No calls.
    None,
    /// At least one call.
    Required,
    /// A call of this function.
    Named(String),
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Anything.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// Letters, digits, `_` and `-`, at most 64.
        name: String,
        /// What it is for.
        description: Option<String>,
        /// JSON Schema, an object.
        schema: Value,
        /// Whether every property must be there and no other.
        strict: bool,
    },
}

impl ResponseFormat {
    /// The `type` on the wire, which a 422 names as the offending input.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::JsonObject => "json_object",
            Self::JsonSchema { .. } => "json_schema",
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// Identifies the call in the conversation.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default)]
    pub kind: FunctionKind,
    /// What is called.
    pub function: FunctionCall,
}

/// What is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// JSON as text, as the model wrote it; need not be valid.
    pub arguments: String,
}

/// The `type` of a tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FunctionKind {
    /// `function`
    #[default]
    #[serde(rename = "function")]
    Function,
}

/// A step of a streamed call. `id`, `type` and `function.name` come with the first step of a call only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Which call of the choice, from 0; never left out, or LangChain loses the call.
    pub index: u32,
    /// First step only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// First step only.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FunctionKind>,
    /// In every step: .NET wants it.
    pub function: FunctionCallDelta,
}

/// A step of what is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionCallDelta {
    /// First step only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The next piece of the JSON text.
    #[serde(default)]
    pub arguments: String,
}

const FUNCTION: &[(&str, FunctionKind)] = &[("function", FunctionKind::Function)];

/// `tools`: 1 to 128.
pub(super) fn tools(value: Value, at: At<'_>) -> Result<Vec<Tool>, Fault> {
    list(1..=MOST_TOOLS, |value, at| {
        let mut fields = Object::read(value, at)?;
        fields.required("type", word(FUNCTION))?;
        fields.required("function", function)
    })(value, at)
}

/// `functions`, the old name of tools.
pub(super) fn functions(value: Value, at: At<'_>) -> Result<Vec<Tool>, Fault> {
    list(1..=MOST_TOOLS, function)(value, at)
}

fn function(value: Value, at: At<'_>) -> Result<Tool, Fault> {
    let mut fields = Object::read(value, at)?;
    Ok(Tool {
        name: fields.required("name", name)?,
        description: fields.optional("description", string)?,
        parameters: fields.optional("parameters", any_object)?,
        strict: fields.optional("strict", boolean)?.unwrap_or_default(),
    })
}

/// A name of letters, digits, `_` and `-`, at most 64.
fn name(value: Value, at: At<'_>) -> Result<String, Fault> {
    let name = string(value, at)?;
    let fits = (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        return Ok(name);
    }
    let rule = "must have 1 to 64 characters, each a letter, a digit, `_` or `-`";
    Err(at.fault(format_args!("{rule}; found `{}`", shorten(&name))))
}

/// `tool_choice`: a word, `{"type":"function","function":{"name"}}`, or a bare name, which LangChain sends.
pub(super) fn tool_choice(value: Value, at: At<'_>) -> Result<ToolChoice, Fault> {
    match value {
        Value::String(word) => Ok(match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" | "any" => ToolChoice::Required,
            _ => ToolChoice::Named(word),
        }),
        object @ Value::Object(_) => {
            let mut fields = Object::read(object, at)?;
            fields.optional("type", word(FUNCTION))?;
            fields.required("function", named).map(ToolChoice::Named)
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            Err(at
                .expected("`auto`, `none`, `required` or an object that names a function", &other))
        }
    }
}

/// `function_call`, the old name of `tool_choice`.
pub(super) fn function_call(value: Value, at: At<'_>) -> Result<ToolChoice, Fault> {
    if value.is_string() {
        return tool_choice(value, at);
    }
    named(value, at).map(ToolChoice::Named)
}

fn named(value: Value, at: At<'_>) -> Result<String, Fault> {
    Object::read(value, at)?.required("name", string)
}

/// Checks a choice against the tools there are. Without tools, `auto` and `none` say nothing.
pub(super) fn settle_choice(
    choice: Option<ToolChoice>,
    tools: &[Tool],
) -> Result<Option<ToolChoice>, Fault> {
    match choice {
        None => Ok(None),
        Some(ToolChoice::Auto | ToolChoice::None) if tools.is_empty() => Ok(None),
        Some(ToolChoice::Required) if tools.is_empty() => Err(Fault::invalid(
            "tool_choice",
            "`tool_choice` is `required`, but there are no `tools`",
        )),
        Some(ToolChoice::Named(name)) if !tools.iter().any(|tool| tool.name == name) => {
            let known = super::super::json::listed(tools.iter().map(|tool| tool.name.as_str()));
            let known = if known.is_empty() { "there are no `tools`".to_owned() } else { known };
            let name = shorten(&name);
            Err(Fault::invalid(
                "tool_choice",
                format!(
                    "`tool_choice` names `{name}`; expected `auto`, `none`, `required` or a tool: {known}"
                ),
            ))
        }
        some @ Some(
            ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Named(_),
        ) => Ok(some),
    }
}

/// One element of an assistant's `tool_calls`; the SDKs leave out `type`.
pub(super) fn call(value: Value, at: At<'_>) -> Result<ToolCall, Fault> {
    let mut fields = Object::read(value, at)?;
    Ok(ToolCall {
        kind: fields.optional("type", word(FUNCTION))?.unwrap_or_default(),
        id: fields.required("id", string)?,
        function: fields.required("function", called_function)?,
    })
}

/// The function of a call. Arguments that somebody already parsed are written back as text.
pub(super) fn called_function(value: Value, at: At<'_>) -> Result<FunctionCall, Fault> {
    let mut fields = Object::read(value, at)?;
    let name = fields.required("name", string)?;
    let arguments = fields.optional("arguments", |value, at| match value {
        Value::String(text) => Ok(text),
        parsed @ Value::Object(_) => Ok(parsed.to_string()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            Err(at.expected("a string of JSON", &other))
        }
    })?;
    Ok(FunctionCall { name, arguments: arguments.unwrap_or_default() })
}

#[derive(Debug, Clone, Copy)]
enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
}

/// `response_format`.
pub(super) fn response_format(value: Value, at: At<'_>) -> Result<ResponseFormat, Fault> {
    const KINDS: &[(&str, FormatKind)] = &[
        ("text", FormatKind::Text),
        ("json_object", FormatKind::JsonObject),
        ("json_schema", FormatKind::JsonSchema),
    ];
    let mut fields = Object::read(value, at)?;
    match fields.required("type", word(KINDS))? {
        FormatKind::Text => Ok(ResponseFormat::Text),
        FormatKind::JsonObject => Ok(ResponseFormat::JsonObject),
        FormatKind::JsonSchema => fields.required("json_schema", json_schema),
    }
}

fn json_schema(value: Value, at: At<'_>) -> Result<ResponseFormat, Fault> {
    let mut fields = Object::read(value, at)?;
    Ok(ResponseFormat::JsonSchema {
        name: fields.required("name", name)?,
        description: fields.optional("description", string)?,
        schema: fields.required("schema", any_object)?,
        strict: fields.optional("strict", boolean)?.unwrap_or_default(),
    })
}
