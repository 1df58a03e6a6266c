//! Which pages of other sites may call from a browser: the layer that says so, where the operator wants one.
//!
//! Separate from the other layers because it answers by itself: a browser asks beforehand (`OPTIONS`) without a key, so it
//! stands outside authentication. Keys travel in headers that a page sets itself, never in cookies, so credentials in the sense
//! of CORS are not allowed.

use crate::config::CorsConfig;
use http::{HeaderName, HeaderValue, Method, Uri};
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

/// Every origin.
const ANY: &str = "*";
/// How long a browser may remember the answer; the longest that Chromium honours.
const REMEMBERED: Duration = Duration::from_secs(7200);
/// What is served.
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PATCH, Method::DELETE];
/// Headers of answers that the clients read, beside those that any page may.
const EXPOSED: [&str; 16] = [
    "x-request-id",
    "apim-request-id",
    "x-ms-client-request-id",
    "x-ms-error-code",
    "x-ms-region",
    "server-timing",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-koine-cache",
];

/// The layer of `config`; none where no origin is allowed, and then no answer says a word about it.
#[must_use]
pub fn layer(config: &CorsConfig) -> Option<CorsLayer> {
    let origins = &config.allowed_origins;
    if origins.is_empty() {
        return None;
    }
    let origin = if origins.iter().any(|o| o == ANY) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|o| HeaderValue::from_str(o).ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(AllowMethods::list(METHODS))
        // Clients send headers of their own (`x-stainless-*`, `x-ms-useragent`); what they mean is not the browser's business.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(EXPOSED.map(HeaderName::from_static)))
        .max_age(REMEMBERED);
    Some(layer)
}

/// Whether `text` is `*`, or a scheme, a host and perhaps a port, as browsers write origins.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let plain = |uri: &Uri| {
        uri.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https")
            && uri.authority().is_some_and(|host| !host.as_str().contains('@'))
            && uri.path_and_query().is_none_or(|path| path == "/")
    };
    text == ANY || (!text.ends_with('/') && text.parse::<Uri>().is_ok_and(|uri| plain(&uri)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for origin in ["*", "https://app.example.com", "http://localhost:3000", "https://[::1]:8"] {
            assert!(is_origin(origin), "{origin}");
        }
        for other in
            ["", "app.example.com", "https://a.example/", "https://a.example/x", "ftp://a.example"]
        {
            assert!(!is_origin(other), "{other}");
        }
    }
}
