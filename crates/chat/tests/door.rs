//! The gRPC door over a real loopback listener, with a backend that says what the test wants.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use api_types::rpc::chat as wire;
use api_types::{ErrorCode, Fault};
use async_trait::async_trait;
use chassis::Tasks;
use chassis::grpc::{Client, ClientConfig, Pass};
use chat::backend::{
    CompleteRequest, FinishReason, GenerateRequest, ModelInfo, Part, Piece, PieceStream, Role,
    ToolChoice, Usage,
};
use chat::{Backend, Backends, ChatError, Config};
use futures::StreamExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use wire::chat_service_client::ChatServiceClient;
use wire::generate_response::Event;

/// Answers `hello` after noting the request; a conversation with `wait` in it never ends.
#[derive(Debug, Default)]
struct Parrot {
    asked: Mutex<Vec<GenerateRequest>>,
    left: Arc<Notify>,
}

struct Leaves(Arc<Notify>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn hello() -> Vec<Result<Piece, ChatError>> {
    vec![
        Ok(Piece::Text { choice: 0, text: "hel".into(), logprobs: Vec::new() }),
        Ok(Piece::ToolCall {
            choice: 0,
            index: 0,
            id: Some("call_1".into()),
            name: Some("f".into()),
            arguments: "{}".into(),
        }),
        Ok(Piece::Finished { choice: 0, reason: FinishReason::ToolCalls }),
        Ok(Piece::Usage(Usage { prompt_tokens: 3, completion_tokens: 1, ..Usage::default() })),
    ]
}

#[async_trait]
impl Backend for Parrot {
    fn models(&self) -> Vec<ModelInfo> {
        vec![ModelInfo {
            name: "parrot".into(),
            chat: true,
            completions: true,
            context_tokens: 64,
            ..ModelInfo::default()
        }]
    }

    async fn generate(&self, request: GenerateRequest) -> Result<PieceStream, ChatError> {
        let wait = request.messages.iter().any(|m| m.content.contains(&Part::Text("wait".into())));
        self.asked.lock().unwrap().push(request);
        if wait {
            let leaves = Leaves(Arc::clone(&self.left));
            let first = futures::stream::iter(hello().into_iter().take(1));
            let rest = futures::stream::pending().map(move |piece| {
                let _held = &leaves;
                piece
            });
            return Ok(Box::pin(first.chain(rest)));
        }
        Ok(Box::pin(futures::stream::iter(hello())))
    }

    async fn complete(&self, _request: CompleteRequest) -> Result<PieceStream, ChatError> {
        Err(ChatError::Busy { model: "parrot".into(), after: Duration::from_secs(2) })
    }
}

async fn start() -> (ChatServiceClient<Client>, Arc<Parrot>, Tasks) {
    let parrot = Arc::new(Parrot::default());
    let backends = Backends::new(vec![Arc::clone(&parrot) as Arc<dyn Backend>]).unwrap();
    let config: Config =
        chassis::config::load("chat", chat::DEFAULTS, &chassis::config::Sources::default())
            .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = vec![format!("http://{}", listener.local_addr().unwrap())];
    let tasks = Tasks::new();
    tasks.spawn({
        let tasks = tasks.clone();
        async move { chat::serve_with(backends, &config, listener, tasks).await.unwrap() }
    });
    let client =
        chassis::grpc::client("chat", &ClientConfig::to(endpoints), &Pass::default(), &tasks)
            .unwrap();
    (ChatServiceClient::new(client), parrot, tasks)
}

fn ask(text: &str) -> wire::GenerateRequest {
    let part = wire::ContentPart { part: Some(wire::content_part::Part::Text(text.into())) };
    let message = wire::Message {
        role: wire::Role::User.into(),
        content: vec![part],
        ..wire::Message::default()
    };
    wire::GenerateRequest {
        model: "parrot".into(),
        messages: vec![message],
        ..wire::GenerateRequest::default()
    }
}

async fn fault(request: wire::GenerateRequest) -> Fault {
    let (mut client, _parrot, _tasks) = start().await;
    Fault::from(client.generate(request).await.unwrap_err())
}

#[tokio::test]
async fn an_answer_begins_with_started_and_ends_with_usage() {
    let (mut client, parrot, _tasks) = start().await;
    let mut request = ask("hi");
    request.tool_choice =
        Some(wire::ToolChoice { mode: wire::ToolChoiceMode::Named.into(), function: "f".into() });
    request.extra_json = "{\"top_k\":3}".into();
    let stream = client.generate(request).await.unwrap().into_inner();
    let events: Vec<Event> = stream.map(|event| event.unwrap().event.unwrap()).collect().await;
    assert_eq!(events[0], Event::Started(wire::Started { model: "parrot".into() }));
    assert!(matches!(&events[1], Event::Text(text) if text.text == "hel"));
    assert!(
        matches!(&events[2], Event::ToolCall(call) if call.name == "f" && call.arguments == "{}")
    );
    assert!(
        matches!(&events[3], Event::Finished(f) if f.reason() == wire::FinishReason::ToolCalls)
    );
    assert!(matches!(&events[4], Event::Usage(usage) if usage.prompt_tokens == 3));
    assert_eq!(events.len(), 5);

    let asked = parrot.asked.lock().unwrap();
    assert_eq!(asked[0].messages[0].role, Role::User);
    assert_eq!(asked[0].tool_choice, ToolChoice::Named("f".into()));
    assert_eq!(asked[0].extra["top_k"], 3);
    assert_eq!(asked[0].sampling.n, 1);
    assert!(asked[0].parallel_tool_calls);
}

#[tokio::test]
async fn a_caller_who_leaves_ends_the_generation() {
    let (mut client, parrot, _tasks) = start().await;
    let mut stream = client.generate(ask("wait")).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), parrot.left.notified()).await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_a_running_answer_finish_and_refuses_new_ones() {
    let (mut client, _parrot, tasks) = start().await;
    let mut running = client.generate(ask("hi")).await.unwrap().into_inner();
    let stopper = tasks.clone();
    let stop = tasks.spawn(async move { stopper.stop(Duration::from_secs(5)).await });
    tasks.draining().await;
    assert!(client.generate(ask("hi")).await.is_err());
    let mut last = None;
    while let Some(event) = running.next().await {
        last = event.unwrap().event;
    }
    assert!(matches!(last, Some(Event::Usage(_))));
    drop(running);
    stop.abort();
}

