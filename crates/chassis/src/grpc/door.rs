//! Who may enter the door of a service: whoever shows the token, and a certificate where one is asked for. And what the edge
//! shows. Both are off by default, and each works without the other.
//!
//! Separate from the server and the client, which only ask. Health needs no token, because probes have none and learn nothing
//! but whether the service serves; reflection needs it like every call. TLS covers all of them.

use super::token::{Source, Tokens};
use crate::tls::{self, Acceptor, ClientTlsConfig, Connector, ServerTlsConfig};
use crate::{Problems, Secret, Tasks};
use http::header::AUTHORIZATION;
use serde::Deserialize;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::server::Connected;
use tower::{Layer, Service};

/// How the token is shown, after RFC 6750.
const BEARER: &str = "Bearer ";
/// Handshakes at the same time; more wait in the listener's queue.
const HANDSHAKES: usize = 64;
/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an accept that failed for want of descriptors: they come back when a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The `door` table of a model service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorConfig {
    /// What callers must show; empty asks for nothing.
    pub token: Secret,
    /// File with tokens, one a line, each of which is taken; empty means none.
    pub token_file: String,
    /// How often files are looked at.
    pub reload_ms: u64,
    /// TLS, and the certificates of callers.
    pub tls: ServerTlsConfig,
}

impl DoorConfig {
    /// A door that asks for `token` alone.
    #[must_use]
    pub const fn with(token: Secret) -> Self {
        let tls = ServerTlsConfig::off();
        Self { token, token_file: String::new(), reload_ms: 1000, tls }
    }

    /// A door for everybody who reaches it.
    #[must_use]
    pub fn open() -> Self {
        Self::with(Secret::new(""))
    }

    /// Notes options that cannot be.
    pub fn check(&self, problems: &mut Problems) {
        self.source().check(DOOR, problems);
        self.tls.check(DOOR_TLS, problems);
        check_pause(DOOR, self.reload_ms, problems);
    }

    /// Notes files that cannot be used.
    pub fn check_files(&self, problems: &mut Problems) {
        check_token(DOOR, &self.source(), problems);
        if self.tls.is_on() {
            self.tls.check_files(DOOR_TLS, problems);
        }
    }

    fn source(&self) -> Source {
        Source((self.token.clone(), self.token_file.clone()))
    }
}

/// Names of the tables.
const DOOR: &str = "door";
const DOOR_TLS: &str = "door.tls";
const DOORS: &str = "doors";
const DOORS_TLS: &str = "doors.tls";

/// The `doors` table of the edge: what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorsConfig {
    /// What is shown; empty shows nothing.
    pub token: Secret,
    /// File with the token in its first line; empty means none.
    pub token_file: String,
    /// How often files are looked at.
    pub reload_ms: u64,
    /// TLS of doors whose URL begins with `https`.
    pub tls: ClientTlsConfig,
}

impl DoorsConfig {
    /// Shows `token` at doors without TLS.
    #[must_use]
    pub fn with(token: Secret) -> Self {
        let tls = ClientTlsConfig::default();
        Self { token, token_file: String::new(), reload_ms: 1000, tls }
    }

    /// Notes options that cannot be.
    pub fn check(&self, problems: &mut Problems) {
        self.source().check(DOORS, problems);
        self.tls.check(DOORS_TLS, problems);
        check_pause(DOORS, self.reload_ms, problems);
    }

    /// Notes files that cannot be used.
    pub fn check_files(&self, problems: &mut Problems) {
        check_token(DOORS, &self.source(), problems);
        self.tls.check_files(DOORS_TLS, problems);
    }

    fn source(&self) -> Source {
        Source((self.token.clone(), self.token_file.clone()))
    }
}

fn check_pause(option: &str, reload_ms: u64, problems: &mut Problems) {
    if reload_ms == 0 {
        problems.add(&format!("{option}.reload_ms"), "must be at least 1 millisecond");
    }
}

fn check_token(option: &str, source: &Source, problems: &mut Problems) {
    if let Err(message) = source.read() {
        problems.add(&format!("{option}.token_file"), message);
    }
}

/// The door of a service, open or not.
#[derive(Debug, Clone, Default)]
pub struct Door {
    tokens: Option<Tokens>,
    tls: Option<Acceptor>,
}

