//! How long what is encoded waits for its model, for callers who want to tell it.
//!
//! Beside the answer and not in it: most callers do not ask, and between them and the encoder may stand others who have nothing to
//! do with it. It is counted in the task that awaits the encoder, so work that is spawned elsewhere goes uncounted.

use std::cell::Cell;
use std::time::Duration;

tokio::task_local! {
    static WAITED: Cell<Option<Duration>>;
}

/// What `work` answers, and the longest that anything it encoded waited until its model began; none where it encoded nothing.
pub async fn waited<F: Future>(work: F) -> (F::Output, Option<Duration>) {
    let counted = async {
        let answer = work.await;
        (answer, WAITED.with(Cell::get))
    };
    WAITED.scope(Cell::new(None), counted).await
}

/// Notes a wait, where the task at hand counts.
pub(crate) fn note(wait: Option<Duration>) {
    let _uncounted = WAITED.try_with(|longest| longest.set(longest.get().max(wait)));
}
