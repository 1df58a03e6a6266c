//! The description as a document: whole, unambiguous, fit for readers.

use super::*;
use chassis::config::{Sources, load};
use std::collections::BTreeSet;

fn config() -> Config {
    load("edge", crate::DEFAULTS, &Sources { file: None, env: Vec::new() }).unwrap()
}

fn document() -> Value {
    let mut entries = crate::router::entries();
    entries.extend(own_entries());
    describe(&entries, &config(), false)
}

/// Calls `see` with every value of the document and the key it stands under.
fn walk(value: &Value, key: &str, see: &mut impl FnMut(&str, &Value)) {
    see(key, value);
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| walk(value, key, see)),
        Value::Array(items) => items.iter().for_each(|item| walk(item, key, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_led_to() {
    let document = document();
    let mut references = BTreeSet::new();
    walk(&document, "", &mut |key, value| {
        if let ("$ref", Some(reference)) = (key, value.as_str()) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            references.insert(reference.to_owned());
        }
    });
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(kind == "securitySchemes" || references.contains(&reference), "{reference}");
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_and_its_families_parameters() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id}");
            let parameters = operation["parameters"].to_string();
            assert_eq!(
                parameters.contains("api-version"),
                !["/docs", "/openapi.json"].contains(&path.as_str())
            );
            assert_eq!(parameters.contains("\"path\""), path.contains('{'), "{path}");
        }
    }
    assert!(ids.len() >= 30, "only {} operations", ids.len());
    assert!(ids.contains("post_openai_deployments_deployment_chat_completions"));
    assert!(ids.contains("post_contentsafety_text_analyze"));
}

#[test]
fn errors_are_those_that_the_family_answers() {
    let document = document();
    let statuses = |pointer: &str| -> Vec<String> {
        let responses = document.pointer(pointer).unwrap().as_object().unwrap();
        responses.keys().cloned().collect()
    };
    let inference = statuses("/paths/~1chat~1completions/post/responses");
    let all =
        ["200", "400", "401", "403", "404", "413", "415", "422", "429", "500", "502", "503", "504"];
    assert_eq!(inference, all);
    let openai = statuses("/paths/~1v1~1chat~1completions/post/responses");
    assert!(!openai.contains(&"422".to_owned()) && openai.contains(&"415".to_owned()));
    let info = statuses("/paths/~1info/get/responses");
    assert!(!info.contains(&"415".to_owned()) && info.contains(&"404".to_owned()));
    assert_eq!(statuses("/paths/~1docs/get/responses"), ["200", "503"]);
    let unauthorized = &document["components"]["responses"]["InferenceError401"]["description"];
    assert_eq!(unauthorized, "- `401`: No valid credential.");
}

#[test]
fn types_that_are_sent_and_answered_look_the_same_both_ways() {
    let config = config();
    let mut components = Components::new(&config);
    for entry in crate::router::entries() {
        components.enter(Family::of_path(&entry.path));
        describe_one(&entry, &config, &mut components);
    }
    assert_eq!(components.ambiguous(), Vec::<String>::new());
}

#[test]
fn readers_find_no_chapters_of_the_contract_and_no_types_of_the_source() {
    walk(&document(), "", &mut |key, value| {
        if let ("description" | "summary", Some(text)) = (key, value.as_str()) {
            for leftover in ["section ", "[`", "::"] {
                let address = text.contains("`::`");
                assert!(address || !text.contains(leftover), "{text}");
            }
            assert!(text.ends_with(['.', '`', ')']), "{text}");
        }
    });
}

#[test]
fn a_server_without_keys_says_so() {
    let entries = crate::router::entries();
    assert_eq!(describe(&entries, &config(), true)["security"][0], json!({}));
    assert_eq!(describe(&entries, &config(), false)["security"][0], json!({"apiKey": []}));
}
