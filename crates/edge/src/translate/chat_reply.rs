//! Pieces → the answer of `/chat/completions`: streamed as updates, or whole.
//!
//! A small state machine per answer, without any waiting in it: `Updates::push` takes a piece and says what leaves. It holds
//! back the end of the last choice until usage is known, because on the inference routes both are one chunk (section 8.8).

mod whole;

pub use whole::{Collected, ended_early};

use crate::pieces::{Call, Piece, Screened, Text};
use crate::translate::{Answer, UsagePlace, usage};
use api_types::rest::chat_completions::response::{AssistantRole, ChatCompletionsUpdateObject};
use api_types::rest::chat_completions::tool::FunctionCallDelta;
use api_types::rest::chat_completions::{
    ChatDelta, ChatUpdateChoice, ChoiceLogprobs, CompletionsUsage, FinishReason, FunctionKind,
    TokenLogprob, ToolCallDelta,
};
use api_types::rest::content_filter::ContentFilterOffsets;
use api_types::rest::{ChatCompletionsUpdate, ContentFilterResults};
use std::collections::HashMap;

/// Begins reasoning that is part of the content.
pub(super) const THINK: &str = "<think>";
/// Ends it.
pub(super) const THOUGHT: &str = "</think>";

/// Pieces → updates.
#[derive(Debug)]
pub struct Updates {
    answer: Answer,
    choices: HashMap<u32, State>,
    /// The end of a choice that waits for usage.
    held: Option<ChatUpdateChoice>,
    /// Whether what was found in the prompt has been said.
    announced: bool,
}

#[derive(Debug, Default)]
struct State {
    thinking: bool,
    called: bool,
}

