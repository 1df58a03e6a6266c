//! What deployments cannot do is refused by name.

use super::*;
use crate::deployments::{Abilities, ChatAbilities, EmbeddingAbilities, ParameterLimit};
use crate::guard::Screening;
use api_types::ErrorCode;
use api_types::rest::Vocabulary;
use api_types::rest::embeddings::EncodingFormat;

fn deployment(abilities: Abilities) -> Deployment {
    let word = "m".to_owned();
    Deployment {
        name: word.clone(),
        model: word.clone(),
        publisher: word,
        version: String::new(),
        fallback: None,
        screening: Screening::default(),
        abilities,
    }
}

fn chat_fault(body: &Value, abilities: ChatAbilities, family: Family) -> Option<Fault> {
    let parsed =
        ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
    chat(parsed, &deployment(Abilities::Chat(abilities)), family).err()
}

#[test]
fn every_offence_is_told_the_first_with_its_input() {
    let body = json!({"response_format": {"type": "json_object"}, "logprobs": true, "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]});
    let fault = chat_fault(&body, ChatAbilities::default(), Family::Inference).unwrap();
    assert_eq!(fault.target.as_deref(), Some("response_format"));
    assert_eq!(fault.input, Some(json!("json_object")));
    let others: Vec<_> = fault.details.iter().map(|d| d.target.as_str()).collect();
    assert_eq!(others, ["logprobs", "messages.0.content.1"]);
    let able =
        ChatAbilities { json_object: true, logprobs: true, images: true, ..Default::default() };
    assert_eq!(chat_fault(&body, able, Family::Inference), None);
}

#[test]
fn a_schema_needs_more_than_json() {
    let body = json!({"messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}});
    let able = ChatAbilities { json_object: true, ..Default::default() };
    assert_eq!(
        chat_fault(&body, able, Family::Inference).unwrap().input,
        Some(json!("json_schema"))
    );
}

#[test]
fn extras_the_model_does_not_take_are_refused_or_ignored_by_family() {
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "top_k": 5, "store": true});
    let none = ChatAbilities::default();
    let fault = chat_fault(&body, none.clone(), Family::Inference).unwrap();
    assert_eq!((fault.target.as_deref(), fault.input), (Some("top_k"), Some(json!(5))));
    assert_eq!(chat_fault(&body, none, Family::OpenAi), None);
}

#[test]
fn extras_the_model_takes_are_handed_on() {
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "top_k": 5, "store": true});
    let parsed =
        ChatCompletionsRequest::parse(body.to_string().as_bytes(), Vocabulary::OPENAI).unwrap();
    let able = ChatAbilities { extra_parameters: vec!["top_k".to_owned()], ..Default::default() };
    let checked = chat(parsed, &deployment(Abilities::Chat(able)), Family::OpenAi).unwrap();
    assert_eq!(checked.extra_json, r#"{"top_k":5}"#);
}

#[test]
fn a_value_out_of_the_models_range_is_told_from_a_parameter_it_lacks() {
    let hi = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"messages": hi, "temperature": 1.2, "seed": 7, "top_p": 0.5});
    let cool = ParameterLimit { maximum: Some(1.0), ..ParameterLimit::default() };
    let none = ParameterLimit { refused: true, ..ParameterLimit::default() };
    let parameters =
        ParameterLimits::new([(Parameter::Temperature, cool), (Parameter::Seed, none)]);
    let able = ChatAbilities { parameters, ..Default::default() };
    let fault = chat_fault(&body, able.clone(), Family::Inference).unwrap();
    assert_eq!((fault.target.as_deref(), &fault.input), (Some("temperature"), &Some(json!(1.2))));
    assert_eq!(fault.code, ErrorCode::ParameterNotSupported);
    let others: Vec<_> = fault.details.iter().map(|d| d.target.as_str()).collect();
    assert_eq!(others, ["seed"]);
    let fault = chat_fault(&json!({"messages": hi, "seed": 7}), able, Family::OpenAi).unwrap();
    assert_eq!((fault.code, fault.target.as_deref()), (ErrorCode::ParameterRefused, Some("seed")));
}

#[test]
fn encodings_and_images_per_call_are_the_deployments() {
    let able = EmbeddingAbilities {
        text: true,
        encodings: vec![EncodingFormat::Float],
        ..Default::default()
    };
    let body = json!({"input": "a", "encoding_format": "base64"});
    assert_eq!(embedding_target(&body, able.clone()).unwrap(), "encoding_format");
    assert_eq!(embedding_target(&json!({"input": "a"}), able), None);
    let image = json!({"image": "data:image/png;base64,aGk="});
    let body = json!({"input": [image, image]}).to_string();
    let fault = |images_per_call| {
        let parsed =
            ImageEmbeddingsRequest::parse(body.as_bytes(), Vocabulary::INFERENCE, 8).unwrap();
        let able = EmbeddingAbilities { image: true, images_per_call, ..Default::default() };
        let deployment = deployment(Abilities::Embedding(able));
        image_embeddings(parsed, &deployment, Family::Inference).err()
    };
    assert_eq!(fault(1).unwrap().input, Some(json!(2)));
    assert_eq!((fault(2), fault(0)), (None, None));
}

fn embedding_target(body: &Value, abilities: EmbeddingAbilities) -> Option<String> {
    let parsed =
        EmbeddingsRequest::parse(body.to_string().as_bytes(), Vocabulary::INFERENCE, 8).unwrap();
    let checked =
        embeddings(parsed, &deployment(Abilities::Embedding(abilities)), Family::Inference);
    checked.err().and_then(|f| f.target)
}

#[test]
fn dimensions_and_input_types_are_the_models() {
    let able = EmbeddingAbilities {
        text: true,
        full_dimensions: 384,
        dimensions: vec![128],
        ..Default::default()
    };
    assert_eq!(embedding_target(&json!({"input": "a", "dimensions": 384}), able.clone()), None);
    assert_eq!(embedding_target(&json!({"input": "a", "dimensions": 128}), able.clone()), None);
    assert_eq!(
        embedding_target(&json!({"input": "a", "dimensions": 64}), able.clone()).unwrap(),
        "dimensions"
    );
    let any = EmbeddingAbilities { any_dimensions: true, ..able.clone() };
    assert_eq!(embedding_target(&json!({"input": "a", "dimensions": 64}), any.clone()), None);
    assert_eq!(
        embedding_target(&json!({"input": "a", "dimensions": 385}), any).unwrap(),
        "dimensions"
    );
    assert_eq!(embedding_target(&json!({"input": "a", "input_type": "text"}), able.clone()), None);
    assert_eq!(
        embedding_target(&json!({"input": "a", "input_type": "query"}), able).unwrap(),
        "input_type"
    );
}
