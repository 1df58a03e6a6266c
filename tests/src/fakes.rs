//! Deterministic models: what they answer is a function of what they are asked, so a test can say it beforehand.
//!
//! The chat models repeat the last user message, unless that begins with `/`: then they do what the word says (`/tool`,
//! `/die`, `/fail`, `/hang`, `/hold`, `/emoji`, `/bad`, `/think`, `/long`, `/extra`). Where images are sent they say how many.
//! Vectors are made of the bytes of the input.

use async_trait::async_trait;
use chat::ChatError;
use chat::backend::{
    Backend, CompleteRequest, FinishReason, GenerateRequest, ModelInfo, ParameterLimit, Part,
    Piece, PieceStream, Prompt, TokenLogprob, Usage,
};
use content_safety::{
    Attack, Category, Grade, Grades, Judge, Picture, SafetyError, Severity, TextFinding,
};
use embedding::embedder::{EmbedRequest, Embedded, Embedder, Inputs, TextInput};
use embedding::{EmbeddingError, embedder};
use futures::{StreamExt as _, stream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Length of the fake vectors.
const DIMENSIONS: usize = 8;
/// Length of those of `seekers`.
const LONGER_DIMENSIONS: usize = 24;

/// Repeats what it is told, under several names. `running` counts the streams that are alive.
#[derive(Debug, Default, Clone)]
pub struct Parrot {
    running: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    released: Arc<Notify>,
}

impl Parrot {
    /// Streams that have neither ended nor been dropped.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Streams that there ever were.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Lets a stream that keeps silent after `/hold` go on.
    pub fn release(&self) {
        self.released.notify_one();
    }
}

/// Counts a stream for as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(running))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for Parrot {
    fn models(&self) -> Vec<ModelInfo> {
        let talk = ModelInfo {
            name: "talk".into(),
            publisher: "Koine".into(),
            version: "fake".into(),
            context_tokens: 64,
            chat: true,
            completions: true,
            ..ModelInfo::default()
        };
        let tools = ModelInfo {
            name: "tools".into(),
            completions: false,
            tools: true,
            json_object: true,
            json_schema: true,
            logprobs: true,
            extra_parameters: vec!["safe_mode".into()],
            ..talk.clone()
        };
        let refused = ParameterLimit { refused: true, ..ParameterLimit::default() };
        let cool = ParameterLimit { maximum: Some(1.0), ..ParameterLimit::default() };
        let thinker = ModelInfo {
            name: "thinker".into(),
            completions: false,
            parameters: BTreeMap::from([
                ("temperature".to_owned(), cool),
                ("top_p".to_owned(), refused),
            ]),
            ..talk.clone()
        };
        let eyes =
            ModelInfo { name: "eyes".into(), completions: false, images: true, ..talk.clone() };
        let base = ModelInfo { name: "base".into(), chat: false, ..talk.clone() };
        vec![talk, tools, thinker, eyes, base]
    }

    async fn generate(&self, request: GenerateRequest) -> Result<PieceStream, ChatError> {
        let last = request.messages.iter().rev().find_map(|m| match m.content.first() {
            Some(Part::Text(text)) if m.role == chat::backend::Role::User => Some(text.clone()),
            _ => None,
        });
        let parts = request.messages.iter().flat_map(|message| &message.content);
        let images = parts.filter(|part| matches!(part, Part::ImageUrl { .. })).count();
        let seen = format!("I see {images} image");
        let said = if images > 0 { seen } else { last.unwrap_or_default() };
        let mut pieces = script(&said, &request)?;
        let words: usize = request.messages.iter().map(|m| m.content.len()).sum();
        pieces.push(Ok(Piece::Usage(Usage {
            prompt_tokens: u32::try_from(words).unwrap_or(0),
            completion_tokens: u32::try_from(pieces.len() - 1).unwrap_or(0),
            ..Usage::default()
        })));
        Ok(self.play(pieces))
    }

    async fn complete(&self, request: CompleteRequest) -> Result<PieceStream, ChatError> {
        let mut pieces = Vec::new();
        for (choice, prompt) in (0..).zip(&request.prompts) {
            let text = match prompt {
                Prompt::Text(text) => format!(" after {text}"),
                Prompt::Tokens(ids) => format!(" after {} tokens", ids.len()),
            };
            pieces.extend(words(choice, &text, None));
            pieces.push(Ok(Piece::Finished { choice, reason: FinishReason::Stop }));
        }
        let generated = u32::try_from(pieces.len() - request.prompts.len()).unwrap_or(0);
        let prompt_tokens = u32::try_from(request.prompts.len()).unwrap_or(0);
        pieces.push(Ok(Piece::Usage(Usage {
            prompt_tokens,
            completion_tokens: generated,
            ..Usage::default()
        })));
        Ok(self.play(pieces))
    }
}

