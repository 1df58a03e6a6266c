//! What is refused before anything is generated, and how the two flat bodies of the first version look.

use crate::ask::{
    API_KEY, Ask, B, OPENAI, PREFIXES, S, SAFETY, VERSIONS, everywhere, is_openai, post, says, with,
};
use e2e::TestStack;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// As the first version's page prints it.
const NOT_SUPPORTED: &str = r#"{"status":422,"code":"parameter_not_supported","detail":{"loc":["body","response_format"],"input":"json_object"},"message":"One of the parameters contain invalid values."}"#;

/// Every route that takes a body.
fn posts() -> Vec<String> {
    let mut paths = Vec::new();
    for prefix in PREFIXES {
        for route in ["chat/completions", "completions", "embeddings", "images/embeddings"] {
            paths.push(format!("{prefix}/{route}?{B}"));
        }
    }
    for route in ["chat/completions", "completions", "embeddings"] {
        paths.push(format!("/openai/deployments/talk/{route}?api-version=2024-10-21"));
        paths.extend(OPENAI.iter().map(|prefix| format!("{prefix}/{route}")));
    }
    for call in ["text:analyze", "image:analyze", "text:shieldPrompt"] {
        paths.push(format!("/contentsafety/{call}?{SAFETY}"));
    }
    paths
}

/// Every route that takes none.
fn gets() -> Vec<String> {
    let mut paths: Vec<_> = PREFIXES.iter().map(|prefix| format!("{prefix}/info?{B}")).collect();
    for prefix in OPENAI {
        paths.extend([format!("{prefix}/models"), format!("{prefix}/models/talk")]);
    }
    paths.push("/openai/models?api-version=2024-10-21".to_owned());
    paths
}

