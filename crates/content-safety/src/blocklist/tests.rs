//! One list: what is found in which text, and which items no list takes.

use super::lists::{Lists, find};
use super::*;

fn item(id: &str, text: &str, regex: &str) -> ItemConfig {
    ItemConfig { id: id.into(), text: text.into(), regex: regex.into(), ..ItemConfig::default() }
}

fn lists(items: Vec<ItemConfig>) -> Result<Lists, SafetyError> {
    Lists::configured(&[ListConfig { name: "words".into(), items }])
}

fn ids(lists: &Lists, text: &str) -> Vec<String> {
    let hits = find(&lists.named(&["words".to_owned()]).unwrap(), text);
    hits.into_iter().map(|hit| hit.id).collect()
}

#[test]
fn words_are_found_whole_whatever_their_case() {
    let lists = lists(vec![item("", "Acme", ""), item("long", "acme rocket", "")]).unwrap();
    assert_eq!(ids(&lists, "an ACME-Rocket"), ["1"]);
    assert_eq!(ids(&lists, "the acme rocket."), ["1", "long"]);
    assert_eq!(ids(&lists, "acmeology, Pacme"), Vec::<String>::new());
}

#[test]
fn substrings_are_found_within_words() {
    let part = ItemConfig { substring: "acme".into(), ..ItemConfig::default() };
    let lists = lists(vec![part]).unwrap();
    assert_eq!(ids(&lists, "PACMEOLOGY"), ["1"]);
    assert_eq!(ids(&lists, "ac me"), Vec::<String>::new());
}

#[test]
fn look_alikes_and_invisible_characters_do_not_hide_a_word() {
    let lists = lists(vec![item("", "acme", "")]).unwrap();
    assert_eq!(ids(&lists, "a\u{441}m\u{200b}e"), ["1"]);
}

#[test]
fn scripts_without_spaces_need_no_boundary() {
    let lists = lists(vec![item("", "禁止", "")]).unwrap();
    assert_eq!(ids(&lists, "これは禁止です"), ["1"]);
}

#[test]
fn regular_expressions_match_and_are_bounded() {
    let list = lists(vec![item("ssn", "", r"\b\d{3}-\d{2}-\d{4}\b")]).unwrap();
    assert_eq!(ids(&list, "it is 123-45-6789"), ["ssn"]);
    let bomb = lists(vec![item("", "", r"(\w{1000}){1000}")]).unwrap_err().to_string();
    assert!(bomb.contains("`words`") && bomb.contains("item `1`"), "{bomb}");
}

#[test]
fn a_regular_expression_that_explodes_elsewhere_takes_linear_time() {
    let list = lists(vec![item("evil", "", "(a+)+$")]).unwrap();
    assert_eq!(ids(&list, &format!("{}!", "a".repeat(100_000))), Vec::<String>::new());
}

#[test]
fn what_would_be_found_in_every_text_is_refused() {
    for config in [item("", "\u{200b}\u{ad}", ""), item("", "", "x*"), item("", "", "")] {
        assert!(lists(vec![config.clone()]).is_err(), "{config:?}");
    }
}

#[test]
fn an_item_is_a_text_or_a_regex_and_its_id_is_its_own() {
    assert!(lists(vec![item("", "a", "b")]).is_err());
    assert!(lists(vec![item("x", "a", ""), item("x", "b", "")]).is_err());
    assert!(lists(vec![item("", &"x".repeat(LONGEST_TEXT + 1), "")]).is_err());
    assert!(lists(vec![item("", &"é".repeat(LONGEST_TEXT), "")]).is_ok());
}

#[test]
fn an_unknown_list_is_named_with_those_that_are_known() {
    let lists = lists(Vec::new()).unwrap();
    let error = lists.named(&["nope".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("`nope`") && error.contains("`words`"), "{error}");
}

#[test]
fn names_are_those_of_the_contract() {
    assert!(is_name("a.B_9~-") && is_name(".") && is_name(&"x".repeat(64)));
    assert!(!is_name("") && !is_name("with space") && !is_name("a/b") && !is_name("a:b"));
    assert!(!is_name("é") && !is_name(&"x".repeat(65)));
}

#[test]
fn the_id_of_an_item_is_a_uuid_made_of_what_it_is() {
    let named = |list: &str, text: &str, is_regex, description: Option<&str>| {
        let description = description.map(str::to_owned);
        NewItem { text: text.into(), description, is_regex }.named(list).id
    };
    let id = named("a", "word", false, None);
    assert_eq!(id, named("a", "word", false, Some("other")));
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    for other in [
        named("b", "word", false, None),
        named("a", "word", true, None),
        named("a", "wor", false, None),
    ] {
        assert_ne!(id, other);
    }
}
