//! `/completions` ⇄ gRPC: prompts, events, and the streamed chunks.
//!
//! The whole answer is put together by `chat_reply::Collected`, since the pieces are the same. `Chunks` holds back the last end
//! for the usage, as `chat_reply::Updates` does.

use crate::pieces::{Piece, Screened, Text};
use crate::translate::chat::{finished_from_rpc, sampling_to_rpc, text_from_rpc};
use crate::translate::{Answer, UsagePlace, usage, usage_from_rpc};
use api_types::rest::chat_completions::{CompletionsUsage, TokenLogprob};
use api_types::rest::completions::{CompletionChoice, CompletionLogprobs};
use api_types::rest::text_input::TextInput;
use api_types::rest::{Completions, CompletionsRequest, ContentFilterResults, Dialect, Fields};
use api_types::rpc::chat;
use std::collections::HashMap;

/// The request for the model called `model`, with the extra parameters it takes.
#[must_use]
pub fn to_rpc(
    request: CompletionsRequest,
    model: &str,
    dialect: Dialect,
    extra_json: String,
) -> chat::CompleteRequest {
    let max_tokens = request.max_tokens(dialect);
    let CompletionsRequest {
        prompts,
        // Chosen by the deployment table.
        model: _,
        mut sampling,
        // Every call streams; the edge collects.
        stream: _,
        stream_options: _,
        best_of,
        echo,
        logprobs,
        suffix,
        user: _,
        // Sorted into `extra_json` by the check.
        others,
    } = request;
    debug_assert!(others == Fields::new(), "the check takes what is left over");
    sampling.max_tokens = Some(max_tokens);
    chat::CompleteRequest {
        model: model.to_owned(),
        prompts: prompts.into_iter().map(prompt).collect(),
        sampling: Some(sampling_to_rpc(sampling, logprobs)),
        suffix: suffix.unwrap_or_default(),
        echo,
        best_of,
        extra_json,
    }
}

fn prompt(prompt: TextInput) -> chat::Prompt {
    let prompt = match prompt {
        TextInput::Text(text) => chat::prompt::Prompt::Text(text),
        TextInput::Tokens(ids) => chat::prompt::Prompt::Tokens(chat::TokenIds { ids }),
    };
    chat::Prompt { prompt: Some(prompt) }
}

/// An event as a piece; none for an event of a kind that this edge does not know.
#[must_use]
pub fn from_rpc(response: chat::CompleteResponse) -> Option<Piece> {
    use chat::complete_response::Event;
    Some(match response.event? {
        Event::Started(chat::Started { model }) => Piece::Started(model),
        Event::Text(delta) => Piece::Text(text_from_rpc(delta)),
        Event::Finished(finished) => finished_from_rpc(finished),
        Event::Usage(usage) => Piece::Usage(usage_from_rpc(usage)),
    })
}

/// Pieces → chunks.
#[derive(Debug)]
pub struct Chunks {
    answer: Answer,
    /// Characters of each choice so far, where its next token begins.
    offsets: HashMap<u32, u32>,
    /// The end of a choice that waits for usage.
    held: Option<CompletionChoice>,
    /// Whether what was found in the prompts has been said.
    announced: bool,
}

impl Chunks {
    /// For one answer.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, offsets: HashMap::new(), held: None, announced: false }
    }

    /// The chunks that leave because of `screened`.
    pub fn push(&mut self, screened: Screened) -> Vec<Completions> {
        let Screened { piece, found } = screened;
        match piece {
            Piece::Started(model) => {
                self.answer.model = model;
                Vec::new()
            }
            Piece::Text(text) => self.text(text, found),
            Piece::Finished { choice, reason } => {
                let last = CompletionChoice {
                    index: choice,
                    finish_reason: Some(reason),
                    content_filter_results: found,
                    ..CompletionChoice::default()
                };
                self.finished(last)
            }
            Piece::Vetted { choice, offsets } => {
                let note = CompletionChoice {
                    index: choice,
                    content_filter_results: found,
                    content_filter_offsets: Some(offsets),
                    ..CompletionChoice::default()
                };
                vec![self.chunk(vec![note])]
            }
            Piece::Usage(spent) => self.spent(usage(spent)),
            // `Complete` has no such events.
            Piece::Reasoning { .. } | Piece::ToolCall(_) => Vec::new(),
        }
    }

    /// What is still held back when the pieces end.
    pub fn finish(&mut self) -> Vec<Completions> {
        let held = self.held.take();
        held.map(|choice| self.chunk(vec![choice])).into_iter().collect()
    }

    fn text(&mut self, text: Text, found: Option<ContentFilterResults>) -> Vec<Completions> {
        let Text { choice, text, logprobs } = text;
        let offset = self.offsets.entry(choice).or_default();
        let logprobs = completion_logprobs(logprobs, offset);
        let piece = CompletionChoice {
            index: choice,
            text,
            finish_reason: None,
            logprobs,
            content_filter_results: found,
            content_filter_offsets: None,
        };
        vec![self.chunk(vec![piece])]
    }

    fn finished(&mut self, last: CompletionChoice) -> Vec<Completions> {
        match self.answer.usage {
            UsagePlace::LastChoice => {
                let before = self.held.replace(last);
                before.map(|choice| self.chunk(vec![choice])).into_iter().collect()
            }
            UsagePlace::OwnChunk | UsagePlace::Nowhere => vec![self.chunk(vec![last])],
        }
    }

    fn spent(&mut self, usage: CompletionsUsage) -> Vec<Completions> {
        let choices = match self.answer.usage {
            UsagePlace::LastChoice => self.held.take().map(|choice| vec![choice]),
            UsagePlace::OwnChunk => Some(Vec::new()),
            UsagePlace::Nowhere => None,
        };
        let chunk = choices.map(|choices| self.chunk(choices));
        chunk.map(|chunk| Completions { usage: Some(Some(usage)), ..chunk }).into_iter().collect()
    }

    /// The very first chunk says what was found in the prompts.
    fn chunk(&mut self, choices: Vec<CompletionChoice>) -> Completions {
        let first = !std::mem::replace(&mut self.announced, true);
        Completions {
            id: self.answer.id.clone(),
            object: Default::default(),
            created: self.answer.created,
            model: self.answer.model.clone(),
            choices,
            prompt_filter_results: if first { self.answer.prompt_filter_results() } else { None },
            usage: match self.answer.usage {
                UsagePlace::OwnChunk => Some(None),
                UsagePlace::LastChoice | UsagePlace::Nowhere => None,
            },
            system_fingerprint: None,
        }
    }
}

