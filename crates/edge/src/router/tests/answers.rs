//! Answers that are given again, and answers of another deployment.

use super::*;
use api_types::rpc::content_safety::Direction;

const CHAT: &str = "/chat/completions?api-version=2024-05-01-preview";
const CACHED: [(&str, &str); 2] =
    [("EDGE__CACHE__CHAT", "true"), ("EDGE__CACHE__EMBEDDINGS", "true")];

fn source(answer: &Answer) -> &str {
    answer.headers.get("x-koine-cache").map_or("", |v| v.to_str().unwrap())
}

fn settled(text: &str) -> Value {
    let mut body = says(text);
    body["temperature"] = json!(0);
    body
}

/// Until no computation is on its way: what is kept is kept a moment after the last byte.
async fn twice(edge: &Edge, body: &Value) -> (Answer, Answer) {
    let first = edge.post(CHAT, body).await;
    let mut second = edge.post(CHAT, body).await;
    while source(&second) == "joined" {
        second = edge.post(CHAT, body).await;
    }
    (first, second)
}

#[tokio::test]
async fn an_answer_of_temperature_0_is_given_again_whole_or_streamed() {
    let edge = edge(&CACHED).await;
    let (first, second) = twice(&edge, &settled("hello you")).await;
    assert_eq!((source(&first), source(&second)), ("miss", "hit"));
    let content = |answer: &Answer| answer.json()["choices"][0]["message"]["content"].clone();
    assert_eq!(content(&second), content(&first));
    assert_eq!(second.json()["usage"], first.json()["usage"]);
    let mut streamed = settled("hello you");
    streamed["stream"] = json!(true);
    let streamed = edge.post(CHAT, &streamed).await;
    assert_eq!((source(&streamed), streamed.said().as_str()), ("hit", "hello you"));
    assert_eq!(edge.seen.generated.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_may_differ_is_asked_again() {
    let edge = edge(&CACHED).await;
    for body in [says("hello"), says("hello")] {
        let answer = edge.post(CHAT, &body).await;
        assert_eq!((answer.status.as_u16(), source(&answer)), (200, ""));
    }
    let (_, second) = twice(&edge, &settled("hello")).await;
    assert_eq!(source(&second), "hit");
    let fresh = edge.post_with(("cache-control", "no-cache"), CHAT, &settled("hello")).await;
    assert_eq!((fresh.status.as_u16(), source(&fresh)), (200, ""));
    assert_eq!(edge.seen.generated.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_failure_has_its_own_status_and_is_not_kept() {
    let edge = edge(&CACHED).await;
    for _ in 0..2 {
        let answer = edge.post(CHAT, &settled("/fail")).await;
        assert_eq!(answer.status.as_u16(), 500, "{}", answer.text);
    }
    assert_eq!(edge.seen.generated.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn an_answer_is_given_to_another_caller_only_where_it_is_shared() {
    let keys = ("EDGE__AUTH__KEYS", "[\"one\", \"two\"]");
    for (scope, expected) in [("caller", "miss"), ("shared", "hit")] {
        let edge = edge(&[CACHED[0], keys, ("EDGE__CACHE__SCOPE", scope)]).await;
        let mut sources = Vec::new();
        for key in ["one", "one", "two"] {
            let mut answer = edge.post_with(("api-key", key), CHAT, &settled("hello")).await;
            while source(&answer) == "joined" {
                answer = edge.post_with(("api-key", key), CHAT, &settled("hello")).await;
            }
            sources.push(source(&answer).to_owned());
        }
        assert_eq!(sources, ["miss", "hit", expected], "{scope}");
    }
}

#[tokio::test]
async fn vectors_are_given_again() {
    let edge = edge(&CACHED).await;
    let path = "/embeddings?api-version=2024-05-01-preview";
    let first = edge.post(path, &json!({"input": ["a", "b"]})).await;
    let mut second = edge.post(path, &json!({"input": ["a", "b"]})).await;
    while source(&second) == "joined" {
        second = edge.post(path, &json!({"input": ["a", "b"]})).await;
    }
    assert_eq!((source(&first), source(&second)), ("miss", "hit"));
    assert_eq!(second.json()["data"], first.json()["data"]);
    let other = edge.post(path, &json!({"input": ["b", "a"]})).await;
    assert_eq!(source(&other), "miss");
}

#[tokio::test]
async fn a_verdict_is_given_again_and_a_prompt_it_blocks_stays_blocked() {
    let options = [("EDGE__CACHE__VERDICTS", "true"), ("EDGE__GUARD__POLICY", "default")];
    let edge = edge(&options).await;
    let prompts = |edge: &Edge| {
        let screened = edge.seen.screened.lock().unwrap();
        screened.iter().filter(|r| r.direction() == Direction::Prompt).count()
    };
    for _ in 0..4 {
        let answer = edge.post(CHAT, &says("a bad idea")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "content_filter"));
    }
    assert_eq!(prompts(&edge), 1);
    assert_eq!(edge.post(CHAT, &says("a good idea")).await.status.as_u16(), 200);
}

const FALLBACK: (&str, &str) = (
    "EDGE__DEPLOYMENTS",
    "[{name='main', service='chat', model='down', fallback='spare'}, \
      {name='spare', service='chat', model='talk'}]",
);

fn main_says(text: &str) -> Value {
    let mut body = says(text);
    body["model"] = json!("main");
    body
}

#[tokio::test]
async fn another_deployment_answers_where_the_first_cannot() {
    let edge = edge(&[FALLBACK]).await;
    let answer = edge.post(&CHAT.replace("/chat", "/models/chat"), &main_says("hello")).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "hello");
    assert_eq!(answer.json()["model"], "talk");
    let asked: Vec<_> =
        edge.seen.generated.lock().unwrap().iter().map(|r| r.model.clone()).collect();
    assert_eq!(asked, ["down", "talk"]);
}

#[tokio::test]
async fn a_request_that_the_fallback_cannot_serve_fails_as_without_one() {
    let deployments = FALLBACK.1.replace("model='talk'", "model='talk', tools=false");
    let edge = edge(&[(FALLBACK.0, &deployments)]).await;
    let mut body = main_says("hello");
    body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let answer = edge.post(&CHAT.replace("/chat", "/models/chat"), &body).await;
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.text);
    assert_eq!(edge.seen.generated.lock().unwrap().len(), 1);
}
