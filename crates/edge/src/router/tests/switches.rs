//! What the configuration switches: pages of other sites, whose the root is; and what `/v1/models` says of it all.

use super::*;

const PAGE: &str = "https://app.example.com";
const ORIGINS: (&str, &str) = ("EDGE__CORS__ALLOWED_ORIGINS", "[\"https://app.example.com\"]");
const KEYS: (&str, &str) = ("EDGE__AUTH__KEYS", "[\"right\"]");

fn preflight(path: &str, origin: &str) -> Request<Body> {
    let request = Request::options(path).header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    request
        .header("access-control-request-headers", "api-key, content-type, x-stainless-lang")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn without_origins_nobody_hears_of_cors() {
    let edge = edge(&[KEYS]).await;
    let asked = edge.send(preflight("/v1/chat/completions", PAGE)).await;
    assert_eq!(asked.status, 401);
    let names = asked.headers.keys().filter(|name| name.as_str().starts_with("access-control"));
    assert_eq!(names.count(), 0);
}

#[tokio::test]
async fn a_page_that_is_allowed_asks_without_a_key_and_reads_every_answer() {
    let edge = edge(&[KEYS, ORIGINS]).await;
    let asked = edge.send(preflight("/v1/chat/completions", PAGE)).await;
    assert_eq!(asked.status, 200);
    assert_eq!(asked.headers["access-control-allow-origin"], PAGE);
    assert!(asked.headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    let allowed = asked.headers["access-control-allow-headers"].to_str().unwrap();
    assert_eq!(allowed, "api-key, content-type, x-stainless-lang");
    assert!(asked.headers.contains_key("x-request-id"));

    let mut request = post("/v1/chat/completions", says("hi").to_string());
    request.headers_mut().insert("origin", PAGE.parse().unwrap());
    let refused = edge.send(request).await;
    assert_eq!(refused.status, 401, "the call itself needs a key");
    assert_eq!(refused.headers["access-control-allow-origin"], PAGE);
    let exposed = refused.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("x-ms-error-code") && exposed.contains("retry-after"), "{exposed}");
}

#[tokio::test]
async fn a_page_that_is_not_allowed_reads_nothing() {
    let edge = edge(&[ORIGINS]).await;
    let asked = edge.send(preflight("/v1/chat/completions", "https://evil.example")).await;
    assert!(!asked.headers.contains_key("access-control-allow-origin"));
    let any = super::edge(&[("EDGE__CORS__ALLOWED_ORIGINS", "[\"*\"]")]).await;
    let asked = any.send(preflight("/models/embeddings", "https://evil.example")).await;
    assert_eq!(asked.headers["access-control-allow-origin"], "*");
}

fn names(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn a_root_of_one_deployment_ignores_what_requests_name() {
    let edge = edge(&[("EDGE__API__ROOT", "other")]).await;
    let root = inference("/chat/completions");
    for model in ["talk", "nope", ""] {
        let answer = edge.post(&root, &names(model)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["model"]), (200, &json!("Other")));
    }
    let header = ("azureml-model-deployment", "talk");
    assert_eq!(edge.post_with(header, &root, &says("hi")).await.json()["model"], "Other");
    assert_eq!(edge.get(&inference("/info")).await.json()["model_name"], "Other");
    // One model is one model: it makes no vectors.
    let vectors = edge.post(&inference("/embeddings"), &json!({"input": "a"})).await;
    assert_eq!(vectors.status, 404);
    assert_eq!(vectors.json()["error"]["code"], "modality_not_supported");
    // The other prefixes choose as ever.
    let chosen = edge.post(&inference("/models/chat/completions"), &names("talk")).await;
    assert_eq!(chosen.json()["model"], "talk");
    assert_eq!(edge.post(&inference("/models/chat/completions"), &names("nope")).await.status, 404);
}

#[tokio::test]
async fn by_default_several_deployments_are_chosen_at_the_root_too() {
    let edge = edge(&[]).await;
    let root = inference("/chat/completions");
    assert_eq!(edge.post(&root, &names("OTHER")).await.json()["model"], "Other");
    let unknown = edge.post(&root, &names("nope")).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["code"]), (404, &json!("unknown_model")));
}

#[tokio::test]
async fn models_say_what_the_configuration_leaves_of_them() {
    let deployments = "[{name='cool', service='chat', model='talk', context_tokens=99, \
                       parameters={temperature={maximum=1.0}, top_p={refused=true}}}]";
    let edge = edge(&[("EDGE__DEPLOYMENTS", deployments)]).await;
    let model = edge.get("/v1/models/cool").await.json();
    assert_eq!(model["object"], "model");
    assert_eq!(model["context_window"], 99);
    assert_eq!(model["parameters"]["temperature"], json!({"minimum": 0, "maximum": 1}));
    assert_eq!(model["parameters"].get("top_p"), None);
    let body = |name: &str, value: Value| {
        let mut body = names("cool");
        body[name] = value;
        body
    };
    let hot = body("temperature", json!(1.5));
    let refused = edge.post(&inference("/models/chat/completions"), &hot).await;
    assert_eq!(refused.status, 422);
    let detail = json!({"loc": ["body", "temperature"], "input": 1.5});
    assert_eq!(refused.json()["detail"], detail);
    let refused = edge.post("/v1/chat/completions", &hot).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "unsupported_value".to_owned()));
    let refused = edge.post("/v1/chat/completions", &body("top_p", json!(0.5))).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (400, "unsupported_parameter".to_owned())
    );
    assert_eq!(edge.post("/v1/chat/completions", &body("temperature", json!(1))).await.status, 200);
}
