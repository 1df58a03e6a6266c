//! `GET /v1/models` and its twins: the deployments as OpenAI's clients list them, and what each can do.

use crate::app::App;
use crate::deployments::Deployment;
use crate::error::{self, ApiError};
use crate::extract::Head;
use crate::translate;
use api_types::rest::{Model, ModelList};
use api_types::{ErrorCode, Fault};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

/// All deployments that the caller may use.
pub async fn list(State(app): State<App>, head: Head) -> Json<ModelList> {
    let table = app.table();
    let permitted = table.all().iter().filter(|deployment| head.permit(deployment).is_ok());
    let data = permitted.map(|deployment| model(&app, deployment)).collect();
    Json(ModelList { data, ..ModelList::default() })
}

/// One deployment.
///
/// # Errors
/// 404 for an unknown name, 403 for one that is not the caller's.
pub async fn handle(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    head: Head,
) -> Result<Json<Model>, ApiError> {
    // A name that is not UTF-8 is nobody's; axum's own refusal would be plain text.
    let Ok(Path(id)) = id else { return Err(error::not_found().await) };
    let table = app.table();
    let Some(deployment) = table.get(&id) else {
        // The code of this one answer differs from that of other unknown names on these routes (section 15).
        return Err(Fault::new(
            ErrorCode::UnknownModel,
            format!("The model '{id}' does not exist"),
        )
        .into());
    };
    head.record.deployment(&deployment.name);
    head.permit(deployment)?;
    Ok(Json(model(&app, deployment)))
}

fn model(app: &App, deployment: &Deployment) -> Model {
    Model {
        id: deployment.name.clone(),
        object: Default::default(),
        created: app.began,
        owned_by: deployment.publisher.clone(),
        abilities: translate::models::abilities(deployment, app.config.limits.image_inputs),
    }
}
