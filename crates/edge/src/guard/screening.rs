//! How a request is screened: what the configuration says of its deployment, and the key of its caller.
//!
//! Separate so that it is settled once, before anything is asked, and travels as one thing.

use crate::config::{GuardConfig, StreamFilter, WhenUnavailable};
use crate::deployments::DeploymentConfig;

/// How a request is screened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Screening {
    /// Name of the policy; empty screens nothing.
    pub policy: String,
    /// What an unreachable service means.
    pub when_unavailable: WhenUnavailable,
    /// Whether a streamed reply waits for its verdicts.
    pub stream_filter: StreamFilter,
    /// Whether the model is asked only once the prompt is cleared.
    pub prompt_first: bool,
    /// Whether verdicts are recorded and nothing is blocked.
    pub shadow: bool,
}

impl Screening {
    /// Of deployments of which the configuration says nothing.
    #[must_use]
    pub fn of(config: &GuardConfig) -> Self {
        Self {
            policy: config.policy.clone(),
            when_unavailable: config.when_unavailable,
            stream_filter: config.stream_filter,
            prompt_first: config.prompt_first,
            shadow: false,
        }
    }

    /// Of the deployment that `over` describes.
    #[must_use]
    pub fn of_deployment(config: &GuardConfig, over: &DeploymentConfig) -> Self {
        Self {
            policy: over.policy.as_ref().unwrap_or(&config.policy).clone(),
            when_unavailable: over.when_unavailable.unwrap_or(config.when_unavailable),
            stream_filter: over.stream_filter.unwrap_or(config.stream_filter),
            prompt_first: over.prompt_first.unwrap_or(config.prompt_first),
            shadow: false,
        }
    }

    /// Whether nothing is screened.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.policy.is_empty()
    }
}
