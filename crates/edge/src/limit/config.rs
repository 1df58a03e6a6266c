//! The options under `[edge.rates]` as types.

use crate::globs::Globs;
use chassis::Problems;
use serde::Deserialize;
use std::collections::HashSet;

/// How much callers may ask for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatesConfig {
    /// Class of callers that name none; empty means no limits.
    pub default_class: String,
    /// Tokens that an answer is taken to have where the request does not say.
    pub completion_tokens: u32,
    /// Requests that wait for a slot of one deployment.
    pub queue_length: usize,
    /// How long they wait.
    pub queue_timeout_ms: u64,
    /// What limits mean while Redis does not answer.
    pub when_unavailable: WhenStateless,
    /// Named limits of callers.
    #[serde(default)]
    pub classes: Vec<ClassConfig>,
    /// Limits of deployments, over all callers.
    #[serde(default)]
    pub deployments: Vec<DeploymentRates>,
}

/// What limits mean while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenStateless {
    /// Each edge counts for itself.
    Local,
    /// 503.
    Refuse,
    /// Nothing is limited.
    Allow,
}

/// Limits of a caller, for each deployment by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// What keys and grants say.
    pub name: String,
    /// Who goes first where requests wait.
    #[serde(default)]
    pub priority: Priority,
    /// For every deployment that no override fits.
    #[serde(default)]
    pub limits: Amounts,
    /// The first that fits takes the place of `limits`.
    #[serde(default)]
    pub overrides: Vec<DeploymentRates>,
}

/// Limits for the deployments of some names.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentRates {
    /// Which.
    pub deployments: Globs,
    /// How much.
    pub limits: Amounts,
}

/// Who goes first where requests wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// People wait for it.
    #[default]
    Interactive,
    /// After everything interactive.
    Batch,
}

/// How much; what is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Requests within 60 seconds.
    pub requests_per_minute: Option<u64>,
    /// Requests within 24 hours.
    pub requests_per_day: Option<u64>,
    /// Tokens, of prompts and answers, within 60 seconds.
    pub tokens_per_minute: Option<u64>,
    /// Tokens within 24 hours.
    pub tokens_per_day: Option<u64>,
    /// Requests at the same time.
    pub concurrent: Option<u64>,
}

impl Amounts {
    const fn all(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("requests_per_minute", self.requests_per_minute),
            ("requests_per_day", self.requests_per_day),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_day", self.tokens_per_day),
            ("concurrent", self.concurrent),
        ]
    }

    fn check(&self, option: &str, problems: &mut Problems) {
        for (name, amount) in self.all() {
            if amount == Some(0) {
                let option = format!("{option}.limits.{name}");
                problems.add(&option, "must be at least 1; leave it out for no limit");
            }
        }
    }
}

impl RatesConfig {
    /// Whether `name` is a class, or empty.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.classes.iter().any(|class| class.name == name)
    }

    /// Notes everything wrong.
    pub fn check(&self, problems: &mut Problems) {
        if !self.knows(&self.default_class) {
            let message = format!("`{}` is not among `edge.rates.classes`", self.default_class);
            problems.add("rates.default_class", message);
        }
        if self.queue_length > 0 && self.queue_timeout_ms == 0 {
            problems.add("rates.queue_timeout_ms", "must be at least 1 millisecond");
        }
        let mut seen = HashSet::new();
        for (i, class) in self.classes.iter().enumerate() {
            let option = format!("rates.classes[{i}]");
            if class.name.is_empty() {
                problems.add(&format!("{option}.name"), "must not be empty");
            }
            if !seen.insert(&class.name) {
                let message = format!("`{}` is named twice", class.name);
                problems.add(&format!("{option}.name"), message);
            }
            class.limits.check(&option, problems);
            for (j, over) in class.overrides.iter().enumerate() {
                over.limits.check(&format!("{option}.overrides[{j}]"), problems);
            }
        }
        for (i, deployment) in self.deployments.iter().enumerate() {
            deployment.limits.check(&format!("rates.deployments[{i}]"), problems);
        }
    }
}
