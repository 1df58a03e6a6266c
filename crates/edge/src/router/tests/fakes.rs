//! The three services, small enough to say beforehand what they answer, on loopback listeners of their own.
//!
//! The chat service repeats the last user message word by word, unless that is `/hang`, `/die` or `/fail`; its
//! model `down` is never there. Content safety
//! blocks a prompt with the word `bad` and a reply with the word `rotten`.

use api_types::rpc::{chat, content_safety as safety, embedding};
use api_types::{ErrorCode, Fault};
use chassis::Tasks;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

type Events<T> = BoxStream<'static, Result<T, Status>>;

/// What the fakes saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) generated: Arc<Mutex<Vec<chat::GenerateRequest>>>,
    pub(super) screened: Arc<Mutex<Vec<safety::ScreenRequest>>>,
    /// Cancelled when a generation is dropped.
    pub(super) dropped: CancellationToken,
}

impl Seen {
    pub(super) fn last_generated(&self) -> chat::GenerateRequest {
        self.generated.lock().unwrap().last().cloned().unwrap()
    }
}

/// Starts all three; their addresses as `http://` URLs: chat, embedding, content safety.
pub(super) async fn start(seen: &Seen, tasks: &Tasks) -> [String; 3] {
    let chat = chat::chat_service_server::ChatServiceServer::new(Chat { seen: seen.clone() });
    let embedding = embedding::embedding_service_server::EmbeddingServiceServer::new(Vectors);
    let judge = Judge { seen: seen.clone() };
    let safety = safety::content_safety_service_server::ContentSafetyServiceServer::new(judge);
    [
        listen(tonic::service::Routes::new(chat), tasks).await,
        listen(tonic::service::Routes::new(embedding), tasks).await,
        listen(tonic::service::Routes::new(safety), tasks).await,
    ]
}

async fn listen(routes: tonic::service::Routes, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_routes(routes);
    let incoming = TcpListenerStream::new(listener);
    tasks.spawn(async move { server.serve_with_incoming(incoming).await });
    format!("http://{address}")
}

#[derive(Debug)]
struct Chat {
    seen: Seen,
}

fn generate_event(event: chat::generate_response::Event) -> Result<chat::GenerateResponse, Status> {
    Ok(chat::GenerateResponse { event: Some(event) })
}

fn broken() -> Status {
    Fault::new(ErrorCode::Internal, "the fake dies").into_status()
}

fn words(text: &str) -> Vec<chat::TextDelta> {
    let delta = |text: &str| chat::TextDelta { text: text.to_owned(), ..Default::default() };
    text.split_inclusive(' ').map(delta).collect()
}

#[tonic::async_trait]
impl chat::chat_service_server::ChatService for Chat {
    type GenerateStream = Events<chat::GenerateResponse>;
    type CompleteStream = Events<chat::CompleteResponse>;

    async fn generate(
        &self,
        request: Request<chat::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        use chat::generate_response::Event;
        let request = request.into_inner();
        let said = match request.messages.last().and_then(|m| m.content.first()?.part.clone()) {
            Some(chat::content_part::Part::Text(text)) => text,
            _ => String::new(),
        };
        let started = chat::Started { model: request.model.clone() };
        let down = request.model == "down";
        self.seen.generated.lock().unwrap().push(request);
        if said == "/fail" {
            return Err(broken());
        }
        if down {
            return Err(Fault::new(ErrorCode::Unavailable, "the model is away").into_status());
        }
        let mut events = vec![generate_event(Event::Started(started))];
        events.extend(words(&said).into_iter().map(|w| generate_event(Event::Text(w))));
        if said == "/die" {
            events.push(Err(broken()));
        } else if said != "/hang" {
            let reason = chat::FinishReason::Stop.into();
            events.push(generate_event(Event::Finished(chat::Finished { choice: 0, reason })));
            let usage =
                chat::Usage { prompt_tokens: 3, completion_tokens: 2, ..Default::default() };
            events.push(generate_event(Event::Usage(usage)));
        }
        let rest =
            if said == "/hang" { stream::pending().boxed() } else { stream::empty().boxed() };
        let guard = self.seen.dropped.clone().drop_guard();
        let held = stream::iter(events).chain(rest).map(move |event| {
            let _held = &guard;
            event
        });
        Ok(Response::new(held.boxed()))
    }

    async fn complete(
        &self,
        request: Request<chat::CompleteRequest>,
    ) -> Result<Response<Self::CompleteStream>, Status> {
        use chat::complete_response::Event;
        let mut events = Vec::new();
        for choice in 0..u32::try_from(request.into_inner().prompts.len()).unwrap() {
            events.push(Event::Text(chat::TextDelta {
                choice,
                text: " more".into(),
                ..Default::default()
            }));
            let reason = chat::FinishReason::Length.into();
            events.push(Event::Finished(chat::Finished { choice, reason }));
        }
        events.push(Event::Usage(chat::Usage::default()));
        let events = events.into_iter().map(|e| Ok(chat::CompleteResponse { event: Some(e) }));
        Ok(Response::new(stream::iter(events.collect::<Vec<_>>()).boxed()))
    }

