//! The public keys of the identity provider: fetched, kept, fetched again.
//!
//! A provider changes its keys when it likes, and a token with a new one may come before anybody has fetched it. So an unknown
//! key is looked for at once, but not more often than every `LEAST_PAUSE`, however many unknown keys callers make up. Keys that
//! could not be fetched again stay.

use crate::auth::config::JwtConfig;
use crate::auth::verifier::family;
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Between two attempts to fetch the keys.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// Most bytes of a document of the provider; Entra ID's have 20 kB.
const MOST_BYTES: usize = 1024 * 1024;
/// Most keys that are kept.
const MOST_KEYS: usize = 256;
/// Where OpenID Connect Discovery puts the description of an issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Nobody knows the provider's keys, because it has never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeverFetched;

/// The public keys of the identity provider.
#[derive(Debug)]
pub(super) struct Keyring {
    http: Client,
    /// Of the keys, or of the document that says where they are.
    source: Source,
    keys: ArcSwap<Option<Vec<PublicKey>>>,
    refresh: Duration,
    last_attempt: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Source {
    Keys(Url),
    Discovery(Url),
}

/// A public key, and what it may sign.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    id: Option<String>,
    algorithm: Option<KeyAlgorithm>,
    pub(super) key: DecodingKey,
}

#[derive(Debug, Deserialize)]
struct Discovered {
    jwks_uri: String,
}

#[derive(Debug, Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// What is wrong with where `config` says the keys are.
pub(super) fn wrong_source(config: &JwtConfig) -> Option<String> {
    Source::of(config).err()
}

impl Source {
    fn of(config: &JwtConfig) -> Result<Self, String> {
        let parse = |option: &str, text: &str| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            url.ok_or_else(|| format!("`{option}`: `{text}` is not a URL like https://host/path"))
        };
        if config.jwks_url.is_empty() {
            let issuer = config.issuers.first().map_or("", String::as_str);
            let url = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
            parse("issuers", &url).map(Self::Discovery)
        } else {
            parse("jwks_url", &config.jwks_url).map(Self::Keys)
        }
    }
}

impl Keyring {
    /// The keys of `config`; connects to nothing yet.
    pub(super) fn build(config: &JwtConfig) -> Result<Self, String> {
        let source = Source::of(config)?;
        Ok(Self {
            http: client(&source, Duration::from_millis(config.timeout_ms))?,
            source,
            keys: ArcSwap::from_pointee(None),
            refresh: Duration::from_secs(config.refresh_secs),
            last_attempt: Mutex::default(),
        })
    }

    /// Fetches the keys, and says when to do so again.
    pub(super) async fn refresh(&self) -> Duration {
        self.fetch_unless_tried().await;
        if self.keys.load().is_some() { self.refresh } else { LEAST_PAUSE }
    }

    /// The key that signed a token with this header; none where there is none.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<PublicKey>, NeverFetched> {
        if let Some(key) = self.known(id, algorithm) {
            return Ok(Some(key));
        }
        self.fetch_unless_tried().await;
        let found = self.known(id, algorithm);
        if found.is_none() && self.keys.load().is_none() { Err(NeverFetched) } else { Ok(found) }
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<PublicKey> {
        let keys = self.keys.load();
        let mut fitting = keys.iter().flatten().filter(|key| key.fits(algorithm));
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).cloned(),
            // Without a name only the one key that fits can be meant.
            None => fitting.next().filter(|_| fitting.next().is_none()).cloned(),
        }
    }

    /// Fetches the keys, unless somebody has just tried; whoever comes meanwhile waits for the same attempt.
    async fn fetch_unless_tried(&self) {
        let mut last_attempt = self.last_attempt.lock().await;
        if last_attempt.is_some_and(|at| at.elapsed() < LEAST_PAUSE) {
            return;
        }
        match self.fetch().await {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "keys of tokens fetched");
                self.keys.store(Arc::new(Some(keys)));
            }
            Err(cause) => {
                tracing::warn!(cause, "the keys of tokens cannot be fetched; see `edge.auth.jwt`");
            }
        }
        *last_attempt = Some(Instant::now());
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let url = match &self.source {
            Source::Keys(url) => url.clone(),
            Source::Discovery(url) => {
                let found: Discovered = self.get(url.clone()).await?;
                let parsed = Url::parse(&found.jwks_uri);
                // A document that came over TLS must not lead out of it.
                parsed.ok().filter(|keys| keys.scheme() == url.scheme()).ok_or("bad `jwks_uri`")?
            }
        };
        let document: Document = self.get(url).await?;
        // One by one: a key of a kind that nobody here knows must not hide the others.
        let keys = document.keys.into_iter().filter_map(PublicKey::parse).take(MOST_KEYS);
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() { Err("the document holds no usable key".to_owned()) } else { Ok(keys) }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<T, String> {
        let shown = url.to_string();
        let read = async {
            let mut response = self.http.get(url).send().await?.error_for_status()?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > MOST_BYTES {
                    break;
                }
            }
            Ok(body)
        };
        let body = read.await.map_err(|error: reqwest::Error| causes(&error))?;
        if body.len() > MOST_BYTES {
            return Err(format!("{shown} is longer than {MOST_BYTES} bytes"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{shown}: {error}"))
    }
}

impl PublicKey {
    /// A key that may check signatures; none for keys of other uses and kinds, above all none for a shared secret.
    fn parse(json: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json).ok()?;
        let common = jwk.common.clone();
        if common.public_key_use.is_some_and(|usage| usage != PublicKeyUse::Signature) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let public = key.family() != AlgorithmFamily::Hmac;
        public.then_some(Self { id: common.key_id, algorithm: common.key_algorithm, key })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        // The library has one type for the algorithms of keys and one for those of tokens; both print their published name.
        let named =
            self.algorithm.is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
        named && Some(self.key.family()) == family(algorithm)
    }
}

fn client(source: &Source, timeout: Duration) -> Result<Client, String> {
    let (Source::Keys(url) | Source::Discovery(url)) = source;
    let mut builder = Client::builder()
        .user_agent(concat!("koine/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none());
    if url.scheme() == "http" {
        // Without TLS no root certificates are needed, and an image without any must not fail.
        builder = builder.tls_certs_only(std::iter::empty());
    }
    if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        // A proxy of the environment leads to another machine.
        builder = builder.no_proxy();
    }
    // Fails when some other part of the program chose its provider before; that one serves as well.
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    builder.build().map_err(|error| format!("cannot build an HTTP client: {}", causes(&error)))
}

/// An error with its causes: reqwest's own words alone do not say that a connection was refused.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
