//! Who answers: names in bodies, headers and paths, in any letter case, and the routes a model does not serve.

use crate::ask::{
    API_KEY, AZURE, Ask, B, PREFIXES, VERSIONS, everywhere, get, is_openai, post, post_with, says,
    with,
};
use e2e::TestStack;
use serde_json::{Value, json};

/// A request that names nobody.
fn anybody() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn v24_an_unknown_model_is_404() {
    let stack = TestStack::start().await;
    for prefix in PREFIXES {
        for (route, body) in [
            ("chat/completions", says("gpt-nope", "hi")),
            ("completions", json!({"model": "gpt-nope", "prompt": "a"})),
            ("embeddings", json!({"model": "gpt-nope", "input": "a"})),
            (
                "images/embeddings",
                json!({"model": "gpt-nope", "input": [{"image": "data:image/png;base64,aGk="}]}),
            ),
        ] {
            let answer = post(&stack, &format!("{prefix}/{route}?{B}"), &body).await;
            let said = answer.refused(404, "unknown_model");
            assert_eq!(said["error"]["message"], "Unknown model: gpt-nope");
            assert_eq!(said["message"], "Unknown model: gpt-nope");
            assert_eq!(said["status"], 404);
        }
        let header = ("azureml-model-deployment", "gpt-nope");
        let path = format!("{prefix}/chat/completions?{B}");
        post_with(&stack, header, &path, &anybody()).await.refused(404, "unknown_model");
        let info = get(&stack, &format!("{prefix}/info?{B}&model=gpt-nope")).await;
        info.refused(404, "unknown_model");
    }
    for route in ["chat/completions", "completions", "embeddings"] {
        let path = format!("/openai/deployments/gpt-nope/{route}?{AZURE}");
        let body =
            json!({"messages": [{"role": "user", "content": "hi"}], "prompt": "a", "input": "a"});
        let said = post(&stack, &path, &body).await.refused(404, "DeploymentNotFound");
        assert_eq!(said["error"]["type"], "invalid_request_error");
    }
    for path in ["/v1/models/gpt-nope", "/openai/v1/models/gpt-nope"] {
        let said = get(&stack, path).await.refused(404, "model_not_found");
        assert_eq!(said["error"]["param"], "model");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v25_names_are_compared_without_regard_to_case() {
    let stack = TestStack::start().await;
    for path in everywhere("/chat/completions", "tOOLs") {
        let answer = post(&stack, &path, &says("TOOLS", "hi")).await;
        assert_eq!(answer.ok()["model"], "tools", "{path}");
    }
    let path = format!("/models/chat/completions?{B}");
    let header = ("azureml-model-deployment", "Tools");
    assert_eq!(post_with(&stack, header, &path, &anybody()).await.ok()["model"], "tools");
    let info = get(&stack, &format!("/models/info?{B}&model=TOOLS")).await;
    assert_eq!(info.ok()["model_name"], "tools");
    assert_eq!(get(&stack, "/v1/models/TOOLS").await.ok()["id"], "tools");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v26_no_model_and_no_default_is_400() {
    let none = ["CHAT", "COMPLETIONS", "EMBEDDINGS", "IMAGE_EMBEDDINGS"]
        .map(|kind| (format!("EDGE__DEFAULTS__{kind}"), "none".to_owned()));
    let none: Vec<_> = none.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let stack = TestStack::start_with(&none).await;
    let image = json!([{"image": "data:image/png;base64,aGk="}]);
    for prefix in PREFIXES {
        for (route, body) in [
            ("chat/completions", anybody()),
            ("chat/completions", with(anybody(), "model", json!(null))),
            ("chat/completions", with(anybody(), "model", json!(""))),
            ("completions", json!({"prompt": "a"})),
            ("embeddings", json!({"input": "a"})),
            ("images/embeddings", json!({"input": image})),
        ] {
            let answer = post(&stack, &format!("{prefix}/{route}?{B}"), &body).await;
            let said = answer.refused(400, "no_model_name");
            let message = said["error"]["message"].as_str().unwrap();
            assert!(message.contains("x-ms-model-mesh-model-name"), "{message}");
        }
        get(&stack, &format!("{prefix}/info?{B}")).await.refused(400, "no_model_name");
        let path = format!("{prefix}/chat/completions?{B}");
        post(&stack, &path, &says("talk", "hi")).await.ok();
    }
    stack.stop().await;
    // With a default it answers.
    let stack = TestStack::start_with(&[("EDGE__DEFAULTS__CHAT", "tools")]).await;
    let answer = post(&stack, &format!("/models/chat/completions?{B}"), &anybody()).await;
    assert_eq!(answer.ok()["model"], "tools");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v27_a_header_selects_and_the_body_wins_over_it() {
    let stack = TestStack::start().await;
    for path in
        everywhere("/chat/completions", "talk").iter().filter(|p| !p.contains("deployments"))
    {
        for name in ["azureml-model-deployment", "x-ms-model-mesh-model-name"] {
            let by_header = post_with(&stack, (name, "tools"), path, &anybody()).await;
            assert_eq!(by_header.ok()["model"], "tools", "{name} {path}");
            let by_body = post_with(&stack, (name, "tools"), path, &says("thinker", "hi")).await;
            assert_eq!(by_body.ok()["model"], "thinker", "{name} {path}");
            let unused = post_with(&stack, (name, "nope"), path, &says("thinker", "hi")).await;
            assert_eq!(unused.ok()["model"], "thinker", "{name} {path}");
        }
        let both = Ask::new(&stack, "POST", path).header(API_KEY).json(&anybody());
        let both = both.header(("azureml-model-deployment", "tools"));
        let both = both.header(("x-ms-model-mesh-model-name", "thinker")).send().await;
        assert_eq!(both.ok()["model"], "tools", "the deployment is stronger than the mesh");
    }
    let info = Ask::new(&stack, "GET", &format!("/models/info?{B}")).header(API_KEY);
    let info = info.header(("azureml-model-deployment", "pictures")).send().await;
    assert_eq!(info.ok()["model_name"], "pictures");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v28_the_path_wins_over_everything_else() {
    let stack = TestStack::start().await;
    for version in [AZURE, B, "api-version=2024-06-01"] {
        let path = format!("/openai/deployments/tools/chat/completions?{version}");
        for model in ["talk", "nope", "", "tools"] {
            let header = ("azureml-model-deployment", "thinker");
            let answer = post_with(&stack, header, &path, &says(model, "hi")).await;
            assert_eq!(answer.ok()["model"], "tools", "{model}");
        }
        assert_eq!(post(&stack, &path, &anybody()).await.ok()["model"], "tools");
    }
    stack.stop().await;
    // A name with a blank arrives encoded.
    let blank = "[{name='dep one', service='chat', model='tools'}]";
    let stack = TestStack::start_with(&[("EDGE__DEPLOYMENTS", blank)]).await;
    let path = format!("/openai/deployments/dep%20one/chat/completions?{AZURE}");
    assert_eq!(post(&stack, &path, &anybody()).await.ok()["model"], "tools");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v31_a_route_that_the_model_does_not_serve_is_404() {
    let stack = TestStack::start().await;
    let image = json!([{"image": "data:image/png;base64,aGk="}]);
    for (route, body) in [
        ("/embeddings", json!({"model": "talk", "input": "a"})),
        ("/embeddings", json!({"model": "pictures", "input": "a"})),
        ("/chat/completions", says("vectors", "hi")),
        ("/chat/completions", says("base", "hi")),
        ("/completions", json!({"model": "tools", "prompt": "a"})),
    ] {
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        for path in everywhere(route, &model) {
            let said = post(&stack, &path, &body).await.refused(404, "modality_not_supported");
            let message = format!("The model '{model}' does not support the {route} route.");
            assert_eq!(said["error"]["message"], message);
            if !is_openai(&path) {
                assert_eq!((&said["status"], &said["message"]), (&json!(404), &json!(message)));
            }
        }
    }
    for prefix in PREFIXES {
        let body = json!({"model": "vectors", "input": image});
        let answer = post(&stack, &format!("{prefix}/images/embeddings?{B}"), &body).await;
        answer.refused(404, "modality_not_supported");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v34_info_has_three_fields() {
    let stack = TestStack::start().await;
    let talk = json!({"model_name": "talk", "model_type": "chat-completions", "model_provider_name": "Koine"});
    for prefix in PREFIXES {
        for version in VERSIONS {
            let info = get(&stack, &format!("{prefix}/info?{version}&model=talk")).await;
            assert_eq!(info.ok(), talk, "{version}");
            let info = get(&stack, &format!("{prefix}/info?{version}")).await;
            assert_eq!(info.ok(), talk, "the default of chat");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v45_info_leads_load_client_to_the_right_class_for_every_deployment() {
    let stack = TestStack::start().await;
    let types = [
        ("talk", "chat-completions"),
        ("tools", "chat-completions"),
        ("base", "text-generation"),
        ("vectors", "embeddings"),
        ("pictures", "image-embeddings"),
    ];
    for prefix in PREFIXES {
        for (name, model_type) in types {
            let info = get(&stack, &format!("{prefix}/info?{B}&model={name}")).await.ok();
            assert_eq!(info["model_type"], model_type, "{name}");
            assert_eq!(info["model_name"], name);
            // Clients lower-case it without looking.
            assert!(info["model_provider_name"].as_str().is_some_and(|p| !p.is_empty()));
            let ask = Ask::new(&stack, "GET", &format!("{prefix}/info?{B}")).header(API_KEY);
            let info = ask.header(("azureml-model-deployment", name)).send().await.ok();
            assert_eq!(info["model_type"], model_type, "{name} by header");
        }
    }
    // An endpoint of one model: what is named at its root does not matter, and it says what it is.
    stack.stop().await;
    for (name, model_type) in types {
        let stack = TestStack::start_with(&[("EDGE__API__ROOT", name)]).await;
        let info = get(&stack, &format!("/info?{B}")).await.ok();
        assert_eq!((&info["model_name"], &info["model_type"]), (&json!(name), &json!(model_type)));
        stack.stop().await;
    }
}
