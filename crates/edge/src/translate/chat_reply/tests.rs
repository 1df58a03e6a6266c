//! Tests of the answers of `/chat/completions`.

use super::*;
use crate::context::{Context, Family};
use crate::pieces::Usage;
use api_types::Fault;
use api_types::rest::content_filter::{Severity, SeverityResult};
use futures::StreamExt as _;
use serde_json::{Value, json};

fn answer(uri: &str) -> Answer {
    let context = Context::of(&uri.parse().unwrap(), tokio::time::Instant::now());
    Answer { id: "i".into(), created: 7, ..Answer::new(&context, "chatcmpl-", "m") }
}

const INFERENCE: &str = "/chat/completions?api-version=2024-05-01-preview";

fn text(text: &str) -> Piece {
    Piece::Text(Text { choice: 0, text: text.into(), logprobs: Vec::new() })
}

fn stop() -> Piece {
    Piece::Finished { choice: 0, reason: FinishReason::Stop }
}

fn spent() -> Piece {
    Piece::Usage(Usage { prompt: 3, completion: 2, ..Usage::default() })
}

fn updates(answer: Answer, pieces: Vec<Piece>) -> Vec<Value> {
    let mut updates = Updates::new(answer);
    let mut out: Vec<_> =
        pieces.into_iter().flat_map(|p| updates.push(Screened::unseen(p))).collect();
    out.extend(updates.finish());
    out.into_iter().map(|u| serde_json::to_value(u).unwrap()).collect()
}

async fn whole(answer: Answer, pieces: Vec<Piece>) -> Value {
    let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, Fault>)).boxed();
    serde_json::to_value(Collected::take(pieces).await.unwrap().into_chat(answer)).unwrap()
}

#[test]
fn role_then_content_then_the_end_with_usage() {
    let chunks = updates(
        answer(INFERENCE),
        vec![Piece::Started("named".into()), text("Hel"), text("lo"), stop(), spent()],
    );
    assert_eq!(chunks.len(), 4);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(chunks[0]["model"], "named");
    assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "Hel"}));
    assert!(chunks[1].get("usage").is_none());
    assert_eq!(chunks[3]["choices"][0]["delta"], json!({"content": ""}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        chunks[3]["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    );
}

#[test]
fn openai_sends_usage_only_when_asked_and_in_a_chunk_of_its_own() {
    let silent = updates(answer("/v1/chat/completions"), vec![text("x"), stop(), spent()]);
    assert!(silent.iter().all(|c| c.get("usage").is_none()));
    assert_eq!(silent.len(), 3);
    let asked = answer("/v1/chat/completions");
    let options = api_types::rest::sampling::StreamOptions { include_usage: true };
    let chunks = updates(asked.with_options(Some(options)), vec![text("x"), stop(), spent()]);
    assert_eq!(chunks.len(), 4);
    assert!(chunks[..3].iter().all(|c| c["usage"].is_null() && c.get("usage").is_some()));
    assert_eq!(chunks[3]["choices"], json!([]));
    assert_eq!(chunks[3]["usage"]["total_tokens"], 5);
}

#[test]
fn the_first_step_of_a_call_names_it_and_later_ones_do_not() {
    let first = Call { id: "c1".into(), name: "f".into(), ..Call::default() };
    let second = Call { arguments: "{}".into(), ..Call::default() };
    let end = Piece::Finished { choice: 0, reason: FinishReason::ToolCalls };
    let chunks = updates(
        answer(INFERENCE),
        vec![Piece::ToolCall(first), Piece::ToolCall(second), end, spent()],
    );
    let step = |i: usize| chunks[i]["choices"][0]["delta"]["tool_calls"][0].clone();
    assert_eq!(
        step(1),
        json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}})
    );
    assert_eq!(step(2), json!({"index": 0, "function": {"arguments": "{}"}}));
    assert_eq!(chunks[3]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn reasoning_is_inline_for_old_versions_and_a_field_for_new_ones() {
    let pieces = || {
        vec![
            Piece::Reasoning { choice: 0, text: "hm".into() },
            Piece::Reasoning { choice: 0, text: "m".into() },
            text("Yes"),
            stop(),
            spent(),
        ]
    };
    let content = |chunks: &[Value], key: &str| -> String {
        chunks
            .iter()
            .filter_map(|c| c["choices"][0]["delta"][key].as_str().map(str::to_owned))
            .collect()
    };
    let old = updates(answer(INFERENCE), pieces());
    assert_eq!(content(&old, "content"), "<think>hmm</think>Yes");
    let new = updates(answer("/chat/completions?api-version=2025-04-01"), pieces());
    assert_eq!(content(&new, "content"), "Yes");
    assert_eq!(content(&new, "reasoning_content"), "hmm");
}

#[test]
fn a_thought_that_never_ends_is_closed() {
    let pieces = vec![Piece::Reasoning { choice: 0, text: "hm".into() }, stop(), spent()];
    let chunks = updates(answer(INFERENCE), pieces);
    assert_eq!(chunks[2]["choices"][0]["delta"]["content"], "</think>");
}

#[test]
fn each_choice_has_a_role_chunk_and_the_last_end_has_the_usage() {
    let second = Piece::Text(Text { choice: 1, text: "b".into(), logprobs: Vec::new() });
    let end = Piece::Finished { choice: 1, reason: FinishReason::Length };
    let chunks = updates(answer(INFERENCE), vec![text("a"), second, stop(), end, spent()]);
    let roles = chunks.iter().filter(|c| c["choices"][0]["delta"].get("role").is_some()).count();
    assert_eq!(roles, 2);
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "stop");
    assert!(chunks[4].get("usage").is_none());
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "length");
    assert!(chunks[5].get("usage").is_some());
}

