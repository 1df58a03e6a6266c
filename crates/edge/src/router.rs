//! The whole route table and the layer stack, on one screen.

mod table;

use crate::app::App;
use crate::auth::{self, Access};
use crate::context::DRY_RUN;
use crate::openapi::{self, operations as op};
use crate::routes::{
    chat_completions, completions, content_safety, description, embeddings, image_embeddings, info,
    models, text_blocklists,
};
use crate::{cors, error, layers};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use chassis::Tasks;
use std::time::Duration;
use table::Table;

/// Every path this service answers; each names the operation that describes it.
fn table() -> Table {
    // The Azure AI Model Inference API.
    let inference = Table::default()
        .post("/chat/completions", chat_completions::handle, &op::CHAT_COMPLETIONS)
        .post("/completions", completions::handle, &op::COMPLETIONS)
        .post("/embeddings", embeddings::handle, &op::EMBEDDINGS)
        .post("/images/embeddings", image_embeddings::handle, &op::IMAGE_EMBEDDINGS)
        .get("/info", info::handle, &op::INFO);
    // Azure OpenAI: the deployment is in the path.
    let deployment = Table::default()
        .post("/chat/completions", chat_completions::handle, &op::CHAT_COMPLETIONS)
        .post("/completions", completions::handle, &op::COMPLETIONS)
        .post("/embeddings", embeddings::handle, &op::EMBEDDINGS);
    // OpenAI; `/v1/chat/completions` is also the first published path of the Inference API (context.rs).
    let openai = deployment.clone().get("/models", models::list, &op::MODELS).get(
        "/models/{id}",
        models::handle,
        &op::MODEL,
    );
    let content_safety = Table::default()
        .post("/text:analyze", content_safety::analyze_text, &op::ANALYZE_TEXT)
        .post("/image:analyze", content_safety::analyze_image, &op::ANALYZE_IMAGE)
        .post("/text:shieldPrompt", content_safety::shield_prompt, &op::SHIELD_PROMPT)
        .post(
            "/text:detectProtectedMaterial",
            content_safety::detect_protected_text,
            &op::DETECT_PROTECTED_TEXT,
        )
        .post(
            "/text:detectProtectedMaterialForCode",
            content_safety::detect_protected_code,
            &op::DETECT_PROTECTED_CODE,
        )
        .merge(blocklists());
    Table::default()
        .merge(inference.clone())
        .nest("/models", inference.clone())
        .nest("/api/models", inference)
        .nest("/openai/deployments/{deployment}", deployment)
        .nest("/openai/v1", openai.clone())
        .nest("/v1", openai)
        .get("/openai/models", models::list, &op::MODELS)
        .nest("/contentsafety", content_safety)
        .nest(DRY_RUN, dry_run())
}

/// What would become of a request, at the path of the request behind `/dry-run`. The handlers are the same.
fn dry_run() -> Table {
    let openai = Table::default()
        .post("/chat/completions", chat_completions::handle, &op::FORESEE_CHAT_COMPLETIONS)
        .post("/completions", completions::handle, &op::FORESEE_COMPLETIONS)
        .post("/embeddings", embeddings::handle, &op::FORESEE_EMBEDDINGS);
    let inference = openai.clone().post(
        "/images/embeddings",
        image_embeddings::handle,
        &op::FORESEE_IMAGE_EMBEDDINGS,
    );
    Table::default()
        .merge(inference.clone())
        .nest("/models", inference.clone())
        .nest("/api/models", inference)
        .nest("/openai/deployments/{deployment}", openai.clone())
        .nest("/openai/v1", openai.clone())
        .nest("/v1", openai)
}

/// The lists that callers manage, under `/contentsafety`.
fn blocklists() -> Table {
    let one = "/text/blocklists/{name}";
    Table::default()
        .get("/text/blocklists", text_blocklists::list, &op::LIST_BLOCKLISTS)
        .get(one, text_blocklists::get, &op::GET_BLOCKLIST)
        .patch(one, text_blocklists::patch, &op::PATCH_BLOCKLIST)
        .delete(one, text_blocklists::delete, &op::DELETE_BLOCKLIST)
        // `{name}:addOrUpdateBlocklistItems` and `{name}:removeBlocklistItems` are one segment too.
        .actions(
            one,
            text_blocklists::act,
            &[
                (":addOrUpdateBlocklistItems", &op::ADD_BLOCKLIST_ITEMS),
                (":removeBlocklistItems", &op::REMOVE_BLOCKLIST_ITEMS),
            ],
        )
        .otherwise(one, text_blocklists::wrong_method)
        .get(
            "/text/blocklists/{name}/blocklistItems",
            text_blocklists::items,
            &op::LIST_BLOCKLIST_ITEMS,
        )
        .get(
            "/text/blocklists/{name}/blocklistItems/{id}",
            text_blocklists::item,
            &op::GET_BLOCKLIST_ITEM,
        )
}

/// Everything the table serves.
#[cfg(test)]
pub(crate) fn entries() -> Vec<openapi::Entry> {
    table().split().1
}

/// The routes of the table and of its description, within their layers.
pub fn build(app: App, access: Access, tasks: Tasks) -> Router {
    let limits = app.config.limits;
    let cors = cors::layer(&app.config.cors);
    let (routes, mut entries) = table().split();
    let mut described = Router::new();
    if app.config.api.docs {
        entries.extend(openapi::own_entries());
        let document = openapi::describe(&entries, &app.config, access.is_open());
        described = description::serve(&document);
    }
    let router = routes
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(app)
        // Innermost first. Bounds what is read of a body, so only what may be read at all is counted.
        .layer(from_fn_with_state(limits.body_bytes, layers::body_size))
        // Ends handlers that take too long; outside the body, whose reading counts too.
        .layer(from_fn(layers::deadline))
        // Before anything is read or waited for on behalf of a stranger.
        .layer(from_fn_with_state(access, auth::require))
        // The description is for everybody.
        .merge(described)
        // A replica that stops refuses even before it looks who is calling, and counts what it answers.
        .layer(from_fn_with_state(tasks, layers::drain))
        // Everything below is in the request's span; faults of every layer become bodies here.
        .layer(from_fn(layers::trace));
    // Outside authentication, because browsers ask without a key; and outside `trace`, so that errors can be read too.
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    // Outermost: whatever happens, the answer carries the request's ids.
    let limit = Duration::from_millis(limits.request_timeout_ms);
    router.layer(from_fn_with_state(limit, layers::identify))
}

#[cfg(test)]
mod tests;
