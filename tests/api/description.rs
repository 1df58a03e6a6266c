//! The published description and the server say the same: every golden request and answer is held against it.
//!
//! What is described is what is served is for `golden` to say; here the schemas are, from outside, as a client reads them.

use crate::golden::{Request, cases};
use e2e::TestStack;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Fields that a rule over several fields blames, or a rule that no schema can say.
const BEYOND_SCHEMAS: [&str; 9] = [
    // Whether a regular expression can be used, and whether a text can be seen.
    "blocklistItems.0",
    "blocklistItems.1",
    "tool_choice",
    "top_logprobs",
    "stream_options",
    "best_of",
    "documents",
    "extra-parameters",
    "image.content",
];

/// The description as the server publishes it, and the schemas of it that were compiled.
struct Description {
    document: Value,
    compiled: HashMap<String, Validator>,
}

impl Description {
    async fn fetch(stack: &TestStack) -> Self {
        let response = stack.http().get(stack.url("/openapi.json")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        let document = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        Self { document, compiled: HashMap::new() }
    }

    /// The operation that answers a request, if one is described.
    fn operation(&self, method: &str, path_and_query: &str) -> Option<&Value> {
        let (mut path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        if path == "/v1/chat/completions" && query.contains("2024-04-01-preview") {
            path = "/chat/completions";
        }
        let paths = self.document["paths"].as_object().unwrap();
        // The longest, because `{name}:remove` says more of a path than `{name}`.
        let fitting = paths.iter().filter(|(template, _)| fits(template, path));
        let found = fitting.max_by_key(|(template, _)| template.len());
        found.and_then(|(_, item)| item.get(method.to_lowercase()))
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let target = value.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        target.map_or(value, |pointer| self.document.pointer(pointer).unwrap())
    }

    /// Why `value` does not fit `schema`, if it does not.
    fn misfit(&mut self, schema: &Value, value: &Value) -> Option<String> {
        let components = &self.document["components"];
        let validator = self.compiled.entry(schema.to_string()).or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = components.clone();
            jsonschema::validator_for(&whole).unwrap()
        });
        validator.validate(value).err().map(|error| format!("{error} at {}", error.instance_path()))
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    let one = |template: &str, part: &str| match template.split_once('}') {
        Some((_, ending)) => part.len() > ending.len() && part.ends_with(ending),
        None => template == part,
    };
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| one(t, p))
}

/// Parts of the paths that answer 404 until something else was done.
const NEEDS_MORE: [&str; 2] = ["detectProtectedMaterial", "/blocklists/"];

