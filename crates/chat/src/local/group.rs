//! A request inside the engine: where its pieces go, which of its choices still run, what it has spent.
//!
//! Separate from the sequences, because a request may have many. The invariant: one `Finished` for each kept choice, then
//! `Usage`, then nothing; and nobody ever waits for a slow reader but its own request.

use super::job::Sink;
use super::steps::{Step, Steps};
use crate::backend::{FinishReason, Piece, Usage};
use crate::error::ChatError;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// Whether the reader keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Everything was taken.
    Open,
    /// The channel is full: its sequences pause.
    Stalled,
    /// Nobody listens any more.
    Closed,
}

/// A candidate of `best_of` that has ended.
#[derive(Debug)]
struct Candidate {
    score: f32,
    pieces: Vec<Piece>,
    reason: FinishReason,
}

/// Candidates that are compared before any is shown.
#[derive(Debug)]
struct Contest {
    candidates: u32,
    choices: u32,
    /// Pieces of each candidate so far.
    pieces: Vec<Vec<Piece>>,
    ended: Vec<Option<Candidate>>,
}

/// A running request.
#[derive(Debug)]
pub(crate) struct Group {
    pieces: mpsc::Sender<Result<Piece, ChatError>>,
    begun: Option<oneshot::Sender<Result<(), ChatError>>>,
    _permit: tokio::sync::OwnedSemaphorePermit,
    since: Instant,
    pending: VecDeque<Result<Piece, ChatError>>,
    stalled: Option<Instant>,
    running: usize,
    usage: Usage,
    contest: Option<Contest>,
    ended: bool,
    steps: Steps,
}

impl Group {
    /// For `prompts` prompts with `candidates` sequences each, of which `choices` are kept.
    pub(crate) fn new(sink: Sink, prompts: usize, candidates: u32, choices: u32) -> Self {
        let Sink { pieces, begun, _permit, since, mut steps } = sink;
        steps.enter(Step::Queue);
        let running = prompts.saturating_mul(usize::try_from(candidates).unwrap_or(usize::MAX));
        let contest = (candidates > choices).then(|| Contest {
            candidates,
            choices,
            pieces: vec![Vec::new(); running],
            ended: (0..running).map(|_| None).collect(),
        });
        Self {
            pieces,
            begun: Some(begun),
            _permit,
            since,
            pending: VecDeque::new(),
            stalled: None,
            running,
            usage: Usage::default(),
            contest,
            ended: false,
            steps,
        }
    }

    /// Tells the caller, once, that generation begins.
    pub(crate) fn begin(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.steps.enter(Step::Prefill);
            // A caller that left is noticed by its closed channel.
            let _gone = begun.send(Ok(()));
        }
    }

    /// A first token has been chosen.
    pub(crate) fn writes(&mut self) {
        self.steps.enter(Step::Decode);
    }

    /// Whether generation has begun.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun.is_none()
    }

    /// Whether it has waited for longer than `limit` without beginning.
    pub(crate) fn waited_too_long(&self, limit: Duration) -> bool {
        !self.has_begun() && self.since.elapsed() > limit
    }

    /// Counts tokens.
    pub(crate) fn spend(&mut self, tokens: Usage) {
        let Usage { prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens } = tokens;
        self.usage.prompt_tokens += prompt_tokens;
        self.usage.completion_tokens += completion_tokens;
        self.usage.cached_tokens += cached_tokens;
        self.usage.reasoning_tokens += reasoning_tokens;
    }

    /// Takes pieces of sequence `sequence`.
    pub(crate) fn push(&mut self, sequence: u32, pieces: Vec<Piece>) {
        let held =
            self.contest.as_mut().and_then(|c| c.pieces.get_mut(usize::try_from(sequence).ok()?));
        match held {
            Some(held) => held.extend(pieces),
            None => self.pending.extend(pieces.into_iter().map(Ok)),
        }
    }

    /// Sequence `sequence` has ended, with `score` as its mean log probability.
    pub(crate) fn finish(&mut self, sequence: u32, reason: FinishReason, score: f32) {
        self.running = self.running.saturating_sub(1);
        match &mut self.contest {
            Some(contest) => {
                self.pending.extend(contest.finish(sequence, reason, score).into_iter().map(Ok));
            }
            None => self.pending.push_back(Ok(Piece::Finished { choice: sequence, reason })),
        }
        if self.running == 0 && !self.ended {
            self.ended = true;
            self.steps.end(&self.usage);
            self.pending.push_back(Ok(Piece::Usage(self.usage)));
        }
    }

    /// Ends the request with an error.
    pub(crate) fn fail(&mut self, error: ChatError) {
        self.ended = true;
        match self.begun.take() {
            Some(begun) => {
                let _gone = begun.send(Err(error));
            }
            None => self.pending.push_back(Err(error)),
        }
    }

    /// Whether its last piece has been written.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Hands on what the reader has room for.
    pub(crate) fn flush(&mut self) -> Flow {
        while let Some(piece) = self.pending.pop_front() {
            match self.pieces.try_send(piece) {
                Ok(()) => self.stalled = None,
                Err(TrySendError::Closed(_)) => return Flow::Closed,
                Err(TrySendError::Full(piece)) => {
                    self.pending.push_front(piece);
                    self.stalled.get_or_insert_with(Instant::now);
                    return Flow::Stalled;
                }
            }
        }
        if self.pieces.is_closed() || self.begun.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return Flow::Closed;
        }
        Flow::Open
    }

    /// Whether its sequences may go on: the reader takes what they say.
    pub(crate) const fn keeps_up(&self) -> bool {
        self.stalled.is_none()
    }

    /// Whether its reader has taken nothing for longer than `limit`.
    pub(crate) fn abandoned(&self, limit: Duration) -> bool {
        self.stalled.is_some_and(|since| since.elapsed() > limit)
    }
}

