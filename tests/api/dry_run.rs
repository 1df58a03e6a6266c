//! Dry runs: they say what would happen, and nothing of it happens.

use e2e::{KEY, TestStack};
use serde_json::{Value, json};

const CHAT: &str = "/chat/completions?api-version=2024-05-01-preview";

async fn ask(stack: &TestStack, key: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = stack.http().post(stack.url(path)).header("api-key", key);
    let request = request.header("content-type", "application/json").body(body.to_string());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

fn dry(path: &str) -> String {
    format!("/dry-run{path}")
}

fn chat(text: &str) -> Value {
    json!({"model": "free-talk", "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_the_request_then_meets_and_takes_nothing() {
    let limits = "[{name='c',limits={requests_per_day=2,tokens_per_day=2000,concurrent=9},
        overrides=[{deployments=['dry-run'],limits={}}]}]";
    let stack = TestStack::start_with(&[
        ("EDGE__RATES__CLASSES", limits),
        ("EDGE__RATES__DEFAULT_CLASS", "c"),
    ])
    .await;
    for used in 0..3 {
        for _ in 0..3 {
            let (status, told) = ask(&stack, KEY, &dry(CHAT), &chat("hello")).await;
            assert_eq!(status, 200);
            let rates: Vec<_> = told["limits"]["applied"].as_array().unwrap().iter().collect();
            assert_eq!((rates.len(), &rates[0]["used"]), (3, &json!(used)), "{told}");
            let passes = used < 2;
            let (status, outcome) = if passes { (200, "admitted") } else { (429, "refused") };
            assert_eq!(
                (&told["status"], &told["limits"]["outcome"]),
                (&json!(status), &json!(outcome))
            );
            assert_eq!(told["error"]["error"]["code"].is_null(), passes, "{told}");
        }
        assert_eq!(stack.parrot.begun(), used, "a dry run asks no model");
        let (status, _) = ask(&stack, KEY, CHAT, &chat("hello")).await;
        assert_eq!(status, if used < 2 { 200 } else { 429 });
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_those_who_may_ask_the_model_and_counts_as_a_request_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let key = standalone::keys::new("team").unwrap();
    std::fs::write(&path, format!("{}\nroutes = ['embeddings']\n", key.entry)).unwrap();
    let stack = TestStack::start_with(&[
        ("EDGE__AUTH__KEY_FILE", path.to_str().unwrap()),
        ("EDGE__RATES__CLASSES", "[{name='c',limits={},overrides=[{deployments=['dry-run'],limits={requests_per_day=1}}]}]"),
        ("EDGE__RATES__DEFAULT_CLASS", "c"),
    ])
    .await;
    let key = key.key.expose();
    let (status, _) = ask(&stack, key, &dry(CHAT), &chat("hello")).await;
    assert_eq!(status, 403);
    let (embeddings, input) = ("/dry-run/v1/embeddings", json!({"model": "vectors", "input": "a"}));
    assert_eq!(ask(&stack, key, embeddings, &input).await.0, 200);
    assert_eq!(ask(&stack, key, embeddings, &input).await.0, 429);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_twice_is_told_twice() {
    let stack = TestStack::start_with(&[(
        "EDGE__RATES__DEPLOYMENTS",
        "[{deployments=['talk'],limits={requests_per_day=1}}]",
    )])
    .await;
    let ask_talk = |text: &str| json!({"messages": [{"role": "user", "content": text}]});
    assert_eq!(ask(&stack, KEY, CHAT, &ask_talk("hello")).await.0, 200);
    let body = ask_talk("VIOLENCE6");
    let (_, told) = ask(&stack, KEY, &dry(CHAT), &body).await;
    assert_eq!((&told["status"], &told["limits"]["outcome"]), (&json!(429), &json!("refused")));
    assert_eq!(told["content_safety"]["blocked"], json!(true));
    assert_eq!(told["content_safety"]["policy"], json!("default"));
    let found = &told["content_safety"]["content_filter_results"]["violence"];
    assert_eq!(found, &json!({"filtered": true, "severity": "high"}));
    stack.stop().await;
}
