//! What no caller can do: whatever arrives on any route, the answer is one that the contract knows, in time, and never a 5xx.
//!
//! The cases are drawn from a fixed seed, so a failure repeats and is shrunk by proptest; `PROPTEST_CASES` and
//! `PROPTEST_RNG_SEED` look further.

use crate::ask::{API_KEY, AZURE, Answer, Ask, B, S, SAFETY};
use e2e::TestStack;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Cases of each property: together they take about ten seconds on two cores.
const CASES: u32 = 6000;
/// The number of cases that proptest takes when nobody says another.
const UNSAID: u32 = 256;
const SEED: u64 = 0x6b6f_696e_6521;
/// How soon an answer must be there.
const WITHIN: Duration = Duration::from_secs(1);
/// A machine may stall; a request that is slow in itself is slow every time.
const ATTEMPTS: usize = 3;
/// What the contract says of requests that differ in their bodies only, and of routes that are not there.
const STATUSES: [u16; 8] = [200, 400, 403, 404, 405, 413, 415, 422];
/// Deeper than the parser goes.
const DEEPEST: usize = 200;

/// Every route that takes a body, and some that do not.
const ROUTES: [(&str, &str); 20] = [
    ("POST", "/chat/completions?api-version=2024-05-01-preview"),
    ("POST", "/chat/completions?api-version=2024-04-01-preview"),
    ("POST", "/models/chat/completions?api-version=2025-04-01"),
    ("POST", "/api/models/completions?api-version=2024-05-01-preview"),
    ("POST", "/models/embeddings?api-version=2024-05-01-preview"),
    ("POST", "/models/images/embeddings?api-version=2024-05-01-preview"),
    ("POST", "/openai/deployments/talk/chat/completions?api-version=2024-10-21"),
    ("POST", "/openai/deployments/tools/chat/completions?api-version=2024-10-21"),
    ("POST", "/openai/deployments/talk/completions?api-version=2024-10-21"),
    ("POST", "/openai/deployments/vectors/embeddings?api-version=2024-10-21"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/openai/v1/embeddings"),
    ("POST", "/contentsafety/text:analyze?api-version=2024-09-01"),
    ("POST", "/contentsafety/image:analyze?api-version=2024-09-01"),
    ("POST", "/contentsafety/text:shieldPrompt?api-version=2024-09-01"),
    ("GET", "/info?api-version=2024-05-01-preview"),
    ("GET", "/v1/models"),
    ("PATCH", "/models/chat/completions?api-version=2024-05-01-preview"),
    ("POST", "/no/such/route"),
];

/// Words that lead into the parsers' branches.
const WORDS: [&str; 24] = [
    "",
    "talk",
    "tools",
    "vectors",
    "pictures",
    "user",
    "system",
    "assistant",
    "tool",
    "developer",
    "text",
    "image_url",
    "json_object",
    "json_schema",
    "function",
    "auto",
    "required",
    "none",
    "base64",
    "ubinary",
    "query",
    "data:image/png;base64,aGk=",
    "Hate",
    "FourSeverityLevels",
];
const KEYS: [&str; 40] = [
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "detail",
    "tools",
    "function",
    "name",
    "parameters",
    "tool_choice",
    "tool_calls",
    "tool_call_id",
    "arguments",
    "id",
    "model",
    "response_format",
    "json_schema",
    "schema",
    "strict",
    "stop",
    "stream",
    "temperature",
    "n",
    "max_tokens",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "stream_options",
    "prompt",
    "input",
    "image",
    "dimensions",
    "encoding_format",
    "input_type",
    "categories",
    "documents",
    "modalities",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(&WORDS[..]).prop_map(str::to_owned),
        1 => vec(any::<char>(), 0..12).prop_map(String::from_iter),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => select(&KEYS[..]).prop_map(str::to_owned),
        1 => vec(any::<char>(), 0..6).prop_map(String::from_iter),
    ]
}

/// Any JSON value, with a leaning to the words of the API.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..200).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let object = vec((key(), inner.clone()), 0..6).prop_map(Map::from_iter);
        prop_oneof![
            1 => vec(inner, 0..5).prop_map(Value::from),
            3 => object.prop_map(Value::from),
        ]
    })
}

/// A change of one place of a request.
#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    /// Into so many arrays or objects.
    Wrap(usize, bool),
    /// One more property, where the place is an object.
    Add(String, Value),
    /// So many times over: strings get longer, arrays get more elements.
    Repeat(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => anything().prop_map(Change::Replace),
        2 => Just(Change::Remove),
        1 => (1..DEEPEST, any::<bool>()).prop_map(|(depth, object)| Change::Wrap(depth, object)),
        2 => (key(), anything()).prop_map(|(key, value)| Change::Add(key, value)),
        1 => (2_usize..300).prop_map(Change::Repeat),
    ]
}