/// What was answered: status, content type, and the JSON of the body or of every event.
async fn take(mut response: reqwest::Response) -> (u16, String, Vec<Value>) {
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let essence = content_type.split(';').next().unwrap().to_owned();
    let mut bytes = Vec::new();
    // An aborted stream is an answer too.
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(bytes).unwrap();
    if essence == "application/json" {
        return (status, essence, vec![serde_json::from_str(&text).unwrap()]);
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events =
        events.filter(|event| *event != "[DONE]").map(|e| serde_json::from_str(e).unwrap());
    (status, essence, events.collect())
}

/// What the description says wrongly of one exchange.
async fn judge(stack: &TestStack, description: &mut Description, request: &Request) -> Vec<String> {
    let Some(operation) = description.operation(&request.method, &request.path).cloned() else {
        let status = request.send(stack).await.status().as_u16();
        let unknown = status == 404 || status == 405 || status == 401;
        return if unknown { Vec::new() } else { vec![format!("not described, but {status}")] };
    };
    let (status, content_type, bodies) = take(request.send(stack).await).await;
    let mut wrong = Vec::new();
    let response = &operation["responses"][status.to_string()];
    let media = description.resolve(response)["content"][&content_type].clone();
    if media.is_null() {
        return vec![format!("{status} as {content_type} is not described")];
    }
    let event = media.pointer("/schema/properties/data/anyOf/0/contentSchema");
    let schema = event.unwrap_or(&media["schema"]);
    for body in &bodies {
        // An error event ends a stream that broke.
        let misfit = if content_type == "text/event-stream" && body.get("error").is_some() {
            None
        } else {
            description.misfit(schema, body)
        };
        wrong.extend(misfit.map(|why| format!("the answer does not fit: {why}")));
    }
    let sent = serde_json::from_slice::<Value>(&request.bytes());
    let takes = &operation["requestBody"]["content"]["application/json"]["schema"];
    if let (Ok(sent), false) = (sent, takes.is_null()) {
        let misfit = description.misfit(takes, &sent);
        let lenient = request.headers().contains_key("extra-parameters");
        match misfit {
            Some(why) if status == 200 && !lenient => {
                wrong.push(format!("the accepted body does not fit: {why}"));
            }
            None if refused_for_its_form(status, &bodies[0]) => {
                wrong.push(format!("the refused body fits: {}", bodies[0]));
            }
            Some(_) | None => {}
        }
    }
    wrong
}

/// Whether the answer says that a field of the body is not what the API wants there.
fn refused_for_its_form(status: u16, body: &Value) -> bool {
    let error = &body["error"];
    let bad = ["BadRequest", "InvalidRequestBody", "extra_parameters_not_allowed"];
    let field = error["target"].as_str().or(error["param"].as_str());
    status == 400
        && bad.iter().any(|code| error["code"] == *code)
        && field.is_some_and(|field| !BEYOND_SCHEMAS.contains(&field))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_request_and_answer_fits_the_published_description() {
    let stack = TestStack::start().await;
    let mut description = Description::fetch(&stack).await;
    let cases = cases();
    assert!(cases.len() >= 100, "only {} cases were found", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let request = Request::load(case);
        let sentences = judge(&stack, &mut description, &request).await;
        wrong.extend(sentences.into_iter().map(|said| format!("{}: {said}", case.display())));
    }
    stack.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_description_fits_and_is_answered() {
    let stack = TestStack::start_with(&[("EDGE__DEFAULTS__EMBEDDINGS", "vectors")]).await;
    let mut description = Description::fetch(&stack).await;
    let paths = description.document["paths"].as_object().unwrap().clone();
    let mut tried = 0;
    for (path, item) in &paths {
        let Some(body) = item.pointer("/post/requestBody/content/application~1json") else {
            continue;
        };
        assert_eq!(description.misfit(&body["schema"], &body["example"]), None, "{path}");
        let version = item["post"]["parameters"].as_array().unwrap().iter().find_map(|parameter| {
            (parameter["name"] == "api-version").then(|| parameter["example"].as_str().unwrap())
        });
        let deployment = if path.ends_with("embeddings") { "vectors" } else { "talk" };
        let path = path.replace("{deployment}", deployment).replace("{name}", "no-list");
        let url = stack.url(&format!("{path}?api-version={}", version.unwrap()));
        let request = stack.http().post(url).header("api-key", e2e::KEY);
        let request = request.header("content-type", "application/json");
        let response = request.body(body["example"].to_string()).send().await.unwrap();
        // No text is protected here, and then nothing can be said of one; lists are made by `PATCH`.
        let expected = if NEEDS_MORE.iter().any(|part| path.contains(part)) { 404 } else { 200 };
        let status = response.status().as_u16();
        assert_eq!(status, expected, "{path}: {}", response.text().await.unwrap());
        tried += 1;
    }
    stack.stop().await;
    assert!(tried >= 20, "only {tried} examples were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_needs_no_key_and_the_page_loads_nothing() {
    let stack = TestStack::start().await;
    let response = stack.http().get(stack.url("/docs")).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'"), "{policy}");
    let page = response.text().await.unwrap();
    for loads in ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import", "href=\"http"] {
        assert!(!page.contains(loads), "{loads}");
    }
    let description = Description::fetch(&stack).await;
    for path in description.document["paths"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
    }
    for schema in description.document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<article id=\"{schema}\">")), "{schema}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_can_be_switched_off() {
    let stack = TestStack::start_with(&[("EDGE__API__DOCS", "false")]).await;
    for path in ["/openapi.json", "/docs"] {
        let request = stack.http().get(stack.url(path)).header("api-key", e2e::KEY);
        assert_eq!(request.send().await.unwrap().status().as_u16(), 404, "{path}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_says_what_the_operator_chose() {
    let stack = TestStack::start_with(&[
        ("EDGE__API__VERSIONS", "strict"),
        ("EDGE__API__ALSO_KNOWN", "[\"n\", \"top_k\"]"),
        ("EDGE__LIMITS__EMBEDDING_INPUTS", "7"),
    ])
    .await;
    let description = Description::fetch(&stack).await;
    let schemas = &description.document["components"]["schemas"];
    let chat: &Map<String, Value> =
        schemas["ChatCompletionsRequest"]["properties"].as_object().unwrap();
    assert!(chat.contains_key("n") && chat.contains_key("top_k") && !chat.contains_key("user"));
    let inputs = schemas["EmbeddingsRequest"].pointer("/properties/input/anyOf/1/maxItems");
    assert_eq!(inputs, Some(&json!(7)));
    let versions = description.document.pointer("/paths/~1info/get/parameters").unwrap();
    assert!(versions.to_string().contains("\"enum\":[\"2024-04-01-preview\""), "{versions}");
    stack.stop().await;
}
