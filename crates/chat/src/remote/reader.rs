//! Answers of OpenAI's servers as pieces.
//!
//! Pure: events in, pieces out. Lenient about what servers leave out (indices, ids, usage), strict about one thing: a choice
//! that has begun must end, or the answer was cut. A document in place of a stream reads like a single event.

mod wire;

use crate::backend::{FinishReason, GenerateRequest, Piece, TokenLogprob, Usage};
use crate::reasoning::{Splitter, Thought};
use rand::Rng as _;
use rand::distr::Alphanumeric;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use wire::{CallStep, Choice, Chunk, Delta, Function};

/// Choices that one answer may have: the API's largest `n` times its largest number of prompts, bounded for memory.
const MOST_CHOICES: usize = 4096;
/// Of a call's id after `call_`, as OpenAI writes them.
const ID_LETTERS: usize = 24;

/// The state of an answer.
#[derive(Debug)]
pub(super) struct Reader {
    /// Whether text may begin with a thought between tags: in conversations, unless log probabilities, which belong to the
    /// text as it is, were asked for.
    thinks: bool,
    choices: BTreeMap<u32, State>,
    usage: Usage,
}

#[derive(Debug)]
struct State {
    splitter: Option<Splitter>,
    /// Whether each call has begun, by its index.
    calls: Vec<u32>,
    finished: bool,
}

impl Reader {
    pub(super) fn of_conversation(request: &GenerateRequest) -> Self {
        Self::new(request.sampling.top_logprobs.is_none())
    }

    pub(super) fn of_prompts() -> Self {
        Self::new(false)
    }

    fn new(thinks: bool) -> Self {
        Self { thinks, choices: BTreeMap::new(), usage: Usage::default() }
    }

    /// Reads an event; the error says what is wrong with it.
    pub(super) fn read(&mut self, event: Value, out: &mut VecDeque<Piece>) -> Result<(), String> {
        let chunk: Chunk = serde_json::from_value(event)
            .map_err(|cause| format!("an event has an unknown shape: {cause}"))?;
        if let Some(usage) = chunk.usage {
            self.usage = usage.into();
        }
        for (position, choice) in chunk.choices.unwrap_or_default().into_iter().enumerate() {
            let index = choice.index.unwrap_or(u32::try_from(position).unwrap_or(u32::MAX));
            if self.choices.len() >= MOST_CHOICES && !self.choices.contains_key(&index) {
                return Err("the answer has too many choices".to_owned());
            }
            let thinks = self.thinks;
            self.choices
                .entry(index)
                .or_insert_with(|| State::new(thinks))
                .read(index, choice, out);
        }
        Ok(())
    }

    /// The end of the answer.
    pub(super) fn finish(&mut self, out: &mut VecDeque<Piece>) -> Result<(), String> {
        if self.choices.is_empty() || self.choices.values().any(|choice| !choice.finished) {
            return Err("the answer ended before it was finished".to_owned());
        }
        out.push_back(Piece::Usage(self.usage));
        Ok(())
    }
}

impl State {
    fn new(thinks: bool) -> Self {
        Self { splitter: thinks.then(Splitter::new), calls: Vec::new(), finished: false }
    }

    fn read(&mut self, index: u32, choice: Choice, out: &mut VecDeque<Piece>) {
        if self.finished {
            return;
        }
        let Choice { index: _, delta, message, text, finish_reason, logprobs } = choice;
        let Delta { content, refusal, reasoning_content, reasoning, tool_calls } =
            delta.or(message).unwrap_or_default();
        let thought = [reasoning_content, reasoning].into_iter().flatten().find_map(wire::text);
        if let Some(text) = thought.filter(|text| !text.is_empty()) {
            out.push_back(Piece::Reasoning { choice: index, text });
        }
        let texts = [content, refusal].into_iter().flatten().filter_map(wire::text).chain(text);
        let logprobs = logprobs.map(wire::Logprobs::into_tokens).unwrap_or_default();
        self.say(index, texts.collect(), logprobs, out);
        for (position, step) in tool_calls.unwrap_or_default().into_iter().enumerate() {
            self.call(index, position, step, out);
        }
        if let Some(reason) = finish_reason {
            self.end(index, &reason, out);
        }
    }

    fn say(
        &mut self,
        choice: u32,
        text: String,
        logprobs: Vec<TokenLogprob>,
        out: &mut VecDeque<Piece>,
    ) {
        match &mut self.splitter {
            Some(splitter) => {
                out.extend(splitter.push(&text).into_iter().map(|t| thought(choice, t)));
            }
            None if text.is_empty() && logprobs.is_empty() => {}
            None => out.push_back(Piece::Text { choice, text, logprobs }),
        }
    }

