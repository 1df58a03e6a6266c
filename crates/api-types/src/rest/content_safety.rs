//! The Content Safety routes that judge: `text:analyze`, `image:analyze`, `text:shieldPrompt`, `text:detectProtectedMaterial`
//! and `text:detectProtectedMaterialForCode` (section 14); blocklists are in `text_blocklists`.
//!
//! Names are camelCase here and categories spelled `SelfHarm`; unknown properties are ignored, as the service does.

use super::data_url::decode_base64;
use super::json::{At, Object, boolean, list, object, string, word};
use super::schema::{BASE64, inline_schema};
use crate::Fault;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest text that is analysed, in code points.
pub const LONGEST_TEXT: usize = 10_000;
/// Most documents that are shielded at once.
const MOST_DOCUMENTS: usize = 5;
/// Longest image file: 4 MB.
const LARGEST_IMAGE: usize = 4 * 1024 * 1024;
/// Blocklists that one request may name.
const MOST_BLOCKLISTS: usize = 100;

/// What is judged.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Category {
    /// Hate and fairness.
    Hate,
    /// Self-harm.
    SelfHarm,
    /// Sexual content.
    Sexual,
    /// Violence.
    Violence,
}

impl Category {
    /// All, in the order of answers.
    pub const ALL: [Self; 4] = [Self::Hate, Self::SelfHarm, Self::Sexual, Self::Violence];
}

/// How finely severities are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, JsonSchema)]
pub enum OutputType {
    /// 0, 2, 4, 6.
    #[default]
    FourSeverityLevels,
    /// 0 to 7.
    EightSeverityLevels,
}

impl OutputType {
    /// A level 0..7 as this output tells it.
    #[must_use]
    pub const fn round(self, level: u32) -> u32 {
        match self {
            Self::FourSeverityLevels => level / 2 * 2,
            Self::EightSeverityLevels => level,
        }
    }
}

/// `text:analyze`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct AnalyzeTextRequest {
    /// 1 to 10,000 code points.
    #[schemars(length(min = 1, max = LONGEST_TEXT))]
    pub text: String,
    /// None, and an empty list, is all.
    #[schemars(with = "Option<Vec<Category>>")]
    pub categories: Vec<Category>,
    /// Blocklists to match as well.
    #[schemars(with = "Option<Vec<String>>", length(max = MOST_BLOCKLISTS))]
    pub blocklist_names: Vec<String>,
    /// Whether the categories are skipped when a blocklist matched.
    #[schemars(with = "Option<bool>")]
    pub halt_on_blocklist_hit: bool,
    /// How finely to tell severities; none is four levels.
    #[schemars(with = "Option<OutputType>")]
    pub output_type: OutputType,
}

impl AnalyzeTextRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Object::root(object(body)?);
        Ok(Self {
            text: fields.required("text", spoken)?,
            categories: categories(&mut fields)?,
            blocklist_names: fields
                .optional("blocklistNames", list(0..=MOST_BLOCKLISTS, string))?
                .unwrap_or_default(),
            halt_on_blocklist_hit: fields
                .optional("haltOnBlocklistHit", boolean)?
                .unwrap_or_default(),
            output_type: fields
                .optional(
                    "outputType",
                    word(&[
                        ("FourSeverityLevels", OutputType::FourSeverityLevels),
                        ("EightSeverityLevels", OutputType::EightSeverityLevels),
                    ]),
                )?
                .unwrap_or_default(),
        })
    }
}

/// `image:analyze`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", transform = four_levels_alone)]
pub struct AnalyzeImageRequest {
    /// Where the image is.
    #[schemars(with = "WrittenImage")]
    pub image: ImageSource,
    /// None, and an empty list, is all.
    #[schemars(with = "Option<Vec<Category>>")]
    pub categories: Vec<Category>,
}

/// `outputType` is read, but says nothing: images have four levels.
fn four_levels_alone(schema: &mut Schema) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let levels =
            json!({"enum": ["FourSeverityLevels", null], "description": "The only choice."});
        properties.insert("outputType".to_owned(), levels);
    }
}

inline_schema!(
    WrittenImage,
    json_schema!({
        "type": "object",
        "properties": {
            "content": {
                "type": "string",
                "pattern": BASE64,
                "description": "The encoded file in base64, at most 4 MB.",
            },
            "blobUrl": {
                "type": "null",
                "description": "Not fetched by this server; send the file as `content`.",
            },
        },
        "required": ["content"],
    })
);

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// The encoded file, at most 4 MB.
    Content(Vec<u8>),
    /// A URL of a file in blob storage.
    BlobUrl(String),
}

impl AnalyzeImageRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Object::root(object(body)?);
        let image = fields.required("image", image_source)?;
        let categories = categories(&mut fields)?;
        fields.optional("outputType", word(&[("FourSeverityLevels", ())]))?;
        Ok(Self { image, categories })
    }
}

fn image_source(value: Value, at: At<'_>) -> Result<ImageSource, Fault> {
    let mut fields = Object::read(value, at)?;
    let content = fields.optional("content", image_content)?;
    let url = fields.optional("blobUrl", string)?;
    match (content, url) {
        (Some(bytes), None) => Ok(ImageSource::Content(bytes)),
        (None, Some(url)) => Ok(ImageSource::BlobUrl(url)),
        (Some(_), Some(_)) | (None, None) => {
            Err(at.fault("must have exactly one of `content` and `blobUrl`"))
        }
    }
}

fn image_content(value: Value, at: At<'_>) -> Result<Vec<u8>, Fault> {
    let bytes = decode_base64(&string(value, at)?, &at.to_string())?;
    if bytes.len() > LARGEST_IMAGE {
        return Err(at.fault(format_args!("must be an image of at most {LARGEST_IMAGE} bytes")));
    }
    Ok(bytes)
}

