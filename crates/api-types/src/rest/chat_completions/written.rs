//! The forms a conversation has on the wire, as types whose schemas are derived.
//!
//! Separate from what is read of them: the readers in `message` and `tool` fold these unions into plain values, and a schema
//! derived from those would describe what nobody sends. Nothing of this is ever built. The trap: a form that is added to a
//! reader is added here, or `agreement` fails.
#![expect(dead_code, reason = "described, never built")]

use super::message::{AudioFormat, ImageDetail};
use super::tool::{FunctionKind, MOST_TOOLS};
use crate::rest::Fields;
use crate::rest::schema::{AUDIO_URL, IMAGE_URL, NAME};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::json;

/// One message. Unknown properties are ignored.
#[derive(JsonSchema)]
#[schemars(rename = "ChatMessage", tag = "role", rename_all = "lowercase")]
pub(super) enum WrittenMessage {
    /// Instructions.
    System {
        /// What it says.
        content: Text,
        /// The author's name.
        name: Option<String>,
    },
    /// Instructions, by their newer name.
    Developer {
        /// What it says.
        content: Text,
        /// The author's name.
        name: Option<String>,
    },
    /// What the user says.
    User {
        /// What it says.
        content: Content,
        /// The author's name.
        name: Option<String>,
    },
    /// What the model said.
    Assistant {
        /// What it said, if anything.
        content: Option<TextOrNothing>,
        /// The author's name.
        name: Option<String>,
        /// The calls it made.
        tool_calls: Option<Vec<WrittenCall>>,
        /// The one call it made, by its old name.
        function_call: Option<CalledFunction>,
    },
    /// The result of a call.
    Tool {
        /// The call it answers.
        tool_call_id: String,
        /// The result.
        content: Option<TextOrNothing>,
        /// The author's name.
        name: Option<String>,
    },
}

/// The result of a call, by OpenAI's old role.
#[derive(JsonSchema)]
#[schemars(tag = "role", rename_all = "lowercase")]
pub(super) enum FunctionMessage {
    /// The result of a call, by OpenAI's old role.
    Function {
        /// The function it is of.
        name: String,
        /// The result.
        content: Option<TextOrNothing>,
    },
}

/// One message, of OpenAI's old roles too.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum MessageOfAnyRole {
    /// Of a role of today.
    Today(WrittenMessage),
    /// Of an old role.
    Old(FunctionMessage),
}

/// Text, whole or in parts.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Text {
    /// Whole.
    Whole(String),
    /// In parts.
    Parts(#[schemars(length(min = 1))] Vec<TextPart>),
}

/// Text, whole or in parts, of which there may be none.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum TextOrNothing {
    /// Whole.
    Whole(String),
    /// In parts.
    Parts(Vec<TextPart>),
}

/// A part that is text.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase")]
pub(super) enum TextPart {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// Why the model would not answer.
    Refusal {
        /// The text.
        refusal: String,
    },
}

/// Text, or parts of any kind.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Content {
    /// Text.
    Text(String),
    /// Parts.
    Parts(#[schemars(length(min = 1))] Vec<WrittenPart>),
}

/// A part of what a user says.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "ContentPart")]
pub(super) enum WrittenPart {
    /// As the API has it.
    Tagged(TaggedPart),
    /// Sound whose format stands beside it.
    FormatBeside(FormatBeside),
}

/// A part by its type.
#[derive(JsonSchema)]
#[schemars(inline, tag = "type", rename_all = "snake_case")]
pub(super) enum TaggedPart {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
    },
    /// A sound.
    InputAudio {
        /// The file.
        input_audio: InputAudio,
        /// Where some clients repeat the format.
        format: Option<AudioFormat>,
    },
    /// A sound elsewhere.
    AudioUrl {
        /// Where it is.
        audio_url: AudioUrl,
    },
}

/// A sound whose format stands beside it.
#[derive(JsonSchema)]
#[schemars(inline, tag = "type", rename_all = "snake_case")]
pub(super) enum FormatBeside {
    /// A sound.
    InputAudio {
        /// The file.
        input_audio: InputAudioData,
        /// Of the decoded file.
        format: AudioFormat,
    },
}

/// Where an image is.
#[derive(JsonSchema)]
pub(super) struct ImageUrl {
    /// An http or https URL, or `data:image/<format>;base64,<data>`.
    #[schemars(regex(pattern = IMAGE_URL))]
    url: String,
    /// How closely to look; none is auto.
    detail: Option<ImageDetail>,
}

