//! Properties outside the API: refused, dropped or passed through, as the header says.

use crate::ask::{
    API_KEY, Ask, B, PREFIXES, S, everywhere, get, is_openai, post, post_with, says, with,
};
use e2e::TestStack;
use serde_json::json;

/// What the model answers that tells which extra parameters it got.
const NONE: &str = "extra: {}";
const GOT_IT: &str = r#"extra: {"safe_mode":true}"#;

#[tokio::test(flavor = "multi_thread")]
async fn v10_extra_parameters_are_refused_dropped_or_passed() {
    let stack = TestStack::start().await;
    let body = with(says("tools", "/extra"), "safe_mode", json!(true));
    for path in PREFIXES.iter().flat_map(|p| [B, S].map(|v| format!("{p}/chat/completions?{v}"))) {
        let refused = post(&stack, &path, &body).await;
        let said = refused.refused(400, "extra_parameters_not_allowed");
        let detail = said["detail"].as_str().unwrap();
        assert!(detail.starts_with("Extra parameters ['safe_mode'] are not allowed"), "{detail}");
        assert_eq!(said["error"]["target"], "safe_mode");
        for name in ["extra-parameters", "unknown-parameters"] {
            let with = |value| post_with(&stack, (name, value), &path, &body);
            with("error").await.refused(400, "extra_parameters_not_allowed");
            for value in ["drop", "ignore"] {
                assert_eq!(with(value).await.said(), NONE, "{value}");
            }
            for value in ["pass-through", "pass_through", "allow"] {
                assert_eq!(with(value).await.said(), GOT_IT, "{value}");
            }
            with("bogus").await.refused(400, "BadRequest");
        }
        // A header that is not valid is wrong even where nothing is extra.
        let plain = says("tools", "/extra");
        let bogus = post_with(&stack, ("extra-parameters", "bogus"), &path, &plain).await;
        bogus.refused(400, "BadRequest");
        // The model may still refuse what was passed to it.
        let other = with(says("talk", "/extra"), "safe_mode", json!(true));
        let refused = post_with(&stack, ("extra-parameters", "pass-through"), &path, &other).await;
        refused.refused(422, "parameter_not_supported");
    }
    // The other inference routes have the same rule; OpenAI's have none.
    let embeddings = json!({"model": "vectors", "input": "a", "safe_mode": true});
    let path = format!("/models/embeddings?{B}");
    post(&stack, &path, &embeddings).await.refused(400, "extra_parameters_not_allowed");
    post_with(&stack, ("extra-parameters", "drop"), &path, &embeddings).await.ok();
    for path in everywhere("/chat/completions", "tools").iter().filter(|path| is_openai(path)) {
        assert_eq!(post(&stack, path, &body).await.said(), GOT_IT);
        let header = ("extra-parameters", "bogus");
        assert_eq!(post_with(&stack, header, path, &body).await.said(), GOT_IT);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v40_two_choices_are_ordinary_for_openai_and_extra_elsewhere() {
    let stack = TestStack::start().await;
    let body = with(says("talk", "hi"), "n", json!(2));
    for path in everywhere("/chat/completions", "talk") {
        let answer = post(&stack, &path, &body).await;
        if is_openai(&path) {
            let choices = answer.ok()["choices"].clone();
            let choices = choices.as_array().unwrap();
            let indexes: Vec<_> = choices.iter().map(|choice| choice["index"].clone()).collect();
            assert_eq!(indexes, [0, 1]);
            assert!(choices.iter().all(|c| c["message"]["content"] == "You said: hi"));
        } else {
            let said = answer.refused(400, "extra_parameters_not_allowed");
            let detail = said["detail"].as_str().unwrap();
            assert!(detail.starts_with("Extra parameters ['n'] are not allowed"), "{detail}");
            let dropped = post_with(&stack, ("extra-parameters", "drop"), &path, &body).await;
            assert_eq!(dropped.ok()["choices"].as_array().unwrap().len(), 1);
            let passed =
                post_with(&stack, ("extra-parameters", "pass-through"), &path, &body).await;
            assert_eq!(passed.ok()["choices"].as_array().unwrap().len(), 2);
        }
    }
    stack.stop().await;
    // The operator may declare names as known.
    let stack = TestStack::start_with(&[("EDGE__API__ALSO_KNOWN", "[\"n\", \"user\"]")]).await;
    let known = with(body, "user", json!("me"));
    let answer = post(&stack, &format!("/models/chat/completions?{B}"), &known).await;
    assert_eq!(answer.ok()["choices"].as_array().unwrap().len(), 2);
    let extra = with(known, "seed_of_doubt", json!(1));
    let answer = post(&stack, &format!("/models/chat/completions?{B}"), &extra).await;
    answer.refused(400, "extra_parameters_not_allowed");
    let info = get(&stack, &format!("/models/info?{B}&model=talk")).await;
    info.ok();
    let without_body = Ask::new(&stack, "GET", &format!("/info?{B}")).header(API_KEY);
    without_body.header(("extra-parameters", "bogus")).send().await.ok();
    stack.stop().await;
}
