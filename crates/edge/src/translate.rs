//! REST ⇄ gRPC: pure functions, nothing else.
//!
//! One file per service or route. Messages are destructured fully, so that a new field breaks the build until someone decides
//! what becomes of it.

pub mod chat;
pub mod chat_reply;
pub mod completions;
pub mod content;
pub mod content_safety;
pub mod embedding;
pub mod models;
pub mod text_blocklists;

use crate::context::{Context, Family};
use crate::pieces::Usage;
use api_types::rest::chat_completions::{
    CompletionTokensDetails, CompletionsUsage, PromptTokensDetails,
};
use api_types::rest::sampling::StreamOptions;
use api_types::rest::{ContentFilterResults, PromptFilterResult};
use api_types::rpc;
use rand::Rng as _;
use rand::distr::Alphanumeric;

/// Length of the random part of OpenAI's ids.
const OPENAI_ID_LENGTH: usize = 29;

/// Where a streamed answer says what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsagePlace {
    /// In the chunk that ends the last choice: the inference routes.
    LastChoice,
    /// In a chunk of its own without choices, all others saying null: OpenAI's `include_usage`.
    OwnChunk,
    /// Nowhere: OpenAI's default.
    Nowhere,
}

/// What the chunks of one answer have in common.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Opaque.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model that answers, until the service says its name.
    pub model: String,
    /// The route's family.
    pub family: Family,
    /// Whether reasoning is part of the content.
    pub inline_reasoning: bool,
    /// Where usage goes when the answer is streamed.
    pub usage: UsagePlace,
    /// Whether calls go by the old name `function_call`.
    pub legacy_functions: bool,
    /// What content safety found in the prompt; none where no policy looked.
    pub prompt_found: Option<ContentFilterResults>,
}

impl Answer {
    /// An answer to the request of `context`, by `model`, beginning now. `prefix` is that of OpenAI's ids: `chatcmpl-`.
    #[must_use]
    pub fn new(context: &Context, prefix: &str, model: &str) -> Self {
        Self {
            id: id(context.family, prefix),
            created: crate::app::unix_seconds(),
            model: model.to_owned(),
            family: context.family,
            inline_reasoning: context.inline_reasoning(),
            usage: if context.family.is_openai() {
                UsagePlace::Nowhere
            } else {
                UsagePlace::LastChoice
            },
            legacy_functions: false,
            prompt_found: None,
        }
    }

    /// The same with usage where `stream_options` want it.
    #[must_use]
    pub fn with_options(mut self, options: Option<StreamOptions>) -> Self {
        if self.family.is_openai() && options.is_some_and(|o| o.include_usage) {
            self.usage = UsagePlace::OwnChunk;
        }
        self
    }

    /// What was found in the prompt, as the API lists it.
    #[must_use]
    pub fn prompt_filter_results(&self) -> Option<Vec<PromptFilterResult>> {
        let found = self.prompt_found.clone()?;
        Some(vec![PromptFilterResult { prompt_index: 0, content_filter_results: found }])
    }
}

/// A fresh id: 32 hex digits on the inference routes, `prefix` and 29 letters or digits on OpenAI's.
#[must_use]
pub fn id(family: Family, prefix: &str) -> String {
    let mut random = rand::rng();
    if family.is_openai() {
        let tail: String =
            (0..OPENAI_ID_LENGTH).map(|_| char::from(random.sample(Alphanumeric))).collect();
        return format!("{prefix}{tail}");
    }
    format!("{:032x}", random.random::<u128>())
}

/// Tokens spent, as the service counts them.
#[must_use]
pub const fn usage_from_rpc(usage: rpc::chat::Usage) -> Usage {
    let rpc::chat::Usage { prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens } =
        usage;
    Usage {
        prompt: prompt_tokens,
        completion: completion_tokens,
        cached: cached_tokens,
        reasoning: reasoning_tokens,
    }
}

/// Tokens spent, as the API writes them; details only where there are any.
#[must_use]
pub fn usage(usage: Usage) -> CompletionsUsage {
    let Usage { prompt, completion, cached, reasoning } = usage;
    let mut out = CompletionsUsage::new(prompt, completion);
    if reasoning > 0 {
        out.completion_tokens_details =
            Some(CompletionTokensDetails { reasoning_tokens: reasoning, ..Default::default() });
    }
    if cached > 0 {
        out.prompt_tokens_details =
            Some(PromptTokensDetails { cached_tokens: cached, ..Default::default() });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_their_family() {
        let hex = id(Family::Inference, "chatcmpl-");
        assert!(hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit()));
        let openai = id(Family::Deployments, "chatcmpl-");
        let tail = openai.strip_prefix("chatcmpl-").unwrap();
        assert!(tail.len() == 29 && tail.chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(hex, id(Family::Inference, ""));
    }

    #[test]
    fn details_of_usage_appear_only_where_they_say_something() {
        assert_eq!(
            usage(Usage { prompt: 2, completion: 3, ..Usage::default() }),
            CompletionsUsage::new(2, 3)
        );
        let thought = usage(Usage { prompt: 2, completion: 3, cached: 1, reasoning: 2 });
        assert_eq!(thought.completion_tokens_details.unwrap().reasoning_tokens, 2);
        assert_eq!(thought.prompt_tokens_details.unwrap().cached_tokens, 1);
        assert_eq!(thought.total_tokens, 5);
    }
}