impl Updates {
    /// For one answer.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, choices: HashMap::new(), held: None, announced: false }
    }

    /// The updates that leave because of `screened`.
    pub fn push(&mut self, screened: Screened) -> Vec<ChatCompletionsUpdate> {
        let Screened { piece, found } = screened;
        let mut out = Vec::new();
        match piece {
            Piece::Started(model) => self.answer.model = model,
            Piece::Text(text) => self.text(text, found, &mut out),
            Piece::Reasoning { choice, text } => self.reasoning(choice, text, found, &mut out),
            Piece::ToolCall(call) => self.call(call, found, &mut out),
            Piece::Finished { choice, reason } => self.finished(choice, reason, found, &mut out),
            Piece::Vetted { choice, offsets } => self.vetted(choice, offsets, found, &mut out),
            Piece::Usage(spent) => self.spent(usage(spent), &mut out),
        }
        out
    }

    /// What is still held back when the pieces end.
    pub fn finish(&mut self) -> Vec<ChatCompletionsUpdate> {
        let held = self.held.take();
        held.map(|choice| self.update(vec![choice])).into_iter().collect()
    }

    fn text(
        &mut self,
        text: Text,
        found: Option<ContentFilterResults>,
        out: &mut Vec<ChatCompletionsUpdate>,
    ) {
        let Text { choice, mut text, logprobs } = text;
        let state = self.open(choice, out);
        if std::mem::take(&mut state.thinking) {
            text.insert_str(0, THOUGHT);
        }
        let delta = ChatDelta { content: Some(text), ..ChatDelta::default() };
        out.push(self.step(choice, delta, logprobs, found));
    }

    fn reasoning(
        &mut self,
        choice: u32,
        mut text: String,
        found: Option<ContentFilterResults>,
        out: &mut Vec<ChatCompletionsUpdate>,
    ) {
        let inline = self.answer.inline_reasoning;
        let state = self.open(choice, out);
        let delta = if inline {
            if !std::mem::replace(&mut state.thinking, true) {
                text.insert_str(0, THINK);
            }
            ChatDelta { content: Some(text), ..ChatDelta::default() }
        } else {
            ChatDelta { reasoning_content: Some(text), ..ChatDelta::default() }
        };
        out.push(self.step(choice, delta, Vec::new(), found));
    }

    fn call(
        &mut self,
        call: Call,
        found: Option<ContentFilterResults>,
        out: &mut Vec<ChatCompletionsUpdate>,
    ) {
        let choice = call.choice;
        self.open(choice, out).called = true;
        self.end_thought(choice, out);
        let delta =
            if self.answer.legacy_functions { function_delta(call) } else { call_delta(call) };
        out.push(self.step(choice, delta, Vec::new(), found));
    }

    fn finished(
        &mut self,
        choice: u32,
        reason: FinishReason,
        found: Option<ContentFilterResults>,
        out: &mut Vec<ChatCompletionsUpdate>,
    ) {
        let reason = settled(reason, self.open(choice, out).called);
        self.end_thought(choice, out);
        let finish_reason = Some(legacy_reason(reason, self.answer.legacy_functions));
        let last = ChatUpdateChoice {
            index: choice,
            delta: last_delta(reason),
            finish_reason,
            content_filter_results: found,
            ..ChatUpdateChoice::default()
        };
        match self.answer.usage {
            UsagePlace::LastChoice => {
                let before = self.held.replace(last);
                out.extend(before.map(|choice| self.update(vec![choice])));
            }
            UsagePlace::OwnChunk | UsagePlace::Nowhere => out.push(self.update(vec![last])),
        }
    }

    /// An annotation of its own. With a delta, an id and a model, unlike Azure's: clients read them unasked (section 13.7).
    fn vetted(
        &mut self,
        choice: u32,
        offsets: ContentFilterOffsets,
        found: Option<ContentFilterResults>,
        out: &mut Vec<ChatCompletionsUpdate>,
    ) {
        self.open(choice, out);
        out.push(self.update(vec![ChatUpdateChoice {
            index: choice,
            content_filter_results: found,
            content_filter_offsets: Some(offsets),
            ..ChatUpdateChoice::default()
        }]));
    }

    fn spent(&mut self, usage: CompletionsUsage, out: &mut Vec<ChatCompletionsUpdate>) {
        match self.answer.usage {
            UsagePlace::LastChoice => {
                if let Some(choice) = self.held.take() {
                    out.push(ChatCompletionsUpdate {
                        usage: Some(Some(usage)),
                        ..self.update(vec![choice])
                    });
                }
            }
            UsagePlace::OwnChunk => {
                out.push(ChatCompletionsUpdate {
                    usage: Some(Some(usage)),
                    ..self.update(Vec::new())
                });
            }
            UsagePlace::Nowhere => {}
        }
    }

    /// The state of a choice; its first piece brings the role chunk, the very first what was found in the prompt.
    fn open(&mut self, choice: u32, out: &mut Vec<ChatCompletionsUpdate>) -> &mut State {
        if !self.choices.contains_key(&choice) {
            let role = ChatDelta {
                role: Some(AssistantRole::Assistant),
                content: Some(String::new()),
                ..ChatDelta::default()
            };
            let mut first = self.update(vec![ChatUpdateChoice {
                index: choice,
                delta: role,
                ..Default::default()
            }]);
            if !std::mem::replace(&mut self.announced, true)
                && let Some(found) = self.answer.prompt_filter_results()
            {
                if self.answer.family.is_openai() {
                    out.push(announcement(ChatCompletionsUpdate {
                        prompt_filter_results: Some(found),
                        ..self.update(Vec::new())
                    }));
                } else {
                    first.prompt_filter_results = Some(found);
                }
            }
            out.push(first);
        }
        self.choices.entry(choice).or_default()
    }

    fn end_thought(&mut self, choice: u32, out: &mut Vec<ChatCompletionsUpdate>) {
        let thinking =
            self.choices.get_mut(&choice).is_some_and(|s| std::mem::take(&mut s.thinking));
        if thinking {
            let delta = ChatDelta { content: Some(THOUGHT.to_owned()), ..ChatDelta::default() };
            out.push(self.step(choice, delta, Vec::new(), None));
        }
    }

    fn step(
        &self,
        choice: u32,
        delta: ChatDelta,
        logprobs: Vec<TokenLogprob>,
        found: Option<ContentFilterResults>,
    ) -> ChatCompletionsUpdate {
        self.update(vec![ChatUpdateChoice {
            index: choice,
            delta,
            logprobs: choice_logprobs(logprobs),
            content_filter_results: found,
            ..ChatUpdateChoice::default()
        }])
    }

    fn update(&self, choices: Vec<ChatUpdateChoice>) -> ChatCompletionsUpdate {
        ChatCompletionsUpdate {
            id: self.answer.id.clone(),
            object: ChatCompletionsUpdateObject::ChatCompletionChunk,
            created: self.answer.created,
            model: self.answer.model.clone(),
            choices,
            prompt_filter_results: None,
            usage: match self.answer.usage {
                UsagePlace::OwnChunk => Some(None),
                UsagePlace::LastChoice | UsagePlace::Nowhere => None,
            },
            system_fingerprint: None,
        }
    }
}

