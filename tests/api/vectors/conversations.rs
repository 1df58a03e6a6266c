//! Conversations: the shape of an answer, what clients send in their histories, images, reasoning.

use crate::ask::{
    API_KEY, Answer, Ask, B, PREFIXES, S, VERSIONS, everywhere, is_openai, post, says, streamed,
    with,
};
use e2e::{KEY, TestStack};
use serde_json::{Value, json};

/// Keys that section 8.6 requires of every answer.
const REQUIRED: [&str; 6] = ["id", "object", "created", "model", "choices", "usage"];

fn check_shape(answer: &Answer, inference: bool) {
    let body = answer.ok();
    for key in REQUIRED {
        assert!(body.get(key).is_some(), "{}: no {key}", answer.path);
    }
    assert!(body["id"].as_str().is_some_and(|id| id.len() >= 8));
    assert_eq!(body["object"], "chat.completion");
    assert!(body["created"].as_u64().is_some_and(|seconds| seconds > 1_600_000_000));
    assert_eq!(body["model"], "talk");
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 1, "exactly one");
    let choice = &choices[0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "You said: hi");
    assert_eq!(choice["message"].get("tool_calls"), None, "left out rather than null");
    let usage = &body["usage"];
    let [prompt, completion, total] =
        ["prompt_tokens", "completion_tokens", "total_tokens"].map(|key| usage[key].as_u64());
    assert_eq!(prompt.unwrap() + completion.unwrap(), total.unwrap());
    // What the filter found is told on every family (section 13.2).
    assert!(choice["content_filter_results"]["hate"]["filtered"].is_boolean());
    let prompt = &body["prompt_filter_results"][0];
    assert_eq!(prompt["prompt_index"], 0);
    assert!(prompt["content_filter_results"]["jailbreak"]["detected"].is_boolean());
    assert_eq!(body["id"].as_str().unwrap().starts_with("chatcmpl-"), !inference);
}

