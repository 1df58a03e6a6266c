//! The server's description of itself, in the terms of OpenAPI 3.1, and the page that shows it.
//!
//! Separate from the routes, which name their operation and nothing else. Generated when the server starts, from the types
//! that requests are read into and answers written from, from the error codes and from the options, so it says what *this*
//! server takes. The trap: a route that is not in the router's table would not be described, so there is no other way to add
//! one.

pub mod components;
pub mod operation;
pub mod operations;
pub mod page;
pub mod parameters;
pub mod responses;

pub use operation::{Answer, Entry, Operation};

use crate::config::Config;
use crate::context::Family;
use components::Components;
use http::Method;
use serde_json::{Map, Value, json};

/// What the description says of the whole.
const ABOUT: &str = "\
One API in several dialects, told apart by the first part of the path.

`/`, `/models` and `/api/models` speak the Azure AI Model Inference API: they need the query parameter `api-version`, refuse \
body properties that are not part of that API unless the header `extra-parameters` says otherwise, and answer 422 where a \
model cannot do what a valid request asks. `/openai/deployments/{deployment}` speaks the Azure OpenAI API and needs an \
`api-version` too. `/openai/v1` and `/v1` speak the OpenAI API. `/contentsafety` judges texts and images. `/dry-run` before a path that asks a model says what would become of the request.

A null counts as an absent property everywhere. Every answer has an `x-request-id`, every error also an `x-ms-error-code`. \
A path that is not listed is 404, a method that is not listed 405 with `Allow`; a request whose headers are too large is 431.";

/// The description of the routes of `entries` under `config`; `open` where no key is required.
#[must_use]
pub fn describe(entries: &[Entry], config: &Config, open: bool) -> Value {
    let mut components = Components::new(config);
    let mut paths = Map::new();
    for entry in entries {
        components.enter(Family::of_path(&entry.path));
        let operation = describe_one(entry, config, &mut components);
        let path = paths.entry(entry.path.clone()).or_insert_with(|| json!({}));
        path[entry.method.as_str().to_lowercase()] = operation;
    }
    let mut components = components.finish();
    components["parameters"] = parameters::components();
    components["headers"] = responses::headers();
    components["securitySchemes"] = security_schemes();
    let mut document = json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Koine",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A self-hosted server for the Azure AI Model Inference API.",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
        "tags": Tag::ALL.map(|tag| json!({"name": tag.name(), "description": tag.describe()})),
    });
    document["security"] = security(open);
    document
}

fn describe_one(entry: &Entry, config: &Config, components: &mut Components<'_>) -> Value {
    let operation = entry.operation;
    let tag = Tag::of(&entry.path);
    let mut described = json!({
        "operationId": entry.id(),
        "summary": operation.summary,
        "tags": [tag.name()],
        "parameters": parameters::of(entry, tag, config),
        "responses": responses::of(entry, tag, components),
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({
            "required": true,
            "content": {(body.content_type): {
                "schema": (body.schema)(components), "example": (body.example)(),
            }},
        });
    }
    if tag == Tag::Description {
        described["security"] = json!([]);
    }
    described
}

/// A chapter of the description: a family of routes, or the description itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// A family of routes.
    Of(Family),
    /// `/openapi.json` and `/docs`.
    Description,
}

impl Tag {
    /// In the order of the page.
    const ALL: [Self; 5] = [
        Self::Of(Family::Inference),
        Self::Of(Family::Deployments),
        Self::Of(Family::OpenAi),
        Self::Of(Family::ContentSafety),
        Self::Description,
    ];

    fn of(path: &str) -> Self {
        match path {
            DOCUMENT | PAGE => Self::Description,
            _ => Self::Of(Family::of_path(path)),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Of(Family::Inference) => "Model Inference",
            Self::Of(Family::Deployments) => "Azure OpenAI",
            Self::Of(Family::OpenAi) => "OpenAI",
            Self::Of(Family::ContentSafety) => "Content Safety",
            Self::Description => "Description",
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Of(Family::Inference) => {
                "The Azure AI Model Inference API, the same under `/`, `/models` and `/api/models`."
            }
            Self::Of(Family::Deployments) => {
                "The deployment is in the path; a `model` in the body is ignored."
            }
            Self::Of(Family::OpenAi) => {
                "Unknown body properties are ignored. `POST /v1/chat/completions?api-version=2024-04-01-preview` is the first \
                 path of the Model Inference API and answers like `POST /chat/completions`."
            }
            Self::Of(Family::ContentSafety) => "Judgements without a model behind them.",
            Self::Description => "This description; needs no key.",
        }
    }
}

/// Where the description is.
pub const DOCUMENT: &str = "/openapi.json";
/// Where the page is.
pub const PAGE: &str = "/docs";

/// The routes of the description itself, which are described too.
#[must_use]
pub fn own_entries() -> [Entry; 2] {
    [
        Entry::new(Method::GET, DOCUMENT, &operations::DOCUMENT),
        Entry::new(Method::GET, PAGE, &operations::PAGE),
    ]
}

fn security_schemes() -> Value {
    json!({
        "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
        "bearer": {"type": "http", "scheme": "bearer", "description": "The same key."},
        "subscriptionKey": {
            "type": "apiKey", "in": "header", "name": "Ocp-Apim-Subscription-Key",
            "description": "The same key, as Content Safety's clients send it.",
        },
    })
}

/// Any valid credential lets in; where no key is required, none does as well.
fn security(open: bool) -> Value {
    let mut ways =
        vec![json!({"apiKey": []}), json!({"bearer": []}), json!({"subscriptionKey": []})];
    if open {
        ways.insert(0, json!({}));
    }
    Value::Array(ways)
}

#[cfg(test)]
mod tests;
