//! Wire messages → requests, field by field: a new one breaks the build until somebody decides.
//!
//! The half of the door that may refuse; each error names the field.

use crate::backend::{
    CompleteRequest, GenerateRequest, Message, Part, Prompt, ResponseFormat, Role, Sampling, Tool,
    ToolCall, ToolChoice,
};
use crate::error::ChatError;
use api_types::rpc::chat as wire;
use serde_json::{Map, Value};

pub(super) fn read_generate(request: wire::GenerateRequest) -> Result<GenerateRequest, ChatError> {
    let wire::GenerateRequest {
        model,
        messages,
        sampling,
        response_format,
        tools,
        tool_choice,
        parallel_tool_calls,
        extra_json,
    } = request;
    if messages.is_empty() {
        return Err(ChatError::invalid("messages", "`messages` must hold at least one message"));
    }
    let messages = messages.into_iter().enumerate().map(|(i, m)| read_message(i, m));
    let tools = tools.into_iter().enumerate().map(|(i, t)| read_tool(i, t));
    Ok(GenerateRequest {
        model,
        messages: messages.collect::<Result<_, _>>()?,
        sampling: read_sampling(sampling.unwrap_or_default()),
        response_format: response_format.map_or(Ok(ResponseFormat::Text), read_format)?,
        tools: tools.collect::<Result<_, _>>()?,
        tool_choice: tool_choice.map_or(Ok(ToolChoice::Auto), read_choice)?,
        parallel_tool_calls: parallel_tool_calls.unwrap_or(true),
        extra: read_extra(&extra_json)?,
    })
}

pub(super) fn read_complete(request: wire::CompleteRequest) -> Result<CompleteRequest, ChatError> {
    let wire::CompleteRequest { model, prompts, sampling, suffix, echo, best_of, extra_json } =
        request;
    let prompts = prompts.into_iter().map(|wire::Prompt { prompt }| match prompt {
        Some(wire::prompt::Prompt::Text(text)) => Ok(Prompt::Text(text)),
        Some(wire::prompt::Prompt::Tokens(wire::TokenIds { ids })) => Ok(Prompt::Tokens(ids)),
        None => Err(ChatError::invalid("prompt", "a prompt must be text or tokens")),
    });
    Ok(CompleteRequest {
        model,
        prompts: prompts.collect::<Result<_, _>>()?,
        sampling: read_sampling(sampling.unwrap_or_default()),
        suffix: filled(suffix),
        echo,
        best_of,
        extra: read_extra(&extra_json)?,
    })
}

fn read_sampling(sampling: wire::Sampling) -> Sampling {
    let wire::Sampling {
        temperature,
        top_p,
        frequency_penalty,
        presence_penalty,
        max_tokens,
        stop,
        seed,
        n,
        top_logprobs,
        logit_bias,
    } = sampling;
    Sampling {
        temperature,
        top_p,
        frequency_penalty,
        presence_penalty,
        max_tokens,
        stop,
        seed,
        n: n.unwrap_or(1),
        top_logprobs,
        logit_bias,
    }
}

fn read_message(index: usize, message: wire::Message) -> Result<Message, ChatError> {
    let wire::Message { role, content, name, tool_calls, tool_call_id } = message;
    let role = match wire::Role::try_from(role) {
        Ok(wire::Role::System) => Role::System,
        Ok(wire::Role::Developer) => Role::Developer,
        Ok(wire::Role::User) => Role::User,
        Ok(wire::Role::Assistant) => Role::Assistant,
        Ok(wire::Role::Tool) => Role::Tool,
        Ok(wire::Role::Unspecified) | Err(_) => {
            return Err(ChatError::invalid(
                format!("messages.{index}.role"),
                "a message needs a role",
            ));
        }
    };
    let parts = content.into_iter().enumerate().map(|(i, part)| read_part(index, i, part));
    let calls = tool_calls.into_iter().map(|wire::ToolCall { id, name, arguments }| ToolCall {
        id,
        name,
        arguments,
    });
    Ok(Message {
        role,
        content: parts.collect::<Result<_, _>>()?,
        name: filled(name),
        tool_calls: calls.collect(),
        tool_call_id: filled(tool_call_id),
    })
}

fn read_part(message: usize, index: usize, part: wire::ContentPart) -> Result<Part, ChatError> {
    use wire::content_part::Part as Wire;
    match part.part {
        Some(Wire::Text(text)) => Ok(Part::Text(text)),
        Some(Wire::ImageUrl(wire::ImageUrl { url, detail })) => Ok(Part::ImageUrl { url, detail }),
        Some(Wire::InputAudio(wire::InputAudio { data, format })) => {
            Ok(Part::InputAudio { data, format })
        }
        Some(Wire::AudioUrl(url)) => Ok(Part::AudioUrl(url)),
        None => Err(ChatError::invalid(
            format!("messages.{message}.content.{index}"),
            "a part must not be empty",
        )),
    }
}

fn read_tool(index: usize, tool: wire::Tool) -> Result<Tool, ChatError> {
    let wire::Tool { name, description, parameters_json, strict } = tool;
    let target = format!("tools.{index}.function.parameters");
    let parameters = filled(parameters_json).map(|json| read_json(&target, &json)).transpose()?;
    Ok(Tool { name, description: filled(description), parameters, strict })
}

fn read_choice(choice: wire::ToolChoice) -> Result<ToolChoice, ChatError> {
    let wire::ToolChoice { mode, function } = choice;
    match wire::ToolChoiceMode::try_from(mode) {
        Ok(wire::ToolChoiceMode::Unspecified | wire::ToolChoiceMode::Auto) => Ok(ToolChoice::Auto),
        Ok(wire::ToolChoiceMode::None) => Ok(ToolChoice::None),
        Ok(wire::ToolChoiceMode::Required) => Ok(ToolChoice::Required),
        Ok(wire::ToolChoiceMode::Named) => Ok(ToolChoice::Named(function)),
        Err(_) => Err(ChatError::invalid(
            "tool_choice",
            "`tool_choice` must be auto, none, required or a function",
        )),
    }
}

fn read_format(format: wire::ResponseFormat) -> Result<ResponseFormat, ChatError> {
    let wire::ResponseFormat { kind, name, schema_json, strict } = format;
    match wire::ResponseFormatKind::try_from(kind) {
        Ok(wire::ResponseFormatKind::Unspecified | wire::ResponseFormatKind::Text) => {
            Ok(ResponseFormat::Text)
        }
        Ok(wire::ResponseFormatKind::JsonObject) => Ok(ResponseFormat::JsonObject),
        Ok(wire::ResponseFormatKind::JsonSchema) => {
            let schema = read_json("response_format.json_schema.schema", &schema_json)?;
            Ok(ResponseFormat::JsonSchema { name, schema, strict })
        }
        Err(_) => Err(ChatError::invalid(
            "response_format",
            "`response_format` must be text, json_object or json_schema",
        )),
    }
}

fn read_extra(json: &str) -> Result<Map<String, Value>, ChatError> {
    if json.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(json)
        .map_err(|_| ChatError::invalid("extra_json", "extra parameters must be a JSON object"))
}

fn read_json(target: &str, json: &str) -> Result<Value, ChatError> {
    serde_json::from_str(json)
        .map_err(|error| ChatError::invalid(target, format!("is not JSON: {error}")))
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