/// `text:shieldPrompt`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", transform = something_to_shield)]
pub struct ShieldPromptRequest {
    /// At most 10,000 characters; none when absent or empty.
    #[schemars(length(max = LONGEST_TEXT))]
    pub user_prompt: Option<String>,
    /// At most 5, of 10,000 characters together. There is a prompt or a document.
    #[schemars(with = "Option<Vec<String>>", length(max = MOST_DOCUMENTS), inner(length(max = LONGEST_TEXT)))]
    pub documents: Vec<String>,
}

/// There is a prompt or a document.
fn something_to_shield(schema: &mut Schema) {
    let prompt = json!({
        "required": ["userPrompt"],
        "properties": {"userPrompt": {"type": "string", "minLength": 1}},
    });
    let documents = json!({
        "required": ["documents"],
        "properties": {"documents": {"type": "array", "minItems": 1}},
    });
    schema.insert("anyOf".to_owned(), json!([prompt, documents]));
}

impl ShieldPromptRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Object::root(object(body)?);
        let user_prompt =
            fields.optional("userPrompt", |value, at| bounded(value, at, LONGEST_TEXT))?;
        let documents = fields.optional("documents", documents)?.unwrap_or_default();
        let user_prompt = user_prompt.filter(|prompt| !prompt.is_empty());
        if user_prompt.is_none() && documents.is_empty() {
            let message = "`userPrompt` or `documents` must be there";
            return Err(Fault::invalid("userPrompt", message));
        }
        Ok(Self { user_prompt, documents })
    }
}

fn documents(value: Value, at: At<'_>) -> Result<Vec<String>, Fault> {
    let documents = list(0..=MOST_DOCUMENTS, string)(value, at)?;
    let length: usize = documents.iter().map(|document| document.chars().count()).sum();
    if length > LONGEST_TEXT {
        return Err(at.fault(too_long(LONGEST_TEXT, length)));
    }
    Ok(documents)
}

/// A text that says something.
fn spoken(value: Value, at: At<'_>) -> Result<String, Fault> {
    let text = bounded(value, at, LONGEST_TEXT)?;
    if text.is_empty() { Err(at.fault("must not be empty")) } else { Ok(text) }
}

fn bounded(value: Value, at: At<'_>, most: usize) -> Result<String, Fault> {
    let text = string(value, at)?;
    let length = text.chars().count();
    if length > most { Err(at.fault(too_long(most, length))) } else { Ok(text) }
}

fn too_long(most: usize, found: usize) -> String {
    format!("must have at most {most} characters, found {found}")
}

fn categories(fields: &mut Object<'_>) -> Result<Vec<Category>, Fault> {
    const WORDS: &[(&str, Category)] = &[
        ("Hate", Category::Hate),
        ("SelfHarm", Category::SelfHarm),
        ("Sexual", Category::Sexual),
        ("Violence", Category::Violence),
    ];
    let mut categories =
        fields.optional("categories", list(0..=usize::MAX, word(WORDS)))?.unwrap_or_default();
    categories.sort_unstable();
    categories.dedup();
    if categories.is_empty() {
        categories.extend(Category::ALL);
    }
    Ok(categories)
}

/// `text:detectProtectedMaterial` and `text:detectProtectedMaterialForCode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectProtectedMaterialRequest {
    /// 1 to 10,000 code points of text or code.
    pub text: String,
}

impl DetectProtectedMaterialRequest {
    /// Reads a body whose text is called `text`.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse_text(body: &[u8]) -> Result<Self, Fault> {
        Self::parse(body, "text")
    }

    /// Reads a body whose text is called `code`.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse_code(body: &[u8]) -> Result<Self, Fault> {
        Self::parse(body, "code")
    }

    fn parse(body: &[u8], name: &str) -> Result<Self, Fault> {
        let mut fields = Object::root(object(body)?);
        Ok(Self { text: fields.required(name, spoken)? })
    }
}

/// The answer of `text:analyze`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalyzeTextResult {
    /// What matched.
    pub blocklists_match: Vec<BlocklistMatch>,
    /// One per category asked for.
    pub categories_analysis: Vec<CategoryAnalysis>,
}

/// The answer of `image:analyze`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalyzeImageResult {
    /// One per category that was judged.
    pub categories_analysis: Vec<CategoryAnalysis>,
}

/// An entry of a blocklist that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlocklistMatch {
    /// The list.
    pub blocklist_name: String,
    /// The entry.
    pub blocklist_item_id: String,
    /// Its text.
    pub blocklist_item_text: String,
}

/// How severe one category is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CategoryAnalysis {
    /// Which.
    pub category: Category,
    /// 0..7; with four levels 0, 2, 4 or 6.
    pub severity: u32,
}

/// The answer of `text:shieldPrompt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShieldPromptResult {
    /// Absent when there was no user prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_prompt_analysis: Option<AttackAnalysis>,
    /// One per document, in order.
    pub documents_analysis: Vec<AttackAnalysis>,
}

/// Whether a text attacks the model that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttackAnalysis {
    /// Whether it does.
    pub attack_detected: bool,
}

/// The answer of `text:detectProtectedMaterial` and `text:detectProtectedMaterialForCode`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DetectProtectedMaterialResult {
    /// What was found.
    pub protected_material_analysis: ProtectedMaterialAnalysis,
}

/// Whether a text repeats one that is somebody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedMaterialAnalysis {
    /// Whether it does.
    pub detected: bool,
    /// Where the code is from; absent for texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_citations: Option<Vec<CodeCitation>>,
}

/// Where code is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeCitation {
    /// SPDX identifier of its licence.
    pub license: String,
    /// Where it is published.
    pub source_urls: Vec<String>,
}
