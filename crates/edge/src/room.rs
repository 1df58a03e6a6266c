//! Memory for bodies: how many bytes of all requests together may be in this process, and what reading them makes of them.
//!
//! Separate from the limit of one body, which bounds nothing when many come at once. Room is taken as bytes arrive, so that who
//! announces much and sends nothing takes nothing, and is held until the request ends. Text takes about its length when it is
//! read, but every array and object takes memory of its own, far more than the two bytes it is written in.

use api_types::{ErrorCode, Fault};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// When to try again: most requests are over by then.
const RETRY: Duration = Duration::from_secs(1);
/// What one more object, array or element is counted as, in bytes of a body, each of which stands for four in memory: a JSON value
/// takes 80 bytes, the first part of a map or a list has room for four, and one that grows is moved to one of twice the length.
const OBJECT: usize = 140;
const ARRAY: usize = 90;
const ELEMENT: usize = 40;

/// The room there is; clones share it.
#[derive(Debug, Clone)]
pub struct Room {
    bytes: Arc<Semaphore>,
    most: usize,
}

/// What a request takes of it.
#[derive(Debug, Default)]
pub struct Held {
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for `bytes`.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        let most = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(most)), most }
    }

    /// Takes what the structure of the JSON in `body` needs when it is read.
    ///
    /// # Errors
    /// 413 when there never is so much room, 503 when there is not now.
    pub fn take_structure(&self, body: &[u8], held: &mut Held) -> Result<(), Fault> {
        let needs = structure(body);
        if needs.saturating_add(body.len()) > self.most {
            let message = "The request body has more arrays, objects and elements than this server has room for.";
            return Err(Fault::new(ErrorCode::PayloadTooLarge, message));
        }
        self.take(needs, held)
    }

    /// Takes `bytes` more for whoever has `held`.
    ///
    /// # Errors
    /// 503 when there is not so much room.
    pub fn take(&self, bytes: usize, held: &mut Held) -> Result<(), Fault> {
        let permits = u32::try_from(bytes).map_err(|_| full())?;
        let more = Arc::clone(&self.bytes).try_acquire_many_owned(permits).map_err(|_| full())?;
        match &mut held.permit {
            Some(permit) => permit.merge(more),
            none @ None => *none = Some(more),
        }
        Ok(())
    }
}

/// Arrays, objects and elements of the JSON in `body`, as bytes; of something else, something.
fn structure(body: &[u8]) -> usize {
    let (mut needs, mut text, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'{' if !text => needs += OBJECT,
            b'[' if !text => needs += ARRAY,
            b',' if !text => needs += ELEMENT,
            _ => {}
        }
    }
    needs
}

fn full() -> Fault {
    Fault::new(
        ErrorCode::Unavailable,
        "this server holds as many large requests as it has room for",
    )
    .with_retry_after(RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_counts_outside_of_texts_alone() {
        assert_eq!(structure(br#"{"content": "a, \"[{b\\"}"#), OBJECT);
        assert_eq!(structure(b"[[1,2],{}]"), 2 * ARRAY + 2 * ELEMENT + OBJECT);
        let room = Room::of(10_000);
        let (mut one, mut two) = (Held::default(), Held::default());
        room.take_structure("[],".repeat(50).as_bytes(), &mut one).unwrap();
        let busy = room.take_structure("[],".repeat(50).as_bytes(), &mut two).unwrap_err();
        let never = room.take_structure("[],".repeat(200).as_bytes(), &mut two).unwrap_err();
        assert_eq!((busy.code, never.code), (ErrorCode::Unavailable, ErrorCode::PayloadTooLarge));
    }

    #[test]
    fn room_is_taken_as_bytes_come_and_is_free_again_when_their_request_ends() {
        let room = Room::of(10);
        let (mut one, mut two) = (Held::default(), Held::default());
        room.take(4, &mut one).unwrap();
        room.take(4, &mut one).unwrap();
        assert_eq!(room.take(3, &mut two).unwrap_err().code, ErrorCode::Unavailable);
        room.take(2, &mut two).unwrap();
        drop(one);
        room.take(8, &mut two).unwrap();
    }
}
