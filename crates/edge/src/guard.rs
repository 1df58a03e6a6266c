//! Content safety around a request: the prompt before anything leaves, the reply window by window or whole.
//!
//! Separate so that routes only say *that* they screen. The invariant: nothing leaves before the verdict on the prompt, and under
//! a policy, unless the deployment's filter is asynchronous, no character of a reply before a verdict on it; when the service
//! cannot judge, configuration decides between refusing and going on with an annotation that says so.

mod prompt;
mod screening;
mod windows;

pub use prompt::Prompt;
pub use screening::Screening;

use crate::app::App;
use crate::cache::{Cache, Key, Kind};
use crate::config::{Config, WhenUnavailable};
use crate::error::ApiError;
use crate::events::{self, Judged, Judgement, Record, Step};
use crate::pieces::{Piece, PieceStream, Screened, ScreenedStream};
use crate::translate;
use crate::translate::chat_reply::Collected;
use api_types::rest::ContentFilterResults;
use api_types::rpc::content_safety as rpc;
use api_types::rpc::content_safety::content_safety_service_client::ContentSafetyServiceClient;
use api_types::{ErrorCode, Fault};
use chassis::grpc::Client;
use futures::stream::{self, StreamExt as _};
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use windows::{Window, Windows};

/// Choices of a whole reply that are judged at the same time.
const JUDGED_AT_ONCE: usize = 8;

/// A verdict on one text.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether the policy withholds it.
    pub blocked: bool,
    /// What it found.
    pub found: ContentFilterResults,
}

/// A streamed reply.
pub struct Reply {
    /// How many choices it has.
    pub choices: u32,
    /// Characters of the prompt, after which offsets of the asynchronous filter begin.
    pub begins: u64,
    /// As the service gives them.
    pub pieces: PieceStream,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { choices, begins, pieces: _ } = self;
        f.debug_struct("Reply")
            .field("choices", choices)
            .field("begins", begins)
            .finish_non_exhaustive()
    }
}

/// Asks the content-safety service, and does what its verdicts demand.
#[derive(Debug, Clone)]
pub struct Guard {
    client: Option<ContentSafetyServiceClient<Client>>,
    config: Arc<Config>,
    cache: Cache,
}

impl Guard {
    /// A guard that asks `client`, unless `cache` knows what it would say.
    #[must_use]
    pub const fn new(
        client: Option<ContentSafetyServiceClient<Client>>,
        config: Arc<Config>,
        cache: Cache,
    ) -> Self {
        Self { client, config, cache }
    }

    /// What the policy of `screening` finds in a prompt; none where there is no policy or nothing to judge.
    ///
    /// # Errors
    /// 400 when the policy blocks it or cannot look at a part of it, 503 when the service is unavailable and configuration says
    /// to refuse.
    pub async fn screen_prompt(
        &self,
        screening: &Screening,
        prompt: Prompt,
    ) -> Result<Option<ContentFilterResults>, ApiError> {
        match self.judge_prompt(screening, prompt).await? {
            Some(Verdict { blocked: true, found }) => Err(ApiError::blocked(found)),
            verdict => Ok(verdict.map(|verdict| verdict.found)),
        }
    }

    /// The verdict on a prompt; none where there is no policy or nothing to judge.
    ///
    /// # Errors
    /// As `screen_prompt`, but for what the policy blocks.
    pub async fn judge_prompt(
        &self,
        screening: &Screening,
        prompt: Prompt,
    ) -> Result<Option<Verdict>, Fault> {
        if screening.is_off() {
            return Ok(None);
        }
        let Prompt { segments, conversation, images, names, .. } = prompt.for_policy()?;
        if segments.is_empty() && images.is_empty() {
            return Ok(None);
        }
        let request = rpc::ScreenRequest {
            policy: screening.policy.clone(),
            direction: rpc::Direction::Prompt.into(),
            segments,
            images,
            shadow: screening.shadow,
            conversation,
        };
        let judged = self.judge(request, screening.when_unavailable, Judged::Prompt).await;
        judged.map(Some).map_err(|fault| names.translate(fault))
    }

    /// Judges each choice of a whole reply; withholds what the policy blocks.
    ///
    /// # Errors
    /// 503 when the service is unavailable and configuration says to refuse.
    pub async fn screen_whole(
        &self,
        screening: &Screening,
        reply: Collected,
        record: &Record,
    ) -> Result<Collected, Fault> {
        if screening.is_off() {
            return Ok(reply);
        }
        record.timed(Step::SafetyOut, self.screen_choices(screening, reply)).await
    }

