//! `App`: the clonable handles that every handler may use, and the calls it makes of the services.
//!
//! Separate because it is all the state the edge has: configuration, the deployment table and three clients. Every call
//! carries what is left of the request's time; dropping its future or stream cancels it on the other side.

mod answers;
mod text_blocklists;

use crate::cache::{Cache, Kind};
use crate::config::Config;
use crate::context::Context;
use crate::deployments::{ListedModel, Table};
use crate::extract::Head;
use crate::fallback::{Candidate, Candidates};
use crate::guard::Guard;
use crate::limit::Limits;
use crate::pieces::PieceStream;
use crate::room::Room;
use crate::translate;
use api_types::rpc::chat::chat_service_client::ChatServiceClient;
use api_types::rpc::content_safety::content_safety_service_client::ContentSafetyServiceClient;
use api_types::rpc::embedding::embedding_service_client::EmbeddingServiceClient;
use api_types::rpc::{chat, content_safety, embedding};
use api_types::{ErrorCode, Fault};
use arc_swap::ArcSwap;
use chassis::Tasks;
use chassis::grpc::{Client, ClientConfig, MAX_MESSAGE_BYTES, Pass};
use chassis::state::StateError;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How much later than the edge a service gives up, so that who ends a call is never a race.
const TIMEOUT_SLACK: Duration = Duration::from_millis(500);

/// A service, or Redis, cannot be called at the address that is configured.
#[derive(Debug, thiserror::Error)]
#[error("`edge.{option}`: {cause}")]
pub struct EndpointError {
    option: String,
    cause: String,
}

/// The handles that every handler may use.
#[derive(Debug, Clone)]
pub struct App {
    /// The options.
    pub config: Arc<Config>,
    /// Content safety around requests.
    pub guard: Guard,
    /// How much callers may ask for.
    pub limits: Limits,
    /// When this process began, in Unix seconds: what `GET /models` calls `created`.
    pub began: u64,
    /// How many bytes of bodies there may be.
    pub room: Room,
    table: Arc<ArcSwap<Table>>,
    cache: Cache,
    /// What it was made of.
    listed: Arc<ArcSwap<Listed>>,
    chat: Option<ChatServiceClient<Client>>,
    embedding: Option<EmbeddingServiceClient<Client>>,
    safety: Option<ContentSafetyServiceClient<Client>>,
}

/// What the services listed last.
#[derive(Debug, Default)]
struct Listed {
    models: Vec<ListedModel>,
    complete: bool,
}

impl App {
    /// The clients of `config`, which follow their replicas until `tasks` drain, and an empty table until `discover` fills it.
    ///
    /// # Errors
    /// When an endpoint is not a URL.
    pub fn build(config: Config, tasks: &Tasks) -> Result<Self, EndpointError> {
        let pass = pass(&config, tasks)?;
        let chat = client("chat", &config.chat, &pass, tasks)?;
        let embedding = client("embedding", &config.embedding, &pass, tasks)?;
        let safety = client("content_safety", &config.content_safety, &pass, tasks)?;
        let limits = Limits::build(&config, tasks).map_err(redis)?;
        let cache = Cache::build(&config, tasks).map_err(redis)?;
        let safety = safety.map(|c| {
            let client = ContentSafetyServiceClient::new(c);
            client
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        });
        let config = Arc::new(config);
        Ok(Self {
            guard: Guard::new(safety.clone(), Arc::clone(&config), cache.clone()),
            limits,
            cache,
            began: unix_seconds(),
            room: Room::of(config.limits.bodies_bytes),
            table: Arc::new(ArcSwap::from_pointee(Table::build(&config, &[], false))),
            listed: Arc::default(),
            chat: chat
                .map(|c| ChatServiceClient::new(c).max_decoding_message_size(MAX_MESSAGE_BYTES)),
            embedding: embedding.map(|c| {
                let client = EmbeddingServiceClient::new(c);
                client
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
            }),
            safety,
            config,
        })
    }

