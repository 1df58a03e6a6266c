//! The public JSON schema: one file per endpoint, requests parsed by hand and answers written by serde.
//!
//! Requests are read field by field because a client must learn *which* field was wrong and what was expected there; a
//! derived parser of these unions says "data did not match any variant". A body goes through [`json::object`] once, which
//! bounds its depth, and no reader below panics on any value. Answers serialise in the order of the API's samples.

pub mod chat_completions;
pub mod completions;
pub mod content_filter;
pub mod content_safety;
pub mod data_url;
pub mod dry_run;
pub mod embeddings;
pub mod error;
pub mod image_embeddings;
pub mod info;
pub mod models;
pub mod sampling;
pub mod text_blocklists;
pub mod text_input;

mod json;
mod schema;

pub use chat_completions::{ChatCompletions, ChatCompletionsRequest, ChatCompletionsUpdate};
pub use completions::{Completions, CompletionsRequest};
pub use content_filter::{ContentFilterResults, PromptFilterResult};
pub use data_url::DataUrl;
pub use embeddings::{EmbeddingsRequest, EmbeddingsResult};
pub use error::{ErrorBody, ErrorStyle};
pub use image_embeddings::ImageEmbeddingsRequest;
pub use info::{ModelInformation, ModelType};
pub use models::{Model, ModelAbilities, ModelList};
pub use sampling::{Sampling, StreamOptions};
pub use text_input::TextInput;

use crate::{Detail, ErrorCode, Fault};
use schemars::Schema;
use serde_json::{Map, Value, json};

/// A JSON object as serde_json holds it.
pub type Fields = Map<String, Value>;

/// Which family of routes a request came by: it decides which top-level names are ordinary (sections 5 and 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/`, `/models`, `/api/models`: only the names of the Model Inference API.
    Inference,
    /// `/openai/...`, `/v1`: OpenAI's names as well.
    OpenAi,
}

/// The top-level names that are not *extra* on a route.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// The route's family.
    pub dialect: Dialect,
    /// Names the operator admits besides. OpenAI's are read as the fields they are, others end in `others`.
    pub also_known: &'a [String],
}

impl Vocabulary<'static> {
    /// The names of the Model Inference API alone.
    pub const INFERENCE: Self = Self { dialect: Dialect::Inference, also_known: &[] };
    /// OpenAI's names.
    pub const OPENAI: Self = Self { dialect: Dialect::OpenAi, also_known: &[] };
}

/// A request that was read, and what of its body is not part of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    /// The request, valid by every rule that does not depend on the model.
    pub request: T,
    /// Top-level properties outside the route's vocabulary, untouched. What becomes of them is for the
    /// `extra-parameters` header to say: refuse with [`extra_parameters_fault`], drop, or `admit` and forward the rest.
    pub extra: Fields,
}

/// The 400 of section 5 for a request with extra properties: names all of them, with one detail each.
#[must_use]
pub fn extra_parameters_fault(extra: &Fields) -> Fault {
    let shown: Vec<String> = extra.keys().map(|name| json::shorten(name)).collect();
    let listed = shown.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let mut fault = Fault::new(
        ErrorCode::ExtraParameters,
        format!(
            "Extra parameters [{listed}] are not allowed: the extra-parameters header is absent or 'error'. \
             Send 'pass-through' to hand them to the model, or 'drop' to remove them."
        ),
    );
    fault.target = shown.first().cloned();
    fault.details = shown.into_iter().map(extra_parameter_detail).collect();
    fault
}

fn extra_parameter_detail(target: String) -> Detail {
    let message = "This property is not part of the API.".to_owned();
    Detail { code: "extra_parameter".to_owned(), message, target }
}

/// The top-level names of one endpoint.
struct Names {
    /// Part of the Model Inference API.
    ordinary: &'static [&'static str],
    /// Part of OpenAI's API alone.
    openai: &'static [&'static str],
}

/// A body sorted by vocabulary.
struct Sorted {
    /// To be read by the endpoint.
    known: Fields,
    /// Admitted by the operator, without a field of their own.
    others: Fields,
    /// Outside the vocabulary.
    extra: Fields,
}

impl Names {
    /// Sorts the properties of a body. OpenAI's names with a null are absent, not extra.
    fn sort(&self, body: Fields, vocabulary: Vocabulary<'_>) -> Sorted {
        let mut sorted =
            Sorted { known: Fields::new(), others: Fields::new(), extra: Fields::new() };
        for (name, value) in body {
            let openai = self.openai.contains(&name.as_str());
            let admitted = vocabulary.also_known.contains(&name);
            let readable = vocabulary.dialect == Dialect::OpenAi || admitted || value.is_null();
            if self.ordinary.contains(&name.as_str()) || (openai && readable) {
                sorted.known.insert(name, value);
            } else if admitted {
                sorted.others.insert(name, value);
            } else {
                sorted.extra.insert(name, value);
            }
        }
        sorted
    }

    /// Cuts the derived schema of an endpoint, which has every name it reads, to the names of a vocabulary. `correct` may
    /// change properties before; accepted names without a field of their own take any value.
    fn describe(
        &self,
        schema: &mut Schema,
        vocabulary: Vocabulary<'_>,
        correct: impl FnOnce(&mut Fields),
    ) {
        let object = schema.ensure_object();
        let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
        correct(properties);
        for name in self.openai {
            properties.entry(*name).or_insert_with(|| json!({}));
        }
        if vocabulary.dialect == Dialect::Inference {
            let admitted = |name: &String| {
                self.ordinary.contains(&name.as_str()) || vocabulary.also_known.contains(name)
            };
            properties.retain(|name, _| admitted(name));
            for name in vocabulary.also_known {
                properties.entry(name).or_insert_with(|| json!({}));
            }
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }

    /// Takes OpenAI's names out of the extra properties, for a caller who asked to pass them through.
    fn admit(&self, extra: &mut Fields) -> Fields {
        let mut admitted = Fields::new();
        for name in self.openai {
            if let Some((name, value)) = extra.remove_entry(*name) {
                admitted.insert(name, value);
            }
        }
        admitted
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod bad_requests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
