//! Changes of lists: their limits, the directory they are kept in, replicas that share it, files that somebody broke.

use super::*;
use crate::blocklist::lists::find;
use api_types::ErrorCode;
use std::fs;
use tempfile::TempDir;

fn config(dir: &str) -> BlocklistsConfig {
    BlocklistsConfig {
        lists: Vec::new(),
        dir: dir.to_owned(),
        refresh_ms: 1,
        managed_lists: 3,
        managed_items: 5,
        managed_regexes: 1,
    }
}

fn kept(dir: &TempDir) -> Blocklists {
    Blocklists::open(&config(dir.path().to_str().unwrap())).unwrap()
}

fn in_memory() -> Blocklists {
    Blocklists::open(&config("")).unwrap()
}

fn words(texts: &[&str]) -> Vec<NewItem> {
    let item =
        |text: &&str| NewItem { text: (*text).to_owned(), description: None, is_regex: false };
    texts.iter().map(item).collect()
}

fn regex(text: &str) -> Vec<NewItem> {
    vec![NewItem { text: text.to_owned(), description: None, is_regex: true }]
}

fn make(lists: &Blocklists, name: &str) -> bool {
    lists.upsert(name, Description::Keep).unwrap().1
}

/// Texts of the items of `name` that `text` holds, in order: matches come by their ids, which are hashes.
fn found(lists: &Blocklists, name: &str, text: &str) -> Vec<String> {
    let hits = find(&lists.now().named(&[name.to_owned()]).unwrap(), text);
    let mut texts: Vec<String> = hits.into_iter().map(|hit| hit.text).collect();
    texts.sort_unstable();
    texts
}

fn code<T: std::fmt::Debug>(outcome: Result<T, SafetyError>) -> ErrorCode {
    outcome.unwrap_err().code()
}

#[test]
fn a_list_lives_from_its_making_to_its_removal() {
    let lists = in_memory();
    let (list, created) = lists.upsert("a", Description::Set(Some("mine".into()))).unwrap();
    assert!(created && list.description.as_deref() == Some("mine"));
    let (list, created) = lists.upsert("a", Description::Keep).unwrap();
    assert!(!created && list.description.as_deref() == Some("mine"));
    assert_eq!(lists.upsert("a", Description::Set(None)).unwrap().0.description, None);
    lists.delete("a").unwrap();
    assert_eq!(code(lists.delete("a")), ErrorCode::ResourceNotFound);
    assert_eq!(code(lists.get("a")), ErrorCode::ResourceNotFound);
    assert_eq!(code(lists.get("a b")), ErrorCode::InvalidResourceName);
    assert_eq!(code(lists.upsert("a/b", Description::Keep)), ErrorCode::InvalidResourceName);
}

#[test]
fn items_are_found_from_the_moment_they_are_added_until_they_are_removed() {
    let lists = in_memory();
    make(&lists, "a");
    let added = lists.upsert_items("a", words(&["falcon", "owl"])).unwrap();
    assert_eq!(found(&lists, "a", "An Owl!"), ["owl"]);
    lists.remove_items("a", &[added[1].id.clone(), "no such id".into()]).unwrap();
    assert_eq!(found(&lists, "a", "falcon and owl"), ["falcon"]);
    assert_eq!(code(lists.upsert_items("b", words(&["x"]))), ErrorCode::ResourceNotFound);
    assert_eq!(code(lists.remove_items("b", &[])), ErrorCode::ResourceNotFound);
}

#[test]
fn an_item_that_is_added_again_gets_the_new_description_and_keeps_id_and_place() {
    let lists = in_memory();
    make(&lists, "a");
    let first = lists.upsert_items("a", words(&["falcon", "owl"])).unwrap();
    let again = NewItem { description: Some("a bird".into()), ..words(&["falcon"]).remove(0) };
    let again = lists.upsert_items("a", vec![again]).unwrap();
    assert_eq!(again[0].id, first[0].id);
    let items = &lists.get("a").unwrap().items;
    assert_eq!((items.len(), items[0].description.as_deref()), (2, Some("a bird")));
}

#[test]
fn items_are_added_all_or_none() {
    let lists = in_memory();
    make(&lists, "a");
    for bad in [" \u{200b}", &"x".repeat(129)] {
        let error = lists.upsert_items("a", words(&["fine", bad])).unwrap_err();
        assert!(
            matches!(&error, SafetyError::Invalid { target, .. } if target == "items.1"),
            "{error}"
        );
    }
    let error = lists.upsert_items("a", regex("(")).unwrap_err().to_string();
    assert!(error.contains("unclosed group") && !error.contains('\n'), "{error}");
    assert!(lists.get("a").unwrap().items.is_empty());
}

#[test]
fn there_is_room_for_so_much_and_no_more() {
    let lists = in_memory();
    for name in ["a", "b", "c"] {
        make(&lists, name);
    }
    assert_eq!(code(lists.upsert("d", Description::Keep)), ErrorCode::InvalidRequest);
    lists.upsert_items("a", words(&["1", "2", "3"])).unwrap();
    let full = lists.upsert_items("b", words(&["1", "2", "3"])).unwrap_err().to_string();
    assert!(full.contains("6 items") && full.contains("the limit is 5"), "{full}");
    lists.upsert_items("b", regex("x+")).unwrap();
    let full = lists.upsert_items("c", regex("y+")).unwrap_err().to_string();
    assert!(full.contains("2 regular expressions"), "{full}");
    lists.delete("a").unwrap();
    lists.upsert_items("c", words(&["1", "2"])).unwrap();
}