    async fn list_models(
        &self,
        _request: Request<chat::ListModelsRequest>,
    ) -> Result<Response<chat::ListModelsResponse>, Status> {
        let model = |name: &str| chat::Model {
            name: name.into(),
            chat: true,
            completions: true,
            extra_parameters: vec!["top_k".into()],
            ..Default::default()
        };
        let down = chat::Model { tools: true, ..model("down") };
        let models = vec![model("talk"), model("Other"), down];
        Ok(Response::new(chat::ListModelsResponse { models }))
    }
}

#[derive(Debug)]
struct Vectors;

#[tonic::async_trait]
impl embedding::embedding_service_server::EmbeddingService for Vectors {
    async fn embed(
        &self,
        request: Request<embedding::EmbedRequest>,
    ) -> Result<Response<embedding::EmbedResponse>, Status> {
        let request = request.into_inner();
        let count = match request.input {
            Some(embedding::embed_request::Input::Texts(texts)) => texts.items.len(),
            Some(embedding::embed_request::Input::Images(images)) => images.items.len(),
            None => 0,
        };
        let vectors = vec![embedding::Vector { values: vec![0.5, -1.0] }; count];
        let usage = Some(embedding::Usage { prompt_tokens: 4, images: 0 });
        Ok(Response::new(embedding::EmbedResponse {
            model: request.model,
            vectors,
            usage,
            queued_us: 1500,
        }))
    }

    async fn list_models(
        &self,
        _request: Request<embedding::ListModelsRequest>,
    ) -> Result<Response<embedding::ListModelsResponse>, Status> {
        let model = |name: &str, text| embedding::Model {
            name: name.into(),
            publisher: "Acme".into(),
            text,
            image: !text,
            dimensions: 2,
            ..Default::default()
        };
        let models = vec![model("vectors", true), model("pictures", false)];
        Ok(Response::new(embedding::ListModelsResponse { models }))
    }
}

#[derive(Debug)]
struct Judge {
    seen: Seen,
}

#[tonic::async_trait]
impl safety::content_safety_service_server::ContentSafetyService for Judge {
    async fn screen(
        &self,
        request: Request<safety::ScreenRequest>,
    ) -> Result<Response<safety::ScreenResponse>, Status> {
        let request = request.into_inner();
        let word = match request.direction() {
            safety::Direction::Prompt => "bad",
            safety::Direction::Completion | safety::Direction::Unspecified => "rotten",
        };
        let found = request.segments.iter().any(|s| s.text.contains(word));
        let (blocked, would_block) = (found && !request.shadow, found && request.shadow);
        let (category, severity) = (safety::Category::Violence.into(), if found { 6 } else { 0 });
        self.seen.screened.lock().unwrap().push(request);
        let span = Some(safety::Span { segment: 0, begin: 1, end: 3 });
        let result =
            safety::CategoryResult { category, severity, score: 0.5, filtered: blocked, span };
        Ok(Response::new(safety::ScreenResponse {
            blocked,
            categories: vec![result],
            version: "fake-1".into(),
            would_block,
            ..Default::default()
        }))
    }

    async fn analyze(
        &self,
        request: Request<safety::AnalyzeRequest>,
    ) -> Result<Response<safety::AnalyzeResponse>, Status> {
        let severity = |category: &i32| safety::CategorySeverity {
            category: *category,
            severity: 5,
            score: 0.5,
        };
        let categories = request.into_inner().categories.iter().map(severity).collect();
        Ok(Response::new(safety::AnalyzeResponse { categories, blocklists: Vec::new() }))
    }

    async fn analyze_image(
        &self,
        _request: Request<safety::AnalyzeImageRequest>,
    ) -> Result<Response<safety::AnalyzeImageResponse>, Status> {
        Ok(Response::new(safety::AnalyzeImageResponse::default()))
    }

    async fn shield_prompt(
        &self,
        _request: Request<safety::ShieldPromptRequest>,
    ) -> Result<Response<safety::ShieldPromptResponse>, Status> {
        Ok(Response::new(safety::ShieldPromptResponse::default()))
    }

    async fn list_policies(
        &self,
        _request: Request<safety::ListPoliciesRequest>,
    ) -> Result<Response<safety::ListPoliciesResponse>, Status> {
        Ok(Response::new(safety::ListPoliciesResponse { policies: vec!["default".into()] }))
    }

