//! Asks the services for their models, at the start until each has answered, then at intervals.
//!
//! Separate from the table because this is the part that waits. A service that stops answering keeps its last list: its
//! requests fail with 503, which is true, rather than with 404. One that never answers holds the others back for a while only.

use crate::app::App;
use crate::deployments::ListedModel;
use crate::live::Live;
use chassis::Tasks;
use std::time::Duration;
use tokio::time::Instant;

/// The last list of each service.
#[derive(Debug, Default)]
struct Lists {
    chat: Option<Vec<ListedModel>>,
    embedding: Option<Vec<ListedModel>>,
}

impl Lists {
    const fn complete(&self) -> bool {
        self.chat.is_some() && self.embedding.is_some()
    }

    fn all(&self) -> Vec<ListedModel> {
        self.chat.iter().chain(&self.embedding).flatten().cloned().collect()
    }
}

/// Keeps the table of what is in force up to date until the tasks stop. Sets them ready when every service has answered once, or
/// when `discovery.wait_ms` have passed and there is something to serve.
pub async fn run(live: Live, tasks: Tasks) {
    let mut lists = Lists::default();
    let mut stopping = std::pin::pin!(tasks.stopping());
    let began = Instant::now();
    let mut waits = true;
    loop {
        let app = live.current().app.clone();
        let discovery = app.config.discovery;
        let before = lists.all();
        let was_complete = lists.complete();
        ask(&app, &mut lists).await;
        // What was put in force meanwhile has a table of its own.
        let app = live.current().app.clone();
        if lists.all() != before || lists.complete() != was_complete {
            app.replace_table(&lists.all(), lists.complete());
            log(&app);
        }
        if waits && !lists.complete() && began.elapsed() >= Duration::from_millis(discovery.wait_ms)
        {
            waits = false;
            let (chat, embedding) = (lists.chat.is_some(), lists.embedding.is_some());
            tracing::warn!(
                chat,
                embedding,
                "not every service has listed its models; still asking"
            );
        }
        if lists.complete() || (!waits && !lists.all().is_empty()) {
            tasks.set_ready();
        }
        let pause = if lists.complete() { discovery.refresh_ms } else { discovery.retry_ms };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            // Services may be others now, and the new table was made of what was listed before.
            () = live.replaced() => {}
            () = &mut stopping => return,
        }
    }
}

async fn ask(app: &App, lists: &mut Lists) {
    let limit = Duration::from_millis(app.config.discovery.timeout_ms);
    let (chat, embedding) = tokio::join!(app.list_chat(limit), app.list_embedding(limit));
    for (service, answer, list) in
        [("chat", chat, &mut lists.chat), ("embedding", embedding, &mut lists.embedding)]
    {
        match answer {
            Ok(models) => *list = Some(models),
            Err(status) if list.is_some() => {
                tracing::warn!(
                    service,
                    cause = status.message(),
                    "models could not be listed again"
                );
            }
            Err(status) => {
                tracing::debug!(service, cause = status.message(), "models could not be listed");
            }
        }
    }
}

fn log(app: &App) {
    let table = app.table();
    let names: Vec<_> = table.all().iter().map(|d| d.name.as_str()).collect();
    tracing::info!(deployments = names.join(", "), "deployments");
}