    async fn screen_choices(
        &self,
        screening: &Screening,
        mut reply: Collected,
    ) -> Result<Collected, Fault> {
        let texts = reply.visible().into_iter().filter(|(_, text)| !text.is_empty());
        let verdicts: Vec<_> = stream::iter(texts)
            .map(|(choice, text)| async move { (choice, self.judge_reply(screening, text).await) })
            .buffer_unordered(JUDGED_AT_ONCE)
            .collect()
            .await;
        for (choice, verdict) in verdicts {
            let Verdict { blocked, found } = verdict?;
            reply.judged(choice, found, blocked);
        }
        Ok(reply)
    }

    /// The pieces of a reply: each released once a verdict clears its
    /// window, or at once with verdicts behind. A blocked window ends its choice with `content_filter`.
    #[must_use]
    pub fn screen_reply(
        &self,
        screening: &Screening,
        reply: Reply,
        record: &Arc<Record>,
    ) -> ScreenedStream {
        let Reply { choices, begins, pieces } = reply;
        if screening.is_off() {
            return pieces.map(|piece| piece.map(Screened::unseen)).boxed();
        }
        let windows =
            Windows::new(&self.config.guard, screening.stream_filter, choices).after(begins);
        self.clone().screen(screening.clone(), windows, pieces, Arc::clone(record)).boxed()
    }

    /// Takes pieces while a window is being judged, as far as `windows` has room for them.
    fn screen(
        self,
        screening: Screening,
        mut windows: Windows,
        mut pieces: PieceStream,
        record: Arc<Record>,
    ) -> impl futures::Stream<Item = Result<Screened, Fault>> + Send {
        async_stream::try_stream! {
            let patience = Duration::from_millis(self.config.guard.usage_wait_ms);
            let mut judging = None;
            let mut ended = false;
            loop {
                for piece in windows.textless() {
                    yield Screened::unseen(piece);
                }
                if judging.is_none() {
                    judging = windows.next_window().map(|window| {
                        Box::pin(record.timed(Step::SafetyOut, self.judge_window(&screening, window)))
                    });
                }
                if judging.is_none() && ended {
                    break;
                }
                let patience = windows.only_usage_is_missing().then_some(patience);
                let taking = !ended && windows.has_room();
                let step = tokio::select! {
                    judged = verdict(&mut judging) => Next::Judged(judged.0, judged.1),
                    piece = next(&mut pieces, patience), if taking => Next::Came(piece),
                };
                match step {
                    Next::Judged(choice, verdict) => {
                        judging = None;
                        let Verdict { blocked, found } = verdict?;
                        if blocked {
                            record.blocked();
                        }
                        for screened in windows.judged(choice, blocked, &found) {
                            yield screened;
                        }
                    }
                    Next::Came(None) => {
                        ended = true;
                        windows.end();
                    }
                    Next::Came(Some(piece)) => {
                        if let Some(piece) = windows.take(piece?) {
                            yield Screened::unseen(piece);
                        }
                    }
                }
            }
            if let Some(usage) = windows.usage() {
                yield Screened::unseen(Piece::Usage(usage));
            }
        }
    }

    async fn judge_window(
        &self,
        screening: &Screening,
        window: Window,
    ) -> (u32, Result<Verdict, Fault>) {
        let Window { choice, text, begins } = window;
        let mut verdict = self.judge_reply(screening, text).await;
        if let Ok(Verdict { found, .. }) = &mut verdict
            && let Some(explanation) = &mut found.explanation
        {
            explanation.shift(begins);
        }
        (choice, verdict)
    }

    async fn judge_reply(&self, screening: &Screening, text: String) -> Result<Verdict, Fault> {
        let request = rpc::ScreenRequest {
            policy: screening.policy.clone(),
            direction: rpc::Direction::Completion.into(),
            segments: vec![rpc::Segment { source: rpc::Source::Assistant.into(), text }],
            shadow: screening.shadow,
            ..rpc::ScreenRequest::default()
        };
        self.judge(request, screening.when_unavailable, Judged::Reply).await
    }

    /// One call of the service.
    async fn judge(
        &self,
        request: rpc::ScreenRequest,
        when_unavailable: WhenUnavailable,
        judged: Judged,
    ) -> Result<Verdict, Fault> {
        let began = Instant::now();
        let policy = request.policy.clone();
        let limit = Duration::from_millis(self.config.guard.timeout_ms);
        let answer = match self.client.clone() {
            Some(client) => {
                let call = tokio::time::timeout(limit, self.ask(client, request, limit)).await;
                call.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no verdict in time")))
            }
            None => Err(tonic::Status::unavailable("no content-safety service is configured")),
        };
        let verdict = match answer {
            Ok(answer) => Ok(self.verdict(answer, &policy)),
            Err(status) => without_verdict(&status, when_unavailable),
        };
        let judgement = match &verdict {
            Ok(verdict) if verdict.found.error.is_some() => Judgement::Unavailable,
            Ok(verdict) if verdict.blocked => Judgement::Blocked,
            Ok(_) => Judgement::Cleared,
            Err(_) => Judgement::Unavailable,
        };
        events::screened(judged, judgement, began.elapsed());
        verdict
    }

