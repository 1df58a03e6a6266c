//! Text that comes as a string or as token ids: the prompts of `/completions` and the inputs of `/embeddings`.

use super::json::{At, count, list};
use super::sampling::MOST_TOKENS;
use crate::Fault;
use schemars::{Schema, json_schema};
use serde_json::{Value, json};

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextInput {
    /// Text to be tokenised.
    Text(String),
    /// Token ids of the model's own vocabulary, at least one.
    Tokens(Vec<u32>),
}

/// What [`read`] takes: texts of at least `least` characters, at most `most` of them.
pub(super) fn schema(least: usize, most: usize) -> Schema {
    let text = json!({"type": "string", "minLength": least});
    let tokens = json!({
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": MOST_TOKENS},
        "minItems": 1,
    });
    let texts = json!({
        "type": "array",
        "items": {"anyOf": [text, tokens]},
        "minItems": 1,
        "maxItems": most,
    });
    json_schema!({"anyOf": [text, texts, tokens]})
}

/// Reads a string, strings, token ids (one text), or lists of token ids; at most `most` texts, each passing `check`.
pub(super) fn read(
    value: Value,
    at: At<'_>,
    most: usize,
    check: impl Fn(Value, At<'_>) -> Result<String, Fault>,
) -> Result<Vec<TextInput>, Fault> {
    let ids = |value: Value, at: At<'_>| {
        list(1..=usize::MAX, count(0..=MOST_TOKENS))(value, at).map(TextInput::Tokens)
    };
    match value {
        one @ Value::String(_) => Ok(vec![TextInput::Text(check(one, at)?)]),
        Value::Array(items) if matches!(items.first(), Some(Value::Number(_))) => {
            Ok(vec![ids(Value::Array(items), at)?])
        }
        many @ Value::Array(_) => list(1..=most, |item, at| match item {
            text @ Value::String(_) => check(text, at).map(TextInput::Text),
            tokens @ Value::Array(_) => ids(tokens, at),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                Err(at.expected("a string or an array of token ids", &other))
            }
        })(many, at),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Err(at.expected("a string, an array of strings, or an array of token ids", &other))
        }
    }
}
