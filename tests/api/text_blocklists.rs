//! Blocklists that callers manage, seen from outside: kept over a restart, shared by replicas, in force in conversations.

use e2e::{KEY, TestStack};
use serde_json::{Value, json};
use std::time::Duration;

const LISTS: &str = "/contentsafety/text/blocklists";
const VERSION: &str = "api-version=2024-09-01";
/// Longest wait for another replica to see a change; it looks every millisecond here.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// A deployment under a policy that blocks by one managed list and annotates by another.
const OPTIONS: [(&str, &str); 2] = [
    ("EDGE__DEPLOYMENTS", "[{name='careful-talk',service='chat',model='talk',policy='careful'}]"),
    (
        "CONTENT_SAFETY__POLICIES__CAREFUL",
        "{prompt={hate='off',self_harm='off',sexual='off',violence='off'},\
          completion={hate='off',self_harm='off',sexual='off',violence='off'},\
          jailbreak='off',indirect_attack='off',blocklists=[\
          {name='forbidden',mode='block',managed=true},{name='watched',mode='annotate',managed=true}]}",
    ),
];

/// Status and body of a call; null where there is none.
async fn call(stack: &TestStack, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = stack.http().request(method.parse().unwrap(), stack.url(path));
    let request = request.header("api-key", KEY).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

async fn make(stack: &TestStack, name: &str, text: &str) {
    let path = format!("{LISTS}/{name}?{VERSION}");
    assert_eq!(call(stack, "PATCH", &path, &json!({})).await.0, 201);
    let path = format!("{LISTS}/{name}:addOrUpdateBlocklistItems?{VERSION}");
    let items = json!({"blocklistItems": [{"text": text}]});
    assert_eq!(call(stack, "POST", &path, &items).await.0, 200);
}

async fn say(stack: &TestStack, text: &str) -> (u16, Value) {
    let path = "/openai/deployments/careful-talk/chat/completions?api-version=2024-10-21";
    let body = json!({"messages": [{"role": "user", "content": text}]});
    call(stack, "POST", path, &body).await
}

/// What the lists had to say about a prompt that was answered.
fn lists(answer: &Value) -> Value {
    answer["prompt_filter_results"][0]["content_filter_results"]["custom_blocklists"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_lists_annotate_and_block_conversations() {
    let stack = TestStack::start_with(&OPTIONS).await;
    let (status, answer) = say(&stack, "a falcon").await;
    assert_eq!((status, lists(&answer)), (200, json!({"filtered": false, "details": []})));
    make(&stack, "forbidden", "falcon").await;
    make(&stack, "watched", "owl").await;
    let (status, answer) = say(&stack, "a falcon").await;
    assert_eq!(status, 400);
    assert_eq!(
        answer["error"]["innererror"]["content_filter_result"]["custom_blocklists"],
        json!({"filtered": true, "details": [{"filtered": true, "id": "forbidden"}]})
    );
    let (status, answer) = say(&stack, "an owl").await;
    let watched = json!({"filtered": false, "details": [{"filtered": false, "id": "watched"}]});
    assert_eq!((status, lists(&answer)), (200, watched.clone()));
    let choice = &answer["choices"][0]["content_filter_results"]["custom_blocklists"];
    assert_eq!(*choice, watched, "the answer repeats the prompt");
    let path = format!("{LISTS}/forbidden?{VERSION}");
    assert_eq!(call(&stack, "DELETE", &path, &Value::Null).await, (204, Value::Null));
    assert_eq!(say(&stack, "a falcon").await.0, 200);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_lists_outlive_a_restart_and_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let options = [
        ("CONTENT_SAFETY__BLOCKLISTS__DIR", dir.path().to_str().unwrap()),
        ("CONTENT_SAFETY__BLOCKLISTS__REFRESH_MS", "1"),
    ];
    let first = TestStack::start_with(&options).await;
    make(&first, "names", "falcon").await;
    first.stop().await;
    let (one, two) = (TestStack::start_with(&options).await, TestStack::start_with(&options).await);
    let path = format!("/contentsafety/text:analyze?{VERSION}");
    let analyze = json!({"text": "falcon, owl", "blocklistNames": ["names"]});
    let hits = async |stack: &TestStack| {
        let (_, answer) = call(stack, "POST", &path, &analyze).await;
        answer["blocklistsMatch"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((hits(&one).await, hits(&two).await), (1, 1));
    let add = format!("{LISTS}/names:addOrUpdateBlocklistItems?{VERSION}");
    call(&one, "POST", &add, &json!({"blocklistItems": [{"text": "owl"}]})).await;
    assert_eq!(hits(&one).await, 2, "the next request");
    let seen = async { while hits(&two).await != 2 {} };
    tokio::time::timeout(SEEN_WITHIN, seen).await.unwrap();
    one.stop().await;
    two.stop().await;
}
