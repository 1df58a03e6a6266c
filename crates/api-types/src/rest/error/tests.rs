//! Bodies of errors, literally as the contract has them.

use super::*;
use crate::rest::content_filter::{Severity, SeverityResult};

fn text(fault: &Fault, style: ErrorStyle) -> String {
    serde_json::to_string(&ErrorBody::new(fault, style)).unwrap()
}

fn value(fault: &Fault, style: ErrorStyle) -> Value {
    serde_json::to_value(ErrorBody::new(fault, style)).unwrap()
}

fn filtered() -> Fault {
    Fault::new(ErrorCode::ContentFiltered, "the prompt was blocked").with_target("messages")
}

#[test]
fn the_first_version_gets_an_unsupported_parameter_literally() {
    let fault = Fault::unsupported("response_format", json!("json_object"), "not this model");
    assert_eq!(
        text(&fault, ErrorStyle::Flat),
        r#"{"status":422,"code":"parameter_not_supported","detail":{"loc":["body","response_format"],"input":"json_object"},"message":"One of the parameters contain invalid values."}"#
    );
}

#[test]
fn the_first_version_gets_a_blocked_prompt_literally() {
    assert_eq!(
        text(&filtered(), ErrorStyle::Flat),
        r#"{"status":400,"code":"content_filter","message":"The response was filtered","param":"messages","type":null}"#
    );
}

#[test]
fn the_hybrid_of_an_unsupported_parameter_has_both_forms() {
    let fault = Fault::unsupported("response_format", json!("json_object"), "Not this model.");
    assert_eq!(
        value(&fault, ErrorStyle::Hybrid),
        json!({
            "error": {
                "code": "parameter_not_supported", "message": PARAMETER_MESSAGE, "status": 422,
                "target": "response_format",
                "details": [{
                    "type": "parameter_not_supported", "loc": ["body", "response_format"],
                    "msg": "Not this model.", "input": "json_object"
                }]
            },
            "status": 422, "code": "parameter_not_supported", "message": PARAMETER_MESSAGE,
            "detail": {"loc": ["body", "response_format"], "input": "json_object"}
        })
    );
}

#[test]
fn the_hybrid_of_a_blocked_prompt_is_read_by_both_families_of_clients() {
    let hate = SeverityResult { filtered: true, severity: Severity::High };
    let results = ContentFilterResults { hate: Some(hate), ..Default::default() };
    let body = ErrorBody::content_filtered(&filtered(), &results, ErrorStyle::Hybrid);
    let body = serde_json::to_value(body).unwrap();
    assert_eq!(body["code"], "content_filter");
    assert_eq!(body["message"], FILTERED_MESSAGE);
    assert_eq!(body["error"]["param"], "prompt");
    assert_eq!(body["error"]["status"], 400);
    assert!(body["error"].as_object().unwrap().contains_key("type"));
    assert_eq!(
        body["error"]["innererror"],
        json!({
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": true, "severity": "high"}}
        })
    );
}

#[test]
fn openai_routes_answer_400_for_what_a_model_cannot_do() {
    let fault = Fault::unsupported("temperature", json!(2), "this model takes 1");
    assert_eq!(ErrorStyle::OpenAi.status(fault.code), 400);
    assert_eq!(
        value(&fault, ErrorStyle::OpenAi),
        json!({"error": {
            "message": "this model takes 1", "type": "invalid_request_error",
            "param": "temperature", "code": "unsupported_value"
        }})
    );
    let fault = Fault::refused("logprobs", json!(true), "this model has none");
    assert_eq!(ErrorStyle::OpenAi.status(fault.code), 400);
    assert_eq!(value(&fault, ErrorStyle::OpenAi)["error"]["code"], json!("unsupported_parameter"));
    assert_eq!(value(&fault, ErrorStyle::Hybrid)["code"], "parameter_not_supported");
}

#[test]
fn an_array_position_is_a_number_in_loc() {
    let fault = Fault::unsupported("messages.0.content.1", json!("image_url"), "no images");
    let body = value(&fault, ErrorStyle::Hybrid);
    assert_eq!(body["detail"]["loc"], json!(["body", "messages", 0, "content", 1]));
}

#[test]
fn content_safety_has_codes_of_its_own() {
    let fault = Fault::invalid("text", "'text' is a required property");
    assert_eq!(
        text(&fault, ErrorStyle::ContentSafety),
        r#"{"error":{"code":"InvalidRequestBody","message":"'text' is a required property","target":"text"}}"#
    );
}

#[test]
fn no_body_has_a_string_under_error() {
    for code in ErrorCode::ALL {
        for style in [ErrorStyle::Hybrid, ErrorStyle::OpenAi, ErrorStyle::ContentSafety] {
            let error = value(&Fault::new(code, "words"), style)["error"].clone();
            assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
        }
    }
}
