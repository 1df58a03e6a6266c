//! The gRPC door: wire messages → requests → pieces → wire messages.
//!
//! The only file that names rpc types. Messages are taken apart field by field, so that a new one breaks the build until
//! somebody decides. Each answer begins with `started` and ends with `usage`, and its stream writes the event of the request
//! when it ends, whatever ended it.

use crate::backend::{
    CompleteRequest, FinishReason, GenerateRequest, Message, ModelInfo, ParameterLimit, Part,
    Piece, PieceStream, Prompt, ResponseFormat, Role, Sampling, TokenLogprob, Tool, ToolCall,
    ToolChoice, Usage,
};
use crate::backends::Backends;
use crate::error::ChatError;
use crate::events::{Method, RequestEvent};
use api_types::Fault;
use api_types::rpc::{self, chat as wire};
use chassis::Tasks;
use chassis::grpc::Served;
use futures::{Stream, StreamExt as _};
use serde_json::{Map, Value};
use std::pin::Pin;
use tokio::net::TcpListener;
use tonic::server::NamedService as _;
use tonic::{Request, Response, Status};
use wire::chat_service_server::{ChatService, ChatServiceServer};

type Server = ChatServiceServer<Door>;
type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug)]
struct Door {
    backends: Backends,
}

/// Serves `backends` until the tasks stop.
pub(crate) async fn serve(
    backends: Backends,
    door: chassis::grpc::Door,
    listener: TcpListener,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let server = Server::new(Door { backends })
        .max_decoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES);
    let routes = tonic::service::Routes::new(server);
    let served = Served { names: &[Server::NAME], descriptors: rpc::DESCRIPTORS, routes };
    chassis::grpc::serve(served, door, listener, tasks).await
}

#[tonic::async_trait]
impl ChatService for Door {
    type GenerateStream = Answer<wire::GenerateResponse>;
    type CompleteStream = Answer<wire::CompleteResponse>;

    async fn generate(
        &self,
        request: Request<wire::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = read_generate(request.into_inner()).map_err(status)?;
        let model = request.model.clone();
        let known = self.backends.serves(&model).then_some(model.as_str());
        let mut event = RequestEvent::begin(Method::Generate, known);
        let pieces = self.backends.generate(request).await;
        let pieces = pieces.inspect_err(|error| event.failed(error)).map_err(status)?;
        Ok(Response::new(answer(pieces, event, model, generate_event)))
    }

    async fn complete(
        &self,
        request: Request<wire::CompleteRequest>,
    ) -> Result<Response<Self::CompleteStream>, Status> {
        let request = read_complete(request.into_inner()).map_err(status)?;
        let model = request.model.clone();
        let known = self.backends.serves(&model).then_some(model.as_str());
        let mut event = RequestEvent::begin(Method::Complete, known);
        let pieces = self.backends.complete(request).await;
        let pieces = pieces.inspect_err(|error| event.failed(error)).map_err(status)?;
        Ok(Response::new(answer(pieces, event, model, complete_event)))
    }

    async fn list_models(
        &self,
        _request: Request<wire::ListModelsRequest>,
    ) -> Result<Response<wire::ListModelsResponse>, Status> {
        let models = self.backends.models().into_iter().map(write_model).collect();
        Ok(Response::new(wire::ListModelsResponse { models }))
    }
}

fn status(error: ChatError) -> Status {
    Fault::from(error).into_status()
}

/// `started`, then the pieces as `write` puts them; a piece that the method does not have is left out.
fn answer<T: Send + 'static>(
    pieces: PieceStream,
    mut event: RequestEvent,
    model: String,
    write: fn(WireEvent) -> Option<T>,
) -> Answer<T> {
    let started = write(WireEvent::Started(wire::Started { model }));
    let rest = pieces.filter_map(move |item| {
        event.observe(&item);
        let written = match item {
            Ok(piece) => write(write_piece(piece)).map(Ok),
            Err(error) => Some(Err(status(error))),
        };
        std::future::ready(written)
    });
    Box::pin(futures::stream::iter(started.map(Ok)).chain(rest))
}

