//! What is known of a request before its body is read: which family of routes it came by, which version of the API it speaks,
//! when it must be over.
//!
//! Separate because handlers, checks and errors all depend on it and on nothing of each other. A `Context` is made once, by the
//! outermost layer, and travels in the request's extensions.

use crate::config::Versions;
use crate::events::Route;
use api_types::{ErrorCode, Fault};
use http::Uri;
use tokio::time::Instant;

/// Before the path of a request that is only to be foreseen.
pub const DRY_RUN: &str = "/dry-run";
/// Query parameter that names the version.
const VERSION_PARAMETER: &str = "api-version";
/// Dates below are as in `ApiVersion::date`. The version whose error bodies are flat (contract, section 6.2).
const FIRST_VERSION: ApiVersion = ApiVersion { date: 20_240_401, preview: true };
/// From here on reasoning has a field of its own (section 8.7).
const REASONING_FIELD_SINCE: u32 = 20_250_401;
/// Azure OpenAI's first published version.
const FIRST_OPENAI_DATE: u32 = 20_221_201;
/// Content Safety's first stable version.
const FIRST_SAFETY_DATE: u32 = 20_231_001;
/// Versions of the inference API (section 2).
const INFERENCE_VERSIONS: [&str; 7] = [
    "2024-04-01-preview",
    "2024-05-01-preview",
    "2024-08-01-preview",
    "2025-04-01",
    "2025-05-01",
    "2025-05-01-preview",
    "2025-05-15-preview",
];
/// Versions of Azure OpenAI, which people send on every route (section 2).
const OPENAI_VERSIONS: [&str; 18] = [
    "2022-12-01",
    "2023-05-15",
    "2023-12-01-preview",
    "2024-02-01",
    "2024-02-15-preview",
    "2024-03-01-preview",
    "2024-06-01",
    "2024-07-01-preview",
    "2024-08-01-preview",
    "2024-09-01-preview",
    "2024-10-01-preview",
    "2024-10-21",
    "2024-12-01-preview",
    "2025-01-01-preview",
    "2025-02-01-preview",
    "2025-03-01-preview",
    "2025-04-01-preview",
    "2025-05-01-preview",
];
/// Versions of Content Safety (section 14).
const SAFETY_VERSIONS: [&str; 4] =
    ["2023-10-01", "2024-09-01", "2024-09-15-preview", "2026-09-01-preview"];

/// A group of routes that speaks one dialect: the same handlers serve all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `/`, `/models`, `/api/models`: the Azure AI Model Inference API.
    Inference,
    /// `/openai/deployments/{d}`: Azure OpenAI.
    Deployments,
    /// `/openai/v1`, `/v1`, `/openai/models`: OpenAI.
    OpenAi,
    /// `/contentsafety`.
    ContentSafety,
}

impl Family {
    /// The family that `uri` belongs to, whether or not such a route exists.
    #[must_use]
    pub fn of(uri: &Uri) -> Self {
        let path = real(uri.path());
        if path == "/v1/chat/completions" && version_text(uri) == Some("2024-04-01-preview") {
            // The first published description has its one route here (section 1).
            Self::Inference
        } else {
            Self::of_path(path)
        }
    }

    /// The family that `path`, or a template of paths, belongs to.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let path = real(path);
        if path.starts_with("/openai/deployments/") {
            Self::Deployments
        } else if ["/openai", "/v1"].iter().any(|p| under(path, p)) {
            Self::OpenAi
        } else if under(path, "/contentsafety") {
            Self::ContentSafety
        } else {
            Self::Inference
        }
    }

    /// The published versions; none where requests name no version.
    pub fn versions(self) -> impl Iterator<Item = &'static str> {
        let (own, shared): (&[&str], &[&str]) = match self {
            Self::Inference => (&INFERENCE_VERSIONS, &[]),
            Self::Deployments => (&OPENAI_VERSIONS, &INFERENCE_VERSIONS),
            Self::ContentSafety => (&SAFETY_VERSIONS, &[]),
            Self::OpenAi => (&[], &[]),
        };
        own.iter().chain(shared.iter().filter(|version| !own.contains(version))).copied()
    }

    /// The first day of which a version is taken, as one number: 20240401. Always the first of a month.
    #[must_use]
    pub const fn first_date(self) -> u32 {
        match self {
            Self::Inference => FIRST_VERSION.date,
            Self::Deployments | Self::OpenAi => FIRST_OPENAI_DATE,
            Self::ContentSafety => FIRST_SAFETY_DATE,
        }
    }

    /// Whether requests are OpenAI's: no extra parameters, 400 where the inference API says 422, ids like `chatcmpl-`.
    #[must_use]
    pub const fn is_openai(self) -> bool {
        match self {
            Self::Deployments | Self::OpenAi => true,
            Self::Inference | Self::ContentSafety => false,
        }
    }
}

