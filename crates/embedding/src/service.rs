//! The gRPC door: wire messages → requests → vectors → wire messages.
//!
//! The only file that names rpc types. What a request may hold at all is checked here; what a model can do is checked behind
//! the seam.

use crate::embedder::{
    EmbedRequest, Embedded, Embedders, ImageInput, Inputs, ModelInfo, Purpose, TextInput,
};
use crate::error::EmbeddingError;
use crate::events::{self, Kind};
use api_types::Fault;
use api_types::rpc::{self, embedding as wire};
use chassis::Tasks;
use chassis::grpc::Served;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::server::NamedService as _;
use tonic::{Request, Response, Status};
use wire::embedding_service_server::{EmbeddingService, EmbeddingServiceServer};

/// The service over some embedders.
#[derive(Debug)]
struct Door {
    embedders: Embedders,
    /// Most inputs of one request.
    most_inputs: usize,
}

type Server = EmbeddingServiceServer<Door>;

/// Serves `embedders` until the tasks stop.
pub(crate) async fn serve(
    (embedders, most_inputs): (Embedders, usize),
    door: chassis::grpc::Door,
    listener: TcpListener,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let server = Server::new(Door { embedders, most_inputs })
        .max_decoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES);
    let routes = tonic::service::Routes::new(server);
    let served = Served { names: &[Server::NAME], descriptors: rpc::DESCRIPTORS, routes };
    chassis::grpc::serve(served, door, listener, tasks).await
}

#[tonic::async_trait]
impl EmbeddingService for Door {
    async fn embed(
        &self,
        request: Request<wire::EmbedRequest>,
    ) -> Result<Response<wire::EmbedResponse>, Status> {
        let read = self.read(request.into_inner()).inspect_err(events::refused);
        let request = read.map_err(|error| Fault::from(error).into_status())?;
        let kind = Kind::of(&request.inputs);
        // Answered under the name that the list shows, however the caller spelt it.
        let model = self.embedders.model(&request.model).map(|info| info.name.clone());
        let event = events::Request::begin(kind, model.as_deref().ok());
        let (outcome, queued) = onnx::waited(self.embedders.embed(request)).await;
        event.answered(&outcome);
        let named = model.and_then(|model| Ok(response(model, outcome?, queued)));
        named.map(Response::new).map_err(|error| Fault::from(error).into_status())
    }

    async fn list_models(
        &self,
        _request: Request<wire::ListModelsRequest>,
    ) -> Result<Response<wire::ListModelsResponse>, Status> {
        let models = self.embedders.models().cloned().map(model).collect();
        Ok(Response::new(wire::ListModelsResponse { models }))
    }
}

impl Door {
    fn read(&self, request: wire::EmbedRequest) -> Result<EmbedRequest, EmbeddingError> {
        let wire::EmbedRequest { model, dimensions, input_type, extra_json, input } = request;
        let inputs = match input {
            Some(wire::embed_request::Input::Texts(texts)) => Inputs::Texts(read_texts(texts)?),
            Some(wire::embed_request::Input::Images(images)) => Inputs::Images(read_images(images)),
            None => return Err(EmbeddingError::invalid("input", "`input` is required")),
        };
        if inputs.is_empty() {
            return Err(EmbeddingError::invalid("input", "`input` must have at least one item"));
        }
        if inputs.len() > self.most_inputs {
            let message =
                format!("`input` has {} items; the limit is {}", inputs.len(), self.most_inputs);
            return Err(EmbeddingError::invalid("input", message));
        }
        let purpose = wire::InputType::try_from(input_type).map(purpose).map_err(|_| {
            EmbeddingError::invalid(
                "input_type",
                "`input_type` must be `text`, `query` or `document`",
            )
        })?;
        let extra = if extra_json.is_empty() {
            serde_json::Map::new()
        } else {
            serde_json::from_str(&extra_json).map_err(|error| {
                EmbeddingError::invalid("extra_json", format!("not a JSON object: {error}"))
            })?
        };
        Ok(EmbedRequest { model, inputs, dimensions, purpose, extra })
    }
}

fn read_texts(texts: wire::Texts) -> Result<Vec<TextInput>, EmbeddingError> {
    let read = |(index, item): (usize, wire::TextInput)| match item.input {
        Some(wire::text_input::Input::Text(text)) => Ok(TextInput::Text(text)),
        Some(wire::text_input::Input::Tokens(tokens)) => Ok(TextInput::Tokens(tokens.ids)),
        None => Err(EmbeddingError::invalid(
            format!("input.{index}"),
            "an input must be a text or tokens",
        )),
    };
    texts.items.into_iter().enumerate().map(read).collect()
}

fn read_images(images: wire::Images) -> Vec<ImageInput> {
    let read = |wire::ImageInput { image, text }| ImageInput { image: image.into(), text };
    images.items.into_iter().map(read).collect()
}

const fn purpose(input_type: wire::InputType) -> Purpose {
    match input_type {
        wire::InputType::Unspecified | wire::InputType::Text => Purpose::Text,
        wire::InputType::Query => Purpose::Query,
        wire::InputType::Document => Purpose::Document,
    }
}

fn response(model: String, embedded: Embedded, queued: Option<Duration>) -> wire::EmbedResponse {
    let Embedded { vectors, prompt_tokens, images } = embedded;
    wire::EmbedResponse {
        model,
        vectors: vectors.into_iter().map(|values| wire::Vector { values }).collect(),
        usage: Some(wire::Usage { prompt_tokens, images }),
        queued_us: queued.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
    }
}

fn model(info: ModelInfo) -> wire::Model {
    let ModelInfo {
        name,
        publisher,
        version,
        text,
        image,
        image_with_text,
        dimensions,
        shorter_dimensions,
        any_dimensions,
        max_tokens,
        purposes,
        images_per_call,
        extra_parameters,
    } = info;
    let input_type = |purpose| match purpose {
        Purpose::Text => wire::InputType::Text,
        Purpose::Query => wire::InputType::Query,
        Purpose::Document => wire::InputType::Document,
    };
    wire::Model {
        name,
        publisher,
        version,
        text,
        image,
        image_with_text,
        dimensions,
        shorter_dimensions,
        any_dimensions,
        max_tokens,
        input_types: purposes.into_iter().map(|p| input_type(p).into()).collect(),
        images_per_call,
        extra_parameters,
    }
}
