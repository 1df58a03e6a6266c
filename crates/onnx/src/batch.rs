//! One queue per model: forms batches by a budget that counts padding, and skips callers who left.
//!
//! Separate from the session because this is about callers: who is served next, who is refused, whose wait is over. A lone
//! request starts at once, no timer ever delays it; while a batch runs, what arrives meanwhile forms the next one. Requests
//! take turns, so a small one does not wait for the end of a large one.

mod load;
mod worker;

use crate::encoder::{Encoder, Item, RowShape};
use crate::error::OnnxError;
use crate::session::{Accepts, Session};
use crate::waited;
use async_trait::async_trait;
use load::Load;
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::oneshot;
use worker::{Request, Worker};

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Budget of one batch: rows × tokens of the longest row. A tensor counts as one token.
    pub batch_tokens: usize,
    /// What may wait, in tokens; a request that finds the queue empty is taken whatever its size.
    pub queue_tokens: usize,
}

impl Default for BatchOptions {
    /// Measured with MiniLM, processor time per token: 674 µs for one sentence of 11 tokens alone, 284 µs for 16 of them, 283 µs
    /// for 4 or 8 texts of 64, 308 µs for 16 of those: beyond 512 tokens a batch only delays the next caller.
    fn default() -> Self {
        Self { batch_tokens: 512, queue_tokens: 131_072 }
    }
}

/// An `Encoder` over a session on a thread of its own. The thread ends when the batcher is dropped.
#[derive(Debug)]
pub struct Batcher {
    name: String,
    requests: mpsc::Sender<Request>,
    load: Arc<Load>,
    queue_tokens: usize,
    accepts: Accepts,
    rows: RowShape,
}

impl Batcher {
    /// Starts the worker of `session`; `name` is the model's, for metrics and the thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(name: &str, session: Session, options: BatchOptions) -> Result<Self, OnnxError> {
        Self::start_model(name, session, options)
    }

    fn start_model<M: Model>(
        name: &str,
        model: M,
        options: BatchOptions,
    ) -> Result<Self, OnnxError> {
        // Unbounded as a channel; `queue_tokens` is the bound, and it is checked before sending.
        let (requests, arrivals) = mpsc::channel();
        let load = Arc::new(Load::of(name));
        let (accepts, rows) = (model.accepts(), model.rows());
        let worker =
            Worker::new(name.to_owned(), model, options.batch_tokens.max(1), Arc::clone(&load));
        thread::Builder::new()
            .name(format!("onnx-{name}"))
            .spawn(move || worker.work(&arrivals))
            .map_err(|error| OnnxError::Run(format!("cannot start a thread: {error}")))?;
        let queue_tokens = options.queue_tokens;
        Ok(Self { name: name.to_owned(), requests, load, queue_tokens, accepts, rows })
    }
}

#[async_trait]
impl Encoder for Batcher {
    fn rows(&self) -> RowShape {
        self.rows
    }

    async fn encode(&self, items: Vec<Item>) -> Result<Vec<Vec<f32>>, OnnxError> {
        items.iter().try_for_each(|item| self.accepts.check(item))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let cost: usize = items.iter().map(Item::cost).sum();
        let reserved = self.load.reserve(cost, self.queue_tokens)?;
        let (model, rows) = (self.name.as_str(), to_i64(items.len()));
        let span = tracing::debug_span!(
            "encode",
            otel.name = format!("encode {model}"),
            koine.model = model,
            koine.rows = rows,
            koine.tokens = to_i64(cost)
        );
        let (reply, answer) = oneshot::channel();
        let request = Request::new(items, reply, reserved, span);
        self.requests.send(request).map_err(|_| OnnxError::Stopped)?;
        let (answer, wait) = answer.await.map_err(|_| OnnxError::Stopped)?;
        waited::note(wait);
        answer
    }
}

/// As attributes of spans are written: they have no unsigned numbers.
fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the worker runs: a session, or the fake of the tests.
trait Model: Send + 'static {
    fn accepts(&self) -> Accepts;
    fn rows(&self) -> RowShape;
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<f32>>, OnnxError>;
}