    /// What the service answers, or answered to the same question.
    async fn ask(
        &self,
        mut client: ContentSafetyServiceClient<Client>,
        question: rpc::ScreenRequest,
        limit: Duration,
    ) -> Result<rpc::ScreenResponse, tonic::Status> {
        // A digest of every text is worth its while only where verdicts are kept.
        let keeps = self.cache.config().keeps(Kind::Verdict);
        let key = keeps.then(|| Key::new(Kind::Verdict, "", "", &question.encode_to_vec()));
        let mut request = tonic::Request::new(question);
        request.set_timeout(limit);
        let call = Box::pin(async move { Ok(client.screen(request).await?.into_inner()) });
        let Some(key) = key else { return call.await };
        let call = async move { call.await.map_err(|status: tonic::Status| Fault::from(status)) };
        let (_source, answer) = self.cache.message(key, call).await.map_err(Fault::into_status)?;
        Ok(answer)
    }

    fn verdict(&self, answer: rpc::ScreenResponse, policy: &str) -> Verdict {
        let explain = |answer| translate::content_safety::explanation(answer, policy);
        let explanation = self.config.guard.explain.then(|| explain(&answer));
        let blocked = answer.blocked;
        let found = translate::content_safety::found(answer);
        Verdict { blocked, found: ContentFilterResults { explanation, ..found } }
    }
}

/// What happens when the service gave no verdict.
fn without_verdict(
    status: &tonic::Status,
    when_unavailable: WhenUnavailable,
) -> Result<Verdict, Fault> {
    let fault = Fault::from(status.clone());
    let of_request = [
        ErrorCode::InvalidRequest,
        ErrorCode::ParameterNotSupported,
        ErrorCode::ParameterRefused,
        ErrorCode::PayloadTooLarge,
    ];
    if of_request.contains(&fault.code) {
        // The service looked and refuses what it saw, for example an image that is none.
        return Err(fault);
    }
    tracing::warn!(grpc = ?status.code(), cause = status.message(), "content safety gave no verdict");
    match when_unavailable {
        WhenUnavailable::Refuse => {
            let message = "the content filter of this deployment is not available; nothing was answered unchecked";
            Err(Fault::new(ErrorCode::Unavailable, message))
        }
        WhenUnavailable::Allow => {
            Ok(Verdict { blocked: false, found: ContentFilterResults::unavailable() })
        }
    }
}

/// What happened next while a reply is screened.
enum Next {
    /// A window was judged.
    Judged(u32, Result<Verdict, Fault>),
    /// A piece came, or none will.
    Came(Option<Result<Piece, Fault>>),
}

/// The verdict that is awaited; never, where none is.
async fn verdict<F: Future + Unpin>(judging: &mut Option<F>) -> F::Output {
    match judging {
        Some(judging) => judging.await,
        None => std::future::pending().await,
    }
}

/// The next piece; none at the end, or when `patience` runs out.
async fn next(
    pieces: &mut PieceStream,
    patience: Option<Duration>,
) -> Option<Result<Piece, Fault>> {
    match patience {
        Some(patience) => tokio::time::timeout(patience, pieces.next()).await.ok().flatten(),
        None => pieces.next().await,
    }
}

impl App {
    /// What the policy of a deployment finds in a prompt, while `work` already runs, or before it where `screening` says so:
    /// nothing of its result is seen before the verdict.
    ///
    /// # Errors
    /// Whichever fails first.
    pub async fn screened<T>(
        &self,
        screening: &Screening,
        prompt: Prompt,
        work: impl Future<Output = Result<T, Fault>>,
        record: &Record,
    ) -> Result<(Option<ContentFilterResults>, T), ApiError> {
        let verdict = async {
            if screening.is_off() {
                return Ok(None);
            }
            let judged = Box::pin(self.guard.screen_prompt(screening, prompt));
            let found = record.timed(Step::SafetyIn, judged).await;
            if found.as_ref().is_err_and(ApiError::is_blocked) {
                record.blocked();
            }
            found
        };
        let work = async { work.await.map_err(ApiError::from) };
        if screening.prompt_first {
            let found = verdict.await?;
            return Ok((found, work.await?));
        }
        futures::future::try_join(verdict, work).await
    }
}
