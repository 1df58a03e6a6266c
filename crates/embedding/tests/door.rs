//! The gRPC door over a real connection, with an embedder of a few lines behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use api_types::rpc::embedding as wire;
use api_types::{ErrorCode, Fault};
use async_trait::async_trait;
use chassis::Tasks;
use chassis::config::{Sources, load};
use embedding::embedder::{
    EmbedRequest, Embedded, ImageInput, Inputs, ModelInfo, Purpose, TextInput,
};
use embedding::{Config, DEFAULTS, Embedder, Embedders, EmbeddingError};
use std::sync::Arc;
use std::time::Duration;
use wire::embedding_service_client::EmbeddingServiceClient;

/// Embeds a text as its length, tokens as their number, an image as its size in bytes.
#[derive(Debug)]
struct Fake;

#[async_trait]
impl Embedder for Fake {
    fn models(&self) -> Vec<ModelInfo> {
        vec![ModelInfo {
            name: "fake".into(),
            publisher: "tests".into(),
            version: "1".into(),
            text: true,
            image: true,
            dimensions: 2,
            max_tokens: 16,
            purposes: vec![Purpose::Query],
            ..ModelInfo::default()
        }]
    }

    async fn embed(&self, request: EmbedRequest) -> Result<Embedded, EmbeddingError> {
        let lengths: Vec<usize> = match &request.inputs {
            Inputs::Texts(texts) => texts.iter().map(length).collect(),
            Inputs::Images(images) => {
                images.iter().map(|ImageInput { image, .. }| image.len()).collect()
            }
        };
        let vectors = lengths.iter().map(|&l| vec![l as f32, 0.5]).collect();
        Ok(Embedded { vectors, prompt_tokens: 7, images: 0 })
    }
}

fn length(text: &TextInput) -> usize {
    match text {
        TextInput::Text(text) => text.len(),
        TextInput::Tokens(ids) => ids.len(),
    }
}

struct Rig {
    client: EmbeddingServiceClient<tonic::transport::Channel>,
    tasks: Tasks,
}

async fn rig() -> Rig {
    let mut config: Config = load("embedding", DEFAULTS, &Sources::default()).unwrap();
    config.limits.inputs = 3;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let tasks = Tasks::new();
    let mut embedders = Embedders::new();
    let fake: Arc<dyn Embedder> = Arc::new(Fake);
    embedders.add(&fake).unwrap();
    let own = tasks.clone();
    tasks.spawn(async move { embedding::serve_with(embedders, &config, listener, own).await });
    let client = EmbeddingServiceClient::connect(address).await.unwrap();
    Rig { client, tasks }
}

fn texts(items: &[&str]) -> wire::EmbedRequest {
    let item = |text: &&str| wire::TextInput {
        input: Some(wire::text_input::Input::Text((*text).to_owned())),
    };
    let texts = wire::Texts { items: items.iter().map(item).collect() };
    wire::EmbedRequest {
        model: "FAKE".into(),
        input: Some(wire::embed_request::Input::Texts(texts)),
        ..wire::EmbedRequest::default()
    }
}

#[tokio::test]
async fn vectors_come_in_the_order_of_the_inputs_with_usage_and_the_models_own_name() {
    let mut rig = rig().await;
    let answer = rig.client.embed(texts(&["a", "bcd"])).await.unwrap().into_inner();
    let vectors: Vec<_> = answer.vectors.iter().map(|v| v.values.clone()).collect();
    assert_eq!(vectors, [[1.0, 0.5], [3.0, 0.5]]);
    assert_eq!(answer.model, "fake");
    assert_eq!(answer.usage, Some(wire::Usage { prompt_tokens: 7, images: 0 }));
    rig.tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn images_reach_the_embedder() {
    let mut rig = rig().await;
    let items = vec![wire::ImageInput { image: vec![1, 2, 3], text: String::new() }];
    let input = Some(wire::embed_request::Input::Images(wire::Images { items }));
    let answer =
        rig.client.embed(wire::EmbedRequest { input, ..texts(&[]) }).await.unwrap().into_inner();
    assert_eq!(answer.vectors[0].values, [3.0, 0.5]);
}

#[tokio::test]
async fn the_list_says_what_the_model_can_do() {
    let mut rig = rig().await;
    let models =
        rig.client.list_models(wire::ListModelsRequest {}).await.unwrap().into_inner().models;
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].name, "fake");
    assert!(models[0].text && models[0].image && !models[0].image_with_text);
    assert_eq!(models[0].input_types, [i32::from(wire::InputType::Query)]);
}

#[tokio::test]
async fn every_refusal_has_its_code_and_its_target() {
    let mut rig = rig().await;
    let unknown = wire::EmbedRequest { model: "other".into(), ..texts(&["a"]) };
    let nothing = wire::EmbedRequest { input: None, ..texts(&[]) };
    let long = wire::EmbedRequest { dimensions: Some(3), ..texts(&["a"]) };
    let document =
        wire::EmbedRequest { input_type: wire::InputType::Document.into(), ..texts(&["a"]) };
    let strange = wire::EmbedRequest { input_type: 99, ..texts(&["a"]) };
    for (request, code, target) in [
        (unknown, ErrorCode::UnknownModel, "model"),
        (nothing, ErrorCode::InvalidRequest, "input"),
        (texts(&[]), ErrorCode::InvalidRequest, "input"),
        (texts(&["a", "b", "c", "d"]), ErrorCode::InvalidRequest, "input"),
        (long, ErrorCode::ParameterNotSupported, "dimensions"),
        (document, ErrorCode::ParameterNotSupported, "input_type"),
        (strange, ErrorCode::InvalidRequest, "input_type"),
    ] {
        let fault = Fault::from(rig.client.embed(request).await.unwrap_err());
        assert_eq!(fault.code, code, "{fault:?}");
        assert_eq!(fault.target.as_deref(), Some(target), "{fault:?}");
    }
}

#[tokio::test]
async fn an_image_with_a_text_is_a_422_where_the_model_takes_none() {
    let mut rig = rig().await;
    let items = vec![wire::ImageInput { image: vec![1], text: "a cat".into() }];
    let input = Some(wire::embed_request::Input::Images(wire::Images { items }));
    let refused = rig.client.embed(wire::EmbedRequest { input, ..texts(&[]) }).await.unwrap_err();
    let fault = Fault::from(refused);
    assert_eq!(fault.code.http(), 422);
    assert_eq!(fault.target.as_deref(), Some("input.0.text"));
}
