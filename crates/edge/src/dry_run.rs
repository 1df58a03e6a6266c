//! What would become of a request: everything that is decided before a model is asked, and nothing of it done.
//!
//! Separate because it is the handlers' other ending: they come here with what they would have gone on with, so that a dry run
//! cannot differ from the real one. It takes nothing from the limits that it tells of; itself it counts as a request to `dry-run`.

use crate::app::App;
use crate::context::Context;
use crate::deployments::Deployment;
use crate::error::{self, ApiError};
use crate::events::Step;
use crate::extract::Head;
use crate::guard::{Prompt, Screening, Verdict};
use crate::limit::Estimate;
use api_types::Fault;
use api_types::rest::dry_run::{DeploymentForecast, DryRun, ParametersForecast, SafetyForecast};
use api_types::rest::{ErrorBody, Fields};
use axum::Json;
use axum::response::{IntoResponse as _, Response};

/// What limits call dry runs.
const NAME: &str = "dry-run";

/// What a handler knows when it would ask the model.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Who would answer.
    pub deployment: &'a Deployment,
    /// Whether its fallback could.
    pub spare: bool,
    /// Parameters that it would not get, besides those that `Head` knows of.
    pub dropped: Vec<String>,
    /// Those that it would get, as a JSON object; empty for none.
    pub extra_json: String,
    /// What it is taken to cost.
    pub estimate: Estimate,
    /// What would be judged, and how.
    pub screened: (&'a Screening, Prompt),
}

impl App {
    /// What would become of the request.
    ///
    /// # Errors
    /// When the caller asks too often.
    pub async fn foresee(&self, head: Head, plan: Plan<'_>) -> Result<Response, ApiError> {
        head.admit(self, NAME, Estimate::default()).await?;
        let name = &plan.deployment.name;
        let limits = self.limits.foresee(&head.caller, name, plan.estimate).await;
        let (screening, prompt) = plan.screened;
        let safety = if screening.is_off() {
            None
        } else {
            let judged = Box::pin(self.guard.judge_prompt(screening, prompt));
            Some(head.record.timed(Step::SafetyIn, judged).await)
        };
        let refused = match (limits.refusal, &safety) {
            (Some(fault), _) => Some(ApiError::from(fault)),
            (None, Some(Err(fault))) => Some(ApiError::from(fault.clone())),
            (None, Some(Ok(Some(Verdict { blocked: true, found })))) => {
                Some(ApiError::blocked(found.clone()))
            }
            (None, None | Some(Ok(_))) => None,
        };
        let mut dropped = head.dropped;
        dropped.extend(plan.dropped);
        let (status, error) = ending(refused.as_ref(), &head.context);
        let forecast = DryRun {
            status,
            error,
            deployment: deployment(plan.deployment, plan.spare),
            parameters: ParametersForecast { dropped, passed_through: names(&plan.extra_json) },
            limits: limits.told,
            content_safety: safety.map(|found| told(screening, found)),
        };
        Ok(Json(forecast).into_response())
    }
}

fn ending(refused: Option<&ApiError>, context: &Context) -> (u16, Option<ErrorBody>) {
    match refused {
        Some(refused) => {
            let (status, body) = error::foreseen(refused, context);
            (status, Some(body))
        }
        None => (200, None),
    }
}

fn deployment(deployment: &Deployment, has_spare: bool) -> DeploymentForecast {
    let Deployment { name, model, version, fallback, .. } = deployment;
    DeploymentForecast {
        name: name.clone(),
        model: model.clone(),
        version: (!version.is_empty()).then(|| version.clone()),
        fallback: fallback.clone().filter(|_| has_spare),
    }
}

fn names(extra_json: &str) -> Vec<String> {
    let fields: Fields = serde_json::from_str(extra_json).unwrap_or_default();
    fields.into_iter().map(|(name, _)| name).collect()
}

fn told(screening: &Screening, found: Result<Option<Verdict>, Fault>) -> SafetyForecast {
    let policy = screening.policy.clone();
    let found = found.ok().flatten();
    let blocked = found.as_ref().is_some_and(|verdict| verdict.blocked);
    let content_filter_results = found.map(|verdict| verdict.found);
    SafetyForecast { policy, blocked, content_filter_results }
}
