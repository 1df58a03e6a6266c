//! Streams byte for byte: the grammar, silence, broken ends, clients that leave, tools, characters.

use crate::ask::{
    API_KEY, AZURE, Answer, Ask, B, VERSIONS, everywhere, is_openai, post, says, streamed, with,
};
use chassis::Tasks;
use chat::Remote;
use e2e::{KEY, TestStack};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// No wait of these tests takes longer, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a silent connection is watched; `sse.rs` of the edge has the same for an hour of a stopped clock.
const SILENCE: Duration = Duration::from_millis(300);
/// How soon a client that leaves is noticed.
const SOON: Duration = Duration::from_secs(1);

fn streams(model: &str, text: &str) -> Value {
    with(says(model, text), "stream", json!(true))
}

/// Ids, times and deltas as every chunk must have them; the role comes first, and once.
fn check_chunks(events: &[Value], path: &str) {
    let first = &events[0];
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}), "{path}");
    for event in events {
        assert_eq!(event["object"], "chat.completion.chunk");
        for same in ["id", "created", "model"] {
            assert_eq!(event[same], first[same], "{path}: {same}");
        }
        assert!(event["created"].is_u64() && event["choices"].is_array());
        for choice in event["choices"].as_array().unwrap() {
            assert!(choice["delta"].is_object() && choice.get("finish_reason").is_some());
            assert_ne!(choice["delta"].get("tool_calls"), Some(&Value::Null));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v16_a_stream_keeps_the_byte_grammar_and_ends_with_usage_and_done() {
    let stack = TestStack::start().await;
    let inference = VERSIONS.map(|v| format!("/models/chat/completions?{v}"));
    let all = everywhere("/chat/completions", "talk");
    for path in inference.iter().chain(&all) {
        let ask = Ask::new(&stack, "POST", path).header(API_KEY);
        let ask =
            ask.header(("accept-encoding", "gzip, deflate")).header(("accept", "application/json"));
        let answer = ask.json(&streams("talk", "hello there, how are you?")).send().await;
        let events = answer.events();
        // Azure OpenAI's first chunk has the verdict on the prompt and no choice (section 13.6).
        let verdict = events[0]["choices"].as_array().is_some_and(Vec::is_empty);
        assert_eq!(verdict, is_openai(path), "{path}: {}", events[0]);
        let events = if verdict { &events[1..] } else { &events[..] };
        check_chunks(events, path);
        assert_eq!(streamed(events), "You said: hello there, how are you?");
        let (last, others) = events.split_last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert!(others.iter().all(|e| e["choices"][0]["finish_reason"].is_null()));
        if is_openai(path) {
            assert!(events.iter().all(|e| e.get("usage").is_none_or(Value::is_null)), "{path}");
        } else {
            let usage = &last["usage"];
            let sum = usage["prompt_tokens"].as_u64().unwrap()
                + usage["completion_tokens"].as_u64().unwrap();
            assert_eq!(usage["total_tokens"], sum);
            assert!(others.iter().all(|e| e.get("usage").is_none_or(Value::is_null)), "{path}");
        }
    }
    // Passed through or not, no chunk without a choice on the inference routes.
    let options = with(streams("talk", "hi"), "stream_options", json!({"include_usage": true}));
    let path = format!("/models/chat/completions?{B}");
    post(&stack, &path, &options).await.refused(400, "extra_parameters_not_allowed");
    let passed =
        crate::ask::post_with(&stack, ("extra-parameters", "pass-through"), &path, &options);
    let events = passed.await.events();
    assert!(events.iter().all(|e| e["choices"].as_array().is_some_and(|c| c.len() == 1)));
    assert!(events.last().unwrap()["usage"]["total_tokens"].is_u64());
    let prompts = with(json!({"model": "talk", "prompt": "once"}), "stream", json!(true));
    let events = post(&stack, &format!("/completions?{B}"), &prompts).await.events();
    assert!(events.iter().all(|e| e["object"] == "text_completion"));
    assert!(events.last().unwrap()["usage"]["total_tokens"].is_u64());
    stack.stop().await;
}

/// A request on a connection of its own, whose bytes are read as they come.
async fn raw(stack: &TestStack, path: &str, body: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(stack.address).await.unwrap();
    let (body, host) = (body.to_string(), stack.address);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\napi-key: {KEY}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    socket
}

/// What comes until `enough` of it has, or the connection ends.
async fn read_until(socket: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            let mut piece = [0; 4096];
            // A connection that is reset has ended too.
            let many = socket.read(&mut piece).await.unwrap_or(0);
            bytes.extend_from_slice(&piece[..many]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if many == 0 || enough(&text) {
                return text;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn v17_a_model_that_keeps_silent_sends_no_comments() {
    let stack = TestStack::start().await;
    for path in everywhere("/chat/completions", "free-talk") {
        let mut socket = raw(&stack, &path, &streams("free-talk", "/hold")).await;
        let begun = read_until(&mut socket, |text| text.contains("/hold ")).await;
        let mut byte = [0; 1];
        let silence = tokio::time::timeout(SILENCE, socket.read(&mut byte)).await;
        assert!(silence.is_err(), "{path}: a byte in a silence: {byte:?}");
        stack.parrot.release();
        let rest = read_until(&mut socket, |_| false).await;
        let lines = begun.split("\r\n\r\n").nth(1).unwrap_or_default().lines().chain(rest.lines());
        assert!(lines.clone().all(|line| !line.starts_with(':')), "{path}");
        assert!(rest.contains("data: [DONE]") && rest.ends_with("0\r\n\r\n"), "{path}: {rest}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v18_a_stream_that_breaks_says_so_and_is_aborted() {
    let stack = TestStack::start().await;
    for path in everywhere("/chat/completions", "free-talk") {
        let mut socket = raw(&stack, &path, &streams("free-talk", "/die")).await;
        let text = read_until(&mut socket, |_| false).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {text}");
        assert!(text.contains("\"two \"") && text.contains("\"pieces\""), "{path}: {text}");
        assert!(!text.contains("[DONE]"), "{path}");
        assert!(!text.ends_with("0\r\n\r\n"), "{path}: the body must not look complete");
        let event = text.lines().find_map(|line| line.strip_prefix("data: {\"error\":")).unwrap();
        assert!(event.contains("\"code\":\"InternalServerError\""), "{path}: {event}");
        // The same as a client's library sees it.
        let answer = post(&stack, &path, &streams("free-talk", "/die")).await;
        assert!(answer.broken, "{path}");
        assert!(!answer.text().contains("[DONE]"), "{path}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v19_a_client_that_closes_cancels_the_generation_within_a_second() {
    let stack = TestStack::start().await;
    for path in everywhere("/chat/completions", "free-talk") {
        let mut socket = raw(&stack, &path, &streams("free-talk", "/hang")).await;
        read_until(&mut socket, |text| text.contains("/hang")).await;
        assert_eq!(stack.parrot.running(), 1, "{path}");
        drop(socket);
        let idle = async {
            while stack.parrot.running() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, idle).await.unwrap_or_else(|_| panic!("{path}: it still runs"));
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v20_tool_calls_stream_with_id_type_and_name_first() {
    let stack = TestStack::start().await;
    let tools = json!([{"type": "function", "function": {"name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    for choice in [
        json!("auto"),
        json!("required"),
        json!({"type": "function", "function": {"name": "get_weather"}}),
    ] {
        let body = with(streams("tools", "/tool"), "tools", tools.clone());
        let body = with(body, "tool_choice", choice);
        for path in everywhere("/chat/completions", "tools") {
            let events = post(&stack, &path, &body).await.events();
            let deltas: Vec<_> = events
                .iter()
                .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array())
                .flatten()
                .collect();
            let (first, later) = deltas.split_first().unwrap();
            assert_eq!(first["index"], 0);
            assert!(first["id"].as_str().is_some_and(|id| !id.is_empty()), "{path}");
            assert_eq!(
                (&first["type"], &first["function"]["name"]),
                (&json!("function"), &json!("get_weather"))
            );
            assert!(!later.is_empty());
            for delta in later {
                assert_eq!(delta["index"], 0, "{path}");
                assert!(delta["function"]["arguments"].is_string());
                assert!(delta.get("id").is_none() && delta["function"].get("name").is_none());
            }
            let arguments: String =
                deltas.iter().filter_map(|d| d["function"]["arguments"].as_str()).collect();
            let arguments: Value = serde_json::from_str(&arguments).unwrap();
            assert_eq!(arguments, json!({"city": "Oslo"}));
            let ends = events.iter().filter_map(|e| e["choices"][0]["finish_reason"].as_str());
            assert_eq!(ends.collect::<Vec<_>>(), ["tool_calls"], "{path}");
        }
    }
    stack.stop().await;
}

/// A model server that sends every byte of its answer as a chunk of its own, so that characters are cut everywhere.
async fn cutting_server(text: &str, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut events: Vec<Value> = text
        .split_inclusive(' ')
        .map(|word| json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]}))
        .collect();
    events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    events.push(json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}}));
    let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let body = format!("{body}data: [DONE]\n\n");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut answer = head.as_bytes().to_vec();
    for byte in body.as_bytes() {
        answer.extend_from_slice(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 65_536];
            // The request of this test fits into one read; what it asks is not looked at.
            let _read = socket.read(&mut request).await;
            let _written = socket.write_all(&answer).await;
        }
    });
    url
}

fn check_characters(answer: &Answer, expected: &str) {
    let events = answer.events();
    assert_eq!(streamed(&events), expected, "{}", answer.path);
    assert!(!answer.text().contains('\u{fffd}'), "{}: {}", answer.path, answer.text());
    assert!(!answer.text().contains("\\ud"), "no halves of surrogates: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn v44_no_delta_holds_a_broken_character() {
    let text = "crab 🦀, crew 👩‍🚀👨‍👩‍👧, words 漢字 naïve. ";
    let tasks = Tasks::new();
    let url = cutting_server(text, &tasks).await;
    let options = format!("name = 'cut'\nbase_urls = ['{url}']\nconnection = {{ retries = 0 }}");
    let remote = Remote::build(&toml::from_str(&options).unwrap()).unwrap();
    let alias = "[{name='free-cut', service='chat', model='cut', policy=''},\
                  {name='free-talk', service='chat', model='talk', policy=''}]";
    let stack =
        TestStack::start_beside(vec![Arc::new(remote)], &[("EDGE__DEPLOYMENTS", alias)]).await;
    for (model, asked, expected) in [
        ("cut", "hi", text),
        ("free-cut", "hi", text),
        ("talk", "/emoji", "a 🦀 and a 👩‍🚀"),
        ("free-talk", "/emoji", "a 🦀 and a 👩‍🚀"),
    ] {
        for path in everywhere("/chat/completions", model) {
            check_characters(&post(&stack, &path, &streams(model, asked)).await, expected);
        }
    }
    assert!(everywhere("", "cut").iter().any(|path| path.ends_with(AZURE)));
    stack.stop().await;
    tasks.stop(Duration::ZERO).await;
}
