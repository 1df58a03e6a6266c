//! Headers that say how a body is read.

use super::*;
use http::HeaderValue;

fn extra(name: &'static str, value: &'static str) -> Result<ExtraParameters, u16> {
    let headers =
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
    ExtraParameters::of(&headers, ExtraDefault::Error).map_err(|f| f.code.http())
}

#[test]
fn every_published_spelling_is_understood() {
    for (value, meaning) in [
        ("error", ExtraParameters::Error),
        ("drop", ExtraParameters::Drop),
        ("ignore", ExtraParameters::Drop),
        ("pass-through", ExtraParameters::PassThrough),
        ("pass_through", ExtraParameters::PassThrough),
        ("allow", ExtraParameters::PassThrough),
        ("Pass-Through", ExtraParameters::PassThrough),
    ] {
        assert_eq!(extra("extra-parameters", value), Ok(meaning), "{value}");
        assert_eq!(extra("unknown-parameters", value), Ok(meaning), "{value}");
    }
    assert_eq!(extra("extra-parameters", "bogus"), Err(400));
    let absent = ExtraParameters::of(&HeaderMap::new(), ExtraDefault::Drop);
    assert_eq!(absent.unwrap(), ExtraParameters::Drop);
}

#[test]
fn json_is_told_from_other_types() {
    let json = |value: &'static str| {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
        require_json(&headers).is_ok()
    };
    assert!(
        json("application/json")
            && json("Application/JSON; charset=utf-8")
            && json("application/x+json")
    );
    assert!(!json("text/plain") && !json("") && !json("application/jsonl"));
    assert!(require_json(&HeaderMap::new()).is_err());
}
