//! What real clients send is taken, and every top-level name ends where its dialect says.

use super::chat_completions::{ChatRole, ContentPart, Modality, ResponseFormat, ToolChoice};
use super::embeddings::EncodingFormat;
use super::*;
use serde_json::json;

type ChatResult = Result<Parsed<ChatCompletionsRequest>, Fault>;

pub(super) fn chat(body: &Value) -> ChatResult {
    ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::INFERENCE)
}

pub(super) fn openai(body: &Value) -> ChatResult {
    ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI)
}

/// A conversation of one word, with more properties.
pub(super) fn hello(more: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn null_is_absent_for_every_optional_field() {
    let nulls: Fields = [
        "model",
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
        "stream",
        "tools",
        "tool_choice",
        "response_format",
        "modalities",
        "user_security_context",
        "n",
        "logprobs",
        "logit_bias",
        "user",
        "stream_options",
        "functions",
        "store",
        "frequency_penalty",
    ]
    .into_iter()
    .map(|name| (name.to_owned(), Value::Null))
    .collect();
    let parsed = chat(&hello(&Value::Object(nulls))).unwrap();
    assert_eq!(parsed, chat(&hello(&json!({}))).unwrap());
}

#[test]
fn what_real_clients_send_is_taken() {
    let parsed = chat(&json!({
        "model": "",
        "stop": "END",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "Hi", "name": null, "unknown": 1},
            {"role": "assistant", "tool_calls": [
                {"id": "call_1", "function": {"name": "f", "arguments": "{}"}}
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "4", "name": null},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": null},
            {"role": "user", "content": [
                {"type": "input_audio", "format": "wav", "input_audio": {"data": "aGk="}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": null}}
            ]}
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "f",
        "response_format": {"type": "json_schema", "json_schema":
            {"name": "a", "schema": {}, "description": null, "strict": null}}
    }))
    .unwrap();
    let request = parsed.request;
    assert!(parsed.extra.is_empty());
    assert_eq!(request.model, None);
    assert_eq!(request.sampling.stop, ["END"]);
    assert_eq!(request.messages[0].content, [ContentPart::Text("Be kind.".to_owned())]);
    assert!(request.messages[2].content.is_empty());
    assert_eq!(request.messages[2].tool_calls[0].id, "call_1");
    assert_eq!(request.messages[3].tool_call_id.as_deref(), Some("call_1"));
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("f".to_owned())));
    assert_eq!(request.response_format.as_ref().map(ResponseFormat::as_str), Some("json_schema"));
}

#[test]
fn a_choice_without_tools_says_nothing_when_it_is_auto_or_none() {
    for choice in ["auto", "none"] {
        let parsed = chat(&hello(&json!({"tool_choice": choice}))).unwrap();
        assert_eq!(parsed.request.tool_choice, None);
    }
}

#[test]
fn openai_names_are_extra_on_the_inference_routes_alone() {
    let body = hello(&json!({"n": 2, "user": "me", "top_k": 5, "modalities": ["text"]}));
    let parsed = chat(&body).unwrap();
    assert_eq!(parsed.extra.keys().collect::<Vec<_>>(), ["n", "user", "top_k"]);
    assert_eq!(parsed.request.sampling.n, None);
    assert_eq!(parsed.request.modalities, [Modality::Text]);
    let parsed = openai(&body).unwrap();
    assert_eq!(parsed.extra.keys().collect::<Vec<_>>(), ["top_k"]);
    assert_eq!(parsed.request.sampling.n, Some(2));
}

#[test]
fn admitted_extras_become_ordinary_and_the_unknown_stay() {
    let body = hello(&json!({
        "n": 1, "max_completion_tokens": 9, "max_tokens": 5, "stream": true, "top_k": 5,
        "stream_options": {"include_usage": true}, "reasoning_effort": "low"
    }));
    let parsed = chat(&body).unwrap();
    assert_eq!(parsed.request.sampling.max_tokens, Some(5));
    let parsed = parsed.admit().unwrap();
    assert_eq!(parsed.request.sampling.n, Some(1));
    assert_eq!(parsed.request.sampling.max_tokens, Some(9));
    assert!(parsed.request.stream_options.unwrap().include_usage);
    assert_eq!(parsed.request.others.get("reasoning_effort"), Some(&json!("low")));
    assert_eq!(Value::Object(parsed.extra), json!({"top_k": 5}));
}

