//! One trace of one request through all services, and what is written on it and on `/metrics`.
//!
//! A tracer and a recorder are for a whole process, so one test installs them and tells the whole story; other tests of this
//! process are traced meanwhile, which changes nothing for them.

use chassis::Tasks;
use chassis::telemetry::{self, Exposition, LogFormat, TelemetryConfig};
use chassis::tls::ClientTlsConfig;
use chat::Remote;
use e2e::collector::{Collector, Span};
use e2e::{KEY, TestStack};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A W3C context as a client sends it: its trace, its span, sampled.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Of the requests that are not looked at.
const OTHER_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// Of the request that a server elsewhere answers.
const FAR_TRACE: &str = "5bd66ef5095369c7b0d1f8f4bd33716a";
/// Of the requests that do not end well.
const BROKEN_TRACE: &str = "6ce77f06a6487ad8c1e2f905ce44827b";
const LEFT_TRACE: &str = "7df88017b7598be9d2f30a16df55938c";
const BLOCKED_TRACE: &str = "8e099128c86a9cfae3041b27e066a49d";
const LOST_TRACE: &str = "9f10a239d97bad0bf4152c38f177b5ae";
const CALLER: &str = "b7ad6b7169203331";
/// What is said, and must not be on any span.
const SECRET: &str = "swordfish";
const CHAT: &str = "inference.chat.v1.ChatService/Generate";
const SCREEN: &str = "inference.content_safety.v1.ContentSafetyService/Screen";

async fn ask(stack: &TestStack, path: &str, body: Value, trace: &str) -> reqwest::Response {
    let url = stack.url(&format!("{path}?api-version=2024-05-01-preview"));
    let request = stack.http().post(url).header("api-key", KEY);
    let request = request.header("traceparent", format!("00-{trace}-{CALLER}-01"));
    request.json(&body).send().await.unwrap()
}

/// A model that a server at `listener` answers for.
fn remote(listener: &TcpListener) -> Remote {
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let config = format!("name = 'far'\nmodel = 'org/far'\nbase_urls = ['{url}']");
    Remote::build(&toml::from_str(&config).unwrap()).unwrap()
}

/// The `traceparent` that the server at `listener` sees when its model is asked.
async fn ask_elsewhere(stack: &TestStack, listener: &TcpListener) -> String {
    let message = json!({"role": "user", "content": "hello"});
    let body = json!({"model": "far", "messages": [message]});
    let answered = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let mut body = vec![0; header("content-length: ").unwrap().parse().unwrap()];
        socket.read_exact(&mut body).await.unwrap();
        let choice = json!({"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"});
        let event = json!({"choices": [choice]});
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream";
        let answer =
            format!("{begin}\r\nconnection: close\r\n\r\ndata: {event}\n\ndata: [DONE]\n\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
        header("traceparent: ").unwrap_or_else(|| panic!("no traceparent: {head}")).to_owned()
    };
    let (answer, sent) = tokio::join!(ask(stack, "/chat/completions", body, FAR_TRACE), answered);
    assert_eq!(answer.status(), 200);
    sent
}

/// The children of `parent` by name, each with its own.
fn tree(spans: &[Span], parent: &str) -> Value {
    let mut children: Vec<&Span> = spans.iter().filter(|span| span.parent == parent).collect();
    children.sort_by_key(|span| (span.name.clone(), span.began));
    children.dedup_by_key(|span| span.name.clone());
    let named = children.iter().map(|span| (span.name.clone(), tree(spans, &span.id)));
    Value::Object(named.collect())
}

fn find<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span `{name}`"))
}

fn assert_tree(spans: &[Span]) {
    let screened = json!({SCREEN: {}});
    let generated = json!({CHAT: {}});
    let expected = json!({"POST /chat/completions": {
        "auth": {},
        "chat talk": generated,
        "limit": {},
        "safety_in": screened,
        "safety_out": screened,
    }});
    assert_eq!(tree(spans, CALLER), expected);
    let ids: Vec<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let orphans = spans.iter().filter(|s| s.parent != CALLER && !ids.contains(&s.parent.as_str()));
    assert_eq!(orphans.count(), 0, "{spans:#?}");
}

