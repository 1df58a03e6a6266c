//! What a policy blocks, and the content-safety routes themselves.

use crate::ask::{
    API_KEY, Ask, PREFIXES, S, SAFETY, VERSIONS, everywhere, get, is_openai, post, says, streamed,
    with,
};
use e2e::TestStack;
use serde_json::{Value, json};

/// As the first version's page prints it.
const BLOCKED: &str = r#"{"status":400,"code":"content_filter","message":"The response was filtered","param":"messages","type":null}"#;

#[tokio::test(flavor = "multi_thread")]
async fn v13_the_first_version_answers_a_blocked_prompt_literally() {
    let stack = TestStack::start().await;
    for path in [
        format!("/chat/completions?{S}"),
        format!("/models/chat/completions?{S}"),
        format!("/api/models/chat/completions?{S}"),
        format!("/v1/chat/completions?{S}"),
    ] {
        for stream in [false, true] {
            let body = with(says("talk", "HATE5 please"), "stream", json!(stream));
            let answer = post(&stack, &path, &body).await;
            answer.refused(400, "content_filter");
            assert_eq!(answer.text(), BLOCKED);
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v14_a_blocked_prompt_starts_no_stream_and_says_why() {
    let stack = TestStack::start().await;
    let body = with(says("talk", "VIOLENCE6 please"), "stream", json!(true));
    let mut paths = everywhere("/chat/completions", "talk");
    let later = VERSIONS.into_iter().filter(|version| *version != S);
    paths.extend(later.flat_map(|v| PREFIXES.map(|p| format!("{p}/chat/completions?{v}"))));
    for path in paths {
        let said = post(&stack, &path, &body).await.refused(400, "content_filter");
        let error = &said["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!("content_filter"), &json!(400)));
        assert_eq!((&error["param"], error.get("type")), (&json!("prompt"), Some(&Value::Null)));
        assert_eq!(error["innererror"]["code"], "ResponsibleAIPolicyViolation");
        let found = &error["innererror"]["content_filter_result"];
        assert_eq!(found["violence"], json!({"filtered": true, "severity": "high"}));
        assert_eq!(found["hate"], json!({"filtered": false, "severity": "safe"}));
        assert_eq!(found["jailbreak"], json!({"filtered": false, "detected": false}));
        if !is_openai(&path) {
            let flat: Value = serde_json::from_str(BLOCKED).unwrap();
            for (name, value) in flat.as_object().unwrap() {
                assert_eq!(said.get(name), Some(value), "{path}: {name}");
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v15_a_blocked_answer_ends_with_content_filter() {
    let stack = TestStack::start().await;
    for path in everywhere("/chat/completions", "talk") {
        let body = says("talk", "/bad");
        let whole = post(&stack, &path, &body).await.ok();
        let choice = &whole["choices"][0];
        assert_eq!(choice["finish_reason"], "content_filter", "{path}");
        let message = choice["message"].as_object().unwrap();
        assert!(message.get("content").is_some_and(Value::is_null), "{path}: {choice}");
        let violence = &choice["content_filter_results"]["violence"];
        assert_eq!(*violence, json!({"filtered": true, "severity": "high"}));
        assert!(whole["usage"]["completion_tokens"].as_u64().unwrap() > 0, "tokens were spent");

        let answer = post(&stack, &path, &with(body, "stream", json!(true))).await;
        let events = answer.events();
        assert!(!answer.text().contains("VIOLENCE6") && !answer.text().contains("the end"));
        assert!("This is fine. ".starts_with(&streamed(&events)), "{path}");
        let ends: Vec<_> = events
            .iter()
            .filter_map(|event| event["choices"].get(0))
            .filter(|choice| !choice["finish_reason"].is_null())
            .collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0]["finish_reason"], "content_filter", "{path}");
        assert_eq!(ends[0]["content_filter_results"]["violence"]["filtered"], true);
        let last = events.iter().rfind(|event| event["choices"].get(0).is_some()).unwrap();
        assert_eq!(&last["choices"][0], ends[0], "nothing follows the end");
        if !is_openai(&path) {
            assert!(last["usage"]["total_tokens"].as_u64().unwrap() > 0);
        }
    }
    stack.stop().await;
}

fn route(call: &str) -> String {
    format!("/contentsafety/{call}?{SAFETY}")
}

#[tokio::test(flavor = "multi_thread")]
async fn v41_content_safety_analyses_shields_and_keeps_blocklists() {
    let stack = TestStack::start().await;
    let all = post(&stack, &route("text:analyze"), &json!({"text": "VIOLENCE5 and HATE3"})).await;
    let severity = |category, severity| json!({"category": category, "severity": severity});
    assert_eq!(
        all.ok(),
        json!({"blocklistsMatch": [], "categoriesAnalysis": [
            severity("Hate", 2), severity("SelfHarm", 0), severity("Sexual", 0), severity("Violence", 4)]})
    );
    let eight = json!({"text": "VIOLENCE5", "categories": ["Violence"], "outputType": "EightSeverityLevels"});
    let eight = post(&stack, &route("text:analyze"), &eight).await.ok();
    assert_eq!(eight["categoriesAnalysis"], json!([severity("Violence", 5)]));
    let attacked = json!({"userPrompt": "JAILBREAK now", "documents": ["fine", "JAILBREAK"]});
    assert_eq!(
        post(&stack, &route("text:shieldPrompt"), &attacked).await.ok(),
        json!({"userPromptAnalysis": {"attackDetected": true}, "documentsAnalysis":
            [{"attackDetected": false}, {"attackDetected": true}]})
    );
    for (call, body) in [
        ("text:analyze", json!({})),
        ("text:analyze", json!({"text": "x".repeat(10_001)})),
        ("text:analyze", json!({"text": "x", "categories": ["Boredom"]})),
        ("text:shieldPrompt", json!({})),
        ("text:shieldPrompt", json!({"userPrompt": "x", "documents": vec!["x"; 6]})),
        ("image:analyze", json!({"image": {}})),
        ("image:analyze", json!({"image": {"blobUrl": "https://example.com/a.png"}})),
    ] {
        post(&stack, &route(call), &body).await.refused(400, "InvalidRequestBody");
    }
    // The list of the configuration matches where it is asked for.
    let listed = json!({"text": "ripe tomatoes", "blocklistNames": ["kitchen"]});
    let found = post(&stack, &route("text:analyze"), &listed).await.ok();
    assert_eq!(
        found["blocklistsMatch"],
        json!([{"blocklistName": "kitchen", "blocklistItemId": "tomato", "blocklistItemText": "tomatoes"}])
    );
    keep_a_blocklist(&stack).await;
    stack.stop().await;
}

/// The life of a list that a caller keeps: made, changed, filled, read, in force, emptied, gone.
async fn keep_a_blocklist(stack: &TestStack) {
    let names = |list: &Value| -> Vec<String> {
        let value = list["value"].as_array().unwrap().iter();
        value.map(|one| one["blocklistName"].as_str().unwrap().to_owned()).collect()
    };
    let lists = route("text/blocklists");
    let (list, items) =
        (route("text/blocklists/fruit"), route("text/blocklists/fruit/blocklistItems"));
    let patch = async |body: &Value, expected: u16| {
        let ask = Ask::new(stack, "PATCH", &list).header(API_KEY);
        let ask = ask.header(("content-type", "application/merge-patch+json"));
        let answer = ask.body(body.to_string()).send().await;
        assert_eq!(answer.status, expected, "{}", answer.text());
        answer.json()
    };
    let delete = async || Ask::new(stack, "DELETE", &list).header(API_KEY).send().await;
    get(stack, &list).await.refused(404, "ResourceNotFound");
    let made = patch(&json!({"description": "of the garden"}), 201).await;
    assert_eq!(made, json!({"blocklistName": "fruit", "description": "of the garden"}));
    let changed = patch(&json!({"description": "of the market"}), 200).await;
    assert_eq!(changed["description"], "of the market");
    assert_eq!(get(stack, &list).await.ok(), changed);
    // Beside the one of the configuration.
    assert_eq!(names(&get(stack, &lists).await.ok()), ["fruit", "kitchen"]);
    let add =
        json!({"blocklistItems": [{"text": "papaya", "description": "ripe"}, {"text": "quince"}]});
    let added =
        post(stack, &route("text/blocklists/fruit:addOrUpdateBlocklistItems"), &add).await.ok();
    let ids: Vec<_> = added["blocklistItems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["blocklistItemId"].clone())
        .collect();
    assert_eq!((ids.len(), &added["blocklistItems"][0]["text"]), (2, &json!("papaya")));
    assert_eq!(get(stack, &items).await.ok()["value"].as_array().unwrap().len(), 2);
    let id = ids[0].as_str().unwrap();
    let item = get(stack, &route(&format!("text/blocklists/fruit/blocklistItems/{id}"))).await.ok();
    assert_eq!((&item["blocklistItemId"], &item["description"]), (&ids[0], &json!("ripe")));
    // A page at a time; the link leads on as it is, and the last page has none.
    let page = get(stack, &format!("{items}&maxpagesize=1")).await.ok();
    let link = page["nextLink"].as_str().unwrap();
    let next = get(stack, &link[link.find("/contentsafety").unwrap()..]).await.ok();
    assert_eq!((page["value"].as_array().unwrap().len(), next.get("nextLink")), (1, None));
    let asked =
        json!({"text": "a ripe papaya", "blocklistNames": ["fruit"], "haltOnBlocklistHit": true});
    let found = post(stack, &route("text:analyze"), &asked).await.ok();
    let hit =
        json!([{"blocklistName": "fruit", "blocklistItemId": id, "blocklistItemText": "papaya"}]);
    assert_eq!(found["blocklistsMatch"], hit);
    let remove = route("text/blocklists/fruit:removeBlocklistItems");
    let removed = post(stack, &remove, &json!({"blocklistItemIds": [id]})).await;
    assert_eq!((removed.status, removed.bytes.len()), (204, 0));
    let found = post(stack, &route("text:analyze"), &asked).await.ok();
    assert_eq!(found["blocklistsMatch"], json!([]));
    let deleted = delete().await;
    assert_eq!((deleted.status, deleted.bytes.len()), (204, 0));
    delete().await.refused(404, "ResourceNotFound");
    get(stack, &list).await.refused(404, "ResourceNotFound");
    let named = json!({"text": "x", "blocklistNames": ["fruit"]});
    assert_eq!(post(stack, &route("text:analyze"), &named).await.status, 404);
}
