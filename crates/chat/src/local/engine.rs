//! The loop that generates: one thread, one llama.cpp context, one batch per step for all sequences.
//!
//! Each turn takes new jobs, hands pieces on, gives free slots to waiting sequences and decodes one batch: one token of
//! every sequence that generates, and a piece of the prompts of the others, so that a long prompt stalls nobody.
//! Sequences join and leave between steps. The invariants: the batch never needs more cells than are free (idle caches are
//! forgotten first, then the youngest sequence steps back and starts over later), and the thread never waits for a reader.

mod admission;
mod cells;

use super::compose::Composer;
use super::group::{Flow, Group};
use super::job::{Job, Sink};
use super::sampling::Scratch;
use super::sequence::{Advance, Sequence};
use super::slots::Slots;
use crate::backend::Usage;
use crate::error::ChatError;
use crate::events;
use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// How often an engine that has requests but nothing to decode looks at the clock; events wake it earlier.
const CLOCK: Duration = Duration::from_millis(100);
/// Prompt positions per step whose logits are read: each is a row of the whole vocabulary.
const SCORED_CHUNK: usize = 32;
/// Answer tokens that a sequence without `max_tokens` is expected to need; more are found, or somebody steps back.
const EXPECTED_ANSWER: u32 = 256;
/// When a request that waited in vain should come again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The engine's limits; tokens and cells are the same size.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Name of the model, for errors and logs.
    pub(crate) name: String,
    /// Tokens of prompt and answer together; at most the cells of the context.
    pub(crate) limit: u32,
    /// Sequences at once.
    pub(crate) parallel: usize,
    /// Tokens per step.
    pub(crate) batch: usize,
    /// Prompt tokens per step while others generate.
    pub(crate) prefill: usize,
    /// Longest wait for a slot.
    pub(crate) queue_timeout: Duration,
    /// Longest wait for a reader.
    pub(crate) reader_timeout: Duration,
    /// Whether the beginnings of prompts can be shared: not with recurrent models.
    pub(crate) share: bool,
}

/// What other threads may see and say.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// End as soon as possible.
    pub(crate) stopping: AtomicBool,
    /// Sequences that have a slot.
    pub(crate) active: AtomicUsize,
    /// Sequences that wait for one.
    pub(crate) waiting: AtomicUsize,
}

/// A part of the batch: `count` tokens of the running sequence at `index`, from batch position `row` on.
#[derive(Debug, Clone, Copy)]
struct Share {
    index: usize,
    count: usize,
    row: usize,
}

/// The state of the loop.
#[derive(Debug)]
pub(crate) struct Engine<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    settings: Settings,
    shared: Arc<Shared>,
    inbox: Receiver<(Job, Sink)>,
    /// More jobs may come.
    open: bool,
    slots: Slots,
    /// In the order in which they got their slots.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    groups: HashMap<u64, Group>,
    next_group: u64,
    scratch: Scratch,
}

impl<'m> Engine<'m> {
    pub(crate) fn new(
        model: &'m LlamaModel,
        context: LlamaContext<'m>,
        settings: Settings,
        shared: Arc<Shared>,
        inbox: Receiver<(Job, Sink)>,
    ) -> Self {
        let cells = usize::try_from(context.n_ctx()).unwrap_or(0);
        Self {
            batch: LlamaBatch::new(settings.batch, 1),
            slots: Slots::new(settings.parallel, cells),
            model,
            context,
            settings,
            shared,
            inbox,
            open: true,
            running: Vec::new(),
            waiting: VecDeque::new(),
            groups: HashMap::new(),
            next_group: 0,
            scratch: Scratch::new(),
        }
    }

    /// Generates until every handle is gone and the last answer is given, or until it is told to stop.
    pub(crate) fn run(mut self) {
        loop {
            self.receive();
            if self.shared.stopping.load(Ordering::Acquire) {
                self.abort();
                return;
            }
            self.settle();
            self.admit();
            self.report();
            if self.step() {
                continue;
            }
            match (self.groups.is_empty(), self.open) {
                (true, false) => return,
                (true, true) => std::thread::park(),
                (false, _) => std::thread::park_timeout(CLOCK),
            }
        }
    }