/// The path of the request that a dry run is of; any other path itself.
fn real(path: &str) -> &str {
    path.strip_prefix(DRY_RUN).filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn version_text(uri: &Uri) -> Option<&str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| key.eq_ignore_ascii_case(VERSION_PARAMETER))
        .map(|(_, value)| value)
        .next()
}

/// A version of the API, such as `2024-05-01-preview`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiVersion {
    /// Year, month and day as one number: 20240501.
    date: u32,
    preview: bool,
}

impl ApiVersion {
    /// Reads `YYYY-MM-DD` or `YYYY-MM-DD-preview`; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, preview) = match text.strip_suffix("-preview") {
            Some(date) => (date, true),
            None => (text, false),
        };
        let bytes = date.as_bytes();
        let shaped = bytes.len() == 10
            && bytes
                .iter()
                .enumerate()
                .all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() });
        if !shaped {
            return None;
        }
        let date: u32 = date.replace('-', "").parse().ok()?;
        let (month, day) = (date / 100 % 100, date % 100);
        ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(Self { date, preview })
    }
}

/// What is known of a request before its body is read.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Which family of routes.
    pub family: Family,
    /// Which path.
    pub route: Route,
    /// Whether it is only to be foreseen.
    pub dry_run: bool,
    /// Whether it came by `/` itself, where an endpoint of one model answers (section 1).
    pub root: bool,
    /// The version the query names; none where it names none or one that is not a version.
    pub version: Option<ApiVersion>,
    /// When the answer must be complete, to the last byte.
    pub deadline: Instant,
}

impl Context {
    /// What `uri` says.
    #[must_use]
    pub fn of(uri: &Uri, deadline: Instant) -> Self {
        let family = Family::of(uri);
        let path = real(uri.path());
        let chosen = ["/models", "/api/models"].iter().any(|prefix| under(path, prefix));
        Self {
            family,
            route: Route::of(path, family),
            dry_run: path.len() < uri.path().len(),
            root: family == Family::Inference && !chosen,
            version: version_text(uri).and_then(ApiVersion::parse),
            deadline,
        }
    }

    /// Whether error bodies are exactly those of the first version.
    #[must_use]
    pub fn flat_errors(&self) -> bool {
        self.family == Family::Inference && self.version == Some(FIRST_VERSION)
    }

    /// Whether reasoning is part of the content, between `<think>` and `</think>`.
    #[must_use]
    pub fn inline_reasoning(&self) -> bool {
        self.family == Family::Inference
            && self.version.is_some_and(|v| v.date < REASONING_FIELD_SINCE)
    }

