//! One endpoint of a model server: sends a request, hands back its body.
//!
//! Separate from the pool, which decides where and how often. No redirects are followed: a key must reach the configured
//! host or nobody.

use crate::error::{UpstreamError, WaitingFor};
use crate::events::{Body, Events};
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client as Http, Method, Url};
use serde_json::Value;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Idle connections are kept this long; most servers and proxies close theirs after a minute.
const IDLE: Duration = Duration::from_secs(50);
/// Probes on a quiet connection, so that one through a dead NAT entry is noticed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For a connection.
    pub(crate) connect: Duration,
    /// From the request to the first byte of the body: the queue and the prompt's processing.
    pub(crate) first_byte: Duration,
    /// Between two pieces of the body.
    pub(crate) between_bytes: Duration,
}

/// A key for `Authorization: Bearer`; its Debug does not show it.
#[derive(Debug, Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// Takes a key, white space around it left out, as keys that come from files have it.
    ///
    /// # Errors
    /// When it is empty or holds characters that no header can carry.
    pub fn new(key: &str) -> Result<Self, UpstreamError> {
        let wrong = |what: &str| UpstreamError::Config(format!("the API key {what}"));
        let key = key.trim();
        if key.is_empty() {
            return Err(wrong("is empty"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| wrong("holds characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The key itself, or the one in a file, or none.
    ///
    /// # Errors
    /// As `new`; a file that cannot be read.
    pub fn find(key: Option<&str>, file: Option<&Path>) -> Result<Option<Self>, UpstreamError> {
        let (Some(file), None) = (file, key) else { return key.map(Self::new).transpose() };
        let key = std::fs::read_to_string(file).map_err(|cause| {
            let file = file.display();
            UpstreamError::Config(format!("cannot read `api_key_file` `{file}`: {cause}"))
        })?;
        Self::new(&key).map(Some)
    }
}

/// A client of one endpoint.
#[derive(Debug)]
pub(crate) struct Client {
    http: Http,
    base: Url,
    endpoint: String,
    timeouts: Timeouts,
    headers: fn() -> HeaderMap,
}

impl Client {
    /// Builds a client that sends `headers` with each request; connects to nothing yet.
    pub(crate) fn build(
        base_url: &str,
        key: Option<&ApiKey>,
        (timeouts, headers): (Timeouts, fn() -> HeaderMap),
    ) -> Result<Self, UpstreamError> {
        let base = parse_base(base_url)?;
        let mut always = HeaderMap::new();
        if let Some(ApiKey(value)) = key {
            always.insert(AUTHORIZATION, value.clone());
        }
        let mut builder = Http::builder()
            .user_agent(concat!("koine/", env!("CARGO_PKG_VERSION")))
            .default_headers(always)
            .connect_timeout(timeouts.connect)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(KEEPALIVE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if base.scheme() == "http" {
            // Without TLS no root certificates are needed, and an image without any must not fail.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if is_local(&base) {
            // A proxy of the environment leads to another machine.
            builder = builder.no_proxy();
        }
        // Fails when some other part of the program chose its provider before; that one serves as well.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let http = builder.build().map_err(|cause| {
            UpstreamError::Config(format!("cannot build an HTTP client: {}", causes(&cause)))
        })?;
        Ok(Self { http, endpoint: endpoint_name(&base), base, timeouts, headers })
    }

    /// Posts `body` and reads the whole answer.
    pub(crate) async fn post(&self, path: &str, body: Bytes) -> Result<Value, UpstreamError> {
        self.send(Method::POST, path, body).await?.json().await
    }

    /// Posts `body` and reads up to the first event of the answer.
    pub(crate) async fn stream(&self, path: &str, body: Bytes) -> Result<Events, UpstreamError> {
        Events::begin(self.send(Method::POST, path, body).await?).await
    }

    /// Reads a document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, UpstreamError> {
        self.send(Method::GET, path, Bytes::new()).await?.json().await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Body, UpstreamError> {
        let sent = Instant::now();
        let request = self
            .http
            .request(method, self.url(path))
            .headers((self.headers)())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(body);
        let Ok(answered) = timeout_at(sent + self.timeouts.first_byte, request.send()).await else {
            return Err(self.timeout(WaitingFor::FirstByte, self.timeouts.first_byte));
        };
        let response = answered.map_err(|cause| self.not_sent(cause))?;
        let success = response.status().is_success();
        let body = Body::new(response, &self.endpoint, self.timeouts, sent);
        if success { Ok(body) } else { Err(body.refusal().await) }
    }

    /// The base with `path` after it; a query of the base stays, as Azure's `api-version` wants.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        url
    }

    fn timeout(&self, waiting_for: WaitingFor, after: Duration) -> UpstreamError {
        UpstreamError::Timeout { endpoint: self.endpoint.clone(), waiting_for, after }
    }

    fn not_sent(&self, cause: reqwest::Error) -> UpstreamError {
        if cause.is_timeout() {
            return self.timeout(WaitingFor::Connection, self.timeouts.connect);
        }
        let connecting = cause.is_connect();
        let reason = causes(&cause.without_url());
        if connecting {
            return UpstreamError::Connect { endpoint: self.endpoint.clone(), reason };
        }
        UpstreamError::broken(&self.endpoint, reason)
    }
}

fn parse_base(text: &str) -> Result<Url, UpstreamError> {
    let wrong = |reason: &str| {
        UpstreamError::Config(format!(
            "the base URL {reason}; expected one such as `http://host:8000/v1`"
        ))
    };
    let url = Url::parse(text).map_err(|cause| wrong(&format!("is not a URL ({cause})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a password; give a key by `api_key`"));
    }
    Ok(url)
}

/// Host and port, which is all of an address that errors show.
fn endpoint_name(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    base.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_local(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An error with its causes: reqwest's own words alone do not say that a connection was refused.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        connect: Duration::from_secs(1),
        first_byte: Duration::from_secs(1),
        between_bytes: Duration::from_secs(1),
    };
    const WITH: (Timeouts, fn() -> HeaderMap) = (TIMEOUTS, HeaderMap::new);

    #[test]
    fn paths_are_added_to_any_form_of_base() {
        for (base, whole) in [
            ("http://a:8000/v1", "http://a:8000/v1/chat/completions"),
            ("http://a:8000/v1/", "http://a:8000/v1/chat/completions"),
            ("https://a", "https://a/chat/completions"),
            ("https://a/d/x?api-version=1", "https://a/d/x/chat/completions?api-version=1"),
        ] {
            let client = Client::build(base, None, WITH).unwrap();
            assert_eq!(client.url("chat/completions").as_str(), whole);
        }
    }

    #[test]
    fn a_bad_base_says_what_is_expected() {
        for base in ["", "a:8000", "ftp://a", "http://me:secret@a/v1"] {
            let error = Client::build(base, None, WITH).unwrap_err().to_string();
            assert!(error.contains("expected one such as"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_key_never_shows() {
        let key = ApiKey::new(" sk-secret\n").unwrap();
        let client = Client::build("http://a/v1", Some(&key), WITH).unwrap();
        assert!(!format!("{key:?} {client:?}").contains("secret"));
        assert!(ApiKey::new(" \n").is_err());
        assert!(!ApiKey::new("se\ncret").unwrap_err().to_string().contains("cret`"));
    }
}
