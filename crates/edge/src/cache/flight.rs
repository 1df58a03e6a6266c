//! Answers on their way: one computation, and everybody who waits for the same.
//!
//! Separate from what is kept. A flight ends when its answer does, or when the last who waited has gone.

use super::{FrameStream, Key};
use api_types::{ErrorCode, Fault};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What of an answer has come.
#[derive(Debug, Default)]
struct Progress {
    frames: Frames,
    /// Once it is over.
    end: Option<Result<(), Fault>>,
}

impl Progress {
    const fn has_failed(&self) -> bool {
        matches!(self.end, Some(Err(_)))
    }
}

/// The messages of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frames(Vec<Bytes>);

impl Frames {
    /// Length of all of them together.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub(super) fn into_stream(self) -> FrameStream {
        futures::stream::iter(self.0.into_iter().map(Ok)).boxed()
    }

    /// Each with its length before it.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.bytes() + self.0.len() * size_of::<u32>());
        for frame in &self.0 {
            bytes.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
            bytes.put_slice(frame);
        }
        bytes.freeze()
    }

    /// What `encode` wrote; none for anything else.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let mut frames = Vec::new();
        while bytes.has_remaining() {
            let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
            if length > bytes.len() {
                return None;
            }
            frames.push(bytes.split_to(length));
        }
        Some(Self(frames))
    }
}

/// All answers that are on their way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_name: Mutex<HashMap<String, watch::Sender<Progress>>>,
}

impl Flights {
    /// Somebody more who waits for the answer to `key`; with the computation where nobody computes it yet.
    pub(super) fn enter(&self, key: &Key) -> (Option<Flight>, Follower) {
        let mut flights = self.lock();
        // One that has failed is about to be taken away; whoever comes now, perhaps to ask again, begins another.
        if let Some(sender) = flights.get(&key.name).filter(|open| !open.borrow().has_failed()) {
            return (None, Follower::of(sender.subscribe()));
        }
        let (flight, follower) = Flight::new();
        flights.insert(key.name.clone(), flight.sender.clone());
        (Some(flight), follower)
    }

    /// Whether nothing is on its way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Ends a computation; one that nobody could join is not there.
    pub(super) fn close(&self, key: &Key, flight: &Flight) {
        let mut flights = self.lock();
        if flights.get(&key.name).is_some_and(|open| open.same_channel(&flight.sender)) {
            flights.remove(&key.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Progress>>> {
        // Nothing that holds this lock can panic half-way through a change.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One computation.
#[derive(Debug)]
pub(super) struct Flight {
    sender: watch::Sender<Progress>,
}

impl Flight {
    /// A computation, and the first who waits for it.
    pub(super) fn new() -> (Self, Follower) {
        let (sender, progress) = watch::channel(Progress::default());
        (Self { sender }, Follower::of(progress))
    }

    /// Hands on what `compute` gives for as long as anybody waits; all of it where it came to its end.
    pub(super) async fn run(
        &self,
        compute: impl Future<Output = Result<FrameStream, Fault>>,
    ) -> Option<Frames> {
        let end = tokio::select! {
            end = self.forward(compute) => end,
            () = self.sender.closed() => return None,
        };
        let whole = end.is_ok().then(|| self.sender.borrow().frames.clone());
        self.sender.send_modify(|progress| progress.end = Some(end));
        whole
    }

    async fn forward(
        &self,
        compute: impl Future<Output = Result<FrameStream, Fault>>,
    ) -> Result<(), Fault> {
        let mut frames = compute.await?;
        while let Some(frame) = frames.next().await {
            let frame = frame?;
            self.sender.send_modify(|progress| progress.frames.0.push(frame));
        }
        Ok(())
    }
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Follower {
    progress: watch::Receiver<Progress>,
    seen: usize,
    ended: bool,
}

impl Follower {
    const fn of(progress: watch::Receiver<Progress>) -> Self {
        Self { progress, seen: 0, ended: false }
    }

    /// The answer, once its first message has come.
    ///
    /// # Errors
    /// When there will be none.
    pub(super) async fn begin(mut self) -> Result<FrameStream, Fault> {
        let first = self.next().await.transpose()?;
        let first = futures::stream::iter(first.map(Ok));
        let rest = futures::stream::unfold(self, |mut follower| async move {
            let next = follower.next().await?;
            Some((next, follower))
        });
        Ok(first.chain(rest).boxed())
    }

    async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        if self.ended {
            return None;
        }
        let seen = self.seen;
        let news = self.progress.wait_for(|p| p.frames.0.len() > seen || p.end.is_some()).await;
        let end = match news {
            Ok(progress) => match progress.frames.0.get(seen) {
                Some(frame) => {
                    self.seen += 1;
                    return Some(Ok(frame.clone()));
                }
                None => progress.end.clone().unwrap_or(Ok(())),
            },
            // It was given up because nobody waited, just as this one came.
            Err(_gone) => Err(Fault::new(ErrorCode::Unavailable, "the computation was given up")),
        };
        self.ended = true;
        end.err().map(Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_being_kept_and_a_torn_entry_is_none() {
        let frames =
            Frames(vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"3")]);
        let kept = frames.encode();
        assert_eq!(Frames::decode(kept.clone()), Some(frames));
        assert_eq!(Frames::decode(kept.slice(..kept.len() - 1)), None);
        assert_eq!(Frames::decode(kept.slice(..2)), None);
    }
}
