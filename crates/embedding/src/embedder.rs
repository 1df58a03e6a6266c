//! What can embed: texts or images in, vectors out.
//!
//! The seam between the gRPC door and everything that computes: models of ours, an upstream server, the fake of a test. These
//! types are the service's own; only `service.rs` knows their wire form.

use crate::error::EmbeddingError;
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;

/// Something that embeds. An embedder serves one or more models.
#[async_trait]
pub trait Embedder: Send + Sync + fmt::Debug {
    /// The models it serves, with what each can do: the source of every 422, so it must be true.
    fn models(&self) -> Vec<ModelInfo>;

    /// One vector per input, in the order of the inputs. `request.model` is one of `models`, spelt as there, and the request
    /// has at least one input. Dropping the future gives up the work that has not begun.
    ///
    /// # Errors
    /// An input that is empty, unreadable or too long, a parameter that the model cannot do, no free capacity.
    async fn embed(&self, request: EmbedRequest) -> Result<Embedded, EmbeddingError>;
}

/// A model and what it can do (see `proto/inference/embedding/v1/embedding.proto`, `Model`, for each field's meaning).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name that requests use.
    pub name: String,
    /// Who published the weights.
    pub publisher: String,
    /// Version of the weights.
    pub version: String,
    /// Embeds texts.
    pub text: bool,
    /// Embeds images.
    pub image: bool,
    /// An image may come with a text.
    pub image_with_text: bool,
    /// Length of the full vector.
    pub dimensions: u32,
    /// Other lengths that may be asked for.
    pub shorter_dimensions: Vec<u32>,
    /// Every length up to the full one may be asked for.
    pub any_dimensions: bool,
    /// Longest text in tokens, special tokens included; 0 for a model without texts.
    pub max_tokens: u32,
    /// What inputs may be for, besides plain text.
    pub purposes: Vec<Purpose>,
    /// Most images of one call; 0 is as many as the service takes.
    pub images_per_call: u32,
    /// Extra parameters it takes; `*` is any.
    pub extra_parameters: Vec<String>,
}

/// What an input is for; some models put different words before queries and documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Nothing in particular; every model takes it.
    #[default]
    Text,
    /// Something to search with.
    Query,
    /// Something to be found.
    Document,
}

impl Purpose {
    /// The value of `input_type` in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Query => "query",
            Self::Document => "document",
        }
    }
}

/// Inputs to embed.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    /// Which model.
    pub model: String,
    /// At least one.
    pub inputs: Inputs,
    /// Length of the vectors; none is the model's own.
    pub dimensions: Option<u32>,
    /// What the inputs are for.
    pub purpose: Purpose,
    /// Passed-through parameters that are not part of the API.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Texts or images.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Texts.
    Texts(Vec<TextInput>),
    /// Images.
    Images(Vec<ImageInput>),
}

impl Inputs {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Images(images) => images.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextInput {
    /// To be tokenized.
    Text(String),
    /// Token ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInput {
    /// The encoded file.
    pub image: Bytes,
    /// Text that belongs to it; empty for none.
    pub text: String,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embedded {
    /// One per input, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were embedded, special tokens included.
    pub prompt_tokens: u32,
    /// Images that were embedded.
    pub images: u32,
}

/// All embedders of a service, found by the names of their models.
#[derive(Debug, Clone, Default)]
pub struct Embedders {
    entries: Vec<(ModelInfo, Arc<dyn Embedder>)>,
}

impl Embedders {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the models of `embedder`, after those that are there.
    ///
    /// # Errors
    /// The name of a model that is served already; names are compared without regard to case.
    pub fn add(&mut self, embedder: &Arc<dyn Embedder>) -> Result<(), String> {
        for info in embedder.models() {
            if self.find(&info.name).is_ok() {
                return Err(info.name);
            }
            self.entries.push((info, Arc::clone(embedder)));
        }
        Ok(())
    }

    /// What all models can do, in the order in which they were added.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.entries.iter().map(|(info, _)| info)
    }

    /// What the model called `name` can do, whatever the case of the name.
    ///
    /// # Errors
    /// `UnknownModel`, which lists the names there are.
    pub fn model(&self, name: &str) -> Result<&ModelInfo, EmbeddingError> {
        self.find(name).map(|(info, _)| info)
    }

    /// Embeds with the model that the request names, whatever the case of the name.
    ///
    /// # Errors
    /// An unknown model, a kind of input or a parameter that the model does not take, and what `Embedder::embed` answers.
    pub async fn embed(&self, mut request: EmbedRequest) -> Result<Embedded, EmbeddingError> {
        let (info, embedder) = self.find(&request.model)?;
        info.check(&request)?;
        request.model.clone_from(&info.name);
        embedder.embed(request).await
    }

    fn find(&self, name: &str) -> Result<&(ModelInfo, Arc<dyn Embedder>), EmbeddingError> {
        let found = self.entries.iter().find(|(info, _)| info.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let known: Vec<_> = self.models().map(|model| format!("`{}`", model.name)).collect();
            EmbeddingError::UnknownModel { model: name.to_owned(), known: known.join(", ") }
        })
    }
}

