//! Requests that must be refused with the contract's 4xx, whatever they hold.

use super::*;

#[tokio::test]
async fn a_key_is_required_once_there_are_keys() {
    let edge = edge(&[("EDGE__AUTH__KEYS", "[\"right\"]")]).await;
    let path = inference("/chat/completions");
    for header in [("api-key", "right"), ("authorization", "Bearer right")] {
        assert_eq!(edge.post_with(header, &path, &says("hi")).await.status, 200);
    }
    for answer in [
        edge.post(&path, &says("hi")).await,
        edge.post_with(("api-key", "wrong"), &path, &says("hi")).await,
        edge.get("/nowhere").await,
    ] {
        assert_eq!(answer.status, 401);
        assert_eq!(answer.headers["x-ms-error-code"], "401");
        assert!(!answer.headers.contains_key("retry-after"));
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("auth token validation failed"), "{message}");
    }
}

#[tokio::test]
async fn the_version_is_checked_by_family() {
    let edge = edge(&[]).await;
    for (path, status, code) in [
        ("/chat/completions", 400, "MissingApiVersionParameter"),
        ("/models/chat/completions", 400, "MissingApiVersionParameter"),
        ("/openai/deployments/talk/chat/completions", 404, "404"),
        ("/chat/completions?api-version=1999-01-01", 400, "BadRequest"),
    ] {
        let answer = edge.post(path, &says("hi")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{path}"
        );
    }
    assert_eq!(edge.post("/v1/chat/completions", &says("hi")).await.status, 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_in_the_contracts_shape() {
    let edge = edge(&[]).await;
    let nowhere = edge.get("/nowhere").await;
    assert_eq!((nowhere.status.as_u16(), &nowhere.json()["error"]["code"]), (404, &json!("404")));
    for path in [inference("/chat/completions"), "/v1/chat/completions".to_owned()] {
        let answer = edge.get(&path).await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.headers["allow"], "POST");
        assert_eq!(answer.json()["error"]["code"], "MethodNotAllowed");
    }
    assert_eq!(edge.get("/models").await.status, 404);
    assert_eq!(edge.post("/v1/responses", &says("hi")).await.status, 404);
}

#[tokio::test]
async fn bodies_that_are_not_valid_name_their_field() {
    let edge = edge(&[]).await;
    let deep = format!("{{\"messages\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let cases: Vec<(Vec<u8>, Option<&str>)> = vec![
        (b"{".to_vec(), None),
        (b"".to_vec(), None),
        (b"[]".to_vec(), None),
        (b"{}".to_vec(), Some("messages")),
        (br#"{"messages":[]}"#.to_vec(), Some("messages")),
        (br#"{"messages":[{"role":"wizard","content":"x"}]}"#.to_vec(), Some("messages.0.role")),
        (br#"{"messages":[{"role":"user","content":5}]}"#.to_vec(), Some("messages.0.content")),
        (
            br#"{"messages":[{"role":"user","content":"x"}],"temperature":9}"#.to_vec(),
            Some("temperature"),
        ),
        (
            br#"{"messages":[{"role":"user","content":"x"}],"max_tokens":-1}"#.to_vec(),
            Some("max_tokens"),
        ),
        (b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}".to_vec(), None),
        (deep.into_bytes(), None),
    ];
    for (body, target) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = edge.send(post(&inference("/chat/completions"), body)).await;
        assert_eq!(answer.status, 400, "{shown}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "BadRequest", "{shown}");
        assert_eq!(error["target"].as_str(), target, "{shown}");
    }
}

#[tokio::test]
async fn other_content_types_are_415() {
    let edge = edge(&[]).await;
    let plain = ("content-type", "text/plain");
    let answer = edge.post_with(plain, &inference("/chat/completions"), &says("hi")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (415, &json!("UnsupportedMediaType"))
    );
}

#[tokio::test]
async fn compressed_bodies_are_415_by_name() {
    let edge = edge(&[]).await;
    for (coding, status) in [("gzip", 415), ("br, gzip", 415), ("Identity", 200)] {
        let encoded = ("content-encoding", coding);
        let answer = edge.post_with(encoded, &inference("/chat/completions"), &says("hi")).await;
        assert_eq!(answer.status.as_u16(), status, "{coding}");
        if status == 415 {
            assert!(
                answer.json()["error"]["message"].as_str().unwrap().contains("Content-Encoding")
            );
        }
    }
}

#[tokio::test]
async fn bodies_over_the_limit_are_413_with_and_without_a_length() {
    let edge = edge(&[("EDGE__LIMITS__BODY_BYTES", "100")]).await;
    let path = inference("/chat/completions");
    let mut announced = post(&path, "x".repeat(101));
    announced.headers_mut().insert("content-length", "101".parse().unwrap());
    let pieces = (0..5).map(|_| Ok::<_, std::io::Error>("x".repeat(30)));
    let chunked = post(&path, Body::from_stream(futures::stream::iter(pieces)));
    for request in [announced, chunked] {
        let answer = edge.send(request).await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error"]["message"], "The request body exceeds 100 bytes.");
    }
    assert_eq!(edge.post(&path, &says("hi")).await.status, 200);
}

#[tokio::test]
async fn unknown_models_and_wrong_routes_are_404() {
    let edge = edge(&[]).await;
    let mut body = says("hi");
    body["model"] = json!("nope");
    let unknown = edge.post(&inference("/models/chat/completions"), &body).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (404, &json!("unknown_model"))
    );
    let path = "/openai/deployments/nope/chat/completions?api-version=2024-10-21";
    assert_eq!(edge.post(path, &body).await.json()["error"]["code"], "DeploymentNotFound");
    body["model"] = json!("vectors");
    let wrong = edge.post(&inference("/chat/completions"), &body).await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["error"]["code"]),
        (404, &json!("modality_not_supported"))
    );
    let none = super::edge(&[("EDGE__DEFAULTS__CHAT", "none")]).await;
    let nameless = none.post(&inference("/chat/completions"), &says("hi")).await;
    assert_eq!(
        (nameless.status.as_u16(), &nameless.json()["error"]["code"]),
        (400, &json!("no_model_name"))
    );
}

#[tokio::test]
async fn too_many_inputs_are_400() {
    let edge = edge(&[]).await;
    for count in [1025, 10_000] {
        let answer =
            edge.post(&inference("/embeddings"), &json!({"input": vec!["a"; count]})).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["target"]),
            (400, &json!("input"))
        );
    }
    assert_eq!(
        edge.post(&inference("/embeddings"), &json!({"input": vec!["a"; 1024]})).await.status,
        200
    );
}

