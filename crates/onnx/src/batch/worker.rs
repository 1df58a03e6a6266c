//! The thread of a model: takes requests in turn, forms batches, answers.
//!
//! Separate from the door (`batch.rs`): everything here belongs to one thread and needs no lock. Places in a batch stay valid
//! because the queue changes only between batches.

use super::load::{Load, Reserved, to_f64};
use super::{Model, to_i64};
use crate::encoder::Item;
use crate::error::OnnxError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{Span, debug_span};

/// An item joins a batch of longer ones only when at least this part of its row is not padding.
const LEAST_FILL: f64 = 0.5;

/// Where an answer goes, with the time until the first of its items was computed.
pub(super) type Reply = oneshot::Sender<(Result<Vec<Vec<f32>>, OnnxError>, Option<Duration>)>;

/// A caller's items and what is known of their rows.
#[derive(Debug)]
pub(super) struct Request {
    /// Items that have not run, cheapest first, each with its place in the answer.
    waiting: Vec<(usize, Item)>,
    rows: Vec<Vec<f32>>,
    missing: usize,
    /// Taken when the request is answered.
    reply: Option<Reply>,
    reserved: Reserved,
    span: Span,
    /// Open until the first of its items is computed.
    queue: Span,
    began: Instant,
    waited: Option<Duration>,
}

impl Request {
    pub(super) fn new(items: Vec<Item>, reply: Reply, reserved: Reserved, span: Span) -> Self {
        let (rows, missing) = (vec![Vec::new(); items.len()], items.len());
        let mut waiting: Vec<(usize, Item)> = items.into_iter().enumerate().collect();
        waiting.sort_by_key(|(_, item)| item.cost());
        let queue = debug_span!(parent: &span, "queue");
        let (reply, began) = (Some(reply), Instant::now());
        Self { waiting, rows, missing, reply, reserved, span, queue, began, waited: None }
    }

    fn wanted(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// The most expensive waiting item of at most `most`, unless less than half of a row of `most` would be its own.
    fn take(&mut self, most: usize) -> Option<(usize, Item)> {
        let end = self.waiting.partition_point(|(_, item)| item.cost() <= most);
        let (_, item) = self.waiting.get(end.checked_sub(1)?)?;
        if to_f64(item.cost()) < to_f64(most) * LEAST_FILL {
            return None;
        }
        let cost = item.cost();
        self.reserved.give_back(cost);
        self.queue = Span::none();
        let began = self.began;
        self.waited.get_or_insert_with(|| began.elapsed());
        Some(self.waiting.remove(end - 1))
    }

    fn finish(&mut self, answer: Result<Vec<Vec<f32>>, OnnxError>) {
        if let Some(reply) = self.reply.take() {
            // The caller may have left just now; nobody is there to be told.
            let _gone = reply.send((answer, self.waited));
        }
    }
}

/// An item in a batch: whose it is (place in the worker's queue) and its place in the answer.
#[derive(Debug, Clone, Copy)]
struct Seat {
    request: usize,
    place: usize,
}

/// The thread's own state.
pub(super) struct Worker<M> {
    name: String,
    model: M,
    /// Rows × length of the longest in one batch.
    budget: usize,
    load: Arc<Load>,
    requests: VecDeque<Request>,
}

impl<M: Model> Worker<M> {
    pub(super) fn new(name: String, model: M, budget: usize, load: Arc<Load>) -> Self {
        Self { name, model, budget, load, requests: VecDeque::new() }
    }

