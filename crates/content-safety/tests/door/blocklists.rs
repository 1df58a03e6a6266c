//! Lists that callers manage.

use super::*;

async fn upsert(stack: &Stack, name: &str) -> wire::UpsertBlocklistResponse {
    let request = wire::UpsertBlocklistRequest { name: name.to_owned(), description: None };
    stack.client.clone().upsert_blocklist(request).await.unwrap().into_inner()
}

async fn add(stack: &Stack, name: &str, texts: &[&str]) -> Result<Vec<String>, Fault> {
    let item = |text: &&str| wire::NewBlocklistItem {
        text: (*text).to_owned(),
        description: None,
        is_regex: text.starts_with('^'),
    };
    let items = texts.iter().map(item).collect();
    let request = wire::UpsertBlocklistItemsRequest { name: name.to_owned(), items };
    let added = stack.client.clone().upsert_blocklist_items(request).await.map_err(Fault::from)?;
    Ok(added.into_inner().items.into_iter().map(|item| item.id).collect())
}

#[tokio::test]
async fn a_list_that_callers_manage_holds_from_the_next_request_on() {
    let stack = Stack::start(
        "[content_safety.policies.default]\n\
         blocklists = [{ name = \"birds\", mode = \"block\", managed = true }]",
    )
    .await;
    let user = wire::Source::User;
    let before = stack.prompt("", user, "a falcon").await;
    assert!(!before.blocked && before.blocklists_searched, "nobody has made the list yet");
    assert!(!stack.prompt("strict", user, "a falcon").await.blocklists_searched);
    assert!(upsert(&stack, "birds").await.created);
    assert!(!upsert(&stack, "birds").await.created);
    let ids = add(&stack, "birds", &["falcon", "^owls?$"]).await.unwrap();
    let hit = stack.prompt("", user, "a falcon").await;
    assert!(hit.blocked && hit.blocklists[0].item_id == ids[0]);
    assert!(stack.prompt("", user, "OWL").await.blocked);
    let mut client = stack.client.clone();
    let name = "birds".to_owned();
    let request = wire::RemoveBlocklistItemsRequest { name: name.clone(), item_ids: ids };
    client.remove_blocklist_items(request).await.unwrap();
    assert!(!stack.prompt("", user, "a falcon, an owl").await.blocked);
    client.delete_blocklist(wire::DeleteBlocklistRequest { name: name.clone() }).await.unwrap();
    let again = client.delete_blocklist(wire::DeleteBlocklistRequest { name }).await;
    assert_eq!(code(again), ErrorCode::ResourceNotFound);
    stack.stop().await;
}

#[tokio::test]
async fn items_are_read_by_page_and_by_id() {
    let stack = Stack::start("").await;
    upsert(&stack, "birds").await;
    let ids = add(&stack, "birds", &["a", "b", "c"]).await.unwrap();
    let mut client = stack.client.clone();
    let name = "birds".to_owned();
    let page = |skip| wire::ListBlocklistItemsRequest { name: name.clone(), skip, page_size: 2 };
    let first = client.list_blocklist_items(page(0)).await.unwrap().into_inner();
    assert_eq!((first.items.len(), first.more), (2, true));
    let last = client.list_blocklist_items(page(2)).await.unwrap().into_inner();
    assert_eq!((last.items[0].text.as_str(), last.more), ("c", false));
    let one = |item_id: &str| wire::GetBlocklistItemRequest {
        name: "birds".into(),
        item_id: item_id.to_owned(),
    };
    let item = client.get_blocklist_item(one(&ids[1])).await.unwrap().into_inner().item.unwrap();
    assert_eq!((item.text.as_str(), item.is_regex), ("b", false));
    let missing = client.get_blocklist_item(one("nope")).await;
    assert_eq!(code(missing), ErrorCode::ResourceNotFound);
    let got = client.get_blocklist(wire::GetBlocklistRequest { name: "a b".into() }).await;
    assert_eq!(code(got), ErrorCode::InvalidResourceName);
    let listed = client.list_blocklists(wire::ListBlocklistsRequest {}).await.unwrap();
    assert_eq!(listed.into_inner().blocklists[0].name, "birds");
    stack.stop().await;
}

#[tokio::test]
async fn changes_that_do_not_fit_are_refused_with_the_field() {
    let stack = Stack::start(
        "[content_safety.blocklists]\nmanaged_items = 2\n\
         lists = [{ name = \"own\", items = [{ text = \"x\" }] }]",
    )
    .await;
    upsert(&stack, "birds").await;
    for (name, texts, expected) in [
        ("birds", &["fine", "^("][..], (ErrorCode::InvalidRequest, Some("items.1"))),
        ("birds", &[], (ErrorCode::InvalidRequest, Some("items"))),
        ("birds", &["x"; 101], (ErrorCode::InvalidRequest, Some("items"))),
        ("birds", &["1", "2", "3"], (ErrorCode::InvalidRequest, Some("name"))),
        ("own", &["x"], (ErrorCode::PermissionDenied, None)),
        ("fish", &["x"], (ErrorCode::ResourceNotFound, None)),
    ] {
        let fault = add(&stack, name, texts).await.unwrap_err();
        assert_eq!((fault.code, fault.target.as_deref()), expected, "{name} {texts:?}");
    }
    let change = wire::DescriptionChange { value: Some("x".repeat(1025)) };
    let request = wire::UpsertBlocklistRequest { name: "birds".into(), description: Some(change) };
    let long = stack.client.clone().upsert_blocklist(request).await;
    assert_eq!(code(long), ErrorCode::InvalidRequest);
    stack.stop().await;
}

#[tokio::test]
async fn replicas_on_one_directory_see_each_others_lists() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        format!("[content_safety.blocklists]\ndir = \"{}\"\nrefresh_ms = 1", dir.path().display());
    let (here, there) = (Stack::start(&options).await, Stack::start(&options).await);
    upsert(&here, "birds").await;
    add(&here, "birds", &["falcon"]).await.unwrap();
    let request = wire::AnalyzeRequest {
        text: "a falcon".into(),
        blocklists: vec!["birds".into()],
        halt_on_blocklist_hit: true,
        ..Default::default()
    };
    let seen = async {
        loop {
            match there.client.clone().analyze(request.clone()).await {
                Ok(answer) if !answer.get_ref().blocklists.is_empty() => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.unwrap();
    here.stop().await;
    there.stop().await;
    let again = Stack::start(&options).await;
    let listed = again.client.clone().list_blocklists(wire::ListBlocklistsRequest {}).await;
    assert_eq!(listed.unwrap().into_inner().blocklists.len(), 1);
    again.stop().await;
}
