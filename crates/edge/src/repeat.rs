//! Asking once more where the replica that answers dies before any of its answer has left.
//!
//! Separate from the balancer (`chassis::balance`), which repeats a call until its answer begins: a conversation begins with
//! the name of the model, at once, and only here is known that nothing has been handed on since. The invariant: there is one
//! repetition at most, so that a prompt that ends its replica ends no more than two.

use crate::events;
use crate::pieces::{Piece, PieceStream, ScreenedStream};
use crate::translate::chat_reply::Collected;
use api_types::{ErrorCode, Fault};
use futures::stream::{self, StreamExt as _};
use std::future::Future;

/// The whole answer that `ask` gets; asks again where it breaks off.
///
/// # Errors
/// What the service says, or the fault that ends the second answer.
pub async fn whole<F>(ask: impl Fn() -> F) -> Result<Collected, Fault>
where
    F: Future<Output = Result<PieceStream, Fault>>,
{
    match Collected::take(ask().await?).await {
        Err(fault) if broke_off(&fault) => {
            events::repeated();
            Collected::take(ask().await?).await
        }
        answer => answer,
    }
}

/// The pieces that `ask` gets, once there is one that a reader would see; asks again where they break off before. What content
/// safety still holds back has not been seen.
///
/// # Errors
/// What the service says before that piece.
pub async fn begun<F>(ask: impl Fn() -> F) -> Result<ScreenedStream, Fault>
where
    F: Future<Output = Result<ScreenedStream, Fault>>,
{
    match until_seen(ask().await?).await {
        Err(fault) if broke_off(&fault) => {
            events::repeated();
            until_seen(ask().await?).await
        }
        pieces => pieces,
    }
}

/// The same pieces, when the first that a reader would see has come, or the end.
async fn until_seen(mut pieces: ScreenedStream) -> Result<ScreenedStream, Fault> {
    let mut early = Vec::new();
    while let Some(screened) = pieces.next().await.transpose()? {
        let started = matches!(screened.piece, Piece::Started(_));
        early.push(Ok(screened));
        if !started {
            break;
        }
    }
    Ok(stream::iter(early).chain(pieces).boxed())
}

/// Whether a connection broke, or the service stopped in the middle. Who is only at capacity says when to come back, and is not
/// asked again at once.
fn broke_off(fault: &Fault) -> bool {
    fault.code == ErrorCode::Unavailable && fault.retry_after.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces::{Screened, Text};
    use api_types::rest::chat_completions::FinishReason;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    type Answer = Vec<Result<Piece, Fault>>;

    /// Answers, one for each time it is asked.
    #[derive(Clone)]
    struct Service(Arc<Mutex<VecDeque<Answer>>>);

    impl Service {
        fn new<const N: usize>(answers: [Answer; N]) -> Self {
            Self(Arc::new(Mutex::new(answers.into())))
        }

        async fn ask(self) -> Result<PieceStream, Fault> {
            let answer = self.0.lock().unwrap().pop_front().unwrap();
            Ok(stream::iter(answer).boxed())
        }

        async fn ask_screened(self) -> Result<ScreenedStream, Fault> {
            Ok(self.ask().await?.map(|piece| piece.map(Screened::unseen)).boxed())
        }

        fn left(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    fn text(text: &str) -> Result<Piece, Fault> {
        Ok(Piece::Text(Text { choice: 0, text: text.into(), logprobs: Vec::new() }))
    }

    fn started() -> Result<Piece, Fault> {
        Ok(Piece::Started("m".into()))
    }

    fn died() -> Result<Piece, Fault> {
        Err(Fault::new(ErrorCode::Unavailable, "gone"))
    }

    fn answer() -> Vec<Result<Piece, Fault>> {
        let end = Piece::Finished { choice: 0, reason: FinishReason::Stop };
        vec![started(), text("whole"), Ok(end)]
    }

    #[tokio::test]
    async fn a_whole_answer_that_breaks_off_is_asked_for_once_more_and_nothing_of_the_first_is_in_it()
     {
        let service = Service::new([vec![started(), text("ha"), died()], answer()]);
        let reply = whole(|| service.clone().ask()).await.unwrap();
        assert_eq!(reply.visible(), [(0, "whole".to_owned())]);
        let service = Service::new([vec![died()], vec![text("ha"), died()], answer()]);
        let fault = whole(|| service.clone().ask()).await.unwrap_err();
        assert_eq!((fault.code, service.left()), (ErrorCode::Unavailable, 1));
    }

    #[tokio::test]
    async fn a_stream_is_asked_for_again_until_a_piece_of_it_can_be_seen() {
        let service = Service::new([vec![started(), died()], answer()]);
        let pieces = begun(|| service.clone().ask_screened()).await.unwrap();
        let pieces: Vec<_> = pieces.map(|screened| screened.map(|s| s.piece)).collect().await;
        assert_eq!(pieces, answer());
        let service = Service::new([vec![started(), text("ha"), died()], answer()]);
        let pieces = begun(|| service.clone().ask_screened()).await.unwrap();
        let last = pieces.collect::<Vec<_>>().await.pop().unwrap();
        assert_eq!((last.err(), service.left()), (died().err(), 1));
    }

    #[tokio::test]
    async fn what_the_service_says_itself_is_not_repeated() {
        let busy =
            Fault::new(ErrorCode::Unavailable, "full").with_retry_after(Duration::from_secs(1));
        for fault in
            [busy, Fault::new(ErrorCode::Internal, "x"), Fault::new(ErrorCode::UpstreamFailed, "x")]
        {
            let service =
                Service::new([vec![Err(fault.clone())], vec![Err(fault.clone())], answer()]);
            assert_eq!(whole(|| service.clone().ask()).await.unwrap_err(), fault);
            assert_eq!(begun(|| service.clone().ask_screened()).await.err(), Some(fault));
            assert_eq!(service.left(), 1);
        }
    }
}