    fn call(&mut self, choice: u32, position: usize, step: CallStep, out: &mut VecDeque<Piece>) {
        let CallStep { index, id, function } = step;
        let Function { name, arguments } = function.unwrap_or_default();
        let index = index.unwrap_or(u32::try_from(position).unwrap_or(u32::MAX));
        let begins = !self.calls.contains(&index);
        if begins {
            self.calls.push(index);
        }
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        out.push_back(Piece::ToolCall {
            choice,
            index,
            id: begins.then(|| filled(id).unwrap_or_else(new_id)),
            name: if begins { Some(name.unwrap_or_default()) } else { None },
            arguments: arguments.map(wire::arguments).unwrap_or_default(),
        });
    }

    fn end(&mut self, choice: u32, reason: &str, out: &mut VecDeque<Piece>) {
        let rest = self.splitter.as_mut().map(Splitter::finish).unwrap_or_default();
        out.extend(rest.into_iter().map(|rest| thought(choice, rest)));
        let reason = match reason {
            "length" | "max_tokens" => FinishReason::Length,
            "content_filter" => FinishReason::ContentFilter,
            // Some servers say `stop` after a call that was asked for by name.
            _ if !self.calls.is_empty() => FinishReason::ToolCalls,
            // `stop`, and whatever others call an end: `eos`, `eos_token`, `stop_sequence`.
            _ => FinishReason::Stop,
        };
        self.finished = true;
        out.push_back(Piece::Finished { choice, reason });
    }
}

/// For a server that gives calls no ids.
fn new_id() -> String {
    let random = rand::rng().sample_iter(Alphanumeric).take(ID_LETTERS).map(char::from);
    "call_".chars().chain(random).collect()
}

