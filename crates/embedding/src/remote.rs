//! A server elsewhere behind an `Embedder`: any that speaks the OpenAI protocol (vLLM, TEI, llama.cpp, Ollama, a cloud).
//!
//! Separate from the client of such servers, which knows nothing of ours. Texts alone: the protocol has no images. Answers are
//! checked, because a vector at the wrong place or of the wrong length would poison whatever is built on it.

#[cfg(test)]
mod tests;

use crate::config::RemoteConfig;
use crate::embedder::{EmbedRequest, Embedded, Embedder, Inputs, ModelInfo, Purpose, TextInput};
use crate::error::EmbeddingError;
use anyhow::Context as _;
use api_types::{ErrorCode, Fault};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chassis::config::Secret;
use chassis::telemetry::trace;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tracing::{Instrument as _, Span};
use upstream::{ApiKey, EndpointConfig, Pool, PoolConfig, UpstreamError, Verdict};

/// A model that a server elsewhere answers for.
#[derive(Debug)]
pub struct Remote {
    info: ModelInfo,
    /// The server's own name of the model.
    model: String,
    /// Texts of one call.
    batch: usize,
    pool: Arc<Pool>,
}

impl Remote {
    /// Builds the clients; connects to nothing yet.
    ///
    /// # Errors
    /// When the key's file cannot be read, or a base URL or the key cannot work.
    pub fn build(config: &RemoteConfig) -> anyhow::Result<Self> {
        let context = || format!("`embedding.remote`, model `{}`", config.name);
        Ok(Self {
            info: info(config),
            model: config.model.clone().unwrap_or_else(|| config.name.clone()),
            batch: if config.batch == 0 { usize::MAX } else { config.batch },
            pool: Arc::new(pool(config).with_context(context)?),
        })
    }

    /// Watches over the health of the endpoints for as long as it is polled.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        let pool = Arc::clone(&self.pool);
        async move { pool.watch().await }
    }

    /// One call: the vectors of these texts, in their order, and their tokens.
    async fn call(
        &self,
        body: &Value,
        many: usize,
    ) -> Result<(Vec<Vec<f32>>, u32), EmbeddingError> {
        let span = self.span();
        let asked = async {
            let answer = self.pool.embeddings(body).await?;
            let dimensions = body_dimensions(body).unwrap_or(self.info.dimensions);
            read(answer, many, dimensions).map_err(|reason| {
                let endpoint = self.model.clone();
                UpstreamError::Broken { endpoint, reason }
            })
        };
        let answered = asked.instrument(span.clone()).await;
        if let Err(error) = &answered {
            trace::failed(&span, error.kind());
        }
        answered.map_err(|error| self.failed(&error))
    }

    /// The span of a call. The server speaks OpenAI's protocol, whoever it is of.
    fn span(&self) -> Span {
        tracing::debug_span!(
            "upstream",
            otel.name = format!("embeddings {}", self.model),
            otel.kind = "client",
            gen_ai.operation.name = "embeddings",
            gen_ai.provider.name = "openai",
            gen_ai.request.model = self.model,
        )
    }

    /// Logs a failure of the server, without its words, and says it in ours.
    fn failed(&self, error: &UpstreamError) -> EmbeddingError {
        metrics::counter!("embedding_remote_failures_total", "kind" => error.kind()).increment(1);
        let model = self.info.name.as_str();
        tracing::warn!(model, error = error.for_log(), "a model server failed");
        fault(model, error).into()
    }
}

#[async_trait]
impl Embedder for Remote {
    fn models(&self) -> Vec<ModelInfo> {
        vec![self.info.clone()]
    }

