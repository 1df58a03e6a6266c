//! Limits over several edges that share a Redis, and what they mean while it does not answer.

use e2e::redis::Redis;
use e2e::{KEY, TestStack};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CHAT: &str = "/chat/completions?api-version=2024-05-01-preview";
/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a Redis that is silent may cost.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

fn ask(stack: &TestStack, text: &str, stream: bool) -> reqwest::RequestBuilder {
    let body = json!({"model": "free-talk", "messages": [{"role": "user", "content": text}], "stream": stream});
    let request = stack.http().post(stack.url(CHAT)).header("api-key", KEY);
    request.header("content-type", "application/json").body(body.to_string())
}

/// A stack that counts in `redis`, with `limits` for the only caller.
async fn counting(redis: &Redis, limits: &str, more: &[(&str, &str)]) -> TestStack {
    let (url, class) = (redis.url(), format!("[{{name='c',limits={limits}}}]"));
    let timeout = REDIS_TIMEOUT.as_millis().to_string();
    let mut options = vec![
        ("EDGE__STATE__REDIS_URL", url.as_str()),
        ("EDGE__STATE__TIMEOUT_MS", timeout.as_str()),
        ("EDGE__RATES__CLASSES", class.as_str()),
        ("EDGE__RATES__DEFAULT_CLASS", "c"),
    ];
    options.extend(more);
    TestStack::start_with(&options).await
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_admit_exactly_the_limit_together() {
    let redis = Redis::start().await;
    let limits = "{requests_per_day=40}";
    let stacks = [counting(&redis, limits, &[]).await, counting(&redis, limits, &[]).await];
    let requests = (0..120).map(|i| status(ask(&stacks[i % 2], "hello", i % 3 == 0)));
    let statuses: Vec<u16> = futures::stream::iter(requests).buffer_unordered(30).collect().await;
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(200), count(429)), (40, 80));
    for stack in stacks {
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_were_not_spent_are_there_for_the_other_edge() {
    let redis = Redis::start().await;
    let limits = "{tokens_per_day=1000}";
    let stacks = [counting(&redis, limits, &[]).await, counting(&redis, limits, &[]).await];
    // 512 are reserved for each answer, and a handful are spent: nothing but settling lets so many pass.
    for i in 0..40 {
        let settled = async {
            // What was spent is settled after the answer: the next request may be a moment too early.
            while status(ask(&stacks[i % 2], "hello", i % 3 == 0)).await != 200 {}
        };
        tokio::time::timeout(PATIENCE, settled).await.unwrap();
    }
    for stack in stacks {
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_one_edge_frees_goes_to_whoever_waits_at_the_other() {
    let redis = Redis::start().await;
    let slots = [("EDGE__RATES__DEPLOYMENTS", "[{deployments=['*'],limits={concurrent=2}}]")];
    let stacks = [counting(&redis, "{}", &slots).await, counting(&redis, "{}", &slots).await];
    let mut held = Vec::new();
    for stack in &stacks {
        let mut body = ask(stack, "/hang", true).send().await.unwrap().bytes_stream();
        body.next().await.unwrap().unwrap();
        held.push(body);
    }
    let waiting = status(ask(&stacks[1], "hello", false));
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(held.remove(0));
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await.unwrap(), 200);
    drop(held);
    for stack in stacks {
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waited_in_vain_is_429() {
    let stack = TestStack::start_with(&[
        ("EDGE__RATES__DEPLOYMENTS", "[{deployments=['*'],limits={concurrent=1}}]"),
        ("EDGE__RATES__QUEUE_TIMEOUT_MS", "50"),
    ])
    .await;
    let mut body = ask(&stack, "/hang", true).send().await.unwrap().bytes_stream();
    body.next().await.unwrap().unwrap();
    let refused = ask(&stack, "hello", false).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let text = refused.text().await.unwrap();
    let body_of: Value = serde_json::from_str(&text).unwrap();
    let message = body_of["error"]["message"].as_str().unwrap();
    assert!(message.contains("concurrent request limit"), "{message}");
    drop(body);
    let free = async { while status(ask(&stack, "hello", false)).await != 200 {} };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    stack.stop().await;
}

/// Ten requests one after the other, and how long they took.
async fn ten(stack: &TestStack) -> (Vec<u16>, Duration) {
    let began = Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(status(ask(stack, "hello", false)).await);
    }
    (statuses, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_silent_costs_its_timeout_once_and_then_configuration_decides() {
    for (policy, expected) in [
        ("local", [vec![200; 3], vec![429; 7]].concat()),
        ("allow", vec![200; 10]),
        ("refuse", vec![503; 10]),
    ] {
        let redis = Redis::start().await;
        let more = [("EDGE__RATES__WHEN_UNAVAILABLE", policy)];
        let stack = counting(&redis, "{requests_per_day=3}", &more).await;
        redis.freeze();
        let (statuses, took) = ten(&stack).await;
        assert_eq!(statuses, expected, "{policy}");
        assert!(took < 4 * REDIS_TIMEOUT, "{policy}: {took:?} for ten requests");
        redis.thaw();
        let again = async {
            // Counted in Redis again, where the three are still free.
            while ask(&stack, "hello", false)
                .send()
                .await
                .unwrap()
                .headers()
                .get("x-ratelimit-remaining-requests")
                != Some(&"0".parse().unwrap())
                || status(ask(&stack, "hello", false)).await != 429
            {}
        };
        tokio::time::timeout(PATIENCE, again).await.unwrap();
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_crashes_and_comes_back_loses_no_request_and_no_slot() {
    let mut redis = Redis::start().await;
    let stack = counting(&redis, "{concurrent=1}", &[]).await;
    let mut body = ask(&stack, "/hang", true).send().await.unwrap().bytes_stream();
    body.next().await.unwrap().unwrap();
    assert_eq!(status(ask(&stack, "hello", false)).await, 429);
    redis.crash();
    assert_eq!(status(ask(&stack, "hello", false)).await, 200, "counted by the edge itself");
    drop(body);
    redis.restart().await;
    let (statuses, _) = ten(&stack).await;
    assert_eq!(statuses, [200; 10]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_routes_speak_of_limits_the_same_way() {
    let stack = TestStack::start_with(&[
        ("EDGE__RATES__CLASSES", "[{name='c',limits={requests_per_day=1}}]"),
        ("EDGE__RATES__DEFAULT_CLASS", "c"),
    ])
    .await;
    let ask = async || {
        let body = json!({"model": "talk", "messages": [{"role": "user", "content": "hi"}]});
        let request = stack.http().post(stack.url("/v1/chat/completions")).bearer_auth(KEY);
        request
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap()
    };
    assert_eq!(ask().await.headers()["x-ratelimit-remaining-requests"], "0");
    let refused = ask().await;
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(refused.headers()["retry-after-ms"], "60000");
    assert_eq!(refused.headers()["policy-id"], "DeploymentRatelimit-Call");
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "429");
    assert!(body["error"]["message"].as_str().unwrap().ends_with("Please retry after 60 seconds."));
    stack.stop().await;
}