impl Model for Session {
    fn accepts(&self) -> Accepts {
        Self::accepts(self)
    }
    fn rows(&self) -> RowShape {
        Self::rows(self)
    }
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<f32>>, OnnxError> {
        Self::run(self, items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Answers `[tokens, first id]` for each item; waits for a permit before each batch; notes the batches it saw.
    #[derive(Debug)]
    struct Fake {
        permits: mpsc::Receiver<()>,
        seen: Arc<Mutex<Vec<Vec<usize>>>>,
    }

    const POISON: u32 = 666;

    impl Model for Fake {
        fn accepts(&self) -> Accepts {
            Accepts::Tokens
        }
        fn rows(&self) -> RowShape {
            RowShape { width: 2, per_token: false }
        }
        fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<f32>>, OnnxError> {
            let _closed = self.permits.recv();
            self.seen.lock().unwrap().push(items.iter().map(Item::cost).collect());
            items
                .iter()
                .map(|item| match item {
                    Item::Tokens(ids) if ids[0] == POISON => Err(OnnxError::Run("poison".into())),
                    Item::Tokens(ids) => Ok(vec![ids.len() as f32, ids[0] as f32]),
                    Item::Tensor(_) => unreachable!(),
                })
                .collect()
        }
    }

    struct Rig {
        batcher: Arc<Batcher>,
        permit: mpsc::Sender<()>,
        seen: Arc<Mutex<Vec<Vec<usize>>>>,
    }

    fn rig(batch_tokens: usize, queue_tokens: usize) -> Rig {
        let (permit, permits) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let fake = Fake { permits, seen: Arc::clone(&seen) };
        let options = BatchOptions { batch_tokens, queue_tokens };
        let batcher = Arc::new(Batcher::start_model("fake", fake, options).unwrap());
        Rig { batcher, permit, seen }
    }

    fn text(tokens: usize, first: u32) -> Item {
        let mut ids = vec![0; tokens];
        ids[0] = first;
        Item::Tokens(ids)
    }

    /// Polls `future` once, so that its request is in the queue.
    fn start<F: Future>(future: &mut std::pin::Pin<Box<F>>) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn rows_come_back_in_the_order_of_the_items_and_batches_keep_the_budget() {
        let rig = rig(10, 100);
        let items = vec![text(2, 1), text(9, 2), text(3, 3), text(5, 4), text(4, 5)];
        (0..9).for_each(|_| rig.permit.send(()).unwrap());
        let rows = rig.batcher.encode(items).await.unwrap();
        assert_eq!(rows, [[2.0, 1.0], [9.0, 2.0], [3.0, 3.0], [5.0, 4.0], [4.0, 5.0]]);
        for batch in rig.seen.lock().unwrap().iter() {
            let padded = batch.iter().max().unwrap() * batch.len();
            assert!(padded <= 10, "{batch:?} costs {padded}");
        }
        assert_eq!(*rig.seen.lock().unwrap(), [vec![9], vec![5, 4], vec![3, 2]]);
    }

    #[tokio::test]
    async fn what_arrives_while_a_batch_runs_shares_the_next_one() {
        let rig = rig(100, 1000);
        let mut first = Box::pin(rig.batcher.encode(vec![text(4, 1)]));
        start(&mut first);
        rig.permit.send(()).unwrap();
        first.await.unwrap();
        let mut blocker = Box::pin(rig.batcher.encode(vec![text(50, 9)]));
        start(&mut blocker);
        // The worker holds the blocker, or will take all three; either way two and three share a batch.
        let mut two = Box::pin(rig.batcher.encode(vec![text(4, 2)]));
        let mut three = Box::pin(rig.batcher.encode(vec![text(4, 3)]));
        start(&mut two);
        start(&mut three);
        (0..3).for_each(|_| rig.permit.send(()).unwrap());
        assert_eq!(blocker.await.unwrap(), [[50.0, 9.0]]);
        assert_eq!(two.await.unwrap(), [[4.0, 2.0]]);
        assert_eq!(three.await.unwrap(), [[4.0, 3.0]]);
        assert_eq!(*rig.seen.lock().unwrap(), [vec![4], vec![50], vec![4, 4]]);
    }

    #[tokio::test]
    async fn a_small_request_does_not_wait_for_the_end_of_a_large_one() {
        let rig = rig(10, 10_000);
        let mut large = Box::pin(rig.batcher.encode((0..20).map(|i| text(10, i)).collect()));
        start(&mut large);
        let mut small = Box::pin(rig.batcher.encode(vec![text(1, 7)]));
        start(&mut small);
        (0..21).for_each(|_| rig.permit.send(()).unwrap());
        assert_eq!(small.await.unwrap(), [[1.0, 7.0]]);
        assert_eq!(large.await.unwrap().len(), 20);
        let seen = rig.seen.lock().unwrap();
        let turn = seen.iter().position(|batch| *batch == [1]).unwrap();
        assert!(turn <= 2, "the small request came as batch {turn}");
    }

    #[tokio::test]
    async fn callers_who_left_are_not_computed() {
        let rig = rig(10, 1000);
        let mut blocker = Box::pin(rig.batcher.encode(vec![text(10, 1)]));
        start(&mut blocker);
        let mut left = Box::pin(rig.batcher.encode(vec![text(7, 2), text(8, 3)]));
        start(&mut left);
        drop(left);
        let mut last = Box::pin(rig.batcher.encode(vec![text(3, 4)]));
        start(&mut last);
        (0..2).for_each(|_| rig.permit.send(()).unwrap());
        blocker.await.unwrap();
        last.await.unwrap();
        assert_eq!(*rig.seen.lock().unwrap(), [vec![10], vec![3]]);
        assert_eq!(rig.batcher.load.queued(), 0);
    }

    #[tokio::test]
    async fn who_counts_hears_how_long_the_model_was_not_there_for_it() {
        let rig = rig(100, 1000);
        let mut blocker = Box::pin(rig.batcher.encode(vec![text(50, 9)]));
        start(&mut blocker);
        let mut counted = Box::pin(waited::waited(rig.batcher.encode(vec![text(4, 2)])));
        start(&mut counted);
        let begun = std::time::Instant::now();
        let nothing = waited::waited(rig.batcher.encode(Vec::new())).await;
        assert_eq!(nothing, (Ok(Vec::new()), None));
        let held = begun.elapsed();
        (0..2).for_each(|_| rig.permit.send(()).unwrap());
        blocker.await.unwrap();
        let (rows, wait) = counted.await;
        assert_eq!(rows.unwrap(), [[4.0, 2.0]]);
        assert!(wait.unwrap() >= held, "{wait:?} of {held:?}");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_with_a_time_to_retry() {
        let rig = rig(10, 30);
        let mut waiting = Vec::new();
        let mut refused = 0;
        for i in 0..6 {
            let mut request = Box::pin(rig.batcher.encode(vec![text(10, i)]));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match request.as_mut().poll(&mut context) {
                std::task::Poll::Pending => waiting.push(request),
                std::task::Poll::Ready(answer) => {
                    let Err(OnnxError::Overloaded { retry_after }) = answer else {
                        panic!("{answer:?}")
                    };
                    assert!(retry_after >= Duration::from_secs(1));
                    assert!(retry_after <= Duration::from_secs(60));
                    refused += 1;
                }
            }
        }
        // One runs, or is about to; three wait.
        assert!((2..=3).contains(&refused), "{refused} were refused");
        (0..6).for_each(|_| rig.permit.send(()).unwrap());
        for request in waiting {
            request.await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_bad_item_fails_its_own_request_only() {
        let rig = rig(100, 1000);
        let mut blocker = Box::pin(rig.batcher.encode(vec![text(50, 1)]));
        start(&mut blocker);
        let mut good = Box::pin(rig.batcher.encode(vec![text(4, 2)]));
        let mut bad = Box::pin(rig.batcher.encode(vec![text(4, POISON)]));
        start(&mut good);
        start(&mut bad);
        (0..9).for_each(|_| rig.permit.send(()).unwrap());
        blocker.await.unwrap();
        assert_eq!(good.await.unwrap(), [[4.0, 2.0]]);
        assert_eq!(bad.await.unwrap_err(), OnnxError::Run("poison".into()));
    }

    #[tokio::test]
    async fn an_item_of_the_wrong_kind_is_refused_before_it_is_queued() {
        let rig = rig(10, 10);
        let answer = rig.batcher.encode(vec![Item::Tensor(vec![1.0])]).await;
        assert!(matches!(answer, Err(OnnxError::WrongItem(_))));
        assert_eq!(rig.batcher.encode(Vec::new()).await.unwrap(), Vec::<Vec<f32>>::new());
    }
}
