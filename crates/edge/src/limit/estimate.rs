//! How many tokens a request is taken to cost before anybody has counted them.
//!
//! Separate because it is a guess, and says how it guesses: characters of text divided by a constant, a constant for each image
//! or recording, and for the answer what the request allows, or what configuration says where it does not say. What is reserved
//! so is corrected by the tokens the model reports, at the end.

use api_types::rest::chat_completions::ContentPart;
use api_types::rest::text_input::TextInput;
use api_types::rest::{
    ChatCompletionsRequest, CompletionsRequest, EmbeddingsRequest, ImageEmbeddingsRequest,
};

/// Characters of a token: the usual figure for English; other languages have fewer.
const CHARS_PER_TOKEN: usize = 4;
/// Tokens of an image or a recording: a middling figure for a picture of 512 by 512.
const MEDIA_TOKENS: u64 = 256;

/// Tokens that a request is taken to cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Of what is sent.
    pub prompt: u64,
    /// Of what is answered.
    pub completion: u64,
}

impl Estimate {
    /// Both.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// A conversation; `default` is the length of an answer where it says none.
    #[must_use]
    pub fn chat(request: &ChatCompletionsRequest, default: u32) -> Self {
        let parts = request.messages.iter().flat_map(|message| &message.content);
        let prompt = parts.map(|part| match part {
            ContentPart::Text(text) => text_tokens(text),
            ContentPart::ImageUrl { .. }
            | ContentPart::InputAudio { .. }
            | ContentPart::AudioUrl(_) => MEDIA_TOKENS,
        });
        let length = request.sampling.max_tokens.unwrap_or(default);
        let choices = request.sampling.n.unwrap_or(1);
        Self { prompt: prompt.sum(), completion: product(length, choices) }
    }

    /// Prompts to continue.
    #[must_use]
    pub fn completions(request: &CompletionsRequest, default: u32) -> Self {
        let length = request.sampling.max_tokens.unwrap_or(default);
        let choices = request.best_of.or(request.sampling.n).unwrap_or(1);
        let prompts = u64::try_from(request.prompts.len()).unwrap_or(u64::MAX);
        Self {
            prompt: inputs(&request.prompts),
            completion: product(length, choices).saturating_mul(prompts),
        }
    }

    /// Texts to embed.
    #[must_use]
    pub fn embeddings(request: &EmbeddingsRequest) -> Self {
        Self { prompt: inputs(&request.input), completion: 0 }
    }

    /// Images to embed.
    #[must_use]
    pub fn image_embeddings(request: &ImageEmbeddingsRequest) -> Self {
        let inputs = request.input.iter();
        let tokens = inputs.map(|i| MEDIA_TOKENS + i.text.as_deref().map_or(0, text_tokens));
        Self { prompt: tokens.sum(), completion: 0 }
    }
}

fn inputs(inputs: &[TextInput]) -> u64 {
    let tokens = inputs.iter().map(|input| match input {
        TextInput::Text(text) => text_tokens(text),
        TextInput::Tokens(ids) => u64::try_from(ids.len()).unwrap_or(u64::MAX),
    });
    tokens.sum()
}

fn text_tokens(text: &str) -> u64 {
    u64::try_from(text.chars().count().div_ceil(CHARS_PER_TOKEN)).unwrap_or(u64::MAX)
}

fn product(length: u32, choices: u32) -> u64 {
    u64::from(length) * u64::from(choices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::rest::Vocabulary;
    use serde_json::json;

    #[test]
    fn text_counts_by_characters_and_the_answer_by_what_it_may_have() {
        let body = json!({"messages": [{"role": "user", "content": "äöüß12345"}], "n": 3, "max_tokens": 20});
        let parsed =
            ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
        let estimate = Estimate::chat(&parsed.request, 512);
        assert_eq!(estimate, Estimate { prompt: 3, completion: 60 });
        assert_eq!(estimate.total(), 63);
        let body = json!({"messages": [{"role": "user", "content": "hi"}]});
        let parsed =
            ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
        assert_eq!(Estimate::chat(&parsed.request, 512).total(), 513);
    }

    #[test]
    fn every_prompt_and_every_input_counts() {
        let body = json!({"prompt": ["12345678", "1234"], "max_tokens": 5});
        let parsed =
            CompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
        let estimate = Estimate::completions(&parsed.request, 512);
        assert_eq!(estimate, Estimate { prompt: 3, completion: 10 });
        let body = json!({"input": [[1, 2, 3, 4, 5], [6]]});
        let parsed =
            EmbeddingsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI, 8).unwrap();
        assert_eq!(Estimate::embeddings(&parsed.request).total(), 6);
    }
}
