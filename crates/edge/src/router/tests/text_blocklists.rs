//! The routes under `/contentsafety/text/blocklists`, and the others of Content Safety that are not about models.

use super::*;

const LISTS: &str = "/contentsafety/text/blocklists";

fn path(rest: &str) -> String {
    format!("{LISTS}{rest}?api-version=2024-09-01")
}

async fn send(edge: &Edge, method: &str, path: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/merge-patch+json");
    edge.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

fn code(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(answer.headers["x-ms-error-code"], body["error"]["code"].as_str().unwrap());
    (answer.status.as_u16(), body["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_list_is_made_changed_read_and_removed() {
    let edge = edge(&[]).await;
    let made = send(&edge, "PATCH", &path("/new"), r#"{"description":"x"}"#).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json(), json!({"blocklistName": "new", "description": "x"}));
    assert_eq!(send(&edge, "PATCH", &path("/here"), "{}").await.status, 200);
    let one = edge.get(&path("/here")).await;
    assert_eq!((one.status.as_u16(), one.json()), (200, json!({"blocklistName": "here"})));
    assert_eq!(edge.get(&path("")).await.json(), json!({"value": [{"blocklistName": "here"}]}));
    let gone = send(&edge, "DELETE", &path("/here"), "").await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    let missing = send(&edge, "DELETE", &path("/nowhere"), "").await;
    assert_eq!(code(&missing), (404, "ResourceNotFound".to_owned()));
}

#[tokio::test]
async fn what_follows_a_colon_says_what_is_done_with_the_list() {
    let edge = edge(&[]).await;
    let body = json!({"blocklistItems": [{"text": "x", "isRegex": true}]});
    let added = edge.post(&path("/here:addOrUpdateBlocklistItems"), &body).await;
    assert_eq!(added.status, 200);
    assert_eq!(
        added.json(),
        json!({"blocklistItems": [{"blocklistItemId": "1", "text": "x", "isRegex": true}]})
    );
    let removed =
        edge.post(&path("/here:removeBlocklistItems"), &json!({"blocklistItemIds": ["1"]})).await;
    assert_eq!((removed.status.as_u16(), removed.text.as_str()), (204, ""));
    // An encoded colon is a colon.
    assert_eq!(edge.post(&path("/here%3AaddOrUpdateBlocklistItems"), &body).await.status, 200);
    let missing = edge.post(&path("/nowhere:addOrUpdateBlocklistItems"), &body).await;
    assert_eq!(code(&missing), (404, "ResourceNotFound".to_owned()));
    assert_eq!(edge.post(&path("/here:dance"), &body).await.status, 404);
}

#[tokio::test]
async fn each_kind_of_path_has_its_own_methods() {
    let edge = edge(&[]).await;
    for (method, rest, allow) in [
        ("POST", "/here", "GET,HEAD,PATCH,DELETE"),
        ("PUT", "/here", "GET,HEAD,PATCH,DELETE"),
        ("GET", "/here:addOrUpdateBlocklistItems", "POST"),
        ("DELETE", "/here:removeBlocklistItems", "POST"),
        ("PUT", "/here:removeBlocklistItems", "POST"),
        ("POST", "", "GET,HEAD"),
        ("DELETE", "/here/blocklistItems", "GET,HEAD"),
        ("PATCH", "/here/blocklistItems/1", "GET,HEAD"),
    ] {
        let refused = send(&edge, method, &path(rest), "{}").await;
        assert_eq!(code(&refused), (405, "MethodNotAllowed".to_owned()), "{method} {rest}");
        assert_eq!(refused.headers["allow"], allow, "{method} {rest}");
    }
}

#[tokio::test]
async fn bad_names_and_bodies_say_what_is_wrong() {
    let edge = edge(&[]).await;
    for rest in ["/a%20b", &format!("/{}", "x".repeat(65)), "/a:b", "/a%2Fb"] {
        let refused = edge.get(&path(rest)).await;
        assert_eq!(code(&refused), (400, "InvalidResourceName".to_owned()), "{rest}");
    }
    assert_eq!(edge.get(&path("/%FF")).await.status, 404);
    let add = path("/here:addOrUpdateBlocklistItems");
    for (body, target) in [
        (json!({}), "blocklistItems"),
        (json!({"blocklistItems": []}), "blocklistItems"),
        (json!({"blocklistItems": [{"text": ""}]}), "blocklistItems.0.text"),
        // This one is the service's to refuse.
        (json!({"blocklistItems": [{"text": "(", "isRegex": true}]}), "blocklistItems.0"),
    ] {
        let refused = edge.post(&add, &body).await;
        assert_eq!(code(&refused), (400, "InvalidRequestBody".to_owned()), "{body}");
        assert_eq!(refused.json()["error"]["target"], target, "{body}");
    }
    let other = send(&edge, "PATCH", &path("/here"), r#"{"blocklistName":"there"}"#).await;
    assert_eq!(other.json()["error"]["target"], "blocklistName");
    assert_eq!(edge.get(LISTS).await.status, 400);
}

#[tokio::test]
async fn following_the_links_reads_every_item_once() {
    let edge = edge(&[]).await;
    let mut url = format!("{}&maxpagesize=2", path("/here/blocklistItems"));
    let mut ids = Vec::new();
    loop {
        let request = Request::get(&url).header("host", "koine.test:8080");
        let page = edge.send(request.body(Body::empty()).unwrap()).await.json();
        let page_ids = page["value"].as_array().unwrap().iter();
        ids.extend(page_ids.map(|item| item["blocklistItemId"].as_str().unwrap().to_owned()));
        match page.get("nextLink") {
            None => break,
            Some(link) => url = link.as_str().unwrap().to_owned(),
        }
        assert!(
            url.starts_with("http://koine.test:8080/contentsafety/text/blocklists/here/"),
            "{url}"
        );
        assert!(url.contains("api-version=2024-09-01&"), "{url}");
    }
    assert_eq!(ids, ["id-a", "id-b", "id-c"]);
    let item = edge.get(&path("/here/blocklistItems/id-a")).await.json();
    assert_eq!(item, json!({"blocklistItemId": "id-a", "text": "a"}));
    let refused = edge.get(&format!("{}&top=x", path("/here/blocklistItems"))).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["target"]), (400, &json!("top")));
}

#[tokio::test]
async fn protected_material_is_found_or_there_is_nothing_to_compare_with() {
    let edge = edge(&[]).await;
    let path = |route: &str| format!("/contentsafety/text:{route}?api-version=2024-09-15-preview");
    let found = edge.post(&path("detectProtectedMaterial"), &json!({"text": "known"})).await;
    assert_eq!(found.json(), json!({"protectedMaterialAnalysis": {"detected": true}}));
    let empty = edge.post(&path("detectProtectedMaterial"), &json!({"text": ""})).await;
    assert_eq!(code(&empty), (400, "InvalidRequestBody".to_owned()));
    let none = edge.post(&path("detectProtectedMaterialForCode"), &json!({"code": "x"})).await;
    assert_eq!(code(&none), (404, "ResourceNotFound".to_owned()));
    // Not served, so not there.
    assert_eq!(edge.post(&path("detectGroundedness"), &json!({"text": "x"})).await.status, 404);
}