/// Bodies that no version of the API takes.
fn bad_bodies() -> [(&'static str, String); 12] {
    let messages = |messages: Value| json!({"model": "talk", "messages": messages}).to_string();
    let user = || json!({"role": "user", "content": "hi"});
    [
        ("half an object", "{".to_owned()),
        ("nothing", String::new()),
        ("an array", "[]".to_owned()),
        ("a string", "\"hi\"".to_owned()),
        ("no messages", json!({"model": "talk"}).to_string()),
        ("messages null", messages(Value::Null)),
        ("messages empty", messages(json!([]))),
        ("messages a string", messages(json!("hi"))),
        ("a wizard", messages(json!([{"role": "wizard", "content": "hi"}]))),
        ("no role", messages(json!([{"content": "hi"}]))),
        ("no content", messages(json!([user(), {"role": "user"}]))),
        ("more after it", format!("{} x", messages(json!([user()])))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_a_body_that_is_no_request_is_400() {
    let stack = TestStack::start().await;
    let mut paths = everywhere("/chat/completions", "talk");
    paths.extend(VERSIONS.map(|version| format!("/models/chat/completions?{version}")));
    for path in paths {
        for (what, body) in bad_bodies() {
            let ask = Ask::new(&stack, "POST", &path).header(API_KEY);
            let answer = ask.header(("content-type", "application/json")).body(body).send().await;
            let said = answer.refused(400, "BadRequest");
            assert!(said["error"]["message"].as_str().is_some_and(|m| m.len() > 10), "{what}");
            if what == "a wizard" {
                let target = if is_openai(&path) { "param" } else { "target" };
                assert_eq!(said["error"][target], "messages.0.role");
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v07_another_content_type_is_415() {
    let stack = TestStack::start().await;
    for path in posts() {
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonl"]
        {
            let ask = Ask::new(&stack, "POST", &path).header(API_KEY);
            let ask = ask.header(("content-type", content_type)).body("{}");
            ask.send().await.refused(415, "UnsupportedMediaType");
        }
        let untyped = Ask::new(&stack, "POST", &path).header(API_KEY).body("{}");
        untyped.send().await.refused(415, "UnsupportedMediaType");
    }
    // Parameters of the type, and what a client accepts, change nothing.
    let path = format!("/models/chat/completions?{B}");
    for accept in ["application/json", "text/event-stream", "image/png"] {
        let ask = Ask::new(&stack, "POST", &path).header(API_KEY).header(("accept", accept));
        let ask = ask.header(("content-type", "application/json; charset=utf-8"));
        ask.body(says("talk", "hi").to_string()).send().await.ok();
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v08_another_method_is_405_and_says_which_are_allowed() {
    let stack = TestStack::start().await;
    let wrong = [("POST", posts(), "GET"), ("GET, HEAD", gets(), "POST")];
    for (allowed, paths, other) in wrong {
        for path in paths {
            for method in [other, "PUT", "DELETE", "PATCH", "OPTIONS"] {
                let ask = Ask::new(&stack, method, &path).header(API_KEY).json(&json!({}));
                let answer = ask.send().await;
                answer.refused(405, "MethodNotAllowed");
                let told: BTreeSet<_> = answer.header("allow").split(',').map(str::trim).collect();
                assert_eq!(told, allowed.split(", ").collect(), "{method} {path}");
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v09_a_body_over_the_limit_is_413() {
    let stack = TestStack::start().await;
    // Of the stack; with its frame this text is a few bytes too long.
    let long = says("talk", &"x".repeat(65_500)).to_string();
    assert!(long.len() > 65_536);
    for path in posts() {
        let ask = || {
            let ask = Ask::new(&stack, "POST", &path).header(API_KEY);
            ask.header(("content-type", "application/json"))
        };
        let answer = ask().body(long.clone()).send().await;
        let body = answer.refused(413, "RequestEntityTooLarge");
        assert_eq!(answer.header("connection"), "close", "the rest of the body is not read");
        assert_eq!(body["error"]["message"], "The request body exceeds 65536 bytes.");
        // The same without an announced length.
        let pieces =
            long.as_bytes().chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
        let pieces = futures::stream::iter(pieces.collect::<Vec<_>>());
        let answer = ask().body(reqwest::Body::wrap_stream(pieces)).send().await;
        answer.refused(413, "RequestEntityTooLarge");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v11_the_first_version_answers_422_literally() {
    let stack = TestStack::start().await;
    let body = with(says("talk", "hi"), "response_format", json!({"type": "json_object"}));
    for path in [
        format!("/chat/completions?{S}"),
        format!("/models/chat/completions?{S}"),
        format!("/api/models/chat/completions?{S}"),
        format!("/v1/chat/completions?{S}"),
    ] {
        let answer = post(&stack, &path, &body).await;
        answer.refused(422, "parameter_not_supported");
        assert_eq!(answer.text(), NOT_SUPPORTED);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_later_versions_answer_422_in_both_forms_and_openai_400() {
    let stack = TestStack::start().await;
    let body = with(says("talk", "hi"), "response_format", json!({"type": "json_object"}));
    let later = VERSIONS.into_iter().filter(|version| *version != S);
    for path in later.flat_map(|v| PREFIXES.map(|p| format!("{p}/chat/completions?{v}"))) {
        let said = post(&stack, &path, &body).await.refused(422, "parameter_not_supported");
        let flat: Value = serde_json::from_str(NOT_SUPPORTED).unwrap();
        for (name, value) in flat.as_object().unwrap() {
            assert_eq!(&said[name], value, "{path}");
        }
        assert_eq!(said["error"]["code"], "parameter_not_supported");
        assert_eq!(said["error"]["status"], 422);
        let detail = &said["error"]["details"][0];
        assert_eq!(detail["loc"], json!(["body", "response_format"]));
        assert_eq!((&detail["input"], &detail["type"]), (&flat["detail"]["input"], &flat["code"]));
    }
    for path in everywhere("/chat/completions", "talk").iter().filter(|path| is_openai(path)) {
        let said = post(&stack, path, &body).await.refused(400, "unsupported_value");
        assert_eq!(said["error"]["param"], "response_format");
        assert_eq!(said["error"]["type"], "invalid_request_error");
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let body = with(says("talk", "hi"), "tools", tools);
        let said = post(&stack, path, &body).await.refused(400, "unsupported_parameter");
        assert_eq!(said["error"]["param"], "tools");
    }
    // A range of the model's own.
    let hot = with(says("thinker", "hi"), "temperature", json!(1.2));
    let said = post(&stack, &format!("/models/chat/completions?{B}"), &hot).await;
    let said = said.refused(422, "parameter_not_supported");
    assert_eq!(said["detail"], json!({"loc": ["body", "temperature"], "input": 1.2}));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v37_what_is_final_never_says_when_to_retry() {
    let stack = TestStack::start().await;
    let mut answers = Vec::new();
    for path in posts() {
        for body in
            [json!({}), json!([]), json!({"input": ""}), says("talk", "HATE6"), says("", "/long")]
        {
            answers.push(post(&stack, &path, &body).await);
        }
        let ask = Ask::new(&stack, "POST", &path).header(API_KEY);
        answers.push(ask.header(("content-type", "application/json")).body("{").send().await);
        let bare = path.split('?').next().unwrap_or_default();
        answers.push(post(&stack, bare, &json!({})).await);
        answers.push(post(&stack, &format!("{bare}?api-version=1999-01-01"), &json!({})).await);
    }
    let bad: Vec<_> = answers.iter().filter(|answer| answer.status == 400).collect();
    assert!(bad.len() > 100, "{}", bad.len());
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert!(answer.status < 500, "{}: {}", answer.path, answer.text());
        assert_eq!(answer.fault(), None, "{}: {}", answer.path, answer.text());
        for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
            assert!(!answer.headers.contains_key(name), "{name} at {}", answer.path);
        }
    }
    stack.stop().await;
}
