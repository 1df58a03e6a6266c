//! `POST /chat/completions`: a conversation in, an answer out, whole or streamed.

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
use crate::remote_content;
use crate::translate::chat_reply::{Updates, ended_early};
use crate::translate::{Answer, chat};
use crate::{repeat, sse};
use api_types::Fault;
use api_types::rest::{ChatCompletionsRequest, ChatCompletionsUpdate, Parsed};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _};
use std::sync::Arc;

/// Answers a conversation.
///
/// # Errors
/// As section 6.2 of the contract; a blocked prompt is 400.
pub async fn handle(State(app): State<App>, mut call: Call) -> Result<Response, ApiError> {
    let parsed = ChatCompletionsRequest::parse(&call.body, call.vocabulary(&app))?;
    let parsed = call.settle(parsed, Parsed::<ChatCompletionsRequest>::admit)?;
    let head = call.head;
    let deployment = head.select(&app, parsed.request.model.as_deref(), Modality::Chat)?;
    let spare = app.spare(&deployment, Modality::Chat, |spare| {
        let Checked { request, extra_json, .. } =
            check::chat(parsed.clone(), spare, head.context.family)?;
        Ok(chat::to_rpc(request, &spare.model, extra_json))
    });
    let Checked { request, extra_json, dropped } =
        check::chat(parsed, &deployment, head.context.family)?;
    remote_content::check(&request.messages, &app.config.api.remote_hosts)?;
    let estimate = Estimate::chat(&request, app.limits.completion_tokens());
    let screening = head.screening(&deployment);
    if head.context.dry_run {
        let screened = (&screening, Prompt::conversation(&request, &screening));
        let spare = spare.is_some();
        let plan = Plan { deployment: &deployment, spare, dropped, extra_json, estimate, screened };
        return Box::pin(app.foresee(head, plan)).await;
    }
    head.admit(&app, &deployment.name, estimate).await?;
    let (stream, choices) = (request.stream, request.sampling.n.unwrap_or(1));
    let mut answer = Answer::new(&head.context, "chatcmpl-", &deployment.model)
        .with_options(request.stream_options);
    answer.legacy_functions = request.legacy_functions;
    let prompt = Prompt::conversation(&request, &screening);
    let begins = prompt.characters();
    head.record.answers(&answer.id, stream);
    let request = chat::to_rpc(request, &deployment.model, extra_json);
    let request = Candidates::new(Arc::clone(&deployment), request, spare);
    let ask = || app.generate(request.clone(), &head);
    if stream {
        // No piece leaves before the verdict on the prompt.
        let screened = repeat::begun(|| async {
            let reply = Reply { choices, begins, pieces: head.watch(ask().await?) };
            Ok(app.guard.screen_reply(&screening, reply, &head.record))
        });
        let (found, pieces) =
            Box::pin(app.screened(&screening, prompt, screened, &head.record)).await?;
        answer.prompt_found = found;
        return sse::respond(updates(Updates::new(answer), pieces), head).await;
    }
    let collect = repeat::whole(|| async { Ok(head.watch(ask().await?)) });
    let (found, reply) = Box::pin(app.screened(&screening, prompt, collect, &head.record)).await?;
    answer.prompt_found = found;
    let reply = app.guard.screen_whole(&screening, reply, &head.record).await?;
    Ok(head.record.serialise(|| Json(reply.into_chat(answer)).into_response()))
}

/// The updates of a streamed answer; an error where the pieces end before every choice has.
fn updates(
    mut updates: Updates,
    mut pieces: ScreenedStream,
) -> impl Stream<Item = Result<ChatCompletionsUpdate, Fault>> + Send {
    async_stream::try_stream! {
        let mut endings = Endings::default();
        while let Some(screened) = pieces.next().await {
            let screened = screened?;
            endings.see(&screened.piece);
            for update in updates.push(screened) {
                yield update;
            }
        }
        if !endings.complete() {
            Err(ended_early())?;
        }
        for update in updates.finish() {
            yield update;
        }
    }
}