    /// Works until nobody can send requests any more.
    pub(super) fn work(mut self, arrivals: &mpsc::Receiver<Request>) {
        loop {
            if self.requests.is_empty() {
                match arrivals.recv() {
                    Ok(request) => self.requests.push_back(request),
                    Err(mpsc::RecvError) => return,
                }
            }
            self.requests.extend(arrivals.try_iter());
            self.requests.retain(Request::wanted);
            let (seats, items) = self.form();
            if items.is_empty() {
                continue;
            }
            let cost = items.iter().map(Item::cost).sum();
            let spans = self.spans(&seats, cost);
            let started = Instant::now();
            self.load.runs(cost);
            let outcome = self.model.run(&items);
            self.load.runs(0);
            drop(spans);
            self.record((items.len(), cost), started.elapsed());
            match outcome {
                Ok(rows) => seats.iter().zip(rows).for_each(|(seat, row)| self.deliver(*seat, row)),
                Err(error) => self.isolate(&seats, &items, &error),
            }
            self.requests.retain(Request::wanted);
            // Whoever was first has had a turn.
            if !self.requests.is_empty() {
                self.requests.rotate_left(1);
            }
        }
    }

    /// The next batch: the longest item of the first request sets the length of a row, then everybody in turn adds items
    /// that fit it, within the budget.
    fn form(&mut self) -> (Vec<Seat>, Vec<Item>) {
        let (mut seats, mut items) = (Vec::new(), Vec::new());
        let Some(length) =
            self.requests.front().and_then(|r| r.waiting.last()).map(|(_, i)| i.cost())
        else {
            return (seats, items);
        };
        let rows = (self.budget / length).max(1);
        let mut found = true;
        while found {
            found = false;
            for (index, request) in self.requests.iter_mut().enumerate() {
                if items.len() == rows {
                    return (seats, items);
                }
                if let Some((place, item)) = request.take(length) {
                    seats.push(Seat { request: index, place });
                    items.push(item);
                    found = true;
                }
            }
        }
        (seats, items)
    }

    /// A span of the batch for each request in it, as traces have no place for what several share.
    fn spans(&self, seats: &[Seat], cost: usize) -> Vec<Span> {
        let mut asked: Vec<usize> = seats.iter().map(|seat| seat.request).collect();
        asked.sort_unstable();
        asked.dedup();
        let traced = asked.iter().filter_map(|index| self.requests.get(*index));
        let traced = traced.filter(|request| !request.span.is_disabled());
        let (rows, tokens) = (to_i64(seats.len()), to_i64(cost));
        let batch = |request: &Request| debug_span!(parent: &request.span, "batch", koine.rows = rows, koine.tokens = tokens);
        traced.map(batch).collect()
    }

    fn deliver(&mut self, seat: Seat, row: Vec<f32>) {
        let Some(request) = self.requests.get_mut(seat.request) else { return };
        if let Some(slot) = request.rows.get_mut(seat.place) {
            *slot = row;
            request.missing -= 1;
        }
        if request.missing == 0 {
            let rows = std::mem::take(&mut request.rows);
            request.finish(Ok(rows));
        }
    }

    /// After a failure each item runs alone, so that one bad item fails its own request and no other.
    fn isolate(&mut self, seats: &[Seat], items: &[Item], error: &OnnxError) {
        tracing::warn!(model = %self.name, rows = items.len(), %error, "a batch failed");
        let alone = items.len() == 1;
        for (seat, item) in seats.iter().zip(items) {
            if !self.requests.get(seat.request).is_some_and(Request::wanted) {
                continue;
            }
            let outcome =
                if alone { Err(error.clone()) } else { self.model.run(std::slice::from_ref(item)) };
            match outcome.and_then(|rows| rows.into_iter().next().ok_or_else(|| error.clone())) {
                Ok(row) => self.deliver(*seat, row),
                Err(error) => {
                    if let Some(request) = self.requests.get_mut(seat.request) {
                        request.finish(Err(error));
                    }
                }
            }
        }
    }

    fn record(&self, (rows, cost): (usize, usize), taken: Duration) {
        self.load.observe(cost, taken);
        let model = || self.name.clone();
        metrics::histogram!("onnx_batch_rows", "model" => model()).record(to_f64(rows));
        metrics::histogram!("onnx_batch_seconds", "model" => model()).record(taken);
    }
}
