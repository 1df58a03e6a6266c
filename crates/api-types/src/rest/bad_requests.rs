//! Bad requests of every kind, each with the field its answer must name.

use super::content_safety::{AnalyzeImageRequest, AnalyzeTextRequest, ShieldPromptRequest};
use super::tests::{chat, hello, openai};
use super::*;
use serde_json::json;

/// A conversation of one message.
fn said(message: &Value) -> Value {
    json!({ "messages": [message] })
}

fn assert_target<T: std::fmt::Debug>(result: Result<T, Fault>, target: &str, body: &Value) {
    let fault = result.expect_err(&body.to_string());
    assert_eq!(fault.target.as_deref(), Some(target), "{fault} for {body}");
    assert_eq!(fault.code, ErrorCode::InvalidRequest);
}

#[test]
fn malformed_json_says_where() {
    let message = |body: &[u8]| {
        let fault = ChatCompletionsRequest::parse(body, Vocabulary::INFERENCE).unwrap_err();
        assert_eq!(fault.code.http(), 400);
        fault.message
    };
    assert_eq!(message(b"[,"), "Invalid JSON in request body: expected value at line 1 column 2");
    assert!(message(b"{").starts_with("Invalid JSON in request body: EOF"));
    assert!(message(b"").starts_with("Invalid JSON in request body: EOF"));
    assert_eq!(message(b"[]"), "the request body must be a JSON object, found an array");
    assert_eq!(message(b"null"), "the request body must be a JSON object, found null");
    assert!(message(b"{\"messages\":\"\xff\"}").contains("unicode"));
    assert!(message(b"{\"temperature\":1e999}").contains("number out of range"));
    assert!(message(b"{\"temperature\":NaN}").contains("expected value"));
    assert!(message(b"{} {}").contains("trailing characters"));
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        let fault = ChatCompletionsRequest::parse(body.as_bytes(), Vocabulary::OPENAI).unwrap_err();
        assert!(fault.message.contains("recursion limit"), "{fault}");
    }
}

#[test]
fn a_missing_property_is_named_in_the_words_of_the_api() {
    let fault = chat(&json!({})).unwrap_err();
    assert_eq!(fault.message, "'messages' is a required property");
    assert_eq!(fault.target.as_deref(), Some("messages"));
    let fault = chat(&said(&json!({"role": "user"}))).unwrap_err();
    assert_eq!(fault.message, "'content' is a required property");
    assert_eq!(fault.target.as_deref(), Some("messages.0.content"));
}

#[test]
fn an_unknown_word_is_answered_with_the_known_ones() {
    let fault = chat(&said(&json!({"role": "wizard", "content": "Hi"}))).unwrap_err();
    assert_eq!(
        fault.message,
        "`messages.0.role` must be one of `system`, `developer`, `user`, `assistant`, `tool`, \
         found `wizard`"
    );
}