/// An event of either method.
enum WireEvent {
    Started(wire::Started),
    Text(wire::TextDelta),
    Reasoning(wire::TextDelta),
    ToolCall(wire::ToolCallDelta),
    Finished(wire::Finished),
    Usage(wire::Usage),
}

#[expect(clippy::unnecessary_wraps, reason = "the other method leaves some events out")]
fn generate_event(event: WireEvent) -> Option<wire::GenerateResponse> {
    use wire::generate_response::Event;
    let event = match event {
        WireEvent::Started(started) => Event::Started(started),
        WireEvent::Text(text) => Event::Text(text),
        WireEvent::Reasoning(text) => Event::Reasoning(text),
        WireEvent::ToolCall(call) => Event::ToolCall(call),
        WireEvent::Finished(finished) => Event::Finished(finished),
        WireEvent::Usage(usage) => Event::Usage(usage),
    };
    Some(wire::GenerateResponse { event: Some(event) })
}

fn complete_event(event: WireEvent) -> Option<wire::CompleteResponse> {
    use wire::complete_response::Event;
    let event = match event {
        WireEvent::Started(started) => Event::Started(started),
        WireEvent::Text(text) => Event::Text(text),
        WireEvent::Reasoning(_) | WireEvent::ToolCall(_) => return None,
        WireEvent::Finished(finished) => Event::Finished(finished),
        WireEvent::Usage(usage) => Event::Usage(usage),
    };
    Some(wire::CompleteResponse { event: Some(event) })
}

fn write_piece(piece: Piece) -> WireEvent {
    match piece {
        Piece::Text { choice, text, logprobs } => {
            let logprobs = logprobs.into_iter().map(write_logprob).collect();
            WireEvent::Text(wire::TextDelta { choice, text, logprobs })
        }
        Piece::Reasoning { choice, text } => {
            WireEvent::Reasoning(wire::TextDelta { choice, text, logprobs: Vec::new() })
        }
        Piece::ToolCall { choice, index, id, name, arguments } => {
            WireEvent::ToolCall(wire::ToolCallDelta {
                choice,
                index,
                id: id.unwrap_or_default(),
                name: name.unwrap_or_default(),
                arguments,
            })
        }
        Piece::Finished { choice, reason } => {
            let reason = match reason {
                FinishReason::Stop => wire::FinishReason::Stop,
                FinishReason::Length => wire::FinishReason::Length,
                FinishReason::ToolCalls => wire::FinishReason::ToolCalls,
                FinishReason::ContentFilter => wire::FinishReason::ContentFilter,
            };
            WireEvent::Finished(wire::Finished { choice, reason: reason.into() })
        }
        Piece::Usage(Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            reasoning_tokens,
        }) => WireEvent::Usage(wire::Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            reasoning_tokens,
        }),
    }
}

fn write_logprob(logprob: TokenLogprob) -> wire::TokenLogprob {
    let TokenLogprob { token, logprob, bytes, alternatives } = logprob;
    let alternatives = alternatives
        .into_iter()
        .map(|(token, logprob, raw)| wire::token_logprob::Alternative { token, logprob, raw });
    wire::TokenLogprob { token, logprob, raw: bytes, alternatives: alternatives.collect() }
}

fn write_model(model: ModelInfo) -> wire::Model {
    let ModelInfo {
        name,
        publisher,
        version,
        context_tokens,
        chat,
        completions,
        tools,
        json_object,
        json_schema,
        images,
        audio,
        logprobs,
        extra_parameters,
        parameters,
        suffix,
    } = model;
    let limit = |(name, limit)| {
        let ParameterLimit { minimum, maximum, refused } = limit;
        wire::ParameterLimit { name, minimum, maximum, refused }
    };
    wire::Model {
        name,
        publisher,
        context_tokens,
        completions,
        tools,
        json_object,
        json_schema,
        images,
        audio,
        logprobs,
        extra_parameters,
        version,
        chat,
        parameter_limits: parameters.into_iter().map(limit).collect(),
        suffix,
    }
}

fn read_generate(request: wire::GenerateRequest) -> Result<GenerateRequest, ChatError> {
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

fn read_complete(request: wire::CompleteRequest) -> Result<CompleteRequest, ChatError> {
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
