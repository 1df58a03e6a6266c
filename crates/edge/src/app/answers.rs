//! How the services answer: by themselves, or from the cache where the request may be answered from it.
//!
//! Separate from `app.rs`, which says what can be asked. Streams and single messages are one thing here: messages in order.

use super::{App, failed, timed};
use crate::cache::{FrameStream, Key, Kind, Scope, decode};
use crate::events::{Generation, Step};
use crate::extract::Head;
use crate::fallback::Candidate;
use crate::pieces::{self, Endings, Piece, PieceStream, Usage};
use crate::translate::chat_reply::ended_early;
use crate::translate::content::Asked;
use api_types::Fault;
use api_types::rpc::chat::Sampling;
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

/// What a message of a generation says; none for what this edge does not know.
type Read<M> = fn(M) -> Option<Piece>;

/// What a single message tells besides the answer.
pub(super) struct Told {
    pub(super) prompt_tokens: u32,
    /// Zero where nothing is known.
    pub(super) queued: Duration,
}

/// Whether the same request has the same answer (`temperature` 0) or asks for one (`seed`).
pub(super) fn repeats(sampling: Option<&Sampling>) -> bool {
    sampling.is_some_and(|s| s.seed.is_some() || s.temperature == Some(0.0))
}

impl App {
    /// The key of a request that may be answered from the cache.
    fn key<T: Message>(&self, kind: Kind, asked: &Candidate<T>, head: &Head) -> Option<Key> {
        if head.fresh || !self.cache.config().keeps(kind) {
            return None;
        }
        let owner = match self.cache.config().scope {
            Scope::Caller => head.caller.name.as_str(),
            Scope::Shared => "",
        };
        Some(Key::new(kind, owner, &asked.deployment.version, &asked.request.encode_to_vec()))
    }

    /// The pieces that `call` gives, or that were kept; `kind` is none for a request whose answers differ.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is asked, of whom, and how its answer is read"
    )]
    pub(super) async fn pieces<T, M, F>(
        &self,
        kind: Option<Kind>,
        asked: Candidate<T>,
        head: &Head,
        call: impl FnOnce(Request<T>) -> F + Send + 'static,
        read: Read<M>,
    ) -> Result<PieceStream, Fault>
    where
        T: Message + Asked + 'static,
        M: Message + Default + 'static,
        F: Future<Output = Result<Response<Streaming<M>>, Status>> + Send,
    {
        let key = kind.and_then(|kind| self.key(kind, &asked, head));
        let mut generation = Generation::begin(&asked, &head.record);
        let request = timed(asked.request, &head.context);
        let compute = async move {
            let answer = call(request).await.map_err(failed)?;
            Ok::<_, Fault>(answer.into_inner().map(|message| message.map_err(failed)))
        };
        let compute = Box::pin(compute).instrument(generation.span());
        let messages = async {
            let Some(key) = key else { return Ok((None, compute.await?.boxed())) };
            let frames = async move { Ok(whole(compute.await?, read)) };
            let (source, frames) = self.cache.answer(key, frames).await?;
            let messages: BoxStream<'static, Result<M, Fault>> =
                frames.map(|frame| decode(frame?)).boxed();
            Ok((Some(source), messages))
        };
        let messages = messages.await.inspect_err(|fault| generation.failed(fault));
        let (source, messages) = messages?;
        if let Some(source) = source {
            head.record.cached(source);
            generation.cached(source);
        }
        generation.begun();
        let pieces = messages.filter_map(move |message| ready(message.map(read).transpose()));
        let pieces = pieces.inspect(move |piece| generation.observe(piece));
        Ok(pieces::until(head.context.deadline, pieces))
    }

    /// The message that `call` gives, or that was kept.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is asked, of whom, and how its answer is read"
    )]
    pub(super) async fn message<T, M, F>(
        &self,
        kind: Kind,
        asked: Candidate<T>,
        head: &Head,
        call: impl FnOnce(Request<T>) -> F + Send + 'static,
        tell: fn(&M) -> Told,
    ) -> Result<M, Fault>
    where
        T: Message + Asked + 'static,
        M: Message + Default + 'static,
        F: Future<Output = Result<Response<M>, Status>> + Send,
    {
        let key = self.key(kind, &asked, head);
        let mut generation = Generation::begin(&asked, &head.record);
        let request = timed(asked.request, &head.context);
        let record = Arc::clone(&head.record);
        let compute = async move {
            let answer = call(request).await.map_err(failed)?.into_inner();
            record.queued(tell(&answer).queued);
            Ok::<M, Fault>(answer)
        };
        let compute = Box::pin(compute).instrument(generation.span());
        let message = async {
            let Some(key) = key else { return Ok((None, compute.await?)) };
            let (source, message) = self.cache.message(key, compute).await?;
            Ok((Some(source), message))
        };
        let answered = Box::pin(message).instrument(Step::Model.span()).await;
        generation.answered();
        let (source, message) = answered.inspect_err(|fault| generation.failed(fault))?;
        if let Some(source) = source {
            head.record.cached(source);
            generation.cached(source);
        }
        generation.spent(Usage { prompt: tell(&message).prompt_tokens, ..Usage::default() });
        Ok(message)
    }
}

/// The messages of a generation, encoded; an error at the end where it broke off, so that no part is kept as the whole.
fn whole<M: Message + 'static>(
    mut messages: impl stream::Stream<Item = Result<M, Fault>> + Send + Unpin + 'static,
    read: Read<M>,
) -> FrameStream {
    let frames = async_stream::try_stream! {
        let mut endings = Endings::default();
        while let Some(message) = messages.next().await {
            let message = message?;
            let frame = message.encode_to_vec();
            if let Some(piece) = read(message) {
                endings.see(&piece);
            }
            yield frame.into();
        }
        if !endings.complete() {
            Err(ended_early())?;
        }
    };
    frames.boxed()
}
