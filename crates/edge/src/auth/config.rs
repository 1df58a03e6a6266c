//! The options under `[edge.auth]` as types.

use crate::auth::caller::Area;
use crate::globs::Globs;
use crate::limit::RatesConfig;
use chassis::{Problems, Secret};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Who may call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Valid keys.
    pub keys: Vec<Secret>,
    /// File with more keys; empty means none.
    pub key_file: String,
    /// How often the file is looked at.
    pub reload_ms: u64,
    /// Serves everybody on any address.
    pub disabled: bool,
    /// Tokens of an identity provider.
    pub jwt: JwtConfig,
}

/// Tokens of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// Values of `iss` that are trusted; none takes no tokens.
    pub issuers: Vec<String>,
    /// Values of `aud`, one of which a token must name.
    pub audiences: Vec<String>,
    /// Where the public keys are; empty asks the first issuer (OpenID Connect Discovery).
    pub jwks_url: String,
    /// How tokens may be signed.
    pub algorithms: Vec<SigningAlgorithm>,
    /// How far clocks may be apart.
    pub leeway_secs: u64,
    /// How often the public keys are fetched again.
    pub refresh_secs: u64,
    /// How long one attempt to fetch them may take.
    pub timeout_ms: u64,
    /// Claims that name the caller; the first that a token has.
    pub name_claims: Vec<String>,
    /// Claims that every token must have, with this value.
    #[serde(default)]
    pub required: BTreeMap<String, String>,
    /// What tokens permit; none permits everything to every valid token.
    #[serde(default)]
    pub grants: Vec<GrantConfig>,
}

/// What a claim permits; a token permits what any of its claims does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantConfig {
    /// Which claim; dots lead into objects.
    pub claim: String,
    /// Values, one of which the claim must be or hold.
    pub values: Vec<String>,
    /// Absent permits all.
    pub routes: Option<Vec<Area>>,
    /// Absent permits all.
    pub deployments: Option<Globs>,
    /// Rate class; absent means the default one.
    pub class: Option<String>,
}

/// How tokens may be signed: with a key of which only the public half is here. There is deliberately no way to name `none` or
/// HMAC, where whoever can check a token can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SigningAlgorithm {
    /// RSA, PKCS #1 v1.5, SHA-256: what Entra ID uses.
    RS256,
    /// The same, SHA-384.
    RS384,
    /// The same, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// The same, SHA-384.
    PS384,
    /// The same, SHA-512.
    PS512,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl From<SigningAlgorithm> for Algorithm {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::RS256 => Self::RS256,
            SigningAlgorithm::RS384 => Self::RS384,
            SigningAlgorithm::RS512 => Self::RS512,
            SigningAlgorithm::PS256 => Self::PS256,
            SigningAlgorithm::PS384 => Self::PS384,
            SigningAlgorithm::PS512 => Self::PS512,
            SigningAlgorithm::ES256 => Self::ES256,
            SigningAlgorithm::ES384 => Self::ES384,
            SigningAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

impl AuthConfig {
    /// Notes everything wrong.
    pub fn check(&self, rates: &RatesConfig, problems: &mut Problems) {
        let jwt = &self.jwt;
        if jwt.issuers.is_empty() {
            return;
        }
        for (option, empty) in [
            ("auth.jwt.audiences", jwt.audiences.is_empty()),
            ("auth.jwt.algorithms", jwt.algorithms.is_empty()),
            ("auth.jwt.name_claims", jwt.name_claims.is_empty()),
        ] {
            if empty {
                problems.add(option, "name at least one, as `edge.auth.jwt.issuers` is set");
            }
        }
        for (option, value) in
            [("auth.jwt.refresh_secs", jwt.refresh_secs), ("auth.jwt.timeout_ms", jwt.timeout_ms)]
        {
            if value == 0 {
                problems.add(option, "must be at least 1");
            }
        }
        if let Some(message) = crate::auth::keyring::wrong_source(jwt) {
            problems.add("auth.jwt", message);
        }
        if jwt.required.is_empty() && jwt.grants.is_empty() {
            let message = "name what a token must have (`required`) or what it grants (`grants`); without either, \
                           everybody to whom the issuer gives a token may do everything";
            problems.add("auth.jwt", message);
        }
        for (i, grant) in jwt.grants.iter().enumerate() {
            let option = format!("auth.jwt.grants[{i}]");
            if grant.values.is_empty() {
                problems.add(&format!("{option}.values"), "name at least one");
            }
            if grant.routes.as_ref().is_some_and(Vec::is_empty) {
                let message = "name at least one; leave it out for all";
                problems.add(&format!("{option}.routes"), message);
            }
            if let Some(class) = grant.class.as_ref().filter(|class| !rates.knows(class)) {
                let message = format!("`{class}` is not among `edge.rates.classes`");
                problems.add(&format!("{option}.class"), message);
            }
        }
    }
}