impl Door {
    /// The door of `section`; looks at its files until `tasks` stop.
    ///
    /// # Errors
    /// When a file cannot be read or used; all problems at once.
    pub fn build(
        section: &'static str,
        config: &DoorConfig,
        tasks: &Tasks,
    ) -> Result<Self, Problems> {
        let fresh = (Duration::from_millis(config.reload_ms), tasks);
        let tokens = Tokens::build((section, DOOR), &config.source(), fresh);
        let tls = Acceptor::build((section, DOOR_TLS), &config.tls, &tls::GRPC, fresh);
        let (tokens, tls) = both(tokens, tls)?;
        // There before the first refusal, for a rate does not see how a series begins.
        metrics::counter!("door_refusals_total").increment(0);
        Ok(Self { tokens, tls })
    }

    /// Connections that have passed the handshake, where there is one.
    pub(super) fn incoming(
        &self,
        listener: TcpListener,
        tasks: &Tasks,
    ) -> ReceiverStream<io::Result<Connection>> {
        // Each is taken at once: the server waits for nothing else.
        let (sender, receiver) = mpsc::channel(1);
        let (tls, own) = (self.tls.clone(), tasks.clone());
        tasks.spawn_until_stop(accept(listener, tls, sender, own));
        ReceiverStream::new(receiver)
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Acceptor>,
    sender: mpsc::Sender<io::Result<Connection>>,
    tasks: Tasks,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        // Never closed, so a permit always comes.
        let permit = Arc::clone(&handshakes).acquire_owned().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Fails only on a socket that is gone already.
        let _gone = stream.set_nodelay(true);
        let (tls, sender, stopping) = (tls.clone(), sender.clone(), tasks.stopping());
        tasks.spawn(async move {
            let _counted = permit;
            let connection = match tls {
                None => Connection::Plain(stream),
                Some(tls) => {
                    let shaken = tokio::select! {
                        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => shaken,
                        () = stopping => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => Connection::Tls(Box::new(stream)),
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "a caller could not come in over TLS");
                            return;
                        }
                        Err(_elapsed) => return,
                    }
                }
            };
            // Fails when the server is gone.
            let _taken = sender.send(Ok(connection)).await;
        });
    }
}

/// A connection of a caller.
#[derive(Debug)]
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Refuses calls without the token.
impl<S> Layer<S> for Door {
    type Service = Guarded<S>;
    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, tokens: self.tokens.clone() }
    }
}

/// A server behind a door.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    tokens: Option<Tokens>,
}

impl<S> Guarded<S> {
    fn admits(&self, path: &str, headers: &http::HeaderMap) -> bool {
        let Some(tokens) = &self.tokens else { return true };
        let shown = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let shown = shown.and_then(|value| value.strip_prefix(BEARER.as_bytes()));
        shown.is_some_and(|token| tokens.know(token)) || path.starts_with("/grpc.health.")
    }
}

impl<S, B> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<tonic::body::Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if self.admits(request.uri().path(), request.headers()) {
            return Box::pin(self.inner.call(request));
        }
        metrics::counter!("door_refusals_total").increment(1);
        let refusal = tonic::Status::unauthenticated(
            "the caller shows no token of this service; see `edge.doors.token`",
        );
        Box::pin(async { Ok(refusal.into_http()) })
    }
}

/// What is shown at doors; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    tokens: Option<Tokens>,
    tls: Option<Connector>,
}

impl Pass {
    /// The pass of `section`; looks at its files until `tasks` stop.
    ///
    /// # Errors
    /// When a file cannot be read or used; all problems at once.
    pub fn build(
        section: &'static str,
        config: &DoorsConfig,
        tasks: &Tasks,
    ) -> Result<Self, Problems> {
        let fresh = (Duration::from_millis(config.reload_ms), tasks);
        let tokens = Tokens::build((section, DOORS), &config.source(), fresh);
        let tls = Connector::build((section, DOORS_TLS), &config.tls, fresh);
        let (tokens, tls) = both(tokens, tls)?;
        Ok(Self { tokens, tls })
    }

    pub(super) fn tls(&self) -> Option<Connector> {
        self.tls.clone()
    }

    /// What a call shows.
    pub(super) fn metadata(&self) -> Option<MetadataValue<Ascii>> {
        let token = self.tokens.as_ref()?.first()?;
        let mut value: MetadataValue<Ascii> = format!("{BEARER}{}", token.expose()).parse().ok()?;
        // Neither shown by Debug nor kept in the tables of header compression.
        value.set_sensitive(true);
        Some(value)
    }
}

fn both<A, B>(one: Result<A, Problems>, other: Result<B, Problems>) -> Result<(A, B), Problems> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(problems), Ok(_)) | (Ok(_), Err(problems)) => Err(problems),
        (Err(mut problems), Err(more)) => {
            problems.merge(more);
            Err(problems)
        }
    }
}
