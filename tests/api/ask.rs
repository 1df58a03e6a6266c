//! Requests and what is seen of their answers: the words in which the vectors and the properties are written.
//!
//! Separate from both because the shape of an error and the grammar of a stream are the same everywhere, and are checked here
//! on every answer that passes.

use e2e::{KEY, TestStack};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Attempts of one request.
const ATTEMPTS: usize = 8;

/// The version that clients send unasked.
pub(crate) const B: &str = "api-version=2024-05-01-preview";
/// The first version, whose error bodies are flat.
pub(crate) const S: &str = "api-version=2024-04-01-preview";
/// A version of Azure OpenAI.
pub(crate) const AZURE: &str = "api-version=2024-10-21";
/// A version of Content Safety.
pub(crate) const SAFETY: &str = "api-version=2024-09-01";
/// Every version of the inference API (contract, section 2).
pub(crate) const VERSIONS: [&str; 7] = [
    S,
    B,
    "api-version=2024-08-01-preview",
    "api-version=2025-04-01",
    "api-version=2025-05-01",
    "api-version=2025-05-01-preview",
    "api-version=2025-05-15-preview",
];
/// Where the inference API is served.
pub(crate) const PREFIXES: [&str; 3] = ["", "/models", "/api/models"];
/// Where OpenAI's API is served.
pub(crate) const OPENAI: [&str; 2] = ["/openai/v1", "/v1"];

/// The two forms of a key that every client knows.
pub(crate) const API_KEY: (&str, &str) = ("api-key", KEY);

/// `route` under every prefix that has it, for the deployment called `name`; the last three speak OpenAI's dialect.
pub(crate) fn everywhere(route: &str, name: &str) -> Vec<String> {
    let mut paths: Vec<_> = PREFIXES.iter().map(|p| format!("{p}{route}?{B}")).collect();
    paths.push(format!("/openai/deployments/{name}{route}?{AZURE}"));
    paths.extend(OPENAI.iter().map(|p| format!("{p}{route}")));
    paths
}

/// Whether errors of `path` are OpenAI's.
pub(crate) fn is_openai(path: &str) -> bool {
    ["/openai", "/v1"].iter().any(|prefix| path.starts_with(prefix))
}

/// A conversation of one user message for the deployment called `model`.
pub(crate) fn says(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

/// `body` with one more property.
pub(crate) fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

/// A request in the making.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    stack: &'a TestStack,
    request: reqwest::RequestBuilder,
}

impl<'a> Ask<'a> {
    /// A request without key, headers and body.
    pub(crate) fn new(stack: &'a TestStack, method: &str, path: &str) -> Self {
        let method = method.parse().unwrap();
        Self { stack, request: stack.http().request(method, stack.url(path)) }
    }

    pub(crate) fn header(mut self, header: (&str, &str)) -> Self {
        self.request = self.request.header(header.0, header.1);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header(("content-type", "application/json")).body(body.to_string())
    }

    /// The answer to its first byte. A refusal that comes before the body was read ends the connection, which a client that
    /// still writes may see first: it sends again, as the official ones do.
    pub(crate) async fn begin(self) -> reqwest::Response {
        for _ in 1..ATTEMPTS {
            // One whose body is a stream can be sent once.
            let Some(copy) = self.request.try_clone() else { break };
            match copy.send().await {
                Ok(response) => return response,
                Err(error) if error.is_connect() => panic!("{error}"),
                Err(_) => {}
            }
        }
        self.request.send().await.unwrap()
    }

    /// The answer to its end, or to where it breaks.
    pub(crate) async fn send(self) -> Answer {
        let path = self.stack.address.to_string();
        let mut response = self.begin().await;
        let path = response.url().as_str().split(&path).nth(1).unwrap_or_default().to_owned();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut bytes = Vec::new();
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        Answer { path, status, headers, bytes, broken }
    }
}

/// POST with a key.
pub(crate) async fn post(stack: &TestStack, path: &str, body: &Value) -> Answer {
    Ask::new(stack, "POST", path).header(API_KEY).json(body).send().await
}

/// POST with a key and one more header.
pub(crate) async fn post_with(
    stack: &TestStack,
    header: (&str, &str),
    path: &str,
    body: &Value,
) -> Answer {
    Ask::new(stack, "POST", path).header(API_KEY).header(header).json(body).send().await
}

