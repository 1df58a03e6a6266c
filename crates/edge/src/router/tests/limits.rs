//! Limits, seen over the whole router: headers, 429, and what a request costs in the end.

use super::*;

const PATH: &str = "/chat/completions";

/// An edge where everybody has the class `c` with `limits`.
async fn limited(limits: &str) -> Edge {
    let class = format!("[{{name='c',limits={limits}}}]");
    edge(&[("EDGE__RATES__CLASSES", &class), ("EDGE__RATES__DEFAULT_CLASS", "c")]).await
}

fn number(answer: &Answer, header: &str) -> u64 {
    answer.headers[header].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn without_limits_there_are_no_headers() {
    let edge = edge(&[]).await;
    let answer = edge.post(&inference(PATH), &says("hi")).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")));
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_429_when_to_come_back() {
    let edge = limited("{requests_per_minute=2, tokens_per_day=100000}").await;
    for left in [1, 0] {
        let answer = edge.post(&inference(PATH), &says("hi")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 2);
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), left);
        assert_eq!(number(&answer, "x-ratelimit-limit-tokens"), 100_000);
        assert!(!answer.headers.contains_key("x-ratelimit-reset-requests"));
        assert!(!answer.headers.contains_key("policy-id"));
    }
    let refused = edge.post(&inference(PATH), &says("hi")).await;
    assert_eq!(refused.status, 429);
    let seconds = number(&refused, "retry-after");
    assert!((1..=60).contains(&seconds));
    let milliseconds = number(&refused, "retry-after-ms");
    assert_eq!(milliseconds.div_ceil(1000), seconds);
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
    assert!(number(&refused, "x-ratelimit-reset-requests") >= 1);
    // The daily tokens of two short requests, whose model counted five each.
    assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 99_990);
    assert_eq!(refused.headers["policy-id"], "DeploymentRatelimit-Call");
    assert_eq!(refused.headers["x-ms-error-code"], "429");
    let message = format!(
        "Requests have exceeded the request rate limit of this deployment. Please retry after {seconds} seconds."
    );
    let body = refused.json();
    assert_eq!(body["error"], json!({"code": "429", "message": message}));
    assert_eq!((&body["status"], &body["message"]), (&json!(429), &json!(message)));
    let other = json!({"model": "Other", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(edge.post(&inference(PATH), &other).await.status, 200, "counted by itself");
    assert_eq!(edge.post("/v1/chat/completions", &says("hi")).await.status, 429);
}

async fn tokens_left(edge: &Edge) -> u64 {
    let answer = edge.post(&inference("/embeddings"), &json!({"input": "a"})).await;
    assert_eq!(answer.status, 200);
    number(&answer, "x-ratelimit-remaining-tokens")
}

#[tokio::test]
async fn embeddings_cost_what_the_model_counted() {
    let edge = limited("{tokens_per_day=1000}").await;
    assert_eq!(tokens_left(&edge).await, 999, "one is reserved");
    assert_eq!(tokens_left(&edge).await, 995, "four were counted for the first");
    assert_eq!(tokens_left(&edge).await, 991);
}

/// What is left of 1000 tokens after `body`, as the next request is told.
async fn left_after(edge: &Edge, body: &Value) -> u64 {
    edge.post(&inference(PATH), body).await;
    let mut small = says("hi");
    small["max_tokens"] = json!(1);
    let next = edge.post(&inference(PATH), &small).await;
    // Its own share, which is one token of a prompt and one of an answer.
    number(&next, "x-ratelimit-remaining-tokens") + 2
}

#[tokio::test]
async fn whole_and_streamed_answers_cost_the_same_and_failures_nothing() {
    for (body, left) in [
        (says("one two"), 995),
        (streams("one two"), 995),
        (says("/fail"), 1000),
        (streams("/fail"), 1000),
        (streams("/die"), 1000),
        (json!({"messages": "wrong"}), 1000),
    ] {
        let edge = limited("{tokens_per_day=1000}").await;
        if body.to_string().contains("/die") {
            // Its body breaks, which `post` does not read.
            let request = post(&inference(PATH), body.to_string());
            let response = edge.router.clone().oneshot(request).await.unwrap();
            assert!(response.into_body().collect().await.is_err());
            assert_eq!(left_after(&edge, &says("/fail")).await, left);
            continue;
        }
        assert_eq!(left_after(&edge, &body).await, left, "{body}");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_pays_for_what_it_saw() {
    let edge = limited("{tokens_per_day=1000, concurrent=1}").await;
    // Without a bound it would be taken to need all that is left.
    let mut short = streams("/hang");
    short["max_tokens"] = json!(10);
    let request = post(&inference(PATH), short.to_string());
    let response = edge.router.clone().oneshot(request).await.unwrap();
    let mut body = response.into_body();
    // The role, and then the one word.
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    short["stream"] = json!(false);
    let busy = edge.post(&inference(PATH), &short).await;
    assert_eq!((busy.status.as_u16(), number(&busy, "retry-after")), (429, 1));
    assert_eq!(busy.headers["policy-id"], "DeploymentRatelimit-Concurrency");
    drop(body);
    // Two tokens of a prompt of five characters, and a word.
    assert_eq!(left_after(&edge, &says("/fail")).await, 997);
}

#[tokio::test]
async fn content_safety_has_its_own_name_and_code() {
    let edge = limited("{requests_per_minute=1, tokens_per_minute=10}").await;
    let path = "/contentsafety/text:analyze?api-version=2023-10-01";
    let first = edge.post(path, &json!({"text": "hello"})).await;
    assert_eq!((first.status.as_u16(), number(&first, "x-ratelimit-limit-requests")), (200, 1));
    assert!(!first.headers.contains_key("x-ratelimit-limit-tokens"), "nobody counts tokens here");
    let refused = edge.post(path, &json!({"text": "hello"})).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "TooManyRequests");
    assert_eq!(refused.headers["x-ms-error-code"], "TooManyRequests");
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_request_that_is_wrong_takes_nothing() {
    let edge = limited("{requests_per_minute=1}").await;
    let tools = json!({"messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f"}}]});
    for _ in 0..3 {
        assert_eq!(edge.post(&inference(PATH), &tools).await.status, 422);
    }
    assert_eq!(edge.post(&inference(PATH), &says("hi")).await.status, 200);
    assert_eq!(edge.post(&inference(PATH), &says("hi")).await.status, 429);
}
