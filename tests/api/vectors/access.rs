//! Who may call and how requests are named: keys, versions of the API, ids.

use crate::ask::{
    API_KEY, AZURE, Ask, B, OPENAI, PREFIXES, SAFETY, VERSIONS, everywhere, get, is_openai, post,
    says,
};
use e2e::{KEY, TestStack};
use serde_json::json;

/// A path of every family of routes, and its method.
const FAMILIES: [(&str, &str); 8] = [
    ("POST", "/chat/completions?api-version=2024-05-01-preview"),
    ("POST", "/models/embeddings?api-version=2025-04-01"),
    ("GET", "/api/models/info?api-version=2024-05-01-preview"),
    ("POST", "/openai/deployments/talk/chat/completions?api-version=2024-10-21"),
    ("POST", "/openai/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/openai/models?api-version=2024-10-21"),
    ("POST", "/contentsafety/text:analyze?api-version=2024-09-01"),
];

#[tokio::test(flavor = "multi_thread")]
async fn v02_any_right_credential_is_enough() {
    let stack = TestStack::start().await;
    let bearer = format!("Bearer {KEY}");
    let lower = format!("bearer {KEY}");
    let sent: [&[(&str, &str)]; 7] = [
        &[("api-key", KEY)],
        &[("authorization", &bearer)],
        &[("authorization", &lower)],
        &[("ocp-apim-subscription-key", KEY)],
        &[("api-key", KEY), ("authorization", &bearer)],
        &[("api-key", "wrong"), ("authorization", &bearer)],
        &[("api-key", KEY), ("authorization", "Bearer wrong")],
    ];
    for credentials in sent {
        for path in everywhere("/chat/completions", "talk") {
            let ask = Ask::new(&stack, "POST", &path).json(&says("talk", "hi"));
            let ask = credentials.iter().fold(ask, |ask, header| ask.header(*header));
            assert_eq!(ask.send().await.said(), "You said: hi", "{credentials:?}");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v03_a_missing_or_wrong_key_is_401_without_retry_after() {
    let stack = TestStack::start().await;
    for (method, path) in FAMILIES {
        let plain = || Ask::new(&stack, method, path).json(&says("talk", "hi"));
        for ask in [
            plain(),
            plain().header(("api-key", "wrong")),
            plain().header(("authorization", "Bearer wrong")),
            plain().header(("authorization", KEY)),
        ] {
            let answer = ask.send().await;
            let body = answer.refused(401, "401");
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("Access denied"), "{message}");
            if !is_openai(path) && !path.starts_with("/contentsafety") {
                assert_eq!((&body["status"], &body["message"]), (&json!(401), &json!(message)));
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v04_a_version_is_asked_for_where_the_family_asks_for_one() {
    let stack = TestStack::start().await;
    let body = says("talk", "hi");
    for query in ["", "?api-version=", "?other=1"] {
        for prefix in PREFIXES {
            for route in ["chat/completions", "completions", "embeddings", "images/embeddings"] {
                let answer = post(&stack, &format!("{prefix}/{route}{query}"), &body).await;
                answer.refused(400, "MissingApiVersionParameter");
            }
            let info = get(&stack, &format!("{prefix}/info{query}")).await;
            info.refused(400, "MissingApiVersionParameter");
        }
        for route in ["chat/completions", "completions", "embeddings"] {
            let path = format!("/openai/deployments/talk/{route}{query}");
            let said = post(&stack, &path, &body).await.refused(404, "404");
            assert_eq!(said["error"]["message"], "Resource not found");
        }
        for prefix in OPENAI {
            post(&stack, &format!("{prefix}/chat/completions{query}"), &body).await.ok();
        }
        let path = format!("/contentsafety/text:analyze{query}");
        let answer = post(&stack, &path, &json!({"text": "hi"})).await;
        answer.refused(400, "MissingApiVersionParameter");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v05_an_unknown_version_is_refused_in_the_words_of_its_family() {
    let stack = TestStack::start().await;
    let body = says("talk", "hi");
    let strict = TestStack::start_with(&[("EDGE__API__VERSIONS", "strict")]).await;
    for (stack, version) in [
        (&stack, "1999-01-01"),
        (&stack, "2024-13-01"),
        (&stack, "latest"),
        (&strict, "1999-01-01"),
        (&strict, "2024-05-02-preview"),
    ] {
        let query = format!("?api-version={version}");
        for prefix in PREFIXES {
            let answer = post(stack, &format!("{prefix}/chat/completions{query}"), &body).await;
            let said = answer.refused(400, "BadRequest");
            assert_eq!(said["error"]["message"], "API version not supported");
            assert_eq!(said["error"]["innererror"]["code"], "UnsupportedApiVersionValue");
            get(stack, &format!("{prefix}/info{query}")).await.refused(400, "BadRequest");
        }
        let path = format!("/openai/deployments/talk/chat/completions{query}");
        let said = post(stack, &path, &body).await.refused(404, "404");
        assert_eq!(said["error"]["message"], "Resource not found");
        for prefix in OPENAI {
            // Ignored there, whatever it says.
            post(stack, &format!("{prefix}/chat/completions{query}"), &body).await.ok();
        }
    }
    for version in VERSIONS {
        post(&strict, &format!("/models/chat/completions?{version}"), &body).await.ok();
    }
    stack.stop().await;
    strict.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v42_every_error_is_json_with_a_code_and_ids() {
    let stack = TestStack::start_with(&[("EDGE__LIMITS__REQUEST_TIMEOUT_MS", "1500")]).await;
    let hi = says("talk", "hi");
    // On every family: no key, no route, a wrong method, no JSON, a bad body, a body over the limit.
    for (method, path) in FAMILIES {
        let other = if method == "GET" { "POST" } else { "GET" };
        let (route, _query) = path.split_once('?').unwrap_or((path, ""));
        let nowhere = path.replacen(route, &format!("{route}/nowhere/at/all"), 1);
        let keyed = |method, path: &str| Ask::new(&stack, method, path).header(API_KEY);
        let mut asked = vec![
            (401, Ask::new(&stack, method, path).json(&hi)),
            (404, keyed(method, &nowhere).json(&hi)),
            (405, keyed(other, path).json(&hi)),
            (405, keyed("PUT", path).json(&hi)),
        ];
        if method == "POST" {
            asked.push((415, keyed("POST", path).body("{}")));
            asked.push((400, keyed("POST", path).json(&json!([]))));
            asked.push((413, keyed("POST", path).json(&json!({"x": "x".repeat(70_000)}))));
        }
        for (status, ask) in asked {
            let answer = ask.send().await;
            assert_eq!((answer.status, answer.fault()), (status, None), "{method} {path}");
        }
    }
    // What comes from further behind, on the routes that speak to a model.
    for path in everywhere("/chat/completions", "talk") {
        for (status, body) in [
            (404, says("nope", "hi")),
            (400, says("free-talk", "/long")),
            (500, says("free-talk", "/fail")),
            (504, says("free-talk", "/hang")),
        ] {
            if path.contains("deployments") && status == 404 {
                continue; // The path names the deployment.
            }
            let answer = post(&stack, &path, &body).await;
            assert_eq!((answer.status, answer.fault()), (status, None), "{path} {body}");
        }
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let status = if is_openai(&path) { 400 } else { 422 };
        let answer = post(&stack, &path, &crate::ask::with(hi.clone(), "tools", tools)).await;
        assert_eq!((answer.status, answer.fault()), (status, None), "{path}");
    }
    stack.stop().await;
    // Without content safety nothing is answered: 503, which says when to come back.
    let options = [
        ("EDGE__GUARD__POLICY", "no-such-policy"),
        ("EDGE__DEPLOYMENTS", "[{name='odd', service='chat', model='talk', policy='nowhere'}]"),
    ];
    let stack = TestStack::start_with(&options).await;
    for path in everywhere("/chat/completions", "odd") {
        let answer = post(&stack, &path, &says("odd", "hi")).await;
        assert_eq!((answer.status, answer.fault()), (503, None), "{path}: {}", answer.text());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v43_the_callers_id_is_echoed_and_ours_is_beside_it() {
    let stack = TestStack::start().await;
    for (method, path) in FAMILIES {
        let id = "11111111-2222-3333-4444-555555555555";
        for key in [API_KEY, ("api-key", "wrong")] {
            let ask = Ask::new(&stack, method, path).header(key).json(&says("talk", "hi"));
            let answer = ask.header(("x-ms-client-request-id", id)).send().await;
            assert_eq!(answer.header("x-ms-client-request-id"), id);
            assert_ne!(answer.header("apim-request-id"), id);
            assert_eq!(answer.header("apim-request-id").len(), 36);
            assert!(!answer.header("x-request-id").is_empty());
        }
        let answer = Ask::new(&stack, method, path).header(API_KEY).send().await;
        assert_eq!(answer.header("x-ms-client-request-id"), answer.header("apim-request-id"));
        let other = Ask::new(&stack, method, path).header(API_KEY).send().await;
        assert_ne!(other.header("apim-request-id"), answer.header("apim-request-id"));
        let ask = Ask::new(&stack, method, path).header(API_KEY);
        let answer = ask.header(("x-request-id", "mine")).send().await;
        assert_eq!(answer.header("x-request-id"), "mine");
    }
    for path in [format!("/models/chat/completions?{B}"), format!("/v1/chat/completions?{AZURE}")] {
        let streamed = crate::ask::with(says("talk", "hi"), "stream", json!(true));
        let ask = Ask::new(&stack, "POST", &path).header(API_KEY).json(&streamed);
        let answer = ask.header(("x-ms-client-request-id", "abc")).send().await;
        assert_eq!(answer.header("x-ms-client-request-id"), "abc");
    }
    assert!(FAMILIES.iter().any(|(_, path)| path.ends_with(SAFETY)));
    stack.stop().await;
}