#[test]
fn what_was_found_in_the_prompt_comes_first_in_the_way_of_the_family() {
    let safe = SeverityResult { filtered: false, severity: Severity::Safe };
    let found = ContentFilterResults { hate: Some(safe), ..Default::default() };
    let mut inference = answer(INFERENCE);
    inference.prompt_found = Some(found.clone());
    let chunks = updates(inference, vec![text("x"), stop(), spent()]);
    let expected = json!([{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": false, "severity": "safe"}}}]);
    assert_eq!(chunks[0]["prompt_filter_results"], expected);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let mut openai = answer("/openai/deployments/d/chat/completions");
    openai.prompt_found = Some(found);
    assert_eq!(openai.family, Family::Deployments);
    let chunks = updates(openai, vec![text("x"), stop(), spent()]);
    assert_eq!(chunks[0]["choices"], json!([]));
    assert_eq!((&chunks[0]["id"], &chunks[0]["created"]), (&json!(""), &json!(0)));
    assert_eq!(chunks[0]["prompt_filter_results"], expected);
    assert!(chunks[1].get("prompt_filter_results").is_none());
}

#[tokio::test]
async fn a_whole_answer_is_the_pieces_put_together() {
    let body = whole(
        answer(INFERENCE),
        vec![Piece::Started("m2".into()), text("Hel"), text("lo."), stop(), spent()],
    )
    .await;
    assert_eq!(
        body,
        json!({"id": "i", "object": "chat.completion", "created": 7, "model": "m2", "choices": [{"index": 0,
            "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop", "logprobs": null}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    );
}

#[tokio::test]
async fn a_whole_call_has_its_arguments_in_one_string() {
    let step = |id: &str, arguments: &str| {
        Piece::ToolCall(Call {
            id: id.into(),
            name: id.into(),
            arguments: arguments.into(),
            ..Call::default()
        })
    };
    let end = Piece::Finished { choice: 0, reason: FinishReason::ToolCalls };
    let body = whole(
        answer(INFERENCE),
        vec![step("f", ""), step("", "{\"a\":"), step("", "1}"), end, spent()],
    )
    .await;
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], "");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
    let mut old = answer("/v1/chat/completions");
    old.legacy_functions = true;
    let end = Piece::Finished { choice: 0, reason: FinishReason::ToolCalls };
    let body = whole(old, vec![step("f", "{}"), end, spent()]).await;
    assert_eq!(
        body["choices"][0]["message"]["function_call"],
        json!({"name": "f", "arguments": "{}"})
    );
    assert_eq!(body["choices"][0]["finish_reason"], "function_call");
}

#[tokio::test]
async fn a_blocked_choice_keeps_its_key_without_its_text() {
    let pieces = futures::stream::iter([text("bad"), stop(), spent()].map(Ok::<_, Fault>)).boxed();
    let mut collected = Collected::take(pieces).await.unwrap();
    assert_eq!(collected.visible(), [(0, "bad".to_owned())]);
    collected.judged(0, ContentFilterResults::default(), true);
    let body = serde_json::to_value(collected.into_chat(answer(INFERENCE))).unwrap();
    let choice = &body["choices"][0];
    assert!(choice["message"]["content"].is_null() && choice["message"].get("content").is_some());
    assert_eq!(choice["finish_reason"], "content_filter");
    assert_eq!(body["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn pieces_that_stop_short_are_an_error() {
    let pieces = futures::stream::iter([text("half")].map(Ok::<_, Fault>)).boxed();
    assert_eq!(Collected::take(pieces).await.unwrap_err().code.http(), 502);
}
