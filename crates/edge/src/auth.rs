//! Who may call: the layer that compares keys.
//!
//! Separate from the handlers because it runs before a body is read. Keys are kept and compared as hashes, so that neither
//! their length nor their first differing byte shows in the time it takes; a request is let in when any key it presents is
//! valid, because the official clients send the same key twice (contract, section 3).

use crate::config::AuthConfig;
use crate::error::ApiError;
use api_types::{ErrorCode, Fault};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chassis::Secret;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq as _};

/// Headers that hold a bare key.
const KEY_HEADERS: [&str; 2] = ["api-key", "ocp-apim-subscription-key"];
/// Scheme of a key in `Authorization`; compared without regard to case.
const BEARER: &str = "bearer ";
/// Official test suites look for `auth token validation failed` in this message.
const REFUSED: &str = "Access denied: auth token validation failed. The key or token is missing or not valid for this endpoint; \
                       send it as `api-key` or as `Authorization: Bearer`";

/// Why there are no keys to compare with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The key file.
    #[error("`edge.auth.key_file`: cannot read `{path}`: {cause}")]
    File {
        /// As configured.
        path: String,
        /// From the system.
        cause: std::io::Error,
    },
    /// No key where one is needed.
    #[error(
        "no keys, but `edge.service.listen` is `{address}`, which others can reach; set `edge.auth.keys`, or \
         `edge.auth.disabled = true` behind a gateway that authenticates"
    )]
    None {
        /// Where the edge listens.
        address: SocketAddr,
    },
}

/// The valid keys, hashed.
#[derive(Clone)]
pub struct Keys {
    /// None lets everybody in.
    hashes: Option<Arc<[[u8; 32]]>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.hashes.as_ref().map(|h| h.len());
        f.debug_struct("Keys").field("count", &count).finish()
    }
}

impl Keys {
    /// The keys of `config`, for an edge that listens on `address`.
    ///
    /// # Errors
    /// When the key file cannot be read, or there is no key although `address` is not a loopback address.
    pub fn build(config: &AuthConfig, address: SocketAddr) -> Result<Self, KeysError> {
        if config.disabled {
            return Ok(Self { hashes: None });
        }
        let keys = config.keys.iter().map(Secret::expose);
        let mut hashes: Vec<_> = keys.filter(|k| !k.is_empty()).map(hash).collect();
        if !config.key_file.is_empty() {
            let read = std::fs::read_to_string(&config.key_file);
            let text =
                read.map_err(|cause| KeysError::File { path: config.key_file.clone(), cause })?;
            let lines = text.lines().map(str::trim);
            hashes.extend(lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(hash));
        }
        if !hashes.is_empty() {
            return Ok(Self { hashes: Some(hashes.into()) });
        }
        if address.ip().is_loopback() {
            Ok(Self { hashes: None })
        } else {
            Err(KeysError::None { address })
        }
    }

    /// Whether everybody is let in.
    #[must_use]
    pub const fn open(&self) -> bool {
        self.hashes.is_none()
    }

    /// Whether any credential in `headers` is valid.
    #[must_use]
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(hashes) = &self.hashes else { return true };
        presented(headers).any(|key| known(hashes, key))
    }
}

/// Refuses requests without a valid key, before their body is read.
///
/// # Errors
/// 401.
pub async fn require(
    State(keys): State<Keys>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if keys.admit(request.headers()) {
        Ok(next.run(request).await)
    } else {
        Err(Fault::new(ErrorCode::Unauthorized, REFUSED).into())
    }
}

fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bare =
        KEY_HEADERS.iter().flat_map(|name| headers.get_all(*name)).map(http::HeaderValue::as_bytes);
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER.as_bytes()).then(|| key.trim_ascii())
    });
    bare.chain(bearer)
}

/// Compares with every hash, whichever matches.
fn known(hashes: &[[u8; 32]], key: &[u8]) -> bool {
    let key = hash(key);
    let found = hashes.iter().fold(Choice::from(0), |found, valid| found | valid.ct_eq(&key));
    found.into()
}

fn hash(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn config(keys: &[&str]) -> AuthConfig {
        let keys = keys.iter().map(|k| Secret::new(*k)).collect();
        AuthConfig { keys, key_file: String::new(), disabled: false }
    }

    fn admits(headers: &[(&'static str, &str)]) -> bool {
        let keys = Keys::build(&config(&["right", "other"]), "0.0.0.0:1".parse().unwrap()).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        keys.admit(&map)
    }

    #[test]
    fn any_valid_key_in_any_header_lets_in() {
        assert!(admits(&[("api-key", "right")]));
        assert!(admits(&[("authorization", "Bearer other")]));
        assert!(admits(&[("authorization", "bEaReR right")]));
        assert!(admits(&[("ocp-apim-subscription-key", "right")]));
        assert!(admits(&[("api-key", "wrong"), ("authorization", "Bearer right")]));
    }

    #[test]
    fn a_wrong_or_missing_key_does_not() {
        assert!(!admits(&[]));
        assert!(!admits(&[("api-key", "righ")]));
        assert!(!admits(&[("api-key", "")]));
        assert!(!admits(&[("authorization", "right")]));
        assert!(!admits(&[("authorization", "Basic right")]));
    }

    #[test]
    fn no_keys_is_for_loopback_only() {
        let open = Keys::build(&config(&[]), "127.0.0.1:8080".parse().unwrap()).unwrap();
        assert!(open.admit(&HeaderMap::new()));
        assert!(Keys::build(&config(&[]), "0.0.0.0:8080".parse().unwrap()).is_err());
        let disabled = AuthConfig { disabled: true, ..config(&[]) };
        assert!(Keys::build(&disabled, "0.0.0.0:8080".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_key_file_holds_one_key_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# keys\n\nfrom-file \n").unwrap();
        let config = AuthConfig { key_file: file.path().display().to_string(), ..config(&[]) };
        let keys = Keys::build(&config, "0.0.0.0:1".parse().unwrap()).unwrap();
        assert!(known(keys.hashes.as_ref().unwrap(), b"from-file"));
        assert!(!known(keys.hashes.as_ref().unwrap(), b"# keys"));
    }
}