#[tokio::test(flavor = "multi_thread")]
async fn v01_a_conversation_is_answered_with_one_choice() {
    let stack = TestStack::start().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let bearer = format!("Bearer {KEY}");
    let mut paths = everywhere("/chat/completions", "talk");
    for version in VERSIONS {
        paths.extend(PREFIXES.iter().map(|p| format!("{p}/chat/completions?{version}")));
    }
    paths.push(format!("/models//chat/completions?{B}").replace("//", "/"));
    paths.push(format!("/v1/chat/completions?{S}"));
    for path in paths {
        let ask = Ask::new(&stack, "POST", &path).header(("authorization", &bearer)).json(&body);
        check_shape(&ask.send().await, !is_openai(&path) || path.ends_with(S));
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v21_histories_are_taken_as_clients_send_them() {
    let stack = TestStack::start().await;
    let call = json!({"id": "call_1", "function": {"name": "get_weather", "arguments": "{}"}});
    let typed = with(call.clone(), "type", json!("function"));
    let history = |assistant: Value| {
        json!({"model": "tools", "messages": [
            {"role": "system", "content": [{"type": "text", "text": "be brief"}], "name": null},
            {"role": "user", "content": "weather?"},
            assistant,
            {"role": "tool", "tool_call_id": "call_1", "content": "rain", "name": null},
            {"role": "user", "content": "and now?"}],
            "tools": [{"type": "function", "function": {"name": "get_weather"}}],
            "temperature": null, "max_tokens": null, "stop": null, "tool_choice": null,
            "seed": null, "response_format": null, "top_p": null})
    };
    for path in everywhere("/chat/completions", "tools") {
        for assistant in [
            json!({"role": "assistant", "tool_calls": [call]}),
            json!({"role": "assistant", "tool_calls": [typed]}),
            json!({"role": "assistant", "content": null, "tool_calls": [call], "name": null}),
            json!({"role": "assistant", "content": "", "tool_calls": [typed], "refusal": null}),
            json!({"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [typed]}),
        ] {
            let answer = post(&stack, &path, &history(assistant)).await;
            assert_eq!(answer.said(), "You said: and now?");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v22_stop_is_a_string_an_array_or_null() {
    let stack = TestStack::start().await;
    for path in everywhere("/chat/completions", "talk") {
        for stop in [json!("END"), json!(["END", "\n\n"]), json!(null), json!([])] {
            let answer = post(&stack, &path, &with(says("talk", "hi"), "stop", stop)).await;
            assert_eq!(answer.said(), "You said: hi");
        }
        for stop in [json!(7), json!([1]), json!({"a": 1})] {
            let answer = post(&stack, &path, &with(says("talk", "hi"), "stop", stop)).await;
            answer.refused(400, "BadRequest");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v23_an_image_for_a_model_of_texts_is_refused_where_it_stands() {
    let stack = TestStack::start().await;
    let url = "data:image/png;base64,iVBORw0KGgo=";
    let asked = |model: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}]})
    };
    for path in everywhere("/chat/completions", "talk") {
        let answer = post(&stack, &path, &asked("talk")).await;
        if is_openai(&path) {
            let said = answer.refused(400, "unsupported_value");
            assert_eq!(said["error"]["param"], "messages.0.content.1");
        } else {
            let said = answer.refused(422, "parameter_not_supported");
            let place = json!(["body", "messages", 0, "content", 1]);
            assert_eq!(said["detail"], json!({"loc": place, "input": "image_url"}));
            assert_eq!(said["error"]["details"][0]["loc"], place);
        }
    }
    let flat = post(&stack, &format!("/models/chat/completions?{S}"), &asked("talk")).await;
    assert_eq!(flat.refused(422, "parameter_not_supported")["detail"]["loc"][4], 1);
    // A part that no version of the API has is no question of the model.
    let odd = json!({"model": "eyes", "messages": [{"role": "user", "content": [
        {"type": "smell", "smell": {"url": url}}]}]});
    post(&stack, &format!("/models/chat/completions?{B}"), &odd).await.refused(400, "BadRequest");
    stack.stop().await;
    // A model that sees is asked; the picture of this test is none, so nothing looks at it.
    let unscreened = "[{name='sight', service='chat', model='eyes', policy=''}]";
    let stack = TestStack::start_with(&[("EDGE__DEPLOYMENTS", unscreened)]).await;
    for path in everywhere("/chat/completions", "sight") {
        assert_eq!(post(&stack, &path, &asked("sight")).await.said(), "You said: I see 1 image");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v38_reasoning_is_inline_in_old_versions_and_a_field_in_new_ones() {
    let stack = TestStack::start().await;
    let inline = "<think>I had better think. </think>Done thinking.";
    let old = [S, B, "api-version=2024-08-01-preview"];
    let body = says("thinker", "/think");
    for (version, prefix) in VERSIONS.iter().flat_map(|v| PREFIXES.map(|p| (*v, p))) {
        let path = format!("{prefix}/chat/completions?{version}");
        let message = post(&stack, &path, &body).await.ok()["choices"][0]["message"].clone();
        let events = post(&stack, &path, &with(body.clone(), "stream", json!(true))).await.events();
        if old.contains(&version) {
            assert_eq!(message["content"], inline, "{version}");
            assert_eq!(message.get("reasoning_content"), None);
            assert_eq!(streamed(&events), inline);
        } else {
            check_fields(&message, &events);
        }
    }
    for path in everywhere("/chat/completions", "thinker").iter().filter(|path| is_openai(path)) {
        let message = post(&stack, path, &body).await.ok()["choices"][0]["message"].clone();
        let events = post(&stack, path, &with(body.clone(), "stream", json!(true))).await.events();
        check_fields(&message, &events);
    }
    let plain = Ask::new(&stack, "GET", &format!("/models/info?{B}&model=thinker"));
    plain.header(API_KEY).send().await.ok();
    stack.stop().await;
}

fn check_fields(message: &Value, events: &[Value]) {
    assert_eq!(message["content"], "Done thinking.");
    assert_eq!(message["reasoning_content"], "I had better think. ");
    assert_eq!(streamed(events), "Done thinking.");
    let thoughts: String = events
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["reasoning_content"].as_str())
        .collect();
    assert_eq!(thoughts, "I had better think. ");
}