/// Log probabilities in the shape of this route; `offset` is where the first token begins and then where the last one ended.
pub(super) fn completion_logprobs(
    tokens: Vec<TokenLogprob>,
    offset: &mut u32,
) -> Option<CompletionLogprobs> {
    if tokens.is_empty() {
        return None;
    }
    let mut out = CompletionLogprobs::default();
    for TokenLogprob { token, logprob, bytes: _, top_logprobs } in tokens {
        out.text_offset.push(*offset);
        *offset = offset.saturating_add(u32::try_from(token.chars().count()).unwrap_or(u32::MAX));
        // The first token of an echoed prompt has no probability; the service says NaN.
        let known = logprob.is_finite();
        out.token_logprobs.push(known.then_some(logprob));
        out.top_logprobs
            .push(known.then(|| top_logprobs.into_iter().map(|t| (t.token, t.logprob)).collect()));
        out.tokens.push(token);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::pieces::Usage;
    use crate::translate::chat_reply::Collected;
    use api_types::Fault;
    use api_types::rest::Vocabulary;
    use api_types::rest::chat_completions::FinishReason;
    use futures::StreamExt as _;
    use serde_json::{Value, json};

    fn answer(uri: &str) -> Answer {
        let context = Context::of(&uri.parse().unwrap(), tokio::time::Instant::now());
        Answer { id: "i".into(), created: 7, ..Answer::new(&context, "cmpl-", "m") }
    }

    fn pieces() -> Vec<Piece> {
        let text = |choice, text: &str| {
            Piece::Text(Text { choice, text: text.into(), logprobs: Vec::new() })
        };
        let end = |choice| Piece::Finished { choice, reason: FinishReason::Length };
        let usage = Piece::Usage(Usage { prompt: 1, completion: 2, ..Usage::default() });
        vec![Piece::Started("m".into()), text(1, "b"), text(0, "a"), end(1), end(0), usage]
    }

    #[test]
    fn prompts_and_defaults_by_route() {
        let body = json!({"prompt": ["a", "b"], "best_of": 1, "echo": false, "logit_bias": {}, "user": ""});
        let parsed =
            CompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
        let rpc = to_rpc(parsed.request.clone(), "m", Dialect::OpenAi, String::new());
        assert_eq!(rpc.sampling.unwrap().max_tokens, Some(16));
        assert_eq!(rpc.prompts.len(), 2);
        let rpc = to_rpc(parsed.request, "m", Dialect::Inference, String::new());
        assert_eq!(rpc.sampling.unwrap().max_tokens, Some(256));
    }

    #[test]
    fn chunks_end_with_usage_in_the_last_choice() {
        let mut chunks = Chunks::new(answer("/completions?api-version=2024-05-01-preview"));
        let out: Vec<Value> = pieces()
            .into_iter()
            .flat_map(|p| chunks.push(Screened::unseen(p)))
            .map(|c| serde_json::to_value(c).unwrap())
            .collect();
        assert_eq!(out.len(), 4);
        assert_eq!(out[0]["object"], "text_completion");
        assert_eq!(
            out[0]["choices"][0],
            json!({"index": 1, "text": "b", "finish_reason": null, "logprobs": null})
        );
        assert!(out[2].get("usage").is_none());
        assert_eq!(out[3]["choices"][0]["index"], 0);
        assert_eq!(out[3]["usage"]["total_tokens"], 3);
    }

    #[tokio::test]
    async fn the_whole_answer_has_one_choice_per_prompt_in_order() {
        let stream = futures::stream::iter(pieces().into_iter().map(Ok::<_, Fault>)).boxed();
        let collected = Collected::take(stream).await.unwrap();
        let body =
            serde_json::to_value(collected.into_completions(answer("/v1/completions"))).unwrap();
        assert_eq!(body["choices"][0]["text"], "a");
        assert_eq!(body["choices"][1]["text"], "b");
        assert_eq!(body["usage"]["total_tokens"], 3);
    }

    #[test]
    fn offsets_count_characters_and_an_unknown_probability_is_null() {
        let token = |token: &str, logprob| TokenLogprob {
            token: token.into(),
            logprob,
            bytes: None,
            top_logprobs: Vec::new(),
        };
        let mut offset = 0;
        let first = completion_logprobs(vec![token("né", f32::NAN), token("e", -0.5)], &mut offset)
            .unwrap();
        assert_eq!((first.text_offset, offset), (vec![0, 2], 3));
        assert_eq!(first.token_logprobs, [None, Some(-0.5)]);
        assert!(first.top_logprobs[0].is_none());
        assert_eq!(completion_logprobs(Vec::new(), &mut offset), None);
    }
}
