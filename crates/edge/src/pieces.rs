//! What a backend generates, in the edge's own words: pieces, and the same pieces annotated by content safety.
//!
//! Separate from the wire types on either side, so that `guard.rs` sits between two translations without knowing them. One
//! type serves conversations and raw prompts.

use crate::error;
use api_types::Fault;
use api_types::rest::ContentFilterResults;
use api_types::rest::chat_completions::{FinishReason, TokenLogprob};
use api_types::rest::content_filter::ContentFilterOffsets;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Pieces as they are generated; dropping it ends the generation.
pub type PieceStream = BoxStream<'static, Result<Piece, Fault>>;
/// The same, after content safety.
pub type ScreenedStream = BoxStream<'static, Result<Screened, Fault>>;

/// A step of a generation.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// The model that answers; first.
    Started(String),
    /// More of the answer.
    Text(Text),
    /// More of what a reasoning model thinks before it answers.
    Reasoning {
        /// Which choice, from 0.
        choice: u32,
        /// Whole characters.
        text: String,
    },
    /// More of a call.
    ToolCall(Call),
    /// The end of one choice.
    Finished {
        /// Which choice, from 0.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// No more of the answer, but word that a stretch of what has left was judged.
    Vetted {
        /// Which choice, from 0.
        choice: u32,
        /// Which stretch.
        offsets: ContentFilterOffsets,
    },
    /// Tokens spent; last.
    Usage(Usage),
}

/// More of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Text {
    /// Which choice, from 0.
    pub choice: u32,
    /// Whole characters.
    pub text: String,
    /// One per token where they were asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// More of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Which choice, from 0.
    pub choice: u32,
    /// Which call of the choice, from 0.
    pub index: u32,
    /// In the first step of a call, else empty.
    pub id: String,
    /// In the first step of a call, else empty.
    pub name: String,
    /// The next piece of the arguments.
    pub arguments: String,
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: u32,
    /// Generated, over all choices.
    pub completion: u32,
    /// Part of the prompt that came from a cache.
    pub cached: u32,
    /// Part of what was generated that is reasoning.
    pub reasoning: u32,
}

impl Piece {
    /// The choice this is about, and the text in it that a reader would see; none for what is about no choice.
    #[must_use]
    pub fn visible(&self) -> Option<(u32, &str)> {
        match self {
            Self::Text(text) => Some((text.choice, &text.text)),
            Self::Reasoning { choice, text } => Some((*choice, text)),
            Self::ToolCall(call) => Some((call.choice, &call.arguments)),
            Self::Finished { choice, .. } => Some((*choice, "")),
            Self::Started(_) | Self::Vetted { .. } | Self::Usage(_) => None,
        }
    }
}

/// A piece that may leave, and what content safety found in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Screened {
    /// The piece.
    pub piece: Piece,
    /// None where no policy looked.
    pub found: Option<ContentFilterResults>,
}

impl Screened {
    /// A piece at which no policy looked.
    #[must_use]
    pub const fn unseen(piece: Piece) -> Self {
        Self { piece, found: None }
    }
}

/// Whether every choice that began has ended: a stream that stops before has broken off, however quietly.
#[derive(Debug, Clone, Default)]
pub struct Endings {
    open: BTreeSet<u32>,
    ended: bool,
}

impl Endings {
    /// Takes note of a piece.
    pub fn see(&mut self, piece: &Piece) {
        let Some((choice, _)) = piece.visible() else { return };
        if matches!(piece, Piece::Finished { .. }) {
            self.open.remove(&choice);
            self.ended = true;
        } else {
            self.open.insert(choice);
        }
    }

    /// Whether at least one choice has ended and none is open.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.ended && self.open.is_empty()
    }
}

/// The same pieces until `deadline`; then a 504 in their place.
pub fn until(
    deadline: Instant,
    pieces: impl Stream<Item = Result<Piece, Fault>> + Send + 'static,
) -> PieceStream {
    async_stream::stream! {
        let mut pieces = std::pin::pin!(pieces);
        let mut late = std::pin::pin!(tokio::time::sleep_until(deadline));
        loop {
            let next = tokio::select! {
                biased;
                next = pieces.next() => next,
                () = &mut late => Some(Err(error::too_late())),
            };
            match next {
                Some(Ok(piece)) => yield Ok(piece),
                Some(Err(fault)) => {
                    yield Err(fault);
                    return;
                }
                None => return,
            }
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_complete_when_every_choice_that_began_has_ended() {
        let text = |choice| Piece::Text(Text { choice, text: "x".into(), logprobs: Vec::new() });
        let end = |choice| Piece::Finished { choice, reason: FinishReason::Stop };
        let complete = |pieces: &[Piece]| {
            let mut endings = Endings::default();
            pieces.iter().for_each(|p| endings.see(p));
            endings.complete()
        };
        assert!(!complete(&[]));
        assert!(!complete(&[text(0)]));
        assert!(!complete(&[text(0), text(1), end(0)]));
        assert!(complete(&[text(0), text(1), end(1), end(0)]));
        assert!(complete(&[end(0)]));
    }
}