    /// The same for another `config`. What has been used of the limits goes over, and so do connections to services that stay
    /// where they were, and the models that they listed.
    ///
    /// # Errors
    /// As `build`.
    pub fn rebuild(&self, config: Config, tasks: &Tasks) -> Result<Self, EndpointError> {
        let mut next = self.clone();
        let doors = config.doors == self.config.doors;
        let stays = |one: &ClientConfig, other: &ClientConfig| doors && one == other;
        let all_stay = stays(&config.chat, &self.config.chat)
            && stays(&config.embedding, &self.config.embedding)
            && stays(&config.content_safety, &self.config.content_safety);
        if !all_stay {
            let built = Self::build(config.clone(), tasks)?;
            if !stays(&config.chat, &self.config.chat) {
                next.chat = built.chat;
            }
            if !stays(&config.embedding, &self.config.embedding) {
                next.embedding = built.embedding;
            }
            if !stays(&config.content_safety, &self.config.content_safety) {
                next.safety = built.safety;
            }
        }
        next.limits = self.limits.rebuild(&config);
        next.config = Arc::new(config);
        next.guard = Guard::new(next.safety.clone(), Arc::clone(&next.config), next.cache.clone());
        next.listed = Arc::clone(&self.listed);
        let listed = next.listed.load();
        let table = Table::build(&next.config, &listed.models, listed.complete);
        next.table = Arc::new(ArcSwap::from_pointee(table));
        Ok(next)
    }

    /// The deployments as the services listed them last.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Puts a new table in place.
    pub fn replace_table(&self, listed: &[ListedModel], complete: bool) {
        self.listed.store(Arc::new(Listed { models: listed.to_vec(), complete }));
        self.table.store(Arc::new(Table::build(&self.config, listed, complete)));
    }

    /// Answers a conversation.
    ///
    /// # Errors
    /// What the chat service says before its first piece.
    pub async fn generate(
        &self,
        asked: Candidates<chat::GenerateRequest>,
        head: &Head,
    ) -> Result<PieceStream, Fault> {
        let client = self.chat.as_ref().ok_or_else(no_service)?;
        let ask = |asked: Candidate<chat::GenerateRequest>| {
            let mut client = client.clone();
            let kind = answers::repeats(asked.request.sampling.as_ref()).then_some(Kind::Chat);
            let call = |request| async move { client.generate(request).await };
            self.pieces(kind, asked, head, call, translate::chat::from_rpc)
        };
        asked.ask(ask).await
    }

    /// Continues raw prompts.
    ///
    /// # Errors
    /// What the chat service says before its first piece.
    pub async fn complete(
        &self,
        asked: Candidates<chat::CompleteRequest>,
        head: &Head,
    ) -> Result<PieceStream, Fault> {
        let client = self.chat.as_ref().ok_or_else(no_service)?;
        let ask = |asked: Candidate<chat::CompleteRequest>| {
            let mut client = client.clone();
            let kind =
                answers::repeats(asked.request.sampling.as_ref()).then_some(Kind::Completions);
            let call = |request| async move { client.complete(request).await };
            self.pieces(kind, asked, head, call, translate::completions::from_rpc)
        };
        asked.ask(ask).await
    }

    /// Embeds texts or images.
    ///
    /// # Errors
    /// What the embedding service says.
    pub async fn embed(
        &self,
        asked: Candidates<embedding::EmbedRequest>,
        head: &Head,
    ) -> Result<embedding::EmbedResponse, Fault> {
        let client = self.embedding.as_ref().ok_or_else(no_service)?;
        let ask = |asked: Candidate<embedding::EmbedRequest>| {
            let mut client = client.clone();
            let call = |request| async move { client.embed(request).await };
            let tell = |answer: &embedding::EmbedResponse| answers::Told {
                prompt_tokens: answer.usage.map_or(0, |usage| usage.prompt_tokens),
                queued: Duration::from_micros(answer.queued_us),
            };
            self.message(Kind::Embedding, asked, head, call, tell)
        };
        asked.ask(ask).await
    }