impl Parrot {
    /// The pieces as a stream; after `/hang` it never ends by itself, after `/hold` it goes on when it is released.
    fn play(&self, pieces: Vec<Result<Piece, ChatError>>) -> PieceStream {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let alive = Alive::new(&self.running);
        let says = |word: &str| {
            pieces.iter().any(|p| matches!(p, Ok(Piece::Text { text, .. }) if text.trim() == word))
        };
        if says("/hold") {
            let released = Arc::clone(&self.released);
            let played = stream::iter(pieces).enumerate().then(move |(i, piece)| {
                let released = Arc::clone(&released);
                async move {
                    if i == 1 {
                        released.notified().await;
                    }
                    piece
                }
            });
            return Box::pin(played.inspect(move |_piece| {
                let _counted = &alive;
            }));
        }
        let hangs = says("/hang");
        let played = stream::iter(pieces).take_while(move |p| {
            std::future::ready(!(hangs && matches!(p, Ok(Piece::Finished { .. }))))
        });
        let rest = if hangs { stream::pending().boxed() } else { stream::empty().boxed() };
        Box::pin(played.chain(rest).map(move |piece| {
            let _counted = &alive;
            piece
        }))
    }
}

fn script(
    said: &str,
    request: &GenerateRequest,
) -> Result<Vec<Result<Piece, ChatError>>, ChatError> {
    let mut pieces = Vec::new();
    let mut reason = FinishReason::Stop;
    match said {
        "/fail" => return Err(ChatError::Engine("the fake fails".into())),
        "/long" => {
            let message =
                "the prompt has 99 tokens; the model `talk` takes 64 tokens of prompt and answer"
                    .into();
            return Err(ChatError::ContextLength { message, target: "messages" });
        }
        "/die" => {
            pieces = words(0, "two pieces", None);
            pieces.push(Err(ChatError::Engine("the fake dies".into())));
        }
        "/tool" => {
            reason = FinishReason::ToolCalls;
            pieces = tool_call(&request.tools.first().map(|t| t.name.clone()).unwrap_or_default());
        }
        "/think" => {
            pieces.push(Ok(Piece::Reasoning { choice: 0, text: "I had better think. ".into() }));
            pieces.extend(words(0, "Done thinking.", None));
        }
        "/hold" => pieces = words(0, "/hold and go on", None),
        "/emoji" => pieces = words(0, "a 🦀 and a 👩‍🚀", None),
        "/bad" => pieces = words(0, "This is fine. Now VIOLENCE6 comes. Then the end.", None),
        "/extra" => {
            pieces = words(0, &format!("extra: {}", serde_json::json!(request.extra)), None);
        }
        _ => {
            for choice in 0..request.sampling.n.max(1) {
                let text = if said.starts_with('/') {
                    said.to_owned()
                } else {
                    format!("You said: {said}")
                };
                pieces.extend(words(choice, &text, request.sampling.top_logprobs));
                if choice + 1 < request.sampling.n {
                    pieces.push(Ok(Piece::Finished { choice, reason }));
                }
            }
        }
    }
    let last = request.sampling.n.max(1) - 1;
    pieces.push(Ok(Piece::Finished { choice: last, reason }));
    Ok(pieces)
}

fn words(choice: u32, text: &str, logprobs: Option<u32>) -> Vec<Result<Piece, ChatError>> {
    let piece = |word: &str| {
        let token = TokenLogprob {
            token: word.to_owned(),
            logprob: -0.5,
            bytes: word.as_bytes().to_vec(),
            alternatives: vec![
                ("other".to_owned(), -1.5, b"other".to_vec());
                logprobs.unwrap_or(0) as usize
            ],
        };
        let logprobs = logprobs.map(|_| token).into_iter().collect();
        Ok(Piece::Text { choice, text: word.to_owned(), logprobs })
    };
    text.split_inclusive(' ').map(piece).collect()
}

fn tool_call(name: &str) -> Vec<Result<Piece, ChatError>> {
    let step = |id: Option<&str>, name: Option<&str>, arguments: &str| {
        Ok(Piece::ToolCall {
            choice: 0,
            index: 0,
            id: id.map(str::to_owned),
            name: name.map(str::to_owned),
            arguments: arguments.to_owned(),
        })
    };
    vec![
        step(Some("call_1"), Some(name), ""),
        step(None, None, "{\"city\":"),
        step(None, None, "\"Oslo\"}"),
    ]
}