fn thought(choice: u32, thought: Thought) -> Piece {
    match thought {
        Thought::Reasoning(text) => Piece::Reasoning { choice, text },
        Thought::Answer(text) => Piece::Text { choice, text, logprobs: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(mut reader: Reader, events: &[Value]) -> Result<Vec<Piece>, String> {
        let mut out = VecDeque::new();
        for event in events {
            reader.read(event.clone(), &mut out)?;
        }
        reader.finish(&mut out)?;
        Ok(out.into())
    }

    fn chat(events: &[Value]) -> Result<Vec<Piece>, String> {
        read(Reader::of_conversation(&GenerateRequest::default()), events)
    }

    fn delta(delta: &Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null})
    }

    fn end(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    fn text(text: &str) -> Piece {
        Piece::Text { choice: 0, text: text.into(), logprobs: Vec::new() }
    }

    fn finished(reason: FinishReason) -> Piece {
        Piece::Finished { choice: 0, reason }
    }

    #[test]
    fn an_ordinary_stream_is_text_an_end_and_usage() {
        let usage = json!({"choices": [], "usage": {
            "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": null}});
        let pieces = chat(&[
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"content": "Hel"})),
            delta(&json!({"content": "lo"})),
            end("stop"),
            usage,
        ]);
        let usage =
            Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 1, reasoning_tokens: 0 };
        assert_eq!(
            pieces.unwrap(),
            [text("Hel"), text("lo"), finished(FinishReason::Stop), Piece::Usage(usage)]
        );
    }

    #[test]
    fn reasoning_comes_by_either_name_or_between_tags() {
        for events in [
            vec![delta(&json!({"reasoning_content": "hm"})), delta(&json!({"content": "4"}))],
            vec![
                delta(&json!({"reasoning": "hm", "content": null})),
                delta(&json!({"content": "4"})),
            ],
            vec![
                delta(&json!({"content": "<thi"})),
                delta(&json!({"content": "nk>hm</think>\n\n4"})),
            ],
        ] {
            let pieces = chat(&[events, vec![end("stop")]].concat()).unwrap();
            let hm = Piece::Reasoning { choice: 0, text: "hm".into() };
            assert_eq!(pieces[..2], [hm, text("4")]);
        }
    }

    #[test]
    fn a_call_has_its_id_and_name_in_the_first_step_alone() {
        let step = |step: Value| delta(&json!({"tool_calls": [step]}));
        let pieces = chat(&[
            step(json!({"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": ""}})),
            step(json!({"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}})),
            step(json!({"index": 1, "id": "", "function": {"name": "g", "arguments": {"a": 1}}})),
            end("stop"),
        ])
        .unwrap();
        let call = |index, id: Option<&str>, name: Option<&str>, arguments: &str| Piece::ToolCall {
            choice: 0,
            index,
            id: id.map(str::to_owned),
            name: name.map(str::to_owned),
            arguments: arguments.to_owned(),
        };
        assert_eq!(pieces[..2], [call(0, Some("1"), Some("f"), ""), call(0, None, None, "{}")]);
        let Piece::ToolCall { id: Some(id), name: Some(name), arguments, .. } = &pieces[2] else {
            panic!("{pieces:?}")
        };
        assert!(id.starts_with("call_") && id.len() == 29, "{id}");
        assert_eq!((name.as_str(), arguments.as_str()), ("g", "{\"a\":1}"));
        assert_eq!(pieces[3], finished(FinishReason::ToolCalls));
    }

    #[test]
    fn every_finish_reason_is_understood() {
        for (word, reason) in [
            ("stop", FinishReason::Stop),
            ("eos_token", FinishReason::Stop),
            ("length", FinishReason::Length),
            ("content_filter", FinishReason::ContentFilter),
        ] {
            assert_eq!(chat(&[end(word)]).unwrap()[0], finished(reason));
        }
    }

    #[test]
    fn log_probabilities_stay_with_their_text() {
        let request = GenerateRequest {
            sampling: crate::backend::Sampling { top_logprobs: Some(1), ..Default::default() },
            ..GenerateRequest::default()
        };
        let event = json!({"choices": [{"index": 0, "delta": {"content": "<think>"}, "finish_reason": "length",
            "logprobs": {"content": [{"token": "<think>", "logprob": -0.5, "bytes": null,
                "top_logprobs": [{"token": "a", "logprob": -1, "bytes": [97]}]}]}}]});
        let pieces = read(Reader::of_conversation(&request), &[event]).unwrap();
        let logprob = TokenLogprob {
            token: "<think>".into(),
            logprob: -0.5,
            bytes: b"<think>".to_vec(),
            alternatives: vec![("a".into(), -1.0, b"a".to_vec())],
        };
        let expected = Piece::Text { choice: 0, text: "<think>".into(), logprobs: vec![logprob] };
        assert_eq!(pieces[0], expected);
    }

    #[test]
    fn log_probabilities_of_prompts_have_a_shape_of_their_own() {
        let event = json!({"choices": [{"index": 1, "text": "ab", "finish_reason": "stop", "logprobs": {
            "tokens": ["a", "b"], "token_logprobs": [null, -0.25], "text_offset": [0, 1],
            "top_logprobs": [null, {"x": -3.0, "b": -0.25}]}}]});
        let pieces = read(Reader::of_prompts(), &[event]).unwrap();
        let Piece::Text { choice: 1, text, logprobs } = &pieces[0] else { panic!("{pieces:?}") };
        assert_eq!(text, "ab");
        assert!(logprobs[0].logprob.is_nan());
        let names: Vec<_> =
            logprobs[1].alternatives.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["b", "x"]);
    }

    #[test]
    fn a_document_in_place_of_a_stream_is_read() {
        let document = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi",
            "tool_calls": null}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
        let pieces = chat(&[document]).unwrap();
        assert_eq!(pieces[..2], [text("Hi"), finished(FinishReason::Stop)]);
    }

    #[test]
    fn choices_end_each_for_itself() {
        let choice = |index: u32, reason: Option<&str>| json!({"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": reason}]});
        let both = [choice(0, None), choice(1, Some("stop")), choice(0, Some("length"))];
        let ends = chat(&both).unwrap();
        let ends: Vec<_> =
            ends.iter().filter(|piece| matches!(piece, Piece::Finished { .. })).collect();
        assert_eq!(ends.len(), 2);
        assert!(chat(&both[..2]).is_err());
    }

    #[test]
    fn an_answer_that_was_cut_is_an_error() {
        assert!(chat(&[delta(&json!({"content": "Hel"}))]).is_err());
        assert!(chat(&[json!({"choices": []})]).is_err());
    }

    #[test]
    fn strange_events_are_errors_and_never_panics() {
        for event in [json!([]), json!("x"), json!({"choices": 1}), json!({"choices": [1]})] {
            assert!(chat(&[event]).is_err());
        }
        for event in [json!({}), json!({"choices": null, "usage": null}), json!({"unknown": 1})] {
            assert!(Reader::of_prompts().read(event, &mut VecDeque::new()).is_ok());
        }
    }
}
