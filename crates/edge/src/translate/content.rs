//! What a model is asked, as OpenTelemetry's conventions write it on spans: `gen_ai.input.messages`.
//!
//! Separate because it is called only where `telemetry.trace_content` is set. Long texts are cut, and what is no text is named
//! and left out.

use crate::events::{LONGEST_CONTENT, Operation};
use api_types::rpc::{chat, embedding};
use serde_json::{Value, json};

/// A request to a model: what it asks for, and what it says.
pub trait Asked {
    /// What is asked for.
    const OPERATION: Operation;

    /// What is said.
    fn content(&self) -> String;

    /// How the answer is to be sampled; none where there is nothing to sample.
    fn sampling(&self) -> Option<&chat::Sampling> {
        None
    }
}

impl Asked for chat::GenerateRequest {
    const OPERATION: Operation = Operation::Chat;

    fn content(&self) -> String {
        conversation(self)
    }

    fn sampling(&self) -> Option<&chat::Sampling> {
        self.sampling.as_ref()
    }
}

impl Asked for chat::CompleteRequest {
    const OPERATION: Operation = Operation::TextCompletion;

    fn content(&self) -> String {
        prompts(self)
    }

    fn sampling(&self) -> Option<&chat::Sampling> {
        self.sampling.as_ref()
    }
}

impl Asked for embedding::EmbedRequest {
    const OPERATION: Operation = Operation::Embeddings;

    fn content(&self) -> String {
        inputs(self)
    }
}

/// The messages of a conversation.
fn conversation(request: &chat::GenerateRequest) -> String {
    let messages = request.messages.iter().map(|message| {
        let role = match message.role() {
            chat::Role::Unspecified | chat::Role::User => "user",
            chat::Role::System | chat::Role::Developer => "system",
            chat::Role::Assistant => "assistant",
            chat::Role::Tool => "tool",
        };
        let parts = message.content.iter().filter_map(|part| part.part.as_ref().map(content_part));
        let calls = message.tool_calls.iter().map(|call| {
            json!({"type": "tool_call", "id": call.id, "name": call.name, "arguments": cut(&call.arguments)})
        });
        json!({"role": role, "parts": parts.chain(calls).collect::<Vec<_>>()})
    });
    Value::Array(messages.collect()).to_string()
}

/// Prompts to continue, each as a message of a user.
fn prompts(request: &chat::CompleteRequest) -> String {
    let texts = request.prompts.iter().map(|prompt| match &prompt.prompt {
        Some(chat::prompt::Prompt::Text(text)) => Some(text.as_str()),
        Some(chat::prompt::Prompt::Tokens(_)) | None => None,
    });
    users(texts)
}

/// Inputs to embed, each as a message of a user.
fn inputs(request: &embedding::EmbedRequest) -> String {
    match &request.input {
        Some(embedding::embed_request::Input::Texts(texts)) => {
            users(texts.items.iter().map(|item| match &item.input {
                Some(embedding::text_input::Input::Text(text)) => Some(text.as_str()),
                Some(embedding::text_input::Input::Tokens(_)) | None => None,
            }))
        }
        Some(embedding::embed_request::Input::Images(images)) => {
            users(images.items.iter().map(|image| Some(image.text.as_str())))
        }
        None => users(std::iter::empty()),
    }
}

fn users<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> String {
    let message = |text: Option<&str>| {
        let part = json!({"type": "text", "content": cut(text.unwrap_or_default())});
        json!({"role": "user", "parts": [part]})
    };
    Value::Array(texts.map(message).collect()).to_string()
}

fn content_part(part: &chat::content_part::Part) -> Value {
    use chat::content_part::Part;
    match part {
        Part::Text(text) => json!({"type": "text", "content": cut(text)}),
        Part::ImageUrl(_) => json!({"type": "blob", "modality": "image"}),
        Part::InputAudio(_) | Part::AudioUrl(_) => json!({"type": "blob", "modality": "audio"}),
    }
}

/// The beginning of `text`, up to a whole character.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST_CONTENT)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_written_with_its_roles_and_long_texts_are_cut() {
        let text =
            |text: String| chat::ContentPart { part: Some(chat::content_part::Part::Text(text)) };
        let message = |role: chat::Role, content| chat::Message {
            role: role.into(),
            content: vec![text(content)],
            ..chat::Message::default()
        };
        let request = chat::GenerateRequest {
            messages: vec![
                message(chat::Role::System, "be brief".to_owned()),
                message(chat::Role::User, "é".repeat(LONGEST_CONTENT)),
            ],
            ..chat::GenerateRequest::default()
        };
        let written: Value = serde_json::from_str(&conversation(&request)).unwrap();
        assert_eq!(written[0]["role"], "system");
        assert_eq!(written[0]["parts"][0], json!({"type": "text", "content": "be brief"}));
        assert_eq!(written[1]["parts"][0]["content"].as_str().unwrap().len(), LONGEST_CONTENT);
    }
}
