//! The gRPC door: wire messages → requests → pieces → wire messages.
//!
//! The only file that names rpc types. Messages are taken apart field by field, so that a new one breaks the build until
//! somebody decides. Each answer begins with `started` and ends with `usage`, and its stream writes the event of the request
//! when it ends, whatever ended it.

mod read;

use crate::backend::{
    FinishReason, ModelInfo, ParameterLimit, Piece, PieceStream, TokenLogprob, Usage,
};
use crate::backends::Backends;
use crate::error::ChatError;
use crate::events::{Method, RequestEvent};
use api_types::Fault;
use api_types::rpc::{self, chat as wire};
use chassis::Tasks;
use chassis::grpc::Served;
use futures::{Stream, StreamExt as _};
use read::{read_complete, read_generate};
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