impl Change {
    fn apply(self, body: &mut Value, at: &Index) {
        let mut places = vec![String::new()];
        list(body, "", &mut places);
        let place = at.get(&places).clone();
        if let Self::Remove = self {
            return remove(body, &place);
        }
        let Some(found) = body.pointer_mut(&place) else { return };
        match self {
            Self::Replace(value) => *found = value,
            Self::Wrap(depth, object) => {
                for _ in 0..depth {
                    let inner = found.take();
                    *found = if object { json!({"type": inner}) } else { json!([inner]) };
                }
            }
            Self::Add(key, value) => {
                if let Value::Object(map) = found {
                    map.insert(key, value);
                }
            }
            Self::Repeat(times) => match found {
                Value::String(text) => *text = text.repeat(times),
                Value::Array(list) => {
                    *list = list.iter().cycle().take(list.len() * times).cloned().collect();
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
            },
            Self::Remove => {}
        }
    }
}

/// The places of all values below `value`, as JSON pointers.
fn list(value: &Value, at: &str, places: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (step, value) in inner {
        let place = format!("{at}/{step}");
        list(value, &place, places);
        places.push(place);
    }
}

fn remove(body: &mut Value, place: &str) {
    let Some((parent, step)) = place.rsplit_once('/') else { return };
    match body.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&step.replace("~1", "/").replace("~0", "~"));
        }
        Some(Value::Array(items)) => {
            if let Ok(index) = step.parse::<usize>() {
                items.remove(index);
            }
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {}
    }
}

/// A golden request that is a conversation with a server that works.
#[derive(Debug, Clone)]
struct Golden {
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

fn goldens() -> Vec<Golden> {
    let mut found = Vec::new();
    for endpoint in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")).unwrap() {
        for case in fs::read_dir(endpoint.unwrap().path()).unwrap() {
            let case = case.unwrap().path();
            let request = fs::read_to_string(case.join("request.json")).unwrap();
            let mut request: Value = serde_json::from_str(&request).unwrap();
            let read = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
            // Some cases are about a model that fails, before its answer or in the midst of it, or about a limit.
            let answer = read("response.json");
            let fails = answer.contains("\"status\": 5")
                || answer.contains("\"status\": 429")
                || read("response.sse").contains("<connection aborted>");
            let Some(path) = request["path"].as_str().filter(|_| !fails) else { continue };
            let path = path.to_owned();
            let body = request["body"].take();
            if body.is_null() || request["auth"] == false {
                continue;
            }
            let headers = request["headers"].as_object().cloned().unwrap_or_default();
            let text =
                |(name, value): (String, Value)| (name, value.as_str().unwrap_or("").to_owned());
            found.push(Golden { path, headers: headers.into_iter().map(text).collect(), body });
        }
    }
    assert!(found.len() > 60, "only {} golden requests were found", found.len());
    found.sort_by(|a, b| (&a.path, a.body.to_string()).cmp(&(&b.path, b.body.to_string())));
    found
}

/// What is wrong with an answer; nothing where it is one of those that the contract knows.
fn wrong(answer: &Answer) -> Option<String> {
    if !STATUSES.contains(&answer.status) {
        return Some(format!("status {}", answer.status));
    }
    if answer.status != 200 {
        return answer.fault();
    }
    let text = String::from_utf8_lossy(&answer.bytes);
    match answer.header("content-type") {
        "application/json" => {
            serde_json::from_slice::<Value>(&answer.bytes).err().map(|e| e.to_string())
        }
        "text/event-stream; charset=utf-8" if answer.broken => (!text
            .contains("data: {\"error\":"))
        .then(|| "a broken stream without a word".to_owned()),
        "text/event-stream; charset=utf-8" => {
            (!text.ends_with("data: [DONE]\n\n")).then(|| "a stream without its end".to_owned())
        }
        other => Some(format!("content type {other}")),
    }
}

/// Sends what `ask` makes and judges the answer.
async fn judge<'a>(ask: impl Fn() -> Ask<'a>) -> Result<(), TestCaseError> {
    let mut slowest = Duration::ZERO;
    for _ in 0..ATTEMPTS {
        let began = Instant::now();
        let answer = ask().send().await;
        let took = began.elapsed();
        if let Some(wrong) = wrong(&answer) {
            let said = String::from_utf8_lossy(&answer.bytes);
            return Err(TestCaseError::fail(format!("{}: {wrong}: {said}", answer.path)));
        }
        if took <= WITHIN {
            return Ok(());
        }
        slowest = slowest.max(took);
    }
    Err(TestCaseError::fail(format!("answers took {slowest:?}")))
}

