//! `GET /v1/models` and its twins: the list OpenAI's clients read (section 15), and what each deployment can do beside it.
//!
//! OpenAI's four fields come first; the rest are ours, under names that its clients do not know and keep. Field by field they
//! say what would be refused with a 422: what is not listed here, the deployment does not take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Up to here every whole number is exact in an `f64`.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// All models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: ListObject,
    /// The models.
    pub data: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The name requests use.
    pub id: String,
    /// Always `model`.
    pub object: ModelObject,
    /// Unix seconds.
    pub created: u64,
    /// Who published it.
    pub owned_by: String,
    /// What it can do.
    #[serde(flatten)]
    pub abilities: ModelAbilities,
}

/// What a deployment can do. A field that means nothing for its kind of model is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelAbilities {
    /// The routes it answers, such as `/chat/completions`.
    pub routes: Vec<String>,
    /// Tokens of prompt and answer together, or of one text to embed; left out where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u32>,
    /// What goes in and comes out.
    pub modalities: ModelModalities,
    /// Sampling parameters it takes, each with its range; those with an empty object have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, ParameterRange>>,
    /// Extra parameters it takes when they are passed through; `*` is any.
    pub extra_parameters: Vec<String>,
    /// `type` values of `response_format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_formats: Option<Vec<String>>,
    /// Whether it understands tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Whether messages may hold images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_input: Option<bool>,
    /// Whether it reports log probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// Whether a prompt may have a suffix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<bool>,
    /// `encoding_format` values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encodings: Option<Vec<String>>,
    /// Lengths of its vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<VectorLengths>,
    /// `input_type` values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_types: Option<Vec<String>>,
    /// Whether an image may come with a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_with_text: Option<bool>,
    /// Most images of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_call: Option<u32>,
}

/// What goes in and comes out: `text`, `image`, `audio`, `embedding`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelModalities {
    /// Of requests.
    pub input: Vec<String>,
    /// Of answers.
    pub output: Vec<String>,
}

/// The values that a parameter may have, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParameterRange {
    /// Least.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub minimum: Option<f64>,
    /// Largest.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub maximum: Option<f64>,
}

/// Whole numbers without a fraction, which is how people write the ranges of `n` and `max_tokens`.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn plain<S: serde::Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole, and within the integers of f64"
        )]
        Some(whole) if whole.fract() == 0.0 && whole.abs() < LARGEST_WHOLE => {
            serializer.serialize_i64(*whole as i64)
        }
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}

/// Lengths of vectors that may be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VectorLengths {
    /// The model's own, when none is asked for; left out where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<u32>,
    /// Others.
    pub others: Vec<u32>,
    /// Whether every length up to the model's own may be asked for.
    pub any_shorter: bool,
}

/// The `object` of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListObject {
    /// `list`
    #[default]
    #[serde(rename = "list")]
    List,
}

/// The `object` of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelObject {
    /// `model`
    #[default]
    #[serde(rename = "model")]
    Model,
}