    fn receive(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok((job, sink)) => self.enqueue(job, sink),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    fn enqueue(&mut self, job: Job, sink: Sink) {
        let id = self.next_group;
        self.next_group += 1;
        let Job { prompts, candidates, choices, max_tokens, plan, grammar, rules, top_logprobs } =
            job;
        self.groups.insert(id, Group::new(sink, prompts.len(), candidates, choices));
        let numbers = (0..prompts.len()).flat_map(|p| (0..candidates).map(move |k| (p, k)));
        for (number, (index, candidate)) in (0_u32..).zip(numbers) {
            let Some(prompt) = prompts.get(index) else { continue };
            let length = prompt.tokens.len();
            let room =
                self.settings.limit.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
            self.waiting.push_back(Sequence {
                group: id,
                number,
                prompt: index,
                tokens: prompt.tokens.to_vec(),
                prompt_length: length,
                decoded: 0,
                slot: None,
                remaining: max_tokens.unwrap_or(room).min(room),
                limited: max_tokens.is_some(),
                counted: candidate > 0,
                sampler: plan.sampler(number, &prompt.tokens, grammar.clone()),
                composer: Composer::new(number, &rules),
                top_logprobs,
                ranked: candidates > choices,
                echo: prompt.echo.clone(),
                prompt_logprobs: Vec::new(),
                score: 0.0,
                generated: 0,
            });
        }
    }

    /// Hands pieces on, and forgets requests that have ended, whose reader is gone, or who waited too long.
    fn settle(&mut self) {
        let (mut gone, settings) = (Vec::new(), &self.settings);
        for (id, group) in &mut self.groups {
            if group.waited_too_long(settings.queue_timeout) {
                group.fail(ChatError::Busy { model: settings.name.clone(), after: RETRY_AFTER });
            }
            match group.flush() {
                Flow::Open if group.has_ended() => gone.push(*id),
                Flow::Closed => gone.push(*id),
                Flow::Stalled if group.abandoned(settings.reader_timeout) => {
                    tracing::warn!(
                        model = settings.name,
                        "an answer was not read in time and is dropped"
                    );
                    gone.push(*id);
                }
                Flow::Open | Flow::Stalled => {}
            }
        }
        for id in gone {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        self.groups.remove(&id);
        self.waiting.retain(|sequence| sequence.group != id);
        let (stay, leave): (Vec<_>, Vec<_>) = self.running.drain(..).partition(|s| s.group != id);
        self.running = stay;
        leave.into_iter().for_each(|sequence| self.free(sequence.slot));
    }

    /// Decodes one batch; false when there is nothing to decode.
    fn step(&mut self) -> bool {
        let Some(shares) = self.plan() else { return false };
        let started = Instant::now();
        match self.context.decode(&mut self.batch) {
            Ok(()) => {
                self.collect(&shares);
                events::decode_step(started.elapsed(), shares.len());
            }
            // The account says that there was room; believe llama.cpp and make some.
            Err(DecodeError::NoKvCacheSlot) if self.running.len() > 1 => self.step_back(),
            Err(error) => self.break_down(&shares, &error),
        }
        true
    }

    /// Fills the batch; none when nobody can go on.
    fn plan(&mut self) -> Option<Vec<Share>> {
        loop {
            let ready: Vec<usize> = (0..self.running.len()).filter(|i| self.is_ready(*i)).collect();
            if ready.is_empty() {
                return None;
            }
            let generating = ready.iter().filter(|i| self.pending(**i) == 1).count();
            let prompts = if generating > 0 { self.settings.prefill } else { self.settings.batch };
            let room = self.make_room(self.settings.batch.min(generating + prompts));
            if room >= generating.max(1) || self.running.len() == 1 {
                return Some(self.fill(&ready, room.min(generating + prompts)));
            }
            self.step_back();
        }
    }

    fn fill(&mut self, ready: &[usize], room: usize) -> Vec<Share> {
        self.batch.clear();
        let mut shares = Vec::with_capacity(ready.len());
        let mut left = room.min(self.settings.batch);
        // Those that generate come first, then prompts in order of arrival.
        let (generating, prompts): (Vec<usize>, Vec<usize>) =
            ready.iter().partition(|i| self.pending(**i) == 1);
        for index in generating.into_iter().chain(prompts) {
            let Some(sequence) = self.running.get(index) else { continue };
            let most = if sequence.scores_prompt() { SCORED_CHUNK } else { usize::MAX };
            let count = sequence.pending().len().min(left).min(most);
            let row = usize::try_from(self.batch.n_tokens()).unwrap_or(0);
            let slot = sequence.slot.and_then(|s| i32::try_from(s).ok()).unwrap_or(0);
            for (offset, token) in sequence.pending().iter().take(count).enumerate() {
                let position = sequence.decoded + offset;
                let wanted = sequence.scores_prompt() || position + 1 == sequence.tokens.len();
                let position = i32::try_from(position).unwrap_or(i32::MAX);
                if let Err(error) = self.batch.add(*token, position, &[slot], wanted) {
                    tracing::error!(%error, "batch overrun");
                }
            }
            left -= count;
            if count > 0 {
                shares.push(Share { index, count, row });
            }
        }
        shares
    }

    fn is_ready(&self, index: usize) -> bool {
        let sequence = self.running.get(index);
        sequence.is_some_and(|s| {
            !s.pending().is_empty() && self.groups.get(&s.group).is_some_and(Group::keeps_up)
        })
    }

    fn pending(&self, index: usize) -> usize {
        self.running.get(index).map_or(0, |s| s.pending().len())
    }

    /// Takes what the batch brought.
    fn collect(&mut self, shares: &[Share]) {
        let mut ended = Vec::new();
        for share in shares {
            let Some(sequence) = self.running.get_mut(share.index) else { continue };
            let from = sequence.decoded;
            let decoded: Vec<i32> =
                sequence.pending().iter().take(share.count).map(|t| t.0).collect();
            sequence.decoded += share.count;
            if let Some(slot) = sequence.slot {
                self.slots.extend(slot, &decoded);
            }
            if sequence.scores_prompt() {
                score_prompt(self.model, &self.context, sequence, (from, *share));
            }
            if !sequence.pending().is_empty() {
                continue;
            }
            let mut pieces = sequence.echo();
            let logits = self.context.get_logits_ith(row(share.row + share.count - 1));
            let advance = if sequence.remaining == 0 {
                sequence.end(true)
            } else {
                match sequence.sampler.next(logits, &mut self.scratch) {
                    Ok(token) => sequence.advance(self.model, token, logits),
                    Err(_) => sequence.end(true),
                }
            };
            let Advance { pieces: more, ended: reason } = advance;
            pieces.extend(more);
            let Some(group) = self.groups.get_mut(&sequence.group) else { continue };
            group.writes();
            group.push(sequence.number, pieces);
            if let Some(reason) = reason {
                group.spend(Usage {
                    completion_tokens: sequence.generated,
                    reasoning_tokens: sequence.composer.thinking_tokens(),
                    ..Usage::default()
                });
                group.finish(sequence.number, reason, sequence.mean_score());
                ended.push(share.index);
            }
        }
        ended.sort_unstable();
        for index in ended.into_iter().rev() {
            let sequence = self.running.remove(index);
            self.free(sequence.slot);
        }
    }

    fn report(&self) {
        self.shared.active.store(self.running.len(), Ordering::Release);
        self.shared.waiting.store(self.waiting.len(), Ordering::Release);
        let tokens = self.running.iter().chain(&self.waiting).map(|s| s.tokens.len()).sum();
        events::load(&self.settings.name, self.running.len(), self.waiting.len(), tokens);
    }

    fn abort(&mut self) {
        for group in self.groups.values_mut() {
            group.fail(ChatError::Stopping);
            group.flush();
        }
        self.running.clear();
        self.waiting.clear();
        self.report();
    }
}

/// Log probabilities of the prompt's tokens that follow the positions of `share`, which began at position `from`.
fn score_prompt(
    model: &LlamaModel,
    context: &LlamaContext<'_>,
    sequence: &mut Sequence,
    (from, share): (usize, Share),
) {
    if from == 0 {
        sequence.score_prompt(model, 0, None);
    }
    for offset in 0..share.count {
        let next = from + offset + 1;
        if next < sequence.prompt_length {
            let logits = context.get_logits_ith(row(share.row + offset));
            sequence.score_prompt(model, next, Some(logits));
        }
    }
}

fn row(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
