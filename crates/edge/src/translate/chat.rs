//! `/chat/completions` → gRPC, and gRPC events → pieces.
//!
//! The way back from pieces to the API is in `chat_reply`.

use crate::pieces::{Call, Piece, Text};
use crate::translate::usage_from_rpc;
use api_types::rest::chat_completions::{
    AudioFormat, ChatMessage, ChatRole, ContentPart, FinishReason, FunctionCall, ResponseFormat,
    TokenLogprob, Tool, ToolCall, ToolChoice, TopLogprob,
};
use api_types::rest::sampling::Sampling;
use api_types::rest::{ChatCompletionsRequest, Fields};
use api_types::rpc::chat;

/// The request for the model called `model`, with the extra parameters it takes.
#[must_use]
pub fn to_rpc(
    request: ChatCompletionsRequest,
    model: &str,
    extra_json: String,
) -> chat::GenerateRequest {
    let ChatCompletionsRequest {
        messages,
        // Chosen by the deployment table.
        model: _,
        sampling,
        // Every call streams; the edge collects.
        stream: _,
        stream_options: _,
        response_format,
        tools,
        tool_choice,
        parallel_tool_calls,
        // Concerns the answer alone.
        legacy_functions: _,
        // Sound was refused by the check.
        modalities: _,
        // For the caller's own audit.
        user_security_context: _,
        logprobs,
        top_logprobs,
        user: _,
        // Sorted into `extra_json` by the check.
        others,
    } = request;
    debug_assert!(others == Fields::new(), "the check takes what is left over");
    chat::GenerateRequest {
        model: model.to_owned(),
        messages: messages.into_iter().map(message).collect(),
        sampling: Some(sampling_to_rpc(sampling, logprobs.then(|| top_logprobs.unwrap_or(0)))),
        response_format: response_format.map(format_to_rpc),
        tools: tools.into_iter().map(tool).collect(),
        tool_choice: tool_choice.map(choice_to_rpc),
        parallel_tool_calls,
        extra_json,
    }
}

/// How to sample; `top_logprobs` is none where no log probabilities were asked for.
#[must_use]
pub fn sampling_to_rpc(sampling: Sampling, top_logprobs: Option<u32>) -> chat::Sampling {
    let Sampling {
        temperature,
        top_p,
        frequency_penalty,
        presence_penalty,
        max_tokens,
        stop,
        seed,
        n,
        logit_bias,
    } = sampling;
    chat::Sampling {
        temperature,
        top_p,
        frequency_penalty,
        presence_penalty,
        max_tokens,
        stop,
        seed,
        n,
        top_logprobs,
        logit_bias: logit_bias.into_iter().collect(),
    }
}

fn message(message: ChatMessage) -> chat::Message {
    let ChatMessage { role, content, name, tool_calls, tool_call_id } = message;
    let role = match role {
        ChatRole::System => chat::Role::System,
        ChatRole::Developer => chat::Role::Developer,
        ChatRole::User => chat::Role::User,
        ChatRole::Assistant => chat::Role::Assistant,
        ChatRole::Tool => chat::Role::Tool,
    };
    chat::Message {
        role: role.into(),
        content: content.into_iter().map(part).collect(),
        name: name.unwrap_or_default(),
        tool_calls: tool_calls.into_iter().map(call).collect(),
        tool_call_id: tool_call_id.unwrap_or_default(),
    }
}

fn part(part: ContentPart) -> chat::ContentPart {
    use chat::content_part::Part;
    let part = match part {
        ContentPart::Text(text) => Part::Text(text),
        ContentPart::ImageUrl { url, detail } => {
            Part::ImageUrl(chat::ImageUrl { url, detail: detail.as_str().to_owned() })
        }
        ContentPart::InputAudio { data, format } => {
            let format = match format {
                AudioFormat::Wav | AudioFormat::Mp3 => format.as_str().to_owned(),
            };
            Part::InputAudio(chat::InputAudio { data, format })
        }
        ContentPart::AudioUrl(url) => Part::AudioUrl(url),
    };
    chat::ContentPart { part: Some(part) }
}

fn call(call: ToolCall) -> chat::ToolCall {
    let ToolCall { id, kind: _, function: FunctionCall { name, arguments } } = call;
    chat::ToolCall { id, name, arguments }
}

fn tool(tool: Tool) -> chat::Tool {
    let Tool { name, description, parameters, strict } = tool;
    chat::Tool {
        name,
        description: description.unwrap_or_default(),
        parameters_json: parameters.map(|p| p.to_string()).unwrap_or_default(),
        strict,
    }
}

fn choice_to_rpc(choice: ToolChoice) -> chat::ToolChoice {
    let (mode, function) = match choice {
        ToolChoice::Auto => (chat::ToolChoiceMode::Auto, String::new()),
        ToolChoice::None => (chat::ToolChoiceMode::None, String::new()),
        ToolChoice::Required => (chat::ToolChoiceMode::Required, String::new()),
        ToolChoice::Named(name) => (chat::ToolChoiceMode::Named, name),
    };
    chat::ToolChoice { mode: mode.into(), function }
}

fn format_to_rpc(format: ResponseFormat) -> chat::ResponseFormat {
    match format {
        ResponseFormat::Text => format_of(chat::ResponseFormatKind::Text),
        ResponseFormat::JsonObject => format_of(chat::ResponseFormatKind::JsonObject),
        // The description says to a reader what the schema says to the engine.
        ResponseFormat::JsonSchema { name, description: _, schema, strict } => {
            chat::ResponseFormat {
                name,
                schema_json: schema.to_string(),
                strict,
                ..format_of(chat::ResponseFormatKind::JsonSchema)
            }
        }
    }
}

