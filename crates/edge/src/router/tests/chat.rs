//! Conversations that are answered: shapes, streams, which deployment, what reaches the service.

use super::*;

#[tokio::test]
async fn a_conversation_is_answered_under_every_prefix() {
    let edge = edge(&[]).await;
    for prefix in ["", "/models", "/api/models"] {
        let answer = edge
            .post(&inference(&format!("{prefix}/chat/completions")), &says("hello there"))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(
            body["choices"][0]["message"],
            json!({"role": "assistant", "content": "hello there"})
        );
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(
            body["usage"],
            json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
        );
        assert_eq!(body["id"].as_str().unwrap().len(), 32);
        assert!(body["created"].is_u64());
        assert!(body.get("prompt_filter_results").is_none());
    }
}

#[tokio::test]
async fn ids_of_the_request_are_on_every_answer() {
    let edge = edge(&[]).await;
    for (path, status) in [(inference("/chat/completions"), 200), ("/nowhere".to_owned(), 404)] {
        let answer = edge.post_with(("x-ms-client-request-id", "mine"), &path, &says("hi")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["x-ms-client-request-id"], "mine");
        assert!(
            answer.headers.contains_key("apim-request-id")
                && answer.headers.contains_key("x-request-id")
        );
        assert_eq!(answer.headers.contains_key("x-ms-error-code"), status != 200);
    }
}

#[tokio::test]
async fn a_stream_has_role_content_end_with_usage_and_done() {
    let edge = edge(&[]).await;
    let answer = edge.post(&inference("/chat/completions"), &streams("two words")).await;
    assert_eq!(answer.headers["cache-control"], "no-cache, must-revalidate");
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    assert!(!answer.headers.contains_key("content-length"));
    let events = answer.events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(answer.said(), "two words");
    let last = events.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["usage"]["total_tokens"], 5);
    assert!(
        events.iter().all(|e| e["id"] == events[0]["id"] && e["created"] == events[0]["created"])
    );
}

#[tokio::test]
async fn openai_streams_usage_only_when_asked() {
    let edge = edge(&[]).await;
    let silent = edge.post("/v1/chat/completions", &streams("hi")).await;
    assert!(silent.events().iter().all(|e| e.get("usage").is_none()));
    let mut body = streams("hi");
    body["stream_options"] = json!({"include_usage": true});
    let events = edge.post("/openai/v1/chat/completions?api-version=preview", &body).await.events();
    let last = events.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(5)));
    assert!(last["id"].as_str().unwrap().starts_with("chatcmpl-"));
}

#[tokio::test]
async fn the_deployment_is_chosen_by_path_body_header_or_default() {
    let edge = edge(&[]).await;
    let mut body = says("hi");
    body["model"] = json!("OTHER");
    let by_body = edge.post(&inference("/models/chat/completions"), &body).await;
    assert_eq!(by_body.json()["model"], "Other");
    let by_path =
        edge.post("/openai/deployments/talk/chat/completions?api-version=2024-10-21", &body).await;
    assert_eq!(by_path.json()["model"], "talk");
    let header = ("azureml-model-deployment", "other");
    let by_header = edge.post_with(header, &inference("/chat/completions"), &says("hi")).await;
    assert_eq!(by_header.json()["model"], "Other");
    body["model"] = json!("");
    let by_default = edge.post(&inference("/chat/completions"), &body).await;
    assert_eq!(by_default.json()["model"], "talk");
}

#[tokio::test]
async fn a_deployment_name_in_the_path_is_decoded() {
    let edge =
        edge(&[("EDGE__DEPLOYMENTS", "[{name='dep one', service='chat', model='Other'}]")]).await;
    let path = "/openai/deployments/dep%20one/chat/completions?api-version=2024-10-21";
    assert_eq!(edge.post(path, &says("hi")).await.json()["model"], "Other");
    let wrong = "/openai/deployments/%ff/chat/completions?api-version=2024-10-21";
    assert_eq!(edge.post(wrong, &says("hi")).await.status, 404);
}

#[tokio::test]
async fn extra_parameters_do_what_the_header_says() {
    let edge = edge(&[]).await;
    let path = inference("/chat/completions");
    let mut body = says("hi");
    body["top_k"] = json!(5);
    for value in ["error", "bogus"] {
        assert_eq!(
            edge.post_with(("extra-parameters", value), &path, &body).await.status,
            400,
            "{value}"
        );
    }
    let refused = edge.post(&path, &body).await;
    assert_eq!(refused.status, 400);
    let error = refused.json();
    assert!(
        error["detail"].as_str().unwrap().starts_with("Extra parameters ['top_k'] are not allowed")
    );
    assert_eq!(error["error"]["target"], "top_k");
    for (value, sent) in
        [("drop", ""), ("pass-through", r#"{"top_k":5}"#), ("allow", r#"{"top_k":5}"#)]
    {
        assert_eq!(
            edge.post_with(("extra-parameters", value), &path, &body).await.status,
            200,
            "{value}"
        );
        assert_eq!(edge.seen.last_generated().extra_json, sent, "{value}");
    }
    body["unheard_of"] = json!(1);
    let unknown = edge.post_with(("extra-parameters", "pass-through"), &path, &body).await;
    assert_eq!(unknown.status, 422);
    assert_eq!(unknown.json()["detail"], json!({"loc": ["body", "unheard_of"], "input": 1}));
    assert_eq!(edge.post("/v1/chat/completions", &body).await.status, 200);
}

#[tokio::test]
async fn openai_parameters_are_extra_unless_passed_through_or_admitted() {
    let strict = edge(&[]).await;
    let path = inference("/chat/completions");
    let mut body = says("hi");
    body["n"] = json!(2);
    assert_eq!(strict.post(&path, &body).await.json()["error"]["target"], "n");
    assert_eq!(
        strict.post_with(("extra-parameters", "pass-through"), &path, &body).await.status,
        200
    );
    assert_eq!(strict.seen.last_generated().sampling.unwrap().n, Some(2));
    let admitted = edge(&[("EDGE__API__ALSO_KNOWN", "[\"n\"]")]).await;
    assert_eq!(admitted.post(&path, &body).await.status, 200);
    assert_eq!(admitted.seen.last_generated().sampling.unwrap().n, Some(2));
}

#[tokio::test]
async fn the_first_published_path_speaks_the_first_version() {
    let edge = edge(&[]).await;
    let mut body = says("hi");
    body["response_format"] = json!({"type": "json_object"});
    let answer = edge.post("/v1/chat/completions?api-version=2024-04-01-preview", &body).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.json(),
        json!({"status":422,"code":"parameter_not_supported",
            "detail":{"loc":["body","response_format"],"input":"json_object"},
            "message":"One of the parameters contain invalid values."})
    );
    let openai = edge.post("/v1/chat/completions", &body).await;
    assert_eq!(
        (openai.status.as_u16(), &openai.json()["error"]["code"]),
        (400, &json!("unsupported_value"))
    );
}
