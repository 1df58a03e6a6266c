//! Which limits apply to a request: those of the caller's class and those of the deployment.
//!
//! Separate because it is configuration turned into counters, and nothing is counted here.

use crate::auth::Caller;
use crate::limit::config::{Amounts, Priority, RatesConfig};
use crate::limit::estimate::Estimate;
use crate::limit::store::Answer;
use chassis::state::{Counter, Kind, Taken};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limited {
    RequestsPerMinute,
    RequestsPerDay,
    TokensPerMinute,
    TokensPerDay,
    Concurrent,
}

impl Limited {
    /// For keys and labels.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::RequestsPerDay => "requests_per_day",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::TokensPerDay => "tokens_per_day",
            Self::Concurrent => "concurrent",
        }
    }

    /// For people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "request rate limit",
            Self::RequestsPerDay => "daily request quota",
            Self::TokensPerMinute => "token rate limit",
            Self::TokensPerDay => "daily token quota",
            Self::Concurrent => "concurrent request limit",
        }
    }

    pub(super) const fn window(self) -> Option<Duration> {
        match self {
            Self::RequestsPerMinute | Self::TokensPerMinute => Some(MINUTE),
            Self::RequestsPerDay | Self::TokensPerDay => Some(DAY),
            Self::Concurrent => None,
        }
    }

    pub(super) const fn is_tokens(self) -> bool {
        match self {
            Self::TokensPerMinute | Self::TokensPerDay => true,
            Self::RequestsPerMinute | Self::RequestsPerDay | Self::Concurrent => false,
        }
    }

    pub(super) const fn is_slots(self) -> bool {
        self.window().is_none()
    }
}

impl Of {
    /// For callers.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Deployment => "deployment",
        }
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Caller,
    Deployment,
}

/// One limit, and what the request takes from it.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) what: Limited,
    pub(super) of: Of,
    pub(super) limit: u64,
    pub(super) amount: u64,
    pub(super) key: String,
}

impl Rule {
    pub(super) fn counter(&self) -> Counter {
        let kind = match self.what.window() {
            Some(window) => Kind::Rate { window, amount: self.amount },
            None => Kind::Slots,
        };
        Counter { key: self.key.clone(), limit: self.limit, kind }
    }
}

/// The limits that apply to one request.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) deployment: String,
    pub(super) caller: String,
    pub(super) priority: Priority,
    pub(super) estimate: Estimate,
    pub(super) list: Vec<Rule>,
}

impl Rules {
    pub(super) fn of(
        config: &RatesConfig,
        caller: &Caller,
        deployment: &str,
        estimate: Estimate,
    ) -> Self {
        let name = caller.class.as_deref().unwrap_or(&config.default_class);
        let class = config.classes.iter().find(|class| class.name == name);
        let of_caller = class.map(|class| {
            let over = class.overrides.iter().find(|over| over.deployments.fit(deployment));
            over.map_or(&class.limits, |over| &over.limits)
        });
        let of_deployment = config.deployments.iter().find(|d| d.deployments.fit(deployment));
        let mut rules = Self {
            deployment: deployment.to_owned(),
            caller: caller.name.clone(),
            priority: class.map(|class| class.priority).unwrap_or_default(),
            estimate,
            list: Vec::new(),
        };
        // Those of the caller first: of two limits that are equally near, it hears of its own.
        if let Some(amounts) = of_caller {
            rules.add(Of::Caller, amounts);
        }
        if let Some(deployment) = of_deployment {
            rules.add(Of::Deployment, &deployment.limits);
        }
        rules
    }

    fn add(&mut self, of: Of, amounts: &Amounts) {
        let Amounts {
            requests_per_minute,
            requests_per_day,
            tokens_per_minute,
            tokens_per_day,
            concurrent,
        } = *amounts;
        // In braces what keeps all counters of a request in one slot of a Redis cluster.
        let deployment = self.deployment.to_lowercase();
        let owner = match of {
            Of::Caller => format!("rate:{{{deployment}}}:of:{}", self.caller),
            Of::Deployment => format!("rate:{{{deployment}}}:all"),
        };
        let tokens = self.estimate.total();
        for (what, limit, amount) in [
            (Limited::RequestsPerMinute, requests_per_minute, 1),
            (Limited::RequestsPerDay, requests_per_day, 1),
            (Limited::TokensPerMinute, tokens_per_minute, tokens),
            (Limited::TokensPerDay, tokens_per_day, tokens),
            (Limited::Concurrent, concurrent, 1),
        ] {
            let Some(limit) = limit else { continue };
            if what.is_tokens() && tokens == 0 {
                continue;
            }
            let key = format!("{owner}:{}", what.as_str());
            // More than the limit never fits; a request that large waits for an empty window, and settles what it really cost.
            self.list.push(Rule { what, of, limit, amount: amount.min(limit), key });
        }
    }

    /// Whether requests may have to wait for the deployment.
    pub(super) fn queues(&self) -> bool {
        self.list.iter().any(Rule::is_deployment_slots)
    }

    /// Whether nothing but a slot of the deployment is missing.
    pub(super) fn lack_a_slot(&self, answer: &Answer) -> bool {
        self.lack_only(answer, Rule::is_deployment_slots)
    }

    /// Whether nothing but a slot of the caller is missing.
    pub(super) fn lack_own_slot(&self, answer: &Answer) -> bool {
        self.lack_only(answer, |rule| rule.of == Of::Caller && rule.what.is_slots())
    }

    fn lack_only(&self, answer: &Answer, this: impl Fn(&Rule) -> bool) -> bool {
        let Answer::Counted(taken, _) = answer else { return false };
        let refusing = self.list.iter().zip(&taken.standings).filter(|(_, s)| !s.wait.is_zero());
        !taken.admitted && refusing.map(|(rule, _)| rule).all(this)
    }

    /// What keeps the request out longest, and how long; none where it is admitted.
    pub(super) fn refused_by(&self, taken: &Taken) -> Option<(Limited, Duration)> {
        let refusing = self.list.iter().zip(&taken.standings).filter(|(_, s)| !s.wait.is_zero());
        refusing.map(|(rule, standing)| (rule.what, standing.wait)).max_by_key(|(_, wait)| *wait)
    }
}

impl Rule {
    fn is_deployment_slots(&self) -> bool {
        self.of == Of::Deployment && self.what.is_slots()
    }
}