impl ModelInfo {
    /// Whether the model can do what `request` asks for, as far as that shows without reading the inputs.
    fn check(&self, request: &EmbedRequest) -> Result<(), EmbeddingError> {
        let (served, kind) = match &request.inputs {
            Inputs::Texts(_) => (self.text, "texts"),
            Inputs::Images(_) => (self.image, "images"),
        };
        if !served {
            return Err(EmbeddingError::WrongKind { model: self.name.clone(), kind });
        }
        self.check_dimensions(request.dimensions)?;
        let purpose = request.purpose;
        if purpose != Purpose::Text && !self.purposes.contains(&purpose) {
            let message = format!(
                "the model `{}` does not distinguish `input_type` `{}`; it takes {}",
                self.name,
                purpose.as_str(),
                self.purpose_names()
            );
            return Err(EmbeddingError::unsupported(
                "input_type",
                purpose.as_str().into(),
                message,
            ));
        }
        let Inputs::Images(images) = &request.inputs else { return Ok(()) };
        match images.iter().position(|image| !image.text.is_empty() && !self.image_with_text) {
            Some(index) => Err(EmbeddingError::unsupported(
                format!("input.{index}.text"),
                // The text itself is the caller's own and stays out of errors.
                "text".into(),
                format!("the model `{}` takes no text with an image", self.name),
            )),
            None => Ok(()),
        }
    }

    fn check_dimensions(&self, asked: Option<u32>) -> Result<(), EmbeddingError> {
        let Some(asked) = asked else { return Ok(()) };
        if asked == 0 {
            return Err(EmbeddingError::invalid("dimensions", "`dimensions` must be at least 1"));
        }
        let within = self.any_dimensions && asked <= self.dimensions;
        if asked == self.dimensions || within || self.shorter_dimensions.contains(&asked) {
            return Ok(());
        }
        let mut known: Vec<String> = self.shorter_dimensions.iter().map(u32::to_string).collect();
        known.push(self.dimensions.to_string());
        let known = if self.any_dimensions {
            format!("1 to {}", self.dimensions)
        } else {
            known.join(", ")
        };
        let message = format!(
            "the model `{}` gives vectors of {known} dimensions, not of {asked}",
            self.name
        );
        Err(EmbeddingError::unsupported("dimensions", asked.into(), message))
    }

    fn purpose_names(&self) -> String {
        let all = std::iter::once(Purpose::Text).chain(self.purposes.iter().copied());
        all.map(|purpose| format!("`{}`", purpose.as_str())).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::Fault;

    fn model() -> ModelInfo {
        ModelInfo {
            name: "pair".into(),
            text: true,
            image: true,
            dimensions: 8,
            shorter_dimensions: vec![2, 4],
            purposes: vec![Purpose::Query],
            ..ModelInfo::default()
        }
    }

    fn request() -> EmbedRequest {
        EmbedRequest {
            model: "pair".into(),
            inputs: Inputs::Texts(vec![TextInput::Text("a".into())]),
            dimensions: None,
            purpose: Purpose::Text,
            extra: serde_json::Map::new(),
        }
    }

    fn fault(model: &ModelInfo, request: &EmbedRequest) -> Fault {
        model.check(request).unwrap_err().into()
    }

    #[test]
    fn known_dimensions_pass_and_others_are_a_422_with_the_value() {
        for dimensions in [None, Some(2), Some(4), Some(8)] {
            model().check(&EmbedRequest { dimensions, ..request() }).unwrap();
        }
        let fault = fault(&model(), &EmbedRequest { dimensions: Some(3), ..request() });
        assert_eq!(fault.code.http(), 422);
        assert_eq!(fault.target.as_deref(), Some("dimensions"));
        assert_eq!(fault.input, Some(3.into()));
        assert!(fault.message.contains("2, 4, 8"), "{}", fault.message);
    }

    #[test]
    fn any_shorter_length_passes_where_the_model_allows_it_but_no_longer_one() {
        let model = ModelInfo { any_dimensions: true, ..model() };
        model.check(&EmbedRequest { dimensions: Some(3), ..request() }).unwrap();
        assert_eq!(
            fault(&model, &EmbedRequest { dimensions: Some(9), ..request() }).code.http(),
            422
        );
        assert_eq!(
            fault(&model, &EmbedRequest { dimensions: Some(0), ..request() }).code.http(),
            400
        );
    }

    #[test]
    fn every_model_takes_the_purpose_text_but_others_only_if_it_says_so() {
        model().check(&EmbedRequest { purpose: Purpose::Text, ..request() }).unwrap();
        model().check(&EmbedRequest { purpose: Purpose::Query, ..request() }).unwrap();
        let fault = fault(&model(), &EmbedRequest { purpose: Purpose::Document, ..request() });
        assert_eq!(fault.target.as_deref(), Some("input_type"));
        assert_eq!(fault.input, Some("document".into()));
    }

    #[test]
    fn text_beside_an_image_names_the_image() {
        let image = |text: &str| ImageInput { image: Bytes::new(), text: text.into() };
        let inputs = Inputs::Images(vec![image(""), image("secret words")]);
        let fault = fault(&model(), &EmbedRequest { inputs, ..request() });
        assert_eq!(fault.target.as_deref(), Some("input.1.text"));
        assert!(!fault.message.contains("secret"));
    }

    #[test]
    fn a_kind_that_the_model_does_not_embed_is_a_404() {
        let model = ModelInfo { text: false, ..model() };
        assert_eq!(fault(&model, &request()).code.as_str(), "modality_not_supported");
    }
}
