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
