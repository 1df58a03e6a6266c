//! The sampling parameters that `/chat/completions` and `/completions` share.
//!
//! Ranges are the API's widest (sections 8.1 and 9); what a model can do within them is the model's business.

use super::json::{At, Object, boolean, count, filled, integer, list, number};
use super::schema::inline_schema;
use super::{Dialect, Fields};
use crate::Fault;
use schemars::{JsonSchema, json_schema};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Largest number of choices of one answer.
pub const MOST_CHOICES: u32 = 128;
/// Stop strings OpenAI's routes take.
const MOST_STOPS_OPENAI: usize = 4;
/// Stop strings the inference routes take: their API names no bound, and each costs time per token.
const MOST_STOPS_INFERENCE: usize = 64;
/// Digits of a token's id; no vocabulary has a billion tokens.
const MOST_ID_DIGITS: usize = 9;
/// Token counts are 32-bit signed integers in every client.
pub(super) const MOST_TOKENS: u32 = i32::MAX as u32;

/// How to sample. None leaves the choice to the model.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
pub struct Sampling {
    /// 0..2; 0 is greedy.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f32>,
    /// 0..1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f32>,
    /// -2..2.
    #[schemars(range(min = -2.0, max = 2.0))]
    pub frequency_penalty: Option<f32>,
    /// -2..2.
    #[schemars(range(min = -2.0, max = 2.0))]
    pub presence_penalty: Option<f32>,
    /// Tokens per choice; `max_completion_tokens` wins over `max_tokens` when both are sent.
    #[schemars(range(max = MOST_TOKENS))]
    pub max_tokens: Option<u32>,
    /// None of them empty; at most 4 on OpenAI's routes.
    #[schemars(with = "Option<Stop>")]
    pub stop: Vec<String>,
    /// For repeatable sampling.
    #[schemars(range(min = i64::MIN, max = i64::MAX))]
    pub seed: Option<i64>,
    /// Choices per prompt, 1..128. OpenAI's name.
    #[schemars(range(min = 1, max = MOST_CHOICES))]
    pub n: Option<u32>,
    /// Token id → -100..100. OpenAI's name.
    #[schemars(with = "Option<LogitBias>")]
    pub logit_bias: BTreeMap<u32, f32>,
}

/// What to send besides the answer when it is streamed. OpenAI's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema)]
pub struct StreamOptions {
    /// One more chunk with the usage.
    #[schemars(with = "Option<bool>")]
    pub include_usage: bool,
}

impl Sampling {
    pub(super) fn read(fields: &mut Object<'_>, dialect: Dialect) -> Result<Self, Fault> {
        Ok(Self {
            temperature: fields.optional("temperature", number(0.0..=2.0))?,
            top_p: fields.optional("top_p", number(0.0..=1.0))?,
            frequency_penalty: fields.optional("frequency_penalty", number(-2.0..=2.0))?,
            presence_penalty: fields.optional("presence_penalty", number(-2.0..=2.0))?,
            max_tokens: fields.optional("max_tokens", count(0..=MOST_TOKENS))?,
            stop: fields.optional("stop", stop(dialect))?.unwrap_or_default(),
            seed: fields.optional("seed", integer(i64::MIN..=i64::MAX))?,
            n: None,
            logit_bias: BTreeMap::new(),
        })
    }

    /// The names of OpenAI's API.
    pub(super) fn read_openai(&mut self, fields: &mut Object<'_>) -> Result<(), Fault> {
        let n = fields.optional("n", count(1..=MOST_CHOICES))?;
        self.n = n.or(self.n);
        if let Some(bias) = fields.optional("logit_bias", logit_bias)? {
            self.logit_bias = bias;
        }
        Ok(())
    }
}

const fn most_stops(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Inference => MOST_STOPS_INFERENCE,
        Dialect::OpenAi => MOST_STOPS_OPENAI,
    }
}

inline_schema!(
    Stop,
    json_schema!({"anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MOST_STOPS_OPENAI},
        {"type": "null"},
    ]})
);

/// Tells the number of stop strings that a family takes; the derived schema has OpenAI's.
pub(super) fn describe_stop(properties: &mut Fields, dialect: Dialect) {
    let path = "/anyOf/1/maxItems";
    if let Some(most) = properties.get_mut("stop").and_then(|stop| stop.pointer_mut(path)) {
        *most = json!(most_stops(dialect));
    }
}

/// A string or an array of strings. An empty array stops at nothing, as if absent.
fn stop(dialect: Dialect) -> impl Fn(Value, At<'_>) -> Result<Vec<String>, Fault> {
    let most = most_stops(dialect);
    move |value, at| match value {
        one @ Value::String(_) => Ok(vec![filled(one, at)?]),
        many @ Value::Array(_) => list(0..=most, filled)(many, at),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Err(at.expected("a string or an array of strings", &other))
        }
    }
}

inline_schema!(
    LogitBias,
    json_schema!({
        "type": "object",
        "patternProperties": {
            (format!("^[0-9]{{1,{MOST_ID_DIGITS}}}$")):
                {"type": ["number", "null"], "minimum": -100, "maximum": 100},
        },
        "additionalProperties": {"type": "null"},
    })
);

/// A token's id: decimal digits alone.
fn token_id(text: &str) -> Option<u32> {
    let digits = text.len() <= MOST_ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn logit_bias(value: Value, at: At<'_>) -> Result<BTreeMap<u32, f32>, Fault> {
    let mut biases = BTreeMap::new();
    for (token, bias) in Object::read(value, at)?.rest() {
        let Some(id) = token_id(&token) else {
            return Err(at.fault("must be an object from token ids to numbers from -100 to 100"));
        };
        biases.insert(id, number(-100.0..=100.0)(bias, at.key(&token))?);
    }
    Ok(biases)
}

/// `stream_options`, which asks for nothing unless the answer is streamed.
pub(super) fn stream_options(value: Value, at: At<'_>) -> Result<StreamOptions, Fault> {
    let mut fields = Object::read(value, at)?;
    let include_usage = fields.optional("include_usage", boolean)?.unwrap_or_default();
    Ok(StreamOptions { include_usage })
}

/// `model`: the empty string, which Prompt flow sends, names none.
pub(super) fn model(fields: &mut Object<'_>) -> Result<Option<String>, Fault> {
    let name = fields.optional("model", super::json::string)?;
    Ok(name.filter(|name| !name.is_empty()))
}
