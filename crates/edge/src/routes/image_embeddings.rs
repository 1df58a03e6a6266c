//! `POST /images/embeddings`: images in, vectors out.

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
use api_types::rest::ImageEmbeddingsRequest;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// Embeds images.
///
/// # Errors
/// As section 6.2 of the contract; a blocked image is 400.
pub async fn handle(State(app): State<App>, mut call: Call) -> Result<Response, ApiError> {
    let most = app.config.limits.image_inputs;
    let parsed = ImageEmbeddingsRequest::parse(&call.body, call.vocabulary(&app), most)?;
    let parsed = call.settle(parsed, |parsed| Ok(parsed.admit()))?;
    let head = call.head;
    let family = head.context.family;
    let deployment =
        head.select(&app, parsed.request.options.model.as_deref(), Modality::ImageEmbeddings)?;
    let spare = app.spare(&deployment, Modality::ImageEmbeddings, |spare| {
        let Checked { request, extra_json, .. } =
            check::image_embeddings(parsed.clone(), spare, family)?;
        let images = embedding::decode_images(&request)?;
        Ok(embedding::images_to_rpc(request, images, &spare.model, extra_json))
    });
    let Checked { request, extra_json, dropped } =
        check::image_embeddings(parsed, &deployment, family)?;
    let screening = head.screening(&deployment);
    let format = request.options.encoding_format;
    let images = embedding::decode_images(&request)?;
    let estimate = Estimate::image_embeddings(&request);
    if head.context.dry_run {
        let screened = (&screening, Prompt::images(&request, &images, &screening));
        let spare = spare.is_some();
        let plan = Plan { deployment: &deployment, spare, dropped, extra_json, estimate, screened };
        return Box::pin(app.foresee(head, plan)).await;
    }
    head.admit(&app, &deployment.name, estimate).await?;
    let prompt = Prompt::images(&request, &images, &screening);
    let request = embedding::images_to_rpc(request, images, &deployment.model, extra_json);
    let request = Candidates::new(Arc::clone(&deployment), request, spare);
    let vectors = app.embed(request, &head);
    let (_found, response) =
        Box::pin(app.screened(&screening, prompt, vectors, &head.record)).await?;
    head.record.tokens(response.usage.map_or(0, |u| u.prompt_tokens), 0);
    Ok(head
        .record
        .serialise(|| Json(embedding::from_rpc(response, format, family)).into_response()))
}