impl Contest {
    /// The pieces of the winners, once the last candidate of a prompt has ended.
    fn finish(&mut self, sequence: u32, reason: FinishReason, score: f32) -> Vec<Piece> {
        let index = usize::try_from(sequence).unwrap_or(usize::MAX);
        let pieces = self.pieces.get_mut(index).map(std::mem::take).unwrap_or_default();
        if let Some(slot) = self.ended.get_mut(index) {
            *slot = Some(Candidate { score, pieces, reason });
        }
        let prompt = sequence / self.candidates.max(1);
        let first = usize::try_from(prompt * self.candidates).unwrap_or(usize::MAX);
        let count = usize::try_from(self.candidates).unwrap_or(0);
        let Some(slots) = self.ended.get_mut(first..first.saturating_add(count)) else {
            return Vec::new();
        };
        if slots.iter().any(Option::is_none) {
            return Vec::new();
        }
        let mut candidates: Vec<Candidate> = slots.iter_mut().filter_map(Option::take).collect();
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        let choices = prompt * self.choices..(prompt + 1) * self.choices;
        let winners = candidates.into_iter().zip(choices);
        winners
            .flat_map(|(Candidate { pieces, reason, score: _ }, choice)| {
                let end = Piece::Finished { choice, reason };
                pieces.into_iter().map(move |piece| renumber(piece, choice)).chain([end])
            })
            .collect()
    }
}

fn renumber(piece: Piece, choice: u32) -> Piece {
    match piece {
        Piece::Text { text, logprobs, .. } => Piece::Text { choice, text, logprobs },
        Piece::Reasoning { text, .. } => Piece::Reasoning { choice, text },
        Piece::ToolCall { index, id, name, arguments, .. } => {
            Piece::ToolCall { choice, index, id, name, arguments }
        }
        Piece::Finished { reason, .. } => Piece::Finished { choice, reason },
        Piece::Usage(usage) => Piece::Usage(usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    type Reader =
        (mpsc::Receiver<Result<Piece, ChatError>>, oneshot::Receiver<Result<(), ChatError>>);

    fn group(candidates: u32, choices: u32, room: usize) -> (Group, Reader) {
        let (pieces, reader) = mpsc::channel(room);
        let (begun, begins) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (since, steps) = (Instant::now(), Steps::begin());
        let sink = Sink { pieces, begun, _permit: permit, since, steps };
        (Group::new(sink, 1, candidates, choices), (reader, begins))
    }

    fn text(choice: u32, text: &str) -> Piece {
        Piece::Text { choice, text: text.into(), logprobs: Vec::new() }
    }

    fn read(reader: &mut Reader) -> Vec<Piece> {
        std::iter::from_fn(|| reader.0.try_recv().ok()).map(Result::unwrap).collect()
    }

    #[test]
    fn usage_is_the_last_piece_after_every_choice_has_finished() {
        let (mut group, mut reader) = group(2, 2, 8);
        group.begin();
        group.spend(Usage { completion_tokens: 3, ..Usage::default() });
        group.push(1, vec![text(1, "b")]);
        group.finish(1, FinishReason::Stop, 0.0);
        assert!(!group.has_ended());
        group.finish(0, FinishReason::Length, 0.0);
        assert_eq!(group.flush(), Flow::Open);
        let pieces = read(&mut reader);
        assert_eq!(pieces[0], text(1, "b"));
        assert_eq!(pieces[3], Piece::Usage(Usage { completion_tokens: 3, ..Usage::default() }));
        assert!(group.has_ended());
    }

    #[test]
    fn the_best_candidates_come_first_with_their_own_numbers() {
        let (mut group, mut reader) = group(3, 2, 16);
        group.begin();
        for (sequence, score) in [(0, -3.0), (2, -1.0), (1, -2.0)] {
            group.push(sequence, vec![text(sequence, &format!("s{sequence}"))]);
            assert_eq!(group.flush(), Flow::Open);
            assert_eq!(read(&mut reader), [], "nothing is shown before all have ended");
            group.finish(sequence, FinishReason::Stop, score);
        }
        group.flush();
        let pieces = read(&mut reader);
        assert_eq!(pieces[0], text(0, "s2"));
        assert_eq!(pieces[2], text(1, "s1"));
        assert_eq!(pieces.len(), 5);
    }

    #[test]
    fn a_slow_reader_stalls_and_a_gone_one_closes() {
        let (mut group, mut reader) = group(1, 1, 1);
        group.begin();
        group.push(0, vec![text(0, "a"), text(0, "b")]);
        assert_eq!(group.flush(), Flow::Stalled);
        assert!(group.abandoned(Duration::ZERO));
        assert_eq!(read(&mut reader), [text(0, "a")]);
        assert_eq!(group.flush(), Flow::Open);
        assert!(!group.abandoned(Duration::ZERO));
        drop(reader);
        assert_eq!(group.flush(), Flow::Closed);
    }

    #[test]
    fn an_error_before_the_beginning_goes_to_the_caller() {
        let (mut group, mut reader) = group(1, 1, 1);
        group.fail(ChatError::Stopping);
        assert!(matches!(reader.1.try_recv().unwrap(), Err(ChatError::Stopping)));
        assert!(group.has_ended());
    }
}
