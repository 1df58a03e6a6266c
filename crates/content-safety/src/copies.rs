//! Several copies of the text model, which judge at the same time.
//!
//! Separate from the batcher, which has one model and one thread: small models gain nothing from more threads for one text, and
//! nearly everything from one text per core. Each view goes where the least waits, so that a long text uses all cores too.

use async_trait::async_trait;
use futures::future::try_join_all;
use onnx::{Encoder, Item, OnnxError, RowShape};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An encoder made of equal ones; there is at least one.
#[derive(Debug)]
pub(crate) struct Copies {
    first: Copied,
    others: Vec<Copied>,
}

#[derive(Debug)]
struct Copied {
    encoder: Arc<dyn Encoder>,
    /// Tokens that it was given and has not answered.
    waiting: Arc<AtomicUsize>,
}

/// Tokens given to a copy; dropping it says that they are answered, or that nobody waits for them any more.
struct Given {
    waiting: Arc<AtomicUsize>,
    tokens: usize,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.tokens, Ordering::AcqRel);
    }
}

impl Copied {
    const fn new(encoder: Arc<dyn Encoder>, waiting: Arc<AtomicUsize>) -> Self {
        Self { encoder, waiting }
    }

    fn waits(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn give(&self, tokens: usize) -> Given {
        self.waiting.fetch_add(tokens, Ordering::AcqRel);
        Given { waiting: Arc::clone(&self.waiting), tokens }
    }
}

impl Copies {
    /// `first` and `others`, all of the same model.
    pub(crate) fn new(first: Arc<dyn Encoder>, others: Vec<Arc<dyn Encoder>>) -> Self {
        let copied = |encoder| Copied::new(encoder, Arc::default());
        Self { first: copied(first), others: others.into_iter().map(copied).collect() }
    }

    /// The one that has the least to do.
    fn idlest(&self) -> &Copied {
        let all = std::iter::once(&self.first).chain(&self.others);
        all.min_by_key(|copy| copy.waits()).unwrap_or(&self.first)
    }
}

#[async_trait]
impl Encoder for Copies {
    fn rows(&self) -> RowShape {
        self.first.encoder.rows()
    }

    async fn encode(&self, items: Vec<Item>) -> Result<Vec<Vec<f32>>, OnnxError> {
        // All are given out before any is awaited: what is given counts.
        let given: Vec<_> = items
            .into_iter()
            .map(|item| {
                let copy = self.idlest();
                (copy, copy.give(item.cost()), item)
            })
            .collect();
        let rows = try_join_all(given.into_iter().map(|(copy, given, item)| async move {
            let rows = copy.encoder.encode(vec![item]).await;
            drop(given);
            rows
        }));
        Ok(rows.await?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::sync::Semaphore;

    /// Answers the number of tokens and its own number, once it may.
    #[derive(Debug)]
    struct Slow {
        number: f32,
        may: Arc<Semaphore>,
        seen: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Encoder for Slow {
        fn rows(&self) -> RowShape {
            RowShape { width: 2, per_token: false }
        }

        async fn encode(&self, items: Vec<Item>) -> Result<Vec<Vec<f32>>, OnnxError> {
            self.seen.lock().unwrap().extend(items.iter().map(Item::cost));
            let _permit = self.may.acquire().await.unwrap();
            Ok(items.iter().map(|item| vec![item.cost() as f32, self.number]).collect())
        }
    }

    fn rig() -> (Arc<Copies>, [Arc<Slow>; 2], Arc<Semaphore>) {
        let may = Arc::new(Semaphore::new(0));
        let slow = [0.0, 1.0]
            .map(|number| Arc::new(Slow { number, may: Arc::clone(&may), seen: Mutex::default() }));
        let [first, second] = slow.clone().map(|slow| slow as Arc<dyn Encoder>);
        (Arc::new(Copies::new(first, vec![second])), slow, may)
    }

    fn text(tokens: usize) -> Item {
        Item::Tokens(vec![1; tokens])
    }

    #[tokio::test]
    async fn rows_come_back_in_order_and_the_work_is_shared_by_its_size() {
        let (copies, slow, may) = rig();
        may.add_permits(4);
        let rows = copies.encode(vec![text(9), text(2), text(3), text(5)]).await.unwrap();
        assert_eq!(rows, [[9.0, 0.0], [2.0, 1.0], [3.0, 1.0], [5.0, 1.0]]);
        assert_eq!(*slow[0].seen.lock().unwrap(), [9]);
        assert_eq!(*slow[1].seen.lock().unwrap(), [2, 3, 5]);
        assert!(copies.encode(Vec::new()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_waits_counts_and_who_left_does_not() {
        let (copies, slow, may) = rig();
        let mut left = Box::pin(copies.encode(vec![text(9)]));
        assert!(futures::poll!(&mut left).is_pending());
        let mut other = Box::pin(copies.encode(vec![text(4)]));
        assert!(futures::poll!(&mut other).is_pending());
        drop(left);
        let mut third = Box::pin(copies.encode(vec![text(1)]));
        assert!(futures::poll!(&mut third).is_pending());
        assert_eq!(*slow[0].seen.lock().unwrap(), [9, 1]);
        assert_eq!(*slow[1].seen.lock().unwrap(), [4]);
        may.add_permits(2);
        assert_eq!(other.await.unwrap(), [[4.0, 1.0]]);
        assert_eq!(third.await.unwrap(), [[1.0, 0.0]]);
    }
}
