//! Tests of whole requests: the router in front of small services.

mod answers;
mod bad_requests;
mod chat;
mod content_filter;
mod fakes;
mod keys;
mod limits;
mod other_routes;
mod switches;
mod text_blocklists;
mod wire;

use super::*;
use crate::config::Config;
use axum::body::Body;
use chassis::config::{Sources, load};
use fakes::Seen;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The version that clients send unasked.
const VERSION: &str = "api-version=2024-05-01-preview";

/// The edge with its services.
struct Edge {
    router: Router,
    tasks: Tasks,
    seen: Seen,
    config: Config,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// `error.code`.
    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The events of a stream, without the last, which is `[DONE]`.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let body = self.text.strip_suffix("data: [DONE]\n\n").expect("ends with [DONE]");
        let events = body.split_terminator("\n\n").map(|event| {
            assert!(event.starts_with("data: {") && !event.contains('\n'), "{event}");
            serde_json::from_str(&event["data: ".len()..]).unwrap()
        });
        events.collect()
    }

    /// What the deltas of the first choice say, put together.
    fn said(&self) -> String {
        let events = self.events();
        let content = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
        content.collect()
    }
}

async fn edge(options: &[(&str, &str)]) -> Edge {
    let (seen, tasks) = (Seen::default(), Tasks::new());
    let urls = fakes::start(&seen, &tasks).await;
    let mut env: Vec<_> = ["CHAT", "EMBEDDING", "CONTENT_SAFETY"]
        .iter()
        .zip(&urls)
        .map(|(service, url)| (format!("EDGE__{service}__ENDPOINTS"), format!("[\"{url}\"]")))
        .collect();
    env.push(("EDGE__GUARD__POLICY".to_owned(), String::new()));
    env.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let config: Config = load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap();
    let access = Access::build(&config, "127.0.0.1:1".parse().unwrap()).unwrap();
    let app = App::build(config.clone(), &tasks).unwrap();
    let limit = Duration::from_secs(10);
    let mut listed = app.list_chat(limit).await.unwrap();
    listed.extend(app.list_embedding(limit).await.unwrap());
    app.replace_table(&listed, true);
    Edge { router: build(app, access, tasks.clone()), tasks, seen, config }
}

impl Edge {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(post(path, body.to_string())).await
    }

    async fn post_with(&self, header: (&str, &str), path: &str, body: &Value) -> Answer {
        let mut request = post(path, body.to_string());
        let name: http::HeaderName = header.0.parse().unwrap();
        request.headers_mut().insert(name, header.1.parse().unwrap());
        self.send(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

fn says(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

fn streams(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "stream": true})
}

fn inference(route: &str) -> String {
    format!("{route}?{VERSION}")
}
