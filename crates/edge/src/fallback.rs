//! A request as each deployment that may answer it gets it: the one that was asked for, and the one that answers in its place.
//!
//! Separate from the clients, which ask one model, and from the table, which only names the fallback. The invariants: the fallback
//! is asked at most once and only before the first byte; whom the request is counted and screened for does not change.

use crate::app::App;
use crate::deployments::{Deployment, Modality};
use crate::events;
use api_types::{ErrorCode, Fault};
use std::sync::Arc;

/// A request as one deployment gets it.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// Who answers.
    pub deployment: Arc<Deployment>,
    /// What it is asked.
    pub request: T,
}

/// A request as each deployment that may answer it gets it.
#[derive(Debug, Clone)]
pub struct Candidates<T> {
    first: Candidate<T>,
    spare: Option<Candidate<T>>,
}

impl<T> Candidates<T> {
    /// `request` for `deployment`, and what its fallback would be asked.
    #[must_use]
    pub const fn new(deployment: Arc<Deployment>, request: T, spare: Option<Candidate<T>>) -> Self {
        Self { first: Candidate { deployment, request }, spare }
    }

    /// What the first answers; what the fallback answers where the first cannot.
    ///
    /// # Errors
    /// Of whoever was asked last.
    pub async fn ask<R, F>(self, ask: impl Fn(Candidate<T>) -> F) -> Result<R, Fault>
    where
        F: Future<Output = Result<R, Fault>>,
    {
        let name = self.spare.is_some().then(|| self.first.deployment.name.clone());
        let fault = match (ask(self.first).await, &self.spare) {
            (Err(fault), Some(_)) if steps_in(fault.code) => fault,
            (done, _) => return done,
        };
        let (Some(spare), Some(name)) = (self.spare, name) else { return Err(fault) };
        events::fell_back(&name, &spare.deployment.name, fault.code);
        ask(spare).await
    }
}

/// Whether another model may fare better.
const fn steps_in(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::RateLimited
            | ErrorCode::UpstreamFailed
            | ErrorCode::Unavailable
            | ErrorCode::Timeout
    )
}

impl App {
    /// What the fallback of `deployment` would be asked by `request`; none where there is no fallback, or it cannot do what
    /// the request wants.
    pub fn spare<T>(
        &self,
        deployment: &Deployment,
        modality: Modality,
        request: impl FnOnce(&Deployment) -> Result<T, Fault>,
    ) -> Option<Candidate<T>> {
        let spare = Arc::clone(self.table().get(deployment.fallback.as_deref()?)?);
        if !spare.serves(modality) {
            return None;
        }
        let request = request(&spare).ok()?;
        Some(Candidate { deployment: spare, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_that_another_model_may_not_have_fall_back() {
        let falls_back: Vec<_> = ErrorCode::ALL.into_iter().filter(|c| steps_in(*c)).collect();
        assert_eq!(
            falls_back,
            [
                ErrorCode::RateLimited,
                ErrorCode::UpstreamFailed,
                ErrorCode::Unavailable,
                ErrorCode::Timeout,
            ]
        );
    }
}
