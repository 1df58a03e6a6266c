//! Which route a path is, for labels of metrics and scopes of keys.
//!
//! Separate because it is known before anything else of a request is.

use crate::context::{DRY_RUN, Family};

/// Which path a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/chat/completions`
    ChatCompletions,
    /// `/completions`
    Completions,
    /// `/embeddings`
    Embeddings,
    /// `/images/embeddings`
    ImageEmbeddings,
    /// `/info`
    Info,
    /// `/v1/models` and below
    Models,
    /// `/contentsafety`
    ContentSafety,
    /// `/openapi.json` and `/docs`
    Description,
    /// Any of the paths above behind `/dry-run`; of metrics alone, for what may be called is what it is of.
    DryRun,
    /// A path that is not served.
    Unknown,
}

impl Route {
    /// The route at the end of `path`.
    #[must_use]
    pub fn of(path: &str, family: Family) -> Self {
        if family == Family::ContentSafety {
            return Self::ContentSafety;
        }
        for (end, route) in [
            ("/chat/completions", Self::ChatCompletions),
            ("/completions", Self::Completions),
            ("/images/embeddings", Self::ImageEmbeddings),
            ("/embeddings", Self::Embeddings),
            ("/info", Self::Info),
            (crate::openapi::DOCUMENT, Self::Description),
            (crate::openapi::PAGE, Self::Description),
        ] {
            if path.ends_with(end) {
                return route;
            }
        }
        let models = family == Family::OpenAi && path.contains("/models");
        if models { Self::Models } else { Self::Unknown }
    }

    /// What it is called in traces: the end of its paths.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::ImageEmbeddings => "/images/embeddings",
            Self::Info => "/info",
            Self::Models => "/models",
            Self::ContentSafety => "/contentsafety",
            Self::Description => crate::openapi::DOCUMENT,
            Self::DryRun => DRY_RUN,
            Self::Unknown => "",
        }
    }

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::ImageEmbeddings => "image_embeddings",
            Self::Info => "info",
            Self::Models => "models",
            Self::ContentSafety => "content_safety",
            Self::Description => "description",
            Self::DryRun => "dry_run",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_path_is_the_route() {
        assert_eq!(
            Route::of("/models/chat/completions", Family::Inference),
            Route::ChatCompletions
        );
        assert_eq!(
            Route::of("/openai/deployments/d/completions", Family::Deployments),
            Route::Completions
        );
        assert_eq!(Route::of("/images/embeddings", Family::Inference), Route::ImageEmbeddings);
        assert_eq!(Route::of("/v1/models/phi", Family::OpenAi), Route::Models);
        assert_eq!(Route::of("/models", Family::Inference), Route::Unknown);
        assert_eq!(
            Route::of("/contentsafety/text:analyze", Family::ContentSafety),
            Route::ContentSafety
        );
    }
}
