//! `POST /images/embeddings`: images and their vectors (section 11); the answer is that of `/embeddings`.

use super::data_url::DataUrl;
use super::embeddings::EmbeddingOptions;
use super::json::{At, Object, filled, list, object, string};
use super::schema::IMAGE_DATA_URL;
use super::{Fields, Names, Parsed, Vocabulary};
use crate::Fault;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

const NAMES: Names = Names {
    ordinary: &["input", "model", "dimensions", "encoding_format", "input_type"],
    openai: &["user"],
};

/// Images to embed.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
pub struct ImageEmbeddingsRequest {
    /// At least one.
    #[schemars(length(min = 1))]
    pub input: Vec<ImageInput>,
    /// How to answer.
    #[schemars(flatten)]
    pub options: EmbeddingOptions,
    /// Accepted names without a field of their own: forwarded to models that take them, ignored by others.
    #[schemars(skip)]
    pub others: Fields,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
pub struct ImageInput {
    /// A data URL of an image; its form is checked, its data is decoded when it is needed.
    #[schemars(regex(pattern = IMAGE_DATA_URL))]
    pub image: String,
    /// Text that belongs to it.
    pub text: Option<String>,
}

impl ImageEmbeddingsRequest {
    /// Reads a body with at most `most_inputs` images.
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
            input: fields.required("input", list(1..=most_inputs, input))?,
            options: EmbeddingOptions::read(&mut fields)?,
            others: sorted.others,
        };
        request.others.extend(fields.rest());
        Ok(Parsed { request, extra: sorted.extra })
    }

    /// The schema of a body with at most `most_inputs` images, whose top-level names are those of `vocabulary`.
    #[must_use]
    pub fn schema(
        generator: &mut SchemaGenerator,
        vocabulary: Vocabulary<'_>,
        most_inputs: usize,
    ) -> Schema {
        let mut schema = Self::json_schema(generator);
        NAMES.describe(&mut schema, vocabulary, |properties| {
            if let Some(Value::Object(input)) = properties.get_mut("input") {
                input.insert("maxItems".to_owned(), json!(most_inputs));
            }
        });
        schema
    }
}

impl Parsed<ImageEmbeddingsRequest> {
    /// Takes OpenAI's names among the extra properties as ordinary, for a caller who asked to pass extras through. What
    /// is left in `extra` is for the model alone.
    #[must_use]
    pub fn admit(mut self) -> Self {
        let fields = NAMES.admit(&mut self.extra);
        self.request.others.extend(fields);
        self
    }
}

impl ImageInput {
    /// The image file's bytes; `index` is its place in `input`.
    ///
    /// # Errors
    /// `InvalidRequest` at `input.<index>.image` when the data is not base64.
    pub fn decode(&self, index: usize) -> Result<Vec<u8>, Fault> {
        let target = format!("input.{index}.image");
        match DataUrl::parse(&self.image) {
            Some(url) => url.decode(&target),
            None => Err(At::Root.key(&target).fault(FORM)),
        }
    }
}

const FORM: &str = "must be a data URL of the form `data:image/<format>;base64,<data>`";

fn input(value: Value, at: At<'_>) -> Result<ImageInput, Fault> {
    let mut fields = Object::read(value, at)?;
    let image = fields.required("image", |value, at| {
        let image = filled(value, at)?;
        let fits = DataUrl::parse(&image).is_some_and(|url| url.is_image());
        if fits { Ok(image) } else { Err(at.fault(FORM)) }
    })?;
    Ok(ImageInput { image, text: fields.optional("text", string)? })
}