fn format_of(kind: chat::ResponseFormatKind) -> chat::ResponseFormat {
    chat::ResponseFormat {
        kind: kind.into(),
        name: String::new(),
        schema_json: String::new(),
        strict: false,
    }
}

/// An event as a piece; none for an event of a kind that this edge does not know.
#[must_use]
pub fn from_rpc(response: chat::GenerateResponse) -> Option<Piece> {
    use chat::generate_response::Event;
    Some(match response.event? {
        Event::Started(chat::Started { model }) => Piece::Started(model),
        Event::Text(delta) => Piece::Text(text_from_rpc(delta)),
        Event::Reasoning(chat::TextDelta { choice, text, logprobs: _ }) => {
            Piece::Reasoning { choice, text }
        }
        Event::ToolCall(chat::ToolCallDelta { choice, index, id, name, arguments }) => {
            Piece::ToolCall(Call { choice, index, id, name, arguments })
        }
        Event::Finished(finished) => finished_from_rpc(finished),
        Event::Usage(usage) => Piece::Usage(usage_from_rpc(usage)),
    })
}

/// More of an answer.
#[must_use]
pub fn text_from_rpc(delta: chat::TextDelta) -> Text {
    let chat::TextDelta { choice, text, logprobs } = delta;
    Text { choice, text, logprobs: logprobs.into_iter().map(logprob).collect() }
}

/// The end of one choice; a reason that this edge does not know is a stop.
#[must_use]
pub fn finished_from_rpc(finished: chat::Finished) -> Piece {
    let reason = match finished.reason() {
        chat::FinishReason::Unspecified | chat::FinishReason::Stop => FinishReason::Stop,
        chat::FinishReason::Length => FinishReason::Length,
        chat::FinishReason::ToolCalls => FinishReason::ToolCalls,
        chat::FinishReason::ContentFilter => FinishReason::ContentFilter,
    };
    Piece::Finished { choice: finished.choice, reason }
}

fn logprob(token: chat::TokenLogprob) -> TokenLogprob {
    let chat::TokenLogprob { token, logprob, raw, alternatives } = token;
    let top_logprobs = alternatives.into_iter().map(|other| {
        let chat::token_logprob::Alternative { token, logprob, raw } = other;
        TopLogprob { token, logprob, bytes: Some(raw) }
    });
    TokenLogprob { token, logprob, bytes: Some(raw), top_logprobs: top_logprobs.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::rest::Vocabulary;
    use serde_json::json;

    fn translated(body: &serde_json::Value) -> chat::GenerateRequest {
        let parsed =
            ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
        to_rpc(parsed.request, "m", String::new())
    }

    #[test]
    fn a_conversation_keeps_its_roles_parts_and_calls() {
        let rpc = translated(&json!({"messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}}]},
            {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "42", "name": null}]}));
        let roles: Vec<_> = rpc.messages.iter().map(chat::Message::role).collect();
        assert_eq!(
            roles,
            [chat::Role::System, chat::Role::User, chat::Role::Assistant, chat::Role::Tool]
        );
        let image = rpc.messages[1].content[1].part.clone().unwrap();
        let expected =
            chat::ImageUrl { url: "data:image/png;base64,aGk=".into(), detail: "low".into() };
        assert_eq!(image, chat::content_part::Part::ImageUrl(expected));
        assert_eq!(rpc.messages[2].tool_calls[0].name, "f");
        assert!(rpc.messages[2].content.is_empty());
        assert_eq!(rpc.messages[3].tool_call_id, "c1");
    }

    #[test]
    fn absent_sampling_stays_absent() {
        let rpc = translated(&json!({"messages": [{"role": "user", "content": "hi"}]}));
        assert_eq!(rpc.sampling.unwrap(), chat::Sampling::default());
        assert!(rpc.response_format.is_none() && rpc.tool_choice.is_none());
        let rpc = translated(
            &json!({"messages": [{"role": "user", "content": "hi"}], "logprobs": true, "n": 2,
            "temperature": 0, "stop": "x", "logit_bias": {"5": -100}}),
        );
        let sampling = rpc.sampling.unwrap();
        assert_eq!(
            (sampling.top_logprobs, sampling.n, sampling.temperature),
            (Some(0), Some(2), Some(0.0))
        );
        assert_eq!((sampling.stop, sampling.logit_bias[&5]), (vec!["x".to_owned()], -100.0));
    }

    #[test]
    fn tools_and_formats_travel_as_json_text() {
        let rpc = translated(&json!({"messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": 1}, "strict": true}}}));
        assert_eq!(rpc.tools[0].parameters_json, r#"{"type":"object"}"#);
        let choice = rpc.tool_choice.unwrap();
        assert_eq!((choice.mode(), choice.function.as_str()), (chat::ToolChoiceMode::Named, "f"));
        let format = rpc.response_format.unwrap();
        assert_eq!((format.kind(), format.strict), (chat::ResponseFormatKind::JsonSchema, true));
        assert_eq!(format.schema_json, r#"{"a":1}"#);
    }

    #[test]
    fn an_unknown_event_is_skipped() {
        assert_eq!(from_rpc(chat::GenerateResponse { event: None }), None);
    }
}
