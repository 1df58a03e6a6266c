//! The parameters of requests: those of a family of routes, of a path, and of an operation.

use super::Tag;
use super::operation::Entry;
use crate::config::{Config, ExtraDefault, Versions};
use crate::context::Family;
use api_types::rest::text_blocklists::BlocklistName;
use serde_json::{Value, json};

/// Headers every route understands.
const COMMON: [(&str, &str, &str); 2] = [
    ("RequestId", "x-request-id", "Written on the answer; one is made where it is absent."),
    (
        "ClientRequestId",
        "x-ms-client-request-id",
        "Written on the answer; the same over the attempts of one call.",
    ),
];
/// Headers that choose a deployment, where the body names none.
const SELECTORS: [(&str, &str, &str); 2] = [
    ("Deployment", "azureml-model-deployment", "The deployment, where the body names no `model`."),
    ("Model", "x-ms-model-mesh-model-name", "The same, less significant."),
];

/// A parameter of an operation in the query.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    name: &'static str,
    description: &'static str,
    schema: fn() -> Value,
}

impl Parameter {
    /// A query parameter that may be left out.
    #[must_use]
    pub const fn query(
        name: &'static str,
        description: &'static str,
        schema: fn() -> Value,
    ) -> Self {
        Self { name, description, schema }
    }
}

/// The parameters that routes share.
#[must_use]
pub fn components() -> Value {
    let header = |(key, name, description): (&str, &str, &str)| {
        let schema = json!({"type": "string"});
        let header = json!({
            "name": name, "in": "header", "description": description, "schema": schema
        });
        (key.to_owned(), header)
    };
    Value::Object(COMMON.into_iter().chain(SELECTORS).map(header).collect())
}

/// The parameters of a route.
pub(super) fn of(entry: &Entry, tag: Tag, config: &Config) -> Value {
    let mut parameters: Vec<Value> = entry.path_parameters().map(in_path).collect();
    parameters.extend(entry.operation.parameters.iter().map(|parameter| {
        json!({
            "name": parameter.name, "in": "query", "description": parameter.description,
            "schema": (parameter.schema)(),
        })
    }));
    let shared = |key: &str| json!({"$ref": format!("#/components/parameters/{key}")});
    if let Tag::Of(family) = tag {
        parameters.push(api_version(family, config.api.versions));
        if family == Family::Inference {
            parameters.extend(SELECTORS.iter().map(|(key, ..)| shared(key)));
        }
        let extra = entry.operation.body.is_some_and(|body| body.extra_parameters);
        if family == Family::Inference && extra {
            parameters.push(extra_parameters(config.api.extra_parameters));
        }
    }
    parameters.extend(COMMON.iter().map(|(key, ..)| shared(key)));
    Value::Array(parameters)
}

fn in_path(name: &str) -> Value {
    let description = match name {
        "deployment" => "Name of the deployment, without regard to case.",
        "id" => "Identifies one of them.",
        _ => "Its name.",
    };
    let schema = match name {
        // Of a blocklist (section 14).
        "name" => json!({"type": "string", "pattern": BlocklistName::PATTERN}),
        _ => json!({"type": "string", "minLength": 1}),
    };
    json!({
        "name": name, "in": "path", "required": true, "description": description, "schema": schema,
    })
}

fn api_version(family: Family, versions: Versions) -> Value {
    let (required, description, schema) = match (family, versions) {
        (Family::OpenAi, _) => (false, "Ignored.", json!({"type": "string"})),
        (Family::Inference | Family::Deployments | Family::ContentSafety, Versions::Strict) => (
            true,
            "The version of the API, one of the published ones.",
            json!({"type": "string", "enum": family.versions().collect::<Vec<_>>()}),
        ),
        (Family::Inference | Family::Deployments | Family::ContentSafety, Versions::Lenient) => (
            true,
            "The version of the API: a published one, or a later date, which is read as the nearest older one.",
            json!({
                "type": "string",
                "pattern": dates_from(family.first_date()),
                "examples": family.versions().collect::<Vec<_>>(),
            }),
        ),
    };
    json!({
        "name": "api-version", "in": "query", "required": required, "description": description,
        "schema": schema, "example": usual_version(family),
    })
}

/// What most clients of a family send.
const fn usual_version(family: Family) -> &'static str {
    match family {
        Family::Inference => "2024-05-01-preview",
        Family::Deployments => "2024-10-21",
        Family::OpenAi => "preview",
        Family::ContentSafety => "2024-09-01",
    }
}

/// A pattern for `YYYY-MM-DD` and `YYYY-MM-DD-preview` from a first day on, which is the first of a month.
fn dates_from(first: u32) -> String {
    let (year, month) = (first / 10_000, first / 100 % 100);
    let later_months: Vec<String> = (month..=12).map(|month| format!("{month:02}")).collect();
    let year_text = format!("{year:04}");
    // A later year is larger at one digit, equal before it and anything behind it.
    let mut years = Vec::new();
    for (at, digit) in year_text.char_indices() {
        let behind = year_text.len() - at - 1;
        if digit < '9' {
            let next = char::from(u8::try_from(digit).unwrap_or(b'0') + 1);
            years.push(format!("{}[{next}-9][0-9]{{{behind}}}", &year_text[..at]));
        }
    }
    let months = later_months.join("|");
    let years = years.join("|");
    format!(
        "^(?:{year_text}-(?:{months})|(?:{years})-(?:0[1-9]|1[0-2]))-(?:0[1-9]|[12][0-9]|3[01])(?:-preview)?$"
    )
}

fn extra_parameters(default: ExtraDefault) -> Value {
    let default = match default {
        ExtraDefault::Error => "error",
        ExtraDefault::Drop => "drop",
        ExtraDefault::PassThrough => "pass-through",
    };
    json!({
        "name": "extra-parameters", "in": "header",
        "description": "What becomes of body properties that are not part of the API: the request is refused with 400, they \
                        are dropped, or they are handed to the model, which may refuse them with 422. `allow` and \
                        `pass_through` mean `pass-through`, `ignore` means `drop`. The schema of the body is that of `error`.",
        "schema": {
            "type": "string",
            "enum": ["error", "drop", "pass-through", "allow", "pass_through", "ignore"],
            "default": default,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use http::Uri;
    use tokio::time::Instant;

    #[test]
    fn the_pattern_of_versions_takes_what_the_server_takes() {
        let paths = ["/info", "/openai/deployments/d/embeddings", "/contentsafety/text:analyze"];
        for path in paths {
            let family = Family::of_path(path);
            let pattern = dates_from(family.first_date());
            let schema = jsonschema::validator_for(&json!({"pattern": pattern})).unwrap();
            let mut taken = 0;
            for year in [1999, 2019, 2022, 2023, 2024, 2025, 2030, 2999, 9999, 10_000] {
                for (month, day) in (0..=13).flat_map(|m| [0, 1, 31, 32].map(|d| (m, d))) {
                    for end in ["", "-preview", "-beta", "\n"] {
                        let version = format!("{year:04}-{month:02}-{day:02}{end}");
                        let uri = format!("{path}?api-version={}", version.replace('\n', "%0A"));
                        let uri: Uri = uri.parse().unwrap();
                        let context = Context::of(&uri, Instant::now());
                        let served = context.check_version(&uri, Versions::Lenient).is_ok();
                        assert_eq!(schema.is_valid(&json!(version)), served, "{path} {version}");
                        taken += usize::from(served);
                    }
                }
            }
            assert!(taken > 200, "{taken}");
        }
    }
}