#[tokio::test]
async fn what_the_model_cannot_do_is_422_with_its_place() {
    let edge = edge(&[]).await;
    let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}]});
    let answer = edge.post(&inference("/chat/completions"), &body).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["detail"]["loc"], json!(["body", "messages", 0, "content", 1]));
}

#[tokio::test]
async fn more_bodies_than_there_is_room_for_are_refused_and_room_comes_back() {
    let edge =
        edge(&[("EDGE__LIMITS__BODY_BYTES", "400"), ("EDGE__LIMITS__BODIES_BYTES", "1100")]).await;
    let path = "/chat/completions?api-version=2024-05-01-preview";
    let mut body = says("/hang");
    body["stream"] = json!(true);
    body["user"] = json!("u".repeat(200));
    let path_v1 = "/v1/chat/completions";
    // Held as long as its answer is not read to the end.
    let held = edge.router.clone().oneshot(post(path_v1, body.to_string())).await.unwrap();
    assert_eq!(held.status(), 200);
    let long = says(&"x".repeat(200));
    let refused = edge.post(path, &long).await;
    assert_eq!(
        (refused.status.as_u16(), refused.headers["retry-after"].to_str().unwrap()),
        (503, "1")
    );
    drop(held);
    let answer = edge.post(path, &long).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
}
