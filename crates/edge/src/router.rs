//! The whole route table and the layer stack, on one screen.

use crate::app::App;
use crate::auth::{self, Keys};
use crate::routes::{
    chat_completions, completions, content_safety, embeddings, image_embeddings, info, models,
    text_blocklists,
};
use crate::{error, layers};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use chassis::Tasks;
use std::time::Duration;

/// Every path this service answers.
pub fn build(app: App, keys: Keys, tasks: Tasks) -> Router {
    let limits = app.config.limits;
    // The Azure AI Model Inference API.
    let inference = Router::new()
        .route("/chat/completions", post(chat_completions::handle))
        .route("/completions", post(completions::handle))
        .route("/embeddings", post(embeddings::handle))
        .route("/images/embeddings", post(image_embeddings::handle))
        .route("/info", get(info::handle));
    // Azure OpenAI: the deployment is in the path.
    let deployment = Router::new()
        .route("/chat/completions", post(chat_completions::handle))
        .route("/completions", post(completions::handle))
        .route("/embeddings", post(embeddings::handle));
    // OpenAI; `/v1/chat/completions` is also the first published path of the Inference API (context.rs).
    let openai = Router::new()
        .route("/chat/completions", post(chat_completions::handle))
        .route("/completions", post(completions::handle))
        .route("/embeddings", post(embeddings::handle))
        .route("/models", get(models::list))
        .route("/models/{id}", get(models::handle));
    let content_safety = Router::new()
        .route("/text:analyze", post(content_safety::analyze_text))
        .route("/image:analyze", post(content_safety::analyze_image))
        .route("/text:shieldPrompt", post(content_safety::shield_prompt))
        .route("/text:detectProtectedMaterial", post(content_safety::detect_protected_text))
        .route("/text:detectProtectedMaterialForCode", post(content_safety::detect_protected_code))
        .route("/text/blocklists", get(text_blocklists::list))
        .route(
            "/text/blocklists/{name}",
            get(text_blocklists::get)
                .patch(text_blocklists::patch)
                .delete(text_blocklists::delete)
                // `{name}:addOrUpdateBlocklistItems` and `{name}:removeBlocklistItems` are one segment too.
                .post(text_blocklists::act)
                .fallback(text_blocklists::wrong_method),
        )
        .route("/text/blocklists/{name}/blocklistItems", get(text_blocklists::items))
        .route("/text/blocklists/{name}/blocklistItems/{id}", get(text_blocklists::item));
    Router::new()
        .merge(inference.clone())
        .nest("/models", inference.clone())
        .nest("/api/models", inference)
        .nest("/openai/deployments/{deployment}", deployment)
        .nest("/openai/v1", openai.clone())
        .nest("/v1", openai)
        .route("/openai/models", get(models::list))
        .nest("/contentsafety", content_safety)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(app)
        // Innermost first. Bounds what is read of a body, so only what may be read at all is counted.
        .layer(from_fn_with_state(limits.body_bytes, layers::body_size))
        // Ends handlers that take too long; outside the body, whose reading counts too.
        .layer(from_fn(layers::deadline))
        // Before anything is read or waited for on behalf of a stranger.
        .layer(from_fn_with_state(keys, auth::require))
        // A replica that stops refuses even before it looks who is calling, and counts what it answers.
        .layer(from_fn_with_state(tasks, layers::drain))
        // Everything below is in the request's span; faults of every layer become bodies here.
        .layer(from_fn(layers::trace))
        // Outermost: whatever happens, the answer carries the request's ids.
        .layer(from_fn_with_state(
            Duration::from_millis(limits.request_timeout_ms),
            layers::identify,
        ))
}

#[cfg(test)]
mod tests;
