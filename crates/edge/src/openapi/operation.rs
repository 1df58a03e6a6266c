//! What the description says of one route: the vocabulary in which `operations` is written.

use super::components::Components;
use super::parameters::Parameter;
use http::Method;
use serde_json::Value;

/// Makes a schema, or a reference to one among the components.
pub type Make = fn(&mut Components<'_>) -> Value;

/// What a route does, whatever path leads to it.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// One sentence.
    pub summary: &'static str,
    /// Parameters besides those of the route's family and path.
    pub parameters: &'static [Parameter],
    /// What must be sent.
    pub body: Option<Body>,
    /// What is answered when all is well.
    pub answers: &'static [Answer],
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// For example `application/json`.
    pub content_type: &'static str,
    /// Its schema.
    pub schema: Make,
    /// A body that fits it.
    pub example: fn() -> Value,
    /// Whether properties outside the API are refused, dropped or handed on by the `extra-parameters` header, where the
    /// family of the route has that rule.
    pub extra_parameters: bool,
}

/// An answer that is no error.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// One sentence.
    pub description: &'static str,
    /// Its body by content type; empty for none.
    pub content: &'static [(&'static str, Make)],
    /// The schema of each event, where the content is a stream of them.
    pub event: Option<Make>,
}

/// JSON.
pub const JSON: &str = "application/json";
/// What edits a resource.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Server-sent events.
pub const EVENTS: &str = "text/event-stream";
/// A page.
pub const HTML: &str = "text/html";

impl Operation {
    /// An operation without a body of its own that is answered with 200.
    #[must_use]
    pub const fn new(summary: &'static str, answers: &'static [Answer]) -> Self {
        Self { summary, parameters: &[], body: None, answers }
    }

    /// With a JSON body.
    #[must_use]
    pub const fn takes(self, schema: Make, example: fn() -> Value) -> Self {
        self.takes_as(JSON, schema, example)
    }

    /// With a body of a type that ends in JSON.
    #[must_use]
    pub const fn takes_as(
        mut self,
        content_type: &'static str,
        schema: Make,
        example: fn() -> Value,
    ) -> Self {
        self.body = Some(Body { content_type, schema, example, extra_parameters: false });
        self
    }

    /// With a JSON body of the Model Inference API, which has the rule of extra parameters.
    #[must_use]
    pub const fn takes_inference(mut self, schema: Make, example: fn() -> Value) -> Self {
        self.body = Some(Body { content_type: JSON, schema, example, extra_parameters: true });
        self
    }

    /// The same request, which is only foreseen.
    #[must_use]
    pub const fn foreseen(self, summary: &'static str, answers: &'static [Answer]) -> Self {
        Self { summary, answers, ..self }
    }

    /// With more parameters.
    #[must_use]
    pub const fn with(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }
}

impl Answer {
    /// An answer of this content; none for no body.
    #[must_use]
    pub const fn new(
        status: u16,
        description: &'static str,
        content: &'static [(&'static str, Make)],
    ) -> Self {
        Self { status, description, content, event: None }
    }

    /// As a stream, each event has this schema.
    #[must_use]
    pub const fn or_events(mut self, schema: Make) -> Self {
        self.event = Some(schema);
        self
    }
}

/// A route: an operation at a path.
#[derive(Debug, Clone)]
pub struct Entry {
    /// HTTP method.
    pub method: Method,
    /// With parameters in braces.
    pub path: String,
    /// What it does.
    pub operation: &'static Operation,
}

impl Entry {
    /// `operation` at `path`.
    #[must_use]
    pub fn new(method: Method, path: &str, operation: &'static Operation) -> Self {
        Self { method, path: path.to_owned(), operation }
    }

    /// The same under a prefix.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.path.insert_str(0, prefix);
        self
    }

    /// A name for generated clients: method and path in snake case, so it is unique because they are.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = self.method.as_str().to_lowercase();
        for c in self.path.chars() {
            if c.is_ascii_alphanumeric() {
                id.push(c.to_ascii_lowercase());
            } else if !id.ends_with('_') {
                id.push('_');
            }
        }
        id.trim_end_matches('_').to_owned()
    }

    /// The names of the parameters in the path.
    pub fn path_parameters(&self) -> impl Iterator<Item = &str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
    }
}
