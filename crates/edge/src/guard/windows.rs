//! The windows of a streamed reply: what is held back, what is to be judged next, what a verdict releases.
//!
//! A state machine without any waiting in it. Per choice, pieces are gathered until there are enough characters, a sentence
//! ends, or the choice does; then they are judged together with the characters before them, and leave together or not at all.

use crate::config::GuardConfig;
use crate::pieces::{Piece, Screened, Usage};
use api_types::rest::ContentFilterResults;
use api_types::rest::chat_completions::FinishReason;
use std::collections::BTreeMap;

/// A sentence ends a window only from this part of its size on: a list of short lines is not judged line by line.
const SENTENCE_PART: usize = 4;
/// Pieces are taken while fewer characters than so many windows are held back.
const ROOM_IN_WINDOWS: usize = 8;

/// A text to judge.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) choice: u32,
    /// With the characters before it.
    pub(super) text: String,
}

/// All windows of one reply.
#[derive(Debug)]
pub(super) struct Windows {
    size: usize,
    context: usize,
    expected: usize,
    choices: BTreeMap<u32, Choice>,
    usage: Option<Usage>,
}

#[derive(Debug, Default)]
struct Choice {
    /// Characters that were cleared last, judged again with the next window.
    before: String,
    /// Under judgement, and the text that is judged.
    judging: Vec<Piece>,
    judged: String,
    /// Gathered for the next window, and their text.
    pending: Vec<Piece>,
    text: String,
    chars: usize,
    finished: bool,
    blocked: bool,
    /// Nothing more of it will leave.
    done: bool,
}

impl Windows {
    pub(super) fn new(config: &GuardConfig, choices: u32) -> Self {
        Self {
            size: config.window_chars,
            context: config.context_chars,
            expected: usize::try_from(choices).unwrap_or(usize::MAX),
            choices: BTreeMap::new(),
            usage: None,
        }
    }

    /// Takes a piece; gives back what is about no choice and may leave at once.
    pub(super) fn take(&mut self, piece: Piece) -> Option<Piece> {
        match piece {
            Piece::Started(_) => return Some(piece),
            Piece::Usage(usage) => self.usage = Some(usage),
            Piece::Text(_)
            | Piece::Reasoning { .. }
            | Piece::ToolCall(_)
            | Piece::Finished { .. } => self.gather(piece),
        }
        None
    }

    fn gather(&mut self, piece: Piece) {
        let Some((choice, text)) = piece.visible() else { return };
        let choice = self.choices.entry(choice).or_default();
        if choice.blocked {
            return;
        }
        choice.chars += text.chars().count();
        choice.text.push_str(text);
        choice.finished |= matches!(piece, Piece::Finished { .. });
        choice.pending.push(piece);
    }

    /// Whether more pieces may be taken before something leaves.
    pub(super) fn has_room(&self) -> bool {
        self.choices.values().all(|c| c.chars < self.size.saturating_mul(ROOM_IN_WINDOWS))
    }

    /// Whether every choice has ended and been released, so that nothing of the reply is still to come.
    pub(super) fn only_usage_is_missing(&self) -> bool {
        self.choices.len() >= self.expected
            && self.choices.values().all(|c| c.done)
            && self.usage.is_none()
    }

    /// The reply ends here, whether or not its choices said so: what is left is ripe.
    pub(super) fn end(&mut self) {
        self.choices.values_mut().for_each(|c| c.finished = true);
    }

    /// Ends of choices that have no text left to judge.
    pub(super) fn textless(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        for choice in self.choices.values_mut() {
            if choice.judging.is_empty() && choice.finished && choice.text.is_empty() {
                choice.done |= !choice.pending.is_empty();
                out.append(&mut choice.pending);
            }
        }
        out
    }

    /// What to judge next; none while nothing is ripe. The pieces wait for `judged`.
    pub(super) fn next_window(&mut self) -> Option<Window> {
        let size = self.size;
        let (number, choice) =
            self.choices.iter_mut().find(|(_, c)| c.judging.is_empty() && c.is_ripe(size))?;
        choice.judging = std::mem::take(&mut choice.pending);
        choice.chars = 0;
        choice.judged = format!("{}{}", choice.before, std::mem::take(&mut choice.text));
        Some(Window { choice: *number, text: choice.judged.clone() })
    }

    /// What leaves because of a verdict on the window of `choice`.
    pub(super) fn judged(
        &mut self,
        choice: u32,
        blocked: bool,
        found: ContentFilterResults,
    ) -> Vec<Screened> {
        let context = self.context;
        let Some(slot) = self.choices.get_mut(&choice) else { return Vec::new() };
        let pieces = std::mem::take(&mut slot.judging);
        if blocked {
            *slot = Choice { blocked: true, finished: true, done: true, ..Choice::default() };
            let end = Piece::Finished { choice, reason: FinishReason::ContentFilter };
            return vec![Screened { piece: end, found: Some(found) }];
        }
        slot.before = tail(&slot.judged, context).to_owned();
        slot.done = pieces.iter().any(|p| matches!(p, Piece::Finished { .. }));
        pieces.into_iter().map(|piece| Screened { piece, found: Some(found.clone()) }).collect()
    }

    pub(super) const fn usage(&mut self) -> Option<Usage> {
        self.usage.take()
    }
}

impl Choice {
    fn is_ripe(&self, size: usize) -> bool {
        let sentence = self.chars >= size.div_ceil(SENTENCE_PART) && ends_sentence(&self.text);
        !self.pending.is_empty() && (self.finished || self.chars >= size || sentence)
    }
}

/// The last `chars` characters of `text`.
fn tail(text: &str, chars: usize) -> &str {
    let Some(last) = chars.checked_sub(1) else { return "" };
    text.char_indices().rev().nth(last).map_or(text, |(start, _)| &text[start..])
}

fn ends_sentence(text: &str) -> bool {
    text.trim_end_matches([' ', '"', '\'', ')', '”', '’'])
        .ends_with(['.', '!', '?', '\n', '。', '！', '？', '…'])
}

#[cfg(test)]
mod tests;
