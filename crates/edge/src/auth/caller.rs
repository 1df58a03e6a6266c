//! Who calls, and what they may do.
//!
//! Separate from how callers prove it, because a key, a token and an open door all end in the same `Caller`.

use crate::context::Family;
use crate::events::Route;
use crate::globs::Globs;
use api_types::{ErrorCode, Fault};
use serde::Deserialize;

/// Name of callers where nobody has to prove anything.
const ANYBODY: &str = "anybody";

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What limits are counted by and the log says; unlike that of any other caller.
    pub name: String,
    /// Their rate class; none means the default one.
    pub class: Option<String>,
    /// Whether safety policies only record what they would block.
    pub shadow: bool,
    /// None may do everything.
    scopes: Option<Vec<Scope>>,
}

impl Caller {
    /// A caller that may do what any of `scopes` says.
    #[must_use]
    pub const fn new(name: String, class: Option<String>, scopes: Vec<Scope>) -> Self {
        Self { name, class, shadow: false, scopes: Some(scopes) }
    }

    /// The same, whose requests safety policies only look at where `shadow` says so.
    #[must_use]
    pub fn in_shadow(self, shadow: bool) -> Self {
        Self { shadow, ..self }
    }

    /// A caller that may do everything.
    #[must_use]
    pub const fn unrestricted(name: String) -> Self {
        Self { name, class: None, shadow: false, scopes: None }
    }

    /// Everybody, where no one has to prove anything.
    #[must_use]
    pub fn anybody() -> Self {
        Self::unrestricted(ANYBODY.to_owned())
    }

    /// Whether the caller may use `route` at all.
    ///
    /// # Errors
    /// 403.
    pub fn may_call(&self, route: Route, family: Family) -> Result<(), Fault> {
        self.permit("route", |scope| scope.has_route(route, family))
    }

    /// Whether the caller may use `route` with `deployment`.
    ///
    /// # Errors
    /// 403.
    pub fn may_use(&self, deployment: &str, route: Route, family: Family) -> Result<(), Fault> {
        self.permit("deployment", |scope| {
            scope.has_route(route, family) && scope.has_deployment(deployment)
        })
    }

    fn permit(&self, what: &str, permits: impl Fn(&Scope) -> bool) -> Result<(), Fault> {
        if self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(permits)) {
            return Ok(());
        }
        let message = format!("The principal lacks the required permission for this {what}.");
        Err(Fault::new(ErrorCode::PermissionDenied, message))
    }
}

/// What one key, or one claim of a token, permits.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// None permits all.
    pub areas: Option<Vec<Area>>,
    /// None permits all.
    pub deployments: Option<Globs>,
}

impl Scope {
    fn has_route(&self, route: Route, family: Family) -> bool {
        self.areas.as_ref().is_none_or(|areas| areas.iter().any(|a| a.covers(route, family)))
    }

    fn has_deployment(&self, name: &str) -> bool {
        self.deployments.as_ref().is_none_or(|globs| globs.fit(name))
    }
}

/// Routes that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// The routes of the inference API: `/`, `/models`, `/api/models`.
    Inference,
    /// The routes of OpenAI and Azure OpenAI.
    Openai,
    /// `/contentsafety`.
    #[serde(alias = "content_safety")]
    ContentSafety,
    /// Conversations, by whichever route.
    Chat,
    /// Raw prompts.
    Completions,
    /// Vectors of texts.
    Embeddings,
    /// Vectors of images.
    Images,
    /// Which models there are: `/info` and lists of models.
    Models,
}

impl Area {
    const fn covers(self, route: Route, family: Family) -> bool {
        match self {
            Self::Inference => matches!(family, Family::Inference),
            Self::Openai => family.is_openai(),
            Self::ContentSafety => matches!(family, Family::ContentSafety),
            Self::Chat => matches!(route, Route::ChatCompletions),
            Self::Completions => matches!(route, Route::Completions),
            Self::Embeddings => matches!(route, Route::Embeddings),
            Self::Images => matches!(route, Route::ImageEmbeddings),
            Self::Models => matches!(route, Route::Info | Route::Models),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(areas: &[Area], deployments: &[&str]) -> Scope {
        let globs = deployments.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
        Scope { areas: Some(areas.to_vec()), deployments: Globs::try_from(globs).ok() }
    }

    #[test]
    fn areas_are_families_or_what_a_route_does() {
        for (area, route, family, covered) in [
            (Area::Inference, Route::ChatCompletions, Family::Inference, true),
            (Area::Inference, Route::ChatCompletions, Family::OpenAi, false),
            (Area::Openai, Route::Embeddings, Family::Deployments, true),
            (Area::Chat, Route::ChatCompletions, Family::OpenAi, true),
            (Area::Chat, Route::Embeddings, Family::OpenAi, false),
            (Area::ContentSafety, Route::ContentSafety, Family::ContentSafety, true),
            (Area::Models, Route::Info, Family::Inference, true),
            (Area::Images, Route::ImageEmbeddings, Family::Inference, true),
            (Area::Completions, Route::Unknown, Family::Inference, false),
        ] {
            assert_eq!(area.covers(route, family), covered, "{area:?} {route:?} {family:?}");
        }
    }

    #[test]
    fn route_and_deployment_must_come_from_the_same_scope() {
        let scopes =
            vec![scope(&[Area::Chat], &["gpt-*"]), scope(&[Area::Embeddings], &["vectors"])];
        let caller = Caller::new("team".into(), None, scopes);
        let may = |name, route| caller.may_use(name, route, Family::OpenAi).is_ok();
        assert!(may("gpt-4o", Route::ChatCompletions) && may("vectors", Route::Embeddings));
        assert!(!may("vectors", Route::ChatCompletions) && !may("gpt-4o", Route::Embeddings));
        assert!(caller.may_call(Route::Embeddings, Family::Inference).is_ok());
        let refused = caller.may_call(Route::Info, Family::Inference).unwrap_err();
        assert_eq!(refused.code, ErrorCode::PermissionDenied);
    }

    #[test]
    fn no_scope_permits_nothing_and_no_restriction_everything() {
        let none = Caller::new("token".into(), None, Vec::new());
        assert!(none.may_call(Route::Info, Family::Inference).is_err());
        assert!(Caller::anybody().may_use("any", Route::Unknown, Family::Inference).is_ok());
        let all = Caller::new("all".into(), None, vec![Scope::default()]);
        assert!(all.may_use("any", Route::Unknown, Family::OpenAi).is_ok());
    }
}
