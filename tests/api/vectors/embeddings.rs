//! Vectors of texts and of images.

use crate::ask::{B, PREFIXES, everywhere, get, is_openai, post, with};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::TestStack;
use serde_json::{Value, json};

/// Length of the vectors of `seekers`.
const LENGTH: usize = 24;

/// The vectors of an answer, which must number them.
fn vectors(answer: &crate::ask::Answer) -> Vec<Value> {
    let body = answer.ok();
    assert_eq!(body["object"], "list");
    assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()));
    assert!(body["usage"]["prompt_tokens"].is_u64() && body["usage"]["total_tokens"].is_u64());
    let data = body["data"].as_array().unwrap();
    for (i, item) in data.iter().enumerate() {
        assert_eq!((&item["index"], &item["object"]), (&json!(i), &json!("embedding")));
    }
    data.iter().map(|item| item["embedding"].clone()).collect()
}

fn floats(vector: &Value) -> Vec<f32> {
    serde_json::from_value(vector.clone()).unwrap()
}

fn integers(vector: &Value) -> Vec<i16> {
    serde_json::from_value(vector.clone()).unwrap()
}

/// A bit for each component, as section 10 packs them.
fn packed(vector: &[f32]) -> Vec<i16> {
    let byte = |eight: &[f32]| {
        let bit = |(i, v): (usize, &f32)| if *v > 0.0 { 128_i16 >> i } else { 0 };
        eight.iter().enumerate().map(bit).sum()
    };
    vector.chunks(8).map(byte).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn v29_vectors_come_in_every_encoding_and_mean_the_same() {
    let stack = TestStack::start().await;
    for path in everywhere("/embeddings", "seekers") {
        let asked = |input: Value, format: &str| json!({"model": "seekers", "input": input, "encoding_format": format});
        let one = vectors(&post(&stack, &path, &asked(json!("hello"), "float")).await);
        let two = vectors(&post(&stack, &path, &asked(json!(["hello", "world"]), "float")).await);
        assert_eq!((one.len(), two.len()), (1, 2));
        assert_eq!(one[0], two[0]);
        let exact = floats(&one[0]);
        assert_eq!(exact.len(), LENGTH);
        let plain = json!({"model": "seekers", "input": "hello"});
        assert_eq!(vectors(&post(&stack, &path, &plain).await), one, "float is the default");

        let text = vectors(&post(&stack, &path, &asked(json!("hello"), "base64")).await);
        let bytes = STANDARD.decode(text[0].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> =
            bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(decoded, exact, "{path}");

        let unsigned =
            integers(&vectors(&post(&stack, &path, &asked(json!("hello"), "ubinary")).await)[0]);
        assert_eq!(unsigned, packed(&exact));
        assert_eq!(unsigned.len(), LENGTH / 8);
        let binary =
            integers(&vectors(&post(&stack, &path, &asked(json!("hello"), "binary")).await)[0]);
        assert_eq!(binary, unsigned.iter().map(|byte| byte - 128).collect::<Vec<_>>());
        let int8 =
            integers(&vectors(&post(&stack, &path, &asked(json!("hello"), "int8")).await)[0]);
        assert_eq!(int8.iter().map(|v| v.abs()).max(), Some(127));
        let uint8 =
            integers(&vectors(&post(&stack, &path, &asked(json!("hello"), "uint8")).await)[0]);
        assert_eq!(uint8, int8.iter().map(|v| v + 128).collect::<Vec<_>>());

        let odd = with(asked(json!("hello"), "ubinary"), "dimensions", json!(10));
        assert_eq!(integers(&vectors(&post(&stack, &path, &odd).await)[0]).len(), 2, "padded");
        post(&stack, &path, &asked(json!("hello"), "hex")).await.refused(400, "BadRequest");
        post(&stack, &path, &asked(json!(""), "float")).await.refused(400, "BadRequest");
        post(&stack, &path, &asked(json!([]), "float")).await.refused(400, "BadRequest");
        let long = with(plain, "dimensions", json!(LENGTH + 1));
        let answer = post(&stack, &path, &long).await;
        if is_openai(&path) {
            answer.refused(400, "unsupported_value");
        } else {
            let detail = answer.refused(422, "parameter_not_supported")["detail"].clone();
            assert_eq!(detail, json!({"loc": ["body", "dimensions"], "input": LENGTH + 1}));
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v30_every_model_takes_the_input_type_text() {
    let stack = TestStack::start().await;
    let listed = get(&stack, "/v1/models").await.ok();
    let embeds = |model: &&Value| {
        model["routes"].as_array().is_some_and(|routes| routes.contains(&json!("/embeddings")))
    };
    let models: Vec<_> = listed["data"].as_array().unwrap().iter().filter(embeds).collect();
    assert_eq!(models.len(), 2, "{listed}");
    for model in models {
        let name = model["id"].as_str().unwrap();
        let types: Vec<String> = serde_json::from_value(model["input_types"].clone()).unwrap();
        for path in everywhere("/embeddings", name) {
            for word in ["text", "query", "document"] {
                let body = json!({"model": name, "input": ["a"], "input_type": word});
                let answer = post(&stack, &path, &body).await;
                // What is listed is taken, and nothing else is.
                match (types.iter().any(|listed| listed == word), is_openai(&path)) {
                    (true, _) => assert_eq!(vectors(&answer).len(), 1),
                    (false, true) => _ = answer.refused(400, "unsupported_value"),
                    (false, false) => _ = answer.refused(422, "parameter_not_supported"),
                }
            }
        }
        assert!(types.contains(&"text".to_owned()), "{name}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v32_more_inputs_than_the_limit_are_400() {
    let stack = TestStack::start().await;
    for path in everywhere("/embeddings", "vectors") {
        let most = json!({"model": "vectors", "input": vec!["a"; 1024]});
        assert_eq!(vectors(&post(&stack, &path, &most).await).len(), 1024);
        let more = json!({"model": "vectors", "input": vec!["a"; 1025]});
        let said = post(&stack, &path, &more).await.refused(400, "BadRequest");
        assert!(said["error"]["message"].as_str().unwrap().contains("1024"), "{said}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v33_images_are_data_urls_and_texts_where_the_model_takes_them() {
    let stack = TestStack::start().await;
    let url = format!("data:image/png;base64,{}", STANDARD.encode("not looked at"));
    let alias = "[{name='free-pictures', service='embedding', model='pictures', policy=''},\
                  {name='free-captions', service='embedding', model='captions', policy=''}]";
    stack.stop().await;
    let stack = TestStack::start_with(&[("EDGE__DEPLOYMENTS", alias)]).await;
    for prefix in PREFIXES {
        let path = format!("{prefix}/images/embeddings?{B}");
        let asked = |model: &str, input: Value| json!({"model": model, "input": input});
        let one = post(&stack, &path, &asked("free-pictures", json!([{"image": url}]))).await;
        assert_eq!(vectors(&one).len(), 1);
        let two = json!([{"image": url}, {"image": url}]);
        assert_eq!(
            vectors(&post(&stack, &path, &asked("free-pictures", two.clone())).await).len(),
            2
        );
        for bad in
            ["bm90IGxvb2tlZCBhdA==", "data:image/png;base64,!", "data:text/plain;base64,aGk=", ""]
        {
            let input = json!([{"image": bad}]);
            post(&stack, &path, &asked("free-pictures", input)).await.refused(400, "BadRequest");
        }
        let captioned = json!([{"image": url, "text": "a cat"}]);
        let refused = post(&stack, &path, &asked("free-pictures", captioned.clone())).await;
        let said = refused.refused(422, "parameter_not_supported");
        assert_eq!(said["detail"], json!({"loc": ["body", "input", 0, "text"], "input": "a cat"}));
        let taken = post(&stack, &path, &asked("free-captions", captioned)).await;
        assert_eq!(vectors(&taken).len(), 1);
        // This one takes two images in one call.
        vectors(&post(&stack, &path, &asked("free-captions", two)).await);
        let three = json!([{"image": url}, {"image": url}, {"image": url}]);
        let refused = post(&stack, &path, &asked("free-captions", three)).await;
        let said = refused.refused(422, "parameter_not_supported");
        assert_eq!(said["detail"], json!({"loc": ["body", "input"], "input": 3}));
    }
    stack.stop().await;
}