#[test]
fn names_the_operator_admits_are_no_extras() {
    let known = ["top_k".to_owned(), "n".to_owned()];
    let vocabulary = Vocabulary { dialect: Dialect::Inference, also_known: &known };
    let body = hello(&json!({"n": 2, "top_k": 5, "user": "me"})).to_string();
    let parsed = ChatCompletionsRequest::parse(body.as_bytes(), vocabulary).unwrap();
    assert_eq!(parsed.request.sampling.n, Some(2));
    assert_eq!(parsed.request.others.get("top_k"), Some(&json!(5)));
    assert_eq!(Value::Object(parsed.extra), json!({"user": "me"}));
}

#[test]
fn extra_parameters_are_refused_in_words_that_proxies_match() {
    let extra = chat(&hello(&json!({"n": 1, "bogus\n": 1}))).unwrap().extra;
    let fault = extra_parameters_fault(&extra);
    assert!(fault.message.starts_with("Extra parameters ['n', 'bogus '] are not allowed"));
    assert_eq!(fault.target.as_deref(), Some("n"));
    assert_eq!(fault.details.len(), 2);
    let body = serde_json::to_value(ErrorBody::new(&fault, ErrorStyle::Hybrid)).unwrap();
    assert_eq!(body["detail"], body["error"]["message"]);
    assert_eq!(body["error"]["details"][0]["code"], "extra_parameter");
}

#[test]
fn functions_by_their_old_names_are_tools() {
    let parsed = openai(&json!({
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "4"}
        ],
        "functions": [{"name": "f"}],
        "function_call": {"name": "f"}
    }))
    .unwrap()
    .request;
    assert!(parsed.legacy_functions);
    assert_eq!(parsed.tools[0].name, "f");
    assert_eq!(parsed.tool_choice, Some(ToolChoice::Named("f".to_owned())));
    assert_eq!(parsed.messages[2].role, ChatRole::Tool);
    assert_eq!(
        parsed.messages[2].tool_call_id.as_deref(),
        Some(parsed.messages[1].tool_calls[0].id.as_str())
    );
}

#[test]
fn prompts_and_inputs_come_in_four_forms() {
    let text = |text: &str| TextInput::Text(text.to_owned());
    for (written, read) in [
        (json!("a"), vec![text("a")]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([1, 2]), vec![TextInput::Tokens(vec![1, 2])]),
        (json!([[1], [2, 3]]), vec![TextInput::Tokens(vec![1]), TextInput::Tokens(vec![2, 3])]),
    ] {
        let body = json!({"input": written, "encoding_format": "base64"}).to_string();
        let parsed = EmbeddingsRequest::parse(body.as_bytes(), Vocabulary::INFERENCE, 2).unwrap();
        assert_eq!(parsed.request.input, read);
        assert_eq!(parsed.request.options.encoding_format, EncodingFormat::Base64);
        let body = json!({ "prompt": written }).to_string();
        let parsed = CompletionsRequest::parse(body.as_bytes(), Vocabulary::INFERENCE).unwrap();
        assert_eq!(parsed.request.prompts, read);
        assert_eq!(parsed.request.max_tokens(Dialect::Inference), 256);
    }
}

#[test]
fn what_prompt_flow_sends_to_completions_is_taken() {
    let body = json!({
        "prompt": "a", "best_of": 1, "n": 1, "echo": false, "logit_bias": {}, "user": "",
        "logprobs": null, "suffix": "", "model": ""
    })
    .to_string();
    let parsed = CompletionsRequest::parse(body.as_bytes(), Vocabulary::OPENAI).unwrap();
    assert!(parsed.extra.is_empty());
    assert_eq!((parsed.request.suffix, parsed.request.user), (None, None));
}
