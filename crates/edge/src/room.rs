//! Memory for bodies: how many bytes of all requests together may be in this process.
//!
//! Separate from the limit of one body, which bounds nothing when many come at once. Room is taken as bytes arrive, so that who
//! announces much and sends nothing takes nothing, and is held until the request ends.

use api_types::{ErrorCode, Fault};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// When to try again: most requests are over by then.
const RETRY: Duration = Duration::from_secs(1);

/// The room there is; clones share it.
#[derive(Debug, Clone)]
pub struct Room {
    bytes: Arc<Semaphore>,
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
        Self { bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
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
