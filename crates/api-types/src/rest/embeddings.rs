//! `POST /embeddings`: texts and their vectors (section 10).

use super::json::{Object, count, filled, object, string, word};
use super::sampling::model;
use super::text_input::{self, TextInput};
use super::{Fields, Names, Parsed, Vocabulary};
use crate::Fault;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Longest vector that may be asked for; the longest of any known model is 8,192.
const MOST_DIMENSIONS: u32 = 65_536;

const NAMES: Names = Names {
    ordinary: &["input", "model", "dimensions", "encoding_format", "input_type"],
    openai: &["user"],
};

/// Texts to embed.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
pub struct EmbeddingsRequest {
    /// At least one, none of them empty.
    #[schemars(schema_with = "input_schema")]
    pub input: Vec<TextInput>,
    /// How to answer.
    #[schemars(flatten)]
    pub options: EmbeddingOptions,
    /// The caller's own user. OpenAI's name.
    pub user: Option<String>,
    /// Accepted names without a field of their own: forwarded to models that take them, ignored by others.
    #[schemars(skip)]
    pub others: Fields,
}

fn input_schema(_: &mut SchemaGenerator) -> Schema {
    text_input::schema(1, usize::MAX)
}

/// What texts and images have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
pub struct EmbeddingOptions {
    /// The deployment; none when absent, null or empty.
    pub model: Option<String>,
    /// Length of the vectors, at least 1; none is the model's own.
    #[schemars(range(min = 1, max = MOST_DIMENSIONS))]
    pub dimensions: Option<u32>,
    /// How vectors are written; none is `float`.
    #[schemars(with = "Option<EncodingFormat>")]
    pub encoding_format: EncodingFormat,
    /// What the input is for; none is `text`.
    #[schemars(with = "Option<InputType>")]
    pub input_type: InputType,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// Numbers.
    #[default]
    Float,
    /// Base64 of little-endian 32-bit floats.
    Base64,
    /// A bit per component, as signed bytes.
    Binary,
    /// A bit per component, as unsigned bytes.
    Ubinary,
    /// A signed byte per component.
    Int8,
    /// An unsigned byte per component.
    Uint8,
}

impl EncodingFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("float", Self::Float),
        ("base64", Self::Base64),
        ("binary", Self::Binary),
        ("ubinary", Self::Ubinary),
        ("int8", Self::Int8),
        ("uint8", Self::Uint8),
    ];

    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Float, Self::Base64, Self::Binary, Self::Ubinary, Self::Int8, Self::Uint8];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Base64 => "base64",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
        }
    }
}

/// What an input is for; every model takes `text`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum InputType {
    /// Nothing in particular.
    #[default]
    Text,
    /// A question whose answer is searched.
    Query,
    /// Something that is searched.
    Document,
}

impl InputType {
    const WORDS: &'static [(&'static str, Self)] =
        &[("text", Self::Text), ("query", Self::Query), ("document", Self::Document)];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Query => "query",
            Self::Document => "document",
        }
    }
}

impl EmbeddingsRequest {
    /// Reads a body with at most `most_inputs` texts.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(
        body: &[u8],
        vocabulary: Vocabulary<'_>,
        most_inputs: usize,
    ) -> Result<Parsed<Self>, Fault> {
        let sorted = NAMES.sort(object(body)?, vocabulary);
        let mut fields = Object::root(sorted.known);
        let mut request = Self {
            input: fields
                .required("input", |value, at| text_input::read(value, at, most_inputs, filled))?,
            options: EmbeddingOptions::read(&mut fields)?,
            user: None,
            others: sorted.others,
        };
        request.read_openai(fields)?;
        Ok(Parsed { request, extra: sorted.extra })
    }

    /// The schema of a body with at most `most_inputs` texts, whose top-level names are those of `vocabulary`.
    #[must_use]
    pub fn schema(
        generator: &mut SchemaGenerator,
        vocabulary: Vocabulary<'_>,
        most_inputs: usize,
    ) -> Schema {
        let mut schema = Self::json_schema(generator);
        NAMES.describe(&mut schema, vocabulary, |properties| {
            if let Some(most) =
                properties.get_mut("input").and_then(|input| input.pointer_mut("/anyOf/1/maxItems"))
            {
                *most = json!(most_inputs);
            }
        });
        schema
    }

    fn read_openai(&mut self, mut fields: Object<'_>) -> Result<(), Fault> {
        self.user = fields.optional("user", string)?.or(self.user.take());
        self.others.extend(fields.rest());
        Ok(())
    }
}

impl Parsed<EmbeddingsRequest> {
    /// Reads OpenAI's names among the extra properties as the fields they are, for a caller who asked to pass extras
    /// through. What is left in `extra` is for the model alone.
    ///
    /// # Errors
    /// `InvalidRequest` when one of them is not valid.
    pub fn admit(mut self) -> Result<Self, Fault> {
        let fields = NAMES.admit(&mut self.extra);
        self.request.read_openai(Object::root(fields))?;
        Ok(self)
    }
}

impl EmbeddingOptions {
    pub(super) fn read(fields: &mut Object<'_>) -> Result<Self, Fault> {
        Ok(Self {
            model: model(fields)?,
            dimensions: fields.optional("dimensions", count(1..=MOST_DIMENSIONS))?,
            encoding_format: fields
                .optional("encoding_format", word(EncodingFormat::WORDS))?
                .unwrap_or_default(),
            input_type: fields.optional("input_type", word(InputType::WORDS))?.unwrap_or_default(),
        })
    }
}

/// The vectors, of texts or of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingsResult {
    /// Opaque.
    pub id: String,
    /// Always `list`.
    #[serde(default)]
    pub object: super::models::ListObject,
    /// The model that answered.
    pub model: String,
    /// One per input, in the order of the inputs.
    pub data: Vec<EmbeddingItem>,
    /// Tokens spent.
    pub usage: EmbeddingsUsage,
}

/// One vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingItem {
    /// Which input, from 0.
    pub index: u32,
    /// Always `embedding`.
    #[serde(default)]
    pub object: EmbeddingObject,
    /// The vector.
    pub embedding: Embedding,
}

/// The `object` of a vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EmbeddingObject {
    /// `embedding`
    #[default]
    #[serde(rename = "embedding")]
    Embedding,
}

/// A vector as it is written. Reading one back, whole numbers are `Integers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Embedding {
    /// `base64`
    Base64(String),
    /// `int8`, `uint8`, `binary` and `ubinary`.
    Integers(Vec<i16>),
    /// `float`
    Floats(Vec<f32>),
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingsUsage {
    /// Of all texts, special tokens included.
    pub prompt_tokens: u32,
    /// The same.
    pub total_tokens: u32,
}

impl EmbeddingsUsage {
    /// So many tokens.
    #[must_use]
    pub const fn new(tokens: u32) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}
