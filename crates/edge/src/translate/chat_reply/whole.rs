//! Pieces collected into one answer.

use super::{THINK, THOUGHT, choice_logprobs, legacy_reason, settled};
use crate::pieces::{Call, Piece, PieceStream, Text, Usage};
use crate::translate::completions::completion_logprobs;
use crate::translate::{Answer, usage};
use api_types::rest::chat_completions::{
    ChatChoice, ChatResponseMessage, FinishReason, FunctionCall, FunctionKind, TokenLogprob,
    ToolCall,
};
use api_types::rest::completions::CompletionChoice;
use api_types::rest::{ChatCompletions, Completions, ContentFilterResults};
use api_types::{ErrorCode, Fault};
use futures::StreamExt as _;
use std::collections::BTreeMap;

/// All pieces of an answer, put together by choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    model: Option<String>,
    choices: BTreeMap<u32, Choice>,
    /// Tokens spent.
    pub usage: Usage,
}

/// One choice, put together.
#[derive(Debug, Clone, Default, PartialEq)]
struct Choice {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    logprobs: Vec<TokenLogprob>,
    reason: Option<FinishReason>,
    found: Option<ContentFilterResults>,
}

impl Collected {
    /// Takes all of `pieces`.
    ///
    /// # Errors
    /// The fault that ends the pieces, or 502 when they end before their choices.
    pub async fn take(mut pieces: PieceStream) -> Result<Self, Fault> {
        let mut collected = Self::default();
        while let Some(piece) = pieces.next().await {
            collected.push(piece?);
        }
        let ended =
            !collected.choices.is_empty() && collected.choices.values().all(|c| c.reason.is_some());
        if ended { Ok(collected) } else { Err(ended_early()) }
    }

    fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Started(model) => self.model = Some(model),
            Piece::Text(Text { choice, text, logprobs }) => {
                let choice = self.choices.entry(choice).or_default();
                choice.text.push_str(&text);
                choice.logprobs.extend(logprobs);
            }
            Piece::Reasoning { choice, text } => {
                self.choices.entry(choice).or_default().reasoning.push_str(&text);
            }
            Piece::ToolCall(call) => self.choices.entry(call.choice).or_default().call(call),
            Piece::Finished { choice, reason } => {
                self.choices.entry(choice).or_default().reason = Some(reason);
            }
            // Whole answers are judged whole.
            Piece::Vetted { .. } => {}
            Piece::Usage(usage) => self.usage = usage,
        }
    }

    /// What a reader would see of each choice, by its number.
    #[must_use]
    pub fn visible(&self) -> Vec<(u32, String)> {
        let all = self.choices.iter().map(|(index, choice)| {
            let arguments = choice.calls.iter().map(|c| c.function.arguments.as_str());
            let parts =
                [choice.reasoning.as_str(), choice.text.as_str()].into_iter().chain(arguments);
            let parts: Vec<_> = parts.filter(|p| !p.is_empty()).collect();
            (*index, parts.join("\n"))
        });
        all.collect()
    }

    /// Notes what content safety found in `choice`; what was filtered is withheld.
    pub fn judged(&mut self, choice: u32, found: ContentFilterResults, blocked: bool) {
        let Some(slot) = self.choices.get_mut(&choice) else { return };
        if blocked {
            *slot = Choice { reason: Some(FinishReason::ContentFilter), ..Choice::default() };
        }
        slot.found = Some(found);
    }

    /// The continuations, in the order of their numbers.
    #[must_use]
    pub fn into_completions(self, answer: Answer) -> Completions {
        let prompt_filter_results = answer.prompt_filter_results();
        let choices = self.choices.into_iter().map(|(index, choice)| CompletionChoice {
            index,
            finish_reason: choice.reason,
            logprobs: completion_logprobs(choice.logprobs, &mut 0),
            content_filter_results: choice.found,
            content_filter_offsets: None,
            text: choice.text,
        });
        Completions {
            object: Default::default(),
            choices: choices.collect(),
            prompt_filter_results,
            usage: Some(Some(usage(self.usage))),
            system_fingerprint: None,
            model: self.model.unwrap_or(answer.model),
            created: answer.created,
            id: answer.id,
        }
    }

    /// The answer.
    #[must_use]
    pub fn into_chat(self, answer: Answer) -> ChatCompletions {
        let prompt_filter_results = answer.prompt_filter_results();
        let choices = self
            .choices
            .into_iter()
            .map(|(index, choice)| choice.into_rest(index, &answer))
            .collect();
        ChatCompletions {
            object: Default::default(),
            choices,
            prompt_filter_results,
            usage: usage(self.usage),
            system_fingerprint: None,
            model: self.model.unwrap_or(answer.model),
            created: answer.created,
            id: answer.id,
        }
    }
}

impl Choice {
    fn call(&mut self, call: Call) {
        let Call { choice: _, index, id, name, arguments } = call;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index >= self.calls.len() {
            // A call begins with its first step; numbers that skip ahead are closed up.
            let function = FunctionCall { name, arguments };
            self.calls.push(ToolCall { id, kind: FunctionKind::Function, function });
        } else if let Some(known) = self.calls.get_mut(index) {
            known.function.arguments.push_str(&arguments);
        }
    }

    fn into_rest(self, index: u32, answer: &Answer) -> ChatChoice {
        let Self { text, reasoning, calls, logprobs, reason, found } = self;
        let reason = reason.map(|r| settled(r, !calls.is_empty()));
        let withheld = reason == Some(FinishReason::ContentFilter) && text.is_empty();
        let (content, reasoning_content) = match (reasoning.is_empty(), answer.inline_reasoning) {
            (true, _) => (text, None),
            (false, true) => (format!("{THINK}{reasoning}{THOUGHT}{text}"), None),
            (false, false) => (text, Some(reasoning)),
        };
        let (tool_calls, function_call) = match (calls.is_empty(), answer.legacy_functions) {
            (true, _) => (None, None),
            (false, false) => (Some(calls), None),
            (false, true) => (None, calls.into_iter().next().map(|c| c.function)),
        };
        ChatChoice {
            index,
            message: ChatResponseMessage {
                role: Default::default(),
                content: (!withheld).then_some(content),
                reasoning_content,
                tool_calls,
                function_call,
                refusal: None,
            },
            finish_reason: reason.map(|r| legacy_reason(r, answer.legacy_functions)),
            logprobs: choice_logprobs(logprobs),
            content_filter_results: found,
        }
    }
}

/// The generation stopped without saying why.
#[must_use]
pub fn ended_early() -> Fault {
    Fault::new(ErrorCode::UpstreamFailed, "the model stopped before its answer was complete")
}
