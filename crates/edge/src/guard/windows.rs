//! The windows of a streamed reply: what is held back, what is to be judged next, what a verdict releases.
//!
//! A state machine without any waiting in it. Per choice, pieces are gathered until there are enough characters, a sentence
//! ends, or the choice does; then they are judged together with the characters before them, and leave together or not at all.
//! Where the filter is asynchronous text leaves as it comes, only the end of a choice waits, and each verdict becomes an
//! annotation of the stretch it is about.

use crate::config::{GuardConfig, StreamFilter};
use crate::pieces::{Piece, Screened, Usage};
use api_types::rest::ContentFilterResults;
use api_types::rest::chat_completions::FinishReason;
use api_types::rest::content_filter::ContentFilterOffsets;
use std::collections::BTreeMap;

/// A sentence ends a window only from this part of its size on: a list of short lines is not judged line by line.
const SENTENCE_PART: usize = 4;
/// Pieces are taken while fewer characters than so many windows are held back.
const ROOM_IN_WINDOWS: usize = 8;
/// Characters that an asynchronous filter may be behind: a verdict comes within so many (contract, section 13.7).
const BEHIND: usize = 1000;

/// A text to judge.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) choice: u32,
    /// With the characters before it.
    pub(super) text: String,
    /// Where `text` begins, in characters of the choice.
    pub(super) begins: u64,
}

/// All windows of one reply.
#[derive(Debug)]
pub(super) struct Windows {
    size: usize,
    context: usize,
    filter: StreamFilter,
    /// Characters of the prompt.
    prompt: u64,
    expected: usize,
    choices: BTreeMap<u32, Choice>,
    usage: Option<Usage>,
}

#[derive(Debug, Default)]
struct Choice {
    /// Characters that were cleared last, judged again with the next window.
    before: String,
    /// Characters of the choice that were judged, but for those of the next window.
    cleared: u64,
    judging: Option<Judging>,
    /// Held back for the next window, and its text.
    pending: Vec<Piece>,
    text: String,
    chars: usize,
    finished: bool,
    blocked: bool,
    /// Nothing more of it will leave.
    done: bool,
}

/// A window under judgement.
#[derive(Debug)]
struct Judging {
    /// What leaves when it is cleared.
    pieces: Vec<Piece>,
    /// With the characters before it.
    text: String,
    /// Without them.
    chars: usize,
}

impl Windows {
    pub(super) fn new(config: &GuardConfig, filter: StreamFilter, choices: u32) -> Self {
        Self {
            size: config.window_chars,
            context: config.context_chars,
            filter,
            prompt: 0,
            expected: usize::try_from(choices).unwrap_or(usize::MAX),
            choices: BTreeMap::new(),
            usage: None,
        }
    }

    /// The same for a reply to a prompt of so many characters.
    pub(super) const fn after(mut self, prompt: u64) -> Self {
        self.prompt = prompt;
        self
    }

    /// Takes a piece; gives back what may leave at once.
    pub(super) fn take(&mut self, piece: Piece) -> Option<Piece> {
        match piece {
            Piece::Started(_) | Piece::Vetted { .. } => Some(piece),
            Piece::Usage(usage) => {
                self.usage = Some(usage);
                None
            }
            Piece::Text(_) | Piece::Reasoning { .. } | Piece::ToolCall(_) => match self.filter {
                StreamFilter::Buffered => self.gather(piece, |choice, piece| {
                    choice.pending.push(piece);
                    None
                }),
                StreamFilter::Asynchronous => self.gather(piece, |_, piece| Some(piece)),
            },
            Piece::Finished { .. } => self.gather(piece, |choice, piece| {
                choice.finished = true;
                choice.pending.push(piece);
                None
            }),
        }
    }

    /// Adds the text of `piece` to its choice; nothing of a choice that was blocked goes on.
    fn gather(
        &mut self,
        piece: Piece,
        then: impl FnOnce(&mut Choice, Piece) -> Option<Piece>,
    ) -> Option<Piece> {
        let (choice, text) = piece.visible()?;
        let choice = self.choices.entry(choice).or_default();
        if choice.blocked {
            return None;
        }
        choice.chars += text.chars().count();
        choice.text.push_str(text);
        then(choice, piece)
    }

    /// Whether more pieces may be taken before something is judged.
    pub(super) fn has_room(&self) -> bool {
        let room = match self.filter {
            StreamFilter::Buffered => self.size.saturating_mul(ROOM_IN_WINDOWS),
            // What is judged counts: it has left already.
            StreamFilter::Asynchronous => BEHIND.max(self.size),
        };
        let behind = |c: &Choice| match self.filter {
            StreamFilter::Buffered => c.chars,
            StreamFilter::Asynchronous => c.chars + c.judging.as_ref().map_or(0, |j| j.chars),
        };
        self.choices.values().all(|choice| behind(choice) < room)
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
            if choice.judging.is_none() && choice.finished && choice.text.is_empty() {
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
            self.choices.iter_mut().find(|(_, c)| c.judging.is_none() && c.is_ripe(size))?;
        let text = format!("{}{}", choice.before, std::mem::take(&mut choice.text));
        let begins = choice.cleared.saturating_sub(count(&choice.before));
        choice.judging = Some(Judging {
            pieces: std::mem::take(&mut choice.pending),
            text: text.clone(),
            chars: std::mem::take(&mut choice.chars),
        });
        Some(Window { choice: *number, text, begins })
    }

    /// What leaves because of a verdict on the window of `choice`.
    pub(super) fn judged(
        &mut self,
        choice: u32,
        blocked: bool,
        found: &ContentFilterResults,
    ) -> Vec<Screened> {
        let (context, prompt) = (self.context, self.prompt);
        let Some(slot) = self.choices.get_mut(&choice) else { return Vec::new() };
        let Some(Judging { mut pieces, text, chars }) = slot.judging.take() else {
            return Vec::new();
        };
        let start = prompt.saturating_add(slot.cleared);
        slot.cleared = slot.cleared.saturating_add(u64::try_from(chars).unwrap_or(u64::MAX));
        let end = prompt.saturating_add(slot.cleared);
        if blocked {
            *slot = Choice { blocked: true, finished: true, done: true, ..Choice::default() };
            pieces = vec![Piece::Finished { choice, reason: FinishReason::ContentFilter }];
        } else {
            slot.before = tail(&text, context).to_owned();
            slot.done = pieces.iter().any(|p| matches!(p, Piece::Finished { .. }));
        }
        if self.filter == StreamFilter::Asynchronous {
            // Windows are judged one after the other, so that what lies before the end of this one has been.
            let offsets =
                ContentFilterOffsets { check_offset: end, start_offset: start, end_offset: end };
            pieces.insert(0, Piece::Vetted { choice, offsets });
        }
        pieces.into_iter().map(|piece| Screened { piece, found: Some(found.clone()) }).collect()
    }

    pub(super) const fn usage(&mut self) -> Option<Usage> {
        self.usage.take()
    }
}

impl Choice {
    fn is_ripe(&self, size: usize) -> bool {
        let sentence = self.chars >= size.div_ceil(SENTENCE_PART) && ends_sentence(&self.text);
        let something = !self.pending.is_empty() || !self.text.is_empty();
        something && (self.finished || self.chars >= size || sentence)
    }
}

fn count(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
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
