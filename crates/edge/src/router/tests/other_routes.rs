//! Routes besides conversations.

use super::*;

#[tokio::test]
async fn prompts_have_one_choice_each() {
    let edge = edge(&[]).await;
    for (prompt, choices) in [(json!("one"), 1), (json!(["one", "two"]), 2), (json!([1, 2]), 1)] {
        let answer = edge.post(&inference("/completions"), &json!({"prompt": prompt})).await;
        assert_eq!(answer.json()["choices"].as_array().unwrap().len(), choices);
        assert_eq!(answer.json()["object"], "text_completion");
    }
    let streamed = edge.post("/v1/completions", &json!({"prompt": "one", "stream": true})).await;
    assert_eq!(streamed.events()[0]["choices"][0]["text"], " more");
}

#[tokio::test]
async fn vectors_come_in_the_form_asked_for() {
    let edge = edge(&[]).await;
    let floats = edge
        .post(&inference("/embeddings"), &json!({"input": ["a", "b"], "input_type": "text"}))
        .await;
    let body = floats.json();
    assert_eq!(
        body["data"][1],
        json!({"index": 1, "object": "embedding", "embedding": [0.5, -1.0]})
    );
    assert_eq!((&body["model"], &body["usage"]["total_tokens"]), (&json!("vectors"), &json!(4)));
    let path = "/openai/deployments/vectors/embeddings?api-version=2024-10-21";
    let base64 = edge.post(path, &json!({"input": "a", "encoding_format": "base64"})).await;
    assert_eq!(base64.json()["data"][0]["embedding"], "AAAAPwAAgL8=");
}

#[tokio::test]
async fn images_come_as_data_urls() {
    let edge = edge(&[]).await;
    let path = inference("/images/embeddings");
    let input = |image: &str| json!({"input": [{"image": image}]});
    assert_eq!(
        edge.post(&path, &input("data:image/png;base64,aGk=")).await.json()["model"],
        "pictures"
    );
    assert_eq!(edge.post(&path, &input("aGk=")).await.status, 400);
    assert_eq!(edge.post(&path, &input("data:image/png;base64,!")).await.status, 400);
    let with_text = json!({"input": [{"image": "data:image/png;base64,aGk=", "text": "a cat"}]});
    let refused = edge.post(&path, &with_text).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["detail"]["loc"], json!(["body", "input", 0, "text"]));
}

#[tokio::test]
async fn a_model_name_that_is_not_text_is_not_found_in_the_api_s_own_form() {
    let edge = edge(&[]).await;
    let answer = edge.get("/v1/models/%FF").await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["error"]["code"].is_string());
}

#[tokio::test]
async fn info_says_what_answers() {
    let edge = edge(&[]).await;
    let body = edge.get(&inference("/info")).await.json();
    let expected = json!({"model_name": "talk", "model_type": "chat-completions", "model_provider_name": "unknown"});
    assert_eq!(body, expected);
    let body = edge.get(&format!("{}&model=VECTORS", inference("/models/info"))).await.json();
    let expected =
        json!({"model_name": "vectors", "model_type": "embeddings", "model_provider_name": "Acme"});
    assert_eq!(body, expected);
    assert_eq!(edge.get(&format!("{}&model=nope", inference("/info"))).await.status, 404);
    assert_eq!(edge.get("/openai/deployments/talk/info?api-version=2024-10-21").await.status, 404);
}

#[tokio::test]
async fn models_are_listed_for_openai_clients() {
    let edge = edge(&[]).await;
    for path in ["/v1/models", "/openai/v1/models", "/openai/models?api-version=2024-10-21"] {
        let body = edge.get(path).await.json();
        let ids: Vec<_> =
            body["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["talk", "Other", "down", "vectors", "pictures"]);
    }
    assert_eq!(edge.get("/v1/models/other").await.json()["id"], "Other");
    let unknown = edge.get("/v1/models/nope").await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test]
async fn content_safety_answers_under_its_own_prefix() {
    let edge = edge(&[]).await;
    let path = "/contentsafety/text:analyze?api-version=2023-10-01";
    let body = edge.post(path, &json!({"text": "x", "categories": ["Hate"]})).await.json();
    let expected =
        json!({"blocklistsMatch": [], "categoriesAnalysis": [{"category": "Hate", "severity": 4}]});
    assert_eq!(body, expected);
    let bad = edge.post(path, &json!({"txt": "x"})).await;
    assert_eq!(
        (bad.status.as_u16(), &bad.json()["error"]["code"]),
        (400, &json!("InvalidRequestBody"))
    );
    let shield = edge
        .post(
            "/contentsafety/text:shieldPrompt?api-version=2024-09-01",
            &json!({"userPrompt": "x"}),
        )
        .await;
    assert_eq!(shield.status, 200);
    let image = json!({"image": {"blobUrl": "https://x/y.png"}});
    assert_eq!(
        edge.post("/contentsafety/image:analyze?api-version=2024-09-01", &image).await.status,
        400
    );
    assert_eq!(edge.post("/contentsafety/text:analyze", &json!({"text": "x"})).await.status, 400);
}