    /// Whether the query names an acceptable version, by the rule of the family (section 2).
    ///
    /// # Errors
    /// A missing or unsupported version: 400 on the inference routes, 404 on `/openai/deployments`, never on `/v1`.
    pub fn check_version(&self, uri: &Uri, versions: Versions) -> Result<(), Fault> {
        if self.family == Family::OpenAi {
            return Ok(());
        }
        let text = version_text(uri).unwrap_or_default();
        let accepted = match versions {
            Versions::Strict => self.family.versions().any(|version| version == text),
            Versions::Lenient => self.version.is_some_and(|v| v.date >= self.family.first_date()),
        };
        match (accepted, self.family) {
            (true, _) | (false, Family::OpenAi) => Ok(()),
            (false, Family::Deployments) => {
                Err(Fault::new(ErrorCode::NotFound, "Resource not found"))
            }
            (false, family @ (Family::Inference | Family::ContentSafety)) if text.is_empty() => {
                let such = match family {
                    Family::ContentSafety => "2024-09-01",
                    Family::Inference | Family::Deployments | Family::OpenAi => {
                        "2024-05-01-preview"
                    }
                };
                let message = format!(
                    "every request needs the `api-version` query parameter, such as api-version={such}"
                );
                Err(Fault::new(ErrorCode::MissingApiVersion, message))
            }
            (false, Family::Inference | Family::ContentSafety) => {
                Err(Fault::new(ErrorCode::UnsupportedApiVersion, "API version not supported"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, versions: Versions) -> Result<(), ErrorCode> {
        let uri: Uri = uri.parse().unwrap();
        let now = Instant::now();
        Context::of(&uri, now).check_version(&uri, versions).map_err(|f| f.code)
    }

    #[test]
    fn the_path_decides_the_family() {
        for (path, family) in [
            ("/chat/completions", Family::Inference),
            ("/models/chat/completions", Family::Inference),
            ("/api/models/info", Family::Inference),
            ("/openai/deployments/gpt/chat/completions", Family::Deployments),
            ("/openai/v1/chat/completions", Family::OpenAi),
            ("/openai/models", Family::OpenAi),
            ("/v1/embeddings", Family::OpenAi),
            ("/v1x", Family::Inference),
            ("/contentsafety/text:analyze", Family::ContentSafety),
            ("/v1/chat/completions?api-version=2024-04-01-preview", Family::Inference),
            ("/v1/chat/completions?api-version=2024-10-21", Family::OpenAi),
            ("/dry-run/v1/embeddings", Family::OpenAi),
            ("/dry-run/models/chat/completions", Family::Inference),
            ("/dry-run/openai/deployments/gpt/embeddings", Family::Deployments),
        ] {
            assert_eq!(Family::of(&path.parse().unwrap()), family, "{path}");
        }
    }

    #[test]
    fn the_root_is_what_has_no_prefix() {
        let root = |uri: &str| Context::of(&uri.parse().unwrap(), Instant::now()).root;
        assert!(root("/chat/completions") && root("/info"));
        for prefixed in ["/models/info", "/api/models/info", "/v1/embeddings", "/contentsafety/x"] {
            assert!(!root(prefixed), "{prefixed}");
        }
    }

    #[test]
    fn a_dry_run_is_what_it_is_of() {
        let of = |path: &str| Context::of(&path.parse().unwrap(), Instant::now());
        let dry = of("/dry-run/chat/completions");
        assert!(dry.dry_run && dry.root && dry.route == Route::ChatCompletions);
        assert!(!of("/dry-run/models/embeddings").root);
        assert!(!of("/chat/completions").dry_run && !of("/dry-runs/embeddings").dry_run);
    }

    #[test]
    fn a_version_is_required_where_the_family_requires_it() {
        assert_eq!(
            check("/chat/completions", Versions::Lenient),
            Err(ErrorCode::MissingApiVersion)
        );
        assert_eq!(
            check("/info?api-version=", Versions::Lenient),
            Err(ErrorCode::MissingApiVersion)
        );
        assert_eq!(
            check("/openai/deployments/d/embeddings", Versions::Lenient),
            Err(ErrorCode::NotFound)
        );
        assert_eq!(check("/v1/embeddings", Versions::Strict), Ok(()));
        assert_eq!(check("/v1/embeddings?api-version=preview", Versions::Strict), Ok(()));
    }

    #[test]
    fn lenient_takes_any_date_since_the_first_and_strict_only_published_ones() {
        for (version, strict, lenient) in [
            ("2024-05-01-preview", true, true),
            ("2025-04-01", true, true),
            ("2024-10-21", false, true),
            ("1999-01-01", false, false),
            ("2024-13-01", false, false),
            ("latest", false, false),
            ("2024-05-01-beta", false, false),
        ] {
            let uri = format!("/chat/completions?api-version={version}");
            assert_eq!(check(&uri, Versions::Strict).is_ok(), strict, "{version}");
            assert_eq!(check(&uri, Versions::Lenient).is_ok(), lenient, "{version}");
        }
    }

    #[test]
    fn reasoning_is_inline_before_it_had_a_field() {
        let at = |uri: &str| Context::of(&uri.parse().unwrap(), Instant::now()).inline_reasoning();
        assert!(at("/chat/completions?api-version=2024-05-01-preview"));
        assert!(!at("/chat/completions?api-version=2025-04-01"));
        assert!(!at("/v1/chat/completions?api-version=2024-05-01-preview"));
    }
}
