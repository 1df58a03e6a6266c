//! The defaults hold, and mistakes are named.

use super::*;
use chassis::config::{Sources, load};

fn with(env: &[(&str, &str)]) -> Result<Config, Problems> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load("edge", crate::DEFAULTS, &Sources { file: None, env })
}

#[test]
fn the_embedded_defaults_are_valid() {
    let config = with(&[]).unwrap();
    assert_eq!(config.service.listen, "127.0.0.1:8080");
    assert_eq!(config.guard.when_unavailable, WhenUnavailable::Refuse);
}

#[test]
fn an_origin_with_a_path_is_refused() {
    let origins = "[\"https://app.example.com\", \"https://app.example.com/\"]";
    let problems = with(&[("EDGE__CORS__ALLOWED_ORIGINS", origins)]).unwrap_err().to_string();
    assert!(problems.contains("cors.allowed_origins[1]"), "{problems}");
    assert!(!problems.contains("cors.allowed_origins[0]"), "{problems}");
}

#[test]
fn a_policy_without_a_service_is_refused() {
    let problems = with(&[("EDGE__CONTENT_SAFETY__ENDPOINTS", "[]")]);
    assert!(problems.unwrap_err().to_string().contains("content_safety.endpoints"));
}

#[test]
fn keys_come_from_the_environment_and_do_not_show() {
    let config = with(&[("EDGE__AUTH__KEYS", "[\"s3cret\"]")]).unwrap();
    assert_eq!(config.auth.keys[0].expose(), "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_cache_in_a_redis_that_nobody_names_is_refused() {
    let env = [("EDGE__CACHE__STORE", "redis"), ("EDGE__CACHE__TTL_SECS", "0")];
    let problems = with(&env).unwrap_err().to_string();
    assert!(problems.contains("cache.store") && problems.contains("redis_url"), "{problems}");
    assert!(problems.contains("cache.ttl_secs"), "{problems}");
}

#[test]
fn a_deployment_cannot_fall_back_to_itself() {
    let itself = "[{name='a', service='chat', fallback='A'}]";
    let problems = with(&[("EDGE__DEPLOYMENTS", itself)]).unwrap_err().to_string();
    assert!(problems.contains("deployments[0].fallback"), "{problems}");
}

#[test]
fn a_deployment_named_twice_is_refused() {
    let twice = "[{name='a', service='chat'}, {name='A', service='chat'}]";
    let problems = with(&[("EDGE__DEPLOYMENTS", twice)]);
    assert!(problems.unwrap_err().to_string().contains("named twice"));
}