    async fn embed(&self, request: EmbedRequest) -> Result<Embedded, EmbeddingError> {
        let EmbedRequest { model: _, inputs, dimensions, purpose, extra } = request;
        let Inputs::Texts(texts) = inputs else {
            let model = self.info.name.clone();
            return Err(EmbeddingError::WrongKind { model, kind: "images" });
        };
        let texts = write_texts(texts)?;
        let mut body = extra;
        body.insert("model".into(), json!(self.model));
        body.insert("encoding_format".into(), json!("float"));
        if let Some(length) = dimensions {
            body.insert("dimensions".into(), json!(length));
        }
        if purpose != Purpose::Text {
            body.insert("input_type".into(), json!(purpose.as_str()));
        }
        let mut body = Value::Object(body);
        let mut embedded = Embedded::default();
        for batch in texts.chunks(self.batch) {
            body["input"] = json!(batch);
            let (vectors, tokens) = self.call(&body, batch.len()).await?;
            embedded.vectors.extend(vectors);
            embedded.prompt_tokens = embedded.prompt_tokens.saturating_add(tokens);
        }
        Ok(embedded)
    }
}

fn info(config: &RemoteConfig) -> ModelInfo {
    ModelInfo {
        name: config.name.clone(),
        publisher: config.publisher.clone(),
        version: config.model.clone().unwrap_or_default(),
        text: true,
        image: false,
        image_with_text: false,
        dimensions: config.dimensions,
        shorter_dimensions: config.shorter_dimensions.clone(),
        any_dimensions: config.any_dimensions,
        max_tokens: config.max_tokens,
        purposes: config.input_types.clone(),
        images_per_call: 0,
        extra_parameters: config.extra_parameters.clone(),
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

/// The protocol takes strings or token ids, not both in one call.
fn write_texts(texts: Vec<TextInput>) -> Result<Vec<Value>, EmbeddingError> {
    let mut kinds = texts.iter().map(|text| matches!(text, TextInput::Tokens(_)));
    let first = kinds.next();
    if kinds.any(|kind| Some(kind) != first) {
        let message =
            "`input` mixes texts and token ids, which this model does not take in one request";
        return Err(EmbeddingError::invalid("input", message));
    }
    let write = |text| match text {
        TextInput::Text(text) => json!(text),
        TextInput::Tokens(ids) => json!(ids),
    };
    Ok(texts.into_iter().map(write).collect())
}

fn body_dimensions(body: &Value) -> Option<u32> {
    body.get("dimensions")?.as_u64().and_then(|length| u32::try_from(length).ok())
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Vector,
}

/// Numbers, or base64 of little-endian floats from servers that know nothing else.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

/// The vectors in the order of their inputs, and the tokens; the error says what is wrong with the answer.
fn read(answer: Value, many: usize, dimensions: u32) -> Result<(Vec<Vec<f32>>, u32), String> {
    let answer: Answer = serde_json::from_value(answer)
        .map_err(|cause| format!("the answer has an unknown shape: {cause}"))?;
    let found = answer.data.len();
    if found != many {
        return Err(format!("the answer has {found} vectors for {many} inputs"));
    }
    let mut vectors = vec![Vec::new(); many];
    for (position, Item { index, embedding }) in answer.data.into_iter().enumerate() {
        let vector = floats(embedding)?;
        if u32::try_from(vector.len()) != Ok(dimensions) {
            return Err(format!("a vector has {} numbers, not {dimensions}", vector.len()));
        }
        match vectors.get_mut(index.unwrap_or(position)) {
            Some(slot) if slot.is_empty() => *slot = vector,
            Some(_) | None => return Err("the vectors have wrong indices".to_owned()),
        }
    }
    let tokens = answer.usage.and_then(|usage| usage.get("prompt_tokens")?.as_u64());
    Ok((vectors, u32::try_from(tokens.unwrap_or_default()).unwrap_or(u32::MAX)))
}

fn floats(vector: Vector) -> Result<Vec<f32>, String> {
    match vector {
        Vector::Floats(numbers) => Ok(numbers),
        Vector::Base64(text) => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|cause| format!("a vector is not base64: {cause}"))?;
            let (numbers, rest) = bytes.as_chunks();
            if !rest.is_empty() {
                return Err("a vector has a cut number".to_owned());
            }
            Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
        }
    }
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
