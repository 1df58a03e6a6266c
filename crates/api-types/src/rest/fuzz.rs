//! A few thousand random bodies through every parser: none may panic, and what is refused is refused as a bad request.
//!
//! The seed is fixed, so a failure repeats.

use super::content_safety::{
    AnalyzeImageRequest, AnalyzeTextRequest, DetectProtectedMaterialRequest, ShieldPromptRequest,
};
use super::text_blocklists::{
    AddOrUpdateBlocklistItemsRequest, BlocklistName, PatchBlocklistRequest,
    RemoveBlocklistItemsRequest,
};
use super::*;
use serde_json::json;

pub(super) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const BODIES: usize = 6000;
const DEEPEST: usize = 5;

/// Words that lead into the parsers' branches, beside their names.
pub(super) const WORDS: &[&str] = &[
    "",
    "a",
    "user",
    "system",
    "assistant",
    "tool",
    "function",
    "text",
    "audio",
    "image_url",
    "input_audio",
    "audio_url",
    "json_object",
    "json_schema",
    "auto",
    "none",
    "required",
    "wav",
    "data:image/png;base64,aGk=",
    "data:",
    "https://x/y",
    "Hate",
    "FourSeverityLevels",
    "\u{0}\u{10ffff}ß",
    "base64",
];

pub(super) const KEYS: &[&str] = &[
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "detail",
    "input_audio",
    "data",
    "format",
    "audio_url",
    "tool_calls",
    "tool_call_id",
    "id",
    "function",
    "name",
    "arguments",
    "parameters",
    "strict",
    "tools",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "stop",
    "stream",
    "stream_options",
    "include_usage",
    "temperature",
    "max_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "7",
    "functions",
    "function_call",
    "modalities",
    "user_security_context",
    "source_ip",
    "prompt",
    "best_of",
    "echo",
    "suffix",
    "input",
    "image",
    "dimensions",
    "encoding_format",
    "input_type",
    "userPrompt",
    "documents",
    "categories",
    "outputType",
    "blobUrl",
    "unknown",
];

/// xorshift64: enough to walk through branches.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    pub(super) fn one_of<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.below(words.len())]
    }

    pub(super) fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == DEEPEST { 6 } else { 12 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => [json!(-1), json!(0), json!(3), json!(1e300), json!(u64::MAX), json!(i64::MIN)]
                [self.below(6)]
            .clone(),
            3 => [json!(0.5), json!(-0.0), json!(1.0), json!(2.5)][self.below(4)].clone(),
            4 | 5 => json!(self.one_of(WORDS)),
            6..9 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => Value::Object(self.fields(depth)),
        }
    }

    fn fields(&mut self, depth: usize) -> Fields {
        let many = self.below(6);
        (0..many).map(|_| (self.one_of(KEYS).to_owned(), self.value(depth + 1))).collect()
    }

    /// A valid conversation with something random in it, so that the deep branches are reached.
    fn conversation(&mut self) -> Value {
        let role = WORDS[2 + self.below(5)];
        let mut message = json!({"role": role, "content": "a", "tool_call_id": "1", "name": "f"});
        message.as_object_mut().unwrap().extend(self.fields(1));
        let mut body = json!({"messages": [message]});
        body.as_object_mut().unwrap().extend(self.fields(0));
        body
    }
}

fn parse_as_everything(body: &[u8]) -> Vec<Result<(), Fault>> {
    let vocabularies = [Vocabulary::INFERENCE, Vocabulary::OPENAI];
    let mut results = Vec::new();
    for vocabulary in vocabularies {
        let chat = ChatCompletionsRequest::parse(body, vocabulary);
        results.push(chat.and_then(Parsed::<ChatCompletionsRequest>::admit).map(drop));
        let completions = CompletionsRequest::parse(body, vocabulary);
        results.push(completions.and_then(Parsed::<CompletionsRequest>::admit).map(drop));
        let embeddings = EmbeddingsRequest::parse(body, vocabulary, 8);
        results.push(embeddings.and_then(Parsed::<EmbeddingsRequest>::admit).map(drop));
        results.push(ImageEmbeddingsRequest::parse(body, vocabulary, 8).map(drop));
    }
    results.push(AnalyzeTextRequest::parse(body).map(drop));
    results.push(AnalyzeImageRequest::parse(body).map(drop));
    results.push(ShieldPromptRequest::parse(body).map(drop));
    results.push(DetectProtectedMaterialRequest::parse_text(body).map(drop));
    results.push(AddOrUpdateBlocklistItemsRequest::parse(body).map(drop));
    results.push(RemoveBlocklistItemsRequest::parse(body).map(drop));
    let name = BlocklistName::parse("words").unwrap();
    results.push(PatchBlocklistRequest::parse(body, &name).map(drop));
    results
}

#[test]
fn no_random_body_breaks_a_parser() {
    let mut dice = Dice(SEED);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..BODIES {
        let body = match round % 3 {
            0 => dice.value(0),
            1 => Value::Object(dice.fields(0)),
            _ => dice.conversation(),
        };
        for result in parse_as_everything(body.to_string().as_bytes()) {
            match result {
                Ok(()) => taken += 1,
                Err(fault) => {
                    assert_eq!(fault.code, ErrorCode::InvalidRequest, "{fault} for {body}");
                    assert!(fault.message.len() < 600, "{fault}");
                    refused += 1;
                }
            }
        }
    }
    assert!(taken > BODIES / 10 && refused > BODIES, "{taken} taken, {refused} refused");
}

#[test]
fn no_cut_or_flipped_byte_breaks_a_parser() {
    let mut dice = Dice(SEED);
    let whole = json!({
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Grüße \u{1f600}"}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "logit_bias": {"7": 1.5}, "stop": ["a"], "input": ["a"], "prompt": "a"
    })
    .to_string()
    .into_bytes();
    for cut in 0..whole.len() {
        for result in parse_as_everything(&whole[..cut]) {
            assert!(result.is_err());
        }
        let mut flipped = whole.clone();
        flipped[cut] = u8::try_from(dice.below(256)).unwrap();
        parse_as_everything(&flipped);
    }
}
