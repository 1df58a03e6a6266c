//! Content safety around requests.

use super::*;
use api_types::rpc::content_safety as safety;

const SCREENED: (&str, &str) = ("EDGE__GUARD__POLICY", "default");

async fn screened() -> Edge {
    edge(&[SCREENED, ("EDGE__GUARD__WINDOW_CHARS", "8"), ("EDGE__GUARD__CONTEXT_CHARS", "4")]).await
}

#[tokio::test]
async fn a_blocked_prompt_is_400_even_when_a_stream_was_asked_for() {
    let edge = screened().await;
    for body in [says("a bad thing"), streams("a bad thing")] {
        let answer = edge.post(&inference("/chat/completions"), &body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["x-ms-error-code"], "content_filter");
        let error = answer.json();
        let found = &error["error"]["innererror"]["content_filter_result"]["violence"];
        assert_eq!(*found, json!({"filtered": true, "severity": "high"}));
    }
    let flat = edge.post("/chat/completions?api-version=2024-04-01-preview", &says("bad")).await;
    assert_eq!(
        flat.json(),
        json!({"status":400,"code":"content_filter","message":"The response was filtered","param":"messages","type":null})
    );
}

#[tokio::test]
async fn annotations_are_on_every_screened_answer() {
    let edge = screened().await;
    let body = edge.post(&inference("/chat/completions"), &says("fine")).await.json();
    let safe = json!({"violence": {"filtered": false, "severity": "safe"}});
    assert_eq!(body["choices"][0]["content_filter_results"], safe);
    assert_eq!(
        body["prompt_filter_results"],
        json!([{"prompt_index": 0, "content_filter_results": safe}])
    );
    let events =
        edge.post(&inference("/chat/completions"), &streams("all is fine here")).await.events();
    assert_eq!(events[0]["prompt_filter_results"][0]["content_filter_results"], safe);
    assert_eq!(events[1]["choices"][0]["content_filter_results"], safe);
    let azure = "/openai/deployments/talk/chat/completions?api-version=2024-10-21";
    let events = edge.post(azure, &streams("all is fine here")).await.events();
    assert_eq!((&events[0]["choices"], &events[0]["id"]), (&json!([]), &json!("")));
    assert_eq!(events[0]["prompt_filter_results"][0]["content_filter_results"], safe);
    let directions: Vec<_> =
        edge.seen.screened.lock().unwrap().iter().map(|r| r.direction()).collect();
    assert!(
        directions.contains(&safety::Direction::Prompt)
            && directions.contains(&safety::Direction::Completion)
    );
}

#[tokio::test]
async fn no_character_of_a_blocked_window_leaves() {
    let edge = screened().await;
    let answer = edge
        .post(&inference("/chat/completions"), &streams("good words first. then rotten words"))
        .await;
    let (events, said) = (answer.events(), answer.said());
    assert!("good words first. then ".starts_with(&said) && !said.is_empty(), "{said}");
    let last = events.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(last["choices"][0]["delta"], json!({}));
    let high = json!({"filtered": true, "severity": "high"});
    assert_eq!(last["choices"][0]["content_filter_results"]["violence"], high);
    assert_eq!(last["usage"]["completion_tokens"], 2, "what was spent is still told");
}