#[test]
fn lists_of_the_configuration_are_seen_and_not_changed() {
    let list = super::super::ListConfig { name: "own".into(), items: Vec::new() };
    let lists = Blocklists::open(&BlocklistsConfig { lists: vec![list], ..config("") }).unwrap();
    assert!(lists.get("own").is_ok());
    assert_eq!(code(lists.upsert("own", Description::Keep)), ErrorCode::PermissionDenied);
    assert_eq!(code(lists.upsert_items("own", words(&["x"]))), ErrorCode::PermissionDenied);
    assert_eq!(code(lists.delete("own")), ErrorCode::PermissionDenied);
}

#[test]
fn lists_are_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let lists = kept(&dir);
    lists.upsert("a", Description::Set(Some("mine".into()))).unwrap();
    let added = lists.upsert_items("a", words(&["Falke", "鷹"])).unwrap();
    lists.upsert_items("a", regex("x{3}")).unwrap();
    make(&lists, ".");
    lists.delete(".").unwrap();
    drop(lists);
    fs::write(dir.path().join(".b.unfinished"), "{").unwrap();
    let lists = kept(&dir);
    let list = lists.get("a").unwrap();
    assert_eq!(
        (list.description.as_deref(), list.items[1].clone()),
        (Some("mine"), added[1].clone())
    );
    assert_eq!(found(&lists, "a", "der Falke xxx"), ["Falke", "x{3}"]);
    assert_eq!(lists.now().all().count(), 1);
    assert!(!dir.path().join(".b.unfinished").exists());
}

#[test]
fn a_replica_sees_what_another_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (kept(&dir), kept(&dir));
    make(&here, "a");
    here.upsert_items("a", words(&["falcon"])).unwrap();
    there.refresh().unwrap();
    assert_eq!(found(&there, "a", "falcon"), ["falcon"]);
    // As long as the other text: nothing but the time of the change tells.
    let id = there.get("a").unwrap().items[0].id.clone();
    there.remove_items("a", &[id]).unwrap();
    there.upsert_items("a", words(&["condor"])).unwrap();
    here.refresh().unwrap();
    assert_eq!(found(&here, "a", "falcon, condor"), ["condor"]);
    here.delete("a").unwrap();
    there.refresh().unwrap();
    assert!(there.now().get("a").is_none());
}

#[test]
fn a_change_of_one_replica_does_not_undo_that_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (kept(&dir), kept(&dir));
    assert!(make(&here, "a"));
    assert!(!make(&there, "a"), "made here, so changed there");
    here.upsert_items("a", words(&["falcon"])).unwrap();
    there.upsert_items("a", words(&["owl"])).unwrap();
    assert_eq!(found(&there, "a", "owl falcon"), ["falcon", "owl"].map(str::to_owned));
}

#[test]
fn every_write_is_newer_than_any_before() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (kept(&dir), kept(&dir));
    make(&here, "a");
    for text in ["1", "2", "3", "4", "5"] {
        let added = here.upsert_items("a", words(&[text])).unwrap();
        there.refresh().unwrap();
        assert_eq!(found(&there, "a", text), [text]);
        here.remove_items("a", &[added[0].id.clone()]).unwrap();
    }
}

#[test]
fn a_damaged_file_is_named_at_start_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    make(&kept(&dir), "a");
    for content in ["{", "{}", r#"{"format":9,"blocklistName":"a","blocklistItems":[]}"#] {
        fs::write(dir.path().join("a.json"), content).unwrap();
        let error =
            Blocklists::open(&config(dir.path().to_str().unwrap())).unwrap_err().to_string();
        assert!(error.contains("a.json") && error.contains("mend it"), "{error}");
    }
    let twice = r#"{"format":1,"blocklistName":"a","blocklistItems":[{"text":"x"},{"text":"x"}]}"#;
    fs::write(dir.path().join("a.json"), twice).unwrap();
    let error = Blocklists::open(&config(dir.path().to_str().unwrap())).unwrap_err().to_string();
    assert!(error.contains("item 2 is there twice"), "{error}");
}

#[test]
fn a_file_that_is_damaged_later_leaves_the_list_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let lists = kept(&dir);
    make(&lists, "a");
    lists.upsert_items("a", words(&["falcon"])).unwrap();
    let file = dir.path().join("a.json");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "{").unwrap();
    lists.refresh().unwrap();
    assert_eq!(found(&lists, "a", "falcon"), ["falcon"]);
    assert_eq!(code(lists.upsert_items("a", words(&["owl"]))), ErrorCode::Internal);
    assert_eq!(fs::read(&file).unwrap(), b"{", "nothing overwrites what somebody may want to mend");
    fs::write(&file, good).unwrap();
    lists.upsert_items("a", words(&["owl"])).unwrap();
    assert_eq!(found(&lists, "a", "falcon owl"), ["falcon", "owl"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Blocklists::open(&config(file.path().to_str().unwrap())).unwrap_err().to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_list_in_the_directory_under_a_name_of_the_configuration_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    make(&kept(&dir), "own");
    let list = super::super::ListConfig { name: "own".into(), items: Vec::new() };
    let config = BlocklistsConfig { lists: vec![list], ..config(dir.path().to_str().unwrap()) };
    let error = Blocklists::open(&config).unwrap_err().to_string();
    assert!(error.contains("`own`") && error.contains("rename"), "{error}");
}
