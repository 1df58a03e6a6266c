//! The public contract as files: `tests/golden/<endpoint>/<case>/request.json` and the exact answer beside it.
//!
//! A changed answer is a changed API and shows as a diff. `UPDATE_GOLDEN=1 make test` writes what the server says now;
//! read that diff as a review. What cannot be the same twice (`id`, `created`) is replaced in one place, `normalise`.

use base64::Engine as _;
use e2e::{KEY, TestStack};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Headers that are part of the contract where they appear.
const HEADERS: [&str; 9] = [
    "content-type",
    "x-ms-error-code",
    "allow",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "policy-id",
];

/// One request, as its file describes it; exactly one of the bodies, or none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    headers: Map<String, Value>,
    /// Sent first, in their order, to make what the request is about; each must succeed.
    #[serde(default)]
    before: Vec<Request>,
    /// Sent afterwards, so that no case sees what another left behind.
    #[serde(default)]
    after: Vec<Request>,
    /// Whether the right key is sent; absent means yes.
    #[serde(default = "yes")]
    auth: bool,
    /// JSON.
    body: Option<Value>,
    /// Any text.
    raw: Option<String>,
    /// Any bytes.
    bytes_base64: Option<String>,
    /// A chat message of this many bytes.
    fill: Option<usize>,
    /// Arrays nested this deep.
    deep: Option<usize>,
    /// This many inputs.
    many: Option<usize>,
    /// Sent so many times; the last answer is kept.
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl Request {
    /// The request of a case.
    pub(crate) fn load(case: &Path) -> Self {
        let text = fs::read_to_string(case.join("request.json")).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", case.display()))
    }

    /// The headers it sends beside the usual ones.
    pub(crate) fn headers(&self) -> &Map<String, Value> {
        &self.headers
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        if let Some(n) = self.fill {
            return json!({"messages": [{"role": "user", "content": "x".repeat(n)}]})
                .to_string()
                .into_bytes();
        }
        if let Some(n) = self.deep {
            return format!("{{\"messages\":{}1{}}}", "[".repeat(n), "]".repeat(n)).into_bytes();
        }
        if let Some(n) = self.many {
            return json!({"input": vec!["x"; n]}).to_string().into_bytes();
        }
        if let Some(text) = &self.bytes_base64 {
            return base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        }
        let json = self.body.as_ref().map(Value::to_string);
        json.or_else(|| self.raw.clone()).unwrap_or_default().into_bytes()
    }

    pub(crate) async fn send(&self, stack: &TestStack) -> reqwest::Response {
        let method = self.method.parse().unwrap();
        let mut request = stack.http().request(method, stack.url(&self.path)).body(self.bytes());
        if !self.headers.contains_key("content-type") && self.method != "GET" {
            request = request.header("content-type", "application/json");
        }
        if self.auth {
            request = request.header("api-key", KEY);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value.as_str().unwrap());
        }
        request.send().await.unwrap()
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

pub(crate) fn cases() -> Vec<PathBuf> {
    let mut cases = Vec::new();
    for endpoint in fs::read_dir(golden()).unwrap() {
        for case in fs::read_dir(endpoint.unwrap().path()).unwrap() {
            cases.push(case.unwrap().path());
        }
    }
    cases.sort();
    cases
}

/// Replaces ids and times; everything else must be the same on every run.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), &value) {
                    ("id", Value::String(id)) if id.len() >= 24 => *value = json!("<id>"),
                    // An absolute URL of this server, which listens on another port every time.
                    ("nextLink", Value::String(url)) => {
                        let path = url.find("/contentsafety").unwrap();
                        *value = json!(format!("<origin>{}", &url[path..]));
                    }
                    ("created", Value::Number(n))
                        if n.as_u64().is_some_and(|n| n > 1_600_000_000) =>
                    {
                        *value = json!("<seconds>");
                    }
                    _ => normalise(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(normalise),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The lines of a stream with each event normalised; a broken end is written out.
fn normalise_events(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("data: ").map(serde_json::from_str::<Value>) {
        Some(Ok(mut event)) => {
            normalise(&mut event);
            format!("data: {event}")
        }
        Some(Err(_)) | None => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// The answer as it is kept in its file: status, contract headers, body.
async fn answer(mut response: reqwest::Response) -> (&'static str, String) {
    let status = response.status().as_u16();
    let mut headers = Map::new();
    for name in HEADERS {
        if let Some(value) = response.headers().get(name) {
            headers.insert(name.to_owned(), json!(value.to_str().unwrap()));
        }
    }
    assert!(response.headers().contains_key("x-request-id"), "x-request-id is missing");
    assert!(response.headers().contains_key("apim-request-id"), "apim-request-id is missing");
    let stream = headers
        .get("content-type")
        .is_some_and(|kind| kind.as_str().unwrap().starts_with("text/event-stream"));
    let mut bytes = Vec::new();
    let mut end = "";
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => {
                end = "<connection aborted>\n";
                break;
            }
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    if stream {
        return ("response.sse", format!("{}{end}", normalise_events(&text)));
    }
    let mut whole = json!({"status": status, "headers": headers});
    // 204 has none, and must not.
    if status != 204 {
        let mut body: Value = serde_json::from_str(&text).unwrap();
        normalise(&mut body);
        whole["body"] = body;
    }
    ("response.json", format!("{}\n", serde_json::to_string_pretty(&whole).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_request_gets_exactly_its_golden_answer() {
    let stack = TestStack::start().await;
    let update = chassis::config::Sources::from_process(None)
        .env
        .iter()
        .any(|(name, _)| name == "UPDATE_GOLDEN");
    let cases = cases();
    assert!(cases.len() >= 100, "only {} cases were found", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let request = Request::load(case);
        for first in &request.before {
            assert!(first.send(&stack).await.status().is_success(), "before {}", case.display());
        }
        for _ in 1..request.times {
            // Read to its end, so that it is over before the next.
            answer(request.send(&stack).await).await;
        }
        let (file, got) = answer(request.send(&stack).await).await;
        for last in &request.after {
            assert!(last.send(&stack).await.status().is_success(), "after {}", case.display());
        }
        let file = case.join(file);
        if update {
            fs::write(&file, &got).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if got != expected {
            let name = case.strip_prefix(golden()).unwrap().display();
            wrong.push(format!("--- {name}\nexpected: {expected}\ngot: {got}"));
        }
    }
    stack.stop().await;
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
