//! A server elsewhere behind a `Backend`: any that speaks the OpenAI protocol (vLLM, llama.cpp, TGI, Ollama, a cloud).
//!
//! Separate from the client of such servers, which knows nothing of ours. `remote/body.rs` writes what is asked,
//! `remote/reader.rs` reads what is answered. The server's words reach the client who asked where they explain a bad request,
//! and never a log: they may repeat the prompt.

mod body;
mod reader;
#[cfg(test)]
mod tests;

use crate::backend::{Backend, CompleteRequest, GenerateRequest, ModelInfo, Piece, PieceStream};
use crate::config::RemoteConfig;
use crate::error::ChatError;
use anyhow::Context as _;
use api_types::{ErrorCode, Fault};
use async_trait::async_trait;
use body::Dialect;
use chassis::config::Secret;
use chassis::telemetry::trace;
use reader::Reader;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use tracing::{Instrument as _, Span};
use upstream::{ApiKey, EndpointConfig, Events, Pool, PoolConfig, Route, UpstreamError, Verdict};

/// A model that a server elsewhere answers for.
#[derive(Debug)]
pub struct Remote {
    info: ModelInfo,
    dialect: Dialect,
    pool: Arc<Pool>,
}

impl Remote {
    /// Builds the clients; connects to nothing yet.
    ///
    /// # Errors
    /// When the key's file cannot be read, or a base URL or the key cannot work.
    pub fn build(config: &RemoteConfig) -> anyhow::Result<Self> {
        let pool = pool(config);
        Ok(Self {
            info: info(config),
            dialect: Dialect {
                model: config.model.clone().unwrap_or_else(|| config.name.clone()),
                max_completion_tokens: config.max_completion_tokens,
            },
            pool: Arc::new(
                pool.with_context(|| format!("`chat.remote`, model `{}`", config.name))?,
            ),
        })
    }

    /// Watches over the health of the endpoints for as long as it is polled.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        let pool = Arc::clone(&self.pool);
        async move { pool.watch().await }
    }

    async fn ask(
        &self,
        route: Route,
        body: &Value,
        reader: Reader,
    ) -> Result<PieceStream, ChatError> {
        let span = self.span(route);
        match self.pool.stream(route, body).instrument(span.clone()).await {
            Ok(events) => Ok(pieces(events, reader, (self.info.name.clone(), span))),
            Err(error) => {
                trace::failed(&span, error.kind());
                Err(failed(&self.info.name, &error))
            }
        }
    }
}

impl Remote {
    /// The span of a call, until the end of its answer. The server speaks OpenAI's protocol, whoever it is of.
    fn span(&self, route: Route) -> Span {
        let operation = match route {
            Route::ChatCompletions => "chat",
            Route::Completions => "text_completion",
        };
        tracing::debug_span!(
            "upstream",
            otel.name = format!("{operation} {}", self.dialect.model),
            otel.kind = "client",
            gen_ai.operation.name = operation,
            gen_ai.provider.name = "openai",
            gen_ai.request.model = self.dialect.model,
        )
    }
}

#[async_trait]
impl Backend for Remote {
    fn models(&self) -> Vec<ModelInfo> {
        vec![self.info.clone()]
    }

    async fn generate(&self, request: GenerateRequest) -> Result<PieceStream, ChatError> {
        let reader = Reader::of_conversation(&request);
        self.ask(Route::ChatCompletions, &body::chat(request, &self.dialect), reader).await
    }

    async fn complete(&self, request: CompleteRequest) -> Result<PieceStream, ChatError> {
        self.ask(
            Route::Completions,
            &body::completions(request, &self.dialect),
            Reader::of_prompts(),
        )
        .await
    }
}

fn info(config: &RemoteConfig) -> ModelInfo {
    ModelInfo {
        name: config.name.clone(),
        publisher: config.publisher.clone(),
        version: config.model.clone().unwrap_or_default(),
        context_tokens: config.context_tokens,
        chat: config.chat,
        completions: config.completions,
        tools: config.tools,
        json_object: config.json_object,
        json_schema: config.json_schema,
        images: config.images,
        audio: config.audio,
        logprobs: config.logprobs,
        extra_parameters: config.extra_parameters.clone(),
        parameters: config.parameters.clone(),
        suffix: config.suffix,
    }
}

fn pool(config: &RemoteConfig) -> Result<Pool, UpstreamError> {
    let key = config.api_key.as_ref().map(Secret::expose);
    Pool::build(&PoolConfig {
        endpoints: EndpointConfig::list(&config.base_urls, &config.weights),
        api_key: ApiKey::find(key, config.api_key_file.as_deref())?,
        options: config.connection.clone(),
        headers: trace::headers,
    })
}

/// An answer being read.
struct Answer {
    /// None when it has ended.
    events: Option<Events>,
    reader: Reader,
    ready: VecDeque<Piece>,
    model: String,
    span: Span,
}

fn pieces(events: Events, reader: Reader, (model, span): (String, Span)) -> PieceStream {
    trace::attribute(&span, "server.address", events.endpoint().to_owned());
    let answer = Answer { events: Some(events), reader, ready: VecDeque::new(), model, span };
    Box::pin(futures::stream::unfold(answer, |mut answer| async move {
        let item = answer.next().await.transpose()?;
        Some((item, answer))
    }))
}

impl Answer {
    async fn next(&mut self) -> Result<Option<Piece>, ChatError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let Some(events) = &mut self.events else { return Ok(None) };
            let endpoint = events.endpoint().to_owned();
            let read = match events.next().await {
                Ok(Some(event)) => self.reader.read(event, &mut self.ready),
                Ok(None) => {
                    self.events = None;
                    self.reader.finish(&mut self.ready)
                }
                Err(error) => return Err(self.end(&error)),
            };
            if let Err(reason) = read {
                return Err(self.end(&UpstreamError::Broken { endpoint, reason }));
            }
        }
    }

    /// Nothing comes after an error; the connection is closed.
    fn end(&mut self, error: &UpstreamError) -> ChatError {
        self.events = None;
        self.ready.clear();
        trace::failed(&self.span, error.kind());
        failed(&self.model, error)
    }
}

/// Logs a failure of a server, without its words, and says it in ours.
fn failed(model: &str, error: &UpstreamError) -> ChatError {
    metrics::counter!("chat_remote_failures_total", "kind" => error.kind()).increment(1);
    tracing::warn!(model, error = error.for_log(), "a model server failed");
    fault(model, error).into()
}

fn fault(model: &str, error: &UpstreamError) -> Fault {
    let (code, retry_after) = match error.verdict() {
        Verdict::BadRequest => (ErrorCode::InvalidRequest, None),
        Verdict::TooLong => (ErrorCode::ContextLengthExceeded, None),
        Verdict::Filtered => (ErrorCode::ContentFiltered, None),
        Verdict::UnknownModel => (ErrorCode::UnknownModel, None),
        Verdict::RateLimited(after) => (ErrorCode::RateLimited, Some(after)),
        Verdict::Unavailable(after) => (ErrorCode::Unavailable, Some(after)),
        Verdict::KeyRefused | Verdict::Failed => (ErrorCode::UpstreamFailed, None),
        Verdict::Late => (ErrorCode::Timeout, None),
    };
    let mut fault = Fault::new(code, error.for_client(model));
    fault.retry_after = retry_after;
    let unknown = code == ErrorCode::UnknownModel;
    fault.target = error.field().map(str::to_owned).or_else(|| unknown.then(|| "model".to_owned()));
    fault
}