    /// Severities of a text.
    ///
    /// # Errors
    /// What the content-safety service says.
    pub async fn analyze(
        &self,
        request: content_safety::AnalyzeRequest,
        context: &Context,
    ) -> Result<content_safety::AnalyzeResponse, Fault> {
        let mut client = self.safety.clone().ok_or_else(no_service)?;
        Ok(client.analyze(timed(request, context)).await.map_err(failed)?.into_inner())
    }

    /// Severities of an image.
    ///
    /// # Errors
    /// What the content-safety service says.
    pub async fn analyze_image(
        &self,
        request: content_safety::AnalyzeImageRequest,
        context: &Context,
    ) -> Result<content_safety::AnalyzeImageResponse, Fault> {
        let mut client = self.safety.clone().ok_or_else(no_service)?;
        Ok(client.analyze_image(timed(request, context)).await.map_err(failed)?.into_inner())
    }

    /// Whether a prompt or documents attack the model that reads them.
    ///
    /// # Errors
    /// What the content-safety service says.
    pub async fn shield_prompt(
        &self,
        request: content_safety::ShieldPromptRequest,
        context: &Context,
    ) -> Result<content_safety::ShieldPromptResponse, Fault> {
        let mut client = self.safety.clone().ok_or_else(no_service)?;
        Ok(client.shield_prompt(timed(request, context)).await.map_err(failed)?.into_inner())
    }

    /// The chat service's models; none where the edge has no chat service.
    ///
    /// # Errors
    /// When the service does not answer within `limit`.
    pub async fn list_chat(&self, limit: Duration) -> Result<Vec<ListedModel>, tonic::Status> {
        let Some(mut client) = self.chat.clone() else { return Ok(Vec::new()) };
        let answer =
            tokio::time::timeout(limit, client.list_models(chat::ListModelsRequest {})).await;
        let models = answer
            .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??
            .into_inner();
        Ok(models.models.into_iter().map(translate::models::from_chat).collect())
    }

    /// The embedding service's models; none where the edge has no embedding service.
    ///
    /// # Errors
    /// When the service does not answer within `limit`.
    pub async fn list_embedding(&self, limit: Duration) -> Result<Vec<ListedModel>, tonic::Status> {
        let Some(mut client) = self.embedding.clone() else { return Ok(Vec::new()) };
        let answer =
            tokio::time::timeout(limit, client.list_models(embedding::ListModelsRequest {})).await;
        let models = answer
            .map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??
            .into_inner();
        Ok(models.models.into_iter().map(translate::models::from_embedding).collect())
    }
}

/// Now, in Unix seconds.
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn redis(error: StateError) -> EndpointError {
    EndpointError { option: "state.redis_url".to_owned(), cause: error.to_string() }
}

fn pass(config: &Config, tasks: &Tasks) -> Result<Pass, EndpointError> {
    Pass::build("edge", &config.doors, tasks).map_err(|problems| EndpointError {
        option: "doors".to_owned(),
        cause: problems.in_one_line(),
    })
}

fn client(
    service: &'static str,
    config: &ClientConfig,
    pass: &Pass,
    tasks: &Tasks,
) -> Result<Option<Client>, EndpointError> {
    if config.endpoints.is_empty() {
        return Ok(None);
    }
    let built = chassis::grpc::client(service, config, pass, tasks);
    let option = || format!("{service}.endpoints");
    built.map(Some).map_err(|cause| EndpointError { option: option(), cause: format!("{cause:#}") })
}

/// The message with what is left of the request's time as `grpc-timeout`, and a little more: the edge ends the call itself, and
/// tells the end of its time from a service that is away.
fn timed<T>(message: T, context: &Context) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(context.deadline.saturating_duration_since(Instant::now()) + TIMEOUT_SLACK);
    request
}

/// What a service said as a fault. Here a client's answer loses the cause, so here it is logged.
fn failed(status: tonic::Status) -> Fault {
    let (grpc, cause) = (status.code(), status.message().to_owned());
    let fault = Fault::from(status);
    if fault.code.http() >= 500 {
        tracing::warn!(?grpc, cause, code = fault.code.as_str(), "a service failed");
    }
    fault
}

fn no_service() -> Fault {
    Fault::new(ErrorCode::ModalityNotSupported, "this endpoint has no service for this route")
}
