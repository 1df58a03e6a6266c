//! `POST /completions`: raw prompts in, continuations out, whole or streamed.

use crate::app::App;
use crate::check::{self, Checked};
use crate::deployments::Modality;
use crate::dry_run::Plan;
use crate::error::ApiError;
use crate::extract::Call;
use crate::fallback::Candidates;
use crate::guard::{Prompt, Reply};
use crate::limit::Estimate;
use crate::pieces::{Endings, ScreenedStream};
use crate::translate::Answer;
use crate::translate::chat_reply::ended_early;
use crate::translate::completions::{self, Chunks};
use crate::{repeat, sse};
use api_types::Fault;
use api_types::rest::{Completions, CompletionsRequest, Parsed};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _};
use std::sync::Arc;

/// Continues prompts.
///
/// # Errors
/// As section 6.2 of the contract; a blocked prompt is 400.
pub async fn handle(State(app): State<App>, mut call: Call) -> Result<Response, ApiError> {
    let parsed = CompletionsRequest::parse(&call.body, call.vocabulary(&app))?;
    let parsed = call.settle(parsed, Parsed::<CompletionsRequest>::admit)?;
    let dialect = call.dialect();
    let head = call.head;
    let deployment = head.select(&app, parsed.request.model.as_deref(), Modality::Completions)?;
    let spare = app.spare(&deployment, Modality::Completions, |spare| {
        let Checked { request, extra_json, .. } =
            check::completions(parsed.clone(), spare, head.context.family)?;
        Ok(completions::to_rpc(request, &spare.model, dialect, extra_json))
    });
    let Checked { request, extra_json, dropped } =
        check::completions(parsed, &deployment, head.context.family)?;
    let estimate = Estimate::completions(&request, app.limits.completion_tokens());
    let screening = head.screening(&deployment);
    if head.context.dry_run {
        let screened = (&screening, Prompt::completions(&request, &screening));
        let spare = spare.is_some();
        let plan = Plan { deployment: &deployment, spare, dropped, extra_json, estimate, screened };
        return Box::pin(app.foresee(head, plan)).await;
    }
    head.admit(&app, &deployment.name, estimate).await?;
    let (stream, choices) = (request.stream, choices(&request));
    let mut answer =
        Answer::new(&head.context, "cmpl-", &deployment.model).with_options(request.stream_options);
    let prompt = Prompt::completions(&request, &screening);
    let begins = prompt.characters();
    head.record.answers(&answer.id, stream);
    let request = completions::to_rpc(request, &deployment.model, dialect, extra_json);
    let request = Candidates::new(Arc::clone(&deployment), request, spare);
    let ask = || app.complete(request.clone(), &head);
    if stream {
        // No piece leaves before the verdict on the prompt.
        let screened = repeat::begun(|| async {
            let reply = Reply { choices, begins, pieces: head.watch(ask().await?) };
            Ok(app.guard.screen_reply(&screening, reply, &head.record))
        });
        let (found, pieces) =
            Box::pin(app.screened(&screening, prompt, screened, &head.record)).await?;
        answer.prompt_found = found;
        return sse::respond(chunks(Chunks::new(answer), pieces), head).await;
    }
    let collect = repeat::whole(|| async { Ok(head.watch(ask().await?)) });
    let (found, reply) = Box::pin(app.screened(&screening, prompt, collect, &head.record)).await?;
    answer.prompt_found = found;
    let reply = app.guard.screen_whole(&screening, reply, &head.record).await?;
    Ok(head.record.serialise(|| Json(reply.into_completions(answer)).into_response()))
}

fn choices(request: &CompletionsRequest) -> u32 {
    let prompts = u32::try_from(request.prompts.len()).unwrap_or(u32::MAX);
    prompts.saturating_mul(request.sampling.n.unwrap_or(1))
}

/// The chunks of a streamed answer; an error where the pieces end before every choice has.
fn chunks(
    mut chunks: Chunks,
    mut pieces: ScreenedStream,
) -> impl Stream<Item = Result<Completions, Fault>> + Send {
    async_stream::try_stream! {
        let mut endings = Endings::default();
        while let Some(screened) = pieces.next().await {
            let screened = screened?;
            endings.see(&screened.piece);
            for chunk in chunks.push(screened) {
                yield chunk;
            }
        }
        if !endings.complete() {
            Err(ended_early())?;
        }
        for chunk in chunks.finish() {
            yield chunk;
        }
    }
}
