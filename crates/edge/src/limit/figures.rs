//! How a caller's limits stand, as the headers of its answer (contract, section 16.1).
//!
//! Of several limits of a kind the nearest is shown: the one with the least left.

use crate::limit::rules::{Limited, Rule, Rules};
use chassis::state::{Standing, Taken};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
/// Which kind of limit refused, in the words of the cloud service.
const POLICY_ID: HeaderName = HeaderName::from_static("policy-id");

/// How the limits of a request stand, its own share taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    requests: Option<Figure>,
    tokens: Option<Figure>,
    refused: Option<Limited>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Figure {
    limit: u64,
    remaining: u64,
    resets_in: Duration,
}

impl Figures {
    /// The figures of a request that asked.
    pub(super) fn of(rules: &Rules, taken: &Taken) -> Self {
        let mut figures = Self::default();
        for (rule, standing) in rules.list.iter().zip(&taken.standings) {
            let amount = if taken.admitted { rule.amount } else { 0 };
            figures.add(rule, standing, amount);
        }
        figures.refused = rules.refused_by(taken).map(|(what, _)| what);
        figures
    }

    /// The figures of a request that only looked at the rates.
    pub(super) fn of_rates(rules: &Rules, looked: &Taken) -> Self {
        let mut figures = Self::default();
        let rates = rules.list.iter().filter(|rule| !rule.what.is_slots());
        for (rule, standing) in rates.zip(&looked.standings) {
            figures.add(rule, standing, 0);
        }
        figures
    }

    /// The same of a request that was refused.
    pub(super) const fn refused(mut self, what: Limited) -> Self {
        self.refused = Some(what);
        self
    }

    fn add(&mut self, rule: &Rule, standing: &Standing, amount: u64) {
        let slot = match rule.what {
            Limited::RequestsPerMinute | Limited::RequestsPerDay => &mut self.requests,
            Limited::TokensPerMinute | Limited::TokensPerDay => &mut self.tokens,
            Limited::Concurrent => return,
        };
        let remaining = rule.limit.saturating_sub(standing.used.saturating_add(amount));
        let figure = Figure { limit: rule.limit, remaining, resets_in: standing.resets_in };
        if slot.is_none_or(|nearest| remaining < nearest.remaining) {
            *slot = Some(figure);
        }
    }

    /// Writes the headers: limit and what remains on every answer, when it is all there again on a refusal.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (figure, [limit, remaining, reset]) in [
            (self.requests, [LIMIT_REQUESTS, REMAINING_REQUESTS, RESET_REQUESTS]),
            (self.tokens, [LIMIT_TOKENS, REMAINING_TOKENS, RESET_TOKENS]),
        ] {
            let Some(figure) = figure else { continue };
            headers.insert(limit, figure.limit.into());
            headers.insert(remaining, figure.remaining.into());
            if self.refused.is_some() {
                let seconds = figure.resets_in.as_millis().div_ceil(1000);
                headers.insert(reset, u64::try_from(seconds).unwrap_or(u64::MAX).into());
            }
        }
        if let Some(what) = self.refused {
            headers.insert(POLICY_ID, HeaderValue::from_static(policy(what)));
        }
    }
}

const fn policy(what: Limited) -> &'static str {
    match what {
        Limited::RequestsPerMinute | Limited::RequestsPerDay => "DeploymentRatelimit-Call",
        Limited::TokensPerMinute | Limited::TokensPerDay => "DeploymentRatelimit-Token",
        Limited::Concurrent => "DeploymentRatelimit-Concurrency",
    }
}
