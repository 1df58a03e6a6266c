//! How the services answer: by themselves, or from the cache where the request may be answered from it.
//!
//! Separate from `app.rs`, which says what can be asked. Streams and single messages are one thing here: messages in order.

use super::{App, failed, timed};
use crate::cache::{FrameStream, Key, Kind, Scope};
use crate::events::{Generation, Step};
use crate::extract::Head;
use crate::fallback::Candidate;
use crate::pieces::{self, Endings, Piece, PieceStream, Usage};
use crate::translate::chat_reply::ended_early;
use api_types::rpc::chat::Sampling;
use api_types::rpc::embedding::{EmbedRequest, EmbedResponse};
use api_types::{ErrorCode, Fault};
use futures::future::ready;
use futures::stream::{self, StreamExt as _};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

/// What a message of a generation says; none for what this edge does not know.
type Read<M> = fn(M) -> Option<Piece>;

/// What is asked, of whom, and the span in which it is answered.
pub(super) struct Question<T> {
    /// None for a request whose answers differ.
    pub(super) kind: Option<Kind>,
    pub(super) asked: Candidate<T>,
    pub(super) generation: Generation,
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

    /// The pieces that `call` gives, or that were kept.
    pub(super) async fn pieces<T, M, F>(
        &self,
        question: Question<T>,
        head: &Head,
        call: impl FnOnce(Request<T>) -> F + Send + 'static,
        read: Read<M>,
    ) -> Result<PieceStream, Fault>
    where
        T: Message + 'static,
        M: Message + Default + 'static,
        F: Future<Output = Result<Response<Streaming<M>>, Status>> + Send,
    {
        let Question { kind, asked, mut generation } = question;
        let key = kind.and_then(|kind| self.key(kind, &asked, head));
        let request = timed(asked.request, &head.context);
        let compute = async move {
            let answer = call(request).await.map_err(failed)?;
            Ok::<_, Fault>(answer.into_inner().map(|message| message.map_err(failed)).boxed())
        };
        let messages = async {
            let Some(key) = key else { return compute.await };
            let frames = async move { Ok(whole(compute.await?, read)) };
            let (source, frames) = self.cache.answer(key, frames).await?;
            head.record.cached(source);
            Ok(frames.map(|frame| decode(frame?)).boxed())
        };
        let messages = messages.instrument(generation.span()).await;
        let messages = messages.inspect_err(|fault| generation.failed(fault))?;
        generation.begun();
        let pieces = messages.filter_map(move |message| ready(message.map(read).transpose()));
        let pieces = pieces.inspect(move |piece| generation.observe(piece));
        Ok(pieces::until(head.context.deadline, pieces))
    }

    /// The vectors that `call` gives, or that were kept.
    pub(super) async fn vectors<F>(
        &self,
        question: Question<EmbedRequest>,
        head: &Head,
        call: impl FnOnce(Request<EmbedRequest>) -> F + Send + 'static,
    ) -> Result<EmbedResponse, Fault>
    where
        F: Future<Output = Result<Response<EmbedResponse>, Status>> + Send,
    {
        let Question { kind, asked, mut generation } = question;
        let key = kind.and_then(|kind| self.key(kind, &asked, head));
        let request = timed(asked.request, &head.context);
        let compute = async move { Ok(call(request).await.map_err(failed)?.into_inner()) };
        let answer = async {
            let Some(key) = key else { return compute.await };
            let frames = async move {
                let message: EmbedResponse = compute.await?;
                Ok(stream::iter([Ok(message.encode_to_vec().into())]).boxed())
            };
            let (source, mut frames) = self.cache.answer(key, frames).await?;
            head.record.cached(source);
            decode(frames.next().await.ok_or_else(unreadable)??)
        };
        let answer = head.record.timed(Step::Model, answer.instrument(generation.span())).await;
        let answer = answer.inspect_err(|fault| generation.failed(fault))?;
        let prompt = answer.usage.map_or(0, |usage| usage.prompt_tokens);
        generation.spent(Usage { prompt, ..Usage::default() });
        head.record.tokens(prompt, 0);
        Ok(answer)
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

fn decode<M: Message + Default>(frame: bytes::Bytes) -> Result<M, Fault> {
    M::decode(frame).map_err(|_| unreadable())
}

fn unreadable() -> Fault {
    Fault::new(ErrorCode::Internal, "the server had an error processing your request")
}