/// GET with a key.
pub(crate) async fn get(stack: &TestStack, path: &str) -> Answer {
    Ask::new(stack, "GET", path).header(API_KEY).send().await
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// Whether the connection ended before the answer did.
    pub(crate) broken: bool,
}

impl Answer {
    /// A header as text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        let said = serde_json::from_slice(&self.bytes);
        said.unwrap_or_else(|e| panic!("{}: {e}: {}", self.path, self.text()))
    }

    /// The body of an answer that must be 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}: {}", self.path, self.text());
        assert_eq!(self.header("content-type"), "application/json", "{}", self.path);
        self.json()
    }

    /// What the first choice says.
    pub(crate) fn said(&self) -> String {
        self.ok()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// What is wrong with this answer as an error of the contract (sections 4, 6 and 16); nothing where it is one.
    pub(crate) fn fault(&self) -> Option<String> {
        let Ok(body) = serde_json::from_slice::<Value>(&self.bytes) else {
            return Some("the body is not JSON".to_owned());
        };
        let code = body["error"]["code"].as_str().or_else(|| body["code"].as_str());
        let message = body["error"]["message"].as_str().or_else(|| body["message"].as_str());
        let retries = ["retry-after", "retry-after-ms"].map(|name| self.headers.contains_key(name));
        let checks = [
            (self.header("content-type") == "application/json", "the content type"),
            (code.is_some_and(|code| !code.is_empty()), "no code"),
            (message.is_some_and(|message| !message.is_empty()), "no message"),
            (!body["error"].is_string(), "a string under `error`"),
            (code == Some(self.header("x-ms-error-code")), "x-ms-error-code"),
            (!self.header("x-request-id").is_empty(), "x-request-id"),
            (!self.header("apim-request-id").is_empty(), "apim-request-id"),
            (!self.header("x-ms-client-request-id").is_empty(), "x-ms-client-request-id"),
            (retries == [matches!(self.status, 429 | 503); 2], "Retry-After"),
            (self.status != 405 || !self.header("allow").is_empty(), "Allow"),
            (!self.headers.contains_key("x-ms-original-url"), "x-ms-original-url"),
            (!self.headers.contains_key("www-authenticate"), "www-authenticate"),
        ];
        checks.into_iter().find(|(fine, _)| !fine).map(|(_, what)| what.to_owned())
    }

    /// The body of an answer that must be an error with this status and code, in every way that the contract asks.
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let said = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status, status, "{}: {said}", self.path);
        assert_eq!(self.fault(), None, "{}: {said}", self.path);
        assert_eq!(self.header("x-ms-error-code"), code, "{}: {said}", self.path);
        self.json()
    }

    /// The events of a stream that must be complete, byte for byte by the grammar of section 8.8, without `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}: {}", self.path, self.text());
        assert!(!self.broken, "{}: the connection was aborted", self.path);
        assert_eq!(self.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!(self.header("cache-control"), "no-cache, must-revalidate");
        assert_eq!(self.header("x-accel-buffering"), "no");
        for absent in ["content-length", "content-encoding"] {
            assert!(!self.headers.contains_key(absent), "{absent}");
        }
        let text = self.text();
        assert!(!text.contains('\r') && !text.starts_with('\u{feff}'), "{text}");
        let Some(body) = text.strip_suffix("data: [DONE]\n\n") else {
            panic!("{}: no [DONE]: {text}", self.path)
        };
        let events: Vec<Value> = body.split_terminator("\n\n").map(event).collect();
        assert_eq!(body.matches("\n\n").count(), events.len(), "{body}");
        assert!(!events.is_empty());
        events
    }
}

/// One event, without the blank line after it.
fn event(event: &str) -> Value {
    assert!(!event.contains('\n'), "one line each: {event}");
    let json = event.strip_prefix("data: ").unwrap_or_else(|| panic!("no data line: {event}"));
    assert!(json.starts_with('{'), "one blank after `data:`: {event}");
    serde_json::from_str(json).unwrap()
}

/// What the deltas of the first choice say, put together.
pub(crate) fn streamed(events: &[Value]) -> String {
    let texts = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
    texts.collect()
}
