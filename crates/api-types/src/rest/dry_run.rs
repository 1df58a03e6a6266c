//! What would become of a request: the answer of the routes under `/dry-run`.
//!
//! Ours, not the published API's. Everything that is decided before a model is asked is told at once, also what the real request
//! would not have come to because something else refused it first.

use super::{ContentFilterResults, ErrorBody};
use schemars::JsonSchema;
use serde::Serialize;

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DryRun {
    /// The HTTP status it would be answered with now, as far as that is known before a model is asked.
    pub status: u16,
    /// The body it would be refused with; none where the model would be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// Who would answer.
    pub deployment: DeploymentForecast,
    /// What becomes of parameters that are not part of the API.
    pub parameters: ParametersForecast,
    /// Whether the limits of the caller and of the deployment let it pass.
    pub limits: LimitsForecast,
    /// What content safety says of it; none where the deployment is not screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_safety: Option<SafetyForecast>,
}

/// Who would answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeploymentForecast {
    /// The deployment.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Which weights; none where the service does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The deployment that would answer this request in its place while its model cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// What becomes of parameters that are not part of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ParametersForecast {
    /// Those that the model would not get.
    pub dropped: Vec<String>,
    /// Those that it would get.
    pub passed_through: Vec<String>,
}

/// Whether the limits let a request pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LimitsForecast {
    /// What they would do with it.
    pub outcome: LimitsOutcome,
    /// Tokens it is taken to send.
    pub prompt_tokens: u64,
    /// Tokens it is taken to be answered with at most.
    pub completion_tokens: u64,
    /// Every limit that applies to it.
    pub applied: Vec<LimitForecast>,
}

/// What limits do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitsOutcome {
    /// It passes.
    Admitted,
    /// It waits for a slot of the deployment.
    Queued,
    /// It is refused.
    Refused,
}

/// One limit, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LimitForecast {
    /// For example `tokens_per_minute`.
    pub limit: &'static str,
    /// `caller` or `deployment`.
    pub of: &'static str,
    /// Most that may be taken.
    pub most: u64,
    /// Taken already.
    pub used: u64,
    /// What the request would take.
    pub takes: u64,
    /// Until the request fits, if nobody takes more; 0 where it fits. Nobody knows when a slot comes back.
    pub fits_in_ms: u64,
}

/// What content safety says of a request.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SafetyForecast {
    /// The policy.
    pub policy: String,
    /// Whether it would block the prompt.
    pub blocked: bool,
    /// What was found; none where there was nothing to look at, or nobody to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_filter_results: Option<ContentFilterResults>,
}
