//! `GET /info`: which model answers here.

use crate::app::App;
use crate::deployments::Modality;
use crate::error::ApiError;
use crate::extract::Head;
use api_types::rest::{ModelInformation, ModelType};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

/// The query of `GET /info`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Asked {
    /// The deployment; honoured in every version.
    model: Option<String>,
}

/// Describes the deployment that query or headers name, or the default one.
///
/// # Errors
/// 404 for an unknown deployment, 400 where none is named and there is no default.
pub async fn handle(
    State(app): State<App>,
    query: Result<Query<Asked>, QueryRejection>,
    head: Head,
) -> Result<Json<ModelInformation>, ApiError> {
    let model = query.ok().and_then(|Query(asked)| asked.model);
    let table = app.table();
    let selector = head.selector(&table, model.as_deref());
    let deployment = table.describe(&selector, head.context.family)?;
    head.record.deployment(&deployment.name);
    head.permit(&deployment)?;
    let model_type = match deployment.modality() {
        Some(Modality::Chat) | None => ModelType::ChatCompletions,
        Some(Modality::Completions) => ModelType::TextGeneration,
        Some(Modality::Embeddings) => ModelType::Embeddings,
        Some(Modality::ImageEmbeddings) => ModelType::ImageEmbeddings,
    };
    Ok(Json(ModelInformation {
        model_name: deployment.name.clone(),
        model_type,
        model_provider_name: deployment.publisher.clone(),
    }))
}