#[test]
fn every_bad_message_names_its_field() {
    let image = |url: Value| json!({"type": "image_url", "image_url": {"url": url}});
    let user = |part: Value| said(&json!({"role": "user", "content": [part]}));
    let call = |call: Value| said(&json!({"role": "assistant", "tool_calls": [call]}));
    for (body, target) in [
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": {}}), "messages"),
        (said(&json!("hi")), "messages.0"),
        (said(&json!({"content": "hi"})), "messages.0.role"),
        (said(&json!({"role": 3, "content": "hi"})), "messages.0.role"),
        (said(&json!({"role": "function", "name": "f"})), "messages.0.role"),
        (said(&json!({"role": "system"})), "messages.0.content"),
        (said(&json!({"role": "system", "content": []})), "messages.0.content"),
        (said(&json!({"role": "user", "content": []})), "messages.0.content"),
        (said(&json!({"role": "user", "content": 1})), "messages.0.content"),
        (said(&json!({"role": "user", "content": "", "name": 1})), "messages.0.name"),
        (said(&json!({"role": "tool", "content": "4"})), "messages.0.tool_call_id"),
        (user(json!("hi")), "messages.0.content.0"),
        (user(json!({"text": "hi"})), "messages.0.content.0.type"),
        (user(json!({"type": "video"})), "messages.0.content.0.type"),
        (user(json!({"type": "text"})), "messages.0.content.0.text"),
        (user(json!({"type": "text", "text": []})), "messages.0.content.0.text"),
        (user(image(json!("iVBORw0KGgo="))), "messages.0.content.0.image_url.url"),
        (user(image(json!("ftp://x/y.png"))), "messages.0.content.0.image_url.url"),
        (user(image(json!("data:text/plain;base64,aGk="))), "messages.0.content.0.image_url.url"),
        (user(image(json!(""))), "messages.0.content.0.image_url.url"),
        (user(image(Value::Null)), "messages.0.content.0.image_url.url"),
        (
            user(json!({"type": "input_audio", "input_audio": {"data": "aGk="}})),
            "messages.0.content.0.input_audio.format",
        ),
        (
            user(json!({"type": "audio_url", "audio_url": {"url": "aGk="}})),
            "messages.0.content.0.audio_url.url",
        ),
        (
            said(&json!({"role": "system", "content": [image(json!("https://x/y"))]})),
            "messages.0.content.0.type",
        ),
        (call(json!({"function": {"name": "f"}})), "messages.0.tool_calls.0.id"),
        (call(json!({"id": "a"})), "messages.0.tool_calls.0.function"),
        (call(json!({"id": "a", "function": {}})), "messages.0.tool_calls.0.function.name"),
        (
            call(json!({"id": "a", "type": "code", "function": {"name": "f"}})),
            "messages.0.tool_calls.0.type",
        ),
        (
            call(json!({"id": "a", "function": {"name": "f", "arguments": 1}})),
            "messages.0.tool_calls.0.function.arguments",
        ),
    ] {
        assert_target(chat(&body), target, &body);
    }
}

#[test]
fn every_bad_parameter_names_itself() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let schema =
        |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": schema}});
    for (more, target) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"frequency_penalty": -2.5}), "frequency_penalty"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": 1e30}), "max_tokens"),
        (json!({"max_tokens": 4_294_967_296_u64}), "max_tokens"),
        (json!({"max_tokens": "5"}), "max_tokens"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": u64::MAX}), "seed"),
        (json!({"stop": 1}), "stop"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": ["a", 1]}), "stop.1"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"model": 1}), "model"),
        (json!({"response_format": "json_object"}), "response_format"),
        (json!({"response_format": {}}), "response_format.type"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (schema(json!({"schema": {}})), "response_format.json_schema.name"),
        (schema(json!({"name": "a b", "schema": {}})), "response_format.json_schema.name"),
        (schema(json!({"name": "a"})), "response_format.json_schema.schema"),
        (schema(json!({"name": "a", "schema": []})), "response_format.json_schema.schema"),
        (json!({"tools": []}), "tools"),
        (json!({"tools": vec![function("f"); 129]}), "tools"),
        (json!({"tools": [{"type": "function"}]}), "tools.0.function"),
        (json!({"tools": [{"type": "web", "function": {"name": "f"}}]}), "tools.0.type"),
        (json!({"tools": [function("get weather")]}), "tools.0.function.name"),
        (json!({"tools": [function(&"f".repeat(65))]}), "tools.0.function.name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}),
            "tools.0.function.parameters",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": function("f")}), "tool_choice"),
        (json!({"tools": [function("f")], "tool_choice": function("g")}), "tool_choice"),
        (json!({"tools": [function("f")], "tool_choice": {}}), "tool_choice.function"),
        (json!({"modalities": []}), "modalities"),
        (json!({"modalities": ["text", "smell"]}), "modalities.1"),
        (
            json!({"user_security_context": {"end_user_id": "me"}}),
            "user_security_context.end_user_id",
        ),
    ] {
        let body = hello(&more);
        assert_target(chat(&body), target, &body);
    }
}

#[test]
fn every_bad_parameter_of_openai_names_itself() {
    for (more, target) in [
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"max_completion_tokens": -1}), "max_completion_tokens"),
        (json!({"logprobs": 1}), "logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"logit_bias": {"a": 1}}), "logit_bias"),
        (json!({"logit_bias": {"7": 101}}), "logit_bias.7"),
        (json!({"parallel_tool_calls": "no"}), "parallel_tool_calls"),
        (json!({"user": 1}), "user"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"stream": true, "stream_options": true}), "stream_options"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"functions": [{}]}), "functions.0.name"),
        (json!({"functions": [{"name": "f"}], "function_call": {}}), "function_call.name"),
    ] {
        let body = hello(&more);
        assert_target(openai(&body), target, &body);
    }
}