/// Makes vectors of bytes: `vectors` and `seekers` of texts, `pictures` and `captions` of images.
#[derive(Debug, Default)]
pub struct ByteVectors;

#[async_trait]
impl Embedder for ByteVectors {
    fn models(&self) -> Vec<embedder::ModelInfo> {
        let vectors = embedder::ModelInfo {
            name: "vectors".into(),
            publisher: "Koine".into(),
            version: "fake".into(),
            text: true,
            dimensions: 8,
            shorter_dimensions: vec![4],
            max_tokens: 256,
            ..embedder::ModelInfo::default()
        };
        let pictures = embedder::ModelInfo {
            name: "pictures".into(),
            text: false,
            image: true,
            shorter_dimensions: Vec::new(),
            max_tokens: 0,
            ..vectors.clone()
        };
        let seekers = embedder::ModelInfo {
            name: "seekers".into(),
            dimensions: u32::try_from(LONGER_DIMENSIONS).unwrap_or(0),
            shorter_dimensions: Vec::new(),
            any_dimensions: true,
            purposes: vec![embedder::Purpose::Query, embedder::Purpose::Document],
            ..vectors.clone()
        };
        let captions = embedder::ModelInfo {
            name: "captions".into(),
            image_with_text: true,
            images_per_call: 2,
            ..pictures.clone()
        };
        vec![vectors, pictures, seekers, captions]
    }

    async fn embed(&self, request: EmbedRequest) -> Result<Embedded, EmbeddingError> {
        let own = if request.model == "seekers" { LONGER_DIMENSIONS } else { DIMENSIONS };
        let length = request.dimensions.map_or(own, |d| d as usize);
        let inputs: Vec<Vec<u8>> = match request.inputs {
            Inputs::Texts(texts) => texts.into_iter().map(text_bytes).collect(),
            Inputs::Images(images) => images.into_iter().map(|i| i.image.to_vec()).collect(),
        };
        let count = u32::try_from(inputs.len()).unwrap_or(0);
        Ok(Embedded {
            vectors: inputs.iter().map(|bytes| vector(bytes, length)).collect(),
            prompt_tokens: count,
            images: 0,
        })
    }
}

fn text_bytes(text: TextInput) -> Vec<u8> {
    match text {
        TextInput::Text(text) => text.into_bytes(),
        TextInput::Tokens(ids) => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
    }
}

/// Values in -1..1 that are exact in binary, so that the goldens hold no rounding.
fn vector(bytes: &[u8], length: usize) -> Vec<f32> {
    let at = |i: usize| bytes.get(i % bytes.len().max(1)).copied().unwrap_or(0);
    (0..length)
        .map(|i| (f32::from(at(i)) - 110.0 + f32::from(u8::try_from(i).unwrap_or(0))) / 128.0)
        .collect()
}

/// Finds harm where a text names it with its severity (`VIOLENCE6`, over two lines too), and an attack where it says `JAILBREAK`.
#[derive(Debug, Default)]
pub struct WordJudge;

#[async_trait]
impl Judge for WordJudge {
    async fn texts(&self, texts: Vec<String>) -> Result<Vec<TextFinding>, SafetyError> {
        Ok(texts.iter().map(|text| finding(text)).collect())
    }

    async fn pictures(&self, pictures: Vec<Picture>) -> Result<Vec<Grades>, SafetyError> {
        Ok(vec![Grades::default().with(Category::Sexual, Grade::default()); pictures.len()])
    }

    fn version(&self) -> &'static str {
        "words"
    }
}

fn finding(text: &str) -> TextFinding {
    let mut grades = Grades::default();
    for category in Category::ALL {
        let word = category.as_str().to_uppercase();
        let rest = text.find(&word).map(|at| text[at + word.len()..].trim_start_matches('\n'));
        let digit = rest.and_then(|rest| rest.chars().next());
        let severity =
            digit.and_then(|c| c.to_digit(10)).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
        grades = grades.with(
            category,
            Grade {
                severity: Severity::new(severity),
                score: f32::from(severity) / 8.0,
                span: None,
            },
        );
    }
    let detected = text.contains("JAILBREAK");
    let attack = Attack { detected, score: f32::from(u8::from(detected)), span: None };
    TextFinding { grades, jailbreak: attack, indirect_attack: attack }
}
