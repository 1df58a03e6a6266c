//! `GET /v1/models` and its twins: the list OpenAI's clients read (section 15).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: ListObject,
    /// The models.
    pub data: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The name requests use.
    pub id: String,
    /// Always `model`.
    pub object: ModelObject,
    /// Unix seconds.
    pub created: u64,
    /// Who published it.
    pub owned_by: String,
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