/// Where a sound is.
#[derive(JsonSchema)]
pub(super) struct AudioUrl {
    /// An http or https URL, or `data:audio/<format>;base64,<data>`.
    #[schemars(regex(pattern = AUDIO_URL))]
    url: String,
}

/// A sound.
#[derive(JsonSchema)]
pub(super) struct InputAudio {
    /// Base64.
    #[schemars(length(min = 1))]
    data: String,
    /// Of the decoded file.
    format: AudioFormat,
}

/// A sound without its format.
#[derive(JsonSchema)]
pub(super) struct InputAudioData {
    /// Base64.
    #[schemars(length(min = 1))]
    data: String,
    /// Of the decoded file.
    format: Option<AudioFormat>,
}

/// A call the model made.
#[derive(JsonSchema)]
#[schemars(rename = "AssistantToolCall")]
pub(super) struct WrittenCall {
    /// Identifies the call in the conversation.
    id: String,
    /// None is `function`.
    #[schemars(rename = "type")]
    kind: Option<FunctionKind>,
    /// What was called.
    function: CalledFunction,
}

/// What was called.
#[derive(JsonSchema)]
pub(super) struct CalledFunction {
    /// The function.
    name: String,
    /// JSON as text, or already parsed.
    arguments: Option<Arguments>,
}

/// Arguments of a call.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum Arguments {
    /// JSON as text; need not be valid.
    Text(String),
    /// Already parsed.
    Parsed(Fields),
}

/// A function the model may call.
#[derive(JsonSchema)]
#[schemars(rename = "Tool")]
pub(super) struct WrittenTool {
    /// What kind of tool.
    #[schemars(rename = "type")]
    kind: FunctionKind,
    /// The function.
    function: FunctionDefinition,
}

/// A function.
#[derive(JsonSchema)]
pub(super) struct FunctionDefinition {
    /// Letters, digits, `_` and `-`, at most 64.
    #[schemars(regex(pattern = NAME))]
    name: String,
    /// What it does.
    description: Option<String>,
    /// JSON Schema of its arguments; none means no parameters.
    parameters: Option<Fields>,
    /// Whether arguments must fit the schema exactly.
    strict: Option<bool>,
}

/// Whether a tool must be called.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "ToolChoice")]
pub(super) enum WrittenChoice {
    /// `auto`, `none`, `required`, or the name of a tool.
    Word(String),
    /// A function by name.
    Function(NamedTool),
}

/// A tool by name.
#[derive(JsonSchema)]
pub(super) struct NamedTool {
    /// None is `function`.
    #[schemars(rename = "type")]
    kind: Option<FunctionKind>,
    /// The function.
    function: FunctionName,
}

/// A function by name.
#[derive(JsonSchema)]
pub(super) struct FunctionName {
    /// One of `tools`.
    name: String,
}

/// What the answer must look like.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseFormat", tag = "type", rename_all = "snake_case")]
pub(super) enum WrittenFormat {
    /// Anything.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// The schema.
        json_schema: JsonSchemaFormat,
    },
}

/// A schema for the answer.
#[derive(JsonSchema)]
pub(super) struct JsonSchemaFormat {
    /// Letters, digits, `_` and `-`, at most 64.
    #[schemars(regex(pattern = NAME))]
    name: String,
    /// What it is for.
    description: Option<String>,
    /// JSON Schema.
    schema: Fields,
    /// Whether every property must be there and no other.
    strict: Option<bool>,
}

/// Tools by their old names.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct Functions {
    /// `tools`, by its old name.
    #[schemars(length(min = 1, max = MOST_TOOLS))]
    functions: Option<Vec<FunctionDefinition>>,
    /// `tool_choice`, by its old name.
    function_call: Option<FunctionChoice>,
}

/// Whether a function must be called.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum FunctionChoice {
    /// `auto`, `none`, or the name of a function.
    Word(String),
    /// A function by name.
    Function(FunctionName),
}

impl Functions {
    /// Adds the old names to those of a request, which has no fields for them.
    pub(super) fn describe(properties: &mut Fields, generator: &mut SchemaGenerator) {
        let mut schema = Self::json_schema(generator);
        for name in ["functions", "function_call"] {
            let own = schema.pointer_mut(&format!("/properties/{name}")).map(std::mem::take);
            properties.insert(name.to_owned(), own.unwrap_or_else(|| json!({})));
        }
    }
}
