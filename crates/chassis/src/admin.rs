//! The admin port: `/livez`, `/readyz`, `/metrics`. On a port of its own so that it is never exposed by accident.

use crate::Tasks;
use crate::telemetry::Exposition;
use anyhow::Context as _;
use axum::Router;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::get;
use std::future::ready;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long a health check waits for an answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves the admin routes until the tasks stop.
pub fn spawn(listener: TcpListener, tasks: &Tasks, metrics: Exposition) {
    let asked = tasks.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readyz(asked.clone())))
        .route("/metrics", get(move |headers: HeaderMap| ready(rendered(&metrics, &headers))));
    let stopping = tasks.stopping();
    // Not tracked: it answers readiness and metrics until the very end.
    tasks.spawn_untracked(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopping).await {
            tracing::error!(%error, "admin port failed");
        }
    });
}

fn rendered(
    metrics: &Exposition,
    headers: &HeaderMap,
) -> ([(HeaderName, &'static str); 1], String) {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (kind, text) = metrics.render(accept);
    ([(CONTENT_TYPE, kind)], text)
}

async fn readyz(tasks: Tasks) -> (StatusCode, &'static str) {
    if tasks.ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Asks the admin port at `address` whether the service is ready: the container health check, which needs no shell.
///
/// # Errors
/// When nothing answers or the answer is not 200.
pub async fn probe(address: &str) -> anyhow::Result<()> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(PROBE_TIMEOUT, ask)
        .await
        .context("no answer in time")?
        .with_context(|| format!("cannot ask `{address}`"))?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "not ready");
    Ok(())
}