#[tokio::test]
async fn faults_name_the_field_and_keep_their_code() {
    let unknown = fault(wire::GenerateRequest { model: "nobody".into(), ..ask("hi") }).await;
    assert_eq!(unknown.code, ErrorCode::UnknownModel);
    assert!(unknown.message.contains("`parrot`"));
    let empty =
        fault(wire::GenerateRequest { model: "parrot".into(), ..wire::GenerateRequest::default() })
            .await;
    assert_eq!(
        (empty.code, empty.target.as_deref()),
        (ErrorCode::InvalidRequest, Some("messages"))
    );
    let mut roleless = ask("hi");
    roleless.messages[0].role = 0;
    assert_eq!(fault(roleless).await.target.as_deref(), Some("messages.0.role"));
    let format = wire::ResponseFormat {
        kind: wire::ResponseFormatKind::JsonSchema.into(),
        schema_json: "{".into(),
        ..wire::ResponseFormat::default()
    };
    let schema = fault(wire::GenerateRequest { response_format: Some(format), ..ask("hi") }).await;
    assert_eq!(schema.target.as_deref(), Some("response_format.json_schema.schema"));
}

#[tokio::test]
async fn a_busy_backend_says_when_to_come_again() {
    let (mut client, _parrot, _tasks) = start().await;
    let prompt = wire::Prompt { prompt: Some(wire::prompt::Prompt::Text("a".into())) };
    let request = wire::CompleteRequest {
        model: "parrot".into(),
        prompts: vec![prompt],
        ..wire::CompleteRequest::default()
    };
    let fault = Fault::from(client.complete(request).await.unwrap_err());
    assert_eq!(
        (fault.code, fault.retry_after),
        (ErrorCode::Unavailable, Some(Duration::from_secs(2)))
    );
}

#[tokio::test]
async fn models_are_listed_with_what_they_can_do() {
    let (mut client, _parrot, _tasks) = start().await;
    let models = client.list_models(wire::ListModelsRequest {}).await.unwrap().into_inner().models;
    assert_eq!(
        (models[0].name.as_str(), models[0].context_tokens, models[0].tools),
        ("parrot", 64, false)
    );
}
