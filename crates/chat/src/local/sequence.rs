//! One choice inside the engine: its tokens, its sampler, its text.
//!
//! A sequence is `waiting` or has a slot; it can lose its slot at any time and start over with the tokens it has, which
//! changes nothing of its answer.

use super::compose::Composer;
use super::logprobs::{Scores, scores};
use super::sampling::Sampler;
use crate::backend::{FinishReason, Piece, TokenLogprob};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use std::sync::Arc;

/// One choice.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Its request.
    pub(crate) group: u64,
    /// Its number within the request.
    pub(crate) number: u32,
    /// Its prompt within the request: sequences of one prompt share the work on it.
    pub(crate) prompt: usize,
    /// Prompt and answer so far.
    pub(crate) tokens: Vec<LlamaToken>,
    /// How many of them are the prompt.
    pub(crate) prompt_length: usize,
    /// How many of them are in the cache; 0 without a slot.
    pub(crate) decoded: usize,
    /// Its sequence in the cache.
    pub(crate) slot: Option<usize>,
    /// Tokens it may still generate.
    pub(crate) remaining: u32,
    /// Whether the client set that limit, so that it is likely to be used up.
    pub(crate) limited: bool,
    /// Whether its prompt has been counted.
    pub(crate) counted: bool,
    /// How it chooses.
    pub(crate) sampler: Sampler,
    /// What it says.
    pub(crate) composer: Composer,
    /// Alternatives to report per token.
    pub(crate) top_logprobs: Option<usize>,
    /// Whether its score will be compared with others.
    pub(crate) ranked: bool,
    /// The prompt as text, until it has been repeated.
    pub(crate) echo: Option<Arc<str>>,
    /// Log probabilities of the prompt, while they are collected.
    pub(crate) prompt_logprobs: Vec<TokenLogprob>,
    /// Sum of the log probabilities of what was generated.
    pub(crate) score: f32,
    /// How many tokens that were.
    pub(crate) generated: u32,
}

/// What a token led to.
#[derive(Debug)]
pub(crate) struct Advance {
    /// What may be shown now.
    pub(crate) pieces: Vec<Piece>,
    /// Set when the choice has ended.
    pub(crate) ended: Option<FinishReason>,
}

impl Sequence {
    /// Tokens that are not in the cache yet.
    pub(crate) fn pending(&self) -> &[LlamaToken] {
        self.tokens.get(self.decoded..).unwrap_or_default()
    }

    /// Whether log probabilities of the prompt are wanted, which needs every position's logits.
    pub(crate) fn scores_prompt(&self) -> bool {
        self.echo.is_some() && self.top_logprobs.is_some()
    }

    /// Cells that it is expected to need yet; `guess` tokens of answer where the client set no limit.
    pub(crate) fn expected_cells(&self, guess: u32) -> usize {
        let answer = if self.limited { self.remaining } else { self.remaining.min(guess) };
        self.pending().len() + usize::try_from(answer).unwrap_or(usize::MAX)
    }

    /// Mean log probability of what was generated.
    pub(crate) fn mean_score(&self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "thousands of tokens at most")]
        let count = self.generated.max(1) as f32;
        self.score / count
    }

    /// The prompt, repeated before the answer.
    pub(crate) fn echo(&mut self) -> Vec<Piece> {
        let Some(text) = self.echo.take() else { return Vec::new() };
        let logprobs = std::mem::take(&mut self.prompt_logprobs);
        vec![Piece::Text { choice: self.number, text: text.as_ref().to_owned(), logprobs }]
    }

    /// Notes the log probability of the prompt's token at `position`, given the `logits` before it; none for the first.
    pub(crate) fn score_prompt(
        &mut self,
        model: &LlamaModel,
        position: usize,
        logits: Option<&[f32]>,
    ) {
        let (Some(token), Some(top)) = (self.tokens.get(position).copied(), self.top_logprobs)
        else {
            return;
        };
        let found = match logits {
            Some(logits) => scores(logits, token.0, top),
            // Nothing stands before it that it could follow from.
            None => Scores { chosen: f32::NAN, best: Vec::new() },
        };
        self.prompt_logprobs.push(logprob(model, token, found));
    }

    /// Takes the token that was chosen from `logits`.
    pub(crate) fn advance(
        &mut self,
        model: &LlamaModel,
        token: LlamaToken,
        logits: &[f32],
    ) -> Advance {
        if model.vocab().is_eog(token) {
            return self.end(false);
        }
        self.generated += 1;
        self.remaining = self.remaining.saturating_sub(1);
        let found = (self.ranked || self.top_logprobs.is_some())
            .then(|| scores(logits, token.0, self.top_logprobs.unwrap_or(0)));
        self.score += found.as_ref().map_or(0.0, |f| f.chosen);
        let reported =
            found.filter(|_| self.top_logprobs.is_some()).map(|f| logprob(model, token, f));
        let bytes = model.vocab().token_to_piece(token, false, None);
        let mut pieces = self.composer.push(&bytes, reported);
        if self.composer.is_done() {
            return self.ended_with(pieces, false);
        }
        if self.remaining == 0 {
            return self.ended_with(pieces, true);
        }
        if self.sampler.accept(token).is_err() {
            // The token fitted when it was chosen; nothing can follow it, so the answer is cut here.
            return self.ended_with(std::mem::take(&mut pieces), true);
        }
        self.tokens.push(token);
        Advance { pieces, ended: None }
    }

    /// Ends the choice; `cut` when the model was not done.
    pub(crate) fn end(&mut self, cut: bool) -> Advance {
        self.ended_with(Vec::new(), cut)
    }

    fn ended_with(&mut self, mut pieces: Vec<Piece>, cut: bool) -> Advance {
        let (rest, reason) = self.composer.finish(cut);
        pieces.extend(rest);
        Advance { pieces, ended: Some(reason) }
    }
}

fn logprob(model: &LlamaModel, token: LlamaToken, found: Scores) -> TokenLogprob {
    let vocab = model.vocab();
    let text = |id: LlamaToken| {
        let bytes = vocab.token_to_piece(id, true, None);
        (String::from_utf8_lossy(&bytes).into_owned(), bytes)
    };
    let (word, bytes) = text(token);
    let alternatives = found.best.into_iter().map(|(id, logprob)| {
        let (word, bytes) = text(LlamaToken(id));
        (word, logprob, bytes)
    });
    TokenLogprob { token: word, logprob: found.chosen, bytes, alternatives: alternatives.collect() }
}