    async fn detect_protected_text(
        &self,
        request: Request<safety::DetectProtectedTextRequest>,
    ) -> Result<Response<safety::DetectProtectedTextResponse>, Status> {
        let detected = request.into_inner().text.contains("known");
        Ok(Response::new(safety::DetectProtectedTextResponse { detected }))
    }

    async fn detect_protected_code(
        &self,
        _request: Request<safety::DetectProtectedCodeRequest>,
    ) -> Result<Response<safety::DetectProtectedCodeResponse>, Status> {
        let message = "there is nothing to compare with";
        Err(Fault::new(ErrorCode::ResourceNotFound, message).into_status())
    }

    async fn list_blocklists(
        &self,
        _request: Request<safety::ListBlocklistsRequest>,
    ) -> Result<Response<safety::ListBlocklistsResponse>, Status> {
        let blocklists = vec![blocklist("here")];
        Ok(Response::new(safety::ListBlocklistsResponse { blocklists }))
    }

    async fn get_blocklist(
        &self,
        request: Request<safety::GetBlocklistRequest>,
    ) -> Result<Response<safety::GetBlocklistResponse>, Status> {
        let name = known(request.into_inner().name)?;
        Ok(Response::new(safety::GetBlocklistResponse { blocklist: Some(blocklist(&name)) }))
    }

    async fn upsert_blocklist(
        &self,
        request: Request<safety::UpsertBlocklistRequest>,
    ) -> Result<Response<safety::UpsertBlocklistResponse>, Status> {
        let safety::UpsertBlocklistRequest { name, description } = request.into_inner();
        let created = name != "here";
        let description = description.and_then(|change| change.value);
        let blocklist = Some(safety::Blocklist { name, description });
        Ok(Response::new(safety::UpsertBlocklistResponse { blocklist, created }))
    }

    async fn delete_blocklist(
        &self,
        request: Request<safety::DeleteBlocklistRequest>,
    ) -> Result<Response<safety::DeleteBlocklistResponse>, Status> {
        known(request.into_inner().name)?;
        Ok(Response::new(safety::DeleteBlocklistResponse {}))
    }

    async fn upsert_blocklist_items(
        &self,
        request: Request<safety::UpsertBlocklistItemsRequest>,
    ) -> Result<Response<safety::UpsertBlocklistItemsResponse>, Status> {
        let request = request.into_inner();
        known(request.name)?;
        if request.items.iter().any(|item| item.text == "(") {
            return Err(Fault::invalid("items.0", "item 0 is no regular expression").into_status());
        }
        let item = |item: safety::NewBlocklistItem| safety::BlocklistItem {
            id: "1".into(),
            text: item.text,
            description: item.description,
            is_regex: item.is_regex,
        };
        let items = request.items.into_iter().map(item).collect();
        Ok(Response::new(safety::UpsertBlocklistItemsResponse { items }))
    }

    async fn remove_blocklist_items(
        &self,
        request: Request<safety::RemoveBlocklistItemsRequest>,
    ) -> Result<Response<safety::RemoveBlocklistItemsResponse>, Status> {
        known(request.into_inner().name)?;
        Ok(Response::new(safety::RemoveBlocklistItemsResponse {}))
    }

    async fn list_blocklist_items(
        &self,
        request: Request<safety::ListBlocklistItemsRequest>,
    ) -> Result<Response<safety::ListBlocklistItemsResponse>, Status> {
        let request = request.into_inner();
        known(request.name)?;
        let texts = ["a", "b", "c"].iter().skip(request.skip as usize);
        let size = if request.page_size == 0 { 3 } else { request.page_size };
        let item = |text: &&str| safety::BlocklistItem {
            id: format!("id-{text}"),
            text: (*text).to_owned(),
            ..Default::default()
        };
        let items: Vec<_> = texts.take(size as usize).map(item).collect();
        let more = request.skip as usize + items.len() < 3;
        Ok(Response::new(safety::ListBlocklistItemsResponse { items, more }))
    }

    async fn get_blocklist_item(
        &self,
        request: Request<safety::GetBlocklistItemRequest>,
    ) -> Result<Response<safety::GetBlocklistItemResponse>, Status> {
        let safety::GetBlocklistItemRequest { name, item_id } = request.into_inner();
        known(name)?;
        let item = safety::BlocklistItem { id: item_id, text: "a".into(), ..Default::default() };
        Ok(Response::new(safety::GetBlocklistItemResponse { item: Some(item) }))
    }
}

fn blocklist(name: &str) -> safety::Blocklist {
    safety::Blocklist { name: name.to_owned(), description: None }
}

/// There is one list, `here`.
fn known(name: String) -> Result<String, Status> {
    if name == "here" {
        return Ok(name);
    }
    let message = format!("there is no blocklist `{name}`");
    Err(Fault::new(ErrorCode::ResourceNotFound, message).into_status())
}
