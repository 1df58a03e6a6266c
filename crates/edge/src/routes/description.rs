//! `GET /openapi.json` and `GET /docs`: the description of the API, as a document and as a page.
//!
//! Both are made once, when the server starts. Nothing in them is secret, so they need no key.

use crate::error;
use crate::openapi::{self, page};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde_json::Value;

/// The page loads nothing and runs nothing; its style is its own.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is served.
#[derive(Debug, Clone)]
struct Published {
    document: Bytes,
    page: Bytes,
}

/// The routes of a description.
pub fn serve(document: &Value) -> Router {
    let page = Bytes::from(page::render(document));
    let published = Published { document: Bytes::from(document.to_string()), page };
    Router::new()
        .route(openapi::DOCUMENT, get(answer_document))
        .route(openapi::PAGE, get(answer_page))
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(published)
}

async fn answer_document(State(published): State<Published>) -> Response {
    ([(CONTENT_TYPE, "application/json")], published.document).into_response()
}

async fn answer_page(State(published): State<Published>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, published.page).into_response()
}