#[test]
fn every_bad_request_of_the_other_routes_names_its_field() {
    let image = "data:image/png;base64,aGk=";
    for (body, target) in [
        (json!({}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": ["a", ""]}), "input.1"),
        (json!({"input": ["a", null]}), "input.1"),
        (json!({"input": ["a", "b", "c", "d"]}), "input"),
        (json!({"input": [1, "a"]}), "input.1"),
        (json!({"input": [[1], []]}), "input.1"),
        (json!({"input": [[1], [-1]]}), "input.1.0"),
        (json!({"input": {"text": "a"}}), "input"),
        (json!({"input": "a", "dimensions": 0}), "dimensions"),
        (json!({"input": "a", "encoding_format": "hex"}), "encoding_format"),
        (json!({"input": "a", "input_type": "poem"}), "input_type"),
    ] {
        let bytes = body.to_string();
        let result = EmbeddingsRequest::parse(bytes.as_bytes(), Vocabulary::INFERENCE, 3);
        assert_target(result, target, &body);
    }
    for (body, target) in [
        (json!({"input": image}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": [{"text": "a"}]}), "input.0.image"),
        (json!({"input": [{"image": "aGk="}]}), "input.0.image"),
        (json!({"input": [{"image": "https://x/y.png"}]}), "input.0.image"),
        (json!({"input": [{"image": image, "text": 1}]}), "input.0.text"),
        (json!({"input": [{"image": image}, {"image": image}]}), "input"),
    ] {
        let bytes = body.to_string();
        let result = ImageEmbeddingsRequest::parse(bytes.as_bytes(), Vocabulary::INFERENCE, 1);
        assert_target(result, target, &body);
    }
    for (body, target) in [
        (json!({}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": ["a", 1]}), "prompt.1"),
        (json!({"prompt": "a", "best_of": 21}), "best_of"),
        (json!({"prompt": "a", "best_of": 2, "n": 3}), "best_of"),
        (json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of"),
        (json!({"prompt": "a", "logprobs": 6}), "logprobs"),
        (json!({"prompt": "a", "logprobs": true}), "logprobs"),
        (json!({"prompt": "a", "echo": 1}), "echo"),
    ] {
        let bytes = body.to_string();
        let result = CompletionsRequest::parse(bytes.as_bytes(), Vocabulary::OPENAI);
        assert_target(result, target, &body);
    }
}

#[test]
fn every_bad_request_of_content_safety_names_its_field() {
    let text = |body: &Value| AnalyzeTextRequest::parse(body.to_string().as_bytes());
    for (body, target) in [
        (json!({}), "text"),
        (json!({"text": "ä".repeat(10_001)}), "text"),
        (json!({"text": "a", "categories": ["hate"]}), "categories.0"),
        (json!({"text": "a", "outputType": "Two"}), "outputType"),
    ] {
        assert_target(text(&body), target, &body);
    }
    assert!(text(&json!({"text": "ä".repeat(10_000)})).is_ok());
    for (body, target) in [
        (json!({}), "image"),
        (json!({"image": {}}), "image"),
        (json!({"image": {"content": "aGk=", "blobUrl": "https://x"}}), "image"),
        (json!({"image": {"content": "%"}}), "image.content"),
    ] {
        assert_target(AnalyzeImageRequest::parse(body.to_string().as_bytes()), target, &body);
    }
    for (body, target) in [
        (json!({}), "userPrompt"),
        (json!({"documents": ["a", 1]}), "documents.1"),
        (json!({"documents": ["", "", "", "", "", ""]}), "documents"),
        (json!({"documents": ["a".repeat(6000), "b".repeat(6000)]}), "documents"),
    ] {
        assert_target(ShieldPromptRequest::parse(body.to_string().as_bytes()), target, &body);
    }
}

#[test]
fn an_admitted_extra_that_is_bad_names_itself() {
    let body = hello(&json!({"n": 0}));
    assert_target(chat(&body).unwrap().admit(), "n", &body);
}
