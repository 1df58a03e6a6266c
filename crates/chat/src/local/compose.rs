//! From the bytes of one choice's tokens to its pieces: characters, stop strings, thoughts, tool calls.
//!
//! Separate because the order of these filters is the order of what a client may see, and because it is pure. The
//! invariant: log probabilities come with the text of their tokens, and tokens that are not shown have none.

use crate::backend::{FinishReason, Piece, TokenLogprob};
use crate::reasoning::{Splitter, Thought};
use crate::text::{StopMatcher, Utf8Decoder};
use crate::tools::{Expected, Found, Scanner};
use rand::Rng as _;
use rand::distr::Alphanumeric;
use std::collections::VecDeque;

/// Random characters of a call's id: as many as OpenAI's have.
const CALL_ID_LENGTH: usize = 24;

/// What is made of the text of every choice of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Ends the answer.
    pub(crate) stop: Vec<String>,
    /// Calls that the text may hold; none looks for none.
    pub(crate) tools: Option<Expected>,
    /// Whether thoughts are split off; true when the prompt has opened one.
    pub(crate) thinking: Option<bool>,
}

/// The pieces of one choice.
#[derive(Debug)]
pub(crate) struct Composer {
    choice: u32,
    decoder: Utf8Decoder,
    stop: StopMatcher,
    splitter: Option<Splitter>,
    scanner: Option<Scanner>,
    /// Log probabilities of tokens that are not shown yet, each with the place in the text where it begins.
    waiting: VecDeque<(usize, TokenLogprob)>,
    /// Log probabilities of shown tokens, for the next piece of text.
    due: Vec<TokenLogprob>,
    decoded: usize,
    shown: usize,
    stopped: bool,
    calls: u32,
    thinking_tokens: u32,
}

impl Composer {
    pub(crate) fn new(choice: u32, rules: &Rules) -> Self {
        Self {
            choice,
            decoder: Utf8Decoder::default(),
            stop: StopMatcher::new(&rules.stop),
            splitter: rules
                .thinking
                .map(|open| if open { Splitter::thinking() } else { Splitter::new() }),
            scanner: rules.tools.clone().map(Scanner::new),
            waiting: VecDeque::new(),
            due: Vec::new(),
            decoded: 0,
            shown: 0,
            stopped: false,
            calls: 0,
            thinking_tokens: 0,
        }
    }

    /// Takes the next token.
    pub(crate) fn push(&mut self, bytes: &[u8], logprob: Option<TokenLogprob>) -> Vec<Piece> {
        if let Some(logprob) = logprob {
            self.waiting.push_back((self.decoded, logprob));
        }
        let text = self.decoder.push(bytes);
        self.decoded += text.len();
        let shown = self.stop.push(&text);
        self.stopped = shown.stopped;
        let pieces = self.show(&shown.text);
        self.thinking_tokens +=
            u32::from(self.splitter.as_ref().is_some_and(Splitter::is_thinking));
        pieces
    }

    /// Whether nothing that follows would be shown.
    pub(crate) fn is_done(&self) -> bool {
        self.stopped || self.scanner.as_ref().is_some_and(Scanner::is_full)
    }

    /// Tokens spent on thoughts.
    pub(crate) const fn thinking_tokens(&self) -> u32 {
        self.thinking_tokens
    }

    /// What was held back, and how the choice ended; `cut` when the model was not done.
    pub(crate) fn finish(&mut self, cut: bool) -> (Vec<Piece>, FinishReason) {
        let mut pieces = Vec::new();
        if !self.stopped {
            let rest = self.stop.finish();
            pieces = self.show(&rest);
        }
        let rest = self.splitter.as_mut().map(Splitter::finish).unwrap_or_default();
        rest.into_iter().for_each(|thought| self.thought(thought, &mut pieces));
        let found = self.scanner.as_mut().map(Scanner::finish).unwrap_or_default();
        let cut_call = cut && found.iter().any(|f| matches!(f, Found::Call { .. }));
        found.into_iter().for_each(|found| self.found(found, &mut pieces));
        if !self.due.is_empty() && self.calls == 0 {
            self.text(String::new(), &mut pieces);
        }
        let whole_calls = self.scanner.as_ref().is_some_and(|s| s.calls() > 0);
        let reason = if whole_calls || (self.calls > 0 && !cut_call) {
            FinishReason::ToolCalls
        } else if cut {
            FinishReason::Length
        } else {
            FinishReason::Stop
        };
        (pieces, reason)
    }

    fn show(&mut self, text: &str) -> Vec<Piece> {
        self.shown += text.len();
        while self.waiting.front().is_some_and(|(start, _)| *start < self.shown) {
            self.due.extend(self.waiting.pop_front().map(|(_, logprob)| logprob));
        }
        let mut pieces = Vec::new();
        if text.is_empty() {
            return pieces;
        }
        match &mut self.splitter {
            Some(splitter) => {
                let thoughts = splitter.push(text);
                thoughts.into_iter().for_each(|thought| self.thought(thought, &mut pieces));
            }
            None => self.answer(text.to_owned(), &mut pieces),
        }
        pieces
    }

    fn thought(&mut self, thought: Thought, pieces: &mut Vec<Piece>) {
        match thought {
            Thought::Reasoning(text) => pieces.push(Piece::Reasoning { choice: self.choice, text }),
            Thought::Answer(text) => self.answer(text, pieces),
        }
    }

