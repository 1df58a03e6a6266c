//! Who may call: the layer that compares keys and checks tokens.
//!
//! Separate from the handlers because it runs before a body is read. Keys are kept and compared as hashes, all of them each time,
//! so that neither their length nor their first differing byte nor their place shows in the time it takes. A request is let in
//! when any credential it presents is valid, because the official clients send the same one twice (contract, section 3).

mod caller;
mod config;
mod key_file;
mod keyring;
mod keys;
mod tokens;
mod verifier;

pub use caller::{Area, Caller, Scope};
pub use config::{AuthConfig, GrantConfig, JwtConfig, SigningAlgorithm};
pub use key_file::is_key_name;
pub use keys::hash_of;

use crate::config::Config;
use crate::context::{Context, Family};
use crate::error::ApiError;
use crate::events::{self, Record, Route, Step, TurnedAway};
use api_types::{ErrorCode, Fault};
use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chassis::{Problems, Secret, Tasks};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use key_file::{KeyFile, KeyFileError};
use keys::{Found, Key, Keys};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokens::{Rejected, Tokens};

/// Headers that hold a bare key.
const KEY_HEADERS: [&str; 2] = ["api-key", "ocp-apim-subscription-key"];
/// Scheme of a key in `Authorization`; compared without regard to case.
const BEARER: &str = "bearer ";
/// Official test suites look for `auth token validation failed` in this message.
const REFUSED: &str = "Access denied: auth token validation failed. The key or token is missing or not valid for this endpoint; \
                       send it as `api-key` or as `Authorization: Bearer`";
const EXPIRED: &str =
    "Access denied: auth token validation failed. The key or token has expired; get a new one";
/// When to try again while tokens cannot be checked.
const UNCHECKED_RETRY: Duration = Duration::from_secs(2);

/// Why nobody could be told from anybody.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The key file.
    #[error("`edge.auth.key_file`: {0}")]
    File(#[from] KeyFileError),
    /// The tokens.
    #[error("`edge.auth.jwt`: {0}")]
    Tokens(String),
    /// No key where one is needed.
    #[error(
        "no keys, but others can reach `{address}`; set `edge.auth.keys`, `edge.auth.key_file` or `edge.auth.jwt`, or \
         `edge.auth.disabled = true` behind a gateway that authenticates"
    )]
    NoKeys {
        /// Where the edge listens.
        address: SocketAddr,
    },
}

/// The valid keys and tokens; clones share everything.
#[derive(Debug, Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Where nobody has to prove anything.
    open: Option<Arc<Caller>>,
    configured: Keys,
    from_file: ArcSwap<Keys>,
    file: Option<KeyFile>,
    reload: Duration,
    tokens: Option<Arc<Tokens>>,
}

impl Access {
    /// The keys and tokens of `config`, for an edge that listens on `address`.
    ///
    /// # Errors
    /// When the key file is wrong, or there is no key although `address` is not a loopback address.
    pub fn build(config: &Config, address: SocketAddr) -> Result<Self, AccessError> {
        Self::build_after(None, config, address)
    }

    /// The same for another `config`; an identity provider that stays keeps its public keys.
    ///
    /// # Errors
    /// As `build`.
    pub fn rebuild(&self, config: &Config, address: SocketAddr) -> Result<Self, AccessError> {
        Self::build_after(Some(self), config, address)
    }

    fn build_after(
        before: Option<&Self>,
        config: &Config,
        address: SocketAddr,
    ) -> Result<Self, AccessError> {
        let auth = &config.auth;
        let plain = auth.keys.iter().map(Secret::expose).filter(|key| !key.is_empty());
        let configured = Keys::new(plain.map(Key::plain).collect());
        let file =
            (!auth.key_file.is_empty()).then(|| KeyFile::new(&auth.key_file, config.rates.clone()));
        let from_file = match &file {
            Some(file) if !auth.disabled => file.load()?,
            Some(_) | None => Keys::default(),
        };
        let kept = before.and_then(|before| before.inner.tokens.as_ref());
        let tokens = match kept.filter(|tokens| !auth.disabled && tokens.are_of(&auth.jwt)) {
            Some(kept) => Some(Arc::clone(kept)),
            None if auth.disabled => None,
            None => Tokens::build(&auth.jwt)?.map(Arc::new),
        };
        check_address(auth, address)?;
        let inner = Inner {
            open: (names_nobody(auth) || auth.disabled).then(|| Arc::new(Caller::anybody())),
            configured,
            from_file: ArcSwap::from_pointee(from_file),
            file,
            reload: Duration::from_millis(auth.reload_ms),
            tokens,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.inner.open.is_some()
    }

    /// Reads the key file again when it changes and fetches the keys of tokens, until the tasks stop or nobody asks any more.
    pub fn keep_fresh(&self, tasks: &Tasks) {
        if self.is_open() {
            return;
        }
        if self.inner.file.is_some() {
            let (inner, stopping) = (Arc::downgrade(&self.inner), tasks.stopping());
            tasks.spawn(async move {
                tokio::select! {
                    () = reload(inner) => {}
                    () = stopping => {}
                }
            });
        }
        if let Some(tokens) = self.inner.tokens.as_ref().filter(|tokens| tokens.claim()) {
            let (tokens, stopping) = (Arc::downgrade(tokens), tasks.stopping());
            tasks.spawn(async move {
                tokio::select! {
                    () = Tokens::keep_fresh(tokens) => {}
                    () = stopping => {}
                }
            });
        }
    }

    /// Whose credential is in `headers`.
    ///
    /// # Errors
    /// 401 for none that is valid, 403 for a token that grants nothing, 503 for one that cannot be checked at the moment.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Fault> {
        if let Some(anybody) = &self.inner.open {
            return Ok(Arc::clone(anybody));
        }
        let mut worst = None;
        for credential in presented(headers) {
            let found = self.inner.configured.find(credential);
            let found = found.or_else(|| self.inner.from_file.load().find(credential));
            match found {
                Found::Valid(caller) => return Ok(caller),
                Found::Expired => worst = worst.max(Some(Rejected::Expired)),
                Found::Unknown => {}
            }
        }
        if let Some(tokens) = &self.inner.tokens {
            for credential in bearer(headers) {
                match tokens.identify(credential).await {
                    Ok(caller) => return Ok(caller),
                    Err(rejected) => worst = worst.max(Some(rejected)),
                }
            }
        }
        Err(refusal(worst.unwrap_or(Rejected::Invalid)))
    }
}