fn assert_attributes(spans: &[Span]) {
    let generation = find(spans, "chat talk");
    assert_eq!(generation.kind, "SPAN_KIND_CLIENT");
    for (key, expected) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("koine")),
        ("gen_ai.request.model", json!("talk")),
        ("gen_ai.request.temperature", json!(0.2)),
        ("gen_ai.request.max_tokens", json!(16)),
        ("gen_ai.request.seed", json!(7)),
        ("gen_ai.request.stream", json!(true)),
        ("gen_ai.response.model", json!("talk")),
        ("gen_ai.usage.input_tokens", json!(1)),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
    ] {
        assert_eq!(generation.attributes.get(key), Some(&expected), "{key}");
    }
    assert!(generation.attributes["gen_ai.usage.output_tokens"].as_i64().unwrap() > 0);
    assert!(generation.attributes["gen_ai.response.time_to_first_chunk"].as_f64().unwrap() > 0.0);
    let id = generation.attributes["gen_ai.response.id"].as_str().unwrap();
    assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert!(!generation.attributes.contains_key("error.type"));
    assert!(generation.events.contains(&"first chunk".to_owned()));
    let request = find(spans, "POST /chat/completions");
    assert_eq!(request.kind, "SPAN_KIND_SERVER");
    assert_eq!(request.attributes["http.response.status_code"], json!(200));
    assert_eq!(request.attributes["http.route"], "/chat/completions");
    assert_eq!(request.status, "STATUS_CODE_UNSET");
    assert_eq!(request.resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!request.resource["service.instance.id"].as_str().unwrap().is_empty());
    for judgement in ["safety_in", "safety_out"] {
        assert_eq!(find(spans, judgement).kind, "SPAN_KIND_CLIENT", "a call of another service");
    }
    assert_eq!(find(spans, CHAT).attributes["rpc.grpc.status_code"], json!(0));
    let written = serde_json::to_string(spans).unwrap();
    assert!(!written.contains(SECRET), "content on a span: {written}");
}

/// What the spans of requests say that did not end well.
fn assert_endings(all: &[Span]) {
    let says = |trace: &str, name: &str| {
        let span = find(&of(trace, all), name).clone();
        let error = span.attributes.get("error.type").and_then(Value::as_str).unwrap_or_default();
        let output = span.attributes.get("gen_ai.usage.output_tokens").and_then(Value::as_i64);
        (span.status, error.to_owned(), output)
    };
    let (request, call) = ("POST /chat/completions", "chat talk");
    let (error, unset) = ("STATUS_CODE_ERROR".to_owned(), "STATUS_CODE_UNSET".to_owned());
    let internal = "InternalServerError".to_owned();
    assert_eq!(says(BROKEN_TRACE, request), (error.clone(), internal.clone(), None));
    assert_eq!(says(BROKEN_TRACE, call), (error, internal, Some(2)));
    let cancelled = "cancelled".to_owned();
    assert_eq!(says(LEFT_TRACE, request), (unset.clone(), cancelled.clone(), None));
    assert_eq!(says(LEFT_TRACE, call), (unset.clone(), cancelled, Some(1)));
    assert_eq!(says(BLOCKED_TRACE, request), (unset.clone(), String::new(), None));
    let (status, error, _) = says(BLOCKED_TRACE, call);
    assert_eq!((status, error), (unset, "content_filter".to_owned()));
    let lost = find(&of(LOST_TRACE, all), "POST").clone();
    assert!(!lost.attributes.contains_key("http.route"), "a route that there is not");
    assert!(!all.iter().any(|span| span.name.contains("ListModels")), "nobody asked for it");
}

fn of(trace: &str, spans: &[Span]) -> Vec<Span> {
    spans.iter().filter(|span| span.trace == trace).cloned().collect()
}

/// Requests that break off, that nobody waits for, that are blocked, and that have no route.
async fn end_badly(stack: &TestStack) {
    let body = |model: &str, texts: &[&str]| {
        let message = |text: &&str| json!({"role": "user", "content": text});
        let messages: Vec<Value> = texts.iter().map(message).collect();
        json!({"model": model, "stream": true, "messages": messages})
    };
    let path = "/chat/completions";
    let broken = ask(stack, path, body("free-talk", &["/die"]), BROKEN_TRACE).await;
    assert!(broken.text().await.is_err(), "the stream broke");
    let mut left = ask(stack, path, body("free-talk", &["/hang"]), LEFT_TRACE).await;
    assert!(left.chunk().await.unwrap().is_some());
    drop(left);
    // The model does not end, so that the verdict always comes first.
    let blocked = ask(stack, path, body("talk", &["VIOLENCE6", "/hang"]), BLOCKED_TRACE).await;
    assert_eq!(blocked.status(), 400);
    assert_eq!(ask(stack, "/nowhere", json!({}), LOST_TRACE).await.status(), 404);
}

/// Series of `/metrics` that are there before anything of theirs happens, and what all of them are.
fn assert_metrics(metrics: &Exposition) {
    let (_, text) = metrics.render("text/plain");
    for line in [
        "# HELP edge_in_flight_requests Requests that have come and not ended; the edge's signal for scaling",
        "chat_requests_total{method=\"complete\",outcome=\"busy\"} ",
        "chat_remote_failures_total{kind=\"unhealthy\"} ",
        "embedding_requests_total{kind=\"images\",code=\"busy\"} ",
        "edge_screened_texts_total{what=\"reply\",verdict=\"unavailable\"} ",
        "content_safety_requests_total{call=\"screen\",code=\"InternalServerError\"} ",
        "telemetry_spans_lost_total{why=\"collector\"} ",
        "door_refusals_total ",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} is missing in {text}");
    }
    let described = |name: &str| text.contains(&format!("# HELP {name} "));
    for line in text.lines() {
        if let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            assert!(described(name), "`{name}` has no words");
        }
    }
}