    fn answer(&mut self, text: String, pieces: &mut Vec<Piece>) {
        match &mut self.scanner {
            Some(scanner) => {
                let found = scanner.push(&text);
                found.into_iter().for_each(|found| self.found(found, pieces));
            }
            None => self.text(text, pieces),
        }
    }

    fn found(&mut self, found: Found, pieces: &mut Vec<Piece>) {
        match found {
            Found::Text(text) => self.text(text, pieces),
            Found::Call { name, arguments } => {
                let index = self.calls;
                self.calls += 1;
                pieces.push(Piece::ToolCall {
                    choice: self.choice,
                    index,
                    id: Some(call_id()),
                    name: Some(name),
                    arguments,
                });
            }
        }
    }

    fn text(&mut self, text: String, pieces: &mut Vec<Piece>) {
        let logprobs = std::mem::take(&mut self.due);
        pieces.push(Piece::Text { choice: self.choice, text, logprobs });
    }
}

fn call_id() -> String {
    let random = rand::rng().sample_iter(Alphanumeric).take(CALL_ID_LENGTH).map(char::from);
    "call_".chars().chain(random).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logprob(token: &str) -> TokenLogprob {
        TokenLogprob {
            token: token.into(),
            logprob: -1.0,
            bytes: token.into(),
            alternatives: Vec::new(),
        }
    }

    fn run(rules: &Rules, tokens: &[&[u8]], cut: bool) -> (Vec<Piece>, FinishReason) {
        let mut composer = Composer::new(0, rules);
        let mut pieces = Vec::new();
        for token in tokens {
            pieces.extend(composer.push(token, Some(logprob(&String::from_utf8_lossy(token)))));
            if composer.is_done() {
                break;
            }
        }
        let (rest, reason) = composer.finish(cut);
        pieces.extend(rest);
        (pieces, reason)
    }

    fn text_and_tokens(pieces: &[Piece]) -> (String, Vec<String>) {
        let mut out = (String::new(), Vec::new());
        for piece in pieces {
            if let Piece::Text { text, logprobs, .. } = piece {
                out.0.push_str(text);
                out.1.extend(logprobs.iter().map(|l| l.token.clone()));
            }
        }
        out
    }

    #[test]
    fn every_shown_token_has_its_logprob_and_stopped_ones_have_none() {
        let rules = Rules { stop: vec!["END".into()], ..Rules::default() };
        let (pieces, reason) = run(&rules, &[b"a", b" b E", b"N", b"D c"], false);
        assert_eq!(reason, FinishReason::Stop);
        assert_eq!(text_and_tokens(&pieces), ("a b ".into(), vec!["a".into(), " b E".into()]));
    }

    #[test]
    fn the_tokens_of_a_split_emoji_come_with_it() {
        let crab = "🦀".as_bytes();
        let (pieces, reason) = run(&Rules::default(), &[&crab[..2], &crab[2..]], true);
        assert_eq!(reason, FinishReason::Length);
        assert_eq!(pieces.len(), 1);
        let (text, tokens) = text_and_tokens(&pieces);
        assert_eq!((text.as_str(), tokens.len()), ("🦀", 2));
    }

    fn tools(forced: bool) -> Rules {
        let expected = Expected { names: vec!["add".into()], forced, most: usize::MAX };
        Rules { tools: Some(expected), ..Rules::default() }
    }

    #[test]
    fn calls_get_an_id_each_and_count_up() {
        let (pieces, reason) =
            run(&tools(false), &[b"{\"name\":\"add\"}\n", b"{\"name\":\"add\"}"], false);
        assert_eq!(reason, FinishReason::ToolCalls);
        let ids: Vec<_> = pieces
            .iter()
            .map(|p| {
                let Piece::ToolCall { index, id, .. } = p else { panic!("{p:?}") };
                (*index, id.clone().unwrap())
            })
            .collect();
        assert_eq!((ids[0].0, ids[1].0), (0, 1));
        assert_ne!(ids[0].1, ids[1].1);
        assert!(ids[0].1.starts_with("call_") && ids[0].1.len() == 29);
    }

    #[test]
    fn a_forced_call_that_is_cut_off_ends_for_its_length() {
        let (pieces, reason) =
            run(&tools(true), &[b"{\"name\": \"add\", \"arguments\": {\"a\""], true);
        assert_eq!(reason, FinishReason::Length);
        assert!(
            matches!(&pieces[..], [Piece::ToolCall { arguments, .. }] if arguments == "{\"a\"")
        );
    }

    #[test]
    fn a_thought_is_told_from_the_answer_and_counted() {
        let rules = Rules { thinking: Some(true), ..Rules::default() };
        let mut composer = Composer::new(3, &rules);
        let mut pieces = composer.push(b"hm", None);
        pieces.extend(composer.push(b"</think>", None));
        pieces.extend(composer.push(b"yes", None));
        assert_eq!(composer.thinking_tokens(), 1);
        assert_eq!(
            pieces,
            [
                Piece::Reasoning { choice: 3, text: "hm".into() },
                Piece::Text { choice: 3, text: "yes".into(), logprobs: Vec::new() }
            ]
        );
    }
}