/// Whether there is nobody who could prove who they are.
fn names_nobody(auth: &AuthConfig) -> bool {
    let has_key = auth.keys.iter().any(|key| !key.expose().is_empty());
    !has_key && auth.key_file.is_empty() && auth.jwt.issuers.is_empty()
}

/// Refuses an `address` that others can reach where nobody has to prove anything, and nobody chose that.
fn check_address(auth: &AuthConfig, address: SocketAddr) -> Result<(), AccessError> {
    if names_nobody(auth) && !auth.disabled && !address.ip().is_loopback() {
        return Err(AccessError::NoKeys { address });
    }
    Ok(())
}

/// Notes what is wrong with the key file.
pub(crate) fn check_files(config: &Config, problems: &mut Problems) {
    let auth = &config.auth;
    // A host by name is judged when it is bound.
    let address = config.service.listen.parse::<SocketAddr>();
    if let Ok(Err(error)) = address.map(|address| check_address(auth, address)) {
        problems.add("auth.keys", error);
    }
    if auth.key_file.is_empty() || auth.disabled {
        return;
    }
    if let Err(error) = KeyFile::new(&auth.key_file, config.rates.clone()).load() {
        problems.add("auth.key_file", error);
    }
}

/// Reads the key file again when it changes, while somebody asks for its keys.
async fn reload(inner: Weak<Inner>) {
    let Some(mut pause) = inner.upgrade().map(|inner| inner.reload) else { return };
    loop {
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        pause = inner.reload;
        let Some(file) = &inner.file else { return };
        match file.changed().await {
            Some(Ok(keys)) => {
                tracing::info!(keys = keys.len(), "the key file was read again");
                inner.from_file.store(Arc::new(keys));
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the key file is wrong; the keys of before hold");
            }
            None => {}
        }
    }
}

fn refusal(why: Rejected) -> Fault {
    match why {
        Rejected::Invalid => {
            events::turned_away(TurnedAway::Unknown);
            Fault::new(ErrorCode::Unauthorized, REFUSED)
        }
        Rejected::Expired => {
            events::turned_away(TurnedAway::Expired);
            Fault::new(ErrorCode::Unauthorized, EXPIRED)
        }
        Rejected::GrantsNothing => {
            events::turned_away(TurnedAway::Forbidden);
            let message = "The principal lacks the required permission for this endpoint.";
            Fault::new(ErrorCode::PermissionDenied, message)
        }
        Rejected::Unchecked => {
            events::turned_away(TurnedAway::Unchecked);
            let message = "tokens cannot be checked at the moment; try again";
            Fault::new(ErrorCode::Unavailable, message).with_retry_after(UNCHECKED_RETRY)
        }
    }
}

/// Refuses requests without a valid key or token, or outside what it permits, before their body is read.
///
/// # Errors
/// 401, 403, 503.
pub async fn require(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let record = request.extensions().get::<Arc<Record>>().map(Arc::clone);
    let identified = access.identify(request.headers());
    let caller = match &record {
        Some(record) => record.timed(Step::Auth, identified).await?,
        None => identified.await?,
    };
    let context = request.extensions().get::<Context>();
    let (route, family) =
        context.map_or((Route::Unknown, Family::Inference), |c| (c.route, c.family));
    if let Some(record) = &record {
        record.caller(&caller.name);
    }
    caller.may_call(route, family).inspect_err(|_refused| {
        events::turned_away(TurnedAway::Forbidden);
    })?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Everything that may be a key.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bare =
        KEY_HEADERS.iter().flat_map(|name| headers.get_all(*name)).map(http::HeaderValue::as_bytes);
    bare.chain(bearer(headers))
}

/// Everything that may be a token.
fn bearer(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, credential) = value.as_bytes().split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER.as_bytes()).then(|| credential.trim_ascii())
    })
}

#[cfg(test)]
mod tests;
