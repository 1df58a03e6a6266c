//! The reader's end of an answer.
//!
//! Separate because the engine never waits for a reader: each piece that is taken, and the reader's leaving, wakes it.

use crate::backend::Piece;
use crate::error::ChatError;
use futures::Stream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::Thread;
use tokio::sync::mpsc;

/// Pieces from the engine; dropping it ends the generation within one decoding step.
#[derive(Debug)]
pub(crate) struct Pieces {
    reader: mpsc::Receiver<Result<Piece, ChatError>>,
    engine: Thread,
    ended: bool,
}

impl Pieces {
    pub(crate) fn new(reader: mpsc::Receiver<Result<Piece, ChatError>>, engine: Thread) -> Self {
        Self { reader, engine, ended: false }
    }
}

impl Stream for Pieces {
    type Item = Result<Piece, ChatError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.reader.poll_recv(cx));
        self.engine.unpark();
        self.ended = matches!(item, Some(Err(_) | Ok(Piece::Usage(_))) | None);
        // Closed without its last piece: the engine dropped an answer that nobody read, or has panicked.
        Poll::Ready(Some(item.unwrap_or(Err(ChatError::Abandoned))))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.reader.close();
        self.engine.unpark();
    }
}
