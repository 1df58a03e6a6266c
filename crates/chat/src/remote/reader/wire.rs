//! The shapes that servers answer with. Everything may be absent or null.

use crate::backend::{TokenLogprob, Usage};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<WireUsage>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    pub(super) index: Option<u32>,
    pub(super) delta: Option<Delta>,
    /// In place of `delta` in a document.
    pub(super) message: Option<Delta>,
    /// Of `/completions`.
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) logprobs: Option<Logprobs>,
}

/// Texts are values because some servers send parts.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta {
    pub(super) content: Option<Value>,
    pub(super) refusal: Option<Value>,
    pub(super) reasoning_content: Option<Value>,
    pub(super) reasoning: Option<Value>,
    pub(super) tool_calls: Option<Vec<CallStep>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CallStep {
    pub(super) index: Option<u32>,
    pub(super) id: Option<String>,
    pub(super) function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Function {
    pub(super) name: Option<String>,
    /// A string by the protocol; an object from some.
    pub(super) arguments: Option<Value>,
}

/// A string, or the texts of an array of parts.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            Some(texts.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Arguments as text, whoever parsed them.
pub(super) fn arguments(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        parsed @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            parsed.to_string()
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        let count = |many: Option<u64>| u32::try_from(many.unwrap_or_default()).unwrap_or(u32::MAX);
        Self {
            prompt_tokens: count(usage.prompt_tokens),
            completion_tokens: count(usage.completion_tokens),
            cached_tokens: count(usage.prompt_tokens_details.and_then(|d| d.cached_tokens)),
            reasoning_tokens: count(
                usage.completion_tokens_details.and_then(|d| d.reasoning_tokens),
            ),
        }
    }
}

/// Of conversations (`content`) or of prompts (the other lists).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Logprobs {
    content: Option<Vec<Entry>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    token: String,
    logprob: Option<f32>,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Option<Vec<Entry>>,
}

impl Logprobs {
    pub(super) fn into_tokens(self) -> Vec<TokenLogprob> {
        if let Some(content) = self.content {
            return content.into_iter().map(token).collect();
        }
        let mut logprobs = self.token_logprobs.unwrap_or_default().into_iter();
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let token = |token: String| TokenLogprob {
            bytes: token.clone().into_bytes(),
            token,
            logprob: known(logprobs.next().flatten()),
            alternatives: alternatives(tops.next().flatten().unwrap_or_default()),
        };
        self.tokens.unwrap_or_default().into_iter().map(token).collect()
    }
}

fn token(entry: Entry) -> TokenLogprob {
    let Entry { token, logprob, bytes, top_logprobs } = entry;
    let alternative = |other: Entry| {
        let bytes = other.bytes.unwrap_or_else(|| other.token.clone().into_bytes());
        (other.token, known(other.logprob), bytes)
    };
    TokenLogprob {
        bytes: bytes.unwrap_or_else(|| token.clone().into_bytes()),
        token,
        logprob: known(logprob),
        alternatives: top_logprobs.unwrap_or_default().into_iter().map(alternative).collect(),
    }
}

fn alternatives(tops: BTreeMap<String, f32>) -> Vec<(String, f32, Vec<u8>)> {
    let mut list: Vec<_> = tops
        .into_iter()
        .map(|(token, logprob)| (token.clone(), logprob, token.into_bytes()))
        .collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1));
    list
}

/// NaN says unknown, as of the first token of a prompt.
fn known(logprob: Option<f32>) -> f32 {
    logprob.unwrap_or(f32::NAN)
}
