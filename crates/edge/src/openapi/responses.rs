//! The answers of a route: those of its operation, and the errors that may come instead.
//!
//! Errors are not listed by hand: every error code says by which routes it may come, in one exhaustive match, and its status
//! and its name are the ones it is answered with.

use super::Tag;
use super::components::Components;
use super::operation::{Answer, EVENTS, Entry, JSON};
use crate::context::Family;
use api_types::ErrorCode;
use api_types::rest::{ErrorBody, ErrorStyle};
use schemars::{JsonSchema as _, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Headers of every answer.
const IDS: [(&str, &str); 4] = [
    ("x-request-id", "The id of the request: the caller's, or a new one."),
    ("apim-request-id", "Our own id of the request."),
    ("x-ms-client-request-id", "The caller's id of the call, or our own."),
    ("server-timing", "Where the time went until these headers left, in milliseconds by step."),
];
/// The header of every error.
const CODE: &str = "x-ms-error-code";
/// Headers of errors that pass.
const RETRY: [&str; 2] = ["retry-after", "retry-after-ms"];
/// How a limit of the caller or of the deployment stands, where there is one.
const LIMITS: [(&str, &str); 4] = [
    ("x-ratelimit-limit-requests", "Requests the nearest limit allows."),
    ("x-ratelimit-remaining-requests", "Requests it leaves."),
    ("x-ratelimit-limit-tokens", "Tokens the nearest limit allows."),
    ("x-ratelimit-remaining-tokens", "Tokens it leaves."),
];
/// When a limit is all there again, beside a refusal.
const RESETS: [(&str, &str); 2] = [
    ("x-ratelimit-reset-requests", "Seconds until the limit of requests is whole again."),
    ("x-ratelimit-reset-tokens", "Seconds until the limit of tokens is whole again."),
];

/// The headers that answers share.
#[must_use]
pub fn headers() -> Value {
    let mut headers = Map::new();
    for (name, description) in IDS {
        headers.insert(name.to_owned(), header(description, &json!({"type": "string"})));
    }
    for (name, description) in LIMITS.into_iter().chain(RESETS) {
        let schema = json!({"type": "integer", "minimum": 0});
        headers.insert(name.to_owned(), json!({"description": description, "schema": schema}));
    }
    let code = header("The same as `error.code`.", &json!({"type": "string"}));
    headers.insert(CODE.to_owned(), code);
    for (name, unit) in RETRY.into_iter().zip(["Seconds", "Milliseconds"]) {
        let description = format!("{unit} to wait before the next attempt.");
        headers.insert(
            name.to_owned(),
            header(&description, &json!({"type": "integer", "minimum": 1})),
        );
    }
    Value::Object(headers)
}

fn header(description: &str, schema: &Value) -> Value {
    json!({"description": description, "required": true, "schema": schema})
}

fn shared_headers(names: impl IntoIterator<Item = &'static str>) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    Value::Object(names.into_iter().map(|name| (name.to_owned(), reference(name))).collect())
}

/// The answers of a route by status.
pub(super) fn of(entry: &Entry, tag: Tag, components: &mut Components<'_>) -> Value {
    let mut responses = Map::new();
    for answer in entry.operation.answers {
        let limits: &[_] = if tag == Tag::Description { &[] } else { &LIMITS };
        responses.insert(answer.status.to_string(), describe(answer, limits, components));
    }
    let style = style(tag);
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    let may = |code: &ErrorCode| may_answer(*code, entry, tag);
    for code in ErrorCode::ALL.into_iter().filter(may) {
        by_status.entry(style.status(code)).or_default().push(code);
    }
    for (status, codes) in by_status {
        responses.insert(status.to_string(), error(status, &codes, style, components));
    }
    Value::Object(responses)
}

fn describe(
    answer: &Answer,
    limits: &[(&'static str, &'static str)],
    components: &mut Components<'_>,
) -> Value {
    let mut content = Map::new();
    for (content_type, schema) in answer.content {
        content.insert((*content_type).to_owned(), json!({"schema": schema(components)}));
    }
    if let Some(event) = answer.event {
        // OpenAPI before 3.2 has no word for the items of a stream; its tools take the schema for that of one event.
        let schema = json!({
            "type": "object",
            "description": "One event, a line `data: ` and JSON; `data: [DONE]` is the last.",
            "properties": {"data": {"anyOf": [
                {
                    "type": "string",
                    "contentMediaType": JSON,
                    "contentSchema": event(components),
                },
                {"const": "[DONE]"},
            ]}},
            "required": ["data"],
        });
        content.insert(EVENTS.to_owned(), json!({"schema": schema}));
    }
    let mut response = json!({
        "description": answer.description,
        "headers": shared_headers(IDS.iter().chain(limits).map(|(name, _)| *name)),
    });
    if !content.is_empty() {
        response["content"] = Value::Object(content);
    }
    response
}

fn error(
    status: u16,
    codes: &[ErrorCode],
    style: ErrorStyle,
    components: &mut Components<'_>,
) -> Value {
    let mut description = String::new();
    for code in codes {
        let sentence = components.sentence(*code);
        description.push_str(&format!("- `{}`: {sentence}\n", style.code(*code)));
    }
    let retries = codes.iter().any(|code| code.retryable());
    let names = IDS.into_iter().map(|(name, _)| name).chain([CODE]);
    let names = names.chain(RETRY.into_iter().filter(|_| retries));
    let limited = codes.contains(&ErrorCode::RateLimited);
    let figures = LIMITS.into_iter().chain(RESETS).map(|(name, _)| name);
    let names = names.chain(figures.filter(|_| limited));
    let response = json!({
        "description": description.trim_end(),
        "headers": shared_headers(names),
        "content": {JSON: {"schema": components.error(style)}},
    });
    components.response(&format!("{}{status}", style_name(style)), response)
}

const fn style(tag: Tag) -> ErrorStyle {
    match tag {
        Tag::Of(Family::Inference) | Tag::Description => ErrorStyle::Hybrid,
        Tag::Of(Family::Deployments | Family::OpenAi) => ErrorStyle::OpenAi,
        Tag::Of(Family::ContentSafety) => ErrorStyle::ContentSafety,
    }
}

/// What the components of a style begin with.
pub(super) const fn style_name(style: ErrorStyle) -> &'static str {
    match style {
        ErrorStyle::Hybrid | ErrorStyle::Flat => "InferenceError",
        ErrorStyle::OpenAi => "OpenAIError",
        ErrorStyle::ContentSafety => "ContentSafetyError",
    }
}

