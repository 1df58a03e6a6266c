//! The four services wired together over loopback.
//!
//! The same doors as in four processes: the edge still talks gRPC, so what works here works there. Stops in the order of
//! the requests: the edge first, then what it calls.

use crate::Settings;
use anyhow::Context as _;
use chassis::Tasks;
use chassis::grpc::ClientConfig;
use chat::Backends;
use content_safety::Judge;
use embedding::Embedders;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What answers behind the services: real models, or the fakes of a test.
#[derive(Debug)]
pub struct Models {
    /// Conversations and prompts.
    pub chat: Backends,
    /// Texts and images.
    pub embedding: Embedders,
    /// Verdicts.
    pub content_safety: Arc<dyn Judge>,
}

/// Services that listen; the edge is served by `serve`.
#[derive(Debug)]
pub struct Stack {
    edge: edge::Config,
    chat: Tasks,
    embedding: Tasks,
    content_safety: Tasks,
    /// Why a service behind the edge ended before it was told to.
    failed: mpsc::Receiver<anyhow::Error>,
}

impl Stack {
    /// Starts chat, embedding and content safety on free loopback ports and points the edge at them.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(settings: Settings, models: Models) -> anyhow::Result<Self> {
        let Settings { standalone: _, mut edge, chat, embedding, content_safety } = settings;
        let (failures, failed) = mpsc::channel(1);
        let stack_chat = Tasks::new();
        let listener = inner(&mut edge.chat).await?;
        spawn("chat", &stack_chat, &failures, {
            let tasks = stack_chat.clone();
            async move { chat::serve_with(models.chat, &chat, listener, tasks).await }
        });
        let stack_embedding = Tasks::new();
        let listener = inner(&mut edge.embedding).await?;
        spawn("embedding", &stack_embedding, &failures, {
            let tasks = stack_embedding.clone();
            async move { embedding::serve_with(models.embedding, &embedding, listener, tasks).await }
        });
        let stack_safety = Tasks::new();
        let listener = inner(&mut edge.content_safety).await?;
        spawn("content-safety", &stack_safety, &failures, {
            let tasks = stack_safety.clone();
            async move {
                content_safety::serve_with(models.content_safety, &content_safety, listener, tasks)
                    .await
            }
        });
        Ok(Self {
            edge,
            chat: stack_chat,
            embedding: stack_embedding,
            content_safety: stack_safety,
            failed,
        })
    }

    /// Serves the REST API on `listener` until `tasks` stop, then stops the services behind it.
    ///
    /// # Errors
    /// When the edge fails, or a service behind it: half a server would look like one that works.
    pub async fn serve(mut self, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
        let served = tokio::select! {
            served = edge::serve(self.edge, listener, tasks) => served,
            Some(error) = self.failed.recv() => Err(error),
        };
        // Nothing calls them any more, so there is nothing to wait for.
        for inner in [self.chat, self.embedding, self.content_safety] {
            inner.stop(Duration::ZERO).await;
        }
        served
    }
}

/// A free loopback port, and the edge's client pointed at it.
async fn inner(client: &mut ClientConfig) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.context("loopback port")?;
    client.endpoints = vec![format!("http://{}", listener.local_addr()?)];
    Ok(listener)
}

/// Runs a service; where it fails, `failures` hears why.
fn spawn<F>(service: &'static str, tasks: &Tasks, failures: &mpsc::Sender<anyhow::Error>, serve: F)
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let failures = failures.clone();
    tasks.spawn(async move {
        if let Err(error) = serve.await {
            // Full only when another failure is told already, and closed only when nobody serves any more.
            let _told = failures.try_send(error.context(format!("the {service} service failed")));
        }
    });
}