fn assert_exemplars(metrics: &Exposition) {
    let (kind, text) = metrics.render("application/openmetrics-text;version=1.0.0");
    assert!(kind.starts_with("application/openmetrics-text") && text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE edge_requests counter\nedge_requests_total{"), "{text}");
    assert!(text.contains("# HELP edge_requests Requests that have ended."), "{text}");
    for series in ["edge_request_seconds_bucket", "gen_ai_server_request_duration_seconds_bucket"] {
        // Of any trace: the last request of a bucket leaves its own, and other tests ask too.
        let exemplar = |line: &str| line.contains("# {trace_id=\"") && line.contains(",span_id=\"");
        let found = text.lines().any(|line| line.starts_with(series) && exemplar(line));
        assert!(found, "no exemplar at {series}: {text}");
    }
    let (kind, text) = metrics.render("text/plain");
    assert!(kind.starts_with("text/plain; version=0.0.4") && !text.contains("trace_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_filtered_stream_is_one_trace_of_all_services_without_a_word_of_its_content() {
    let mut collector = Collector::start().await;
    let config = TelemetryConfig {
        log: "off".to_owned(),
        log_format: LogFormat::Json,
        otlp_endpoint: collector.endpoint.clone(),
        otlp_tls: ClientTlsConfig::default(),
        trace_share: 1.0,
        trace_content: false,
    };
    let telemetry = telemetry::init("test", &config).unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stack = TestStack::start_beside(vec![Arc::new(remote(&elsewhere))], &[]).await;
    // First, for exemplars are those of the last request.
    let joined = ask_elsewhere(&stack, &elsewhere).await;
    let message = json!({"role": "user", "content": format!("the word is {SECRET}")});
    let body = json!({"model": "talk", "stream": true, "messages": [message],
        "temperature": 0.2, "max_tokens": 16, "seed": 7});
    let answer = ask(&stack, "/chat/completions", body, TRACE).await;
    let timing = answer.headers()["server-timing"].to_str().unwrap().to_owned();
    assert!(answer.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    for step in ["auth", "limit", "safety_in", "queue", "model", "safety_out", "serialise", "total"]
    {
        assert!(timing.contains(&format!("{step};dur=")), "{step} is missing in {timing}");
    }
    end_badly(&stack).await;
    stack.stop().await;
    let metrics = telemetry.metrics();
    Tasks::new().spawn_blocking(move || telemetry.flush()).await.unwrap();
    let ended = |trace, all: &[Span]| of(trace, all).iter().any(|s| s.name.starts_with("POST"));
    let asked = [TRACE, FAR_TRACE, BROKEN_TRACE, LEFT_TRACE, BLOCKED_TRACE, LOST_TRACE];
    let spans = collector.until(|all| asked.iter().all(|trace| ended(trace, all))).await;
    assert_endings(&spans);
    let call = find(&of(FAR_TRACE, &spans), "chat org/far").clone();
    assert_eq!(joined, format!("00-{FAR_TRACE}-{}-01", call.id), "the server joins the trace");
    let spans = of(TRACE, &spans);
    assert_tree(&spans);
    assert_attributes(&spans);
    assert_exemplars(&metrics);
    assert_metrics(&metrics);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_where_its_time_went() {
    let stack = TestStack::start().await;
    for (path, body, steps) in [
        ("/embeddings", json!({"input": ["a"]}), &["auth", "limit", "model", "serialise"][..]),
        (
            "/chat/completions",
            json!({"model": "free-talk", "messages": [{"role": "user", "content": "a"}]}),
            &["auth", "limit", "queue", "model", "serialise"],
        ),
        (
            "/chat/completions",
            json!({"model": "free-talk", "messages": [{"role": "user", "content": "/fail"}]}),
            &["auth", "limit", "queue"],
        ),
        (
            "/dry-run/chat/completions",
            json!({"model": "talk", "messages": [{"role": "user", "content": "a"}]}),
            &["auth", "limit", "safety_in"],
        ),
        ("/chat/completions", json!({"messages": 1}), &["auth"]),
        ("/nowhere", json!({}), &["auth"]),
    ] {
        let answer = ask(&stack, path, body, OTHER_TRACE).await;
        let timing = answer.headers()["server-timing"].to_str().unwrap().to_owned();
        let names: Vec<&str> =
            timing.split(", ").map(|part| part.split(';').next().unwrap()).collect();
        assert_eq!(names, [steps, &["total"]].concat(), "{path}: {timing}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_never_answers_was_waited_for_and_the_answer_says_so() {
    // Connections are taken, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let patience = ("EDGE__LIMITS__REQUEST_TIMEOUT_MS", "300");
    let stack = TestStack::start_beside(vec![Arc::new(remote(&silent))], &[patience]).await;
    let message = json!({"role": "user", "content": "hello"});
    let body = json!({"model": "far", "messages": [message]});
    let answer = ask(&stack, "/chat/completions", body, OTHER_TRACE).await;
    assert_eq!(answer.status().as_u16(), 504);
    let timing = answer.headers()["server-timing"].to_str().unwrap().to_owned();
    let queue = timing.split(", ").find_map(|part| part.strip_prefix("queue;dur="));
    let queue: f64 = queue.unwrap_or_else(|| panic!("no queue in {timing}")).parse().unwrap();
    assert!(queue > 200.0, "{timing}");
    stack.stop().await;
}
