//! Tests of the deployment table.

use super::*;
use chassis::config::{Sources, load};

fn config(env: &[(&str, &str)]) -> Config {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load("edge", crate::DEFAULTS, &Sources { file: None, env }).unwrap()
}

fn listed() -> Vec<ListedModel> {
    let chat =
        ChatAbilities { chat: true, completions: true, tools: true, ..ChatAbilities::default() };
    let embedding = EmbeddingAbilities { text: true, ..EmbeddingAbilities::default() };
    let model = |name: &str, abilities| ListedModel {
        name: name.to_owned(),
        publisher: String::new(),
        version: String::new(),
        abilities,
    };
    vec![
        model("phi", Abilities::Chat(chat.clone())),
        model("Qwen", Abilities::Chat(ChatAbilities { completions: false, ..chat })),
        model("minilm", Abilities::Embedding(embedding)),
    ]
}

fn named(model: &str) -> Selector {
    Selector { model: Some(model.to_owned()), ..Selector::default() }
}

fn select(table: &Table, selector: &Selector, modality: Modality) -> Result<String, ErrorCode> {
    table.select(selector, modality, Family::Inference).map(|d| d.name.clone()).map_err(|f| f.code)
}

#[test]
fn a_listed_model_is_found_in_any_letter_case() {
    let table = Table::build(&config(&[]), &listed(), true);
    assert_eq!(select(&table, &named("PHI"), Modality::Chat).unwrap(), "phi");
    assert_eq!(select(&table, &named("qwen"), Modality::Chat).unwrap(), "Qwen");
}

#[test]
fn without_a_name_the_first_that_serves_the_route_answers() {
    let table = Table::build(&config(&[]), &listed(), true);
    assert_eq!(select(&table, &Selector::default(), Modality::Chat).unwrap(), "phi");
    assert_eq!(select(&table, &named(""), Modality::Embeddings).unwrap(), "minilm");
    let none = select(&table, &Selector::default(), Modality::ImageEmbeddings);
    assert_eq!(none, Err(ErrorCode::ModalityNotSupported));
}

#[test]
fn a_default_is_chosen_or_switched_off_by_the_configuration() {
    let chosen = Table::build(&config(&[("EDGE__DEFAULTS__CHAT", "qwen")]), &listed(), true);
    assert_eq!(select(&chosen, &Selector::default(), Modality::Chat).unwrap(), "Qwen");
    let off = Table::build(&config(&[("EDGE__DEFAULTS__CHAT", "none")]), &listed(), true);
    assert_eq!(select(&off, &Selector::default(), Modality::Chat), Err(ErrorCode::NoModelName));
}

#[test]
fn the_root_is_the_sole_deployments_unless_it_is_said_whose() {
    let sole = &listed()[..1];
    let root = |env: &[(&str, &str)], listed: &[ListedModel], complete| {
        Table::build(&config(env), listed, complete).root().map(str::to_owned)
    };
    assert_eq!(root(&[], sole, true).as_deref(), Some("phi"));
    assert_eq!(root(&[], sole, false), None, "another service may still list more");
    assert_eq!(root(&[], &listed(), true), None);
    assert_eq!(root(&[("EDGE__API__ROOT", "none")], sole, true), None);
    assert_eq!(root(&[("EDGE__API__ROOT", "Qwen")], &listed(), true).as_deref(), Some("Qwen"));
}

#[test]
fn the_path_wins_over_the_body_and_the_body_over_headers() {
    let table = Table::build(&config(&[]), &listed(), true);
    let mut selector = Selector {
        path: Some("phi".into()),
        model: Some("qwen".into()),
        deployment_header: Some("minilm".into()),
        mesh_header: Some("nope".into()),
    };
    assert_eq!(select(&table, &selector, Modality::Chat).unwrap(), "phi");
    selector.path = None;
    assert_eq!(select(&table, &selector, Modality::Chat).unwrap(), "Qwen");
    selector.model = None;
    assert_eq!(select(&table, &selector, Modality::Embeddings).unwrap(), "minilm");
    selector.deployment_header = None;
    assert_eq!(select(&table, &selector, Modality::Chat), Err(ErrorCode::UnknownModel));
}

#[test]
fn unknown_names_and_wrong_routes_are_404_in_the_words_of_the_family() {
    let table = Table::build(&config(&[]), &listed(), true);
    let fault = table.select(&named("nope"), Modality::Chat, Family::Deployments).unwrap_err();
    assert_eq!(fault.code, ErrorCode::DeploymentNotFound);
    assert_eq!(
        select(&table, &named("phi"), Modality::Embeddings),
        Err(ErrorCode::ModalityNotSupported)
    );
    assert_eq!(
        select(&table, &named("qwen"), Modality::Completions),
        Err(ErrorCode::ModalityNotSupported)
    );
}

#[test]
fn while_a_service_has_not_answered_an_unknown_name_is_503() {
    let table = Table::build(&config(&[]), &[], false);
    assert_eq!(select(&table, &named("phi"), Modality::Chat), Err(ErrorCode::Unavailable));
    assert_eq!(select(&table, &Selector::default(), Modality::Chat), Err(ErrorCode::Unavailable));
}

#[test]
fn the_configuration_adds_names_and_overrides_abilities() {
    let deployments = "[{name='gpt-4o', service='chat', model='phi', tools=false, policy=''}]";
    let config = config(&[("EDGE__DEPLOYMENTS", deployments)]);
    let table = Table::build(&config, &listed(), true);
    let alias = table.get("GPT-4o").unwrap();
    assert_eq!((alias.model.as_str(), alias.policy.as_str()), ("phi", ""));
    assert!(!alias.chat().tools);
    let plain = table.get("phi").unwrap();
    assert_eq!(plain.policy, "default");
    assert!(plain.chat().tools);
    assert_eq!(plain.publisher, "unknown");
}

#[test]
fn info_describes_what_a_deployment_is_for() {
    let table = Table::build(&config(&[]), &listed(), true);
    let types: Vec<_> =
        table.all().iter().map(|d| d.modality().map(Modality::model_type)).collect();
    assert_eq!(types, [Some("chat-completions"), Some("chat-completions"), Some("embeddings")]);
    assert_eq!(table.describe(&Selector::default(), Family::Inference).unwrap().name, "phi");
}
