//! The options of `config.toml` as types.
//!
//! Separate from what is built of them: a value here is parsed and checked, but nothing outside has been looked at. The
//! defaults and the documentation of every option are in `config.toml`, which the binary embeds.

use crate::auth::AuthConfig;
use crate::cache::{CacheConfig, Place};
use crate::cors;
use crate::deployments::DeploymentConfig;
use crate::limit::RatesConfig;
use crate::remote_content;
use chassis::grpc::{ClientConfig, DoorsConfig};
use chassis::state::StateConfig;
use chassis::tls::ServerTlsConfig;
use chassis::{Configured, Problems, ServiceConfig};
use serde::Deserialize;

/// Everything under `[edge]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    pub service: ServiceConfig,
    /// TLS of the port that callers reach.
    pub tls: ServerTlsConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// How strictly the contract is read.
    pub api: ApiConfig,
    /// Which pages of other sites may read answers in a browser.
    pub cors: CorsConfig,
    /// Bounds of everything a caller sends.
    pub limits: LimitsConfig,
    /// How much callers may ask for.
    pub rates: RatesConfig,
    /// Where it is counted.
    pub state: StateConfig,
    /// Which answers are given again.
    pub cache: CacheConfig,
    /// Who answers a request that names no deployment.
    pub defaults: DefaultsConfig,
    /// Deployments besides the models that the services list.
    #[serde(default)]
    pub deployments: Vec<DeploymentConfig>,
    /// How the services are asked for their models.
    pub discovery: DiscoveryConfig,
    /// Content safety around requests.
    pub guard: GuardConfig,
    /// What is shown at the doors of the services.
    pub doors: DoorsConfig,
    /// Where the chat service is.
    pub chat: ClientConfig,
    /// Where the embedding service is.
    pub embedding: ClientConfig,
    /// Where the content-safety service is.
    pub content_safety: ClientConfig,
}

/// How strictly the contract is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Which values of `api-version` are accepted.
    pub versions: Versions,
    /// What an absent `extra-parameters` header means.
    pub extra_parameters: ExtraDefault,
    /// Names accepted on the inference routes besides those of their API.
    pub also_known: Vec<String>,
    /// Hosts of URLs in conversations that model servers may be given; empty means none.
    pub remote_hosts: Vec<String>,
    /// Whose the routes under `/` are: `""` the sole deployment's where there is but one, `"none"` requests choose.
    pub root: String,
    /// Whether the description of the API is served.
    pub docs: bool,
}

/// Which pages of other sites may read answers in a browser.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Their origins, `*` for all; empty means none.
    pub allowed_origins: Vec<String>,
}

/// Which values of `api-version` are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Versions {
    /// The published ones.
    Strict,
    /// Any date of their form since the first one.
    Lenient,
}

/// What an absent `extra-parameters` header means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraDefault {
    /// Refuse.
    Error,
    /// Remove.
    Drop,
    /// Hand to the model.
    PassThrough,
}

/// Bounds of everything a caller sends.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Largest request body.
    pub body_bytes: usize,
    /// Bodies of all requests together.
    pub bodies_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout_ms: u64,
    /// Most bytes of a request line with its headers.
    pub header_bytes: usize,
    /// How long the headers of a request may take, and how long an idle connection is kept.
    pub header_timeout_ms: u64,
    /// How long a request may take, to the last byte.
    pub request_timeout_ms: u64,
    /// Connections open at the same time.
    pub connections: usize,
    /// Most inputs of one embeddings request.
    pub embedding_inputs: usize,
    /// Most images of one image embeddings request.
    pub image_inputs: usize,
}

/// Who answers a request that names no deployment: `""` the first of its kind, `"none"` no one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultsConfig {
    /// `POST /chat/completions`
    pub chat: String,
    /// `POST /completions`
    pub completions: String,
    /// `POST /embeddings`
    pub embeddings: String,
    /// `POST /images/embeddings`
    pub image_embeddings: String,
}

/// How the services are asked for their models.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// How often.
    pub refresh_ms: u64,
    /// Pause between attempts until every service has answered once.
    pub retry_ms: u64,
    /// How long a service that does not answer keeps an edge that has others from being ready.
    pub wait_ms: u64,
    /// How long one attempt may take.
    pub timeout_ms: u64,
}

/// Content safety around requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardConfig {
    /// Policy of deployments that name none; empty screens nothing.
    pub policy: String,
    /// What an unreachable content-safety service means.
    pub when_unavailable: WhenUnavailable,
    /// Whether a streamed reply waits for its verdicts.
    pub stream_filter: StreamFilter,
    /// Whether models are asked only once the prompt is cleared.
    pub prompt_first: bool,
    /// Whether annotations say why.
    pub explain: bool,
    /// How long one judgement may take.
    pub timeout_ms: u64,
    /// Characters of a streamed reply that are judged together.
    pub window_chars: usize,
    /// Characters before a window that are judged again with it.
    pub context_chars: usize,
    /// How long a blocked stream may wait for the backend's token counts.
    pub usage_wait_ms: u64,
    /// Whether inputs of `/embeddings` are screened.
    pub embeddings: bool,
}

/// Whether a streamed reply waits for its verdicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamFilter {
    /// It is held back window by window.
    #[default]
    Buffered,
    /// It leaves at once, verdicts follow.
    Asynchronous,
}

/// What an unreachable content-safety service means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnavailable {
    /// 503.
    #[default]
    Refuse,
    /// The request goes on, annotated as unchecked.
    Allow,
}

impl Configured for Config {
    fn service(&self) -> &ServiceConfig {
        &self.service
    }

