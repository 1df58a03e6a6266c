//! What OpenAI's clients ask for, on the routes they ask; and raw prompts, which both families have.

use crate::ask::{AZURE, B, OPENAI, everywhere, get, is_openai, post, says, streamed, with};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::TestStack;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn v35_every_prompt_has_its_choice() {
    let stack = TestStack::start().await;
    // A deployment whose policy looks at nothing: token ids are texts that no policy can look at.
    for path in everywhere("/completions", "free-talk") {
        for (prompt, texts) in [
            (json!("once"), vec![" after once"]),
            (json!(["once", "twice"]), vec![" after once", " after twice"]),
            (json!([1, 2, 3]), vec![" after 3 tokens"]),
            (json!([[1], [2, 3]]), vec![" after 1 tokens", " after 2 tokens"]),
        ] {
            let body = json!({"model": "free-talk", "prompt": prompt});
            let said = post(&stack, &path, &body).await.ok();
            assert_eq!(said["object"], "text_completion");
            let choices = said["choices"].as_array().unwrap();
            for (i, choice) in choices.iter().enumerate() {
                assert_eq!((&choice["index"], &choice["text"]), (&json!(i), &json!(texts[i])));
                assert_eq!(choice["finish_reason"], "stop");
                assert_eq!(choice.get("logprobs"), Some(&Value::Null));
            }
            assert_eq!(choices.len(), texts.len(), "{path}");
            assert!(said["usage"]["total_tokens"].is_u64());
            let events = post(&stack, &path, &with(body, "stream", json!(true))).await.events();
            for (i, text) in texts.iter().enumerate() {
                let pieces = events
                    .iter()
                    .flat_map(|e| e["choices"].as_array().cloned().unwrap_or_default());
                let said: String = pieces
                    .filter(|choice| choice["index"] == i)
                    .filter_map(|choice| choice["text"].as_str().map(str::to_owned))
                    .collect();
                assert_eq!(said, *text, "{path}");
            }
        }
        post(&stack, &path, &json!({"model": "free-talk"})).await.refused(400, "BadRequest");
        // OpenAI's own names are extras elsewhere.
        let echo = json!({"model": "free-talk", "prompt": "once", "echo": true});
        let answer = post(&stack, &path, &echo).await;
        if is_openai(&path) {
            answer.ok();
        } else {
            answer.refused(400, "extra_parameters_not_allowed");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v39_openai_clients_get_what_they_parse() {
    let stack = TestStack::start().await;
    let chats: Vec<_> = everywhere("/chat/completions", "talk")
        .into_iter()
        .filter(|path| is_openai(path))
        .collect();
    assert_eq!(chats.len(), 3);
    for path in chats {
        let whole = post(&stack, &path, &says("talk", "hi")).await;
        assert_eq!(whole.said(), "You said: hi");
        assert!(whole.ok()["id"].as_str().unwrap().starts_with("chatcmpl-"));
        let body = with(says("talk", "hi"), "stream", json!(true));
        let body = with(body, "stream_options", json!({"include_usage": true}));
        let events = post(&stack, &path, &body).await.events();
        assert_eq!(streamed(&events), "You said: hi");
        let (last, others) = events.split_last().unwrap();
        assert_eq!(last["choices"], json!([]), "{path}");
        assert!(last["usage"]["total_tokens"].as_u64().unwrap() > 0);
        for other in others {
            assert_eq!(other.get("usage"), Some(&Value::Null), "{path}: {other}");
        }
        let alone = with(says("talk", "hi"), "stream_options", json!({"include_usage": true}));
        post(&stack, &path, &alone).await.refused(400, "BadRequest");
    }
    for path in everywhere("/embeddings", "vectors").iter().filter(|path| is_openai(path)) {
        let body = json!({"model": "vectors", "input": ["hi"], "encoding_format": "base64"});
        let said = post(&stack, path, &body).await.ok();
        let bytes = STANDARD.decode(said["data"][0]["embedding"].as_str().unwrap()).unwrap();
        assert_eq!(bytes.len(), 8 * 4);
    }
    let lists = OPENAI.map(|prefix| format!("{prefix}/models"));
    for path in lists.iter().chain([&format!("/openai/models?{AZURE}")]) {
        let list = get(&stack, path).await.ok();
        assert_eq!(list["object"], "list");
        for model in list["data"].as_array().unwrap() {
            assert_eq!(model["object"], "model");
            assert!(model["created"].is_u64() && model["owned_by"].is_string());
            let id = model["id"].as_str().unwrap();
            for prefix in OPENAI {
                assert_eq!(get(&stack, &format!("{prefix}/models/{id}")).await.ok(), *model);
            }
        }
    }
    // Newer clients fall back when they are told that there is no such route.
    for path in ["/v1/responses", "/openai/v1/responses"] {
        post(&stack, path, &json!({"model": "talk", "input": "hi"})).await.refused(404, "404");
    }
    assert!(get(&stack, &format!("/models/models?{B}")).await.status == 404);
    stack.stop().await;
}