/// Azure's first chunk on OpenAI's routes: only what was found in the prompt (section 13.6).
fn announcement(update: ChatCompletionsUpdate) -> ChatCompletionsUpdate {
    ChatCompletionsUpdate {
        id: String::new(),
        object: ChatCompletionsUpdateObject::Annotation,
        created: 0,
        model: String::new(),
        ..update
    }
}

/// An answer cut by a filter ends without a word more; others with an empty one, which .NET and LangChain read.
fn last_delta(reason: FinishReason) -> ChatDelta {
    match reason {
        FinishReason::Stop | FinishReason::Length => {
            ChatDelta { content: Some(String::new()), ..ChatDelta::default() }
        }
        FinishReason::ContentFilter | FinishReason::ToolCalls | FinishReason::FunctionCall => {
            ChatDelta::default()
        }
    }
}

/// Whoever calls tools ends for that: some backends say `stop` when a call was forced (section 8.6).
pub(super) const fn settled(reason: FinishReason, called: bool) -> FinishReason {
    match reason {
        FinishReason::Stop if called => FinishReason::ToolCalls,
        FinishReason::Stop
        | FinishReason::Length
        | FinishReason::ContentFilter
        | FinishReason::ToolCalls
        | FinishReason::FunctionCall => reason,
    }
}

/// The reason in the words of the request.
pub(super) const fn legacy_reason(reason: FinishReason, legacy: bool) -> FinishReason {
    match reason {
        FinishReason::ToolCalls if legacy => FinishReason::FunctionCall,
        FinishReason::Stop
        | FinishReason::Length
        | FinishReason::ContentFilter
        | FinishReason::ToolCalls
        | FinishReason::FunctionCall => reason,
    }
}

pub(super) fn choice_logprobs(tokens: Vec<TokenLogprob>) -> Option<ChoiceLogprobs> {
    (!tokens.is_empty()).then_some(ChoiceLogprobs { content: Some(tokens), refusal: None })
}

fn call_delta(call: Call) -> ChatDelta {
    let Call { choice: _, index, id, name, arguments } = call;
    let first = !id.is_empty() || !name.is_empty();
    let step = ToolCallDelta {
        index,
        id: first.then_some(id),
        kind: first.then_some(FunctionKind::Function),
        function: FunctionCallDelta { name: first.then_some(name), arguments },
    };
    ChatDelta { tool_calls: Some(vec![step]), ..ChatDelta::default() }
}

fn function_delta(call: Call) -> ChatDelta {
    let Call { choice: _, index: _, id: _, name, arguments } = call;
    let name = (!name.is_empty()).then_some(name);
    ChatDelta { function_call: Some(FunctionCallDelta { name, arguments }), ..ChatDelta::default() }
}

#[cfg(test)]
mod tests;
