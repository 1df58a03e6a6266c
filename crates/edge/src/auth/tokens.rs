//! Tokens of an identity provider (JWT, RFC 7519), as Entra ID issues them: who they are for, whom they name, what they permit.
//!
//! A token counts only when all of this holds: its algorithm is one of those configured, its signature fits a key of the
//! provider, its issuer and audience are ours, it is not over and has begun, and it has every required claim. What it permits is
//! what the configured grants make of its claims.

use crate::auth::AccessError;
use crate::auth::caller::{Caller, Scope};
use crate::auth::config::{GrantConfig, JwtConfig};
use crate::auth::keyring::{Keyring, NeverFetched};
use crate::auth::verifier;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// A longer credential is no token: Entra ID's have a few kilobytes.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Longest part of a name that comes out of a token.
const LONGEST_NAME: usize = 128;
/// In front of the names of callers with a token, so that none is the name of a key.
const NAME_PREFIX: &str = "token:";
/// Claims whose text is a list of words (RFC 8693, section 4.2; `scp` in Entra ID).
const LISTS: [&str; 2] = ["scp", "scope"];

type Claims = Map<String, Value>;

/// Why a credential is no valid token; the greatest of several is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rejected {
    /// No token, or none of ours.
    Invalid,
    /// Its time is over.
    Expired,
    /// Nobody knows the provider's keys.
    Unchecked,
    /// Valid, and yet.
    GrantsNothing,
}

/// Checks tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    config: JwtConfig,
    algorithms: Vec<Algorithm>,
    keyring: Keyring,
    /// Whether somebody keeps the public keys fresh.
    claimed: AtomicBool,
}

impl Tokens {
    /// What `config` says; none where it takes no tokens.
    pub(super) fn build(config: &JwtConfig) -> Result<Option<Self>, AccessError> {
        if config.issuers.is_empty() {
            return Ok(None);
        }
        verifier::install();
        Ok(Some(Self {
            algorithms: config.algorithms.iter().copied().map(Into::into).collect(),
            keyring: Keyring::build(config).map_err(AccessError::Tokens)?,
            config: config.clone(),
            claimed: AtomicBool::new(false),
        }))
    }

    /// Whether these are what `config` says.
    pub(super) fn are_of(&self, config: &JwtConfig) -> bool {
        self.config == *config
    }

    /// Whether nobody keeps them fresh yet; who asks does from now on.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Fetches the provider's keys now and then, while somebody has `tokens`.
    pub(super) async fn keep_fresh(tokens: Weak<Self>) {
        while let Some(tokens) = tokens.upgrade() {
            let pause = tokens.keyring.refresh().await;
            drop(tokens);
            tokio::time::sleep(pause).await;
        }
    }

    /// Whom a token names.
    pub(super) async fn identify(&self, credential: &[u8]) -> Result<Arc<Caller>, Rejected> {
        let claims = self.verify(credential).await?;
        let required = &self.config.required;
        if !required.iter().all(|(claim, value)| holds(&claims, claim, value)) {
            return Err(Rejected::Invalid);
        }
        let name =
            self.config.name_claims.iter().find_map(|claim| lookup(&claims, claim)?.as_str());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(Rejected::Invalid);
        };
        let name = format!("{NAME_PREFIX}{}", name.chars().take(LONGEST_NAME).collect::<String>());
        self.permit(name, &claims)
    }

    fn permit(&self, name: String, claims: &Claims) -> Result<Arc<Caller>, Rejected> {
        if self.config.grants.is_empty() {
            return Ok(Arc::new(Caller::unrestricted(name)));
        }
        let granted = self.config.grants.iter();
        let granted: Vec<&GrantConfig> = granted
            .filter(|grant| grant.values.iter().any(|value| holds(claims, &grant.claim, value)))
            .collect();
        if granted.is_empty() {
            return Err(Rejected::GrantsNothing);
        }
        let class = granted.iter().find_map(|grant| grant.class.clone());
        let scopes = granted.iter().map(|grant| Scope {
            areas: grant.routes.clone(),
            deployments: grant.deployments.clone(),
        });
        Ok(Arc::new(Caller::new(name, class, scopes.collect())))
    }

    async fn verify(&self, credential: &[u8]) -> Result<Claims, Rejected> {
        if credential.len() > LONGEST_TOKEN
            || credential.iter().filter(|b| **b == b'.').count() != 2
        {
            return Err(Rejected::Invalid);
        }
        let header = decode_header(credential).map_err(|_no_token| Rejected::Invalid)?;
        // What `crit` names must be understood, and nothing is (RFC 7515, section 4.1.11).
        if !self.algorithms.contains(&header.alg) || header.crit.is_some() {
            return Err(Rejected::Invalid);
        }
        let found = self.keyring.find(header.kid.as_deref(), header.alg).await;
        let found = found.map_err(|NeverFetched| Rejected::Unchecked)?;
        let key = found.ok_or(Rejected::Invalid)?;
        let decoded = decode::<Claims>(credential, &key.key, &self.validation(header.alg));
        decoded.map(|token| token.claims).map_err(|error| {
            let expired = matches!(error.kind(), ErrorKind::ExpiredSignature);
            if expired { Rejected::Expired } else { Rejected::Invalid }
        })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.config.leeway_secs;
        validation.validate_nbf = true;
        validation.set_audience(&self.config.audiences);
        validation.set_issuer(&self.config.issuers);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation
    }
}

/// The claim of this name, or the one at the end of a path with dots.
fn lookup<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
    })
}

/// Whether the claim is `value`, or a list that holds it.
fn holds(claims: &Claims, name: &str, value: &str) -> bool {
    match lookup(claims, name) {
        Some(Value::String(text)) if LISTS.contains(&name) => {
            text.split_ascii_whitespace().any(|word| word == value)
        }
        Some(Value::String(text)) => text == value,
        Some(Value::Array(list)) => list.iter().any(|item| item.as_str() == Some(value)),
        Some(Value::Bool(flag)) => value == if *flag { "true" } else { "false" },
        Some(Value::Null | Value::Number(_) | Value::Object(_)) | None => false,
    }
}

#[cfg(test)]
mod tests;
