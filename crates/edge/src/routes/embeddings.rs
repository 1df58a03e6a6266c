//! `POST /embeddings`: texts in, vectors out.

use crate::app::App;
use crate::check::{self, Checked};
use crate::deployments::Modality;
use crate::dry_run::Plan;
use crate::error::ApiError;
use crate::extract::Call;
use crate::fallback::Candidates;
use crate::guard::Prompt;
use crate::limit::Estimate;
use crate::translate::embedding;
use api_types::rest::{EmbeddingsRequest, Parsed};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// Embeds texts.
///
/// # Errors
/// As section 6.2 of the contract; 400 for too many inputs.
pub async fn handle(State(app): State<App>, mut call: Call) -> Result<Response, ApiError> {
    let most = app.config.limits.embedding_inputs;
    let parsed = EmbeddingsRequest::parse(&call.body, call.vocabulary(&app), most)?;
    let parsed = call.settle(parsed, Parsed::<EmbeddingsRequest>::admit)?;
    let head = call.head;
    let family = head.context.family;
    let deployment =
        head.select(&app, parsed.request.options.model.as_deref(), Modality::Embeddings)?;
    let spare = app.spare(&deployment, Modality::Embeddings, |spare| {
        let Checked { request, extra_json, .. } = check::embeddings(parsed.clone(), spare, family)?;
        Ok(embedding::texts_to_rpc(request, &spare.model, extra_json))
    });
    let Checked { request, extra_json, dropped } = check::embeddings(parsed, &deployment, family)?;
    let estimate = Estimate::embeddings(&request);
    let mut screening = head.screening(&deployment);
    if !app.config.guard.embeddings {
        screening.policy.clear();
    }
    if head.context.dry_run {
        let screened = (&screening, Prompt::embeddings(&request, &screening));
        let spare = spare.is_some();
        let plan = Plan { deployment: &deployment, spare, dropped, extra_json, estimate, screened };
        return Box::pin(app.foresee(head, plan)).await;
    }
    head.admit(&app, &deployment.name, estimate).await?;
    let format = request.options.encoding_format;
    let prompt = Prompt::embeddings(&request, &screening);
    let request = embedding::texts_to_rpc(request, &deployment.model, extra_json);
    let request = Candidates::new(Arc::clone(&deployment), request, spare);
    let vectors = app.embed(request, &head);
    let (_found, response) =
        Box::pin(app.screened(&screening, prompt, vectors, &head.record)).await?;
    head.record.tokens(response.usage.map_or(0, |u| u.prompt_tokens), 0);
    Ok(head
        .record
        .serialise(|| Json(embedding::from_rpc(response, format, family)).into_response()))
}