    fn check(&self, problems: &mut Problems) {
        let limits = &self.limits;
        for (option, value) in [
            ("limits.body_bytes", limits.body_bytes),
            ("limits.connections", limits.connections),
            ("limits.embedding_inputs", limits.embedding_inputs),
            ("limits.image_inputs", limits.image_inputs),
            ("guard.window_chars", self.guard.window_chars),
        ] {
            if value == 0 {
                problems.add(option, "must be at least 1");
            }
        }
        for (option, value) in [
            ("limits.body_timeout_ms", limits.body_timeout_ms),
            ("limits.header_timeout_ms", limits.header_timeout_ms),
            ("limits.request_timeout_ms", limits.request_timeout_ms),
            ("discovery.refresh_ms", self.discovery.refresh_ms),
            ("discovery.retry_ms", self.discovery.retry_ms),
            ("discovery.timeout_ms", self.discovery.timeout_ms),
            ("guard.timeout_ms", self.guard.timeout_ms),
            ("state.timeout_ms", self.state.timeout_ms),
            ("auth.reload_ms", self.auth.reload_ms),
        ] {
            if value == 0 {
                problems.add(option, "must be at least 1 millisecond");
            }
        }
        if limits.header_bytes < LEAST_HEADER_BYTES {
            problems.add("limits.header_bytes", format!("must be at least {LEAST_HEADER_BYTES}"));
        }
        if limits.bodies_bytes < limits.body_bytes {
            problems.add("limits.bodies_bytes", "must be at least `limits.body_bytes`");
        }
        self.check_callees(problems);
        self.tls.check("tls", problems);
        self.doors.check(problems);
        self.state.check(problems);
        self.rates.check(problems);
        self.auth.check(&self.rates, problems);
        self.check_hosts(problems);
        self.check_cache(problems);
        self.check_policies(problems);
        self.check_deployments(problems);
    }

    fn check_files(&self, problems: &mut Problems) {
        if self.tls.is_on() {
            self.tls.check_files("tls", problems);
        }
        self.doors.check_files(problems);
        self.state.check_files(problems);
        crate::auth::check_files(self, problems);
    }

    fn state(&self) -> Option<&StateConfig> {
        Some(&self.state)
    }

    fn takes_at_once(option: &str) -> bool {
        let Some(option) = option.strip_prefix("edge.") else { return false };
        !NEED_A_RESTART.iter().any(|prefix| option.starts_with(prefix))
    }
}

/// Options, or beginnings of such, that are read at the start alone. `config.toml` names them under `reload_ms`.
const NEED_A_RESTART: [&str; 8] = [
    "service.",
    "tls.",
    "state.",
    "cache.",
    "limits.connections",
    "limits.bodies_bytes",
    "rates.queue_length",
    "rates.when_unavailable",
];

/// hyper refuses a smaller buffer.
const LEAST_HEADER_BYTES: usize = 8192;

impl Config {
    fn check_callees(&self, problems: &mut Problems) {
        if self.chat.endpoints.is_empty() && self.embedding.endpoints.is_empty() {
            problems.add(
                "chat.endpoints",
                "name a chat or an embedding service; there is nothing to serve",
            );
        }
        for (option, client) in [
            ("chat", &self.chat),
            ("embedding", &self.embedding),
            ("content_safety", &self.content_safety),
        ] {
            client.check(option, &self.doors, problems);
        }
    }

    fn check_cache(&self, problems: &mut Problems) {
        for (option, value) in [
            ("cache.ttl_secs", self.cache.ttl_secs),
            ("cache.verdict_ttl_secs", self.cache.verdict_ttl_secs),
        ] {
            if value == 0 {
                problems.add(option, "must be at least 1 second; turn a cache off by its name");
            }
        }
        if self.cache.store == Place::Redis && self.state.redis_url.expose().is_empty() {
            problems.add("cache.store", "is `redis`, but `edge.state.redis_url` names none");
        }
    }

    fn check_hosts(&self, problems: &mut Problems) {
        for (i, origin) in self.cors.allowed_origins.iter().enumerate() {
            if !cors::is_origin(origin) {
                let expected =
                    "must be `*` or an origin such as `https://app.example.com`, without a path";
                problems.add(&format!("cors.allowed_origins[{i}]"), expected);
            }
        }
        for (i, host) in self.api.remote_hosts.iter().enumerate() {
            if !remote_content::is_host(host) {
                let expected = "must be the name of a host, such as `images.example.com` or `*.example.com`, or `*`";
                problems.add(&format!("api.remote_hosts[{i}]"), expected);
            }
        }
    }

    fn check_policies(&self, problems: &mut Problems) {
        let named = self.deployments.iter().filter_map(|d| d.policy.as_deref());
        let screened =
            std::iter::once(self.guard.policy.as_str()).chain(named).any(|p| !p.is_empty());
        if screened && self.content_safety.endpoints.is_empty() {
            problems.add("content_safety.endpoints", "is empty, but a safety policy is named");
        }
    }

    fn check_deployments(&self, problems: &mut Problems) {
        let mut seen = std::collections::HashSet::new();
        for (i, deployment) in self.deployments.iter().enumerate() {
            if deployment.name.is_empty() {
                problems.add(&format!("deployments[{i}].name"), "must not be empty");
            }
            if !seen.insert(deployment.name.to_lowercase()) {
                let name = &deployment.name;
                problems.add(&format!("deployments[{i}].name"), format!("`{name}` is named twice"));
            }
            if deployment
                .fallback
                .as_deref()
                .is_some_and(|f| f.eq_ignore_ascii_case(&deployment.name))
            {
                problems.add(&format!("deployments[{i}].fallback"), "must be another deployment");
            }
        }
    }
}

#[cfg(test)]
mod tests;
