//! The accept loop: connections in, requests to the router, an orderly end.
//!
//! Our own instead of `axum::serve`, which offers neither a header timeout nor a bound on headers. Speaks HTTP/1.1 and HTTP/2,
//! over TLS where there is a certificate. Every wait for a client is bounded: for its handshake, its first bytes, its headers, its
//! body (`extract.rs`). Each request goes to the routes that are in force when it comes, not to those of its connection.

use crate::config::LimitsConfig;
use crate::live::Live;
use axum::body::Body;
use chassis::Tasks;
use chassis::tls::Acceptor;
use http::Version;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// What a client opens an HTTP/2 connection with; until it differs or ends, no other timeout is running.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Idle HTTP/2 connections are probed this often, so that a dead peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Pause after an accept that failed for want of descriptors: they come back when a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection may take to close once the tasks stop: an idle one needs a moment, a running one has had its time.
const LAST_GRACE: Duration = Duration::from_millis(200);
/// Requests at the same time on one HTTP/2 connection.
const STREAMS_PER_CONNECTION: u32 = 256;

/// Serves what is in force on `listener`, over TLS where there is `tls`, until the tasks stop; then connections end: at once where
/// they are idle, soon where they are not, for by then the time to drain has passed.
pub async fn serve(live: Live, tls: Option<Acceptor>, listener: TcpListener, tasks: &Tasks) {
    let most = live.current().limits.connections.min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(most));
    let server = Server { live, tls, tasks: tasks.clone() };
    let mut stopping = pin!(tasks.stopping());
    loop {
        let next = async {
            // Never closed, so a permit always comes.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stopping => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _peer)) => server.spawn(stream, permit),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn builder(limits: &LimitsConfig, tasks: &Tasks) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(Executor { tasks: tasks.clone() });
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_buf_size(limits.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    builder
}

#[derive(Debug, Clone)]
struct Server {
    live: Live,
    tls: Option<Acceptor>,
    tasks: Tasks,
}

impl Server {
    fn spawn(&self, stream: TcpStream, permit: Option<OwnedSemaphorePermit>) {
        // Pieces of a stream are small and must leave at once. Fails only on a socket that is gone already.
        let _gone = stream.set_nodelay(true);
        let server = self.clone();
        self.tasks.spawn(async move {
            let _counted = permit;
            let limits = server.live.current().limits;
            let within = Duration::from_millis(limits.header_timeout_ms);
            let Some(tls) = &server.tls else {
                return server.talk(Opening::new(stream, within), &limits).await;
            };
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(within, tls.accept(stream)) => shaken,
                () = server.tasks.stopping() => return,
            };
            match shaken {
                Ok(Ok(stream)) => server.talk(Opening::new(stream, within), &limits).await,
                Ok(Err(error)) => tracing::debug!(%error, "no handshake"),
                Err(_elapsed) => tracing::debug!("no handshake in time"),
            }
        });
    }

    /// Answers the requests of one connection until it ends.
    async fn talk<S>(&self, stream: Opening<S>, limits: &LimitsConfig)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let live = self.live.clone();
        let speaks_http2 = Arc::new(Notify::new());
        let goodbye = goodbye(Arc::clone(&speaks_http2), &self.tasks);
        let service = service_fn(move |request: http::Request<Incoming>| {
            if request.version() == Version::HTTP_2 {
                speaks_http2.notify_one();
            }
            let router = live.current().router.clone();
            TowerToHyperService::new(router).call(request.map(Body::new))
        });
        let builder = builder(limits, &self.tasks);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return tell(ended),
            () = goodbye => {}
            () = self.tasks.stopping() => {}
        }
        connection.as_mut().graceful_shutdown();
        let last = async {
            self.tasks.stopping().await;
            tokio::time::sleep(LAST_GRACE).await;
        };
        tokio::select! {
            ended = connection => tell(ended),
            // What still runs then is dropped, which the client sees as a broken answer.
            () = last => {}
        }
    }
}

/// Resolves when an HTTP/2 connection is to be told that this process leaves: it opens no new streams then, and those that are
/// open go on. Never for HTTP/1.1, where a request may be on its way: there the next answer says it (`layers::drain`).
async fn goodbye(speaks_http2: Arc<Notify>, tasks: &Tasks) {
    speaks_http2.notified().await;
    tasks.leaving().await;
}

fn tell(ended: Result<(), Box<dyn Error + Send + Sync>>) {
    if let Err(error) = ended {
        // A client that went away, or a stream that we ended as the contract demands.
        tracing::debug!(%error, "connection ended");
    }
}

/// Runs what HTTP/2 connections need as tracked tasks.
#[derive(Debug, Clone)]
struct Executor {
    tasks: Tasks,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.tasks.spawn(future);
    }
}

/// A connection whose first bytes must come in time: while hyper tells HTTP/1 from HTTP/2 it has no timeout of its own.
struct Opening<S> {
    stream: S,
    /// None once the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How many bytes of the preface have come.
    matched: usize,
}

impl<S> Opening<S> {
    fn new(stream: S, within: Duration) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep_until(Instant::now() + within)));
        Self { stream, deadline, matched: 0 }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let expected = &PREFACE[self.matched..];
        if expected.starts_with(bytes) && bytes.len() < expected.len() && !bytes.is_empty() {
            self.matched += bytes.len();
        } else {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(deadline) = self.deadline.as_mut() else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.look_at(&buf.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