/// Runs `test` over cases of `strategy`, on a stack of its own.
fn hold<S: Strategy>(
    strategy: &S,
    test: &impl AsyncFn(&TestStack, S::Value) -> Result<(), TestCaseError>,
) {
    let said = Config::default();
    let cases = if said.cases == UNSAID { CASES } else { said.cases };
    let rng_seed =
        if said.rng_seed == RngSeed::Random { RngSeed::Fixed(SEED) } else { said.rng_seed };
    let mut runner = TestRunner::new(Config { cases, rng_seed, failure_persistence: None, ..said });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stack = runtime.block_on(TestStack::start());
    let outcome = runner.run(strategy, |case| runtime.block_on(test(&stack, case)));
    runtime.block_on(stack.stop());
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn any_json_on_any_route_gets_an_answer_of_the_contract() {
    let header = select(&["", "error", "drop", "pass-through", "bogus"][..]);
    let case = (select(&ROUTES[..]), header, anything());
    hold(&case, &async |stack, ((method, path), header, body)| {
        judge(|| {
            let ask = Ask::new(stack, method, path).header(API_KEY).json(&body);
            if header.is_empty() { ask } else { ask.header(("extra-parameters", header)) }
        })
        .await
    });
}

#[test]
fn a_golden_request_with_anything_wrong_gets_an_answer_of_the_contract() {
    let goldens = goldens();
    let changes = vec((any::<Index>(), change()), 1..4);
    let case = (select(goldens), changes, any::<bool>(), select(&ROUTES[..]));
    hold(&case, &async |stack, (golden, changes, elsewhere, (method, route))| {
        let mut body = golden.body;
        for (at, change) in changes {
            change.apply(&mut body, &at);
        }
        let (method, path) =
            if elsewhere { (method, route) } else { ("POST", golden.path.as_str()) };
        judge(|| {
            let ask = Ask::new(stack, method, path).header(API_KEY).json(&body);
            let headers = golden.headers.iter().filter(|(name, _)| name != "content-type");
            headers.fold(ask, |ask, (name, value)| ask.header((name, value)))
        })
        .await
    });
}

/// Bodies that are not JSON values, or that JSON readers disagree about.
fn odd_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str| {
        format!("{}1{}", open.repeat(10_000), close.repeat(10_000)).into_bytes()
    };
    let content = |text: &str| {
        format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{text}}}]}}").into_bytes()
    };
    let digits = "9".repeat(5_000);
    let mut latin = content("\"x\"");
    latin.insert(40, 0xe9);
    vec![
        ("empty", Vec::new()),
        ("blank", b" \r\n\t ".to_vec()),
        ("a zero byte", vec![0]),
        ("a byte order mark", [b"\xef\xbb\xbf".to_vec(), content("\"x\"")].concat()),
        ("utf-16", "{\"messages\":[]}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("latin-1", latin),
        ("bytes that are no utf-8", b"{\"messages\": \"\xff\xfe\xc0\"}".to_vec()),
        ("a lone high surrogate", content(r#""\ud800""#)),
        ("a lone low surrogate", content(r#""\udc00 and more""#)),
        ("surrogates the wrong way round", content(r#""\udc00\ud800""#)),
        ("10,000 arrays", deep("[", "]")),
        ("10,000 objects", deep("{\"a\":", "}")),
        ("10,000 arrays in a message", content(&String::from_utf8(deep("[", "]")).unwrap())),
        ("60,000 brackets that never close", vec![b'['; 60_000]),
        ("a huge integer", content(&digits)),
        ("a huge temperature", format!("{{\"temperature\":{digits}}}").into_bytes()),
        ("a huge exponent", format!("{{\"temperature\":1e{digits}}}").into_bytes()),
        (
            "a tiny exponent",
            br#"{"messages":[{"role":"user","content":"x"}],"temperature":1e-999}"#.to_vec(),
        ),
        (
            "minus zero",
            br#"{"messages":[{"role":"user","content":"x"}],"temperature":-0.0}"#.to_vec(),
        ),
        ("not a number", br#"{"temperature":NaN}"#.to_vec()),
        (
            "the same key twice",
            br#"{"messages":[],"messages":[{"role":"user","content":"x"}]}"#.to_vec(),
        ),
        (
            "a key called __proto__",
            br#"{"__proto__":{"x":1},"messages":[{"role":"user","content":"x"}]}"#.to_vec(),
        ),
        ("control characters", content("\"a\u{1}b\"")),
        ("a string that never ends", b"{\"messages\": \"".to_vec()),
        ("two values", [content("\"x\""), content("\"y\"")].concat()),
        ("a comment", b"{/* hi */}".to_vec()),
        ("single quotes", b"{'messages':[]}".to_vec()),
        ("a trailing comma", br#"{"messages":[{"role":"user","content":"x"}],}"#.to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_json_get_an_answer_of_the_contract() {
    let stack = TestStack::start().await;
    for (method, path) in ROUTES {
        for (what, bytes) in odd_bodies() {
            let judged = judge(|| {
                let ask = Ask::new(&stack, method, path).header(API_KEY);
                ask.header(("content-type", "application/json")).body(bytes.clone())
            });
            judged.await.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        }
    }
    for version in [B, S, AZURE, SAFETY] {
        assert!(ROUTES.iter().any(|(_, path)| path.ends_with(version)), "{version}");
    }
    stack.stop().await;
}