/// The schema of the bodies of a style.
pub(super) fn schema(generator: &mut SchemaGenerator, style: ErrorStyle) -> Value {
    ErrorBody::schema(generator, style).to_value()
}

/// Whether a route may answer with a code.
fn may_answer(code: ErrorCode, entry: &Entry, tag: Tag) -> bool {
    let Tag::Of(family) = tag else {
        return may_answer_own(code);
    };
    let body = entry.operation.body.is_some();
    let in_path = entry.path_parameters().next().is_some();
    let of_model = family != Family::ContentSafety;
    let extra = entry.operation.body.is_some_and(|body| body.extra_parameters);
    match code {
        ErrorCode::InvalidRequest => body || family == Family::ContentSafety,
        ErrorCode::MissingApiVersion | ErrorCode::UnsupportedApiVersion => {
            matches!(family, Family::Inference | Family::ContentSafety)
        }
        ErrorCode::ExtraParameters => extra && family == Family::Inference,
        ErrorCode::NoModelName | ErrorCode::ModalityNotSupported => {
            of_model && (body || family == Family::Inference)
        }
        ErrorCode::UnknownModel => of_model && family != Family::Deployments,
        ErrorCode::ContextLengthExceeded
        | ErrorCode::ContentFiltered
        | ErrorCode::ParameterNotSupported
        | ErrorCode::ParameterRefused => of_model && body,
        ErrorCode::DeploymentNotFound => family == Family::Deployments,
        ErrorCode::ResourceNotFound => family == Family::ContentSafety,
        ErrorCode::InvalidResourceName => family == Family::ContentSafety && in_path,
        ErrorCode::NotFound => family == Family::Deployments || in_path,
        ErrorCode::UnsupportedMediaType | ErrorCode::UpstreamFailed => body,
        ErrorCode::Unauthorized
        | ErrorCode::PermissionDenied
        | ErrorCode::PayloadTooLarge
        | ErrorCode::RateLimited
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        | ErrorCode::Timeout => true,
        // A method that is described is served.
        ErrorCode::MethodNotAllowed => false,
    }
}

/// The description itself needs no key, no model and no time; only a server that stops refuses it.
fn may_answer_own(code: ErrorCode) -> bool {
    code == ErrorCode::Unavailable
}

/// The sentence that the source says of each code.
pub(super) fn sentences() -> BTreeMap<String, String> {
    let schema = ErrorCode::json_schema(&mut SchemaGenerator::default());
    let variants = schema.get("oneOf").and_then(Value::as_array);
    let sentence = |variant: &Value| {
        let text = |key: &str| variant.get(key)?.as_str().map(str::to_owned);
        Some((text("const")?, text("description")?))
    };
    variants.into_iter().flatten().filter_map(sentence).collect()
}