#[tokio::test]
async fn a_blocked_whole_reply_keeps_its_key_without_its_text() {
    let edge = screened().await;
    let body = edge.post(&inference("/chat/completions"), &says("all rotten")).await.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "content_filter");
    assert_eq!(choice["message"], json!({"role": "assistant", "content": null}));
    assert_eq!(choice["content_filter_results"]["violence"]["filtered"], true);
    assert_eq!(body["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn a_cleared_stream_leaves_whole_and_in_order() {
    let edge = screened().await;
    let text = "A first sentence. A second one, somewhat longer! And the end";
    assert_eq!(edge.post(&inference("/chat/completions"), &streams(text)).await.said(), text);
}

#[tokio::test]
async fn without_the_service_configuration_decides() {
    let nowhere = ("EDGE__CONTENT_SAFETY__ENDPOINTS", "[\"http://127.0.0.1:1\"]");
    let refusing = edge(&[SCREENED, nowhere]).await;
    for body in [says("hi"), streams("hi")] {
        let answer = refusing.post(&inference("/chat/completions"), &body).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let allowing = edge(&[SCREENED, nowhere, ("EDGE__GUARD__WHEN_UNAVAILABLE", "allow")]).await;
    let body = allowing.post(&inference("/chat/completions"), &says("hi")).await.json();
    let code = |found: &Value| found["error"]["code"].clone();
    assert_eq!(code(&body["choices"][0]["content_filter_results"]), "content_filter_error");
    assert_eq!(
        code(&body["prompt_filter_results"][0]["content_filter_results"]),
        "content_filter_error"
    );
}

#[tokio::test]
async fn a_deployment_may_go_without_a_policy() {
    let deployments = "[{name='free', service='chat', model='talk', policy=''}]";
    let edge = edge(&[SCREENED, ("EDGE__DEPLOYMENTS", deployments)]).await;
    let mut body = says("a bad thing");
    assert_eq!(
        edge.post(&inference("/chat/completions"), &body).await.status,
        200,
        "the first deployment is free"
    );
    body["model"] = json!("talk");
    assert_eq!(edge.post(&inference("/chat/completions"), &body).await.status, 400);
}

#[tokio::test]
async fn images_to_embed_are_screened_and_texts_only_on_request() {
    let edge = screened().await;
    let body = json!({"input": [{"image": "data:image/png;base64,aGk="}]});
    assert_eq!(edge.post(&inference("/images/embeddings"), &body).await.status, 200);
    assert_eq!(edge.seen.screened.lock().unwrap().last().unwrap().images, [b"hi"]);
    let text = json!({"input": "bad"});
    assert_eq!(edge.post(&inference("/embeddings"), &text).await.status, 200);
    let all = super::edge(&[SCREENED, ("EDGE__GUARD__EMBEDDINGS", "true")]).await;
    assert_eq!(all.post(&inference("/embeddings"), &text).await.status, 400);
}

#[tokio::test]
async fn behind_the_stream_annotations_cover_the_answer_without_a_gap() {
    let prompt = "A first sentence. A second one, somewhat longer! And the end";
    let edge = edge(&[
        SCREENED,
        ("EDGE__GUARD__WINDOW_CHARS", "8"),
        ("EDGE__GUARD__STREAM_FILTER", "asynchronous"),
    ])
    .await;
    for path in [inference("/chat/completions"), "/v1/chat/completions".to_owned()] {
        let answer = edge.post(&path, &streams(prompt)).await;
        assert_eq!(answer.said(), prompt);
        let events = answer.events();
        let notes: Vec<_> = events
            .iter()
            .filter(|e| !e["choices"][0]["content_filter_offsets"].is_null())
            .collect();
        // The fake repeats the prompt, so that the answer begins where the prompt, as long as it, ends.
        let mut at = prompt.len();
        for note in &notes {
            let choice = &note["choices"][0];
            let offsets = &choice["content_filter_offsets"];
            assert_eq!(offsets["start_offset"], json!(at));
            assert_eq!(offsets["check_offset"], offsets["end_offset"]);
            at = usize::try_from(offsets["end_offset"].as_u64().unwrap()).unwrap();
            assert_eq!((&choice["delta"], &choice["finish_reason"]), (&json!({}), &Value::Null));
            assert_eq!(choice["content_filter_results"]["violence"]["severity"], "safe");
            assert_eq!((&note["id"], &note["object"]), (&events[1]["id"], &events[1]["object"]));
        }
        assert_eq!(at, 2 * prompt.len());
        assert!(notes.len() > 1, "{notes:?}");
    }
}

#[tokio::test]
async fn behind_the_stream_a_blocked_window_ends_the_answer() {
    let deployments =
        "[{name='quick', service='chat', model='talk', stream_filter='asynchronous'}]";
    let edge =
        edge(&[SCREENED, ("EDGE__GUARD__WINDOW_CHARS", "8"), ("EDGE__DEPLOYMENTS", deployments)])
            .await;
    let mut body = streams("good words first. then rotten words");
    body["model"] = json!("quick");
    let events = edge.post(&inference("/chat/completions"), &body).await.events();
    let last = &events.last().unwrap()["choices"][0];
    assert_eq!((&last["finish_reason"], &last["delta"]), (&json!("content_filter"), &json!({})));
    let note = events.iter().rev().find(|e| !e["choices"][0]["content_filter_offsets"].is_null());
    let found = &note.unwrap()["choices"][0]["content_filter_results"]["violence"];
    assert_eq!(*found, json!({"filtered": true, "severity": "high"}));
    let ends = events.iter().filter(|e| !e["choices"][0]["finish_reason"].is_null());
    assert_eq!(ends.count(), 1, "a choice ends once");
}

#[tokio::test]
async fn annotations_say_why_where_configuration_wants_it() {
    let edge = edge(&[
        SCREENED,
        ("EDGE__GUARD__EXPLAIN", "true"),
        ("EDGE__GUARD__WINDOW_CHARS", "8"),
        ("EDGE__GUARD__CONTEXT_CHARS", "4"),
    ])
    .await;
    let answer = edge.post(&inference("/chat/completions"), &says("a bad thing")).await.json();
    let found = &answer["error"]["innererror"]["content_filter_result"]["explanation"];
    let expected = json!({"policy": "default", "version": "fake-1", "would_block": false, "findings": [
        {"name": "violence", "filtered": true, "severity": 6, "score": 0.5, "segment": 0, "start": 1, "end": 3}]});
    assert_eq!(*found, expected);
    // Of a streamed answer places are counted from its start, not from that of a window.
    let events =
        edge.post(&inference("/chat/completions"), &streams(&"fine ".repeat(100))).await.events();
    let starts = |e: &Value| {
        e["choices"][0]["content_filter_results"]["explanation"]["findings"][0]["start"].as_u64()
    };
    let starts: Vec<_> = events.iter().filter_map(starts).collect();
    assert!(starts.is_sorted() && starts[0] == 1 && *starts.last().unwrap() > 200, "{starts:?}");
    let plain = screened().await.post(&inference("/chat/completions"), &says("fine")).await;
    assert!(!plain.text.contains("explanation"));
}

#[tokio::test]
async fn what_is_blocked_never_reaches_a_model_that_is_asked_second() {
    for (first, asked) in [("true", 0), ("false", 1)] {
        let edge = edge(&[SCREENED, ("EDGE__GUARD__PROMPT_FIRST", first)]).await;
        // Judged last, so that the model is asked before where it may be.
        let answer = edge.post(&inference("/chat/completions"), &says("fine")).await;
        assert_eq!(answer.status, 200);
        edge.seen.generated.lock().unwrap().clear();
        assert_eq!(edge.post(&inference("/chat/completions"), &says("bad")).await.status, 400);
        let generated = edge.seen.generated.lock().unwrap().len();
        assert!(generated <= asked, "{first}: {generated}");
    }
}

#[tokio::test]
async fn a_deployment_may_go_on_while_the_service_is_away() {
    let nowhere = ("EDGE__CONTENT_SAFETY__ENDPOINTS", "[\"http://127.0.0.1:1\"]");
    let deployments = "[{name='open', service='chat', model='talk', when_unavailable='allow'}]";
    let edge = edge(&[SCREENED, nowhere, ("EDGE__DEPLOYMENTS", deployments)]).await;
    let mut body = says("hi");
    for (model, status) in [("open", 200), ("talk", 503)] {
        body["model"] = json!(model);
        assert_eq!(edge.post(&inference("/chat/completions"), &body).await.status, status);
    }
}
