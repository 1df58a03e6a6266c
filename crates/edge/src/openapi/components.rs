//! The parts of the description that routes share: schemas by the names of their types, and the answers of errors.
//!
//! Requests and answers are described by two generators, because a field that may be left out of a request is always there in
//! an answer. A type that stands in both must look the same in both; a test says so.

use super::responses;
use crate::config::{Config, LimitsConfig};
use crate::context::Family;
use api_types::ErrorCode;
use api_types::rest::{Dialect, ErrorStyle, Vocabulary};
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Makes the schema of a request: with the names that are ordinary on its route, and the bounds of this server.
pub type MakeRequest = fn(&mut SchemaGenerator, Vocabulary<'_>, &LimitsConfig) -> Schema;

/// Where schemas are, in the description.
const SCHEMAS: &str = "#/components/schemas/";
/// Where answers are.
const RESPONSES: &str = "#/components/responses/";

/// The parts that routes share, while they are collected.
#[derive(Debug)]
pub struct Components<'a> {
    config: &'a Config,
    family: Family,
    requests: SchemaGenerator,
    answers: SchemaGenerator,
    /// Schemas that depend on more than their type.
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
    sentences: BTreeMap<String, String>,
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with_transform(ForReaders).with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

impl<'a> Components<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new(config: &'a Config) -> Self {
        Self {
            config,
            family: Family::Inference,
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
            schemas: Map::new(),
            responses: Map::new(),
            sentences: responses::sentences(),
        }
    }

    /// What follows is for routes of `family`.
    pub fn enter(&mut self, family: Family) {
        self.family = family;
    }

    /// The schema of a type that requests are read into.
    pub fn body<T: JsonSchema>(&mut self) -> Value {
        self.requests.subschema_for::<T>().to_value()
    }

    /// The schema of a type that answers are written from.
    pub fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().to_value()
    }

    /// The schema of a request whose names depend on the family of its route.
    pub fn request(&mut self, name: &str, make: MakeRequest) -> Value {
        let (dialect, name) = if self.family.is_openai() {
            (Dialect::OpenAi, format!("OpenAI{name}"))
        } else {
            (Dialect::Inference, name.to_owned())
        };
        let vocabulary = Vocabulary { dialect, also_known: &self.config.api.also_known };
        let mut schema = make(&mut self.requests, vocabulary, &self.config.limits);
        ForReaders.transform(&mut schema);
        self.add(name, schema.to_value())
    }

    /// The schema of the bodies of errors.
    pub(super) fn error(&mut self, style: ErrorStyle) -> Value {
        let mut schema = responses::schema(&mut self.answers, style);
        if let Ok(schema) = <&mut Schema>::try_from(&mut schema) {
            ForReaders.transform(schema);
        }
        self.add(responses::style_name(style).to_owned(), schema)
    }

    fn add(&mut self, name: String, schema: Value) -> Value {
        let reference = json!({"$ref": format!("{SCHEMAS}{name}")});
        self.schemas.insert(name, schema);
        reference
    }

    /// An answer that several routes give, under `name` and where needed a number.
    pub(super) fn response(&mut self, name: &str, response: Value) -> Value {
        let mut free = name.to_owned();
        let mut number = 1;
        while self.responses.get(&free).is_some_and(|other| *other != response) {
            number += 1;
            free = format!("{name}_{number}");
        }
        let reference = json!({"$ref": format!("{RESPONSES}{free}")});
        self.responses.insert(free, response);
        reference
    }

    /// What an error code means.
    pub(super) fn sentence(&self, code: ErrorCode) -> String {
        self.sentences.get(&format!("{code:?}")).map(|said| readable(said)).unwrap_or_default()
    }

    /// Names under which requests and answers describe different things.
    #[cfg(test)]
    pub(super) fn ambiguous(&mut self) -> Vec<String> {
        let requests = self.requests.take_definitions(true);
        let answers = self.answers.take_definitions(true);
        let differ = |(name, schema): (String, Value)| {
            let other = answers.get(&name).or_else(|| self.schemas.get(&name));
            other.is_some_and(|other| *other != schema).then_some(name)
        };
        requests.into_iter().filter_map(differ).collect()
    }

    /// Everything collected, sorted by name.
    #[must_use]
    pub fn finish(mut self) -> Value {
        let mut schemas: BTreeMap<String, Value> = self.schemas.into_iter().collect();
        schemas.extend(self.requests.take_definitions(true));
        schemas.extend(self.answers.take_definitions(true));
        let responses: BTreeMap<String, Value> = self.responses.into_iter().collect();
        json!({"schemas": schemas, "responses": responses})
    }
}

/// Makes schemas shorter for people and generators: words that each have a sentence become one list, and references to
/// chapters and types of the source go.
#[derive(Debug, Clone)]
struct ForReaders;

impl Transform for ForReaders {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        join_words(schema);
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = readable(text);
        }
    }
}

fn join_words(schema: &mut Schema) {
    let Some(Value::Array(variants)) = schema.get("oneOf") else { return };
    let mut words = Vec::new();
    let mut meanings = String::new();
    for variant in variants {
        // A word alone, or a list of words that have no sentences.
        match (variant.get("const"), variant.get("enum"), variant.get("properties")) {
            (Some(word @ Value::String(text)), None, None) => {
                words.push(word.clone());
                let said = variant.get("description").and_then(Value::as_str).unwrap_or_default();
                // Sentences that only repeat the word say nothing.
                if said.trim_matches('`') != text {
                    meanings.push_str(&format!("\n- `{text}`: {}", readable(said)));
                }
            }
            (None, Some(Value::Array(list)), None) => words.extend(list.iter().cloned()),
            (Some(_) | None, Some(_) | None, Some(_) | None) => return,
        }
    }
    let said = schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(words));
    let said = format!("{said}\n{meanings}");
    if !said.trim().is_empty() {
        schema.insert("description".to_owned(), json!(said.trim()));
    }
}

/// A comment of the source as a reader of the description wants it: without chapters of the contract and links to types.
fn readable(text: &str) -> String {
    let mut out = text.replace("[`", "`").replace("`]", "`");
    while let Some(at) = out.find(" (section").or_else(|| out.find(" (contract, section")) {
        let Some(end) = out[at..].find(')') else { break };
        out.replace_range(at..=at + end, "");
    }
    out
}
