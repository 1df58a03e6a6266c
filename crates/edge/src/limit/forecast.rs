//! What limits would do with a request at this moment: asked without taking, told rule by rule.
//!
//! Separate because nothing here admits anybody. A slot may be free, and the caller still be too late for it.

use super::{Limits, refusal, uncounted};
use crate::auth::Caller;
use crate::limit::estimate::Estimate;
use crate::limit::rules::{Rule, Rules};
use crate::limit::store::Answer;
use api_types::Fault;
use api_types::rest::dry_run::{LimitForecast, LimitsForecast, LimitsOutcome};
use chassis::state::{Demand, Standing};
use std::time::Duration;

/// What limits would do with a request.
#[derive(Debug)]
pub struct Forecast {
    /// What they would refuse it with.
    pub refusal: Option<Fault>,
    /// The same, and how each limit stands.
    pub told: LimitsForecast,
}

impl Limits {
    /// What `admit` would do with the same request now. Takes nothing and does not wait.
    pub async fn foresee(&self, caller: &Caller, deployment: &str, estimate: Estimate) -> Forecast {
        let inner = &self.inner;
        let rules = Rules::of(&inner.config, caller, deployment, estimate);
        let counters = rules.list.iter().map(Rule::counter).collect();
        let look = Demand { id: String::new(), lease: Duration::ZERO, counters };
        let answer = match rules.list.as_slice() {
            [] => Answer::Free,
            _ => inner.store.take(&look).await,
        };
        let waits = rules.lack_a_slot(&answer) && inner.config.queue_length > 0;
        let (refusal, applied) = match answer {
            Answer::Counted(taken, _) => {
                let refused = rules.refused_by(&taken).filter(|_| !waits);
                let refusal = refused.map(|(what, wait)| refusal(what, wait));
                let told = rules.list.iter().zip(&taken.standings).map(|(r, s)| forecast(r, s));
                (refusal, told.collect())
            }
            Answer::Free => (None, Vec::new()),
            Answer::Unavailable => (Some(uncounted()), Vec::new()),
        };
        let outcome = match (&refusal, waits) {
            (Some(_), _) => LimitsOutcome::Refused,
            (None, true) => LimitsOutcome::Queued,
            (None, false) => LimitsOutcome::Admitted,
        };
        let Estimate { prompt, completion } = estimate;
        let told = LimitsForecast {
            outcome,
            prompt_tokens: prompt,
            completion_tokens: completion,
            applied,
        };
        Forecast { refusal, told }
    }
}

fn forecast(rule: &Rule, standing: &Standing) -> LimitForecast {
    LimitForecast {
        limit: rule.what.as_str(),
        of: rule.of.as_str(),
        most: rule.limit,
        used: standing.used,
        takes: rule.amount,
        fits_in_ms: u64::try_from(standing.wait.as_millis()).unwrap_or(u64::MAX),
    }
}
